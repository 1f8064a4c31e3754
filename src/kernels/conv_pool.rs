//! `shaders/conv_pool.wgsl`: convolution, bias, activation and 2×2 pooling fused, and all their gradients.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::activation::{Activation, fused_code};
use super::conv2d::{self, Splits};
use super::simd::{
    cut, lanes, lanes_mut, mixed, registers, scratch, share, tiles, vectorize, wide, wide_mut, wide_u32,
    wide_u32_mut,
};
use super::{Args, LANES, Launch, Range, UNIFORM_BYTES, batch, blocks, padded};
use crate::error::Result;

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
    /// Invocations that fill the device: large tiles are cut up until there are so many.
    pub fill: usize,
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

/// The winner of a window in which a ReLU is flat.
const NOWHERE: u32 = 4;

/// The multiply-adds that cost as much as a load, on a software adapter.
const LOAD: usize = 13;

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

    /// The tile of (columns, channels) with the least work that still leaves `fill` invocations, or as many as
    /// there can be. `work` gives a tile's loads and multiply-adds.
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
            count(tile) * (multiply_adds + LOAD * loads + sums + sums / 2)
        };
        // More sums than these do not fit the registers of a GPU, or fit with few waves.
        let fitting = tiles.filter(|tile| 2 * tile.columns * tile.channels <= 112);
        let filling = fitting.clone().filter(|tile| count(tile) * others >= self.fill).min_by_key(cost);
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
        // The most pairs that leave the fewest channels over.
        let pairs = |most: usize| {
            (1..=most).rev().min_by_key(|pairs| channels.div_ceil(2 * pairs) * 2 * pairs).unwrap_or(1)
        };
        let large = (pairs(2), rows);
        let most = self.weight_tiles(large) * blocks(self.conv.batch) * LANES;
        if most >= self.fill { large } else { (pairs(3), 1) }
    }

    /// Tiles of one partial sum, without those of the bias.
    fn weight_tiles(&self, (pairs, rows): (usize, usize)) -> usize {
        let out_tiles = self.conv.out_channels.div_ceil(2 * pairs);
        out_tiles * self.conv.in_channels * self.conv.kernel[0].div_ceil(rows)
    }

    /// Partial sums of the weights' gradient, by blocks and by rows of windows within them.
    fn split(&self) -> Splits {
        let all = blocks(self.conv.batch);
        let wanted = self.fill.div_ceil(self.weight_tiles(self.weight_tile()) * LANES);
        // As many blocks to each, where that is possible.
        let even = (wanted..=all.min(2 * wanted)).find(|n| all.is_multiple_of(*n));
        let blocks = even.unwrap_or(wanted.clamp(1, all));
        Splits { blocks, rows: (wanted / blocks).clamp(1, self.pooled()[0].max(1)) }
    }

    /// Partial sums of the weights' gradient.
    pub fn splits(&self) -> usize {
        let split = self.split();
        split.blocks * split.rows
    }

    fn constants(&self, save: bool) -> [(&'static str, f64); 28] {
        let c = &self.conv;
        let flag = |flag: bool| f64::from(u8::from(flag));
        let size = |n: usize| n as f64;
        let gather = self.gather;
        let (forward, input, (pairs, tap_rows)) =
            (self.forward_tile(), self.input_tile(), self.weight_tile());
        [
            ("IN_CHANNELS", size(c.in_channels)),
            ("IN_HEIGHT", size(c.in_size[0])),
            ("IN_WIDTH", size(c.in_size[1])),
            ("OUT_CHANNELS", size(c.out_channels)),
            ("OUT_HEIGHT", size(c.out_size[0])),
            ("OUT_WIDTH", size(c.out_size[1])),
            ("KERNEL_HEIGHT", size(c.kernel[0])),
            ("KERNEL_WIDTH", size(c.kernel[1])),
            ("PAD_HEIGHT", size(c.pad[0])),
            ("PAD_WIDTH", size(c.pad[1])),
            ("BIAS", flag(c.bias)),
            ("AVERAGE", flag(self.average)),
            ("ACTIVATION", fused_code(self.activation)),
            ("INPUT_ACTIVATION", fused_code(self.input_activation)),
            ("SAVE", flag(save)),
            ("COLUMNS", size(forward.columns)),
            ("CHANNELS", size(forward.channels)),
            ("IN_COLUMNS", size(input.columns)),
            ("IN_TILE", size(input.channels)),
            ("PAIRS", size(pairs)),
            ("TAP_ROWS", size(tap_rows)),
            ("BLOCKS", size(blocks(c.batch))),
            ("SPLITS", size(self.splits())),
            ("ROW_SPLITS", size(self.split().rows)),
            ("BYTES", flag(gather.is_some())),
            ("BORDER", size(gather.map_or(0, |g| g.pad))),
            ("MEAN", gather.map_or(0.0, |g| f64::from(g.mean))),
            ("DEVIATION", gather.map_or(1.0, |g| f64::from(g.deviation))),
        ]
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
        let grid = [
            (self.pooled()[0] * strips).div_ceil(4),
            self.conv.out_channels.div_ceil(tile.channels),
            blocks(self.conv.batch),
        ];
        let bindings = [
            ("input", b.input),
            ("order", b.order),
            ("weight", b.weight),
            ("bias", b.bias),
            ("output", b.output),
            ("saved", b.saved),
        ];
        let twin = move |args: &mut Args<'_>| forward(&self, save, args);
        let entry = ("conv_pool", "forward");
        let launch = Launch::old(entry, &self.constants(save), grid, &bindings, self.flop(), Arc::new(twin))?;
        let bytes = self.traffic(&launch, b.input);
        Ok(launch.with_bytes(bytes))
    }

    /// The partial sums of the gradients of weights and bias and, where there is a range for it, the gradient
    /// of the input.
    pub fn backward(self, b: Buffers, g: conv2d::Gradients, input_grad: Option<Range>) -> Result<Launch> {
        let (pairs, rows) = self.weight_tile();
        let bias_tiles = if self.conv.bias { self.conv.out_channels.div_ceil(2 * pairs) } else { 0 };
        let weight_groups = (self.splits() * (self.weight_tiles((pairs, rows)) + bias_tiles)).div_ceil(4);
        let groups = weight_groups + if input_grad.is_some() { self.input_groups() } else { 0 };
        let mut bindings = vec![
            ("input", b.input),
            ("order", b.order),
            ("output_grad", g.output),
            ("recalled", b.saved),
            ("weight_grad", g.weight),
            ("bias_grad", g.bias),
        ];
        let (entry, passes) = match input_grad {
            Some(input_grad) => {
                bindings.extend([("weight", b.weight), ("input_grad", input_grad)]);
                (("conv_pool", "backward"), 2)
            }
            None => (("conv_pool", "backward_first"), 1),
        };
        let with_input = input_grad.is_some();
        let twin = move |args: &mut Args<'_>| backward(&self, true, with_input, args);
        let constants = self.constants(true);
        let launch =
            Launch::old(entry, &constants, [groups, 1, 1], &bindings, passes * self.flop(), Arc::new(twin))?;
        let bytes = self.traffic(&launch, b.input);
        Ok(launch.with_bytes(bytes))
    }

    /// The gradient of the input alone, where weights and bias are frozen.
    pub fn input_gradient(self, b: Buffers, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = [
            ("input", b.input),
            ("output_grad", output_grad),
            ("recalled", b.saved),
            ("weight", b.weight),
            ("input_grad", input_grad),
        ];
        let entry = ("conv_pool", "input_gradient");
        let twin = move |args: &mut Args<'_>| backward(&self, false, true, args);
        let grid = [self.input_groups(), 1, 1];
        Launch::old(entry, &self.constants(true), grid, &bindings, self.flop(), Arc::new(twin))
    }
}

