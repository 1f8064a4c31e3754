// The drawing, and what the network takes it for.

import { Bars } from "./bars.js";
import { choose } from "./inside.js";
import { paintDigit } from "./maps.js";
import { percent } from "./numbers.js";
import { Pad } from "./pad.js";
import { $, dark, link, page } from "./state.js";
import { View } from "./view.js";

const BLANK = new Uint8Array(784);

const bars = new Bars($("drawn"));

export const pad = new Pad($("pad"), () => {
  pad.fresh = true;
  drawing.dirty = true;
});

export const drawing = new View(document.querySelector(".draw"), 250, look);

export function paintSeen() {
  paintDigit($("seen"), page.drawn?.pixels ?? BLANK, dark.matches);
}

async function look() {
  if (!pad.strokes.length) return clear();
  if (pad.fresh || !page.drawn) {
    pad.fresh = false;
    if (!await prepare()) return;
  }
  if (!page.lab) return;
  const { drawn } = page;
  const { probabilities, step: at } = await link.ask("predict", { pixels: drawn.pixels });
  Object.assign(drawn, { probabilities: Array.from(probabilities), step: at });
  const best = bars.show(drawn.probabilities);
  $("answer").textContent = best;
  $("seen").alt = `What the network sees: it says ${best} with ${percent(drawn.probabilities[best])}`;
}

function clear() {
  page.drawn = undefined;
  bars.clear();
  paintSeen();
  $("seen").alt = "What the network sees: nothing yet";
  $("answer").textContent = "–";
  $("use-drawing").disabled = true;
}

// Brings the strokes into the form of MNIST's pictures; false while there is too little ink to be a digit.
async function prepare() {
  const { pixels } = await link.ask("prepare", pad.grey()).catch((error) => {
    if (error.name !== "Data") throw error;
    return {};
  });
  if (!pixels) return false;
  page.drawn = { pixels };
  paintSeen();
  $("use-drawing").disabled = false;
  if (page.chosen?.source === "drawing") choose("drawing");
  return true;
}
