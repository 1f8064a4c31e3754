// loss: softmax with cross-entropy, its gradient, the accuracy, and their sums over a batch.
//
//     p[n, k, i]           = exp(z[n, k, i] − m) / Σ j exp(z[n, j, i] − m)          m = max k of z[n, k, i]
//     q[n, k, i]           = (1 − SMOOTHING) · [k = label n, i] + SMOOTHING / CLASSES
//     loss[n, i]           = −Σ k  q[n, k, i] · log p[n, k, i]
//     logits_grad[n, k, i] = (p[n, k, i] − q[n, k, i]) / (count · POSITIONS)        the gradient of the mean
//
// A classifier has one position i an image; a net that labels every pixel has as many as its output has pixels,
// each with its own softmax, label and verdict: a row. A row counts as right when its label is the first largest
// logit. Lanes from `count` on hold no image: their loss and gradient are 0, so that nothing of them reaches a
// weight.
//
// With RUBBISH the sum over j has one term more, of the fixed logit RUBBISH_LOGIT: LeCun et al. 1998, eq. 9,
// with penalties −z and j = −RUBBISH_LOGIT. It keeps pushing all penalties up where they are small already. m is
// then the largest of it, too. It is no class: it is never the verdict, and `softmax` leaves it out, so that the
// probabilities of the classes sum to 1.
//
// Layout: logits lie in blocks of 16 images, the image varying fastest (see conv2d.wgsl): row (n, i) is number
// (n/16 · POSITIONS + i) · 16 + n % 16. Labels are bytes, four a word, the first in the low byte; that of row
// (n, i) is byte n · POSITIONS + i, n being the image's number in the data set. One invocation computes one row.
// `sum_rows` is one workgroup: 64 strided sums, then a tree, always in the same order. Where rows are many, as of a net
// that labels every pixel, `add_rows` first makes few of them in the same way, one a workgroup. Floats count the verdicts
// exactly: a binding of 128 MiB holds 2²⁴ rows at most.

override CLASSES: u32;
override POSITIONS: u32 = 1;   // of an image
override ROWS: u32;            // of the batch: blocks · POSITIONS · 16
override ROW: u32;             // invocations in one row of the grid
override SMOOTHING: f32 = 0.0;
override RUBBISH: bool = false;
override RUBBISH_LOGIT: f32 = 0.0;

const LANES = 16u;
// See optimizer.wgsl.
const LOSS = 5u;

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
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;       // of the whole data set, 4 a word
@group(0) @binding(3) var<storage, read> order: array<u32>;        // the epoch's permutation
@group(0) @binding(4) var<storage, read_write> logits_grad: array<f32>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec2<f32>>;   // loss, and 1 if right
@group(0) @binding(6) var<storage, read> summed: array<vec2<f32>>;       // `rows`, as `sum_rows` reads it
@group(0) @binding(7) var<storage, read_write> metrics: array<u32>;      // ring of (loss as bits, right, count, flags)
@group(0) @binding(8) var<storage, read_write> probabilities: array<f32>;

struct Softmax {
    most: f32,     // the largest logit, the rubbish's among them
    best: u32,     // the first class of the largest logit
    sum: f32,      // of exp(z − most)
}

// The row's first logit; those of the other classes lie POSITIONS · LANES apart.
fn start_of(row: u32) -> u32 {
    return (row / LANES / POSITIONS * CLASSES * POSITIONS + row / LANES % POSITIONS) * LANES + row % LANES;
}

// Whether the row's image is one of this step's.
fn holds_image(row: u32) -> bool {
    return row / LANES / POSITIONS * LANES + row % LANES < step.count;
}

fn label_of(row: u32) -> u32 {
    let image = row / LANES / POSITIONS * LANES + row % LANES;
    let at = order[step.cursor + image] * POSITIONS + row / LANES % POSITIONS;
    return (labels[at / 4u] >> (at % 4u * 8u)) & 255u;
}

