"use strict";
// The filter of the section above it, moved step by step over what lies below, zero-padding included.

const STEP_MILLISECONDS = 250;

function makeStepper(viewer, part) {
  const steps = part("step");
  const channels = part("step-map");
  let playing = null;
  const layer = () => viewer.network.layers[viewer.filter.at];
  const count = () => layer().output[1] * layer().output[2];
  const neuron = () => viewer.filter.index * count() + Number(steps.value);

  function paint() {
    const [below, values] = [viewer.network.layers[viewer.filter.at - 1], viewer.results[viewer.filter.at].value];
    paintPadded(viewer, part("step-input"), layer(), below, Number(channels.value));
    const map = values.subarray(viewer.filter.index * count(), (viewer.filter.index + 1) * count());
    const scale = largest(map);
    const [, rows, columns] = layer().output;
    fill(part("step-output"), columns, rows, (i) => (i <= Number(steps.value) ? signedColour(map[i] / scale) : null));
    const block = blockOf(layer(), neuron());
    placeFrame(part("step-here"), block, columns, rows);
    placeFrame(part("step-window"), shifted(blockBelow(layer(), block), layer().padding), ...paddedSize(layer()));
    part("step-words").textContent = stepWords(viewer, layer(), neuron(), Number(steps.value), count());
  }

  function go(to) {
    steps.value = Math.min(Math.max(to, 0), count() - 1);
    paint();
    viewer.held = false;
    viewer.look(viewer.filter.at, neuron());
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    part("step-play").textContent = "Play";
  }

  function play() {
    if (playing) return stop();
    if (Number(steps.value) === count() - 1) go(0);
    part("step-play").textContent = "Stop";
    playing = setInterval(() => {
      go(Number(steps.value) + 1);
      if (Number(steps.value) === count() - 1) stop();
    }, STEP_MILLISECONDS);
  }

  viewer.on("filter", () => {
    const below = layer().input[0];
    if (channels.options.length !== below) {
      channels.replaceChildren(...Array.from({ length: below }, (_, i) => make("option", { value: i }, String(i + 1))));
    }
    part("step-map-label").hidden = below === 1;
    steps.max = count() - 1;
    paint();
  });
  viewer.on("image", paint);
  steps.addEventListener("input", () => go(Number(steps.value)));
  channels.addEventListener("change", paint);
  part("step-back").addEventListener("click", () => go(Number(steps.value) - 1));
  part("step-next").addEventListener("click", () => go(Number(steps.value) + 1));
  part("step-play").addEventListener("click", play);
}

function paddedSize(layer) {
  const [, height, width] = layer.input;
  return [width + 2 * layer.padding, height + 2 * layer.padding];
}

function shifted(block, by) {
  return { top: block.top + by, bottom: block.bottom + by, left: block.left + by, right: block.right + by };
}

// A map below with its zero-padding, which stays see-through: the hatching behind it shows.
function paintPadded(viewer, canvas, layer, below, channel) {
  const [count, height, width] = layer.input;
  const [across, down] = paddedSize(layer);
  const values = viewer.results[viewer.filter.at - 1].value;
  const scale = largest(values);
  const { low, high } = viewer.data.drawing;
  fill(canvas, across, down, (i) => {
    const [row, column] = [Math.floor(i / across) - layer.padding, (i % across) - layer.padding];
    if (row < 0 || column < 0 || row >= height || column >= width) return null;
    const at = (channel * height + row) * width + column;
    if (below.kind === "input" && count === 1) return shadeOf(viewer.pixels, at, 1, height * width, low, high);
    return signedColour(values[at] / scale);
  });
}

function stepWords(viewer, layer, index, step, count) {
  const { row, column } = placeOf(layer, index);
  const block = blockBelow(layer, blockOf(layer, index));
  const [, height, width] = layer.input;
  const outside = block.top < 0 || block.left < 0 || block.bottom >= height || block.right >= width;
  const stride = `Stride ${layer.stride}: the next step is ${plural(layer.stride, "pixel")} further.`;
  const padding = outside ? ` Part of it stands on zero-padding (rows under 1 or over ${height}, columns likewise to ${width}), which adds nothing.` : "";
  return `Step ${step + 1} of ${count}: the filter stands on rows ${short(block.top + 1)} to ${block.bottom + 1}, columns ${short(block.left + 1)} ` +
    `to ${block.right + 1}, and gives row ${row + 1}, column ${column + 1} of its map: ` +
    `${short(viewer.results[viewer.filter.at].value[index])}. ${stride}${padding}`;
}
