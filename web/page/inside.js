// The chosen digit, and what each layer makes of it.

import { Bars } from "./bars.js";
import { paintDigit, showMaps, showParameters } from "./maps.js";
import { integer } from "./numbers.js";
import { $, dark, link, page } from "./state.js";
import { View } from "./view.js";

const bars = new Bars($("chosen-bars"));

export const inside = new View(document.querySelector(".inside"), 400, look);

// Chooses a test picture by its number, or the "drawing".
export async function choose(index) {
  if (index === "drawing") {
    if (!page.drawn) return;
    page.chosen = { source: "drawing", pixels: page.drawn.pixels };
  } else {
    const { pixels } = await link.ask("pictures", { indices: [index] });
    page.chosen = { source: "test", index, pixels, label: page.labels[index] };
    $("digit").value = index;
  }
  paintChosen();
  const { chosen } = page;
  $("chosen").alt = chosen.source === "test" ? `Test picture ${index}, a ${chosen.label}` : "Your drawing, as the network sees it";
  inside.dirty = true;
}

export function paintChosen() {
  if (page.chosen) paintDigit($("chosen"), page.chosen.pixels, dark.matches);
}

async function look() {
  const { chosen: looked, drawn } = page;
  if (!page.lab || !looked) return;
  const label = looked.label ?? (drawn?.probabilities ? drawn.probabilities.indexOf(Math.max(...drawn.probabilities)) : 0);
  const seen = await link.ask("inspect", { pixels: looked.pixels, label });
  if (looked !== page.chosen) return;
  page.inside = seen;
  looked.probabilities = Array.from(seen.probabilities);
  const best = bars.show(looked.probabilities, looked.label);
  const what = looked.source === "test" ? `Test picture ${integer(looked.index)}, a ${looked.label}` : `Your drawing, gradients as for a ${label}`;
  $("chosen-text").textContent = `${what}. The network says ${best}${looked.source === "test" && best !== looked.label ? ", which is wrong" : ""}. Loss ${seen.loss.toFixed(3)}.`;
  showInside();
}

// Shows the last answer: values or gradients, as is switched.
export function showInside() {
  const seen = page.inside;
  if (!seen) return;
  const what = document.querySelector('input[name="show"]:checked').value;
  $("inside-step").textContent = `${what === "values" ? "values" : "gradients of this picture’s loss"} at step ${integer(seen.step)}`;
  showParameters($("filters"), seen.parameters, what);
  // What the layers are called tells nothing of their kind.
  showMaps($("maps"), seen.layers, what);
}
