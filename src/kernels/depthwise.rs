//! `shaders/depthwise.wgsl`: a convolution in which every channel has one filter of its own, with its activation, and its
//! gradients.

pub use super::{Gradients, LayerBuffers as Buffers};

use super::shaders::depthwise as shader;
use super::{LANES, Launch, Parts, Range, Target, blocks, conv2d, fused};
use crate::error::Result;
use crate::network::Activation;

/// Shapes of a convolution by channels; pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Size of the input.
    pub in_size: [usize; 2],
    /// Size of the output: `(in + 2·pad − dilation·(kernel − 1) − 1) / stride + 1`.
    pub out_size: [usize; 2],
    /// Size of the filters: at most 5 rows and columns.
    pub kernel: [usize; 2],
    /// Distance of neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub pad: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Whether a bias is added.
    pub bias: bool,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if `input_gradient` multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// The device: the weights' gradient is split until it is filled.
    pub target: Target,
}

/// Columns of a tile.
const COLUMNS: usize = 8;

/// The most rows and columns of a filter.
const MOST_TAPS: usize = 5;

impl Geometry {
    /// The same convolution, if it is one in which each of several channels has one small filter of its own.
    pub fn of(convolution: &conv2d::Geometry) -> Option<Geometry> {
        let conv2d::Geometry {
            in_channels,
            in_size,
            out_channels,
            out_size,
            kernel,
            stride,
            pad,
            dilation,
            groups,
            bias,
            activation,
            input_activation,
            batch,
            target,
        } = *convolution;
        let alone = in_channels == groups && out_channels == groups && groups > 1;
        let small = kernel.iter().all(|&n| n <= MOST_TAPS);
        (alone && small).then_some(Geometry {
            channels: groups,
            in_size,
            out_size,
            kernel,
            stride,
            pad,
            dilation,
            bias,
            activation,
            input_activation,
            batch,
            target,
        })
    }

    /// Weights, without the bias.
    pub fn weights(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> u64 {
        (self.weights() * self.out_size[0] * self.out_size[1]) as u64
    }

    fn flop(&self) -> u64 {
        2 * self.multiply_adds() * self.batch as u64
    }

    /// Rows of a tile.
    fn rows(&self) -> usize {
        if self.stride[0] == 1 && self.dilation[0] == 1 { 2 } else { 1 }
    }

    fn parts(&self) -> Parts {
        self.target.parts(self.channels * LANES, blocks(self.batch), self.out_size[0])
    }

    /// Partial sums of the weights' gradient: no more than fill the device, by blocks of images and by rows.
    pub fn splits(&self) -> usize {
        self.parts().splits()
    }

    /// Those of a launch over a grid of so many rows.
    fn constants(&self, grid_rows: usize) -> shader::Constants {
        let parts = self.parts();
        shader::Constants {
            in_channels: self.channels,
            in_height: self.in_size[0],
            in_width: self.in_size[1],
            out_height: self.out_size[0],
            out_width: self.out_size[1],
            kernel_height: self.kernel[0],
            kernel_width: self.kernel[1],
            stride_height: self.stride[0],
            stride_width: self.stride[1],
            pad_height: self.pad[0],
            pad_width: self.pad[1],
            dilation_height: self.dilation[0],
            dilation_width: self.dilation[1],
            bias: self.bias,
            activation: fused(self.activation),
            input_activation: fused(self.input_activation),
            blocks: blocks(self.batch),
            splits: parts.splits(),
            row_splits: parts.rows,
            row_shares: parts.shares,
            grid_rows,
        }
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let tiles = self.out_size[0].div_ceil(self.rows()) * self.out_size[1].div_ceil(COLUMNS);
        let (grid, rows) = self.target.grid([tiles.div_ceil(4) * self.channels], blocks(self.batch));
        let Buffers { input, weight, bias, output } = b;
        let bindings = shader::forward::Bindings { input, weight, bias, output };
        shader::forward::launch(self.constants(rows), bindings, grid, self.flop())
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let strips = self.stride[1] * self.in_size[1].div_ceil(self.stride[1]).div_ceil(COLUMNS);
        let tiles = self.in_size[0].div_ceil(self.rows()) * strips;
        let (grid, rows) = self.target.grid([tiles.div_ceil(4) * self.channels], blocks(self.batch));
        let Buffers { input, weight, .. } = b;
        let bindings = shader::input_gradient::Bindings { input, weight, output_grad: g.output, input_grad };
        shader::input_gradient::launch(self.constants(rows), bindings, grid, self.flop())
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let bindings =
            shader::weight_gradient::Bindings { input: b.input, output_grad, weight_grad, bias_grad };
        let parts = self.parts();
        let groups = self.channels.div_ceil(4 / parts.shares);
        let (grid, rows) = self.target.grid([groups], parts.splits());
        shader::weight_gradient::launch(self.constants(rows), bindings, grid, self.flop())
    }
}
