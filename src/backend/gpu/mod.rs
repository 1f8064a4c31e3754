//! The GPU backend: a plan's buffers, pipelines and bind groups on a `wgpu` device.
//!
//! Everything that can fail is caught by error scopes and comes back as an [`Error`]; many steps are recorded
//! into one compute pass and one submission.

mod device;
mod mapping;
mod pipelines;

use super::{Readback, poll_once};
use crate::error::{Error, Result};
use crate::kernels::{Launch, Range, Step};
use crate::plan::{Phase, Program};
use device::Caught;
use pipelines::{bind, distinct, finish, key, pipelines, uniform_ends};

pub use device::{Device, adapters, best, kind, suffices};
pub use mapping::Mapping;

/// Steps that one submission may hold.
pub const STEPS: usize = 256;

/// The most that a submission takes, in seconds by [`estimate`]: drivers reset a device that is busy for a second
/// or two.
const PATIENCE: f64 = 0.1;

/// Steps lie this far apart in their uniform buffer: WebGPU's strictest alignment of a dynamic offset.
const STEP_STRIDE: u64 = 256;

/// A launch, ready to be recorded.
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    grid: [u32; 3],
    reads_step: bool,
    /// Seconds that it takes at most, by an estimate.
    seconds: f64,
}

impl Dispatch {
    /// Records it into a pass, for the step at `index` of the uniform buffer.
    fn record(&self, pass: &mut wgpu::ComputePass<'_>, index: usize) {
        let offset = [(index * STEP_STRIDE as usize) as u32];
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, if self.reads_step { &offset } else { &[] });
        let [x, y, z] = self.grid;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Seconds that a launch takes at most: on a discrete GPU at a twentieth of what slow ones of its kind are said to do,
/// on others at a tenth, on software adapters at what a core or two do. A model, made to be pessimistic.
fn estimate(device: &Device, launch: &Launch) -> f64 {
    let (flops, bytes) = match device.device.adapter_info().device_type {
        wgpu::DeviceType::DiscreteGpu => (100e9, 10e9),
        wgpu::DeviceType::Cpu => (20e9, 10e9),
        _ => (30e9, 3e9),
    };
    (launch.flop as f64 / flops).max(launch.bytes as f64 / bytes).max(1e-6)
}

/// Compiles a program's pipelines and lets them go; gives their number. A browser or driver that keeps what it
/// compiled has them at hand when [`Gpu::new`] asks for them.
///
/// # Errors
/// [`Error::Device`] when the device refuses a pipeline.
pub async fn compile(device: &Device, program: &Program) -> Result<usize> {
    device.check()?;
    let wanted = distinct(Phase::ALL.map(|phase| program.launches(phase)));
    Ok(pipelines(device, wanted).await?.len())
}

/// A plan on a GPU.
pub struct Gpu {
    device: Device,
    buffers: Vec<wgpu::Buffer>,
    steps: wgpu::Buffer,
    /// Of each phase.
    dispatches: [Vec<Dispatch>; 4],
    caught: Vec<Caught>,
    dispatched: u64,
    pipelines: usize,
}

impl Gpu {
    /// Makes the program's buffers, pipelines and bind groups.
    ///
    /// # Errors
    /// [`Error::Limit`] when a buffer outgrows the device, [`Error::Device`] when it refuses a pipeline.
    pub async fn new(device: &Device, program: &Program) -> Result<Gpu> {
        device.check()?;
        program.fits(device.memory())?;
        let phases = Phase::ALL.map(|phase| program.launches(phase));
        let uniform = uniform_ends(phases);
        let scopes = device.scopes();
        let buffers: Vec<wgpu::Buffer> = program
            .buffers
            .iter()
            .enumerate()
            .map(|(id, buffer)| {
                let uniform = uniform.get(&id);
                let made = device.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(&buffer.name),
                    size: (4 * buffer.len as u64).max(uniform.copied().unwrap_or(0)),
                    usage: wgpu::BufferUsages::STORAGE
                        | wgpu::BufferUsages::COPY_SRC
                        | wgpu::BufferUsages::COPY_DST
                        | match uniform {
                            Some(_) => wgpu::BufferUsages::UNIFORM,
                            None => wgpu::BufferUsages::empty(),
                        },
                    mapped_at_creation: false,
                });
                if let Some(content) = &buffer.content {
                    device.queue.write_buffer(&made, 0, bytemuck::cast_slice(content));
                }
                made
            })
            .collect();
        let steps = device.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("steps"),
            size: STEPS as u64 * STEP_STRIDE,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        finish(device, scopes.pop()).await?;