/// Where the twins find their images.
enum Source<'a> {
    Floats(&'a [f32]),
    Bytes(Box<batch::Gather<'a>>),
}

impl<'a> Source<'a> {
    fn of(g: &'a Geometry, args: &Args<'a>) -> Source<'a> {
        match &g.gather {
            Some(gather) => Source::Bytes(Box::new(batch::Gather::new(
                gather,
                args.step,
                args.u32("input"),
                args.u32("order"),
            ))),
            None => Source::Floats(args.f32("input")),
        }
    }

    /// Floats that [`Source::block`] needs for its copy of a block.
    fn copy(&self, g: &Geometry) -> usize {
        let copied = matches!(self, Source::Bytes(_)) || g.conv.pad[1] > 0;
        if copied { g.conv.in_channels * g.conv.in_size[0] * width(g) * LANES } else { 0 }
    }

    /// `[in_channels, H, width]` of a block's images: a copy where pixels are bytes or rows need their padding.
    fn block<'b>(&'b self, g: &Geometry, block: usize, copy: &'b mut [f32]) -> &'b [f32] {
        match self {
            Source::Bytes(gather) => {
                gather.block(block, g.conv.pad[1], copy);
                copy
            }
            Source::Floats(all) => {
                let row = g.conv.in_size[1] * LANES;
                let len = g.conv.in_channels * g.conv.in_size[0] * row;
                let planes = &all[block * len..][..len];
                if g.conv.pad[1] == 0 {
                    return planes;
                }
                let margin = g.conv.pad[1] * LANES;
                for (to, from) in copy.chunks_exact_mut(row + 2 * margin).zip(planes.chunks_exact(row)) {
                    to[..margin].fill(0.0);
                    to[margin..][..row].copy_from_slice(from);
                    to[margin + row..].fill(0.0);
                }
                copy
            }
        }
    }
}

/// Columns of a row of the input with its padding.
fn width(g: &Geometry) -> usize {
    g.conv.in_size[1] + 2 * g.conv.pad[1]
}

/// The widest tile of `left` output channels for which a thread holds all sums.
#[inline(always)]
fn channel_tile<S: Simd>(left: usize) -> usize {
    match left {
        _ if S::F32_LANES < 16 => left.min(2),
        // Two tiles of three are alike and keep the registers as full; six with their pixels would overflow them.
        6 => 3,
        _ => left.min(4),
    }
}

