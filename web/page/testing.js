// What tests and other scripts find as `window.lenet`: the page's state, and the commands that its controls give.

import { check } from "./check.js";
import { pad } from "./drawing.js";
import { load, save, saveRun } from "./files.js";
import { choose } from "./inside.js";
import { mistakes } from "./judging.js";
import { storedStep } from "./keeping.js";
import { showDiffers } from "./phases.js";
import { recover } from "./recovery.js";
import { pause, reset, step, stop, train } from "./run.js";
import { $, banner, form, history, link, offer, page } from "./state.js";

const COMMANDS = {
  train, pause, step, stop, choose, check, recover, save, saveRun,
  reset(settings) {
    if (settings) form.write(settings);
    return reset();
  },
  device(name) {
    $("run-on").value = name;
    showDiffers();
  },
  rate(value) {
    form.write({ learning_rate: value });
    page.rate = value;
    return link.ask("rate", { rate: value });
  },
  draw: (strokes) => pad.set(strokes),
  load: (bytes, name = "file.safetensors") => load(Uint8Array.from(bytes), name),
  lose: () => link.ask("lose").catch(() => {}),
  kept: () => page.kept,
};

function state() {
  const { lab, run, kept, drawn, chosen, inside, judged, checked } = page;
  return {
    phase: page.phase,
    ahead: page.ahead && { ...page.ahead, taken: lab?.ahead },
    device: lab?.device,
    kind: lab?.kind,
    adapter: lab?.adapter,
    difference: lab?.difference,
    settings: lab?.settings,
    launches: lab?.launches,
    file: lab?.file,
    step: run.step,
    totalSteps: run.totalSteps,
    perEpoch: run.perEpoch,
    epoch: run.epochs.length,
    loss: history.now?.loss,
    accuracy: history.now?.accuracy,
    history: { step: Array.from(history.step.subarray(0, history.length)), loss: Array.from(history.loss.subarray(0, history.length)) },
    learningRate: run.learningRate,
    tests: run.epochs,
    testAccuracy: run.epochs.at(-1)?.accuracy,
    probes: run.probes,
    time98: run.time98,
    imagesPerSecond: run.ms ? 1000 * run.images / run.ms : 0,
    images: run.images,
    runningMs: run.ms,
    wasmBytes: run.memory,
    firstStepMs: run.firstStepMs,
    firstStepLoadMs: run.firstStepLoadMs,
    drawn: drawn && { ...drawn, pixels: Array.from(drawn.pixels) },
    chosen: chosen && { source: chosen.source, index: chosen.index, label: chosen.label, probabilities: chosen.probabilities },
    inside: inside && { step: inside.step, loss: inside.loss, layers: inside.layers.map(({ name, shape, gradient }) => ({ name, shape, gradient: Boolean(gradient) })), parameters: inside.parameters.map(({ name, shape }) => ({ name, shape })) },
    judged,
    mistakes: mistakes.mistakes.length,
    kept: kept && { step: kept.step, bytes: kept.bytes.length },
    stored: storedStep(),
    checked,
    banner: banner.title,
    offer: offer.title,
  };
}

export function expose(ready) {
  window.lenet = { ready, state, command: (name, ...values) => COMMANDS[name](...values) };
}
