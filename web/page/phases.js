// The states of a run: what each is called, and what one can do in it.

import { $, form, page } from "./state.js";

const TEXTS = {
  loading: "loading", nogpu: "no GPU", ready: "ready", training: "training", paused: "paused", stopped: "stopped", done: "finished",
  lost: "device lost", diverged: "out of range", failed: "failed",
};

export function setPhase(to) {
  const { lab, labels, kept, wanted } = page;
  page.phase = to;
  const open = Boolean(lab) && to !== "loading";
  $("phase").textContent = TEXTS[to];
  $("phase").dataset.phase = to;
  const train = $("train");
  train.disabled = !(["ready", "paused", "training"].includes(to) || to === "loading");
  train.textContent = to === "training" ? "Pause" : to === "loading" && wanted ? "Starting…" : "Train";
  $("step").disabled = !open || !["ready", "paused"].includes(to);
  $("reset").disabled = !labels || to === "loading";
  $("stop").disabled = !open || !["ready", "training", "paused", "done"].includes(to);
  $("save").disabled = !open && !kept;
  $("save-run").disabled = (!open || to === "diverged") && !kept;
  $("load").disabled = !labels || to === "loading";
  $("check").disabled = $("lose").disabled = !open || lab.kind !== "gpu";
  if (to !== "loading") $("loading").hidden = true;
  showDiffers();
  page.dirty = true;
}

// Tells whether the form holds other settings than those that run.
export function showDiffers() {
  const { lab } = page;
  $("differs").hidden = !lab || !form.differs(lab.settings, lab.kind);
}
