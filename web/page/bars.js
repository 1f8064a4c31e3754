// Ten bars, one a digit, as long as its probability.

export class Bars {
  constructor(list) {
    this.rows = Array.from({ length: 10 }, (_, digit) => {
      const row = document.createElement("li");
      const [name, bar, text] = ["b", "i", "span"].map((tag) => document.createElement(tag));
      name.textContent = digit;
      text.textContent = "–";
      row.append(name, bar, text);
      list.append(row);
      return { row, bar, text };
    });
  }

  // Shows probabilities and, if it is known, which digit it is; gives the likeliest.
  show(probabilities, label) {
    const best = probabilities.indexOf(Math.max(...probabilities));
    this.rows.forEach(({ row, bar, text }, digit) => {
      bar.style.setProperty("--share", probabilities[digit].toFixed(4));
      text.textContent = `${(100 * probabilities[digit]).toFixed(1)} %`;
      row.classList.toggle("best", digit === best);
      row.classList.toggle("truth", digit === label);
    });
    return best;
  }

  clear() {
    for (const { row, bar, text } of this.rows) {
      bar.style.setProperty("--share", 0);
      text.textContent = "–";
      row.classList.remove("best");
    }
  }
}
