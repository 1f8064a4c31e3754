// The page's end of the worker: questions with answers, events, and an alarm when it falls silent.

const SILENCE = 180000; // ms; some drivers compile shaders for a minute
const LOOK = 2000;

export class Link {
  constructor() {
    this.open();
    let looked = performance.now();
    setInterval(() => {
      const now = performance.now();
      // After a sleep of the machine the silence is nobody's fault.
      if (now - looked > 3 * LOOK) this.last = now;
      looked = now;
      if (this.waiting.size && now - this.last > SILENCE) {
        this.last = now;
        this.silent();
      }
    }, LOOK);
  }

  // `heard(event)` gets what the worker tells unasked; `silent()` is called when nothing comes though something should.
  listen(heard, silent) {
    Object.assign(this, { heard, silent });
  }

  open() {
    this.waiting = new Map();
    this.count = 0;
    this.last = performance.now();
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data: message }) => {
      this.last = performance.now();
      if (message.event) return this.heard(message);
      const { resolve, reject } = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.error) reject(Object.assign(new Error(message.error.message), { name: message.error.name }));
      else resolve(message.result);
    };
    this.worker.onerror = (event) => {
      const message = event.message || "the worker did not start; serve the folder over http, and see that pkg/ is there (web/build.sh)";
      this.heard({ event: "failed", message });
    };
  }

  // Ends a worker that no longer answers, and starts another.
  restart() {
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(Object.assign(new Error("the worker was ended"), { name: "Closed" }));
    this.open();
  }

  ask(name, args, transfer = []) {
    if (!this.waiting.size) this.last = performance.now();
    const id = ++this.count;
    this.worker.postMessage({ id, name, args }, transfer);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}
