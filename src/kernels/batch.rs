//! `shaders/batch.wgsl`: the images of one step, gathered from the data set's bytes.

use std::sync::Arc;

use rayon::prelude::*;

use super::simd::{Plain, scratch, vectorize};
use super::{Args, LANES, Launch, Range, Step, Twin, WORKGROUP, blocks};
use crate::augment::Augment;
use crate::error::Result;

/// Shapes and normalisation of the gather, and what it does to the pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Colour planes.
    pub channels: usize,
    /// Rows of the stored picture.
    pub height: usize,
    /// Columns of the stored picture.
    pub width: usize,
    /// Rows and columns of background added on each side.
    pub pad: usize,
    /// Subtracted from pixels/255.
    pub mean: f32,
    /// Divides what is left.
    pub deviation: f32,
    /// Images in a batch.
    pub batch: usize,
    /// How the pictures are distorted, if they are; a layer that gathers its own images takes them as they are.
    pub augment: Option<Augment>,
}

/// The buffers of [`Geometry::gather`].
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// Packed pixels, four a word: `[N, C, H, W]` bytes.
    pub images: Range,
    /// The epoch's permutation of the images.
    pub order: Range,
    /// `[C, H + 2·pad, W + 2·pad]` of each image of the batch.
    pub output: Range,
}

impl Geometry {
    /// Elements of one image as the network sees it.
    pub fn features(&self) -> usize {
        self.channels * (self.height + 2 * self.pad) * (self.width + 2 * self.pad)
    }

    /// Gathers, augments, pads and normalises a batch.
    ///
    /// # Errors
    /// [`Error::Settings`](crate::Error::Settings) when a setting of the augmentation is out of range.
    pub fn gather(self, buffers: Buffers) -> Result<Launch> {
        let augment = self.augment.filter(|augment| !augment.is_none());
        let features = self.features();
        let mut constants = vec![
            ("CHANNELS", self.channels as f64),
            ("HEIGHT", self.height as f64),
            ("WIDTH", self.width as f64),
            ("PAD", self.pad as f64),
            ("MEAN", f64::from(self.mean)),
            ("DEVIATION", f64::from(self.deviation)),
        ];
        let pixels = (self.batch * self.channels * self.height * self.width) as u64;
        let (entry, invocations, flop, twin): (_, _, _, Twin) = match augment {
            None => {
                let twin = move |args: &mut Args<'_>| {
                    let (images, order) = (args.u32("images"), args.u32("order"));
                    gather(&self, args.step, images, order, args.f32_mut("output"));
                };
                ("gather", features, 3 * pixels, Arc::new(twin))
            }
            Some(augment) => {
                augment.check()?;
                let distortion = Distortion::new(self, augment);
                constants.extend(distortion.constants());
                let tiles = (self.width + 2 * self.pad).div_ceil(TILE) * (self.height + 2 * self.pad);
                let flop = distortion.flop() * pixels;
                let twin = move |args: &mut Args<'_>| {
                    let (images, order) = (args.u32("images"), args.u32("order"));
                    distortion.run(args.step, images, order, args.f32_mut("output"));
                };
                ("augment", tiles, flop, Arc::new(twin))
            }
        };
        let grid = [(invocations * LANES).div_ceil(WORKGROUP), blocks(self.batch), 1];
        let bindings = [("images", buffers.images), ("order", buffers.order), ("output", buffers.output)];
        let launch = Launch::new(("batch", entry), &constants, grid, &bindings, flop, twin)?;
        Ok(launch.with_bytes(pixels + 4 * (features * blocks(self.batch) * LANES + self.batch) as u64))
    }
}

fn gather(g: &Geometry, step: Step, images: &[u32], order: &[u32], output: &mut [f32]) {
    let batch = Gather::new(g, step, images, order);
    output
        .par_chunks_mut(g.features() * LANES)
        .enumerate()
        .for_each(|(block, output)| batch.block(block, 0, output));
}

/// One step's images, for twins that gather them themselves.
pub(super) struct Gather<'a> {
    g: &'a Geometry,
    step: Step,
    bytes: &'a [u8],
    order: &'a [u32],
    /// A byte has 256 values: their normalised forms are looked up.
    table: [f32; 256],
}

