// peak: the most that a device does, against which the benchmark holds every other launch.
//
//     multiply_add   output[i] = Σₖ c[k] after ROUNDS of c[k] ← c[k] · FACTOR + input[i], from c[k] = input[i] + k
//     copy           copied[i] = source[i]
//
// In multiply_add one invocation computes one element, with twelve chains that do not depend on each other: enough
// to hide the latency of a multiply-add, few enough to stay in registers everywhere. In copy one invocation moves
// 16 bytes.

override ELEMENTS: u32;        // of output; vectors of copied
override ROW: u32;             // elements that the workgroups of one row of the grid cover
override ROUNDS: u32 = 8u;     // a multiple of 8

// Not 1, so that the chains stay finite; not far from it, so that every round counts.
const FACTOR = 0.9999;

@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;
@group(0) @binding(2) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> copied: array<vec4<u32>>;

@compute @workgroup_size(64)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= ELEMENTS) {
        return;
    }
    let f = vec4<f32>(FACTOR);
    let x = vec4<f32>(input[i]);
    var a = x + vec4<f32>(0.0, 1.0, 2.0, 3.0);
    var b = x + vec4<f32>(4.0, 5.0, 6.0, 7.0);
    var c = x + vec4<f32>(8.0, 9.0, 10.0, 11.0);
    // Eight rounds at once, so that the loop itself costs little.
    for (var round = 0u; round < ROUNDS; round += 8u) {
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
        a = fma(a, f, x); b = fma(b, f, x); c = fma(c, f, x);
    }
    let sum = a + b + c;
    output[i] = sum.x + sum.y + sum.z + sum.w;
}

@compute @workgroup_size(64)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i < ELEMENTS) {
        copied[i] = source[i];
    }
}
