//! `shaders/optimizer.wgsl`: one launch that finishes every gradient, updates every parameter and sums the
//! batch's metrics.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::activation::grid;
use super::loss::{RECORD, sum_into};
use super::simd::{Plain, vectorize};
use super::{Args, CHUNK, Launch, Range, Step, WORKGROUP};
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
    /// L2 penalty, added to the gradient; with `adamw` a decay of the weights themselves.
    pub weight_decay: f32,
    /// L1 penalty, added to the gradient as `l1 · sign p`.
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

    /// Finishes the gradients, updates the parameters and sums the batch's metrics.
    pub fn launch(self, b: Buffers) -> Result<Launch> {
        let vectors = b.parameters.len / 4;
        // One workgroup more, for the metrics.
        let (grid, row) = grid(vectors + WORKGROUP);
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
        ];
        let bindings = [
            ("parameters", b.parameters),
            ("gradients", b.gradients),
            ("moment1", b.moment1),
            ("moment2", b.moment2),
            ("segments", b.segments),
            ("metrics", b.metrics),
            ("rows", b.rows),
        ];
        let moments = match self.rule {
            Rule::Sgd => 0,
            Rule::Momentum | Rule::Nesterov => 1,
            Rule::Rmsprop | Rule::Adam | Rule::Adamw => 2,
        };
        let bytes =
            4 * (b.parameters.len * (3 + 2 * moments) + b.gradients.len + b.segments.len + b.rows.len) as u64;
        let twin = move |args: &mut Args<'_>| update(&self, b.positions, args);
        let flop = [2, 4, 6, 9, 12, 14][self.rule as usize] * b.parameters.len as u64;
        let launch =
            Launch::new(("optimizer", self.rule.name()), &constants, grid, &bindings, flop, Arc::new(twin))?;
        Ok(launch.with_bytes(bytes))
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

/// A part of one tensor.
struct Piece<'a> {
    parameters: &'a mut [f32],
    /// The first partial sum, which becomes the gradient.
    gradients: &'a mut [f32],
    /// What lies behind it, up to the end of the tensor's partial sums: the others lie `stride` apart in it.
    others: &'a [f32],
    stride: usize,
    /// Empty for rules without it.
    moment1: &'a mut [f32],
    moment2: &'a mut [f32],
    trainable: bool,
}

fn update(o: &Optimizer, positions: usize, args: &mut Args<'_>) {
    let step = args.step;
    let mut segments: &[Segment] = bytemuck::cast_slice(args.u32("segments"));
    // Rules without a moment bind no buffer for it: an empty slice stands in.
    let bound = |args: &mut Args<'_>, name: &str| args.slots.iter().any(|(other, _)| *other == name);
    let mut m = if bound(args, "moment1") { args.f32_mut("moment1") } else { &mut [] };
    let mut v = if bound(args, "moment2") { args.f32_mut("moment2") } else { &mut [] };
    let (mut p, mut g, mut at) = (args.f32_mut("parameters"), args.f32_mut("gradients"), 0);
    fn take<'a>(from: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
        let len = len.min(from.len());
        let (taken, rest) = std::mem::take(from).split_at_mut(len);
        *from = rest;
        taken
    }
    // Tensors, and their gradients, lie in the order of their segments; a partial sum is as long as its tensor.
    let mut pieces = Vec::new();
    while let [segment, ..] = *segments {
        let (first, stride) = (4 * segment.first as usize, 4 * segment.stride as usize);
        take(&mut g, first - at);
        let mut sums = take(&mut g, stride);
        let others: &[f32] = take(&mut g, stride * (segment.partials as usize - 1));
        at = first + stride * segment.partials as usize;
        segments = &segments[stride / CHUNK..];
        for start in (0..stride).step_by(GRAIN) {
            let len = GRAIN.min(stride - start);
            pieces.push(Piece {
                parameters: take(&mut p, len),
                gradients: take(&mut sums, len),
                others: others.get(start..).unwrap_or_default(),
                stride,
                moment1: take(&mut m, len),
                moment2: take(&mut v, len),
                trainable: segment.trainable != 0,
            });
        }
    }
    let bad = pieces
        .into_par_iter()
        .map(|piece| {
            let mut bad = false;
            vectorize(Plain(
                #[inline(always)]
                || bad = piece.update(o, &step),
            ));
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
    fn update(self, o: &Optimizer, step: &Step) -> bool {
        let len = self.gradients.len();
        for others in self.others.chunks(self.stride) {
            for (sum, partial) in self.gradients.iter_mut().zip(&others[..len]) {
                *sum += *partial;
            }
        }
        let finite = |g: &[f32]| g.iter().fold(true, |finite, g| finite & g.is_finite());
        let (p, g, m, v) = (self.parameters, &*self.gradients, self.moment1, self.moment2);
        if finite(g) {
            if self.trainable {
                advance(o, step, p, g, m, v);
            }
            return false;
        }
        // The shader leaves four alone when one of them is not finite.
        for i in (0..len).step_by(4).filter(|&i| self.trainable && finite(&g[i..i + 4])) {
            let m = m.get_mut(i..i + 4).unwrap_or_default();
            let v = v.get_mut(i..i + 4).unwrap_or_default();
            advance(o, step, &mut p[i..i + 4], &g[i..i + 4], m, v);
        }
        true
    }
}

/// Updates parameters by finite gradients.
#[inline(always)]
fn advance(o: &Optimizer, step: &Step, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let lr = step.learning_rate;
    let decay = if o.rule == Rule::Adamw { 0.0 } else { o.weight_decay };
    let penalised = |g: f32, p: f32| {
        let sign = if p == 0.0 { 0.0 } else { p.signum() };
        g + decay * p + o.l1 * sign
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
