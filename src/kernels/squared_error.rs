//! `shaders/squared_error.wgsl`: the mean squared error of outputs and one-hot labels, and its gradient.

pub use super::loss::Buffers;

use super::shaders::squared_error as shader;
use super::{LANES, Launch, Range, blocks, elementwise};
use crate::error::Result;

/// Shapes and settings of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Classes, that is outputs of a position.
    pub classes: usize,
    /// Positions of an image, each with its own label: 1 of a classifier, the pixels of a segmentation.
    pub positions: usize,
    /// Label smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016).
    pub smoothing: f32,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// Rows of a batch, those of lanes without an image among them.
    pub fn rows(&self) -> usize {
        blocks(self.batch) * LANES * self.positions
    }

    fn constants(&self) -> shader::Constants {
        let Geometry { classes, positions, smoothing, .. } = *self;
        let (_, row) = elementwise(self.rows());
        shader::Constants { classes, positions, rows: self.rows(), row, smoothing }
    }

    fn grid(&self) -> [usize; 3] {
        elementwise(self.rows()).0
    }

    /// Of so many operations an output.
    fn flop(&self, operations: usize) -> u64 {
        (operations * self.classes * self.positions * self.batch) as u64
    }

    /// Of launches that go over the outputs, or what is shaped like them, so many times.
    fn bytes(&self, passes: usize) -> u64 {
        (4 * self.rows() * (passes * self.classes + 4)) as u64
    }

    /// Loss and verdict of each row, and the gradient of the mean loss; clears the step's flags.
    pub fn squared_error_gradient(self, b: Buffers, logits_grad: Range, metrics: Range) -> Result<Launch> {
        let Buffers { logits, labels, order, rows } = b;
        let bindings =
            shader::squared_error_gradient::Bindings { logits, labels, order, logits_grad, rows, metrics };
        let (grid, flop) = (self.grid(), self.flop(5));
        let launch = shader::squared_error_gradient::launch(self.constants(), bindings, grid, flop)?;
        Ok(launch.with_bytes(self.bytes(2)))
    }

    /// Loss and verdict of each row.
    pub fn squared_error(self, b: Buffers) -> Result<Launch> {
        let Buffers { logits, labels, order, rows } = b;
        let bindings = shader::squared_error::Bindings { logits, labels, order, rows };
        let launch = shader::squared_error::launch(self.constants(), bindings, self.grid(), self.flop(3))?;
        Ok(launch.with_bytes(self.bytes(1)))
    }

    /// What the outputs say of the classes at each position: not negative, with the sum 1.
    pub fn shares(self, logits: Range, probabilities: Range) -> Result<Launch> {
        let bindings = shader::shares::Bindings { logits, probabilities };
        let launch = shader::shares::launch(self.constants(), bindings, self.grid(), self.flop(2))?;
        Ok(launch.with_bytes(self.bytes(2)))
    }
}
