//! The distortions of `augment`: where the pixels of a picture that is seen come from, and what lies there.

use pulp::{Simd, WithSimd};

use super::random::{
    FOR_FIELD, FOR_MAP, FOR_NOISE, FOR_PLACE, WHOLE, bytes_wide, random, random_wide, shifted, symmetric,
    symmetric_wide, whole,
};
use crate::kernels::batch::TILE;
use crate::kernels::shaders::batch::augment::Constants;
use crate::kernels::{LANES, Step};
use crate::twins::simd::{registers, scratch, vectorize, wide, wide_mut, wide_u32, wide_u32_mut};
use crate::twins::tasks::{self, Axis, Parts, grid, portions};

/// The cubic B-spline, which ends at ±2.
fn spline(t: f32) -> f32 {
    let wide = (2.0 - t.abs()).max(0.0);
    let narrow = (1.0 - t.abs()).max(0.0);
    (wide * wide * wide - 4.0 * narrow * narrow * narrow) / 6.0
}

/// An augmentation made ready for pictures of one shape. Rows are as long as whole registers.
pub(super) struct Distortion {
    g: Constants,
    /// Sixteens of columns of the elastic field's lattice, from one node before the picture; none where there is no
    /// field.
    nodes: usize,
    /// Of each node, row by row, what its random numbers are hashed from.
    details: Vec<Columns<u32>>,
    /// For each row of the picture, the first of the four rows of nodes that move it, and their weights in pixels.
    rows: Vec<(usize, [f32; 4])>,
    /// For sixteen columns of the picture at a time, the first column of nodes that moves one of them, and the weights
    /// of the columns of nodes from there on.
    columns: Vec<(usize, Vec<Columns<f32>>)>,
}

/// What happens to one picture in one step.
struct Fate {
    image: usize,
    /// Its index in the data set.
    name: u32,
    /// Where (x, y) of the picture that is seen lies in the stored one: the factors of x, y and 1.
    map: [[f32; 3]; 2],
    /// The corner of the cutout; it may lie before the picture.
    cut: [i32; 2],
    /// The nodes' displacements along x and along y, as shares of the largest.
    nodes: [Vec<Columns<f32>>; 2],
}

/// As many columns as images in a block: a register, or two.
type Columns<T> = [T; LANES];

/// A row of a picture on its way.
struct Row {
    /// Where each pixel lies, along x and along y, first in the picture that is seen, then between two pixels of the
    /// stored one.
    place: [Vec<Columns<f32>>; 2],
    /// Which quad each pixel lies in.
    at: Vec<Columns<u32>>,
    quad: Vec<Columns<u32>>,
    value: Vec<Columns<f32>>,
    /// The displacements of a row between two rows of nodes.
    nodes: [Vec<Columns<f32>>; 2],
    /// The sums of random bytes that the noise of a padded row is: of the first column of each tile, of the second…
    noise: [Vec<Columns<f32>>; TILE],
    /// 0, 1, 2…, as many as columns.
    columns: Vec<Columns<f32>>,
    numbers: Vec<Columns<u32>>,
}

impl Distortion {
    pub(super) fn new(g: Constants) -> Distortion {
        let elastic = g.elastic > 0.0;
        let first = |at: usize| (at as f32 / g.spacing).floor() as usize;
        let count = |len: usize| if elastic { first(len - 1) + 4 } else { 0 };
        let nodes = count(g.width).div_ceil(LANES);
        let weight = |at: usize, node: usize| spline(at as f32 / g.spacing - (node as f32 - 1.0));
        let row = |y: usize| (first(y), [0, 1, 2, 3].map(|n| g.elastic * weight(y, first(y) + n)));
        let columns = |chunk: usize| {
            let (start, end) = (first(chunk * LANES), first(((chunk + 1) * LANES).min(g.width) - 1) + 4);
            let weights = |node: usize| std::array::from_fn(|i| weight(chunk * LANES + i, node));
            (start, (start..end).map(weights).collect())
        };
        // The shader counts nodes from the picture's corner.
        let detail = |j: usize, i: usize| ((j as u32) << 16).wrapping_add(i as u32).wrapping_sub(0x10001);
        let details = |node: usize| std::array::from_fn(|i| detail(node / nodes, node % nodes * LANES + i));
        Distortion {
            g,
            nodes,
            details: (0..count(g.height) * nodes).map(details).collect(),
            rows: if elastic { (0..g.height).map(row).collect() } else { Vec::new() },
            columns: if elastic { (0..g.width.div_ceil(LANES)).map(columns).collect() } else { Vec::new() },
        }
    }

