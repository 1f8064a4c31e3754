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
// winner is f′ of the output. In the same way g′ is the derivative, by its own value, of the activation that
// made this layer's input (INPUT_ACTIVATION). Stride and dilation are 1, filters at most 5×5.
//
// The first layer of a network reads the data set's bytes itself (BYTES), as batch.wgsl's `gather` would.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl). A workgroup of 64 is 16 images ×
// 4 tiles, so that the 16 lanes share every weight. `forward`, and the input's gradient in `backward`: a tile
// is 2 rows × COLUMNS columns × 4 channels, all in registers, and each row of the input serves both rows. The
// weights' gradient: a tile is 4 output channels × one row of taps of one input channel, over the rows of a split.
// Everything beyond a tile's own columns is computed from whatever is there and not stored; COLUMNS is a
// constant, so the compiler leaves it out altogether.

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
override COLUMNS: u32;             // of a tile of `forward`: even, at most 10
override IN_COLUMNS: u32;          // of a tile of the input's gradient: even, at most 10
override BLOCKS: u32;              // blocks of 16 images in the batch
override SPLITS: u32;              // partial sums of the weights' gradient
override ROW_SPLITS: u32;          // of them, how many share a block's rows
override BYTES: bool;              // whether `input` is the data set
override BORDER: u32;              // background around each of its pictures
override MEAN: f32;
override DEVIATION: f32;

override POOLED_HEIGHT = OUT_HEIGHT / 2;
override POOLED_WIDTH = OUT_WIDTH / 2;
override TAPS = KERNEL_HEIGHT * KERNEL_WIDTH;
override OUT_TILES = (OUT_CHANNELS + 3) / 4;
override IN_TILES = (IN_CHANNELS + 3) / 4;
override STRIPS = (2 * POOLED_WIDTH + COLUMNS - 1) / COLUMNS;
override IN_STRIPS = (IN_WIDTH + IN_COLUMNS - 1) / IN_COLUMNS;
override TILE_ROWS = KERNEL_HEIGHT + select(0u, 1u, BIAS);
override WEIGHT_TILES = SPLITS * OUT_TILES * IN_CHANNELS * TILE_ROWS;
override WEIGHT_GROUPS = (WEIGHT_TILES + 3) / 4;
override INPUT_TILES = (IN_HEIGHT + 1) / 2 * IN_STRIPS;
override INPUT_GROUPS = (INPUT_TILES + 3) / 4;
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (OUT_CHANNELS * IN_CHANNELS * TAPS + 63) / 64 * 64;
override BIAS_STRIDE = (OUT_CHANNELS + 63) / 64 * 64;

const LANES = 16u;
const LOW = vec4(0u, 1u, 2u, 3u);

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
    reserved: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> input: array<u32>;        // floats as bits, or four pixels a word
@group(0) @binding(2) var<storage, read> order: array<u32>;        // the epoch's permutation, with BYTES
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read_write> saved: array<u32>;  // max: place in the window; mean: f(z) as bits
@group(0) @binding(7) var<storage, read> output_grad: array<f32>;
@group(0) @binding(8) var<storage, read> recalled: array<u32>;     // `saved`, as the backward pass reads it
@group(0) @binding(9) var<storage, read_write> weight_grad: array<f32>;
@group(0) @binding(10) var<storage, read_write> bias_grad: array<f32>;
@group(0) @binding(11) var<storage, read_write> input_grad: array<f32>;

