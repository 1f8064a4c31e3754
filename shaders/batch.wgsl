// batch: from the data set, which stays on the GPU as bytes, to the images of one step.
//
//     output[n, c, y, x] = (pixel(order[cursor + n], c, y − PAD, x − PAD) / 255 − MEAN) / DEVIATION
//
// Outside the picture the pixel is 0, so that padding is background whatever the normalisation.
// Lanes from `count` on hold no image and are 0.
//
// Layout: activations lie in blocks of 16 images, the image varying fastest (see conv2d.wgsl).
// One invocation computes one element; neighbours hold neighbouring images.

override CHANNELS: u32;
override HEIGHT: u32;      // of the stored picture
override WIDTH: u32;
override PAD: u32;         // rows and columns of background added on each side
override MEAN: f32;
override DEVIATION: f32;

const LANES = 16u;

struct Step {
    cursor: u32,
    count: u32,
    slot: u32,
    seed: u32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    reserved: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> images: array<u32>;   // 4 pixels a word, the first in the low byte
@group(0) @binding(2) var<storage, read> order: array<u32>;    // the epoch's permutation
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) id: vec3<u32>) {
    let height = HEIGHT + 2u * PAD;
    let width = WIDTH + 2u * PAD;
    let element = id.x / LANES;
    if (element >= CHANNELS * height * width) {
        return;
    }
    let row = id.y * LANES + id.x % LANES;
    let c = element / (height * width);
    // Wraps around above and left of the picture, where the comparison then fails.
    let y = element / width % height - PAD;
    let x = element % width - PAD;
    var value = 0.0;
    if (row < step.count) {
        var pixel = 0.0;
        if (y < HEIGHT && x < WIDTH) {
            let at = ((order[step.cursor + row] * CHANNELS + c) * HEIGHT + y) * WIDTH + x;
            pixel = f32(images[at / 4u] >> (at % 4u * 8u) & 255u);
        }
        value = (pixel / 255.0 - MEAN) / DEVIATION;
    }
    output[(id.y * CHANNELS * height * width + element) * LANES + id.x % LANES] = value;
}
