"use strict";
// Puts the page together.

const viewer = makeViewer(pageData());

{
  const part = (id) => document.getElementById(id);
  const { data } = viewer;
  readPalette();
  const pad = makePad(viewer, part("pad-host"), part("pad-status"));
  makeTools(viewer, pad, part("pad-status"));
  makeOutput(viewer, part("bars"), part("says"));
  makeMaps(viewer, part("layers"));
  makeDrawer(viewer, part("drawer"), part("spoken"));
  if (part("filter")) {
    makeFilter(viewer, part);
    makeStepper(viewer, part);
  } else makeWeightPictures(viewer, part("weights"));
  makeMistakes(viewer, part("mistakes"));
  makeConfusion(viewer, part("confusion"), part("behind"));
  fillWithPictures(viewer, part("examples"), data.examples);

  const [first] = data.examples;
  if (first === undefined) viewer.show(new Float32Array(volume(viewer.network.layers[0].output)).fill(data.drawing.paper));
  else viewer.show(pictureOf(viewer, first), first);
  viewer.repaint();
  makeSurvey(viewer, part("checked"));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    viewer.repaint();
  });
}