    /// A step's images.
    pub(super) fn run(&self, step: Step, images: &[u32], order: &[u32], output: &mut [f32]) {
        let g = &self.g;
        let [height, width] = [g.height, g.width].map(|len| len + 2 * g.pad);
        let bytes: &[u8] = bytemuck::cast_slice(images);
        let blocks = output.len() / (g.channels * height * width * LANES);
        let wanted = tasks::wanted(OPERATIONS * output.len());
        // A task that has fewer rows than all draws what happens to its pictures once more.
        let [strips, _] = grid(wanted, blocks, [Axis::new(height, 1), Axis::whole(1)]);
        let channels = Parts { all: g.channels, tile: g.channels, count: 1 };
        let lengths = strips.iter().map(|(_, rows)| rows * width * LANES);
        let places = (0..blocks).flat_map(|block| strips.iter().map(move |(first, _)| (block, first)));
        let work: Vec<_> = places.zip(portions(output, channels, height * width * LANES, lengths)).collect();
        tasks::run(work, |((block, first), output)| {
            let rows = block * LANES..(step.count as usize).min((block + 1) * LANES);
            let mut fates: Vec<Fate> = rows
                .map(|row| step.cursor as usize + row)
                .map(|at| self.fate(step.seed, order[at] as usize, order[g.names + at]))
                .collect();
            let mut row = Row::new(g, self.nodes);
            scratch(LANES * (g.height + 2) * (g.width + 2), |quads| {
                let quads = bytemuck::cast_slice_mut(quads);
                vectorize(Block {
                    by: self,
                    seed: step.seed,
                    bytes,
                    fates: &mut fates,
                    quads,
                    row: &mut row,
                    first,
                    output,
                });
            });
        });
    }

    /// What happens to an image of this index in the data set, but for its nodes.
    fn fate(&self, seed: u32, image: usize, name: u32) -> Fate {
        let Constants { shift, rotate, scale, shear, cutout, flip, .. } = self.g;
        let [x, y, z, w] = random(seed, name, 0, FOR_MAP).map(symmetric);
        let place = random(seed, name, 0, FOR_PLACE);
        let size = [self.g.width, self.g.height];
        let center = size.map(|len| (len as f32 - 1.0) / 2.0);
        let (sine, cosine) = (rotate * z).sin_cos();
        let slope = (shear * symmetric(place[0])).tan();
        let factor = 1.0 / (1.0 + scale * w);
        let flipped = flip && place[1] >> 31 == 1;
        let along = if flipped { -factor } else { factor };
        let moved = [center[0] + shift * x, center[1] + shift * y];
        let from = |[a, b]: [f32; 2], center: f32| [a, b, center - (a * moved[0] + b * moved[1])];
        let nodes = || vec![[0.0; LANES]; self.details.len()];
        let corner = |word: u32, len: usize| ((word >> 16) * len as u32 / 65536) as i32 - cutout as i32 / 2;
        Fate {
            image,
            name,
            map: [
                from([(cosine + slope * sine) * along, (sine - slope * cosine) * along], center[0]),
                from([-sine * factor, cosine * factor], center[1]),
            ],
            cut: [corner(place[2], size[0]), corner(place[3], size[1])],
            nodes: [nodes(), nodes()],
        }
    }

    #[inline(always)]
    fn draw_nodes<S: Simd>(&self, simd: S, seed: u32, fate: &mut Fate) {
        let [along_x, along_y] = &mut fate.nodes;
        let along_x = wide_mut::<S>(along_x.as_flattened_mut());
        let along_y = wide_mut::<S>(along_y.as_flattened_mut());
        let details = wide_u32::<S>(self.details.as_flattened());
        for ((x, y), &detail) in along_x.iter_mut().zip(along_y).zip(details) {
            let words = random_wide(simd, [seed, fate.name], detail, FOR_FIELD);
            *x = symmetric_wide(simd, words[0]);
            *y = symmetric_wide(simd, words[1]);
        }
    }

