//! `shaders/depthwise.wgsl`: a convolution in which every channel has one filter of its own.
//!
//! [`conv2d::Geometry`](Geometry) launches these where they fit. Each thread of the CPU twins takes a channel of a
//! block at a time, whose plane, between its zeros, stays in the nearest cache.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::conv2d::{Buffers, Finish, Geometry, Gradients};
use super::simd::{registers, scratch, vectorize, wide, wide_mut};
use super::{Args, LANES, Launch, Range, blocks, padded};
use crate::error::Result;

/// Columns of a tile.
const COLUMNS: usize = 8;

/// Rows of a tile.
fn rows(g: &Geometry) -> usize {
    if g.stride[0] == 1 && g.dilation[0] == 1 { 2 } else { 1 }
}

pub(super) fn forward(g: Geometry, b: Buffers) -> Result<Launch> {
    let tiles = g.out_size[0].div_ceil(rows(&g)) * g.out_size[1].div_ceil(COLUMNS);
    let grid = [tiles.div_ceil(4), g.groups, blocks(g.batch)];
    let bindings = [("input", b.input), ("weight", b.weight), ("bias", b.bias), ("output", b.output)];
    let twin = move |args: &mut Args<'_>| {
        let bias = if g.bias { args.f32("bias") } else { &[] };
        let (input, weight, output) = (args.f32("input"), args.f32("weight"), args.f32_mut("output"));
        each_plane(&g, output, g.out_size, |plane, output| {
            let channel = plane % g.groups;
            with_padding(&g, input, plane, |input| {
                vectorize(Correlate {
                    g: &g,
                    input,
                    width: g.in_size[1] + 2 * g.pad[1],
                    stride: g.stride,
                    weight: &weight[channel * g.taps()..][..g.taps()],
                    bias: bias.get(channel).copied().unwrap_or(0.0),
                    output,
                    out_size: g.out_size,
                    finish: Finish::Value(g.activation),
                });
            });
        });
    };
    Launch::old(("depthwise", "forward"), &g.constants(), grid, &bindings, g.flop(), Arc::new(twin))
}

pub(super) fn input_gradient(
    g: Geometry,
    b: Buffers,
    gradients: Gradients,
    input_grad: Range,
) -> Result<Launch> {
    let strips = g.stride[1] * g.in_size[1].div_ceil(g.stride[1]).div_ceil(COLUMNS);
    let grid = [(g.in_size[0].div_ceil(rows(&g)) * strips).div_ceil(4), g.groups, blocks(g.batch)];
    let bindings = [
        ("input", b.input),
        ("weight", b.weight),
        ("output_grad", gradients.output),
        ("input_grad", input_grad),
    ];
    let twin = move |args: &mut Args<'_>| {
        let (input, weight, output_grad) = (args.f32("input"), args.f32("weight"), args.f32("output_grad"));
        each_plane(&g, args.f32_mut("input_grad"), g.in_size, |plane, input_grad| {
            let filter = &weight[plane % g.groups * g.taps()..][..g.taps()];
            let mut flipped = [0.0; 25];
            for (to, from) in flipped.iter_mut().zip(filter.iter().rev()) {
                *to = *from;
            }
            let values = input_grad.len();
            spread(&g, output_grad, plane, |grads, width| {
                vectorize(Correlate {
                    g: &g,
                    input: grads,
                    width,
                    stride: [1, 1],
                    weight: &flipped[..g.taps()],
                    bias: 0.0,
                    output: input_grad,
                    out_size: g.in_size,
                    finish: Finish::Slope(g.input_activation, &input[plane * values..][..values]),
                });
            });
        });
    };
    Launch::old(("depthwise", "input_gradient"), &g.constants(), grid, &bindings, g.flop(), Arc::new(twin))
}

pub(super) fn weight_gradient(g: Geometry, b: Buffers, gradients: Gradients) -> Result<Launch> {
    let bindings = [
        ("input", b.input),
        ("output_grad", gradients.output),
        ("weight_grad", gradients.weight),
        ("bias_grad", gradients.bias),
    ];
    let twin = move |args: &mut Args<'_>| {
        let (input, output_grad) = (args.f32("input"), args.f32("output_grad"));
        let weight_grads = args.f32_mut("weight_grad").chunks_mut(padded(g.weights())).take(g.splits());
        let mut bias_grads = args.f32_mut("bias_grad").chunks_mut(padded(g.groups));
        let mut work = Vec::with_capacity(g.splits() * g.groups);
        for (split, weight_grad) in weight_grads.enumerate() {
            let biases = if g.bias { bias_grads.next().unwrap_or_default() } else { &mut [] };
            let mut biases = biases.iter_mut();
            for (channel, filter) in weight_grad[..g.weights()].chunks_exact_mut(g.taps()).enumerate() {
                work.push((split, channel, filter, biases.next()));
            }
        }
        work.into_par_iter().for_each(|(split, channel, filter, bias)| {
            filter.fill(0.0);
            let mut sum = 0.0;
            for block in (split..blocks(g.batch)).step_by(g.splits()) {
                let plane = block * g.groups + channel;
                let len = g.out_size[0] * g.out_size[1] * LANES;
                let grads = &output_grad[plane * len..][..len];
                with_padding(&g, input, plane, |input| {
                    vectorize(WeightGradient { g: &g, input, grads, filter, bias: &mut sum });
                });
            }
            if let Some(bias) = bias {
                *bias = sum;
            }
        });
    };
    let grid = [g.groups.div_ceil(4), g.splits(), 1];
    Launch::old(("depthwise", "weight_gradient"), &g.constants(), grid, &bindings, g.flop(), Arc::new(twin))
}

/// Calls `work` with the number of each plane (a channel of a block) of `values`, in parallel.
fn each_plane(
    g: &Geometry,
    values: &mut [f32],
    size: [usize; 2],
    work: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    let planes = blocks(g.batch) * g.groups;
    let values = values[..planes * size[0] * size[1] * LANES].par_chunks_exact_mut(size[0] * size[1] * LANES);
    // A few for each thread at least, so that handing them out costs nothing.
    values.enumerate().with_min_len(planes.div_ceil(8 * rayon::current_num_threads())).for_each(
        |(plane, values)| {
            work(plane, values);
        },
    );
}

/// Lends a plane of the input between its rows and columns of zeros.
fn with_padding(g: &Geometry, input: &[f32], plane: usize, work: impl FnOnce(&[f32])) {
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
fn spread(g: &Geometry, output_grad: &[f32], plane: usize, work: impl FnOnce(&[f32], usize)) {
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
    g: &'a Geometry,
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
    g: &'a Geometry,
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
        for (k, &value) in wide::<S>(self.grads).iter().enumerate() {
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
        let [out_height, out_width] = g.out_size;
        let width = g.in_size[1] + 2 * g.pad[1];
        let (stride, dilation) = if UNIT { (1, 1) } else { (g.stride[1], g.dilation[1]) };
        let (input, grads) = (wide::<S>(self.input), wide::<S>(self.grads));
        let reach = ((out_width - 1) * stride + (T - 1) * dilation) * n + 1;
        let mut sums = [[simd.splat_f32s(0.0); T]; R];
        for y in 0..out_height {
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
