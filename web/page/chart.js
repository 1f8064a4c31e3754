// Draws one chart: axes with ticks, the points of each step, a smoothed line, and marks of test results.

const MARGIN = { left: 52, right: 14, top: 12, bottom: 38 };

// Values to a share of the height. Loss is logarithmic; accuracy is logarithmic in the share of mistakes, so that from
// 90 to 99 % is as far as from 99 to 99.9 %.
export const LOSS = {
  of: (value) => Math.log10(Math.max(value, 1e-4)),
  ticks: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].map((value) => [value, String(value)]),
};
export const ACCURACY = {
  of: (value) => -Math.log10(Math.max(1 - value, 2e-4)),
  ticks: [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999].map((value) => [value, `${+(100 * value).toFixed(1)} %`]),
};

function niceSteps(last, room) {
  const rough = Math.max(last, 1) / Math.max(2, Math.floor(room / 90));
  const ten = 10 ** Math.floor(Math.log10(rough));
  return Math.max(1, ten * [1, 2, 5, 10].find((factor) => factor * ten >= rough));
}

// Draws `raw` and `smooth` of a history and `marks` ([{ step, value, epoch }]) on a canvas.
export function drawChart(canvas, { history, raw, smooth, marks, scale, colours, target, perEpoch }) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom];
  const n = history.length;
  const last = Math.max(10, n ? history.step[n - 1] : 0, ...marks.map((mark) => mark.step));

  let [low, high] = [Infinity, -Infinity];
  const include = (value) => {
    if (!Number.isFinite(value)) return;
    low = Math.min(low, scale.of(value));
    high = Math.max(high, scale.of(value));
  };
  const every = Math.max(1, Math.floor(n / 1024));
  for (let i = 0; i < n; i += every) include(history[smooth][i]);
  marks.forEach((mark) => include(mark.value));
  if (target !== undefined && high > scale.of(0.9)) include(target);
  if (low > high) [low, high] = [scale.of(scale.ticks[0][0]), scale.of(scale.ticks.at(-1)[0])];
  const spare = 0.06 * (high - low) + 0.02;
  [low, high] = [low - spare, high + spare];
  const x = (step) => left + (right - left) * step / last;
  const y = (value) => bottom - (bottom - top) * (scale.of(value) - low) / (high - low);

  context.font = "13px system-ui, sans-serif";
  context.lineWidth = 1;
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.fillStyle = colours.muted;
  context.strokeStyle = colours.line;
  let free = Infinity;
  for (const [value, text] of scale.ticks) {
    const at = y(value);
    if (at < top || at > bottom || free - at < 20) continue;
    free = at;
    context.beginPath();
    context.moveTo(left, Math.round(at) + 0.5);
    context.lineTo(right, Math.round(at) + 0.5);
    context.stroke();
    context.fillText(text, left - 7, at);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const step = niceSteps(last, right - left);
  for (let at = 0; at <= last; at += step) {
    context.beginPath();
    context.moveTo(Math.round(x(at)) + 0.5, bottom);
    context.lineTo(Math.round(x(at)) + 0.5, bottom + 4);
    context.stroke();
    context.fillText(at.toLocaleString("en"), x(at), bottom + 6);
  }
  context.textAlign = "right";
  context.fillText(perEpoch ? `steps (${perEpoch.toLocaleString("en")} an epoch)` : "steps", right, bottom + 22);

  context.save();
  context.beginPath();
  context.rect(left, top - 4, right - left + 4, bottom - top + 8);
  context.clip();
  if (target !== undefined) {
    context.setLineDash([4, 4]);
    context.strokeStyle = colours.muted;
    context.beginPath();
    context.moveTo(left, y(target));
    context.lineTo(right, y(target));
    context.stroke();
    context.setLineDash([]);
  }
  const line = (values, colour, thickness) => {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.lineJoin = "round";
    context.beginPath();
    for (let i = 0; i < n; i++) context.lineTo(x(history.step[i]), y(values[i]));
    context.stroke();
    if (n !== 1) return;
    context.fillStyle = colour;
    context.fillRect(x(history.step[0]) - 2, y(values[0]) - 2, 4, 4);
  };
  line(history[raw], colours.raw, 1);
  line(history[smooth], colours.accent, 2.5);
  context.lineWidth = 2;
  for (const mark of marks) {
    context.beginPath();
    context.arc(x(mark.step), y(mark.value), mark.epoch ? 5 : 2.5, 0, 7);
    context.fillStyle = colours.test;
    context.strokeStyle = colours.surface;
    if (mark.epoch) context.stroke();
    context.fill();
  }
  context.restore();
}
