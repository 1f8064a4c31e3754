//! `shaders/loss.wgsl`: softmax with cross-entropy, accuracy, and their sums over a batch.

use std::sync::Arc;

use rayon::prelude::*;

use super::simd::{cut, share, tiles};
use super::{Args, LANES, Launch, Range, Twin, WORKGROUP, blocks, elementwise};
use crate::error::{Error, Result};

/// Set in a record's flags when the loss is not finite.
pub const LOSS_NOT_FINITE: u32 = 1;

/// Words of a record in the metrics ring: the summed loss as bits, the rows right, the rows, the flags. A row is
/// a position of an image; a classifier has one an image.
pub const RECORD: usize = 4;

/// Shapes and settings of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Classes, that is logits of a position.
    pub classes: usize,
    /// Positions of an image, each with its own label: 1 of a classifier, the pixels of a segmentation.
    pub positions: usize,
    /// Label smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016).
    pub smoothing: f32,
    /// LeCun's j: the penalty of a class that is never right and that the loss alone knows (LeCun et al. 1998,
    /// eq. 9). It goes without label smoothing only.
    pub rubbish: Option<f32>,
    /// Images in a batch.
    pub batch: usize,
}

/// The buffers of the loss.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[classes, positions]` of each image.
    pub logits: Range,
    /// The labels of the data set, four a word, the first in the low byte: `[N, positions]` bytes.
    pub labels: Range,
    /// The epoch's permutation.
    pub order: Range,
    /// Loss, and 1 if right, of each of the batch's [`Geometry::rows`].
    pub rows: Range,
}

impl Geometry {
    /// Rows of a batch, those of lanes without an image among them.
    pub fn rows(&self) -> usize {
        blocks(self.batch) * LANES * self.positions
    }

    fn check(&self) -> Result<()> {
        let Some(j) = self.rubbish else { return Ok(()) };
        if !j.is_finite() {
            return Err(Error::Settings(format!(
                "the rubbish class's penalty is {j}, expected a finite number"
            )));
        }
        if self.smoothing != 0.0 {
            return Err(Error::Settings(format!(
                "label smoothing is {} beside a rubbish class, expected 0",
                self.smoothing
            )));
        }
        Ok(())
    }

    fn launch(
        &self,
        entry: &str,
        bindings: &[(&str, Range)],
        operations: usize,
        passes: usize,
        twin: Twin,
    ) -> Result<Launch> {
        self.check()?;
        let (grid, row) = elementwise(self.rows());
        let constants = [
            ("CLASSES", self.classes as f64),
            ("POSITIONS", self.positions as f64),
            ("ROWS", self.rows() as f64),
            ("ROW", row as f64),
            ("SMOOTHING", f64::from(self.smoothing)),
            ("RUBBISH", f64::from(u8::from(self.rubbish.is_some()))),
            ("RUBBISH_LOGIT", f64::from(-self.rubbish.unwrap_or(0.0))),
        ];
        let flop = (operations * self.classes * self.positions * self.batch) as u64;
        let launch = Launch::old(("loss", entry), &constants, grid, bindings, flop, twin)?;
        Ok(launch.with_bytes((4 * self.rows() * (passes * self.classes + 4)) as u64))
    }

