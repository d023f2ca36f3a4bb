"use strict";
// The trials, which of them the filters keep, and the pictures that have to follow.

const page = pageData();
const COUNT = page.trials.number.length;
const WINNER = page.trials.number.indexOf(page.winner);
const metricColumn = { name: "validation", title: "validation " + page.metricName, log: false, whole: false, choices: null, values: page.trials.validation };
const axes = [...page.parameters, metricColumn];
for (const axis of axes) {
  if (axis === metricColumn) axis.scale = metricScale(axis.values);
  else if (axis.choices) axis.scale = scaleOf([], { low: -0.5, high: axis.choices.length - 0.5 });
  else axis.scale = scaleOf(axis.values, { log: axis.log });
  if (axis.whole) axis.scale.ticks = axis.scale.ticks.filter(Number.isInteger);
}

// Places of the trials, the best first; the shade of each says its rank.
const byRank = Int32Array.from({ length: COUNT }, (_, trial) => trial);
{
  const key = Float64Array.from(page.trials.validation, (value) => (value === null ? Infinity : value));
  byRank.sort((one, other) => key[one] - key[other] || one - other);
}
const shadeOf = new Uint8Array(COUNT);
byRank.forEach((trial, rank) => {
  if (page.trials.validation[trial] !== null) shadeOf[trial] = 1 + Math.floor((SHADES - 2) * (1 - rank / COUNT));
});

const filters = new Map(); // an axis: [low, high]
const states = new Set(["complete", "pruned", "failed", "running"].filter((state) => page.trials.state.includes(state)));
const everyState = [...states];
const chosen = new Set(WINNER >= 0 ? [WINNER] : []);
const MOST_CHOSEN = 6;
let kept = new Uint8Array(COUNT).fill(1);
let keptCount = COUNT;

function isFiltered() {
  return filters.size > 0 || states.size < everyState.length;
}

function applyFilters() {
  const state = page.trials.state;
  for (let trial = 0; trial < COUNT; trial++) kept[trial] = states.has(state[trial]) ? 1 : 0;
  for (const [{ values }, [low, high]] of filters) {
    for (let trial = 0; trial < COUNT; trial++) {
      const value = values[trial];
      if (value === null || value < low || value > high) kept[trial] = 0;
    }
  }
  keptCount = kept.reduce((sum, one) => sum + one, 0);
  refresh();
}

function setFilter(axis, range) {
  if (range === null) filters.delete(axis);
  else filters.set(axis, range);
  applyFilters();
}

function choose(trial) {
  if (!chosen.delete(trial)) chosen.add(trial);
  while (chosen.size > MOST_CHOSEN) chosen.delete([...chosen].find((each) => each !== WINNER));
  refresh();
}

// What the others are told of the chosen ones' colours: the winner is orange, always.
const CHOSEN_COLOURS = ["green", "pink", "red", "sky", "yellow", "blue"];
function colourOf(trial) {
  if (trial === WINNER) return colour("orange");
  return colour(CHOSEN_COLOURS[[...chosen].filter((each) => each !== WINNER).indexOf(trial)] || "ink");
}

function valueText(axis, value) {
  if (value === null || value === undefined) return "–";
  if (axis.choices) return axis.choices[value];
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(2) : figure(value);
}

function rangeText(axis, [low, high]) {
  if (!axis.choices) return `${figure(low)} to ${figure(high)}`;
  return axis.choices.filter((_, place) => place >= low && place <= high).join(", ");
}

// Pictures are drawn when they come into view; a change of the filters leaves those that are out of it for later.
const pictures = [];
let waiting = false;

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const picture = pictures.find((each) => each.place === entry.target);
      picture.visible = entry.isIntersecting;
    }
    later();
  },
  { rootMargin: "60px" },
);

function addPicture(place, drawing, { height = 0, follows = true } = {}) {
  if (height) place.style.minHeight = height + "px";
  pictures.push({ place, drawing, follows, visible: false, stale: true });
  watcher.observe(place);
}

function refresh(all = false) {
  for (const picture of pictures) if (all || picture.follows) picture.stale = true;
  later();
}

function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const picture of pictures) {
      if (!picture.visible || !picture.stale) continue;
      picture.stale = false;
      picture.drawing(picture.place, picture.place.clientWidth);
    }
  });
}
