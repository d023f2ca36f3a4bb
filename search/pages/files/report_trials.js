"use strict";
// Pictures of all trials, which follow the filters: parallel coordinates, history, learning curves, slices. Canvas.

const BEST = 40; // lines that stand out among many
const FEW = 400; // lines that a canvas strokes quickly enough; more are drawn pixel by pixel
const BUDGET = 20; // milliseconds of one frame for lines; what is left is drawn in the next ones, the best come first

const jobs = new WeakMap();

// Draws `length` lines, a frame's worth at a time: `one(at)` for each, `paint(all)` after each frame.
function inFrames(place, length, one, paint, done = () => {}) {
  const job = {};
  jobs.set(place, job);
  let next = 0;
  const step = () => {
    if (jobs.get(place) !== job) return;
    const end = performance.now() + BUDGET;
    while (next < length && performance.now() < end) {
      for (const stop = Math.min(next + 200, length); next < stop; next++) one(next);
    }
    paint(next >= length);
    if (next < length) requestAnimationFrame(step);
    else done();
  };
  step();
}

function keptByRank() {
  return isFiltered() ? byRank.filter((trial) => kept[trial]) : byRank;
}

// Parallel coordinates

const parallel = { top: 40, foot: 44, height: 360, side: 46, all: null, size: "" };

function parallelWidth(width) {
  return Math.max(width, axes.length * 92);
}

function axisX(place, width) {
  return axes.length < 2 ? width / 2 : parallel.side + (place * (width - 2 * parallel.side)) / (axes.length - 1);
}

function axisY(axis, value) {
  const bottom = parallel.height - parallel.foot;
  if (value === null) return bottom + 14;
  return bottom - Math.min(1, Math.max(0, axis.scale.at(value))) * (bottom - parallel.top);
}

function layParallel(width) {
  const size = `${width} ${window.devicePixelRatio}`;
  if (parallel.size === size) return;
  Object.assign(parallel, {
    size,
    all: null,
    xs: Float32Array.from(axes, (_, place) => axisX(place, width)),
    ys: axes.map((axis) => Uint16Array.from(axis.values, (value) => Math.round(axisY(axis, value)))),
  });
}

// The pieces of line between neighbouring axes, those of the best trials first. Trials with the same two values, as far as
// the picture can tell, share a piece: between two choices there are a handful for ten thousand trials.
function piecesOf(trials) {
  const { ys, height } = parallel;
  const gaps = ys.length - 1;
  const most = trials.length * gaps;
  const pieces = { gap: new Uint8Array(most), from: new Uint16Array(most), to: new Uint16Array(most), sum: new Uint32Array(most), times: new Uint16Array(most), length: 0 };
  const known = Array.from({ length: gaps }, () => new Int32Array(height * height));
  for (const trial of trials) {
    for (let gap = 0; gap < gaps; gap++) {
      const [from, to] = [ys[gap][trial], ys[gap + 1][trial]];
      const piece = (known[gap][from * height + to] ||= ++pieces.length) - 1;
      pieces.sum[piece] += shadeOf[trial];
      if (pieces.times[piece]++ > 0) continue;
      pieces.gap[piece] = gap;
      pieces.from[piece] = from;
      pieces.to[piece] = to;
    }
  }
  return pieces;
}

function strokeParallel(pen, trial) {
  pen.beginPath();
  for (let place = 0; place < parallel.xs.length; place++) pen.lineTo(parallel.xs[place], parallel.ys[place][trial]);
  pen.stroke();
}

