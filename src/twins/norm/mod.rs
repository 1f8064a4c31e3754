//! `shaders/norm.wgsl` on the CPU: each channel normalised and put through an affine map, and the gradients.

mod sums;

use std::ops::Range;

use self::sums::{inlined, sums};
use super::fused;
use super::simd::{Plain, lanes, lanes_mut, vectorize};
use super::tasks::{self, Axis, cut, each, grid};
use crate::kernels::norm::{Kind, MOMENTS};
use crate::kernels::shaders::norm::{
    forward, input_gradient, merge, moments, scaled_gradient, statistics, weight_gradient,
};
use crate::kernels::{LANES, Step, padded};
use crate::network::Activation;

/// What the shader's constants say; of an entry that lacks some, those of [`NOTHING`].
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    positions: usize,
    kind: Kind,
    epsilon: f32,
    activation: Option<Activation>,
    blocks: usize,
    splits: usize,
    segments: usize,
}

const NOTHING: Shape = Shape {
    channels: 0,
    positions: 0,
    kind: Kind::Affine,
    epsilon: 0.0,
    activation: None,
    blocks: 0,
    splits: 1,
    segments: 1,
};

/// The kind of a launch's `KIND`.
fn kind(number: usize) -> Kind {
    [Kind::Batch, Kind::Running, Kind::Affine][number]
}

pub(super) fn statistics(c: statistics::Constants) -> impl Fn(statistics::Buffers<'_>, Step) + Send + Sync {
    let statistics::Constants { channels, positions, epsilon, blocks, splits, segments, .. } = c;
    let g = Shape { channels, positions, epsilon, blocks, splits, segments, ..NOTHING };
    move |b, step| {
        let all = gathered(&g, step, b.input);
        finish(&g, b.saved, [b.batch_mean, b.batch_variance], all);
    }
}

pub(super) fn moments(c: moments::Constants) -> impl Fn(moments::Buffers<'_>, Step) + Send + Sync {
    let moments::Constants { channels, positions, blocks, splits, segments, .. } = c;
    let g = Shape { channels, positions, blocks, splits, segments, ..NOTHING };
    move |b, step| {
        let all = gathered(&g, step, b.input);
        let saved = &mut b.saved[2 * padded(g.channels)..];
        for (i, one) in all.into_iter().enumerate() {
            let at = MOMENTS * (i / g.channels) * padded(g.channels) + i % g.channels;
            for (k, value) in [one.count, one.mean, one.squares].into_iter().enumerate() {
                saved[at + k * padded(g.channels)] = value;
            }
        }
    }
}

pub(super) fn merge(c: merge::Constants) -> impl Fn(merge::Buffers<'_>, Step) + Send + Sync {
    let merge::Constants { channels, epsilon, splits, .. } = c;
    let g = Shape { channels, epsilon, splits, ..NOTHING };
    move |b, _| {
        let stride = padded(g.channels);
        let saved = b.saved;
        let one = |split: usize, channel: usize| {
            let at = (2 + MOMENTS * split) * stride + channel;
            Moments { count: saved[at], mean: saved[at + stride], squares: saved[at + 2 * stride] }
        };
        let merged = |c| (0..g.splits).fold(Moments::default(), |all, split| all.merged(one(split, c)));
        let all = (0..g.channels).map(merged).collect();
        finish(&g, saved, [b.batch_mean, b.batch_variance], all);
    }
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let forward::Constants { channels, positions, epsilon, .. } = c;
    let (kind, activation) = (kind(c.kind), fused(c.activation));
    let g = Shape { channels, positions, kind, epsilon, activation, ..NOTHING };
    move |b, step| outputs(&g, step, b)
}

pub(super) fn weight_gradient(
    c: weight_gradient::Constants,
) -> impl Fn(weight_gradient::Buffers<'_>, Step) + Send + Sync {
    let weight_gradient::Constants { channels, positions, epsilon, blocks, splits, segments, .. } = c;
    let (kind, activation) = (kind(c.kind), fused(c.activation));
    let g = Shape { channels, positions, kind, epsilon, activation, blocks, splits, segments };
    move |b, step| weight_gradients(&g, step, b)
}

