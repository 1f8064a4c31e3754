//! What a backend needs of a plan: buffers, and launches over them, as plain data.

use crate::error::{Error, Result};
use crate::kernels::{BufferId, Launch, Range, padded};

/// A buffer, before a backend makes it.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// What it holds, for messages and debuggers.
    pub name: String,
    /// Its length in 4-byte words.
    pub len: usize,
    /// Its first content; zeros where there is none.
    pub content: Option<Vec<u32>>,
}

/// The launches of one kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Forward, backward, update: one optimizer step on the training data.
    Train,
    /// Forward and metrics on the evaluation data.
    Evaluate,
    /// Forward and probabilities of the pictures that were handed in.
    Predict,
    /// Parameters and moments as they were before the last step that changed them.
    Restore,
}

impl Phase {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Phase; 4] = [Phase::Train, Phase::Evaluate, Phase::Predict, Phase::Restore];
}

/// A data set's buffers.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Packed pixels, four a word.
    pub images: Range,
    /// Packed labels, four a word.
    pub labels: Range,
    /// The order in which images are taken. Of a streamed set: the window's places in turn, and behind them the indices
    /// in the data set of what lies there.
    pub order: Range,
    /// Of a streamed set, whose buffers hold a window of it: the images of one of the window's two halves.
    pub half: Option<usize>,
}

/// How much a device holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The largest buffer.
    pub buffer: u64,
    /// All buffers together.
    pub total: u64,
}

impl Memory {
    /// A device that holds whatever can be addressed.
    pub const UNBOUNDED: Memory = Memory { buffer: u64::MAX, total: u64::MAX };
}

/// What a backend needs of a plan: its buffers, and the launches over them.
#[derive(Debug, Default)]
pub struct Program {
    /// Every buffer; a [`BufferId`] is a place in this list.
    pub buffers: Vec<Buffer>,
    /// Launches of [`Phase::Train`].
    pub train: Vec<Launch>,
    /// Launches of [`Phase::Evaluate`].
    pub evaluate: Vec<Launch>,
    /// Launches of [`Phase::Predict`].
    pub predict: Vec<Launch>,
    /// Launches of [`Phase::Restore`].
    pub restore: Vec<Launch>,
}

impl Program {
    /// The launches of a phase.
    pub fn launches(&self, phase: Phase) -> &[Launch] {
        match phase {
            Phase::Train => &self.train,
            Phase::Evaluate => &self.evaluate,
            Phase::Predict => &self.predict,
            Phase::Restore => &self.restore,
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| 4 * buffer.len as u64).sum()
    }

    /// Checks the buffers against what a device holds, before anything is allocated.
    ///
    /// # Errors
    /// [`Error::Limit`] in bytes, with the buffer's name where one alone is too large.
    pub fn fits(&self, memory: Memory) -> Result<()> {
        let too_large = |what: String, needed, allowed| Err(Error::Limit { what, needed, allowed });
        for buffer in &self.buffers {
            let needed = 4 * buffer.len as u64;
            if needed > memory.buffer {
                return too_large(format!("the buffer {}, in bytes,", buffer.name), needed, memory.buffer);
            }
        }
        if self.bytes() > memory.total {
            return too_large("all buffers, in bytes,".into(), self.bytes(), memory.total);
        }
        Ok(())
    }

    /// Adds a buffer of zeros, and gives the range that is all of it.
    pub fn add(&mut self, name: impl Into<String>, len: usize) -> Range {
        let buffer = BufferId(self.buffers.len());
        // A binding must not be empty.
        let len = len.max(1);
        self.buffers.push(Buffer { name: name.into(), len: padded(len), content: None });
        Range { buffer, start: 0, len }
    }

    /// Buffers for a data set, or for a window of one that has more images than twice a half.
    pub(super) fn add_data(
        &mut self,
        name: &str,
        images: usize,
        [pixels, labels]: [usize; 2],
        half: Option<usize>,
    ) -> Data {
        let half = half.filter(|half| images > 2 * half);
        let held = half.map_or(images, |half| 2 * half);
        let order = self.add(format!("{name}.order"), if half.is_some() { 2 * held } else { held });
        self.buffers[order.buffer.0].content = Some((0..held as u32).collect());
        Data {
            images: self.add(format!("{name}.images"), (held * pixels).div_ceil(4)),
            labels: self.add(format!("{name}.labels"), (held * labels).div_ceil(4)),
            order,
            half,
        }
    }
}
