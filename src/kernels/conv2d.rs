//! `shaders/conv2d.wgsl`: 2-D convolution (cross-correlation) and its gradients.
//!
//! The CPU twins share one routine, `correlate`: the input's gradient is a correlation of the upstream
//! gradient, spread out by the stride, with the flipped filters.

use std::sync::{Arc, Mutex, PoisonError};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

pub use super::{Gradients, LayerBuffers as Buffers};

use super::simd::{Line, cut, registers, tiles, vectorize, wide, wide_mut};
use super::{Args, LANES, Launch, Range, WORKGROUP, blocks, padded};
use crate::error::Result;

/// Shapes of a convolution; pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Images in a batch.
    pub batch: usize,
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

    fn weight_tiles(&self) -> usize {
        let out_tiles = self.groups * self.group_out().div_ceil(4);
        let taps = self.kernel[0] * self.kernel[1].div_ceil(5);
        out_tiles * (self.group_in() * taps + usize::from(self.bias))
    }

    /// Partial sums of the weights' gradient: enough to fill a GPU, never more than there are blocks.
    pub fn splits(&self) -> usize {
        (16_384 / (self.weight_tiles() * LANES)).clamp(1, blocks(self.batch))
    }

    fn constants(&self) -> [(&'static str, f64); 18] {
        [
            ("IN_CHANNELS", self.in_channels),
            ("IN_HEIGHT", self.in_size[0]),
            ("IN_WIDTH", self.in_size[1]),
            ("OUT_CHANNELS", self.out_channels),
            ("OUT_HEIGHT", self.out_size[0]),
            ("OUT_WIDTH", self.out_size[1]),
            ("KERNEL_HEIGHT", self.kernel[0]),
            ("KERNEL_WIDTH", self.kernel[1]),
            ("STRIDE_HEIGHT", self.stride[0]),
            ("STRIDE_WIDTH", self.stride[1]),
            ("PAD_HEIGHT", self.pad[0]),
            ("PAD_WIDTH", self.pad[1]),
            ("DILATION_HEIGHT", self.dilation[0]),
            ("DILATION_WIDTH", self.dilation[1]),
            ("GROUPS", self.groups),
            ("BIAS", usize::from(self.bias)),
            ("BLOCKS", blocks(self.batch)),
            ("SPLITS", self.splits()),
        ]
        .map(|(name, value)| (name, value as f64))
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let tiles = self.out_size[0] * self.out_size[1].div_ceil(4);
        let grid = [tiles.div_ceil(4), self.groups * self.group_out().div_ceil(4), blocks(self.batch)];
        let bindings = [("input", b.input), ("weight", b.weight), ("bias", b.bias), ("output", b.output)];
        let flop = 2 * self.multiply_adds() * self.batch as u64;
        let scratch = Mutex::default();
        let twin = move |args: &mut Args<'_>| {
            let bias = if self.bias { args.f32("bias") } else { &[] };
            forward(&self, &scratch, args.f32("input"), args.f32("weight"), bias, args.f32_mut("output"));
        };
        Launch::new(("conv2d", "forward"), &self.constants(), grid, &bindings, flop, Arc::new(twin))
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let tiles = self.in_size[0] * self.in_size[1].div_ceil(4);
        let grid = [tiles.div_ceil(4), self.groups * self.group_in().div_ceil(4), blocks(self.batch)];
        let bindings = [("weight", b.weight), ("output_grad", g.output), ("input_grad", input_grad)];
        let flop = 2 * self.multiply_adds() * self.batch as u64;
        let scratch = Mutex::default();
        let twin = move |args: &mut Args<'_>| {
            let input_grad = args.f32_mut("input_grad");
            input_gradient(&self, &scratch, args.f32("weight"), args.f32("output_grad"), input_grad);
        };
        Launch::new(("conv2d", "input_gradient"), &self.constants(), grid, &bindings, flop, Arc::new(twin))
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let grid = [self.weight_tiles().div_ceil(4), self.splits(), 1];
        let bindings =
            [("input", b.input), ("output_grad", g.output), ("weight_grad", g.weight), ("bias_grad", g.bias)];
        let flop = 2 * self.multiply_adds() * self.batch as u64;
        let scratch = Mutex::default();
        let twin = move |args: &mut Args<'_>| {
            let (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
            let splits = Splits { blocks: self.splits(), rows: 1 };
            weight_gradient(
                &self,
                splits,
                &scratch,
                args.f32("input"),
                args.f32("output_grad"),
                weight_grad,
                bias_grad,
            );
        };
        Launch::new(("conv2d", "weight_gradient"), &self.constants(), grid, &bindings, flop, Arc::new(twin))
    }

    /// Clears the gradients of the weights between channels that `mask`, a word for each pair of an output channel and
    /// a channel of its group's input, does not connect; in all partial sums that `weight_grad` holds, whichever launch
    /// made them.
    pub fn mask_gradient(self, mask: Range, weight_grad: Range) -> Result<Launch> {
        let grid = [self.weights().div_ceil(WORKGROUP), weight_grad.len / padded(self.weights()), 1];
        let bindings = [("mask", mask), ("weight_grad", weight_grad)];
        let twin = move |args: &mut Args<'_>| {
            let (mask, weight_grad) = (args.u32("mask"), args.f32_mut("weight_grad"));
            for sums in weight_grad.chunks_exact_mut(padded(self.weights())) {
                let filters = sums[..self.weights()].chunks_exact_mut(self.taps());
                filters.zip(mask).filter(|(_, seen)| **seen == 0).for_each(|(filter, _)| filter.fill(0.0));
            }
        };
        Launch::new(("conv2d", "mask_gradient"), &self.constants(), grid, &bindings, 0, Arc::new(twin))
    }
}

