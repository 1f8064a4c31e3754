//! The GPU backend: a plan's buffers, pipelines and bind groups on a `wgpu` device.
//!
//! Everything that can fail is caught by error scopes and comes back as an [`Error`]; many steps are recorded
//! into one compute pass and one submission.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::{Readback, poll_once};
use crate::error::{Error, Result};
use crate::kernels::shaders::{Access, Entry};
use crate::kernels::{Launch, Range, SHADERS, Step, UNIFORM_BYTES};
use crate::plan::{Memory, Phase, Program};

/// Steps that one submission may hold.
pub const STEPS: usize = 256;

/// Steps lie this far apart in their uniform buffer: WebGPU's strictest alignment of a dynamic offset.
const STEP_STRIDE: u64 = 256;

/// A device and its queue, made here or lent by an embedder.
#[derive(Clone)]
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    /// Why the device was lost, once it was.
    lost: Arc<Mutex<Option<String>>>,
}

impl Device {
    /// Takes a device that the embedder already has, with at least [`wgpu::Limits::default`].
    ///
    /// Its error and loss handlers stay the embedder's: failures of this crate's own calls are caught in
    /// error scopes.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Device {
        let name = device.adapter_info().name;
        Device { device, queue, name, lost: Arc::default() }
    }

    /// Opens a device on `adapter` with exactly the default limits, so that a kernel that outgrows them fails
    /// on every machine and not on a user's only.
    ///
    /// # Errors
    /// [`Error::Device`] when the adapter has less than the default limits or refuses.
    pub async fn open(adapter: &wgpu::Adapter) -> Result<Device> {
        Device::open_with(adapter, wgpu::Features::empty()).await
    }

    /// As [`Device::open`], and with those of `features` that the adapter has, such as
    /// [`wgpu::Features::TIMESTAMP_QUERY`] for [`Gpu::time`].
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_with(adapter: &wgpu::Adapter, features: wgpu::Features) -> Result<Device> {
        let info = adapter.get_info();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("lenet"),
                required_features: features & adapter.features(),
                required_limits: wgpu::Limits::default(),
                ..Default::default()
            })
            .await
            .map_err(|error| Error::Device(format!("{}: {error}", info.name)))?;
        let mut made = Device::new(device, queue);
        // Browsers may keep the name to themselves.
        let name = if info.name.is_empty() { "GPU" } else { &info.name };
        made.name = format!("{name} ({}, {})", kind(info.device_type), info.backend);
        let lost = made.lost.clone();
        made.device.set_device_lost_callback(move |reason, message| {
            // Dropping the device is not a loss that anyone waits for.
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{message} ({reason:?})"));
        });
        Ok(made)
    }

    /// The adapter's name, kind and API.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Invocations that fill the device, for [`Options::fill`](crate::plan::Options::fill): a model by the kind
    /// of adapter, not a measurement.
    pub fn fill(&self) -> usize {
        match self.device.adapter_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 16_384,
            wgpu::DeviceType::Cpu => 256,
            _ => 4_096,
        }
    }

    /// The largest buffer that it binds. WebGPU does not tell how much fits in all.
    pub fn memory(&self) -> Memory {
        let limits = self.device.limits();
        let buffer = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        Memory { buffer, ..Memory::UNBOUNDED }
    }

    /// Why the device was lost, if it was and this crate opened it.
    pub fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether [`Gpu::time`] can take the device's own time.
    pub fn has_timestamps(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// The device itself.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    fn check(&self) -> Result<()> {
        self.lost().map_or(Ok(()), |reason| Err(Error::DeviceLost(reason)))
    }

    /// What an error of the device is: its loss, which is kept for all later calls, or the error itself.
    fn error(&self, error: &dyn std::fmt::Display) -> Error {
        if self.check().is_ok() && self.is_gone() {
            let reason = "its owner's handler was told why, if it has one".to_string();
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        }
        self.check().err().unwrap_or_else(|| Error::Device(error.to_string()))
    }

    /// Whether a device, possibly one whose loss only its owner's handler is told, takes no work any more: then not
    /// even the smallest buffer can be mapped.
    fn is_gone(&self) -> bool {
        // A browser's device tells its loss in time, and answers nothing at once.
        if cfg!(target_arch = "wasm32") {
            return false;
        }
        let scopes = self.scopes();
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("probe"),
            size: 4,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let refused = Arc::new(AtomicBool::new(false));
        let told = refused.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            told.store(result.is_err(), Ordering::Relaxed);
        });
        drop(scopes.pop());
        refused.load(Ordering::Relaxed)
    }

    /// Opens error scopes; the future of what they catch comes from [`Scopes::pop`].
    fn scopes(&self) -> Scopes {
        Scopes([
            self.device.push_error_scope(wgpu::ErrorFilter::Internal),
            self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            self.device.push_error_scope(wgpu::ErrorFilter::Validation),
        ])
    }
}

