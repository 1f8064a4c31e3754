// The network as a row of buttons, and the dialog with a layer's formula, launches and shader.

import { KINDS } from "./formulas.js";
import { math } from "./tex.js";
import { listing } from "./wgsl.js";

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function count(n) {
  if (n < 1e4) return n.toLocaleString("en");
  const power = n < 1e6 ? [1e3, "k"] : n < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${(n / power[0]).toPrecision(3)} ${power[1]}`;
}

export class Layers {
  // `shader(name)` promises a shader's text.
  constructor(list, dialog, shader) {
    Object.assign(this, { list, dialog, shader });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  show(layers) {
    this.list.replaceChildren(...layers.map((layer) => {
      const item = element("li");
      if (layer.depth) item.classList.add("deeper");
      const button = element("button");
      button.dataset.layer = layer.name;
      button.dataset.kind = layer.kind;
      button.append(element("b", layer.name), element("span", layer.text), element("span", layer.output ?? "", "shape"));
      button.addEventListener("click", () => this.explain(layer));
      item.append(button);
      return item;
    }));
  }

  async explain(layer) {
    const kind = KINDS[layer.kind] ?? { title: layer.kind, text: layer.text };
    const title = this.dialog.querySelector("h2");
    title.textContent = `${layer.name}: ${kind.title}`;
    const body = this.dialog.querySelector("#layer-body");
    body.replaceChildren(element("p", kind.text));
    if (layer.input) {
      const facts = [`${layer.input} → ${layer.output}`, layer.text];
      if (layer.parameters) facts.push(`${layer.parameters.toLocaleString("en")} parameters`);
      if (layer.macs) facts.push(`${count(layer.macs)} multiply-adds a picture`);
      body.append(element("p", facts.join(" · "), "sub"));
    }
    for (const [heading, formulas] of [["Formula", kind.forward], ["Gradient", kind.backward]]) {
      if (formulas) body.append(element("h3", heading), ...formulas.map(math));
    }
    const text = element("div");
    body.append(this.launches(layer, text), text);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    const first = layer.launches[0];
    if (first) await this.source(text, first.shader);
  }

  // The table of launches; each entry point is a way into its shader.
  launches(layer, text) {
    if (!layer.launches.length) return element("p", "No launch of its own: it is part of another, or nothing is to be computed.");
    const box = element("div", undefined, "scroll");
    const table = element("table", undefined, "launches");
    const head = table.createTHead().insertRow();
    for (const name of ["when", "shader and entry point", "workgroups", "FLOP"]) {
      const th = element("th", name);
      th.scope = "col";
      head.append(th);
    }
    const body = table.createTBody();
    for (const launch of layer.launches) {
      const row = body.insertRow();
      row.insertCell().textContent = launch.phase;
      const button = element("button", `${launch.shader}.wgsl: ${launch.entry}`, "link");
      button.addEventListener("click", () => this.source(text, launch.shader, launch.entry));
      row.insertCell().append(button);
      row.insertCell().textContent = launch.workgroups.join("×");
      row.insertCell().textContent = count(launch.flop);
    }
    box.append(table);
    const all = element("div");
    all.append(element("h3", "Launches"), box);
    return all;
  }

  async source(box, name, entry) {
    if (box.dataset.shader !== name) {
      box.dataset.shader = name;
      const { text } = await this.shader(name);
      if (box.dataset.shader !== name) return;
      if (text === undefined) {
        box.replaceChildren(element("p", `There is no shader called ${name}.`));
        return;
      }
      const { pre, line } = listing(text);
      pre.setAttribute("aria-label", `shaders/${name}.wgsl`);
      box.line = line;
      box.replaceChildren(element("h3", `shaders/${name}.wgsl, the file that runs`), pre);
    }
    if (!entry) return;
    const row = box.line?.(entry);
    if (!row) return;
    box.querySelector(".line.here")?.classList.remove("here");
    row.classList.add("here");
    row.scrollIntoView({ block: "center" });
    row.closest("pre").focus({ preventScroll: true });
  }
}