function drawParallel(place, room) {
  const width = parallelWidth(place.parentElement.clientWidth || room);
  layParallel(width);
  const label = `${keptCount} of ${COUNT} trials as lines over ${axes.length} axes`;
  const colours = shades();
  const start = () => {
    const pen = sizedCanvas(place, width, parallel.height, label);
    if (isFiltered() && parallel.all) {
      pen.globalAlpha = 0.35;
      parallel.all.paint(pen, 0, 0, colours.map(() => rgb("line")), 40);
      pen.globalAlpha = 1;
    }
    return pen;
  };
  const finish = (pen) => {
    pen.lineWidth = 2.2;
    for (const trial of chosen) {
      if (!kept[trial]) continue;
      pen.strokeStyle = colourOf(trial);
      strokeParallel(pen, trial);
    }
    drawAxes(pen);
  };
  const items = keptByRank();
  const stroke = (pen, lines, opacity) => {
    pen.lineWidth = 1.2;
    pen.globalAlpha = opacity;
    for (let rank = lines.length - 1; rank >= 0; rank--) {
      pen.strokeStyle = `rgb(${colours[shadeOf[lines[rank]]].join()})`;
      strokeParallel(pen, lines[rank]);
    }
    pen.globalAlpha = 1;
  };
  if (items.length <= FEW) {
    jobs.delete(place);
    const pen = start();
    stroke(pen, items, items.length > 150 ? 0.55 : 0.8);
    finish(pen);
    return;
  }
  const whole = !isFiltered();
  const pixels = (whole && parallel.all) || new Pixels(width, parallel.height);
  const pieces = pixels === parallel.all ? { length: 0 } : piecesOf(items);
  const one = (at) => {
    const gap = pieces.gap[at];
    pixels.line(parallel.xs[gap], pieces.from[at], parallel.xs[gap + 1], pieces.to[at], pieces.sum[at] / pieces.times[at], pieces.times[at]);
  };
  const paint = (all) => {
    const pen = start();
    pixels.paint(pen, 0, 0, colours, 90);
    if (all) stroke(pen, items.subarray(0, BEST), 0.9);
    finish(pen);
  };
  inFrames(place, pieces.length, one, paint, () => {
    if (whole) parallel.all = pixels;
  });
}

function drawAxes(pen) {
  const bottom = parallel.height - parallel.foot;
  const [ink, soft, paper, orange] = ["ink", "soft", "paper", "orange"].map(colour);
  pen.textAlign = "center";
  axes.forEach((axis, place) => {
    const x = parallel.xs[place];
    pen.strokeStyle = soft;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, parallel.top);
    pen.lineTo(x, bottom);
    pen.stroke();
    const range = filters.get(axis);
    if (range) {
      const [low, high] = range.map((value) => axisY(axis, value));
      pen.fillStyle = orange;
      pen.globalAlpha = 0.35;
      pen.fillRect(x - 7, high, 14, Math.max(2, low - high));
      pen.globalAlpha = 1;
      pen.strokeStyle = orange;
      pen.strokeRect(x - 7, high, 14, Math.max(2, low - high));
    }
    const ticks = axis.choices ? axis.choices.map((_, at) => at) : axis.scale.ticks;
    let last = Infinity;
    for (const tick of ticks) {
      const y = axisY(axis, tick);
      if (last - y < 13) continue;
      last = y;
      outlined(pen, axis.choices ? axis.choices[tick].slice(0, 12) : tickText(tick), x, y + 4, soft, paper);
    }
    pen.font = axis === metricColumn ? "bold 12px system-ui, sans-serif" : "12px system-ui, sans-serif";
    if (place === axes.length - 1) pen.textAlign = "end";
    outlined(pen, axis.title || axis.name, pen.textAlign === "end" ? x + parallel.side : x, 16 + 14 * (place % 2), ink, paper);
    pen.font = "12px system-ui, sans-serif";
  });
  pen.textAlign = "start";
}

function outlined(pen, text, x, y, ink, paper) {
  pen.lineJoin = "round";
  pen.lineWidth = 4;
  pen.strokeStyle = paper;
  pen.strokeText(text, x, y);
  pen.fillStyle = ink;
  pen.fillText(text, x, y);
}

// A mouse drags a range along an axis; touch scrolls, and has the form.
function brushParallel(place) {
  let drag = null;
  const nearest = (x) => {
    const distances = Array.from(parallel.xs || [], (at) => Math.abs(at - x));
    const best = distances.indexOf(Math.min(...distances));
    return distances[best] < 22 ? axes[best] : null;
  };
  const at = (event) => {
    const box = place.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const valueAt = (axis, y) => {
    const bottom = parallel.height - parallel.foot;
    return axis.scale.back(Math.min(1, Math.max(0, (bottom - y) / (bottom - parallel.top))));
  };
  place.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") return;
    const [x, y] = at(event);
    const axis = nearest(x);
    if (!axis) return;
    drag = { axis, y };
    place.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  place.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (!drag) {
      place.style.cursor = nearest(x) ? "ns-resize" : "";
      return;
    }
    if (Math.abs(y - drag.y) < 4) return;
    const ends = [valueAt(drag.axis, drag.y), valueAt(drag.axis, y)].sort((one, other) => one - other);
    // An end at the edge takes what lies beyond it with it.
    if (ends[1] >= drag.axis.scale.high * (1 - 1e-9)) ends[1] = Infinity;
    drag.moved = true;
    setFilter(drag.axis, ends);
  });
  place.addEventListener("pointerup", () => {
    if (drag && !drag.moved) setFilter(drag.axis, null);
    drag = null;
  });
}

