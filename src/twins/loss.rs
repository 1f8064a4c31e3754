//! `shaders/loss.wgsl` on the CPU: softmax with cross-entropy, accuracy, and their sums over a batch.

use super::tasks::{self, Axis, cut, each, grid};
use crate::kernels::loss::RECORD;
use crate::kernels::optimizer::{Fault, Kind};
use crate::kernels::shaders::loss::{add_rows, cross_entropy, cross_entropy_gradient, softmax, sum_rows};
use crate::kernels::{LANES, Step, WORKGROUP};

/// What the constants of the launches with labels say.
#[derive(Clone, Copy)]
struct Shape {
    classes: usize,
    positions: usize,
    blocks: usize,
    smoothing: f32,
    /// The logit of the class that is never right.
    rubbish: Option<f32>,
}

pub(super) fn cross_entropy_gradient(
    c: cross_entropy_gradient::Constants,
) -> impl Fn(cross_entropy_gradient::Buffers<'_>, Step) + Send + Sync {
    let cross_entropy_gradient::Constants { classes, positions, smoothing, .. } = c;
    let (blocks, rubbish) = (c.rows / (positions * LANES), c.rubbish.then_some(c.rubbish_logit));
    let g = Shape { classes, positions, blocks, smoothing, rubbish };
    move |b, step| {
        let cross_entropy_gradient::Buffers { logits, labels, order, logits_grad, rows, metrics } = b;
        // The launches after this one only add flags.
        metrics[step.slot as usize * RECORD + 3] = 0;
        losses(&g, step, cross_entropy::Buffers { logits, labels, order, rows }, Some(logits_grad));
    }
}

pub(super) fn cross_entropy(
    c: cross_entropy::Constants,
) -> impl Fn(cross_entropy::Buffers<'_>, Step) + Send + Sync {
    let cross_entropy::Constants { classes, positions, smoothing, .. } = c;
    let (blocks, rubbish) = (c.rows / (positions * LANES), c.rubbish.then_some(c.rubbish_logit));
    let g = Shape { classes, positions, blocks, smoothing, rubbish };
    move |b, step| losses(&g, step, b, None)
}

pub(super) fn softmax(c: softmax::Constants) -> impl Fn(softmax::Buffers<'_>, Step) + Send + Sync {
    let softmax::Constants { classes, positions, .. } = c;
    move |b, _| {
        let softmax::Buffers { logits, probabilities } = b;
        let (size, stride) = (classes * positions * LANES, positions * LANES);
        let operations = OPERATIONS * logits.len();
        each(probabilities, size, operations, |block, probabilities| {
            let logits = &logits[block * size..][..size];
            for start in 0..stride {
                let s = Softmax::of(classes, stride, &logits[start..], None);
                for at in (start..size).step_by(stride) {
                    probabilities[at] = (logits[at] - s.most).exp() / s.sum;
                }
            }
        });
    }
}

pub(super) fn add_rows(_: add_rows::Constants) -> impl Fn(add_rows::Buffers<'_>, Step) + Send + Sync {
    |b, _| {
        let sums = b.rows.len() / 2;
        let operations = 4 * b.summed.len();
        each(b.rows.as_chunks_mut::<2>().0, 1, operations, |k, sum| {
            let chunks = b.summed.chunks(2 * WORKGROUP).skip(k).step_by(sums);
            let rows = chunks.flat_map(|rows| rows.as_chunks::<2>().0);
            // Of up to 2²⁴ rows.
            let add =
                |all: [f64; 2], row: &[f32; 2]| [all[0] + f64::from(row[0]), all[1] + f64::from(row[1])];
            sum[0] = rows.fold([0.0; 2], add).map(|sum| sum as f32);
        });
    }
}

pub(super) fn sum_rows(c: sum_rows::Constants) -> impl Fn(sum_rows::Buffers<'_>, Step) + Send + Sync {
    let positions = c.positions as u32;
    move |b, step| {
        let record = &mut b.metrics[step.slot as usize * RECORD..][..RECORD];
        record[3] = 0;
        sum_into(record, b.summed, step.count * positions);
    }
}

/// Sums a batch's rows into its record, in the shader's order, and adds the flag of a loss that is not finite;
/// `count` of the rows are of images.
pub(super) fn sum_into(record: &mut [u32], rows: &[f32], count: u32) {
    let (mut losses, mut rights) = ([0.0; WORKGROUP], [0; WORKGROUP]);
    for rows in rows.chunks(2 * WORKGROUP) {
        let sums = losses.iter_mut().zip(&mut rights);
        for ((loss, right), row) in sums.zip(rows.as_chunks::<2>().0) {
            *loss += row[0];
            *right += row[1] as u32;
        }
    }
    let mut half = WORKGROUP / 2;
    while half > 0 {
        for i in 0..half {
            losses[i] += losses[i + half];
            rights[i] += rights[i + half];
        }
        half /= 2;
    }
    record[..3].copy_from_slice(&[losses[0].to_bits(), rights[0], count]);
    if !losses[0].is_finite() {
        record[3] = record[3].max(Fault { kind: Kind::Loss, chunk: 0 }.flags());
    }
}

