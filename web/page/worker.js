// The worker: it owns the WebAssembly, the data and the network in training, and does one thing at a time.

import init, * as wasm from "./pkg/lenet_web.js";
import { adapter, ahead } from "./adapter.js";
import { fetchData } from "./data.js";
import { early } from "./early.js";
import { nudged } from "./nudge.js";
import { Training } from "./training.js";

let data;
let generation = 0; // of the run, so that the page knows what belongs to an earlier one

const queue = [];
let wake = () => {};
self.onmessage = ({ data: message }) => {
  queue.push(message);
  wake();
};

const post = (event, fields = {}, transfer = []) => self.postMessage({ event, generation, ...fields }, transfer);
const training = new Training(post);

const commands = {
  // Fetches the data; meanwhile, what the page will open with these settings is compiled, if that is on a GPU.
  async start({ settings, device }) {
    const fetched = fetchData((bytes, total) => post("progress", { bytes, total }));
    const started = init().then((exports) => {
      training.memory = exports.memory;
      if (settings && device === "gpu") ahead(settings, (pipelines) => post("ahead", { pipelines }));
    });
    const [files] = await Promise.all([fetched, started]);
    data = new wasm.Data(...files);
    const labels = Uint8Array.from({ length: data.test_len }, (_, i) => data.test_label(i));
    return { labels, trainLength: data.train_len, testLength: data.test_len, presets: JSON.parse(wasm.presets()) };
  },

  // Opens a network: fresh, with the weights of a file, or as a checkpoint left it. On a GPU that is not one of those
  // that were `trusted` before, a first step is compared with the CPU's.
  async open({ settings, device, weights, checkpoint, rate, trusted = [], images = 0, ms = 0, generation: next }) {
    training.close();
    generation = next;
    const found = device === "gpu" ? await adapter() : undefined;
    const text = JSON.stringify(settings);
    const { Lab } = wasm;
    const made = () => (checkpoint ? Lab.resume(data, text, device, checkpoint)
      : weights ? Lab.load(data, text, device, weights) : Lab.open(data, text, device));
    // Of weights alone the network is not known before.
    const lab = await (found && !weights ? early(() => wasm.rehearse(text).catch(() => {}), made) : made());
    const difference = found && !trusted.includes(found.key) ? await compared(lab) : undefined;
    training.open(lab, { images, ms, testImages: Math.min(settings.test_images, data.test_len) });
    if (rate !== undefined) lab.set_learning_rate(rate);
    return {
      device: lab.device,
      adapter: found,
      difference,
      ahead: lab.ahead,
      step: lab.step,
      totalSteps: lab.total_steps,
      perEpoch: lab.steps_per_epoch,
      launches: lab.launches,
      bytes: lab.bytes,
      layers: JSON.parse(lab.layers()),
    };
  },

  train: () => training.start(),

  async pause() {
    training.halt();
    training.flush();
    await training.keep();
  },

  step: () => training.step(),

  // Ends the run and gives its memory back; the page keeps a copy.
  async stop() {
    training.halt();
    training.flush();
    await training.keep();
    training.close();
  },

  rate({ rate }) {
    training.lab.set_learning_rate(rate);
  },

  async predict({ pixels }) {
    return { probabilities: await training.lab.predict(pixels), step: training.run.step };
  },

  judge: ({ from, count }) => training.judge(from, count),

  async inspect({ pixels, label }) {
    const seen = await training.lab.inspect(pixels, label);
    const probabilities = await training.lab.predict(pixels);
    return { ...seen, probabilities, step: training.run.step };
  },

  async save() {
    return { bytes: await training.lab.save(), step: training.run.step };
  },

  async checkpoint() {
    return { bytes: await training.lab.checkpoint(), step: training.run.step };
  },

  async check() {
    return { difference: JSON.parse(await training.lab.check()), step: training.run.step };
  },

  async lose() {
    training.lab.lose();
    await training.lab.save(); // the first call afterwards finds out
  },

  // The settings that a file's run goes on with; none for weights alone.
  resumable: ({ bytes }) => ({ settings: JSON.parse(wasm.resumable(bytes) ?? "null") }),

  prepare: ({ grey, width, height }) => ({ pixels: wasm.prepare(grey, width, height) }),

  pictures({ indices }) {
    const pixels = new Uint8Array(784 * indices.length);
    indices.forEach((index, i) => pixels.set(data.test_image(index), 784 * i));
    return { pixels };
  },

  shader: ({ name }) => ({ text: wasm.shader(name) }),
};

// A training step of the GPU against the CPU's; a laboratory that fails is not opened.
async function compared(lab) {
  try {
    return JSON.parse(await nudged(lab.check()));
  } catch (error) {
    lab.free();
    throw error;
  }
}

const WITHOUT_NETWORK = new Set(["start", "open", "resumable", "prepare", "pictures", "shader"]);

// What the page is told of an error; a lost device and a loss that is not finite end the run.
function failed(error) {
  const { name = "Error", message = String(error) } = error;
  if (name === "DeviceLost") {
    training.close();
    post("lost", { message });
  } else if (name === "NotFinite") {
    training.halt();
    training.flush();
    training.run.diverged = true;
    post("diverged", { message });
  }
  return { name, message };
}

async function serve({ id, name, args }) {
  try {
    if (!WITHOUT_NETWORK.has(name)) {
      if (!training.lab) throw Object.assign(new Error("no network is open"), { name: "Closed" });
      await nudged(training.drain());
    }
    const answer = commands[name](args ?? {});
    const result = await (answer instanceof Promise && !WITHOUT_NETWORK.has(name) ? nudged(answer) : answer) ?? {};
    if (!WITHOUT_NETWORK.has(name)) training.pace?.interrupted();
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
  if (training.running) {
    try {
      await nudged(training.round());
    } catch (error) {
      training.halt();
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