/// Memory that a twin keeps between steps, so that it is not allocated and zeroed each time.
type Scratch = Mutex<Vec<Line>>;

/// `len` floats of it, on cache lines, holding whatever was left there.
fn floats(scratch: &mut Vec<Line>, len: usize) -> &mut [f32] {
    scratch.resize(len.div_ceil(LANES), Line([0; LANES]));
    &mut bytemuck::cast_slice_mut(scratch)[..len]
}

/// Output channels that a thread takes at once.
const TILE: usize = 4;

/// One group of one block, as the shared routine sees it.
#[derive(Clone, Copy)]
struct Correlation {
    in_channels: usize,
    in_height: usize,
    /// Columns in memory, the padding among them.
    in_width: usize,
    out_size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Rows of zeros above the input, which are not in memory; negative where rows of it are skipped.
    pad_rows: isize,
    /// The input's rows lie this far apart, with rows of zeros between that are not in memory.
    spread_rows: usize,
}

impl Correlation {
    /// The row of the input that tap `ky` of output row `y` reads, if it is not one of zeros.
    #[inline(always)]
    fn row(&self, y: usize, ky: usize) -> Option<usize> {
        let row = (y * self.stride[0] + ky * self.dilation[0]).checked_add_signed(-self.pad_rows)?;
        (row % self.spread_rows == 0 && row / self.spread_rows < self.in_height)
            .then_some(row / self.spread_rows)
    }
}

/// `output[o, y, x] = bias[o] + Σ weight[o, c, ky, kx] · input[c, row(y, ky), x·S + kx·D]` for one block and a
/// few output channels.
struct Correlate<'a> {
    shape: Correlation,
    input: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    output: &'a mut [f32],
    channels: usize,
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.shape.out_size[1];
        // The tile of columns with the least waste; 4 × 5 sums fill the 32 registers of AVX-512, 2 × 5 the
        // 16 of AVX2.
        let columns = [5, 4, 2, 1]
            .into_iter()
            .filter(|&columns| columns <= width)
            .min_by_key(|&columns| width.div_ceil(columns) * (10 * columns + 3))
            .unwrap_or(1);
        let mut work = self;
        while work.channels > 0 {
            let channels = if S::F32_LANES >= 16 && work.channels >= 4 { 4 } else { work.channels.min(2) };
            match (channels, columns) {
                (4, 5) => correlate::<S, 4, 5>(simd, &mut work),
                (4, 4) => correlate::<S, 4, 4>(simd, &mut work),
                (4, 2) => correlate::<S, 4, 2>(simd, &mut work),
                (4, _) => correlate::<S, 4, 1>(simd, &mut work),
                (2, 5) => correlate::<S, 2, 5>(simd, &mut work),
                (2, 4) => correlate::<S, 2, 4>(simd, &mut work),
                (2, 2) => correlate::<S, 2, 2>(simd, &mut work),
                (2, _) => correlate::<S, 2, 1>(simd, &mut work),
                (_, 5) => correlate::<S, 1, 5>(simd, &mut work),
                (_, 4) => correlate::<S, 1, 4>(simd, &mut work),
                (_, 2) => correlate::<S, 1, 2>(simd, &mut work),
                (_, _) => correlate::<S, 1, 1>(simd, &mut work),
            }
        }
    }
}

