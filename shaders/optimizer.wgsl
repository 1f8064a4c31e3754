// optimizer: one launch that ends the step. It finishes every gradient, updates every parameter and sums the
// batch's loss and accuracy into the step's record.
//
// All parameters lie in one flat buffer, tensors at multiples of 64 floats; the moments lie likewise. A
// gradient arrives as `z` partial sums (see weight_gradient in conv2d.wgsl and linear.wgsl): they are added in
// order and stored over the first, where the host can read the whole gradient.
//
//     g        = Σ partial + WEIGHT_DECAY · p + L1 · sign p            (adamw: without WEIGHT_DECAY)
//     sgd        p −= lr · g
//     momentum   b = MOMENTUM · b + g;               p −= lr · b
//     nesterov   b = MOMENTUM · b + g;               p −= lr · (g + MOMENTUM · b)
//     rmsprop    v = ALPHA · v + (1 − ALPHA) · g²;   b = MOMENTUM · b + g / (√v + EPSILON);   p −= lr · b
//     adam       m = BETA1 · m + (1 − BETA1) · g;    v = BETA2 · v + (1 − BETA2) · g²
//                p −= lr · m/(1 − BETA1ᵗ) / (√v / √(1 − BETA2ᵗ) + EPSILON)
//     adamw      p −= lr · WEIGHT_DECAY · p, then adam
//
// These are PyTorch's definitions (Adam: Kingma and Ba 2015; AdamW: Loshchilov and Hutter 2019). Parameters
// whose segment is not trainable are frozen: neither gradient nor penalty moves them.
//
// With CLIP the gradient as a whole, that of frozen parameters left out, is at most that long (Pascanu et al.
// 2013, PyTorch's clip_grad_norm_). `square_sums` then runs before the rule: it stores the whole gradients, and
// each of its workgroups the sum of the squares of some. The rule adds these sums up, always in the same order:
//
//     Σ partial  is multiplied by  min(1, CLIP / (‖Σ partial‖ + 1e-6))  before the penalties
//
// A running statistic of a normalisation takes the batch's as its gradient, and its segment holds the share K of it:
//
//     p = (1 − K) · p + K · g
//
// So this launch alone writes what outlives a step. One invocation owns four neighbouring parameters; the first
// workgroup sums the metrics instead: 64 strided sums, then a tree, always in the same order.
//
// What is not finite, be it the loss, a gradient or what becomes of it, flags the step's record with what it was and
// where, and the status, the record behind the ring, with the step's number: from then on no step changes anything.
// `before` has all parameters and moments as they were before the last step that did, and `restore` puts them back.

override VECTORS: u32;             // parameters / 4
override ROW: u32;                 // invocations in one row of the grid
override ROWS: u32;                // of the batch, each with its loss and verdict (see loss.wgsl)
override POSITIONS: u32 = 1;       // of an image, that is rows
override MOMENTUM: f32 = 0.9;
override ALPHA: f32 = 0.99;
override BETA1: f32 = 0.9;
override BETA2: f32 = 0.999;
override EPSILON: f32 = 1e-8;
override WEIGHT_DECAY: f32 = 0.0;
override L1: f32 = 0.0;
override CLIP: f32 = 0.0;          // the gradient's largest norm; 0 means any
override NORMS: u32 = 0;           // sums of squares that the rule adds up / 4
override MOMENTS: u32 = 0;         // that `restore` puts back

// What a record's flags say, the kind in the highest byte: the largest is the cause of the others. Below it lies
// 0xffffff less the first chunk of 64 parameters where it is so.
const PARAMETER = 1u;
const MOMENT = 2u;
const NORM = 3u;
const GRADIENT = 4u;
const LOSS = 5u;
const EARLIER = 6u;

// What a segment holds in its last word, unless that is a share.
const FROZEN = 0u;
const TRAINED = 1u;

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
@group(0) @binding(1) var<storage, read_write> parameters: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> moment1: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> moment2: array<vec4<f32>>;
// For each 64 parameters: where their first partial sum starts, the distance to the next, how many, and FROZEN,
// TRAINED, or a running statistic's share as bits.
@group(0) @binding(5) var<storage, read> segments: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> metrics: array<atomic<u32>>;   // ring of (loss as bits, right, count, flags), then the status
@group(0) @binding(7) var<storage, read> rows: array<vec2<f32>>;              // loss, and 1 if right
// The sums of squares, as every invocation of a rule reads them, and as the workgroups of square_sums write them.
@group(0) @binding(8) var<uniform> norms: array<vec4<f32>, 4096>;
@group(0) @binding(9) var<storage, read_write> squares: array<f32>;
// Parameters, first and second moments as they were, as the rules write them and as `restore` reads them.
@group(0) @binding(10) var<storage, read_write> before: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> kept: array<vec4<f32>>;