fn forward(g: &Geometry, save: bool, args: &mut Args<'_>) {
    let (output, saved) = (args.f32_mut("output"), args.u32_mut("saved"));
    let (weight, bias) = (args.f32("weight"), if g.conv.bias { args.f32("bias") } else { &[] });
    let source = Source::of(g, args);
    let (plane, kept) = (g.pooled()[0] * g.pooled()[1] * LANES, g.kept() * LANES);
    let out_channels = g.conv.out_channels;
    let share = share(blocks(g.conv.batch), out_channels, 1);
    let work = (0..blocks(g.conv.batch))
        .flat_map(|block| tiles(out_channels, share).map(move |(first, n)| (block, first, n)));
    let outputs = cut(output, work.clone().map(|(_, _, n)| n * plane));
    let saved = cut(saved, work.clone().map(|(_, _, n)| n * kept));
    let work: Vec<_> = work.zip(outputs.into_iter().zip(saved)).collect();
    work.into_par_iter().with_max_len(1).for_each(|((block, first, channels), (output, saved))| {
        let copy = source.copy(g);
        let rows = 4 * 2 * 2 * g.pooled()[1] * LANES;
        scratch(copy + rows, |memory| {
            let (copy, values) = memory.split_at_mut(copy);
            let input = source.block(g, block, copy);
            let weight = &weight[first * g.weights()..];
            let bias = bias.get(first..).unwrap_or_default();
            vectorize(Forward { g, save, input, weight, bias, channels, values, output, saved });
        });
    });
}

impl Geometry {
    /// Weights of one output channel.
    fn weights(&self) -> usize {
        self.conv.in_channels * self.conv.kernel[0] * self.conv.kernel[1]
    }

    /// Places of a plane of what is kept for the backward pass.
    fn kept(&self) -> usize {
        let size = if self.average { self.conv.out_size } else { self.pooled() };
        size[0] * size[1]
    }
}

/// A few output channels of one block.
struct Forward<'a> {
    g: &'a Geometry,
    save: bool,
    input: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    channels: usize,
    /// Room for two rows of up to four channels.
    values: &'a mut [f32],
    output: &'a mut [f32],
    saved: &'a mut [u32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = 2 * self.g.pooled()[1];
        // The tile of columns with the least waste.
        let columns = [5, 4, 2]
            .into_iter()
            .filter(|&columns| columns <= width)
            .min_by_key(|&columns| width.div_ceil(columns) * (10 * columns + 3))
            .unwrap_or(2);
        while self.channels > 0 && width > 0 {
            let channels = channel_tile::<S>(self.channels);
            match (channels, columns) {
                (4, 5) => self.planes::<S, 4, 5>(simd),
                (4, 4) => self.planes::<S, 4, 4>(simd),
                (4, _) => self.planes::<S, 4, 2>(simd),
                (3, 4 | 5) => self.planes::<S, 3, 4>(simd),
                (3, _) => self.planes::<S, 3, 2>(simd),
                (2, 5) => self.planes::<S, 2, 5>(simd),
                (2, 4) => self.planes::<S, 2, 4>(simd),
                (2, _) => self.planes::<S, 2, 2>(simd),
                (_, 4 | 5) => self.planes::<S, 1, 4>(simd),
                (_, _) => self.planes::<S, 1, 2>(simd),
            }
        }
    }
}

