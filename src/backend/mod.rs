//! Where a plan runs. A backend holds the plan's buffers and can do three things with them: write, run, read.

pub mod cpu;
pub mod gpu;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::kernels::{Range, Step};
use crate::plan::{Phase, Program, Target};

pub use cpu::Cpu;
pub use gpu::Gpu;

/// Where plans will run. It comes before the plan, whose tiles are made for it.
#[derive(Clone)]
pub enum Device {
    /// The CPU twins.
    Cpu,
    /// A GPU.
    Gpu(gpu::Device),
}

impl Device {
    /// This machine's best GPU, opened for this library alone; the CPU where there is none. Never a software adapter,
    /// which the CPU outruns.
    ///
    /// # Errors
    /// Those of [`gpu::Device::open`]: a GPU that is there and refuses is not passed over.
    pub async fn automatic() -> Result<Device> {
        match gpu::best(&gpu::adapters().await, false) {
            Some(adapter) => gpu::Device::open(adapter).await.map(Device::Gpu),
            None => Ok(Device::Cpu),
        }
    }

    /// What it is like, for [`Options::target`](crate::plan::Options::target).
    pub fn target(&self) -> Target {
        match self {
            Device::Cpu => Target::CPU,
            Device::Gpu(device) => device.target(),
        }
    }

    /// The plan on it.
    ///
    /// # Errors
    /// Those of [`Backend::gpu`].
    pub async fn backend(&self, program: &Program) -> Result<Backend> {
        match self {
            Device::Cpu => Ok(Backend::cpu(program)),
            Device::Gpu(device) => Backend::gpu(device, program).await,
        }
    }
}

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

/// Takes the words of the next read-back in.
type Add<T> = Box<dyn FnMut(&mut T, Vec<u32>) + Send>;

/// Something made of one read-back or several, on its way: a future, and also something to ask now and then.
///
/// It belongs to no one: the session that gave it may go on, and a dropped answer disturbs nothing. What was queued
/// for it is still done.
pub struct Answer<T> {
    /// Those that have not arrived, in order.
    readbacks: VecDeque<Readback>,
    /// What has been made of those that have; nothing once it was given.
    made: Option<Result<T>>,
    add: Add<T>,
}

impl<T> Answer<T> {
    pub(crate) fn new(
        readbacks: Vec<Readback>,
        empty: T,
        add: impl FnMut(&mut T, Vec<u32>) + Send + 'static,
    ) -> Answer<T> {
        Answer { readbacks: readbacks.into(), made: Some(Ok(empty)), add: Box::new(add) }
    }

    pub(crate) fn failed(error: Error) -> Answer<T> {
        Answer { readbacks: VecDeque::new(), made: Some(Err(error)), add: Box::new(|_, _| ()) }
    }

    /// The answer, if it has arrived. Never waits; gives it once.
    pub fn take(&mut self) -> Option<Result<T>> {
        while let Some(readback) = self.readbacks.front_mut() {
            let words = readback.take()?;
            self.readbacks.pop_front();
            self.arrived(words);
        }
        self.made.take()
    }

    fn arrived(&mut self, words: Result<Vec<u32>>) {
        match (words, &mut self.made) {
            (Ok(words), Some(Ok(made))) => (self.add)(made, words),
            (Err(error), _) => {
                self.readbacks.clear();
                self.made = Some(Err(error));
            }
            _ => {}
        }
    }
}

// Nothing in it is ever pinned.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(readback) = self.readbacks.front_mut() {
            let Poll::Ready(words) = Pin::new(readback).poll(context) else { return Poll::Pending };
            self.readbacks.pop_front();
            self.arrived(words);
        }
        match self.made.take() {
            Some(made) => Poll::Ready(made),
            None => Poll::Pending,
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
