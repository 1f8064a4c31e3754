//! `shaders/optimizer.wgsl`: one launch that finishes every gradient, updates every parameter and sums the
//! batch's metrics.

use serde::{Deserialize, Serialize};

use super::shaders::optimizer as shader;
use super::{Launch, Range, WORKGROUP, elementwise};
use crate::error::{Error, Result};

/// What was not finite in a step; a later one of these is the cause of the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A parameter after the update.
    Parameter = 1,
    /// A moment of the optimizer.
    Moment,
    /// The gradient's norm, to which it was to be clipped.
    Norm,
    /// A gradient, or what a running statistic takes in.
    Gradient,
    /// The loss.
    Loss,
    /// Nothing of this step: an earlier one failed, and this one changed nothing.
    Earlier,
}

/// What a record's flags say of a step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What was not finite.
    pub kind: Kind,
    /// The first [`CHUNK`](super::CHUNK) of parameters where it was so; 0 of kinds that no tensor has.
    pub chunk: usize,
}

impl Fault {
    /// The flags of a record, of which the largest stays.
    pub fn flags(self) -> u32 {
        (self.kind as u32) << 24 | (0xff_ffff - self.chunk as u32)
    }

    /// What flags say; nothing where they are 0.
    pub fn of(flags: u32) -> Option<Fault> {
        use Kind::{Earlier, Gradient, Loss, Moment, Norm, Parameter};
        let kinds = [Parameter, Moment, Norm, Gradient, Loss, Earlier];
        let kind = *kinds.get((flags >> 24).checked_sub(1)? as usize)?;
        // A flag whose place was never set is of no tensor.
        let chunk = if matches!(kind, Earlier) { 0 } else { 0xff_ffff - (flags & 0xff_ffff) as usize };
        Some(Fault { kind, chunk })
    }
}

/// Words behind the metrics ring: the number of the step that failed, and three that nobody uses.
pub const STATUS: usize = 4;

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

    /// Floating-point operations of an update of one parameter.
    fn flop(self) -> u64 {
        match self {
            Rule::Sgd => 2,
            Rule::Momentum => 4,
            Rule::Nesterov => 6,
            Rule::Rmsprop => 9,
            Rule::Adam => 12,
            Rule::Adamw => 14,
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
    /// [`Error::Settings`] when no gradient can have that norm, and those of [`Launch`].
    pub fn launch(self, b: Buffers, clip: Option<f32>) -> Result<Launch> {
        check_clip(clip)?;
        let vectors = b.parameters.len / 4;
        // One workgroup more, for the metrics.
        let (grid, row) = elementwise(vectors + WORKGROUP);
        let constants = shader::Constants {
            rows: b.rows.len / 2,
            positions: b.positions,
            vectors,
            row,
            momentum: self.momentum,
            alpha: self.alpha,
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            l1: self.l1,
            clip: clip.unwrap_or(0.0),
            norms: sums(b.parameters.len) / 4,
            moments: self.rule.moments(),
        };
        let moments = self.rule.moments();
        let read = if clip.is_some() { b.parameters.len } else { b.gradients.len };
        let bytes = 4 * (b.parameters.len * (4 + 3 * moments) + read + b.segments.len + b.rows.len) as u64;
        let flop = self.rule.flop() * b.parameters.len as u64;
        let Buffers {
            parameters, gradients, moment1, moment2, segments, metrics, rows, norms, before, ..
        } = b;
        macro_rules! launch {
            ($entry:ident $(, $moment:ident)*) => {{
                let bindings = shader::$entry::Bindings {
                    parameters, gradients, $($moment,)* segments, metrics, rows, norms, before
                };
                shader::$entry::launch(constants, bindings, grid, flop)
            }};
        }
        let launch = match self.rule {
            Rule::Sgd => launch!(sgd),
            Rule::Momentum => launch!(momentum, moment1),
            Rule::Nesterov => launch!(nesterov, moment1),
            Rule::Rmsprop => launch!(rmsprop, moment1, moment2),
            Rule::Adam => launch!(adam, moment1, moment2),
            Rule::Adamw => launch!(adamw, moment1, moment2),
        };
        Ok(launch?.with_bytes(bytes))
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
    /// All parameters, tensors at multiples of [`CHUNK`](super::CHUNK).
    pub parameters: Range,
    /// All gradients, each as its partial sums; the first becomes the gradient. A running statistic's is the batch's.
    pub gradients: Range,
    /// Laid out like the parameters; four floats or more where the rule has none.
    pub moment1: Range,
    /// Laid out like the parameters; four floats or more where the rule has none.
    pub moment2: Range,
    /// A [`Segment`] for each chunk of parameters.
    pub segments: Range,
    /// The metrics ring, and [`STATUS`] words.
    pub metrics: Range,
    /// Loss, and 1 if right, of each of the batch's rows.
    pub rows: Range,
    /// Rows of an image: the loss's positions.
    pub positions: usize,
    /// As many sums of squares as [`sums`] says; without clipping nobody looks at them.
    pub norms: Range,
    /// Parameters and moments as they were before the last step that changed them.
    pub before: Range,
}

/// Parameters that a workgroup of `square_sums` takes at a time.
pub(crate) const SQUARED: usize = 4 * WORKGROUP;

/// How many sums the squares of so many gradients are added up to: a multiple of 4, at most 256.
pub fn sums(parameters: usize) -> usize {
    // Four vectors of four an invocation, where that leaves few enough for each invocation of a rule to add up.
    parameters.div_ceil(4 * SQUARED).next_multiple_of(4).clamp(4, 256)
}

impl Buffers {
    /// Finishes the gradients before they are clipped, and sums the squares of those that are trained.
    pub fn square_sums(self) -> Result<Launch> {
        let groups = sums(self.parameters.len);
        let constants =
            shader::square_sums::Constants { vectors: self.parameters.len / 4, row: groups * WORKGROUP };
        let Buffers { gradients, segments, norms: squares, .. } = self;
        let bindings = shader::square_sums::Bindings { gradients, segments, squares };
        let flop = 2 * self.parameters.len as u64;
        let bytes = 4 * (self.gradients.len + self.parameters.len + self.segments.len + groups) as u64;
        let launch = shader::square_sums::launch(constants, bindings, [groups, 1, 1], flop)?;
        Ok(launch.with_bytes(bytes))
    }

    /// Puts back what the last step that changed anything found; of a rule with so many moments.
    pub fn restore(self, moments: usize) -> Result<Launch> {
        let vectors = self.parameters.len / 4;
        let (grid, row) = elementwise(vectors);
        let constants = shader::restore::Constants { vectors, row, moments };
        let Buffers { parameters, moment1, moment2, before: kept, .. } = self;
        let bindings = shader::restore::Bindings { parameters, moment1, moment2, kept };
        shader::restore::launch(constants, bindings, grid, 0)
    }
}

/// Where the gradient of [`CHUNK`](super::CHUNK) parameters lies, in vectors of four floats.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Segment {
    /// The first partial sum.
    pub first: u32,
    /// From a partial sum to the next.
    pub stride: u32,
    /// Partial sums.
    pub partials: u32,
    /// [`FROZEN`], [`TRAINED`], or the share of a batch in a running statistic as bits.
    pub share: u32,
}

/// The last word of a [`Segment`] whose parameters nothing changes.
pub const FROZEN: u32 = 0;
/// The last word of a [`Segment`] whose parameters are trained.
pub const TRAINED: u32 = 1;
