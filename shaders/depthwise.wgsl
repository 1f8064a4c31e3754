// depthwise: a convolution in which every channel has one filter of its own, with its activation, and its gradients.
//
//     output[n, c, y, x]     = f(bias[c] + Σ ky,kx  weight[c, ky, kx] · input[n, c, y·S + ky·D − P, x·S + kx·D − P])
//     input_grad[n, c, y, x] = Σ ky,kx  weight[c, ky, kx] · output_grad[n, c, (y + P − ky·D)/S, (x + P − kx·D)/S] · g′(input[n, c, y, x])
//     weight_grad[c, ky, kx] = Σ n,y,x              output_grad[n, c, y, x] · input[n, c, y·S + ky·D − P, x·S + kx·D − P]
//     bias_grad[c]           = Σ n,y,x              output_grad[n, c, y, x]
//
// Terms outside a tensor, or at a fraction, are left out; filters are at most 5×5. f, g′ and the layout are
// conv2d.wgsl's, which does what has more than one channel in a group.
//
// Who computes what: a workgroup of 64 is 16 images × 4 tiles. `forward` and `input_gradient`: tiles of one channel, so
// that all of a workgroup read the same weights. A tile is 8 columns × 2 rows, and a row of pixels serves both; × 1
// row where rows are strided or dilated. In `input_gradient` the columns of a tile lie STRIDE_WIDTH apart, so that a
// tap which reaches one of them reaches all. `weight_gradient`: a tile is all of a filter and its bias, summed over
// the positions and images of every SPLITS-th block, then over the 16 lanes in workgroup memory; each split writes
// its own partial sum, which the optimizer adds up. Where that leaves a device empty, ROW_SHARES of a workgroup's tiles
// are one tile at other rows of the output, and ROW_SPLITS splits share a block.

override IN_CHANNELS: u32;
override IN_HEIGHT: u32;
override IN_WIDTH: u32;
override OUT_HEIGHT: u32;
override OUT_WIDTH: u32;
override KERNEL_HEIGHT: u32;
override KERNEL_WIDTH: u32;
override STRIDE_HEIGHT: u32;
override STRIDE_WIDTH: u32;
override PAD_HEIGHT: u32;
override PAD_WIDTH: u32;
override DILATION_HEIGHT: u32;
override DILATION_WIDTH: u32;
override BIAS: bool;
override ACTIVATION: u32 = 99;          // of this layer; 99 is none
override INPUT_ACTIVATION: u32 = 99;    // of the layer before, where `input_gradient` applies its derivative
override BLOCKS: u32;                   // blocks of 16 images in the batch
override SPLITS: u32;                   // partial sums of `weight_gradient`
override ROW_SPLITS: u32;               // of them, how many share a block's rows
override ROW_SHARES: u32;               // tiles of a workgroup that share a split's rows: 1, 2 or 4
override GRID_ROWS: u32;                // rows of the grid, among which its workgroups are dealt out

