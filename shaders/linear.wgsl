// linear: a fully connected layer with its activation, and the gradients.
//
//     output[n, o]      = f(bias[o] + Σ i  weight[o, i] · input[n, i])
//     input_grad[n, i]  = Σ o              weight[o, i] · output_grad[n, o] · g′(input[n, i])
//     weight_grad[o, i] = Σ n              output_grad[n, o] · input[n, i]
//     bias_grad[o]      = Σ n              output_grad[n, o]
//
// `output_grad` is the gradient before f: whoever makes it multiplies by f′, as `input_gradient` does here by
// g′, the derivative of the activation that made this layer's input (INPUT_ACTIVATION), by its own value.
// Weights are out × in, as in PyTorch. A picture is its own flattening, in the order channel, row, column.
//
// Layout: activations lie in blocks of 16 images, the image varying fastest (see conv2d.wgsl); here they are
// taken four images at a time, so that every load is a vec4. In `forward` and `input_gradient` an invocation
// holds up to 8 features of 4 images, and a workgroup of 64 is up to 64 images × 32 features. In `weight_gradient` it
// holds a tile of 4 × 4 weights and runs over the images of every SPLITS-th block; each split writes its own
// partial sum, which the optimizer adds up. The tile after a row's last holds the bias.
//
// Where that leaves a device empty, invocations hold fewer features, and the terms of a sum are dealt out to several
// of a workgroup (SHARES), which meet in its memory in a fixed order. Tile sizes and shares are constants: what is
// beyond them, the compiler leaves out altogether.

override INPUTS: u32;
override OUTPUTS: u32;
override BIAS: bool;
override ACTIVATION: u32 = 99;          // of this layer; 99 is none
override INPUT_ACTIVATION: u32 = 99;    // of the layer before, where `input_gradient` applies its derivative
override FEATURES: u32;                 // of an invocation of `forward`: 8, 4, 2 or 1
override SHARES: u32;                   // of a sum of `forward`: 1, or up to 16 of at most 4 features
override ACROSS: u32;                   // fours of images side by side in a workgroup of `forward`
override IN_FEATURES: u32;              // the same of `input_gradient`
override IN_SHARES: u32;
override IN_ACROSS: u32;
override WEIGHT_SHARES: u32;            // of a sum of `weight_gradient`
override BLOCKS: u32;                   // blocks of 16 images in the batch
override SPLITS: u32;                   // partial sums of `weight_gradient`
override GRID_ROWS: u32;                // rows of the grid, among which its workgroups are dealt out