/// Of a logit: two exponentials of some twenty each.
const OPERATIONS: usize = 40;

/// What one row's softmax needs: its largest logit, the first class that has it, and the sum of exponentials.
struct Softmax {
    most: f32,
    best: usize,
    sum: f32,
}

impl Softmax {
    /// Of logits that lie `stride` apart, and of the rubbish class's.
    fn of(classes: usize, stride: usize, logits: &[f32], rubbish: Option<f32>) -> Softmax {
        let at = |k: usize| logits[k * stride];
        let mut best = 0;
        for k in 1..classes {
            if at(k) > at(best) {
                best = k;
            }
        }
        let (mut most, mut sum) = (at(best), 0.0);
        if let Some(rubbish) = rubbish {
            most = most.max(rubbish);
            sum = (rubbish - most).exp();
        }
        sum += (0..classes).map(|k| (at(k) - most).exp()).sum::<f32>();
        Softmax { most, best, sum }
    }
}

/// Neighbouring positions of one block of images.
struct Piece<'a> {
    block: usize,
    first: usize,
    rows: &'a mut [f32],
    /// Their part of each class's gradient; empty where none is asked for.
    gradients: Vec<&'a mut [f32]>,
}

fn losses(g: &Shape, step: Step, b: cross_entropy::Buffers<'_>, gradient: Option<&mut [f32]>) {
    let cross_entropy::Buffers { logits, labels, order, rows } = b;
    let labels: &[u8] = bytemuck::cast_slice(labels);
    let wanted = tasks::wanted(OPERATIONS * logits.len());
    let [parts, _] = grid(wanted, g.blocks, [Axis::new(g.positions, 1), Axis::whole(1)]);
    let lengths = || parts.iter().map(|(_, len)| len * LANES);
    let mut pieces: Vec<Piece<'_>> = rows
        .chunks_mut(2 * g.positions * LANES)
        .enumerate()
        .flat_map(|(block, rows)| {
            let rows = cut(rows, lengths().map(|len| 2 * len));
            let firsts = parts.iter().map(|(first, _)| first);
            firsts.zip(rows).map(move |(first, rows)| Piece { block, first, rows, gradients: Vec::new() })
        })
        .collect();
    if let Some(gradient) = gradient {
        for (plane, gradient) in gradient.chunks_mut(g.positions * LANES).enumerate() {
            let pieces = &mut pieces[plane / g.classes * parts.count..][..parts.count];
            for (piece, gradient) in pieces.iter_mut().zip(cut(gradient, lengths())) {
                piece.gradients.push(gradient);
            }
        }
    }
    tasks::run(pieces, |piece| {
        piece.cross_entropy(g, logits, labels, &order[step.cursor as usize..], step.count as usize)
    });
}

impl Piece<'_> {
    fn cross_entropy(self, g: &Shape, logits: &[f32], labels: &[u8], order: &[u32], count: usize) {
        let Piece { block, first, rows, mut gradients } = self;
        let stride = g.positions * LANES;
        let logits = &logits[block * g.classes * stride..][..g.classes * stride];
        let share = 1.0 / (count * g.positions) as f32;
        for (at, row) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let (position, image) = (first + at / LANES, block * LANES + at % LANES);
            if image >= count {
                *row = [0.0; 2];
                gradients.iter_mut().for_each(|gradient| gradient[at] = 0.0);
                continue;
            }
            let z = &logits[first * LANES + at..];
            let label = usize::from(labels[order[image] as usize * g.positions + position]);
            let s = Softmax::of(g.classes, stride, z, g.rubbish);
            let mut loss = s.most - z[label * stride] + s.sum.ln();
            if g.smoothing > 0.0 {
                let spread: f32 = (0..g.classes).map(|k| s.most - z[k * stride]).sum();
                loss = (1.0 - g.smoothing) * loss + g.smoothing * (spread / g.classes as f32 + s.sum.ln());
            }
            *row = [loss, f32::from(s.best == label)];
            for (k, gradient) in gradients.iter_mut().enumerate() {
                let own = if k == label { 1.0 - g.smoothing } else { 0.0 };
                let q = own + g.smoothing / g.classes as f32;
                gradient[at] = ((z[k * stride] - s.most).exp() / s.sum - q) * share;
            }
        }
    }
}
