"use strict";
// The pad: the network's input, to draw on. A stroke is drawn four times as fine as the network's pixels and averaged
// down to them, as scanned digits are.

const FINE = 4;

function makePad(viewer, host, status) {
  const [channels, height, width] = viewer.network.layers[0].output;
  const { low, high, paper, ink } = viewer.data.drawing;
  const grain = Math.max(height, width) <= 128 ? FINE : 1;
  const [rows, columns] = [height * grain, width * grain];
  const fine = new Float32Array(channels * rows * columns);
  const brush = { radius: 0.35 + 0.032 * Math.max(height, width), ink: Array(channels).fill(ink), erases: false };
  const cursor = { row: Math.floor(height / 2), column: Math.floor(width / 2) };
  const canvas = pixelCanvas({
    tabindex: 0, id: "pad", role: "application", "aria-roledescription": "drawing pad", "aria-label":
      `Drawing pad of ${height} by ${width} pixels. Arrow keys move, with Shift they draw, Space makes a dot, Backspace erases.`,
  });
  const field = make("div", { class: "frame field", hidden: true });
  const spot = make("div", { class: "frame cursor" });
  const guide = make("div", { class: "guide" });
  placeFrame(guide, viewer.data.drawing.box, width, height);
  host.append(canvas, guide, field, spot);

  function load(pixels) {
    for (let i = 0; i < fine.length; i++) {
      const [channel, row, column] = [Math.floor(i / (rows * columns)), Math.floor(i / columns) % rows, i % columns];
      fine[i] = pixels[(channel * height + Math.floor(row / grain)) * width + Math.floor(column / grain)];
    }
  }

  function averaged() {
    const sums = new Float64Array(channels * height * width);
    for (let i = 0; i < fine.length; i++) {
      const [channel, row, column] = [Math.floor(i / (rows * columns)), Math.floor(i / columns) % rows, i % columns];
      sums[(channel * height + Math.floor(row / grain)) * width + Math.floor(column / grain)] += fine[i];
    }
    return Float32Array.from(sums, (sum) => sum / (grain * grain));
  }

  // Ink (or paper) from one point to the next, in the network's pixels.
  function stroke(from, to, erases = brush.erases) {
    const radius = brush.radius * grain;
    const [x, y, toX, toY] = [from.x, from.y, to.x, to.y].map((at) => at * grain);
    const [alongX, alongY] = [toX - x, toY - y];
    const length = alongX ** 2 + alongY ** 2 || 1;
    const rowsTouched = [Math.min(y, toY) - radius, Math.max(y, toY) + radius];
    const columnsTouched = [Math.min(x, toX) - radius, Math.max(x, toX) + radius];
    for (let row = Math.max(0, Math.floor(rowsTouched[0])); row < Math.min(rows, rowsTouched[1]); row++) {
      for (let column = Math.max(0, Math.floor(columnsTouched[0])); column < Math.min(columns, columnsTouched[1]); column++) {
        const [dx, dy] = [column + 0.5 - x, row + 0.5 - y];
        const share = Math.min(Math.max((dx * alongX + dy * alongY) / length, 0), 1);
        if (Math.hypot(dx - share * alongX, dy - share * alongY) > radius) continue;
        for (let channel = 0; channel < channels; channel++) {
          fine[(channel * rows + row) * columns + column] = erases ? paper : brush.ink[channel];
        }
      }
    }
    changed();
  }

  // The pass itself waits for the next frame: a mouse reports more often than a screen shows.
  let waiting = false;
  function changed() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      viewer.show(averaged());
    });
  }

  function pointOf(event) {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
  }
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = pointOf(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const points = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of points.length ? points : [event]) {
      const next = pointOf(each);
      stroke(last, next);
      last = next;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));

  const middle = () => ({ x: cursor.column + 0.5, y: cursor.row + 0.5 });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const before = middle();
    if (step) {
      cursor.row = Math.min(Math.max(cursor.row + step[0], 0), height - 1);
      cursor.column = Math.min(Math.max(cursor.column + step[1], 0), width - 1);
      if (event.shiftKey) stroke(before, middle());
    } else if (event.key === " " || event.key === "Enter") stroke(before, before);
    else if (event.key === "Backspace" || event.key === "Delete") stroke(before, before, true);
    else return;
    event.preventDefault();
    showCursor();
    status.textContent = `Row ${cursor.row + 1}, column ${cursor.column + 1}`;
  });
  function showCursor() {
    placeFrame(spot, { top: cursor.row, bottom: cursor.row, left: cursor.column, right: cursor.column }, width, height);
  }
  showCursor();

  viewer.on("image", () => {
    if (viewer.picture !== null) load(viewer.pixels);
    paintImage(canvas, viewer.pixels, [channels, height, width], { low, high });
  });
  viewer.on("neuron", () => {
    const chosen = viewer.neuron;
    placeFrame(field, chosen && fieldOn(viewer.network, chosen.at, chosen.index, 0), width, height);
  });
  return {
    brush,
    clear() {
      fine.fill(paper);
      changed();
    },
    invert() {
      for (let i = 0; i < fine.length; i++) fine[i] = low + high - fine[i];
      changed();
    },
    async open(file) {
      const values = await pixelsOf(file, viewer.data.drawing, [channels, rows, columns]);
      fine.set(values);
      changed();
    },
  };
}

