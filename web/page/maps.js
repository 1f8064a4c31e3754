// Shows tensors as pictures: blue below zero, red above, each layer on a scale of its own.

// These pictures are written pixel by pixel: a canvas on the GPU would wait for the training at each of them.
const context = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

const table = new Uint32Array(511); // colours of -255 … 255, as ImageData holds them

// Takes the colours of the light or the dark page.
export function setColours(dark) {
  const zero = dark ? [40, 44, 51] : [250, 250, 248];
  const below = dark ? [92, 170, 255] : [20, 76, 190];
  const above = dark ? [255, 122, 92] : [190, 30, 30];
  for (let i = -255; i <= 255; i++) {
    const end = i < 0 ? below : above;
    // A root lifts small values out of the background.
    const share = Math.sqrt(Math.abs(i) / 255);
    const [r, g, b] = zero.map((from, c) => Math.round(from + (end[c] - from) * share));
    table[i + 255] = 0xff000000 | b << 16 | g << 8 | r;
  }
}

function largest(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most;
}

// Paints `count` tiles of rows × columns side by side, `across` in a row; or, with `downwards`, the first tiles below
// each other.
function paint(canvas, values, { count, rows, columns, across, downwards }) {
  const gap = rows * columns > 1 ? 1 : 0;
  const [width, height] = [across * (columns + gap) - gap, Math.ceil(count / across) * (rows + gap) - gap];
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    // Whole multiples keep the pixels square and sharp; style.css bounds the width.
    const factor = Math.max(1, Math.min(rows > 8 ? 3 : 6, Math.floor(620 / width)));
    canvas.style.width = `${width * factor}px`;
  }
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
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
  context(canvas).putImageData(image, 0, 0);
  return most;
}

export function paintScale(canvas) {
  const values = Float32Array.from({ length: 256 }, (_, i) => (i - 127.5) / 127.5);
  const image = new ImageData(256, 1);
  new Uint32Array(image.data.buffer).set(Array.from(values, (value) => table[255 + Math.round(255 * value)]));
  context(canvas).putImageData(image, 0, 0);
}

// White ink on black, as it comes, inverted on a light page.
export function paintDigit(canvas, pixels, dark) {
  const image = new ImageData(28, 28);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < 784; i++) {
    const ink = pixels[i];
    const [r, g, b] = dark ? [ink, ink, ink] : [255 - ink, 255 - ink, 255 - ink];
    out[i] = 0xff000000 | b << 16 | g << 8 | r;
  }
  context(canvas).putImageData(image, 0, 0);
}

function figure(parent, key) {
  let made = parent.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (made) return made;
  made = document.createElement("figure");
  made.dataset.key = key;
  const canvas = document.createElement("canvas");
  canvas.className = "pixels";
  canvas.setAttribute("role", "img");
  made.append(document.createElement("figcaption"), canvas);
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
    const [caption, canvas] = made.children;
    const shown = Math.min(count, MOST_TILES);
    const cut = { ...tiles, count: shown, across: Math.min(across, shown), downwards: tiles.downwards && shown === count };
    const most = paint(canvas, values.subarray(0, shown * rows * columns), cut);
    const some = shown < count ? `, the first ${shown} of them` : "";
    caption.textContent = `${name}  ${about}${some}  ±${most.toPrecision(2)}`;
    canvas.setAttribute("aria-label", `${caption.textContent}`);
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
