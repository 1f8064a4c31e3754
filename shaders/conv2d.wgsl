// conv2d: cross-correlation with stride, padding, dilation and groups, with its activation, and its gradients.
//
//     output[n, o, y, x]     = f(bias[o] + Σ c,ky,kx  weight[o, c, ky, kx] · input[n, c, y·S + ky·D − P, x·S + kx·D − P])
//     input_grad[n, c, y, x] = Σ o,ky,kx  weight[o, c, ky, kx] · output_grad[n, o, (y + P − ky·D)/S, (x + P − kx·D)/S] · g′(input[n, c, y, x])
//     weight_grad[o, c, ky, kx] = Σ n,y,x           output_grad[n, o, y, x] · input[n, c, y·S + ky·D − P, x·S + kx·D − P]
//     bias_grad[o]           = Σ n,y,x              output_grad[n, o, y, x]
//
// Terms outside a tensor, or at a fraction, are left out. With GROUPS > 1, output channel o sees only the
// input channels of its group (where a group is one channel, depthwise.wgsl does it). Weights are OIHW, as in
// PyTorch. `output_grad` is the gradient before f: whoever makes it multiplies by f′, as `input_gradient` does here
// by g′, the derivative of the activation that made this layer's input (INPUT_ACTIVATION), by its own value.
//
// Layout: element (n, c, y, x) of an activation is at (((n/16 · C + c) · H + y) · W + x) · 16 + n % 16. The
// 16 lanes of a block hold 16 images: their loads are contiguous and they share every weight.
//
// Who computes what: a workgroup of 64 is 16 images × 4 tiles. `forward` and `input_gradient`: a tile is 1, 2, 4 or 8
// columns × 4 or 8 channels, all sums in registers; it goes through the filters by rows of taps, three taps at a
// time, for which it loads a row of pixels once. In `input_gradient` the columns of a tile lie STRIDE_WIDTH apart, so
// that a tap which reaches one of them reaches all. `weight_gradient`: a tile is 4 output channels × ROWS rows of
// three taps, summed over the positions and images of every SPLITS-th block, then over the 16 lanes in workgroup
// memory; each split writes its own partial sum, which the optimizer adds up. Where that leaves a device empty,
// ROW_SHARES of a workgroup's tiles are one tile at other rows of the output, and ROW_SPLITS splits share a block.
//
// Tile sizes are constants: what is beyond them, the compiler leaves out altogether.

override IN_CHANNELS: u32;
override IN_HEIGHT: u32;
override IN_WIDTH: u32;
override OUT_CHANNELS: u32;
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
override GROUPS: u32;
override BIAS: bool;
override ACTIVATION: u32 = 99;          // of this layer; 99 is none
override INPUT_ACTIVATION: u32 = 99;    // of the layer before, where `input_gradient` applies its derivative
override COLUMNS: u32;                  // of a tile of `forward`: 1, 2, 4 or 8
override CHANNELS: u32;                 // of a tile of `forward`: 4 or 8
override IN_COLUMNS: u32;               // of a tile of `input_gradient`: 1, 2, 4 or 8
override IN_TILE: u32;                  // channels of a tile of `input_gradient`: 4 or 8
override BLOCKS: u32;                   // blocks of 16 images in the batch
override SPLITS: u32;                   // partial sums of `weight_gradient`
override ROW_SPLITS: u32;               // of them, how many share a block's rows
override ROW_SHARES: u32;               // tiles of a workgroup that share a split's rows: 1, 2 or 4
override GRID_ROWS: u32;                // rows of the grid, among which its workgroups are dealt out

