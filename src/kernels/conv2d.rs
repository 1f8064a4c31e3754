//! `shaders/conv2d.wgsl`: 2-D convolution (cross-correlation) with its activation, and its gradients.
//!
//! Launches of 1×1 filters take a picture as one row.

pub use super::{Gradients, LayerBuffers as Buffers};

use super::shaders::conv2d as shader;
use super::{LANES, Launch, Parts, Range, Target, WORKGROUP, blocks, fused, padded};
use crate::error::Result;
use crate::network::Activation;

/// Shapes of a convolution; pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels of the input.
    pub in_channels: usize,
    /// Size of the input.
    pub in_size: [usize; 2],
    /// Channels of the output.
    pub out_channels: usize,
    /// Size of the output: `(in + 2·pad − dilation·(kernel − 1) − 1) / stride + 1`.
    pub out_size: [usize; 2],
    /// Size of the filters.
    pub kernel: [usize; 2],
    /// Distance of neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub pad: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if `input_gradient` multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// The device: large tiles are cut up, and the weights' gradient is split, until it is filled.
    pub target: Target,
}

/// Columns and channels of a tile: 8 or 4 of each, or fewer columns.
#[derive(Debug, Clone, Copy)]
struct Tile {
    columns: usize,
    channels: usize,
}

impl Geometry {
    fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Weights, without the bias.
    pub fn weights(&self) -> usize {
        self.out_channels * self.group_in() * self.taps()
    }

    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> u64 {
        (self.weights() * self.out_size[0] * self.out_size[1]) as u64
    }

    fn flop(&self) -> u64 {
        2 * self.multiply_adds() * self.batch as u64
    }

    /// The same convolution, with a picture as a single row where a filter sees only one pixel.
    fn flat(self) -> Geometry {
        if self.kernel != [1, 1] || self.stride != [1, 1] || self.pad != [0, 0] {
            return self;
        }
        let size = [1, self.in_size[0] * self.in_size[1]];
        Geometry { in_size: size, out_size: size, dilation: [1, 1], ..self }
    }

    /// The tile of the least work that still fills the device, or comes as close as one can. There are
    /// `others` times as many tiles as it takes for `columns` and `channels`, and `window` says whether the taps
    /// of a row share pixels.
    fn tile(&self, [columns, channels]: [usize; 2], others: usize, window: bool) -> Tile {
        let taps = self.kernel[1];
        let sizes = [[8, 8], [4, 8], [8, 4], [4, 4], [2, 8], [2, 4], [1, 8], [1, 4]]
            .map(|[columns, channels]| Tile { columns, channels });
        let count = |tile: &Tile| columns.div_ceil(tile.columns) * channels.div_ceil(tile.channels);
        let cost = |tile: &Tile| {
            let pixels =
                if window { taps.div_ceil(3) * (tile.columns - 1) + taps } else { taps * tile.columns };
            // A weight, the same for all invocations, costs half a load.
            let loads = pixels + taps * tile.channels / 2;
            taps * tile.columns * tile.channels + self.target.load * loads
        };
        if self.target.fine() {
            // As it takes the least time: the work of all on a full device, that of one where some of it is idle.
            let time = |tile: &Tile| cost(tile) * (count(tile) * others).max(self.target.fill);
            return sizes.into_iter().min_by_key(time).unwrap_or(sizes[3]);
        }
        let filling = sizes[..4].iter().filter(|tile| count(tile) * others >= self.target.fill);
        *filling.min_by_key(|tile| count(tile) * cost(tile)).unwrap_or(&sizes[3])
    }

    fn forward_tile(&self) -> Tile {
        let others = self.groups * self.out_size[0] * blocks(self.batch) * LANES;
        let window = self.stride[1] == 1 && self.dilation[1] == 1;
        self.tile([self.out_size[1], self.group_out()], others, window)
    }