fn activate(z: vec4<f32>) -> vec4<f32> {
    switch (ACTIVATION) {
        case RELU: { return max(z, vec4(0.0)); }
        case SIGMOID: { return 1.0 / (1.0 + exp(-z)); }
        case TANH: { return tanh(clamp(z, vec4(-15.0), vec4(15.0))); }
        case SCALED_TANH: { return 1.7159 * tanh(clamp(z * (2.0 / 3.0), vec4(-15.0), vec4(15.0))); }
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

// One image as the input: where its first element lies, and whether there is an image in this lane.
struct Picture {
    start: u32,
    there: bool,
}

fn picture(block: u32, lane: u32) -> Picture {
    if (BYTES) {
        let row = block * LANES + lane;
        let there = row < step.count;
        var start = 0u;
        if (there) {
            start = order[step.cursor + row] * IN_CHANNELS * (IN_HEIGHT - 2u * BORDER) * (IN_WIDTH - 2u * BORDER);
        }
        return Picture(start, there);
    }
    return Picture(block * IN_CHANNELS * IN_HEIGHT * IN_WIDTH * LANES + lane, true);
}

// The input of channel `c` at a place that may lie in the padding.
fn pixel(p: Picture, c: u32, y: i32, x: i32) -> f32 {
    if (BYTES) {
        let height = IN_HEIGHT - 2u * BORDER;
        let width = IN_WIDTH - 2u * BORDER;
        // Wraps around above and left of the picture, where the comparison then fails.
        let row = u32(y) - BORDER;
        let column = u32(x) - BORDER;
        var value = 0.0;
        if (row < height && column < width) {
            let at = p.start + (c * height + row) * width + column;
            value = f32(input[at / 4u] >> (at % 4u * 8u) & 255u);
        }
        if ((PAD_HEIGHT > 0u || PAD_WIDTH > 0u) && (u32(y) >= IN_HEIGHT || u32(x) >= IN_WIDTH)) {
            return 0.0;
        }
        return select(0.0, (value / 255.0 - MEAN) / DEVIATION, p.there);
    }
    if ((PAD_HEIGHT > 0u || PAD_WIDTH > 0u) && (u32(y) >= IN_HEIGHT || u32(x) >= IN_WIDTH)) {
        return 0.0;
    }
    return bitcast<f32>(input[p.start + ((c * IN_HEIGHT + u32(y)) * IN_WIDTH + u32(x)) * LANES]);
}

// Ten neighbouring columns of four channels.
struct Strip {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
    s4: vec4<f32>,
    s5: vec4<f32>,
    s6: vec4<f32>,
    s7: vec4<f32>,
    s8: vec4<f32>,
    s9: vec4<f32>,
}

fn filled(value: vec4<f32>) -> Strip {
    return Strip(value, value, value, value, value, value, value, value, value, value);
}

// Fourteen neighbouring values of a row: ten columns and the reach of five taps.
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
}

// Five neighbouring taps of four filters.
struct Taps {
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
    w4: vec4<f32>,
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
    );
}

fn input_row(p: Picture, c: u32, y: i32, x: i32) -> Row {
    return Row(
        pixel(p, c, y, x), pixel(p, c, y, x + 1), pixel(p, c, y, x + 2), pixel(p, c, y, x + 3), pixel(p, c, y, x + 4),
        pixel(p, c, y, x + 5), pixel(p, c, y, x + 6), pixel(p, c, y, x + 7), pixel(p, c, y, x + 8), pixel(p, c, y, x + 9),
        pixel(p, c, y, x + 10), pixel(p, c, y, x + 11), pixel(p, c, y, x + 12), pixel(p, c, y, x + 13),
    );
}

// Tap `k` of the four filters that start at `at`; 0 beyond the filters' width.
fn tap(at: vec4<u32>, k: u32) -> vec4<f32> {
    if (k >= KERNEL_WIDTH) {
        return vec4(0.0);
    }
    return vec4(weight[at.x + k], weight[at.y + k], weight[at.z + k], weight[at.w + k]);
}

// The values of one pooling window of four channels: its output and what `backward` will need.
fn store_window(block: u32, first: u32, row: u32, column: u32, lane: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    if (column >= POOLED_WIDTH) {
        return;
    }
    let plane = POOLED_HEIGHT * POOLED_WIDTH * LANES;
    let at = (((block * OUT_CHANNELS + first) * POOLED_HEIGHT + row) * POOLED_WIDTH + column) * LANES + lane;
    let channels = OUT_CHANNELS - first;
    if (AVERAGE) {
        let fa = activate(a);
        let fb = activate(b);
        let fc = activate(c);
        let fd = activate(d);
        store_output(at, plane, channels, 0.25 * (fa + fb + fc + fd));
        if (SAVE) {
            let whole = OUT_HEIGHT * OUT_WIDTH * LANES;
            let there = (((block * OUT_CHANNELS + first) * OUT_HEIGHT + 2u * row) * OUT_WIDTH + 2u * column) * LANES + lane;
            save(there, whole, channels, bitcast<vec4<u32>>(fa));
            save(there + LANES, whole, channels, bitcast<vec4<u32>>(fb));
            save(there + OUT_WIDTH * LANES, whole, channels, bitcast<vec4<u32>>(fc));
            save(there + (OUT_WIDTH + 1u) * LANES, whole, channels, bitcast<vec4<u32>>(fd));
        }
        return;
    }
    // Strictly more, so that the first of equals wins.
    var best = a;
    var place = vec4(0u);
    place = select(place, vec4(1u), b > best);
    best = max(best, b);
    place = select(place, vec4(2u), c > best);
    best = max(best, c);
    place = select(place, vec4(3u), d > best);
    best = max(best, d);
    store_output(at, plane, channels, activate(best));
    if (SAVE) {
        save(at, plane, channels, place);
    }
}

