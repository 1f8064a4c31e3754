//! `shaders/squared_error.wgsl` on the CPU: the mean squared error of outputs and one-hot labels, and its gradient.

use super::tasks::{self, Axis, Parts, cut, each, grid, portions};
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
        let stride = g.positions * LANES;
        let parts = g.parts(logits.len());
        let classes = Parts { all: g.classes, tile: g.classes, count: 1 };
        let lengths = parts.iter().map(|(_, len)| len * LANES);
        let gradients = portions(logits_grad, classes, stride, lengths);
        let work: Vec<_> = g.pieces(parts, logits.len(), rows).zip(gradients).collect();
        tasks::run(work, |((block, first, rows), mut gradients)| {
            judge(&g, &labels, block, first, logits, rows);
            for (k, gradients) in gradients.iter_mut().enumerate() {
                let logits = &logits[(block * g.classes + k) * stride + first * LANES..];
                for (at, (gradient, logit)) in gradients.iter_mut().zip(logits).enumerate() {
                    let label = labels.of(block, first * LANES + at);
                    *gradient = label.map_or(0.0, |label| g.error(*logit, label, k) * share);
                }
            }
        });
    }
}

pub(super) fn squared_error(
    c: squared_error::Constants,
) -> impl Fn(squared_error::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { classes: c.classes, positions: c.positions, smoothing: c.smoothing };
    move |b, step| {
        let squared_error::Buffers { logits, labels, order, rows } = b;
        let labels = Labels::new(&g, labels, order, step);
        let work: Vec<_> = g.pieces(g.parts(logits.len()), logits.len(), rows).collect();
        tasks::run(work, |(block, first, rows)| judge(&g, &labels, block, first, logits, rows));
    }
}

pub(super) fn shares(c: shares::Constants) -> impl Fn(shares::Buffers<'_>, Step) + Send + Sync {
    let shares::Constants { classes, positions, .. } = c;
    move |b, _| {
        let (block, stride) = (classes * positions * LANES, positions * LANES);
        let shares::Buffers { logits, probabilities } = b;
        each(probabilities, block, OPERATIONS * logits.len(), |at, probabilities| {
            let logits = &logits[at * block..][..block];
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

/// Of an output, about.
const OPERATIONS: usize = 8;

impl Shape {
    /// How the positions of a block are cut.
    fn parts(&self, outputs: usize) -> Parts {
        let blocks = outputs / (self.classes * self.positions * LANES);
        let axes = [Axis::new(self.positions, 1), Axis::whole(1)];
        grid(tasks::wanted(OPERATIONS * outputs), blocks, axes)[0]
    }

    /// Those parts of all blocks: the block, the first position, and their rows.
    fn pieces<'a>(
        &self,
        parts: Parts,
        outputs: usize,
        rows: &'a mut [f32],
    ) -> impl Iterator<Item = (usize, usize, &'a mut [f32])> {
        let blocks = outputs / (self.classes * self.positions * LANES);
        let places = (0..blocks).flat_map(move |block| parts.iter().map(move |part| (block, part)));
        let rows = cut(rows, places.clone().map(|(_, (_, len))| 2 * len * LANES));
        places.zip(rows).map(|((block, (first, _)), rows)| (block, first, rows))
    }

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

/// Loss and verdict of the rows of a block from position `first` on.
fn judge(g: &Shape, labels: &Labels<'_>, block: usize, first: usize, outputs: &[f32], rows: &mut [f32]) {
    let stride = g.positions * LANES;
    for (at, row) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let at = first * LANES + at;
        *row = labels.of(block, at).map_or([0.0; 2], |label| {
            let outputs = &outputs[block * g.classes * stride + at..];
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
