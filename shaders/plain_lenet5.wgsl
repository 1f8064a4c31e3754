// plain_lenet5: LeNet-5's whole training step, two launches, written to be read. Start here.
//
//     picture   one workgroup takes one picture of the batch from its bytes to the loss and all the way back.
//     update    one invocation owns one parameter: it adds up what the pictures say of it, and applies Adam.
//
// A picture passes
//
//     28×28 bytes → convolution to 6 maps of 28×28 → ReLU, maximum of 2×2 → 6 maps of 14×14
//                 → convolution to 16 maps of 10×10 → ReLU, maximum of 2×2 → 16 maps of 5×5, 400 features
//                 → linear, ReLU → 120 → linear, ReLU → 84 → linear → 10 logits → softmax, cross-entropy
//
// and its gradient the same way back. All of that fits the memory that the 256 invocations of a workgroup share (14 of
// 16 KiB). What leaves it is the picture's record: its own gradient of the convolutions' parameters, what each linear
// layer saw and what came back to it (the gradient of a weight is the product of the two), its loss.
//
// Every phase has one form. It makes n numbers; invocation t makes number t, t + 256, t + 512 and so on, each by a sum
// in an order that is always the same; then all wait for each other, since the next phase reads what others have made.
// So nothing is ever added by two at once, and the same bits come out each time.
//
// The other files compute the same in tiles of registers, for layers of any size, and are what `lenet` trains with.

override MEAN: f32 = 0.0;
override DEVIATION: f32 = 1.0;
override BETA1: f32 = 0.9;
override BETA2: f32 = 0.999;
override EPSILON: f32 = 1e-8;
override ROW: u32;                 // workgroups in one row of the grid

// Where weights and biases lie among the parameters: tensors start at multiples of 64 floats.
const CONV1 = 0u;                  // [6, 1, 5, 5]
const CONV1_BIAS = 192u;           // [6]
const CONV2 = 256u;                // [16, 6, 5, 5]
const CONV2_BIAS = 2688u;          // [16]
const LINEAR1 = 2752u;             // [120, 400]
const LINEAR1_BIAS = 50752u;       // [120]
const LINEAR2 = 50880u;            // [84, 120]
const LINEAR2_BIAS = 60992u;       // [84]
const LINEAR3 = 61120u;            // [10, 84]
const LINEAR3_BIAS = 62016u;       // [10]
const PARAMETERS = 62080u;

// Where things lie in a picture's record: from 0 to LINEAR1 the gradient of the convolutions' parameters, as these lie.
const SEEN1 = 2752u;               // 400 features, 120 and 84 hidden values: what the linear layers saw
const SEEN2 = 3152u;
const SEEN3 = 3272u;
const BACK1 = 3356u;               // 120, 84 and 10: the gradients of what they gave
const BACK2 = 3476u;
const BACK3 = 3560u;
const LOSS_OF = 3570u;             // the loss, and 1 if the largest logit is the label's
const RIGHT_OF = 3571u;
const RECORD = 3584u;

// What a step's flags say, see optimizer.wgsl.
const PARAMETER = 1u;
const MOMENT = 2u;
const GRADIENT = 4u;
const LOSS = 5u;
const EARLIER = 6u;

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
@group(0) @binding(1) var<storage, read> images: array<u32>;             // the data set: bytes, four a word
@group(0) @binding(2) var<storage, read> labels: array<u32>;             // likewise
@group(0) @binding(3) var<storage, read> order: array<u32>;              // the epoch's permutation
@group(0) @binding(4) var<storage, read> weights: array<f32>;            // the parameters, as `picture` reads them
@group(0) @binding(5) var<storage, read_write> records: array<f32>;      // one for each picture of the batch
@group(0) @binding(6) var<storage, read> made: array<f32>;               // the records, as `update` reads them
@group(0) @binding(7) var<storage, read_write> parameters: array<f32>;
@group(0) @binding(8) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(9) var<storage, read_write> moment2: array<f32>;
@group(0) @binding(10) var<storage, read_write> gradients: array<f32>;
@group(0) @binding(11) var<storage, read_write> before: array<f32>;      // parameters and moments before the step
@group(0) @binding(12) var<storage, read_write> metrics: array<atomic<u32>>;   // ring of (loss as bits, right, count, flags), status

// In backward, the gradient of a value takes the value's place once that has been used.
var<workgroup> bytes: array<u32, 196>;
var<workgroup> map1: array<f32, 1176>;         // [6, 14, 14]
var<workgroup> place1: array<u32, 1176>;       // which of the four in the window was the largest, or NOWHERE
var<workgroup> map2: array<f32, 400>;          // [16, 5, 5]
var<workgroup> place2: array<u32, 400>;
var<workgroup> hidden1: array<f32, 120>;
var<workgroup> hidden2: array<f32, 84>;
var<workgroup> logits: array<f32, 10>;

