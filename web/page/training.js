// The network in training: its rounds, what is told of them, and the copies of the run.

import { Pace } from "./pace.js";

const POST_EVERY = 50; // ms between two messages with metrics
const PROBE_EVERY = 1000; // ms between two looks at the first test pictures
const PROBED = 1000; // of them
const KEEP_EVERY = 5000; // ms between two copies of the run

const now = () => performance.now();

function empty() {
  return { first: 0, loss: [], accuracy: [], learningRate: undefined };
}

export class Training {
  // `post(event, fields, transfer)` tells the page.
  constructor(post) {
    this.post = post;
    this.running = false;
    this.run = {}; // of the laboratory that is open: { first, step, images, ms, since, testImages }
    this.batch = empty(); // metrics that the page has not got yet
    this.posted = 0;
  }

  // Takes a laboratory whose run has taken so many pictures and ms.
  open(lab, { images, ms, testImages }) {
    this.lab = lab;
    this.run = { first: lab.step, step: lab.step, images, ms, since: 0, testImages };
    this.pace = new Pace();
    this.fresh = true;
    this.probe = { at: now(), cost: 0 };
    this.copy = { at: -Infinity, cost: 0, step: -1, epoch: false };
  }

  close() {
    this.halt();
    this.batch = empty();
    const old = this.lab;
    this.lab = undefined;
    try {
      old?.free();
    } catch {
      // A call that never came back still holds it; its memory goes with the worker.
    }
  }

  start() {
    if (this.running) return;
    this.running = true;
    this.run.since = now();
    this.pace.interrupted();
  }

  halt() {
    if (!this.running) return;
    this.run.ms = this.spent;
    this.running = false;
  }

  // How long it has been training, in ms.
  get spent() {
    return this.run.ms + (this.running ? now() - this.run.since : 0);
  }

  // Sends the metrics on.
  flush() {
    const { batch, run } = this;
    this.posted = now();
    if (!batch.loss.length) return;
    this.post("metrics", { ...batch, step: run.step, images: run.images, ms: this.spent, memory: this.memory.buffer.byteLength });
    this.batch = empty();
  }

  // Takes the next event of the laboratory; false when nothing is in flight.
  async take() {
    const text = await this.lab.event();
    if (text === undefined) return false;
    const { steps, epoch } = JSON.parse(text);
    if (steps) this.takeSteps(steps);
    else this.takeEpoch(epoch);
    return true;
  }

  takeSteps({ first, loss, accuracy, count, learning_rate: learningRate }) {
    const { batch, run } = this;
    if (!batch.loss.length) batch.first = first;
    batch.loss.push(...loss);
    batch.accuracy.push(...accuracy);
    batch.learningRate = learningRate;
    run.step = first + loss.length - 1;
    for (const images of count) run.images += images;
    if (this.fresh) this.flush();
    this.fresh = false;
  }

  takeEpoch(epoch) {
    this.flush();
    this.post("epoch", { ...epoch, ms: this.spent, count: this.run.testImages });
    this.copy.epoch = true;
  }

  // Takes all that is in flight, so that what follows knows its step.
  async drain() {
    while (this.lab && this.lab.in_flight > 0) {
      try {
        await this.take();
      } catch (error) {
        // Steps that were queued behind one that was not finite tell the same once more.
        if (!(this.run.diverged && error.name === "NotFinite")) throw error;
      }
    }
    this.pace?.interrupted();
  }

  // One turn of the training.
  async round() {
    if (this.queue()) return this.finish();
    if (await this.take()) this.pace.arrived(now());
    if (now() - this.posted > POST_EVERY) this.flush();
    if (this.probes()) await this.look();
    if (this.copies()) await this.keep();
  }

  // Hands steps to the device, so that it does not wait; true when there are none left.
  queue() {
    const { lab, pace } = this;
    while (lab.in_flight < 2) {
      const answer = lab.advance(pace.steps);
      if (answer !== "queued") return answer === "done" && lab.in_flight === 0;
    }
    return false;
  }

  async finish() {
    this.halt();
    this.flush();
    await this.keep();
    this.post("done");
  }

  // One step of the optimizer.
  async step() {
    const { lab, run } = this;
    const before = run.step;
    const begun = now();
    // The last one is done when its epoch has been judged.
    for (let answer = ""; answer !== "done" && [before, lab.total_steps].includes(run.step);) {
      answer = lab.advance(1);
      await this.drain();
    }
    run.ms += now() - begun;
    this.flush();
    if (run.step === lab.total_steps) await this.finish();
    else if (this.copies()) await this.keep();
  }

  // Probabilities of `count` test pictures from `from` on.
  async judge(from, count) {
    const probabilities = await this.lab.judge(from, count);
    return { from, count, step: this.run.step, ms: this.spent, probabilities };
  }

  // Whether the first test pictures are to be looked at.
  probes() {
    return this.run.step > this.run.first && now() - this.probe.at > Math.max(PROBE_EVERY, 10 * this.probe.cost);
  }

  async look() {
    await this.drain();
    const begun = now();
    const seen = await this.judge(0, Math.min(PROBED, this.run.testImages));
    this.probe = { at: now(), cost: now() - begun };
    this.flush();
    this.post("probe", seen, [seen.probabilities.buffer]);
  }

  // Whether a copy is to be made: after an epoch and every few seconds, but in no more than a twentieth of the time.
  copies() {
    const { at, cost, epoch } = this.copy;
    return now() - at > Math.max(epoch ? 0 : KEEP_EVERY, 20 * cost);
  }

  // Gives the page a copy of the run, for the day that the device is lost or the page is loaded again.
  async keep() {
    await this.drain();
    const { run, copy } = this;
    if (run.diverged) return;
    if (copy.step === run.step && !copy.epoch) {
      copy.at = now();
      return;
    }
    const begun = now();
    const bytes = await this.lab.checkpoint();
    this.copy = { at: now(), cost: now() - begun, step: run.step, epoch: false };
    this.pace.interrupted();
    this.flush();
    this.post("checkpoint", { bytes, step: run.step }, [bytes.buffer]);
  }
}
