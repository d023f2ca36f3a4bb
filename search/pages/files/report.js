"use strict";
// Puts the page together: the filters' form, the pictures in their places, time and cost.

function makeFilters(place) {
  const count = make("span", { class: "count", role: "status" });
  const chips = make("div", { class: "chips" });
  const boxes = everyState.map((state) =>
    make("label", {}, make("input", { type: "checkbox", checked: "", onchange: (event) => {
      if (event.target.checked) states.add(state);
      else states.delete(state);
      applyFilters();
    } }), " ", state));
  const axis = make("select", { "aria-label": "Setting to filter by" },
    [metricColumn, ...page.parameters].map((each) => make("option", { value: axes.indexOf(each) }, each.title || each.name)));
  const from = make("input", { type: "number", step: "any", placeholder: "from", "aria-label": "from" });
  const to = make("input", { type: "number", step: "any", placeholder: "to", "aria-label": "to" });
  const choice = make("select", { "aria-label": "value", hidden: "" });
  const chosenAxis = () => axes[Number(axis.value)];
  const showFields = () => {
    const { choices } = chosenAxis();
    from.hidden = to.hidden = Boolean(choices);
    choice.hidden = !choices;
    choice.replaceChildren(...(choices || []).map((name, at) => make("option", { value: at }, name)));
  };
  axis.addEventListener("change", showFields);
  showFields();
  const form = make("form", { onsubmit: (event) => {
    event.preventDefault();
    const at = Number(choice.value);
    const range = chosenAxis().choices ? [at, at] : [from.value === "" ? -Infinity : Number(from.value), to.value === "" ? Infinity : Number(to.value)];
    setFilter(chosenAxis(), range);
  } }, axis, " ", from, " ", to, choice, " ", make("button", {}, "Filter"));
  const clear = make("button", { type: "button", onclick: () => {
    filters.clear();
    everyState.forEach((state) => states.add(state));
    boxes.forEach((box) => (box.firstChild.checked = true));
    applyFilters();
  } }, "Show all");
  place.append(count, ...boxes, form, clear, chips);
  addPicture(place, () => {
    count.textContent = `${keptCount.toLocaleString("en")} of ${COUNT.toLocaleString("en")} trials`;
    clear.hidden = !isFiltered();
    chips.replaceChildren(...[...filters].map(([each, range]) =>
      make("button", { type: "button", title: "Take this filter away", onclick: () => setFilter(each, null) }, `${each.title || each.name}: ${rangeText(each, range)}  ×`)));
  });
}

function makeSlices(place) {
  for (const axis of page.parameters) {
    const chart = make("div", { class: "chart" });
    place.append(make("figure", {}, make("figcaption", {}, axis.name), chart));
    addPicture(chart, drawSlice(axis), { height: 170 });
  }
}

function makeCosts() {
  const [body, workers, price] = ["costs", "workers", "price"].map((id) => document.getElementById(id));
  workers.value = page.workers;
  const spent = { "the search": page.seconds.search, "this report's extra runs": page.seconds.extra };
  const show = () => {
    const hours = (seconds) => (seconds / 3600) * Math.max(0, Number(workers.value) || 0);
    const cost = (seconds) => (hours(seconds) * Math.max(0, Number(price.value) || 0)).toFixed(2);
    const row = (name, seconds, worked = hours(seconds)) => make("tr", {}, make("td", {}, name), ...[timeText(seconds), worked.toFixed(worked < 1 ? 3 : 1), cost(seconds)].map((text) => make("td", { class: "number" }, text)));
    const total = Object.values(spent).reduce((sum, seconds) => sum + seconds, 0);
    body.replaceChildren(...Object.entries(spent).map(([name, seconds]) => row(name, seconds)), row("together", total));
    if (page.seconds.saved > 0) {
      // Training time is counted by worker already.
      body.append(row("saved by stopping trials early, about", page.seconds.saved / Math.max(1, Number(workers.value))));
    }
  };
  workers.addEventListener("input", show);
  price.addEventListener("input", show);
  show();
}

function timeText(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${Math.round(seconds % 60)} s`;
}

// A link to a term opens its explanation.
function openTerm() {
  const entry = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (entry && entry.tagName === "DETAILS") entry.open = true;
}

const DRAWINGS = {
  levels: [drawLevels, { follows: false }],
  importances: [drawImportances, { follows: false }],
  seeds: [drawSeeds, { follows: false }],
  rows: [drawRows, { follows: false, height: 230 }],
  classes: [drawClasses, { follows: false }],
  parallel: [drawParallel, { height: 360 }],
  history: [drawHistory, { height: 260 }],
  curves: [drawCurves, { height: 320 }],
};

for (const place of document.querySelectorAll("[data-chart]")) addPicture(place, ...DRAWINGS[place.dataset.chart]);
brushParallel(document.querySelector('[data-chart="parallel"]'));
makeFilters(document.getElementById("filters"));
makeSlices(document.getElementById("slices"));
makeTable(document.getElementById("table"));
addPicture(document.getElementById("table"), drawTable);
makeCosts();
openTerm();
window.addEventListener("hashchange", openTerm);
window.addEventListener("resize", () => refresh(true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh(true));
