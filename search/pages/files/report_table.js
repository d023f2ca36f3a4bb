"use strict";
// The table of trials: only the rows that are in view exist.

const ROW = 28;

const table = { order: byRank, column: 2, descending: false, active: 0, shown: byRank };

const columns = [
  { title: "trial", width: 56, values: page.trials.number, text: String },
  { title: "state", width: 84, values: page.trials.state, text: String },
  { title: "validation", width: 106, values: page.trials.validation, text: figure },
  { title: "train", width: 84, values: page.trials.train, text: figure },
  { title: "epochs", width: 64, values: page.trials.epochs, text: String },
  { title: "seconds", width: 76, values: page.trials.seconds, text: figure },
  { title: "weights", width: 92, values: page.trials.weights, text: (value) => value.toLocaleString("en") },
  ...page.parameters.map((axis) => ({ title: axis.name, width: 118, values: axis.values, text: (value) => valueText(axis, value) })),
];
const template = columns.map((column) => column.width + "px").join(" ");
const rowWidth = columns.reduce((sum, column) => sum + column.width + 12, 24);

function sortTable(column) {
  table.descending = table.column === column && !table.descending;
  table.column = column;
  const { values } = columns[column];
  const sign = table.descending ? -1 : 1;
  table.order = Int32Array.from(byRank).sort((one, other) => {
    const [a, b] = [values[one], values[other]];
    if (a === b) return one - other;
    if (a === null) return 1; // the unknown is last, either way
    if (b === null) return -1;
    return a < b ? -sign : sign;
  });
  table.active = 0;
  refresh();
}

function makeTable(place) {
  const head = make("div", { class: "row head", role: "row", style: `grid-template-columns: ${template}; width: ${rowWidth}px; position: sticky` },
    columns.map((column, at) =>
      make("div", { role: "columnheader" }, make("button", { type: "button", onclick: () => sortTable(at) }, column.title))));
  const body = make("div", { role: "rowgroup", style: `position: relative; width: ${rowWidth}px` });
  const grid = make("div", { class: "grid", role: "grid", tabindex: 0, "aria-label": "All trials; arrow keys move, Enter shows one in the pictures",
    "aria-colcount": columns.length }, head, body);
  Object.assign(table, { grid, body, head });
  place.append(make("p", { class: "soft" }, "A click on a row (or Enter) shows the trial in the pictures above; a click on a column's name sorts."), grid);
  grid.addEventListener("scroll", () => drawRowsInView());
  grid.addEventListener("keydown", moveActive);
  body.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    table.active = Number(row.dataset.at);
    choose(table.shown[table.active]);
  });
}

function moveActive(event) {
  const page = Math.floor(table.grid.clientHeight / ROW) - 2;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.target.closest("button")) return;
  if (event.key === "Enter" && table.shown.length) choose(table.shown[table.active]);
  else if (event.key in steps) {
    table.active = Math.max(0, Math.min(table.shown.length - 1, table.active + steps[event.key]));
    const top = table.active * ROW;
    if (top < table.grid.scrollTop) table.grid.scrollTop = top;
    const bottom = top + 2 * ROW - table.grid.clientHeight;
    if (bottom > table.grid.scrollTop) table.grid.scrollTop = bottom;
    drawRowsInView();
  } else return;
  event.preventDefault();
}

function drawTable() {
  table.shown = isFiltered() ? table.order.filter((trial) => kept[trial]) : table.order;
  table.active = Math.min(table.active, Math.max(0, table.shown.length - 1));
  table.body.style.height = table.shown.length * ROW + "px";
  table.grid.setAttribute("aria-rowcount", table.shown.length + 1);
  columns.forEach((column, at) => {
    const sorted = at === table.column;
    const header = table.head.children[at];
    header.setAttribute("aria-sort", sorted ? (table.descending ? "descending" : "ascending") : "none");
    header.firstChild.textContent = column.title + (sorted ? (table.descending ? " ▼" : " ▲") : "");
  });
  drawRowsInView();
}

function drawRowsInView() {
  const { grid, body, shown } = table;
  const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - 4);
  const last = Math.min(shown.length, first + Math.ceil(grid.clientHeight / ROW) + 8);
  const rows = [];
  for (let at = first; at < last; at++) {
    const trial = shown[at];
    const marks = (chosen.has(trial) ? " chosen" : "") + (at === table.active ? " active" : "");
    rows.push(make("div", { class: "row" + marks, role: "row", "data-at": at, "aria-rowindex": at + 2, "aria-selected": String(chosen.has(trial)),
      style: `top: ${at * ROW}px; grid-template-columns: ${template}; width: ${rowWidth}px` },
      columns.map((column) => make("div", { role: "gridcell" }, column.values[trial] === null ? "–" : column.text(column.values[trial])))));
  }
  body.replaceChildren(...rows);
}