override TAPS = KERNEL_HEIGHT * KERNEL_WIDTH;
override ROWS = select(1u, 2u, STRIDE_HEIGHT == 1u && DILATION_HEIGHT == 1u);
override STRIPS = (OUT_WIDTH + COLUMNS - 1) / COLUMNS;
override PHASE_STRIPS = ((IN_WIDTH + STRIDE_WIDTH - 1) / STRIDE_WIDTH + COLUMNS - 1) / COLUMNS;
override IN_STRIPS = STRIDE_WIDTH * PHASE_STRIPS;
override PLACES = 4 / ROW_SHARES;           // tiles of `weight_gradient` in a workgroup
override ROW_STEP = ROW_SPLITS * ROW_SHARES;
override BLOCK_STEP = SPLITS / ROW_SPLITS;
// Workgroups: of one channel, of a block or a split, and of a row of the grid.
override TILE_GROUPS = ((OUT_HEIGHT + ROWS - 1) / ROWS * STRIPS + 3) / 4;
override OUTPUT_ROW = (TILE_GROUPS * IN_CHANNELS + GRID_ROWS - 1) / GRID_ROWS;
override IN_TILE_GROUPS = ((IN_HEIGHT + ROWS - 1) / ROWS * IN_STRIPS + 3) / 4;
override INPUT_ROW = (IN_TILE_GROUPS * IN_CHANNELS + GRID_ROWS - 1) / GRID_ROWS;
override WEIGHT_GROUPS = (IN_CHANNELS + PLACES - 1) / PLACES;
override WEIGHT_ROW = (WEIGHT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (IN_CHANNELS * TAPS + 63) / 64 * 64;
override BIAS_STRIDE = (IN_CHANNELS + 63) / 64 * 64;

const LANES = 16u;
const COLUMNS = 8u;

// The activations whose derivative is a function of their value; the numbers are activation.wgsl's.
const RELU = 0u;
const SIGMOID = 2u;
const TANH = 3u;
const SCALED_TANH = 4u;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> output_grad: array<f32>;
@group(0) @binding(5) var<storage, read_write> input_grad: array<f32>;
@group(0) @binding(6) var<storage, read_write> weight_grad: array<f32>;
@group(0) @binding(7) var<storage, read_write> bias_grad: array<f32>;

// Some drivers compute exp(2x) and overflow; beyond 15 the result is ±1 in f32. What is no number stays none.
fn safe_tanh(x: vec4<f32>) -> vec4<f32> {
    return select(tanh(clamp(x, vec4(-15.0), vec4(15.0))), x, (bitcast<vec4<u32>>(x) << vec4(1u)) > vec4(0xff000000u));
}

// A maximum might leave a NaN out, so that a ReLU is none.
fn activate(z: vec4<f32>) -> vec4<f32> {
    switch (ACTIVATION) {
        case RELU: { return select(z, vec4(0.0), z <= vec4(0.0)); }
        case SIGMOID: { return 1.0 / (1.0 + exp(-z)); }
        case TANH: { return safe_tanh(z); }
        case SCALED_TANH: { return 1.7159 * safe_tanh(z * (2.0 / 3.0)); }
        default: { return z; }
    }
}

// The derivative of the input's activation where its value is `y`.
fn slope(y: f32) -> f32 {
    switch (INPUT_ACTIVATION) {
        case RELU: { return select(0.0, 1.0, y > 0.0); }
        case SIGMOID: { return y * (1.0 - y); }
        case TANH: { return 1.0 - y * y; }
        case SCALED_TANH: { return 1.7159 * (2.0 / 3.0) - y * y * (2.0 / 3.0 / 1.7159); }
        default: { return 1.0; }
    }
}

// Eight columns.
struct Strip {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn add(s: Strip, w: f32, p: Strip) -> Strip {
    return Strip(s.low + w * p.low, s.high + w * p.high);
}

// A row of a filter.
struct Taps {
    w0: f32,
    w1: f32,
    w2: f32,
    w3: f32,
    w4: f32,
}

fn taps(c: u32, ky: u32) -> Taps {
    let at = c * TAPS + ky * KERNEL_WIDTH;
    var w = Taps(weight[at], 0.0, 0.0, 0.0, 0.0);
    if (KERNEL_WIDTH > 1u) { w.w1 = weight[at + 1u]; }
    if (KERNEL_WIDTH > 2u) { w.w2 = weight[at + 2u]; }
    if (KERNEL_WIDTH > 3u) { w.w3 = weight[at + 3u]; }
    if (KERNEL_WIDTH > 4u) { w.w4 = weight[at + 4u]; }
    return w;
}

// The input `k` columns from column `x`, which is at `at`; 0 in the padding.
fn input_at(at: u32, x: i32, k: u32) -> f32 {
    // Without a branch, which would part the loads of a row: what lies outside is not used, and may be anything.
    let value = input[at + k * LANES];
    return select(0.0, value, (PAD_WIDTH == 0u) | (u32(x) + k < IN_WIDTH));
}

// What tap `kx` sees from the eight columns of a strip.
fn pixels(at: u32, x: i32, kx: u32) -> Strip {
    let k = kx * DILATION_WIDTH;
    let s = STRIDE_WIDTH;
    return Strip(
        vec4(input_at(at, x, k), input_at(at, x, k + s), input_at(at, x, k + 2u * s), input_at(at, x, k + 3u * s)),
        vec4(input_at(at, x, k + 4u * s), input_at(at, x, k + 5u * s), input_at(at, x, k + 6u * s), input_at(at, x, k + 7u * s)),
    );
}

// Adds what a row of taps makes of a row of the input.
fn convolve(s: Strip, w: Taps, at: u32, x: i32) -> Strip {
    var sum = add(s, w.w0, pixels(at, x, 0u));
    if (KERNEL_WIDTH > 1u) { sum = add(sum, w.w1, pixels(at, x, 1u)); }
    if (KERNEL_WIDTH > 2u) { sum = add(sum, w.w2, pixels(at, x, 2u)); }
    if (KERNEL_WIDTH > 3u) { sum = add(sum, w.w3, pixels(at, x, 3u)); }
    if (KERNEL_WIDTH > 4u) { sum = add(sum, w.w4, pixels(at, x, 4u)); }
    return sum;
}

fn store_output(at: u32, columns: u32, s: Strip) {
    let low = activate(s.low);
    let high = activate(s.high);
    output[at] = low.x;
    if (columns > 1u) { output[at + LANES] = low.y; }
    if (columns > 2u) { output[at + 2u * LANES] = low.z; }
    if (columns > 3u) { output[at + 3u * LANES] = low.w; }
    if (columns > 4u) { output[at + 4u * LANES] = high.x; }
    if (columns > 5u) { output[at + 5u * LANES] = high.y; }
    if (columns > 6u) { output[at + 6u * LANES] = high.z; }
    if (columns > 7u) { output[at + 7u * LANES] = high.w; }
}

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * OUTPUT_ROW + workgroup.x;
    let tile = number % TILE_GROUPS * 4u + invocation / LANES;
    let c = number / TILE_GROUPS;
    let y = tile / STRIPS * ROWS;
    // With a single strip the compiler sees what lies outside, and leaves it out.
    let x = select(tile % STRIPS * COLUMNS, 0u, STRIPS == 1u);
    if (y >= OUT_HEIGHT || (GRID_ROWS > 1u && c >= IN_CHANNELS)) {
        return;
    }
    let plane = workgroup.z * IN_CHANNELS + c;
    let left = i32(x * STRIDE_WIDTH) - i32(PAD_WIDTH);
    var top = Strip();
    if (BIAS) { top = Strip(vec4(bias[c]), vec4(bias[c])); }
    var bottom = top;
    // What the taps of a row are to the upper row, they are to the lower one in the next round.
    var before = Taps();
    for (var r = 0u; r < KERNEL_HEIGHT + ROWS - 1u; r++) {
        var w = Taps();
        if (r < KERNEL_HEIGHT) { w = taps(c, r); }
        let iy = i32(y * STRIDE_HEIGHT + r * DILATION_HEIGHT) - i32(PAD_HEIGHT);
        // A lower row that does not exist sees one that may not.
        if ((PAD_HEIGHT == 0u && ROWS == 1u) || u32(iy) < IN_HEIGHT) {
            let at = ((plane * IN_HEIGHT + u32(iy)) * IN_WIDTH + u32(left)) * LANES + lane;
            top = convolve(top, w, at, left);
            if (ROWS > 1u) { bottom = convolve(bottom, before, at, left); }
        }
        before = w;
    }
    let at = ((plane * OUT_HEIGHT + y) * OUT_WIDTH + x) * LANES + lane;
    // What divides is known to the compiler.
    let columns = select(OUT_WIDTH - x, COLUMNS, OUT_WIDTH % COLUMNS == 0u);
    store_output(at, columns, top);
    if (ROWS > 1u && (OUT_HEIGHT % ROWS == 0u || y + 1u < OUT_HEIGHT)) {
        store_output(at + OUT_WIDTH * LANES, columns, bottom);
    }
}

// The gradient that reached `k` columns from column `x`, which is at `at`; 0 outside.
fn output_grad_at(at: u32, x: i32, k: i32) -> f32 {
    let value = output_grad[at + u32(k) * LANES];
    return select(0.0, value, u32(x + k) < OUT_WIDTH);
}

// What reaches the eight columns of a strip through tap `kx`, if it reaches column `right` − PAD_WIDTH of the input.
fn gradients(at: u32, right: i32, kx: u32) -> Strip {
    let k = right - i32(kx * DILATION_WIDTH);
    if (STRIDE_WIDTH > 1u && k % i32(STRIDE_WIDTH) != 0) {
        return Strip();
    }
    let x = k / i32(STRIDE_WIDTH);
    let there = at + u32(x) * LANES;
    return Strip(
        vec4(output_grad_at(there, x, 0), output_grad_at(there, x, 1), output_grad_at(there, x, 2), output_grad_at(there, x, 3)),
        vec4(output_grad_at(there, x, 4), output_grad_at(there, x, 5), output_grad_at(there, x, 6), output_grad_at(there, x, 7)),
    );
}

// Adds what a row of the gradient gives back through a row of taps.
fn spread(s: Strip, w: Taps, at: u32, right: i32) -> Strip {
    var sum = add(s, w.w0, gradients(at, right, 0u));
    if (KERNEL_WIDTH > 1u) { sum = add(sum, w.w1, gradients(at, right, 1u)); }
    if (KERNEL_WIDTH > 2u) { sum = add(sum, w.w2, gradients(at, right, 2u)); }
    if (KERNEL_WIDTH > 3u) { sum = add(sum, w.w3, gradients(at, right, 3u)); }
    if (KERNEL_WIDTH > 4u) { sum = add(sum, w.w4, gradients(at, right, 4u)); }
    return sum;
}

fn store_element(at: u32, value: f32) {
    if (INPUT_ACTIVATION == 99u) {
        input_grad[at] = value;
    } else {
        input_grad[at] = value * slope(input[at]);
    }
}

fn store_input_grad(at: u32, columns: u32, s: Strip) {
    let step = STRIDE_WIDTH * LANES;
    store_element(at, s.low.x);
    if (columns > 1u) { store_element(at + step, s.low.y); }
    if (columns > 2u) { store_element(at + 2u * step, s.low.z); }
    if (columns > 3u) { store_element(at + 3u * step, s.low.w); }
    if (columns > 4u) { store_element(at + 4u * step, s.high.x); }
    if (columns > 5u) { store_element(at + 5u * step, s.high.y); }
    if (columns > 6u) { store_element(at + 6u * step, s.high.z); }
    if (columns > 7u) { store_element(at + 7u * step, s.high.w); }
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * INPUT_ROW + workgroup.x;
    let tile = number % IN_TILE_GROUPS * 4u + invocation / LANES;
    let c = number / IN_TILE_GROUPS;
    let y = tile / IN_STRIPS * ROWS;
    let phase = tile % IN_STRIPS / PHASE_STRIPS;
    // With a single strip the compiler sees what lies outside, and leaves it out.
    let x = select(tile % PHASE_STRIPS * COLUMNS * STRIDE_WIDTH + phase, 0u, IN_STRIPS == 1u);
    if (y >= IN_HEIGHT || x >= IN_WIDTH || (GRID_ROWS > 1u && c >= IN_CHANNELS)) {
        return;
    }
    let plane = workgroup.z * IN_CHANNELS + c;
    let right = i32(x + PAD_WIDTH);
    var top = Strip();
    var bottom = Strip();
    var before = Taps();
    // From the filter's last row to its first: the gradient's rows in order.
    for (var r = 0u; r < KERNEL_HEIGHT + ROWS - 1u; r++) {
        var w = Taps();
        if (r < KERNEL_HEIGHT) { w = taps(c, KERNEL_HEIGHT - 1u - r); }
        let ty = i32(y + PAD_HEIGHT + r * DILATION_HEIGHT) - i32((KERNEL_HEIGHT - 1u) * DILATION_HEIGHT);
        if (ty >= 0 && ty % i32(STRIDE_HEIGHT) == 0 && ty / i32(STRIDE_HEIGHT) < i32(OUT_HEIGHT)) {
            let at = (plane * OUT_HEIGHT + u32(ty) / STRIDE_HEIGHT) * OUT_WIDTH * LANES + lane;
            top = spread(top, w, at, right);
            if (ROWS > 1u) { bottom = spread(bottom, before, at, right); }
        }
        before = w;
    }
    let at = ((plane * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane;
    // What divides is known to the compiler.
    let columns = select((IN_WIDTH - x + STRIDE_WIDTH - 1u) / STRIDE_WIDTH, COLUMNS, IN_WIDTH % (COLUMNS * STRIDE_WIDTH) == 0u);
    store_input_grad(at, columns, top);
    if (ROWS > 1u && (IN_HEIGHT % ROWS == 0u || y + 1u < IN_HEIGHT)) {
        store_input_grad(at + IN_WIDTH * LANES, columns, bottom);
    }
}

// A row of the input, as a row of taps goes over it.
struct Walk {
    at: u32,        // what the first tap sees first
    inside: bool,   // whether the row lies in the input
}

fn walk(plane: u32, y: u32, ky: u32, lane: u32) -> Walk {
    let iy = i32(y * STRIDE_HEIGHT + ky * DILATION_HEIGHT) - i32(PAD_HEIGHT);
    let row = (plane * IN_HEIGHT + u32(iy)) * IN_WIDTH;
    return Walk((row - PAD_WIDTH) * LANES + lane, (PAD_HEIGHT == 0u) | (u32(iy) < IN_HEIGHT));
}

// What the first tap sees `x` columns further on.
fn seen(w: Walk, x: u32) -> f32 {
    return select(0.0, input_at(w.at, -i32(PAD_WIDTH), x), w.inside);
}

// What five neighbouring taps see before the first step of a walk; the first of them is not used.
fn begin(w: Walk) -> Taps {
    if (STRIDE_WIDTH != 1u || DILATION_WIDTH != 1u) {
        return Taps();
    }
    return Taps(0.0, seen(w, 0u), seen(w, 1u), seen(w, 2u), seen(w, 3u));
}

// At output column `x`, after `last` at the one before.
fn step(w: Walk, last: Taps, x: u32) -> Taps {
    if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
        return Taps(last.w1, last.w2, last.w3, last.w4, seen(w, x + 4u));
    }
    let at = x * STRIDE_WIDTH;
    return Taps(
        seen(w, at), seen(w, at + DILATION_WIDTH), seen(w, at + 2u * DILATION_WIDTH),
        seen(w, at + 3u * DILATION_WIDTH), seen(w, at + 4u * DILATION_WIDTH),
    );
}

fn correlate(s: Taps, g: f32, p: Taps) -> Taps {
    return Taps(s.w0 + g * p.w0, s.w1 + g * p.w1, s.w2 + g * p.w2, s.w3 + g * p.w3, s.w4 + g * p.w4);
}

// Twenty-five taps and the bias of each of the 64 invocations.
var<workgroup> partial: array<f32, 1664>;

fn lend(invocation: u32, ky: u32, s: Taps) {
    let at = ky * 320u + invocation;
    partial[at] = s.w0;
    if (KERNEL_WIDTH > 1u) { partial[at + 64u] = s.w1; }
    if (KERNEL_WIDTH > 2u) { partial[at + 128u] = s.w2; }
    if (KERNEL_WIDTH > 3u) { partial[at + 192u] = s.w3; }
    if (KERNEL_WIDTH > 4u) { partial[at + 256u] = s.w4; }
}

@compute @workgroup_size(64)
fn weight_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * WEIGHT_ROW + workgroup.x;
    let c = number * PLACES + invocation / LANES / ROW_SHARES;
    let split = workgroup.z;
    let row = select(split % ROW_SPLITS + invocation / LANES % ROW_SHARES * ROW_SPLITS, 0u, ROW_STEP == 1u);
    var s0 = Taps();
    var s1 = Taps();
    var s2 = Taps();
    var s3 = Taps();
    var s4 = Taps();
    var sum = 0.0;
    if (c < IN_CHANNELS) {
        for (var block = split / ROW_SPLITS; block < BLOCKS; block += BLOCK_STEP) {
            let plane = block * IN_CHANNELS + c;
            for (var y = row; y < OUT_HEIGHT; y += ROW_STEP) {
                let r0 = walk(plane, y, 0u, lane);
                let r1 = walk(plane, y, 1u, lane);
                let r2 = walk(plane, y, 2u, lane);
                let r3 = walk(plane, y, 3u, lane);
                let r4 = walk(plane, y, 4u, lane);
                var p0 = begin(r0);
                var p1 = begin(r1);
                var p2 = begin(r2);
                var p3 = begin(r3);
                var p4 = begin(r4);
                for (var x = 0u; x < OUT_WIDTH; x++) {
                    let g = output_grad[((plane * OUT_HEIGHT + y) * OUT_WIDTH + x) * LANES + lane];
                    sum += g;
                    p0 = step(r0, p0, x);
                    s0 = correlate(s0, g, p0);
                    if (KERNEL_HEIGHT > 1u) {
                        p1 = step(r1, p1, x);
                        s1 = correlate(s1, g, p1);
                    }
                    if (KERNEL_HEIGHT > 2u) {
                        p2 = step(r2, p2, x);
                        s2 = correlate(s2, g, p2);
                    }
                    if (KERNEL_HEIGHT > 3u) {
                        p3 = step(r3, p3, x);
                        s3 = correlate(s3, g, p3);
                    }
                    if (KERNEL_HEIGHT > 4u) {
                        p4 = step(r4, p4, x);
                        s4 = correlate(s4, g, p4);
                    }
                }
            }
        }
    }
    lend(invocation, 0u, s0);
    if (KERNEL_HEIGHT > 1u) { lend(invocation, 1u, s1); }
    if (KERNEL_HEIGHT > 2u) { lend(invocation, 2u, s2); }
    if (KERNEL_HEIGHT > 3u) { lend(invocation, 3u, s3); }
    if (KERNEL_HEIGHT > 4u) { lend(invocation, 4u, s4); }
    partial[1600u + invocation] = sum;
    workgroupBarrier();
    // Sixteen invocations or more for each tile add the lanes up, in order: a tap each in every round; after the taps,
    // the bias.
    let mine = number * PLACES + invocation % PLACES;
    for (var slot = invocation / PLACES; slot < TAPS + select(0u, 1u, BIAS); slot += 64u / PLACES) {
        let place = select(slot / KERNEL_WIDTH * 5u + slot % KERNEL_WIDTH, 25u, slot == TAPS);
        let start = place * 64u + invocation % PLACES * ROW_SHARES * LANES;
        var all = 0.0;
        for (var k = 0u; k < ROW_SHARES * LANES; k++) {
            all += partial[start + k];
        }
        if (mine >= IN_CHANNELS) {
            continue;
        }
        if (slot < TAPS) {
            weight_grad[split * WEIGHT_STRIDE + mine * TAPS + slot] = all;
        } else {
            bias_grad[split * BIAS_STRIDE + mine] = all;
        }
    }
}
