"use strict";
// One filter: its weights, where on the image it fires, and which examples make it fire most.

const PLACES = 5;
const PATCHES = 8;

function makeFilter(viewer, part) {
  const convolutions = viewer.network.layers.map((layer, at) => ({ layer, at })).filter(({ layer }) => layer.kind === "conv");
  if (!convolutions.length) return;
  const layers = part("filter-layer");
  const filters = part("filter-number");
  layers.replaceChildren(...convolutions.map(({ layer, at }) => make("option", { value: at }, layer.name)));
  layers.addEventListener("change", () => viewer.open(Number(layers.value), 0));
  filters.addEventListener("change", () => viewer.open(viewer.filter.at, Number(filters.value)));
  viewer.filter = { at: convolutions[0].at, index: 0 };
  viewer.on("filter", () => {
    const { at, index } = viewer.filter;
    const count = viewer.network.layers[at].output[0];
    layers.value = at;
    if (filters.options.length !== count) {
      filters.replaceChildren(...Array.from({ length: count }, (_, i) => make("option", { value: i }, `${i + 1} of ${count}`)));
    }
    filters.value = index;
    showWeights(viewer, part("filter-weights"), at, index);
    showPatches(viewer, part("fire-examples"), at, index);
    fires();
  });
  const fires = () => showFires(viewer, part("fires"), part("fire-places"), viewer.filter.at, viewer.filter.index);
  viewer.on("image", fires);
}

// The filter's part for each map below, as numbers where it has few and as pictures where it has many.
function showWeights(viewer, host, at, filter) {
  const layer = viewer.network.layers[at];
  const channels = layer.input[0];
  const parts = Array.from({ length: channels }, (_, channel) => filterWeights(viewer.network, layer, filter, channel));
  const scale = Math.max(...parts.map(largest));
  if (channels <= 3) return host.replaceChildren(...parts.map((weights) => numberGrid(weights, layer.size, { scale })));
  const canvas = pixelCanvas({ role: "img", "aria-label": `${channels} parts of ${layer.size} by ${layer.size} weights, one for each map below` });
  paintFilter(canvas, viewer.network, at, filter);
  return host.replaceChildren(canvas);
}

// The filter's map over the image: each neuron colours the pixels around the middle of its receptive field.
function showFires(viewer, host, list, at, filter) {
  const { network, results } = viewer;
  const layer = network.layers[at];
  const [channels, height, width] = network.layers[0].output;
  const image = pixelCanvas({ "aria-hidden": "true" });
  paintImage(image, viewer.pixels, [channels, height, width], viewer.data.drawing);
  const heat = make("canvas", { class: "heat", "aria-hidden": "true" });
  paintHeat(heat, network, results, at, filter);
  const places = placesApart(layer, results[at].value, filter);
  const frames = places.map(({ index }, i) => {
    const frame = make("div", { class: "frame place" }, String(i + 1));
    placeFrame(frame, fieldOn(network, at, index, 0), width, height);
    return frame;
  });
  host.replaceChildren(image, heat, ...frames);
  list.replaceChildren(...places.map((place, i) => placeButton(viewer, at, place, i)));
  if (!places.length) list.replaceChildren(make("p", { class: "soft" }, "It fires nowhere on this image."));
  oneTabStop(list);
}

// The places where a filter fires most, none of them within another one's patch.
function placesApart(layer, values, filter) {
  const size = layer.output[1] * layer.output[2];
  const inOrder = Array.from({ length: size }, (_, i) => filter * size + i).sort((a, b) => values[b] - values[a]);
  const found = [];
  for (const index of inOrder) {
    const value = values[index];
    if (value <= 0 || found.length === PLACES) break;
    const { row, column } = placeOf(layer, index);
    const near = (other) => Math.max(Math.abs(other.row - row), Math.abs(other.column - column)) * layer.stride < layer.size;
    if (!found.some(near)) found.push({ index, value, row, column });
  }
  return found;
}

function placeButton(viewer, at, { index, value, row, column }, i) {
  return make("button", { type: "button", onclick: () => viewer.hold(at, index) },
    `${i + 1}: row ${row + 1}, column ${column + 1}, ${short(value)}`);
}

function paintHeat(canvas, network, results, at, filter) {
  const layer = network.layers[at];
  const [, height, width] = network.layers[0].output;
  const [, rows, columns] = layer.output;
  const scale = largest(results[at].value.subarray(filter * rows * columns, (filter + 1) * rows * columns)) || 1;
  const zoom = Math.max(1, Math.round(240 / Math.max(height, width)));
  Object.assign(canvas, { width: width * zoom, height: height * zoom });
  const context = canvas.getContext("2d");
  const reach = jumpOf(network, at) / 2;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const share = results[at].value[neuronAt(layer, { map: filter, row, column })] / scale;
      const { x, y } = middleOf(network, at, row, column);
      context.fillStyle = css(share < 0 ? PALETTE.negative : PALETTE.positive);
      context.globalAlpha = 0.8 * Math.abs(share);
      context.fillRect((x - reach) * zoom, (y - reach) * zoom, 2 * reach * zoom, 2 * reach * zoom);
    }
  }
}

// The middle of a neuron's receptive field, in pixels of the image.
function middleOf(network, at, row, column) {
  let block = { top: row, bottom: row, left: column, right: column };
  for (let i = at; i > 0; i--) block = blockBelow(network.layers[i], block);
  return { x: (block.left + block.right + 1) / 2, y: (block.top + block.bottom + 1) / 2 };
}

// The examples that make the filter fire most, each with the place where it does.
function showPatches(viewer, host, at, filter) {
  const found = viewer.fires ? viewer.fires[at][filter].slice(0, PATCHES).filter(({ value }) => value > 0) : [];
  const [, height, width] = viewer.network.layers[0].output;
  host.replaceChildren(...found.map(({ picture, index, value }) => {
    const button = thumbnail(viewer, picture, short(value));
    const frame = make("div", { class: "frame field" });
    placeFrame(frame, fieldOn(viewer.network, at, index, 0), width, height);
    button.firstChild.replaceWith(make("div", { class: "map" }, button.firstChild.cloneNode(), frame));
    paintImage(button.querySelector("canvas"), pictureOf(viewer, picture), viewer.network.layers[0].output, viewer.data.drawing);
    return button;
  }));
  oneTabStop(host);
}

// A network without convolutions: the weights of each neuron of the first layer as a picture of the image's size.
function makeWeightPictures(viewer, host) {
  const layer = viewer.network.layers[1];
  if (layer.kind !== "dense") return;
  const [, , width] = layer.input;
  const scale = largest(viewer.network.weights.subarray(layer.weight, layer.weight + layer.output[0] * volume(layer.input)));
  const buttons = Array.from({ length: Math.min(layer.output[0], MOST_MAPS) }, (_, neuron) => {
    const canvas = pixelCanvas({ "aria-hidden": "true" });
    const paint = () => paintSigned(canvas, neuronWeights(viewer.network, layer, neuron), width, scale);
    paint();
    viewer.on("theme", paint);
    const words = `Weights of neuron ${neuron + 1}: see its arithmetic`;
    const look = () => viewer.look(1, neuron);
    return make("button", { type: "button", class: "thumbnail", title: words, "aria-label": words, onfocus: look,
      onpointerenter: look, onclick: () => viewer.hold(1, neuron) }, canvas);
  });
  host.replaceChildren(...buttons);
  oneTabStop(host);
}
