// What the page's tests share: a static server, a browser with a software WebGPU adapter, and waits that end.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PAGE = join(ROOT, "web/page");

export const SMALL = "?images=320&test_images=64&batch=16&learning_rate=0.01&epochs=200";
export const COMPILING = 400; // seconds that the software adapter may need for a network's pipelines

const TYPES = {
  ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".wasm": "application/wasm",
  ".gz": "application/gzip",
};

/**
 * Serves `web/page` from a free port and counts what is fetched. `hold()` keeps the data back until what it gives is
 * called; `prepend(path, code)` has a script begin with other code.
 */
export async function serve() {
  const fetched = new Map();
  const begins = new Map();
  let held;
  const hold = () => {
    let release;
    held = new Promise((resolve) => { release = resolve; });
    return release;
  };
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://it").pathname));
    const name = path.endsWith("/") ? `${path}index.html` : path;
    fetched.set(name, (fetched.get(name) ?? 0) + 1);
    try {
      const file = await readFile(join(PAGE, name));
      const body = Buffer.concat([Buffer.from(begins.get(name) ?? ""), file]);
      if (name.startsWith("/mnist/")) await held;
      response.writeHead(200, { "content-type": TYPES[extname(name)] ?? "text/plain", "content-length": body.length });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, fetched, hold, prepend: (path, code) => begins.set(path, code), close: () => server.close() };
}

const QUIET = [
  "--headless=new", "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** Chromium, with SwiftShader for a GPU or with none. */
export function launch({ gpu = true } = {}) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // Playwright's own idea of headless is another program.
    headless: false,
    args: [...QUIET, ...(gpu ? SOFTWARE : ["--disable-features=WebGPU"])],
  });
}

/** A page whose errors are kept in `page.problems`. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  await page.goto(url);
  return page;
}

export const state = (page) => page.evaluate(() => globalThis.lenet.state());

/** Waits until `wanted(state)` gives something, and gives that; fails with the last state after `seconds`. */
export async function until(page, what, wanted, seconds = 60) {
  const end = Date.now() + 1000 * seconds;
  for (;;) {
    const now = await state(page);
    const found = wanted(now);
    if (found) return found === true ? now : found;
    if (Date.now() > end) {
      const { history, inside, ...rest } = now;
      throw new Error(`${what}: not within ${seconds} s; ${JSON.stringify(rest)}; ${page.problems.join("; ")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
