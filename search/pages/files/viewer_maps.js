"use strict";
// Every layer's output as pictures. Hovering, touching or the arrow keys look at one neuron; what it looks at lights up
// on the layer below, and on the image.

const DENSE_COLUMNS = 16;
const MOST_MAPS = 64;
const STRONGEST = 8; // terms of a dense neuron that are marked on the maps below

function makeMaps(viewer, host) {
  const cards = viewer.network.layers.map((layer, at) => (at ? makeCard(viewer, at) : null));
  host.replaceChildren(...cards.slice(1).map((card) => card.element));
  viewer.on("image", () => cards.slice(1).forEach((card) => card.paint()));
  viewer.on("neuron", () => {
    cards.slice(1).forEach((card) => card.clear());
    const chosen = viewer.neuron;
    if (!chosen) return;
    cards[chosen.at].point(chosen.index);
    const below = cards[chosen.at - 1];
    if (below) below.mark(seenBlocks(viewer, chosen));
  });
}

// What a neuron looks at on the layer below: [{ map, block }], or [{ index }] where that layer has no maps.
function seenBlocks(viewer, { at, index }) {
  const layer = viewer.network.layers[at];
  if (layer.kind === "dense") {
    const below = viewer.network.layers[at - 1];
    const strongest = termsOf(viewer.network, viewer.results, at, index).terms.slice(0, STRONGEST);
    return strongest.map((term) => ({ map: placeOf(below, term.index).map, block: blockOf(below, term.index), index: term.index }));
  }
  const block = clipped(blockBelow(layer, blockOf(layer, index)), layer.input);
  const { map } = placeOf(layer, index);
  const seen = layer.kind === "conv" ? [...Array(layer.input[0]).keys()] : [map];
  return seen.map((each) => ({ map: each, block }));
}

