// The page: it asks the worker, shows what it says, and never computes more than a drawing.

import { Banner, withoutGpu } from "./banners.js";
import { ACCURACY, drawChart, LOSS } from "./chart.js";
import { History } from "./history.js";
import { Layers } from "./layers.js";
import { Link } from "./link.js";
import { paintDigit, paintScale, setColours, showMaps, showParameters } from "./maps.js";
import { Mistakes } from "./mistakes.js";
import { integer, megabytes, percent, seconds, showNumbers } from "./numbers.js";
import { Pad } from "./pad.js";
import { Settings } from "./settings.js";

const CHUNK = 1000; // test pictures judged at once
const LONGEST_WAIT = 5000; // ms between two looks at something in view
const PAINT_EVERY = 90; // ms between two drawings of the curves
const NETS = /^(lenet5(?!-windows)|alexnet|vgg|resnet|inception|mobilenet)/; // those that take MNIST's pictures
const BLANK = new Uint8Array(784);
const $ = (id) => document.getElementById(id);

const history = new History();
const banner = new Banner($("banner"));
const dark = matchMedia("(prefers-color-scheme: dark)");

let phase = "loading";
let labels, testLength = 0;
let lab; // what the open network is: the answer to `open`, with its settings
let run = freshRun();
let kept; // the last copy of the weights: { bytes, step }
let wanted = false; // Train was pressed before the network was ready
let rate; // the learning rate that was set by hand
let pressed; // when Train was
let chosen; // { source, index, label, pixels }
let drawn; // { pixels, probabilities, step }
let judged; // { step, count, accuracy }
let checked;
let generation = 0; // of the run: what the worker still tells of an earlier one is not heard
let dirty = true;

function freshRun() {
  return { step: 0, images: 0, ms: 0, epochs: [], probes: [], time98: {}, perEpoch: 0, totalSteps: 0 };
}

// ── The worker ──────────────────────────────────────────────────────────────────────────────────────────────────────

const link = new Link(heard, () => {
  setPhase("failed");
  banner.show("No answer for three minutes", [
    "The device or the worker hangs. A new worker can go on" + (kept ? ` from the weights of step ${integer(kept.step)}.` : "."),
  ], recovery(restart));
});

