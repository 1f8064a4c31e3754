//! `shaders/optimizer.wgsl`: one launch that finishes every gradient, updates every parameter and sums the
//! batch's metrics.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::activation::grid;
use super::loss::{RECORD, sum_into};
use super::{Args, CHUNK, LANES, Launch, Range, WORKGROUP};
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
            ("BLOCKS", (b.rows.len / (2 * LANES)) as f64),
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
        let twin = move |args: &mut Args<'_>| update(&self, args);
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
    /// Loss, and 1 if right, of each image of the batch.
    pub rows: Range,
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

fn update(o: &Optimizer, args: &mut Args<'_>) {
    let step = args.step;
    let segments: &[Segment] = bytemuck::cast_slice(args.u32("segments"));
    let gradients = args.f32_mut("gradients");
    for segment in segments {
        let (first, stride) = (4 * segment.first as usize, 4 * segment.stride as usize);
        for k in 1..segment.partials as usize {
            let (sum, partial) = gradients[first..].split_at_mut(k * stride);
            for (sum, partial) in sum[..CHUNK].iter_mut().zip(&partial[..CHUNK]) {
                *sum += *partial;
            }
        }
    }
    let gradients: &[f32] = gradients;
    let parameters = args.f32_mut("parameters");
    // Rules without a moment bind no buffer for it: an empty chunk stands in.
    let bound = |args: &mut Args<'_>, name: &str| args.slots.iter().any(|(other, _)| *other == name);
    let m = if bound(args, "moment1") { args.f32_mut("moment1") } else { &mut [] };
    let v = if bound(args, "moment2") { args.f32_mut("moment2") } else { &mut [] };
    let mut m: Vec<&mut [f32]> = m.chunks_mut(CHUNK).collect();
    let mut v: Vec<&mut [f32]> = v.chunks_mut(CHUNK).collect();
    m.resize_with(segments.len(), Default::default);
    v.resize_with(segments.len(), Default::default);
    let bad = parameters
        .par_chunks_mut(CHUNK)
        .zip(segments)
        .zip(m.into_par_iter().zip(v))
        .with_min_len(64)
        .map(|((p, segment), (m, v))| {
            let g = &gradients[4 * segment.first as usize..][..CHUNK];
            chunk(o, &step, segment.trainable != 0, p, g, m, v)
        })
        .reduce(|| false, |a, b| a | b);
    let rows = args.f32("rows");
    let record = &mut args.u32_mut("metrics")[step.slot as usize * RECORD..][..RECORD];
    sum_into(record, rows, step.count);
    if bad {
        record[3] |= GRADIENT_NOT_FINITE;
    }
}

/// Updates one chunk; says whether one of its gradients is not finite.
fn chunk(
    o: &Optimizer,
    step: &super::Step,
    trainable: bool,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) -> bool {
    let lr = step.learning_rate;
    let mut bad = false;
    // Four at a time, since the shader leaves four alone when one of them is not finite.
    for i in (0..p.len()).step_by(4) {
        let finite = g[i..i + 4].iter().all(|g| g.is_finite());
        bad |= !finite;
        if !finite || !trainable {
            continue;
        }
        for i in i..i + 4 {
            let decay = if o.rule == Rule::Adamw { 0.0 } else { o.weight_decay };
            let sign = if p[i] == 0.0 { 0.0 } else { p[i].signum() };
            let g = g[i] + decay * p[i] + o.l1 * sign;
            match o.rule {
                Rule::Sgd => p[i] -= lr * g,
                Rule::Momentum => {
                    m[i] = o.momentum * m[i] + g;
                    p[i] -= lr * m[i];
                }
                Rule::Nesterov => {
                    m[i] = o.momentum * m[i] + g;
                    p[i] -= lr * (g + o.momentum * m[i]);
                }
                Rule::Rmsprop => {
                    v[i] = o.alpha * v[i] + (1.0 - o.alpha) * g * g;
                    m[i] = o.momentum * m[i] + g / (v[i].sqrt() + o.epsilon);
                    p[i] -= lr * m[i];
                }
                Rule::Adam | Rule::Adamw => {
                    if o.rule == Rule::Adamw {
                        p[i] *= 1.0 - lr * o.weight_decay;
                    }
                    m[i] = o.beta1 * m[i] + (1.0 - o.beta1) * g;
                    v[i] = o.beta2 * v[i] + (1.0 - o.beta2) * g * g;
                    p[i] -= lr * step.correction1 * m[i] / (v[i].sqrt() * step.correction2 + o.epsilon);
                }
            }
        }
    }
    bad
}
