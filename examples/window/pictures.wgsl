// The digits and the filters of the example `window`, read where the training shaders keep them. A draw shows one
// square picture over its viewport; the draw's instance is the index of the first pixel or parameter.

// Columns of a picture, and rows.
override width: u32;

// The test pictures, four bytes a word, the first in the low byte.
@group(0) @binding(0) var<storage, read> pixels: array<u32>;
// The network's parameters, which another pipeline shows.
@group(0) @binding(0) var<storage, read> parameters: array<f32>;

struct Fragment {
    @builtin(position) position: vec4f,
    // From 0 to 1 over the picture, from its upper left corner.
    @location(0) at: vec2f,
    @location(1) @interpolate(flat) first: u32,
    // The largest magnitude of a filter.
    @location(2) @interpolate(flat) most: f32,
}

// A strip of two triangles.
fn corner(vertex: u32, first: u32) -> Fragment {
    var out: Fragment;
    out.at = vec2f(f32(vertex & 1u), f32(vertex >> 1u));
    out.position = vec4f(2.0 * out.at.x - 1.0, 1.0 - 2.0 * out.at.y, 0.0, 1.0);
    out.first = first;
    return out;
}

// The index of what is shown at a place.
fn index(in: Fragment) -> u32 {
    let cell = min(vec2u(in.at * f32(width)), vec2u(width - 1u));
    return in.first + cell.y * width + cell.x;
}

@vertex
fn digit_vertex(@builtin(vertex_index) vertex: u32, @builtin(instance_index) first: u32) -> Fragment {
    return corner(vertex, first);
}

@fragment
fn digit_fragment(in: Fragment) -> @location(0) vec4f {
    let pixel = index(in);
    let byte = (pixels[pixel / 4u] >> (8u * (pixel % 4u))) & 255u;
    // The colour of the text, `INK`.
    let ink = vec3f(225.0, 228.0, 235.0) / 255.0;
    return vec4f(ink * f32(byte) / 255.0, 1.0);
}

@vertex
fn filter_vertex(@builtin(vertex_index) vertex: u32, @builtin(instance_index) first: u32) -> Fragment {
    var out = corner(vertex, first);
    out.most = 1e-6;
    for (var i = 0u; i < width * width; i++) {
        out.most = max(out.most, abs(parameters[first + i]));
    }
    return out;
}

@fragment
fn filter_fragment(in: Fragment) -> @location(0) vec4f {
    let weight = parameters[index(in)] / in.most;
    let warm = vec3f(0.98, 0.62, 0.22);
    let cold = vec3f(0.25, 0.62, 0.98);
    return vec4f(select(cold, warm, weight > 0.0) * abs(weight), 1.0);
}
