// How many steps to hand to the device at once, so that each slice stays short and the browser can draw between two.

const MOST = 256;
const SLICE = 16; // ms of work
const SAMPLES = 8; // rounds of one step, by which the wait of a read-back alone is known

// A slice grows by an eighth while rounds stay within the budget, and is cut to two thirds beyond. A browser takes some
// milliseconds to hand over even an empty read-back: that wait is no work, so the budget has it on top.
export class Pace {
  constructor() {
    this.steps = 1;
    this.wait = SLICE;
    this.seen = 0;
    this.last = undefined;
  }

  // Takes note that results arrived.
  arrived(now) {
    const took = now - this.last;
    this.last = now;
    if (Number.isNaN(took)) return;
    if (this.seen < SAMPLES) {
      this.seen++;
      this.wait = Math.min(this.wait, took);
      return;
    }
    if (took > this.wait + SLICE) this.steps = Math.floor(this.steps * 2 / 3);
    else this.steps += Math.ceil(this.steps / 8);
    this.steps = Math.max(1, Math.min(MOST, this.steps));
  }

  // Says that something else came between two rounds.
  interrupted() {
    this.last = undefined;
  }
}
