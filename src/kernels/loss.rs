//! `shaders/loss.wgsl`: softmax with cross-entropy, accuracy, and their sums over a batch.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Args, LANES, Launch, Range, WORKGROUP, blocks};
use crate::error::Result;

/// Set in a record's flags when the loss is not finite.
pub const LOSS_NOT_FINITE: u32 = 1;

/// Words of a record in the metrics ring: the summed loss as bits, the images right, the images, the flags.
pub const RECORD: usize = 4;

/// Shapes and settings of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Classes, that is logits of an image.
    pub classes: usize,
    /// Label smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016).
    pub smoothing: f32,
    /// Images in a batch.
    pub batch: usize,
}

/// The buffers of the loss.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[classes]` of each image.
    pub logits: Range,
    /// The label of every image of the data set.
    pub labels: Range,
    /// The epoch's permutation.
    pub order: Range,
    /// Loss, and 1 if right, of each image of the batch.
    pub rows: Range,
}

impl Geometry {
    fn constants(&self) -> [(&'static str, f64); 3] {
        [
            ("CLASSES", self.classes as f64),
            ("BLOCKS", blocks(self.batch) as f64),
            ("SMOOTHING", f64::from(self.smoothing)),
        ]
    }

    fn grid(&self) -> [usize; 3] {
        [(blocks(self.batch) * LANES).div_ceil(WORKGROUP), 1, 1]
    }

    fn traffic(&self, passes: usize) -> u64 {
        (4 * blocks(self.batch) * LANES * (passes * self.classes + 4)) as u64
    }

    /// Loss and verdict of each image, and the gradient of the mean loss; clears the step's flags.
    pub fn cross_entropy_gradient(self, b: Buffers, logits_grad: Range, metrics: Range) -> Result<Launch> {
        let bindings = [
            ("logits", b.logits),
            ("labels", b.labels),
            ("order", b.order),
            ("rows", b.rows),
            ("logits_grad", logits_grad),
            ("metrics", metrics),
        ];
        let twin = move |args: &mut Args<'_>| {
            // The launches after this one only add flags.
            args.u32_mut("metrics")[args.step.slot as usize * RECORD + 3] = 0;
            let gradient = args.f32_mut("logits_grad");
            cross_entropy(&self, args, Some(gradient));
        };
        let flop = 8 * (self.classes * self.batch) as u64;
        let entry = ("loss", "cross_entropy_gradient");
        let launch = Launch::new(entry, &self.constants(), self.grid(), &bindings, flop, Arc::new(twin))?;
        Ok(launch.with_bytes(self.traffic(2)))
    }

    /// Loss and verdict of each image.
    pub fn cross_entropy(self, b: Buffers) -> Result<Launch> {
        let bindings = [("logits", b.logits), ("labels", b.labels), ("order", b.order), ("rows", b.rows)];
        let twin = move |args: &mut Args<'_>| cross_entropy(&self, args, None);
        let flop = 4 * (self.classes * self.batch) as u64;
        let entry = ("loss", "cross_entropy");
        let launch = Launch::new(entry, &self.constants(), self.grid(), &bindings, flop, Arc::new(twin))?;
        Ok(launch.with_bytes(self.traffic(1)))
    }

    /// Probabilities of the classes.
    pub fn softmax(self, logits: Range, probabilities: Range) -> Result<Launch> {
        let bindings = [("logits", logits), ("probabilities", probabilities)];
        let twin = move |args: &mut Args<'_>| {
            let (logits, probabilities) = (args.f32("logits"), args.f32_mut("probabilities"));
            for row in 0..blocks(self.batch) * LANES {
                let start = row / LANES * self.classes * LANES + row % LANES;
                let s = Softmax::of(self.classes, &logits[start..]);
                for k in 0..self.classes {
                    probabilities[start + k * LANES] = (logits[start + k * LANES] - s.most).exp() / s.sum;
                }
            }
        };
        let flop = 4 * (self.classes * self.batch) as u64;
        Launch::new(("loss", "softmax"), &self.constants(), self.grid(), &bindings, flop, Arc::new(twin))
    }

    /// Sums the rows of a batch into its record of the metrics ring.
    pub fn sum_rows(self, rows: Range, metrics: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| {
            let step = args.step;
            let rows = args.f32("summed");
            let record = &mut args.u32_mut("metrics")[step.slot as usize * RECORD..][..RECORD];
            record[3] = 0;
            sum_into(record, rows, step.count);
        };
        let bindings = [("summed", rows), ("metrics", metrics)];
        let flop = 2 * (blocks(self.batch) * LANES) as u64;
        let launch =
            Launch::new(("loss", "sum_rows"), &self.constants(), [1, 1, 1], &bindings, flop, Arc::new(twin))?;
        Ok(launch.with_bytes(4 * (rows.len + RECORD) as u64))
    }
}