impl<'a> Gather<'a> {
    pub(super) fn new(g: &'a Geometry, step: Step, images: &'a [u32], order: &'a [u32]) -> Gather<'a> {
        let table = std::array::from_fn(|byte| (byte as f32 / 255.0 - g.mean) / g.deviation);
        Gather { g, step, bytes: bytemuck::cast_slice(images), order, table }
    }

    /// `[C, H + 2·pad, W + 2·pad + 2·margin]` of the 16 images of a block, zeros in the margins.
    pub(super) fn block(&self, block: usize, margin: usize, output: &mut [f32]) {
        let g = self.g;
        let pixels = g.channels * g.height * g.width;
        let background = (0.0 - g.mean) / g.deviation;
        let pictures: [Option<&[u8]>; LANES] = std::array::from_fn(|lane| {
            let row = block * LANES + lane;
            let there = row < self.step.count as usize;
            let image = there.then(|| self.order[self.step.cursor as usize + row] as usize)?;
            Some(&self.bytes[image * pixels..][..pixels])
        });
        let outside = pictures.map(|picture| if picture.is_some() { background } else { 0.0 });
        let fill = |values: &mut [f32], with: &[f32; LANES]| {
            values.chunks_exact_mut(LANES).for_each(|values| values.copy_from_slice(with));
        };
        let width = g.width + 2 * g.pad;
        let rows = output.chunks_exact_mut((width + 2 * margin) * LANES).enumerate();
        for (row, output) in rows {
            let (c, y) = (row / (g.height + 2 * g.pad), row % (g.height + 2 * g.pad));
            let (left, output) = output.split_at_mut(margin * LANES);
            let (output, right) = output.split_at_mut(width * LANES);
            fill(left, &[0.0; LANES]);
            fill(right, &[0.0; LANES]);
            let y = y.wrapping_sub(g.pad);
            if y >= g.height {
                fill(output, &outside);
                continue;
            }
            let (left, output) = output.split_at_mut(g.pad * LANES);
            let (output, right) = output.split_at_mut(g.width * LANES);
            fill(left, &outside);
            fill(right, &outside);
            // One picture's row at a time: the lines that it is strewn over stay in the nearest cache.
            for (lane, picture) in pictures.iter().enumerate() {
                let values = output.chunks_exact_mut(LANES);
                match picture {
                    Some(picture) => {
                        let bytes = &picture[(c * g.height + y) * g.width..][..g.width];
                        for (values, &byte) in values.zip(bytes) {
                            values[lane] = self.table[usize::from(byte)];
                        }
                    }
                    None => values.for_each(|values| values[lane] = 0.0),
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------
// Augmentation

/// Columns of an invocation of `augment`.
const TILE: usize = 4;

/// What a random number is for; the shader's constants.
const FOR_MAP: u32 = 0;
const FOR_PLACE: u32 = 1;
const FOR_FIELD: u32 = 2;
const FOR_NOISE: u32 = 3;

/// PCG4D (Jarzynski and Olano, Hash Functions for GPU Rendering, 2020).
#[inline(always)]
fn random(seed: u32, image: u32, detail: u32, purpose: u32) -> [u32; 4] {
    let key = |word: u32| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let mix = |[mut x, mut y, mut z, mut w]: [u32; 4]| {
        x = x.wrapping_add(y.wrapping_mul(w));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
        w = w.wrapping_add(y.wrapping_mul(z));
        [x, y, z, w]
    };
    mix(mix([key(seed), key(image), key(detail), key(purpose)]).map(|word| word ^ word >> 16))
}

/// Uniform in −1 ≤ x < 1, without rounding.
#[inline(always)]
fn symmetric(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// The sum of a word's four bytes.
#[inline(always)]
fn bytes(word: u32) -> u32 {
    let pairs = (word & 0x00ff_00ff) + (word >> 8 & 0x00ff_00ff);
    (pairs & 0xffff) + (pairs >> 16)
}

/// The cubic B-spline, which ends at ±2.
fn spline(t: f32) -> f32 {
    let wide = (2.0 - t.abs()).max(0.0);
    let narrow = (1.0 - t.abs()).max(0.0);
    (wide * wide * wide - 4.0 * narrow * narrow * narrow) / 6.0
}

/// An augmentation made ready for pictures of one shape. Rows are as long as whole registers.
struct Distortion {
    g: Geometry,
    augment: Augment,
    /// Pixels between two nodes of the elastic field's lattice.
    spacing: f32,
    /// Rows and columns of that lattice, from one node before the picture; none where there is no field.
    nodes: [usize; 2],
    /// Of each node, row by row, what its random numbers are hashed from.
    details: Vec<u32>,
    /// For each row of the picture, the first of the four rows of nodes that move it, and their weights in pixels.
    rows: Vec<(usize, [f32; 4])>,
    /// For each column of nodes, the first column of the picture that it moves, and the weights from there on.
    columns: Vec<(usize, Vec<f32>)>,
}

/// What happens to one picture in one step.
struct Fate {
    image: usize,
    /// Where (x, y) of the picture that is seen lies in the stored one: the factors of x, y and 1.
    map: [[f32; 3]; 2],
    /// The corner of the cutout; it may lie before the picture.
    cut: [i32; 2],
    /// The nodes' displacements along x, then along y, as shares of the largest.
    nodes: Vec<f32>,
}

/// A row of a picture on its way.
struct Row {
    /// Where each pixel lies, along x and along y, first in the picture that is seen, then between two pixels of the
    /// stored one.
    place: [Vec<f32>; 2],
    at: Vec<u32>,
    quad: Vec<u32>,
    value: Vec<f32>,
    /// The displacements of a row between two rows of nodes.
    nodes: [Vec<f32>; 2],
}

impl Distortion {
    fn new(g: Geometry, augment: Augment) -> Distortion {
        let elastic = augment.elastic.alpha > 0.0;
        // Any spacing, where there is no field.
        let spacing = if elastic { augment.elastic.spacing() } else { 1.0 };
        let first = |at: usize| (at as f32 / spacing).floor() as usize;
        let count = |len: usize| if elastic { first(len - 1) + 4 } else { 0 };
        let nodes = [count(g.height), count(g.width)];
        let weight = |at: usize, node: usize| spline(at as f32 / spacing - (node as f32 - 1.0));
        let row =
            |y: usize| (first(y), [0, 1, 2, 3].map(|n| augment.elastic.alpha * weight(y, first(y) + n)));
        let column = |node: usize| {
            let moved = |x: &usize| (first(*x)..first(*x) + 4).contains(&node);
            let start = (0..g.width).find(moved).unwrap_or(0) / LANES * LANES;
            let end = (0..g.width).rfind(moved).map_or(start, |last| (last + 1).next_multiple_of(LANES));
            (start, (start..end).map(|x| weight(x, node)).collect())
        };
        Distortion {
            g,
            augment,
            spacing,
            nodes,
            // The shader counts nodes from the picture's corner.
            details: (-1..nodes[0] as i32 - 1)
                .flat_map(|j| (-1..nodes[1] as i32 - 1).map(move |i| (j * 65536 + i) as u32))
                .collect(),
            rows: if elastic { (0..g.height).map(row).collect() } else { Vec::new() },
            columns: (0..nodes[1]).map(column).collect(),
        }
    }

    /// The overrides of the shader.
    fn constants(&self) -> [(&'static str, f64); 9] {
        let Augment { shift, rotate, scale, shear, elastic, noise, cutout, flip } = self.augment;
        [
            ("SHIFT", f64::from(shift)),
            ("ROTATE", f64::from(rotate.to_radians())),
            ("SCALE", f64::from(scale)),
            ("SHEAR", f64::from(shear.to_radians())),
            ("ELASTIC", f64::from(elastic.alpha)),
            ("SPACING", f64::from(self.spacing)),
            ("NOISE", f64::from(noise)),
            ("CUTOUT", f64::from(cutout)),
            ("FLIP", f64::from(u8::from(flip))),
        ]
    }

    /// Floating-point operations a pixel: 8 for its place, 11 between its neighbours, 3 to normalise; the share of a
    /// column in at least five columns of nodes; the noise.
    fn flop(&self) -> u64 {
        let field = if self.nodes[1] > 0 { 5 * (4 * 4 / TILE as u64 + 12 + 4) } else { 0 };
        let noise = if self.augment.noise > 0.0 { 3 } else { 0 };
        22 + field + noise
    }

    fn run(&self, step: Step, images: &[u32], order: &[u32], output: &mut [f32]) {
        let bytes: &[u8] = bytemuck::cast_slice(images);
        output.par_chunks_mut(self.g.features() * LANES).enumerate().for_each(|(block, output)| {
            let rows = block * LANES..(step.count as usize).min((block + 1) * LANES);
            let images: Vec<u32> = rows.map(|row| order[step.cursor as usize + row]).collect();
            vectorize(Plain(
                #[inline(always)]
                || self.block(step.seed, bytes, &images, output),
            ));
        });
    }

    /// The pictures of a block, of which there may be fewer than lanes.
    #[inline(always)]
    fn block(&self, seed: u32, bytes: &[u8], images: &[u32], output: &mut [f32]) {
        let g = &self.g;
        let width = g.width + 2 * g.pad;
        let plane = (g.height + 2 * g.pad) * width * LANES;
        let background = -g.mean / g.deviation;
        let outside =
            std::array::from_fn::<f32, LANES, _>(|lane| if lane < images.len() { background } else { 0.0 });
        output.chunks_exact_mut(LANES).for_each(|values| values.copy_from_slice(&outside));
        let fates: Vec<Fate> = images.iter().map(|&image| self.fate(seed, image)).collect();
        let mut row = Row::new(g.width, self.nodes[1]);
        let pixels = g.height * g.width;
        let framed = (g.height + 2) * (g.width + 2);
        scratch(images.len() * framed, |quads| {
            let quads: &mut [u32] = bytemuck::cast_slice_mut(quads);
            for (c, plane) in output.chunks_exact_mut(plane).enumerate() {
                for (quads, fate) in quads.chunks_exact_mut(framed).zip(&fates) {
                    frame(&bytes[(fate.image * g.channels + c) * pixels..][..pixels], g.width, quads);
                }
                let rows = plane.chunks_exact_mut(width * LANES).skip(g.pad).take(g.height);
                for (y, output) in rows.enumerate() {
                    // One picture's row at a time: the lines that it is strewn over stay in the nearest cache.
                    for (lane, (fate, quads)) in fates.iter().zip(quads.chunks_exact(framed)).enumerate() {
                        self.locate(fate, y, &mut row);
                        row.sample(quads);
                        self.finish(seed, fate, [c, y], background, &mut row.value);
                        let values = output[g.pad * LANES..].chunks_exact_mut(LANES);
                        for (values, &value) in values.zip(&row.value[..g.width]) {
                            values[lane] = value;
                        }
                    }
                }
            }
        });
    }

    #[inline(always)]
    fn fate(&self, seed: u32, image: u32) -> Fate {
        let Augment { shift, rotate, scale, shear, cutout, flip, .. } = self.augment;
        let [x, y, z, w] = random(seed, image, 0, FOR_MAP).map(symmetric);
        let place = random(seed, image, 0, FOR_PLACE);
        let size = [self.g.width, self.g.height];
        let center = size.map(|len| (len as f32 - 1.0) / 2.0);
        let (sine, cosine) = (rotate.to_radians() * z).sin_cos();
        let slope = (shear.to_radians() * symmetric(place[0])).tan();
        let factor = 1.0 / (1.0 + scale * w);
        let flipped = flip && place[1] >> 31 == 1;
        let along = if flipped { -factor } else { factor };
        let moved = [center[0] + shift * x, center[1] + shift * y];
        let from = |[a, b]: [f32; 2], center: f32| [a, b, center - (a * moved[0] + b * moved[1])];
        let corner = |word: u32, len: usize| ((word >> 16) * len as u32 / 65536) as i32 - cutout as i32 / 2;
        let mut nodes = vec![0.0; 2 * self.details.len()];
        let (along_x, along_y) = nodes.split_at_mut(self.details.len());
        for ((x, y), &detail) in along_x.iter_mut().zip(along_y).zip(&self.details) {
            let words = random(seed, image, detail, FOR_FIELD);
            (*x, *y) = (symmetric(words[0]), symmetric(words[1]));
        }
        Fate {
            image: image as usize,
            map: [
                from([(cosine + slope * sine) * along, (sine - slope * cosine) * along], center[0]),
                from([-sine * factor, cosine * factor], center[1]),
            ],
            cut: [corner(place[2], size[0]), corner(place[3], size[1])],
            nodes,
        }
    }

    /// Where the pixels of row `y` come from: which quad, and where in it.
    #[inline(always)]
    fn locate(&self, fate: &Fate, y: usize, row: &mut Row) {
        let [places_x, places_y] = &mut row.place;
        places_x.iter_mut().enumerate().for_each(|(x, place)| *place = x as f32);
        places_y.fill(y as f32);
        if let Some((first, weights)) = self.rows.get(y) {
            let columns = self.nodes[1];
            let planes = fate.nodes.chunks_exact(self.details.len());
            for ((nodes, sums), places) in planes.zip(&mut row.nodes).zip([&mut *places_x, &mut *places_y]) {
                let lines: [&[f32]; 4] = std::array::from_fn(|n| &nodes[(first + n) * columns..][..columns]);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = weights[0] * lines[0][i]
                        + weights[1] * lines[1][i]
                        + weights[2] * lines[2][i]
                        + weights[3] * lines[3][i];
                }
                for (&sum, (start, weights)) in sums.iter().zip(&self.columns) {
                    for (place, &weight) in places[*start..].iter_mut().zip(weights) {
                        *place += weight * sum;
                    }
                }
            }
        }
        let [to_x, to_y] = fate.map;
        let (width, height) = (self.g.width as f32, self.g.height as f32);
        let stride = self.g.width as u32 + 2;
        for ((x, y), at) in places_x.iter_mut().zip(places_y).zip(&mut row.at) {
            // The frame is one pixel wide, and all that lies beyond it is alike.
            let from_x = (to_x[0] * *x + to_x[1] * *y + to_x[2]).max(-1.0).min(width) + 1.0;
            let from_y = (to_y[0] * *x + to_y[1] * *y + to_y[2]).max(-1.0).min(height) + 1.0;
            let (left, top) = (from_x as i32, from_y as i32);
            (*x, *y) = (from_x - left as f32, from_y - top as f32);
            *at = top as u32 * stride + left as u32;
        }
    }

    /// Noise, normalisation, cutout.
    #[inline(always)]
    fn finish(&self, seed: u32, fate: &Fate, [c, y]: [usize; 2], background: f32, values: &mut [f32]) {
        let g = &self.g;
        let Augment { noise, cutout, .. } = self.augment;
        if noise > 0.0 {
            // Four bytes have the mean 510 and the variance 65535 / 3.
            let factor = 255.0 * noise * (3f32 / 65535.0).sqrt();
            let tiles = (g.width + 2 * g.pad).div_ceil(TILE);
            let first = ((c * g.height + y) * tiles) as u32;
            for (i, value) in values[..g.width].iter_mut().enumerate() {
                let column = i + g.pad;
                let words = random(seed, fate.image as u32, first + (column / TILE) as u32, FOR_NOISE);
                *value += factor * (bytes(words[column % TILE]) as f32 - 510.0);
            }
        }
        let factor = 1.0 / (255.0 * g.deviation);
        values.iter_mut().for_each(|value| *value = *value * factor + background);
        if (0..cutout as i32).contains(&(y as i32 - fate.cut[1])) {
            let [start, end] =
                [0, cutout as i32].map(|at| (fate.cut[0] + at).clamp(0, g.width as i32) as usize);
            values[start..end].fill(background);
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
    fn new(width: usize, nodes: usize) -> Row {
        let wide = width.next_multiple_of(LANES);
        let floats = |len| vec![0.0; len];
        Row {
            place: [floats(wide), floats(wide)],
            at: vec![0; wide],
            quad: vec![0; wide],
            value: floats(wide),
            nodes: [floats(nodes), floats(nodes)],
        }
    }

    /// The pixels between the four of each quad.
    #[inline(always)]
    fn sample(&mut self, quads: &[u32]) {
        for (quad, &at) in self.quad.iter_mut().zip(&self.at) {
            *quad = quads[at as usize];
        }
        let [x, y] = &self.place;
        for (((value, &quad), &x), &y) in self.value.iter_mut().zip(&self.quad).zip(x).zip(y) {
            let pixel = |n: u32| (quad >> (8 * n) & 255) as i32 as f32;
            let upper = pixel(0) + (pixel(1) - pixel(0)) * x;
            let lower = pixel(2) + (pixel(3) - pixel(2)) * x;
            *value = upper + (lower - upper) * y;
        }
    }
}
