// The GPUs that a page meets: checked ones, ones that compute something else, browsers that read back late, data larger
// than a binding, and every pipeline of every preset. node --test web/test/devices.mjs, as page.mjs.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { COMPILING, launch, open, serve, SMALL, until } from "./browser.mjs";

let server, browser;

before(async () => {
  server = await serve();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
});

/** The program without the page, as `globalThis.wasm`. Any document of the server will do. */
async function program(own) {
  const page = await open(own, `${server.url}style.css`);
  await page.evaluate(async () => {
    globalThis.wasm = await import("/pkg/lenet_web.js");
    await globalThis.wasm.default();
  });
  return page;
}

test("before anything is trained on a GPU, a step is compared with the CPU's, once", async () => {
  const page = await open(browser, server.url + SMALL);
  const first = await until(page, "ready", ({ phase }) => phase === "ready", COMPILING);
  assert.equal(first.step, 0);
  console.log(`the first step: ${JSON.stringify(first.difference)}`);
  assert.ok(first.difference.gradients < 1e-4 && first.difference.logits < 1e-5);
  assert.match(await page.locator("#about").innerText(), /is the CPU’s/);
  await page.evaluate(() => globalThis.lenet.command("reset"));
  const second = await until(page, "ready", ({ phase }) => phase === "ready", COMPILING);
  assert.equal(second.difference, undefined);
  assert.match(await page.locator("#about").innerText(), /before/);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("a GPU that computes something else is told, and the CPU offered", async () => {
  // As drivers do it that leave a buffer full of zeros.
  server.prepend("/worker.js", "GPUComputePassEncoder.prototype.dispatchWorkgroups = () => {};");
  try {
    const page = await open(browser, server.url + SMALL);
    const { banner } = await until(page, "an answer", ({ phase }) => phase === "nogpu", COMPILING);
    assert.equal(banner, "The GPU cannot run this");
    assert.match(await page.locator("#banner").innerText(), /computes something else than the CPU: the loss/);
    await page.getByRole("button", { name: "Train on the CPU instead" }).click();
    await until(page, "ready", ({ phase, kind }) => phase === "ready" && kind === "cpu");
    await page.context().close();
  } finally {
    server.prepend("/worker.js", "");
  }
});

test("a browser that reads back at the next submission only is nudged", async () => {
  // A mapped buffer is told of when something is submitted after it is there.
  server.prepend("/worker.js", `
    const waiting = [];
    const { mapAsync } = GPUBuffer.prototype;
    GPUBuffer.prototype.mapAsync = function (...all) {
      const own = mapAsync.apply(this, all);
      return new Promise((resolve, reject) => own.then(() => waiting.push(resolve), reject));
    };
    const { submit } = GPUQueue.prototype;
    GPUQueue.prototype.submit = function (buffers) {
      for (const resolve of waiting.splice(0)) resolve();
      return submit.call(this, buffers);
    };
  `);
  try {
    const page = await open(browser, server.url + SMALL);
    await until(page, "ready", ({ phase }) => phase === "ready", COMPILING);
    await page.locator("#train").click();
    await until(page, "two epochs", ({ step, epoch }) => step >= 40 && epoch >= 2, 120);
    await page.evaluate(() => globalThis.lenet.command("pause"));
    assert.deepEqual(page.problems, []);
    await page.context().close();
  } finally {
    server.prepend("/worker.js", "");
  }
});

test("data larger than a binding is streamed", async () => {
  const page = await program(browser);
  for (const [what, ...all] of [["EMNIST", 1, 28, 62, 697_932], ["CIFAR-100", 3, 32, 100, 50_000]]) {
    const told = JSON.parse(await page.evaluate((all) => globalThis.wasm.stream(...all), all));
    console.log(`${what}: ${JSON.stringify(told)}`);
    assert.ok(told.streamed && told.bytes > 128 << 20 && told.held < 64 << 20);
    assert.equal(told.gpu.length, 9);
    told.gpu.forEach((loss, i) => assert.ok(Math.abs(loss - told.cpu[i]) < 1e-4 * loss, `step ${i}`));
  }
  await page.context().close();
});

test("every pipeline of every preset is taken by the browser's compiler", async () => {
  const begun = Date.now();
  const passed = () => ((Date.now() - begun) / 1000).toFixed(0);
  const page = await program(browser);
  const names = await page.evaluate(() => JSON.parse(globalThis.wasm.presets()).map(({ name }) => name));
  assert.equal(names.length, 15);
  let all = 0;
  for (const [name, form] of [...names.map((name) => [name, "layers"]), ["lenet5", "plain"]]) {
    // Asked for beside each other, then one by one, which tells what was refused.
    const made = await page.evaluate(async ([name, form]) => {
      const { early } = await import("/early.js");
      const ask = () => globalThis.wasm.pipelines(name, form);
      return early(ask, ask);
    }, [name, form]);
    console.log(`${name}, ${form}: ${made} pipelines, ${passed()} s`);
    assert.ok(made >= 8, `${name}: ${made}`);
    all += made;
  }
  console.log(`${all} pipelines of 15 presets in ${passed()} s`);
});
