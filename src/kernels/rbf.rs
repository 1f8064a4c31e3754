//! `shaders/rbf.wgsl`: Euclidean radial basis units (LeCun et al. 1998, equation 7), and their gradients.

pub use super::Gradients;

use super::shaders::rbf as shader;
use super::{Launch, MOST_PARTIALS, Range, Target, blocks, elementwise};
use crate::error::Result;

/// Shapes of a layer of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Features of the input.
    pub inputs: usize,
    /// Units.
    pub outputs: usize,
    /// Images in a batch.
    pub batch: usize,
    /// The device: the weights' gradient is split until it is filled.
    pub target: Target,
}

/// The buffers of a layer of units.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[inputs]` of each image.
    pub input: Range,
    /// `[outputs, inputs]`: the codes.
    pub weight: Range,
    /// `[outputs]` of each image.
    pub output: Range,
}

impl Geometry {
    /// Weights.
    pub fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    fn weight_tiles(&self) -> usize {
        self.inputs.div_ceil(4) * self.outputs.div_ceil(4)
    }

    /// Partial sums of the weights' gradient: no more than fill the device, never more than there are blocks.
    pub fn splits(&self) -> usize {
        (self.target.fill / self.weight_tiles()).clamp(1, blocks(self.batch).min(MOST_PARTIALS))
    }

    /// The constants and the grid of so many invocations.
    fn shape(&self, invocations: usize) -> (shader::Constants, [usize; 3]) {
        let Geometry { inputs, outputs, .. } = *self;
        let (grid, row) = elementwise(invocations);
        let (blocks, splits) = (blocks(self.batch), self.splits());
        (shader::Constants { inputs, outputs, blocks, splits, row }, grid)
    }

    /// A difference, a product, a sum.
    fn flop(&self) -> u64 {
        3 * (self.weights() * self.batch) as u64
    }

    /// The negative squared distance of each image from each code.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let Buffers { input, weight, output } = b;
        let bindings = shader::forward::Bindings { input, weight, output };
        let (constants, grid) = self.shape(4 * blocks(self.batch) * self.outputs.div_ceil(4));
        shader::forward::launch(constants, bindings, grid, self.flop())
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let bindings = shader::input_gradient::Bindings { input, weight, output_grad, input_grad };
        let (constants, grid) = self.shape(4 * blocks(self.batch) * self.inputs.div_ceil(4));
        shader::input_gradient::launch(constants, bindings, grid, self.flop())
    }

    /// The partial sums of the codes' gradient: [`Geometry::splits`] times `padded(weights)`.
    pub fn weight_gradient(self, b: Buffers, output_grad: Range, weight_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let bindings = shader::weight_gradient::Bindings { input, weight, output_grad, weight_grad };
        let (constants, grid) = self.shape(self.splits() * self.weight_tiles());
        shader::weight_gradient::launch(constants, bindings, grid, self.flop())
    }
}
