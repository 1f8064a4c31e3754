// What the worker tells unasked.

import { attempt } from "./attempt.js";
import { verdicts } from "./judging.js";
import { keep } from "./keeping.js";
import { integer, megabytes, percent } from "./numbers.js";
import { setPhase } from "./phases.js";
import { recover, restart, ways } from "./recovery.js";
import { reset } from "./run.js";
import { $, banner, form, history, page } from "./state.js";
import { refresh } from "./views.js";
import { say } from "./words.js";

const EVENTS = {
  progress({ bytes, total }) {
    const bar = $("progress");
    if (total) {
      bar.max = total;
      bar.value = bytes;
    }
    $("loading-text").textContent = total ? `${megabytes(bytes)} of ${megabytes(total)} of handwritten digits` : `${megabytes(bytes)} of handwritten digits`;
  },

  ahead({ pipelines }) {
    page.ahead = { pipelines };
  },

  metrics({ first, loss, accuracy, learningRate, step, images, ms, memory }) {
    const { run, pressed } = page;
    loss.forEach((value, i) => history.push(first + i, value, accuracy[i]));
    Object.assign(run, { step, images, ms, learningRate, memory });
    if (pressed !== undefined) {
      run.firstStepMs = performance.now() - pressed;
      run.firstStepLoadMs = performance.now();
      page.pressed = undefined;
    }
    page.dirty = true;
  },

  epoch({ epoch, step, ms, count, train, test }) {
    const { run } = page;
    run.epochs.push({ epoch, step, ms, count, train, loss: test.loss, accuracy: test.accuracy });
    if (test.accuracy >= 0.98) run.time98.epoch ??= { ms, count, epoch };
    page.dirty = true;
    say(`Epoch ${epoch}: test accuracy ${percent(test.accuracy)}, loss ${test.loss.toFixed(4)}.`);
  },

  probe({ count, step, ms, probabilities }) {
    const { run } = page;
    const accuracy = verdicts(probabilities, step);
    run.probes.push({ step, ms, count, accuracy });
    // Neighbours are dropped, so that a long run keeps a bounded number.
    if (run.probes.length > 600) run.probes = run.probes.filter((_, i) => i % 2 === 1);
    if (accuracy >= 0.98) run.time98.probe ??= { ms, count };
    page.dirty = true;
  },

  checkpoint: keep,

  done() {
    const { run } = page;
    setPhase("done");
    refresh();
    const last = run.epochs.at(-1);
    say(`Finished after ${integer(run.step)} steps${last ? `: test accuracy ${percent(last.accuracy)}` : ""}.`);
  },

  lost({ message }) {
    const { kept } = page;
    page.lab = undefined;
    setPhase("lost");
    banner.show("The GPU was lost", [
      `${message}. That happens when a driver is reset or updated, or a machine sleeps.`,
      kept ? `The run as it was after step ${integer(kept.step)} is here, with the optimizer’s averages.` : "No copy of the run had been made yet: it begins anew.",
    ], ways(recover));
  },

  diverged({ message }) {
    setPhase("diverged");
    const used = page.run.learningRate ?? page.lab.settings.learning_rate;
    banner.show("The numbers ran out of range", [`${message}. The weights are those before it. A smaller learning rate usually helps: now it is ${Number(used.toPrecision(3))}.`], [
      ["smaller-rate", "Reset with a tenth of it", () => {
        form.write({ learning_rate: Math.min(10, Number((used / 10).toPrecision(2))) });
        attempt(reset);
      }],
    ]);
  },

  failed({ message }) {
    setPhase("failed");
    banner.show("Something failed", [message], [["again", "Load the page again", () => location.reload()]]);
  },
};

export const { failed } = EVENTS;

// Takes a message; those of an earlier run are passed over.
export function heard(message) {
  if ([undefined, page.generation].includes(message.generation) || message.event === "progress") EVENTS[message.event](message);
}

// Says that the worker does not answer.
export function silent() {
  const { kept } = page;
  setPhase("failed");
  banner.show("No answer for three minutes", [
    "The device or the worker hangs. A new worker can go on" + (kept ? ` from step ${integer(kept.step)}.` : "."),
  ], ways(restart));
}