override QUADS = BLOCKS * 4;            // of images
// Invocations of a workgroup that have sums of their own.
override APART = 64 / SHARES;
override IN_APART = 64 / IN_SHARES;
override WEIGHT_APART = 64 / WEIGHT_SHARES;
// Of a workgroup: its features; and workgroups: side by side, of all features, and of a row of the grid.
override OUT_ALONG = APART / ACROSS * FEATURES;
override OUT_QUAD_GROUPS = (QUADS + ACROSS - 1) / ACROSS;
override OUTPUT_GROUPS = OUT_QUAD_GROUPS * ((OUTPUTS + OUT_ALONG - 1) / OUT_ALONG);
override OUTPUT_ROW = (OUTPUT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override IN_ALONG = IN_APART / IN_ACROSS * IN_FEATURES;
override IN_QUAD_GROUPS = (QUADS + IN_ACROSS - 1) / IN_ACROSS;
override INPUT_GROUPS = IN_QUAD_GROUPS * ((INPUTS + IN_ALONG - 1) / IN_ALONG);
override INPUT_ROW = (INPUT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
override INPUT_TILES = (INPUTS + 3) / 4;
override OUTPUT_TILES = (OUTPUTS + 3) / 4;
override ROW_TILES = INPUT_TILES + select(0u, 1u, BIAS);
override WEIGHT_GROUPS = (SPLITS * OUTPUT_TILES * ROW_TILES + WEIGHT_APART - 1) / WEIGHT_APART;
override WEIGHT_ROW = (WEIGHT_GROUPS + GRID_ROWS - 1) / GRID_ROWS;
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (INPUTS * OUTPUTS + 63) / 64 * 64;
override BIAS_STRIDE = (OUTPUTS + 63) / 64 * 64;

const LOW = vec4(0u, 1u, 2u, 3u);

// The activations whose derivative is a function of their value; the numbers are activation.wgsl's.
const RELU = 0u;
const SIGMOID = 2u;
const TANH = 3u;
const SCALED_TANH = 4u;

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> output_grad: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> input_grad: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> weight_grad: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> bias_grad: array<f32>;

// Some drivers compute exp(2x) and overflow; beyond 15 the result is ±1 in f32. What is no number stays none.
fn safe_tanh(x: vec4<f32>) -> vec4<f32> {
    return select(tanh(clamp(x, vec4(-15.0), vec4(15.0))), x, (bitcast<vec4<u32>>(x) << vec4(1u)) > vec4(0xff000000u));
}

// A maximum might leave a NaN out, so that a ReLU is none.
fn activate(z: vec4<f32>) -> vec4<f32> {
    switch (ACTIVATION) {
        case RELU: { return select(z, vec4(0.0), z <= vec4(0.0)); }
        case SIGMOID: { return 1.0 / (1.0 + exp(-z)); }
        case TANH: { return safe_tanh(z); }
        case SCALED_TANH: { return 1.7159 * safe_tanh(z * (2.0 / 3.0)); }
        default: { return z; }
    }
}

// The derivative of the input's activation where its value is `y`.
fn slope(y: vec4<f32>) -> vec4<f32> {
    switch (INPUT_ACTIVATION) {
        case RELU: { return select(vec4(0.0), vec4(1.0), y > vec4(0.0)); }
        case SIGMOID: { return y * (1.0 - y); }
        case TANH: { return 1.0 - y * y; }
        case SCALED_TANH: { return 1.7159 * (2.0 / 3.0) - y * y * (2.0 / 3.0 / 1.7159); }
        default: { return vec4(1.0); }
    }
}

// Four neighbouring weights; one load where rows are whole vectors. What lies beyond a row is not used.
fn weights(at: u32) -> vec4<f32> {
    if (INPUTS % 4u == 0u) {
        return weight[at / 4u];
    }
    let next = at + LOW;
    return vec4(weight[next.x / 4u][next.x % 4u], weight[next.y / 4u][next.y % 4u], weight[next.z / 4u][next.z % 4u], weight[next.w / 4u][next.w % 4u]);
}

// The bias, to which the first share of a sum adds.
fn start(o: u32, share: u32) -> vec4<f32> {
    if (BIAS && share == 0u) {
        return vec4(bias[min(o, OUTPUTS - 1u)]);
    }
    return vec4(0.0);
}

// Where four images of a feature lie.
fn place(quad: u32, features: u32, feature: u32) -> u32 {
    return (quad / 4u * features + feature) * 4u + quad % 4u;
}

// What an invocation holds: up to eight features of four images.
struct Held {
    low: mat4x4<f32>,
    high: mat4x4<f32>,
}

// Four vec4 of each of the 64 invocations.
var<workgroup> partial: array<mat4x4<f32>, 64>;

// Adds up what those have that share a sum: they are `apart` from each other, and the first of them gets all.
fn meet(invocation: u32, apart: u32, mine: mat4x4<f32>) -> mat4x4<f32> {
    partial[invocation] = mine;
    for (var half = 32u; half >= apart; half /= 2u) {
        workgroupBarrier();
        if (invocation < half) {
            partial[invocation] += partial[invocation + half];
        }
    }
    return partial[invocation];
}

fn output_sums(quad: u32, first: u32, share: u32) -> Held {
    if (quad >= QUADS || first >= OUTPUTS) {
        return Held();
    }
    var sum0 = start(first, share);
    var sum1 = start(first + 1u, share);
    var sum2 = start(first + 2u, share);
    var sum3 = start(first + 3u, share);
    var sum4 = start(first + 4u, share);
    var sum5 = start(first + 5u, share);
    var sum6 = start(first + 6u, share);
    var sum7 = start(first + 7u, share);
    // Rows beyond the last repeat it: they are computed and not stored.
    let low = min(first + LOW, vec4(OUTPUTS - 1u)) * INPUTS;
    let high = min(first + 4u + LOW, vec4(OUTPUTS - 1u)) * INPUTS;
    let at = place(quad, INPUTS, 0u);
    let whole = INPUTS / 4u * 4u;
    for (var i = share * 4u; i < whole; i += 4u * SHARES) {
        let x = mat4x4(input[at + i * 4u], input[at + i * 4u + 4u], input[at + i * 4u + 8u], input[at + i * 4u + 12u]);
        sum0 += x * weights(low.x + i);
        if (FEATURES > 1u) {
            sum1 += x * weights(low.y + i);
        }
        if (FEATURES > 2u) {
            sum2 += x * weights(low.z + i);
            sum3 += x * weights(low.w + i);
        }
        if (FEATURES > 4u) {
            sum4 += x * weights(high.x + i);
            sum5 += x * weights(high.y + i);
            sum6 += x * weights(high.z + i);
            sum7 += x * weights(high.w + i);
        }
    }
    for (var i = whole + share; i < INPUTS; i += SHARES) {
        let x = input[at + i * 4u];
        sum0 += x * weights(low.x + i).x;
        if (FEATURES > 1u) {
            sum1 += x * weights(low.y + i).x;
        }
        if (FEATURES > 2u) {
            sum2 += x * weights(low.z + i).x;
            sum3 += x * weights(low.w + i).x;
        }
        if (FEATURES > 4u) {
            sum4 += x * weights(high.x + i).x;
            sum5 += x * weights(high.y + i).x;
            sum6 += x * weights(high.z + i).x;
            sum7 += x * weights(high.w + i).x;
        }
    }
    return Held(mat4x4(sum0, sum1, sum2, sum3), mat4x4(sum4, sum5, sum6, sum7));
}

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let share = select(invocation / APART, 0u, SHARES == 1u);
    let number = workgroup.y * OUTPUT_ROW + workgroup.x;
    let quad = number % OUT_QUAD_GROUPS * ACROSS + invocation % ACROSS;
    let first = number / OUT_QUAD_GROUPS * OUT_ALONG + invocation % APART / ACROSS * FEATURES;
    var sums = output_sums(quad, first, share);
    if (SHARES > 1u) {
        sums.low = meet(invocation, APART, sums.low);
    }
    if (quad >= QUADS || first >= OUTPUTS || share > 0u) {
        return;
    }
    let there = place(quad, OUTPUTS, first);
    let rows = select(min(OUTPUTS - first, FEATURES), FEATURES, OUTPUTS % FEATURES == 0u);
    output[there] = activate(sums.low[0]);
    if (rows > 1u) { output[there + 4u] = activate(sums.low[1]); }
    if (rows > 2u) { output[there + 8u] = activate(sums.low[2]); }
    if (rows > 3u) { output[there + 12u] = activate(sums.low[3]); }
    if (rows > 4u) { output[there + 16u] = activate(sums.high[0]); }
    if (rows > 5u) { output[there + 20u] = activate(sums.high[1]); }
    if (rows > 6u) { output[there + 24u] = activate(sums.high[2]); }
    if (rows > 7u) { output[there + 28u] = activate(sums.high[3]); }
}

fn store_input_grad(at: u32, value: vec4<f32>) {
    if (INPUT_ACTIVATION == 99u) {
        input_grad[at] = value;
    } else {
        input_grad[at] = value * slope(input[at]);
    }
}

// The first weights of an invocation of `input_gradient`, from `at` on.
fn first_weights(at: u32) -> vec4<f32> {
    if (IN_FEATURES > 2u) {
        return weights(at);
    }
    return vec4(weight[at / 4u][at % 4u], weight[(at + 1u) / 4u][(at + 1u) % 4u], 0.0, 0.0);
}

fn input_sums(quad: u32, first: u32, share: u32) -> Held {
    if (quad >= QUADS || first >= INPUTS) {
        return Held();
    }
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    var sum4 = vec4(0.0);
    var sum5 = vec4(0.0);
    var sum6 = vec4(0.0);
    var sum7 = vec4(0.0);
    let at = place(quad, OUTPUTS, 0u);
    // Two outputs a round; the second of an odd last one is that one again, and counts for nothing. The length of the
    // buffer says how many, since a loop over a constant would be unrolled, and compiled for seconds.
    let outputs = arrayLength(&output_grad) / QUADS;
    for (var o = share * 2u; o < outputs; o += 2u * IN_SHARES) {
        let next = min(o + 1u, OUTPUTS - 1u);
        let g = output_grad[at + o * 4u];
        let h = select(vec4(0.0), output_grad[at + next * 4u], (OUTPUTS % 2u == 0u) | (next > o));
        let low = first_weights(o * INPUTS + first);
        let next_low = first_weights(next * INPUTS + first);
        sum0 += g * low.x + h * next_low.x;
        if (IN_FEATURES > 1u) {
            sum1 += g * low.y + h * next_low.y;
        }
        if (IN_FEATURES > 2u) {
            sum2 += g * low.z + h * next_low.z;
            sum3 += g * low.w + h * next_low.w;
        }
        if (IN_FEATURES > 4u) {
            let high = weights(o * INPUTS + first + 4u);
            let next_high = weights(next * INPUTS + first + 4u);
            sum4 += g * high.x + h * next_high.x;
            sum5 += g * high.y + h * next_high.y;
            sum6 += g * high.z + h * next_high.z;
            sum7 += g * high.w + h * next_high.w;
        }
    }
    return Held(mat4x4(sum0, sum1, sum2, sum3), mat4x4(sum4, sum5, sum6, sum7));
}

fn input_part(invocation: u32, workgroup: u32) {
    let share = select(invocation / IN_APART, 0u, IN_SHARES == 1u);
    let quad = workgroup % IN_QUAD_GROUPS * IN_ACROSS + invocation % IN_ACROSS;
    let first = workgroup / IN_QUAD_GROUPS * IN_ALONG + invocation % IN_APART / IN_ACROSS * IN_FEATURES;
    var sums = input_sums(quad, first, share);
    if (IN_SHARES > 1u) {
        sums.low = meet(invocation, IN_APART, sums.low);
    }
    if (quad >= QUADS || first >= INPUTS || share > 0u) {
        return;
    }
    let there = place(quad, INPUTS, first);
    let rows = select(min(INPUTS - first, IN_FEATURES), IN_FEATURES, INPUTS % IN_FEATURES == 0u);
    store_input_grad(there, sums.low[0]);
    if (rows > 1u) { store_input_grad(there + 4u, sums.low[1]); }
    if (rows > 2u) { store_input_grad(there + 8u, sums.low[2]); }
    if (rows > 3u) { store_input_grad(there + 12u, sums.low[3]); }
    if (rows > 4u) { store_input_grad(there + 16u, sums.high[0]); }
    if (rows > 5u) { store_input_grad(there + 20u, sums.high[1]); }
    if (rows > 6u) { store_input_grad(there + 24u, sums.high[2]); }
    if (rows > 7u) { store_input_grad(there + 28u, sums.high[3]); }
}

// Four weights of one row, as far as the row has them; one store where rows are whole vectors.
fn store_weight_grad(at: u32, columns: u32, value: vec4<f32>) {
    if (INPUTS % 4u == 0u) {
        weight_grad[at / 4u] = value;
        return;
    }
    store_element(at, value.x);
    if (columns > 1u) { store_element(at + 1u, value.y); }
    if (columns > 2u) { store_element(at + 2u, value.z); }
    if (columns > 3u) { store_element(at + 3u, value.w); }
}

fn store_element(at: u32, value: f32) {
    weight_grad[at / 4u][at % 4u] = value;
}

// Four weights of each of four outputs; of the biases' tile the first column.
fn tile_sums(tile: u32, first_output: u32, split: u32, share: u32) -> mat4x4<f32> {
    if (split >= SPLITS) {
        return mat4x4<f32>();
    }
    // In units of four images.
    let o = min(first_output + LOW, vec4(OUTPUTS - 1u)) * 4u;
    // Of four images each. The length of the buffer says how many, since a loop over a constant would be
    // unrolled, and compiled for seconds.
    let quads = (arrayLength(&output_grad) / (OUTPUTS * 4u) - split + SPLITS - 1u) / SPLITS * 4u;
    if (tile == INPUT_TILES) {
        let ones = vec4(1.0);
        var sum = vec4(0.0);
        for (var quad = share; quad < quads; quad += WEIGHT_SHARES) {
            let there = (split + quad / 4u * SPLITS) * OUTPUTS * 4u + quad % 4u;
            sum += vec4(dot(output_grad[there + o.x], ones), dot(output_grad[there + o.y], ones),
                dot(output_grad[there + o.z], ones), dot(output_grad[there + o.w], ones));
        }
        return mat4x4(sum, vec4(0.0), vec4(0.0), vec4(0.0));
    }
    let i = min(tile * 4u + LOW, vec4(INPUTS - 1u)) * 4u;
    // sum0 holds four weights of the first output, and so on.
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var quad = share; quad < quads; quad += WEIGHT_SHARES) {
        let block = split + quad / 4u * SPLITS;
        let at = block * INPUTS * 4u + quad % 4u;
        let x = mat4x4(input[at + i.x], input[at + i.y], input[at + i.z], input[at + i.w]);
        let there = block * OUTPUTS * 4u + quad % 4u;
        sum0 += output_grad[there + o.x] * x;
        sum1 += output_grad[there + o.y] * x;
        sum2 += output_grad[there + o.z] * x;
        sum3 += output_grad[there + o.w] * x;
    }
    return mat4x4(sum0, sum1, sum2, sum3);
}