    /// Loss and verdict of each row, and the gradient of the mean loss; clears the step's flags.
    ///
    /// # Errors
    /// [`Error::Settings`] when the rubbish class's penalty is not finite, or stands beside label smoothing.
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
        self.launch("cross_entropy_gradient", &bindings, 8, 2, Arc::new(twin))
    }

    /// Loss and verdict of each row.
    ///
    /// # Errors
    /// As [`Geometry::cross_entropy_gradient`].
    pub fn cross_entropy(self, b: Buffers) -> Result<Launch> {
        let bindings = [("logits", b.logits), ("labels", b.labels), ("order", b.order), ("rows", b.rows)];
        let twin = move |args: &mut Args<'_>| cross_entropy(&self, args, None);
        self.launch("cross_entropy", &bindings, 4, 1, Arc::new(twin))
    }

    /// Probabilities of the classes at each position; they sum to 1, as the rubbish class is left out.
    pub fn softmax(self, logits: Range, probabilities: Range) -> Result<Launch> {
        let bindings = [("logits", logits), ("probabilities", probabilities)];
        let twin = move |args: &mut Args<'_>| {
            let (logits, probabilities) = (args.f32("logits"), args.f32_mut("probabilities"));
            let (size, stride) = (self.classes * self.positions * LANES, self.positions * LANES);
            probabilities.par_chunks_mut(size).zip(logits.par_chunks(size)).for_each(
                |(probabilities, logits)| {
                    for start in 0..stride {
                        let s = Softmax::of(self.classes, stride, &logits[start..], None);
                        for at in (start..size).step_by(stride) {
                            probabilities[at] = (logits[at] - s.most).exp() / s.sum;
                        }
                    }
                },
            );
        };
        self.launch("softmax", &bindings, 4, 2, Arc::new(twin))
    }

    /// Sums the rows of a batch into its record of the metrics ring.
    pub fn sum_rows(self, rows: Range, metrics: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| {
            let step = args.step;
            let rows = args.f32("summed");
            let record = &mut args.u32_mut("metrics")[step.slot as usize * RECORD..][..RECORD];
            record[3] = 0;
            sum_into(record, rows, step.count * self.positions as u32);
        };
        let bindings = [("summed", rows), ("metrics", metrics)];
        let constants = [("ROWS", self.rows() as f64), ("POSITIONS", self.positions as f64)];
        let flop = 2 * self.rows() as u64;
        let launch =
            Launch::old(("loss", "sum_rows"), &constants, [1, 1, 1], &bindings, flop, Arc::new(twin))?;
        Ok(launch.with_bytes(4 * (rows.len + RECORD) as u64))
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
        record[3] |= LOSS_NOT_FINITE;
    }
}

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

fn cross_entropy(g: &Geometry, args: &mut Args<'_>, gradient: Option<&mut [f32]>) {
    let step = args.step;
    let (logits, order) = (args.f32("logits"), args.u32("order"));
    let labels: &[u8] = bytemuck::cast_slice(args.u32("labels"));
    let rows = args.f32_mut("rows");
    // As many positions as leave every thread a piece.
    let tile = share(blocks(g.batch), g.positions, 1);
    let lengths = || tiles(g.positions, tile).map(|(_, len)| len * LANES);
    let mut pieces: Vec<Piece<'_>> = rows
        .chunks_mut(2 * g.positions * LANES)
        .enumerate()
        .flat_map(|(block, rows)| {
            let rows = cut(rows, lengths().map(|len| 2 * len));
            let firsts = tiles(g.positions, tile).map(|(first, _)| first);
            firsts.zip(rows).map(move |(first, rows)| Piece { block, first, rows, gradients: Vec::new() })
        })
        .collect();
    if let Some(gradient) = gradient {
        let tiles = g.positions.div_ceil(tile);
        for (plane, gradient) in gradient.chunks_mut(g.positions * LANES).enumerate() {
            let pieces = &mut pieces[plane / g.classes * tiles..][..tiles];
            for (piece, gradient) in pieces.iter_mut().zip(cut(gradient, lengths())) {
                piece.gradients.push(gradient);
            }
        }
    }
    pieces.into_par_iter().for_each(|piece| {
        piece.cross_entropy(g, logits, labels, &order[step.cursor as usize..], step.count as usize)
    });
}

impl Piece<'_> {
    fn cross_entropy(self, g: &Geometry, logits: &[f32], labels: &[u8], order: &[u32], count: usize) {
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
            let s = Softmax::of(g.classes, stride, z, g.rubbish.map(|j| -j));
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
