//! `shaders/conv_pool.wgsl`: convolution, bias, activation and 2×2 pooling fused, and all their gradients.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::activation::{Activation, fused_code};
use super::conv2d::{self, Scratch, Splits, channel_tiles, forward_tile, with_padding};
use super::simd::{Plain, cut, lanes, lanes_mut, vectorize};
use super::{Args, LANES, Launch, Range, UNIFORM_BYTES, batch, blocks};
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

/// The multiply-adds that cost as much as a load, on a software adapter.
const LOAD: usize = 13;

impl Geometry {
    /// Rows and columns after the pooling.
    pub fn pooled(&self) -> [usize; 2] {
        self.conv.out_size.map(|n| n / 2)
    }

    /// Words that the forward pass keeps for the backward pass: each window's winner, or all values.
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
            let windows = if columns >= self.conv.in_size[1] { pooled } else { columns / 2 + 2 };
            let columns = if columns >= self.conv.in_size[1] { 2 * pooled } else { columns };
            Work { loads: 2 * windows + 15 * channels / 2, multiply_adds: 20 * columns * channels }
        })
    }

    /// Pairs of output channels and rows of taps of a tile of the weights' gradient.
    fn weight_tile(&self) -> (usize, usize) {
        let rows = self.conv.kernel[0].min(3);
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
        let memory = Memory::default();
        let twin = move |args: &mut Args<'_>| forward(&self, save, &memory, args);
        let entry = ("conv_pool", "forward");
        let launch = Launch::new(entry, &self.constants(save), grid, &bindings, self.flop(), Arc::new(twin))?;
        let bytes = self.traffic(&launch, b.input);
        Ok(launch.with_bytes(bytes))
    }

    /// The partial sums of the gradients of weights and bias and, where there is a range for it, the gradient
    /// of the input.
    pub fn backward(self, b: Buffers, g: conv2d::Gradients, input_grad: Option<Range>) -> Result<Launch> {
        let (pairs, rows) = self.weight_tile();
        let bias_tiles = if self.conv.bias { self.conv.out_channels.div_ceil(2 * pairs) } else { 0 };
        let weight_groups = (self.splits() * (self.weight_tiles((pairs, rows)) + bias_tiles)).div_ceil(4);
        let tile = self.input_tile();
        let input_tiles = self.conv.in_size[0].div_ceil(2) * self.conv.in_size[1].div_ceil(tile.columns);
        let input_groups =
            input_tiles.div_ceil(4) * self.conv.in_channels.div_ceil(tile.channels) * blocks(self.conv.batch);
        let groups = weight_groups + if input_grad.is_some() { input_groups } else { 0 };
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
        let memory = Memory::default();
        let with_input = input_grad.is_some();
        let twin = move |args: &mut Args<'_>| backward(&self, with_input, &memory, args);
        let constants = self.constants(true);
        let launch =
            Launch::new(entry, &constants, [groups, 1, 1], &bindings, passes * self.flop(), Arc::new(twin))?;
        let bytes = self.traffic(&launch, b.input);
        Ok(launch.with_bytes(bytes))
    }
}

/// What the twins keep between steps, so that it is not allocated and zeroed each time.
#[derive(Default)]
struct Memory {
    gathered: Scratch,
    padding: Scratch,
    grads: Scratch,
    convolution: Scratch,
}

/// The input as floats: gathered where the launch does that.
fn input<'a>(g: &Geometry, args: &Args<'a>, gathered: &'a mut Vec<f32>) -> &'a [f32] {
    let Some(gather) = g.gather else { return args.f32("input") };
    gathered.resize(gather.features() * blocks(gather.batch) * LANES, 0.0);
    batch::gather(&gather, args.step, args.u32("input"), args.u32("order"), gathered);
    gathered
}

fn locked(scratch: &Mutex<Vec<f32>>) -> std::sync::MutexGuard<'_, Vec<f32>> {
    scratch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forward(g: &Geometry, save: bool, memory: &Memory, args: &mut Args<'_>) {
    let (output, saved) = (args.f32_mut("output"), args.u32_mut("saved"));
    let (weight, bias) = (args.f32("weight"), if g.conv.bias { args.f32("bias") } else { &[] });
    let (mut gathered, mut padding) = (locked(&memory.gathered), locked(&memory.padding));
    let input = input(g, args, &mut gathered);
    let (input, _) = with_padding(&g.conv, input, &mut padding);
    let whole = g.conv.out_size[0] * g.conv.out_size[1] * LANES;
    let plane = g.pooled()[0] * g.pooled()[1] * LANES;
    let kept = if g.average { whole } else { plane };
    let work = channel_tiles(blocks(g.conv.batch), 1, g.conv.out_channels);
    let outputs = cut(output, work.clone().map(|(_, _, n)| n * plane));
    let saved = cut(saved, work.clone().map(|(_, _, n)| n * kept));
    work.zip(outputs.into_iter().zip(saved)).collect::<Vec<_>>().into_par_iter().for_each_init(
        Vec::new,
        |values, (tile, (output, saved))| {
            values.resize(tile.2 * whole, 0.0);
            forward_tile(&g.conv, tile, input, weight, bias, values);
            let planes = output.chunks_exact_mut(plane).zip(saved.chunks_exact_mut(kept));
            for (values, (output, saved)) in values.chunks_exact_mut(whole).zip(planes) {
                vectorize(Plain(
                    #[inline(always)]
                    || {
                        if g.average {
                            average(g, save, values, output, saved)
                        } else {
                            maximum(g, save, values, output, saved)
                        }
                    },
                ));
            }
        },
    );
}