impl Forward<'_> {
    /// The next `O` output channels; advances.
    #[inline(always)]
    fn planes<S: Simd, const O: usize, const P: usize>(&mut self, simd: S) {
        match self.g.conv.kernel[1] {
            5 => self.rows::<S, O, P, 5>(simd),
            3 => self.rows::<S, O, P, 3>(simd),
            _ => self.rows::<S, O, P, 1>(simd),
        }
        let (plane, kept) = (self.g.pooled()[0] * self.g.pooled()[1] * LANES, self.g.kept() * LANES);
        self.output = &mut std::mem::take(&mut self.output)[O * plane..];
        self.saved = &mut std::mem::take(&mut self.saved)[O * kept..];
        self.weight = &self.weight[O * self.g.weights()..];
        self.bias = self.bias.get(O..).unwrap_or_default();
        self.channels -= O;
    }

    /// Two rows of the convolution at a time, `P` neighbouring columns and `T` taps of a row unrolled; then
    /// their windows, while they are in the nearest cache.
    #[inline(always)]
    fn rows<S: Simd, const O: usize, const P: usize, const T: usize>(&mut self, simd: S) {
        let g = self.g;
        let n = registers::<S>();
        let [height, in_width] = [g.conv.in_size[0], width(g)];
        let [kernel_height, kernel_width] = g.conv.kernel;
        let taps = kernel_height * kernel_width;
        let out_width = 2 * g.pooled()[1];
        let input = wide::<S>(self.input);
        let weights: [&[f32]; O] = std::array::from_fn(|o| &self.weight[o * g.weights()..][..g.weights()]);
        let bias: [f32; O] = std::array::from_fn(|o| self.bias.get(o).copied().unwrap_or(0.0));
        for row in 0..g.pooled()[0] {
            let values = wide_mut::<S>(self.values);
            for dy in 0..2 {
                for register in 0..n {
                    for x in (0..out_width).step_by(P) {
                        // The last tile may overlap the one before it: it writes the same values again.
                        let x = x.min(out_width - P);
                        let mut sums = [[simd.splat_f32s(0.0); P]; O];
                        for (sums, &bias) in sums.iter_mut().zip(&bias) {
                            *sums = [simd.splat_f32s(bias); P];
                        }
                        for channel in 0..g.conv.in_channels {
                            for ky in 0..kernel_height {
                                let y = (2 * row + dy + ky).wrapping_sub(g.conv.pad[0]);
                                if y >= height {
                                    continue;
                                }
                                let start = (channel * height + y) * in_width + x;
                                for kx in (0..kernel_width).step_by(T) {
                                    let pixels = &input[(start + kx) * n + register..][..(P + T - 2) * n + 1];
                                    let at = channel * taps + ky * kernel_width + kx;
                                    let filters: [&[f32]; O] =
                                        std::array::from_fn(|o| &weights[o][at..][..T]);
                                    for t in 0..T {
                                        let pixels: [S::f32s; P] =
                                            std::array::from_fn(|p| pixels[(p + t) * n]);
                                        for o in 0..O {
                                            let w = simd.splat_f32s(filters[o][t]);
                                            for p in 0..P {
                                                sums[o][p] = simd.mul_add_e_f32s(w, pixels[p], sums[o][p]);
                                            }
                                        }
                                    }
                                }
                            }
                        }
                        for (o, sums) in sums.into_iter().enumerate() {
                            for (p, sum) in sums.into_iter().enumerate() {
                                values[((o * 2 + dy) * out_width + x + p) * n + register] = sum;
                            }
                        }
                    }
                }
            }
            let (plane, kept) = (g.pooled()[0] * g.pooled()[1] * LANES, g.kept() * LANES);
            for o in 0..O {
                let values = &mut self.values[2 * o * out_width * LANES..][..2 * out_width * LANES];
                let output = &mut self.output[o * plane..][..plane];
                let output = &mut output[row * g.pooled()[1] * LANES..][..g.pooled()[1] * LANES];
                let saved = &mut self.saved[o * kept..][..kept];
                if g.average {
                    let from = 2 * row * g.conv.out_size[1] * LANES;
                    average(g, self.save, values, output, &mut saved[from..]);
                } else {
                    let saved = &mut saved[row * g.pooled()[1] * LANES..][..g.pooled()[1] * LANES];
                    maximum::<S>(simd, g.activation, self.save, values, output, saved);
                }
            }
        }
    }
}

/// The activation of the largest of each window of two rows, and its place.
#[inline(always)]
fn maximum<S: Simd>(
    simd: S,
    activation: Option<Activation>,
    save: bool,
    values: &[f32],
    output: &mut [f32],
    saved: &mut [u32],
) {
    let n = registers::<S>();
    let (upper, lower) = wide::<S>(values).split_at(values.len() / (2 * S::F32_LANES));
    let windows = upper.chunks_exact(2 * n).zip(lower.chunks_exact(2 * n));
    let results = wide_mut::<S>(output).chunks_exact_mut(n).zip(wide_u32_mut::<S>(saved).chunks_exact_mut(n));
    for ((upper, lower), (output, saved)) in windows.zip(results) {
        for register in 0..n {
            let (mut best, mut place) = (upper[register], simd.splat_u32s(0));
            for (k, other) in
                [upper[n + register], lower[register], lower[n + register]].into_iter().enumerate()
            {
                let more = simd.greater_than_f32s(other, best);
                best = simd.select_f32s(more, other, best);
                place = simd.select_u32s(more, simd.splat_u32s(k as u32 + 1), place);
            }
            if activation == Some(Activation::Relu) {
                let flat = simd.less_than_or_equal_f32s(best, simd.splat_f32s(0.0));
                place = simd.select_u32s(flat, simd.splat_u32s(NOWHERE), place);
                best = simd.max_f32s(best, simd.splat_f32s(0.0));
            }
            output[register] = best;
            if save {
                saved[register] = place;
            }
        }
    }
    if let Some(activation) = activation.filter(|&activation| activation != Activation::Relu) {
        output.iter_mut().for_each(|y| *y = activation.value(*y));
    }
}

/// The mean of the activations in each window of two rows. Values in a last odd row or column belong to no
/// window and are not kept, as on the GPU.
#[inline(always)]
fn average(g: &Geometry, save: bool, values: &mut [f32], output: &mut [f32], saved: &mut [u32]) {
    if let Some(activation) = g.activation {
        values.iter_mut().for_each(|y| *y = activation.value(*y));
    }
    let (upper, lower) = values.split_at(values.len() / 2);
    for at in 0..output.len() / LANES {
        let [a, b] = [2 * at, 2 * at + 1].map(|place| lanes(upper, place));
        let [c, d] = [2 * at, 2 * at + 1].map(|place| lanes(lower, place));
        *lanes_mut(output, at) = std::array::from_fn(|l| 0.25 * (a[l] + b[l] + c[l] + d[l]));
    }
    if save {
        for (row, values) in [upper, lower].into_iter().enumerate() {
            for place in 0..values.len() / LANES {
                *lanes_mut(saved, row * g.conv.out_size[1] + place) = lanes(values, place).map(f32::to_bits);
            }
        }
    }
}

