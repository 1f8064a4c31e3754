// All test pictures judged while nothing trains, the first of them while something does.

import { choose } from "./inside.js";
import { Mistakes } from "./mistakes.js";
import { integer, percent } from "./numbers.js";
import { $, dark, link, page } from "./state.js";
import { View } from "./view.js";

const CHUNK = 1000; // test pictures judged at once

export const mistakes = new Mistakes({
  table: $("confusion"), gallery: $("gallery"), text: $("gallery-text"), all: $("gallery-all"),
  pictures: (indices) => link.ask("pictures", { indices }),
  choose: (index) => choose(index).then(() => document.querySelector(".inside").scrollIntoView()),
  dark: () => dark.matches,
});

export const judging = new View(document.querySelector(".mistakes"), 1e9, judgeAll);
judging.turned = () => mistakes.see(judging.visible);

// Takes probabilities [n][10] of the first n test pictures at a step; gives the share that is right.
export function verdicts(probabilities, step) {
  const accuracy = mistakes.judge(probabilities, page.labels);
  const count = probabilities.length / 10;
  page.judged = { step, count, accuracy };
  const which = count < page.lab?.settings.test_images ? `the first ${integer(count)}` : `all ${integer(count)}`;
  $("judged").textContent = `${percent(accuracy)} of ${which} test pictures right, at step ${integer(step)}.`;
  return accuracy;
}

async function judgeAll() {
  const { lab, phase, run, judged } = page;
  if (!lab || phase === "training" || phase === "loading" || !run.step && !lab.file) return;
  const count = Math.min(lab.settings.test_images, page.testLength);
  if (judged && judged.step === run.step && judged.count === count) return;
  const all = new Float32Array(10 * count);
  for (let from = 0; from < count; from += CHUNK) {
    const part = await link.ask("judge", { from, count: Math.min(CHUNK, count - from) });
    if (page.phase === "training" || part.step !== page.run.step) return;
    all.set(part.probabilities, 10 * from);
  }
  verdicts(all, page.run.step);
}

export function clearJudgement() {
  mistakes.clear();
  page.judged = undefined;
  $("judged").textContent = "Nothing judged yet.";
}