const EVENTS = {
  progress({ bytes, total }) {
    const bar = $("progress");
    if (total) {
      bar.max = total;
      bar.value = bytes;
    }
    $("loading-text").textContent = total ? `${megabytes(bytes)} of ${megabytes(total)} of handwritten digits` : `${megabytes(bytes)} of handwritten digits`;
  },

  metrics({ first, loss, accuracy, learningRate, step, images, ms, memory }) {
    loss.forEach((value, i) => history.push(first + i, value, accuracy[i]));
    Object.assign(run, { step, images, ms, learningRate, memory });
    if (pressed !== undefined) {
      run.firstStepMs = performance.now() - pressed;
      run.firstStepLoadMs = performance.now();
      pressed = undefined;
    }
    dirty = true;
  },

  epoch({ epoch, step, ms, count, train, test }) {
    run.epochs.push({ epoch, step, ms, count, train, loss: test.loss, accuracy: test.accuracy });
    if (test.accuracy >= 0.98) run.time98.epoch ??= { ms, count, epoch };
    dirty = true;
    say(`Epoch ${epoch}: test accuracy ${percent(test.accuracy)}, loss ${test.loss.toFixed(4)}.`);
  },

  probe({ count, step, ms, probabilities }) {
    const accuracy = verdicts(probabilities, step);
    run.probes.push({ step, ms, count, accuracy });
    // Neighbours are dropped, so that a long run keeps a bounded number.
    if (run.probes.length > 600) run.probes = run.probes.filter((_, i) => i % 2 === 1);
    if (accuracy >= 0.98) run.time98.probe ??= { ms, count };
    dirty = true;
  },

  weights({ bytes, step }) {
    kept = { bytes, step };
  },

  done() {
    setPhase("done");
    refresh();
    const last = run.epochs.at(-1);
    say(`Finished after ${integer(run.step)} steps${last ? `: test accuracy ${percent(last.accuracy)}` : ""}.`);
  },

  lost({ message }) {
    lab = undefined;
    setPhase("lost");
    banner.show("The GPU was lost", [
      `${message}. That happens when a driver is reset or updated, or a machine sleeps.`,
      kept ? `The weights of step ${integer(kept.step)} are here; the optimizer’s averages and the schedule begin anew.` : "No weights had been copied yet: the run begins anew.",
    ], recovery(recover));
  },

  diverged({ message }) {
    setPhase("diverged");
    const used = run.learningRate ?? lab.settings.learning_rate;
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

function heard(message) {
  if ([undefined, generation].includes(message.generation) || message.event === "progress") EVENTS[message.event](message);
}

function recovery(act) {
  return [["recover-gpu", "Open the GPU again", () => act("gpu")], ["recover-cpu", "Continue on the CPU", () => act("cpu")]];
}

// ── The run ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const TEXTS = {
  loading: "loading", nogpu: "no GPU", ready: "ready", training: "training", paused: "paused", stopped: "stopped", done: "finished",
  lost: "device lost", diverged: "out of range", failed: "failed",
};

function setPhase(to) {
  phase = to;
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
  $("load").disabled = !labels || to === "loading";
  $("check").disabled = $("lose").disabled = !open || lab.kind !== "gpu";
  if (to !== "loading") $("loading").hidden = true;
  showDiffers();
  dirty = true;
}

function showDiffers() {
  $("differs").hidden = !lab || !form.differs(lab.settings, lab.kind);
}

// Opens a network on a device; `weights` are those of `base` steps.
async function open(device, { weights, base = 0, name } = {}) {
  const wrong = form.invalid;
  if (wrong) {
    wrong.closest("details")?.setAttribute("open", "");
    wrong.focus();
    wrong.reportValidity();
    throw new Error(`${wrong.name}: ${wrong.validationMessage || "a value is missing"}`);
  }
  const settings = form.read();
  banner.hide();
  lab = undefined;
  generation++;
  $("loading-text").textContent = device === "gpu" ? "Compiling the shaders…" : "Preparing the CPU…";
  $("progress").removeAttribute("value");
  $("loading").hidden = Boolean(run.step);
  setPhase("loading");
  try {
    const { images, ms } = base ? run : { images: 0, ms: 0 };
    const answer = await link.ask("open", { settings, device, weights, base, rate, images, ms, generation });
    lab = { ...answer, settings, kind: device, file: name };
  } catch (error) {
    wanted = false;
    if (device === "gpu" && ["NoGpu", "Device", "DeviceLost"].includes(error.name)) {
      setPhase("nogpu");
      const none = error.name === "NoGpu";
      banner.show(none ? "This page finds no GPU" : "The GPU cannot run this", none ? withoutGpu(error.message) : [error.message], [
        ["use-cpu", "Train on the CPU instead", () => {
          $("run-on").value = "cpu";
          open("cpu", { weights, base, name }).catch(() => {});
        }],
      ]);
    } else if (error.name !== "Closed") {
      setPhase("failed");
      banner.show("This cannot be opened", [error.message, "Change the settings and press Reset."]);
    }
    throw Object.assign(error, { told: true });
  }
  run.perEpoch = lab.perEpoch;
  run.totalSteps = lab.totalSteps;
  if (lab.adapter) lab.device = [lab.adapter.name || "a GPU", lab.adapter.kind].filter(Boolean).join(", ");
  $("device").textContent = `Runs on ${lab.device}.`;
  if (lab.adapter?.kind?.startsWith("software")) {
    banner.show("A software adapter", [`The browser found no GPU: “${lab.adapter.name || "software"}” computes WebGPU on the processor. It is right, but slow: the CPU backend is faster.`], [
      ["use-cpu", "Train on the CPU instead", () => {
        $("run-on").value = "cpu";
        reset().catch(() => {});
      }],
    ]);
  }
  layers.show(lab.layers);
  showAbout();
  setPhase(base ? "paused" : "ready");
  refresh();
  if (wanted) await train();
}

function clear() {
  history.clear();
  run = freshRun();
  mistakes.clear();
  judged = kept = checked = pressed = undefined;
  rate = undefined;
  $("judged").textContent = "Nothing judged yet.";
  $("checked").textContent = "";
}

async function train() {
  if (phase === "loading") {
    wanted = !wanted;
    pressed = wanted ? performance.now() : undefined;
    return setPhase("loading");
  }
  if (phase !== "ready" && phase !== "paused") return;
  wanted = false;
  if (run.firstStepMs === undefined) pressed ??= performance.now();
  setPhase("training");
  await link.ask("train");
}

async function pause() {
  if (phase !== "training") return;
  setPhase("paused");
  await link.ask("pause");
  refresh();
  tell();
}

async function step() {
  if (phase !== "ready" && phase !== "paused") return;
  if (run.firstStepMs === undefined) pressed ??= performance.now();
  await link.ask("step");
  if (phase === "ready") setPhase("paused");
  refresh();
  tell();
}

async function reset() {
  if ($("reset").disabled) return;
  clear();
  form.toAddress();
  await open($("run-on").value);
}

async function stop() {
  if ($("stop").disabled) return;
  await link.ask("stop");
  lab = undefined;
  setPhase("stopped");
  tell();
}

// Goes on from the last copy of the weights, or from the beginning.
async function recover(device) {
  $("run-on").value = device;
  if (!kept) {
    clear();
    return open(device);
  }
  const { bytes, step: base } = kept;
  history.truncate(base);
  run.step = base;
  run.epochs = run.epochs.filter((epoch) => epoch.step <= base);
  run.probes = run.probes.filter((probe) => probe.step <= base);
  await open(device, { weights: bytes, base });
}

async function restart(device) {
  link.restart();
  await link.ask("start");
  await recover(device);
}

async function save() {
  const { bytes, step: at } = lab ? await link.ask("save") : kept;
  return { bytes, step: at, name: `${lab?.settings.net ?? form.read().net}-${at}.safetensors` };
}

async function load(bytes, name) {
  // A file of another kind shall not end the run that is open.
  const header = bytes.length > 8 ? Number(new DataView(bytes.buffer).getBigUint64(0, true)) : Infinity;
  if (header > bytes.length - 8 || bytes[8] !== 0x7b) throw new Error(`${name} is no .safetensors file, or is cut short.`);
  clear();
  kept = { bytes, step: 0 };
  await open($("run-on").value, { weights: bytes, name });
}

async function loadFile(file) {
  if (!file || $("load").disabled) return;
  await load(new Uint8Array(await file.arrayBuffer()), file.name);
}

// ── Views: asked for while they can be seen, each when its last answer has come ─────────────────────────────────────

function verdicts(probabilities, step) {
  const accuracy = mistakes.judge(probabilities, labels);
  const count = probabilities.length / 10;
  judged = { step, count, accuracy };
  const which = count < lab?.settings.test_images ? `the first ${integer(count)}` : `all ${integer(count)}`;
  $("judged").textContent = `${percent(accuracy)} of ${which} test pictures right, at step ${integer(step)}.`;
  return accuracy;
}

class Bars {
  constructor(list) {
    this.rows = Array.from({ length: 10 }, (_, digit) => {
      const row = document.createElement("li");
      const [name, bar, text] = ["b", "i", "span"].map((tag) => document.createElement(tag));
      name.textContent = digit;
      text.textContent = "–";
      row.append(name, bar, text);
      list.append(row);
      return { row, bar, text };
    });
  }

  show(probabilities, label) {
    const best = probabilities.indexOf(Math.max(...probabilities));
    this.rows.forEach(({ row, bar, text }, digit) => {
      bar.style.setProperty("--share", probabilities[digit].toFixed(4));
      text.textContent = `${(100 * probabilities[digit]).toFixed(1)} %`;
      row.classList.toggle("best", digit === best);
      row.classList.toggle("truth", digit === label);
    });
    return best;
  }

  clear() {
    for (const { row, bar, text } of this.rows) {
      bar.style.setProperty("--share", 0);
      text.textContent = "–";
      row.classList.remove("best");
    }
  }
}

class View {
  // `work()` gives false when there was nothing to do; `every` is the shortest time between two in training.
  constructor(element, every, work) {
    Object.assign(this, { every, work, visible: false, dirty: true, busy: false, next: 0 });
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      this.turned?.();
    }).observe(element);
  }

  async look(now) {
    if (this.busy || !this.visible || document.hidden) return;
    if (!this.dirty && !(phase === "training" && now > this.next)) return;
    this.busy = true;
    this.dirty = false;
    const begun = performance.now();
    try {
      await this.work();
    } catch (error) {
      if (!["Closed", "DeviceLost", "NotFinite"].includes(error.name)) console.error(error);
    } finally {
      this.busy = false;
      const end = performance.now();
      // A sixth of the time at most; but the first look compiles shaders, and says nothing of the next.
      this.next = end + Math.max(this.every, Math.min(5 * (end - begun), LONGEST_WAIT));
    }
  }
}

