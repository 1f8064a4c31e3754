// loss: softmax with cross-entropy, its gradient, the accuracy, and their sums over a batch.
//
//     p[n, k]         = exp(z[n, k] − m) / Σ exp(z[n, j] − m)          m = max k of z[n, k]
//     q[n, k]         = (1 − SMOOTHING) · [k = label n] + SMOOTHING / CLASSES
//     loss[n]         = −Σ k  q[n, k] · log p[n, k]
//     logits_grad[n, k] = (p[n, k] − q[n, k]) / count                   the gradient of the mean over the batch
//
// An image counts as right when its label is the first largest logit. Lanes from `count` on hold no image:
// their loss and gradient are 0, so that nothing of them reaches a weight.
//
// Layout: logits lie in blocks of 16 images, the image varying fastest (see conv2d.wgsl). One invocation
// computes one image. `sum_rows` is one workgroup: 64 strided sums, then a tree, always in the same order.

override CLASSES: u32;
override BLOCKS: u32;          // blocks of 16 images in the batch
override SMOOTHING: f32 = 0.0;

const LANES = 16u;
const LOSS_NOT_FINITE = 1u;

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
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;       // of the whole data set
@group(0) @binding(3) var<storage, read> order: array<u32>;        // the epoch's permutation
@group(0) @binding(4) var<storage, read_write> logits_grad: array<f32>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec2<f32>>;   // loss, and 1 if right, of each image
@group(0) @binding(6) var<storage, read> summed: array<vec2<f32>>;       // `rows`, as `sum_rows` reads it
@group(0) @binding(7) var<storage, read_write> metrics: array<u32>;      // ring of (loss as bits, right, count, flags)
@group(0) @binding(8) var<storage, read_write> probabilities: array<f32>;

struct Softmax {
    most: f32,     // the largest logit
    best: u32,     // its first class
    sum: f32,      // of exp(z − most)
}

fn softmax_of(start: u32) -> Softmax {
    var most = logits[start];
    var best = 0u;
    for (var k = 1u; k < CLASSES; k++) {
        let z = logits[start + k * LANES];
        if (z > most) {
            most = z;
            best = k;
        }
    }
    var sum = 0.0;
    for (var k = 0u; k < CLASSES; k++) {
        sum += exp(logits[start + k * LANES] - most);
    }
    return Softmax(most, best, sum);
}

// Writes the loss and the verdict of one image; `most − z` keeps the difference of large logits exact.
fn write_row(row: u32, start: u32, label: u32, s: Softmax) {
    var loss = s.most - logits[start + label * LANES] + log(s.sum);
    if (SMOOTHING > 0.0) {
        var spread = 0.0;
        for (var k = 0u; k < CLASSES; k++) {
            spread += s.most - logits[start + k * LANES];
        }
        loss = (1.0 - SMOOTHING) * loss + SMOOTHING * (spread / f32(CLASSES) + log(s.sum));
    }
    rows[row] = vec2(loss, select(0.0, 1.0, s.best == label));
}

@compute @workgroup_size(64)
fn cross_entropy_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row == 0u) {
        // The launches after this one only add flags.
        metrics[step.slot * 4u + 3u] = 0u;
    }
    if (row >= BLOCKS * LANES) {
        return;
    }
    let start = row / LANES * CLASSES * LANES + row % LANES;
    if (row >= step.count) {
        rows[row] = vec2(0.0);
        for (var k = 0u; k < CLASSES; k++) {
            logits_grad[start + k * LANES] = 0.0;
        }
        return;
    }
    let label = labels[order[step.cursor + row]];
    let s = softmax_of(start);
    write_row(row, start, label, s);
    let share = 1.0 / f32(step.count);
    for (var k = 0u; k < CLASSES; k++) {
        let q = select(0.0, 1.0 - SMOOTHING, k == label) + SMOOTHING / f32(CLASSES);
        logits_grad[start + k * LANES] = (exp(logits[start + k * LANES] - s.most) / s.sum - q) * share;
    }
}

@compute @workgroup_size(64)
fn cross_entropy(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= BLOCKS * LANES) {
        return;
    }
    if (row >= step.count) {
        rows[row] = vec2(0.0);
        return;
    }
    let start = row / LANES * CLASSES * LANES + row % LANES;
    write_row(row, start, labels[order[step.cursor + row]], softmax_of(start));
}

@compute @workgroup_size(64)
fn softmax(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= BLOCKS * LANES) {
        return;
    }
    let start = row / LANES * CLASSES * LANES + row % LANES;
    let s = softmax_of(start);
    for (var k = 0u; k < CLASSES; k++) {
        probabilities[start + k * LANES] = exp(logits[start + k * LANES] - s.most) / s.sum;
    }
}

var<workgroup> partial: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn sum_rows(@builtin(local_invocation_index) invocation: u32) {
    var sum = vec2(0.0);
    for (var row = invocation; row < BLOCKS * LANES; row += 64u) {
        sum += summed[row];
    }
    partial[invocation] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            partial[invocation] += partial[invocation + half];
        }
    }
    if (invocation == 0u) {
        let at = step.slot * 4u;
        let loss = bitcast<u32>(partial[0].x);
        metrics[at] = loss;
        metrics[at + 1u] = u32(partial[0].y);
        metrics[at + 2u] = step.count;
        // The exponent's bits, since a compiler may assume that there are no NaNs.
        metrics[at + 3u] = select(0u, LOSS_NOT_FINITE, (loss & 0x7f800000u) == 0x7f800000u);
    }
}
