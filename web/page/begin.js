// The page's start, from the address to an open network.

import { choose } from "./inside.js";
import { offerStored } from "./recovery.js";
import { open } from "./run.js";
import { $, banner, form, link, page } from "./state.js";

const NETS = /^(lenet5(?!-windows)|alexnet|vgg|resnet|inception|mobilenet)/; // those that take MNIST's pictures

export async function begin() {
  const unknown = form.fromAddress(location.search);
  if (location.protocol === "file:") throw new Error("a page opened from a file may not load its program: serve the folder, for example with python3 -m http.server, and open http://localhost:8000");
  const net = wantedNet();
  const { labels, testLength, presets } = await link.ask("start", { settings: { ...form.read(), net }, device: $("run-on").value });
  Object.assign(page, { labels, testLength });
  $("digit").max = testLength - 1;
  listNets(presets, net);
  await choose(0);
  try {
    await open($("run-on").value);
    const left = unknown.filter((text) => text !== `“net=${$("net").value}”`);
    if (left.length) banner.show("Part of the address is not understood", [`${left.join(", ")} was left out.`]);
  } finally {
    await offerStored();
  }
}

// The network that the address asks for: the form knows of none but its own until the program has named them all.
function wantedNet() {
  const net = new URLSearchParams(location.search).get("net");
  return net && NETS.test(net) ? net : $("net").value;
}

// Fills the list of networks and chooses the one that is wanted, if there is such a one.
function listNets(presets, net) {
  const fitting = presets.filter(({ name }) => NETS.test(name));
  $("net").replaceChildren(...fitting.map(({ name, about }) => new Option(name, name, name === "lenet5")));
  $("net").value = net;
  if ($("net").selectedIndex < 0) $("net").value = "lenet5";
}
