//! `shaders/norm.wgsl`: each channel normalised and put through an affine map, and the gradients.

pub use super::Gradients;

use super::activation::Activation;
use super::shaders::norm as shader;
use super::{LANES, Launch, Range, Target, WORKGROUP, blocks, fused, over_blocks, padded};
use crate::error::Result;

/// What a channel is normalised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The mean and variance of this batch (Ioffe and Szegedy 2015).
    Batch,
    /// Their running averages.
    Running,
    /// Nothing: the affine map alone (the sub-sampling of LeCun et al. 1998).
    Affine,
}

/// Shapes and settings of a normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels.
    pub channels: usize,
    /// Elements of a channel of an image: rows times columns, 1 after a linear layer.
    pub positions: usize,
    /// What a channel is normalised by.
    pub kind: Kind,
    /// Added to a variance.
    pub epsilon: f32,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// The device: the sums over a channel are split until it is filled.
    pub target: Target,
}

/// The buffers of a normalisation.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[channels, positions]` of each image.
    pub input: Range,
    /// `[channels]`.
    pub weight: Range,
    /// `[channels]`.
    pub bias: Range,
    /// `[channels]`; any range of [`Kind::Affine`].
    pub running_mean: Range,
    /// `[channels]`; any range of [`Kind::Affine`].
    pub running_variance: Range,
    /// `[channels]` each: the batch's mean and variance, as the running averages take them in; any range of the other
    /// kinds.
    pub batch: [Range; 2],
    /// [`Geometry::saved`] floats of [`Kind::Batch`]: the batch's means, then its `1 / √(variance + ε)`. Any range of
    /// the other kinds.
    pub saved: Range,
    /// `[channels, positions]` of each image.
    pub output: Range,
}

/// Floats of a channel's moments: how many elements, their mean, the sum of their squared distances from it.
pub(crate) const MOMENTS: usize = 3;

/// The most partial sums of a channel; whoever adds them up reads as many.
const MOST_SPLITS: usize = 8;

impl Geometry {
    /// Partial sums of the gradients of weight and bias: no more than fill the device, never more than leave each of
    /// a workgroup's four workers some positions.
    pub fn splits(&self) -> usize {
        let most = (blocks(self.batch) * self.positions.div_ceil(8)).div_ceil(4);
        (self.target.fill / (self.channels * WORKGROUP)).clamp(1, most.min(MOST_SPLITS))
    }

    /// Floats of [`Buffers::saved`].
    pub fn saved(&self) -> usize {
        let partial = if self.splits() > 1 { MOMENTS * self.splits() } else { 0 };
        (2 + partial) * padded(self.channels)
    }

    /// Pieces that a block's positions are cut into: enough that every worker has one.
    fn segments(&self) -> usize {
        (4 * self.splits()).div_ceil(blocks(self.batch)).clamp(1, self.positions.div_ceil(8))
    }

    /// Those of a launch over a grid of so many rows, where it is one over channels.
    fn constants(&self, grid_rows: usize) -> shader::Constants {
        let Geometry { channels, positions, epsilon, .. } = *self;
        shader::Constants {
            channels,
            positions,
            kind: self.kind as usize,
            epsilon,
            activation: fused(self.activation),
            blocks: blocks(self.batch),
            splits: self.splits(),
            segments: self.segments(),
            row: self.grid().1,
            grid_rows,
        }
    }

    fn elements(&self) -> u64 {
        (self.channels * self.positions * self.batch) as u64
    }

    /// The grid of launches over elements, and the invocations of a row of it.
    fn grid(&self) -> ([usize; 3], usize) {
        let tiles = self.channels * self.positions.div_ceil(8);
        over_blocks(tiles * LANES, blocks(self.batch))
    }

    /// Where the mean and the spread of a channel come from; the affine map reads neither.
    fn normal(&self, b: &Buffers) -> [Range; 2] {
        match self.kind {
            Kind::Batch => {
                let stride = padded(self.channels);
                [0, stride].map(|at| Range { start: b.saved.start + at, len: stride, ..b.saved })
            }
            Kind::Running => [b.running_mean, b.running_variance],
            Kind::Affine => [b.weight; 2],
        }
    }

    /// The batch's statistics: one launch, or two where a channel is split; none
    /// but of [`Kind::Batch`].
    pub fn statistics(self, b: Buffers) -> Result<Vec<Launch>> {
        if self.kind != Kind::Batch {
            return Ok(Vec::new());
        }
        let Buffers { input, saved, batch: [batch_mean, batch_variance], .. } = b;
        let flop = 4 * self.elements();
        if self.splits() == 1 {
            let bindings = shader::statistics::Bindings { input, saved, batch_mean, batch_variance };
            let (grid, rows) = self.target.grid([self.channels], 1);
            return Ok(vec![shader::statistics::launch(self.constants(rows), bindings, grid, flop)?]);
        }
        let bindings = shader::moments::Bindings { input, saved };
        let (grid, rows) = self.target.grid([self.channels], self.splits());
        let partial = shader::moments::launch(self.constants(rows), bindings, grid, flop)?;
        let bindings = shader::merge::Bindings { saved, batch_mean, batch_variance };
        let (grid, rows) = self.target.grid([self.channels.div_ceil(WORKGROUP)], 1);
        let flop = 10 * (self.channels * self.splits()) as u64;
        Ok(vec![partial, shader::merge::launch(self.constants(rows), bindings, grid, flop)?])
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let [mean, spread] = self.normal(&b);
        let Buffers { input, weight, bias, output, .. } = b;
        let bindings = shader::forward::Bindings { input, weight, bias, mean, spread, output };
        shader::forward::launch(self.constants(1), bindings, self.grid().0, 3 * self.elements())
    }

    /// The partial sums of the gradients of weight and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let [mean, spread] = self.normal(&b);
        let bindings = shader::weight_gradient::Bindings {
            input: b.input,
            mean,
            spread,
            activated: b.output,
            output_grad: g.output,
            weight_grad: g.weight,
            bias_grad: g.bias,
        };
        let (grid, rows) = self.target.grid([self.channels], self.splits());
        shader::weight_gradient::launch(self.constants(rows), bindings, grid, 4 * self.elements())
    }

    /// The gradient of the input; of [`Kind::Batch`] from the sums that [`Geometry::weight_gradient`] left.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, saved: batch_statistics, output: activated, .. } = b;
        let output_grad = g.output;
        if self.kind != Kind::Batch {
            let [_, spread] = self.normal(&b);
            let bindings =
                shader::scaled_gradient::Bindings { weight, spread, activated, output_grad, input_grad };
            return shader::scaled_gradient::launch(
                self.constants(1),
                bindings,
                self.grid().0,
                self.elements(),
            );
        }
        let bindings = shader::input_gradient::Bindings {
            input,
            weight,
            activated,
            output_grad,
            batch_statistics,
            weight_sums: g.weight,
            bias_sums: g.bias,
            input_grad,
        };
        shader::input_gradient::launch(self.constants(1), bindings, self.grid().0, 6 * self.elements())
    }
}