fn store_output(at: u32, plane: u32, channels: u32, value: vec4<f32>) {
    output[at] = value.x;
    if (channels > 1u) { output[at + plane] = value.y; }
    if (channels > 2u) { output[at + 2u * plane] = value.z; }
    if (channels > 3u) { output[at + 3u * plane] = value.w; }
}

fn save(at: u32, plane: u32, channels: u32, value: vec4<u32>) {
    saved[at] = value.x;
    if (channels > 1u) { saved[at + plane] = value.y; }
    if (channels > 2u) { saved[at + 2u * plane] = value.z; }
    if (channels > 3u) { saved[at + 3u * plane] = value.w; }
}

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let tile = workgroup.x * 4u + invocation / LANES;
    let row = tile / STRIPS;
    let x = tile % STRIPS * COLUMNS;
    if (row >= POOLED_HEIGHT) {
        return;
    }
    let block = workgroup.z;
    let first = workgroup.y * 4u;
    // Channels beyond the last repeat it: they are computed and not stored.
    let o = min(first + LOW, vec4(OUT_CHANNELS - 1u));
    var start = vec4(0.0);
    if (BIAS) {
        start = vec4(bias[o.x], bias[o.y], bias[o.z], bias[o.w]);
    }
    var top = filled(start);
    var bottom = top;
    let p = picture(block, lane);
    for (var c = 0u; c < IN_CHANNELS; c++) {
        // The taps of the row before: what they were to the top row, they are to the bottom row now.
        var before = Taps(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
        for (var ky = 0u; ky <= KERNEL_HEIGHT; ky++) {
            let pixels = input_row(p, c, i32(2u * row + ky) - i32(PAD_HEIGHT), i32(x) - i32(PAD_WIDTH));
            bottom = add(bottom, before, pixels);
            if (ky < KERNEL_HEIGHT) {
                let at = (o * IN_CHANNELS + c) * TAPS + ky * KERNEL_WIDTH;
                before = Taps(tap(at, 0u), tap(at, 1u), tap(at, 2u), tap(at, 3u), tap(at, 4u));
                top = add(top, before, pixels);
            }
        }
    }
    let column = x / 2u;
    store_window(block, first, row, column, lane, top.s0, top.s1, bottom.s0, bottom.s1);
    if (COLUMNS > 2u) { store_window(block, first, row, column + 1u, lane, top.s2, top.s3, bottom.s2, bottom.s3); }
    if (COLUMNS > 4u) { store_window(block, first, row, column + 2u, lane, top.s4, top.s5, bottom.s4, bottom.s5); }
    if (COLUMNS > 6u) { store_window(block, first, row, column + 3u, lane, top.s6, top.s7, bottom.s6, bottom.s7); }
    if (COLUMNS > 8u) { store_window(block, first, row, column + 4u, lane, top.s8, top.s9, bottom.s8, bottom.s9); }
}

// dz of one channel in the window (row, column): top left, top right, bottom left, bottom right.
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
    return select(vec4(0.0), vec4(g), vec4(recalled[at]) == LOW);
}

