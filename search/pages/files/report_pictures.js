"use strict";
// Pictures that do not follow the filters: levels, importances, seeds, the data curve, classes. SVG.

const LEVELS = {
  chance: ["Chance", "soft", "always the same answer"],
  simple: ["Simple model", "soft", "no network at all"],
  human: ["A person", "green", ""],
  target: ["Target", "green", "what was asked for"],
  train: ["Training", "sky", "rows it learnt from"],
  validation: ["Validation", "blue", "rows it was chosen by"],
  test: ["Test", "orange", "rows nobody had seen"],
};

function svg(place, width, height, label) {
  const picture = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  place.replaceChildren(picture);
  return picture;
}

function words(x, y, text, more = {}) {
  return draw("text", { x, y, ...more }, text);
}

function rule(x1, y1, x2, y2, more = {}) {
  return draw("line", { x1, y1, x2, y2, stroke: "var(--line)", ...more });
}

// Text that says what is under the pointer.
function told(element, text) {
  element.append(draw("title", {}, text));
  return element;
}

function drawLevels(place, width) {
  const names = Object.keys(page.levels);
  const narrow = width < 560;
  const [left, right, step, top] = [narrow ? 92 : 230, narrow ? 62 : 200, narrow ? 40 : 44, 8];
  const values = Object.values(page.levels).flat().filter((value) => value > 0);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const log = most / least > 25;
  // Zero has no place on a logarithmic axis: what is smaller than half of the least value shown stands at its end.
  const centres = Object.values(page.levels).map(([value]) => value).filter((value) => value > 0);
  const low = log ? Math.max(least, Math.min(...centres) / 3) : 0;
  const scale = scaleOf([], { log, low, high: log ? most * 1.15 : most * 1.05 });
  const x = (value) => left + Math.min(1, Math.max(0, scale.at(value))) * (width - left - right);
  const height = top + step * names.length + (log ? 40 : 24);
  const label = names.map((name) => `${LEVELS[name][0]} ${figure(page.levels[name][0])}`).join(", ");
  const picture = svg(place, width, height, `Levels of the ${page.metricName}: ${label}`);
  const bottom = top + step * names.length;
  let lastTick = -Infinity;
  for (const tick of scale.ticks) {
    picture.append(rule(x(tick), top, x(tick), bottom));
    if (x(tick) - lastTick < 38) continue;
    lastTick = x(tick);
    picture.append(words(x(tick), bottom + 16, tickText(tick), { "text-anchor": "middle", style: "fill: var(--soft)" }));
  }
  names.forEach((name, place) => {
    const [value, from, to] = page.levels[name];
    const [title, ink, note] = LEVELS[name];
    const y = top + step * (place + 0.5);
    const paint = `var(--${ink})`;
    picture.append(words(0, note && !narrow ? y - 2 : y + 4, title, { style: "font-size: 14px; font-weight: 600" }));
    if (note && !narrow) picture.append(words(0, y + 13, note, { style: "fill: var(--soft)" }));
    const group = draw("g", {});
    if (to > from) {
      group.append(rule(x(from), y, x(to), y, { stroke: paint, "stroke-width": 7, "stroke-linecap": "round", opacity: 0.35 }));
    }
    group.append(draw("circle", { cx: x(value), cy: y, r: 7, fill: paint, stroke: "var(--paper)", "stroke-width": 1.5 }));
    picture.append(told(group, `${title}: ${figure(value)}, between ${figure(from)} and ${figure(to)}`));
    picture.append(words(width - right + 14, y + 5, rounded(value, 3), { style: "font-size: 15px; font-weight: 650" }));
    if (to > from && !narrow) {
      picture.append(words(width - right + 90, y + 4, `${rounded(from, 2)} – ${rounded(to, 2)}`, { style: "fill: var(--soft)" }));
    }
  });
  if (log) picture.append(words(0, height - 1, "The axis is logarithmic.", { style: "fill: var(--soft); font-size: 11px" }));
}