const THREADS = 256u;
// The ReLU is flat: no gradient goes through.
const NOWHERE = 4u;

// A pixel of the picture with the two rows and columns of background that the first convolution sees around it.
fn pixel(y: u32, x: u32) -> f32 {
    let row = y - 2u;              // huge above the picture
    let column = x - 2u;
    let at = min(row * 28u + column, 783u);
    let byte = (bytes[at / 4u] >> (at % 4u * 8u)) & 255u;
    return (select(0.0, f32(byte), (row < 28u) & (column < 28u)) / 255.0 - MEAN) / DEVIATION;
}

struct Peak {
    value: f32,
    place: u32,
}

// The largest of a window after the ReLU, and where it was: the first of equals.
fn peak(z: vec4<f32>) -> Peak {
    var best = Peak(z.x, 0u);
    if (z.y > best.value) { best = Peak(z.y, 1u); }
    if (z.z > best.value) { best = Peak(z.z, 2u); }
    if (z.w > best.value) { best = Peak(z.w, 3u); }
    if (best.value <= 0.0) { best = Peak(0.0, NOWHERE); }
    return best;
}

// From bytes to the second maps.
fn forward(t: u32, record: u32) {
    for (var i = t; i < 1176u; i += THREADS) {
        let o = i / 196u;
        let y = i % 196u / 14u * 2u;
        let x = i % 14u * 2u;
        var z = vec4(weights[CONV1_BIAS + o]);
        for (var k = 0u; k < 25u; k++) {
            let v = y + k / 5u;
            let u = x + k % 5u;
            z += weights[CONV1 + o * 25u + k] * vec4(pixel(v, u), pixel(v, u + 1u), pixel(v + 1u, u), pixel(v + 1u, u + 1u));
        }
        let best = peak(z);
        map1[i] = best.value;
        place1[i] = best.place;
    }
    workgroupBarrier();
    for (var i = t; i < 400u; i += THREADS) {
        let o = i / 25u;
        let corner = i % 25u / 5u * 28u + i % 5u * 2u;
        var z = vec4(weights[CONV2_BIAS + o]);
        for (var k = 0u; k < 150u; k++) {
            let at = k / 25u * 196u + corner + k % 25u / 5u * 14u + k % 5u;
            z += weights[CONV2 + o * 150u + k] * vec4(map1[at], map1[at + 1u], map1[at + 14u], map1[at + 15u]);
        }
        let best = peak(z);
        map2[i] = best.value;
        place2[i] = best.place;
        records[record + SEEN1 + i] = best.value;
    }
    workgroupBarrier();
}

// From the features to the logits.
fn classify(t: u32, record: u32) {
    for (var o = t; o < 120u; o += THREADS) {
        var z = weights[LINEAR1_BIAS + o];
        for (var i = 0u; i < 400u; i++) { z += weights[LINEAR1 + o * 400u + i] * map2[i]; }
        hidden1[o] = select(z, 0.0, z <= 0.0);
        records[record + SEEN2 + o] = hidden1[o];
    }
    workgroupBarrier();
    for (var o = t; o < 84u; o += THREADS) {
        var z = weights[LINEAR2_BIAS + o];
        for (var i = 0u; i < 120u; i++) { z += weights[LINEAR2 + o * 120u + i] * hidden1[i]; }
        hidden2[o] = select(z, 0.0, z <= 0.0);
        records[record + SEEN3 + o] = hidden2[o];
    }
    workgroupBarrier();
    for (var o = t; o < 10u; o += THREADS) {
        var z = weights[LINEAR3_BIAS + o];
        for (var i = 0u; i < 84u; i++) { z += weights[LINEAR3 + o * 84u + i] * hidden2[i]; }
        logits[o] = z;
    }
    workgroupBarrier();
}

// The loss −log p[label], where p is the softmax, and its gradient (p[k] − [k = label]) / count, which is the mean's.
fn judge(t: u32, record: u32, label: u32) {
    var best = 0u;
    for (var k = 1u; k < 10u; k++) {
        if (logits[k] > logits[best]) { best = k; }
    }
    // Less the largest, so that no exponential overflows.
    let most = logits[best];
    var sum = 0.0;
    for (var k = 0u; k < 10u; k++) { sum += exp(logits[k] - most); }
    let own = logits[min(t, 9u)];
    workgroupBarrier();
    if (t < 10u) {
        let share = (exp(own - most) / sum - select(0.0, 1.0, t == label)) / f32(step.count);
        logits[t] = share;
        records[record + BACK3 + t] = share;
    }
    if (t == label) {
        records[record + LOSS_OF] = most - own + log(sum);
        records[record + RIGHT_OF] = select(0.0, 1.0, best == label);
    }
    workgroupBarrier();
}