    /// Where the pixels of row `y` come from: which quad, and where in it.
    #[inline(always)]
    fn locate<S: Simd>(&self, simd: S, fate: &Fate, y: usize, row: &mut Row) {
        row.place[0].copy_from_slice(&row.columns);
        row.place[1].fill([y as f32; LANES]);
        if let Some((first, weights)) = self.rows.get(y) {
            for (sums, nodes) in row.nodes.iter_mut().zip(&fate.nodes) {
                let sums = wide_mut::<S>(sums.as_flattened_mut());
                let lines = wide::<S>(nodes[first * self.nodes..].as_flattened());
                for i in 0..sums.len() {
                    let mut sum = simd.splat_f32s(0.0);
                    for (line, &weight) in lines.chunks_exact(sums.len()).zip(weights) {
                        sum = simd.mul_add_e_f32s(simd.splat_f32s(weight), line[i], sum);
                    }
                    sums[i] = sum;
                }
            }
            let [sums_x, sums_y] = &row.nodes;
            let (sums_x, sums_y) = (sums_x.as_flattened(), sums_y.as_flattened());
            let [places_x, places_y] = &mut row.place;
            for ((x, y), (first, weights)) in places_x.iter_mut().zip(places_y).zip(&self.columns) {
                let (x, y) = (wide_mut::<S>(x), wide_mut::<S>(y));
                let weights = wide::<S>(weights.as_flattened());
                for i in 0..registers::<S>() {
                    let (mut to_x, mut to_y) = (x[i], y[i]);
                    let sums = sums_x[*first..].iter().zip(&sums_y[*first..]);
                    for (weights, (&sum_x, &sum_y)) in weights.chunks_exact(registers::<S>()).zip(sums) {
                        to_x = simd.mul_add_e_f32s(weights[i], simd.splat_f32s(sum_x), to_x);
                        to_y = simd.mul_add_e_f32s(weights[i], simd.splat_f32s(sum_y), to_y);
                    }
                    (x[i], y[i]) = (to_x, to_y);
                }
            }
        }
        let [to_x, to_y] = fate.map;
        let stride = simd.splat_f32s((self.g.width + 2) as f32);
        let [places_x, places_y] = &mut row.place;
        let places_x = wide_mut::<S>(places_x.as_flattened_mut());
        let places_y = wide_mut::<S>(places_y.as_flattened_mut());
        let at = wide_u32_mut::<S>(row.at.as_flattened_mut());
        for ((x, y), at) in places_x.iter_mut().zip(places_y).zip(at) {
            let from_x = framed(simd, to_x, *x, *y, self.g.width);
            let from_y = framed(simd, to_y, *x, *y, self.g.height);
            let (left, top) = (floor(simd, from_x), floor(simd, from_y));
            *x = simd.sub_f32s(from_x, left);
            *y = simd.sub_f32s(from_y, top);
            let quad = simd.add_f32s(simd.mul_add_e_f32s(top, stride, left), simd.splat_f32s(WHOLE));
            *at = simd.and_u32s(simd.transmute_u32s_f32s(quad), simd.splat_u32s((1 << 23) - 1));
        }
    }