/// The next `O` output channels, `P` neighbouring columns at a time, all in registers; advances `work`.
#[inline(always)]
fn correlate<S: Simd, const O: usize, const P: usize>(simd: S, work: &mut Correlate<'_>) {
    let c = work.shape;
    let n = registers::<S>();
    let [out_height, out_width] = c.out_size;
    let [kernel_height, kernel_width] = c.kernel;
    let taps = kernel_height * kernel_width;
    let input = wide::<S>(work.input);
    let (output, rest) = std::mem::take(&mut work.output).split_at_mut(O * out_height * out_width * LANES);
    let output = wide_mut::<S>(output);
    let weights: [&[f32]; O] =
        std::array::from_fn(|o| &work.weight[o * c.in_channels * taps..][..c.in_channels * taps]);
    let bias: [f32; O] = std::array::from_fn(|o| work.bias.get(o).copied().unwrap_or(0.0));
    let reach = ((P - 1) * c.stride[1] + (kernel_width - 1) * c.dilation[1]) * n + 1;
    for register in 0..n {
        for y in 0..out_height {
            for x in (0..out_width).step_by(P) {
                // The last tile may overlap the one before it: it writes the same values again.
                let x = x.min(out_width - P);
                let mut sums = [[simd.splat_f32s(0.0); P]; O];
                for (sums, &bias) in sums.iter_mut().zip(&bias) {
                    *sums = [simd.splat_f32s(bias); P];
                }
                for channel in 0..c.in_channels {
                    for ky in 0..kernel_height {
                        let Some(row) = c.row(y, ky) else { continue };
                        let start = (channel * c.in_height + row) * c.in_width + x * c.stride[1];
                        let pixels = &input[start * n + register..][..reach];
                        let at = channel * taps + ky * kernel_width;
                        let filters: [&[f32]; O] = std::array::from_fn(|o| &weights[o][at..][..kernel_width]);
                        for kx in 0..kernel_width {
                            let x: [S::f32s; P] =
                                std::array::from_fn(|p| pixels[(p * c.stride[1] + kx * c.dilation[1]) * n]);
                            for o in 0..O {
                                let w = simd.splat_f32s(filters[o][kx]);
                                for p in 0..P {
                                    sums[o][p] = simd.mul_add_e_f32s(w, x[p], sums[o][p]);
                                }
                            }
                        }
                    }
                }
                for o in 0..O {
                    for p in 0..P {
                        output[((o * out_height + y) * out_width + x + p) * n + register] = sums[o][p];
                    }
                }
            }
        }
    }
    work.output = rest;
    work.weight = &work.weight[O * c.in_channels * taps..];
    work.bias = work.bias.get(O..).unwrap_or_default();
    work.channels -= O;
}

/// Copies rows of `from` into wider rows of zeros: column `x` goes to `x · spread + shift`, if that exists.
fn widen(from: &[f32], width: usize, to: &mut [f32], wide: usize, shift: isize, spread: usize) {
    for (from, to) in from.chunks_exact(width * LANES).zip(to.chunks_exact_mut(wide * LANES)) {
        to.fill(0.0);
        for (x, pixel) in from.chunks_exact(LANES).enumerate() {
            if let Some(x) = (x * spread).checked_add_signed(shift)
                && x < wide
            {
                to[x * LANES..][..LANES].copy_from_slice(pixel);
            }
        }
    }
}

