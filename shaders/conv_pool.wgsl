// conv_pool: convolution, bias, activation and 2×2 pooling in one launch, and all their gradients in another.
//
//     z[n, o, y, x]      = bias[o] + Σ c,ky,kx  weight[o, c, ky, kx] · input[n, c, y + ky − P, x + kx − P]
//     output[n, o, Y, X] = max  or mean  over the four (y, x) = (2Y + 0..1, 2X + 0..1) of f(z[n, o, y, x])
//
//     dz[n, o, y, x]     = max:  output_grad[n, o, Y, X] where the window's first largest z is, else 0
//                          mean: output_grad[n, o, Y, X] / 4 · f′(z[n, o, y, x])
//     weight_grad[o, c, ky, kx] = Σ n,y,x  dz[n, o, y, x] · input[n, c, y + ky − P, x + kx − P]
//     bias_grad[o]              = Σ n,y,x  dz[n, o, y, x]
//     input_grad[n, c, y, x]    = Σ o,ky,kx weight[o, c, ky, kx] · dz[n, o, y + P − ky, x + P − kx] · g′(input[n, c, y, x])
//
// With a maximum, f′ is the business of whoever made `output_grad`: f is monotonic, so f′ at the window's
// winner is f′ of the output. But where a ReLU is flat the window has no winner, and that is all there is to it. In
// the same way g′ is the derivative, by its own value, of the activation that made this layer's input
// (INPUT_ACTIVATION). Stride and dilation are 1, filters at most 5×5.
//
// The first layer of a network reads the data set's bytes itself (BYTES), as batch.wgsl's `gather` would.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl); an invocation works on one image. A
// workgroup of 64 is 16 images × 4 tiles of one tile of channels, so that all of it reads the same filters, which
// are bound as a uniform buffer: constant caches are made for that. `forward`, and the input's gradient in
// `backward`: a tile is 2 rows × COLUMNS columns × CHANNELS channels, all in registers, and each row of the input
// serves both rows. The weights' gradient: a tile is 2·PAIRS output channels × TAP_ROWS rows of taps of one input
// channel, over the rows of a split; the 16 lanes of a tile meet in workgroup memory, and with them those of the
// ROW_SHARES tiles of a workgroup that are one tile at other rows, where a device would else be empty. Tile sizes are
// constants: what is beyond them, the compiler leaves out altogether.
//
// Where a condition is met for every pixel it is made with `&` and `|`: `&&` and `||` are branches, and a browser's
// compiler may choke on a hundred of them in a row.
//
// After a barrier only sixteen lanes are added up: software adapters run what follows one much slower than what
// precedes it.

override IN_CHANNELS: u32;
override IN_HEIGHT: u32;
override IN_WIDTH: u32;
override OUT_CHANNELS: u32;
override OUT_HEIGHT: u32;          // of the convolution, before the pooling
override OUT_WIDTH: u32;
override KERNEL_HEIGHT: u32;
override KERNEL_WIDTH: u32;
override PAD_HEIGHT: u32;
override PAD_WIDTH: u32;
override BIAS: bool;
override AVERAGE: bool;            // the mean of a window, else its maximum
override ACTIVATION: u32;          // of this layer
override INPUT_ACTIVATION: u32;    // of the layer before, where `backward` applies its derivative
override SAVE: bool;               // whether `backward` will follow
override COLUMNS: u32;             // of a tile of `forward`: even, at most 14
override CHANNELS: u32;            // of a tile of `forward`: even, at most 8
override IN_COLUMNS: u32;          // of a tile of the input's gradient: even, at most 14
override IN_TILE: u32;             // channels of a tile of the input's gradient: even, at most 8
override PAIRS: u32;               // of output channels of a tile of the weights' gradient: at most 3
override TAP_ROWS: u32;            // rows of taps of a tile of the weights' gradient: at most 2
override BLOCKS: u32;              // blocks of 16 images in the batch
override SPLITS: u32;              // partial sums of the weights' gradient
override ROW_SPLITS: u32;          // of them, how many share a block's rows
override ROW_SHARES: u32;          // tiles of a workgroup that share a split's rows: 1, 2 or 4
override GRID_ROWS: u32;           // rows of the grid, among which its workgroups are dealt out
override BYTES: bool;              // whether `input` is the data set
override BORDER: u32;              // background around each of its pictures
override MEAN: f32;
override DEVIATION: f32;