override GROUP_IN = IN_CHANNELS / GROUPS;
override GROUP_OUT = OUT_CHANNELS / GROUPS;
override TAPS = KERNEL_HEIGHT * KERNEL_WIDTH;
override OUT_TILES = (GROUP_OUT + CHANNELS - 1) / CHANNELS;
override IN_TILES = (GROUP_IN + IN_TILE - 1) / IN_TILE;
override STRIPS = (OUT_WIDTH + COLUMNS - 1) / COLUMNS;
override PHASE_STRIPS = ((IN_WIDTH + STRIDE_WIDTH - 1) / STRIDE_WIDTH + IN_COLUMNS - 1) / IN_COLUMNS;
override IN_STRIPS = STRIDE_WIDTH * PHASE_STRIPS;
override TAP_TILES = (KERNEL_WIDTH + 2) / 3;
override TAP_ROWS = GROUP_IN * KERNEL_HEIGHT * TAP_TILES;   // rows of at most three taps of one filter
override ROWS = select(4u, 12u, KERNEL_WIDTH == 1u);        // that a tile of `weight_gradient` takes
override ROW_TILES = (TAP_ROWS + ROWS - 1) / ROWS;
override QUADS = (GROUP_OUT + 3) / 4;
override WEIGHT_TILES = GROUPS * QUADS * ROW_TILES;
override BIAS_TILES = select(0, GROUPS * QUADS, BIAS);
override PLACES = 4 / ROW_SHARES;                           // tiles of `weight_gradient` in a workgroup
override ROW_STEP = ROW_SPLITS * ROW_SHARES;
override BLOCK_STEP = SPLITS / ROW_SPLITS;
// Workgroups: of one tile of channels, of a block or a split, and of a row of the grid.
override TILE_GROUPS = (OUT_HEIGHT * STRIPS + 3) / 4;
override OUTPUT_GROUPS = TILE_GROUPS * GROUPS * OUT_TILES;
override OUTPUT_ROW = (OUTPUT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override IN_TILE_GROUPS = (IN_HEIGHT * IN_STRIPS + 3) / 4;
override INPUT_GROUPS = IN_TILE_GROUPS * GROUPS * IN_TILES;
override INPUT_ROW = (INPUT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override WEIGHT_GROUPS = (WEIGHT_TILES + BIAS_TILES + PLACES - 1) / PLACES;
override WEIGHT_ROW = (WEIGHT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override MASK_GROUPS = (OUT_CHANNELS * GROUP_IN * TAPS + 63) / 64;
override MASK_ROW = (MASK_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (OUT_CHANNELS * GROUP_IN * TAPS + 63) / 64 * 64;
override BIAS_STRIDE = (OUT_CHANNELS + 63) / 64 * 64;

const LANES = 16u;
const NEXT = vec4(0u, 1u, 2u, 3u);

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

// Eight columns of one channel.
struct Pixels {
    x0: f32,
    x1: f32,
    x2: f32,
    x3: f32,
    x4: f32,
    x5: f32,
    x6: f32,
    x7: f32,
}

// Eight columns of four channels.
struct Strip {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
    s4: vec4<f32>,
    s5: vec4<f32>,
    s6: vec4<f32>,
    s7: vec4<f32>,
}

fn filled(v: vec4<f32>) -> Strip {
    return Strip(v, v, v, v, v, v, v, v);
}

// Adds what one tap of four filters makes of a channel's pixels.
fn add(s: Strip, w: vec4<f32>, p: Pixels) -> Strip {
    return Strip(
        s.s0 + w * p.x0, s.s1 + w * p.x1, s.s2 + w * p.x2, s.s3 + w * p.x3,
        s.s4 + w * p.x4, s.s5 + w * p.x5, s.s6 + w * p.x6, s.s7 + w * p.x7,
    );
}

// The weights of four filters, `at` in each.
fn filters(at: vec4<u32>) -> vec4<f32> {
    return vec4(weight[at.x], weight[at.y], weight[at.z], weight[at.w]);
}

// The sums of a tile: the second four channels where a tile has eight.
struct Tile {
    low: Strip,
    high: Strip,
}

fn start(o: vec4<u32>) -> Strip {
    if (BIAS) {
        return filled(vec4(bias[o.x], bias[o.y], bias[o.z], bias[o.w]));
    }
    return filled(vec4(0.0));
}

// The input `k` columns from column `x`, which is at `at`; 0 in the padding.
fn input_at(at: u32, x: i32, k: u32) -> f32 {
    // Without a branch, which would part the loads of a row: what lies outside is not used, and may be anything.
    let value = input[at + k * LANES];
    return select(0.0, value, (PAD_WIDTH == 0u) | (u32(x) + k < IN_WIDTH));
}

// Four channels of one position, as far as the group has them.
fn store_output(at: u32, channels: u32, z: vec4<f32>) {
    let plane = OUT_HEIGHT * OUT_WIDTH * LANES;
    let value = activate(z);
    output[at] = value.x;
    if (channels > 1u) { output[at + plane] = value.y; }
    if (channels > 2u) { output[at + 2u * plane] = value.z; }
    if (channels > 3u) { output[at + 3u * plane] = value.w; }
}

fn store_strip(at: u32, channels: u32, columns: u32, s: Strip) {
    store_output(at, channels, s.s0);
    if (columns > 1u) { store_output(at + LANES, channels, s.s1); }
    if (columns > 2u) { store_output(at + 2u * LANES, channels, s.s2); }
    if (columns > 3u) { store_output(at + 3u * LANES, channels, s.s3); }
    if (COLUMNS > 4u) {
        if (columns > 4u) { store_output(at + 4u * LANES, channels, s.s4); }
        if (columns > 5u) { store_output(at + 5u * LANES, channels, s.s5); }
        if (columns > 6u) { store_output(at + 6u * LANES, channels, s.s6); }
        if (columns > 7u) { store_output(at + 7u * LANES, channels, s.s7); }
    }
}

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * OUTPUT_ROW + workgroup.x;
    let tile = number % TILE_GROUPS * 4u + invocation / LANES;
    let y = tile / STRIPS;
    // With a single strip the compiler sees what lies outside, and leaves it out.
    let x = select(tile % STRIPS * COLUMNS, 0u, STRIPS == 1u);
    if (y >= OUT_HEIGHT || (GRID_ROWS > 1u && number >= OUTPUT_GROUPS)) {
        return;
    }
    let group = number / TILE_GROUPS / OUT_TILES;
    let first = number / TILE_GROUPS % OUT_TILES * CHANNELS;
    // Channels beyond the group's last repeat it: they are computed and not stored.
    let low = group * GROUP_OUT + min(first + NEXT, vec4(GROUP_OUT - 1u));
    let high = group * GROUP_OUT + min(first + 4u + NEXT, vec4(GROUP_OUT - 1u));
    var sums = Tile(start(low), Strip());
    if (CHANNELS > 4u) { sums.high = start(high); }
    let left = i32(x * STRIDE_WIDTH) - i32(PAD_WIDTH);
    let plane = (workgroup.z * IN_CHANNELS + group * GROUP_IN) * IN_HEIGHT;
    for (var r = 0u; r < GROUP_IN * KERNEL_HEIGHT; r++) {
        let iy = i32(y * STRIDE_HEIGHT + r % KERNEL_HEIGHT * DILATION_HEIGHT) - i32(PAD_HEIGHT);
        if (PAD_HEIGHT > 0u && u32(iy) >= IN_HEIGHT) {
            continue;
        }
        let at = ((plane + r / KERNEL_HEIGHT * IN_HEIGHT + u32(iy)) * IN_WIDTH + u32(left)) * LANES + lane;
        let lower = low * (GROUP_IN * TAPS) + r * KERNEL_WIDTH;
        let upper = high * (GROUP_IN * TAPS) + r * KERNEL_WIDTH;
        if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
            // The window slides over the row by one column a tap.
            for (var kx = 0u; kx < KERNEL_WIDTH; kx += 3u) {
                let there = at + kx * LANES;
                let column = left + i32(kx);
                let x0 = input_at(there, column, 0u);
                let x1 = input_at(there, column, 1u);
                let x2 = input_at(there, column, 2u);
                let x3 = input_at(there, column, 3u);
                let x4 = input_at(there, column, 4u);
                let x5 = input_at(there, column, 5u);
                let x6 = input_at(there, column, 6u);
                let x7 = input_at(there, column, 7u);
                let p0 = Pixels(x0, x1, x2, x3, x4, x5, x6, x7);
                sums.low = add(sums.low, filters(lower + kx), p0);
                if (CHANNELS > 4u) { sums.high = add(sums.high, filters(upper + kx), p0); }
                if (kx + 1u < KERNEL_WIDTH) {
                    let x8 = input_at(there, column, 8u);
                    let p1 = Pixels(x1, x2, x3, x4, x5, x6, x7, x8);
                    sums.low = add(sums.low, filters(lower + kx + 1u), p1);
                    if (CHANNELS > 4u) { sums.high = add(sums.high, filters(upper + kx + 1u), p1); }
                    if (kx + 2u < KERNEL_WIDTH) {
                        let x9 = input_at(there, column, 9u);
                        let p2 = Pixels(x2, x3, x4, x5, x6, x7, x8, x9);
                        sums.low = add(sums.low, filters(lower + kx + 2u), p2);
                        if (CHANNELS > 4u) { sums.high = add(sums.high, filters(upper + kx + 2u), p2); }
                    }
                }
            }
        } else {
            for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                let there = at + kx * DILATION_WIDTH * LANES;
                let column = left + i32(kx * DILATION_WIDTH);
                let p = Pixels(
                    input_at(there, column, 0u), input_at(there, column, STRIDE_WIDTH),
                    input_at(there, column, 2u * STRIDE_WIDTH), input_at(there, column, 3u * STRIDE_WIDTH),
                    input_at(there, column, 4u * STRIDE_WIDTH), input_at(there, column, 5u * STRIDE_WIDTH),
                    input_at(there, column, 6u * STRIDE_WIDTH), input_at(there, column, 7u * STRIDE_WIDTH),
                );
                sums.low = add(sums.low, filters(lower + kx), p);
                if (CHANNELS > 4u) { sums.high = add(sums.high, filters(upper + kx), p); }
            }
        }
    }
    let at = (((workgroup.z * OUT_CHANNELS + low.x) * OUT_HEIGHT + y) * OUT_WIDTH + x) * LANES + lane;
    // What divides is known to the compiler.
    let channels = select(GROUP_OUT - first, CHANNELS, GROUP_OUT % CHANNELS == 0u);
    let columns = select(min(OUT_WIDTH - x, COLUMNS), COLUMNS, OUT_WIDTH % COLUMNS == 0u);
    store_strip(at, channels, columns, sums.low);
    if (CHANNELS > 4u && channels > 4u) {
        store_strip(at + 4u * OUT_HEIGHT * OUT_WIDTH * LANES, channels - 4u, columns, sums.high);
    }
}

// The gradient that reached `k` columns from column `x`, which is at `at`; 0 outside.
fn output_grad_at(at: u32, x: i32, k: i32) -> f32 {
    let value = output_grad[at + u32(k) * LANES];
    return select(0.0, value, u32(x + k) < OUT_WIDTH);
}

fn store_input_grad(at: u32, value: f32) {
    if (INPUT_ACTIVATION == 99u) {
        input_grad[at] = value;
    } else {
        input_grad[at] = value * slope(input[at]);
    }
}

fn store_input_grads(at: u32, channels: u32, value: vec4<f32>) {
    let plane = IN_HEIGHT * IN_WIDTH * LANES;
    store_input_grad(at, value.x);
    if (channels > 1u) { store_input_grad(at + plane, value.y); }
    if (channels > 2u) { store_input_grad(at + 2u * plane, value.z); }
    if (channels > 3u) { store_input_grad(at + 3u * plane, value.w); }
}

fn store_input_strip(at: u32, channels: u32, columns: u32, s: Strip) {
    let step = STRIDE_WIDTH * LANES;
    store_input_grads(at, channels, s.s0);
    if (columns > 1u) { store_input_grads(at + step, channels, s.s1); }
    if (columns > 2u) { store_input_grads(at + 2u * step, channels, s.s2); }
    if (columns > 3u) { store_input_grads(at + 3u * step, channels, s.s3); }
    if (IN_COLUMNS > 4u) {
        if (columns > 4u) { store_input_grads(at + 4u * step, channels, s.s4); }
        if (columns > 5u) { store_input_grads(at + 5u * step, channels, s.s5); }
        if (columns > 6u) { store_input_grads(at + 6u * step, channels, s.s6); }
        if (columns > 7u) { store_input_grads(at + 7u * step, channels, s.s7); }
    }
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * INPUT_ROW + workgroup.x;
    let tile = number % IN_TILE_GROUPS * 4u + invocation / LANES;
    let y = tile / IN_STRIPS;
    let phase = tile % IN_STRIPS / PHASE_STRIPS;
    // With a single strip the compiler sees what lies outside, and leaves it out.
    let x = select(tile % PHASE_STRIPS * IN_COLUMNS * STRIDE_WIDTH + phase, 0u, IN_STRIPS == 1u);
    if (y >= IN_HEIGHT || x >= IN_WIDTH || (GRID_ROWS > 1u && number >= INPUT_GROUPS)) {
        return;
    }
    let group = number / IN_TILE_GROUPS / IN_TILES;
    let first = number / IN_TILE_GROUPS % IN_TILES * IN_TILE;
    // Channels beyond the group's last repeat it: they are computed and not stored.
    let low = min(first + NEXT, vec4(GROUP_IN - 1u));
    let high = min(first + 4u + NEXT, vec4(GROUP_IN - 1u));
    var sums = Tile();
    let right = i32(x + PAD_WIDTH);
    for (var r = 0u; r < GROUP_OUT * KERNEL_HEIGHT; r++) {
        let ky = r % KERNEL_HEIGHT;
        let o = group * GROUP_OUT + r / KERNEL_HEIGHT;
        let ty = i32(y + PAD_HEIGHT) - i32(ky * DILATION_HEIGHT);
        if (ty < 0 || ty % i32(STRIDE_HEIGHT) != 0 || ty / i32(STRIDE_HEIGHT) >= i32(OUT_HEIGHT)) {
            continue;
        }
        let at = ((workgroup.z * OUT_CHANNELS + o) * OUT_HEIGHT + u32(ty) / STRIDE_HEIGHT) * OUT_WIDTH * LANES + lane;
        let lower = (o * GROUP_IN + low) * TAPS + ky * KERNEL_WIDTH;
        let upper = (o * GROUP_IN + high) * TAPS + ky * KERNEL_WIDTH;
        if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
            // The window slides to the left by one column a tap.
            for (var kx = 0u; kx < KERNEL_WIDTH; kx += 3u) {
                let column = right - i32(kx);
                let there = at + u32(column) * LANES;
                let x0 = output_grad_at(there, column, 0);
                let x1 = output_grad_at(there, column, 1);
                let x2 = output_grad_at(there, column, 2);
                let x3 = output_grad_at(there, column, 3);
                let x4 = output_grad_at(there, column, 4);
                let x5 = output_grad_at(there, column, 5);
                let x6 = output_grad_at(there, column, 6);
                let x7 = output_grad_at(there, column, 7);
                let p0 = Pixels(x0, x1, x2, x3, x4, x5, x6, x7);
                sums.low = add(sums.low, filters(lower + kx), p0);
                if (IN_TILE > 4u) { sums.high = add(sums.high, filters(upper + kx), p0); }
                if (kx + 1u < KERNEL_WIDTH) {
                    let y0 = output_grad_at(there, column, -1);
                    let p1 = Pixels(y0, x0, x1, x2, x3, x4, x5, x6);
                    sums.low = add(sums.low, filters(lower + kx + 1u), p1);
                    if (IN_TILE > 4u) { sums.high = add(sums.high, filters(upper + kx + 1u), p1); }
                    if (kx + 2u < KERNEL_WIDTH) {
                        let z0 = output_grad_at(there, column, -2);
                        let p2 = Pixels(z0, y0, x0, x1, x2, x3, x4, x5);
                        sums.low = add(sums.low, filters(lower + kx + 2u), p2);
                        if (IN_TILE > 4u) { sums.high = add(sums.high, filters(upper + kx + 2u), p2); }
                    }
                }
            }
        } else {
            for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                let t = right - i32(kx * DILATION_WIDTH);
                // Columns of a tile lie a stride apart: the tap reaches all of them or none.
                if (t % i32(STRIDE_WIDTH) != 0) {
                    continue;
                }
                let column = t / i32(STRIDE_WIDTH);
                let there = at + u32(column) * LANES;
                let p = Pixels(
                    output_grad_at(there, column, 0), output_grad_at(there, column, 1),
                    output_grad_at(there, column, 2), output_grad_at(there, column, 3),
                    output_grad_at(there, column, 4), output_grad_at(there, column, 5),
                    output_grad_at(there, column, 6), output_grad_at(there, column, 7),
                );
                sums.low = add(sums.low, filters(lower + kx), p);
                if (IN_TILE > 4u) { sums.high = add(sums.high, filters(upper + kx), p); }
            }
        }
    }
    let at = (((workgroup.z * IN_CHANNELS + group * GROUP_IN + first) * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane;
    // What divides is known to the compiler.
    let channels = select(GROUP_IN - first, IN_TILE, GROUP_IN % IN_TILE == 0u);
    let within = min((IN_WIDTH - x + STRIDE_WIDTH - 1u) / STRIDE_WIDTH, IN_COLUMNS);
    let columns = select(within, IN_COLUMNS, IN_WIDTH % (IN_COLUMNS * STRIDE_WIDTH) == 0u);
    store_input_strip(at, channels, columns, sums.low);
    if (IN_TILE > 4u && channels > 4u) {
        store_input_strip(at + 4u * IN_HEIGHT * IN_WIDTH * LANES, channels - 4u, columns, sums.high);
    }
}

// A row of at most three taps of one filter.
struct TapRow {
    c: u32,     // within the group
    ky: u32,
    kx: u32,    // of the first tap
}

fn tap_row(r: u32) -> TapRow {
    return TapRow(r / (TAP_TILES * KERNEL_HEIGHT), r / TAP_TILES % KERNEL_HEIGHT, r % TAP_TILES * 3u);
}

// A row of the input, as a row of taps goes over it.
struct Walk {
    at: u32,        // what the first tap sees first
    left: i32,      // its column
    inside: bool,   // whether the row lies in the input
}

fn walk(block: u32, group: u32, r: u32, y: u32, lane: u32) -> Walk {
    // Rows of taps beyond the last repeat it: they are computed and not stored.
    let t = tap_row(min(r, TAP_ROWS - 1u));
    let iy = i32(y * STRIDE_HEIGHT + t.ky * DILATION_HEIGHT) - i32(PAD_HEIGHT);
    let left = i32(t.kx * DILATION_WIDTH) - i32(PAD_WIDTH);
    let row = ((block * IN_CHANNELS + group * GROUP_IN + t.c) * IN_HEIGHT + u32(iy)) * IN_WIDTH;
    return Walk((row + u32(left)) * LANES + lane, left, (PAD_HEIGHT == 0u) | (u32(iy) < IN_HEIGHT));
}

// What the first tap sees `x` columns further on.
fn seen(w: Walk, x: u32) -> f32 {
    return select(0.0, input_at(w.at, w.left, x), w.inside);
}

// What three neighbouring taps see.
struct Three {
    x0: f32,
    x1: f32,
    x2: f32,
}

// Before the first step of a walk.
fn before(w: Walk) -> Three {
    if (STRIDE_WIDTH != 1u || DILATION_WIDTH != 1u) {
        return Three();
    }
    return Three(0.0, seen(w, 0u), seen(w, 1u));
}

// At output column `x`, after `last` at the one before.
fn step(w: Walk, last: Three, x: u32) -> Three {
    if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
        return Three(last.x1, last.x2, seen(w, x + 2u));
    }
    let at = x * STRIDE_WIDTH;
    return Three(seen(w, at), seen(w, at + DILATION_WIDTH), seen(w, at + 2u * DILATION_WIDTH));
}

