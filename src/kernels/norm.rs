//! `shaders/norm.wgsl`: each channel normalised and put through an affine map, and the gradients.

use std::sync::Arc;

use rayon::prelude::*;

pub use super::Gradients;

use super::activation::{Activation, fused_code};
use super::simd::{Plain, lanes, lanes_mut, vectorize};
use super::{Args, LANES, Launch, Range, Step, WORKGROUP, blocks, padded};
use crate::error::Result;

/// What a channel is normalised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The mean and variance of this batch (Ioffe and Szegedy 2015).
    Batch,
    /// Their running averages.
    Running,
    /// Nothing: the affine map alone (the sub-sampling of LeCun et al. 1998).
    Affine,
}

/// Shapes and settings of a normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels.
    pub channels: usize,
    /// Elements of a channel of an image: rows times columns, 1 after a linear layer.
    pub positions: usize,
    /// What a channel is normalised by.
    pub kind: Kind,
    /// Added to a variance.
    pub epsilon: f32,
    /// The weight of a new batch in the running averages.
    pub momentum: f32,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// Invocations that fill the device: the sums over a channel are split until there are so many.
    pub fill: usize,
}

/// The buffers of a normalisation.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[channels, positions]` of each image.
    pub input: Range,
    /// `[channels]`.
    pub weight: Range,
    /// `[channels]`.
    pub bias: Range,
    /// `[channels]`; any range of [`Kind::Affine`].
    pub running_mean: Range,
    /// `[channels]`; any range of [`Kind::Affine`].
    pub running_variance: Range,
    /// [`Geometry::saved`] floats of [`Kind::Batch`]: the batch's means, then its `1 / √(variance + ε)`. Any range of
    /// the other kinds.
    pub saved: Range,
    /// `[channels, positions]` of each image.
    pub output: Range,
}

/// Floats of a channel's moments: how many elements, their mean, the sum of their squared distances from it.
const MOMENTS: usize = 3;

/// The most partial sums of a channel; whoever adds them up reads as many.
const MOST_SPLITS: usize = 8;

impl Geometry {
    /// Partial sums of the gradients of weight and bias: no more than fill the device, never more than leave each of
    /// a workgroup's four workers some positions.
    pub fn splits(&self) -> usize {
        let most = (blocks(self.batch) * self.positions.div_ceil(8)).div_ceil(4);
        (self.fill / (self.channels * WORKGROUP)).clamp(1, most.min(MOST_SPLITS))
    }

    /// Floats of [`Buffers::saved`].
    pub fn saved(&self) -> usize {
        let partial = if self.splits() > 1 { MOMENTS * self.splits() } else { 0 };
        (2 + partial) * padded(self.channels)
    }

    /// Pieces that a block's positions are cut into: enough that every worker has one.
    fn segments(&self) -> usize {
        (4 * self.splits()).div_ceil(blocks(self.batch)).clamp(1, self.positions.div_ceil(8))
    }

