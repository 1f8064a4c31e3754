//! What one launch can do together: patterns over runs of operations without branches.

use std::any::Any;

use super::Options;
use super::lower::lower;
use super::operation::{ConvPool, Elementwise, Operation};
use crate::network::Placed;

/// The one operation that a run stands for, if there is one.
type Fuse = fn(&[&dyn Operation], &Options) -> Option<Box<dyn Operation>>;

/// A run of operations that one operation can stand for.
struct Pattern {
    /// How many they are.
    len: usize,
    fuse: Fuse,
}

/// The first that fits is taken, the longest before all others.
const PATTERNS: [Pattern; 3] = [
    // Convolution, activation and pooling by 2×2.
    Pattern { len: 3, fuse: |run, options| ConvPool::of(run, options.target) },
    // Convolution and pooling by 2×2.
    Pattern { len: 2, fuse: |run, options| ConvPool::of(run, options.target) },
    // Whatever can end with an activation, and one whose derivative is a function of its value.
    Pattern { len: 2, fuse: |run, _| run[0].ending(by_value(run[1])?) },
];

/// The activation that an operation is, if a launch can end with it.
fn by_value(operation: &dyn Operation) -> Option<crate::network::Activation> {
    let Elementwise(activation) = (operation as &dyn Any).downcast_ref()?;
    Some(*activation).filter(|activation| activation.by_value())
}

/// A layer and the operation that it is, or none.
pub(super) struct Lowered<'a> {
    pub(super) layer: &'a Placed,
    operation: Option<Box<dyn Operation>>,
}

impl<'a> Lowered<'a> {
    pub(super) fn new(layer: &'a Placed, options: &Options) -> Lowered<'a> {
        Lowered { layer, operation: lower(layer, options) }
    }
}

/// An operation and the layers that it stands for.
pub(super) struct Fused<'a> {
    pub(super) operation: Box<dyn Operation>,
    /// From the first, which has the parameters, to the last, whose output it gives.
    pub(super) layers: Vec<&'a Placed>,
    /// Whether the next operation multiplies its input's gradient by the derivative of this one's activation.
    pub(super) multiplied: bool,
}

/// Turns a run of layers, each of which reads the one before alone, into operations, as few as the patterns make them.
pub(super) fn fuse<'a>(mut run: Vec<Lowered<'a>>, options: &Options) -> Vec<Fused<'a>> {
    let mut found: Vec<Fused<'a>> = Vec::new();
    while !run.is_empty() {
        let several = if options.fuse { together(&run, options) } else { None };
        let (operation, len) = match several {
            Some((operation, len)) => (Some(operation), len),
            None => (run[0].operation.take(), 1),
        };
        let layers = run.drain(..len).map(|lowered| lowered.layer).collect();
        found.extend(operation.map(|operation| Fused { operation, layers, multiplied: false }));
    }
    for i in 1..found.len() {
        if let Some(activation) = found[i - 1].operation.activation() {
            found[i - 1].multiplied = found[i].operation.multiply(activation);
        }
    }
    found
}

/// The one operation of the first few, and how many they are.
fn together(run: &[Lowered<'_>], options: &Options) -> Option<(Box<dyn Operation>, usize)> {
    PATTERNS.iter().find_map(|pattern| {
        let first = run.get(..pattern.len)?;
        let operations: Option<Vec<&dyn Operation>> =
            first.iter().map(|lowered| lowered.operation.as_deref()).collect();
        Some(((pattern.fuse)(&operations?, options)?, pattern.len))
    })
}