fn finite(g: vec4<f32>) -> bool {
    // The exponent's bits, since a compiler may assume that there are no NaNs.
    return all((bitcast<vec4<u32>>(g) & vec4(0x7f800000u)) != vec4(0x7f800000u));
}

fn time() -> u32 {
    return max(step.time, 1u);
}

// Whether a step before this one failed. What fails in this one is told apart by its number.
fn halted() -> bool {
    let failed = atomicLoad(&metrics[arrayLength(&metrics) - 4u]);
    return (failed != 0u) & (failed != time());
}

fn fault(kind: u32, chunk: u32) {
    atomicMax(&metrics[step.slot * 4u + 3u], (kind << 24u) | (0xffffffu - chunk));
    atomicMax(&metrics[arrayLength(&metrics) - 4u], time());
}

var<workgroup> partial: array<vec2<f32>, 64>;

// The first workgroup, which has no parameters, sums the metrics. Last, since software adapters run what follows a
// barrier slowly. The loss kernel has set the record's flags to 0 in this step already.
fn sum_rows(invocation: u32, workgroup: vec3<u32>) {
    if (workgroup.x != 0u || workgroup.y != 0u) {
        return;
    }
    var sum = vec2(0.0);
    for (var row = invocation; row < ROWS; row += 64u) {
        sum += rows[row];
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
        atomicStore(&metrics[at], loss);
        atomicStore(&metrics[at + 1u], u32(partial[0].y));
        atomicStore(&metrics[at + 2u], step.count * POSITIONS);
        if (halted()) {
            atomicMax(&metrics[at + 3u], EARLIER << 24u);
        } else if ((loss & 0x7f800000u) == 0x7f800000u) {
            fault(LOSS, 0u);
        }
    }
}

struct Work {
    there: bool,        // whether the moments are to be kept as they are now
    update: bool,
    parameter: vec4<f32>,
    gradient: vec4<f32>,
}

// Adds up the partial sums of the four gradients at `i`, and stores them over the first.
fn whole(i: u32, segment: vec4<u32>) -> vec4<f32> {
    let at = segment.x + i % 16u;
    var g = gradients[at];
    for (var k = 1u; k < segment.z; k++) {
        g += gradients[at + k * segment.y];
    }
    gradients[at] = g;
    return g;
}

// The factor that leaves a gradient of these squares no longer than CLIP.
fn clipped(squares: f32) -> f32 {
    return min(1.0, CLIP / (sqrt(squares) + 1e-6));
}

// Keeps the four parameters at `i`, finishes their gradients, clips them and applies the penalties.
fn begin(i: u32, decay: f32) -> Work {
    let zero = vec4(0.0);
    if (i >= VECTORS) {
        return Work(false, false, zero, zero);
    }
    if (halted()) {
        return Work(false, false, zero, zero);
    }
    let p = parameters[i];
    before[i] = p;
    let segment = segments[i / 16u];
    var g: vec4<f32>;
    if (CLIP > 0.0) {
        g = gradients[segment.x + i % 16u];
    } else {
        g = whole(i, segment);
    }
    if (!finite(g)) {
        fault(GRADIENT, i / 16u);
        return Work(true, false, zero, zero);
    }
    if (segment.w > TRAINED) {
        if (step.count > 0u) {
            // Between what was and what comes, both of which are finite.
            let share = bitcast<f32>(segment.w);
            parameters[i] = (1.0 - share) * p + share * g;
        }
        return Work(true, false, zero, zero);
    }
    if (CLIP > 0.0) {
        var sums = zero;
        for (var k = 0u; k < NORMS; k++) {
            sums += norms[k];
        }
        let squares = (sums.x + sums.y) + (sums.z + sums.w);
        // What overflows leaves no length to clip to.
        if (!finite(vec4(squares))) {
            fault(NORM, 0u);
            return Work(true, false, zero, zero);
        }
        g *= clipped(squares);
    }
    return Work(true, segment.w == TRAINED, p, g + decay * p + L1 * sign(p));
}

// Stores the four parameters at `i`, and tells what became of them and of their moments.
fn end(i: u32, p: vec4<f32>, moments: bool) {
    parameters[i] = p;
    if (!moments) {
        fault(MOMENT, i / 16u);
    }
    if (!finite(p)) {
        fault(PARAMETER, i / 16u);
    }
}