    fn constants(&self) -> [(&'static str, f64); 9] {
        [
            ("CHANNELS", self.channels as f64),
            ("POSITIONS", self.positions as f64),
            ("KIND", f64::from(self.kind as u8)),
            ("EPSILON", f64::from(self.epsilon)),
            ("MOMENTUM", f64::from(self.momentum)),
            ("ACTIVATION", fused_code(self.activation)),
            ("BLOCKS", blocks(self.batch) as f64),
            ("SPLITS", self.splits() as f64),
            ("SEGMENTS", self.segments() as f64),
        ]
    }

    fn elements(&self) -> u64 {
        (self.channels * self.positions * self.batch) as u64
    }

    fn launch(
        self,
        entry: &'static str,
        grid: [usize; 3],
        bindings: &[(&str, Range)],
        flop: u64,
        twin: impl Fn(&Geometry, &mut Args<'_>) + Send + Sync + 'static,
    ) -> Result<Launch> {
        let twin = Arc::new(move |args: &mut Args<'_>| twin(&self, args));
        Launch::old(("norm", entry), &self.constants(), grid, bindings, flop, twin)
    }

    /// The grid of launches over elements.
    fn grid(&self) -> [usize; 3] {
        let tiles = self.channels * self.positions.div_ceil(8);
        [(tiles * LANES).div_ceil(WORKGROUP), blocks(self.batch), 1]
    }

    /// Where the mean and the spread of a channel come from; the affine map reads neither.
    fn normal(&self, b: &Buffers) -> [Range; 2] {
        match self.kind {
            Kind::Batch => {
                let stride = padded(self.channels);
                [0, stride].map(|at| Range { start: b.saved.start + at, len: stride, ..b.saved })
            }
            Kind::Running => [b.running_mean, b.running_variance],
            Kind::Affine => [b.weight; 2],
        }
    }

    /// The batch's statistics, and the running averages after it: one launch, or two where a channel is split; none
    /// but of [`Kind::Batch`].
    pub fn statistics(self, b: Buffers) -> Result<Vec<Launch>> {
        if self.kind != Kind::Batch {
            return Ok(Vec::new());
        }
        let bindings = [
            ("input", b.input),
            ("saved", b.saved),
            ("running_mean", b.running_mean),
            ("running_variance", b.running_variance),
        ];
        let flop = 4 * self.elements();
        if self.splits() == 1 {
            let grid = [self.channels, 1, 1];
            let launch = self.launch("statistics", grid, &bindings, flop, |g, args| {
                let all = moments(g, args.step, args.f32("input"));
                finish(g, args, all);
            })?;
            return Ok(vec![launch]);
        }
        let partial =
            self.launch("moments", [self.channels, self.splits(), 1], &bindings, flop, |g, args| {
                let all = moments(g, args.step, args.f32("input"));
                let saved = &mut args.f32_mut("saved")[2 * padded(g.channels)..];
                for (i, one) in all.into_iter().enumerate() {
                    let at = MOMENTS * (i / g.channels) * padded(g.channels) + i % g.channels;
                    for (k, value) in [one.count, one.mean, one.squares].into_iter().enumerate() {
                        saved[at + k * padded(g.channels)] = value;
                    }
                }
            })?;
        let flop = 10 * (self.channels * self.splits()) as u64;
        let grid = [self.channels.div_ceil(WORKGROUP), 1, 1];
        let whole = self.launch("merge", grid, &bindings, flop, finish_saved)?;
        Ok(vec![partial, whole])
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let [mean, spread] = self.normal(&b);
        let bindings = [
            ("input", b.input),
            ("weight", b.weight),
            ("bias", b.bias),
            ("mean", mean),
            ("spread", spread),
            ("output", b.output),
        ];
        self.launch("forward", self.grid(), &bindings, 3 * self.elements(), forward)
    }

    /// The partial sums of the gradients of weight and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let [mean, spread] = self.normal(&b);
        let bindings = [
            ("input", b.input),
            ("mean", mean),
            ("spread", spread),
            ("activated", b.output),
            ("output_grad", g.output),
            ("weight_grad", g.weight),
            ("bias_grad", g.bias),
        ];
        let grid = [self.channels, self.splits(), 1];
        self.launch("weight_gradient", grid, &bindings, 4 * self.elements(), weight_gradient)
    }

    /// The gradient of the input; of [`Kind::Batch`] from the sums that [`Geometry::weight_gradient`] left.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let [_, spread] = self.normal(&b);
        let bindings = [
            ("input", b.input),
            ("weight", b.weight),
            ("spread", spread),
            ("activated", b.output),
            ("output_grad", g.output),
            ("batch_statistics", b.saved),
            ("weight_sums", g.weight),
            ("bias_sums", g.bias),
            ("input_grad", input_grad),
        ];
        if self.kind == Kind::Batch {
            self.launch("input_gradient", self.grid(), &bindings, 6 * self.elements(), input_gradient)
        } else {
            self.launch("scaled_gradient", self.grid(), &bindings, self.elements(), scaled_gradient)
        }
    }

    /// The blocks and positions of one piece.
    fn piece(&self, piece: usize) -> (usize, std::ops::Range<usize>) {
        let segment = self.positions.div_ceil(self.segments());
        let start = piece % self.segments() * segment;
        // The last segments may be empty.
        (piece / self.segments(), start.min(self.positions)..(start + segment).min(self.positions))
    }

    /// The pieces of one split, those of its four workers one after the other: the channel's elements in them, and how
    /// many images they are of.
    fn pieces<'a>(
        &'a self,
        split: usize,
        channel: usize,
        step: Step,
        tensor: &'a [f32],
    ) -> impl Iterator<Item = (&'a [f32], usize)> + Clone {
        let pieces = blocks(self.batch) * self.segments();
        let workers = 4 * self.splits();
        let own = (4 * split..4 * split + 4).flat_map(move |worker| (worker..pieces).step_by(workers));
        own.filter_map(move |piece| {
            let (block, positions) = self.piece(piece);
            let images = images(block, step);
            let start = (block * self.channels + channel) * self.positions;
            let elements = &tensor[(start + positions.start) * LANES..(start + positions.end) * LANES];
            (images > 0).then_some((elements, images))
        })
    }

