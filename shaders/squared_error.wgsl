// squared_error: the mean squared error against one class in K, its gradient, and what the outputs say of the classes.
//
//     q[n, k, i]           = (1 − SMOOTHING) · [k = label n, i] + SMOOTHING / CLASSES
//     loss[n, i]           = Σ k  (z[n, k, i] − q[n, k, i])² / CLASSES
//     logits_grad[n, k, i] = 2 · (z[n, k, i] − q[n, k, i]) / (CLASSES · count · POSITIONS)   the gradient of the mean
//     probabilities        = max(z, 0) / Σ j max(z[j], 0)
//
// It is PyTorch's MSELoss of the outputs and the one-hot labels. Trained so, an output estimates its class's
// probability: `shares` cuts off what is negative and has the rest sum to 1; where no output is positive, the verdict
// has all of it.
//
// Rows, labels, verdicts and layout are those of loss.wgsl, whose `sum_rows` sums the losses. One invocation computes
// one row.

override CLASSES: u32;
override POSITIONS: u32 = 1;   // of an image
override ROWS: u32;            // of the batch: blocks · POSITIONS · 16
override ROW: u32;             // invocations in one row of the grid
override SMOOTHING: f32 = 0.0;

const LANES = 16u;

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
@group(0) @binding(6) var<storage, read_write> metrics: array<u32>;      // ring of (loss as bits, right, count, flags)
@group(0) @binding(7) var<storage, read_write> probabilities: array<f32>;

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

// The first class of the largest output.
fn verdict_of(start: u32) -> u32 {
    var best = 0u;
    for (var k = 1u; k < CLASSES; k++) {
        if (logits[start + k * POSITIONS * LANES] > logits[start + best * POSITIONS * LANES]) {
            best = k;
        }
    }
    return best;
}

// How far output k is from what it should be.
fn error_of(start: u32, label: u32, k: u32) -> f32 {
    let q = select(0.0, 1.0 - SMOOTHING, k == label) + SMOOTHING / f32(CLASSES);
    return logits[start + k * POSITIONS * LANES] - q;
}

// Writes the loss and the verdict of one row.
fn write_row(row: u32, start: u32, label: u32) {
    var sum = 0.0;
    for (var k = 0u; k < CLASSES; k++) {
        let error = error_of(start, label, k);
        sum += error * error;
    }
    rows[row] = vec2(sum / f32(CLASSES), select(0.0, 1.0, verdict_of(start) == label));
}

@compute @workgroup_size(64)
fn squared_error_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
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
    write_row(row, start, label);
    let share = 2.0 / f32(CLASSES) / f32(step.count * POSITIONS);
    for (var k = 0u; k < CLASSES; k++) {
        logits_grad[start + k * POSITIONS * LANES] = error_of(start, label, k) * share;
    }
}

@compute @workgroup_size(64)
fn squared_error(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * ROW + id.x;
    if (row >= ROWS) {
        return;
    }
    if (!holds_image(row)) {
        rows[row] = vec2(0.0);
        return;
    }
    write_row(row, start_of(row), label_of(row));
}

@compute @workgroup_size(64)
fn shares(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * ROW + id.x;
    if (row >= ROWS) {
        return;
    }
    let start = start_of(row);
    let best = verdict_of(start);
    var sum = 0.0;
    for (var k = 0u; k < CLASSES; k++) {
        sum += max(logits[start + k * POSITIONS * LANES], 0.0);
    }
    for (var k = 0u; k < CLASSES; k++) {
        let at = start + k * POSITIONS * LANES;
        var share = select(0.0, 1.0, k == best);
        if (sum > 0.0) {
            share = max(logits[at], 0.0) / sum;
        }
        probabilities[at] = share;
    }
}
