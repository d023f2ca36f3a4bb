"use strict";
// Scales, sizes and pixels: what all pictures of the report are drawn with.

// A scale takes values to places from 0 to 1; `ticks` are values to write beside it.
function scaleOf(values, { log = false, low = null, high = null } = {}) {
  let least = low, most = high;
  if (least === null || most === null) {
    let smallest = Infinity, largest = -Infinity;
    for (const value of values) {
      if (value === null || Number.isNaN(value) || (log && value <= 0)) continue;
      if (value < smallest) smallest = value;
      if (value > largest) largest = value;
    }
    if (smallest > largest) smallest = log ? 0.1 : 0, largest = 1;
    least ??= smallest;
    most ??= largest;
  }
  if (least === most) {
    if (log) least /= 2, most *= 2;
    else least -= Math.abs(least) * 0.1 || 0.5, most += Math.abs(most) * 0.1 || 0.5;
  }
  const start = log ? Math.log10(least) : least;
  const length = (log ? Math.log10(most) : most) - start;
  const at = (value) => ((log ? Math.log10(Math.max(value, Number.MIN_VALUE)) : value) - start) / length;
  const back = (place) => (log ? 10 ** (start + place * length) : start + place * length);
  return { low: least, high: most, log, at, back, ticks: log ? logTicks(least, most) : evenTicks(least, most) };
}

// For metrics, which may run away: from the best to where nine in ten are, logarithmic where that spans much.
function metricScale(values) {
  const there = Float64Array.from(values.filter((value) => value !== null)).sort();
  if (!there.length) return scaleOf([], { low: 0, high: 1 });
  const [low, high] = [there[0], there[Math.floor(0.9 * (there.length - 1))]];
  const positive = there.find((value) => value > 0) ?? 1;
  if (high / positive > 15) return scaleOf([], { log: true, low: Math.max(positive / 1.25, high / 1e4), high });
  return scaleOf([], { low: low - 0.05 * (high - low), high });
}

function evenTicks(low, high, about = 5) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough * 0.99);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + 1e-9 * step; tick++) ticks.push(tick * step);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const decades = Math.log10(high / low);
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const digit of decades > 3 ? [1] : decades > 1.3 ? [1, 3] : [1, 2, 5]) {
      const tick = digit * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks.length ? ticks : [low, high];
}

function tickText(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(0).replace("e-", "e−").replace("e+", "e");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

// A canvas of its own size in the device's pixels, and what is drawn on it in the page's.
function sizedCanvas(place, width, height, label) {
  let canvas = place.querySelector("canvas");
  if (!canvas) {
    canvas = make("canvas", { role: "img" });
    place.append(canvas);
  }
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    canvas.style.maxWidth = "none";
  }
  canvas.setAttribute("aria-label", label);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  return pen;
}

function rgb(name) {
  const pen = (rgb.pen ??= make("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true }));
  pen.fillStyle = colour(name);
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

const SHADES = 64;

// From the dull ones to the best: SHADES colours as RGB, for trials by rank.
function shades() {
  const [line, soft, to] = [rgb("line"), rgb("soft"), rgb("blue")];
  const from = line.map((value, channel) => 0.7 * value + 0.3 * soft[channel]);
  return Array.from({ length: SHADES }, (_, shade) => {
    const part = Math.pow(shade / (SHADES - 1), 1.5);
    return from.map((value, channel) => Math.round(value + (to[channel] - value) * part));
  });
}

// Pixels by hand: tens of thousands of lines and points, far quicker than a canvas strokes them. A pixel has the average
// shade of all that passes through it, and is the more opaque the more there are.
class Pixels {
  constructor(width, height) {
    const ratio = window.devicePixelRatio || 1;
    this.ratio = ratio;
    this.width = Math.max(1, Math.round(width * ratio));
    this.height = Math.max(1, Math.round(height * ratio));
    this.count = new Uint16Array(this.width * this.height);
    this.sum = new Uint32Array(this.width * this.height);
  }

  // From one point inside to another, for so many trials at a time; whole numbers of 1/65536 of a pixel.
  line(x0, y0, x1, y1, shade, times = 1) {
    const { width, count, sum } = this;
    const [right, last] = [width - 1, this.height - 1];
    const inside = (value, most) => Math.round(Math.min(most, Math.max(0, value * this.ratio)) * 65536);
    let x = inside(x0, right), y = inside(y0, last);
    const [wide, high] = [inside(x1, right) - x, inside(y1, last) - y];
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(wide), Math.abs(high)) / 65536));
    const weight = times * shade;
    const [dx, dy] = [(wide / steps) | 0, (high / steps) | 0];
    for (let step = 0; step < steps; step++) {
      const pixel = (y >> 16) * width + (x >> 16);
      count[pixel] += times;
      sum[pixel] += weight;
      x += dx;
      y += dy;
    }
  }

  point(x, y, shade, size) {
    const { ratio, width, height, count, sum } = this;
    const side = Math.max(1, Math.round(size * ratio));
    const left = Math.max(0, Math.min(width - side, Math.round(x * ratio - side / 2)));
    const upper = Math.max(0, Math.min(height - side, Math.round(y * ratio - side / 2)));
    for (let row = upper; row < upper + side; row++) {
      const corner = side > 3 && (row === upper || row === upper + side - 1) ? 1 : 0;
      for (let pixel = row * width + left + corner; pixel < row * width + left + side - corner; pixel++) {
        count[pixel]++;
        sum[pixel] += shade;
      }
    }
  }

  // Paints all of it at a place of the canvas, over what is there.
  paint(pen, left, upper, colours, alone) {
    const { width, height, count, sum } = this;
    const image = new ImageData(width, height);
    const data = new Uint32Array(image.data.buffer); // its bytes are red, green, blue and opacity, on every machine in use
    const inks = Uint32Array.from(colours, ([red, green, blue]) => red | (green << 8) | (blue << 16));
    const opacity = Uint32Array.from({ length: 256 }, (_, times) => Math.min(255, alone + 36 * Math.log2(times || 1)) << 24);
    for (let pixel = 0; pixel < count.length; pixel++) {
      const times = count[pixel];
      if (times > 0) data[pixel] = inks[(sum[pixel] / times) | 0] | opacity[times < 256 ? times : 255];
    }
    const sheet = (this.sheet ??= make("canvas", { width, height }));
    sheet.getContext("2d").putImageData(image, 0, 0);
    pen.drawImage(sheet, left, upper, width / this.ratio, height / this.ratio);
  }
}