function rounded(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

function drawImportances(place, width) {
  const rows = [...page.importances].sort((one, other) => other[1] - one[1]).slice(0, 16);
  const [left, right, step] = [Math.min(150, width * 0.38), 56, 26];
  const most = Math.max(...rows.map(([, mean, spread]) => mean + spread), 0.01);
  const x = (value) => left + (Math.max(0, value) / most) * (width - left - right);
  const picture = svg(place, width, step * rows.length + 4, "Importances of the settings");
  rows.forEach(([name, mean, spread], place) => {
    const y = step * (place + 0.5) + 2;
    picture.append(words(0, y + 4, name));
    const group = draw("g", {});
    group.append(draw("rect", { x: left, y: y - 8, width: Math.max(1, x(mean) - left), height: 16, rx: 3, fill: "var(--blue)" }));
    group.append(rule(x(mean - spread), y, x(mean + spread), y, { stroke: "var(--ink)", "stroke-width": 1.5 }));
    for (const end of [mean - spread, mean + spread]) group.append(rule(x(end), y - 4, x(end), y + 4, { stroke: "var(--ink)", "stroke-width": 1.5 }));
    picture.append(told(group, `${name}: ${(100 * mean).toFixed(1)} %, give or take ${(100 * spread).toFixed(1)}`));
    picture.append(words(x(mean + spread) + 8, y + 4, `${(100 * mean).toFixed(0)} %`));
  });
}

function drawSeeds(place, width) {
  const rows = page.seeds;
  const narrow = width < 480;
  const [left, right, step] = [narrow ? 84 : 110, narrow ? 56 : 210, 34];
  const values = rows.flatMap((row) => [row.validation, ...row.values]);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const pad = (most - least) * 0.08 || 0.01;
  const scale = scaleOf([], { low: least - pad, high: most + pad });
  const x = (value) => left + scale.at(value) * (width - left - right);
  const bottom = step * rows.length;
  const picture = svg(place, width, bottom + 24, "The best trials, trained again from other seeds");
  for (const tick of scale.ticks) {
    picture.append(rule(x(tick), 0, x(tick), bottom));
    picture.append(words(x(tick), bottom + 16, tickText(tick), { "text-anchor": "middle" }));
  }
  rows.forEach((row, place) => {
    const y = step * (place + 0.5);
    const ink = row.tied ? "var(--blue)" : "var(--soft)";
    picture.append(words(0, y + 4, `trial ${row.trial}`, row.trial === page.winner ? { style: "font-weight: 700" } : {}));
    row.values.forEach((value, run) => {
      const apart = 3.5 * (run - (row.values.length - 1) / 2); // equal values lie beside each other
      picture.append(told(draw("circle", { cx: x(value), cy: y + apart, r: 4.5, fill: ink, opacity: 0.6 }), figure(value)));
    });
    picture.append(told(draw("circle", { cx: x(row.validation), cy: y, r: 5, fill: "none", stroke: "var(--orange)", "stroke-width": 2 }), `in the search: ${figure(row.validation)}`));
    picture.append(rule(x(row.mean), y - 11, x(row.mean), y + 11, { stroke: ink, "stroke-width": 3 }));
    const weights = row.weights.toLocaleString("en");
    picture.append(words(width - right + 12, y + 4, narrow ? (row.tied ? "tied" : "") : `${row.tied ? "tied" : "worse"} · ${weights} weights`));
  });
}

function drawRows(place, width) {
  const { rows, values, a, b, c } = page.rows;
  const height = 230;
  const [left, right, top, bottom] = [56, 16, 10, height - 34];
  const fit = (count) => a * count ** -b + c;
  const far = page.levels.rows_for_target ?? (page.rows.rows_for_target ? page.rows.rows_for_target.value : 0);
  const last = Math.min(Math.max(rows.at(-1) * 2, far * 1.15), rows.at(-1) * 16);
  const across = scaleOf([], { log: true, low: rows[0] / 1.15, high: last });
  const goal = page.levels.target ?? page.levels.human ?? null;
  const heights = [...values, ...(a === null ? [] : [fit(last)]), ...(goal ? [goal[0]] : [])];
  const upwards = scaleOf([], { low: Math.max(0, Math.min(...heights) * 0.7), high: Math.max(...heights) * 1.12 });
  const x = (count) => left + across.at(count) * (width - left - right);
  const y = (value) => bottom - Math.min(1.1, Math.max(0, upwards.at(value))) * (bottom - top);
  const picture = svg(place, width, height, "The validation metric over the number of train rows");
  for (const tick of upwards.ticks) {
    picture.append(rule(left, y(tick), width - right, y(tick)), words(left - 8, y(tick) + 4, tickText(tick), { "text-anchor": "end" }));
  }
  for (const tick of across.ticks) picture.append(words(x(tick), bottom + 16, tick.toLocaleString("en"), { "text-anchor": "middle" }));
  picture.append(words(width - right, height - 2, "rows to learn from", { "text-anchor": "end", style: "fill: var(--soft)" }));
  if (goal) {
    picture.append(rule(left, y(goal[0]), width - right, y(goal[0]), { stroke: "var(--green)", "stroke-dasharray": "6 4" }));
    picture.append(words(left + 6, y(goal[0]) - 5, page.levels.target ? "target" : "a person", { style: "fill: var(--green)" }));
  }
  if (a !== null) {
    const steps = Array.from({ length: 60 }, (_, step) => across.back(step / 59));
    const path = (counts) => counts.map((count, index) => `${index ? "L" : "M"}${x(count).toFixed(1)} ${y(fit(count)).toFixed(1)}`).join("");
    picture.append(draw("path", { d: path(steps.filter((count) => count <= rows.at(-1) * 1.02)), fill: "none", stroke: "var(--blue)", "stroke-width": 2 }));
    picture.append(draw("path", { d: path(steps.filter((count) => count >= rows.at(-1))), fill: "none", stroke: "var(--blue)", "stroke-width": 2, "stroke-dasharray": "5 5", opacity: 0.7 }));
  }
  rows.forEach((count, place) => {
    const dot = draw("circle", { cx: x(count), cy: y(values[place]), r: 6, fill: "var(--blue)", stroke: "var(--paper)" });
    picture.append(told(dot, `${count.toLocaleString("en")} rows: ${figure(values[place])}`));
  });
}

function drawClasses(place, width) {
  const rows = Object.entries(page.classes).sort((one, other) => other[1] - one[1]);
  const shown = rows.length > 24 ? [...rows.slice(0, 12), ...rows.slice(-12)] : rows;
  const [left, right, step] = [Math.min(150, width * 0.35), 64, 20];
  const most = Math.max(...shown.map(([, count]) => count), 1);
  const picture = svg(place, width, step * shown.length + 4, "Train rows of each class");
  shown.forEach(([name, count], place) => {
    const y = step * (place + 0.5) + 2;
    const long = Math.max(1, (count / most) * (width - left - right));
    picture.append(words(0, y + 4, name.length > 20 ? name.slice(0, 19) + "…" : name));
    picture.append(draw("rect", { x: left, y: y - 6, width: long, height: 12, rx: 2, fill: "var(--sky)" }));
    picture.append(words(left + long + 6, y + 4, count.toLocaleString("en")));
  });
}
