//! `shaders/squared_error.wgsl` on the CPU: the mean squared error of outputs and one-hot labels, and its gradient.

use rayon::prelude::*;

use crate::kernels::loss::RECORD;
use crate::kernels::shaders::squared_error::{shares, squared_error, squared_error_gradient};
use crate::kernels::{LANES, Step};

/// What the constants of the launches with labels say.
#[derive(Clone, Copy)]
struct Shape {
    classes: usize,
    positions: usize,
    smoothing: f32,
}

pub(super) fn squared_error_gradient(
    c: squared_error_gradient::Constants,
) -> impl Fn(squared_error_gradient::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { classes: c.classes, positions: c.positions, smoothing: c.smoothing };
    move |b, step| {
        let squared_error_gradient::Buffers { logits, labels, order, logits_grad, rows, metrics } = b;
        // The launches after this one only add flags.
        metrics[step.slot as usize * RECORD + 3] = 0;
        let labels = Labels::new(&g, labels, order, step);
        let share = 2.0 / g.classes as f32 / (step.count as usize * g.positions) as f32;
        let block = g.classes * g.positions * LANES;
        let work = logits.par_chunks(block).zip(logits_grad.par_chunks_mut(block));
        rows.par_chunks_mut(2 * g.positions * LANES).zip(work).enumerate().for_each(
            |(block, (rows, (logits, gradients)))| {
                judge(&g, &labels, block, logits, rows);
                for at in 0..g.positions * LANES {
                    let label = labels.of(block, at);
                    for k in 0..g.classes {
                        let place = k * g.positions * LANES + at;
                        gradients[place] =
                            label.map_or(0.0, |label| g.error(logits[place], label, k) * share);
                    }
                }
            },
        );
    }
}

pub(super) fn squared_error(
    c: squared_error::Constants,
) -> impl Fn(squared_error::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { classes: c.classes, positions: c.positions, smoothing: c.smoothing };
    move |b, step| {
        let squared_error::Buffers { logits, labels, order, rows } = b;
        let labels = Labels::new(&g, labels, order, step);
        let logits = logits.par_chunks(g.classes * g.positions * LANES);
        let work = rows.par_chunks_mut(2 * g.positions * LANES).zip(logits).enumerate();
        work.for_each(|(block, (rows, logits))| judge(&g, &labels, block, logits, rows));
    }
}

pub(super) fn shares(c: shares::Constants) -> impl Fn(shares::Buffers<'_>, Step) + Send + Sync {
    let shares::Constants { classes, positions, .. } = c;
    move |b, _| {
        let (block, stride) = (classes * positions * LANES, positions * LANES);
        let work = b.probabilities.par_chunks_mut(block).zip(b.logits.par_chunks(block));
        work.for_each(|(probabilities, logits)| {
            for at in 0..stride {
                let best = verdict(classes, stride, &logits[at..]);
                let sum: f32 = (0..classes).map(|k| logits[k * stride + at].max(0.0)).sum();
                for k in 0..classes {
                    let own = logits[k * stride + at].max(0.0);
                    probabilities[k * stride + at] =
                        if sum > 0.0 { own / sum } else { f32::from(u8::from(k == best)) };
                }
            }
        });
    }
}

impl Shape {
    /// How far output `k` is from what it should be.
    fn error(&self, output: f32, label: usize, k: usize) -> f32 {
        let own = if k == label { 1.0 - self.smoothing } else { 0.0 };
        output - (own + self.smoothing / self.classes as f32)
    }
}

/// The first class of the largest of outputs that lie `stride` apart.
fn verdict(classes: usize, stride: usize, outputs: &[f32]) -> usize {
    (1..classes).fold(0, |best, k| if outputs[k * stride] > outputs[best * stride] { k } else { best })
}

/// Loss and verdict of each row of a block.
fn judge(g: &Shape, labels: &Labels<'_>, block: usize, outputs: &[f32], rows: &mut [f32]) {
    let stride = g.positions * LANES;
    for (at, row) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *row = labels.of(block, at).map_or([0.0; 2], |label| {
            let outputs = &outputs[at..];
            let squares = (0..g.classes).map(|k| g.error(outputs[k * stride], label, k).powi(2));
            let right = verdict(g.classes, stride, outputs) == label;
            [squares.sum::<f32>() / g.classes as f32, f32::from(u8::from(right))]
        });
    }
}

/// The labels of a step's rows.
struct Labels<'a> {
    positions: usize,
    bytes: &'a [u8],
    order: &'a [u32],
    count: usize,
}

impl<'a> Labels<'a> {
    fn new(g: &Shape, labels: &'a [u32], order: &'a [u32], step: Step) -> Labels<'a> {
        let (bytes, order) = (bytemuck::cast_slice(labels), &order[step.cursor as usize..]);
        Labels { positions: g.positions, bytes, order, count: step.count as usize }
    }

    /// That of row `at` of a block; none where it is of no image.
    fn of(&self, block: usize, at: usize) -> Option<usize> {
        let (position, image) = (at / LANES, block * LANES + at % LANES);
        let there = image < self.count;
        there.then(|| usize::from(self.bytes[self.order[image] as usize * self.positions + position]))
    }
}
