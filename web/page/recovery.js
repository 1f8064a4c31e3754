// Going on from the last copy of a run: after a lost device, with a new worker, in a page that was loaded again.

import { attempt } from "./attempt.js";
import { forgetStored, stored, takeUp } from "./keeping.js";
import { integer, percent } from "./numbers.js";
import { clear, open } from "./run.js";
import { $, form, link, offer, page } from "./state.js";

// The two ways on, as a banner takes them.
export function ways(act) {
  const way = (device) => () => attempt(() => act(device));
  return [["recover-gpu", "Open the GPU again", way("gpu")], ["recover-cpu", "Continue on the CPU", way("cpu")]];
}

// Goes on from the last copy, or from what the run began with.
export async function recover(device) {
  $("run-on").value = device;
  const { kept, start } = page;
  if (kept) return open(device, takeUp(kept));
  clear();
  await open(device, start);
}

export async function restart(device) {
  link.restart();
  await link.ask("start");
  await recover(device);
}

// Offers the run that an earlier page has stored.
export async function offerStored() {
  const kept = await stored();
  if (!kept || !["ready", "nogpu", "failed"].includes(page.phase)) return;
  const { settings, step, run, at } = kept;
  const when = new Date(at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  const last = run.epochs.at(-1);
  const right = last ? `, ${percent(last.accuracy)} of the test pictures right after epoch ${last.epoch}` : "";
  offer.show("Your last run is still here", [
    `${settings.net} with ${settings.optimizer}, kept ${when} after step ${integer(step)} of ${integer(run.totalSteps)}${right}. It goes on with its weights and the optimizer’s averages.`,
  ], [
    ["continue", `Continue from step ${integer(step)}`, () => attempt(() => goOn(kept))],
    ["forget", "Forget it", forgetStored],
  ]);
}

// Goes on with a run that an earlier page has stored, on the device that it ran on.
async function goOn(kept) {
  clear();
  $("run-on").value = kept.device;
  form.write(kept.settings);
  form.toAddress();
  page.rate = kept.rate;
  if (page.rate !== undefined) form.write({ learning_rate: page.rate });
  await open(kept.device, takeUp(kept));
}