/// A part of the backward pass that one thread does.
enum Task<'a> {
    /// Partial sum `split` of the gradients of output channels from `first` on.
    Weights { split: usize, first: usize, weight_grad: &'a mut [f32], bias_grad: &'a mut [f32] },
    /// The gradient of a block's input channels from `first` on.
    Input { block: usize, first: usize, input_grad: &'a mut [f32] },
}

fn backward(g: &Geometry, with_weights: bool, with_input: bool, args: &mut Args<'_>) {
    let upstream = Upstream { g, output_grad: args.f32("output_grad"), saved: args.u32("recalled") };
    let source = Source::of(g, args);
    let c = &g.conv;
    let splits = g.split();
    let (out_channels, in_channels) = (c.out_channels, c.in_channels);

    // A gathered block serves all channels; else a few of them make a task.
    let most = if g.gather.is_some() { share(g.splits(), out_channels, 3) } else { 4 };
    let channels = || tiles(out_channels, most);
    let mut weights = Vec::new();
    let (mut weight_grad, mut bias_grad): (&mut [f32], &mut [f32]) = (&mut [], &mut []);
    if with_weights {
        (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
    }
    let partial_sums = weight_grad.chunks_mut(padded(c.weights())).take(g.splits()).enumerate();
    let mut biases = bias_grad.chunks_mut(padded(out_channels));
    for (split, weight_grad) in partial_sums {
        let bias_grad = if c.bias { biases.next().unwrap_or_default() } else { &mut [] };
        let bias_grads = cut(bias_grad, channels().map(|(_, n)| if c.bias { n } else { 0 }));
        let weight_grads = cut(weight_grad, channels().map(|(_, n)| n * g.weights()));
        for ((first, _), (weight_grad, bias_grad)) in channels().zip(weight_grads.into_iter().zip(bias_grads))
        {
            weights.push(Task::Weights { split, first, weight_grad, bias_grad });
        }
    }
    let mut inputs = Vec::new();
    let mut weight: &[f32] = &[];
    if with_input {
        weight = args.f32("weight");
        let plane = c.in_size[0] * c.in_size[1] * LANES;
        let most = share(blocks(c.batch), in_channels, 1);
        let work = (0..blocks(c.batch))
            .flat_map(|block| tiles(in_channels, most).map(move |(first, n)| (block, first, n)));
        let input_grads = cut(args.f32_mut("input_grad"), work.clone().map(|(_, _, n)| n * plane));
        for ((block, first, _), input_grad) in work.zip(input_grads) {
            inputs.push(Task::Input { block, first, input_grad });
        }
    }
    let tasks = mixed(inputs, weights);
    tasks.into_par_iter().with_max_len(1).for_each(|task| match task {
        Task::Weights { split, first, weight_grad, bias_grad } => {
            weight_gradient(&upstream, &source, splits, split, first, weight_grad, bias_grad);
        }
        Task::Input { block, first, input_grad } => {
            input_gradient(&upstream, &source, block, first, weight, input_grad);
        }
    });
}

/// The gradient of the output, which dz is made of.
struct Upstream<'a> {
    g: &'a Geometry,
    output_grad: &'a [f32],
    saved: &'a [u32],
}

impl Upstream<'_> {
    /// dz of one channel over a row of windows: writes place `dy · row + x · column` of `to` for its two rows
    /// and returns their sum.
    #[inline(always)]
    fn spread<S: Simd>(
        &self,
        simd: S,
        (block, channel, window): (usize, usize, usize),
        to: &mut [f32],
        [row, column]: [usize; 2],
    ) -> S::f32s {
        let g = self.g;
        let n = registers::<S>();
        let [height, width] = g.pooled();
        let plane = block * g.conv.out_channels + channel;
        let at = (plane * height + window) * width * LANES;
        let grads = &self.output_grad[at..][..width * LANES];
        let mut sum = simd.splat_f32s(0.0);
        if g.average {
            let saved = &self.saved[(plane * g.kept() + 2 * window * g.conv.out_size[1]) * LANES..];
            for x in 0..width {
                let gradient = lanes(grads, x);
                for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let values = lanes(saved, dy * g.conv.out_size[1] + 2 * x + dx);
                    let slope = |value: u32| {
                        g.activation
                            .map_or(1.0, |activation| activation.slope_by_value(f32::from_bits(value)))
                    };
                    let to = lanes_mut(to, dy * row + (2 * x + dx) * column);
                    *to = std::array::from_fn(|l| 0.25 * gradient[l] * slope(values[l]));
                    for &part in wide::<S>(to.as_slice()) {
                        sum = simd.add_f32s(sum, part);
                    }
                }
            }
            return sum;
        }
        let to = wide_mut::<S>(to);
        let winners = wide_u32::<S>(&self.saved[at..][..width * LANES]).chunks_exact(n);
        for (x, (grads, winners)) in wide::<S>(grads).chunks_exact(n).zip(winners).enumerate() {
            for register in 0..n {
                let (gradient, winner) = (grads[register], winners[register]);
                for k in 0..4 {
                    let won = simd.equal_u32s(winner, simd.splat_u32s(k as u32));
                    to[(k / 2 * row + (2 * x + k % 2) * column) * n + register] =
                        simd.select_f32s(won, gradient, simd.splat_f32s(0.0));
                }
                let nowhere = simd.equal_u32s(winner, simd.splat_u32s(NOWHERE));
                sum = simd.add_f32s(sum, simd.select_f32s(nowhere, simd.splat_f32s(0.0), gradient));
            }
        }
        sum
    }
}

