//! The backward pass as tasks, and the gradient that arrives through a window at its four places.

use pulp::Simd;
use rayon::prelude::*;

use super::input_gradient::input_gradient;
use super::weight_gradient::weight_gradient;
use super::{NOWHERE, Shape, Source};
use crate::kernels::{LANES, padded};
use crate::twins::simd::{cut, lanes, lanes_mut, mixed, registers, share, tiles, wide, wide_mut, wide_u32};

/// Floats of dz that a thread keeps in the nearest cache, beside the input that they meet.
pub(super) const NEAR: usize = 6 << 10;

/// A part of the backward pass that one thread does.
enum Task<'a> {
    /// Partial sum `split` of the gradients of output channels from `first` on.
    Weights { split: usize, first: usize, weight_grad: &'a mut [f32], bias_grad: &'a mut [f32] },
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
    pub(super) fn run(self, g: &Shape) {
        let Backward { source, output_grad, saved, weights, inputs } = self;
        let upstream = Upstream { g, output_grad, saved };
        let (out_channels, in_channels) = (g.out_channels, g.in_channels);

        // A gathered block serves all channels; else a few of them make a task.
        let most = if matches!(source, Source::Bytes(_)) { share(g.splits, out_channels, 3) } else { 4 };
        let channels = || tiles(out_channels, most);
        let mut sums = Vec::new();
        let [weight_grad, bias_grad] = weights.unwrap_or_default();
        let partial_sums =
            weight_grad.chunks_mut(padded(out_channels * g.weights())).take(g.splits).enumerate();
        let mut biases = bias_grad.chunks_mut(padded(out_channels));
        for (split, weight_grad) in partial_sums {
            let bias_grad = if g.bias { biases.next().unwrap_or_default() } else { &mut [] };
            let bias_grads = cut(bias_grad, channels().map(|(_, n)| if g.bias { n } else { 0 }));
            let weight_grads = cut(weight_grad, channels().map(|(_, n)| n * g.weights()));
            for ((first, _), (weight_grad, bias_grad)) in
                channels().zip(weight_grads.into_iter().zip(bias_grads))
            {
                sums.push(Task::Weights { split, first, weight_grad, bias_grad });
            }
        }
        let mut grads = Vec::new();
        let mut weight: &[f32] = &[];
        if let Some((of_inputs, input_grad)) = inputs {
            weight = of_inputs;
            let plane = g.in_size[0] * g.in_size[1] * LANES;
            let most = share(g.blocks, in_channels, 1);
            let work = (0..g.blocks)
                .flat_map(|block| tiles(in_channels, most).map(move |(first, n)| (block, first, n)));
            let input_grads = cut(input_grad, work.clone().map(|(_, _, n)| n * plane));
            for ((block, first, _), input_grad) in work.zip(input_grads) {
                grads.push(Task::Input { block, first, input_grad });
            }
        }
        let tasks = mixed(grads, sums);
        tasks.into_par_iter().with_max_len(1).for_each(|task| match task {
            Task::Weights { split, first, weight_grad, bias_grad } => {
                weight_gradient(&upstream, &source, split, first, weight_grad, bias_grad);
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