fn weight_part(invocation: u32, workgroup: u32) {
    let share = select(invocation / WEIGHT_APART, 0u, WEIGHT_SHARES == 1u);
    let index = workgroup * WEIGHT_APART + invocation % WEIGHT_APART;
    let tile = index % ROW_TILES;
    let first_output = index / ROW_TILES % OUTPUT_TILES * 4u;
    let split = index / (ROW_TILES * OUTPUT_TILES);
    var sums = tile_sums(tile, first_output, split, share);
    if (WEIGHT_SHARES > 1u) {
        sums = meet(invocation, WEIGHT_APART, sums);
    }
    if (split >= SPLITS || share > 0u) {
        return;
    }
    let rows = select(OUTPUTS - first_output, 4u, OUTPUTS % 4u == 0u);
    if (tile == INPUT_TILES) {
        let at = split * BIAS_STRIDE + first_output;
        bias_grad[at] = sums[0].x;
        if (rows > 1u) { bias_grad[at + 1u] = sums[0].y; }
        if (rows > 2u) { bias_grad[at + 2u] = sums[0].z; }
        if (rows > 3u) { bias_grad[at + 3u] = sums[0].w; }
        return;
    }
    let at = split * WEIGHT_STRIDE + first_output * INPUTS + tile * 4u;
    let columns = INPUTS - tile * 4u;
    store_weight_grad(at, columns, sums[0]);
    if (rows > 1u) { store_weight_grad(at + INPUTS, columns, sums[1]); }
    if (rows > 2u) { store_weight_grad(at + 2u * INPUTS, columns, sums[2]); }
    if (rows > 3u) { store_weight_grad(at + 3u * INPUTS, columns, sums[3]); }
}

@compute @workgroup_size(64)
fn weight_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    weight_part(invocation, workgroup.y * WEIGHT_ROW + workgroup.x);
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    input_part(invocation, workgroup.y * INPUT_ROW + workgroup.x);
}

// Both in one launch: workgroups of the weights' and of the input's gradient take turns, so that adapters which
// deal out workgroups in order give every core some of both. Each row of the grid has its share of either, as many as
// any other.
@compute @workgroup_size(64)
fn backward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let all = WEIGHT_ROW + INPUT_ROW;
    let before = workgroup.x * INPUT_ROW / all;
    let of_input = (workgroup.x + 1u) * INPUT_ROW / all > before;
    // Without a branch around them, which software adapters run with more masks: the part that is not meant is given
    // a workgroup after its last.
    weight_part(invocation, select(workgroup.y * WEIGHT_ROW + workgroup.x - before, WEIGHT_GROUPS, of_input));
    // Both parts meet in the same memory.
    if (WEIGHT_SHARES > 1u && IN_SHARES > 1u) {
        workgroupBarrier();
    }
    input_part(invocation, select(INPUT_GROUPS, workgroup.y * INPUT_ROW + before, of_input));
}
