// batch: from the data set, which stays on the GPU as bytes, to the images of one step.
//
//     gather:  output[n, c, y, x] = (pixel(order[cursor + n], c, y − PAD, x − PAD) / 255 − MEAN) / DEVIATION
//     augment: the same of a picture that is distorted at random, anew in every step:
//              pixel'(c, y, x) = 0 in the cutout, else pixel(c, M · ((x, y) + D(x, y))) + 255 · NOISE · ε
//
// Outside the picture the pixel is 0, so that padding is background whatever the normalisation, and augmented or
// not. Lanes from `count` on hold no image and are 0.
//
// M, one affine map an image, leads back from the picture that is seen to the stored one: it undoes a shift, a
// rotation, a shear along x, a magnification (all about the picture's centre) and a flip, in this order. Between
// pixels it is bilinear. D is a smooth random field, the elastic distortion of Simard, Steinkraus and Platt (2003):
// random vectors on a lattice of SPACING pixels, uniform within ±ELASTIC in each direction, under a cubic B-spline.
// The spline's standard deviation is SPACING / √3, so that it stands for their Gaussian of that σ. A displacement is
// at most ELASTIC and 0.277 · ELASTIC root mean square; theirs, before they scale it, is α · 0.163 / σ. ε has
// variance 1: the sum of four random bytes, which is close to a normal distribution, within ±3.5, and the same on
// every device.
//
// Every random number is a hash of (step.seed, the image's index in the data set, what, what for): nothing is kept
// between steps, and an image's fate does not depend on its place in the batch. Sines come from a polynomial, because
// WGSL lets its own err by 2⁻¹¹, which is a hundredth of a pixel at a picture's edge.
//
// Layout: activations lie in blocks of 16 images, the image varying fastest (see conv2d.wgsl). Neighbouring
// invocations hold neighbouring images. One invocation of `gather` computes one element, one of `augment` four
// neighbouring columns of all channels: they share the image's map and most of the lattice.

override CHANNELS: u32;
override HEIGHT: u32;      // of the stored picture
override WIDTH: u32;
override PAD: u32;         // rows and columns of background added on each side
override MEAN: f32;
override DEVIATION: f32;
override SHIFT: f32;       // pixels, at most
override ROTATE: f32;      // radians, at most
override SCALE: f32;       // magnification 1 − SCALE to 1 + SCALE
override SHEAR: f32;       // radians, at most
override ELASTIC: f32;     // pixels, at most
override SPACING: f32;     // of the lattice, in pixels
override NOISE: f32;       // standard deviation, of pixels / 255
override CUTOUT: u32;      // side of the square, in pixels
override FLIP: bool;       // every second picture, left to right
override NAMES: u32 = 0;   // where in `order` the indices in the data set lie, if `order` has places in a window of it
override ROW: u32;         // invocations in one row of the grid, whose layers are the blocks

override CENTER_X = (f32(WIDTH) - 1.0) / 2.0;
override CENTER_Y = (f32(HEIGHT) - 1.0) / 2.0;

const LANES = 16u;

// What a random number is for.
const FOR_MAP = 0u;
const FOR_PLACE = 1u;
const FOR_FIELD = 2u;
const FOR_NOISE = 3u;

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
@group(0) @binding(1) var<storage, read> images: array<u32>;   // 4 pixels a word, the first in the low byte
@group(0) @binding(2) var<storage, read> order: array<u32>;    // the epoch's permutation
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

// A pixel of channel `plane % CHANNELS` of image `plane / CHANNELS`. A negative coordinate wraps around, so that the
// comparison fails.
fn pixel(plane: u32, x: u32, y: u32) -> f32 {
    if (y >= HEIGHT || x >= WIDTH) {
        return 0.0;
    }
    let at = (plane * HEIGHT + y) * WIDTH + x;
    return f32((images[at / 4u] >> (at % 4u * 8u)) & 255u);
}

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let height = HEIGHT + 2u * PAD;
    let width = WIDTH + 2u * PAD;
    let element = invocation / LANES;
    if (element >= CHANNELS * height * width) {
        return;
    }
    let row = id.z * LANES + invocation % LANES;
    let c = element / (height * width);
    let y = element / width % height - PAD;
    let x = element % width - PAD;
    var value = 0.0;
    if (row < step.count) {
        let plane = order[step.cursor + row] * CHANNELS + c;
        value = (pixel(plane, x, y) / 255.0 - MEAN) / DEVIATION;
    }
    output[(id.z * CHANNELS * height * width + element) * LANES + invocation % LANES] = value;
}

