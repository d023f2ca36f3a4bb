"use strict";
// The columns by their importance.

const FIRST_COLUMNS = 15;

// Three digits, with an exponent where that is shorter.
function brief(value) {
  const plain = String(Number(value.toPrecision(3)));
  return plain.length > 8 ? value.toExponential(2) : plain;
}

// A bar for each column from zero to its importance, with its interval; a click chooses the column.
function buildImportances(list, more, columns, order, choose) {
  const spans = columns.flatMap((column) => column.importance);
  const [low, high] = [Math.min(0, ...spans), Math.max(0, ...spans)];
  const share = (value) => (high > low ? (100 * (value - low)) / (high - low) : 0);
  const buttons = order.map((index) => {
    const { name, importance } = columns[index];
    const [value, from, to] = importance;
    const bar = make("span", { class: value < 0 ? "bar against" : "bar first" });
    bar.style.left = `${Math.min(share(value), share(0))}%`;
    bar.style.width = `${Math.abs(share(value) - share(0))}%`;
    const whisker = make("span", { class: "whisker" });
    whisker.style.left = `${share(from)}%`;
    whisker.style.width = `${share(to) - share(from)}%`;
    const zero = make("span", { class: "zero" });
    zero.style.left = `${share(0)}%`;
    return make(
      "button",
      { type: "button", "data-column": index, title: `between ${figure(from)} and ${figure(to)}`, onclick: () => choose(index) },
      make("span", { class: "name" }, name),
      make("span", { class: "track" }, bar, zero, whisker),
      make("span", { class: "value" }, brief(value)),
    );
  });
  const show = (count) => {
    list.replaceChildren(...buttons.slice(0, count).map((button) => make("li", {}, button)));
    more.hidden = count >= buttons.length;
  };
  more.textContent = `Show all ${order.length} columns`;
  more.addEventListener("click", () => {
    show(buttons.length);
    buttons[FIRST_COLUMNS].focus();
  });
  show(FIRST_COLUMNS);
  return (chosen) => buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(order[place] === chosen)));
}