    /// Runs `plane(block, channel, plane of the output)` on every channel of every block.
    fn planes(&self, output: &mut [f32], plane: impl Fn(usize, usize, &mut [f32]) + Sync) {
        output.par_chunks_mut(self.positions * LANES).with_min_len(4).enumerate().for_each(|(i, output)| {
            vectorize(Plain(
                #[inline(always)]
                || plane(i / self.channels, i % self.channels, output),
            ));
        });
    }

    /// What is subtracted from a channel's input, and what the difference is multiplied by.
    fn centre_and_scale(&self, mean: &[f32], spread: &[f32], channel: usize) -> (f32, f32) {
        match self.kind {
            Kind::Batch => (mean[channel], spread[channel]),
            Kind::Running => (mean[channel], 1.0 / (spread[channel] + self.epsilon).sqrt()),
            Kind::Affine => (0.0, 1.0),
        }
    }

    /// The plane of a channel of a block.
    fn plane<'a>(&self, tensor: &'a [f32], block: usize, channel: usize) -> &'a [f32] {
        let len = self.positions * LANES;
        &tensor[(block * self.channels + channel) * len..][..len]
    }
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

/// The sum of `value` over all elements, lane by lane, of the first `images` lanes of each piece.
#[inline(always)]
fn sum<'a>(pieces: impl Iterator<Item = (&'a [f32], usize)>, value: impl Fn(f32) -> [f32; 2]) -> [f32; 2] {
    let mut all = [[0.0; LANES]; 2];
    for (elements, images) in pieces {
        let mut own = [[0.0; LANES]; 2];
        for p in 0..elements.len() / LANES {
            let elements = lanes(elements, p);
            for l in 0..LANES {
                let [first, second] = value(elements[l]);
                own[0][l] += first;
                own[1][l] += second;
            }
        }
        for (all, own) in all.iter_mut().zip(own) {
            all.iter_mut().zip(own).take(images).for_each(|(all, own)| *all += own);
        }
    }
    all.map(|lanes| lanes.iter().sum())
}

/// The moments of every channel of every split, channels fastest: in two passes, the second corrected by the error
/// of the mean.
fn moments(g: &Geometry, step: Step, input: &[f32]) -> Vec<Moments> {
    let mut all = vec![Moments::default(); g.splits() * g.channels];
    all.par_iter_mut().enumerate().for_each(|(i, all)| {
        vectorize(Plain(
            #[inline(always)]
            || {
                let pieces = g.pieces(i / g.channels, i % g.channels, step, input);
                let count: usize =
                    pieces.clone().map(|(elements, images)| elements.len() / LANES * images).sum();
                let count = count as f32;
                let mean = sum(pieces.clone(), |x| [x, 0.0])[0] / count.max(1.0);
                let [off, squares] = sum(pieces, |x| [x - mean, (x - mean) * (x - mean)]);
                let off = off / count.max(1.0);
                *all = Moments { count, mean: mean + off, squares: (squares - off * off * count).max(0.0) };
            },
        ));
    });
    all
}

