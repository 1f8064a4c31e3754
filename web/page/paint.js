// Numbers and curves on the screen, in the colours of the light or the dark page.

import { ACCURACY, drawChart, LOSS } from "./chart.js";
import { pad, paintSeen } from "./drawing.js";
import { paintChosen, showInside } from "./inside.js";
import { mistakes } from "./judging.js";
import { paintScale, setColours } from "./maps.js";
import { showNumbers } from "./numbers.js";
import { $, dark, history, page } from "./state.js";

const PAINT_EVERY = 90; // ms between two drawings of the curves

let colours;

// Takes the colours from the style sheet and paints everything in them.
export function themed() {
  setColours(dark.matches);
  const style = getComputedStyle(document.documentElement);
  colours = Object.fromEntries(["muted", "line", "raw", "accent", "test", "surface"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  paintScale($("scale"));
  paintChosen();
  paintSeen();
  pad.paint();
  showInside();
  mistakes.paint();
  page.dirty = true;
}

function paint() {
  const { run } = page;
  showNumbers(run, history.now);
  const common = { history, colours, perEpoch: run.perEpoch };
  const epochs = (value) => run.epochs.map((epoch) => ({ step: epoch.step, value: epoch[value], epoch: true }));
  drawChart($("loss-chart"), { ...common, raw: "loss", smooth: "smoothLoss", scale: LOSS, marks: epochs("loss") });
  const probes = run.probes.map((probe) => ({ step: probe.step, value: probe.accuracy }));
  drawChart($("accuracy-chart"), { ...common, raw: "accuracy", smooth: "smoothAccuracy", scale: ACCURACY, marks: [...probes, ...epochs("accuracy")], target: 0.98 });
}

// Paints with the browser's frames, when something has changed.
export function keepPainting() {
  let painted = 0;
  requestAnimationFrame(function frame(now) {
    if (page.dirty && now - painted > PAINT_EVERY) {
      page.dirty = false;
      painted = now;
      paint();
    }
    requestAnimationFrame(frame);
  });
  dark.addEventListener("change", themed);
  new ResizeObserver(() => {
    page.dirty = true;
    pad.paint();
  }).observe(document.body);
}
