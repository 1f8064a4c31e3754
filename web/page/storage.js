// One record in the browser's own storage, which outlives the page. Where the browser has none or it is full, nothing is
// stored and nothing fails. Of two tabs with the same page, the one that writes last is remembered.

import { bounded } from "./bounded.js";

const EVERY = 2000; // ms between two writings
const PATIENCE = 5000; // ms to wait for the browser
const STORE = "runs";

export class Storage {
  // `key` tells this page's record from that of another page of the same origin.
  constructor(key) {
    this.key = key;
    this.last = -EVERY; // when was written
  }

  open() {
    this.opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open("lenet", 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    return this.opened;
  }

  // Does one thing with the store, and gives what it gives when it is done for good.
  async transact(mode, act) {
    const transaction = (await this.open()).transaction(STORE, mode);
    return new Promise((resolve, reject) => {
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }

  // The record, or undefined.
  get() {
    return bounded(this.transact("readonly", (store) => store.get(this.key)), PATIENCE, "no answer").catch(() => undefined);
  }

  // Takes a record to be written, at once if it is `urgent`, else not too soon after the last; a newer one may come in
  // between and take its place.
  put(record, urgent) {
    this.next = { write: (store) => store.put(record, this.key), done: record };
    if (urgent) this.hurry();
    this.work();
  }

  remove() {
    this.next = { write: (store) => store.delete(this.key), done: undefined };
    this.hurry();
    this.work();
  }

  hurry() {
    this.last = -EVERY;
    this.wake?.();
  }

  async work() {
    if (this.working) return;
    this.working = true;
    while (this.next) {
      const wait = this.last + EVERY - performance.now();
      if (wait > 0) {
        await new Promise((resolve) => {
          this.wake = resolve;
          setTimeout(resolve, wait);
        });
        continue;
      }
      const { write, done } = this.next;
      this.next = undefined;
      try {
        await this.transact("readwrite", write);
        this.stored = done;
      } catch {
        // Private windows and full disks: the page still has the record.
      }
      this.last = performance.now();
    }
    this.working = false;
  }
}
