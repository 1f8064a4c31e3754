// lrn: local response normalisation across channels (Krizhevsky et al. 2012), as PyTorch defines it.
//
//     d[n, c]          = K + ALPHA / SIZE · Σ c′ x[n, c′]²       c′ from c − SIZE/2 to c + (SIZE − 1)/2
//     output[n, c]     = x[n, c] · d[n, c]^−BETA
//     input_grad[n, c] = g[n, c] · d[n, c]^−BETA
//                      − 2 · ALPHA · BETA / SIZE · x[n, c] · Σ c′ g[n, c′] · x[n, c′] · d[n, c′]^(−BETA − 1)
//                                                                c′ from c − (SIZE − 1)/2 to c + SIZE/2
//
// at each position by itself; g is output_grad. Channels that do not exist count as 0, in a mean that is always
// of SIZE. The second sum runs over the channels whose window holds c. The backward pass computes d anew: that is
// SIZE² loads, but of SIZE · 2 − 1 channels, which the nearest cache holds, and keeps no tensor for it.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl). One invocation computes one element.

override CHANNELS: u32;
override POSITIONS: u32;       // rows · columns
override SIZE: u32;            // channels of a window
override ALPHA: f32;
override BETA: f32;
override K: f32;
override ROW: u32;             // invocations in one row of the grid, whose layers are the blocks

const LANES = 16u;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;
@group(0) @binding(2) var<storage, read> output_grad: array<f32>;
@group(0) @binding(3) var<storage, read_write> input_grad: array<f32>;

// The denominator's base of channel `c`; `first` is the element of channel 0 at the same position.
fn base(first: u32, c: u32) -> f32 {
    var squares = 0.0;
    let end = min(c + (SIZE - 1u) / 2u + 1u, CHANNELS);
    for (var other = max(c, SIZE / 2u) - SIZE / 2u; other < end; other++) {
        let x = input[first + other * POSITIONS * LANES];
        squares += x * x;
    }
    return K + ALPHA / f32(SIZE) * squares;
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * POSITIONS) {
        return;
    }
    let c = element / POSITIONS;
    let first = (id.z * CHANNELS * POSITIONS + element % POSITIONS) * LANES + invocation % LANES;
    let at = first + c * POSITIONS * LANES;
    output[at] = input[at] * pow(base(first, c), -BETA);
}

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let element = invocation / LANES;
    if (element >= CHANNELS * POSITIONS) {
        return;
    }
    let c = element / POSITIONS;
    let first = (id.z * CHANNELS * POSITIONS + element % POSITIONS) * LANES + invocation % LANES;
    let at = first + c * POSITIONS * LANES;
    var own = 0.0;
    var sum = 0.0;
    let end = min(c + SIZE / 2u + 1u, CHANNELS);
    for (var other = max(c, (SIZE - 1u) / 2u) - (SIZE - 1u) / 2u; other < end; other++) {
        let there = first + other * POSITIONS * LANES;
        let d = base(first, other);
        let scaled = output_grad[there] * pow(d, -BETA);
        own = select(own, scaled, other == c);
        sum += scaled * input[there] / d;
    }
    input_grad[at] = own - 2.0 * ALPHA * BETA / f32(SIZE) * input[at] * sum;
}
