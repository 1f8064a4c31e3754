// pool2d: the maximum or the mean of each window, upsampling, and their gradients.
//
//     max:      output[n, c, y, x] = max  over ky,kx of input[n, c, y·S + ky − P, x·S + kx − P]
//     average:  output[n, c, y, x] = Σ ky,kx input[n, c, y·S + ky − P, x·S + kx − P] / cells
//     adaptive: output[n, c, y, x] = Σ iy,ix input[n, c, iy, ix] / cells
//                                    iy from ⌊y · IN / OUT⌋ up to, but not with, ⌈(y + 1) · IN / OUT⌉
//     upsample: output[n, c, y, x] = input[n, c, ⌊y / S⌋, ⌊x / S⌋]        OUT = IN · S
//
// The padding never wins a maximum. `cells` counts the padding (COUNT_PAD, PyTorch's default) or leaves it
// out; a window that reaches over the padding, as with a size rounded up, does not count what lies there.
// Adaptive windows cover the input whatever the two sizes; where these are no multiples, neighbours overlap.
// The gradient of a maximum goes to its first place in row-major order; `winner` keeps that place, ky·K + kx. Of a
// window with NaNs the last of them wins.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl).
// One invocation computes one element of the output, or gathers one element of the input's gradient.

override CHANNELS: u32;
override IN_HEIGHT: u32;
override IN_WIDTH: u32;
override OUT_HEIGHT: u32;
override OUT_WIDTH: u32;
override KERNEL_HEIGHT: u32;
override KERNEL_WIDTH: u32;
override STRIDE_HEIGHT: u32;
override STRIDE_WIDTH: u32;
override PAD_HEIGHT: u32;
override PAD_WIDTH: u32;
override COUNT_PAD: bool;
override ROW: u32;             // invocations in one row of the grid, whose layers are the blocks

const LANES = 16u;
const LOWEST = -3.4028234663852886e38;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;
@group(0) @binding(2) var<storage, read_write> winner: array<u32>;
@group(0) @binding(3) var<storage, read> output_grad: array<f32>;
@group(0) @binding(4) var<storage, read> won: array<u32>;      // `winner`, as the backward pass reads it
@group(0) @binding(5) var<storage, read_write> input_grad: array<f32>;

@compute @workgroup_size(64)
fn max_forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * OUT_HEIGHT * OUT_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (OUT_HEIGHT * OUT_WIDTH);
    let top = i32(element / OUT_WIDTH % OUT_HEIGHT * STRIDE_HEIGHT) - i32(PAD_HEIGHT);
    let left = i32(element % OUT_WIDTH * STRIDE_WIDTH) - i32(PAD_WIDTH);
    var best = LOWEST;
    // Of a window of nothing but -inf the first place within the picture wins.
    var place = u32(max(-top, 0)) * KERNEL_WIDTH + u32(max(-left, 0));
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let y = top + i32(ky);
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let x = left + i32(kx);
            if (y >= 0 && y < i32(IN_HEIGHT) && x >= 0 && x < i32(IN_WIDTH)) {
                let value = input[((c * IN_HEIGHT + u32(y)) * IN_WIDTH + u32(x)) * LANES + lane];
                // By its bits, since a compiler may assume that there are no NaNs.
                if ((value > best) | ((bitcast<u32>(value) << 1u) > 0xff000000u)) {
                    best = value;
                    place = ky * KERNEL_WIDTH + kx;
                }
            }
        }
    }
    let at = (id.z * CHANNELS * OUT_HEIGHT * OUT_WIDTH + element) * LANES + lane;
    output[at] = best;
    winner[at] = place;
}

// The first and last window, in one dimension, that cover position `t` of the padded input.
fn covering(t: u32, kernel: u32, stride: u32, windows: u32) -> vec2<u32> {
    let first = select(0u, (t + stride - kernel) / stride, t >= kernel);
    return vec2(first, min(t / stride + 1u, windows));
}

@compute @workgroup_size(64)
fn max_backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * IN_HEIGHT * IN_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (IN_HEIGHT * IN_WIDTH);
    let y = element / IN_WIDTH % IN_HEIGHT + PAD_HEIGHT;
    let x = element % IN_WIDTH + PAD_WIDTH;
    let rows = covering(y, KERNEL_HEIGHT, STRIDE_HEIGHT, OUT_HEIGHT);
    let columns = covering(x, KERNEL_WIDTH, STRIDE_WIDTH, OUT_WIDTH);
    var sum = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        for (var ox = columns.x; ox < columns.y; ox++) {
            let at = ((c * OUT_HEIGHT + oy) * OUT_WIDTH + ox) * LANES + lane;
            if (won[at] == (y - oy * STRIDE_HEIGHT) * KERNEL_WIDTH + x - ox * STRIDE_WIDTH) {
                sum += output_grad[at];
            }
        }
    }
    input_grad[(id.z * CHANNELS * IN_HEIGHT * IN_WIDTH + element) * LANES + lane] = sum;
}

// The cells of the window at `at`, in one dimension: within the input, or within its padding too.
fn cells(at: u32, kernel: u32, stride: u32, pad: u32, size: u32) -> f32 {
    let start = i32(at * stride) - i32(pad);
    let end = start + i32(kernel);
    if (COUNT_PAD) {
        return f32(min(end, i32(size + pad)) - start);
    }
    return f32(min(end, i32(size)) - max(start, 0));
}