// PCG4D (Jarzynski and Olano, Hash Functions for GPU Rendering, 2020).
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

fn random(image: u32, detail: u32, purpose: u32) -> vec4<u32> {
    return pcg4d(vec4(step.seed, image, detail, purpose));
}

// Uniform in −1 ≤ x < 1, without rounding.
fn symmetric(words: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(words >> vec4(8u)) / 8388608.0 - 1.0;
}

// Cosine and sine of an angle within ±π: Taylor's polynomials of its quarter, doubled twice.
fn turn(angle: f32) -> vec2<f32> {
    let q = angle / 4.0;
    let s = q * q;
    var cosine = 1.0 + s * (-1.0 / 2.0 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s / 40320.0)));
    var sine = q * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 - s / 5040.0)));
    for (var doubled = 0; doubled < 2; doubled++) {
        let before = sine;
        sine = 2.0 * sine * cosine;
        cosine = 1.0 - 2.0 * before * before;
    }
    return vec2(cosine, sine);
}

// The map M: where (x, y) of the picture that is seen lies in the stored one, as the factors of x, y and 1.
struct Map {
    x: vec3<f32>,
    y: vec3<f32>,
}

fn map_of(image: u32, flipped: bool) -> Map {
    let r = symmetric(random(image, 0u, FOR_MAP));
    let rotated = turn(ROTATE * r.z);
    let sheared = turn(SHEAR * symmetric(random(image, 0u, FOR_PLACE)).x);
    let slope = sheared.y / sheared.x;
    let factor = 1.0 / (1.0 + SCALE * r.w);
    let x = vec2(rotated.x + slope * rotated.y, rotated.y - slope * rotated.x) * select(factor, -factor, flipped);
    let y = vec2(-rotated.y, rotated.x) * factor;
    let moved = vec2(CENTER_X, CENTER_Y) + SHIFT * r.xy;
    return Map(vec3(x, CENTER_X - dot(x, moved)), vec3(y, CENTER_Y - dot(y, moved)));
}

// The cubic B-spline, which ends at ±2.
fn spline(t: vec4<f32>) -> vec4<f32> {
    let wide = max(2.0 - abs(t), vec4(0.0));
    let narrow = max(1.0 - abs(t), vec4(0.0));
    return (wide * wide * wide - 4.0 * narrow * narrow * narrow) / 6.0;
}

fn node(image: u32, i: i32, j: i32) -> vec2<f32> {
    return symmetric(random(image, bitcast<u32>(j * 65536 + i), FOR_FIELD)).xy;
}

// The field D at four neighbouring columns.
struct Field {
    x: vec4<f32>,
    y: vec4<f32>,
}

fn field(image: u32, x: vec4<f32>, y: f32) -> Field {
    let u = x / SPACING;
    let v = y / SPACING;
    let j = i32(floor(v));
    let rows = ELASTIC * spline(v - f32(j) + vec4(1.0, 0.0, -1.0, -2.0));
    var d = Field(vec4(0.0), vec4(0.0));
    // A column of the lattice more or less at the ends would weigh nothing.
    let last = i32(floor(u.w)) + 2;
    for (var i = i32(floor(u.x)) - 1; i <= last; i++) {
        let nodes = rows.x * node(image, i, j - 1) + rows.y * node(image, i, j)
            + rows.z * node(image, i, j + 1) + rows.w * node(image, i, j + 2);
        let weights = spline(u - f32(i));
        d.x += weights * nodes.x;
        d.y += weights * nodes.y;
    }
    return d;
}