pub(super) fn input_gradient(
    c: input_gradient::Constants,
) -> impl Fn(input_gradient::Buffers<'_>, Step) + Send + Sync {
    let input_gradient::Constants { channels, positions, splits, .. } = c;
    let g = Shape { channels, positions, activation: fused(c.activation), splits, ..NOTHING };
    move |b, step| input_gradients(&g, step, b)
}

pub(super) fn scaled_gradient(
    c: scaled_gradient::Constants,
) -> impl Fn(scaled_gradient::Buffers<'_>, Step) + Send + Sync {
    let scaled_gradient::Constants { channels, positions, epsilon, .. } = c;
    let (kind, activation) = (kind(c.kind), fused(c.activation));
    let g = Shape { channels, positions, kind, epsilon, activation, ..NOTHING };
    move |b, step| scaled_gradients(&g, step, b)
}

impl Shape {
    /// The blocks and positions of one piece.
    fn piece(&self, piece: usize) -> (usize, Range<usize>) {
        let segment = self.positions.div_ceil(self.segments);
        let start = piece % self.segments * segment;
        // The last segments may be empty.
        (piece / self.segments, start.min(self.positions)..(start + segment).min(self.positions))
    }

    /// The pieces of one split, those of its four workers one after the other: where the channel's elements lie, and
    /// how many images they are of.
    fn pieces(
        &self,
        split: usize,
        channel: usize,
        step: Step,
    ) -> impl Iterator<Item = (Range<usize>, usize)> {
        let pieces = self.blocks * self.segments;
        let workers = 4 * self.splits;
        let own = (4 * split..4 * split + 4).flat_map(move |worker| (worker..pieces).step_by(workers));
        own.filter_map(move |piece| {
            let (block, positions) = self.piece(piece);
            let images = images(block, step);
            let start = (block * self.channels + channel) * self.positions;
            let elements = (start + positions.start) * LANES..(start + positions.end) * LANES;
            (images > 0).then_some((elements, images))
        })
    }

    /// Runs `strip(place, output)` on some positions of every channel of every block.
    fn strips(&self, output: &mut [f32], strip: impl Fn(Place, &mut [f32]) + Send + Sync) {
        let planes = output.len() / (self.positions * LANES);
        let operations = OPERATIONS * output.len();
        let [parts, _] =
            grid(tasks::wanted(operations), planes, [Axis::new(self.positions, 1), Axis::whole(1)]);
        let strip = |place: Place, output: &mut [f32]| {
            vectorize(Plain(
                #[inline(always)]
                || strip(place, output),
            ));
        };
        if parts.count == 1 {
            return each(output, self.positions * LANES, operations, |i, output| {
                strip(Place { block: i / self.channels, channel: i % self.channels, first: 0 }, output);
            });
        }
        let places = (0..planes).flat_map(|i| {
            let (block, channel) = (i / self.channels, i % self.channels);
            parts.iter().map(move |(first, len)| (Place { block, channel, first }, len))
        });
        let outputs = cut(output, places.clone().map(|(_, len)| len * LANES));
        let strips: Vec<_> = places.zip(outputs).collect();
        tasks::run(strips, |((place, _), output)| strip(place, output));
    }

    /// What is subtracted from a channel's input, and what the difference is multiplied by.
    fn centre_and_scale(&self, mean: &[f32], spread: &[f32], channel: usize) -> (f32, f32) {
        match self.kind {
            Kind::Batch => (mean[channel], spread[channel]),
            Kind::Running => (mean[channel], 1.0 / (spread[channel] + self.epsilon).sqrt()),
            Kind::Affine => (0.0, 1.0),
        }
    }

    /// What lies from a place on.
    fn from<'a>(&self, tensor: &'a [f32], at: Place) -> &'a [f32] {
        &tensor[((at.block * self.channels + at.channel) * self.positions + at.first) * LANES..]
    }
}

/// Of an element, about.
const OPERATIONS: usize = 8;

