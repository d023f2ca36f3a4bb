"use strict";
// The page of a table's model: what is shown, and what happens when something is chosen or changed.

const MOST_BARS = 12;
const STEPS = 24;

const data = pageData();
const model = makeModel(data);
const isChance = model.classes.length > 0;
const state = { index: 0, original: [], row: [], before: [], chosen: data.order[0], answer: 0, waiting: 0 };
const byId = (id) => document.getElementById(id);
let fields = [];
let markChosen = () => {};

function start() {
  fields = buildForm(byId("form"), model.columns, data.order, changeValue, choose);
  markChosen = buildImportances(byId("importances"), byId("all-columns"), model.columns, data.order, choose);
  buildRowPicker();
  if (isChance) {
    byId("answer").append(...model.classes.map((name, answer) => make("option", { value: answer }, name)));
    byId("answer").addEventListener("change", (event) => {
      state.answer = Number(event.target.value);
      showCurves();
    });
  }
  byId("undo").addEventListener("click", () => openRow(state.index));
  const wrong = new Set(data.worst);
  const first = data.rows.ids.findIndex((_, index) => !wrong.has(index));
  openRow(Math.max(0, first));
  showMistakes();
  showCheck();
}

function buildRowPicker() {
  const { ids, truth } = data.rows;
  const options = ids.map((id, index) => make("option", { value: index }, `row ${id}: ${answerName(model, truth[index])}`));
  byId("row").append(...options);
  byId("row").addEventListener("change", (event) => openRow(Number(event.target.value)));
  const turn = (step) => openRow((state.index + step + ids.length) % ids.length);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
}

function openRow(index) {
  state.index = index;
  state.original = data.rows.values[index];
  state.row = state.original.slice();
  state.before = answersTo(model, state.original);
  byId("row").value = String(index);
  fields.forEach((field, column) => field.show(state.row[column]));
  if (isChance) {
    state.answer = indexOfLargest(state.before);
    byId("answer").value = String(state.answer);
  }
  showAnswer();
}

function changeValue(index, value) {
  if (value === undefined) return;
  state.row = withValue(state.row, index, value);
  showAnswer();
}

function takeBack(index) {
  fields[index].show(state.original[index]);
  changeValue(index, state.original[index]);
}

function choose(index) {
  state.chosen = index;
  showCurves();
}

function showAnswer() {
  const answers = answersTo(model, state.row);
  showChanges(fields, state.original, state.row, takeBack);
  if (isChance) showChances(answers);
  else showValue(answers[0]);
  showCurvesSoon();
}

// Once for each picture on the screen, however fast a slider is drawn.
function showCurvesSoon() {
  cancelAnimationFrame(state.waiting);
  state.waiting = requestAnimationFrame(showCurves);
}

function isChanged() {
  return state.row.some((value, index) => value !== state.original[index]);
}

function truthWords() {
  const truth = answerName(model, data.rows.truth[state.index]);
  return isChanged() ? ` (true before the change: ${truth})` : ` (true: ${truth})`;
}

function showChances(answers) {
  const best = indexOfLargest(answers);
  byId("verdict").replaceChildren(make("strong", {}, model.classes[best]), `, ${percent(answers[best])}${truthWords()}`);
  const order = answers.map((_, answer) => answer);
  if (answers.length > MOST_BARS) order.sort((one, other) => answers[other] - answers[one]);
  const bars = order.slice(0, MOST_BARS).flatMap((answer) => chanceBar(answers, answer, best));
  byId("bars").replaceChildren(make("div", { class: "bars" }, bars));
}

function chanceBar(answers, answer, best) {
  const first = answer === best ? " first" : "";
  const bar = make("span", { class: `bar${first}` });
  bar.style.width = percent(answers[answer]).replace(" ", "");
  const before = make("span", { class: "before", title: `before: ${percent(state.before[answer])}` });
  before.style.left = `calc(${100 * state.before[answer]}% - 1.5px)`;
  const truth = data.rows.truth[state.index] === answer ? [" ", make("span", { class: "truth" }, "true")] : [];
  return [
    make("span", { class: `name${first}` }, model.classes[answer], truth),
    make("span", { class: "track" }, bar, isChanged() ? before : null),
    make("span", { class: "value", "data-answer": answer }, percent(answers[answer])),
  ];
}

