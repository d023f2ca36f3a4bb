"use strict";
// The arithmetic of one neuron, as numbers. `viewer_drawer.js` spells it out.

// For a convolution `groups`, one for each map below: { map, patch, weights, sum }, the largest sum first, where
// zero-padding is null in the patch. For a dense layer `terms`: { index, value, weight, product }, the largest product
// first. For pooling `patch`. And for all of them what comes behind: bias, sum, norm, normed, value.
function termsOf(network, results, at, index) {
  const layer = network.layers[at];
  const below = results[at - 1].value;
  const { map } = placeOf(layer, index);
  const found = { layer, value: results[at].value[index] };
  if (layer.kind.endsWith("_pool")) {
    const block = blockBelow(layer, blockOf(layer, index));
    return { ...found, patch: patchOf(layer.input, below, map, block) };
  }
  Object.assign(found, {
    bias: "bias" in layer ? network.weights[layer.bias + map] : null,
    sum: results[at].sum[index],
    norm: "scale" in layer ? normOf(layer, network.weights, map) : null,
    normed: results[at].normed[index],
  });
  if (layer.kind === "conv") return { ...found, groups: groupsOf(network, layer, below, map, blockBelow(layer, blockOf(layer, index))) };
  return { ...found, terms: productsOf(network, layer, below, index) };
}

// The values of a block of a map, row by row; null for what lies outside it.
function patchOf([, height, width], values, map, block) {
  const patch = [];
  for (let row = block.top; row <= block.bottom; row++) {
    for (let column = block.left; column <= block.right; column++) {
      const inside = row >= 0 && row < height && column >= 0 && column < width;
      patch.push(inside ? values[(map * height + row) * width + column] : null);
    }
  }
  return patch;
}

function groupsOf(network, layer, below, filter, block) {
  const groups = Array.from({ length: layer.input[0] }, (_, map) => {
    const patch = patchOf(layer.input, below, map, block);
    const weights = filterWeights(network, layer, filter, map);
    return { map, patch, weights, sum: patch.reduce((sum, value, i) => sum + value * weights[i], 0) };
  });
  return groups.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
}

function filterWeights(network, layer, filter, channel) {
  const area = layer.size ** 2;
  const from = layer.weight + (filter * layer.input[0] + channel) * area;
  return network.weights.subarray(from, from + area);
}

function neuronWeights(network, layer, neuron) {
  const from = layer.weight + neuron * volume(layer.input);
  return network.weights.subarray(from, from + volume(layer.input));
}

function productsOf(network, layer, below, neuron) {
  const weights = neuronWeights(network, layer, neuron);
  const terms = Array.from(below, (value, index) => ({ index, value, weight: weights[index], product: value * weights[index] }));
  return terms.sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
}