override POOLED_HEIGHT = OUT_HEIGHT / 2;
override POOLED_WIDTH = OUT_WIDTH / 2;
override TAPS = KERNEL_HEIGHT * KERNEL_WIDTH;
override STRIPS = (2 * POOLED_WIDTH + COLUMNS - 1) / COLUMNS;
override IN_STRIPS = (IN_WIDTH + IN_COLUMNS - 1) / IN_COLUMNS;
override IN_TILES = (IN_CHANNELS + IN_TILE - 1) / IN_TILE;
override OUTPUT_GROUPS = (POOLED_HEIGHT * STRIPS + 3) / 4;        // of one tile of channels of one block
override ALL_OUTPUT_GROUPS = OUTPUT_GROUPS * ((OUT_CHANNELS + CHANNELS - 1) / CHANNELS);
override OUTPUT_ROW = (ALL_OUTPUT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override INPUT_TILES = (IN_HEIGHT + 1) / 2 * IN_STRIPS;
override INPUT_GROUPS = (INPUT_TILES + 3) / 4;                   // of one tile of channels of one block
override ALL_INPUT_GROUPS = INPUT_GROUPS * IN_TILES * BLOCKS;
override INPUT_ROW = (ALL_INPUT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override OUT_TILES = (OUT_CHANNELS + 2 * PAIRS - 1) / (2 * PAIRS);
override ROW_TILES = (KERNEL_HEIGHT + TAP_ROWS - 1) / TAP_ROWS;
override TAP_TILES = SPLITS * OUT_TILES * IN_CHANNELS * ROW_TILES;
override BIAS_TILES = select(0u, SPLITS * OUT_TILES, BIAS);
override PLACES = 4 / ROW_SHARES;                                // tiles of the weights' gradient in a workgroup
override ROW_STEP = ROW_SPLITS * ROW_SHARES;
override WEIGHT_GROUPS = (TAP_TILES + BIAS_TILES + PLACES - 1) / PLACES;
override WEIGHT_ROW = (WEIGHT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
// Windows that a round of the weights' gradient takes: a word of the data set holds the columns of two.
override WINDOWS = select(1u, 2u, BYTES);
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (OUT_CHANNELS * IN_CHANNELS * TAPS + 63) / 64 * 64;
override BIAS_STRIDE = (OUT_CHANNELS + 63) / 64 * 64;

const LANES = 16u;

const NOWHERE = 4u;

// The activations whose derivative is a function of their value; the numbers are activation.wgsl's.
const RELU = 0u;
const SIGMOID = 2u;
const TANH = 3u;
const SCALED_TANH = 4u;

struct Step {
    cursor: u32,
    count: u32,
    slot: u32,
    seed: u32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    time: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> input: array<u32>;        // floats as bits, or four pixels a word
@group(0) @binding(2) var<storage, read> order: array<u32>;        // the epoch's permutation, with BYTES
@group(0) @binding(3) var<uniform> weight: array<vec4<f32>, 4096>; // 64 KiB from the filters on
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read_write> saved: array<u32>;  // max: place in the window, or NOWHERE; mean: f(z) as bits
@group(0) @binding(7) var<storage, read> output_grad: array<f32>;
@group(0) @binding(8) var<storage, read> recalled: array<u32>;     // `saved`, as the backward pass reads it
@group(0) @binding(9) var<storage, read_write> weight_grad: array<f32>;
@group(0) @binding(10) var<storage, read_write> bias_grad: array<f32>;
@group(0) @binding(11) var<storage, read_write> input_grad: array<f32>;

// By its bits, since a compiler may take it that there is none.
fn is_nan(x: vec2<f32>) -> vec2<bool> {
    return (bitcast<vec2<u32>>(x) << vec2(1u)) > vec2(0xff000000u);
}

// Some drivers compute exp(2x) and overflow; beyond 15 the result is ±1 in f32. What is no number stays none.
fn safe_tanh(x: vec2<f32>) -> vec2<f32> {
    return select(tanh(clamp(x, vec2(-15.0), vec2(15.0))), x, is_nan(x));
}

// A maximum might leave a NaN out, so that a ReLU is none.
fn activate(z: vec2<f32>) -> vec2<f32> {
    switch (ACTIVATION) {
        case RELU: { return select(z, vec2(0.0), z <= vec2(0.0)); }
        case SIGMOID: { return 1.0 / (1.0 + exp(-z)); }
        case TANH: { return safe_tanh(z); }
        case SCALED_TANH: { return 1.7159 * safe_tanh(z * (2.0 / 3.0)); }
        default: { return z; }
    }
}

// The derivative of activation `kind` where its value is `y`.
fn slope(kind: u32, y: f32) -> f32 {
    switch (kind) {
        case RELU: { return select(0.0, 1.0, y > 0.0); }
        case SIGMOID: { return y * (1.0 - y); }
        case TANH: { return 1.0 - y * y; }
        case SCALED_TANH: { return 1.7159 * (2.0 / 3.0) - y * y * (2.0 / 3.0 / 1.7159); }
        default: { return 1.0; }
    }
}

// One image as the input: where its first element lies, in bytes with BYTES, and whether there is one.
struct Picture {
    start: u32,
    there: bool,
}

fn picture(block: u32, lane: u32) -> Picture {
    if (BYTES) {
        let row = block * LANES + lane;
        let there = row < step.count;
        // A lane without an image looks at the batch's first.
        let at = step.cursor + select(0u, row, there);
        return Picture(order[at] * IN_CHANNELS * (IN_HEIGHT - 2u * BORDER) * (IN_WIDTH - 2u * BORDER), there);
    }
    return Picture(block * IN_CHANNELS * IN_HEIGHT * IN_WIDTH * LANES + lane, true);
}

// The input of channel `c` at a place that may lie in the padding.
fn pixel(p: Picture, c: u32, y: i32, x: i32) -> f32 {
    if ((PAD_HEIGHT > 0u || PAD_WIDTH > 0u) && (u32(y) >= IN_HEIGHT || u32(x) >= IN_WIDTH)) {
        return 0.0;
    }
    return bitcast<f32>(input[p.start + ((c * IN_HEIGHT + u32(y)) * IN_WIDTH + u32(x)) * LANES]);
}

// A row of a picture's bytes.
struct Line {
    at: i32,       // the word that holds its first column
    shift: u32,    // and by how many bits it starts later
    inside: bool,  // whether the row lies in the picture
    zero: bool,    // whether it lies in the padding, or there is no picture
}

fn line(p: Picture, c: u32, y: i32, x: i32) -> Line {
    let height = i32(IN_HEIGHT - 2u * BORDER);
    let row = y - i32(BORDER);
    // What lies left or right of the picture is not used, so that it may be anything, before the first one too.
    let at = i32(p.start) + (i32(c) * height + clamp(row, 0, height - 1)) * i32(IN_WIDTH - 2u * BORDER) + x - i32(BORDER);
    return Line(at >> 2u, u32(at & 3) * 8u, (row >= 0) & (row < height), !p.there | ((PAD_HEIGHT > 0u) & (u32(y) >= IN_HEIGHT)));
}

// Four bytes that start `shift` bits into a word.
fn joined(low: u32, high: u32, shift: u32) -> u32 {
    // A shift by 32 is none in WGSL.
    return select((low >> shift) | (high << (32u - shift)), low, shift == 0u);
}

// Byte `k` of a word as column `x` of the line.
fn grey(word: u32, k: u32, x: i32, l: Line) -> f32 {
    let value = select(0.0, f32((word >> (8u * k)) & 255u), l.inside & (u32(x) - BORDER < IN_WIDTH - 2u * BORDER));
    let zero = l.zero | ((PAD_WIDTH > 0u) & (u32(x) >= IN_WIDTH));
    return select((value / 255.0 - MEAN) / DEVIATION, 0.0, zero);
}

// Eighteen neighbouring values of a row: fourteen columns and the reach of five taps.
struct Row {
    x0: f32,
    x1: f32,
    x2: f32,
    x3: f32,
    x4: f32,
    x5: f32,
    x6: f32,
    x7: f32,
    x8: f32,
    x9: f32,
    x10: f32,
    x11: f32,
    x12: f32,
    x13: f32,
    x14: f32,
    x15: f32,
    x16: f32,
    x17: f32,
}

fn input_row(p: Picture, c: u32, y: i32, x: i32) -> Row {
    if (BYTES) {
        let l = line(p, c, y, x);
        let b0 = input[u32(l.at)];
        let b1 = input[u32(l.at + 1)];
        let b2 = input[u32(l.at + 2)];
        var b3 = 0u;
        var b4 = 0u;
        var b5 = 0u;
        if (COLUMNS > 4u) { b3 = input[u32(l.at + 3)]; }
        if (COLUMNS > 8u) { b4 = input[u32(l.at + 4)]; }
        if (COLUMNS > 12u) { b5 = input[u32(l.at + 5)]; }
        let w0 = joined(b0, b1, l.shift);
        let w1 = joined(b1, b2, l.shift);
        let w2 = joined(b2, b3, l.shift);
        let w3 = joined(b3, b4, l.shift);
        let w4 = joined(b4, b5, l.shift);
        return Row(
            grey(w0, 0u, x + 0, l), grey(w0, 1u, x + 1, l), grey(w0, 2u, x + 2, l), grey(w0, 3u, x + 3, l),
            grey(w1, 0u, x + 4, l), grey(w1, 1u, x + 5, l), grey(w1, 2u, x + 6, l), grey(w1, 3u, x + 7, l),
            grey(w2, 0u, x + 8, l), grey(w2, 1u, x + 9, l), grey(w2, 2u, x + 10, l), grey(w2, 3u, x + 11, l),
            grey(w3, 0u, x + 12, l), grey(w3, 1u, x + 13, l), grey(w3, 2u, x + 14, l), grey(w3, 3u, x + 15, l),
            grey(w4, 0u, x + 16, l), grey(w4, 1u, x + 17, l),
        );
    }
    return Row(
        pixel(p, c, y, x), pixel(p, c, y, x + 1), pixel(p, c, y, x + 2), pixel(p, c, y, x + 3), pixel(p, c, y, x + 4), pixel(p, c, y, x + 5),
        pixel(p, c, y, x + 6), pixel(p, c, y, x + 7), pixel(p, c, y, x + 8), pixel(p, c, y, x + 9), pixel(p, c, y, x + 10), pixel(p, c, y, x + 11),
        pixel(p, c, y, x + 12), pixel(p, c, y, x + 13), pixel(p, c, y, x + 14), pixel(p, c, y, x + 15), pixel(p, c, y, x + 16), pixel(p, c, y, x + 17),
    );
}

// Five neighbouring taps of two filters.
struct Taps {
    w0: vec2<f32>,
    w1: vec2<f32>,
    w2: vec2<f32>,
    w3: vec2<f32>,
    w4: vec2<f32>,
}

fn filters(at: vec2<u32>) -> vec2<f32> {
    return vec2(weight[at.x / 4u][at.x % 4u], weight[at.y / 4u][at.y % 4u]);
}

// The row of taps that starts at `at`; 0 beyond the filters' width.
fn taps(at: vec2<u32>) -> Taps {
    var w = Taps(filters(at), vec2(0.0), vec2(0.0), vec2(0.0), vec2(0.0));
    if (KERNEL_WIDTH > 1u) { w.w1 = filters(at + 1u); }
    if (KERNEL_WIDTH > 2u) { w.w2 = filters(at + 2u); }
    if (KERNEL_WIDTH > 3u) { w.w3 = filters(at + 3u); }
    if (KERNEL_WIDTH > 4u) { w.w4 = filters(at + 4u); }
    return w;
}

// Fourteen neighbouring columns of two channels.
struct Strip {
    s0: vec2<f32>,
    s1: vec2<f32>,
    s2: vec2<f32>,
    s3: vec2<f32>,
    s4: vec2<f32>,
    s5: vec2<f32>,
    s6: vec2<f32>,
    s7: vec2<f32>,
    s8: vec2<f32>,
    s9: vec2<f32>,
    s10: vec2<f32>,
    s11: vec2<f32>,
    s12: vec2<f32>,
    s13: vec2<f32>,
}

fn filled(v: vec2<f32>) -> Strip {
    return Strip(v, v, v, v, v, v, v, v, v, v, v, v, v, v);
}

// Adds what five taps make of a row.
fn add(s: Strip, w: Taps, r: Row) -> Strip {
    return Strip(
        s.s0 + w.w0 * r.x0 + w.w1 * r.x1 + w.w2 * r.x2 + w.w3 * r.x3 + w.w4 * r.x4,
        s.s1 + w.w0 * r.x1 + w.w1 * r.x2 + w.w2 * r.x3 + w.w3 * r.x4 + w.w4 * r.x5,
        s.s2 + w.w0 * r.x2 + w.w1 * r.x3 + w.w2 * r.x4 + w.w3 * r.x5 + w.w4 * r.x6,
        s.s3 + w.w0 * r.x3 + w.w1 * r.x4 + w.w2 * r.x5 + w.w3 * r.x6 + w.w4 * r.x7,
        s.s4 + w.w0 * r.x4 + w.w1 * r.x5 + w.w2 * r.x6 + w.w3 * r.x7 + w.w4 * r.x8,
        s.s5 + w.w0 * r.x5 + w.w1 * r.x6 + w.w2 * r.x7 + w.w3 * r.x8 + w.w4 * r.x9,
        s.s6 + w.w0 * r.x6 + w.w1 * r.x7 + w.w2 * r.x8 + w.w3 * r.x9 + w.w4 * r.x10,
        s.s7 + w.w0 * r.x7 + w.w1 * r.x8 + w.w2 * r.x9 + w.w3 * r.x10 + w.w4 * r.x11,
        s.s8 + w.w0 * r.x8 + w.w1 * r.x9 + w.w2 * r.x10 + w.w3 * r.x11 + w.w4 * r.x12,
        s.s9 + w.w0 * r.x9 + w.w1 * r.x10 + w.w2 * r.x11 + w.w3 * r.x12 + w.w4 * r.x13,
        s.s10 + w.w0 * r.x10 + w.w1 * r.x11 + w.w2 * r.x12 + w.w3 * r.x13 + w.w4 * r.x14,
        s.s11 + w.w0 * r.x11 + w.w1 * r.x12 + w.w2 * r.x13 + w.w3 * r.x14 + w.w4 * r.x15,
        s.s12 + w.w0 * r.x12 + w.w1 * r.x13 + w.w2 * r.x14 + w.w3 * r.x15 + w.w4 * r.x16,
        s.s13 + w.w0 * r.x13 + w.w1 * r.x14 + w.w2 * r.x15 + w.w3 * r.x16 + w.w4 * r.x17,
    );
}

// Two channels of a tile: its sums in both rows, and the taps of the row before. What those were to the top row,
// they are to the bottom row now.
struct Tile {
    top: Strip,
    bottom: Strip,
    before: Taps,
}

fn begin(o: u32) -> Tile {
    var start = filled(vec2(0.0));
    if (BIAS) {
        let at = min(vec2(o, o + 1u), vec2(OUT_CHANNELS - 1u));
        start = filled(vec2(bias[at.x], bias[at.y]));
    }
    return Tile(start, start, Taps());
}

fn convolve(t: Tile, o: u32, c: u32, ky: u32, pixels: Row) -> Tile {
    var w = Taps();
    if (ky < KERNEL_HEIGHT) {
        // Channels beyond the last repeat it: they are computed and not stored.
        w = taps((min(vec2(o, o + 1u), vec2(OUT_CHANNELS - 1u)) * IN_CHANNELS + c) * TAPS + ky * KERNEL_WIDTH);
    }
    return Tile(add(t.top, w, pixels), add(t.bottom, t.before, pixels), w);
}

// The values of one pooling window of two channels: its output and what `backward` will need.
fn store_window(block: u32, o: u32, row: u32, column: u32, lane: u32, a: vec2<f32>, b: vec2<f32>, c: vec2<f32>, d: vec2<f32>) {
    if (2u * POOLED_WIDTH % COLUMNS != 0u && column >= POOLED_WIDTH) {
        return;
    }
    let plane = POOLED_HEIGHT * POOLED_WIDTH * LANES;
    let at = (((block * OUT_CHANNELS + o) * POOLED_HEIGHT + row) * POOLED_WIDTH + column) * LANES + lane;
    let second = OUT_CHANNELS % 2u == 0u || o + 1u < OUT_CHANNELS;
    if (AVERAGE) {
        let fa = activate(a);
        let fb = activate(b);
        let fc = activate(c);
        let fd = activate(d);
        store(at, plane, second, 0.25 * (fa + fb + fc + fd));
        if (SAVE) {
            let whole = OUT_HEIGHT * OUT_WIDTH * LANES;
            let there = (((block * OUT_CHANNELS + o) * OUT_HEIGHT + 2u * row) * OUT_WIDTH + 2u * column) * LANES + lane;
            save(there, whole, second, bitcast<vec2<u32>>(fa));
            save(there + LANES, whole, second, bitcast<vec2<u32>>(fb));
            save(there + OUT_WIDTH * LANES, whole, second, bitcast<vec2<u32>>(fc));
            save(there + (OUT_WIDTH + 1u) * LANES, whole, second, bitcast<vec2<u32>>(fd));
        }
        return;
    }
    // Strictly more, so that the first of equals wins; no NaN is more than anything, but their sum knows of it.
    var best = a;
    var place = vec2(0u);
    var more = b > best;
    place = select(place, vec2(1u), more);
    best = select(best, b, more);
    more = c > best;
    place = select(place, vec2(2u), more);
    best = select(best, c, more);
    more = d > best;
    place = select(place, vec2(3u), more);
    best = select(best, d, more);
    let sum = (a + b) + (c + d);
    best = select(best, sum, is_nan(sum));
    if (ACTIVATION == RELU) {
        place = select(place, vec2(NOWHERE), best <= vec2(0.0));
    }
    store(at, plane, second, activate(best));
    if (SAVE) {
        save(at, plane, second, place);
    }
}

fn store(at: u32, plane: u32, second: bool, value: vec2<f32>) {
    output[at] = value.x;
    if (second) { output[at + plane] = value.y; }
}

fn save(at: u32, plane: u32, second: bool, value: vec2<u32>) {
    saved[at] = value.x;
    if (second) { saved[at + plane] = value.y; }
}

fn finish(t: Tile, block: u32, o: u32, row: u32, column: u32, lane: u32) {
    if (OUT_CHANNELS % CHANNELS != 0u && o >= OUT_CHANNELS) {
        return;
    }
    store_window(block, o, row, column, lane, t.top.s0, t.top.s1, t.bottom.s0, t.bottom.s1);
    if (COLUMNS > 2u) { store_window(block, o, row, column + 1u, lane, t.top.s2, t.top.s3, t.bottom.s2, t.bottom.s3); }
    if (COLUMNS > 4u) { store_window(block, o, row, column + 2u, lane, t.top.s4, t.top.s5, t.bottom.s4, t.bottom.s5); }
    if (COLUMNS > 6u) { store_window(block, o, row, column + 3u, lane, t.top.s6, t.top.s7, t.bottom.s6, t.bottom.s7); }
    if (COLUMNS > 8u) { store_window(block, o, row, column + 4u, lane, t.top.s8, t.top.s9, t.bottom.s8, t.bottom.s9); }
    if (COLUMNS > 10u) { store_window(block, o, row, column + 5u, lane, t.top.s10, t.top.s11, t.bottom.s10, t.bottom.s11); }
    if (COLUMNS > 12u) { store_window(block, o, row, column + 6u, lane, t.top.s12, t.top.s13, t.bottom.s12, t.bottom.s13); }
}

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * OUTPUT_ROW + workgroup.x;
    let tile = number % OUTPUT_GROUPS * 4u + invocation / LANES;
    let row = tile / STRIPS;
    let x = select(tile % STRIPS * COLUMNS, 0u, STRIPS == 1u);
    if (row >= POOLED_HEIGHT || (GRID_ROWS > 1u && number >= ALL_OUTPUT_GROUPS)) {
        return;
    }
    let block = workgroup.z;
    let o = number / OUTPUT_GROUPS * CHANNELS;
    var t0 = begin(o);
    var t1 = begin(o + 2u);
    var t2 = begin(o + 4u);
    var t3 = begin(o + 6u);
    let p = picture(block, lane);
    for (var c = 0u; c < IN_CHANNELS; c++) {
        for (var ky = 0u; ky <= KERNEL_HEIGHT; ky++) {
            let pixels = input_row(p, c, i32(2u * row + ky) - i32(PAD_HEIGHT), i32(x) - i32(PAD_WIDTH));
            t0 = convolve(t0, o, c, ky, pixels);
            if (CHANNELS > 2u) { t1 = convolve(t1, o + 2u, c, ky, pixels); }
            if (CHANNELS > 4u) { t2 = convolve(t2, o + 4u, c, ky, pixels); }
            if (CHANNELS > 6u) { t3 = convolve(t3, o + 6u, c, ky, pixels); }
        }
    }
    finish(t0, block, o, row, x / 2u, lane);
    if (CHANNELS > 2u) { finish(t1, block, o + 2u, row, x / 2u, lane); }
    if (CHANNELS > 4u) { finish(t2, block, o + 4u, row, x / 2u, lane); }
    if (CHANNELS > 6u) { finish(t3, block, o + 6u, row, x / 2u, lane); }
}

// dz of one channel in a pooling window: top left, top right, bottom left, bottom right.
fn window_grad(channel: u32, row: u32, column: u32, lane: u32) -> vec4<f32> {
    let at = ((channel * POOLED_HEIGHT + row) * POOLED_WIDTH + column) * LANES + lane;
    let g = output_grad[at];
    if (AVERAGE) {
        let there = ((channel * OUT_HEIGHT + 2u * row) * OUT_WIDTH + 2u * column) * LANES + lane;
        let below = there + OUT_WIDTH * LANES;
        return 0.25 * g * vec4(
            slope(ACTIVATION, bitcast<f32>(recalled[there])),
            slope(ACTIVATION, bitcast<f32>(recalled[there + LANES])),
            slope(ACTIVATION, bitcast<f32>(recalled[below])),
            slope(ACTIVATION, bitcast<f32>(recalled[below + LANES])),
        );
    }
    return select(vec4(0.0), vec4(g), vec4(recalled[at]) == vec4(0u, 1u, 2u, 3u));
}

// Rows of taps of the weights' gradient, of two filters.
struct Filters {
    k0: Taps,
    k1: Taps,
}

// Six neighbouring values of a row: two columns of outputs and the reach of five taps.
struct Six {
    x0: f32,
    x1: f32,
    x2: f32,
    x3: f32,
    x4: f32,
    x5: f32,
}

// The three rows that two rows of outputs and two rows of taps see.
struct Sixes {
    r0: Six,
    r1: Six,
    r2: Six,
}

// Two columns on, with two new values.
fn slide(s: Six, x4: f32, x5: f32) -> Six {
    return Six(s.x2, s.x3, s.x4, s.x5, x4, x5);
}

// dz of two channels in a window.
struct Window {
    a: vec2<f32>,
    b: vec2<f32>,
    c: vec2<f32>,
    d: vec2<f32>,
}

// Adds dz times what each tap of a row of taps sees of the top and of the bottom row.
fn outer(w: Taps, g: Window, top: Six, bottom: Six) -> Taps {
    return Taps(
        w.w0 + g.a * top.x0 + g.b * top.x1 + g.c * bottom.x0 + g.d * bottom.x1,
        w.w1 + g.a * top.x1 + g.b * top.x2 + g.c * bottom.x1 + g.d * bottom.x2,
        w.w2 + g.a * top.x2 + g.b * top.x3 + g.c * bottom.x2 + g.d * bottom.x3,
        w.w3 + g.a * top.x3 + g.b * top.x4 + g.c * bottom.x3 + g.d * bottom.x4,
        w.w4 + g.a * top.x4 + g.b * top.x5 + g.c * bottom.x4 + g.d * bottom.x5,
    );
}

fn correlate(sums: Filters, g: Window, x: Sixes) -> Filters {
    var f = sums;
    f.k0 = outer(f.k0, g, x.r0, x.r1);
    if (TAP_ROWS > 1u) { f.k1 = outer(f.k1, g, x.r1, x.r2); }
    return f;
}

// dz of output channels `o` and `o` + 1 in a window; 0 right of the last.
fn pair_grad(block: u32, o: u32, row: u32, column: u32, lane: u32) -> Window {
    let at = block * OUT_CHANNELS + min(vec2(o, o + 1u), vec2(OUT_CHANNELS - 1u));
    let place = min(column, POOLED_WIDTH - 1u);
    let inside = vec4(column < POOLED_WIDTH);
    let a = select(vec4(0.0), window_grad(at.x, row, place, lane), inside);
    let b = select(vec4(0.0), window_grad(at.y, row, place, lane), inside);
    return Window(vec2(a.x, b.x), vec2(a.y, b.y), vec2(a.z, b.z), vec2(a.w, b.w));
}

// One row as the weights' gradient walks along it.
struct Walk {
    six: Six,
    line: Line,     // with BYTES: `at` is the word after the one below,
    word: u32,      // whose bits from `shift` on are the columns after the six
}

fn walk(p: Picture, c: u32, y: i32) -> Walk {
    let left = -i32(PAD_WIDTH);
    if (BYTES) {
        let l = line(p, c, y, left);
        let next = input[u32(l.at + 1)];
        let word = joined(input[u32(l.at)], next, l.shift);
        let six = Six(0.0, 0.0, grey(word, 0u, left, l), grey(word, 1u, left + 1, l),
            grey(word, 2u, left + 2, l), grey(word, 3u, left + 3, l));
        return Walk(six, Line(l.at + 2, l.shift, l.inside, l.zero), next);
    }
    return Walk(Six(0.0, 0.0, pixel(p, c, y, left), pixel(p, c, y, left + 1), pixel(p, c, y, left + 2), pixel(p, c, y, left + 3)), Line(), 0u);
}

struct Stride {
    walk: Walk,
    next: Six,      // the six two columns on, with BYTES
}

// One round on: WINDOWS windows.
fn advance(w: Walk, p: Picture, c: u32, y: i32, x: i32) -> Stride {
    if (BYTES) {
        let l = w.line;
        let next = input[u32(l.at)];
        let word = joined(w.word, next, l.shift);
        let first = slide(w.six, grey(word, 0u, x, l), grey(word, 1u, x + 1, l));
        let second = slide(first, grey(word, 2u, x + 2, l), grey(word, 3u, x + 3, l));
        return Stride(Walk(second, Line(l.at + 1, l.shift, l.inside, l.zero), next), first);
    }
    let first = slide(w.six, pixel(p, c, y, x), pixel(p, c, y, x + 1));
    return Stride(Walk(first, Line(), 0u), first);
}

// A row of taps of each pair, of each of the 64 invocations.
var<workgroup> partial: array<vec2<f32>, 960>;

struct WeightTile {
    there: bool,
    of_bias: bool,
    o: u32,
    c: u32,
    ky: u32,
    split: u32,
}

fn weight_tile(tile: u32) -> WeightTile {
    let of_bias = tile >= TAP_TILES;
    let k = select(tile, (tile - TAP_TILES) * IN_CHANNELS * ROW_TILES, of_bias);
    return WeightTile(
        tile < TAP_TILES + BIAS_TILES, of_bias,
        k / (ROW_TILES * IN_CHANNELS) % OUT_TILES * 2u * PAIRS, k / ROW_TILES % IN_CHANNELS,
        k % ROW_TILES * TAP_ROWS, k / (ROW_TILES * IN_CHANNELS * OUT_TILES),
    );
}

// The sums of an invocation: rows of taps of up to three pairs of filters; the bias stands in the first tap.
struct Sums {
    f0: Filters,
    f1: Filters,
    f2: Filters,
}

fn weight_part(invocation: u32, workgroup: u32) -> Sums {
    let lane = invocation % LANES;
    let t = weight_tile(workgroup * PLACES + invocation / LANES / ROW_SHARES);
    let start = t.split % ROW_SPLITS + select(invocation / LANES % ROW_SHARES * ROW_SPLITS, 0u, ROW_SHARES == 1u);
    var f0 = Filters();
    var f1 = Filters();
    var f2 = Filters();
    if (!t.there) {
        return Sums(f0, f1, f2);
    }
    for (var block = t.split / ROW_SPLITS; block < BLOCKS; block += SPLITS / ROW_SPLITS) {
        if (t.of_bias) {
            var sum0 = vec2(0.0);
            var sum1 = vec2(0.0);
            var sum2 = vec2(0.0);
            for (var row = start; row < POOLED_HEIGHT; row += ROW_STEP) {
                for (var column = 0u; column < POOLED_WIDTH; column++) {
                    let g0 = pair_grad(block, t.o, row, column, lane);
                    sum0 += g0.a + g0.b + g0.c + g0.d;
                    if (PAIRS > 1u) {
                        let g1 = pair_grad(block, t.o + 2u, row, column, lane);
                        sum1 += g1.a + g1.b + g1.c + g1.d;
                    }
                    if (PAIRS > 2u) {
                        let g2 = pair_grad(block, t.o + 4u, row, column, lane);
                        sum2 += g2.a + g2.b + g2.c + g2.d;
                    }
                }
            }
            f0.k0.w0 += sum0;
            f1.k0.w0 += sum1;
            f2.k0.w0 += sum2;
        } else {
            let p = picture(block, lane);
            for (var row = start; row < POOLED_HEIGHT; row += ROW_STEP) {
                let y = i32(2u * row + t.ky) - i32(PAD_HEIGHT);
                var r0 = walk(p, t.c, y);
                var r1 = walk(p, t.c, y + 1);
                var r2 = Walk();
                if (TAP_ROWS > 1u) { r2 = walk(p, t.c, y + 2); }
                for (var column = 0u; column < POOLED_WIDTH; column += WINDOWS) {
                    let x = i32(2u * column + 4u) - i32(PAD_WIDTH);
                    let s0 = advance(r0, p, t.c, y, x);
                    let s1 = advance(r1, p, t.c, y + 1, x);
                    var s2 = Stride();
                    if (TAP_ROWS > 1u) { s2 = advance(r2, p, t.c, y + 2, x); }
                    r0 = s0.walk;
                    r1 = s1.walk;
                    r2 = s2.walk;
                    let seen = Sixes(s0.next, s1.next, s2.next);
                    f0 = correlate(f0, pair_grad(block, t.o, row, column, lane), seen);
                    if (PAIRS > 1u) { f1 = correlate(f1, pair_grad(block, t.o + 2u, row, column, lane), seen); }
                    if (PAIRS > 2u) { f2 = correlate(f2, pair_grad(block, t.o + 4u, row, column, lane), seen); }
                    if (WINDOWS > 1u) {
                        let further = Sixes(r0.six, r1.six, r2.six);
                        f0 = correlate(f0, pair_grad(block, t.o, row, column + 1u, lane), further);
                        if (PAIRS > 1u) { f1 = correlate(f1, pair_grad(block, t.o + 2u, row, column + 1u, lane), further); }
                        if (PAIRS > 2u) { f2 = correlate(f2, pair_grad(block, t.o + 4u, row, column + 1u, lane), further); }
                    }
                }
            }
        }
    }
    return Sums(f0, f1, f2);
}

fn lend(invocation: u32, pair: u32, w: Taps) {
    let at = pair * 320u + invocation;
    partial[at] = w.w0;
    partial[at + 64u] = w.w1;
    partial[at + 128u] = w.w2;
    partial[at + 192u] = w.w3;
    partial[at + 256u] = w.w4;
}

// Adds up the lanes of row of taps `k`, in order, and stores the sums: an invocation for each tile, pair and tap.
fn reduce(invocation: u32, workgroup: u32, k: u32) {
    let t = weight_tile(workgroup * PLACES + invocation % PLACES);
    let pair = invocation / PLACES % PAIRS;
    let kx = invocation / (PLACES * PAIRS);
    let ky = t.ky + k;
    let o = t.o + 2u * pair;
    let beyond = select((ky >= KERNEL_HEIGHT) | (kx >= KERNEL_WIDTH), (k > 0u) | (kx > 0u), t.of_bias);
    if (!t.there || beyond || kx >= 5u || o >= OUT_CHANNELS) {
        return;
    }
    let base = pair * 320u + kx * 64u + invocation % PLACES * ROW_SHARES * LANES;
    var sum = vec2(0.0);
    for (var l = 0u; l < ROW_SHARES * LANES; l++) {
        sum += partial[base + l];
    }
    let second = o + 1u < OUT_CHANNELS;
    if (t.of_bias) {
        let at = t.split * BIAS_STRIDE + o;
        bias_grad[at] = sum.x;
        if (second) { bias_grad[at + 1u] = sum.y; }
        return;
    }
    let at = t.split * WEIGHT_STRIDE + (o * IN_CHANNELS + t.c) * TAPS + ky * KERNEL_WIDTH + kx;
    weight_grad[at] = sum.x;
    if (second) { weight_grad[at + IN_CHANNELS * TAPS] = sum.y; }
}

// The lanes meet, row of taps by row of taps, for workgroup memory is small. Of uniform control flow.
fn meet(invocation: u32, workgroup: u32, sums: Sums) {
    lend(invocation, 0u, sums.f0.k0);
    if (PAIRS > 1u) { lend(invocation, 1u, sums.f1.k0); }
    if (PAIRS > 2u) { lend(invocation, 2u, sums.f2.k0); }
    workgroupBarrier();
    reduce(invocation, workgroup, 0u);
    if (TAP_ROWS > 1u) {
        workgroupBarrier();
        lend(invocation, 0u, sums.f0.k1);
        if (PAIRS > 1u) { lend(invocation, 1u, sums.f1.k1); }
        if (PAIRS > 2u) { lend(invocation, 2u, sums.f2.k1); }
        workgroupBarrier();
        reduce(invocation, workgroup, 1u);
    }
}

// Two rows of dz of one channel.
struct Pool {
    top: Row,
    bottom: Row,
}

// dz of one channel in pooling window `column`, which may lie outside.
fn edge_grad(channel: u32, row: u32, column: i32, lane: u32) -> vec4<f32> {
    // Without a branch, which would part the loads of a row.
    let inside = (column >= 0) & (column < i32(POOLED_WIDTH));
    let place = u32(clamp(column, 0, i32(POOLED_WIDTH) - 1));
    return select(vec4(0.0), window_grad(channel, row, place, lane), vec4(inside));
}

// Eighteen columns of dz from column `x` on. `x` is even or odd for all tiles alike, as the filter is.
fn pool_grad(channel: u32, row: u32, x: i32, lane: u32) -> Pool {
    let odd = (PAD_WIDTH + KERNEL_WIDTH + 1u) % 2u == 1u;
    let column = (x - select(0, 1, odd)) / 2;
    let p0 = edge_grad(channel, row, column, lane);
    let p1 = edge_grad(channel, row, column + 1, lane);
    let p2 = edge_grad(channel, row, column + 2, lane);
    let p3 = edge_grad(channel, row, column + 3, lane);
    let p4 = edge_grad(channel, row, column + 4, lane);
    let p5 = edge_grad(channel, row, column + 5, lane);
    let p6 = edge_grad(channel, row, column + 6, lane);
    let p7 = edge_grad(channel, row, column + 7, lane);
    let p8 = edge_grad(channel, row, column + 8, lane);
    if (odd) {
        let p9 = edge_grad(channel, row, column + 9, lane);
        return Pool(
            Row(p0.y, p1.x, p1.y, p2.x, p2.y, p3.x, p3.y, p4.x, p4.y, p5.x, p5.y, p6.x, p6.y, p7.x, p7.y, p8.x, p8.y, p9.x),
            Row(p0.w, p1.z, p1.w, p2.z, p2.w, p3.z, p3.w, p4.z, p4.w, p5.z, p5.w, p6.z, p6.w, p7.z, p7.w, p8.z, p8.w, p9.z),
        );
    }
    return Pool(
        Row(p0.x, p0.y, p1.x, p1.y, p2.x, p2.y, p3.x, p3.y, p4.x, p4.y, p5.x, p5.y, p6.x, p6.y, p7.x, p7.y, p8.x, p8.y),
        Row(p0.z, p0.w, p1.z, p1.w, p2.z, p2.w, p3.z, p3.w, p4.z, p4.w, p5.z, p5.w, p6.z, p6.w, p7.z, p7.w, p8.z, p8.w),
    );
}

// Row `ky` of the filters that start at `at`, from right to left; 0 beyond them.
fn mirrored(at: vec2<u32>, ky: i32) -> Taps {
    let row = at + u32(clamp(ky, 0, i32(KERNEL_HEIGHT) - 1)) * KERNEL_WIDTH + KERNEL_WIDTH - 1u;
    let inside = vec2((ky >= 0) & (ky < i32(KERNEL_HEIGHT)));
    var w = Taps(select(vec2(0.0), filters(row), inside), vec2(0.0), vec2(0.0), vec2(0.0), vec2(0.0));
    if (KERNEL_WIDTH > 1u) { w.w1 = select(vec2(0.0), filters(row - 1u), inside); }
    if (KERNEL_WIDTH > 2u) { w.w2 = select(vec2(0.0), filters(row - 2u), inside); }
    if (KERNEL_WIDTH > 3u) { w.w3 = select(vec2(0.0), filters(row - 3u), inside); }
    if (KERNEL_WIDTH > 4u) { w.w4 = select(vec2(0.0), filters(row - 4u), inside); }
    return w;
}

// Two channels of a tile of the input's gradient.
struct Pair {
    top: Strip,
    bottom: Strip,
}

// What two rows of dz of channel `o` give to channels `c` and `c` + 1; `ky` is the tap between like rows.
fn spread(t: Pair, o: u32, c: u32, ky: i32, dz: Pool) -> Pair {
    let at = (o * IN_CHANNELS + min(vec2(c, c + 1u), vec2(IN_CHANNELS - 1u))) * TAPS;
    let same = mirrored(at, ky);
    return Pair(
        add(add(t.top, same, dz.top), mirrored(at, ky - 1), dz.bottom),
        add(add(t.bottom, same, dz.bottom), mirrored(at, ky + 1), dz.top),
    );
}

fn store_input_grad(block: u32, c: u32, y: u32, x: u32, lane: u32, value: vec2<f32>) {
    // What divides is known to the compiler.
    if ((IN_HEIGHT % 2u != 0u && y >= IN_HEIGHT) || (IN_WIDTH % IN_COLUMNS != 0u && x >= IN_WIDTH)) {
        return;
    }
    let at = (((block * IN_CHANNELS + c) * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane;
    input_grad[at] = value.x * slope(INPUT_ACTIVATION, bitcast<f32>(input[at]));
    if (IN_CHANNELS % 2u == 0u || c + 1u < IN_CHANNELS) {
        let next = at + IN_HEIGHT * IN_WIDTH * LANES;
        input_grad[next] = value.y * slope(INPUT_ACTIVATION, bitcast<f32>(input[next]));
    }
}

fn store_row(block: u32, c: u32, y: u32, x: u32, lane: u32, s: Strip) {
    store_input_grad(block, c, y, x, lane, s.s0);
    store_input_grad(block, c, y, x + 1u, lane, s.s1);
    if (IN_COLUMNS > 2u) {
        store_input_grad(block, c, y, x + 2u, lane, s.s2);
        store_input_grad(block, c, y, x + 3u, lane, s.s3);
    }
    if (IN_COLUMNS > 4u) {
        store_input_grad(block, c, y, x + 4u, lane, s.s4);
        store_input_grad(block, c, y, x + 5u, lane, s.s5);
    }
    if (IN_COLUMNS > 6u) {
        store_input_grad(block, c, y, x + 6u, lane, s.s6);
        store_input_grad(block, c, y, x + 7u, lane, s.s7);
    }
    if (IN_COLUMNS > 8u) {
        store_input_grad(block, c, y, x + 8u, lane, s.s8);
        store_input_grad(block, c, y, x + 9u, lane, s.s9);
    }
    if (IN_COLUMNS > 10u) {
        store_input_grad(block, c, y, x + 10u, lane, s.s10);
        store_input_grad(block, c, y, x + 11u, lane, s.s11);
    }
    if (IN_COLUMNS > 12u) {
        store_input_grad(block, c, y, x + 12u, lane, s.s12);
        store_input_grad(block, c, y, x + 13u, lane, s.s13);
    }
}

fn store_pair(block: u32, c: u32, y: u32, x: u32, lane: u32, t: Pair) {
    if (IN_CHANNELS % IN_TILE != 0u && c >= IN_CHANNELS) {
        return;
    }
    store_row(block, c, y, x, lane, t.top);
    store_row(block, c, y + 1u, x, lane, t.bottom);
}

fn input_part(invocation: u32, workgroup: u32) {
    let lane = invocation % LANES;
    let tile = workgroup % INPUT_GROUPS * 4u + invocation / LANES;
    let c = workgroup / INPUT_GROUPS % IN_TILES * IN_TILE;
    let block = workgroup / (INPUT_GROUPS * IN_TILES);
    if (tile >= INPUT_TILES || block >= BLOCKS) {
        return;
    }
    let row = i32(tile / IN_STRIPS);
    // With a single strip the compiler sees what lies outside, and leaves it out.
    let x = select(tile % IN_STRIPS * IN_COLUMNS, 0u, IN_STRIPS == 1u);
    let left = i32(x + PAD_WIDTH) - i32(KERNEL_WIDTH - 1u);
    // The rows of windows that reach rows 2·row and 2·row + 1 of the input.
    let above = max(0, (2 * row + i32(PAD_HEIGHT) - i32(KERNEL_HEIGHT) + 1) / 2);
    let below = min(i32(POOLED_HEIGHT) - 1, row + i32(PAD_HEIGHT + 1u) / 2);
    var t0 = Pair(filled(vec2(0.0)), filled(vec2(0.0)));
    var t1 = t0;
    var t2 = t0;
    var t3 = t0;
    for (var o = 0u; o < OUT_CHANNELS; o++) {
        for (var window = above; window <= below; window++) {
            let ky = 2 * (row - window) + i32(PAD_HEIGHT);
            let dz = pool_grad(block * OUT_CHANNELS + o, u32(window), left, lane);
            t0 = spread(t0, o, c, ky, dz);
            if (IN_TILE > 2u) { t1 = spread(t1, o, c + 2u, ky, dz); }
            if (IN_TILE > 4u) { t2 = spread(t2, o, c + 4u, ky, dz); }
            if (IN_TILE > 6u) { t3 = spread(t3, o, c + 6u, ky, dz); }
        }
    }
    let y = 2u * u32(row);
    store_pair(block, c, y, x, lane, t0);
    if (IN_TILE > 2u) { store_pair(block, c + 2u, y, x, lane, t1); }
    if (IN_TILE > 4u) { store_pair(block, c + 4u, y, x, lane, t2); }
    if (IN_TILE > 6u) { store_pair(block, c + 6u, y, x, lane, t3); }
}

// Workgroups of the weights' and of the input's gradient take turns, so that adapters which deal out workgroups in
// order give every core some of both. Each row of the grid has its share of either, as many as any other.
@compute @workgroup_size(64)
fn backward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let all = WEIGHT_ROW + INPUT_ROW;
    let before = workgroup.x * INPUT_ROW / all;
    let of_input = (workgroup.x + 1u) * INPUT_ROW / all > before;
    // Without a branch around them, which software adapters run with more masks: the part that is not meant is given
    // a workgroup after its last.
    input_part(invocation, select(ALL_INPUT_GROUPS, workgroup.y * INPUT_ROW + before, of_input));
    let of_weights = select(workgroup.y * WEIGHT_ROW + workgroup.x - before, WEIGHT_GROUPS, of_input);
    meet(invocation, of_weights, weight_part(invocation, of_weights));
}

// The same for a first layer, whose input has no gradient.
@compute @workgroup_size(64)
fn backward_first(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let number = workgroup.y * WEIGHT_ROW + workgroup.x;
    meet(invocation, number, weight_part(invocation, number));
}

// The input's gradient alone, where the filters are frozen.
@compute @workgroup_size(64)
fn input_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    input_part(invocation, workgroup.y * INPUT_ROW + workgroup.x);
}