fn softmax_of(start: u32, rubbish: bool) -> Softmax {
    var most = logits[start];
    var best = 0u;
    for (var k = 1u; k < CLASSES; k++) {
        let z = logits[start + k * POSITIONS * LANES];
        if (z > most) {
            most = z;
            best = k;
        }
    }
    var sum = 0.0;
    if (rubbish) {
        most = max(most, RUBBISH_LOGIT);
        sum = exp(RUBBISH_LOGIT - most);
    }
    for (var k = 0u; k < CLASSES; k++) {
        sum += exp(logits[start + k * POSITIONS * LANES] - most);
    }
    return Softmax(most, best, sum);
}

// Writes the loss and the verdict of one row; `most − z` keeps the difference of large logits exact.
fn write_row(row: u32, start: u32, label: u32, s: Softmax) {
    var loss = s.most - logits[start + label * POSITIONS * LANES] + log(s.sum);
    if (SMOOTHING > 0.0) {
        var spread = 0.0;
        for (var k = 0u; k < CLASSES; k++) {
            spread += s.most - logits[start + k * POSITIONS * LANES];
        }
        loss = (1.0 - SMOOTHING) * loss + SMOOTHING * (spread / f32(CLASSES) + log(s.sum));
    }
    rows[row] = vec2(loss, select(0.0, 1.0, s.best == label));
}

@compute @workgroup_size(64)
fn cross_entropy_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * ROW + id.x;
    if (row == 0u) {
        // The launches after this one only raise it.
        metrics[step.slot * 4u + 3u] = 0u;
    }
    if (row >= ROWS) {
        return;
    }
    let start = start_of(row);
    if (!holds_image(row)) {
        rows[row] = vec2(0.0);
        for (var k = 0u; k < CLASSES; k++) {
            logits_grad[start + k * POSITIONS * LANES] = 0.0;
        }
        return;
    }
    let label = label_of(row);
    let s = softmax_of(start, RUBBISH);
    write_row(row, start, label, s);
    let share = 1.0 / f32(step.count * POSITIONS);
    for (var k = 0u; k < CLASSES; k++) {
        let at = start + k * POSITIONS * LANES;
        let q = select(0.0, 1.0 - SMOOTHING, k == label) + SMOOTHING / f32(CLASSES);
        logits_grad[at] = (exp(logits[at] - s.most) / s.sum - q) * share;
    }
}

@compute @workgroup_size(64)
fn cross_entropy(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * ROW + id.x;
    if (row >= ROWS) {
        return;
    }
    if (!holds_image(row)) {
        rows[row] = vec2(0.0);
        return;
    }
    let start = start_of(row);
    write_row(row, start, label_of(row), softmax_of(start, RUBBISH));
}

@compute @workgroup_size(64)
fn softmax(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * ROW + id.x;
    if (row >= ROWS) {
        return;
    }
    let start = start_of(row);
    let s = softmax_of(start, false);
    for (var k = 0u; k < CLASSES; k++) {
        let at = start + k * POSITIONS * LANES;
        probabilities[at] = exp(logits[at] - s.most) / s.sum;
    }
}

var<workgroup> partial: array<vec2<f32>, 64>;

// As many sums as `rows` has room for.
@compute @workgroup_size(64)
fn add_rows(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    var sum = vec2(0.0);
    for (var row = workgroup.x * 64u + invocation; row < ROWS; row += arrayLength(&rows) * 64u) {
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
        rows[workgroup.x] = partial[0];
    }
}

@compute @workgroup_size(64)
fn sum_rows(@builtin(local_invocation_index) invocation: u32) {
    var sum = vec2(0.0);
    for (var row = invocation; row < ROWS; row += 64u) {
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
        metrics[at + 2u] = step.count * POSITIONS;
        // The exponent's bits, since a compiler may assume that there are no NaNs.
        metrics[at + 3u] = select(0u, (LOSS << 24u) | 0xffffffu, (loss & 0x7f800000u) == 0x7f800000u);
    }
}