async function lookAtDrawing() {
  if (!pad.strokes.length) {
    drawn = undefined;
    bars.clear();
    paintDigit($("seen"), BLANK, dark.matches);
    $("seen").alt = "What the network sees: nothing yet";
    $("answer").textContent = "–";
    $("use-drawing").disabled = true;
    return;
  }
  if (pad.fresh || !drawn) {
    pad.fresh = false;
    const { pixels } = await link.ask("prepare", pad.grey()).catch((error) => {
      if (error.name !== "Data") throw error;
      return {}; // too little ink so far to be a digit
    });
    if (!pixels) return;
    drawn = { pixels };
    paintDigit($("seen"), pixels, dark.matches);
    $("use-drawing").disabled = false;
    if (chosen?.source === "drawing") choose("drawing");
  }
  if (!lab) return;
  const { probabilities, step: at } = await link.ask("predict", { pixels: drawn.pixels });
  Object.assign(drawn, { probabilities: Array.from(probabilities), step: at });
  const best = bars.show(drawn.probabilities);
  $("answer").textContent = best;
  $("seen").alt = `What the network sees: it says ${best} with ${percent(drawn.probabilities[best])}`;
}

async function lookInside() {
  if (!lab || !chosen) return;
  const looked = chosen;
  const label = looked.label ?? (drawn?.probabilities ? drawn.probabilities.indexOf(Math.max(...drawn.probabilities)) : 0);
  const seen = await link.ask("inspect", { pixels: looked.pixels, label });
  if (looked !== chosen) return;
  inside = seen;
  chosen.probabilities = Array.from(seen.probabilities);
  const best = chosenBars.show(chosen.probabilities, looked.label);
  const what = looked.source === "test" ? `Test picture ${integer(looked.index)}, a ${looked.label}` : `Your drawing, gradients as for a ${label}`;
  $("chosen-text").textContent = `${what}. The network says ${best}${looked.source === "test" && best !== looked.label ? ", which is wrong" : ""}. Loss ${seen.loss.toFixed(3)}.`;
  showInside();
}

