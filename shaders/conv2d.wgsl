// conv2d: cross-correlation with stride, padding, dilation and groups, and its gradients.
//
//     output[n, o, y, x]     = bias[o] + Σ c,ky,kx  weight[o, c, ky, kx] · input[n, c, y·S + ky·D − P, x·S + kx·D − P]
//     input_grad[n, c, y, x] = Σ o,ky,kx weight[o, c, ky, kx] · output_grad[n, o, (y + P − ky·D)/S, (x + P − kx·D)/S]
//     weight_grad[o, c, ky, kx] = Σ n,y,x           output_grad[n, o, y, x] · input[n, c, y·S + ky·D − P, x·S + kx·D − P]
//     bias_grad[o]           = Σ n,y,x              output_grad[n, o, y, x]
//
// Terms outside a tensor, or at a fraction, are left out. With GROUPS > 1, output channel o sees only the
// input channels of its group. Weights are OIHW, as in PyTorch.
//
// Layout: element (n, c, y, x) of an activation is at (((n/16 · C + c) · H + y) · W + x) · 16 + n % 16. The
// 16 lanes of a block hold 16 images: their loads are contiguous and they share every weight.
//
// Who computes what: a workgroup of 64 is 16 images × 4 tiles. `forward` and `input_gradient`: a tile is 4
// neighbouring columns × 4 channels, 16 sums in registers. `weight_gradient`: a tile is 4 output channels × up to
// 5 columns of the filter, summed over the positions and images of every SPLITS-th block, then over the 16
// lanes in workgroup memory; each split writes its own partial sum, which the optimizer adds up.

override IN_CHANNELS: u32;
override IN_HEIGHT: u32;
override IN_WIDTH: u32;
override OUT_CHANNELS: u32;
override OUT_HEIGHT: u32;
override OUT_WIDTH: u32;
override KERNEL_HEIGHT: u32;
override KERNEL_WIDTH: u32;
override STRIDE_HEIGHT: u32;
override STRIDE_WIDTH: u32;
override PAD_HEIGHT: u32;
override PAD_WIDTH: u32;
override DILATION_HEIGHT: u32;
override DILATION_WIDTH: u32;
override GROUPS: u32;
override BIAS: bool;
override BLOCKS: u32;      // blocks of 16 images in the batch
override SPLITS: u32;      // partial sums of weight_gradient

override GROUP_IN = IN_CHANNELS / GROUPS;
override GROUP_OUT = OUT_CHANNELS / GROUPS;
override TAPS = KERNEL_HEIGHT * KERNEL_WIDTH;
override IN_TILES = (GROUP_IN + 3) / 4;
override OUT_TILES = (GROUP_OUT + 3) / 4;
override TAP_TILES = (KERNEL_WIDTH + 4) / 5;
override WEIGHT_TILES = GROUPS * OUT_TILES * GROUP_IN * KERNEL_HEIGHT * TAP_TILES;
override BIAS_TILES = select(0, GROUPS * OUT_TILES, BIAS);
// Each partial sum starts on a 256-byte boundary.
override WEIGHT_STRIDE = (OUT_CHANNELS * GROUP_IN * TAPS + 63) / 64 * 64;
override BIAS_STRIDE = (OUT_CHANNELS + 63) / 64 * 64;

const LANES = 16u;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> output_grad: array<f32>;
@group(0) @binding(5) var<storage, read_write> input_grad: array<f32>;
@group(0) @binding(6) var<storage, read_write> weight_grad: array<f32>;
@group(0) @binding(7) var<storage, read_write> bias_grad: array<f32>;

// The input at column `x` of the row that starts at `row` (in elements), 0 in the padding.
fn input_at(row: u32, x: i32, lane: u32) -> f32 {
    if (PAD_WIDTH == 0u) {
        return input[(row + u32(x)) * LANES + lane];
    }
    if (x < 0 || x >= i32(IN_WIDTH)) {
        return 0.0;
    }
    return input[(row + u32(x)) * LANES + lane];
}

// Four channels of one position, as far as the group has them.
fn store_output(at: u32, plane: u32, channels: u32, value: vec4<f32>) {
    output[at] = value.x;
    if (channels > 1u) { output[at + plane] = value.y; }
    if (channels > 2u) { output[at + 2u * plane] = value.z; }
    if (channels > 3u) { output[at + 3u * plane] = value.w; }
}