function showValue(answer) {
  byId("verdict").replaceChildren(`${model.target.name}: `, make("strong", {}, answerName(model, answer)), truthWords());
  const marks = [{ value: data.rows.truth[state.index], kind: "true" }];
  if (isChanged()) marks.push({ value: state.before[0], kind: "before" });
  marks.push({ value: answer, kind: "answer" });
  if (!byId("target-plot")) {
    const legend = [["", "answer"], ["before", "before the change"], ["true", "true"], ["many", "train split"]];
    const items = legend.map(([kind, words]) => make("span", {}, make("i", { class: kind }), words));
    byId("bars").append(make("div", { id: "target-plot" }), make("p", { class: "legend" }, items));
  }
  showPlot(byId("target-plot"), targetPlot(data.histogram, marks), `the answer among the values of ${model.target.name}`);
}

// Values of a column at which its curve is drawn.
function valuesOf(index) {
  const column = model.columns[index];
  if (data.dependences[index]) return data.dependences[index].values;
  if (column.kind === "category") return column.values.slice(0, STEPS);
  const [low, high] = column.range;
  return Array.from({ length: STEPS }, (_, i) => low + ((high - low) * i) / (STEPS - 1));
}

function showCurves() {
  markChosen(state.chosen);
  fields.forEach((field, index) => field.element.classList.toggle("chosen", index === state.chosen));
  const column = model.columns[state.chosen];
  const values = valuesOf(state.chosen);
  const mine = values.map((value) => answersTo(model, withValue(state.row, state.chosen, value))[state.answer]);
  const answer = answersTo(model, state.row)[state.answer];
  const least = isChance ? 0.1 : model.target.std / 10;
  const shared = { column, values, mine, current: state.row[state.chosen], answer, isChance, least };
  const what = isChance ? `chance of ${model.classes[state.answer]}` : model.target.name;
  byId("curve-title").textContent = `${what}, if only ${column.name} changed`;
  showPlot(byId("curve"), dependencePlot({ ...shared, mean: [], lines: [], height: 190 }), `${what} by ${column.name}, this row`);
  const known = data.dependences[state.chosen];
  const place = data.answers.indexOf(state.answer);
  const [mean, lines] = known && place >= 0 ? [known.mean[place], known.lines[place]] : [[], []];
  byId("dependence-title").textContent = column.name;
  showPlot(byId("dependence"), dependencePlot({ ...shared, mean, lines, height: 300 }), `${what} by ${column.name}`);
}

function showMistakes() {
  const pick = (truth, answer) => {
    const rows = data.rows.ids.map((_, i) => i).filter((i) => data.rows.truth[i] === truth && data.rows.answer[i] === answer);
    const title = truth === answer ? `Right: ${model.classes[truth]}` : `${model.classes[truth]}, answered ${model.classes[answer]}`;
    listRows(title, rows, data.confusion[truth][answer]);
  };
  if (!isChance) showScatter();
  else byId("overview").append((data.matrix ? confusionTable : confusionList)(data.confusion, model.classes, pick));
  listRows(isChance ? "Most wrong" : "Furthest off", data.worst, null);
}

function showScatter() {
  const open = (index) => showInForm(index);
  showPlot(byId("overview"), scatterPlot(data.rows.truth, data.rows.answer, state.index, open), "answers against the truth");
}

function listRows(title, rows, count) {
  byId("list-title").textContent = title;
  const shown = Math.min(rows.length, LISTED);
  byId("list-note").textContent = !shown ? "None of them is in this page." : count > shown ? `${shown} of ${count} rows.` : "Choose a row to open it in the form above.";
  byId("rows").replaceChildren(...rowList(model, data.rows, rows, showInForm));
}

function showInForm(index) {
  openRow(index);
  if (!isChance) showScatter();
  byId("change").scrollIntoView();
  byId("row").focus({ preventScroll: true });
}

// The page's own arithmetic against PyTorch's, for some rows.
function showCheck() {
  let most = 0;
  data.checked.forEach((outputs, index) => {
    const ours = answersTo(model, data.rows.values[index]);
    const unit = isChance ? 1 : model.target.std;
    outputs.forEach((output, i) => (most = Math.max(most, Math.abs(output - ours[i]) / unit)));
  });
  byId("check").textContent = `Its answers to ${data.checked.length} rows differ from PyTorch's by ${most.toExponential(0)} at most.`;
}

start();