let inside;
function showInside() {
  if (!inside) return;
  const what = document.querySelector('input[name="show"]:checked').value;
  $("inside-step").textContent = `${what === "values" ? "values" : "gradients of this picture’s loss"} at step ${integer(inside.step)}`;
  showParameters($("filters"), inside.parameters, what);
  // What the layers are called tells nothing of their kind.
  showMaps($("maps"), inside.layers, what);
}

// Judges all test pictures while nothing trains.
async function judgeAll() {
  if (!lab || phase === "training" || phase === "loading" || !run.step && !lab.file) return;
  const count = Math.min(lab.settings.test_images, testLength);
  if (judged && judged.step === run.step && judged.count === count) return;
  const all = new Float32Array(10 * count);
  for (let from = 0; from < count; from += CHUNK) {
    const part = await link.ask("judge", { from, count: Math.min(CHUNK, count - from) });
    if (phase === "training" || part.step !== run.step) return;
    all.set(part.probabilities, 10 * from);
  }
  verdicts(all, run.step);
}

async function choose(index) {
  if (index === "drawing") {
    if (!drawn) return;
    chosen = { source: "drawing", pixels: drawn.pixels };
  } else {
    const { pixels } = await link.ask("pictures", { indices: [index] });
    chosen = { source: "test", index, pixels, label: labels[index] };
    $("digit").value = index;
  }
  paintDigit($("chosen"), chosen.pixels, dark.matches);
  $("chosen").alt = chosen.source === "test" ? `Test picture ${index}, a ${chosen.label}` : "Your drawing, as the network sees it";
  views.inside.dirty = true;
}

function refresh() {
  for (const view of Object.values(views)) view.dirty = true;
}