/// What an adapter is, in words.
pub fn kind(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software on the CPU",
        wgpu::DeviceType::Other => "of unknown kind",
    }
}

/// Every adapter of this machine.
pub async fn adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

/// Whether an adapter grants all that the kernels may ask for.
pub fn suffices(adapter: &wgpu::Adapter) -> bool {
    wgpu::Limits::default().check_limits(&adapter.limits())
}

/// The best of the adapters that suffice: a discrete GPU before an integrated one before any other; a software
/// adapter only if it is asked for, and then last.
pub fn best(adapters: &[wgpu::Adapter], software: bool) -> Option<&wgpu::Adapter> {
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    let usable = |adapter: &&wgpu::Adapter| suffices(adapter) && (software || rank(adapter) < 4);
    adapters.iter().filter(usable).min_by_key(|adapter| rank(adapter))
}

struct Scopes([wgpu::ErrorScopeGuard; 3]);

#[cfg(not(target_arch = "wasm32"))]
type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_arch = "wasm32")]
type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

impl Scopes {
    /// The first error of each scope, innermost first. Pops at once, whenever the futures are awaited.
    fn pop(self) -> [Caught; 3] {
        let [internal, memory, validation] = self.0;
        let validation = Box::pin(validation.pop());
        let memory = Box::pin(memory.pop());
        [validation, memory, Box::pin(internal.pop())]
    }
}

/// A launch, ready to be recorded.
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    grid: [u32; 3],
    reads_step: bool,
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

/// A plan on a GPU.
pub struct Gpu {
    device: Device,
    buffers: Vec<wgpu::Buffer>,
    steps: wgpu::Buffer,
    train: Vec<Dispatch>,
    evaluate: Vec<Dispatch>,
    predict: Vec<Dispatch>,
    caught: Vec<Caught>,
    dispatched: u64,
    pipelines: usize,
}