/// The input with its columns of padding, and its width; the input itself where there is none.
fn with_padding<'a>(g: &Geometry, input: &'a [f32], scratch: &'a mut Vec<Line>) -> (&'a [f32], usize) {
    let width = g.in_size[1] + 2 * g.pad[1];
    if g.pad[1] == 0 {
        return (input, width);
    }
    let rows = g.in_channels * g.in_size[0];
    let padded = floats(scratch, blocks(g.batch) * rows * width * LANES);
    padded
        .par_chunks_mut(rows * width * LANES)
        .zip(input.par_chunks(rows * g.in_size[1] * LANES))
        .for_each(|(to, from)| widen(from, g.in_size[1], to, width, g.pad[1] as isize, 1));
    (padded, width)
}

/// The output channels, group by group, in tiles: (block, first channel, channels).
fn channel_tiles(
    blocks: usize,
    groups: usize,
    group: usize,
) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    (0..blocks).flat_map(move |block| {
        (0..groups).flat_map(move |g| tiles(group, TILE).map(move |(first, n)| (block, g * group + first, n)))
    })
}

fn forward(g: &Geometry, scratch: &Scratch, input: &[f32], weight: &[f32], bias: &[f32], output: &mut [f32]) {
    let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
    let (input, _) = with_padding(g, input, &mut scratch);
    let plane = g.out_size[0] * g.out_size[1] * LANES;
    let work = channel_tiles(blocks(g.batch), g.groups, g.group_out());
    let outputs = cut(output, work.clone().map(|(_, _, n)| n * plane));
    work.zip(outputs)
        .collect::<Vec<_>>()
        .into_par_iter()
        .for_each(|(tile, output)| forward_tile(g, tile, input, weight, bias, output));
}

/// A few output channels of one block, from an input that has its columns of padding.
fn forward_tile(
    g: &Geometry,
    (block, first, channels): (usize, usize, usize),
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
    output: &mut [f32],
) {
    let shape = Correlation {
        in_channels: g.group_in(),
        in_height: g.in_size[0],
        in_width: g.in_size[1] + 2 * g.pad[1],
        out_size: g.out_size,
        kernel: g.kernel,
        stride: g.stride,
        dilation: g.dilation,
        pad_rows: g.pad[0] as isize,
        spread_rows: 1,
    };
    let group = first / g.group_out();
    let group_input = g.group_in() * shape.in_height * shape.in_width * LANES;
    vectorize(Correlate {
        shape,
        input: &input[(block * g.groups + group) * group_input..][..group_input],
        weight: &weight[first * g.group_in() * g.taps()..],
        bias: bias.get(first..).unwrap_or_default(),
        output,
        channels,
    });
}

fn input_gradient(
    g: &Geometry,
    scratch: &Scratch,
    weight: &[f32],
    output_grad: &[f32],
    input_grad: &mut [f32],
) {
    let (taps, group_in, group_out) = (g.taps(), g.group_in(), g.group_out());
    // In the correlation that yields the input's gradient, inputs and outputs change places.
    let mut flipped = vec![0.0; weight.len().max(g.weights())];
    for o in 0..g.out_channels {
        for c in 0..group_in {
            let from = &weight[(o * group_in + c) * taps..][..taps];
            let at = ((o / group_out * group_in + c) * group_out + o % group_out) * taps;
            for (to, from) in flipped[at..at + taps].iter_mut().zip(from.iter().rev()) {
                *to = *from;
            }
        }
    }
    let reach = [(g.kernel[0] - 1) * g.dilation[0], (g.kernel[1] - 1) * g.dilation[1]];
    let width = g.in_size[1] + reach[1];
    let rows = g.out_channels * g.out_size[0];
    let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
    let spread = floats(&mut scratch, blocks(g.batch) * rows * width * LANES);
    // Between columns of zeros that the filters reach into; what falls outside is the padding's own gradient.
    let shift = reach[1] as isize - g.pad[1] as isize;
    spread
        .par_chunks_mut(rows * width * LANES)
        .zip(output_grad.par_chunks(rows * g.out_size[1] * LANES))
        .for_each(|(to, from)| widen(from, g.out_size[1], to, width, shift, g.stride[1]));
    let grads: &[f32] = spread;
    let shape = Correlation {
        in_channels: group_out,
        in_height: g.out_size[0],
        in_width: width,
        out_size: g.in_size,
        kernel: g.kernel,
        stride: [1, 1],
        dilation: g.dilation,
        pad_rows: reach[0] as isize - g.pad[0] as isize,
        spread_rows: g.stride[0],
    };
    let plane = g.in_size[0] * g.in_size[1] * LANES;
    let group_grads = group_out * g.out_size[0] * width * LANES;
    let work = channel_tiles(blocks(g.batch), g.groups, group_in);
    let outputs = cut(input_grad, work.clone().map(|(_, _, n)| n * plane));
    work.zip(outputs).collect::<Vec<_>>().into_par_iter().for_each(|((block, first, channels), output)| {
        let group = first / group_in;
        vectorize(Correlate {
            shape,
            input: &grads[(block * g.groups + group) * group_grads..][..group_grads],
            weight: &flipped[first * group_out * taps..],
            bias: &[],
            output,
            channels,
        });
    });
}

