//! `shaders/loss.wgsl`: softmax with cross-entropy, accuracy, and their sums over a batch.

use super::shaders::loss as shader;
use super::{LANES, Launch, Range, blocks, elementwise};
use crate::error::{Error, Result};

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

    fn constants(&self) -> shader::Constants {
        let Geometry { classes, positions, smoothing, rubbish, .. } = *self;
        let (_, row) = elementwise(self.rows());
        shader::Constants {
            classes,
            positions,
            rows: self.rows(),
            row,
            smoothing,
            rubbish: rubbish.is_some(),
            rubbish_logit: -rubbish.unwrap_or(0.0),
        }
    }

    fn grid(&self) -> [usize; 3] {
        elementwise(self.rows()).0
    }

    /// Of so many operations a logit.
    fn flop(&self, operations: usize) -> u64 {
        (operations * self.classes * self.positions * self.batch) as u64
    }

    /// Of launches that go over the logits, or what is shaped like them, so many times.
    fn bytes(&self, passes: usize) -> u64 {
        (4 * self.rows() * (passes * self.classes + 4)) as u64
    }

    /// Loss and verdict of each row, and the gradient of the mean loss; clears the step's flags.
    ///
    /// # Errors
    /// [`Error::Settings`] when the rubbish class's penalty is not finite, or stands beside label smoothing.
    pub fn cross_entropy_gradient(self, b: Buffers, logits_grad: Range, metrics: Range) -> Result<Launch> {
        self.check()?;
        let Buffers { logits, labels, order, rows } = b;
        let bindings =
            shader::cross_entropy_gradient::Bindings { logits, labels, order, logits_grad, rows, metrics };
        let (grid, flop) = (self.grid(), self.flop(8));
        let launch = shader::cross_entropy_gradient::launch(self.constants(), bindings, grid, flop)?;
        Ok(launch.with_bytes(self.bytes(2)))
    }

    /// Loss and verdict of each row.
    ///
    /// # Errors
    /// As [`Geometry::cross_entropy_gradient`].
    pub fn cross_entropy(self, b: Buffers) -> Result<Launch> {
        self.check()?;
        let Buffers { logits, labels, order, rows } = b;
        let bindings = shader::cross_entropy::Bindings { logits, labels, order, rows };
        let launch = shader::cross_entropy::launch(self.constants(), bindings, self.grid(), self.flop(4))?;
        Ok(launch.with_bytes(self.bytes(1)))
    }

    /// Probabilities of the classes at each position; they sum to 1, as the rubbish class is left out.
    pub fn softmax(self, logits: Range, probabilities: Range) -> Result<Launch> {
        self.check()?;
        let bindings = shader::softmax::Bindings { logits, probabilities };
        let launch = shader::softmax::launch(self.constants(), bindings, self.grid(), self.flop(4))?;
        Ok(launch.with_bytes(self.bytes(2)))
    }

    /// [`sum_rows`] of this loss.
    pub fn sum_rows(self, rows: Range, metrics: Range) -> Result<Launch> {
        sum_rows(self.rows(), self.positions, rows, metrics)
    }
}

/// The sums that [`add_rows`] makes of many rows.
pub const SUMS: usize = 256;

/// Adds a batch's many rows up to a few, as many as there is room for in `sums`.
pub fn add_rows(rows: Range, sums: Range) -> Result<Launch> {
    let bindings = shader::add_rows::Bindings { summed: rows, rows: sums };
    let constants = shader::add_rows::Constants { rows: rows.len / 2 };
    shader::add_rows::launch(constants, bindings, [sums.len / 2, 1, 1], rows.len as u64)
}

/// Sums the `count` rows of a batch, `positions` an image, into its record of the metrics ring.
pub fn sum_rows(count: usize, positions: usize, rows: Range, metrics: Range) -> Result<Launch> {
    let bindings = shader::sum_rows::Bindings { summed: rows, metrics };
    let constants = shader::sum_rows::Constants { rows: count, positions };
    let launch = shader::sum_rows::launch(constants, bindings, [1, 1, 1], 2 * count as u64)?;
    Ok(launch.with_bytes(4 * (rows.len + RECORD) as u64))
}