/// What tells two pipelines apart.
type Key = (&'static str, &'static str, Vec<(&'static str, u64)>);

fn key(launch: &Launch) -> Key {
    let constants = launch.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect();
    (launch.shader.name, launch.entry.name, constants)
}

impl Gpu {
    /// Makes the program's buffers, pipelines and bind groups.
    ///
    /// # Errors
    /// [`Error::Limit`] when a buffer outgrows the device, [`Error::Device`] when it refuses a pipeline.
    pub async fn new(device: &Device, program: &Program) -> Result<Gpu> {
        device.check()?;
        program.fits(device.memory())?;
        let phases = [&program.train, &program.evaluate, &program.predict];
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

        let mut wanted: HashMap<Key, &Launch> = HashMap::new();
        for launch in phases.into_iter().flatten() {
            wanted.entry(key(launch)).or_insert(launch);
        }
        let pipelines = pipelines(device, wanted).await?;
        let scopes = device.scopes();
        let [train, evaluate, predict] = phases.map(|launches| {
            launches
                .iter()
                .map(|launch| {
                    let (pipeline, layout) = &pipelines[&key(launch)];
                    Dispatch {
                        pipeline: pipeline.clone(),
                        bindings: bind(device, layout, launch, &buffers, &steps),
                        grid: launch.grid,
                        reads_step: launch.reads_step(),
                    }
                })
                .collect()
        });
        finish(device, scopes.pop()).await?;
        let (device, pipelines) = (device.clone(), pipelines.len());
        Ok(Gpu {
            device,
            buffers,
            steps,
            train,
            evaluate,
            predict,
            caught: Vec::new(),
            dispatched: 0,
            pipelines,
        })
    }

    /// What runs the plan, for messages.
    pub fn name(&self) -> String {
        self.device.name.clone()
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
            let mut encoder = self.device.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let dispatches = self.dispatches(phase);
            for index in 0..steps.len() {
                for dispatch in dispatches {
                    dispatch.record(&mut pass, index);
                }
            }
            drop(pass);
            self.dispatched += (steps.len() * dispatches.len()) as u64;
            self.device.queue.submit([encoder.finish()]);
        }
        self.caught.extend(scopes.pop());
        self.report()
    }

    fn dispatches(&self, phase: Phase) -> &[Dispatch] {
        match phase {
            Phase::Train => &self.train,
            Phase::Evaluate => &self.evaluate,
            Phase::Predict => &self.predict,
        }
    }

    /// Puts at most [`STEPS`] steps into the uniform buffer.
    fn upload(&self, steps: &[Step]) {
        let mut bytes = vec![0; steps.len() * STEP_STRIDE as usize];
        for (slot, step) in bytes.chunks_exact_mut(STEP_STRIDE as usize).zip(steps) {
            slot[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        self.device.queue.write_buffer(&self.steps, 0, &bytes);
    }

    /// Records one launch of a phase `times` times, in one pass and one submission; for measurements.
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
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..times {
            dispatch.record(&mut pass, 0);
        }
        drop(pass);
        self.device.queue.submit([encoder.finish()]);
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
            return Err(Error::Device(format!("{} was opened without timestamps", self.device.name)));
        }
        let launches = self.dispatches(phase).len().max(1);
        let most = (wgpu::QUERY_SET_MAX_QUERIES as usize / (2 * launches)).clamp(1, STEPS);
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

/// The buffers that are bound as uniforms, and where the last such binding ends, in bytes.
fn uniform_ends(phases: [&Vec<Launch>; 3]) -> HashMap<usize, u64> {
    let mut ends = HashMap::new();
    for launch in phases.into_iter().flatten() {
        let stored = launch.entry.bindings.iter().filter(|info| info.access != Access::Step);
        for (info, (_, range)) in stored.zip(&launch.bindings) {
            if info.access == Access::Uniform {
                let end = 4 * range.start as u64 + UNIFORM_BYTES as u64;
                ends.entry(range.buffer.0).and_modify(|most: &mut u64| *most = end.max(*most)).or_insert(end);
            }
        }
    }
    ends
}

async fn finish(device: &Device, caught: [Caught; 3]) -> Result<()> {
    for error in caught {
        if let Some(error) = error.await {
            return Err(device.error(&error));
        }
    }
    device.check()
}

/// Compiles every pipeline, on all cores where there are threads.
async fn pipelines<'a>(
    device: &Device,
    wanted: HashMap<Key, &'a Launch>,
) -> Result<HashMap<Key, (wgpu::ComputePipeline, wgpu::BindGroupLayout)>> {
    let scopes = device.scopes();
    let mut modules = HashMap::new();
    for shader in SHADERS.iter().filter(|shader| wanted.keys().any(|key| key.0 == shader.name)) {
        let module = device.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(shader.file),
            source: wgpu::ShaderSource::Wgsl(shader.source.into()),
        });
        modules.insert(shader.name, module);
    }
    finish(device, scopes.pop()).await?;
    let make = |(key, launch): (Key, &'a Launch)| {
        // Error scopes belong to the thread that opened them.
        let scopes = device.scopes();
        let layout = layout(device, launch.entry);
        let pipeline_layout = device.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(launch.entry.name),
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&format!("{}:{}", launch.shader.name, launch.entry.name)),
            layout: Some(&pipeline_layout),
            module: &modules[launch.shader.name],
            entry_point: Some(launch.entry.name),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &launch.constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        (key, pipeline, layout, scopes.pop())
    };
    #[cfg(not(target_arch = "wasm32"))]
    let made: Vec<_> = {
        use rayon::prelude::*;
        wanted.into_par_iter().map(make).collect()
    };
    #[cfg(target_arch = "wasm32")]
    let made: Vec<_> = wanted.into_iter().map(make).collect();
    let mut pipelines = HashMap::new();
    for (key, pipeline, layout, caught) in made {
        finish(device, caught).await?;
        pipelines.insert(key, (pipeline, layout));
    }
    Ok(pipelines)
}

fn layout(device: &Device, entry: &Entry) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = entry
        .bindings
        .iter()
        .map(|info| wgpu::BindGroupLayoutEntry {
            binding: info.binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match info.access {
                    Access::Step | Access::Uniform => wgpu::BufferBindingType::Uniform,
                    Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: info.access == Access::Step,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(entry.name),
        entries: &entries,
    })
}