@compute @workgroup_size(64)
fn forward(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let tile = workgroup.x * 4u + invocation / LANES;
    let tiles = (OUT_WIDTH + 3u) / 4u;
    let y = tile / tiles;
    let x = tile % tiles * 4u;
    if (y >= OUT_HEIGHT) {
        return;
    }
    let group = workgroup.y / OUT_TILES;
    let first = workgroup.y % OUT_TILES * 4u;
    // Channels beyond the group's last repeat it: they are computed and not stored.
    let o = group * GROUP_OUT + min(first + vec4(0u, 1u, 2u, 3u), vec4(GROUP_OUT - 1u));
    var sum0 = vec4(0.0);
    if (BIAS) {
        sum0 = vec4(bias[o.x], bias[o.y], bias[o.z], bias[o.w]);
    }
    var sum1 = sum0;
    var sum2 = sum0;
    var sum3 = sum0;
    let left = i32(x * STRIDE_WIDTH) - i32(PAD_WIDTH);
    let step = i32(STRIDE_WIDTH);
    for (var c = 0u; c < GROUP_IN; c++) {
        for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
            let iy = i32(y * STRIDE_HEIGHT + ky * DILATION_HEIGHT) - i32(PAD_HEIGHT);
            if (iy >= 0 && iy < i32(IN_HEIGHT)) {
                let row = ((workgroup.z * IN_CHANNELS + group * GROUP_IN + c) * IN_HEIGHT + u32(iy)) * IN_WIDTH;
                let at = (o * GROUP_IN + c) * TAPS + ky * KERNEL_WIDTH;
                if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
                    // The window slides: each tap brings one new column.
                    var x0 = input_at(row, left, lane);
                    var x1 = input_at(row, left + 1, lane);
                    var x2 = input_at(row, left + 2, lane);
                    for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                        let x3 = input_at(row, left + i32(kx) + 3, lane);
                        let w = vec4(weight[at.x + kx], weight[at.y + kx], weight[at.z + kx], weight[at.w + kx]);
                        sum0 += w * x0;
                        sum1 += w * x1;
                        sum2 += w * x2;
                        sum3 += w * x3;
                        x0 = x1;
                        x1 = x2;
                        x2 = x3;
                    }
                } else {
                    for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                        let ix = left + i32(kx * DILATION_WIDTH);
                        let w = vec4(weight[at.x + kx], weight[at.y + kx], weight[at.z + kx], weight[at.w + kx]);
                        sum0 += w * input_at(row, ix, lane);
                        sum1 += w * input_at(row, ix + step, lane);
                        sum2 += w * input_at(row, ix + 2 * step, lane);
                        sum3 += w * input_at(row, ix + 3 * step, lane);
                    }
                }
            }
        }
    }
    let plane = OUT_HEIGHT * OUT_WIDTH * LANES;
    let at = (((workgroup.z * OUT_CHANNELS + o.x) * OUT_HEIGHT + y) * OUT_WIDTH + x) * LANES + lane;
    let channels = GROUP_OUT - first;
    store_output(at, plane, channels, sum0);
    if (x + 1u < OUT_WIDTH) { store_output(at + LANES, plane, channels, sum1); }
    if (x + 2u < OUT_WIDTH) { store_output(at + 2u * LANES, plane, channels, sum2); }
    if (x + 3u < OUT_WIDTH) { store_output(at + 3u * LANES, plane, channels, sum3); }
}

// The gradient that reached output column t / STRIDE_WIDTH, 0 at a fraction and outside.
fn output_grad_at(row: u32, t: i32, lane: u32) -> f32 {
    if (t < 0 || t % i32(STRIDE_WIDTH) != 0 || t / i32(STRIDE_WIDTH) >= i32(OUT_WIDTH)) {
        return 0.0;
    }
    return output_grad[(row + u32(t) / STRIDE_WIDTH) * LANES + lane];
}

fn store_input_grad(at: u32, plane: u32, channels: u32, value: vec4<f32>) {
    input_grad[at] = value.x;
    if (channels > 1u) { input_grad[at + plane] = value.y; }
    if (channels > 2u) { input_grad[at + 2u * plane] = value.z; }
    if (channels > 3u) { input_grad[at + 3u * plane] = value.w; }
}

