//! `shaders/plain_lenet5.wgsl`: LeNet-5's whole training step in two launches, in the form that is to be read.

use super::optimizer::{Optimizer, Rule};
use super::shaders::plain_lenet5 as shader;
use super::{Launch, MOST_GROUPS, Range, WORKGROUP};
use crate::error::Result;

/// Floats of a picture's record.
pub const RECORD: usize = 3_584;

/// All parameters, with what lies between the tensors.
pub const PARAMETERS: usize = 62_080;

/// Where the parameters of the linear layers begin, behind those of the convolutions.
pub const LINEAR1: usize = 2_752;

/// What is not fixed of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Pictures in a batch.
    pub batch: usize,
    /// Subtracted from pixels/255.
    pub mean: f32,
    /// Divides what is left.
    pub deviation: f32,
    /// Adam's settings; the shader knows no other rule and no penalty.
    pub optimizer: Optimizer,
}

/// Its buffers.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// Pictures of 28×28 bytes.
    pub images: Range,
    /// A byte each.
    pub labels: Range,
    /// The epoch's permutation.
    pub order: Range,
    /// [`RECORD`] floats for each picture of the batch.
    pub records: Range,
    /// [`PARAMETERS`] floats.
    pub parameters: Range,
    /// As many.
    pub moment1: Range,
    /// As many.
    pub moment2: Range,
    /// As many.
    pub gradients: Range,
    /// Parameters and moments as they were before the step.
    pub before: Range,
    /// The metrics ring, and the status.
    pub metrics: Range,
}

/// Weights of the linear layers.
const LINEAR: usize = 120 * 400 + 84 * 120 + 10 * 84;

/// Multiply-adds of one picture: the layers forward and back, where a pooling window has one gradient of four.
const MULTIPLY_ADDS: usize = 150 * 784 + 2_400 * 100 + 2 * LINEAR + 2 * 2_400 * 25 + 150 * 196;

impl Geometry {
    /// Whether the shader knows the update rule.
    pub fn knows(optimizer: &Optimizer) -> bool {
        optimizer.rule == Rule::Adam && optimizer.weight_decay == 0.0 && optimizer.l1 == 0.0
    }

    fn constants(&self, row: usize) -> shader::Constants {
        let Optimizer { beta1, beta2, epsilon, .. } = self.optimizer;
        shader::Constants { mean: self.mean, deviation: self.deviation, beta1, beta2, epsilon, row }
    }

    /// Each picture from its bytes to the loss and all the way back.
    ///
    /// # Errors
    /// Those of [`Launch`].
    pub fn picture(self, b: Buffers) -> Result<Launch> {
        let across = self.batch.min(MOST_GROUPS);
        let grid = [across, self.batch.div_ceil(across), 1];
        let Buffers { images, labels, order, records, parameters: weights, metrics, .. } = b;
        let bindings = shader::picture::Bindings { images, labels, order, weights, records, metrics };
        let flop = (2 * self.batch * MULTIPLY_ADDS) as u64;
        let bytes = 4 * (self.batch * (196 + RECORD) + PARAMETERS) as u64;
        Ok(shader::picture::launch(self.constants(across), bindings, grid, flop)?.with_bytes(bytes))
    }

    /// The whole batch's gradients, the update and the metrics.
    ///
    /// # Errors
    /// Those of [`Launch`].
    pub fn update(self, b: Buffers) -> Result<Launch> {
        // One invocation more, for the metrics.
        let groups = (PARAMETERS + 1).div_ceil(WORKGROUP);
        let Buffers { records: made, parameters, moment1, moment2, gradients, before, metrics, .. } = b;
        let bindings =
            shader::update::Bindings { made, parameters, moment1, moment2, gradients, before, metrics };
        let flop = (self.batch * (LINEAR1 + 2 * LINEAR) + 12 * PARAMETERS) as u64;
        let bytes = 4 * (self.batch * RECORD + 10 * PARAMETERS) as u64;
        Ok(shader::update::launch(self.constants(1), bindings, [groups, 1, 1], flop)?.with_bytes(bytes))
    }
}
