"use strict";
// A row to change: a field for each column, the most important first.

const FIRST_FIELDS = 12;

// Args: `onChange(index, value)` is called with a raw value, or undefined while a field holds no number;
// `onChoose(index)` when somebody turns to a field.
function buildForm(form, columns, order, onChange, onChoose) {
  const fields = [];
  const rest = make("details", {}, make("summary", {}, `${order.length - FIRST_FIELDS} more columns`));
  order.forEach((index, place) => {
    const column = columns[index];
    const field = column.kind === "number" ? numberField(column, index, onChange) : categoryField(column, index, onChange);
    field.element.addEventListener("focusin", () => onChoose(index));
    fields[index] = field;
    (place < FIRST_FIELDS ? form : rest).append(field.element);
  });
  if (order.length > FIRST_FIELDS) form.append(rest);
  form.addEventListener("submit", (event) => event.preventDefault());
  return fields;
}

function fieldFrame(column, index, controls) {
  const was = make("span", { class: "was soft" });
  const note = make("div", { class: "note", "aria-live": "polite" });
  const label = make("label", { for: `value-${index}` }, column.name);
  const element = make("div", { class: "field", "data-column": index }, make("div", { class: "head" }, label, was), controls, note);
  return { element, was, note };
}

function numberField(column, index, onChange) {
  const [low, high] = column.range;
  const step = column.whole ? 1 : stepOf(low, high);
  const input = make("input", { type: "number", step: "any", id: `value-${index}`, placeholder: "missing", inputmode: "decimal" });
  const slider = make("input", { type: "range", min: low, max: high, step, "aria-label": `${column.name}, slider`, disabled: low === high });
  const frame = fieldFrame(column, index, make("div", { class: "controls" }, slider, input));
  const tell = () => {
    const value = input.validity.badInput ? undefined : input.value === "" ? null : Number(input.value);
    frame.note.textContent = noteOn(value, column);
    onChange(index, value);
  };
  input.addEventListener("input", () => {
    if (input.value !== "") slider.value = input.value;
    tell();
  });
  slider.addEventListener("input", () => {
    input.value = slider.value;
    tell();
  });
  const show = (value) => {
    input.value = value === null ? "" : String(value);
    slider.value = value === null ? column.fill : value;
    frame.note.textContent = noteOn(value, column);
  };
  return { ...frame, show };
}

// The power of ten at which a slider over the range has a hundred steps or more.
function stepOf(low, high) {
  return high > low ? 10 ** Math.floor(Math.log10((high - low) / 100)) : 1;
}

function noteOn(value, column) {
  if (value === undefined) return "This is no number.";
  const [low, high] = column.range;
  if (value === null || (low <= value && value <= high)) return "";
  return `The network has learnt from ${valueName(low)} to ${valueName(high)}: beyond that it guesses.`;
}

function categoryField(column, index, onChange) {
  const values = [...column.values, null];
  const options = values.map((value, place) => make("option", { value: place }, value === null ? "(missing)" : value));
  const select = make("select", { id: `value-${index}` }, options);
  const frame = fieldFrame(column, index, make("div", { class: "controls" }, select));
  select.addEventListener("change", () => {
    frame.note.textContent = "";
    onChange(index, values[Number(select.value)]);
  });
  const show = (value) => {
    const known = values.includes(value);
    if (!known) {
      select.append(make("option", { value: values.length }, value));
      values.push(value);
    }
    select.value = String(values.indexOf(value));
    frame.note.textContent = value === null || column.values.includes(value) ? "" : "The network has never seen this value.";
  };
  return { ...frame, show };
}

// Marks what is no longer as it was, with a button that takes it back.
function showChanges(fields, original, row, takeBack) {
  fields.forEach((field, index) => {
    const changed = row[index] !== original[index];
    if (!changed && !field.element.classList.contains("changed")) return;
    field.element.classList.toggle("changed", changed);
    const button = make("button", { type: "button", onclick: () => takeBack(index) }, `was ${valueName(original[index])} ↺`);
    field.was.replaceChildren(...(changed ? [button] : []));
  });
}
