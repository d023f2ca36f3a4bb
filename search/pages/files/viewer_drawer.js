"use strict";
// The drawer at the foot of the page: the arithmetic of the neuron that is looked at, spelled out.

const CELL = 25; // pixels of one number
const SHOWN_TERMS = 6;
const COLOURS = ["red", "green", "blue"];

function makeDrawer(viewer, host, spoken) {
  const close = make("button", { type: "button", class: "close", "aria-label": "Close the arithmetic", onclick: viewer.letGo }, "×");
  const body = make("div", { class: "sums" });
  host.replaceChildren(close, body);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") viewer.letGo();
  });
  viewer.on("neuron", () => {
    const chosen = viewer.neuron;
    host.hidden = !chosen;
    document.body.classList.toggle("drawn", Boolean(chosen));
    if (!chosen) return;
    const terms = termsOf(viewer.network, viewer.results, chosen.at, chosen.index);
    const name = neuronName(viewer, chosen);
    spoken.textContent = `${name}: ${short(terms.value)}`;
    body.replaceChildren(whichNeuron(viewer, chosen, name), ...spelledOut(viewer, chosen, terms));
  });
}

function neuronName(viewer, { at, index }) {
  const layer = viewer.network.layers[at];
  const { map, row, column } = placeOf(layer, index);
  if (layer.output.length === 3) return `${layer.name}, map ${map + 1}, row ${row + 1}, column ${column + 1}`;
  const named = layer.name === "output" && viewer.data.classes.length;
  return named ? `${layer.name} for ${viewer.data.classes[index]}` : `${layer.name}, neuron ${index + 1}`;
}

// The image with the receptive field on it, so that it is in sight wherever the page is scrolled to.
function whichNeuron(viewer, chosen, name) {
  const shape = viewer.network.layers[0].output;
  const canvas = pixelCanvas({ "aria-hidden": "true" });
  paintImage(canvas, viewer.pixels, shape, viewer.data.drawing);
  const frame = make("div", { class: "frame field" });
  const field = fieldOn(viewer.network, chosen.at, chosen.index, 0);
  placeFrame(frame, field, shape[2], shape[1]);
  const [rows, columns] = [field.bottom - field.top + 1, field.right - field.left + 1];
  const sees = `Sees ${rows}×${columns} of the image's ${shape[1]}×${shape[2]} pixels.`;
  return make("div", { class: "which" }, make("div", { class: "map" }, canvas, frame),
    make("div", {}, make("strong", { id: "neuron-name" }, name), make("p", { class: "soft" }, sees,
      viewer.held ? " Held; Escape lets go." : " Click to hold it.")));
}

function spelledOut(viewer, { at }, terms) {
  if (terms.patch) return [pooledSum(terms)];
  const parts = terms.groups ? groupSums(viewer, at, terms) : [productPictures(viewer, at), termList(viewer, at, terms)];
  return [...parts, behindTheSum(viewer, at, terms)].filter(Boolean);
}

// Of a dense neuron right above the image: its weights as a picture, and the image times them.
function productPictures(viewer, at) {
  const below = viewer.network.layers[at - 1];
  if (below.kind !== "input") return null;
  const weights = neuronWeights(viewer.network, viewer.network.layers[at], viewer.neuron.index);
  const products = weights.map((weight, i) => weight * viewer.results[at - 1].value[i]);
  const pictures = [weights, products].map((values) => {
    const canvas = pixelCanvas({ "aria-hidden": "true" });
    paintSigned(canvas, values, below.output[2], largest(values));
    return make("div", { class: "map" }, canvas);
  });
  return make("div", { class: "sum" }, make("span", { class: "soft over" }, "image × weights = products"), make("span", {}, "×"),
    pictures[0], make("span", {}, "="), pictures[1]);
}

function pooledSum({ layer, patch, value }) {
  const most = layer.kind === "max_pool";
  return make("div", { class: "sum" }, most ? "max" : "mean", " of ", numberGrid(patch, 2, { bold: most ? value : null }),
    " = ", make("output", {}, short(value)));
}

function groupSums(viewer, at, { layer, groups }) {
  const shown = groups.slice(0, shownGroups(layer));
  const scale = largest(viewer.results[at - 1].value);
  return shown.map(({ map, patch, weights, sum }) => make("div", { class: "sum" },
    make("span", { class: "soft over" }, belowName(viewer, at, map)),
    numberGrid(patch, layer.size, { scale }), make("span", {}, "×"), numberGrid(weights, layer.size), make("span", {}, "="), make("b", {}, short(sum))));
}

// As many as fit beside the rest; two at least, one below the other on a phone.
function shownGroups({ size }) {
  return Math.max(2, Math.floor((innerWidth - 700) / (2 * CELL * size + 90)));
}

function belowName(viewer, at, map) {
  const below = viewer.network.layers[at - 1];
  if (below.kind !== "input") return `${below.name}, map ${map + 1}`;
  return below.output[0] === 1 ? "patch × filter" : `patch × filter, ${COLOURS[map]}`;
}