// Frames of pictures with two axes

function frame(pen, { left, right, top, bottom }, across, upwards, { title = "", whole = false } = {}) {
  pen.fillStyle = colour("soft");
  pen.strokeStyle = colour("line");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  for (const tick of upwards.ticks) {
    const y = bottom - upwards.at(tick) * (bottom - top);
    if (y < top - 1 || y > bottom + 1) continue;
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(right, y);
    pen.stroke();
    pen.fillText(tickText(tick), left - 6, y + 4);
  }
  pen.textAlign = "center";
  let last = -Infinity;
  for (const tick of across.ticks.filter((value) => !whole || Number.isInteger(value))) {
    const x = left + across.at(tick) * (right - left);
    if (x - last < 40) continue;
    last = x;
    pen.fillText(tickText(tick), x, bottom + 16);
  }
  pen.textAlign = "right";
  if (title) pen.fillText(title, right, bottom + 32);
  pen.textAlign = "start";
}

// History

function drawHistory(place, width) {
  const height = 260;
  const box = { left: 56, right: width - 10, top: 8, bottom: height - 38 };
  const pen = sizedCanvas(place, width, height, `Validation ${page.metricName} of ${keptCount} trials in the order they were tried`);
  const number = page.trials.number;
  const across = scaleOf([], { low: 0, high: Math.max(1, number.at(-1) ?? 1) });
  frame(pen, box, across, metricColumn.scale, { title: "trial", whole: true });
  const [wide, high] = [box.right - box.left, box.bottom - box.top];
  const x = (trial) => across.at(number[trial]) * wide;
  const y = (trial) => (1 - Math.min(1, Math.max(0, metricColumn.scale.at(metricColumn.values[trial])))) * high;
  const pixels = new Pixels(wide, high);
  const size = COUNT > 2000 ? 2 : COUNT > 300 ? 3 : 5;
  const state = page.trials.state;
  for (let trial = 0; trial < COUNT; trial++) {
    if (kept[trial] && metricColumn.values[trial] !== null) pixels.point(x(trial), y(trial), state[trial] === "complete" ? SHADES - 1 : 12, size);
  }
  pixels.paint(pen, box.left, box.top, shades(), 190);
  pen.strokeStyle = colour("orange");
  pen.lineWidth = 2;
  pen.beginPath();
  let best = Infinity, before = null;
  for (let trial = 0; trial < COUNT; trial++) {
    const value = metricColumn.values[trial];
    if (state[trial] !== "complete" || value === null || value >= best) continue;
    if (before !== null) pen.lineTo(box.left + x(trial), box.top + y(before));
    pen.lineTo(box.left + x(trial), box.top + y(trial));
    best = value;
    before = trial;
  }
  if (before !== null) pen.lineTo(box.right, box.top + y(before));
  pen.stroke();
  ring(pen, chosen, (trial) => [box.left + x(trial), box.top + y(trial)]);
}

function ring(pen, trials, where) {
  for (const trial of trials) {
    if (metricColumn.values[trial] === null) continue;
    const [x, y] = where(trial);
    pen.beginPath();
    pen.arc(x, y, 5.5, 0, 2 * Math.PI);
    pen.strokeStyle = colour("paper");
    pen.lineWidth = 4;
    pen.stroke();
    pen.strokeStyle = colourOf(trial);
    pen.lineWidth = 2;
    pen.stroke();
  }
}

// Learning curves

const curveOf = new Map(page.curves.trials.map((trial, place) => [trial, place]));
const curveScale = metricScale([...page.curves.validation, ...trainOf(WINNER)]);

function trainOf(trial) {
  const place = curveOf.get(trial);
  return place === undefined ? [] : page.curves.train.slice(page.curves.start[place], page.curves.start[place + 1]);
}