/// Where a part of an output begins.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    channel: usize,
    /// The first position.
    first: usize,
}

/// How many of a block's images there are.
fn images(block: usize, step: Step) -> usize {
    (step.count as usize).saturating_sub(block * LANES).min(LANES)
}

/// Of some elements: how many, their mean, and the sum of their squared distances from it.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f32,
    mean: f32,
    squares: f32,
}

impl Moments {
    /// Those of all elements (Chan, Golub and LeVeque 1979).
    fn merged(self, other: Moments) -> Moments {
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        let share = other.count / count.max(1.0);
        Moments {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count * share,
        }
    }
}

/// The moments of every channel of every split, channels fastest: in two passes, the second corrected by the error
/// of the mean.
fn gathered(g: &Shape, step: Step, input: &[f32]) -> Vec<Moments> {
    let first = sums(g, step, [input], |_| {
        inlined(
            #[inline(always)]
            |[x]| [x, 0.0],
        )
    });
    let counts = (0..g.splits).map(|split| {
        let pieces = g.pieces(split, 0, step);
        pieces.map(|(elements, images)| elements.len() / LANES * images).sum::<usize>() as f32
    });
    let counts: Vec<f32> = counts.flat_map(|count| std::iter::repeat_n(count, g.channels)).collect();
    let means: Vec<f32> = first.iter().zip(&counts).map(|([sum, _], count)| sum / count.max(1.0)).collect();
    let second = sums(g, step, [input], |i| {
        let mean = means[i];
        inlined(
            #[inline(always)]
            move |[x]| [x - mean, (x - mean) * (x - mean)],
        )
    });
    let moments =
        second.into_iter().zip(means.iter().zip(&counts)).map(|([off, squares], (mean, &count))| {
            let off = off / count.max(1.0);
            Moments { count, mean: mean + off, squares: (squares - off * off * count).max(0.0) }
        });
    moments.collect()
}

/// Saves what normalises each channel, and hands the optimizer what the running averages take in.
fn finish(g: &Shape, saved: &mut [f32], [mean, variance]: [&mut [f32]; 2], all: Vec<Moments>) {
    for (c, one) in all.into_iter().enumerate() {
        saved[c] = one.mean;
        saved[padded(g.channels) + c] = 1.0 / (one.squares / one.count.max(1.0) + g.epsilon).sqrt();
        mean[c] = one.mean;
        variance[c] = one.squares / (one.count - 1.0).max(1.0);
    }
}

fn outputs(g: &Shape, step: Step, b: forward::Buffers<'_>) {
    let forward::Buffers { input, weight, bias, mean, spread, output } = b;
    g.strips(
        output,
        #[inline(always)]
        |at @ Place { block, channel: c, .. }, output| {
            let input = g.from(input, at);
            let (centre, scale) = g.centre_and_scale(mean, spread, c);
            let (factor, start) = (weight[c] * scale, bias[c]);
            for p in 0..output.len() / LANES {
                let (x, y) = (lanes(input, p), lanes_mut(output, p));
                for l in 0..LANES {
                    y[l] = (x[l] - centre) * factor + start;
                }
            }
            match g.activation {
                None => {}
                Some(Activation::Relu) => output.iter_mut().for_each(|y| *y = Activation::Relu.value(*y)),
                Some(other) => output.iter_mut().for_each(|y| *y = other.value(*y)),
            }
            clear(output, images(block, step));
        },
    );
}

/// Zeros where there is no image.
#[inline(always)]
fn clear(plane: &mut [f32], images: usize) {
    if images < LANES {
        plane.chunks_exact_mut(LANES).for_each(|lanes| lanes[images..].fill(0.0));
    }
}

/// `$work` for each kind of activation, with `$slope(gradient, output)` as the gradient before the activation.
macro_rules! with_slope {
    ($activation:expr, $slope:ident => $work:expr) => {
        match $activation {
            None => {
                let $slope = closure(
                    #[inline(always)]
                    |grad, _| grad,
                );
                $work
            }
            Some(Activation::Relu) => {
                let $slope = closure(
                    #[inline(always)]
                    |grad, y| if y > 0.0 { grad } else { 0.0 },
                );
                $work
            }
            Some(activation) => {
                let $slope = closure(
                    #[inline(always)]
                    |grad, y| grad * activation.slope_by_value(y),
                );
                $work
            }
        }
    };
}

