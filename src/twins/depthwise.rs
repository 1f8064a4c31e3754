//! `shaders/depthwise.wgsl` on the CPU: a convolution in which every channel has one filter of its own, with its
//! activation, and its gradients.
//!
//! Each thread takes a channel of a block at a time, whose plane, between its zeros, stays in the nearest cache.

use std::iter::StepBy;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::finish::Finish;
use super::fused;
use super::simd::{registers, scratch, vectorize, wide, wide_mut};
use super::tasks::each;
use crate::kernels::shaders::depthwise::{forward, input_gradient, weight_gradient};
use crate::kernels::{LANES, Step, padded};
use crate::network::Activation;

/// What the constants of the entries have in common; pairs are (rows, columns).
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    in_size: [usize; 2],
    out_size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    dilation: [usize; 2],
}

/// The shape in the constants of an entry.
macro_rules! shape {
    ($constants:expr) => {
        Shape {
            channels: $constants.in_channels,
            in_size: [$constants.in_height, $constants.in_width],
            out_size: [$constants.out_height, $constants.out_width],
            kernel: [$constants.kernel_height, $constants.kernel_width],
            stride: [$constants.stride_height, $constants.stride_width],
            pad: [$constants.pad_height, $constants.pad_width],
            dilation: [$constants.dilation_height, $constants.dilation_width],
        }
    };
}

impl Shape {
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn weights(&self) -> usize {
        self.channels * self.taps()
    }
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let (g, activation) = (shape!(c), fused(c.activation));
    move |b, _| {
        let bias = if c.bias { b.bias } else { &[] };
        outputs(&g, activation, forward::Buffers { bias, ..b });
    }
}

pub(super) fn input_gradient(
    c: input_gradient::Constants,
) -> impl Fn(input_gradient::Buffers<'_>, Step) + Send + Sync {
    let (g, input_activation) = (shape!(c), fused(c.input_activation));
    move |b, _| gradients(&g, input_activation, b)
}

pub(super) fn weight_gradient(
    c: weight_gradient::Constants,
) -> impl Fn(weight_gradient::Buffers<'_>, Step) + Send + Sync {
    let g = shape!(c);
    move |b, _| partial_sums(&g, c, b)
}

fn outputs(g: &Shape, activation: Option<Activation>, b: forward::Buffers<'_>) {
    let forward::Buffers { input, weight, bias, output } = b;
    let (size, operations) = (g.out_size[0] * g.out_size[1] * LANES, 2 * g.taps() * output.len());
    each(output, size, operations, |plane, output| {
        let channel = plane % g.channels;
        with_padding(g, input, plane, |input| {
            vectorize(Correlate {
                g,
                input,
                width: g.in_size[1] + 2 * g.pad[1],
                stride: g.stride,
                weight: &weight[channel * g.taps()..][..g.taps()],
                bias: bias.get(channel).copied().unwrap_or(0.0),
                output,
                out_size: g.out_size,
                finish: Finish::Value(activation),
            });
        });
    });
}

fn gradients(g: &Shape, input_activation: Option<Activation>, b: input_gradient::Buffers<'_>) {
    let input_gradient::Buffers { input, weight, output_grad, input_grad } = b;
    let (size, operations) = (g.in_size[0] * g.in_size[1] * LANES, 2 * g.taps() * output_grad.len());
    each(input_grad, size, operations, |plane, input_grad| {
        let filter = &weight[plane % g.channels * g.taps()..][..g.taps()];
        let mut flipped = [0.0; 25];
        for (to, from) in flipped.iter_mut().zip(filter.iter().rev()) {
            *to = *from;
        }
        let values = input_grad.len();
        spread(g, output_grad, plane, |grads, width| {
            vectorize(Correlate {
                g,
                input: grads,
                width,
                stride: [1, 1],
                weight: &flipped[..g.taps()],
                bias: 0.0,
                output: input_grad,
                out_size: g.in_size,
                finish: Finish::Slope(input_activation, &input[plane * values..][..values]),
            });
        });
    });
}

fn partial_sums(g: &Shape, c: weight_gradient::Constants, b: weight_gradient::Buffers<'_>) {
    let weight_gradient::Buffers { input, output_grad, weight_grad, bias_grad } = b;
    let weight_grads = weight_grad.chunks_mut(padded(g.weights())).take(c.splits);
    let mut bias_grads = bias_grad.chunks_mut(padded(g.channels));
    let mut work = Vec::with_capacity(c.splits * g.channels);
    for (split, weight_grad) in weight_grads.enumerate() {
        let biases = if c.bias { bias_grads.next().unwrap_or_default() } else { &mut [] };
        let mut biases = biases.iter_mut();
        for (channel, filter) in weight_grad[..g.weights()].chunks_exact_mut(g.taps()).enumerate() {
            work.push((split, channel, filter, biases.next()));
        }
    }
    each(&mut work, 1, 2 * g.taps() * output_grad.len(), |_, work| {
        let [(split, channel, filter, bias)] = work else { return };
        filter.fill(0.0);
        let mut sum = 0.0;
        let lines = (*split % c.row_splits..g.out_size[0]).step_by(c.row_splits);
        for block in (*split / c.row_splits..c.blocks).step_by(c.splits / c.row_splits) {
            let plane = block * g.channels + *channel;
            let len = g.out_size[0] * g.out_size[1] * LANES;
            let grads = &output_grad[plane * len..][..len];
            with_padding(g, input, plane, |input| {
                let lines = lines.clone();
                vectorize(WeightGradient { g, lines, input, grads, filter, bias: &mut sum });
            });
        }
        if let Some(bias) = bias {
            **bias = sum;
        }
    });
}