// From the logits' gradient to the features'. What a ReLU cut off has none.
fn back_to_features(t: u32, record: u32) {
    for (var i = t; i < 84u; i += THREADS) {
        var g = 0.0;
        for (var o = 0u; o < 10u; o++) { g += weights[LINEAR3 + o * 84u + i] * logits[o]; }
        hidden2[i] = select(g, 0.0, hidden2[i] <= 0.0);
        records[record + BACK2 + i] = hidden2[i];
    }
    workgroupBarrier();
    for (var i = t; i < 120u; i += THREADS) {
        var g = 0.0;
        for (var o = 0u; o < 84u; o++) { g += weights[LINEAR2 + o * 120u + i] * hidden2[o]; }
        hidden1[i] = select(g, 0.0, hidden1[i] <= 0.0);
        records[record + BACK1 + i] = hidden1[i];
    }
    workgroupBarrier();
    for (var i = t; i < 400u; i += THREADS) {
        var g = 0.0;
        for (var o = 0u; o < 120u; o++) { g += weights[LINEAR1 + o * 400u + i] * hidden1[o]; }
        map2[i] = select(g, 0.0, place2[i] == NOWHERE);
    }
    workgroupBarrier();
}

// The second convolution. A weight is multiplied, in each window, by what its tap saw at the largest of the four
// places, and by no other: so goes its gradient, and so a pixel of the first maps gathers from the windows that saw it.
fn back_to_map1(t: u32, record: u32) {
    for (var i = t; i < 2400u; i += THREADS) {
        let o = i / 150u;
        let tap = i % 150u / 25u * 196u + i % 25u / 5u * 14u + i % 5u;
        var g = 0.0;
        for (var w = 0u; w < 25u; w++) {
            let place = place2[o * 25u + w];
            let at = (w / 5u * 2u + place % 4u / 2u) * 14u + w % 5u * 2u + place % 2u;
            g += map2[o * 25u + w] * map1[tap + at];
        }
        records[record + CONV2 + i] = g;
    }
    for (var o = t; o < 16u; o += THREADS) {
        var g = 0.0;
        for (var w = 0u; w < 25u; w++) { g += map2[o * 25u + w]; }
        records[record + CONV2_BIAS + o] = g;
    }
    workgroupBarrier();
    for (var i = t; i < 1176u; i += THREADS) {
        let c = i / 196u;
        let y = i % 196u / 14u;
        let x = i % 14u;
        var g = 0.0;
        for (var w = 0u; w < 400u; w++) {
            let place = place2[w];
            // The tap that saw this pixel at that place: huge if it would lie before the first.
            let v = y - (w % 25u / 5u * 2u + place % 4u / 2u);
            let u = x - (w % 5u * 2u + place % 2u);
            if ((v < 5u) & (u < 5u)) {
                g += map2[w] * weights[CONV2 + (w / 25u * 6u + c) * 25u + v * 5u + u];
            }
        }
        map1[i] = select(g, 0.0, place1[i] == NOWHERE);
    }
    workgroupBarrier();
}

// The first convolution; before the picture there is nothing to learn.
fn back_to_bytes(t: u32, record: u32) {
    for (var i = t; i < 150u; i += THREADS) {
        let o = i / 25u;
        var g = 0.0;
        for (var w = 0u; w < 196u; w++) {
            let place = place1[o * 196u + w];
            let y = w / 14u * 2u + place % 4u / 2u + i % 25u / 5u;
            let x = w % 14u * 2u + place % 2u + i % 5u;
            g += map1[o * 196u + w] * pixel(y, x);
        }
        records[record + CONV1 + i] = g;
    }
    for (var o = t; o < 6u; o += THREADS) {
        var g = 0.0;
        for (var w = 0u; w < 196u; w++) { g += map1[o * 196u + w]; }
        records[record + CONV1_BIAS + o] = g;
    }
}

