// Shows a shader with line numbers and colours, as text nodes: what a file holds is never taken for HTML.

const KEYWORDS = "fn|let|var|const|override|struct|if|else|for|while|loop|return|break|continue|continuing|switch|case|default|alias|enable|true|false";
const TYPES = "f32|i32|u32|bool|vec[234][fiu]?|mat[234]x[234]f?|array|atomic|ptr";
const TOKEN = new RegExp(`(//.*)|(@\\w+)|\\b(${KEYWORDS})\\b|\\b(${TYPES})\\b|\\b(0x[\\da-fA-F]+u?|\\d[\\d.]*(?:e[+-]?\\d+)?[fiuh]?)\\b`, "g");
const CLASSES = ["comment", "attribute", "keyword", "type", "number"];

// A <pre> whose lines can be jumped to: `line(entry)` gives the one where a function begins.
export function listing(text) {
  const pre = document.createElement("pre");
  pre.className = "listing";
  pre.tabIndex = 0;
  const code = document.createElement("code");
  pre.append(code);
  const entries = new Map();
  for (const line of text.replace(/\n$/, "").split("\n")) {
    const row = document.createElement("span");
    row.className = "line";
    let done = 0;
    for (const match of line.matchAll(TOKEN)) {
      if (match.index > done) row.append(line.slice(done, match.index));
      const piece = document.createElement("span");
      piece.className = CLASSES[match.slice(1).findIndex((found) => found !== undefined)];
      piece.textContent = match[0];
      row.append(piece);
      done = match.index + match[0].length;
    }
    row.append(`${line.slice(done)}\n`);
    code.append(row);
    const name = line.match(/^fn (\w+)/)?.[1];
    if (name) entries.set(name, row);
  }
  return { pre, line: (entry) => entries.get(entry) };
}
