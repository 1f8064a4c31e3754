//! `shaders/optimizer.wgsl` on the CPU: what finishes every gradient, updates every parameter and sums the batch's
//! metrics.

use std::sync::atomic::{AtomicU32, Ordering};

use super::loss::sum_into;
use super::simd::{Plain, vectorize};
use super::tasks::{self, each, elementwise};
use crate::kernels::loss::RECORD;
use crate::kernels::optimizer::{FROZEN, Fault, Kind, SQUARED, STATUS, Segment, TRAINED};
use crate::kernels::shaders::optimizer::adam::Buffers;
use crate::kernels::shaders::optimizer::{
    adam, adamw, momentum, nesterov, restore, rmsprop, sgd, square_sums,
};
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

/// The buffers of a rule as those of one with all moments; the others are empty.
macro_rules! buffers {
    ($of:ident, $($moment:ident: $values:expr),*) => {
        Buffers {
            parameters: $of.parameters,
            gradients: $of.gradients,
            $($moment: $values,)*
            segments: $of.segments,
            metrics: $of.metrics,
            rows: $of.rows,
            norms: $of.norms,
            before: $of.before,
        }
    };
}

pub(super) fn sgd(c: sgd::Constants) -> impl Fn(sgd::Buffers<'_>, Step) + Send + Sync {
    let sgd::Constants { positions, clip, l1, weight_decay, .. } = c;
    let o = Shape::new(Rule::Sgd, positions, clip, weight_decay, l1);
    move |b, step| update(&o, step, buffers!(b, moment1: &mut [], moment2: &mut []))
}

pub(super) fn momentum(c: momentum::Constants) -> impl Fn(momentum::Buffers<'_>, Step) + Send + Sync {
    let momentum::Constants { positions, clip, l1, momentum, weight_decay, .. } = c;
    let o = Shape::new(Rule::Momentum { momentum }, positions, clip, weight_decay, l1);
    move |b, step| update(&o, step, buffers!(b, moment1: b.moment1, moment2: &mut []))
}

pub(super) fn nesterov(c: nesterov::Constants) -> impl Fn(nesterov::Buffers<'_>, Step) + Send + Sync {
    let nesterov::Constants { positions, clip, l1, momentum, weight_decay, .. } = c;
    let o = Shape::new(Rule::Nesterov { momentum }, positions, clip, weight_decay, l1);
    move |b, step| update(&o, step, buffers!(b, moment1: b.moment1, moment2: &mut []))
}

pub(super) fn rmsprop(c: rmsprop::Constants) -> impl Fn(rmsprop::Buffers<'_>, Step) + Send + Sync {
    let rmsprop::Constants { positions, clip, l1, momentum, alpha, epsilon, weight_decay, .. } = c;
    let o = Shape::new(Rule::Rmsprop { momentum, alpha, epsilon }, positions, clip, weight_decay, l1);
    move |b, step| update(&o, step, buffers!(b, moment1: b.moment1, moment2: b.moment2))
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
    move |b, step| update(&o, step, buffers!(b, moment1: b.moment1, moment2: b.moment2))
}

/// Parameters that a task updates at most.
const GRAIN: usize = 32 * CHUNK;

/// Operations on a parameter, about.
const OPERATIONS: usize = 12;

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
    /// FROZEN, TRAINED, or a running statistic's share as bits.
    share: u32,
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