function drawCurves(place, width) {
  const height = 320;
  const box = { left: 56, right: width - (width < 560 ? 66 : 90), top: 8, bottom: height - 38 };
  const start = page.curves.start;
  let longest = 1;
  for (let curve = 0; curve + 1 < start.length; curve++) longest = Math.max(longest, start[curve + 1] - start[curve]);
  const across = scaleOf([], { low: 1, high: Math.max(2, longest) });
  const [wide, high] = [box.right - box.left, box.bottom - box.top];
  const x = (epoch) => across.at(epoch) * wide;
  const y = (value) => (1 - Math.min(1, Math.max(0, curveScale.at(value)))) * high;
  const items = page.curves.trials.filter((trial) => kept[trial]);
  const pixels = new Pixels(wide, high);
  const one = (item) => {
    const trial = items[item];
    const curve = curveOf.get(trial);
    for (let at = start[curve] + 1; at < start[curve + 1]; at++) {
      const [from, to] = [page.curves.validation[at - 1], page.curves.validation[at]];
      if (from !== null && to !== null) pixels.line(x(at - start[curve]), y(from), x(at - start[curve] + 1), y(to), shadeOf[trial] >> 1);
    }
  };
  const label = `Learning curves of ${items.length} trials; those of ${[...chosen].map((trial) => page.trials.number[trial]).join(", ")} stand out`;
  inFrames(place, items.length, one, () => {
    const pen = sizedCanvas(place, width, height, label);
    frame(pen, box, across, curveScale, { title: "epoch", whole: true });
    pixels.paint(pen, box.left, box.top, shades(), 90);
    let taken = [];
    for (const trial of chosen) {
      const curve = curveOf.get(trial);
      if (curve === undefined) continue;
      pen.strokeStyle = colourOf(trial);
      for (const [values, dashes, weight] of [[page.curves.train, [5, 4], 1.8], [page.curves.validation, [], 2.6]]) {
        pen.setLineDash(dashes);
        pen.lineWidth = weight;
        pen.beginPath();
        for (let at = start[curve]; at < start[curve + 1]; at++) {
          if (values[at] !== null) pen.lineTo(box.left + x(at - start[curve] + 1), box.top + y(values[at]));
        }
        pen.stroke();
      }
      pen.setLineDash([]);
      const end = page.curves.validation[start[curve + 1] - 1];
      let at = box.top + y(end ?? curveScale.high) + 4;
      while (taken.some((other) => Math.abs(other - at) < 14)) at += 14;
      taken.push(at);
      pen.fillStyle = colourOf(trial);
      pen.fillText(`trial ${page.trials.number[trial]}`, box.left + x(start[curve + 1] - start[curve]) + 6, at);
    }
  });
}

// Slices

function drawSlice(axis) {
  return (place, width) => {
    const height = 170;
    const box = { left: 44, right: width - 6, top: 6, bottom: height - 22 };
    const pen = sizedCanvas(place, width, height, `Validation ${page.metricName} over ${axis.name}`);
    const [wide, high] = [box.right - box.left, box.bottom - box.top];
    const band = page.good[axis.name];
    if (band && !axis.choices) {
      pen.fillStyle = colour("green");
      pen.globalAlpha = 0.16;
      const [from, to] = band.map((value) => box.left + axis.scale.at(value) * wide);
      pen.fillRect(from, box.top, Math.max(2, to - from), high);
      pen.globalAlpha = 1;
    }
    const across = axis.choices ? { ...axis.scale, ticks: [] } : axis.scale;
    frame(pen, box, across, metricColumn.scale);
    if (axis.choices) {
      pen.fillStyle = colour("soft");
      pen.textAlign = "center";
      const letters = Math.max(3, Math.floor(wide / axis.choices.length / 7));
      axis.choices.forEach((name, at) => pen.fillText(name.slice(0, letters), box.left + axis.scale.at(at) * wide, box.bottom + 16));
      pen.textAlign = "start";
    }
    // Trials with the same choice are spread out, always in the same way.
    const spread = axis.choices ? (0.7 * wide) / axis.choices.length : 0;
    const x = (trial) => axis.scale.at(axis.values[trial]) * wide + spread * (((trial * 0.6180339887) % 1) - 0.5);
    const y = (trial) => (1 - Math.min(1, Math.max(0, metricColumn.scale.at(metricColumn.values[trial])))) * high;
    const shows = (trial) => kept[trial] && axis.values[trial] !== null && metricColumn.values[trial] !== null;
    const pixels = new Pixels(wide, high);
    const size = COUNT > 2000 ? 1.5 : COUNT > 300 ? 2.5 : 4;
    for (let trial = 0; trial < COUNT; trial++) if (shows(trial)) pixels.point(x(trial), y(trial), shadeOf[trial], size);
    pixels.paint(pen, box.left, box.top, shades(), 150);
    ring(pen, [...chosen].filter(shows), (trial) => [box.left + x(trial), box.top + y(trial)]);
  };
}
