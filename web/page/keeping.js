// The last copy of the run: for a device that is lost, and for the page when it is loaded again.
//
// The worker makes one every few seconds, after an epoch, and when the training rests. It is a checkpoint, bytes that only
// the laboratory reads, with what the page shows of the run: the settings that it began with, its numbers and its curves.

import { history, page } from "./state.js";
import { Storage } from "./storage.js";

const VERSION = 1; // of the record that is stored

const storage = new Storage(new URL(".", import.meta.url).pathname);

// Takes a copy: all that was told before it is about steps that are in it.
export function keep({ bytes, step }) {
  const { lab, rate, phase } = page;
  // How long the first step took, and the memory, are the page's and not the run's.
  const run = { ...structuredClone(page.run), firstStepMs: undefined, firstStepLoadMs: undefined, memory: undefined };
  page.kept = {
    version: VERSION, at: Date.now(), bytes, step, run, rate, curves: history.copy(),
    settings: lab.settings, device: lab.kind, file: lab.file,
  };
  if (step) storage.put(page.kept, phase !== "training");
}

// Puts the page where it was when the copy was made; gives what `open` has to begin with.
export function takeUp(kept) {
  const { firstStepMs, firstStepLoadMs, memory } = page.run;
  page.run = { ...structuredClone(kept.run), firstStepMs, firstStepLoadMs, memory };
  page.kept = kept;
  history.restore(kept.curves);
  return { checkpoint: kept.bytes, settings: kept.settings, name: kept.file };
}

// Forgets the copy of a run that is over. What an earlier page has stored stays until this one has a copy of its own.
export function forget() {
  if (page.kept) storage.remove();
  page.kept = undefined;
}

// What an earlier page has stored, or undefined.
export async function stored() {
  const kept = await storage.get();
  return kept?.version === VERSION ? kept : undefined;
}

export const forgetStored = () => storage.remove();

// The step of what has reached the storage, or undefined.
export const storedStep = () => storage.stored?.step;