/// Cuts the gradients into parts of at most [`GRAIN`], in the order of their parameters, so that there is one for every
/// thread.
fn parts<'a>(mut segments: &[Segment], mut gradients: &'a mut [f32]) -> Vec<Gradient<'a>> {
    // Tensors, and their gradients, lie in the order of their segments; a partial sum is as long as its tensor.
    let all = CHUNK * segments.len();
    let grain = (all / tasks::wanted(OPERATIONS * all)).clamp(CHUNK, GRAIN) / CHUNK * CHUNK;
    let (mut parts, mut at) = (Vec::new(), 0);
    while let [segment, ..] = *segments {
        let (first, stride) = (4 * segment.first as usize, 4 * segment.stride as usize);
        take(&mut gradients, first - at);
        let mut sums = take(&mut gradients, stride);
        let others: &[f32] = take(&mut gradients, stride * (segment.partials as usize - 1));
        at = first + stride * segment.partials as usize;
        segments = &segments[stride / CHUNK..];
        for start in (0..stride).step_by(grain) {
            parts.push(Gradient {
                whole: take(&mut sums, grain),
                others: others.get(start..).unwrap_or_default(),
                stride,
                share: segment.share,
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

/// A part of one tensor, with the same part of what is kept of before the step.
struct Piece<'a> {
    /// Where it lies among all chunks.
    chunk: usize,
    gradient: Gradient<'a>,
    parameters: [&'a mut [f32]; 2],
    /// Empty for rules without it.
    moment1: [&'a mut [f32]; 2],
    moment2: [&'a mut [f32]; 2],
}

fn sums(b: square_sums::Buffers<'_>) {
    let square_sums::Buffers { gradients, segments, squares } = b;
    let segments: &[Segment] = bytemuck::cast_slice(segments);
    tasks::run(parts(segments, gradients), |mut part| {
        vectorize(Plain(
            #[inline(always)]
            || part.finish(),
        ));
    });
    let (gradients, groups) = (&*gradients, squares.len());
    let blocks: Vec<&[Segment]> = segments.chunks(SQUARED / CHUNK).collect();
    each(squares, 1, 2 * gradients.len(), |group, sum| {
        vectorize(Plain(
            #[inline(always)]
            || {
                let trained = blocks.iter().skip(group).step_by(groups).copied().flatten();
                sum[0] = trained
                    .filter(|segment| segment.share == TRAINED)
                    .map(|segment| squared(&gradients[4 * segment.first as usize..][..CHUNK]))
                    .sum();
            },
        ));
    });
}

/// Keeps what there is, finishes the gradients, updates the parameters and sums the batch's metrics; rules without a
/// moment have an empty slice in its place.
fn update(o: &Shape, step: Step, b: Buffers<'_>) {
    let (records, status) = b.metrics.split_at_mut(b.metrics.len() - STATUS);
    let record = &mut records[step.slot as usize * RECORD..][..RECORD];
    sum_into(record, b.rows, step.count * o.positions);
    let time = step.time.max(1);
    if status[0] != 0 && status[0] != time {
        record[3] = record[3].max((Kind::Earlier as u32) << 24);
        return;
    }
    let segments: &[Segment] = bytemuck::cast_slice(b.segments);
    let squares: f32 = b.norms.iter().sum();
    let clip = o
        .clip
        .map(|most| Clip { scale: (most / (squares.sqrt() + 1e-6)).min(1.0), finite: squares.is_finite() });
    let (mut p, mut m, mut v) = (b.parameters, b.moment1, b.moment2);
    let (mut old_p, rest) = b.before.split_at_mut(p.len());
    let (mut old_m, mut old_v) = rest.split_at_mut(m.len());
    let mut chunk = 0;
    let pieces: Vec<Piece<'_>> = parts(segments, b.gradients)
        .into_iter()
        .map(|mut gradient| {
            let len = gradient.whole.len();
            if o.clip.is_some() {
                // They have been added up.
                gradient.others = &[];
            }
            chunk += len / CHUNK;
            Piece {
                chunk: chunk - len / CHUNK,
                gradient,
                parameters: [take(&mut p, len), take(&mut old_p, len)],
                moment1: [take(&mut m, len), take(&mut old_m, len)],
                moment2: [take(&mut v, len), take(&mut old_v, len)],
            }
        })
        .collect();
    // The largest, whichever task comes first.
    let worst = AtomicU32::new(0);
    tasks::run(pieces, |piece| {
        let mut flags = 0;
        vectorize(Plain(
            #[inline(always)]
            || flags = piece.update(o, clip, &step),
        ));
        if flags > 0 {
            worst.fetch_max(flags, Ordering::Relaxed);
        }
    });
    record[3] = record[3].max(worst.into_inner());
    if Fault::of(record[3]).is_some() {
        status[0] = time;
    }
}

/// What shortens a gradient.
#[derive(Clone, Copy)]
struct Clip {
    scale: f32,
    /// Whether the squares' sum is.
    finite: bool,
}

#[inline(always)]
fn finite(values: &[f32]) -> bool {
    values.iter().fold(true, |finite, value| finite & value.is_finite())
}

impl Piece<'_> {
    /// Finishes the gradients and updates the parameters; gives the flags of what is not finite.
    #[inline(always)]
    fn update(mut self, o: &Shape, clip: Option<Clip>, step: &Step) -> u32 {
        for [now, before] in [&mut self.parameters, &mut self.moment1, &mut self.moment2] {
            before.copy_from_slice(now);
        }
        self.gradient.finish();
        if !finite(self.gradient.whole) {
            return self.by_fours(o, clip, step);
        }
        if clip.is_some_and(|clip| !clip.finite) && self.gradient.share <= TRAINED {
            return Fault { kind: Kind::Norm, chunk: 0 }.flags();
        }
        let len = self.gradient.whole.len();
        self.advance(0..len, o, clip, step);
        let [p, m, v] = [&self.parameters, &self.moment1, &self.moment2].map(|[now, _]| &**now);
        if finite(p) && finite(m) && finite(v) {
            return 0;
        }
        let found = |kind, values: &[f32]| {
            let chunk = self.chunk + values.chunks(CHUNK).position(|values| !finite(values))?;
            Some(Fault { kind, chunk }.flags())
        };
        let all = [(Kind::Parameter, p), (Kind::Moment, m), (Kind::Moment, v)];
        all.into_iter().filter_map(|(kind, values)| found(kind, values)).max().unwrap_or(0)
    }

    /// The same where a gradient is not finite: the shader leaves four alone when one of them is not.
    fn by_fours(&mut self, o: &Shape, clip: Option<Clip>, step: &Step) -> u32 {
        let mut flags = 0;
        for start in (0..self.gradient.whole.len()).step_by(4) {
            let chunk = self.chunk + start / CHUNK;
            if !finite(&self.gradient.whole[start..start + 4]) {
                flags = flags.max(Fault { kind: Kind::Gradient, chunk }.flags());
            } else if clip.is_none_or(|clip| clip.finite) || self.gradient.share > TRAINED {
                self.advance(start..start + 4, o, clip, step);
            }
        }
        flags
    }

    /// Updates a part by finite gradients.
    #[inline(always)]
    fn advance(&mut self, part: std::ops::Range<usize>, o: &Shape, clip: Option<Clip>, step: &Step) {
        let g = &self.gradient.whole[part.clone()];
        let p = &mut self.parameters[0][part.clone()];
        match self.gradient.share {
            FROZEN => {}
            TRAINED => {
                let m = self.moment1[0].get_mut(part.clone()).unwrap_or_default();
                let v = self.moment2[0].get_mut(part).unwrap_or_default();
                advance(o, clip.map_or(1.0, |clip| clip.scale), step, p, g, m, v);
            }
            share if step.count > 0 => {
                let share = f32::from_bits(share);
                for (p, &g) in p.iter_mut().zip(g) {
                    *p = (1.0 - share) * *p + share * g;
                }
            }
            _ => {}
        }
    }
}

pub(super) fn restore(_: restore::Constants) -> impl Fn(restore::Buffers<'_>, Step) + Send + Sync {
    |b, _| {
        let restore::Buffers { parameters, moment1, moment2, kept } = b;
        let len = parameters.len();
        let all = std::iter::once(parameters).chain([moment1, moment2]);
        for (now, kept) in all.zip(kept.chunks(len)) {
            elementwise(now, 1, |start, now| now.copy_from_slice(&kept[start..][..now.len()]));
        }
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