/// Where the four values of a window lie.
fn window(g: &Geometry, at: usize) -> [usize; 4] {
    let (y, x) = (at / g.pooled()[1] * 2, at % g.pooled()[1] * 2);
    let first = y * g.conv.out_size[1] + x;
    [first, first + 1, first + g.conv.out_size[1], first + g.conv.out_size[1] + 1]
}

#[inline(always)]
fn maximum(g: &Geometry, save: bool, values: &[f32], output: &mut [f32], saved: &mut [u32]) {
    for at in 0..output.len() / LANES {
        let [a, b, c, d] = window(g, at).map(|place| lanes(values, place));
        let (mut best, mut place) = (*a, [0; LANES]);
        for (k, other) in [(1, b), (2, c), (3, d)] {
            for l in 0..LANES {
                let more = other[l] > best[l];
                best[l] = if more { other[l] } else { best[l] };
                place[l] = if more { k } else { place[l] };
            }
        }
        match g.activation {
            Some(Activation::Relu) => best.iter_mut().for_each(|y| *y = y.max(0.0)),
            Some(activation) => best.iter_mut().for_each(|y| *y = activation.value(*y)),
            None => {}
        }
        *lanes_mut(output, at) = best;
        if save {
            *lanes_mut(saved, at) = place;
        }
    }
}

#[inline(always)]
fn average(g: &Geometry, save: bool, values: &mut [f32], output: &mut [f32], saved: &mut [u32]) {
    if let Some(activation) = g.activation {
        values.iter_mut().for_each(|y| *y = activation.value(*y));
    }
    for at in 0..output.len() / LANES {
        let [a, b, c, d] = window(g, at).map(|place| lanes(values, place));
        let mean = std::array::from_fn(|l| 0.25 * (a[l] + b[l] + c[l] + d[l]));
        *lanes_mut(output, at) = mean;
        if save {
            // Values in a last odd row or column belong to no window and are not kept, as on the GPU.
            for place in window(g, at) {
                *lanes_mut(saved, place) = lanes(values, place).map(f32::to_bits);
            }
        }
    }
}

fn backward(g: &Geometry, with_input: bool, memory: &Memory, args: &mut Args<'_>) {
    let (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
    let (output_grad, saved) = (args.f32("output_grad"), args.u32("recalled"));
    let (mut gathered, mut grads) = (locked(&memory.gathered), locked(&memory.grads));
    let input = input(g, args, &mut gathered);
    // dz, spread out over the windows.
    let whole = g.conv.out_size[0] * g.conv.out_size[1] * LANES;
    let plane = g.pooled()[0] * g.pooled()[1] * LANES;
    grads.resize(g.conv.out_channels * blocks(g.conv.batch) * whole, 0.0);
    grads
        .par_chunks_mut(whole)
        .zip(output_grad.par_chunks(plane))
        .zip(saved.par_chunks(if g.average { whole } else { plane }))
        .with_min_len(4)
        .for_each(|((grads, output_grad), saved)| {
            vectorize(Plain(
                #[inline(always)]
                || spread(g, output_grad, saved, grads),
            ));
        });
    conv2d::weight_gradient(&g.conv, g.split(), &memory.padding, input, &grads, weight_grad, bias_grad);
    if with_input {
        let input_grad = args.f32_mut("input_grad");
        conv2d::input_gradient(&g.conv, &memory.convolution, args.f32("weight"), &grads, input_grad);
        if let Some(activation) = g.input_activation {
            input_grad.par_chunks_mut(1 << 12).zip(input.par_chunks(1 << 12)).for_each(|(grad, input)| {
                grad.iter_mut().zip(input).for_each(|(grad, &y)| *grad *= activation.slope_by_value(y));
            });
        }
    }
}

#[inline(always)]
fn spread(g: &Geometry, output_grad: &[f32], saved: &[u32], grads: &mut [f32]) {
    if g.conv.out_size.iter().any(|n| n % 2 == 1) {
        grads.fill(0.0);
    }
    for at in 0..output_grad.len() / LANES {
        let gradient = lanes(output_grad, at);
        for (k, place) in window(g, at).into_iter().enumerate() {
            let to = lanes_mut(grads, place);
            if g.average {
                let values = lanes(saved, place);
                for l in 0..LANES {
                    let slope = g
                        .activation
                        .map_or(1.0, |activation| activation.slope_by_value(f32::from_bits(values[l])));
                    to[l] = 0.25 * gradient[l] * slope;
                }
            } else {
                let winners = lanes(saved, at);
                for l in 0..LANES {
                    to[l] = if winners[l] == k as u32 { gradient[l] } else { 0.0 };
                }
            }
        }
    }
}
