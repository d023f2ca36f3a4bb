"use strict";
// Receptive fields: which block of a layer below a neuron looks at. A block has its first and last row and column,
// both inside; a dense layer's neurons have none of their own and look at all that is below.

function blockOf(layer, neuron) {
  if (layer.output.length === 1) return null;
  const { row, column } = placeOf(layer, neuron);
  return { top: row, bottom: row, left: column, right: column };
}

// Where a neuron stands: its map (or channel, or filter), row and column.
function placeOf(layer, neuron) {
  if (layer.output.length === 1) return { map: neuron, row: 0, column: 0 };
  const [, rows, columns] = layer.output;
  const map = Math.floor(neuron / (rows * columns));
  return { map, row: Math.floor(neuron / columns) % rows, column: neuron % columns };
}

function neuronAt(layer, { map, row, column }) {
  return layer.output.length === 1 ? map : (map * layer.output[1] + row) * layer.output[2] + column;
}

// The block of the layer's own input that a block of its output is computed from, zero-padding included.
function blockBelow(layer, block) {
  if (layer.kind === "dense") return layer.input.length === 1 ? null : whole(layer.input);
  const { size, stride, padding } = layer;
  return {
    top: block.top * stride - padding,
    bottom: block.bottom * stride - padding + size - 1,
    left: block.left * stride - padding,
    right: block.right * stride - padding + size - 1,
  };
}

function whole([, height, width]) {
  return { top: 0, bottom: height - 1, left: 0, right: width - 1 };
}

// What of a block lies on a map of this shape: the rest is zero-padding, behind which there is nothing to see.
function clipped(block, [, height, width]) {
  return {
    top: Math.max(block.top, 0),
    bottom: Math.min(block.bottom, height - 1),
    left: Math.max(block.left, 0),
    right: Math.min(block.right, width - 1),
  };
}

// The receptive field of a neuron of layer `at` on the map of layer `target` below it (0: the image).
function fieldOn(network, at, neuron, target) {
  let block = blockOf(network.layers[at], neuron);
  for (let i = at; i > target; i--) {
    block = blockBelow(network.layers[i], block);
    if (block) block = clipped(block, network.layers[i].input);
  }
  return block;
}

// Pixels of the image between two neighbours of a layer of maps.
function jumpOf(network, at) {
  return network.layers.slice(1, at + 1).reduce((jump, layer) => jump * layer.stride, 1);
}
