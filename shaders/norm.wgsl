// norm: each channel normalised and put through an affine map, with an activation, and the gradients.
//
//     output[n, c, p]      = f(weight[c] · x̂[n, c, p] + bias[c])
//     x̂                    = (input − mean[c]) · r[c],   r[c] = 1 / √(variance[c] + EPSILON)
//     weight_grad[c]       = Σ n,p  g · x̂                g = output_grad · f′, by the value of the output
//     bias_grad[c]         = Σ n,p  g
//     input_grad[n, c, p]  = weight[c] · r[c] · (g − bias_grad[c] / M − x̂ · weight_grad[c] / M)
//
// KIND says whose mean and variance those are. BATCH: those of the M = count · POSITIONS elements of this batch
// (Ioffe and Szegedy 2015), as above. RUNNING: their running averages, which are constants, so that input_grad is
// weight · r · g. AFFINE: none, x̂ is the input and r is 1: the trainable coefficient and bias of LeNet-5's
// sub-sampling (LeCun et al. 1998). The variance that normalises is divided by M, the one that is averaged by
// M − 1, as in PyTorch. The averages themselves are the optimizer's, which alone writes what outlives a step.
//
// Lanes from `count` on hold no image: they are left out of every sum, and their output and gradient are 0.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl), POSITIONS elements a channel.
//
// Who computes what. Sums over a channel (`statistics`, `moments`, `weight_gradient`): a workgroup of 64 is four
// workers of 16 images, and a channel has SPLITS workgroups. The channel is cut into BLOCKS · SEGMENTS pieces, of
// which a worker takes every WORKERS-th; then the 64 results meet in workgroup memory, in a fixed order.
// A mean and a sum of squared deviations are kept up to date eight elements at a time and merged by Chan, Golub
// and LeVeque's formula (1979), so that nothing cancels, however far the mean lies from 0. Elements (`forward`,
// `input_gradient`, `scaled_gradient`): an invocation takes one image at up to 8 positions of one channel, so that
// what they share is worked out once.

override CHANNELS: u32;
override POSITIONS: u32;
override KIND: u32;
override EPSILON: f32;
override ACTIVATION: u32 = 99;      // 99 is none
override BLOCKS: u32;               // blocks of 16 images in the batch
override SPLITS: u32;               // workgroups of a channel, and partial sums of its gradients
override SEGMENTS: u32;             // pieces that a block's positions are cut into
override ROW: u32;                  // invocations in one row of a grid over elements, whose layers are the blocks
override GRID_ROWS: u32;            // rows of a grid over channels, whose layers are the splits

override SEGMENT = (POSITIONS + SEGMENTS - 1) / SEGMENTS;
override PIECES = BLOCKS * SEGMENTS;
override WORKERS = SPLITS * 4;
override TILES = (POSITIONS + 7) / 8;
override CHANNEL_ROW = (CHANNELS + GRID_ROWS - 1) / GRID_ROWS;             // workgroups in one of those rows
override MERGE_ROW = ((CHANNELS + 63) / 64 + GRID_ROWS - 1) / GRID_ROWS;   // the same, of `merge`
// Each tensor and each partial sum starts on a 256-byte boundary.
override STRIDE = (CHANNELS + 63) / 64 * 64;

const LANES = 16u;

const BATCH = 0u;
const RUNNING = 1u;
const AFFINE = 2u;

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
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> saved: array<f32>;              // means, then r; then SPLITS · (count, mean, squares)
@group(0) @binding(3) var<storage, read_write> batch_mean: array<f32>;         // what the running averages take in
@group(0) @binding(4) var<storage, read_write> batch_variance: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;
@group(0) @binding(7) var<storage, read> mean: array<f32>;                     // of BATCH in `saved`, of RUNNING the average
@group(0) @binding(8) var<storage, read> spread: array<f32>;                   // of BATCH r, of RUNNING the variance
@group(0) @binding(9) var<storage, read_write> output: array<f32>;
@group(0) @binding(10) var<storage, read> activated: array<f32>;               // `output`, as the backward pass reads it
@group(0) @binding(11) var<storage, read> output_grad: array<f32>;
@group(0) @binding(12) var<storage, read_write> weight_grad: array<f32>;
@group(0) @binding(13) var<storage, read_write> bias_grad: array<f32>;
@group(0) @binding(14) var<storage, read> batch_statistics: array<f32>;        // `saved`, as the backward pass reads it
@group(0) @binding(15) var<storage, read> weight_sums: array<f32>;             // `weight_grad` and `bias_grad`, as
@group(0) @binding(16) var<storage, read> bias_sums: array<f32>;               // `input_gradient` reads them
@group(0) @binding(17) var<storage, read_write> input_grad: array<f32>;

// ---- The statistics of a batch ----

// Of some elements: how many, their mean, and the sum of their squared distances from it.
struct Moments {
    count: f32,
    mean: f32,
    squares: f32,
}

