//! `shaders/optimizer.wgsl`: one launch that finishes every gradient, updates every parameter and sums the
//! batch's metrics.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::loss::{RECORD, sum_into};
use super::simd::{Plain, vectorize};
use super::{Args, CHUNK, LANES, Launch, Range, Step, WORKGROUP, elementwise};
use crate::error::{Error, Result};

/// Set in a record's flags when a gradient is not finite.
pub const GRADIENT_NOT_FINITE: u32 = 2;

/// Which update rule; PyTorch's definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd,
    /// With momentum.
    Momentum,
    /// With Nesterov's momentum.
    Nesterov,
    /// RMSprop (Hinton 2012), with momentum if that is not 0.
    Rmsprop,
    /// Adam (Kingma and Ba 2015).
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 6] =
        [Rule::Sgd, Rule::Momentum, Rule::Nesterov, Rule::Rmsprop, Rule::Adam, Rule::Adamw];

    /// The rule's name, which is its shader's entry point and what `--optimizer` takes.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Sgd => "sgd",
            Rule::Momentum => "momentum",
            Rule::Nesterov => "nesterov",
            Rule::Rmsprop => "rmsprop",
            Rule::Adam => "adam",
            Rule::Adamw => "adamw",
        }
    }

    /// Moments that it keeps of each parameter: none, the first, or both.
    pub fn moments(self) -> usize {
        match self {
            Rule::Sgd => 0,
            Rule::Momentum | Rule::Nesterov => 1,
            Rule::Rmsprop | Rule::Adam | Rule::Adamw => 2,
        }
    }
}

/// An update rule with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// Momentum of `momentum`, `nesterov` and `rmsprop`.
    pub momentum: f32,
    /// How much of its mean square RMSprop keeps.
    pub alpha: f32,
    /// How much of its mean Adam keeps.
    pub beta1: f32,
    /// How much of its mean square Adam keeps.
    pub beta2: f32,
    /// Added to the root of a mean square.
    pub epsilon: f32,
    /// L2 penalty, added to the gradient; with `adamw` a decay of the weights themselves. Frozen parameters have
    /// none.
    pub weight_decay: f32,
    /// L1 penalty, added to the gradient as `l1 · sign p`. Frozen parameters have none.
    pub l1: f32,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer::new(Rule::Adam)
    }
}