@compute @workgroup_size(64)
fn input_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let tile = workgroup.x * 4u + invocation / LANES;
    let tiles = (IN_WIDTH + 3u) / 4u;
    let y = tile / tiles;
    let x = tile % tiles * 4u;
    if (y >= IN_HEIGHT) {
        return;
    }
    let group = workgroup.y / IN_TILES;
    let first = workgroup.y % IN_TILES * 4u;
    let c = min(first + vec4(0u, 1u, 2u, 3u), vec4(GROUP_IN - 1u));
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    for (var k = 0u; k < GROUP_OUT; k++) {
        let o = group * GROUP_OUT + k;
        for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
            let ty = i32(y + PAD_HEIGHT) - i32(ky * DILATION_HEIGHT);
            if (ty >= 0 && ty % i32(STRIDE_HEIGHT) == 0 && ty / i32(STRIDE_HEIGHT) < i32(OUT_HEIGHT)) {
                let row = ((workgroup.z * OUT_CHANNELS + o) * OUT_HEIGHT + u32(ty) / STRIDE_HEIGHT) * OUT_WIDTH;
                let at = (o * GROUP_IN + c) * TAPS + ky * KERNEL_WIDTH;
                let right = i32(x + PAD_WIDTH);
                if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
                    // The window slides to the left: each tap brings one new column.
                    var g1 = output_grad_at(row, right + 1, lane);
                    var g2 = output_grad_at(row, right + 2, lane);
                    var g3 = output_grad_at(row, right + 3, lane);
                    for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                        let g0 = output_grad_at(row, right - i32(kx), lane);
                        let w = vec4(weight[at.x + kx], weight[at.y + kx], weight[at.z + kx], weight[at.w + kx]);
                        sum0 += w * g0;
                        sum1 += w * g1;
                        sum2 += w * g2;
                        sum3 += w * g3;
                        g3 = g2;
                        g2 = g1;
                        g1 = g0;
                    }
                } else {
                    for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                        let tx = right - i32(kx * DILATION_WIDTH);
                        let w = vec4(weight[at.x + kx], weight[at.y + kx], weight[at.z + kx], weight[at.w + kx]);
                        sum0 += w * output_grad_at(row, tx, lane);
                        sum1 += w * output_grad_at(row, tx + 1, lane);
                        sum2 += w * output_grad_at(row, tx + 2, lane);
                        sum3 += w * output_grad_at(row, tx + 3, lane);
                    }
                }
            }
        }
    }
    let plane = IN_HEIGHT * IN_WIDTH * LANES;
    let at = (((workgroup.z * IN_CHANNELS + group * GROUP_IN + c.x) * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane;
    let channels = GROUP_IN - first;
    store_input_grad(at, plane, channels, sum0);
    if (x + 1u < IN_WIDTH) { store_input_grad(at + LANES, plane, channels, sum1); }
    if (x + 2u < IN_WIDTH) { store_input_grad(at + 2u * LANES, plane, channels, sum2); }
    if (x + 3u < IN_WIDTH) { store_input_grad(at + 3u * LANES, plane, channels, sum3); }
}

// Five sums of each of the 64 invocations.
var<workgroup> partial: array<vec4<f32>, 320>;

@compute @workgroup_size(64)
fn weight_gradient(@builtin(local_invocation_index) invocation: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let lane = invocation % LANES;
    let tile = workgroup.x * 4u + invocation / LANES;
    let split = workgroup.y;
    let plane = OUT_HEIGHT * OUT_WIDTH * LANES;
    var sum0 = vec4(0.0);
    var sum1 = vec4(0.0);
    var sum2 = vec4(0.0);
    var sum3 = vec4(0.0);
    var sum4 = vec4(0.0);
    if (tile < WEIGHT_TILES) {
        let kx = i32(tile % TAP_TILES * 5u);
        let ky = tile / TAP_TILES % KERNEL_HEIGHT;
        let c = tile / (TAP_TILES * KERNEL_HEIGHT) % GROUP_IN;
        let outs = tile / (TAP_TILES * KERNEL_HEIGHT * GROUP_IN);
        let group = outs / OUT_TILES;
        let first = outs % OUT_TILES * 4u;
        let o = group * GROUP_OUT + first;
        // Channels beyond the group's last repeat it: they are computed and not stored.
        let spread = min(vec4(0u, 1u, 2u, 3u), vec4(GROUP_OUT - 1u - first)) * plane;
        let dilation = i32(DILATION_WIDTH);
        for (var block = split; block < BLOCKS; block += SPLITS) {
            for (var y = 0u; y < OUT_HEIGHT; y++) {
                let iy = i32(y * STRIDE_HEIGHT + ky * DILATION_HEIGHT) - i32(PAD_HEIGHT);
                if (iy >= 0 && iy < i32(IN_HEIGHT)) {
                    let row = ((block * IN_CHANNELS + group * GROUP_IN + c) * IN_HEIGHT + u32(iy)) * IN_WIDTH;
                    let start = ((block * OUT_CHANNELS + o) * OUT_HEIGHT + y) * OUT_WIDTH * LANES + lane;
                    let left = kx * dilation - i32(PAD_WIDTH);
                    if (STRIDE_WIDTH == 1u && DILATION_WIDTH == 1u) {
                        var x0 = input_at(row, left, lane);
                        var x1 = input_at(row, left + 1, lane);
                        var x2 = input_at(row, left + 2, lane);
                        var x3 = input_at(row, left + 3, lane);
                        for (var x = 0u; x < OUT_WIDTH; x++) {
                            let at = start + x * LANES;
                            let g = vec4(output_grad[at], output_grad[at + spread.y], output_grad[at + spread.z], output_grad[at + spread.w]);
                            let x4 = input_at(row, left + i32(x) + 4, lane);
                            sum0 += g * x0;
                            sum1 += g * x1;
                            sum2 += g * x2;
                            sum3 += g * x3;
                            sum4 += g * x4;
                            x0 = x1;
                            x1 = x2;
                            x2 = x3;
                            x3 = x4;
                        }
                    } else {
                        for (var x = 0u; x < OUT_WIDTH; x++) {
                            let at = start + x * LANES;
                            let g = vec4(output_grad[at], output_grad[at + spread.y], output_grad[at + spread.z], output_grad[at + spread.w]);
                            let ix = left + i32(x * STRIDE_WIDTH);
                            sum0 += g * input_at(row, ix, lane);
                            sum1 += g * input_at(row, ix + dilation, lane);
                            sum2 += g * input_at(row, ix + 2 * dilation, lane);
                            sum3 += g * input_at(row, ix + 3 * dilation, lane);
                            sum4 += g * input_at(row, ix + 4 * dilation, lane);
                        }
                    }
                }
            }
        }
    } else if (tile - WEIGHT_TILES < BIAS_TILES) {
        let outs = tile - WEIGHT_TILES;
        let first = outs % OUT_TILES * 4u;
        let o = outs / OUT_TILES * GROUP_OUT + first;
        let spread = min(vec4(0u, 1u, 2u, 3u), vec4(GROUP_OUT - 1u - first)) * plane;
        for (var block = split; block < BLOCKS; block += SPLITS) {
            let start = (block * OUT_CHANNELS + o) * plane + lane;
            for (var p = 0u; p < plane; p += LANES) {
                let at = start + p;
                sum0 += vec4(output_grad[at], output_grad[at + spread.y], output_grad[at + spread.z], output_grad[at + spread.w]);
            }
        }
    }
    partial[invocation] = sum0;
    partial[invocation + 64u] = sum1;
    partial[invocation + 128u] = sum2;
    partial[invocation + 192u] = sum3;
    partial[invocation + 256u] = sum4;
    workgroupBarrier();
    // Twenty invocations add the lanes up, in order: one for each tile and column.
    if (invocation >= 20u) {
        return;
    }
    let mine = workgroup.x * 4u + invocation % 4u;
    let tap = invocation / 4u;
    var sum = vec4(0.0);
    for (var k = 0u; k < LANES; k++) {
        sum += partial[tap * 64u + invocation % 4u * LANES + k];
    }
    if (mine < WEIGHT_TILES) {
        let kx = mine % TAP_TILES * 5u + tap;
        let ky = mine / TAP_TILES % KERNEL_HEIGHT;
        let c = mine / (TAP_TILES * KERNEL_HEIGHT) % GROUP_IN;
        let outs = mine / (TAP_TILES * KERNEL_HEIGHT * GROUP_IN);
        let first = outs % OUT_TILES * 4u;
        let o = outs / OUT_TILES * GROUP_OUT + first;
        if (kx < KERNEL_WIDTH) {
            let at = split * WEIGHT_STRIDE + (o * GROUP_IN + c) * TAPS + ky * KERNEL_WIDTH + kx;
            let next = GROUP_IN * TAPS;
            weight_grad[at] = sum.x;
            if (first + 1u < GROUP_OUT) { weight_grad[at + next] = sum.y; }
            if (first + 2u < GROUP_OUT) { weight_grad[at + 2u * next] = sum.z; }
            if (first + 3u < GROUP_OUT) { weight_grad[at + 3u * next] = sum.w; }
        }
    } else if (mine - WEIGHT_TILES < BIAS_TILES && tap == 0u) {
        let outs = mine - WEIGHT_TILES;
        let first = outs % OUT_TILES * 4u;
        let o = outs / OUT_TILES * GROUP_OUT + first;
        let at = split * BIAS_STRIDE + o;
        bias_grad[at] = sum.x;
        if (first + 1u < GROUP_OUT) { bias_grad[at + 1u] = sum.y; }
        if (first + 2u < GROUP_OUT) { bias_grad[at + 2u] = sum.z; }
        if (first + 3u < GROUP_OUT) { bias_grad[at + 3u] = sum.w; }
    }
}

@group(0) @binding(8) var<storage, read> mask: array<u32>;    // 1 where output channel o sees input channel c, [o, c]

// Connections that a table leaves out, as between LeNet-5's second and third layers (LeCun et al. 1998, table I): their
// weights start at 0 and get no gradient. One invocation looks at one weight of one partial sum.
@compute @workgroup_size(64)
fn mask_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= OUT_CHANNELS * GROUP_IN * TAPS) {
        return;
    }
    // Stored, not multiplied, so that no NaN comes through.
    if (mask[id.x / TAPS] == 0u) {
        weight_grad[id.y * WEIGHT_STRIDE + id.x] = 0.0;
    }
}