/// Into how many partial sums the weights' gradient is split: by blocks, and by pairs of rows within them.
#[derive(Clone, Copy)]
pub(super) struct Splits {
    pub blocks: usize,
    pub rows: usize,
}

impl Splits {
    fn count(self) -> usize {
        self.blocks * self.rows
    }

    /// The blocks of partial sum `split`.
    pub(super) fn blocks(self, split: usize, g: &Geometry) -> impl Iterator<Item = usize> {
        (split / self.rows..blocks(g.batch)).step_by(self.blocks)
    }

    /// The rows of the output of partial sum `split`.
    fn rows(self, split: usize, g: &Geometry) -> impl Iterator<Item = usize> {
        (0..g.out_size[0]).filter(move |y| y / 2 % self.rows == split % self.rows)
    }
}

/// The partial sums of a few output channels over the blocks and rows of one split.
struct WeightGradient<'a> {
    g: &'a Geometry,
    splits: Splits,
    in_width: usize,
    input: &'a [f32],
    output_grad: &'a [f32],
    split: usize,
    first: usize,
    channels: usize,
    weight_grad: &'a mut [f32],
    bias_grad: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut done = 0;
        while done < self.channels {
            let left = self.channels - done;
            let channels = if S::F32_LANES >= 16 && left >= 4 { 4 } else { left.min(2) };
            for c in 0..self.g.group_in() {
                for ky in 0..self.g.kernel[0] {
                    for (kx, taps) in tiles(self.g.kernel[1], 5) {
                        match (channels, taps) {
                            (4, 5) => tap_sums::<S, 4, 5>(simd, &mut self, done, [c, ky, kx]),
                            (4, 3) => tap_sums::<S, 4, 3>(simd, &mut self, done, [c, ky, kx]),
                            (2, 5) => tap_sums::<S, 2, 5>(simd, &mut self, done, [c, ky, kx]),
                            (2, 3) => tap_sums::<S, 2, 3>(simd, &mut self, done, [c, ky, kx]),
                            (1, 5) => tap_sums::<S, 1, 5>(simd, &mut self, done, [c, ky, kx]),
                            (1, 3) => tap_sums::<S, 1, 3>(simd, &mut self, done, [c, ky, kx]),
                            (4, _) => (kx..kx + taps)
                                .for_each(|kx| tap_sums::<S, 4, 1>(simd, &mut self, done, [c, ky, kx])),
                            (2, _) => (kx..kx + taps)
                                .for_each(|kx| tap_sums::<S, 2, 1>(simd, &mut self, done, [c, ky, kx])),
                            (_, _) => (kx..kx + taps)
                                .for_each(|kx| tap_sums::<S, 1, 1>(simd, &mut self, done, [c, ky, kx])),
                        }
                    }
                }
            }
            done += channels;
        }
        let row = self.g.out_size[1] * LANES;
        let plane = self.g.out_size[0] * row;
        for (o, bias) in self.bias_grad.iter_mut().enumerate() {
            let mut sum = simd.splat_f32s(0.0);
            for block in self.splits.blocks(self.split, self.g) {
                let at = (block * self.g.out_channels + self.first + o) * plane;
                for y in self.splits.rows(self.split, self.g) {
                    for &value in wide::<S>(&self.output_grad[at + y * row..][..row]) {
                        sum = simd.add_f32s(sum, value);
                    }
                }
            }
            *bias = simd.reduce_sum_f32s(sum);
        }
    }
}