impl Optimizer {
    /// The rule with PyTorch's defaults (momentum 0.9 where the rule is named after it).
    pub fn new(rule: Rule) -> Optimizer {
        Optimizer {
            rule,
            momentum: if matches!(rule, Rule::Momentum | Rule::Nesterov) { 0.9 } else { 0.0 },
            alpha: 0.99,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: if rule == Rule::Adamw { 0.01 } else { 0.0 },
            l1: 0.0,
        }
    }

    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Settings`] with the setting's name.
    pub fn check(&self) -> Result<()> {
        let share = |name: &str, value: f32| {
            if (0.0..1.0).contains(&value) {
                Ok(())
            } else {
                Err(Error::Settings(format!("{name} is {value}, expected 0 ≤ {name} < 1")))
            }
        };
        let amount = |name: &str, value: f32| {
            if value >= 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(Error::Settings(format!("{name} is {value}, expected 0 or more")))
            }
        };
        share("momentum", self.momentum)?;
        share("alpha", self.alpha)?;
        share("beta1", self.beta1)?;
        share("beta2", self.beta2)?;
        amount("epsilon", self.epsilon)?;
        amount("weight-decay", self.weight_decay)?;
        amount("l1", self.l1)
    }

    /// Adam's corrections for step `time` (counted from 1): `1/(1 − β₁ᵗ)` and `1/√(1 − β₂ᵗ)`.
    pub fn corrections(&self, time: u64) -> (f32, f32) {
        let keep = |beta: f32| 1.0 - f64::from(beta).powf(time as f64);
        ((1.0 / keep(self.beta1)) as f32, (1.0 / keep(self.beta2).sqrt()) as f32)
    }

    /// Finishes the gradients, updates the parameters and sums the batch's metrics. With `clip`, after
    /// [`Buffers::square_sums`], the gradient is first shortened to that norm.
    ///
    /// # Errors
    /// [`Error::Settings`] when no gradient can have that norm, and those of [`Launch::new`].
    pub fn launch(self, b: Buffers, clip: Option<f32>) -> Result<Launch> {
        check_clip(clip)?;
        let vectors = b.parameters.len / 4;
        // One workgroup more, for the metrics.
        let (grid, row) = elementwise(vectors + WORKGROUP);
        let constants = [
            ("ROWS", (b.rows.len / 2) as f64),
            ("POSITIONS", b.positions as f64),
            ("VECTORS", vectors as f64),
            ("ROW", row as f64),
            ("MOMENTUM", f64::from(self.momentum)),
            ("ALPHA", f64::from(self.alpha)),
            ("BETA1", f64::from(self.beta1)),
            ("BETA2", f64::from(self.beta2)),
            ("EPSILON", f64::from(self.epsilon)),
            ("WEIGHT_DECAY", f64::from(self.weight_decay)),
            ("L1", f64::from(self.l1)),
            ("CLIP", clip.map_or(0.0, f64::from)),
            ("NORMS", (sums(b.parameters.len) / 4) as f64),
        ];
        let bindings = [
            ("norms", b.norms),
            ("parameters", b.parameters),
            ("gradients", b.gradients),
            ("moment1", b.moment1),
            ("moment2", b.moment2),
            ("segments", b.segments),
            ("metrics", b.metrics),
            ("rows", b.rows),
        ];
        let moments = self.rule.moments();
        let gradients = if clip.is_some() { b.parameters.len } else { b.gradients.len };
        let bytes =
            4 * (b.parameters.len * (3 + 2 * moments) + gradients + b.segments.len + b.rows.len) as u64;
        let twin = move |args: &mut Args<'_>| update(&self, b.positions, clip, args);
        let flop = [2, 4, 6, 9, 12, 14][self.rule as usize] * b.parameters.len as u64;
        let launch =
            Launch::old(("optimizer", self.rule.name()), &constants, grid, &bindings, flop, Arc::new(twin))?;
        Ok(launch.with_bytes(bytes))
    }
}

/// Checks the norm to clip to.
///
/// # Errors
/// [`Error::Settings`] unless it is more than 0.
pub fn check_clip(clip: Option<f32>) -> Result<()> {
    match clip {
        Some(norm) if !(norm > 0.0 && norm.is_finite()) => {
            Err(Error::Settings(format!("clip is {norm}, expected more than 0")))
        }
        _ => Ok(()),
    }
}

/// The buffers of the optimizer's launch.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// All parameters, tensors at multiples of [`CHUNK`].
    pub parameters: Range,
    /// All gradients, each as its partial sums; the first becomes the gradient.
    pub gradients: Range,
    /// Laid out like the parameters.
    pub moment1: Range,
    /// Laid out like the parameters.
    pub moment2: Range,
    /// A [`Segment`] for each chunk of parameters.
    pub segments: Range,
    /// The metrics ring.
    pub metrics: Range,
    /// Loss, and 1 if right, of each of the batch's rows.
    pub rows: Range,
    /// Rows of an image: the loss's positions.
    pub positions: usize,
    /// As many sums of squares as [`sums`] says; without clipping nobody looks at them.
    pub norms: Range,
}

/// Parameters that a workgroup of `square_sums` takes at a time.
const SQUARED: usize = 4 * WORKGROUP;

/// How many sums the squares of so many gradients are added up to: a multiple of 4, at most 256.
pub fn sums(parameters: usize) -> usize {
    // Four vectors of four an invocation, where that leaves few enough for each invocation of a rule to add up.
    parameters.div_ceil(4 * SQUARED).next_multiple_of(4).clamp(4, 256)
}

impl Buffers {
    /// Finishes the gradients before they are clipped, and sums the squares of those that are trained.
    pub fn square_sums(self) -> Result<Launch> {
        let groups = sums(self.parameters.len);
        let constants = [("VECTORS", (self.parameters.len / 4) as f64), ("ROW", (groups * WORKGROUP) as f64)];
        let bindings = [("gradients", self.gradients), ("segments", self.segments), ("squares", self.norms)];
        let flop = 2 * self.parameters.len as u64;
        let bytes = 4 * (self.gradients.len + self.parameters.len + self.segments.len + groups) as u64;
        let launch = Launch::old(
            ("optimizer", "square_sums"),
            &constants,
            [groups, 1, 1],
            &bindings,
            flop,
            Arc::new(square_sums),
        )?;
        Ok(launch.with_bytes(bytes))
    }
}

/// Where the gradient of [`CHUNK`] parameters lies, in vectors of four floats.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Segment {
    /// The first partial sum.
    pub first: u32,
    /// From a partial sum to the next.
    pub stride: u32,
    /// Partial sums.
    pub partials: u32,
    /// 0 where the parameters are frozen.
    pub trainable: u32,
}

/// Parameters that a thread updates at once.
const GRAIN: usize = 32 * CHUNK;

/// Takes the first `len` values off a slice, or what is left.
fn take<'a>(from: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let len = len.min(from.len());
    let (taken, rest) = std::mem::take(from).split_at_mut(len);
    *from = rest;
    taken
}

/// The gradient of a part of one tensor.
struct Gradient<'a> {
    /// The first partial sum, which becomes the gradient.
    whole: &'a mut [f32],
    /// What lies behind it, up to the end of the tensor's partial sums: the others lie `stride` apart in it.
    others: &'a [f32],
    stride: usize,
    trainable: bool,
}

impl Gradient<'_> {
    /// Adds the partial sums up.
    #[inline(always)]
    fn finish(&mut self) {
        let len = self.whole.len();
        for others in self.others.chunks(self.stride) {
            for (sum, partial) in self.whole.iter_mut().zip(&others[..len]) {
                *sum += *partial;
            }
        }
    }
}

/// Cuts the gradients into parts of at most [`GRAIN`], in the order of their parameters.
fn parts<'a>(mut segments: &[Segment], mut gradients: &'a mut [f32]) -> Vec<Gradient<'a>> {
    // Tensors, and their gradients, lie in the order of their segments; a partial sum is as long as its tensor.
    let (mut parts, mut at) = (Vec::new(), 0);
    while let [segment, ..] = *segments {
        let (first, stride) = (4 * segment.first as usize, 4 * segment.stride as usize);
        take(&mut gradients, first - at);
        let mut sums = take(&mut gradients, stride);
        let others: &[f32] = take(&mut gradients, stride * (segment.partials as usize - 1));
        at = first + stride * segment.partials as usize;
        segments = &segments[stride / CHUNK..];
        for start in (0..stride).step_by(GRAIN) {
            parts.push(Gradient {
                whole: take(&mut sums, GRAIN),
                others: others.get(start..).unwrap_or_default(),
                stride,
                trainable: segment.trainable != 0,
            });
        }
    }
    parts
}

/// The sum of the squares: sixteen sums side by side, then those.
#[inline(always)]
fn squared(values: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for values in values.as_chunks::<LANES>().0 {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value * value;
        }
    }
    sums.iter().sum()
}

fn square_sums(args: &mut Args<'_>) {
    let segments: &[Segment] = bytemuck::cast_slice(args.u32("segments"));
    let (gradients, squares) = (args.f32_mut("gradients"), args.f32_mut("squares"));
    parts(segments, gradients).into_par_iter().for_each(|mut part| {
        vectorize(Plain(
            #[inline(always)]
            || part.finish(),
        ));
    });
    let (gradients, groups) = (&*gradients, squares.len());
    let blocks: Vec<&[Segment]> = segments.chunks(SQUARED / CHUNK).collect();
    squares.par_iter_mut().enumerate().for_each(|(group, sum)| {
        vectorize(Plain(
            #[inline(always)]
            || {
                let trained = blocks.iter().skip(group).step_by(groups).copied().flatten();
                *sum = trained
                    .filter(|segment| segment.trainable != 0)
                    .map(|segment| squared(&gradients[4 * segment.first as usize..][..CHUNK]))
                    .sum();
            },
        ));
    });
}

/// A part of one tensor.
struct Piece<'a> {
    parameters: &'a mut [f32],
    gradient: Gradient<'a>,
    /// Empty for rules without it.
    moment1: &'a mut [f32],
    moment2: &'a mut [f32],
}

fn update(o: &Optimizer, positions: usize, clip: Option<f32>, args: &mut Args<'_>) {
    let step = args.step;
    let segments: &[Segment] = bytemuck::cast_slice(args.u32("segments"));
    let squares: f32 = args.f32("norms").iter().sum();
    let scale = clip.map_or(1.0, |most| (most / (squares.sqrt() + 1e-6)).min(1.0));
    // What is not finite or overflows anywhere leaves no length to clip to.
    let sound = clip.is_none() || squares.is_finite();
    // Rules without a moment bind no buffer for it: an empty slice stands in.
    let bound = |args: &mut Args<'_>, name: &str| args.slots.iter().any(|(other, _)| *other == name);
    let mut m = if bound(args, "moment1") { args.f32_mut("moment1") } else { &mut [] };
    let mut v = if bound(args, "moment2") { args.f32_mut("moment2") } else { &mut [] };
    let mut p = args.f32_mut("parameters");
    let pieces: Vec<Piece<'_>> = parts(segments, args.f32_mut("gradients"))
        .into_iter()
        .map(|mut gradient| {
            let len = gradient.whole.len();
            if clip.is_some() {
                // They have been added up.
                gradient.others = &[];
            }
            Piece {
                parameters: take(&mut p, len),
                gradient,
                moment1: take(&mut m, len),
                moment2: take(&mut v, len),
            }
        })
        .collect();
    let bad = pieces
        .into_par_iter()
        .map(|piece| {
            let mut bad = !sound;
            if sound {
                vectorize(Plain(
                    #[inline(always)]
                    || bad = piece.update(o, scale, &step),
                ));
            }
            bad
        })
        .reduce(|| false, |a, b| a | b);
    let rows = args.f32("rows");
    let record = &mut args.u32_mut("metrics")[step.slot as usize * RECORD..][..RECORD];
    sum_into(record, rows, step.count * positions as u32);
    if bad {
        record[3] |= GRADIENT_NOT_FINITE;
    }
}

impl Piece<'_> {
    /// Finishes the gradients and updates the parameters; says whether a gradient is not finite.
    #[inline(always)]
    fn update(mut self, o: &Optimizer, scale: f32, step: &Step) -> bool {
        self.gradient.finish();
        let finite = |g: &[f32]| g.iter().fold(true, |finite, g| finite & g.is_finite());
        let Gradient { whole: g, trainable, .. } = self.gradient;
        let (p, g, m, v) = (self.parameters, &*g, self.moment1, self.moment2);
        if finite(g) {
            if trainable {
                advance(o, scale, step, p, g, m, v);
            }
            return false;
        }
        // The shader leaves four alone when one of them is not finite.
        for i in (0..g.len()).step_by(4).filter(|&i| trainable && finite(&g[i..i + 4])) {
            let m = m.get_mut(i..i + 4).unwrap_or_default();
            let v = v.get_mut(i..i + 4).unwrap_or_default();
            advance(o, scale, step, &mut p[i..i + 4], &g[i..i + 4], m, v);
        }
        true
    }
}

/// Updates parameters by finite gradients, each of which is first multiplied by `scale`.
#[inline(always)]
fn advance(o: &Optimizer, scale: f32, step: &Step, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let lr = step.learning_rate;
    let decay = if o.rule == Rule::Adamw { 0.0 } else { o.weight_decay };
    let penalised = |g: f32, p: f32| {
        let sign = if p == 0.0 { 0.0 } else { p.signum() };
        scale * g + decay * p + o.l1 * sign
    };
    let steps = p.iter_mut().zip(g);
    match o.rule {
        Rule::Sgd => {
            for (p, &g) in steps {
                *p -= lr * penalised(g, *p);
            }
        }
        Rule::Momentum => {
            for ((p, &g), m) in steps.zip(m) {
                *m = o.momentum * *m + penalised(g, *p);
                *p -= lr * *m;
            }
        }
        Rule::Nesterov => {
            for ((p, &g), m) in steps.zip(m) {
                let g = penalised(g, *p);
                *m = o.momentum * *m + g;
                *p -= lr * (g + o.momentum * *m);
            }
        }
        Rule::Rmsprop => {
            for (((p, &g), m), v) in steps.zip(m).zip(v) {
                let g = penalised(g, *p);
                *v = o.alpha * *v + (1.0 - o.alpha) * g * g;
                *m = o.momentum * *m + g / (v.sqrt() + o.epsilon);
                *p -= lr * *m;
            }
        }
        Rule::Adam | Rule::Adamw => {
            let keep = if o.rule == Rule::Adamw { 1.0 - lr * o.weight_decay } else { 1.0 };
            for (((p, &g), m), v) in steps.zip(m).zip(v) {
                let g = penalised(g, *p);
                *m = o.beta1 * *m + (1.0 - o.beta1) * g;
                *v = o.beta2 * *v + (1.0 - o.beta2) * g * g;
                *p = *p * keep - lr * step.correction1 * *m / (v.sqrt() * step.correction2 + o.epsilon);
            }
        }
    }
}
