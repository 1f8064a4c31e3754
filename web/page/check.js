// The GPU against the CPU twins, over one training step.

import { integer } from "./numbers.js";
import { $, link, page } from "./state.js";
import { apart } from "./words.js";

export async function check() {
  $("checked").textContent = "Comparing one batch…";
  try {
    const { difference, step: at } = await link.ask("check");
    page.checked = difference;
    $("checked").textContent = `At step ${integer(at)} the GPU and the CPU are ${apart(difference)}: rounding.`;
  } catch (error) {
    page.checked = { error: error.message };
    $("checked").textContent = error.message;
  }
  return page.checked;
}