    /// Noise, normalisation, cutout.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, [seed, c, y]: [u32; 3], fate: &Fate, background: f32, row: &mut Row) {
        let g = &self.g;
        let Constants { noise, cutout, .. } = *g;
        if noise > 0.0 {
            let tiles = (g.width + 2 * g.pad).div_ceil(TILE) as u32;
            let first = simd.splat_u32s((c * g.height as u32 + y) * tiles);
            let [sums_a, sums_b, sums_c, sums_d] = &mut row.noise;
            let sums_a = wide_mut::<S>(sums_a.as_flattened_mut());
            let sums_b = wide_mut::<S>(sums_b.as_flattened_mut());
            let sums_c = wide_mut::<S>(sums_c.as_flattened_mut());
            let sums_d = wide_mut::<S>(sums_d.as_flattened_mut());
            for (tile, &number) in wide_u32::<S>(row.numbers.as_flattened()).iter().enumerate() {
                let detail = simd.add_u32s(first, number);
                let words = random_wide(simd, [seed, fate.name], detail, FOR_NOISE);
                sums_a[tile] = bytes_wide(simd, words[0]);
                sums_b[tile] = bytes_wide(simd, words[1]);
                sums_c[tile] = bytes_wide(simd, words[2]);
                sums_d[tile] = bytes_wide(simd, words[3]);
            }
            // Four bytes have the mean 510 and the variance 65535 / 3.
            let factor = 255.0 * noise * (3f32 / 65535.0).sqrt();
            let values = &mut row.value.as_flattened_mut()[..g.width];
            for (first, sums) in row.noise.iter().enumerate() {
                let sums = sums.as_flattened();
                // The first tile that has such a column in the picture.
                let start = (g.pad + TILE - 1 - first) / TILE;
                let columns = values.iter_mut().skip(start * TILE + first - g.pad).step_by(TILE);
                for (value, sum) in columns.zip(&sums[start..]) {
                    *value += factor * (sum - 510.0);
                }
            }
        }
        let factor = simd.splat_f32s(1.0 / (255.0 * g.deviation));
        for value in wide_mut::<S>(row.value.as_flattened_mut()) {
            *value = simd.mul_add_e_f32s(*value, factor, simd.splat_f32s(background));
        }
        if (0..cutout as i32).contains(&(y as i32 - fate.cut[1])) {
            let end = |at: i32| at.clamp(0, g.width as i32) as usize;
            let cut = end(fate.cut[0])..end(fate.cut[0] + cutout as i32);
            row.value.as_flattened_mut()[cut].fill(background);
        }
    }
}

/// Of a pixel, about.
const OPERATIONS: usize = 32;

/// [`WHOLE`] for floats that may be negative.
const ROUND: f32 = (3 << 22) as f32;

/// Where places of the picture that is seen lie along an axis of the stored one with its frame: `map` holds the factors
/// of x, y and 1. The frame is one pixel wide, and all that lies beyond it is alike.
#[inline(always)]
fn framed<S: Simd>(simd: S, map: [f32; 3], x: S::f32s, y: S::f32s, len: usize) -> S::f32s {
    let moved = simd.mul_add_e_f32s(simd.splat_f32s(map[1]), y, simd.splat_f32s(map[2] + 1.0));
    let place = simd.mul_add_e_f32s(simd.splat_f32s(map[0]), x, moved);
    simd.min_f32s(simd.max_f32s(place, simd.splat_f32s(0.0)), simd.splat_f32s((len + 1) as f32))
}

/// The integer before a place; at an integer, that or the one before, which is as good for interpolation.
#[inline(always)]
fn floor<S: Simd>(simd: S, place: S::f32s) -> S::f32s {
    let half_less = simd.sub_f32s(place, simd.splat_f32s(0.5));
    simd.sub_f32s(simd.add_f32s(half_less, simd.splat_f32s(ROUND)), simd.splat_f32s(ROUND))
}

#[inline(always)]
fn byte_wide<S: Simd>(simd: S, quad: S::u32s, n: u32) -> S::f32s {
    whole(simd, simd.and_u32s(shifted(simd, quad, 8 * n), simd.splat_u32s(255)))
}

#[inline(always)]
fn between<S: Simd>(simd: S, a: S::f32s, b: S::f32s, share: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(simd.sub_f32s(b, a), share, a)
}