@compute @workgroup_size(256)
fn picture(@builtin(local_invocation_index) t: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let n = workgroup.y * ROW + workgroup.x;
    if ((n == 0u) & (t == 0u)) {
        atomicStore(&metrics[step.slot * 4u + 3u], 0u);
    }
    // A last batch may have fewer pictures.
    if (n >= step.count) {
        return;
    }
    let record = n * RECORD;
    let number = order[step.cursor + n];
    for (var i = t; i < 196u; i += THREADS) {
        bytes[i] = images[number * 196u + i];
    }
    workgroupBarrier();
    forward(t, record);
    classify(t, record);
    judge(t, record, (labels[number / 4u] >> (number % 4u * 8u)) & 255u);
    back_to_features(t, record);
    back_to_map1(t, record);
    back_to_bytes(t, record);
}

// The batch's gradient of weight or bias `i` of a linear layer.
fn of_linear(i: u32, weight: u32, bias: u32, inputs: u32, outputs: u32, seen: u32, back: u32) -> f32 {
    var g = 0.0;
    if (i < weight + inputs * outputs) {
        let o = (i - weight) / inputs;
        let x = (i - weight) % inputs;
        for (var n = 0u; n < step.count; n++) { g += made[n * RECORD + back + o] * made[n * RECORD + seen + x]; }
    } else if ((i >= bias) & (i < bias + outputs)) {
        for (var n = 0u; n < step.count; n++) { g += made[n * RECORD + back + i - bias]; }
    }
    return g;
}

fn of_batch(i: u32) -> f32 {
    if (i >= LINEAR3) { return of_linear(i, LINEAR3, LINEAR3_BIAS, 84u, 10u, SEEN3, BACK3); }
    if (i >= LINEAR2) { return of_linear(i, LINEAR2, LINEAR2_BIAS, 120u, 84u, SEEN2, BACK2); }
    if (i >= LINEAR1) { return of_linear(i, LINEAR1, LINEAR1_BIAS, 400u, 120u, SEEN1, BACK1); }
    // Between the tensors lies nothing.
    let there = (i < CONV1 + 150u) | ((i >= CONV1_BIAS) & (i < CONV1_BIAS + 6u)) | ((i >= CONV2) & (i < CONV2 + 2400u))
        | ((i >= CONV2_BIAS) & (i < CONV2_BIAS + 16u));
    var g = 0.0;
    for (var n = 0u; n < step.count; n++) { g += select(0.0, made[n * RECORD + i], there); }
    return g;
}

// By the exponent's bits, since a compiler may assume that every number is finite.
fn finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

fn time() -> u32 {
    return max(step.time, 1u);
}

// Whether an earlier step failed: then no step changes anything. What fails in this one is told apart by its number.
fn halted() -> bool {
    let failed = atomicLoad(&metrics[arrayLength(&metrics) - 4u]);
    return (failed != 0u) & (failed != time());
}

fn fault(kind: u32, chunk: u32) {
    atomicMax(&metrics[step.slot * 4u + 3u], (kind << 24u) | (0xffffffu - chunk));
    atomicMax(&metrics[arrayLength(&metrics) - 4u], time());
}

// The batch's loss and how many pictures were right.
fn sum_up() {
    var loss = 0.0;
    var right = 0.0;
    for (var n = 0u; n < step.count; n++) {
        loss += made[n * RECORD + LOSS_OF];
        right += made[n * RECORD + RIGHT_OF];
    }
    let at = step.slot * 4u;
    atomicStore(&metrics[at], bitcast<u32>(loss));
    atomicStore(&metrics[at + 1u], u32(right));
    atomicStore(&metrics[at + 2u], step.count);
    if (halted()) {
        atomicMax(&metrics[at + 3u], EARLIER << 24u);
    } else if (!finite(loss)) {
        fault(LOSS, 0u);
    }
}

@compute @workgroup_size(64)
fn update(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i >= PARAMETERS) {
        if (i == PARAMETERS) { sum_up(); }
        return;
    }
    if (halted()) {
        return;
    }
    let p = parameters[i];
    let old_m = moment1[i];
    let old_v = moment2[i];
    before[i] = p;
    before[PARAMETERS + i] = old_m;
    before[2u * PARAMETERS + i] = old_v;
    let g = of_batch(i);
    gradients[i] = g;
    let m = BETA1 * old_m + (1.0 - BETA1) * g;
    let v = BETA2 * old_v + (1.0 - BETA2) * g * g;
    let next = p - step.learning_rate * step.correction1 * m / (sqrt(v) * step.correction2 + EPSILON);
    moment1[i] = m;
    moment2[i] = v;
    parameters[i] = next;
    if (!finite(g)) {
        fault(GRADIENT, i / 64u);
    } else if (!(finite(m) & finite(v))) {
        fault(MOMENT, i / 64u);
    } else if (!finite(next)) {
        fault(PARAMETER, i / 64u);
    }
}
