// The views together: what they show is looked up again while the network learns.

import { drawing } from "./drawing.js";
import { inside } from "./inside.js";
import { judging } from "./judging.js";
import { page } from "./state.js";

const LOOK_EVERY = 60; // ms

// Says that the weights are others.
export function refresh() {
  for (const view of [drawing, inside, judging]) view.dirty = true;
}

export function keepLooking() {
  setInterval(() => {
    const now = performance.now();
    const training = page.phase === "training";
    drawing.look(now);
    inside.look(now);
    if (training) judging.dirty = true; // for when it ends
    else judging.look(now);
  }, LOOK_EVERY);
}