// Numbers in a square, each on its colour; zero-padding is hatched.
function numberGrid(values, width, { scale = largest(values), bold = null } = {}) {
  const cells = Array.from(values, (value) => {
    if (value === null) return make("span", { class: "outside", title: "zero-padding" }, "0");
    const shade = signedColour(value / scale || 0);
    const style = `background: ${css(shade)}; color: ${inkOn(shade)}`;
    return make("span", { style, class: bold !== null && value === bold ? "most" : null }, width > 5 ? "" : tiny(value));
  });
  return make("div", { class: width > 5 ? "numbers many" : "numbers", style: `--width: ${width}` }, cells);
}

function tiny(value) {
  const text = Math.abs(value) < 0.005 ? "0" : Math.abs(value) < 10 ? value.toFixed(2) : value.toFixed(0);
  return text.replace("-", "\u2212").replace("0.", ".");
}

function termList(viewer, at, { terms }) {
  const below = viewer.network.layers[at - 1];
  const rest = terms.slice(SHOWN_TERMS);
  const rows = terms.slice(0, SHOWN_TERMS).map(({ index, value, weight, product }) => make("tr", {},
    make("td", {}, termName(below, index)), make("td", { class: "number" }, `${short(value)} × ${short(weight)} =`),
    make("td", { class: "number" }, short(product))));
  if (rest.length) {
    const others = short(rest.reduce((total, term) => total + term.product, 0));
    rows.push(make("tr", {}, make("td", { colspan: 2 }, `and ${plural(rest.length, "smaller product")}`), make("td", { class: "number" }, others)));
  }
  return make("table", { class: "products" }, make("caption", { class: "soft" }, "value × weight, the largest first"), rows);
}

function termName(below, index) {
  const { map, row, column } = placeOf(below, index);
  if (below.output.length === 1) return `${below.name}, neuron ${index + 1}`;
  const where = `row ${row + 1}, column ${column + 1}`;
  if (below.kind !== "input") return `${below.name}, map ${map + 1}, ${where}`;
  return below.output[0] === 1 ? where : `${COLOURS[map]}, ${where}`;
}

// From the sum of all products to the neuron's value: bias or batch norm, activation, and for the last layer the answer.
function behindTheSum(viewer, at, { layer, groups = [], bias, sum, norm, normed, value }) {
  const lines = [];
  const rest = groups.slice(shownGroups(layer));
  if (rest.length) lines.push([`and ${plural(rest.length, "smaller one")}`, short(rest.reduce((total, group) => total + group.sum, 0))]);
  if (bias !== null) lines.push(["all products + bias", `${short(sum - bias)} ${signed(bias)} = ${short(sum)}`]);
  else lines.push(["all products", short(sum)]);
  if (norm) {
    const { mean, scale, shift } = norm;
    lines.push(["batch norm",
      `(${short(sum)} ${signed(-mean)}) × ${short(scale)} ${signed(shift)} = ${short(normed)}`]);
  }
  if (layer.activation) lines.push(["activation", `${layer.activation}(${short(normed)}) = ${short(value)}`]);
  const classes = layer.name === "output" && viewer.data.classes.length;
  if (classes) lines.push(["softmax", percent(softmax(viewer.results[at].value)[viewer.neuron.index])]);
  const list = make("dl", {}, lines.flatMap(([what, numbers], i) => [make("dt", { class: "soft" }, what),
    make("dd", {}, i === lines.length - 1 ? make("output", {}, numbers) : numbers)]));
  return make("div", { class: "behind" }, list, layer.activation ? curveOf(layer.activation, normed) : null);
}

function signed(value) {
  return value < 0 ? `− ${short(-value)}` : `+ ${short(value)}`;
}

// The activation's curve with this neuron on it.
function curveOf(name, at) {
  const reach = Math.max(3, Math.abs(at) * 1.2);
  const f = ACTIVATIONS[name];
  const [low, high] = [Math.min(f(-reach), f(-1), -0.3), Math.max(f(reach), 1)];
  const x = (z) => 4 + (112 * (z + reach)) / (2 * reach);
  const y = (a) => 60 - (56 * (a - low)) / (high - low);
  const points = Array.from({ length: 61 }, (_, i) => ((i - 30) / 30) * reach).map((z) => `${x(z).toFixed(1)},${y(f(z)).toFixed(1)}`);
  return draw("svg", { viewBox: "0 0 120 64", width: 120, height: 64, role: "img", "aria-label": `The curve of ${name}` },
    draw("line", { x1: 0, x2: 120, y1: y(0), y2: y(0), class: "axis" }), draw("line", { x1: x(0), x2: x(0), y1: 0, y2: 64, class: "axis" }),
    draw("polyline", { points: points.join(" "), class: "curve" }), draw("circle", { cx: x(at), cy: y(f(at)), r: 4, class: "dot" }));
}
