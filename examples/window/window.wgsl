// The picture of the example `window`: quads, each of one kind. The digits and the filters are read where the
// training shaders keep them.

struct View {
    // From the canvas to clip space.
    scale: vec2f,
    offset: vec2f,
}

@group(0) @binding(0) var<uniform> view: View;
// The test pictures, four bytes a word, the first in the low byte.
@group(0) @binding(1) var<storage, read> pictures: array<u32>;
// The network's parameters.
@group(0) @binding(2) var<storage, read> parameters: array<f32>;
// Points of curves, 0 at the bottom and 1 at the top.
@group(0) @binding(3) var<storage, read> points: array<f32>;

const FILL = 0u;
const GLYPH = 1u;   // first: rows 0 to 3 of five bits, second: rows 4 to 6
const DIGIT = 2u;   // first: the picture's first pixel, second: its width
const FILTER = 3u;  // first: the filter's first parameter, second: its width
const CURVE = 4u;   // first: the first point, second: how many

struct Fragment {
    @builtin(position) position: vec4f,
    // From 0 to 1 over the quad.
    @location(0) at: vec2f,
    @location(1) @interpolate(flat) size: vec2f,
    @location(2) @interpolate(flat) what: vec3u,
    @location(3) @interpolate(flat) colour: vec4f,
    // The largest magnitude of a filter.
    @location(4) @interpolate(flat) most: f32,
}

@vertex
fn vertex(
    @builtin(vertex_index) corner: u32,
    @location(0) rect: vec4f,
    @location(1) what: vec3u,
    @location(2) colour: vec4f,
) -> Fragment {
    // Two triangles: 0 1 2, 2 1 3.
    let index = array(0u, 1u, 2u, 2u, 1u, 3u)[corner];
    var out: Fragment;
    out.at = vec2f(f32(index & 1u), f32(index >> 1u));
    out.size = rect.zw;
    out.what = what;
    out.colour = colour;
    out.most = 1e-6;
    if what.x == FILTER {
        for (var i = 0u; i < what.z * what.z; i++) {
            out.most = max(out.most, abs(parameters[what.y + i]));
        }
    }
    out.position = vec4f((rect.xy + out.at * rect.zw) * view.scale + view.offset, 0.0, 1.0);
    return out;
}

// The distance from `p` to the line from `a` to `b`.
fn distance_to_line(p: vec2f, a: vec2f, b: vec2f) -> f32 {
    let along = b - a;
    let t = clamp(dot(p - a, along) / max(dot(along, along), 1e-6), 0.0, 1.0);
    return distance(p, a + t * along);
}

fn point(first: u32, count: u32, i: i32, size: vec2f) -> vec2f {
    let at = u32(clamp(i, 0, i32(count) - 1));
    return vec2f(f32(at) / f32(max(count, 2u) - 1u), 1.0 - points[first + at]) * size;
}

@fragment
fn fragment(in: Fragment) -> @location(0) vec4f {
    let first = in.what.y;
    let second = in.what.z;
    switch in.what.x {
        case GLYPH: {
            let cell = min(vec2u(in.at * vec2f(5.0, 7.0)), vec2u(4u, 6u));
            let rows = select(first >> (5u * cell.y), second >> (5u * (cell.y - 4u)), cell.y >= 4u);
            let on = (rows >> (4u - cell.x)) & 1u;
            return vec4f(in.colour.rgb, in.colour.a * f32(on));
        }
        case DIGIT: {
            let cell = min(vec2u(in.at * f32(second)), vec2u(second - 1u));
            let pixel = first + cell.y * second + cell.x;
            let byte = (pictures[pixel / 4u] >> (8u * (pixel % 4u))) & 255u;
            return vec4f(in.colour.rgb * f32(byte) / 255.0, 1.0);
        }
        case FILTER: {
            let cell = min(vec2u(in.at * f32(second)), vec2u(second - 1u));
            let weight = parameters[first + cell.y * second + cell.x] / in.most;
            let warm = vec3f(0.98, 0.62, 0.22);
            let cold = vec3f(0.25, 0.62, 0.98);
            return vec4f(select(cold, warm, weight > 0.0) * abs(weight), 1.0);
        }
        case CURVE: {
            if second == 0u {
                return vec4f(0.0);
            }
            let p = in.at * in.size;
            let i = i32(in.at.x * f32(max(second, 2u) - 1u));
            var near = 1e6;
            for (var k = i - 1; k <= i + 1; k++) {
                let a = point(first, second, k, in.size);
                let b = point(first, second, k + 1, in.size);
                near = min(near, distance_to_line(p, a, b));
            }
            return vec4f(in.colour.rgb, in.colour.a * clamp(1.6 - near, 0.0, 1.0));
        }
        default: {
            return in.colour;
        }
    }
}
