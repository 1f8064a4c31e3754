//! `shaders/lrn.wgsl`: local response normalisation across channels, and its gradient.

use super::shaders::lrn as shader;
use super::{LANES, Launch, Range, blocks, over_blocks};
use crate::error::{Error, Result};

/// Shapes and settings of the normalisation; PyTorch's definitions and defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Rows times columns.
    pub positions: usize,
    /// Channels of a window: `size / 2` before a channel, itself, and `(size − 1) / 2` after it.
    pub size: usize,
    /// The weight of the window's mean square; 1e-4 by default.
    pub alpha: f32,
    /// The exponent; 0.75 by default.
    pub beta: f32,
    /// What is added to the mean square; 1 by default.
    pub k: f32,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Settings`] with the setting's name: a base of the power that is 0 has no slope.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Settings(format!("local response normalisation: {what}")));
        if self.size == 0 {
            return refuse("size is 0, expected 1 or more".into());
        }
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(format!("{name} is {value}, expected 0 or more"));
            }
        }
        if !(self.k > 0.0 && self.k.is_finite()) {
            return refuse(format!("k is {}, expected more than 0", self.k));
        }
        Ok(())
    }

    fn shape(&self) -> (shader::Constants, [usize; 3]) {
        let Geometry { channels, positions, size, alpha, beta, k, .. } = *self;
        let (grid, row) = over_blocks(channels * positions * LANES, blocks(self.batch));
        (shader::Constants { channels, positions, size, alpha, beta, k, row }, grid)
    }

    /// Of so many operations an element.
    fn flop(&self, operations: usize) -> u64 {
        (operations * self.channels * self.positions * self.batch) as u64
    }

    /// The normalised input.
    ///
    /// # Errors
    /// As [`Geometry::check`].
    pub fn forward(self, input: Range, output: Range) -> Result<Launch> {
        self.check()?;
        let bindings = shader::forward::Bindings { input, output };
        let (constants, grid) = self.shape();
        shader::forward::launch(constants, bindings, grid, self.flop(2 * self.size + 4))
    }

    /// The gradient of the input.
    ///
    /// # Errors
    /// As [`Geometry::check`].
    pub fn backward(self, input: Range, output_grad: Range, input_grad: Range) -> Result<Launch> {
        self.check()?;
        let bindings = shader::backward::Bindings { input, output_grad, input_grad };
        let flop = self.flop(self.size * (2 * self.size + 7) + 3);
        let (constants, grid) = self.shape();
        shader::backward::launch(constants, bindings, grid, flop)
    }
}
