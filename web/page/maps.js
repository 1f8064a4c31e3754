// Shows tensors as pictures: blue below zero, red above, each layer on a scale of its own.

const HEADER = 54; // bytes of a BMP file before its pixels

// Shows pixels, 0xaarrggbb row by row, in an <img>, as a BMP file. A page of canvases would do, but each is a layer that
// the main thread hands to the GPU, which has something else to do.
function picture(image, width, height, pixels) {
  const file = new Uint8Array(HEADER + 4 * pixels.length);
  const view = new DataView(file.buffer);
  view.setUint16(0, 0x424d);
  for (const [at, value] of [[2, file.length], [10, HEADER], [14, 40], [18, width], [22, -height], [26, 1 | 32 << 16]]) view.setInt32(at, value, true);
  file.set(new Uint8Array(pixels.buffer), HEADER);
  const old = image.src;
  image.src = URL.createObjectURL(new Blob([file], { type: "image/bmp" }));
  if (old) URL.revokeObjectURL(old);
}

const table = new Uint32Array(511); // colours of -255 … 255

let gapColour;

// Takes the colours of the light or the dark page.
export function setColours(dark) {
  gapColour = dark ? 0xff363b43 : 0xffd9dad6;
  const zero = dark ? [40, 44, 51] : [250, 250, 248];
  const below = dark ? [92, 170, 255] : [20, 76, 190];
  const above = dark ? [255, 122, 92] : [190, 30, 30];
  for (let i = -255; i <= 255; i++) {
    const end = i < 0 ? below : above;
    // A root lifts small values out of the background.
    const share = Math.sqrt(Math.abs(i) / 255);
    const [r, g, b] = zero.map((from, c) => Math.round(from + (end[c] - from) * share));
    table[i + 255] = 0xff000000 | r << 16 | g << 8 | b;
  }
}

function largest(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most;
}

// Paints `count` tiles of rows × columns side by side, `across` in a row; or, with `downwards`, the first tiles below
// each other.
function paint(image, values, { count, rows, columns, across, downwards }) {
  const gap = rows * columns > 1 ? 1 : 0;
  const [width, height] = [across * (columns + gap) - gap, Math.ceil(count / across) * (rows + gap) - gap];
  if (image.dataset.size !== `${width}×${height}`) {
    image.dataset.size = `${width}×${height}`;
    // Whole multiples keep the pixels square and sharp; style.css bounds the width.
    const factor = Math.max(1, Math.min(rows > 8 ? 3 : 6, Math.floor(620 / width)));
    image.style.width = `${width * factor}px`;
  }
  const pixels = new Uint32Array(width * height).fill(gapColour);
  const most = largest(values);
  const factor = most > 0 ? 255 / most : 0;
  for (let tile = 0, from = 0; tile < count; tile++) {
    const down = count / across;
    const top = (downwards ? tile % down : Math.floor(tile / across)) * (rows + gap);
    const left = (downwards ? Math.floor(tile / down) : tile % across) * (columns + gap);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        pixels[(top + row) * width + left + column] = table[255 + Math.round(values[from++] * factor)];
      }
    }
  }
  picture(image, width, height, pixels);
  return most;
}

export function paintScale(image) {
  picture(image, 255, 1, table.filter((_, i) => i % 2 === 0).slice(0, 255));
}

// White ink on black, as it comes, inverted on a light page.
export function paintDigit(image, digit, dark) {
  const pixels = Uint32Array.from(digit, (ink) => 0xff000000 | (dark ? ink : 255 - ink) * 0x10101);
  picture(image, 28, 28, pixels);
}

function figure(parent, key) {
  let made = parent.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (made) return made;
  made = document.createElement("figure");
  made.dataset.key = key;
  const image = document.createElement("img");
  image.className = "pixels";
  made.append(document.createElement("figcaption"), image);
  parent.append(made);
  return made;
}

const MOST_TILES = 256;

// Shows a list of { name, count, rows, columns, across, values, about } below `parent`, keeping what is there.
function show(parent, list) {
  const names = new Set(list.map((item) => item.name));
  for (const old of [...parent.children]) if (!names.has(old.dataset.key)) old.remove();
  for (const { name, values, about, ...tiles } of list) {
    const { count, rows, columns, across } = tiles;
    const made = figure(parent, name);
    const [caption, image] = made.children;
    const shown = Math.min(count, MOST_TILES);
    const cut = { ...tiles, count: shown, across: Math.min(across, shown), downwards: tiles.downwards && shown === count };
    const most = paint(image, values.subarray(0, shown * rows * columns), cut);
    const some = shown < count ? `, the first ${shown} of them` : "";
    caption.textContent = `${name}  ${about}${some}  ±${most.toPrecision(2)}`;
    image.alt = caption.textContent;
  }
}

// Filters of convolutions, one tile a pair of channels, and matrices of linear layers.
export function showParameters(parent, parameters, what) {
  const list = [];
  for (const { name, shape, [what]: values } of parameters) {
    const about = shape.join("×");
    if (shape.length === 4) {
      const [outputs, inputs, rows, columns] = shape;
      // A column of tiles is an output channel, a row an input channel.
      const downwards = inputs > 1 && outputs <= 32;
      list.push({ name, values, about, count: outputs * inputs, rows, columns, across: downwards ? outputs : 16, downwards });
    } else if (shape.length === 2 && shape[0] * shape[1] <= 1 << 16) {
      list.push({ name, values, about, count: 1, rows: shape[0], columns: shape[1], across: 1 });
    }
  }
  show(parent, list);
}

// What each layer made of the picture, or the gradient that came back to it.
export function showMaps(parent, layers, what) {
  const list = [];
  for (const { name, shape: [channels, rows, columns], [what]: values } of layers) {
    if (!values) continue;
    const about = rows * columns > 1 ? `${channels}×${rows}×${columns}` : String(channels);
    const across = rows * columns === 1 ? Math.min(channels, 60) : rows > 12 ? 8 : 16;
    list.push({ name, values, about, count: channels, rows, columns, across });
  }
  show(parent, list);
}
