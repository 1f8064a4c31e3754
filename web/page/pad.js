// The drawing area: strokes by pen, finger or mouse.

const SIZE = 280; // of the picture that is handed on

// A pen on a canvas; `changed()` is called after every movement, undo and clear.
export class Pad {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.ink = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE }).getContext("2d", { willReadFrequently: true });
    let stroke, pointer;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || pointer !== undefined) return;
      event.preventDefault();
      pointer = event.pointerId;
      canvas.setPointerCapture(pointer);
      stroke = [this.at(event)];
      this.strokes.push(stroke);
      this.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== pointer) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) stroke.push(this.at(each));
      this.draw();
    });
    const end = (event) => {
      if (event.pointerId === pointer) pointer = undefined;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    this.paint();
  }

  // A pointer's place, in a square of 1 by 1.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  clear() {
    this.strokes = [];
    this.draw();
  }

  undo() {
    this.strokes.pop();
    this.draw();
  }

  // Replaces the strokes: lists of [x, y] between 0 and 1.
  set(strokes) {
    this.strokes = strokes;
    this.draw();
  }

  draw() {
    this.paint();
    this.changed();
  }

  // Paints the strokes in the page's colours, and once more in white on black.
  paint() {
    const ratio = devicePixelRatio || 1;
    const side = Math.max(1, Math.round((this.canvas.clientWidth || SIZE) * ratio));
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const style = getComputedStyle(this.canvas);
    this.strokesOn(this.canvas.getContext("2d"), side, style.backgroundColor, style.color);
    this.strokesOn(this.ink, SIZE, "#000", "#fff");
  }

  strokesOn(context, side, paper, ink) {
    context.fillStyle = paper;
    context.fillRect(0, 0, side, side);
    context.strokeStyle = ink;
    context.lineWidth = side * 0.075;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(stroke[0][0] * side, stroke[0][1] * side);
      // A dot is a line to the same place.
      for (const [x, y] of stroke.length > 1 ? stroke.slice(1) : stroke) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }

  // The picture as grey bytes.
  grey() {
    const { data } = this.ink.getImageData(0, 0, SIZE, SIZE);
    const grey = new Uint8Array(SIZE * SIZE);
    for (let i = 0; i < grey.length; i++) grey[i] = data[4 * i];
    return { grey, width: SIZE, height: SIZE };
  }
}
