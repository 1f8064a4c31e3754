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

pub(super) fn gather(g: &Geometry, step: Step, images: &[u32], order: &[u32], output: &mut [f32]) {
    let bytes: &[u8] = bytemuck::cast_slice(images);
    let pixels = g.channels * g.height * g.width;
    let (height, width) = (g.height + 2 * g.pad, g.width + 2 * g.pad);
    let background = (0.0 - g.mean) / g.deviation;
    // A byte has 256 values: their normalised forms are looked up.
    let table: Vec<f32> = (0..=255u8).map(|byte| (f32::from(byte) / 255.0 - g.mean) / g.deviation).collect();
    output.par_chunks_mut(g.features() * LANES).enumerate().for_each(|(block, output)| {
        let row = |lane: usize| (block * LANES + lane < step.count as usize).then_some(block * LANES + lane);
        let pictures: [Option<&[u8]>; LANES] = std::array::from_fn(|lane| {
            let image = order[step.cursor as usize + row(lane)?] as usize;
            Some(&bytes[image * pixels..][..pixels])
        });
        let outside: [f32; LANES] =
            std::array::from_fn(|lane| if row(lane).is_some() { background } else { 0.0 });
        for (element, values) in output.chunks_exact_mut(LANES).enumerate() {
            let (c, y, x) = (element / (height * width), element / width % height, element % width);
            let (y, x) = (y.wrapping_sub(g.pad), x.wrapping_sub(g.pad));
            if y < g.height && x < g.width {
                let at = (c * g.height + y) * g.width + x;
                for (value, picture) in values.iter_mut().zip(&pictures) {
                    *value = picture.map_or(0.0, |picture| table[usize::from(picture[at])]);
                }
            } else {
                values.copy_from_slice(&outside);
            }
        }
    });
}