fn bind(
    device: &Device,
    layout: &wgpu::BindGroupLayout,
    launch: &Launch,
    buffers: &[wgpu::Buffer],
    steps: &wgpu::Buffer,
) -> wgpu::BindGroup {
    let mut ranges = launch.bindings.iter();
    let entries: Vec<_> = launch
        .entry
        .bindings
        .iter()
        .filter_map(|info| {
            let resource = if info.access == Access::Step {
                wgpu::BufferBinding {
                    buffer: steps,
                    offset: 0,
                    size: wgpu::BufferSize::new(size_of::<Step>() as u64),
                }
            } else {
                // A launch's bindings follow the order of its entry's.
                let (_, range) = ranges.next()?;
                let words = if info.access == Access::Uniform { UNIFORM_BYTES / 4 } else { range.len };
                wgpu::BufferBinding {
                    buffer: &buffers[range.buffer.0],
                    offset: 4 * range.start as u64,
                    size: wgpu::BufferSize::new(4 * words as u64),
                }
            };
            Some(wgpu::BindGroupEntry {
                binding: info.binding,
                resource: wgpu::BindingResource::Buffer(resource),
            })
        })
        .collect();
    device.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(launch.entry.name),
        layout,
        entries: &entries,
    })
}

/// A staging buffer that is being mapped.
pub struct Mapping {
    device: Device,
    staging: wgpu::Buffer,
    /// The submission that fills the buffer.
    #[cfg(not(target_arch = "wasm32"))]
    submission: wgpu::SubmissionIndex,
    state: Arc<Mutex<Mapped>>,
    #[cfg(not(target_arch = "wasm32"))]
    watched: bool,
}

/// Wakes whoever waits, without holding the lock: the waker may ask at once.
fn wake(state: &Mutex<Mapped>) {
    let waker = state.lock().unwrap_or_else(PoisonError::into_inner).waker.take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[derive(Default)]
struct Mapped {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

impl Mapping {
    fn new(device: &Device, staging: wgpu::Buffer, submission: wgpu::SubmissionIndex) -> Mapping {
        #[cfg(target_arch = "wasm32")]
        let _ = submission;
        let state = Arc::new(Mutex::new(Mapped::default()));
        let told = state.clone();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            told.lock().unwrap_or_else(PoisonError::into_inner).result = Some(result);
            wake(&told);
        });
        Mapping {
            device: device.clone(),
            staging,
            #[cfg(not(target_arch = "wasm32"))]
            submission,
            state,
            #[cfg(not(target_arch = "wasm32"))]
            watched: false,
        }
    }

    /// The words, if they have arrived.
    pub(super) fn try_take(&mut self) -> Option<Result<Vec<u32>>> {
        // Does nothing in a browser, where the event loop runs the callback.
        let polled = self.device.device.poll(wgpu::PollType::Poll);
        let result = self.state.lock().unwrap_or_else(PoisonError::into_inner).result.take();
        match (result, polled) {
            (Some(Ok(())), _) => Some(match self.staging.get_mapped_range(..) {
                Ok(view) => Ok(bytemuck::pod_collect_to_vec::<u8, u32>(&view)),
                Err(error) => Err(self.device.error(&error)),
            }),
            (Some(Err(error)), _) => {
                Some(Err(self.device.check().err().unwrap_or_else(|| Error::DeviceLost(error.to_string()))))
            }
            (None, Err(error)) => Some(Err(self.device.error(&error))),
            (None, Ok(_)) => self.device.check().err().map(Err),
        }
    }

    /// Has `waker` woken when the words arrive.
    pub(super) fn wake(&mut self, waker: &Waker) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waker = Some(waker.clone());
        #[cfg(not(target_arch = "wasm32"))]
        if !std::mem::replace(&mut self.watched, true) {
            let (device, state) = (self.device.device.clone(), self.state.clone());
            // Not for all that was submitted: the device's owner may be far ahead by then.
            let wait =
                wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
            // Natively someone has to wait for the device: a thread does, so that no executor has to.
            let watch = std::thread::Builder::new().name("lenet readback".into());
            let spawned = watch.spawn(move || {
                let _ = device.poll(wait);
                self::wake(&state);
            });
            if spawned.is_err() {
                // Without a thread the executor has to ask again by itself.
                self.watched = false;
                waker.wake_by_ref();
            }
        }
    }
}

/// So that a long run's memory stays flat in a browser, too.
impl Drop for Mapping {
    fn drop(&mut self) {
        self.staging.destroy();
    }
}
