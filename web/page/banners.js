// What the page says when something is missing or went wrong, with what can be done about it.

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Banner {
  constructor(box) {
    this.box = box;
  }

  // Shows a title, paragraphs, and actions: [id, text, function].
  show(title, paragraphs, actions = []) {
    const row = element("div");
    row.className = "row";
    for (const [id, text, run] of actions) {
      const button = element("button", text);
      button.id = id;
      button.addEventListener("click", () => {
        this.hide();
        run();
      });
      row.append(button);
    }
    this.box.replaceChildren(element("h2", title), ...paragraphs.map((text) => element("p", text)), row);
    this.box.hidden = false;
    this.title = title;
  }

  hide() {
    this.box.hidden = true;
    this.title = undefined;
  }
}

// What to do for WebGPU in this browser.
export function withoutGpu(message) {
  const text = [`The reason: ${message}.`];
  if (!isSecureContext) {
    text.push("This page came over plain http. Browsers give WebGPU to https pages and to localhost only: open it as http://localhost or serve it over https.");
  }
  text.push("Chrome and Edge have WebGPU from version 113 on (Windows, macOS, ChromeOS; Android from 121), Safari from 26, Firefox on Windows from 141.");
  if (/Linux/.test(navigator.userAgent) && !/Android/.test(navigator.userAgent)) {
    text.push("Chrome on Linux may want chrome://flags/#enable-unsafe-webgpu and #enable-vulkan set to “Enabled”, and a Vulkan driver.");
  }
  text.push("Hardware acceleration may also be off in the browser’s settings. Everything on this page works on the CPU as well: the same network, in WebAssembly.");
  return text;
}
