// join: where the branches of a network meet and part.
//
//     sum:      output     = f(a + b + …)                  2 to 4 terms (TERMS); f is ACTIVATION
//     slope:    input_grad = f′(output) · output_grad      the gradient of every term
//     concat:   output[n, OFFSET + A]            = a[n]    features side by side: A of the first part, then B of
//               output[n, OFFSET + A … + B]      = b[n]    the second, and so on
//     slice, split2, split3, split4: the reverse, which parts concat's gradient
//
// `sum` ends a residual block (He et al. 2016), and adds up the gradients of a value that several layers read.
// Features are whole images' worth: channels · rows · columns, so that concatenating them joins channels.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl). A part's features of a block lie
// together, so that parts are runs of A · 16, B · 16, … floats in a block of TOTAL · 16. One invocation computes
// or moves one element. A launch of fewer than four terms or parts binds the first again for those that it does
// not read; a part that is written cannot be bound twice, hence the entry points of one to four.

override ELEMENTS: u32;            // that are computed
override ROW: u32;                 // elements that the workgroups of one row of the grid cover
override TERMS: u32;
override ACTIVATION: u32 = 99;     // 99 is none
override A: u32;                   // features of each part
override B: u32 = 0;
override C: u32 = 0;
override D: u32 = 0;
override OFFSET: u32;              // features before the first part
override TOTAL: u32;               // features of all

const LANES = 16u;

// Those of activation.wgsl whose derivative is a function of their value.
const RELU = 0u;
const SIGMOID = 2u;
const TANH = 3u;
const SCALED_TANH = 4u;

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read> d: array<f32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;
@group(0) @binding(5) var<storage, read> value: array<f32>;            // `output`, as `slope` reads it
@group(0) @binding(6) var<storage, read> output_grad: array<f32>;
@group(0) @binding(7) var<storage, read_write> input_grad: array<f32>;
@group(0) @binding(8) var<storage, read_write> a_grad: array<f32>;
@group(0) @binding(9) var<storage, read_write> b_grad: array<f32>;
@group(0) @binding(10) var<storage, read_write> c_grad: array<f32>;
@group(0) @binding(11) var<storage, read_write> d_grad: array<f32>;

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

// The activation's derivative where its value is `y`.
fn derivative(y: f32) -> f32 {
    switch (ACTIVATION) {
        case RELU: { return select(0.0, 1.0, y > 0.0); }
        case SIGMOID: { return y * (1.0 - y); }
        case TANH: { return 1.0 - y * y; }
        case SCALED_TANH: { return 1.7159 * (2.0 / 3.0) - y * y * (2.0 / 3.0 / 1.7159); }
        default: { return 1.0; }
    }
}

@compute @workgroup_size(64)
fn sum(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= ELEMENTS) {
        return;
    }
    var z = a[i] + b[i];
    if (TERMS > 2u) {
        z += c[i];
    }
    if (TERMS > 3u) {
        z += d[i];
    }
    output[i] = activate(z);
}

@compute @workgroup_size(64)
fn slope(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < ELEMENTS) {
        input_grad[i] = derivative(value[i]) * output_grad[i];
    }
}

// Where an element of the parts lies.
struct Place {
    block: u32,
    at: u32,        // in the block's parts
    whole: u32,     // in the buffer that holds all features
}

fn place_of(i: u32) -> Place {
    let parts = (A + B + C + D) * LANES;
    let block = i / parts;
    let at = i % parts;
    return Place(block, at, (block * TOTAL + OFFSET) * LANES + at);
}

@compute @workgroup_size(64)
fn concat(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= ELEMENTS) {
        return;
    }
    let place = place_of(i);
    var at = place.at;
    if (at < A * LANES) {
        output[place.whole] = a[place.block * A * LANES + at];
        return;
    }
    at -= A * LANES;
    if (at < B * LANES) {
        output[place.whole] = b[place.block * B * LANES + at];
        return;
    }
    at -= B * LANES;
    if (at < C * LANES) {
        output[place.whole] = c[place.block * C * LANES + at];
        return;
    }
    at -= C * LANES;
    output[place.whole] = d[place.block * D * LANES + at];
}

@compute @workgroup_size(64)
fn slice(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < ELEMENTS) {
        a_grad[i] = output_grad[place_of(i).whole];
    }
}

@compute @workgroup_size(64)
fn split2(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= ELEMENTS) {
        return;
    }
    let place = place_of(i);
    let grad = output_grad[place.whole];
    if (place.at < A * LANES) {
        a_grad[place.block * A * LANES + place.at] = grad;
    } else {
        b_grad[place.block * B * LANES + place.at - A * LANES] = grad;
    }
}

@compute @workgroup_size(64)
fn split3(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= ELEMENTS) {
        return;
    }
    let place = place_of(i);
    let grad = output_grad[place.whole];
    if (place.at < A * LANES) {
        a_grad[place.block * A * LANES + place.at] = grad;
    } else if (place.at < (A + B) * LANES) {
        b_grad[place.block * B * LANES + place.at - A * LANES] = grad;
    } else {
        c_grad[place.block * C * LANES + place.at - (A + B) * LANES] = grad;
    }
}

@compute @workgroup_size(64)
fn split4(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= ELEMENTS) {
        return;
    }
    let place = place_of(i);
    let grad = output_grad[place.whole];
    if (place.at < A * LANES) {
        a_grad[place.block * A * LANES + place.at] = grad;
    } else if (place.at < (A + B) * LANES) {
        b_grad[place.block * B * LANES + place.at - A * LANES] = grad;
    } else if (place.at < (A + B + C) * LANES) {
        c_grad[place.block * C * LANES + place.at - (A + B) * LANES] = grad;
    } else {
        d_grad[place.block * D * LANES + place.at - (A + B + C) * LANES] = grad;
    }
}
