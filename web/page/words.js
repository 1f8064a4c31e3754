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

// Describes the open network and its device.
export function showAbout() {
  const { lab } = page;
  $("device").textContent = `Runs on ${lab.device}.`;
  const rows = [["Device", lab.device]];
  rows.push(["Launches a step", integer(lab.launches)], ["Memory of the plan", megabytes(lab.bytes)], ["Steps of the run", integer(lab.totalSteps)]);
  if (lab.file) rows.push(["Weights from", lab.file]);
  $("about").replaceChildren(...rows.flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}
