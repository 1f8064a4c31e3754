//! The backward pass as tasks, and the gradient that arrives through a window at its four places.

use std::sync::PoisonError;

use pulp::Simd;

use super::input_gradient::input_gradient;
use super::weight_gradient::weight_gradient;
use super::{Kept, NOWHERE, Shape, Source, width};
use crate::kernels::{LANES, padded};
use crate::twins::simd::{Line, lanes, lanes_mut, registers, wide, wide_mut, wide_u32};
use crate::twins::tasks::{self, Axis, Parts, cut, grid, mixed, portions, tiles};

/// Floats of dz that a thread keeps in the nearest cache, beside the input that they meet.
pub(super) const NEAR: usize = 6 << 10;

/// A part of the backward pass that one thread does.
enum Task<'a> {
    /// Partial sum `split` of the gradients of output channels from `first` on: of each the rows of taps from `taps` on,
    /// and the biases, or none.
    Weights {
        split: usize,
        first: usize,
        taps: usize,
        weight_grad: Vec<&'a mut [f32]>,
        bias_grad: &'a mut [f32],
    },
    /// The gradient of a block's input channels from `first` on.
    Input { block: usize, first: usize, input_grad: &'a mut [f32] },
}

/// What the backward entries are bound to.
pub(super) struct Backward<'a> {
    pub source: Source<'a>,
    pub output_grad: &'a [f32],
    /// What the forward pass kept.
    pub saved: &'a [u32],
    /// Where the partial sums of weights and bias go, if they are made.
    pub weights: Option<[&'a mut [f32]; 2]>,
    /// The weights and where the input's gradient goes, if it is made.
    pub inputs: Option<(&'a [f32], &'a mut [f32])>,
}

impl Backward<'_> {
    pub(super) fn run(self, g: &Shape, kept: &Kept) {
        let Backward { mut source, output_grad, saved, weights, inputs } = self;
        let upstream = Upstream { g, output_grad, saved };
        let (out_channels, in_channels) = (g.out_channels, g.in_channels);
        // Of each of the two gradients, so that a thread's share of the list is as much of either.
        let wanted = tasks::wanted(g.operations());

        let mut sums = Vec::new();
        let mut gathered = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([weight_grad, bias_grad]) = weights {
            let tap_rows = Axis::new(in_channels * g.kernel[0], 1);
            let gathers = matches!(source, Source::Bytes(_));
            // A gathered block serves all channels; else four of them make a task. Then fewer of them, for each of which
            // dz is made once, and where those are too few, fewer taps.
            let most = if gathers { out_channels } else { 4 };
            let few = if gathers && out_channels == 6 { 3 } else { most.div_ceil(2).min(4) };
            let pieces = g.splits * out_channels.div_ceil(most);
            let [channels, taps] =
                grid(wanted, pieces, [Axis { all: most.min(out_channels), tile: few, least: 1 }, tap_rows]);
            if let Source::Bytes(images) = &source
                && channels.count * taps.count > 1
            {
                let block = in_channels * g.in_size[0] * width(g) * LANES;
                gathered.resize(g.blocks * block / LANES, Line([0; LANES]));
                images.gather(g.pad[1], g.in_size[0], bytemuck::cast_slice_mut(&mut gathered));
                source = Source::Gathered(bytemuck::cast_slice(&gathered));
            }
            let partial_sums = weight_grad.chunks_mut(padded(out_channels * g.weights())).take(g.splits);
            let mut biases = bias_grad.chunks_mut(padded(out_channels));
            for (split, mut weight_grad) in partial_sums.enumerate() {
                let mut bias_grad = if g.bias { biases.next().unwrap_or_default() } else { &mut [] };
                for (start, count) in tiles(out_channels, most) {
                    let tiles = count.div_ceil(channels.tile);
                    let channels = Parts { all: count, count: channels.count.min(tiles), ..channels };
                    let (own, rest) = weight_grad.split_at_mut(count * g.weights());
                    weight_grad = rest;
                    let lengths = taps.iter().map(|(_, rows)| rows * g.kernel[1]);
                    let mut portions = portions(own, channels, g.weights(), lengths).into_iter();
                    for (first, count) in channels.iter() {
                        let (mut own, rest) = bias_grad.split_at_mut(if g.bias { count } else { 0 });
                        bias_grad = rest;
                        for ((taps, _), weight_grad) in taps.iter().zip(portions.by_ref()) {
                            let (first, bias_grad) = (start + first, std::mem::take(&mut own));
                            sums.push(Task::Weights { split, first, taps, weight_grad, bias_grad });
                        }
                    }
                }
            }
        }
        let mut grads = Vec::new();
        let mut weight: &[f32] = &[];
        if let Some((of_inputs, input_grad)) = inputs {
            weight = of_inputs;
            let plane = g.in_size[0] * g.in_size[1] * LANES;
            let [channels, _] = grid(wanted, g.blocks, [Axis::new(in_channels, 1), Axis::whole(1)]);
            let work =
                (0..g.blocks).flat_map(|block| channels.iter().map(move |(first, n)| (block, first, n)));
            let input_grads = cut(input_grad, work.clone().map(|(_, _, n)| n * plane));
            for ((block, first, _), input_grad) in work.zip(input_grads) {
                grads.push(Task::Input { block, first, input_grad });
            }
        }
        tasks::run(mixed(grads, sums), |task| match task {
            Task::Weights { split, first, taps, weight_grad, bias_grad } => {
                weight_gradient(&upstream, &source, [split, first, taps], weight_grad, bias_grad);
            }
            Task::Input { block, first, input_grad } => {
                input_gradient(&upstream, &source, block, first, weight, input_grad);
            }
        });
    }
}

/// The gradient of the output, which dz is made of.
pub(super) struct Upstream<'a> {
    pub g: &'a Shape,
    output_grad: &'a [f32],
    saved: &'a [u32],
}

impl Upstream<'_> {
    /// dz of one channel over a row of windows: writes place `dy · row + x · column` of `to` for its two rows
    /// and returns their sum.
    #[inline(always)]
    pub(super) fn spread<S: Simd>(
        &self,
        simd: S,
        (block, channel, window): (usize, usize, usize),
        to: &mut [f32],
        [row, column]: [usize; 2],
    ) -> S::f32s {
        let g = self.g;
        let n = registers::<S>();
        let [height, width] = g.pooled();
        let plane = block * g.out_channels + channel;
        let at = (plane * height + window) * width * LANES;
        let grads = &self.output_grad[at..][..width * LANES];
        let mut sum = simd.splat_f32s(0.0);
        if g.average {
            let saved = &self.saved[(plane * g.kept() + 2 * window * g.out_size[1]) * LANES..];
            for x in 0..width {
                let gradient = lanes(grads, x);
                for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let values = lanes(saved, dy * g.out_size[1] + 2 * x + dx);
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
