// The page: it asks the worker, shows what it says, and never computes more than a drawing.

import { begin } from "./begin.js";
import { listen } from "./controls.js";
import { failed, heard, silent } from "./events.js";
import { keepPainting, themed } from "./paint.js";
import { setPhase } from "./phases.js";
import { link } from "./state.js";
import { expose } from "./testing.js";
import { keepLooking } from "./views.js";
import { keepTelling } from "./words.js";

link.listen(heard, silent);
listen();
themed();
keepPainting();
keepLooking();
keepTelling();
setPhase("loading");
const ready = begin();
ready.catch((error) => {
  if (!error.told) failed({ message: error.message });
});
expose(ready);
