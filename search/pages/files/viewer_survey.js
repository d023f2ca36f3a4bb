"use strict";
// A look at all examples, in the background: where each filter fires most, and whether the page's own answers are
// PyTorch's.

const SURVEY_SECONDS = 4;

function makeSurvey(viewer, told) {
  const { data, network } = viewer;
  const found = network.layers.map((layer) => (layer.kind === "conv" ? Array.from({ length: layer.output[0] }, () => []) : null));
  const expected = new Map(data.checked.map(({ image, outputs }) => [image, outputs]));
  let [difference, seconds, done] = [0, 0, 0];

  function look(picture) {
    const started = performance.now();
    const results = forward(network, pictureOf(viewer, picture));
    found.forEach((filters, at) => filters && filters.forEach((list, filter) => {
      list.push({ picture, ...strongest(network.layers[at], results[at].value, filter) });
    }));
    for (const [i, answer] of answersOf(viewer, results).entries()) {
      if (expected.has(picture)) difference = Math.max(difference, Math.abs(answer - expected.get(picture)[i]));
    }
    seconds += (performance.now() - started) / 1000;
  }

  function finish() {
    found.forEach((filters) => filters && filters.forEach((list) => list.sort((a, b) => b.value - a.value)));
    if (expected.size) {
      told.textContent = `Checked: on ${plural(Math.min(expected.size, done), "image")} this page's answers differ from PyTorch's by at most ${difference.toExponential(0)}.`;
      told.dataset.difference = difference;
    }
    viewer.surveyed(found);
  }

  function step() {
    const next = data.examples[done];
    if (next === undefined || seconds > SURVEY_SECONDS) return finish();
    look(next);
    done += 1;
    setTimeout(step);
  }
  setTimeout(step);
}

// The place of a map where its value is largest: { index, value }.
function strongest(layer, values, map) {
  const size = layer.output[1] * layer.output[2];
  let index = map * size;
  for (let i = index; i < (map + 1) * size; i++) if (values[i] > values[index]) index = i;
  return { index, value: values[index] };
}
