// The GPU against the CPU twins, on one batch.

import { integer } from "./numbers.js";
import { $, link, page } from "./state.js";

export async function check() {
  $("checked").textContent = "Comparing one batch…";
  try {
    const { difference, step: at } = await link.ask("check");
    page.checked = difference;
    const part = (value) => (value === 0 ? "0" : value.toExponential(1));
    $("checked").textContent = `At step ${integer(at)} the GPU and the CPU differ by ${part(difference.loss)} in the loss, ${part(difference.logits)} in the logits and at most ${part(difference.gradients)} in a gradient (${difference.tensor}), relative: rounding.`;
  } catch (error) {
    page.checked = { error: error.message };
    $("checked").textContent = error.message;
  }
  return page.checked;
}
