// The worker: it owns the WebAssembly, the data and the network in training, and does one thing at a time.

import init, * as wasm from "./pkg/lenet_web.js";
import { fetchData } from "./data.js";
import { Pace } from "./pace.js";

const POST_EVERY = 50; // ms between two messages with metrics
const PROBE_EVERY = 1000; // ms between two looks at the first test pictures
const PROBED = 1000; // of them
const KEEP_EVERY = 5000; // ms between two copies of the weights
const ADAPTER_WAIT = 15000; // ms; a browser without an adapter may never answer

let data, lab, pace, fresh, memory;
let running = false;
let run = {}; // of the laboratory that is open: { step, images, ms, since, testImages }
let batch = empty(); // metrics that the page has not got yet
let posted = 0;
let probe = { at: 0, cost: 0 };
let keep = { at: 0, cost: 0, step: -1 };
let rate; // the learning rate that was set by hand
let opening; // the adapter that was asked for ahead
let generation = 0; // of the run, so that the page knows what belongs to an earlier one

const queue = [];
let wake = () => {};
self.onmessage = ({ data: message }) => {
  queue.push(message);
  wake();
};

function empty() {
  return { first: 0, loss: [], accuracy: [], learningRate: undefined };
}

const post = (event, fields = {}, transfer = []) => self.postMessage({ event, generation, ...fields }, transfer);

const now = () => performance.now();
const spent = () => run.ms + (running ? now() - run.since : 0);

function start() {
  if (running) return;
  running = true;
  run.since = now();
  pace.interrupted();
}

function halt() {
  if (!running) return;
  run.ms = spent();
  running = false;
}

// Sends the metrics on.
function flush() {
  posted = now();
  if (!batch.loss.length) return;
  post("metrics", { ...batch, step: run.step, images: run.images, ms: spent(), memory: memory.buffer.byteLength });
  batch = empty();
}

// Takes the next event of the laboratory; false when nothing is in flight.
async function take() {
  const text = await lab.event();
  if (text === undefined) return false;
  const { steps, epoch } = JSON.parse(text);
  if (steps) {
    if (!batch.loss.length) batch.first = run.base + steps.first;
    batch.loss.push(...steps.loss);
    batch.accuracy.push(...steps.accuracy);
    batch.learningRate = steps.learning_rate;
    run.step = run.base + steps.first + steps.loss.length - 1;
    for (const count of steps.count) run.images += count;
    if (fresh) flush();
    fresh = false;
  } else {
    flush();
    post("epoch", { ...epoch, step: run.base + epoch.step, ms: spent(), count: run.testImages });
    keep.at = -Infinity;
  }
  return true;
}

// Takes all that is in flight, so that what follows knows its step.
async function drain() {
  while (lab && lab.in_flight > 0) {
    try {
      await take();
    } catch (error) {
      // Steps that were queued behind one that was not finite tell the same once more.
      if (!(run.diverged && error.name === "NotFinite")) throw error;
    }
  }
  pace?.interrupted();
}

async function judge(from, count) {
  const probabilities = await lab.judge(from, count);
  return { from, count, step: run.step, ms: spent(), probabilities };
}

// One turn of the training.
async function round() {
  while (lab.in_flight < 2) {
    const answer = lab.advance(pace.steps);
    if (answer === "queued") continue;
    if (answer === "done" && lab.in_flight === 0) {
      halt();
      flush();
      post("done");
    }
    break;
  }
  if (await take()) pace.arrived(now());
  if (now() - posted > POST_EVERY) flush();
  if (running && run.step > run.base && now() - probe.at > Math.max(PROBE_EVERY, 10 * probe.cost)) {
    await drain();
    const begun = now();
    const seen = await judge(0, Math.min(PROBED, run.testImages));
    probe = { at: now(), cost: now() - begun };
    flush();
    post("probe", seen, [seen.probabilities.buffer]);
  }
  if (running && now() - keep.at > Math.max(KEEP_EVERY, 20 * keep.cost)) await keepWeights();
}

// Gives the page a copy of the weights, for the day that the device is lost.
async function keepWeights() {
  await drain();
  if (keep.step === run.step) {
    keep.at = now();
    return;
  }
  const begun = now();
  const bytes = await lab.save();
  keep = { at: now(), cost: now() - begun, step: run.step };
  pace.interrupted();
  flush();
  post("weights", { bytes, step: run.step }, [bytes.buffer]);
}

function close() {
  halt();
  batch = empty();
  const old = lab;
  lab = undefined;
  try {
    old?.free();
  } catch {
    // A call that never came back still holds it; its memory goes with the worker.
  }
}

function bounded(promise, ms, message) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(message)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// What the browser tells of its adapter, where it gives no description: maker and architecture.
async function adapterName() {
  const { info } = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }) ?? {};
  return info ? [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") : "";
}

