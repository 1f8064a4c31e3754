// Turns formulas in a small part of TeX's notation into MathML elements.
//
// Letters are variables, longer words functions; `_` and `^` take the next atom or a {group}; \frac{a}{b}, \sqrt{a},
// \sum and \max (with what they run over below), \text{words}. All else is an operator.

const NAMESPACE = "http://www.w3.org/1998/Math/MathML";

function element(name, ...children) {
  const made = document.createElementNS(NAMESPACE, name);
  made.append(...children);
  return made;
}

const TOKEN = /\\text\{([^}]*)\}|\\([a-z]+)|([A-Za-zΑ-Ωα-ω]\p{M}*(?:[a-z]+)?[′]?)|(\d+(?:\.\d+)?)|(\S)/gu;

export function math(text) {
  const tokens = [...text.matchAll(TOKEN)];
  let at = 0;

  const group = () => {
    if (tokens[at]?.[5] !== "{") return atom();
    at++;
    const row = element("mrow");
    while (at < tokens.length && tokens[at][5] !== "}") row.append(scripted());
    at++;
    return row;
  };

  const atom = () => {
    const [, words, command, name, number, sign] = tokens[at++] ?? [];
    if (words !== undefined) return element("mtext", words.replace(/^ | $/g, "\u00a0"));
    if (command === "frac") return element("mfrac", group(), group());
    if (command === "sqrt") return element("msqrt", group());
    if (command === "sum") return element("mo", "∑");
    if (command === "max") return element("mo", "max");
    if (name !== undefined) return element("mi", name);
    if (number !== undefined) return element("mn", number);
    return element("mo", sign === "-" ? "−" : sign ?? "");
  };

  const scripted = () => {
    const big = ["sum", "max"].includes(tokens[at][2]);
    const base = atom();
    let below, above;
    while (tokens[at]?.[5] === "_" || tokens[at]?.[5] === "^") {
      if (tokens[at++][5] === "_") below = group();
      else above = group();
    }
    if (below && above) return element(big ? "munderover" : "msubsup", base, below, above);
    if (below) return element(big ? "munder" : "msub", base, below);
    if (above) return element(big ? "mover" : "msup", base, above);
    return base;
  };

  const row = element("mrow");
  while (at < tokens.length) row.append(scripted());
  const made = element("math", row);
  made.setAttribute("display", "block");
  return made;
}