var<workgroup> sums: array<f32, 64>;

// Finishes the gradients before they are clipped. Each workgroup takes 64 vectors of every ROW and sums their
// squares: 64 strided sums, then a tree.
@compute @workgroup_size(64)
fn square_sums(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
) {
    var sum = 0.0;
    for (var i = id.x; i < VECTORS; i += ROW) {
        let segment = segments[i / 16u];
        let g = whole(i, segment);
        sum += select(0.0, dot(g, g), segment.w == TRAINED);
    }
    sums[invocation] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            sums[invocation] += sums[invocation + half];
        }
    }
    if (invocation == 0u) {
        squares[workgroup.x] = sums[0];
    }
}

@compute @workgroup_size(64)
fn sgd(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = id.y * ROW + id.x - 64u;
    let work = begin(i, WEIGHT_DECAY);
    if (work.update) {
        end(i, work.parameter - step.learning_rate * work.gradient, true);
    }
    sum_rows(id.x, workgroup);
}

@compute @workgroup_size(64)
fn momentum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = id.y * ROW + id.x - 64u;
    let work = begin(i, WEIGHT_DECAY);
    if (work.there) {
        let m = moment1[i];
        before[VECTORS + i] = m;
        if (work.update) {
            let b = MOMENTUM * m + work.gradient;
            moment1[i] = b;
            end(i, work.parameter - step.learning_rate * b, finite(b));
        }
    }
    sum_rows(id.x, workgroup);
}

@compute @workgroup_size(64)
fn nesterov(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = id.y * ROW + id.x - 64u;
    let work = begin(i, WEIGHT_DECAY);
    if (work.there) {
        let m = moment1[i];
        before[VECTORS + i] = m;
        if (work.update) {
            let b = MOMENTUM * m + work.gradient;
            moment1[i] = b;
            end(i, work.parameter - step.learning_rate * (work.gradient + MOMENTUM * b), finite(b));
        }
    }
    sum_rows(id.x, workgroup);
}

@compute @workgroup_size(64)
fn rmsprop(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = id.y * ROW + id.x - 64u;
    let work = begin(i, WEIGHT_DECAY);
    if (work.there) {
        let m = moment1[i];
        before[VECTORS + i] = m;
        let v = moment2[i];
        before[2u * VECTORS + i] = v;
        if (work.update) {
            let mean = ALPHA * v + (1.0 - ALPHA) * work.gradient * work.gradient;
            let b = MOMENTUM * m + work.gradient / (sqrt(mean) + EPSILON);
            moment2[i] = mean;
            moment1[i] = b;
            end(i, work.parameter - step.learning_rate * b, finite(mean) && finite(b));
        }
    }
    sum_rows(id.x, workgroup);
}

// From the moments as they were.
fn adam_step(i: u32, p: vec4<f32>, g: vec4<f32>, old_m: vec4<f32>, old_v: vec4<f32>) {
    let m = BETA1 * old_m + (1.0 - BETA1) * g;
    let v = BETA2 * old_v + (1.0 - BETA2) * g * g;
    moment1[i] = m;
    moment2[i] = v;
    end(i, p - step.learning_rate * step.correction1 * m / (sqrt(v) * step.correction2 + EPSILON), finite(m) && finite(v));
}

@compute @workgroup_size(64)
fn adam(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = id.y * ROW + id.x - 64u;
    let work = begin(i, WEIGHT_DECAY);
    if (work.there) {
        let m = moment1[i];
        before[VECTORS + i] = m;
        let v = moment2[i];
        before[2u * VECTORS + i] = v;
        if (work.update) {
            adam_step(i, work.parameter, work.gradient, m, v);
        }
    }
    sum_rows(id.x, workgroup);
}

@compute @workgroup_size(64)
fn adamw(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let i = id.y * ROW + id.x - 64u;
    let work = begin(i, 0.0);
    if (work.there) {
        let m = moment1[i];
        before[VECTORS + i] = m;
        let v = moment2[i];
        before[2u * VECTORS + i] = v;
        if (work.update) {
            adam_step(i, work.parameter * (1.0 - step.learning_rate * WEIGHT_DECAY), work.gradient, m, v);
        }
    }
    sum_rows(id.x, workgroup);
}

// Puts back what the last step found.
@compute @workgroup_size(64)
fn restore(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= VECTORS) {
        return;
    }
    parameters[i] = kept[i];
    if (MOMENTS > 0u) {
        moment1[i] = kept[VECTORS + i];
    }
    if (MOMENTS > 1u) {
        moment2[i] = kept[2u * VECTORS + i];
    }
}