/// The pictures of a block, of which there may be fewer than lanes, on wide registers. A closure of this size would
/// not be inlined where they are to be had.
struct Block<'a> {
    by: &'a Distortion,
    seed: u32,
    bytes: &'a [u8],
    fates: &'a mut [Fate],
    quads: &'a mut [u32],
    row: &'a mut Row,
    /// The first of the rows of the padded picture that are made, and those of each channel.
    first: usize,
    output: Vec<&'a mut [f32]>,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { by, seed, bytes, fates, quads, row, first, output } = self;
        let g = &by.g;
        let width = g.width + 2 * g.pad;
        let pixels = g.height * g.width;
        let all = (g.height + 2) * (g.width + 2);
        let background = -g.mean / g.deviation;
        let mut outside = [0.0; LANES];
        outside[..fates.len()].fill(background);
        for fate in &mut *fates {
            by.draw_nodes(simd, seed, fate);
        }
        for (c, plane) in output.into_iter().enumerate() {
            for values in plane.chunks_exact_mut(LANES) {
                values.copy_from_slice(&outside);
            }
            for (quads, fate) in quads.chunks_exact_mut(all).zip(&*fates) {
                frame(&bytes[(fate.image * g.channels + c) * pixels..][..pixels], g.width, quads);
            }
            for (y, output) in (first..).zip(plane.chunks_exact_mut(width * LANES)) {
                let y = y.wrapping_sub(g.pad);
                if y >= g.height {
                    continue;
                }
                // One picture's row at a time: the lines that it is strewn over stay in the nearest cache.
                for (lane, (fate, quads)) in fates.iter().zip(quads.chunks_exact(all)).enumerate() {
                    by.locate(simd, fate, y, row);
                    row.sample(simd, quads);
                    by.finish(simd, [seed, c as u32, y as u32], fate, background, row);
                    let values = output[g.pad * LANES..].chunks_exact_mut(LANES);
                    for (values, &value) in values.zip(&row.value.as_flattened()[..g.width]) {
                        values[lane] = value;
                    }
                }
            }
        }
    }
}

/// A picture's pixels, each with its right, lower and lower right neighbour in one word, and a frame of background
/// around it: `[H + 2, W + 2]`.
#[inline(always)]
fn frame(picture: &[u8], width: usize, quads: &mut [u32]) {
    let stride = width + 2;
    let last = quads.len() - stride;
    quads[..stride].fill(0);
    quads[last..].fill(0);
    for (y, pixels) in picture.chunks_exact(width).enumerate() {
        let (above, here) = quads[y * stride..][..2 * stride].split_at_mut(stride);
        let (Some(&first), Some(&last)) = (pixels.first(), pixels.last()) else { return };
        here[0] = u32::from(first) << 8;
        for ((quad, &left), &right) in here[1..].iter_mut().zip(pixels).zip(&pixels[1..]) {
            *quad = u32::from(left) | u32::from(right) << 8;
        }
        here[width] = u32::from(last);
        here[width + 1] = 0;
        above.iter_mut().zip(here).for_each(|(above, &mut pair)| *above |= pair << 16);
    }
}

impl Row {
    fn new(g: &Constants, nodes: usize) -> Row {
        let chunks = g.width.div_ceil(LANES);
        let floats = || vec![[0.0; LANES]; chunks];
        let tiles = (g.width + 2 * g.pad).div_ceil(TILE).div_ceil(LANES);
        let number = |chunk: usize| std::array::from_fn(|i| (chunk * LANES + i) as u32);
        Row {
            place: [floats(), floats()],
            at: vec![[0; LANES]; chunks],
            quad: vec![[0; LANES]; chunks],
            value: floats(),
            nodes: [vec![[0.0; LANES]; nodes], vec![[0.0; LANES]; nodes]],
            noise: std::array::from_fn(|_| vec![[0.0; LANES]; tiles]),
            columns: (0..chunks).map(|chunk| number(chunk).map(|at| at as f32)).collect(),
            numbers: (0..tiles).map(number).collect(),
        }
    }

    /// The pixels between the four of each quad.
    #[inline(always)]
    fn sample<S: Simd>(&mut self, simd: S, quads: &[u32]) {
        for (quad, &at) in self.quad.as_flattened_mut().iter_mut().zip(self.at.as_flattened()) {
            *quad = quads[at as usize];
        }
        let [x, y] = &self.place;
        let (x, y) = (wide::<S>(x.as_flattened()), wide::<S>(y.as_flattened()));
        let values = wide_mut::<S>(self.value.as_flattened_mut());
        let quads = wide_u32::<S>(self.quad.as_flattened());
        for (((value, &quad), &x), &y) in values.iter_mut().zip(quads).zip(x).zip(y) {
            let upper = between(simd, byte_wide(simd, quad, 0), byte_wide(simd, quad, 1), x);
            let lower = between(simd, byte_wide(simd, quad, 2), byte_wide(simd, quad, 3), x);
            *value = between(simd, upper, lower, y);
        }
    }
}