function describedLayer(layer) {
  const [count, rows, columns] = layer.output;
  if (layer.kind === "dense") {
    const activation = layer.activation ? `, then ${layer.activation}` : "";
    return `${plural(count, "neuron")}, each looks at all ${volume(layer.input).toLocaleString("en")} numbers below${activation}: ` +
      plural(layer.weights, "weight");
  }
  const maps = `${plural(count, "map")} of ${rows}×${columns}; each neuron sees ${layer.sees}×${layer.sees} pixels of the image`;
  if (layer.kind !== "conv") {
    const kept = layer.kind === "max_pool" ? "the largest" : "the mean";
    return `${kept} of each 2×2 block is kept: ${maps}`;
  }
  const norm = "scale" in layer ? ", then batch norm" : "";
  return `${plural(count, "filter")} of ${layer.size}×${layer.size}, stride ${layer.stride}, zero-padding ${layer.padding}` +
    `${norm}, then ${layer.activation}: ${maps}; ${plural(layer.weights, "weight")}`;
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

function makeCard(viewer, at) {
  const layer = viewer.network.layers[at];
  const maps = layer.output.length === 3;
  const [rows, columns] = maps ? layer.output.slice(1) : denseGrid(layer.output[0]);
  const tiles = Array.from({ length: maps ? layer.output[0] : 1 }, (_, map) => makeTile(viewer, at, map, rows, columns));
  const grid = make("div", {
    class: maps ? "maps" : "maps dense", tabindex: 0, role: "application", id: `maps-${layer.name}`,
    style: `--columns: ${columns}; --rows: ${rows}`, "aria-label":
      `Neurons of ${layer.name}. Arrow keys move from neuron to neuron${maps ? ", Page Up and Page Down from map to map" : ""}, ` +
      `Enter holds one${layer.kind === "conv" ? ", F opens its filter" : ""}, Escape lets go.`,
  }, tiles.slice(0, MOST_MAPS).map((tile) => tile.element));
  const legend = make("span", { class: "legend" });
  const element = make("section", { class: "layer panel", "aria-label": layer.name },
    make("h3", {}, layer.name, " ", legend), make("p", { class: "soft" }, describedLayer(layer)), grid, moreTiles(grid, tiles));
  grid.addEventListener("keydown", (event) => moveByKey(event, viewer, at, rows, columns));
  grid.addEventListener("focus", () => {
    if (!viewer.neuron || viewer.neuron.at !== at) viewer.look(at, 0);
  });
  return {
    element,
    paint() {
      const values = viewer.results[at].value;
      const scale = largest(values);
      tiles.forEach((tile) => tile.paint(values, scale));
      legend.replaceChildren(short(-scale), make("i", {}), short(scale));
    },
    clear: () => tiles.forEach((tile) => tile.clear()),
    point(index) {
      const place = maps ? placeOf(layer, index) : cellOf(index, columns);
      tiles[maps ? place.map : 0].frame("cursor", { top: place.row, bottom: place.row, left: place.column, right: place.column });
    },
    mark(seen) {
      for (const { map, block, index } of seen) {
        const { row, column } = maps ? {} : cellOf(index, columns);
        tiles[maps ? map : 0].frame("seen", maps ? block : { top: row, bottom: row, left: column, right: column });
      }
    },
  };
}

function denseGrid(neurons) {
  return [Math.ceil(neurons / DENSE_COLUMNS), Math.min(neurons, DENSE_COLUMNS)];
}

function cellOf(index, columns) {
  return { row: Math.floor(index / columns), column: index % columns };
}

// A button for the maps that are too many to show at once.
function moreTiles(grid, tiles) {
  const rest = tiles.slice(MOST_MAPS);
  if (!rest.length) return null;
  const button = make("button", { type: "button", onclick: () => {
    grid.append(...rest.map((tile) => tile.element));
    button.remove();
  } }, `Show the other ${plural(rest.length, "map")}`);
  return button;
}

function makeTile(viewer, at, map, rows, columns) {
  const layer = viewer.network.layers[at];
  const canvas = pixelCanvas({ "aria-hidden": "true" });
  const picture = make("div", { class: "map" }, canvas);
  const element = make("div", { class: "tile" }, picture, layer.kind === "conv" ? filterButton(viewer, at, map) : null);
  const size = layer.output.length === 3 ? rows * columns : layer.output[0];
  const neuron = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.min(Math.max(Math.floor(((event.clientY - box.top) / box.height) * rows), 0), rows - 1);
    const column = Math.min(Math.max(Math.floor(((event.clientX - box.left) / box.width) * columns), 0), columns - 1);
    const inside = row * columns + column;
    return inside < size ? map * size + inside : null;
  };
  picture.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return; // a finger that moves, scrolls; its tap is a click
    const index = neuron(event);
    if (index !== null) viewer.look(at, index);
  });
  picture.addEventListener("click", (event) => {
    const index = neuron(event);
    if (index !== null) viewer.hold(at, index);
  });
  return {
    element,
    paint: (values, scale) => paintSigned(canvas, values.subarray(map * size, (map + 1) * size), columns, scale),
    clear: () => picture.querySelectorAll(".frame").forEach((frame) => frame.remove()),
    frame(kind, block) {
      const frame = make("div", { class: `frame ${kind}` });
      placeFrame(frame, block, columns, rows);
      picture.append(frame);
    },
  };
}

// The filter under its map; a click shows where it fires.
function filterButton(viewer, at, filter) {
  const canvas = pixelCanvas({ "aria-hidden": "true" });
  paintFilter(canvas, viewer.network, at, filter);
  viewer.on("theme", () => paintFilter(canvas, viewer.network, at, filter));
  const label = `Filter ${filter + 1} of ${viewer.network.layers[at].name}: see where it fires`;
  return make("button", { class: "filter", type: "button", tabindex: -1, title: label, "aria-label": label,
    onclick: () => openFilter(viewer, at, filter) }, canvas);
}

function openFilter(viewer, at, filter) {
  viewer.open(at, filter);
  document.getElementById("filter").scrollIntoView({ block: "start" });
  document.getElementById("filter-layer").focus({ preventScroll: true });
}

function moveByKey(event, viewer, at, rows, columns) {
  const layer = viewer.network.layers[at];
  const count = volume(layer.output);
  const here = viewer.neuron && viewer.neuron.at === at ? viewer.neuron.index : 0;
  const map = layer.output.length === 3 ? rows * columns : 0;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: map, PageUp: -map }[event.key];
  if (step) {
    const next = Math.min(Math.max(here + step, 0), count - 1);
    viewer.held = false;
    viewer.look(at, next);
  } else if (event.key === "Enter" || event.key === " ") viewer.hold(at, here);
  else if (event.key.toLowerCase() === "f" && layer.kind === "conv") openFilter(viewer, at, placeOf(layer, here).map);
  else return;
  event.preventDefault();
}