/// Floats of dz that a thread keeps in the nearest cache, beside the input that they meet.
const NEAR: usize = 6 << 10;

fn weight_gradient(
    upstream: &Upstream<'_>,
    source: &Source<'_>,
    splits: Splits,
    split: usize,
    first: usize,
    weight_grad: &mut [f32],
    bias_grad: &mut [f32],
) {
    let g = upstream.g;
    let channels = weight_grad.len() / g.weights();
    // Rows of windows, of up to four channels.
    let window_row = 4 * 2 * 2 * g.pooled()[1] * LANES;
    let strip = (NEAR / window_row.max(1)).clamp(1, g.pooled()[0].max(1));
    let (copy, sums) = (source.copy(g), channels * (g.weights() + 1) * LANES);
    scratch(copy + strip * window_row + sums, |memory| {
        let (copy, memory) = memory.split_at_mut(copy);
        let (dz, sums) = memory.split_at_mut(strip * window_row);
        let place = Part { splits, split, first, channels, strip };
        vectorize(WeightGradient { upstream, source, place, copy, dz, sums, weight_grad, bias_grad });
    });
}

/// Which partial sums a thread makes: channels `first` to `first + channels` of partial sum `split`.
#[derive(Clone, Copy)]
struct Part {
    splits: Splits,
    split: usize,
    first: usize,
    channels: usize,
    /// Rows of windows that it takes at once.
    strip: usize,
}

/// The partial sums of a few output channels over the blocks and rows of one split.
struct WeightGradient<'a> {
    upstream: &'a Upstream<'a>,
    source: &'a Source<'a>,
    place: Part,
    copy: &'a mut [f32],
    /// dz of a strip: `[row, column, channel]`.
    dz: &'a mut [f32],
    /// One register for each weight, `[channel, ky, kx, output channel]` of each tile of output channels; then
    /// one for each bias.
    sums: &'a mut [f32],
    weight_grad: &'a mut [f32],
    bias_grad: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let WeightGradient { upstream, source, place, copy, dz, sums, weight_grad, bias_grad } = self;
        let g = upstream.g;
        let weights = g.weights();
        let sums = &mut wide_mut::<S>(sums)[..place.channels * (weights + 1)];
        sums.fill(simd.splat_f32s(0.0));
        let (sums, biases) = sums.split_at_mut(place.channels * weights);
        // Its rows of windows are `start`, `start + step` and so on.
        let (start, step) = (place.split % place.splits.rows, place.splits.rows);
        for block in place.splits.blocks(place.split, &g.conv) {
            let input = wide::<S>(source.block(g, block, copy));
            for start in (start..g.pooled()[0]).step_by(step * place.strip) {
                let windows = (start..g.pooled()[0]).step_by(step).take(place.strip);
                let mut done = 0;
                while done < place.channels {
                    let channels = channel_tile::<S>(place.channels - done);
                    let sums = &mut sums[done * weights..][..channels * weights];
                    for (row, window) in windows.clone().enumerate() {
                        for o in 0..channels {
                            let width = 2 * g.pooled()[1] * channels;
                            let to = &mut dz[(2 * row * width + o) * LANES..];
                            let from = (block, place.first + done + o, window);
                            let sum = upstream.spread::<S>(simd, from, to, [width, channels]);
                            biases[done + o] = simd.add_f32s(biases[done + o], sum);
                        }
                    }
                    let dz = wide::<S>(dz);
                    match channels {
                        4 => tap_rows::<S, 4>(simd, g, input, windows.clone(), dz, sums),
                        3 => tap_rows::<S, 3>(simd, g, input, windows.clone(), dz, sums),
                        2 => tap_rows::<S, 2>(simd, g, input, windows.clone(), dz, sums),
                        _ => tap_rows::<S, 1>(simd, g, input, windows.clone(), dz, sums),
                    }
                    done += channels;
                }
            }
        }
        let mut done = 0;
        while done < place.channels {
            let channels = channel_tile::<S>(place.channels - done);
            for o in 0..channels {
                let sums = sums[done * weights + o..].iter().step_by(channels);
                for (weight, &sum) in weight_grad[(done + o) * weights..][..weights].iter_mut().zip(sums) {
                    *weight = simd.reduce_sum_f32s(sum);
                }
            }
            done += channels;
        }
        for (bias, &sum) in bias_grad.iter_mut().zip(&*biases) {
            *bias = simd.reduce_sum_f32s(sum);
        }
    }
}

