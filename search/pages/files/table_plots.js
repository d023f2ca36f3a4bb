"use strict";
// Plots: how the answer moves with a column, and where an answer lies among the targets.

const MARGIN = { right: 12, top: 10 };

// Room for the letters on the left.
function leftOf(labels) {
  return 16 + 7.2 * Math.max(...labels.map((label) => label.length));
}

// Round numbers that cover a range, about five of them.
function ticksOf(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step / 1e6; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

// Those of the ticks whose labels don't run into each other; `x` says where each one is.
function apart(ticks, x) {
  if (ticks.length < 2) return ticks;
  const widest = 12 + 7.2 * Math.max(...ticks.map((tick) => String(tick).length));
  const every = Math.ceil(widest / (x(ticks[1]) - x(ticks[0])));
  return ticks.filter((_, i) => i % every === 0);
}

function linear([low, high], [from, to]) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

// A range that holds all of the numbers, never an empty one.
function rangeOf(values, least = 0) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  if (!known.length) return [0, 1];
  let [low, high] = [known[0], known[0]];
  for (const value of known) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const short = Math.max(least - (high - low), high > low ? 0 : Math.abs(high) / 10 || 1) / 2;
  return [low - short, high + short];
}

function pathThrough(points) {
  const known = points.filter(([, y]) => y !== null);
  return known.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function shortened(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Where each value of a column stands on the x axis: numbers by their size, categories and the missing one by place.
function columnScale(column, values, current, [from, to]) {
  const numbers = column.kind === "number" ? values.filter((value) => value !== null) : [];
  const named = values.filter((value) => column.kind === "category" || value === null);
  const width = numbers.length ? Math.min(60, (to - from) / 4) : (to - from) / named.length;
  const end = numbers.length ? to - named.length * width : from;
  const shown = column.kind === "number" && current !== null ? [...numbers, current] : numbers;
  const range = rangeOf(shown);
  const place = linear(range, [from, end - (named.length ? 12 : 0)]);
  const x = (value) => {
    const at = named.indexOf(value);
    return at >= 0 ? end + (at + 0.5) * width : typeof value === "number" ? place(value) : null;
  };
  return { x, numbers, named, range, width };
}

// Args: `mean` and `mine` one number for each value, `lines` such lists; `current` is the row's own value and `answer`
// what it leads to; `least` is the least difference of answers that fills the picture. Lists may be empty.
function dependencePlot({ column, values, mean, lines, mine, current, answer, height, isChance, least }) {
  return (width) => {
    const range = rangeOf([...mean, ...lines.flat(), ...mine, answer], least);
    if (isChance) [range[0], range[1]] = [Math.max(0, range[0]), Math.min(1, range[1])];
    const ticks = ticksOf(...range);
    const labels = ticks.map((tick) => (isChance ? `${Math.round(1000 * tick) / 10} %` : String(tick)));
    const left = leftOf(labels);
    const scale = columnScale(column, values, current, [left, width - MARGIN.right]);
    const names = scale.named.map(valueName);
    const slanted = names.some((name) => name.length * 7 > scale.width);
    const foot = slanted ? 78 : 34;
    const bottom = height - foot;
    const y = linear(range, [bottom, MARGIN.top]);
    const at = (list) => list.map((value) => (value === null ? null : y(value)));
    const svg = draw("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img" });
    ticks.forEach((tick, i) => {
      svg.append(
        draw("line", { class: "axis", x1: left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
        draw("text", { class: "soft", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[i]),
      );
    });
    if (scale.numbers.length) {
      for (const tick of apart(ticksOf(...scale.range), scale.x)) {
        svg.append(draw("text", { class: "soft", x: scale.x(tick), y: bottom + 20, "text-anchor": "middle" }, String(tick)));
      }
      for (const decile of column.deciles) {
        if (decile < scale.range[0] || decile > scale.range[1]) continue;
        svg.append(draw("line", { class: "mark", x1: scale.x(decile), x2: scale.x(decile), y1: bottom, y2: bottom + 6 }));
      }
    }
    scale.named.forEach((value, i) => {
      const [x, turn] = [scale.x(value), bottom + 16];
      const place = slanted ? { transform: `rotate(-38 ${x} ${turn})`, "text-anchor": "end" } : { "text-anchor": "middle" };
      svg.append(draw("text", { class: "soft", x, y: turn, ...place }, shortened(names[i], 14), draw("title", {}, names[i])));
    });
    for (const line of lines) drawLine(svg, scale, values, at(line), "one", 2);
    if (mean.length) drawLine(svg, scale, values, at(mean), "mean", 5);
    if (mine.length) drawLine(svg, scale, values, at(mine), "mine", 3.5);
    const x = scale.x(current);
    if (x !== null) svg.append(draw("circle", { class: "dot", cx: x, cy: y(answer), r: 6 }));
    return svg;
  };
}

// Numbers are joined by a line, names are dots.
function drawLine(svg, scale, values, heights, kind, radius) {
  const numbers = values.map((value, i) => [scale.named.includes(value) ? null : scale.x(value), heights[i]]);
  const joined = numbers.filter(([x]) => x !== null);
  if (joined.length) svg.append(draw("path", { class: kind, d: pathThrough(joined) }));
  const dot = { mean: "meandot", one: "onedot", mine: "dot" }[kind];
  values.forEach((value, i) => {
    if (scale.named.includes(value) && heights[i] !== null) {
      svg.append(draw("circle", { class: dot, cx: scale.x(value), cy: heights[i], r: radius }));
    }
  });
}

// The train split's targets as a histogram, with lines at the answers.
function targetPlot({ counts, low, high }, marks) {
  return (width) => {
    const height = 150;
    const bottom = height - 26;
    const range = rangeOf([low, high, ...marks.map((mark) => mark.value)]);
    const x = linear(range, [14, width - 14]);
    const tallest = Math.max(...counts);
    const svg = draw("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img" });
    counts.forEach((count, i) => {
      const [from, to] = [0, 1].map((end) => x(low + ((i + end) * (high - low)) / counts.length));
      const tall = (count / tallest) * (bottom - 16);
      svg.append(draw("rect", { class: "histogram", x: from, y: bottom - tall, width: Math.max(to - from - 1, 0.5), height: tall }));
    });
    svg.append(draw("line", { class: "axis", x1: 14, x2: width - 14, y1: bottom, y2: bottom }));
    for (const tick of apart(ticksOf(...range), x)) {
      svg.append(draw("text", { class: "soft", x: x(tick), y: height - 8, "text-anchor": "middle" }, String(tick)));
    }
    for (const { value, kind } of marks) {
      svg.append(draw("line", { class: kind, x1: x(value), x2: x(value), y1: 8, y2: bottom }));
    }
    return svg;
  };
}

// Answers (up) against the truth (across); a click on a point opens its row.
function scatterPlot(truth, answers, chosen, open) {
  return (width) => {
    const height = Math.min(width, 460);
    const range = rangeOf([...truth, ...answers]);
    const ticks = ticksOf(...range);
    const left = leftOf(ticks.map(String));
    const [x, y] = [linear(range, [left, width - MARGIN.right]), linear(range, [height - 44, MARGIN.top])];
    const svg = draw("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img" });
    for (const tick of ticks) {
      svg.append(
        draw("line", { class: "axis", x1: x(range[0]), x2: x(range[1]), y1: y(tick), y2: y(tick) }),
        draw("text", { class: "soft", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)),
      );
    }
    for (const tick of apart(ticks, x)) {
      svg.append(draw("text", { class: "soft", x: x(tick), y: height - 24, "text-anchor": "middle" }, String(tick)));
    }
    svg.append(
      draw("line", { class: "ideal", x1: x(range[0]), y1: y(range[0]), x2: x(range[1]), y2: y(range[1]) }),
      draw("text", { class: "soft", x: (width + left) / 2, y: height - 6, "text-anchor": "middle" }, "true"),
      draw("text", { class: "soft", x: left + 6, y: MARGIN.top + 8 }, "↑ answered"),
    );
    truth.forEach((value, i) => {
      const point = draw("circle", { class: i === chosen ? "point chosen" : "point", cx: x(value), cy: y(answers[i]), r: i === chosen ? 7 : 4.5 });
      point.addEventListener("click", () => open(i));
      svg.append(point);
    });
    return svg;
  };
}

// Puts a plot into an element, as wide as that is, so that its letters keep their size; and again when that changes.
const PLOTS = new Map();
const WIDTHS = new ResizeObserver((entries) => entries.forEach(({ target }) => repaint(target)));

function showPlot(element, plot, label) {
  if (!PLOTS.has(element)) WIDTHS.observe(element);
  PLOTS.set(element, { plot, label });
  repaint(element);
}

function repaint(element) {
  const { plot, label } = PLOTS.get(element);
  const svg = plot(Math.max(260, Math.round(element.clientWidth)));
  svg.setAttribute("aria-label", label);
  element.replaceChildren(svg);
}
