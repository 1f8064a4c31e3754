// What one does with a run: open it, train, pause, step, stop, begin anew.

import { withoutGpu } from "./banners.js";
import { clearJudgement } from "./judging.js";
import { forget } from "./keeping.js";
import { Layers } from "./layers.js";
import { setPhase } from "./phases.js";
import { $, banner, form, freshRun, history, link, offer, page } from "./state.js";
import { trust, trusted } from "./trust.js";
import { refresh } from "./views.js";
import { showAbout, tell } from "./words.js";

const layers = new Layers($("layers"), $("layer"), (name) => link.ask("shader", { name }));

// Opens a network on a device: fresh, with the `weights` of a file, or as a `checkpoint` left it. Of the file `name` is
// shown; `settings` are those that the run began with, if not the form's.
export async function open(device, start = {}) {
  const settings = start.settings ?? valid();
  page.start = start;
  announce(device);
  await ask(device, settings);
  warnOfSoftware();
  layers.show(page.lab.layers);
  showAbout();
  const { step, epochs, totalSteps } = page.run;
  setPhase(epochs.at(-1)?.step === totalSteps ? "done" : step ? "paused" : "ready");
  refresh();
  if (page.wanted) await train();
}

// What the form holds; where it cannot be taken, the field is shown.
export function valid() {
  const wrong = form.invalid;
  if (!wrong) return form.read();
  wrong.closest("details")?.setAttribute("open", "");
  wrong.focus();
  wrong.reportValidity();
  throw new Error(`${wrong.name}: ${wrong.validationMessage || "a value is missing"}`);
}

// Tells that a network is being opened, in place of what was.
function announce(device) {
  banner.hide();
  offer.hide();
  page.lab = undefined;
  page.generation++;
  $("loading-text").textContent = device === "gpu" ? "Compiling the shaders…" : "Preparing the CPU…";
  $("progress").removeAttribute("value");
  $("loading").hidden = Boolean(page.run.step);
  setPhase("loading");
}

// Has the worker open it.
async function ask(device, settings) {
  const { start, run, rate, generation } = page;
  const { weights, checkpoint, name } = start;
  try {
    const { images, ms } = run;
    const answer = await link.ask("open", { settings, device, weights, checkpoint, rate, images, ms, generation, trusted: trusted() });
    page.lab = { ...answer, settings, kind: device, file: name };
  } catch (error) {
    page.wanted = false;
    refused(error, device, start);
    throw Object.assign(error, { told: true });
  }
  const { lab } = page;
  Object.assign(run, { step: lab.step, perEpoch: lab.perEpoch, totalSteps: lab.totalSteps });
  if (lab.difference) trust(lab.adapter.key);
  if (lab.adapter) lab.device = [lab.adapter.name || "a GPU", lab.adapter.kind].filter(Boolean).join(", ");
}

// Says why it could not be opened, and what can be done.
function refused(error, device, start) {
  if (device === "gpu" && ["NoGpu", "Device", "DeviceLost"].includes(error.name)) {
    setPhase("nogpu");
    const none = error.name === "NoGpu";
    banner.show(none ? "This page finds no GPU" : "The GPU cannot run this", none ? withoutGpu(error.message) : [error.message], [
      ["use-cpu", "Train on the CPU instead", () => {
        $("run-on").value = "cpu";
        open("cpu", start).catch(() => {});
      }],
    ]);
  } else if (error.name !== "Closed") {
    setPhase("failed");
    banner.show("This cannot be opened", [error.message, "Change the settings and press Reset."]);
  }
}

function warnOfSoftware() {
  const { adapter } = page.lab;
  if (!adapter?.kind?.startsWith("software")) return;
  banner.show("A software adapter", [`The browser found no GPU: “${adapter.name || "software"}” computes WebGPU on the processor. It is right, but slow: the CPU backend is faster.`], [
    ["use-cpu", "Train on the CPU instead", () => {
      $("run-on").value = "cpu";
      reset().catch(() => {});
    }],
  ]);
}

// Forgets all that was of the run.
export function clear() {
  forget();
  history.clear();
  clearJudgement();
  page.run = freshRun();
  page.checked = page.pressed = page.rate = undefined;
  $("checked").textContent = "";
}

export async function train() {
  if (page.phase === "loading") {
    page.wanted = !page.wanted;
    page.pressed = page.wanted ? performance.now() : undefined;
    return setPhase("loading");
  }
  if (!begins()) return;
  page.wanted = false;
  setPhase("training");
  await link.ask("train");
}

// Whether a step can be taken now; then it counts as begun.
function begins() {
  if (page.phase !== "ready" && page.phase !== "paused") return false;
  offer.hide();
  if (page.run.firstStepMs === undefined) page.pressed ??= performance.now();
  return true;
}

export async function pause() {
  if (page.phase !== "training") return;
  setPhase("paused");
  await link.ask("pause");
  refresh();
  tell();
}

export const toggle = () => (page.phase === "training" ? pause() : train());

export async function step() {
  if (!begins()) return;
  await link.ask("step");
  if (page.phase === "ready") setPhase("paused");
  refresh();
  tell();
}

export async function reset() {
  if ($("reset").disabled) return;
  clear();
  form.toAddress();
  await open($("run-on").value);
}

export async function stop() {
  if ($("stop").disabled) return;
  await link.ask("stop");
  page.lab = undefined;
  setPhase("stopped");
  tell();
}
