// How many steps to hand to the device at once, so that each slice stays short and the browser can draw between two.

import { Pace as Slices } from "./pkg/lenet_web.js";

const SLICE = 16; // ms of work
const SAMPLES = 8; // rounds of one step, by which the wait of a read-back alone is known

// The library's pace with a budget that is measured first: a browser takes some milliseconds to hand over even an empty
// read-back, and that wait is no work.
export class Pace {
  constructor() {
    this.wait = SLICE;
    this.seen = 0;
    this.last = undefined;
  }

  get steps() {
    return this.slices?.steps ?? 1;
  }

  // Takes note that results arrived.
  arrived(now) {
    const took = now - this.last;
    this.last = now;
    if (Number.isNaN(took)) return;
    if (this.slices) return this.slices.round(took);
    this.wait = Math.min(this.wait, took);
    if (++this.seen === SAMPLES) this.slices = new Slices(this.wait + SLICE);
  }

  // Says that something else came between two rounds.
  interrupted() {
    this.last = undefined;
  }
}
