// Weights and runs as files, out and in.

import { clear, open, valid } from "./run.js";
import { $, form, link, page } from "./state.js";

const net = () => (page.lab ?? page.kept)?.settings.net ?? form.read().net;

// The weights; of a network that is gone, the last copy of its run, which has them, too.
export async function save() {
  const { bytes, step } = page.lab ? await link.ask("save") : page.kept;
  return { bytes, step, name: `${net()}-${step}.safetensors` };
}

// The run, to go on from.
export async function saveRun() {
  const { bytes, step } = page.lab && page.phase !== "diverged" ? await link.ask("checkpoint") : page.kept;
  return { bytes, step, name: `${net()}-${step}-checkpoint.safetensors` };
}

export function download({ bytes, name }) {
  const url = URL.createObjectURL(new Blob([bytes]));
  const anchor = Object.assign(document.createElement("a"), { href: url, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// Opens weights, trained on from their first step; or a run, which goes on, if the form can say what it began with.
export async function load(bytes, name) {
  // A file of another kind shall not end the run that is open.
  const header = bytes.length > 8 ? Number(new DataView(bytes.buffer).getBigUint64(0, true)) : Infinity;
  if (header > bytes.length - 8 || bytes[8] !== 0x7b) throw new Error(`${name} is no .safetensors file, or is cut short.`);
  const { settings } = await link.ask("resumable", { bytes });
  if (settings) form.write(settings);
  const start = { [settings ? "checkpoint" : "weights"]: bytes, settings: valid(), name };
  clear();
  await open($("run-on").value, start);
}

export async function loadFile(file) {
  if (!file || $("load").disabled) return;
  await load(new Uint8Array(await file.arrayBuffer()), file.name);
}
