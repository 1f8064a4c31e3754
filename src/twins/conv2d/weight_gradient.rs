//! The partial sums of the gradients of weights and bias.

use std::iter::StepBy;
use std::ops::Range;

use super::{Shape, TILE, widen};
use crate::kernels::shaders::conv2d::weight_gradient::{Buffers, Constants};
use crate::kernels::{LANES, padded};
use crate::twins::simd::{registers, scratch, vectorize, wide};
use crate::twins::tasks::{self, Axis, grid, portions, tiles};
use pulp::{Simd, WithSimd};

/// Some partial sums of one split: of neighbouring output channels with neighbouring input channels of their group.
struct WeightGradient<'a> {
    g: &'a Shape,
    /// The blocks that are summed.
    blocks: StepBy<Range<usize>>,
    /// The rows of the output that are summed.
    lines: StepBy<Range<usize>>,
    /// The first output channel, of all.
    first: usize,
    /// The first input channel, of all.
    first_input: usize,
    /// The first row of taps in it, and how many there are in this and the channels after it.
    taps: [usize; 2],
    /// For each output channel, the weights of these rows of taps.
    rows: Vec<&'a mut [f32]>,
    /// For each output channel, or for none.
    biases: &'a mut [f32],
    output_grad: &'a [f32],
    input: &'a [f32],
    /// The plane of `input` that holds the first channel of the split's first block, and how many planes further on
    /// the next block's lies.
    planes: [usize; 2],
    /// Columns of `input`, with its padding.
    in_width: usize,
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut first = 0;
        while first < self.rows.len() {
            let left = self.rows.len() - first;
            first += match if S::F32_LANES >= 16 && left >= 4 { 4 } else { left.min(2) } {
                4 => self.filters::<S, 4>(simd, first),
                2 => self.filters::<S, 2>(simd, first),
                _ => self.filters::<S, 1>(simd, first),
            };
        }
        let line = self.g.out_size[1] * LANES;
        for (o, bias) in self.biases.iter_mut().enumerate() {
            let mut sums = [simd.splat_f32s(0.0); 4];
            for block in self.blocks.clone() {
                let at = (block * self.g.out_channels + self.first + o) * self.g.out_size[0];
                let lines = self.lines.clone();
                let values = lines.flat_map(|y| wide::<S>(&self.output_grad[(at + y) * line..][..line]));
                for (k, &value) in values.enumerate() {
                    sums[k % 4] = simd.add_f32s(sums[k % 4], value);
                }
            }
            let [a, b, c, d] = sums;
            *bias = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
    }
}

impl WeightGradient<'_> {
    /// All weights of `O` output channels from `first` on; gives `O`.
    #[inline(always)]
    fn filters<S: Simd, const O: usize>(&mut self, simd: S, first: usize) -> usize {
        let g = self.g;
        let unit = g.stride[1] == 1 && g.dilation[1] == 1;
        let [from, rows] = self.taps;
        if from > 0 || !rows.is_multiple_of(g.kernel[0]) {
            // Parts of channels, row by row.
            for row in from..from + rows {
                let (c, ky) = (row / g.kernel[0], row % g.kernel[0]);
                let mut kx = 0;
                while kx < g.kernel[1] {
                    kx += match g.kernel[1] - kx {
                        5 if unit => self.taps::<S, O, 1, 5, true>(simd, first, [c, ky, kx]) * 5,
                        3.. => self.taps::<S, O, 1, 3, false>(simd, first, [c, ky, kx]) * 3,
                        _ => self.taps::<S, O, 1, 1, false>(simd, first, [c, ky, kx]),
                    };
                }
            }
            return O;
        }
        // Channels outside, so that all taps find their planes in a near cache.
        for (start, channels) in tiles(rows / g.kernel[0], if g.kernel[1] < 3 { 4 } else { 2 }) {
            for ky in 0..g.kernel[0] {
                let mut kx = 0;
                while kx < g.kernel[1] {
                    let taps = match g.kernel[1] - kx {
                        5 if unit => 5,
                        3.. => 3,
                        _ => 1,
                    };
                    let mut c = start;
                    while c < start + channels {
                        c += match (taps, start + channels - c) {
                            (5, _) => self.taps::<S, O, 1, 5, true>(simd, first, [c, ky, kx]),
                            (3, 2..) if unit => self.taps::<S, O, 2, 3, true>(simd, first, [c, ky, kx]),
                            (3, 2..) => self.taps::<S, O, 2, 3, false>(simd, first, [c, ky, kx]),
                            (3, _) => self.taps::<S, O, 1, 3, false>(simd, first, [c, ky, kx]),
                            (_, 4..) if unit => self.taps::<S, O, 4, 1, true>(simd, first, [c, ky, kx]),
                            (_, 4..) => self.taps::<S, O, 4, 1, false>(simd, first, [c, ky, kx]),
                            (_, _) => self.taps::<S, O, 1, 1, false>(simd, first, [c, ky, kx]),
                        };
                    }
                    kx += taps;
                }
            }
        }
        O
    }

    /// `O` output channels × `C` input channels × `T` neighbouring taps from `[channel, ky, kx]` on, summed in
    /// registers; gives `C`. `UNIT` says that stride and dilation of columns are 1.
    #[inline(always)]
    fn taps<S: Simd, const O: usize, const C: usize, const T: usize, const UNIT: bool>(
        &mut self,
        simd: S,
        first: usize,
        [c, ky, kx]: [usize; 3],
    ) -> usize {
        let g = self.g;
        let n = registers::<S>();
        let [out_height, out_width] = g.out_size;
        let in_height = g.in_size[0];
        let (stride, dilation) = if UNIT { (1, 1) } else { (g.stride[1], g.dilation[1]) };
        let (input, grads) = (wide::<S>(self.input), wide::<S>(self.output_grad));
        let mut sums = [[[simd.splat_f32s(0.0); T]; C]; O];
        for (k, block) in self.blocks.clone().enumerate() {
            let plane = self.planes[0] + k * self.planes[1] + c;
            let channel = block * g.out_channels + self.first + first;
            for y in self.lines.clone() {
                let Some(row) = (y * g.stride[0] + ky * g.dilation[0]).checked_sub(g.pad[0]) else {
                    continue;
                };
                if row >= in_height {
                    continue;
                }
                for register in 0..n {
                    let rows: [&[S::f32s]; C] = std::array::from_fn(|c| {
                        let at = ((plane + c) * in_height + row) * self.in_width + kx * dilation;
                        &input[at * n + register..]
                    });
                    let grads: [&[S::f32s]; O] = std::array::from_fn(|o| {
                        let at = ((channel + o) * out_height + y) * out_width;
                        &grads[at * n + register..][..(out_width - 1) * n + 1]
                    });
                    for x in 0..out_width {
                        let grads: [S::f32s; O] = std::array::from_fn(|o| grads[o][x * n]);
                        for (c, row) in rows.iter().enumerate() {
                            let pixels = &row[x * stride * n..][..(T - 1) * dilation * n + 1];
                            for t in 0..T {
                                let pixel = pixels[t * dilation * n];
                                for (sums, &grad) in sums.iter_mut().zip(&grads) {
                                    sums[c][t] = simd.mul_add_e_f32s(grad, pixel, sums[c][t]);
                                }
                            }
                        }
                    }
                }
            }
        }
        for (row, sums) in self.rows[first..].iter_mut().zip(sums) {
            for (k, sums) in sums.into_iter().enumerate() {
                let at = ((c + k) * g.kernel[0] + ky - self.taps[0]) * g.kernel[1] + kx;
                for (weight, sum) in row[at..at + T].iter_mut().zip(sums) {
                    *weight = simd.reduce_sum_f32s(sum);
                }
            }
        }
        C
    }
}