/// Lends a plane of the input between its rows and columns of zeros.
fn with_padding(g: &Shape, input: &[f32], plane: usize, work: impl FnOnce(&[f32])) {
    let row = g.in_size[1] * LANES;
    let input = &input[plane * g.in_size[0] * row..][..g.in_size[0] * row];
    if g.pad == [0, 0] {
        return work(input);
    }
    let (wide, margin) = (row + 2 * g.pad[1] * LANES, g.pad[1] * LANES);
    scratch((g.in_size[0] + 2 * g.pad[0]) * wide, |copy| {
        copy[..g.pad[0] * wide].fill(0.0);
        copy[(g.pad[0] + g.in_size[0]) * wide..].fill(0.0);
        for (to, from) in copy[g.pad[0] * wide..].chunks_exact_mut(wide).zip(input.chunks_exact(row)) {
            to[..margin].fill(0.0);
            to[margin..][..row].copy_from_slice(from);
            to[margin + row..].fill(0.0);
        }
        work(copy);
    });
}

/// Lends a plane of the upstream gradient, spread out by the stride and between the zeros that the flipped filter
/// reaches into, and its width.
fn spread(g: &Shape, output_grad: &[f32], plane: usize, work: impl FnOnce(&[f32], usize)) {
    let reach: [usize; 2] = std::array::from_fn(|d| (g.kernel[d] - 1) * g.dilation[d]);
    let [height, width] = [g.in_size[0] + reach[0], g.in_size[1] + reach[1]];
    // What falls outside is the padding's own gradient.
    let place = |d: usize, k: usize| (k * g.stride[d] + reach[d]).checked_sub(g.pad[d]);
    let len = g.out_size[0] * g.out_size[1] * LANES;
    let grads = &output_grad[plane * len..][..len];
    scratch(height * width * LANES, |copy| {
        copy.fill(0.0);
        for (y, row) in grads.chunks_exact(g.out_size[1] * LANES).enumerate() {
            let Some(y) = place(0, y).filter(|&y| y < height) else { continue };
            for (x, pixel) in row.chunks_exact(LANES).enumerate() {
                if let Some(x) = place(1, x).filter(|&x| x < width) {
                    copy[(y * width + x) * LANES..][..LANES].copy_from_slice(pixel);
                }
            }
        }
        work(copy, width);
    });
}

/// `output[y, x] = bias + Σ weight[ky, kx] · input[y·S + ky·D, x·S + kx·D]` for one plane, finished.
struct Correlate<'a> {
    g: &'a Shape,
    input: &'a [f32],
    /// Of the input.
    width: usize,
    stride: [usize; 2],
    weight: &'a [f32],
    bias: f32,
    output: &'a mut [f32],
    out_size: [usize; 2],
    finish: Finish<'a>,
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = self.out_size[1];
        // The tile of columns with the least waste.
        let columns = [8, 7, 4, 1].into_iter().filter(|&columns| columns <= width);
        match columns.min_by_key(|&columns| width.div_ceil(columns) * (columns + 1)) {
            Some(8) => self.columns::<S, 8>(simd),
            Some(7) => self.columns::<S, 7>(simd),
            Some(4) => self.columns::<S, 4>(simd),
            _ => self.columns::<S, 1>(simd),
        }
        self.finish.rest(self.output);
    }
}