/// Adds the products of a strip to the sums of all taps of `O` output channels.
#[inline(always)]
fn tap_rows<S: Simd, const O: usize>(
    simd: S,
    g: &Geometry,
    input: &[S::f32s],
    windows: impl Iterator<Item = usize> + Clone,
    dz: &[S::f32s],
    sums: &mut [S::f32s],
) {
    let [kernel_height, kernel_width] = g.conv.kernel;
    for c in 0..g.conv.in_channels {
        for ky in 0..kernel_height {
            let row = (c * kernel_height + ky) * kernel_width;
            let sums = &mut sums[row * O..][..kernel_width * O];
            match kernel_width {
                5 => tap_sums::<S, O, 5>(simd, g, input, windows.clone(), dz, [c, ky, 0], sums),
                3 => tap_sums::<S, O, 3>(simd, g, input, windows.clone(), dz, [c, ky, 0], sums),
                _ => sums.chunks_exact_mut(O).enumerate().for_each(|(kx, sums)| {
                    tap_sums::<S, O, 1>(simd, g, input, windows.clone(), dz, [c, ky, kx], sums);
                }),
            }
        }
    }
}

/// `O` output channels × `T` neighbouring taps from `[channel, ky, kx]` on, summed in registers.
#[inline(always)]
fn tap_sums<S: Simd, const O: usize, const T: usize>(
    simd: S,
    g: &Geometry,
    input: &[S::f32s],
    windows: impl Iterator<Item = usize>,
    dz: &[S::f32s],
    [c, ky, kx]: [usize; 3],
    sums: &mut [S::f32s],
) {
    let n = registers::<S>();
    let out_width = 2 * g.pooled()[1];
    let mut held: [[S::f32s; O]; T] = std::array::from_fn(|t| std::array::from_fn(|o| sums[t * O + o]));
    for (window, dz) in windows.zip(dz.chunks_exact(2 * out_width * O * n)) {
        for (dy, dz) in dz.chunks_exact(out_width * O * n).enumerate() {
            let y = (2 * window + dy + ky).wrapping_sub(g.conv.pad[0]);
            if y >= g.conv.in_size[0] {
                continue;
            }
            let start = (c * g.conv.in_size[0] + y) * width(g) + kx;
            for register in 0..n {
                let pixels = &input[start * n + register..][..(out_width + T - 2) * n + 1];
                let pixels = pixels.windows((T - 1) * n + 1).step_by(n);
                for (dz, pixels) in dz.chunks_exact(O * n).zip(pixels) {
                    let pixels: [S::f32s; T] = std::array::from_fn(|t| pixels[t * n]);
                    for o in 0..O {
                        let d = dz[o * n + register];
                        for t in 0..T {
                            held[t][o] = simd.mul_add_e_f32s(d, pixels[t], held[t][o]);
                        }
                    }
                }
            }
        }
    }
    for (sums, held) in sums.chunks_exact_mut(O).zip(held) {
        sums.copy_from_slice(&held);
    }
}

fn input_gradient(
    upstream: &Upstream<'_>,
    source: &Source<'_>,
    block: usize,
    first: usize,
    weight: &[f32],
    input_grad: &mut [f32],
) {
    let g = upstream.g;
    let plane = 4 * g.pooled()[0] * g.pooled()[1] * LANES;
    let few = (NEAR / plane.max(1)).clamp(1, g.conv.out_channels);
    let channels = input_grad.len() / (g.conv.in_size[0] * g.conv.in_size[1] * LANES);
    // Rows of sums have room for all that a row of dz reaches.
    let reach = 2 * g.pooled()[1] + g.conv.kernel[1] - 1;
    let sums_width = reach.max(g.conv.in_size[1] + g.conv.pad[1]);
    let sums = channels * g.conv.in_size[0] * sums_width * LANES;
    let place = (block, first, channels);
    let input = match (source, g.input_activation) {
        (Source::Floats(all), Some(activation)) => {
            let size = g.conv.in_size[0] * g.conv.in_size[1] * LANES;
            let at = (block * g.conv.in_channels + first) * size;
            Some((&all[at..][..channels * size], activation))
        }
        _ => None,
    };
    scratch(few * plane + sums, |memory| {
        let (dz, sums) = memory.split_at_mut(few * plane);
        vectorize(InputGradient { upstream, input, place, few, weight, sums_width, dz, sums, input_grad });
    });
}

/// The gradient of a few input channels of a block.
struct InputGradient<'a> {
    upstream: &'a Upstream<'a>,
    /// The input and the activation that made it.
    input: Option<(&'a [f32], Activation)>,
    /// Block, first channel, channels.
    place: (usize, usize, usize),
    /// Output channels that it takes at once.
    few: usize,
    weight: &'a [f32],
    sums_width: usize,
    /// `[output channel, row, column]` of a few output channels.
    dz: &'a mut [f32],
    /// `[channel, row]` of the input, with [`Self::sums_width`] columns from the padding on.
    sums: &'a mut [f32],
    input_grad: &'a mut [f32],
}

