// linear: a fully connected layer and its gradients.
//
//     output[n, o]      = bias[o] + Σ i  weight[o, i] · input[n, i]
//     input_grad[n, i]  = Σ o            weight[o, i] · output_grad[n, o]
//     weight_grad[o, i] = Σ n            output_grad[n, o] · input[n, i]
//     bias_grad[o]      = Σ n            output_grad[n, o]
//
// Weights are out × in, as in PyTorch. Activations lie in blocks of 16 images, the image varying fastest
// (see conv2d.wgsl); a picture is its own flattening, in the order channel, row, column.
//
// Who computes what: in `forward` and `input_gradient` a workgroup of 64 is 4 blocks of 16 images, and each
// invocation holds 8 sums of its image, so that all 64 read the same weights. In `weight_gradient` an
// invocation holds a tile of 4 × 4 weights and runs over the images of every SPLITS-th block, four at a time;
// each split writes its own partial sum, which the optimizer adds up. The tile after the last holds the bias.

override INPUTS: u32;
override OUTPUTS: u32;
override BIAS: bool;
override BLOCKS: u32;      // blocks of 16 images in the batch
override SPLITS: u32;      // partial sums of weight_gradient

override INPUT_TILES = (INPUTS + 3) / 4;
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (INPUTS * OUTPUTS + 63) / 64 * 64;
override BIAS_STRIDE = (OUTPUTS + 63) / 64 * 64;

const LANES = 16u;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> output_grad: array<f32>;
@group(0) @binding(5) var<storage, read_write> input_grad: array<f32>;
@group(0) @binding(6) var<storage, read_write> weight_grad: array<f32>;
@group(0) @binding(7) var<storage, read_write> bias_grad: array<f32>;
// The same buffers, four images at a time.
@group(0) @binding(8) var<storage, read> input_by_4: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read> output_grad_by_4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let block = workgroup.x * 4u + invocation / LANES;
    if (block >= BLOCKS) {
        return;
    }
    let first = workgroup.y * 8u;
    // Rows beyond the last repeat it: they are computed and not stored.
    let low = min(first + vec4(0u, 1u, 2u, 3u), vec4(OUTPUTS - 1u));
    let high = min(first + vec4(4u, 5u, 6u, 7u), vec4(OUTPUTS - 1u));
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    if (BIAS) {
        sum0 = vec4(bias[low.x], bias[low.y], bias[low.z], bias[low.w]);
        sum1 = vec4(bias[high.x], bias[high.y], bias[high.z], bias[high.w]);
    }
    let row0 = low * INPUTS;
    let row1 = high * INPUTS;
    let start = block * INPUTS * LANES + lane;
    for (var i = 0u; i < INPUTS; i++) {
        let x = input[start + i * LANES];
        sum0 += x * vec4(weight[row0.x + i], weight[row0.y + i], weight[row0.z + i], weight[row0.w + i]);
        sum1 += x * vec4(weight[row1.x + i], weight[row1.y + i], weight[row1.z + i], weight[row1.w + i]);
    }
    let at = (block * OUTPUTS + first) * LANES + lane;
    let rows = OUTPUTS - first;
    output[at] = sum0.x;
    if (rows > 1u) { output[at + LANES] = sum0.y; }
    if (rows > 2u) { output[at + 2u * LANES] = sum0.z; }
    if (rows > 3u) { output[at + 3u * LANES] = sum0.w; }
    if (rows > 4u) { output[at + 4u * LANES] = sum1.x; }
    if (rows > 5u) { output[at + 5u * LANES] = sum1.y; }
    if (rows > 6u) { output[at + 6u * LANES] = sum1.z; }
    if (rows > 7u) { output[at + 7u * LANES] = sum1.w; }
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let block = workgroup.x * 4u + invocation / LANES;
    if (block >= BLOCKS) {
        return;
    }
    let first = workgroup.y * 8u;
    let low = min(first + vec4(0u, 1u, 2u, 3u), vec4(INPUTS - 1u));
    let high = min(first + vec4(4u, 5u, 6u, 7u), vec4(INPUTS - 1u));
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    let start = block * OUTPUTS * LANES + lane;
    for (var o = 0u; o < OUTPUTS; o++) {
        let g = output_grad[start + o * LANES];
        let row = o * INPUTS;
        sum0 += g * vec4(weight[row + low.x], weight[row + low.y], weight[row + low.z], weight[row + low.w]);
        sum1 += g * vec4(weight[row + high.x], weight[row + high.y], weight[row + high.z], weight[row + high.w]);
    }
    let at = (block * INPUTS + first) * LANES + lane;
    let rows = INPUTS - first;
    input_grad[at] = sum0.x;
    if (rows > 1u) { input_grad[at + LANES] = sum0.y; }
    if (rows > 2u) { input_grad[at + 2u * LANES] = sum0.z; }
    if (rows > 3u) { input_grad[at + 3u * LANES] = sum0.w; }
    if (rows > 4u) { input_grad[at + 4u * LANES] = sum1.x; }
    if (rows > 5u) { input_grad[at + 5u * LANES] = sum1.y; }
    if (rows > 6u) { input_grad[at + 6u * LANES] = sum1.z; }
    if (rows > 7u) { input_grad[at + 7u * LANES] = sum1.w; }
}

