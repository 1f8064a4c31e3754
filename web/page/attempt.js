// What a control asks for may go wrong.

import { banner } from "./state.js";

// Does it; what it cannot do is told on the page already, or here.
export function attempt(action) {
  return Promise.resolve().then(action).catch((error) => {
    if (["Closed", "DeviceLost", "NotFinite"].includes(error.name) || error.told) return;
    banner.show("That did not work", [error.message]);
  });
}