/// Sums a batch's rows into its record, and adds the flag of a loss that is not finite.
pub(super) fn sum_into(record: &mut [u32], rows: &[f32], count: u32) {
    let add = |(loss, right): (f32, f32), row: &[f32]| (loss + row[0], right + row[1]);
    let (loss, right) = rows.chunks_exact(2).fold((0.0, 0.0), add);
    record[..3].copy_from_slice(&[loss.to_bits(), right as u32, count]);
    if !loss.is_finite() {
        record[3] |= LOSS_NOT_FINITE;
    }
}

/// What one image's softmax needs: its largest logit, the first class that has it, and the sum of exponentials.
struct Softmax {
    most: f32,
    best: usize,
    sum: f32,
}

impl Softmax {
    fn of(classes: usize, logits: &[f32]) -> Softmax {
        let at = |k: usize| logits[k * LANES];
        let mut best = 0;
        for k in 1..classes {
            if at(k) > at(best) {
                best = k;
            }
        }
        let most = at(best);
        Softmax { most, best, sum: (0..classes).map(|k| (at(k) - most).exp()).sum() }
    }
}

fn cross_entropy(g: &Geometry, args: &mut Args<'_>, gradient: Option<&mut [f32]>) {
    let step = args.step;
    let (logits, labels, order) = (args.f32("logits"), args.u32("labels"), args.u32("order"));
    let rows = args.f32_mut("rows");
    let size = g.classes * LANES;
    let one = |block: usize, rows: &mut [f32], mut gradient: Option<&mut [f32]>| {
        for lane in 0..LANES {
            let row = block * LANES + lane;
            if row >= step.count as usize {
                rows[2 * lane..2 * lane + 2].fill(0.0);
                if let Some(gradient) = gradient.as_deref_mut() {
                    gradient.iter_mut().skip(lane).step_by(LANES).for_each(|g| *g = 0.0);
                }
                continue;
            }
            let z = &logits[block * size + lane..];
            let label = labels[order[step.cursor as usize + row] as usize] as usize;
            let s = Softmax::of(g.classes, z);
            let mut loss = s.most - z[label * LANES] + s.sum.ln();
            if g.smoothing > 0.0 {
                let spread: f32 = (0..g.classes).map(|k| s.most - z[k * LANES]).sum();
                loss = (1.0 - g.smoothing) * loss + g.smoothing * (spread / g.classes as f32 + s.sum.ln());
            }
            rows[2 * lane] = loss;
            rows[2 * lane + 1] = f32::from(s.best == label);
            if let Some(gradient) = gradient.as_deref_mut() {
                for k in 0..g.classes {
                    let own = if k == label { 1.0 - g.smoothing } else { 0.0 };
                    let q = own + g.smoothing / g.classes as f32;
                    gradient[k * LANES + lane] =
                        ((z[k * LANES] - s.most).exp() / s.sum - q) / step.count as f32;
                }
            }
        }
    };
    let rows = rows.par_chunks_mut(2 * LANES).enumerate();
    match gradient {
        Some(gradient) => rows
            .zip(gradient.par_chunks_mut(size))
            .for_each(|((block, rows), gradient)| one(block, rows, Some(gradient))),
        None => rows.for_each(|(block, rows)| one(block, rows, None)),
    }
}
