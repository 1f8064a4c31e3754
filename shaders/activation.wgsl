// activation: an elementwise function and its gradient.
//
//     output     = f(input)
//     input_grad = f′(input) · output_grad
//
// KIND picks f; it is a pipeline constant, so that the compiler keeps one branch. One invocation computes one
// element; the layout of the tensor does not matter.

override KIND: u32;
override SLOPE: f32 = 0.01;    // of leaky ReLU, for negative inputs; ELU's alpha
override ELEMENTS: u32;
override ROW: u32;             // elements that the workgroups of one row of the grid cover

const RELU = 0u;
const LEAKY_RELU = 1u;
const SIGMOID = 2u;
const TANH = 3u;
const SCALED_TANH = 4u;
const GELU = 5u;               // x · Φ(x)
const GELU_TANH = 6u;          // its approximation by tanh
const SILU = 7u;
const ELU = 8u;
const SOFTPLUS = 9u;
const HARD_SWISH = 10u;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;
@group(0) @binding(2) var<storage, read> output_grad: array<f32>;
@group(0) @binding(3) var<storage, read_write> input_grad: array<f32>;

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-x));
}

// Some drivers compute exp(2x) and overflow; beyond 15 the result is ±1 in f32. What is no number stays none.
fn safe_tanh(x: f32) -> f32 {
    return select(tanh(clamp(x, -15.0, 15.0)), x, (bitcast<u32>(x) << 1u) > 0xff000000u);
}

// Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - series * exp(-x * x));
}

// What is no number stays none, which a minimum and a maximum do not promise.
fn value(x: f32) -> f32 {
    switch (KIND) {
        case RELU: { return select(x, 0.0, x <= 0.0); }
        case LEAKY_RELU: { return select(SLOPE * x, x, x > 0.0); }
        case SIGMOID: { return sigmoid(x); }
        case TANH: { return safe_tanh(x); }
        case SCALED_TANH: { return 1.7159 * safe_tanh(x * (2.0 / 3.0)); }
        case GELU: { return 0.5 * x * (1.0 + erf(x * 0.70710678)); }
        case GELU_TANH: { return 0.5 * x * (1.0 + safe_tanh(0.79788456 * (x + 0.044715 * x * x * x))); }
        case SILU: { return x * sigmoid(x); }
        case ELU: { return select(SLOPE * (exp(select(x, 0.0, x > 0.0)) - 1.0), x, x > 0.0); }
        case SOFTPLUS: { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }
        case HARD_SWISH: { return x * clamp(x + 3.0, 0.0, 6.0) / 6.0; }
        default: { return x; }
    }
}

fn slope(x: f32) -> f32 {
    switch (KIND) {
        case RELU: { return select(0.0, 1.0, x > 0.0); }
        case LEAKY_RELU: { return select(SLOPE, 1.0, x > 0.0); }
        case SIGMOID: { let y = sigmoid(x); return y * (1.0 - y); }
        case TANH: { let y = safe_tanh(x); return 1.0 - y * y; }
        case SCALED_TANH: { let y = safe_tanh(x * (2.0 / 3.0)); return 1.7159 * (2.0 / 3.0) * (1.0 - y * y); }
        case GELU: { return 0.5 * (1.0 + erf(x * 0.70710678)) + x * 0.39894228 * exp(-0.5 * x * x); }
        case GELU_TANH: {
            let t = safe_tanh(0.79788456 * (x + 0.044715 * x * x * x));
            return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.79788456 * (1.0 + 0.134145 * x * x);
        }
        case SILU: { let y = sigmoid(x); return y * (1.0 + x * (1.0 - y)); }
        case ELU: { return select(SLOPE * exp(min(x, 0.0)), 1.0, x > 0.0); }
        case SOFTPLUS: { return sigmoid(x); }
        case HARD_SWISH: { return select(select((2.0 * x + 3.0) / 6.0, 0.0, x <= -3.0), 1.0, x >= 3.0); }
        default: { return 1.0; }
    }
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < ELEMENTS) {
        output[i] = value(input[i]);
    }
}

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < ELEMENTS) {
        input_grad[i] = slope(input[i]) * output_grad[i];
    }
}
