//! `shaders/batch.wgsl`: the images of one step, gathered from the data set's bytes.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Args, LANES, Launch, Range, Step, WORKGROUP, blocks};
use crate::error::Result;

/// Shapes and normalisation of the gather.
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

    /// Gathers, pads and normalises a batch.
    pub fn gather(self, buffers: Buffers) -> Result<Launch> {
        let features = self.features();
        let constants = [
            ("CHANNELS", self.channels as f64),
            ("HEIGHT", self.height as f64),
            ("WIDTH", self.width as f64),
            ("PAD", self.pad as f64),
            ("MEAN", f64::from(self.mean)),
            ("DEVIATION", f64::from(self.deviation)),
        ];
        let grid = [(features * LANES).div_ceil(WORKGROUP), blocks(self.batch), 1];
        let bindings = [("images", buffers.images), ("order", buffers.order), ("output", buffers.output)];
        let pixels = (self.batch * self.channels * self.height * self.width) as u64;
        let launch = Launch::new(
            ("batch", "gather"),
            &constants,
            grid,
            &bindings,
            3 * pixels,
            Arc::new(move |args: &mut Args<'_>| {
                let (images, order) = (args.u32("images"), args.u32("order"));
                gather(&self, args.step, images, order, args.f32_mut("output"));
            }),
        )?;
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
