// What the page says in words: to those who listen, and about the device.

import { integer, megabytes, percent } from "./numbers.js";
import { $, history, page } from "./state.js";

const TELL_EVERY = 10000; // ms

export function say(text) {
  $("live").textContent = text;
}

// Tells where the training is.
export function tell() {
  const { run } = page;
  const smooth = history.now;
  if (!smooth) return;
  const text = `Step ${integer(run.step)}: loss ${smooth.loss.toFixed(3)}, training accuracy ${percent(smooth.accuracy)}`;
  say(`${text}.`);
  $("loss-chart").setAttribute("aria-label", `Loss over ${integer(run.step)} steps: ${smooth.loss.toFixed(3)} now, smoothed`);
  const last = run.epochs.at(-1);
  $("accuracy-chart").setAttribute("aria-label", `Accuracy over ${integer(run.step)} steps: training ${percent(smooth.accuracy)} now${last ? `, test ${percent(last.accuracy)} after epoch ${last.epoch}` : ""}`);
}

// Has it told now and then.
export function keepTelling() {
  setInterval(() => page.phase === "training" && tell(), TELL_EVERY);
}

// How far apart the two devices are.
export function apart({ loss, logits, gradients, tensor }) {
  const part = (value) => (value === 0 ? "0" : value.toExponential(1));
  return `${part(loss)} apart in the loss, ${part(logits)} in the logits and at most ${part(gradients)} in a gradient (${tensor}), relative`;
}

// Describes the open network and its device.
export function showAbout() {
  const { lab } = page;
  $("device").textContent = `Runs on ${lab.device}.`;
  const rows = [["Device", lab.device]];
  rows.push(["Launches a step", integer(lab.launches)], ["Memory of the plan", megabytes(lab.bytes)], ["Steps of the run", integer(lab.totalSteps)]);
  if (lab.kind === "gpu") rows.push(["A first step", lab.difference ? `is the CPU’s: ${apart(lab.difference)}` : "was compared with the CPU’s before"]);
  if (lab.file) rows.push(["Weights from", lab.file]);
  $("about").replaceChildren(...rows.flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}
