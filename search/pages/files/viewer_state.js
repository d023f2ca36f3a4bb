"use strict";
// What the page shows at the moment, and who wants to know when that changes: an image with the network's results for
// it, one neuron that is looked at, and one filter.

function makeViewer(data) {
  const listeners = { image: [], neuron: [], filter: [], theme: [] };
  const tell = (event) => listeners[event].forEach((listener) => listener());
  const viewer = {
    data,
    network: makeNetwork(data.network),
    pictures: decoded(data.images.text, data.images.bytes),
    pixels: null,
    picture: null, // its index, where it is one of the page's own images, unchanged
    results: null,
    milliseconds: 0,
    neuron: null, // { at: layer, index }
    held: false, // a click holds the neuron until the next one
    filter: null, // { at: layer, index }
    fires: null, // for each layer and filter, the examples where it fires most
    on: (event, listener) => listeners[event].push(listener),

    show(pixels, picture = null) {
      const started = performance.now();
      Object.assign(viewer, { pixels, picture, results: forward(viewer.network, pixels) });
      viewer.milliseconds = performance.now() - started;
      tell("image");
      tell("neuron");
    },
    look(at, index) {
      if (viewer.held || (viewer.neuron && viewer.neuron.at === at && viewer.neuron.index === index)) return;
      viewer.neuron = { at, index };
      tell("neuron");
    },
    hold(at, index) {
      const again = viewer.held && viewer.neuron.at === at && viewer.neuron.index === index;
      viewer.held = !again;
      viewer.neuron = { at, index };
      tell("neuron");
    },
    letGo() {
      Object.assign(viewer, { neuron: null, held: false });
      tell("neuron");
    },
    open(at, index) {
      viewer.filter = { at, index };
      tell("filter");
    },
    repaint: () => ["theme", "image", "neuron", "filter"].forEach(tell),
    surveyed(fires) {
      viewer.fires = fires;
      tell("filter");
    },
  };
  return viewer;
}

// One of the page's own images, in raw units.
function pictureOf(viewer, index) {
  const size = volume(viewer.network.layers[0].output);
  return viewer.pictures.subarray(index * size, (index + 1) * size);
}

// The network's answer: a probability for each class, or the prediction in the target's units.
function answersOf(viewer, results) {
  const outputs = results[results.length - 1].value;
  const { mean, std } = viewer.data.target;
  return viewer.data.classes.length ? softmax(outputs) : [outputs[0] * std + mean];
}

function percent(share) {
  if (share > 0.9995 && share < 1) return "> 99.9 %";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

// A number in a sum: three digits, and a minus sign that is as wide as a plus.
function short(value) {
  const text = Math.abs(value) < 0.0005 ? "0" : String(Number(Number(value).toPrecision(3)));
  return text.replace("-", "\u2212");
}

// Arrow keys move between the buttons of a group, which is one stop of the Tab key.
function oneTabStop(group) {
  const buttons = () => [...group.querySelectorAll("button")];
  buttons().forEach((button, i) => (button.tabIndex = i ? -1 : 0));
  if (group.dataset.keys) return;
  group.dataset.keys = "arrows";
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = buttons();
    const next = all[all.indexOf(document.activeElement) + step];
    if (!step || !next) return;
    event.preventDefault();
    all.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
    next.focus();
  });
}