@compute @workgroup_size(64)
fn average_forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * OUT_HEIGHT * OUT_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (OUT_HEIGHT * OUT_WIDTH);
    let oy = element / OUT_WIDTH % OUT_HEIGHT;
    let ox = element % OUT_WIDTH;
    var sum = 0.0;
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let y = i32(oy * STRIDE_HEIGHT + ky) - i32(PAD_HEIGHT);
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let x = i32(ox * STRIDE_WIDTH + kx) - i32(PAD_WIDTH);
            if (y >= 0 && y < i32(IN_HEIGHT) && x >= 0 && x < i32(IN_WIDTH)) {
                sum += input[((c * IN_HEIGHT + u32(y)) * IN_WIDTH + u32(x)) * LANES + lane];
            }
        }
    }
    let area = cells(oy, KERNEL_HEIGHT, STRIDE_HEIGHT, PAD_HEIGHT, IN_HEIGHT)
        * cells(ox, KERNEL_WIDTH, STRIDE_WIDTH, PAD_WIDTH, IN_WIDTH);
    output[(id.z * CHANNELS * OUT_HEIGHT * OUT_WIDTH + element) * LANES + lane] = sum / area;
}

@compute @workgroup_size(64)
fn average_backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * IN_HEIGHT * IN_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (IN_HEIGHT * IN_WIDTH);
    let rows = covering(element / IN_WIDTH % IN_HEIGHT + PAD_HEIGHT, KERNEL_HEIGHT, STRIDE_HEIGHT, OUT_HEIGHT);
    let columns = covering(element % IN_WIDTH + PAD_WIDTH, KERNEL_WIDTH, STRIDE_WIDTH, OUT_WIDTH);
    var sum = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        for (var ox = columns.x; ox < columns.y; ox++) {
            let area = cells(oy, KERNEL_HEIGHT, STRIDE_HEIGHT, PAD_HEIGHT, IN_HEIGHT)
                * cells(ox, KERNEL_WIDTH, STRIDE_WIDTH, PAD_WIDTH, IN_WIDTH);
            sum += output_grad[((c * OUT_HEIGHT + oy) * OUT_WIDTH + ox) * LANES + lane] / area;
        }
    }
    input_grad[(id.z * CHANNELS * IN_HEIGHT * IN_WIDTH + element) * LANES + lane] = sum;
}

// The first position, and the one after the last, of adaptive window `at` in one dimension. With the two sizes
// exchanged these are the windows that cover position `at`: window i reaches over it if i · from/to < at + 1 and
// (i + 1) · from/to > at.
fn adaptive(at: u32, from_size: u32, to_size: u32) -> vec2<u32> {
    return vec2(at * from_size / to_size, ((at + 1u) * from_size + to_size - 1u) / to_size);
}

@compute @workgroup_size(64)
fn adaptive_forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * OUT_HEIGHT * OUT_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (OUT_HEIGHT * OUT_WIDTH);
    let rows = adaptive(element / OUT_WIDTH % OUT_HEIGHT, IN_HEIGHT, OUT_HEIGHT);
    let columns = adaptive(element % OUT_WIDTH, IN_WIDTH, OUT_WIDTH);
    var sum = 0.0;
    for (var y = rows.x; y < rows.y; y++) {
        for (var x = columns.x; x < columns.y; x++) {
            sum += input[((c * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane];
        }
    }
    let area = f32((rows.y - rows.x) * (columns.y - columns.x));
    output[(id.z * CHANNELS * OUT_HEIGHT * OUT_WIDTH + element) * LANES + lane] = sum / area;
}

@compute @workgroup_size(64)
fn adaptive_backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * IN_HEIGHT * IN_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (IN_HEIGHT * IN_WIDTH);
    let rows = adaptive(element / IN_WIDTH % IN_HEIGHT, OUT_HEIGHT, IN_HEIGHT);
    let columns = adaptive(element % IN_WIDTH, OUT_WIDTH, IN_WIDTH);
    var sum = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        let high = adaptive(oy, IN_HEIGHT, OUT_HEIGHT);
        for (var ox = columns.x; ox < columns.y; ox++) {
            let wide = adaptive(ox, IN_WIDTH, OUT_WIDTH);
            let area = f32((high.y - high.x) * (wide.y - wide.x));
            sum += output_grad[((c * OUT_HEIGHT + oy) * OUT_WIDTH + ox) * LANES + lane] / area;
        }
    }
    input_grad[(id.z * CHANNELS * IN_HEIGHT * IN_WIDTH + element) * LANES + lane] = sum;
}

@compute @workgroup_size(64)
fn upsample_forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * OUT_HEIGHT * OUT_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (OUT_HEIGHT * OUT_WIDTH);
    let y = element / OUT_WIDTH % OUT_HEIGHT / STRIDE_HEIGHT;
    let x = element % OUT_WIDTH / STRIDE_WIDTH;
    output[(id.z * CHANNELS * OUT_HEIGHT * OUT_WIDTH + element) * LANES + lane] =
        input[((c * IN_HEIGHT + y) * IN_WIDTH + x) * LANES + lane];
}

@compute @workgroup_size(64)
fn upsample_backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * IN_HEIGHT * IN_WIDTH) {
        return;
    }
    let lane = invocation % LANES;
    let c = id.z * CHANNELS + element / (IN_HEIGHT * IN_WIDTH);
    let top = element / IN_WIDTH % IN_HEIGHT * STRIDE_HEIGHT;
    let left = element % IN_WIDTH * STRIDE_WIDTH;
    var sum = 0.0;
    for (var y = top; y < top + STRIDE_HEIGHT; y++) {
        for (var x = left; x < left + STRIDE_WIDTH; x++) {
            sum += output_grad[((c * OUT_HEIGHT + y) * OUT_WIDTH + x) * LANES + lane];
        }
    }
    input_grad[(id.z * CHANNELS * IN_HEIGHT * IN_WIDTH + element) * LANES + lane] = sum;
}