// An image file, shrunk to fit, in raw units; made grey as Pillow does (ITU-R 601-2) where the network has one channel.
async function pixelsOf(file, { low, high, paper }, [channels, rows, columns]) {
  const bitmap = await createImageBitmap(file);
  const context = make("canvas", { width: columns, height: rows }).getContext("2d");
  const scale = Math.min(columns / bitmap.width, rows / bitmap.height);
  const [across, down] = [bitmap.width * scale, bitmap.height * scale];
  context.fillStyle = paper > (low + high) / 2 ? "#fff" : "#000";
  context.fillRect(0, 0, columns, rows);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (columns - across) / 2, (rows - down) / 2, across, down);
  const { data } = context.getImageData(0, 0, columns, rows);
  const size = rows * columns;
  return Float32Array.from({ length: channels * size }, (_, i) => {
    const at = 4 * (i % size);
    const grey = (299 * data[at] + 587 * data[at + 1] + 114 * data[at + 2]) / 1000;
    return low + ((high - low) * (channels === 1 ? grey : data[at + Math.floor(i / size)])) / 255;
  });
}

// The buttons and sliders beside the pad, and files that are dropped on the page.
function makeTools(viewer, pad, status) {
  const part = (id) => document.getElementById(id);
  const { low, high, paper, ink } = viewer.data.drawing;
  const { examples } = viewer.data;
  part("clear").addEventListener("click", pad.clear);
  part("invert").addEventListener("click", pad.invert);
  part("erase").addEventListener("click", () => {
    pad.brush.erases = !pad.brush.erases;
    part("erase").setAttribute("aria-pressed", pad.brush.erases);
  });
  part("random").addEventListener("click", () => {
    const others = examples.filter((index) => index !== viewer.picture);
    const index = others[Math.floor(Math.random() * others.length)];
    if (index !== undefined) viewer.show(pictureOf(viewer, index), index);
  });
  part("brush").value = pad.brush.radius;
  part("brush").max = 4 * pad.brush.radius;
  part("brush").addEventListener("input", (event) => (pad.brush.radius = Number(event.target.value)));
  part("ink").addEventListener("input", (event) => {
    const { value, type } = event.target;
    const shares = [1, 3, 5].map((from) => parseInt(value.slice(from, from + 2), 16) / 255);
    pad.brush.ink = type === "color" ? shares.map((share) => low + share * (high - low)) : [paper + (ink - paper) * value];
  });

  async function open(file) {
    if (!file) return;
    try {
      await pad.open(file);
      status.textContent = `${file.name}, brought to the network's size. Invert it if paper and ink are the wrong way round.`;
    } catch {
      status.textContent = `${file.name} can't be read as an image; PNG, JPEG, WebP, GIF and BMP can.`;
    }
  }
  part("file").addEventListener("change", (event) => open(event.target.files[0]));
  part("choose").addEventListener("click", () => part("file").click());
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });
}
