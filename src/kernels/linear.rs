//! `shaders/linear.wgsl`: a fully connected layer and its gradients.

pub use super::{Gradients, LayerBuffers as Buffers};

use super::shaders::linear as shader;
use super::{Launch, Range, WORKGROUP, blocks, fused};
use crate::error::Result;
use crate::network::Activation;

/// Shapes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Features of the input.
    pub inputs: usize,
    /// Features of the output.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if this layer's backward pass multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// Invocations that fill the device: the weights' gradient is split until there are so many.
    pub fill: usize,
}

impl Geometry {
    /// Weights, without the bias.
    pub fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    fn weight_tiles(&self) -> usize {
        self.outputs.div_ceil(4) * (self.inputs.div_ceil(4) + usize::from(self.bias))
    }

    /// Partial sums of the weights' gradient: no more than fill the device, never more than there are blocks.
    pub fn splits(&self) -> usize {
        (self.fill / self.weight_tiles()).clamp(1, blocks(self.batch))
    }

    fn constants(&self) -> shader::Constants {
        shader::Constants {
            inputs: self.inputs,
            outputs: self.outputs,
            bias: self.bias,
            activation: fused(self.activation),
            input_activation: fused(self.input_activation),
            blocks: blocks(self.batch),
            splits: self.splits(),
        }
    }

    fn flop(&self) -> u64 {
        2 * (self.weights() * self.batch) as u64
    }

    fn weight_groups(&self) -> usize {
        (self.splits() * self.weight_tiles()).div_ceil(WORKGROUP)
    }

    fn input_groups(&self) -> usize {
        blocks(self.batch).div_ceil(4) * self.inputs.div_ceil(32)
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let grid = [blocks(self.batch).div_ceil(4), self.outputs.div_ceil(32), 1];
        let Buffers { input, weight, bias, output } = b;
        let bindings = shader::forward::Bindings { input, weight, bias, output };
        shader::forward::launch(self.constants(), bindings, grid, self.flop())
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let bindings = shader::input_gradient::Bindings { input, weight, output_grad: g.output, input_grad };
        shader::input_gradient::launch(self.constants(), bindings, [self.input_groups(), 1, 1], self.flop())
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let bindings =
            shader::weight_gradient::Bindings { input: b.input, output_grad, weight_grad, bias_grad };
        shader::weight_gradient::launch(self.constants(), bindings, [self.weight_groups(), 1, 1], self.flop())
    }

    /// [`Geometry::weight_gradient`] and [`Geometry::input_gradient`] in one launch.
    pub fn backward(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let bindings =
            shader::backward::Bindings { input, weight, output_grad, input_grad, weight_grad, bias_grad };
        let grid = [self.weight_groups() + self.input_groups(), 1, 1];
        shader::backward::launch(self.constants(), bindings, grid, 2 * self.flop())
    }
}