const bars = new Bars($("drawn"));
const chosenBars = new Bars($("chosen-bars"));
const pad = new Pad($("pad"), () => {
  pad.fresh = true;
  views.drawing.dirty = true;
});
const mistakes = new Mistakes({
  table: $("confusion"), gallery: $("gallery"), text: $("gallery-text"), all: $("gallery-all"),
  pictures: (indices) => link.ask("pictures", { indices }),
  choose: (index) => choose(index).then(() => document.querySelector(".inside").scrollIntoView()),
  dark: () => dark.matches,
});
const layers = new Layers($("layers"), $("layer"), (name) => link.ask("shader", { name }));
const views = {
  drawing: new View(document.querySelector(".draw"), 250, lookAtDrawing),
  inside: new View(document.querySelector(".inside"), 400, lookInside),
  mistakes: new View(document.querySelector(".mistakes"), 1e9, judgeAll),
};
views.mistakes.turned = () => mistakes.see(views.mistakes.visible);
setInterval(() => {
  const now = performance.now();
  if (phase === "training") views.mistakes.dirty = true; // for when it ends
  for (const [name, view] of Object.entries(views)) if (name !== "mistakes" || phase !== "training") view.look(now);
}, 60);

// ── Drawing the page ────────────────────────────────────────────────────────────────────────────────────────────────

let colours;
function themed() {
  setColours(dark.matches);
  const style = getComputedStyle(document.documentElement);
  colours = Object.fromEntries(["muted", "line", "raw", "accent", "test", "surface"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  paintScale($("scale"));
  if (chosen) paintDigit($("chosen"), chosen.pixels, dark.matches);
  paintDigit($("seen"), drawn?.pixels ?? BLANK, dark.matches);
  pad.paint();
  showInside();
  mistakes.paint();
  dirty = true;
}

let painted = 0;
function paint(now) {
  if (dirty && now - painted > PAINT_EVERY) {
    dirty = false;
    painted = now;
    showNumbers(run, history.now);
    const common = { history, colours, perEpoch: run.perEpoch };
    const epochs = (value) => run.epochs.map((epoch) => ({ step: epoch.step, value: epoch[value], epoch: true }));
    drawChart($("loss-chart"), { ...common, raw: "loss", smooth: "smoothLoss", scale: LOSS, marks: epochs("loss") });
    const probes = run.probes.map((probe) => ({ step: probe.step, value: probe.accuracy }));
    drawChart($("accuracy-chart"), { ...common, raw: "accuracy", smooth: "smoothAccuracy", scale: ACCURACY, marks: [...probes, ...epochs("accuracy")], target: 0.98 });
  }
  requestAnimationFrame(paint);
}

function say(text) {
  $("live").textContent = text;
}

// Tells in words where the training is.
function tell() {
  const smooth = history.now;
  if (!smooth) return;
  const text = `Step ${integer(run.step)}: loss ${smooth.loss.toFixed(3)}, training accuracy ${percent(smooth.accuracy)}`;
  say(`${text}.`);
  $("loss-chart").setAttribute("aria-label", `Loss over ${integer(run.step)} steps: ${smooth.loss.toFixed(3)} now, smoothed`);
  const last = run.epochs.at(-1);
  $("accuracy-chart").setAttribute("aria-label", `Accuracy over ${integer(run.step)} steps: training ${percent(smooth.accuracy)} now${last ? `, test ${percent(last.accuracy)} after epoch ${last.epoch}` : ""}`);
}
setInterval(() => phase === "training" && tell(), 10000);

function showAbout() {
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

async function check() {
  $("checked").textContent = "Comparing one batch…";
  try {
    const { difference, step: at } = await link.ask("check");
    checked = difference;
    const part = (value) => (value === 0 ? "0" : value.toExponential(1));
    $("checked").textContent = `At step ${integer(at)} the GPU and the CPU differ by ${part(difference.loss)} in the loss, ${part(difference.logits)} in the logits and at most ${part(difference.gradients)} in a gradient (${difference.tensor}), relative: rounding.`;
  } catch (error) {
    checked = { error: error.message };
    $("checked").textContent = error.message;
  }
  return checked;
}

// ── Controls ────────────────────────────────────────────────────────────────────────────────────────────────────────

const form = new Settings($("settings"), $("run-on"), {
  rate(value) {
    rate = value;
    if (lab) link.ask("rate", { rate }).catch(() => {});
  },
  // Enter in a field sends the form, too: what counts at once needs no reset.
  apply: () => $("differs").hidden || attempt(reset),
  changed: showDiffers,
});

// Runs what a control asks for; what it cannot do is told on the page already, or here.
function attempt(action) {
  return Promise.resolve().then(action).catch((error) => {
    if (["Closed", "DeviceLost", "NotFinite"].includes(error.name) || error.told) return;
    banner.show("That did not work", [error.message]);
  });
}

const toggle = () => (phase === "training" ? pause() : train());
const on = (id, action) => $(id).addEventListener("click", () => attempt(action));
on("train", toggle);
on("step", step);
on("reset", reset);
on("stop", stop);
on("check", check);
on("lose", () => link.ask("lose"));
on("clear", () => pad.clear());
on("undo", () => pad.undo());
on("random", () => choose(Math.floor(Math.random() * testLength)));
on("use-drawing", () => choose("drawing"));
on("load", () => $("file").click());
on("save", async () => {
  const { bytes, name } = await save();
  const url = URL.createObjectURL(new Blob([bytes]));
  const anchor = Object.assign(document.createElement("a"), { href: url, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});
$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  attempt(() => loadFile(file));
  target.value = ""; // so that the same file may come again
});
$("digit").addEventListener("change", ({ target }) => {
  if (labels && target.value !== "") attempt(() => choose(Math.max(0, Math.min(testLength - 1, Math.round(Number(target.value) || 0)))));
});
$("run-on").addEventListener("change", showDiffers);
for (const radio of document.querySelectorAll('input[name="show"]')) radio.addEventListener("change", showInside);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  attempt(() => loadFile(file));
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("layer").open) return;
  const inside = event.target.closest?.("input, select, textarea, summary, button, pre");
  if (inside && (event.key === " " || !inside.matches("button"))) return;
  const key = { " ": toggle, s: step, r: reset }[event.key.toLowerCase()];
  if (!key) return;
  event.preventDefault();
  attempt(key);
});
dark.addEventListener("change", themed);
new ResizeObserver(() => {
  dirty = true;
  pad.paint();
}).observe(document.body);