pub(super) fn partial_sums(g: &Shape, c: Constants, b: Buffers<'_>) {
    let Buffers { input, output_grad, weight_grad, bias_grad } = b;
    let (splits, group_in, group_out) = (c.splits, g.group_in(), g.group_out());
    let block_step = splits / c.row_splits;
    // Tasks take different input channels, each of which is then copied once, or rows of taps where those are few, and
    // different output channels where that is not enough.
    let height = g.kernel[0];
    let tile = if group_in < TILE { 1 } else { TILE * height };
    let inputs = Axis { all: group_in * height, tile, least: if group_in < TILE { 1 } else { height } };
    let outputs = Axis { all: group_out, tile: TILE, least: 1 };
    let wanted = tasks::wanted(g.operations(c.blocks));
    let pieces = splits * g.groups;
    let [inputs, outputs] = if group_in < TILE && wanted <= pieces * group_out.div_ceil(TILE) {
        let [outputs, inputs] = grid(wanted, pieces, [outputs, inputs]);
        [inputs, outputs]
    } else {
        grid(wanted, pieces, [inputs, outputs])
    };
    let in_width = g.in_size[1] + 2 * g.pad[1];
    let mut work = Vec::new();
    let mut biases = bias_grad.chunks_mut(padded(g.out_channels));
    for (split, weight_grad) in weight_grad.chunks_mut(padded(g.weights())).take(splits).enumerate() {
        let mut biases = if c.bias { biases.next().unwrap_or_default() } else { &mut [] };
        let lengths = inputs.iter().map(|(_, rows)| rows * g.kernel[1]);
        let mut portions =
            portions(&mut weight_grad[..g.weights()], outputs, group_in * g.taps(), lengths).into_iter();
        for group in 0..g.groups {
            for (first, n) in outputs.iter() {
                let (mut here, rest) = biases.split_at_mut(if c.bias { n } else { 0 });
                biases = rest;
                for ((row, count), rows) in inputs.iter().zip(portions.by_ref()) {
                    let first_input = group * group_in + row / height;
                    work.push(WeightGradient {
                        g,
                        blocks: (split / c.row_splits..c.blocks).step_by(block_step),
                        lines: (split % c.row_splits..g.out_size[0]).step_by(c.row_splits),
                        first: group * group_out + first,
                        first_input,
                        taps: [row % height, count],
                        rows,
                        biases: std::mem::take(&mut here),
                        output_grad,
                        input,
                        planes: [
                            split / c.row_splits * g.in_channels + first_input,
                            block_step * g.in_channels,
                        ],
                        in_width,
                    });
                }
            }
        }
    }
    tasks::run(work, |task| {
        if g.pad[1] == 0 {
            return vectorize(task);
        }
        let row = g.in_size[1] * LANES;
        let (plane, wide_plane) = (g.in_size[0] * row, g.in_size[0] * in_width * LANES);
        let channels = (task.taps[0] + task.taps[1]).div_ceil(g.kernel[0]);
        let blocks = task.blocks.clone();
        scratch(blocks.len() * channels * wide_plane, |copy| {
            for (block, copy) in blocks.zip(copy.chunks_exact_mut(channels * wide_plane)) {
                let from = &input[(block * g.in_channels + task.first_input) * plane..][..channels * plane];
                widen(from, g.in_size, 0..g.in_size[0], copy, in_width, g.pad[1]);
            }
            vectorize(WeightGradient { input: copy, planes: [0, channels], ..task });
        });
    });
}