impl WithSimd for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let g = self.upstream.g;
        let (block, first, channels) = self.place;
        let [height, width] = g.pooled().map(|n| 2 * n);
        let n = registers::<S>();
        self.sums.fill(0.0);
        for (o, few) in tiles(g.conv.out_channels, self.few) {
            for (k, plane) in self.dz.chunks_exact_mut((height * width * LANES).max(1)).take(few).enumerate()
            {
                for window in 0..height / 2 {
                    let to = &mut plane[2 * window * width * LANES..];
                    self.upstream.spread::<S>(simd, (block, o + k, window), to, [width, 1]);
                }
            }
            let dz = &wide::<S>(self.dz)[..few * height * width * n];
            let rows = wide_mut::<S>(self.sums).chunks_exact_mut(self.sums_width * n).enumerate();
            for (row, sums) in rows.take(channels * g.conv.in_size[0]) {
                let (c, y) = (first + row / g.conv.in_size[0], row % g.conv.in_size[0]);
                let weight = &self.weight[o * g.weights()..];
                let mut x = 0;
                while x < width {
                    match (S::F32_LANES, width - x) {
                        (16.., 10..) => {
                            strew_taps::<S, 10, 14, 12>(simd, g, dz, weight, [c, y, x], sums);
                            x += 10;
                        }
                        (_, 4..) => {
                            strew_taps::<S, 4, 8, 6>(simd, g, dz, weight, [c, y, x], sums);
                            x += 4;
                        }
                        _ => {
                            strew_taps::<S, 2, 6, 4>(simd, g, dz, weight, [c, y, x], sums);
                            x += 2;
                        }
                    }
                }
            }
        }
        let row = g.conv.in_size[1] * LANES;
        let sums = self.sums.chunks_exact(self.sums_width * LANES);
        for (to, sums) in self.input_grad.chunks_exact_mut(row).zip(sums) {
            to.copy_from_slice(&sums[g.conv.pad[1] * LANES..][..row]);
        }
        match self.input {
            Some((input, Activation::Relu)) => {
                let (one, zero) = (simd.splat_f32s(1.0), simd.splat_f32s(0.0));
                for (grad, &y) in wide_mut::<S>(self.input_grad).iter_mut().zip(wide::<S>(input)) {
                    let slope = simd.select_f32s(simd.greater_than_f32s(y, zero), one, zero);
                    *grad = simd.mul_f32s(*grad, slope);
                }
            }
            Some((input, activation)) => {
                for (grad, &y) in self.input_grad.iter_mut().zip(input) {
                    *grad *= activation.slope_by_value(y);
                }
            }
            None => {}
        }
    }
}

/// Adds what `W` columns of dz from `x` on give to row `[channel, y]` of the sums: `A` of them with filters of
/// five columns, `B` with three.
#[inline(always)]
fn strew_taps<S: Simd, const W: usize, const A: usize, const B: usize>(
    simd: S,
    g: &Geometry,
    dz: &[S::f32s],
    weight: &[f32],
    at: [usize; 3],
    sums: &mut [S::f32s],
) {
    match g.conv.kernel[1] {
        5 => strew::<S, W, 5, A>(simd, g, dz, weight, at, 0, sums),
        3 => strew::<S, W, 3, B>(simd, g, dz, weight, at, 0, sums),
        taps => (0..taps).for_each(|kx| strew::<S, W, 1, W>(simd, g, dz, weight, at, kx, sums)),
    }
}

/// `T` taps of each filter from `kx` on, `A = W + T − 1` sums in registers: no product with the zeros around
/// dz is made.
#[inline(always)]
fn strew<S: Simd, const W: usize, const T: usize, const A: usize>(
    simd: S,
    g: &Geometry,
    dz: &[S::f32s],
    weight: &[f32],
    [c, y, x]: [usize; 3],
    kx: usize,
    sums: &mut [S::f32s],
) {
    let n = registers::<S>();
    let [height, width] = g.pooled().map(|n| 2 * n);
    let [kernel_height, kernel_width] = g.conv.kernel;
    let padded = y + g.conv.pad[0];
    let rows = (padded + 1).saturating_sub(height)..kernel_height.min(padded + 1);
    for register in 0..n {
        let sums = &mut sums[(x + kx) * n + register..][..(A - 1) * n + 1];
        let mut held: [S::f32s; A] = std::array::from_fn(|k| sums[k * n]);
        for (o, dz) in dz.chunks_exact(height * width * n).enumerate() {
            for ky in rows.clone() {
                let dz = &dz[((padded - ky) * width + x) * n + register..][..(W - 1) * n + 1];
                let dz: [S::f32s; W] = std::array::from_fn(|k| dz[k * n]);
                let at = o * g.weights() + (c * kernel_height + ky) * kernel_width + kx;
                let filter = &weight[at..][..T];
                for t in 0..T {
                    let w = simd.splat_f32s(filter[t]);
                    for k in 0..W {
                        held[k + t] = simd.mul_add_e_f32s(w, dz[k], held[k + t]);
                    }
                }
            }
        }
        for (k, held) in held.into_iter().enumerate() {
            sums[k * n] = held;
        }
    }
}