// dz of one channel in row `y`, in both columns of window `column`; 0 outside. Without a branch, which would
// part the loads of a row.
fn pair_grad(channel: u32, y: i32, column: i32, lane: u32) -> vec2<f32> {
    let inside = y >= 0 && y < i32(2u * POOLED_HEIGHT) && column >= 0 && column < i32(POOLED_WIDTH);
    let row = u32(clamp(y, 0, i32(2u * POOLED_HEIGHT) - 1));
    let place = u32(clamp(column, 0, i32(POOLED_WIDTH) - 1));
    let at = ((channel * POOLED_HEIGHT + row / 2u) * POOLED_WIDTH + place) * LANES + lane;
    let g = select(0.0, output_grad[at], inside);
    if (AVERAGE) {
        let there = ((channel * OUT_HEIGHT + row) * OUT_WIDTH + 2u * place) * LANES + lane;
        return 0.25 * g * vec2(
            slope(ACTIVATION, bitcast<f32>(recalled[there])),
            slope(ACTIVATION, bitcast<f32>(recalled[there + LANES])),
        );
    }
    return select(vec2(0.0), vec2(g), vec2(recalled[at]) == row % 2u * 2u + LOW.xy);
}

// Five sums of each of the 64 invocations.
var<workgroup> partial: array<vec4<f32>, 320>;

// Adds up the lanes, in order, and stores the sums: 20 invocations, one for each tile and tap.
fn reduce(invocation: u32, workgroup: u32, sums: Taps) {
    partial[invocation] = sums.w0;
    partial[invocation + 64u] = sums.w1;
    partial[invocation + 128u] = sums.w2;
    partial[invocation + 192u] = sums.w3;
    partial[invocation + 256u] = sums.w4;
    workgroupBarrier();
    let tile = workgroup * 4u + invocation % 4u;
    let kx = invocation / 4u;
    let ky = tile % TILE_ROWS;
    let c = tile / TILE_ROWS % IN_CHANNELS;
    let of_bias = ky == KERNEL_HEIGHT;
    let taps = select(KERNEL_WIDTH, 1u, of_bias);
    if (tile >= WEIGHT_TILES || kx >= taps || of_bias && c > 0u) {
        return;
    }
    let base = kx * 64u + invocation % 4u * LANES;
    var sum = vec4(0.0);
    for (var k = 0u; k < LANES; k++) {
        sum += partial[base + k];
    }
    let first = tile / (TILE_ROWS * IN_CHANNELS) % OUT_TILES * 4u;
    let split = tile / (TILE_ROWS * IN_CHANNELS * OUT_TILES);
    let channels = OUT_CHANNELS - first;
    if (of_bias) {
        let at = split * BIAS_STRIDE + first;
        bias_grad[at] = sum.x;
        if (channels > 1u) { bias_grad[at + 1u] = sum.y; }
        if (channels > 2u) { bias_grad[at + 2u] = sum.z; }
        if (channels > 3u) { bias_grad[at + 3u] = sum.w; }
        return;
    }
    let at = split * WEIGHT_STRIDE + (first * IN_CHANNELS + c) * TAPS + ky * KERNEL_WIDTH + kx;
    let next = IN_CHANNELS * TAPS;
    weight_grad[at] = sum.x;
    if (channels > 1u) { weight_grad[at + next] = sum.y; }
    if (channels > 2u) { weight_grad[at + 2u * next] = sum.z; }
    if (channels > 3u) { weight_grad[at + 3u * next] = sum.w; }
}

// Six values of a row: two columns of outputs and the reach of five taps.
struct Six {
    x0: f32,
    x1: f32,
    x2: f32,
    x3: f32,
    x4: f32,
    x5: f32,
}

// Two columns on, with two new values.
fn slide(s: Six, x4: f32, x5: f32) -> Six {
    return Six(s.x2, s.x3, s.x4, s.x5, x4, x5);
}

// Adds the two columns' gradients times what each tap sees of a row.
fn outer(s: Taps, left: vec4<f32>, right: vec4<f32>, r: Six) -> Taps {
    return Taps(
        s.w0 + left * r.x0 + right * r.x1,
        s.w1 + left * r.x1 + right * r.x2,
        s.w2 + left * r.x2 + right * r.x3,
        s.w3 + left * r.x3 + right * r.x4,
        s.w4 + left * r.x4 + right * r.x5,
    );
}

