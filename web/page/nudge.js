// Read-backs that arrive: some browsers look after a buffer that is being mapped only when something is submitted.

import * as wasm from "./pkg/lenet_web.js";

const PATIENCE = 10; // ms

// The promise, for which the GPU is looked after as long as it takes.
export function nudged(promise) {
  const timer = setInterval(wasm.nudge, PATIENCE);
  return promise.finally(() => clearInterval(timer));
}
