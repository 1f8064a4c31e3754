// The curves' points: every step is counted, a bounded number of points is kept.

const POINTS = 4096;
const DECAY = 0.95; // of the smoothing, per step
const LINES = ["step", "loss", "accuracy", "smoothLoss", "smoothAccuracy"];
const COUNTS = ["length", "stride", "held", "weight", "sumLoss", "sumAccuracy", "heldLoss", "heldAccuracy"];

// Points of `stride` steps each; when there is no more room, neighbours are merged and the stride doubles.
export class History {
  constructor() {
    for (const name of LINES) this[name] = new Float32Array(POINTS);
    this.clear();
  }

  clear() {
    this.length = 0;
    this.stride = 1;
    this.held = 0;
    this.weight = this.sumLoss = this.sumAccuracy = this.heldLoss = this.heldAccuracy = 0;
  }

  // Smoothed values of this moment.
  get now() {
    return this.weight ? { loss: this.sumLoss / this.weight, accuracy: this.sumAccuracy / this.weight } : undefined;
  }

  push(step, loss, accuracy) {
    this.weight = DECAY * this.weight + 1;
    this.sumLoss = DECAY * this.sumLoss + loss;
    this.sumAccuracy = DECAY * this.sumAccuracy + accuracy;
    this.heldLoss += loss;
    this.heldAccuracy += accuracy;
    if (++this.held < this.stride) return;
    if (this.length === POINTS) this.merge();
    const i = this.length++;
    this.step[i] = step;
    this.loss[i] = this.heldLoss / this.held;
    this.accuracy[i] = this.heldAccuracy / this.held;
    this.smoothLoss[i] = this.sumLoss / this.weight;
    this.smoothAccuracy[i] = this.sumAccuracy / this.weight;
    this.held = this.heldLoss = this.heldAccuracy = 0;
  }

  merge() {
    for (let i = 0; i < POINTS / 2; i++) {
      const [a, b] = [2 * i, 2 * i + 1];
      for (const name of ["loss", "accuracy"]) this[name][i] = (this[name][a] + this[name][b]) / 2;
      for (const name of ["step", "smoothLoss", "smoothAccuracy"]) this[name][i] = this[name][b];
    }
    this.length = POINTS / 2;
    this.stride *= 2;
  }

  // All that it holds, to be restored.
  copy() {
    const lines = LINES.map((name) => [name, this[name].slice(0, this.length)]);
    return Object.fromEntries([...lines, ...COUNTS.map((name) => [name, this[name]])]);
  }

  restore(copy) {
    for (const name of LINES) this[name].set(copy[name]);
    for (const name of COUNTS) this[name] = copy[name];
  }
}