    fn input_tile(&self) -> Tile {
        let others = self.groups * self.in_size[0] * self.stride[1] * blocks(self.batch) * LANES;
        let window = self.stride[1] == 1 && self.dilation[1] == 1;
        self.tile([self.in_size[1].div_ceil(self.stride[1]), self.group_in()], others, window)
    }

    fn weight_tiles(&self) -> usize {
        let rows = self.group_in() * self.kernel[0] * self.kernel[1].div_ceil(3);
        let row_tiles = rows.div_ceil(if self.kernel[1] == 1 { 12 } else { 4 });
        self.groups * self.group_out().div_ceil(4) * (row_tiles + usize::from(self.bias))
    }

    fn parts(&self) -> Parts {
        self.target.parts(self.weight_tiles() * LANES, blocks(self.batch), self.out_size[0])
    }

    /// Partial sums of the weights' gradient: no more than fill the device, by blocks of images and by rows.
    pub fn splits(&self) -> usize {
        self.parts().splits()
    }

    /// Those of a launch over a grid of so many rows.
    fn constants(&self, grid_rows: usize) -> shader::Constants {
        let (forward, input, parts) = (self.forward_tile(), self.input_tile(), self.parts());
        shader::Constants {
            in_channels: self.in_channels,
            in_height: self.in_size[0],
            in_width: self.in_size[1],
            out_channels: self.out_channels,
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
            groups: self.groups,
            bias: self.bias,
            activation: fused(self.activation),
            input_activation: fused(self.input_activation),
            columns: forward.columns,
            channels: forward.channels,
            in_columns: input.columns,
            in_tile: input.channels,
            blocks: blocks(self.batch),
            splits: parts.splits(),
            row_splits: parts.rows,
            row_shares: parts.shares,
            grid_rows,
        }
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let g = self.flat();
        let tile = g.forward_tile();
        let tiles = g.out_size[0] * g.out_size[1].div_ceil(tile.columns);
        let channels = g.groups * g.group_out().div_ceil(tile.channels);
        let (grid, rows) = g.target.grid([tiles.div_ceil(4) * channels], blocks(g.batch));
        let Buffers { input, weight, bias, output } = b;
        let bindings = shader::forward::Bindings { input, weight, bias, output };
        shader::forward::launch(g.constants(rows), bindings, grid, g.flop())
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, .. } = b;
        let bindings = shader::input_gradient::Bindings { input, weight, output_grad: g.output, input_grad };
        let g = self.flat();
        let tile = g.input_tile();
        let strips = g.stride[1] * g.in_size[1].div_ceil(g.stride[1]).div_ceil(tile.columns);
        let channels = g.groups * g.group_in().div_ceil(tile.channels);
        let groups = (g.in_size[0] * strips).div_ceil(4) * channels;
        let (grid, rows) = g.target.grid([groups], blocks(g.batch));
        shader::input_gradient::launch(g.constants(rows), bindings, grid, g.flop())
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let bindings =
            shader::weight_gradient::Bindings { input: b.input, output_grad, weight_grad, bias_grad };
        // The rows of a picture are what its parts are made of.
        let g = if self.target.fine() { self } else { self.flat() };
        let parts = g.parts();
        let groups = g.weight_tiles().div_ceil(4 / parts.shares);
        let (grid, rows) = g.target.grid([groups], parts.splits());
        shader::weight_gradient::launch(g.constants(rows), bindings, grid, g.flop())
    }

    /// Clears the gradients of the weights between channels that `mask`, a word for each pair of an output channel and
    /// a channel of its group's input, does not connect; in all partial sums that `weight_grad` holds, whichever launch
    /// made them.
    pub fn mask_gradient(self, mask: Range, weight_grad: Range) -> Result<Launch> {
        let splits = weight_grad.len / padded(self.weights());
        let (grid, rows) = self.target.grid([self.weights().div_ceil(WORKGROUP)], splits);
        let bindings = shader::mask_gradient::Bindings { mask, weight_grad };
        shader::mask_gradient::launch(self.constants(rows), bindings, grid, 0)
    }
}
