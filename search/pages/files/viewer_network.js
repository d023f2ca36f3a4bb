"use strict";
// The network itself: its weights out of the page's text, and the forward pass, layer by layer, as PyTorch computes it
// when it is not training. Numbers are kept in single precision and summed in double precision.

// Base64 -> numbers of 1 byte (whole, 0 to 255), 2 bytes or 4 bytes (floating point).
function decoded(text, bytes) {
  const letters = atob(text);
  const raw = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) raw[i] = letters.charCodeAt(i);
  if (bytes === 1) return raw;
  if (bytes === 4) return new Float32Array(raw.buffer);
  return Float32Array.from(new Uint16Array(raw.buffer), fromHalf);
}

// IEEE 754's half precision: 1 bit for the sign, 5 for the exponent, 10 for the fraction.
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

function volume(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

function makeNetwork(model) {
  return { ...model, weights: decoded(model.weights.text, model.weights.bytes) };
}

// What the network makes of an image, in raw units and channels first. For each layer: `sum` (the products and the
// bias), `normed` (behind batch norm), and `value`, its output. A layer that does no such thing has the same in each.
function forward(network, pixels) {
  const results = [];
  for (const layer of network.layers) {
    const below = results.length ? results[results.length - 1].value : pixels;
    if (layer.kind === "input") results.push(same(standardised(network, pixels)));
    else if (layer.kind.endsWith("_pool")) results.push(same(pooled(layer, below)));
    else results.push(computed(layer, network.weights, below));
  }
  return results;
}

function same(value) {
  return { sum: value, normed: value, value };
}

// (pixel - mean) / std in each channel, in single precision throughout.
function standardised(network, pixels) {
  const size = pixels.length / network.mean.length;
  const means = Float32Array.from(network.mean);
  const deviations = Float32Array.from(network.std);
  return Float32Array.from(pixels, (pixel, i) => {
    const channel = Math.floor(i / size);
    return Math.fround(pixel - means[channel]) / deviations[channel];
  });
}

function computed(layer, weights, below) {
  const sum = layer.kind === "conv" ? convolved(layer, weights, below) : multiplied(layer, weights, below);
  const normed = "scale" in layer ? normalised(layer, weights, sum) : sum;
  const activation = ACTIVATIONS[layer.activation];
  return { sum, normed, value: activation ? normed.map(activation) : normed };
}

function convolved(layer, weights, below) {
  const [channels, height, width] = layer.input;
  const [filters, rows, columns] = layer.output;
  const { size, stride, padding } = layer;
  const sums = new Float32Array(filters * rows * columns);
  const map = new Float64Array(rows * columns);
  for (let filter = 0; filter < filters; filter++) {
    map.fill(biasOf(layer, weights, filter));
    for (let channel = 0; channel < channels; channel++) {
      for (let y = 0; y < size; y++) {
        const firstRow = Math.max(0, Math.ceil((padding - y) / stride));
        const lastRow = Math.min(rows - 1, Math.floor((height - 1 + padding - y) / stride));
        for (let x = 0; x < size; x++) {
          const weight = weights[layer.weight + ((filter * channels + channel) * size + y) * size + x];
          const first = Math.max(0, Math.ceil((padding - x) / stride));
          const last = Math.min(columns - 1, Math.floor((width - 1 + padding - x) / stride));
          for (let row = firstRow; row <= lastRow; row++) {
            const from = (channel * height + row * stride + y - padding) * width + x - padding;
            const to = row * columns;
            for (let column = first; column <= last; column++) map[to + column] += weight * below[from + column * stride];
          }
        }
      }
    }
    sums.set(map, filter * rows * columns);
  }
  return sums;
}

function multiplied(layer, weights, below) {
  const sums = new Float32Array(layer.output[0]);
  for (let neuron = 0; neuron < sums.length; neuron++) {
    const from = layer.weight + neuron * below.length;
    let sum = biasOf(layer, weights, neuron);
    for (let i = 0; i < below.length; i++) sum += weights[from + i] * below[i];
    sums[neuron] = sum;
  }
  return sums;
}

function biasOf(layer, weights, filter) {
  return "bias" in layer ? weights[layer.bias + filter] : 0;
}

function normalised(layer, weights, sums) {
  const size = sums.length / layer.output[0];
  const normed = new Float32Array(sums.length);
  for (let filter = 0, i = 0; filter < layer.output[0]; filter++) {
    const { mean, scale, shift } = normOf(layer, weights, filter);
    for (const end = i + size; i < end; i++) normed[i] = (sums[i] - mean) * scale + shift;
  }
  return normed;
}

// What batch norm learnt of a filter's sums: (sum - mean) * scale + shift.
function normOf(layer, weights, filter) {
  const [mean, scale, shift] = ["mean", "scale", "shift"].map((name) => weights[layer[name] + filter]);
  return { mean, scale, shift };
}

// 2x2 pooling with stride 2; a last odd row or column is left out.
function pooled(layer, below) {
  const [, height, width] = layer.input;
  const [channels, rows, columns] = layer.output;
  const values = new Float32Array(channels * rows * columns);
  for (let channel = 0, to = 0; channel < channels; channel++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, to++) {
        const at = (channel * height + 2 * row) * width + 2 * column;
        const four = [below[at], below[at + 1], below[at + width], below[at + width + 1]];
        values[to] = layer.kind === "max_pool" ? Math.max(...four) : (four[0] + four[1] + four[2] + four[3]) / 4;
      }
    }
  }
  return values;
}

const ACTIVATIONS = {
  relu: (z) => Math.max(z, 0),
  tanh: Math.tanh,
  gelu: (z) => (z * (1 + erf(z / Math.SQRT2))) / 2,
  silu: (z) => z / (1 + Math.exp(-z)),
  leaky_relu: (z) => (z > 0 ? z : 0.01 * z),
  elu: (z) => (z > 0 ? z : Math.expm1(z)),
  sigmoid: (z) => 1 / (1 + Math.exp(-z)),
};

// Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 7.1.26: within 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}