const commands = {
  async start() {
    const fetched = fetchData((bytes, total) => post("progress", { bytes, total }));
    const [files, exports] = await Promise.all([fetched, init()]);
    memory = exports.memory;
    data = new wasm.Data(...files);
    const labels = Uint8Array.from({ length: data.test_len }, (_, i) => data.test_label(i));
    return { labels, trainLength: data.train_len, testLength: data.test_len, presets: JSON.parse(wasm.presets()) };
  },

  // Opens a network: fresh, or with the weights of a file, which were those after `base` steps.
  async open({ settings, device, weights, base = 0, rate: wanted, images = 0, ms = 0, generation: next }) {
    close();
    generation = next;
    let adapter;
    if (device === "gpu") {
      try {
        if (!navigator.gpu) throw new Error("this browser has no WebGPU");
        const wait = `the browser has not found an adapter within ${ADAPTER_WAIT / 1000} s`;
        const found = opening ?? wasm.adapter();
        opening = undefined;
        adapter = JSON.parse(await bounded(found, ADAPTER_WAIT, wait));
        if (!adapter.name) adapter.name = await adapterName();
      } catch (error) {
        throw Object.assign(new Error(error.message), { name: "NoGpu" });
      }
    }
    const text = JSON.stringify(settings);
    lab = weights ? await wasm.Lab.load(data, text, device, weights) : await wasm.Lab.open(data, text, device);
    run = { base, step: base, images, ms, since: 0, testImages: Math.min(settings.test_images, data.test_len) };
    pace = new Pace();
    fresh = true;
    probe = { at: now(), cost: 0 };
    keep = { at: -Infinity, cost: 0, step: -1 };
    rate = wanted;
    if (rate !== undefined) lab.set_learning_rate(rate);
    return {
      device: lab.device,
      adapter,
      totalSteps: base + lab.total_steps,
      perEpoch: lab.steps_per_epoch,
      launches: lab.launches,
      bytes: lab.bytes,
      layers: JSON.parse(lab.layers()),
    };
  },

  train: () => start(),

  pause() {
    halt();
    flush();
  },

  // One step of the optimizer.
  async step() {
    const before = run.step;
    const begun = now();
    for (let answer = ""; answer !== "done" && run.step === before;) {
      answer = lab.advance(1);
      await drain();
    }
    run.ms += now() - begun;
    flush();
    if (run.step === run.base + lab.total_steps) post("done");
  },

  // Ends the run and gives its memory back; the page keeps the weights.
  async stop() {
    halt();
    flush();
    await keepWeights();
    close();
  },

  rate({ rate: wanted }) {
    rate = wanted;
    lab.set_learning_rate(rate);
  },

  async predict({ pixels }) {
    return { probabilities: await lab.predict(pixels), step: run.step };
  },

  judge: ({ from, count }) => judge(from, count),

  async inspect({ pixels, label }) {
    const seen = await lab.inspect(pixels, label);
    const probabilities = await lab.predict(pixels);
    return { ...seen, probabilities, step: run.step };
  },

  async save() {
    return { bytes: await lab.save(), step: run.step };
  },

  async check() {
    return { difference: JSON.parse(await lab.check()), step: run.step };
  },

  async lose() {
    lab.lose();
    await lab.save(); // the first call afterwards finds out
  },

  prepare: ({ grey, width, height }) => ({ pixels: wasm.prepare(grey, width, height) }),

  pictures({ indices }) {
    const pixels = new Uint8Array(784 * indices.length);
    indices.forEach((index, i) => pixels.set(data.test_image(index), 784 * i));
    return { pixels };
  },

  shader: ({ name }) => ({ text: wasm.shader(name) }),
};

const WITHOUT_NETWORK = new Set(["start", "open", "prepare", "pictures", "shader"]);

// What the page is told of an error; a lost device and a loss that is not finite end the run.
function failed(error) {
  const { name = "Error", message = String(error) } = error;
  if (name === "DeviceLost") {
    close();
    post("lost", { message });
  } else if (name === "NotFinite") {
    halt();
    flush();
    run.diverged = true;
    post("diverged", { message });
  }
  return { name, message };
}

async function serve({ id, name, args }) {
  try {
    if (!WITHOUT_NETWORK.has(name)) {
      if (!lab) throw Object.assign(new Error("no network is open"), { name: "Closed" });
      await drain();
    }
    const result = await commands[name](args ?? {}) ?? {};
    if (!WITHOUT_NETWORK.has(name)) pace?.interrupted();
    const buffers = new Set();
    const collect = (value) => {
      if (ArrayBuffer.isView(value)) buffers.add(value.buffer);
      else if (value && typeof value === "object") Object.values(value).forEach(collect);
    };
    collect(result);
    self.postMessage({ id, result }, [...buffers]);
  } catch (error) {
    self.postMessage({ id, error: failed(error) });
  }
}

// One task of the event loop: the CPU's promises resolve at once, and messages would never be heard.
const channel = new MessageChannel();
let next;
channel.port1.onmessage = () => next();
const turn = () => new Promise((resolve) => {
  next = resolve;
  channel.port2.postMessage(0);
});

for (;;) {
  while (queue.length) await serve(queue.shift());
  if (running) {
    try {
      await round();
    } catch (error) {
      halt();
      const { name, message } = failed(error);
      if (name !== "DeviceLost" && name !== "NotFinite") post("failed", { message });
    }
    await turn();
  } else {
    await new Promise((resolve) => {
      wake = resolve;
      if (queue.length) resolve();
    });
  }
}
