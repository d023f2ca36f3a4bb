"use strict";
// Arrays as pictures: images in their own greys or colours, and other numbers from blue (negative) by the paper's
// colour (zero) to orange (positive), which people with any kind of colour vision can tell apart.

function channelsOf(name) {
  const hex = colour(name).slice(1);
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

const SHADES = 255; // of each colour
const PALETTE = {};

function readPalette() {
  Object.assign(PALETTE, { negative: channelsOf("blue"), zero: channelsOf("paper"), positive: channelsOf("orange") });
  PALETTE.shades = new Uint8ClampedArray(4 * (2 * SHADES + 1)).fill(255);
  for (let i = -SHADES; i <= SHADES; i++) PALETTE.shades.set(signedColour(i / SHADES), 4 * (i + SHADES));
  PALETTE.shades = new Uint32Array(PALETTE.shades.buffer); // one number a pixel
}

// The colour of a number between -1 and 1.
function signedColour(share) {
  const end = share < 0 ? PALETTE.negative : PALETTE.positive;
  const strength = Math.min(Math.abs(share), 1) || 0;
  return PALETTE.zero.map((from, i) => Math.round(from + (end[i] - from) * strength));
}

// Black or white, whichever is easier to read on this colour.
function inkOn([red, green, blue]) {
  return red * 0.299 + green * 0.587 + blue * 0.114 > 128 ? "#000" : "#fff";
}

function css([red, green, blue]) {
  return `rgb(${red}, ${green}, ${blue})`;
}

function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

// Pixel by pixel; one without a colour stays see-through.
function fill(canvas, width, height, colourAt) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const shade = colourAt(i);
    if (shade) picture.data.set([...shade, 255], 4 * i);
  }
  context.putImageData(picture, 0, 0);
}

// Numbers of `width` columns; `scale` is the number that gets the full colour. What lies behind the last stays paper.
function paintSigned(canvas, values, width, scale) {
  Object.assign(canvas, { width, height: Math.ceil(values.length / width) });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < values.length; i++) pixels[i] = PALETTE.shades[SHADES + Math.round((SHADES * values[i]) / (scale || 1))];
  context.putImageData(picture, 0, 0);
}

// An image in raw units, channels first.
function paintImage(canvas, pixels, [channels, height, width], { low, high }) {
  fill(canvas, width, height, (i) => shadeOf(pixels, i, channels, height * width, low, high));
}

function shadeOf(pixels, i, channels, size, low, high) {
  return [0, 1, 2].map((channel) => (255 * (pixels[(channels === 1 ? 0 : channel) * size + i] - low)) / (high - low));
}

// A filter as a picture: its part for each map below, side by side, with a see-through line between them.
function paintFilter(canvas, network, at, filter) {
  const layer = network.layers[at];
  const { size } = layer;
  const channels = layer.input[0];
  const across = channels <= 3 ? channels : Math.ceil(Math.sqrt(channels));
  const parts = Array.from({ length: channels }, (_, channel) => filterWeights(network, layer, filter, channel));
  const scale = Math.max(...parts.map(largest));
  const [width, height] = [across, Math.ceil(channels / across)].map((count) => count * (size + 1) - 1);
  fill(canvas, width, height, (i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    const channel = Math.floor(row / (size + 1)) * across + Math.floor(column / (size + 1));
    const [y, x] = [row % (size + 1), column % (size + 1)];
    return y < size && x < size && channel < channels ? signedColour(parts[channel][y * size + x] / scale) : null;
  });
}

function pixelCanvas(attributes) {
  return make("canvas", { class: "pixels", ...attributes });
}

// Moves a frame that lies over a canvas of `width` by `height` pixels to a block of them; hides it without one.
function placeFrame(frame, block, width, height) {
  frame.hidden = !block;
  if (!block) return;
  frame.style.left = `${(100 * block.left) / width}%`;
  frame.style.top = `${(100 * block.top) / height}%`;
  frame.style.width = `${(100 * (block.right - block.left + 1)) / width}%`;
  frame.style.height = `${(100 * (block.bottom - block.top + 1)) / height}%`;
}
