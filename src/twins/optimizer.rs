//! `shaders/optimizer.wgsl` on the CPU: what finishes every gradient, updates every parameter and sums the batch's
//! metrics.

use rayon::prelude::*;

use super::loss::sum_into;
use super::simd::{Plain, vectorize};
use crate::kernels::loss::RECORD;
use crate::kernels::optimizer::{GRADIENT_NOT_FINITE, SQUARED, Segment};
use crate::kernels::shaders::optimizer::adam::Buffers;
use crate::kernels::shaders::optimizer::{adam, adamw, momentum, nesterov, rmsprop, sgd, square_sums};
use crate::kernels::{CHUNK, LANES, Step};

/// An update rule, which is known by its entry, with its settings.
#[derive(Clone, Copy)]
enum Rule {
    Sgd,
    Momentum {
        momentum: f32,
    },
    Nesterov {
        momentum: f32,
    },
    Rmsprop {
        momentum: f32,
        alpha: f32,
        epsilon: f32,
    },
    /// With a decay of the weights themselves, AdamW.
    Adam {
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        decay: Option<f32>,
    },
}

/// What the shader's constants say.
#[derive(Clone, Copy)]
struct Shape {
    rule: Rule,
    /// Rows of an image.
    positions: u32,
    /// The gradient's largest norm, if it has one.
    clip: Option<f32>,
    /// The L2 penalty that is added to the gradient.
    decay: f32,
    l1: f32,
}

impl Shape {
    fn new(rule: Rule, positions: usize, clip: f32, decay: f32, l1: f32) -> Shape {
        Shape { rule, positions: positions as u32, clip: (clip > 0.0).then_some(clip), decay, l1 }
    }
}

pub(super) fn square_sums(
    _: square_sums::Constants,
) -> impl Fn(square_sums::Buffers<'_>, Step) + Send + Sync {
    |b, _| sums(b)
}

pub(super) fn sgd(c: sgd::Constants) -> impl Fn(sgd::Buffers<'_>, Step) + Send + Sync {
    let sgd::Constants { positions, clip, l1, weight_decay, .. } = c;
    let o = Shape::new(Rule::Sgd, positions, clip, weight_decay, l1);
    move |b, step| {
        let sgd::Buffers { parameters, gradients, segments, metrics, rows, norms } = b;
        let (moment1, moment2) = (&mut [], &mut []);
        update(&o, step, Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms });
    }
}

pub(super) fn momentum(c: momentum::Constants) -> impl Fn(momentum::Buffers<'_>, Step) + Send + Sync {
    let momentum::Constants { positions, clip, l1, momentum, weight_decay, .. } = c;
    let o = Shape::new(Rule::Momentum { momentum }, positions, clip, weight_decay, l1);
    move |b, step| {
        let momentum::Buffers { parameters, gradients, moment1, segments, metrics, rows, norms } = b;
        let moment2 = &mut [];
        update(&o, step, Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms });
    }
}

pub(super) fn nesterov(c: nesterov::Constants) -> impl Fn(nesterov::Buffers<'_>, Step) + Send + Sync {
    let nesterov::Constants { positions, clip, l1, momentum, weight_decay, .. } = c;
    let o = Shape::new(Rule::Nesterov { momentum }, positions, clip, weight_decay, l1);
    move |b, step| {
        let nesterov::Buffers { parameters, gradients, moment1, segments, metrics, rows, norms } = b;
        let moment2 = &mut [];
        update(&o, step, Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms });
    }
}

pub(super) fn rmsprop(c: rmsprop::Constants) -> impl Fn(rmsprop::Buffers<'_>, Step) + Send + Sync {
    let rmsprop::Constants { positions, clip, l1, momentum, alpha, epsilon, weight_decay, .. } = c;
    let o = Shape::new(Rule::Rmsprop { momentum, alpha, epsilon }, positions, clip, weight_decay, l1);
    move |b, step| {
        let rmsprop::Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms } = b;
        update(&o, step, Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms });
    }
}

pub(super) fn adam(c: adam::Constants) -> impl Fn(adam::Buffers<'_>, Step) + Send + Sync {
    let adam::Constants { positions, clip, l1, beta1, beta2, epsilon, weight_decay, .. } = c;
    let o = Shape::new(Rule::Adam { beta1, beta2, epsilon, decay: None }, positions, clip, weight_decay, l1);
    move |b, step| update(&o, step, b)
}

