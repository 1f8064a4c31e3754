// The worker's GPU: its adapter, and the network that is compiled while the data is on its way.

import * as wasm from "./pkg/lenet_web.js";
import { bounded } from "./bounded.js";
import { early } from "./early.js";

const PATIENCE = 15000; // ms; a browser without an adapter may never answer

let asked; // the adapter that was asked for ahead
let compiling; // the network

// Asks for the adapter and has it compile what `settings` describe; `compiled(pipelines)` says when it has. What fails
// is told by whoever opens the network.
export function ahead(settings, compiled) {
  if (!navigator.gpu) return;
  asked = wasm.adapter();
  const text = JSON.stringify(settings);
  compiling = asked.then(() => early(() => wasm.rehearse(text), () => wasm.warm(text))).then(compiled).catch(() => {});
}

// What the adapter is; on it, what is being compiled ahead is ready.
export async function adapter() {
  try {
    if (!navigator.gpu) throw new Error("this browser has no WebGPU");
    const found = asked ?? wasm.adapter();
    asked = undefined;
    const info = JSON.parse(await bounded(found, PATIENCE, `the browser has not found an adapter within ${PATIENCE / 1000} s`));
    if (!info.name) info.name = await name();
    // What a check of it holds for.
    info.key = [info.name, info.driver, info.backend, navigator.userAgent, wasm.version()].join("|");
    await compiling;
    return info;
  } catch (error) {
    throw Object.assign(new Error(error.message), { name: "NoGpu" });
  } finally {
    compiling = undefined;
  }
}

// What the browser tells of its adapter, where it gives no description: maker and architecture.
async function name() {
  const { info } = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }) ?? {};
  return info ? [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") : "";
}