impl Correlate<'_> {
    #[inline(always)]
    fn columns<S: Simd, const P: usize>(&mut self, simd: S) {
        match (self.stride[1] == 1 && self.g.dilation[1] == 1, self.g.kernel[1]) {
            (true, 5) => self.rows::<S, P, 5, true>(simd),
            (true, 3) => self.rows::<S, P, 3, true>(simd),
            (true, _) => self.rows::<S, P, 1, true>(simd),
            (false, _) => self.rows::<S, P, 1, false>(simd),
        }
    }

    /// `P` neighbouring columns at a time in registers; `T` taps of a row are unrolled. `UNIT` says that stride and
    /// dilation of columns are 1.
    #[inline(always)]
    fn rows<S: Simd, const P: usize, const T: usize, const UNIT: bool>(&mut self, simd: S) {
        let g = self.g;
        let n = registers::<S>();
        let [out_height, out_width] = self.out_size;
        let (stride, dilation) = if UNIT { (1, 1) } else { (self.stride[1], g.dilation[1]) };
        let reach = ((P - 1) * stride + (T - 1) * dilation) * n + 1;
        let input = wide::<S>(self.input);
        let output = wide_mut::<S>(self.output);
        for y in 0..out_height {
            for register in 0..n {
                for x in (0..out_width).step_by(P) {
                    // The last tile may overlap the one before it: it writes the same values again.
                    let x = x.min(out_width - P);
                    let mut sums = [simd.splat_f32s(self.bias); P];
                    for (ky, filter) in self.weight.chunks_exact(g.kernel[1]).enumerate() {
                        let start = (y * self.stride[0] + ky * g.dilation[0]) * self.width + x * stride;
                        for (k, weights) in filter.chunks_exact(T).enumerate() {
                            let pixels = &input[(start + k * T * dilation) * n + register..][..reach];
                            for t in 0..T {
                                let w = simd.splat_f32s(weights[t]);
                                for p in 0..P {
                                    let pixel = pixels[(p * stride + t * dilation) * n];
                                    sums[p] = simd.mul_add_e_f32s(w, pixel, sums[p]);
                                }
                            }
                        }
                    }
                    for (p, sum) in sums.into_iter().enumerate() {
                        let at = (y * out_width + x + p) * n + register;
                        output[at] = self.finish.register(simd, at, sum);
                    }
                }
            }
        }
    }
}

/// Adds what a block gives to the gradients of a filter and its bias.
struct WeightGradient<'a> {
    g: &'a Shape,
    /// The rows of the output that are summed.
    lines: StepBy<Range<usize>>,
    /// With its padding.
    input: &'a [f32],
    grads: &'a [f32],
    filter: &'a mut [f32],
    bias: &'a mut f32,
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let [height, width] = self.g.kernel;
        let unit = self.g.stride[1] == 1 && self.g.dilation[1] == 1;
        match (unit, height, width) {
            (true, 3, 3) => self.taps::<S, 3, 3, true>(simd, [0, 0]),
            (true, _, 5) => (0..height).for_each(|ky| self.taps::<S, 1, 5, true>(simd, [ky, 0])),
            (true, _, 3) => (0..height).for_each(|ky| self.taps::<S, 1, 3, true>(simd, [ky, 0])),
            (_, 3, _) => (0..width).for_each(|kx| self.taps::<S, 3, 1, false>(simd, [0, kx])),
            (_, _, _) => (0..height * width)
                .for_each(|tap| self.taps::<S, 1, 1, false>(simd, [tap / width, tap % width])),
        }
        let mut sums = [simd.splat_f32s(0.0); 4];
        let line = self.g.out_size[1] * LANES;
        let values = self.lines.clone().flat_map(|y| wide::<S>(&self.grads[y * line..][..line]));
        for (k, &value) in values.enumerate() {
            sums[k % 4] = simd.add_f32s(sums[k % 4], value);
        }
        let [a, b, c, d] = sums;
        *self.bias += simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
    }
}

impl WeightGradient<'_> {
    /// `R` rows × `T` taps from `[ky, kx]` on, summed in registers.
    #[inline(always)]
    fn taps<S: Simd, const R: usize, const T: usize, const UNIT: bool>(
        &mut self,
        simd: S,
        [ky, kx]: [usize; 2],
    ) {
        let g = self.g;
        let n = registers::<S>();
        let out_width = g.out_size[1];
        let width = g.in_size[1] + 2 * g.pad[1];
        let (stride, dilation) = if UNIT { (1, 1) } else { (g.stride[1], g.dilation[1]) };
        let (input, grads) = (wide::<S>(self.input), wide::<S>(self.grads));
        let reach = ((out_width - 1) * stride + (T - 1) * dilation) * n + 1;
        let mut sums = [[simd.splat_f32s(0.0); T]; R];
        for y in self.lines.clone() {
            for register in 0..n {
                let rows: [&[S::f32s]; R] = std::array::from_fn(|r| {
                    let row = y * g.stride[0] + (ky + r) * g.dilation[0];
                    &input[(row * width + kx * g.dilation[1]) * n + register..][..reach]
                });
                let grads = &grads[y * out_width * n + register..][..(out_width - 1) * n + 1];
                for x in 0..out_width {
                    let grad = grads[x * n];
                    for r in 0..R {
                        let pixels = &rows[r][x * stride * n..][..(T - 1) * dilation * n + 1];
                        for t in 0..T {
                            sums[r][t] = simd.mul_add_e_f32s(grad, pixels[t * dilation * n], sums[r][t]);
                        }
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (weight, sum) in self.filter[(ky + r) * g.kernel[1] + kx..].iter_mut().zip(sums) {
                *weight += simd.reduce_sum_f32s(sum);
            }
        }
    }
}