fn merged(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    let apart = b.mean - a.mean;
    let share = b.count / max(count, 1.0);
    return Moments(count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share);
}

// Those of the pieces of one worker, of one image a block.
fn gathered(c: u32, worker: u32, lane: u32) -> Moments {
    var all = Moments(0.0, 0.0, 0.0);
    for (var piece = worker; piece < PIECES; piece += WORKERS) {
        let block = piece / SEGMENTS;
        let start = piece % SEGMENTS * SEGMENT;
        let end = min(start + SEGMENT, POSITIONS);
        if (block * LANES + lane < step.count) {
            let plane = (block * CHANNELS + c) * POSITIONS * LANES + lane;
            var p = start;
            for (; p + 8u <= end; p += 8u) {
                let at = plane + p * LANES;
                let x = vec4(input[at], input[at + 16u], input[at + 32u], input[at + 48u]);
                let y = vec4(input[at + 64u], input[at + 80u], input[at + 96u], input[at + 112u]);
                let middle = dot(x + y, vec4(0.125));
                let dx = x - middle;
                let dy = y - middle;
                all = merged(all, Moments(8.0, middle, dot(dx, dx) + dot(dy, dy)));
            }
            for (; p < end; p++) {
                all = merged(all, Moments(1.0, input[plane + p * LANES], 0.0));
            }
        }
    }
    return all;
}

var<workgroup> shared_moments: array<Moments, 64>;

// Merges the moments of a workgroup's invocations into the first one's.
fn meet(invocation: u32, own: Moments) {
    shared_moments[invocation] = own;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            shared_moments[invocation] = merged(shared_moments[invocation], shared_moments[invocation + half]);
        }
    }
}

// Saves what normalises a channel, and hands the optimizer what the running averages take in.
fn finish(c: u32, all: Moments) {
    saved[c] = all.mean;
    saved[STRIDE + c] = inverseSqrt(all.squares / max(all.count, 1.0) + EPSILON);
    batch_mean[c] = all.mean;
    batch_variance[c] = all.squares / max(all.count - 1.0, 1.0);
}

// A channel is one workgroup: SPLITS is 1.
@compute @workgroup_size(64)
fn statistics(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let c = workgroup.y * CHANNEL_ROW + workgroup.x;
    if (GRID_ROWS > 1u && c >= CHANNELS) {
        return;
    }
    meet(invocation, gathered(c, invocation / LANES, invocation % LANES));
    if (invocation == 0u) {
        finish(c, shared_moments[0]);
    }
}

// A channel is SPLITS workgroups, since one alone would take as long as it has elements on a device that has room for
// all of them; `merge` then takes one invocation a channel.
@compute @workgroup_size(64)
fn moments(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let c = workgroup.y * CHANNEL_ROW + workgroup.x;
    if (GRID_ROWS > 1u && c >= CHANNELS) {
        return;
    }
    let worker = workgroup.z * 4u + invocation / LANES;
    meet(invocation, gathered(c, worker, invocation % LANES));
    if (invocation == 0u) {
        let all = shared_moments[0];
        let at = (2u + 3u * workgroup.z) * STRIDE + c;
        saved[at] = all.count;
        saved[at + STRIDE] = all.mean;
        saved[at + 2u * STRIDE] = all.squares;
    }
}

@compute @workgroup_size(64)
fn merge(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let c = (workgroup.y * MERGE_ROW + workgroup.x) * 64u + invocation;
    if (c >= CHANNELS) {
        return;
    }
    var all = Moments(0.0, 0.0, 0.0);
    for (var split = 0u; split < SPLITS; split++) {
        let at = (2u + 3u * split) * STRIDE + c;
        all = merged(all, Moments(saved[at], saved[at + STRIDE], saved[at + 2u * STRIDE]));
    }
    finish(c, all);
}

// ---- Forward ----

// Some drivers compute exp(2x) and overflow; beyond 15 the result is ±1 in f32. What is no number stays none.
fn safe_tanh(x: f32) -> f32 {
    return select(tanh(clamp(x, -15.0, 15.0)), x, (bitcast<u32>(x) << 1u) > 0xff000000u);
}

// A maximum might leave a NaN out, so that a ReLU is none.
fn activate(z: f32) -> f32 {
    switch (ACTIVATION) {
        case RELU: { return select(z, 0.0, z <= 0.0); }
        case SIGMOID: { return 1.0 / (1.0 + exp(-z)); }
        case TANH: { return safe_tanh(z); }
        case SCALED_TANH: { return 1.7159 * safe_tanh(z * (2.0 / 3.0)); }
        default: { return z; }
    }
}

// What is subtracted from a channel's input, and what the difference is multiplied by.
fn centre_and_scale(c: u32) -> vec2<f32> {
    switch (KIND) {
        case BATCH: { return vec2(mean[c], spread[c]); }
        case RUNNING: { return vec2(mean[c], inverseSqrt(spread[c] + EPSILON)); }
        default: { return vec2(0.0, 1.0); }
    }
}