// A pixel at a place between pixels.
fn bilinear(plane: u32, x: f32, y: f32) -> f32 {
    let left = floor(x);
    let top = floor(y);
    let i = bitcast<u32>(i32(left));
    let j = bitcast<u32>(i32(top));
    let upper = mix(pixel(plane, i, j), pixel(plane, i + 1u, j), x - left);
    let lower = mix(pixel(plane, i, j + 1u), pixel(plane, i + 1u, j + 1u), x - left);
    return mix(upper, lower, y - top);
}

// The sum of a word's four bytes.
fn bytes(words: vec4<u32>) -> vec4<u32> {
    let pairs = (words & vec4(0x00ff00ffu)) + ((words >> vec4(8u)) & vec4(0x00ff00ffu));
    return (pairs & vec4(0xffffu)) + (pairs >> vec4(16u));
}

@compute @workgroup_size(64)
fn augment(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * ROW + id.x;
    let height = HEIGHT + 2u * PAD;
    let width = WIDTH + 2u * PAD;
    let tiles = (width + 3u) / 4u;
    let tile = invocation / LANES;
    if (tile >= height * tiles) {
        return;
    }
    let row = id.z * LANES + invocation % LANES;
    let there = row < step.count;
    let y = tile / tiles - PAD;
    let first = tile % tiles * 4u;
    let x = first - PAD + vec4(0u, 1u, 2u, 3u);
    var image = 0u;
    var name = 0u;
    var from_x = vec4(0.0);
    var from_y = vec4(0.0);
    var seen = vec4(false);
    if (there && y < HEIGHT) {
        image = order[step.cursor + row];
        name = order[NAMES + step.cursor + row];
        let place = random(name, 0u, FOR_PLACE);
        let map = map_of(name, FLIP && place.y >> 31u == 1u);
        var to_x = vec4<f32>(bitcast<vec4<i32>>(x));
        var to_y = vec4(f32(y));
        if (ELASTIC > 0.0) {
            let d = field(name, to_x, f32(y));
            to_x += d.x;
            to_y += d.y;
        }
        from_x = map.x.x * to_x + map.x.y * to_y + map.x.z;
        from_y = map.y.x * to_x + map.y.y * to_y + map.y.z;
        seen = x < vec4(WIDTH);
        if (CUTOUT > 0u) {
            // The square's centre is any pixel, so that a part of it may lie outside.
            let cut_x = (place.z >> 16u) * WIDTH / 65536u - CUTOUT / 2u;
            let cut_y = (place.w >> 16u) * HEIGHT / 65536u - CUTOUT / 2u;
            seen = seen & ((x - cut_x >= vec4(CUTOUT)) | vec4(y - cut_y >= CUTOUT));
        }
    }
    for (var c = 0u; c < CHANNELS; c++) {
        var value = vec4(0.0);
        if (there) {
            let plane = image * CHANNELS + c;
            if (y < HEIGHT) {
                value = vec4(
                    bilinear(plane, from_x.x, from_y.x),
                    bilinear(plane, from_x.y, from_y.y),
                    bilinear(plane, from_x.z, from_y.z),
                    bilinear(plane, from_x.w, from_y.w),
                ) / 255.0;
                if (NOISE > 0.0) {
                    let sums = bytes(random(name, (c * HEIGHT + y) * tiles + first / 4u, FOR_NOISE));
                    // Four bytes have the mean 510 and the variance 65535 / 3.
                    value += NOISE * sqrt(3.0 / 65535.0) * (vec4<f32>(sums) - 510.0);
                }
                value = select(vec4(0.0), value, seen);
            }
            value = (value - MEAN) / DEVIATION;
        }
        let at = ((id.z * CHANNELS + c) * height * width + (y + PAD) * width + first) * LANES + invocation % LANES;
        output[at] = value.x;
        if (first + 1u < width) { output[at + LANES] = value.y; }
        if (first + 2u < width) { output[at + 2u * LANES] = value.z; }
        if (first + 3u < width) { output[at + 3u * LANES] = value.w; }
    }
}
