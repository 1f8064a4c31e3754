//! What a trainer tells its caller.

use crate::session::Metrics;

/// What a trainer reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Steps that are finished.
    Steps {
        /// The first of them, counted from 1.
        first: u64,
        /// Their metrics, in order.
        metrics: Vec<Metrics>,
        /// The learning rate of the last.
        learning_rate: f32,
    },
    /// An epoch is finished and evaluated.
    Epoch {
        /// The epoch, counted from 1.
        epoch: usize,
        /// Steps taken so far.
        step: u64,
        /// Over the training data, as it was trained on.
        train: Metrics,
        /// Over the evaluation data.
        evaluation: Metrics,
        /// Whether its loss is the lowest so far.
        best: bool,
    },
}

/// What [`Trainer::advance`](super::Trainer::advance) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// Queued this many steps.
    Queued(usize),
    /// Queued this many batches of the epoch's evaluation.
    Evaluating(usize),
    /// Queued nothing: the epoch's evaluation has to arrive first. [`Trainer::poll`](super::Trainer::poll) until it has.
    Waiting,
    /// Queued nothing: the run is over.
    Done,
}
