// Buttons, fields, keys and dropped files.

import { attempt } from "./attempt.js";
import { check } from "./check.js";
import { pad } from "./drawing.js";
import { download, loadFile, save, saveRun } from "./files.js";
import { choose, showInside } from "./inside.js";
import { showDiffers } from "./phases.js";
import { reset, step, stop, toggle } from "./run.js";
import { $, form, link, page } from "./state.js";

export function listen() {
  listenToForm();
  listenToButtons();
  listenToFields();
  listenToFiles();
  listenToKeys();
}

function listenToForm() {
  form.listen({
    rate(value) {
      page.rate = value;
      if (page.lab) link.ask("rate", { rate: value }).catch(() => {});
    },
    // Enter in a field sends the form, too: what counts at once needs no reset.
    apply: () => $("differs").hidden || attempt(reset),
    changed: showDiffers,
  });
  $("run-on").addEventListener("change", showDiffers);
}

function listenToButtons() {
  const on = (id, action) => $(id).addEventListener("click", () => attempt(action));
  on("train", toggle);
  on("step", step);
  on("reset", reset);
  on("stop", stop);
  on("check", check);
  on("lose", () => link.ask("lose"));
  on("clear", () => pad.clear());
  on("undo", () => pad.undo());
  on("random", () => choose(Math.floor(Math.random() * page.testLength)));
  on("use-drawing", () => choose("drawing"));
  on("load", () => $("file").click());
  on("save", async () => download(await save()));
  on("save-run", async () => download(await saveRun()));
}

function listenToFields() {
  $("digit").addEventListener("change", ({ target }) => {
    if (page.labels && target.value !== "") attempt(() => choose(Math.max(0, Math.min(page.testLength - 1, Math.round(Number(target.value) || 0)))));
  });
  for (const radio of document.querySelectorAll('input[name="show"]')) radio.addEventListener("change", showInside);
}

function listenToFiles() {
  $("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    attempt(() => loadFile(file));
    target.value = ""; // so that the same file may come again
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    attempt(() => loadFile(file));
  });
}

function listenToKeys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("layer").open) return;
    const inside = event.target.closest?.("input, select, textarea, summary, button, pre");
    if (inside && (event.key === " " || !inside.matches("button"))) return;
    const key = { " ": toggle, s: step, r: reset }[event.key.toLowerCase()];
    if (!key) return;
    event.preventDefault();
    attempt(key);
  });
}
