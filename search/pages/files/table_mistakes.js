"use strict";
// The rows that the network gets wrong: a confusion matrix or a cloud of points, and the rows behind it.

const LISTED = 50;
const MIXED_UP = 20;

// Args: `pick(truth, answer)` shows the rows of a cell.
function confusionTable(confusion, classes, pick) {
  const cell = (count, truth, answer, total) => {
    if (!count) return make("td", { class: "empty" }, "·");
    const words = `${count} rows that are ${classes[truth]}, answered ${classes[answer]}`;
    const button = make("button", { type: "button", "aria-label": words, title: words, "aria-pressed": "false" }, String(count));
    const strength = Math.round(15 + (55 * count) / total);
    button.style.background = `color-mix(in srgb, var(--${truth === answer ? "blue" : "orange"}) ${strength}%, transparent)`;
    button.addEventListener("click", () => {
      for (const other of button.closest("table").querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", "true");
      pick(truth, answer);
    });
    return make("td", {}, button);
  };
  const body = confusion.map((counts, truth) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    const cells = counts.map((count, answer) => cell(count, truth, answer, total));
    return make("tr", {}, make("th", { scope: "row" }, classes[truth]), cells);
  });
  const heads = classes.map((name) => make("th", { scope: "col" }, name));
  return make(
    "div",
    { class: "scroll" },
    make("p", { class: "soft" }, "True class down, answer across. Choose a cell to see its rows."),
    make("table", { class: "confusion" }, make("thead", {}, make("tr", {}, make("td"), heads)), make("tbody", {}, body)),
  );
}

// Where there are too many classes for a matrix: which ones are mixed up most often.
function confusionList(confusion, classes, pick) {
  const found = confusion.flatMap((counts, truth) =>
    counts.map((count, answer) => ({ count, truth, answer })).filter((each) => each.count && each.truth !== each.answer),
  );
  found.sort((one, other) => other.count - one.count);
  const items = found.slice(0, MIXED_UP).map(({ count, truth, answer }) =>
    make("li", {}, make("button", { type: "button", onclick: () => pick(truth, answer) }, `${count} times ${classes[truth]} answered ${classes[answer]}`)),
  );
  return make("div", {}, make("h3", {}, "Mixed up most often"), make("ul", { class: "rows" }, items));
}

// A button for each row that opens it in the form.
function rowList(model, rows, indices, open) {
  return indices.slice(0, LISTED).map((index) => {
    const answers = answersTo(model, rows.values[index]);
    const answer = model.classes.length ? indexOfLargest(answers) : answers[0];
    const sure = model.classes.length ? ` (${percent(answers[answer])})` : "";
    const words = `row ${rows.ids[index]}: is ${answerName(model, rows.truth[index])}, answered ${answerName(model, answer)}${sure}`;
    return make("li", {}, make("button", { type: "button", "data-row": index, onclick: () => open(index) }, words));
  });
}
