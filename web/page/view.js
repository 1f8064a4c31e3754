// A part of the page that asks the worker while it can be seen, each time when its last answer has come.

import { page } from "./state.js";

const LONGEST_WAIT = 5000; // ms between two looks at something in view

export class View {
  // `every` is the shortest time between two looks in training.
  constructor(element, every, work) {
    Object.assign(this, { every, work, visible: false, dirty: true, busy: false, next: 0 });
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      this.turned?.();
    }).observe(element);
  }

  async look(now) {
    if (this.busy || !this.visible || document.hidden) return;
    if (!this.dirty && !(page.phase === "training" && now > this.next)) return;
    this.busy = true;
    this.dirty = false;
    const begun = performance.now();
    try {
      await this.work();
    } catch (error) {
      if (!["Closed", "DeviceLost", "NotFinite"].includes(error.name)) console.error(error);
    } finally {
      this.busy = false;
      const end = performance.now();
      // A sixth of the time at most; but the first look compiles shaders, and says nothing of the next.
      this.next = end + Math.max(this.every, Math.min(5 * (end - begun), LONGEST_WAIT));
    }
  }
}