pub(super) fn adamw(c: adamw::Constants) -> impl Fn(adamw::Buffers<'_>, Step) + Send + Sync {
    let adamw::Constants { positions, clip, l1, beta1, beta2, epsilon, weight_decay, .. } = c;
    let o =
        Shape::new(Rule::Adam { beta1, beta2, epsilon, decay: Some(weight_decay) }, positions, clip, 0.0, l1);
    move |b, step| {
        let adamw::Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms } = b;
        update(&o, step, Buffers { parameters, gradients, moment1, moment2, segments, metrics, rows, norms });
    }
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

/// A part of one tensor.
struct Piece<'a> {
    parameters: &'a mut [f32],
    gradient: Gradient<'a>,
    /// Empty for rules without it.
    moment1: &'a mut [f32],
    moment2: &'a mut [f32],
}

fn sums(b: square_sums::Buffers<'_>) {
    let square_sums::Buffers { gradients, segments, squares } = b;
    let segments: &[Segment] = bytemuck::cast_slice(segments);
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

/// Finishes the gradients, updates the parameters and sums the batch's metrics; rules without a moment have an empty
/// slice in its place.
fn update(o: &Shape, step: Step, b: Buffers<'_>) {
    let segments: &[Segment] = bytemuck::cast_slice(b.segments);
    let squares: f32 = b.norms.iter().sum();
    let scale = o.clip.map_or(1.0, |most| (most / (squares.sqrt() + 1e-6)).min(1.0));
    // What is not finite or overflows anywhere leaves no length to clip to.
    let sound = o.clip.is_none() || squares.is_finite();
    let (mut p, mut m, mut v) = (b.parameters, b.moment1, b.moment2);
    let pieces: Vec<Piece<'_>> = parts(segments, b.gradients)
        .into_iter()
        .map(|mut gradient| {
            let len = gradient.whole.len();
            if o.clip.is_some() {
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
    let record = &mut b.metrics[step.slot as usize * RECORD..][..RECORD];
    sum_into(record, b.rows, step.count * o.positions);
    if bad {
        record[3] |= GRADIENT_NOT_FINITE;
    }
}

impl Piece<'_> {
    /// Finishes the gradients and updates the parameters; says whether a gradient is not finite.
    #[inline(always)]
    fn update(mut self, o: &Shape, scale: f32, step: &Step) -> bool {
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
fn advance(o: &Shape, scale: f32, step: &Step, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let (lr, Shape { decay, l1, .. }) = (step.learning_rate, *o);
    let penalised = |g: f32, p: f32| {
        let sign = if p == 0.0 { 0.0 } else { p.signum() };
        scale * g + decay * p + l1 * sign
    };
    let steps = p.iter_mut().zip(g);
    match o.rule {
        Rule::Sgd => {
            for (p, &g) in steps {
                *p -= lr * penalised(g, *p);
            }
        }
        Rule::Momentum { momentum } => {
            for ((p, &g), m) in steps.zip(m) {
                *m = momentum * *m + penalised(g, *p);
                *p -= lr * *m;
            }
        }
        Rule::Nesterov { momentum } => {
            for ((p, &g), m) in steps.zip(m) {
                let g = penalised(g, *p);
                *m = momentum * *m + g;
                *p -= lr * (g + momentum * *m);
            }
        }
        Rule::Rmsprop { momentum, alpha, epsilon } => {
            for (((p, &g), m), v) in steps.zip(m).zip(v) {
                let g = penalised(g, *p);
                *v = alpha * *v + (1.0 - alpha) * g * g;
                *m = momentum * *m + g / (v.sqrt() + epsilon);
                *p -= lr * *m;
            }
        }
        Rule::Adam { beta1, beta2, epsilon, decay } => {
            let keep = decay.map_or(1.0, |decay| 1.0 - lr * decay);
            for (((p, &g), m), v) in steps.zip(m).zip(v) {
                let g = penalised(g, *p);
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *p = *p * keep - lr * step.correction1 * *m / (v.sqrt() * step.correction2 + epsilon);
            }
        }
    }
}
