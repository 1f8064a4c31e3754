//! Where a plan runs. A backend holds the plan's buffers and can do three things with them: write, run, read.

pub mod cpu;
pub mod gpu;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::kernels::{Range, Step};
use crate::plan::{Phase, Program};

pub use cpu::Cpu;
pub use gpu::Gpu;

/// A plan's buffers and launches on one of the two kinds of device.
// The larger variant is the usual one, and there is one value for a whole training run.
#[allow(clippy::large_enum_variant)]
pub enum Backend {
    /// The CPU twins.
    Cpu(Cpu),
    /// The shaders.
    Gpu(Gpu),
}

impl Backend {
    /// The plan on the CPU.
    pub fn cpu(program: &Program) -> Backend {
        Backend::Cpu(Cpu::new(program))
    }

    /// The plan on a GPU, which may be shared with others.
    ///
    /// # Errors
    /// [`Error::Limit`] when a buffer outgrows the device, [`Error::Device`] when it refuses a pipeline.
    pub async fn gpu(device: &gpu::Device, program: &Program) -> Result<Backend> {
        Gpu::new(device, program).await.map(Backend::Gpu)
    }

    /// What runs the plan, for messages.
    pub fn name(&self) -> String {
        match self {
            Backend::Cpu(cpu) => cpu.name(),
            Backend::Gpu(gpu) => gpu.name(),
        }
    }

    /// Writes `words` to the start of a range. Never waits.
    ///
    /// # Errors
    /// [`Error::Settings`] when there are more words than the range holds.
    pub fn write(&mut self, range: Range, words: &[u32]) -> Result<()> {
        if words.len() > range.len {
            return Err(Error::Settings(format!("{} words do not fit {}", words.len(), range.len)));
        }
        match self {
            Backend::Cpu(cpu) => cpu.write(range, words),
            Backend::Gpu(gpu) => gpu.write(range, words),
        }
        Ok(())
    }

    /// Runs the launches of a phase once for each step, in order. A GPU is only told to: this never waits
    /// for it. The CPU works until it is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Device`], possibly of an earlier call, since GPUs report late.
    pub fn run(&mut self, phase: Phase, steps: &[Step]) -> Result<()> {
        match self {
            Backend::Cpu(cpu) => cpu.run(phase, steps),
            Backend::Gpu(gpu) => gpu.run(phase, steps)?,
        }
        Ok(())
    }

    /// Asks for a copy of a range as it is after all that was run so far.
    pub fn read(&mut self, range: Range) -> Readback {
        match self {
            Backend::Cpu(cpu) => Readback::ready(cpu.read(range)),
            Backend::Gpu(gpu) => gpu.read(range),
        }
    }

    /// The most steps that one [`run`](Backend::run) may hold.
    pub fn most_steps(&self) -> usize {
        match self {
            Backend::Cpu(_) => usize::MAX,
            Backend::Gpu(_) => gpu::STEPS,
        }
    }
}

/// Words on their way back from a device: a future, and also something to ask now and then.
///
/// On native targets the future has a thread wait for the device; in a browser the event loop brings it.
pub struct Readback(State);

enum State {
    Ready(Result<Vec<u32>>),
    Waiting(gpu::Mapping),
    Taken,
}

impl Readback {
    pub(crate) fn ready(words: Vec<u32>) -> Readback {
        Readback(State::Ready(Ok(words)))
    }

    pub(crate) fn failed(error: Error) -> Readback {
        Readback(State::Ready(Err(error)))
    }

    pub(crate) fn waiting(mapping: gpu::Mapping) -> Readback {
        Readback(State::Waiting(mapping))
    }

    /// The words, if they have arrived. Never waits; gives them once.
    pub fn take(&mut self) -> Option<Result<Vec<u32>>> {
        if let State::Waiting(mapping) = &mut self.0 {
            let words = mapping.try_take()?;
            self.0 = State::Ready(words);
        }
        match std::mem::replace(&mut self.0, State::Taken) {
            State::Ready(words) => Some(words),
            _ => None,
        }
    }
}

impl Future for Readback {
    type Output = Result<Vec<u32>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.take() {
            Some(words) => Poll::Ready(words),
            None => {
                if let State::Waiting(mapping) = &mut self.0 {
                    mapping.wake(context.waker());
                    // It may have arrived since it was asked.
                    if let Some(words) = self.take() {
                        return Poll::Ready(words);
                    }
                }
                Poll::Pending
            }
        }
    }
}

/// Polls a future once, without a runtime.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
