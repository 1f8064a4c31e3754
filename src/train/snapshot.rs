//! Where a run stands, and all that continues it.

use serde::{Deserialize, Serialize};

use crate::session::Metrics;

/// Where a run stands: enough to resume it exactly.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps taken.
    pub step: u64,
    /// Training metrics of the epoch so far.
    pub epoch: Metrics,
    /// The lowest evaluation loss so far, as the bits of an `f64`; 0 before the first.
    pub best: u64,
    /// Epochs since then.
    pub stale: usize,
}

/// Everything that a resumed run needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Where the run stands.
    pub position: Position,
    /// All parameters, flat.
    pub parameters: Vec<f32>,
    /// The optimizer's first moment, flat; empty where it has none.
    pub moment1: Vec<f32>,
    /// The optimizer's second moment, flat; empty where it has none.
    pub moment2: Vec<f32>,
}
