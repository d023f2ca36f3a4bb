"use strict";
// Raw rows in, answers out: the preprocessing that the network learnt with, the network, and what its outputs mean.
// A raw row has a value for each column, in the columns' order; null is a missing one.

function makeModel(data) {
  return { columns: data.columns, classes: data.classes, target: data.target, network: makeNetwork(data.network) };
}

// A number becomes (value - mean) / std, a missing one `fill` first, with an indicator behind it where the train split
// lacked values too. A category gives a feature for each value that the train split had.
function encodedRow(columns, row) {
  const features = [];
  columns.forEach((column, index) => {
    const value = row[index];
    if (column.kind === "category") {
      for (const known of column.values) features.push(value === known ? 1 : 0);
      return;
    }
    const missing = value === null;
    features.push(((missing ? column.fill : value) - column.mean) / column.std);
    if (column.missing) features.push(missing ? 1 : 0);
  });
  return Float32Array.from(features);
}

// Probabilities of the classes, or one value in the target's units.
function answersTo(model, row) {
  const layers = forward(model.network, encodedRow(model.columns, row));
  const outputs = layers[layers.length - 1].value;
  if (model.classes.length) return softmax(outputs);
  return [outputs[0] * model.target.std + model.target.mean];
}

function withValue(row, index, value) {
  const changed = row.slice();
  changed[index] = value;
  return changed;
}

function indexOfLargest(values) {
  return values.reduce((best, value, index) => (value > values[best] ? index : best), 0);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

// An answer in words: a class's name, or a number to a hundredth of the target's spread.
function answerName(model, answer) {
  if (model.classes.length) return model.classes[answer];
  const step = 10 ** (Math.floor(Math.log10(model.target.std)) - 2);
  return String(Number((Math.round(answer / step) * step).toPrecision(12)));
}

// A raw value in words; whole numbers, years and keys among them, keep all digits.
function valueName(value) {
  if (value === null) return "missing";
  return typeof value === "number" && !Number.isInteger(value) ? figure(value) : String(value);
}
