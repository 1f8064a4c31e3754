//! `shaders/conv_pool.wgsl`: convolution, bias, activation and 2×2 pooling fused, and all their gradients.

use super::shaders::conv_pool as shader;
use super::{Gradients, LANES, Launch, Parts, Range, Target, UNIFORM_BYTES, batch, blocks, conv2d, fused};
use crate::error::Result;
use crate::network::Activation;

/// Shapes and settings of the fused layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// The convolution: stride and dilation 1, one group, filters at most 5×5.
    pub conv: conv2d::Geometry,
    /// Whether a window's mean is taken, else its maximum.
    pub average: bool,
    /// The activation between convolution and pooling, one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if the backward pass multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// The gather that this launch does itself, for a network's first layer.
    pub gather: Option<batch::Geometry>,
    /// The device: large tiles are cut up until it is filled.
    pub target: Target,
}

/// The buffers of the fused launches.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[in_channels, H, W]` of each image, or the data set's bytes with [`Geometry::gather`].
    pub input: Range,
    /// The epoch's permutation; any range without [`Geometry::gather`].
    pub order: Range,
    /// `[out_channels, in_channels, KH, KW]`.
    pub weight: Range,
    /// `[out_channels]`; any range where there is no bias.
    pub bias: Range,
    /// `[out_channels, OH / 2, OW / 2]` of each image.
    pub output: Range,
    /// What the backward pass needs: [`Geometry::saved`] words.
    pub saved: Range,
}

/// Columns and channels of a tile; both are even.
#[derive(Debug, Clone, Copy)]
struct Tile {
    columns: usize,
    channels: usize,
}

/// What a tile does between two visits of its sums.
struct Work {
    loads: usize,
    multiply_adds: usize,
}

impl Geometry {
    /// Rows and columns after the pooling.
    pub fn pooled(&self) -> [usize; 2] {
        self.conv.out_size.map(|n| n / 2)
    }

    /// Words that the forward pass keeps for the backward pass: each window's winner, if any, or all values.
    pub fn saved(&self) -> usize {
        let size = if self.average { self.conv.out_size } else { self.pooled() };
        self.conv.out_channels * size[0] * size[1] * blocks(self.conv.batch) * LANES
    }

    /// Whether the launches can do it: filters of at most 5×5 that fit a uniform binding.
    pub fn fits(&self) -> bool {
        self.conv.kernel.iter().all(|&n| n <= 5) && 4 * self.conv.weights() <= UNIFORM_BYTES
    }

    /// The tile of (columns, channels) with the least work that still fills the device, or comes as close as one
    /// can. `work` gives a tile's loads and multiply-adds.
    fn tile(
        &self,
        width: usize,
        channels: usize,
        others: usize,
        work: impl Fn(usize, usize) -> Work,
    ) -> Tile {
        let tiles = (1..=7).flat_map(|c| (1..=4).map(move |k| Tile { columns: 2 * c, channels: 2 * k }));
        let count = |tile: &Tile| width.div_ceil(tile.columns) * channels.div_ceil(tile.channels);
        let cost = |tile: &Tile| {
            let Work { loads, multiply_adds } = work(tile.columns, tile.channels);
            let sums = 2 * tile.columns * tile.channels;
            multiply_adds + self.target.load * loads + sums + sums / 2
        };
        // More sums than these do not fit the registers of a GPU, or fit with few waves.
        let fitting = tiles.filter(|tile| 2 * tile.columns * tile.channels <= 112);
        if self.target.fine() {
            // As it takes the least time: the work of all on a full device, that of one where some of it is idle.
            let time = |tile: &Tile| cost(tile) * (count(tile) * others).max(self.target.fill);
            return fitting.min_by_key(time).unwrap_or(Tile { columns: 2, channels: 2 });
        }
        let filling = fitting.clone().filter(|tile| count(tile) * others >= self.target.fill);
        let filling = filling.min_by_key(|tile| count(tile) * cost(tile));
        filling.or_else(|| fitting.max_by_key(count)).unwrap_or(Tile { columns: 2, channels: 2 })
    }

    fn forward_tile(&self) -> Tile {
        let others = self.pooled()[0] * blocks(self.conv.batch) * LANES;
        self.tile(2 * self.pooled()[1], self.conv.out_channels, others, |columns, channels| {
            let pixels = if self.gather.is_some() { (columns + 4) / 4 + 2 } else { columns + 4 };
            // A filter's weight, the same for all invocations, costs half a load.
            Work { loads: pixels + 5 * channels / 2, multiply_adds: 10 * columns * channels }
        })
    }

