// The confusion matrix and the gallery of mistakes.

import { paintDigit } from "./maps.js";

const SHOWN = 60;
const percent = (share) => `${(100 * share).toFixed(share > 0.9995 ? 0 : 1)} %`;

export class Mistakes {
  // `pictures(indices)` promises pixels; `choose(index)` makes a test picture the chosen one.
  constructor({ table, gallery, text, all, pictures, choose, dark }) {
    Object.assign(this, { table, gallery, text, all, pictures, choose, dark });
    this.filter = undefined;
    this.mistakes = [];
    this.cells = [];
    this.visible = false;
    this.stale = true;
    const head = table.createTHead().insertRow();
    const th = (row, content, scope) => {
      const made = document.createElement("th");
      made.textContent = content;
      made.scope = scope;
      row.append(made);
    };
    th(head, "is ∖ says", "col");
    for (let c = 0; c < 10; c++) th(head, c, "col");
    th(head, "right", "col");
    const body = table.createTBody();
    for (let r = 0; r < 10; r++) {
      const row = body.insertRow();
      th(row, r, "row");
      this.cells.push(Array.from({ length: 10 }, (_, c) => {
        const button = document.createElement("button");
        button.textContent = "0";
        button.addEventListener("click", () => this.select(r, c));
        row.insertCell().append(button);
        return button;
      }));
      row.insertCell().className = "share";
    }
    all.addEventListener("click", () => this.select());
  }

  select(label, answer) {
    const { filter } = this;
    const same = filter && filter.label === label && filter.answer === answer;
    this.filter = label === undefined || same ? undefined : { label, answer };
    this.paint();
  }

  // Takes probabilities [n][10] of the first n test pictures.
  judge(probabilities, labels) {
    const counts = Array.from({ length: 10 }, () => new Uint32Array(10));
    this.mistakes = [];
    const n = probabilities.length / 10;
    for (let i = 0; i < n; i++) {
      let answer = 0;
      for (let k = 1; k < 10; k++) if (probabilities[10 * i + k] > probabilities[10 * i + answer]) answer = k;
      counts[labels[i]][answer]++;
      if (answer !== labels[i]) this.mistakes.push({ index: i, label: labels[i], answer, probability: probabilities[10 * i + answer] });
    }
    // The surest mistakes are the most interesting.
    this.mistakes.sort((a, b) => b.probability - a.probability);
    this.counts = counts;
    this.total = n;
    this.paint();
    return 1 - this.mistakes.length / n;
  }

  clear() {
    this.counts = undefined;
    this.mistakes = [];
    this.filter = undefined;
    this.paint();
  }

  // Says whether it can be seen; what nobody sees is not painted.
  see(visible) {
    this.visible = visible;
    if (this.stale) this.paint();
  }

  paint() {
    this.stale = !this.visible;
    if (this.stale) return;
    this.cells.forEach((row, r) => {
      const counts = this.counts?.[r] ?? new Uint32Array(10);
      const sum = counts.reduce((a, b) => a + b);
      row.forEach((button, c) => {
        const text = String(counts[c]);
        if (button.textContent !== text) button.textContent = text;
        const share = sum ? counts[c] / sum : 0;
        button.style.setProperty("--share", Math.sqrt(share).toFixed(2));
        button.className = !counts[c] ? "none" : r === c ? "right" : "wrong";
        button.setAttribute("aria-label", `${r} taken for ${c}: ${text}`);
        button.setAttribute("aria-pressed", String(this.filter?.label === r && this.filter?.answer === c));
      });
      row[0].closest("tr").lastElementChild.textContent = sum ? percent(counts[r] / sum) : "";
    });
    const { filter } = this;
    const chosen = this.mistakes.filter((one) => !filter || (one.label === filter.label && one.answer === filter.answer));
    this.all.hidden = !filter;
    if (!this.counts) this.text.textContent = "No mistakes yet: nothing was judged.";
    else if (filter && filter.label === filter.answer) this.text.textContent = `${filter.label} as ${filter.answer} is no mistake.`;
    else {
      const which = filter ? `${filter.label} taken for ${filter.answer}: ` : "";
      const most = chosen.length > SHOWN ? `, the ${SHOWN} surest shown` : "";
      this.text.textContent = `${which}${chosen.length} ${chosen.length === 1 ? "mistake" : "mistakes"} of ${this.total.toLocaleString("en")}${most}`;
    }
    this.fill(chosen.slice(0, SHOWN));
  }

  // Puts pictures into the gallery; the elements stay, so that the focus does.
  async fill(list) {
    this.wanted = list;
    if (this.filling) return;
    this.filling = true;
    try {
      while (this.wanted) {
        const now = this.wanted;
        this.wanted = undefined;
        const { pixels } = now.length ? await this.pictures(now.map((one) => one.index)) : { pixels: new Uint8Array() };
        while (this.gallery.children.length > now.length) this.gallery.lastElementChild.remove();
        now.forEach((one, i) => {
          const item = this.gallery.children[i] ?? this.item();
          const button = item.firstElementChild;
          const [image, text] = button.children;
          button.dataset.index = one.index;
          const shown = `${one.index} ${this.dark()}`;
          if (image.dataset.shown !== shown) paintDigit(image, pixels.subarray(784 * i, 784 * (i + 1)), this.dark());
          image.dataset.shown = shown;
          text.textContent = `${one.label} → ${one.answer} ${percent(one.probability)}`;
          button.setAttribute("aria-label", `${text.textContent}: test picture ${one.index}, a ${one.label} taken for a ${one.answer}; choose it`);
        });
      }
    } catch {
      // The worker was ended; the next judgement fills it again.
    } finally {
      this.filling = false;
    }
  }

  item() {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const image = Object.assign(document.createElement("img"), { width: 56, height: 56, className: "pixels", alt: "" });
    button.append(image, document.createElement("span"));
    button.addEventListener("click", () => this.choose(Number(button.dataset.index)));
    item.append(button);
    this.gallery.append(item);
    return item;
  }
}