// ── Start, and what tests read ──────────────────────────────────────────────────────────────────────────────────────

async function begin() {
  const unknown = form.fromAddress(location.search);
  if (location.protocol === "file:") throw new Error("a page opened from a file may not load its program: serve the folder, for example with python3 -m http.server, and open http://localhost:8000");
  const started = await link.ask("start", { settings: form.read(), device: $("run-on").value });
  ({ labels, testLength } = started);
  $("digit").max = testLength - 1;
  const net = $("net").value;
  $("net").replaceChildren(...started.presets.filter(({ name }) => NETS.test(name)).map(({ name, about }) => new Option(name, name, name === "lenet5", name === net)));
  const wantedNet = new URLSearchParams(location.search).get("net");
  if (wantedNet) $("net").value = wantedNet;
  if ($("net").selectedIndex < 0) $("net").value = "lenet5";
  else unknown.splice(0, unknown.length, ...unknown.filter((text) => !text.startsWith("“net=")));
  await choose(0);
  await open($("run-on").value);
  if (unknown.length) banner.show("Part of the address is not understood", [`${unknown.join(", ")} was left out.`]);
}

themed();
requestAnimationFrame(paint);
setPhase("loading");
const ready = begin();
ready.catch((error) => {
  if (!error.told) EVENTS.failed({ message: error.message });
});

const COMMANDS = {
  train, pause, step, stop, choose, check, recover, save,
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
    rate = value;
    return link.ask("rate", { rate });
  },
  draw: (strokes) => pad.set(strokes),
  load: (bytes, name = "file.safetensors") => load(Uint8Array.from(bytes), name),
  lose: () => link.ask("lose").catch(() => {}),
};

window.lenet = {
  ready,
  command: (name, ...values) => COMMANDS[name](...values),
  state: () => ({
    phase,
    device: lab?.device,
    kind: lab?.kind,
    adapter: lab?.adapter,
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
    checked,
    banner: banner.title,
  }),
};