    fn input_tile(&self) -> Tile {
        let others = self.conv.in_size[0].div_ceil(2) * blocks(self.conv.batch) * LANES;
        let pooled = self.pooled()[1];
        self.tile(self.conv.in_size[1], self.conv.in_channels, others, |columns, channels| {
            // A single strip leaves out what lies beyond the gradient's columns.
            let single = columns >= self.conv.in_size[1];
            let (windows, columns) = if single { (pooled, 2 * pooled) } else { (columns / 2 + 2, columns) };
            Work { loads: 2 * windows + 15 * channels / 2, multiply_adds: 20 * columns * channels }
        })
    }

    /// Pairs of output channels and rows of taps of a tile of the weights' gradient.
    fn weight_tile(&self) -> (usize, usize) {
        let rows = self.conv.kernel[0].min(2);
        let channels = self.conv.out_channels;
        if self.target.fine() {
            // As it takes the least time: the work of all on a full device, that of one where some of it is idle.
            let tiles = (1..=3).rev().flat_map(|pairs| (1..=rows).rev().map(move |rows| (pairs, rows)));
            let time = |tile: &(usize, usize)| {
                let (pairs, rows) = *tile;
                let parts = self.parts(*tile);
                let all = self.weight_tiles(*tile) * LANES * parts.splits() * parts.shares;
                let windows = blocks(self.conv.batch).div_ceil(parts.blocks)
                    * self.pooled()[0].div_ceil(parts.rows * parts.shares);
                let work = 40 * pairs * rows + self.target.load * (4 * pairs + 2 * (rows + 1));
                windows * work * all.max(self.target.fill)
            };
            return tiles.min_by_key(time).unwrap_or((1, 1));
        }
        // The most pairs that leave the fewest channels over.
        let pairs = |most: usize| {
            (1..=most).rev().min_by_key(|pairs| channels.div_ceil(2 * pairs) * 2 * pairs).unwrap_or(1)
        };
        let large = (pairs(2), rows);
        let most = self.weight_tiles(large) * blocks(self.conv.batch) * LANES;
        if most >= self.target.fill { large } else { (pairs(3), 1) }
    }

    /// Tiles of one partial sum, without those of the bias.
    fn weight_tiles(&self, (pairs, rows): (usize, usize)) -> usize {
        let out_tiles = self.conv.out_channels.div_ceil(2 * pairs);
        out_tiles * self.conv.in_channels * self.conv.kernel[0].div_ceil(rows)
    }

    fn parts(&self, tile: (usize, usize)) -> Parts {
        self.target.parts(self.weight_tiles(tile) * LANES, blocks(self.conv.batch), self.pooled()[0])
    }

    /// Partial sums of the weights' gradient: by blocks, and by rows of windows within them.
    fn split(&self) -> Parts {
        if self.target.fine() {
            return self.parts(self.weight_tile());
        }
        let all = blocks(self.conv.batch);
        let wanted = self.target.fill.div_ceil(self.weight_tiles(self.weight_tile()) * LANES);
        // As many blocks to each, where that is possible.
        let even = (wanted..=all.min(2 * wanted)).find(|n| all.is_multiple_of(*n));
        let blocks = even.unwrap_or(wanted.clamp(1, all));
        Parts { blocks, rows: (wanted / blocks).clamp(1, self.pooled()[0].max(1)), shares: 1 }
    }

    /// Partial sums of the weights' gradient.
    pub fn splits(&self) -> usize {
        self.split().splits()
    }

    /// Those of a launch over a grid of so many rows.
    fn constants(&self, save: bool, grid_rows: usize) -> shader::Constants {
        let c = &self.conv;
        let (forward, input) = (self.forward_tile(), self.input_tile());
        let (pairs, tap_rows) = self.weight_tile();
        let parts = self.split();
        shader::Constants {
            in_channels: c.in_channels,
            in_height: c.in_size[0],
            in_width: c.in_size[1],
            out_channels: c.out_channels,
            out_height: c.out_size[0],
            out_width: c.out_size[1],
            kernel_height: c.kernel[0],
            kernel_width: c.kernel[1],
            pad_height: c.pad[0],
            pad_width: c.pad[1],
            bias: c.bias,
            average: self.average,
            activation: fused(self.activation),
            input_activation: fused(self.input_activation),
            save,
            columns: forward.columns,
            channels: forward.channels,
            in_columns: input.columns,
            in_tile: input.channels,
            pairs,
            tap_rows,
            blocks: blocks(c.batch),
            splits: parts.splits(),
            row_splits: parts.rows,
            row_shares: parts.shares,
            grid_rows,
            bytes: self.gather.is_some(),
            border: self.gather.map_or(0, |g| g.pad),
            mean: self.gather.map_or(0.0, |g| g.mean),
            deviation: self.gather.map_or(1.0, |g| g.deviation),
        }
    }