// Where an invocation's elements lie: neighbours have neighbouring images, then positions; the positions of one
// invocation are TILES apart.
struct Place {
    channel: u32,
    at: u32,            // of the first
    positions: u32,     // 0 beyond the last channel
    present: bool,      // whether there is such an image
}

fn place(id: vec3<u32>) -> Place {
    let invocation = id.y * ROW + id.x;
    let lane = invocation % LANES;
    let p = invocation / LANES % TILES;
    let c = invocation / LANES / TILES;
    let at = ((id.z * CHANNELS + c) * POSITIONS + p) * LANES + lane;
    let positions = select((POSITIONS - p + TILES - 1u) / TILES, 0u, c >= CHANNELS);
    return Place(min(c, CHANNELS - 1u), at, positions, id.z * LANES + lane < step.count);
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let here = place(id);
    let normal = centre_and_scale(here.channel);
    let factor = weight[here.channel] * normal.y;
    let start = bias[here.channel];
    for (var k = 0u; k < here.positions; k++) {
        let at = here.at + k * TILES * LANES;
        output[at] = select(0.0, activate((input[at] - normal.x) * factor + start), here.present);
    }
}

// ---- Backward ----

// The gradient before the activation: times its derivative where its value is `y`.
fn gradient(at: u32) -> f32 {
    let g = output_grad[at];
    if (ACTIVATION == 99u) {
        return g;
    }
    let y = activated[at];
    switch (ACTIVATION) {
        case RELU: { return select(0.0, g, y > 0.0); }
        case SIGMOID: { return g * (y * (1.0 - y)); }
        case TANH: { return g * (1.0 - y * y); }
        case SCALED_TANH: { return g * (1.7159 * (2.0 / 3.0) - y * y * (2.0 / 3.0 / 1.7159)); }
        default: { return g; }
    }
}

var<workgroup> shared_sums: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn weight_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let c = workgroup.y * CHANNEL_ROW + workgroup.x;
    if (GRID_ROWS > 1u && c >= CHANNELS) {
        return;
    }
    let lane = invocation % LANES;
    let normal = centre_and_scale(c);
    // Of g · (input − mean), and of g.
    var sums = vec2(0.0);
    for (var piece = workgroup.z * 4u + invocation / LANES; piece < PIECES; piece += WORKERS) {
        let block = piece / SEGMENTS;
        let start = piece % SEGMENTS * SEGMENT;
        let end = min(start + SEGMENT, POSITIONS);
        if (block * LANES + lane < step.count) {
            let plane = (block * CHANNELS + c) * POSITIONS * LANES + lane;
            var p = start;
            for (; p + 4u <= end; p += 4u) {
                let at = plane + p * LANES;
                let x = vec4(input[at], input[at + 16u], input[at + 32u], input[at + 48u]);
                let g = vec4(gradient(at), gradient(at + 16u), gradient(at + 32u), gradient(at + 48u));
                sums += vec2(dot(g, x - normal.x), dot(g, vec4(1.0)));
            }
            for (; p < end; p++) {
                let at = plane + p * LANES;
                let g = gradient(at);
                sums += vec2(g * (input[at] - normal.x), g);
            }
        }
    }
    shared_sums[invocation] = sums;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            shared_sums[invocation] += shared_sums[invocation + half];
        }
    }
    if (invocation == 0u) {
        let at = workgroup.z * STRIDE + c;
        weight_grad[at] = shared_sums[0].x * normal.y;
        bias_grad[at] = shared_sums[0].y;
    }
}

// Of BATCH, whose statistics are functions of the input too.
@compute @workgroup_size(64)
fn input_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let here = place(id);
    let c = here.channel;
    let centre = batch_statistics[c];
    let scale = batch_statistics[STRIDE + c];
    var sums = vec2(0.0);
    for (var split = 0u; split < SPLITS; split++) {
        sums += vec2(weight_sums[split * STRIDE + c], bias_sums[split * STRIDE + c]);
    }
    let means = sums / (f32(step.count) * f32(POSITIONS));
    let factor = weight[c] * scale;
    for (var k = 0u; k < here.positions; k++) {
        let at = here.at + k * TILES * LANES;
        let normalised = (input[at] - centre) * scale;
        input_grad[at] = select(0.0, factor * (gradient(at) - means.y - normalised * means.x), here.present);
    }
}

// Of RUNNING and AFFINE.
@compute @workgroup_size(64)
fn scaled_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let here = place(id);
    var factor = weight[here.channel];
    if (KIND == RUNNING) {
        factor *= inverseSqrt(spread[here.channel] + EPSILON);
    }
    for (var k = 0u; k < here.positions; k++) {
        let at = here.at + k * TILES * LANES;
        input_grad[at] = select(0.0, factor * gradient(at), here.present);
    }
}