fn weight_part(invocation: u32, workgroup: u32) {
    let lane = invocation % LANES;
    let tile = workgroup * 4u + invocation / LANES;
    var sums = Taps(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    if (tile < WEIGHT_TILES) {
        let ky = tile % TILE_ROWS;
        let c = tile / TILE_ROWS % IN_CHANNELS;
        let o = min(tile / (TILE_ROWS * IN_CHANNELS) % OUT_TILES * 4u + LOW, vec4(OUT_CHANNELS - 1u));
        let split = tile / (TILE_ROWS * IN_CHANNELS * OUT_TILES);
        let left = -i32(PAD_WIDTH);
        for (var block = split / ROW_SPLITS; block < BLOCKS; block += SPLITS / ROW_SPLITS) {
            let p = picture(block, lane);
            let channel = block * OUT_CHANNELS + o;
            for (var row = split % ROW_SPLITS; row < POOLED_HEIGHT; row += ROW_SPLITS) {
                let y = i32(2u * row + ky) - i32(PAD_HEIGHT);
                var top = Six(0.0, 0.0, pixel(p, c, y, left), pixel(p, c, y, left + 1), pixel(p, c, y, left + 2), pixel(p, c, y, left + 3));
                var bottom = Six(0.0, 0.0, pixel(p, c, y + 1, left), pixel(p, c, y + 1, left + 1), pixel(p, c, y + 1, left + 2), pixel(p, c, y + 1, left + 3));
                for (var column = 0u; column < POOLED_WIDTH; column++) {
                    let x = left + i32(2u * column) + 4;
                    top = slide(top, pixel(p, c, y, x), pixel(p, c, y, x + 1));
                    bottom = slide(bottom, pixel(p, c, y + 1, x), pixel(p, c, y + 1, x + 1));
                    // Columns are now places in the window, rows are channels.
                    let g = transpose(mat4x4(
                        window_grad(channel.x, row, column, lane), window_grad(channel.y, row, column, lane),
                        window_grad(channel.z, row, column, lane), window_grad(channel.w, row, column, lane),
                    ));
                    if (ky == KERNEL_HEIGHT) {
                        // The bias is a tap that always sees 1.
                        sums.w0 += g[0] + g[1] + g[2] + g[3];
                    } else {
                        sums = outer(outer(sums, g[0], g[1], top), g[2], g[3], bottom);
                    }
                }
            }
        }
    }
    reduce(invocation, workgroup, sums);
}

// Fourteen values of dz from column `x` on. `x` is even or odd for all tiles alike, as the filter is.
fn grad_row(channel: u32, y: i32, x: i32, lane: u32) -> Row {
    let odd = (PAD_WIDTH + KERNEL_WIDTH + 1u) % 2u == 1u;
    let column = (x - select(0, 1, odd)) / 2;
    let p0 = pair_grad(channel, y, column, lane);
    let p1 = pair_grad(channel, y, column + 1, lane);
    let p2 = pair_grad(channel, y, column + 2, lane);
    let p3 = pair_grad(channel, y, column + 3, lane);
    let p4 = pair_grad(channel, y, column + 4, lane);
    let p5 = pair_grad(channel, y, column + 5, lane);
    let p6 = pair_grad(channel, y, column + 6, lane);
    if (odd) {
        let p7 = pair_grad(channel, y, column + 7, lane);
        return Row(p0.y, p1.x, p1.y, p2.x, p2.y, p3.x, p3.y, p4.x, p4.y, p5.x, p5.y, p6.x, p6.y, p7.x);
    }
    return Row(p0.x, p0.y, p1.x, p1.y, p2.x, p2.y, p3.x, p3.y, p4.x, p4.y, p5.x, p5.y, p6.x, p6.y);
}

// Tap `k` from the right of four filters that start at `at`.
fn mirrored(at: vec4<u32>, k: u32) -> vec4<f32> {
    if (k >= KERNEL_WIDTH) {
        return vec4(0.0);
    }
    let kx = KERNEL_WIDTH - 1u - k;
    return vec4(weight[at.x + kx], weight[at.y + kx], weight[at.z + kx], weight[at.w + kx]);
}

fn store_input_grad(block: u32, first: u32, y: u32, x: u32, lane: u32, value: vec4<f32>) {
    if (y >= IN_HEIGHT || x >= IN_WIDTH) {
        return;
    }
    let plane = IN_HEIGHT * IN_WIDTH * LANES;
    let at = (((block * IN_CHANNELS + first) * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane;
    input_grad[at] = value.x * slope(INPUT_ACTIVATION, bitcast<f32>(input[at]));
    if (first + 1u < IN_CHANNELS) {
        input_grad[at + plane] = value.y * slope(INPUT_ACTIVATION, bitcast<f32>(input[at + plane]));
    }
    if (first + 2u < IN_CHANNELS) {
        input_grad[at + 2u * plane] = value.z * slope(INPUT_ACTIVATION, bitcast<f32>(input[at + 2u * plane]));
    }
    if (first + 3u < IN_CHANNELS) {
        input_grad[at + 3u * plane] = value.w * slope(INPUT_ACTIVATION, bitcast<f32>(input[at + 3u * plane]));
    }
}

fn input_part(invocation: u32, workgroup: u32) {
    let lane = invocation % LANES;
    let tile = workgroup % INPUT_GROUPS * 4u + invocation / LANES;
    let first = workgroup / INPUT_GROUPS % IN_TILES * 4u;
    let block = workgroup / (INPUT_GROUPS * IN_TILES);
    if (tile >= INPUT_TILES) {
        return;
    }
    let y = tile / IN_STRIPS * 2u;
    let x = tile % IN_STRIPS * IN_COLUMNS;
    let c = min(first + LOW, vec4(IN_CHANNELS - 1u));
    var top = filled(vec4(0.0));
    var bottom = top;
    let above = i32(y + PAD_HEIGHT) - i32(KERNEL_HEIGHT - 1u);
    let left = i32(x + PAD_WIDTH) - i32(KERNEL_WIDTH - 1u);
    for (var o = 0u; o < OUT_CHANNELS; o++) {
        var before = Taps(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
        for (var k = 0u; k <= KERNEL_HEIGHT; k++) {
            let grads = grad_row(block * OUT_CHANNELS + o, above + i32(k), left, lane);
            bottom = add(bottom, before, grads);
            if (k < KERNEL_HEIGHT) {
                let at = (o * IN_CHANNELS + c) * TAPS + (KERNEL_HEIGHT - 1u - k) * KERNEL_WIDTH;
                before = Taps(mirrored(at, 0u), mirrored(at, 1u), mirrored(at, 2u), mirrored(at, 3u), mirrored(at, 4u));
                top = add(top, before, grads);
            }
        }
    }
    store_input_grad(block, first, y, x, lane, top.s0);
    store_input_grad(block, first, y, x + 1u, lane, top.s1);
    store_input_grad(block, first, y + 1u, x, lane, bottom.s0);
    store_input_grad(block, first, y + 1u, x + 1u, lane, bottom.s1);
    if (IN_COLUMNS > 2u) {
        store_input_grad(block, first, y, x + 2u, lane, top.s2);
        store_input_grad(block, first, y, x + 3u, lane, top.s3);
        store_input_grad(block, first, y + 1u, x + 2u, lane, bottom.s2);
        store_input_grad(block, first, y + 1u, x + 3u, lane, bottom.s3);
    }
    if (IN_COLUMNS > 4u) {
        store_input_grad(block, first, y, x + 4u, lane, top.s4);
        store_input_grad(block, first, y, x + 5u, lane, top.s5);
        store_input_grad(block, first, y + 1u, x + 4u, lane, bottom.s4);
        store_input_grad(block, first, y + 1u, x + 5u, lane, bottom.s5);
    }
    if (IN_COLUMNS > 6u) {
        store_input_grad(block, first, y, x + 6u, lane, top.s6);
        store_input_grad(block, first, y, x + 7u, lane, top.s7);
        store_input_grad(block, first, y + 1u, x + 6u, lane, bottom.s6);
        store_input_grad(block, first, y + 1u, x + 7u, lane, bottom.s7);
    }
    if (IN_COLUMNS > 8u) {
        store_input_grad(block, first, y, x + 8u, lane, top.s8);
        store_input_grad(block, first, y, x + 9u, lane, top.s9);
        store_input_grad(block, first, y + 1u, x + 8u, lane, bottom.s8);
        store_input_grad(block, first, y + 1u, x + 9u, lane, bottom.s9);
    }
}

// The first WEIGHT_GROUPS workgroups sum the weights' gradient, the others the input's.
@compute @workgroup_size(64)
fn backward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    if (workgroup.x < WEIGHT_GROUPS) {
        weight_part(invocation, workgroup.x);
    } else {
        input_part(invocation, workgroup.x - WEIGHT_GROUPS);
    }
}

// The same for a first layer, whose input has no gradient.
@compute @workgroup_size(64)
fn backward_first(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    weight_part(invocation, workgroup.x);
}