/// A closure may carry an attribute as an argument only.
#[inline(always)]
fn closure<F: Fn(f32, f32) -> f32>(slope: F) -> F {
    slope
}

fn weight_gradients(g: &Shape, step: Step, b: weight_gradient::Buffers<'_>) {
    let weight_gradient::Buffers { input, mean, spread, activated, output_grad, weight_grad, bias_grad } = b;
    let stride = padded(g.channels);
    let tensors = [input, activated, output_grad];
    let all = with_slope!(g.activation, slope => sums(
        g,
        step,
        tensors,
        |i| {
            let centre = g.centre_and_scale(mean, spread, i % g.channels).0;
            inlined(
                #[inline(always)]
                move |[x, y, grad]| {
                    let gradient = slope(grad, y);
                    [gradient * (x - centre), gradient]
                },
            )
        },
    ));
    for (i, [weight, bias]) in all.into_iter().enumerate() {
        let (split, c) = (i / g.channels, i % g.channels);
        weight_grad[split * stride + c] = weight * g.centre_and_scale(mean, spread, c).1;
        bias_grad[split * stride + c] = bias;
    }
}

fn input_gradients(g: &Shape, step: Step, b: input_gradient::Buffers<'_>) {
    let input_gradient::Buffers { input, weight, activated, output_grad, weight_sums, bias_sums, .. } = b;
    let (saved, input_grad) = (b.batch_statistics, b.input_grad);
    let stride = padded(g.channels);
    let elements = step.count as f32 * g.positions as f32;
    let mean = |sums: &[f32], c: usize| {
        (0..g.splits).fold(0.0, |sum, split| sum + sums[split * stride + c]) / elements
    };
    g.strips(
        input_grad,
        #[inline(always)]
        |at @ Place { block, channel: c, .. }, input_grad| {
            let [input, activated, output_grad] =
                [input, activated, output_grad].map(|tensor| g.from(tensor, at));
            let (centre, scale) = (saved[c], saved[stride + c]);
            let (of_weight, of_bias) = (mean(weight_sums, c), mean(bias_sums, c));
            let factor = weight[c] * scale;
            with_slope!(g.activation, slope => values(
                input_grad,
                [input, activated, output_grad],
                #[inline(always)]
                |x, y, grad| factor * (slope(grad, y) - of_bias - (x - centre) * scale * of_weight),
            ));
            clear(input_grad, images(block, step));
        },
    );
}

/// `to = value(a, b, c)`, elementwise.
#[inline(always)]
fn values(to: &mut [f32], [a, b, c]: [&[f32]; 3], value: impl Fn(f32, f32, f32) -> f32) {
    for p in 0..to.len() / LANES {
        let (to, a, b, c) = (lanes_mut(to, p), lanes(a, p), lanes(b, p), lanes(c, p));
        for l in 0..LANES {
            to[l] = value(a[l], b[l], c[l]);
        }
    }
}

fn scaled_gradients(g: &Shape, step: Step, b: scaled_gradient::Buffers<'_>) {
    let scaled_gradient::Buffers { weight, spread, activated, output_grad, input_grad } = b;
    g.strips(
        input_grad,
        #[inline(always)]
        |at @ Place { block, channel: c, .. }, input_grad| {
            let [activated, output_grad] = [activated, output_grad].map(|tensor| g.from(tensor, at));
            let scale = match g.kind {
                Kind::Running => 1.0 / (spread[c] + g.epsilon).sqrt(),
                _ => 1.0,
            };
            let factor = weight[c] * scale;
            with_slope!(g.activation, slope => values(
                input_grad,
                [activated, activated, output_grad],
                #[inline(always)]
                |_, y, grad| factor * slope(grad, y),
            ));
            clear(input_grad, images(block, step));
        },
    );
}