/// Saves what normalises each channel, and updates the running averages; a batch without an image changes nothing.
fn finish(g: &Geometry, args: &mut Args<'_>, all: Vec<Moments>) {
    let saved = args.f32_mut("saved");
    update(g, args, saved, all);
}

/// [`finish`] from the partial moments that were saved.
fn finish_saved(g: &Geometry, args: &mut Args<'_>) {
    let stride = padded(g.channels);
    let saved = args.f32_mut("saved");
    let one = |split: usize, channel: usize| {
        let at = (2 + MOMENTS * split) * stride + channel;
        Moments { count: saved[at], mean: saved[at + stride], squares: saved[at + 2 * stride] }
    };
    let merged = |c| (0..g.splits()).fold(Moments::default(), |all, split| all.merged(one(split, c)));
    let all = (0..g.channels).map(merged).collect();
    update(g, args, saved, all);
}

fn update(g: &Geometry, args: &mut Args<'_>, saved: &mut [f32], all: Vec<Moments>) {
    let (mean, variance) = (args.f32_mut("running_mean"), args.f32_mut("running_variance"));
    for (c, one) in all.into_iter().enumerate() {
        saved[c] = one.mean;
        saved[padded(g.channels) + c] = 1.0 / (one.squares / one.count.max(1.0) + g.epsilon).sqrt();
        if one.count > 0.0 {
            let unbiased = one.squares / (one.count - 1.0).max(1.0);
            mean[c] = (1.0 - g.momentum) * mean[c] + g.momentum * one.mean;
            variance[c] = (1.0 - g.momentum) * variance[c] + g.momentum * unbiased;
        }
    }
}

