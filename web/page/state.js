// What the page knows, as all its parts share it. Nothing is done here.

import { Banner } from "./banners.js";
import { History } from "./history.js";
import { Link } from "./link.js";
import { Settings } from "./settings.js";

export const $ = (id) => document.getElementById(id);

export const dark = matchMedia("(prefers-color-scheme: dark)");
export const history = new History();
export const banner = new Banner($("banner"));
export const offer = new Banner($("offer")); // of a run that was kept
export const form = new Settings($("settings"), $("run-on"));
export const link = new Link();

export function freshRun() {
  return { step: 0, images: 0, ms: 0, epochs: [], probes: [], time98: {}, perEpoch: 0, totalSteps: 0 };
}

export const page = {
  phase: "loading",
  labels: undefined, // of the test pictures
  testLength: 0,
  ahead: undefined, // what was compiled while the data came: { pipelines }
  lab: undefined, // what the open network is: the answer to `open`, with its settings
  start: {}, // what it began with, see `open`
  run: freshRun(),
  kept: undefined, // the last copy of the run, see keeping.js
  wanted: false, // Train was pressed before the network was ready
  rate: undefined, // the learning rate that was set by hand
  pressed: undefined, // when Train was
  chosen: undefined, // { source, index, label, pixels, probabilities }
  inside: undefined, // what the network made of it
  drawn: undefined, // { pixels, probabilities, step }
  judged: undefined, // { step, count, accuracy }
  checked: undefined, // the difference between GPU and CPU
  generation: 0, // of the run: what the worker still tells of an earlier one is not heard
  dirty: true, // numbers and curves have to be painted
};