/// `O` output channels × `T` neighbouring taps from `[channel, ky, kx]` on, summed in registers.
#[inline(always)]
fn tap_sums<S: Simd, const O: usize, const T: usize>(
    simd: S,
    work: &mut WeightGradient<'_>,
    done: usize,
    [c, ky, kx]: [usize; 3],
) {
    let g = work.g;
    let n = registers::<S>();
    let [out_height, out_width] = g.out_size;
    let first = work.first + done;
    let channel = first / g.group_out() * g.group_in() + c;
    let (input, grads) = (wide::<S>(work.input), wide::<S>(work.output_grad));
    let mut sums = [[simd.splat_f32s(0.0); T]; O];
    for block in work.splits.blocks(work.split, g) {
        for y in work.splits.rows(work.split, g) {
            let Some(row) = (y * g.stride[0] + ky * g.dilation[0]).checked_sub(g.pad[0]) else { continue };
            if row >= g.in_size[0] {
                continue;
            }
            let start =
                ((block * g.in_channels + channel) * g.in_size[0] + row) * work.in_width + kx * g.dilation[1];
            for register in 0..n {
                let pixels = &input[start * n + register..];
                let rows: [&[S::f32s]; O] = std::array::from_fn(|o| {
                    let at =
                        ((block * g.out_channels + first + o) * out_height + y) * out_width * n + register;
                    &grads[at..][..(out_width - 1) * n + 1]
                });
                for x in 0..out_width {
                    let pixels = &pixels[x * g.stride[1] * n..][..(T - 1) * g.dilation[1] * n + 1];
                    let taps: [S::f32s; T] = std::array::from_fn(|t| pixels[t * g.dilation[1] * n]);
                    for o in 0..O {
                        let grad = rows[o][x * n];
                        for t in 0..T {
                            sums[o][t] = simd.mul_add_e_f32s(grad, taps[t], sums[o][t]);
                        }
                    }
                }
            }
        }
    }
    for (o, sums) in sums.into_iter().enumerate() {
        let at = ((done + o) * g.group_in() + c) * g.taps() + ky * g.kernel[1] + kx;
        for (weight, sum) in work.weight_grad[at..at + T].iter_mut().zip(sums) {
            *weight = simd.reduce_sum_f32s(sum);
        }
    }
}

fn weight_gradient(
    g: &Geometry,
    splits: Splits,
    scratch: &Scratch,
    input: &[f32],
    output_grad: &[f32],
    weight_grad: &mut [f32],
    bias_grad: &mut [f32],
) {
    let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
    let (input, in_width) = with_padding(g, input, &mut scratch);
    let row = g.group_in() * g.taps();
    let work = channel_tiles(splits.count(), g.groups, g.group_out());
    let mut weights = Vec::new();
    for split in weight_grad.chunks_mut(padded(g.weights())).take(splits.count()) {
        weights.extend(cut(split, channel_tiles(1, g.groups, g.group_out()).map(|(_, _, n)| n * row)));
    }
    let mut biases: Vec<&mut [f32]> = Vec::new();
    for split in bias_grad.chunks_mut(padded(g.out_channels)).take(if g.bias { splits.count() } else { 0 }) {
        biases.extend(cut(split, channel_tiles(1, g.groups, g.group_out()).map(|(_, _, n)| n)));
    }
    biases.resize_with(weights.len(), Default::default);
    work.zip(weights.into_iter().zip(biases)).collect::<Vec<_>>().into_par_iter().for_each(
        |((split, first, channels), (weight_grad, bias_grad))| {
            vectorize(WeightGradient {
                g,
                splits,
                in_width,
                input,
                output_grad,
                split,
                first,
                channels,
                weight_grad,
                bias_grad,
            });
        },
    );
}
