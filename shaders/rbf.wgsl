// rbf: Euclidean radial basis units (LeCun et al. 1998, equation 7), and their gradients.
//
//     output[n, i]      = −Σ j  (input[n, j] − weight[i, j])²
//     input_grad[n, j]  = −2 Σ i  output_grad[n, i] · (input[n, j] − weight[i, j])
//     weight_grad[i, j] = 2 Σ n   output_grad[n, i] · (input[n, j] − weight[i, j])
//
// The paper's units give the distance, as a penalty; here its negative, so that the largest output is the nearest
// code, as of any other logits. Weights are out × in.
//
// Layout: activations lie in blocks of 16 images, the image varying fastest (see conv2d.wgsl), and are taken four
// images at a time. In `forward` an invocation holds 4 outputs, in `input_gradient` 4 inputs, of 4 images. In
// `weight_gradient` it holds a tile of 4 × 4 weights and runs over the images of every SPLITS-th block; each split
// writes its own partial sum, which the optimizer adds up.

override INPUTS: u32;
override OUTPUTS: u32;
override BLOCKS: u32;      // blocks of 16 images in the batch
override SPLITS: u32;      // partial sums of `weight_gradient`
override ROW: u32;         // invocations in one row of the grid

override QUADS = BLOCKS * 4;       // of images
override INPUT_TILES = (INPUTS + 3) / 4;
override OUTPUT_TILES = (OUTPUTS + 3) / 4;
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (INPUTS * OUTPUTS + 63) / 64 * 64;

const LOW = vec4(0u, 1u, 2u, 3u);

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> output_grad: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> input_grad: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> weight_grad: array<f32>;

// Four neighbouring weights; one load where rows are whole vectors. What lies beyond a row is not used.
fn weights(at: u32) -> vec4<f32> {
    if (INPUTS % 4u == 0u) {
        return weight[at / 4u];
    }
    let next = at + LOW;
    return vec4(weight[next.x / 4u][next.x % 4u], weight[next.y / 4u][next.y % 4u], weight[next.z / 4u][next.z % 4u], weight[next.w / 4u][next.w % 4u]);
}

// Where four images of a feature lie.
fn place(quad: u32, features: u32, feature: u32) -> u32 {
    return (quad / 4u * features + feature) * 4u + quad % 4u;
}

// Four images' squared distances from four inputs of one code.
fn distance4(x: mat4x4<f32>, w: vec4<f32>) -> vec4<f32> {
    let a = x[0] - w.x;
    let b = x[1] - w.y;
    let c = x[2] - w.z;
    let d = x[3] - w.w;
    return a * a + b * b + c * c + d * d;
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let quad = invocation % QUADS;
    let first = invocation / QUADS * 4u;
    if (first >= OUTPUTS) {
        return;
    }
    // Rows beyond the last repeat it: they are computed and not stored.
    let rows = min(first + LOW, vec4(OUTPUTS - 1u)) * INPUTS;
    let at = place(quad, INPUTS, 0u);
    let whole = INPUTS / 4u * 4u;
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var j = 0u; j < whole; j += 4u) {
        let x = mat4x4(input[at + j * 4u], input[at + j * 4u + 4u], input[at + j * 4u + 8u], input[at + j * 4u + 12u]);
        sum0 += distance4(x, weights(rows.x + j));
        sum1 += distance4(x, weights(rows.y + j));
        sum2 += distance4(x, weights(rows.z + j));
        sum3 += distance4(x, weights(rows.w + j));
    }
    for (var j = whole; j < INPUTS; j++) {
        let x = input[at + j * 4u];
        let a = x - weights(rows.x + j).x;
        let b = x - weights(rows.y + j).x;
        let c = x - weights(rows.z + j).x;
        let d = x - weights(rows.w + j).x;
        sum0 += a * a;
        sum1 += b * b;
        sum2 += c * c;
        sum3 += d * d;
    }
    let there = place(quad, OUTPUTS, first);
    output[there] = -sum0;
    if (first + 1u < OUTPUTS) { output[there + 4u] = -sum1; }
    if (first + 2u < OUTPUTS) { output[there + 8u] = -sum2; }
    if (first + 3u < OUTPUTS) { output[there + 12u] = -sum3; }
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let quad = invocation % QUADS;
    let first = invocation / QUADS * 4u;
    if (first >= INPUTS) {
        return;
    }
    let own = min(first + LOW, vec4(INPUTS - 1u)) * 4u + place(quad, INPUTS, 0u);
    let x = mat4x4(input[own.x], input[own.y], input[own.z], input[own.w]);
    let at = place(quad, OUTPUTS, 0u);
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    // The length of the buffer says how many outputs there are, since a loop over a constant would be unrolled, and
    // compiled for seconds.
    let outputs = arrayLength(&output_grad) / QUADS;
    for (var i = 0u; i < outputs; i++) {
        let g = output_grad[at + i * 4u];
        let w = weights(i * INPUTS + first);
        sum0 += g * (x[0] - w.x);
        sum1 += g * (x[1] - w.y);
        sum2 += g * (x[2] - w.z);
        sum3 += g * (x[3] - w.w);
    }
    let there = place(quad, INPUTS, first);
    input_grad[there] = -2.0 * sum0;
    if (first + 1u < INPUTS) { input_grad[there + 4u] = -2.0 * sum1; }
    if (first + 2u < INPUTS) { input_grad[there + 8u] = -2.0 * sum2; }
    if (first + 3u < INPUTS) { input_grad[there + 12u] = -2.0 * sum3; }
}

