"use strict";
// What the network gets wrong: the mistakes that it is surest of, and who is taken for whom.

function makeMistakes(viewer, host) {
  const { images, mistakes, classes } = viewer.data;
  fillWithPictures(viewer, host, mistakes, (index) => {
    const said = nameOf(viewer, images.answer[index]);
    const sure = classes.length ? ` ${percent(images.certainty[index])}` : "";
    return `${nameOf(viewer, images.truth[index])} → ${said}${sure}`;
  });
}

// A cell for each class (down) and answer (across); of many classes, a list of the most frequent confusions.
function makeConfusion(viewer, host, behind) {
  const { classes, confusion, most_cells } = viewer.data;
  if (!confusion) return;
  const counts = new Map(confusion.map(([truth, answer, count]) => [`${truth},${answer}`, count]));
  const cell = (truth, answer, words) => confusionButton(viewer, behind, truth, answer, counts.get(`${truth},${answer}`) || 0, words);
  if (classes.length > most_cells) {
    const wrong = confusion.filter(([truth, answer]) => truth !== answer).sort((a, b) => b[2] - a[2]).slice(0, most_cells);
    host.replaceChildren(make("div", { class: "pairs" }, wrong.map(([truth, answer]) => cell(truth, answer, true))));
  } else {
    const most = Math.max(...confusion.filter(([truth, answer]) => truth !== answer).map(([, , count]) => count), 1);
    host.replaceChildren(matrix(classes, cell));
    host.querySelectorAll("button.wrong").forEach((button) => button.style.setProperty("--share", Number(button.dataset.count) / most));
  }
  oneTabStop(host);
}

function matrix(classes, cell) {
  const head = make("tr", {}, make("th", { scope: "col" }, "is ↓ says →"), classes.map((name) => make("th", { scope: "col" }, name)));
  const rows = classes.map((name, truth) => make("tr", {}, make("th", { scope: "row" }, name),
    classes.map((_, answer) => make("td", {}, cell(truth, answer, false)))));
  return make("table", { class: "confusion" }, make("thead", {}, head), make("tbody", {}, rows));
}

function confusionButton(viewer, behind, truth, answer, count, words) {
  const { images, classes } = viewer.data;
  const label = `${classes[truth]} taken for ${classes[answer]}: ${count}`;
  const kind = truth === answer ? "right" : count ? "wrong" : "none";
  const open = () => {
    const inside = images.truth.map((_, i) => i).filter((i) => images.truth[i] === truth && images.answer[i] === answer);
    const some = inside.length < count ? `${inside.length} of them` : "all of them";
    const said = truth === answer ? `${plural(count, "image")} of ${classes[truth]} recognised` : `${plural(count, "image")} of ${classes[truth]} taken for ${classes[answer]}`;
    const pictures = make("div", { class: "strip" });
    behind.replaceChildren(make("p", {}, count ? `${said}; here are ${some}. Click one to give it to the network.` : `${said}.`), pictures);
    fillWithPictures(viewer, pictures, inside);
  };
  return make("button", { type: "button", class: kind, "data-count": count, "aria-label": label, title: label, onclick: open },
    words ? `${classes[truth]} → ${classes[answer]}: ${count}` : String(count));
}
