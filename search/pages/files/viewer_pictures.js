"use strict";
// The page's own images as buttons: a click gives the image to the network.

function nameOf(viewer, answer) {
  return viewer.data.classes.length ? viewer.data.classes[answer] : figure(answer);
}

// What is known of an image: what it is, and what the network said of it.
function wordsOf(viewer, index) {
  const { truth, answer, certainty } = viewer.data.images;
  const said = `it is ${nameOf(viewer, truth[index])}, the network says ${nameOf(viewer, answer[index])}`;
  return viewer.data.classes.length ? `${said} (${percent(certainty[index])})` : said;
}

function thumbnail(viewer, index, caption) {
  const canvas = pixelCanvas({ "aria-hidden": "true" });
  paintImage(canvas, pictureOf(viewer, index), viewer.network.layers[0].output, viewer.data.drawing);
  const words = `Row ${viewer.data.images.rows[index]} of the data: ${wordsOf(viewer, index)}`;
  const show = () => viewer.show(pictureOf(viewer, index), index);
  return make("button", { class: "thumbnail", type: "button", title: words, "aria-label": words, onclick: show },
    canvas, caption ? make("span", {}, caption) : null);
}

function fillWithPictures(viewer, host, indices, captionOf = () => null) {
  host.replaceChildren(...indices.map((index) => thumbnail(viewer, index, captionOf(index))));
  oneTabStop(host);
}