// Four images' contributions to four neighbouring weights, of which the current values are `w`.
fn pulls(g: vec4<f32>, x: mat4x4<f32>, w: vec4<f32>) -> vec4<f32> {
    return vec4(dot(g, x[0] - w.x), dot(g, x[1] - w.y), dot(g, x[2] - w.z), dot(g, x[3] - w.w));
}

// As many of four neighbouring weights as the row has.
fn store_weight_grad(at: u32, columns: u32, value: vec4<f32>) {
    weight_grad[at] = 2.0 * value.x;
    if (columns > 1u) { weight_grad[at + 1u] = 2.0 * value.y; }
    if (columns > 2u) { weight_grad[at + 2u] = 2.0 * value.z; }
    if (columns > 3u) { weight_grad[at + 3u] = 2.0 * value.w; }
}

@compute @workgroup_size(64)
fn weight_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let first_input = invocation % INPUT_TILES * 4u;
    let first_output = invocation / INPUT_TILES % OUTPUT_TILES * 4u;
    let split = invocation / (INPUT_TILES * OUTPUT_TILES);
    if (split >= SPLITS) {
        return;
    }
    // Rows and columns beyond the last repeat it.
    let rows = min(first_output + LOW, vec4(OUTPUTS - 1u));
    let columns = min(first_input + LOW, vec4(INPUTS - 1u)) * 4u;
    let w0 = weights(rows.x * INPUTS + first_input);
    let w1 = weights(rows.y * INPUTS + first_input);
    let w2 = weights(rows.z * INPUTS + first_input);
    let w3 = weights(rows.w * INPUTS + first_input);
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    let quads = (arrayLength(&output_grad) / (OUTPUTS * 4u) - split + SPLITS - 1u) / SPLITS * 4u;
    for (var quad = 0u; quad < quads; quad++) {
        let block = split + quad / 4u * SPLITS;
        let at = columns + block * INPUTS * 4u + quad % 4u;
        let x = mat4x4(input[at.x], input[at.y], input[at.z], input[at.w]);
        let there = rows * 4u + block * OUTPUTS * 4u + quad % 4u;
        sum0 += pulls(output_grad[there.x], x, w0);
        sum1 += pulls(output_grad[there.y], x, w1);
        sum2 += pulls(output_grad[there.z], x, w2);
        sum3 += pulls(output_grad[there.w], x, w3);
    }
    let at = split * WEIGHT_STRIDE + first_output * INPUTS + first_input;
    let own = INPUTS - first_input;
    store_weight_grad(at, own, sum0);
    if (first_output + 1u < OUTPUTS) { store_weight_grad(at + INPUTS, own, sum1); }
    if (first_output + 2u < OUTPUTS) { store_weight_grad(at + 2u * INPUTS, own, sum2); }
    if (first_output + 3u < OUTPUTS) { store_weight_grad(at + 3u * INPUTS, own, sum3); }
}