    /// Workgroups of the input's gradient.
    fn input_groups(&self) -> usize {
        let tile = self.input_tile();
        let tiles = self.conv.in_size[0].div_ceil(2) * self.conv.in_size[1].div_ceil(tile.columns);
        tiles.div_ceil(4) * self.conv.in_channels.div_ceil(tile.channels) * blocks(self.conv.batch)
    }

    fn flop(&self) -> u64 {
        2 * self.conv.multiply_adds() * self.conv.batch as u64
    }

    /// Bytes that a launch moves, where the data set is bound but only a batch of it is read.
    fn traffic(&self, launch: &Launch, input: Range) -> u64 {
        let Some(gather) = self.gather else { return launch.bytes };
        let pixels = gather.channels * gather.height * gather.width * gather.batch;
        launch.bytes - 4 * input.len as u64 + pixels as u64
    }

    /// The output, and with `save` what the backward pass needs.
    pub fn forward(self, b: Buffers, save: bool) -> Result<Launch> {
        let tile = self.forward_tile();
        let strips = (2 * self.pooled()[1]).div_ceil(tile.columns);
        let groups = (self.pooled()[0] * strips).div_ceil(4) * self.conv.out_channels.div_ceil(tile.channels);
        let (grid, rows) = self.target.grid([groups], blocks(self.conv.batch));
        let Buffers { input, order, weight, bias, output, saved } = b;
        let bindings = shader::forward::Bindings { input, order, weight, bias, output, saved };
        let launch = shader::forward::launch(self.constants(save, rows), bindings, grid, self.flop())?;
        let bytes = self.traffic(&launch, input);
        Ok(launch.with_bytes(bytes))
    }

    /// The partial sums of the gradients of weights and bias and, where there is a range for it, the gradient
    /// of the input.
    pub fn backward(self, b: Buffers, g: Gradients, input_grad: Option<Range>) -> Result<Launch> {
        let (pairs, rows) = self.weight_tile();
        let bias_tiles = if self.conv.bias { self.conv.out_channels.div_ceil(2 * pairs) } else { 0 };
        let parts = self.split();
        let tiles = parts.splits() * (self.weight_tiles((pairs, rows)) + bias_tiles);
        let weight_groups = tiles.div_ceil(4 / parts.shares);
        let Buffers { input, order, weight, saved: recalled, .. } = b;
        let Gradients { output: output_grad, weight: weight_grad, bias: bias_grad } = g;
        let launch = match input_grad {
            Some(input_grad) => {
                let bindings = shader::backward::Bindings {
                    input,
                    order,
                    weight,
                    output_grad,
                    recalled,
                    weight_grad,
                    bias_grad,
                    input_grad,
                };
                let (grid, rows) = self.target.grid([weight_groups, self.input_groups()], 1);
                shader::backward::launch(self.constants(true, rows), bindings, grid, 2 * self.flop())?
            }
            None => {
                let bindings = shader::backward_first::Bindings {
                    input,
                    order,
                    output_grad,
                    recalled,
                    weight_grad,
                    bias_grad,
                };
                let (grid, rows) = self.target.grid([weight_groups], 1);
                shader::backward_first::launch(self.constants(true, rows), bindings, grid, self.flop())?
            }
        };
        let bytes = self.traffic(&launch, input);
        Ok(launch.with_bytes(bytes))
    }

    /// The gradient of the input alone, where weights and bias are frozen.
    pub fn input_gradient(self, b: Buffers, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let Buffers { input, weight, saved: recalled, .. } = b;
        let bindings = shader::input_gradient::Bindings { input, weight, output_grad, recalled, input_grad };
        let (grid, rows) = self.target.grid([self.input_groups()], 1);
        shader::input_gradient::launch(self.constants(true, rows), bindings, grid, self.flop())
    }
}
