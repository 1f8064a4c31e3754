//! `shaders/batch.wgsl`: the images of one step, gathered from the data set's bytes.

use super::augment::Augment;
use super::shaders::batch as shader;
use super::{LANES, Launch, Range, blocks, over_blocks};
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
        self.gather_window(buffers, 0)
    }

    /// As [`Geometry::gather`], of a window of a data set: the order has places in it, and from `names` on the indices
    /// in the data set of the images there, by which they are distorted.
    ///
    /// # Errors
    /// As [`Geometry::gather`].
    pub fn gather_window(self, buffers: Buffers, names: usize) -> Result<Launch> {
        let Geometry { channels, height, width, pad, mean, deviation, batch, augment } = self;
        let Buffers { images, order, output } = buffers;
        let features = self.features();
        let pixels = (batch * channels * height * width) as u64;
        let grid = |invocations: usize| over_blocks(invocations * LANES, blocks(batch));
        let launch = match augment.filter(|augment| !augment.is_none()) {
            None => {
                let (grid, row) = grid(features);
                let constants =
                    shader::gather::Constants { channels, height, width, pad, mean, deviation, row };
                let bindings = shader::gather::Bindings { images, order, output };
                shader::gather::launch(constants, bindings, grid, 3 * pixels)?
            }
            Some(augment) => {
                augment.check()?;
                let tiles = (width + 2 * pad).div_ceil(TILE) * (height + 2 * pad);
                let (grid, row) = grid(tiles);
                let constants = shader::Constants { names, row, ..self.distortion(augment) };
                let bindings = shader::augment::Bindings { images, order, output };
                shader::augment::launch(constants, bindings, grid, flop(augment) * pixels)?
            }
        };
        Ok(launch.with_bytes(pixels + 4 * (features * blocks(batch) * LANES + batch) as u64))
    }

    fn distortion(&self, augment: Augment) -> shader::Constants {
        let Augment { shift, rotate, scale, shear, elastic, noise, cutout, flip } = augment;
        shader::Constants {
            channels: self.channels,
            height: self.height,
            width: self.width,
            pad: self.pad,
            mean: self.mean,
            deviation: self.deviation,
            shift,
            rotate: rotate.to_radians(),
            scale,
            shear: shear.to_radians(),
            elastic: elastic.alpha,
            // Any spacing, where there is no field.
            spacing: if elastic.alpha > 0.0 { elastic.spacing() } else { 1.0 },
            noise,
            cutout: cutout as usize,
            flip,
            names: 0,
            row: 0,
        }
    }
}

/// Columns of an invocation of `augment`.
pub(crate) const TILE: usize = 4;

/// Floating-point operations a pixel: 8 for its place, 11 between its neighbours, 3 to normalise; the share of a
/// column in at least five columns of nodes; the noise.
fn flop(augment: Augment) -> u64 {
    let field = if augment.elastic.alpha > 0.0 { 5 * (4 * 4 / TILE as u64 + 12 + 4) } else { 0 };
    let noise = if augment.noise > 0.0 { 3 } else { 0 };
    22 + field + noise
}