        let pipelines = pipelines(device, distinct(phases)).await?;
        let scopes = device.scopes();
        let dispatches = phases.map(|launches| {
            launches
                .iter()
                .map(|launch| {
                    let (pipeline, layout) = &pipelines[&key(launch)];
                    Dispatch {
                        pipeline: pipeline.clone(),
                        bindings: bind(device, layout, launch, &buffers, &steps),
                        grid: launch.grid,
                        reads_step: launch.reads_step(),
                        seconds: estimate(device, launch),
                    }
                })
                .collect()
        });
        finish(device, scopes.pop()).await?;
        let (device, pipelines) = (device.clone(), pipelines.len());
        Ok(Gpu { device, buffers, steps, dispatches, caught: Vec::new(), dispatched: 0, pipelines })
    }

    /// What runs the plan, for messages.
    pub fn name(&self) -> String {
        self.device.name().to_owned()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The buffer that a range lies in, at four bytes a word, to be bound in passes of the caller's own on the same
    /// device: read-only storage, or the source of a copy. What is written to it there is the caller's affair.
    pub fn buffer(&self, range: Range) -> &wgpu::Buffer {
        &self.buffers[range.buffer.0]
    }

    /// Dispatches recorded so far, counted where they are recorded.
    pub fn dispatched(&self) -> u64 {
        self.dispatched
    }

    /// Distinct pipelines.
    pub fn pipelines(&self) -> usize {
        self.pipelines
    }

    /// Writes `words` to the start of a range, after all that was run so far.
    pub fn write(&mut self, range: Range, words: &[u32]) {
        let scopes = self.device.scopes();
        let buffer = &self.buffers[range.buffer.0];
        self.device.queue.write_buffer(buffer, 4 * range.start as u64, bytemuck::cast_slice(words));
        self.caught.extend(scopes.pop());
    }

    /// Records the launches of a phase once for each step, [`STEPS`] to a submission.
    ///
    /// # Errors
    /// What the device has reported by now, of this call or an earlier one.
    pub fn run(&mut self, phase: Phase, steps: &[Step]) -> Result<()> {
        self.report()?;
        let scopes = self.device.scopes();
        for steps in steps.chunks(STEPS) {
            self.upload(steps);
            let dispatches = self.dispatches(phase);
            let all =
                (0..steps.len()).flat_map(|index| dispatches.iter().map(move |dispatch| (index, dispatch)));
            let mut all = all.peekable();
            while all.peek().is_some() {
                let mut encoder = self.device.device.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                let mut seconds = 0.0;
                // A submission has a launch at least, and no more than the device has patience for.
                while let Some((index, dispatch)) =
                    all.next_if(|(_, next)| seconds == 0.0 || seconds + next.seconds <= PATIENCE)
                {
                    dispatch.record(&mut pass, index);
                    seconds += dispatch.seconds;
                }
                drop(pass);
                self.device.queue.submit([encoder.finish()]);
            }
            self.dispatched += (steps.len() * dispatches.len()) as u64;
        }
        self.caught.extend(scopes.pop());
        self.report()
    }

    fn dispatches(&self, phase: Phase) -> &[Dispatch] {
        &self.dispatches[phase as usize]
    }

    /// Puts at most [`STEPS`] steps into the uniform buffer.
    fn upload(&self, steps: &[Step]) {
        let mut bytes = vec![0; steps.len() * STEP_STRIDE as usize];
        for (slot, step) in bytes.chunks_exact_mut(STEP_STRIDE as usize).zip(steps) {
            slot[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        self.device.queue.write_buffer(&self.steps, 0, &bytes);
    }

    /// Records one launch of a phase `times` times, in one pass and one submission unless a slow device would need too
    /// long for it; for measurements.
    ///
    /// # Errors
    /// [`Error::Settings`] when the phase has no such launch, and what the device has reported by now.
    pub fn repeat(&mut self, phase: Phase, launch: usize, times: usize, step: Step) -> Result<()> {
        self.report()?;
        let dispatches = self.dispatches(phase);
        let Some(dispatch) = dispatches.get(launch) else {
            return Err(Error::Settings(format!("launch {launch} of {}", dispatches.len())));
        };
        let scopes = self.device.scopes();
        self.upload(&[step]);
        let most = (PATIENCE / dispatch.seconds).max(1.0) as usize;
        for at in (0..times).step_by(most) {
            let mut encoder = self.device.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for _ in at..times.min(at + most) {
                dispatch.record(&mut pass, 0);
            }
            drop(pass);
            self.device.queue.submit([encoder.finish()]);
        }
        self.dispatched += times as u64;
        self.caught.extend(scopes.pop());
        self.report()
    }

    /// Runs the launches of a phase once for each step, each launch in a pass of its own between two timestamps
    /// of the device; gives the nanoseconds of every launch, step after step.
    ///
    /// # Errors
    /// [`Error::Device`] when the device was opened without [`wgpu::Features::TIMESTAMP_QUERY`], and what it
    /// reports.
    pub async fn time(&mut self, phase: Phase, steps: &[Step]) -> Result<Vec<f64>> {
        self.report()?;
        if !self.device.has_timestamps() {
            return Err(Error::Device(format!("{} was opened without timestamps", self.device.name())));
        }
        let launches = self.dispatches(phase).len().max(1);
        let seconds: f64 = self.dispatches(phase).iter().map(|dispatch| dispatch.seconds).sum();
        let patient = (PATIENCE / seconds.max(1e-6)) as usize;
        let most = (wgpu::QUERY_SET_MAX_QUERIES as usize / (2 * launches)).min(patient).clamp(1, STEPS);
        let mut nanoseconds = Vec::with_capacity(steps.len() * launches);
        for steps in steps.chunks(most) {
            let scopes = self.device.scopes();
            self.upload(steps);
            let count = 2 * (steps.len() * launches) as u32;
            let queries = self.device.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let buffer = |usage| {
                self.device.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("timestamps"),
                    size: 8 * u64::from(count),
                    usage: usage | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            };
            let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let staging = buffer(wgpu::BufferUsages::MAP_READ);
            let mut encoder = self.device.device.create_command_encoder(&Default::default());
            let mut query = 0;
            for index in 0..steps.len() {
                for dispatch in self.dispatches(phase) {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                            query_set: &queries,
                            beginning_of_pass_write_index: Some(query),
                            end_of_pass_write_index: Some(query + 1),
                        }),
                    });
                    dispatch.record(&mut pass, index);
                    query += 2;
                }
            }
            encoder.resolve_query_set(&queries, 0..query, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, 8 * u64::from(count));
            let submission = self.device.queue.submit([encoder.finish()]);
            self.dispatched += u64::from(query / 2);
            let mapping = Mapping::new(&self.device, staging, submission);
            self.caught.extend(scopes.pop());
            let words = Readback::waiting(mapping).await?;
            let ticks = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair[1]) << 32;
            let period = f64::from(self.device.queue.get_timestamp_period());
            nanoseconds.extend(
                words
                    .chunks_exact(4)
                    .map(|four| ticks(&four[2..]).saturating_sub(ticks(&four[..2])) as f64 * period),
            );
        }
        self.report()?;
        Ok(nanoseconds)
    }

    /// A copy of a range, on its way.
    pub fn read(&mut self, range: Range) -> Readback {
        if let Err(error) = self.report() {
            return Readback::failed(error);
        }
        let size = 4 * range.len as u64;
        let scopes = self.device.scopes();
        let staging = self.device.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let buffer = &self.buffers[range.buffer.0];
        encoder.copy_buffer_to_buffer(buffer, 4 * range.start as u64, &staging, 0, size);
        let submission = self.device.queue.submit([encoder.finish()]);
        let mapping = Mapping::new(&self.device, staging, submission);
        self.caught.extend(scopes.pop());
        match self.report() {
            Ok(()) => Readback::waiting(mapping),
            Err(error) => Readback::failed(error),
        }
    }

    /// The errors that have arrived so far. Never waits.
    fn report(&mut self) -> Result<()> {
        // A loss is told only to those who poll; in a browser this does nothing.
        let _ = self.device.device.poll(wgpu::PollType::Poll);
        let mut first = self.device.check();
        let device = &self.device;
        self.caught.retain_mut(|caught| match poll_once(caught.as_mut()) {
            Some(Some(error)) => {
                if first.is_ok() {
                    first = Err(device.error(&error));
                }
                false
            }
            Some(None) => false,
            None => true,
        });
        first
    }
}

/// A browser frees what is dropped when it next collects its garbage, and does not know how large it is.
#[cfg(target_arch = "wasm32")]
impl Drop for Gpu {
    fn drop(&mut self) {
        self.buffers.iter().chain([&self.steps]).for_each(wgpu::Buffer::destroy);
    }
}