// Four output channels × three taps.
struct Taps {
    t0: vec4<f32>,
    t1: vec4<f32>,
    t2: vec4<f32>,
}

fn correlate(s: Taps, g: vec4<f32>, p: Three) -> Taps {
    return Taps(s.t0 + g * p.x0, s.t1 + g * p.x1, s.t2 + g * p.x2);
}

// Twelve sums of each of the 64 invocations.
var<workgroup> partial: array<vec4<f32>, 768>;

fn lend(invocation: u32, row: u32, s: Taps) {
    let at = row * 192u + invocation;
    partial[at] = s.t0;
    if (KERNEL_WIDTH != 2u) { partial[at + 128u] = s.t2; }
    partial[at + 64u] = s.t1;
}

@compute @workgroup_size(64)
fn weight_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let number = workgroup.y * WEIGHT_ROW + workgroup.x;
    let tile = number * PLACES + invocation / LANES / ROW_SHARES;
    let split = workgroup.z;
    let row = select(split % ROW_SPLITS + invocation / LANES % ROW_SHARES * ROW_SPLITS, 0u, ROW_STEP == 1u);
    let plane = OUT_HEIGHT * OUT_WIDTH * LANES;
    var sum0 = Taps();
    var sum1 = Taps();
    var sum2 = Taps();
    var sum3 = Taps();
    if (tile < WEIGHT_TILES) {
        let r = tile % ROW_TILES * ROWS;
        let outs = tile / ROW_TILES;
        let group = outs / QUADS;
        let first = outs % QUADS * 4u;
        // Channels beyond the group's last repeat it: they are computed and not stored.
        let spread = min(NEXT, vec4(GROUP_OUT - 1u - first)) * plane;
        for (var block = split / ROW_SPLITS; block < BLOCKS; block += BLOCK_STEP) {
            let channel = (block * OUT_CHANNELS + group * GROUP_OUT + first) * plane + lane;
            if (KERNEL_WIDTH == 1u) {
                for (var y = row; y < OUT_HEIGHT; y += ROW_STEP) {
                    let w0 = walk(block, group, r, y, lane);
                    let w1 = walk(block, group, r + 1u, y, lane);
                    let w2 = walk(block, group, r + 2u, y, lane);
                    let w3 = walk(block, group, r + 3u, y, lane);
                    let w4 = walk(block, group, r + 4u, y, lane);
                    let w5 = walk(block, group, r + 5u, y, lane);
                    let w6 = walk(block, group, r + 6u, y, lane);
                    let w7 = walk(block, group, r + 7u, y, lane);
                    let w8 = walk(block, group, r + 8u, y, lane);
                    let w9 = walk(block, group, r + 9u, y, lane);
                    let w10 = walk(block, group, r + 10u, y, lane);
                    let w11 = walk(block, group, r + 11u, y, lane);
                    for (var x = 0u; x < OUT_WIDTH; x++) {
                        let at = channel + (y * OUT_WIDTH + x) * LANES;
                        let g = vec4(output_grad[at], output_grad[at + spread.y], output_grad[at + spread.z], output_grad[at + spread.w]);
                        let column = x * STRIDE_WIDTH;
                        sum0 = correlate(sum0, g, Three(seen(w0, column), seen(w1, column), seen(w2, column)));
                        sum1 = correlate(sum1, g, Three(seen(w3, column), seen(w4, column), seen(w5, column)));
                        sum2 = correlate(sum2, g, Three(seen(w6, column), seen(w7, column), seen(w8, column)));
                        sum3 = correlate(sum3, g, Three(seen(w9, column), seen(w10, column), seen(w11, column)));
                    }
                }
            } else {
                for (var y = row; y < OUT_HEIGHT; y += ROW_STEP) {
                    let w0 = walk(block, group, r, y, lane);
                    let w1 = walk(block, group, r + 1u, y, lane);
                    let w2 = walk(block, group, r + 2u, y, lane);
                    let w3 = walk(block, group, r + 3u, y, lane);
                    var p0 = before(w0);
                    var p1 = before(w1);
                    var p2 = before(w2);
                    var p3 = before(w3);
                    for (var x = 0u; x < OUT_WIDTH; x++) {
                        let at = channel + (y * OUT_WIDTH + x) * LANES;
                        let g = vec4(output_grad[at], output_grad[at + spread.y], output_grad[at + spread.z], output_grad[at + spread.w]);
                        p0 = step(w0, p0, x);
                        p1 = step(w1, p1, x);
                        p2 = step(w2, p2, x);
                        p3 = step(w3, p3, x);
                        sum0 = correlate(sum0, g, p0);
                        sum1 = correlate(sum1, g, p1);
                        sum2 = correlate(sum2, g, p2);
                        sum3 = correlate(sum3, g, p3);
                    }
                }
            }
        }
    } else if (tile - WEIGHT_TILES < BIAS_TILES) {
        let outs = tile - WEIGHT_TILES;
        let first = outs % QUADS * 4u;
        let o = outs / QUADS * GROUP_OUT + first;
        let spread = min(NEXT, vec4(GROUP_OUT - 1u - first)) * plane;
        for (var block = split / ROW_SPLITS; block < BLOCKS; block += BLOCK_STEP) {
            let start = (block * OUT_CHANNELS + o) * plane + lane;
            for (var y = row; y < OUT_HEIGHT; y += ROW_STEP) {
                for (var x = 0u; x < OUT_WIDTH; x++) {
                    let at = start + (y * OUT_WIDTH + x) * LANES;
                    sum0.t0 += vec4(output_grad[at], output_grad[at + spread.y], output_grad[at + spread.z], output_grad[at + spread.w]);
                }
            }
        }
    }
    lend(invocation, 0u, sum0);
    lend(invocation, 1u, sum1);
    lend(invocation, 2u, sum2);
    lend(invocation, 3u, sum3);
    workgroupBarrier();
    // Twelve invocations for each tile add the lanes up, in order: one for each row and tap.
    let slot = invocation / PLACES;
    if (slot >= 12u) {
        return;
    }
    let mine = number * PLACES + invocation % PLACES;
    var sum = vec4(0.0);
    for (var k = 0u; k < ROW_SHARES * LANES; k++) {
        sum += partial[slot * 64u + invocation % PLACES * ROW_SHARES * LANES + k];
    }
    if (mine < WEIGHT_TILES) {
        // Where filters are one column wide, three rows stand in the place of three taps.
        let r = mine % ROW_TILES * ROWS + select(slot / 3u, slot, KERNEL_WIDTH == 1u);
        let t = tap_row(r);
        let kx = t.kx + select(slot % 3u, 0u, KERNEL_WIDTH == 1u);
        let outs = mine / ROW_TILES;
        let first = outs % QUADS * 4u;
        let o = outs / QUADS * GROUP_OUT + first;
        if (r < TAP_ROWS && kx < KERNEL_WIDTH) {
            let at = split * WEIGHT_STRIDE + (o * GROUP_IN + t.c) * TAPS + t.ky * KERNEL_WIDTH + kx;
            let next = GROUP_IN * TAPS;
            weight_grad[at] = sum.x;
            if (first + 1u < GROUP_OUT) { weight_grad[at + next] = sum.y; }
            if (first + 2u < GROUP_OUT) { weight_grad[at + 2u * next] = sum.z; }
            if (first + 3u < GROUP_OUT) { weight_grad[at + 3u * next] = sum.w; }
        }
    } else if (mine - WEIGHT_TILES < BIAS_TILES && slot == 0u) {
        let outs = mine - WEIGHT_TILES;
        let first = outs % QUADS * 4u;
        let o = outs / QUADS * GROUP_OUT + first;
        let at = split * BIAS_STRIDE + o;
        bias_grad[at] = sum.x;
        if (first + 1u < GROUP_OUT) { bias_grad[at + 1u] = sum.y; }
        if (first + 2u < GROUP_OUT) { bias_grad[at + 2u] = sum.z; }
        if (first + 3u < GROUP_OUT) { bias_grad[at + 3u] = sum.w; }
    }
}

@group(0) @binding(8) var<storage, read> mask: array<u32>;    // 1 where output channel o sees input channel c, [o, c]

// Connections that a table leaves out, as between LeNet-5's second and third layers (LeCun et al. 1998, table I): their
// weights start at 0 and get no gradient. One invocation looks at one weight of one partial sum.
@compute @workgroup_size(64)
fn mask_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = (workgroup.y * MASK_ROW + workgroup.x) * 64u + invocation;
    if (i >= OUT_CHANNELS * GROUP_IN * TAPS) {
        return;
    }
    // Stored, not multiplied, so that no NaN comes through.
    if (mask[i / TAPS] == 0u) {
        weight_grad[workgroup.z * WEIGHT_STRIDE + i] = 0.0;
    }
}
