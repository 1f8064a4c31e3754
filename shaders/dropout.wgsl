// dropout: elements of an activation are left out at random, and the others grow, so that the mean stays
// (Srivastava et al. 2014).
//
//     output     = keep · input       / (1 − p)
//     input_grad = keep · output_grad / (1 − p)
//     keep       = [word ≥ p · 2³²]
//
// The random words are a function of where they are used, so that the backward pass makes them again and nothing is
// kept: hash(seed of the step, LAYER, image of the batch / 4, feature) gives one for each of four images. The hash is
// PCG4D (Jarzynski and Olano 2020, "Hash Functions for GPU Rendering"): integers only, so that every device draws the
// same ones.
//
// Layout: blocks of 16 images, the image varying fastest (see conv2d.wgsl). One invocation computes one feature of
// four images: one hash.

override FEATURES: u32;
override LAYER: u32;           // a number that no other dropout of the network has
override THRESHOLD: u32;       // p · 2³²
override SCALE: f32;           // 1 / (1 − p)
override VECTORS: u32;         // four images' features, of the whole batch
override ROW: u32;             // vectors that the workgroups of one row of the grid cover

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
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> output_grad: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> input_grad: array<vec4<f32>>;

fn pcg4d(counter: vec4<u32>) -> vec4<u32> {
    var v = counter * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// What vector `i` is multiplied by where it is kept, and 0 where not.
fn dropped(i: u32, value: vec4<f32>) -> vec4<f32> {
    let quad = i / 4u / FEATURES * 4u + i % 4u;
    let words = pcg4d(vec4(step.seed, LAYER, quad, i / 4u % FEATURES));
    return select(vec4(0.0), value * SCALE, words >= vec4(THRESHOLD));
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < VECTORS) {
        output[i] = dropped(i, input[i]);
    }
}

@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < VECTORS) {
        input_grad[i] = dropped(i, output_grad[i]);
    }
}