fn forward(g: &Geometry, args: &mut Args<'_>) {
    let (step, input) = (args.step, args.f32("input"));
    let [weight, bias, mean, spread] = ["weight", "bias", "mean", "spread"].map(|name| args.f32(name));
    g.planes(
        args.f32_mut("output"),
        #[inline(always)]
        |block, c, output| {
            let input = g.plane(input, block, c);
            let (centre, scale) = g.centre_and_scale(mean, spread, c);
            let (factor, start) = (weight[c] * scale, bias[c]);
            for p in 0..g.positions {
                let (x, y) = (lanes(input, p), lanes_mut(output, p));
                for l in 0..LANES {
                    y[l] = (x[l] - centre) * factor + start;
                }
            }
            match g.activation.filter(|activation| activation.by_value()) {
                None => {}
                Some(Activation::Relu) => output.iter_mut().for_each(|y| *y = y.max(0.0)),
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
        match $activation.filter(|activation: &Activation| activation.by_value()) {
            None => {
                let $slope = inlined(
                    #[inline(always)]
                    |grad, _| grad,
                );
                $work
            }
            Some(Activation::Relu) => {
                let $slope = inlined(
                    #[inline(always)]
                    |grad, y| if y > 0.0 { grad } else { 0.0 },
                );
                $work
            }
            Some(activation) => {
                let $slope = inlined(
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
fn inlined<F: Fn(f32, f32) -> f32>(slope: F) -> F {
    slope
}

fn weight_gradient(g: &Geometry, args: &mut Args<'_>) {
    let step = args.step;
    let [input, activated, output_grad] = ["input", "activated", "output_grad"].map(|name| args.f32(name));
    let [mean, spread] = ["mean", "spread"].map(|name| args.f32(name));
    let (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
    let stride = padded(g.channels);
    let mut work = Vec::with_capacity(g.splits() * g.channels);
    let splits = weight_grad.chunks_mut(stride).zip(bias_grad.chunks_mut(stride)).take(g.splits());
    for (split, (weights, biases)) in splits.enumerate() {
        for (c, sums) in weights.iter_mut().zip(biases).take(g.channels).enumerate() {
            work.push((split, c, sums));
        }
    }
    work.into_par_iter().for_each(|(split, c, (weight_grad, bias_grad))| {
        let (centre, scale) = g.centre_and_scale(mean, spread, c);
        let of = |tensor| g.pieces(split, c, step, tensor);
        let pieces = of(input).zip(of(activated)).zip(of(output_grad));
        let mut sums = [0.0; 2];
        vectorize(Plain(
            #[inline(always)]
            || sums = with_slope!(g.activation, slope => weight_sums(pieces, centre, slope)),
        ));
        *weight_grad = sums[0] * scale;
        *bias_grad = sums[1];
    });
}

/// A piece of a channel, and how many images it is of.
type Piece<'a> = (&'a [f32], usize);

/// The sums of g · (input − centre) and of g, lane by lane.
#[inline(always)]
fn weight_sums<'a>(
    pieces: impl Iterator<Item = ((Piece<'a>, Piece<'a>), Piece<'a>)>,
    centre: f32,
    slope: impl Fn(f32, f32) -> f32,
) -> [f32; 2] {
    let mut all = [[0.0; LANES]; 2];
    for (((input, images), (activated, _)), (output_grad, _)) in pieces {
        let mut own = [[0.0; LANES]; 2];
        for p in 0..input.len() / LANES {
            let (x, y, grad) = (lanes(input, p), lanes(activated, p), lanes(output_grad, p));
            for l in 0..LANES {
                let g = slope(grad[l], y[l]);
                own[0][l] += g * (x[l] - centre);
                own[1][l] += g;
            }
        }
        for (all, own) in all.iter_mut().zip(own) {
            all.iter_mut().zip(own).take(images).for_each(|(all, own)| *all += own);
        }
    }
    all.map(|lanes| lanes.iter().sum())
}

fn input_gradient(g: &Geometry, args: &mut Args<'_>) {
    let step = args.step;
    let [input, activated, output_grad] = ["input", "activated", "output_grad"].map(|name| args.f32(name));
    let [weight, saved] = ["weight", "batch_statistics"].map(|name| args.f32(name));
    let (weight_sums, bias_sums) = (args.f32("weight_sums"), args.f32("bias_sums"));
    let stride = padded(g.channels);
    let elements = step.count as f32 * g.positions as f32;
    let mean = |sums: &[f32], c: usize| {
        (0..g.splits()).fold(0.0, |sum, split| sum + sums[split * stride + c]) / elements
    };
    g.planes(
        args.f32_mut("input_grad"),
        #[inline(always)]
        |block, c, input_grad| {
            let [input, activated, output_grad] =
                [input, activated, output_grad].map(|tensor| g.plane(tensor, block, c));
            let (centre, scale) = (saved[c], saved[stride + c]);
            let (of_weight, of_bias) = (mean(weight_sums, c), mean(bias_sums, c));
            let factor = weight[c] * scale;
            with_slope!(g.activation, slope => each(
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
fn each(to: &mut [f32], [a, b, c]: [&[f32]; 3], value: impl Fn(f32, f32, f32) -> f32) {
    for p in 0..to.len() / LANES {
        let (to, a, b, c) = (lanes_mut(to, p), lanes(a, p), lanes(b, p), lanes(c, p));
        for l in 0..LANES {
            to[l] = value(a[l], b[l], c[l]);
        }
    }
}

fn scaled_gradient(g: &Geometry, args: &mut Args<'_>) {
    let step = args.step;
    let [activated, output_grad] = ["activated", "output_grad"].map(|name| args.f32(name));
    let [weight, spread] = ["weight", "spread"].map(|name| args.f32(name));
    g.planes(
        args.f32_mut("input_grad"),
        #[inline(always)]
        |block, c, input_grad| {
            let [activated, output_grad] = [activated, output_grad].map(|tensor| g.plane(tensor, block, c));
            let scale = match g.kind {
                Kind::Running => 1.0 / (spread[c] + g.epsilon).sqrt(),
                _ => 1.0,
            };
            let factor = weight[c] * scale;
            with_slope!(g.activation, slope => each(
                input_grad,
                [activated, activated, output_grad],
                #[inline(always)]
                |_, y, grad| factor * slope(grad, y),
            ));
            clear(input_grad, images(block, step));
        },
    );
}
