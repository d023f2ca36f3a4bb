"use strict";
// The answer: a bar for each class, or the prediction of a regression.

const MOST_BARS = 12;

function makeOutput(viewer, host, sentence) {
  const { data, network } = viewer;
  const at = network.layers.length - 1;
  const count = data.classes.length;
  const bars = Array.from({ length: Math.min(count, MOST_BARS) }, () => {
    const [label, length, share] = [make("span", { class: "label" }), make("i"), make("span", { class: "share" })];
    const bar = make("button", { class: "bar", type: "button" }, label, make("span", { class: "track" }, length), share);
    const neuron = () => Number(bar.dataset.neuron);
    bar.addEventListener("pointerenter", () => viewer.look(at, neuron()));
    bar.addEventListener("focus", () => viewer.look(at, neuron()));
    bar.addEventListener("click", () => viewer.hold(at, neuron()));
    return { bar, label, length, share };
  });
  host.replaceChildren(...bars.map(({ bar }) => bar));
  oneTabStop(host);

  function showBars(shares) {
    const order = shares.map((_, i) => i);
    if (count > MOST_BARS) order.sort((a, b) => shares[b] - shares[a]);
    const best = shares.indexOf(Math.max(...shares));
    const truth = viewer.picture === null ? null : data.images.truth[viewer.picture];
    bars.forEach(({ bar, label, length, share }, i) => {
      const neuron = order[i];
      bar.dataset.neuron = neuron;
      bar.dataset.share = shares[neuron];
      bar.classList.toggle("best", neuron === best);
      label.textContent = data.classes[neuron] + (neuron === truth ? " ✓" : "");
      length.style.width = percentOf(shares[neuron]);
      share.textContent = percent(shares[neuron]);
      bar.setAttribute("aria-label", `${data.classes[neuron]}: ${percent(shares[neuron])}`);
    });
    return `${data.classes[best]}, ${percent(shares[best])} sure`;
  }

  viewer.on("image", () => {
    const answers = answersOf(viewer, viewer.results);
    const says = count ? showBars(answers) : `${data.target.name} = ${figure(answers[0])}`;
    const known = viewer.picture === null ? "" : ` It is ${nameOf(viewer, data.images.truth[viewer.picture])}.`;
    sentence.replaceChildren("The network says ", make("strong", {}, says), ".", known, make("span", { class: "soft" },
      ` One pass took ${viewer.milliseconds.toFixed(1)} ms.`));
  });
}

function percentOf(share) {
  return `${100 * share}%`;
}