// Four weights of one row, as far as the row has them.
fn store_weight_grad(at: u32, columns: u32, value: vec4<f32>) {
    weight_grad[at] = value.x;
    if (columns > 1u) { weight_grad[at + 1u] = value.y; }
    if (columns > 2u) { weight_grad[at + 2u] = value.z; }
    if (columns > 3u) { weight_grad[at + 3u] = value.w; }
}

@compute @workgroup_size(64)
fn weight_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let tile = workgroup.x * 64u + invocation;
    let first_output = workgroup.y * 4u;
    let split = workgroup.z;
    // In units of four images.
    let o = min(first_output + vec4(0u, 1u, 2u, 3u), vec4(OUTPUTS - 1u)) * 4u;
    if (tile < INPUT_TILES) {
        let first = tile * 4u;
        let i = min(first + vec4(0u, 1u, 2u, 3u), vec4(INPUTS - 1u)) * 4u;
        // sum0 holds the four weights of the first output, and so on.
        var sum0 = vec4(0.0);
        var sum1 = vec4(0.0);
        var sum2 = vec4(0.0);
        var sum3 = vec4(0.0);
        for (var block = split; block < BLOCKS; block += SPLITS) {
            for (var k = 0u; k < 4u; k++) {
                let at = block * INPUTS * 4u + k;
                let x = mat4x4(input_by_4[at + i.x], input_by_4[at + i.y], input_by_4[at + i.z], input_by_4[at + i.w]);
                let there = block * OUTPUTS * 4u + k;
                sum0 += output_grad_by_4[there + o.x] * x;
                sum1 += output_grad_by_4[there + o.y] * x;
                sum2 += output_grad_by_4[there + o.z] * x;
                sum3 += output_grad_by_4[there + o.w] * x;
            }
        }
        let at = split * WEIGHT_STRIDE + first_output * INPUTS + first;
        let columns = INPUTS - first;
        store_weight_grad(at, columns, sum0);
        if (first_output + 1u < OUTPUTS) { store_weight_grad(at + INPUTS, columns, sum1); }
        if (first_output + 2u < OUTPUTS) { store_weight_grad(at + 2u * INPUTS, columns, sum2); }
        if (first_output + 3u < OUTPUTS) { store_weight_grad(at + 3u * INPUTS, columns, sum3); }
    } else if (BIAS && tile == INPUT_TILES) {
        var sum = vec4(0.0);
        for (var block = split; block < BLOCKS; block += SPLITS) {
            for (var k = 0u; k < 4u; k++) {
                let there = block * OUTPUTS * 4u + k;
                let ones = vec4(1.0);
                sum += vec4(dot(output_grad_by_4[there + o.x], ones), dot(output_grad_by_4[there + o.y], ones),
                    dot(output_grad_by_4[there + o.z], ones), dot(output_grad_by_4[there + o.w], ones));
            }
        }
        let at = split * BIAS_STRIDE + first_output;
        bias_grad[at] = sum.x;
        if (first_output + 1u < OUTPUTS) { bias_grad[at + 1u] = sum.y; }
        if (first_output + 2u < OUTPUTS) { bias_grad[at + 2u] = sum.z; }
        if (first_output + 3u < OUTPUTS) { bias_grad[at + 3u] = sum.w; }
    }
}
