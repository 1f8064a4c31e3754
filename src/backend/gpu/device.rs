//! A device and its queue, and which adapter to make them of.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::plan::{Memory, Target};

/// A device and its queue, made here or lent by an embedder.
#[derive(Clone)]
pub struct Device {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
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
    /// on every machine and not on a user's only; but with buffers and bindings as large as the adapter has them.
    ///
    /// # Errors
    /// [`Error::Device`] when the adapter has less than the default limits or refuses.
    pub async fn open(adapter: &wgpu::Adapter) -> Result<Device> {
        Device::open_with(adapter, wgpu::Features::empty()).await
    }

    /// As [`Device::open`], and with those of `features` that the adapter has, such as
    /// [`wgpu::Features::TIMESTAMP_QUERY`] for [`Gpu::time`](super::Gpu::time).
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_with(adapter: &wgpu::Adapter, features: wgpu::Features) -> Result<Device> {
        let info = adapter.get_info();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("lenet"),
                required_features: features & adapter.features(),
                required_limits: limits(adapter),
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

    /// What the device is like, for [`Options::target`](crate::plan::Options::target): a model by the kind of
    /// adapter, not a measurement.
    pub fn target(&self) -> Target {
        match self.device.adapter_info().device_type {
            wgpu::DeviceType::DiscreteGpu => Target::DISCRETE,
            wgpu::DeviceType::Cpu => Target::CPU,
            _ => Target::INTEGRATED,
        }
    }

    /// The largest buffer that it binds. WebGPU does not tell how much fits in all.
    pub fn memory(&self) -> Memory {
        let limits = self.device.limits();
        let buffer = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size).min(LARGEST);
        Memory { buffer, ..Memory::UNBOUNDED }
    }

    /// Why the device was lost, if it was and this crate opened it.
    pub fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether [`Gpu::time`](super::Gpu::time) can take the device's own time.
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

    /// Submits nothing. Some browsers look after a buffer that is being mapped only when something is submitted: a page
    /// that has waited for some milliseconds calls this again and again.
    pub fn nudge(&self) {
        self.queue.submit([]);
    }

    pub(super) fn check(&self) -> Result<()> {
        self.lost().map_or(Ok(()), |reason| Err(Error::DeviceLost(reason)))
    }

    /// What an error of the device is: its loss, which is kept for all later calls, or the error itself.
    pub(super) fn error(&self, error: &dyn std::fmt::Display) -> Error {
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
    pub(super) fn scopes(&self) -> Scopes {
        Scopes([
            self.device.push_error_scope(wgpu::ErrorFilter::Internal),
            self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            self.device.push_error_scope(wgpu::ErrorFilter::Validation),
        ])
    }
}

/// The largest buffer that is made, in bytes: drivers work out places within one in signed words of 32 bits.
const LARGEST: u64 = (1 << 31) - 4;

/// What is asked of an adapter: the defaults, but its own largest buffer and storage binding.
fn limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let own = adapter.limits();
    let least = wgpu::Limits::default();
    wgpu::Limits {
        max_buffer_size: own.max_buffer_size.max(least.max_buffer_size),
        max_storage_buffer_binding_size: own
            .max_storage_buffer_binding_size
            .max(least.max_storage_buffer_binding_size),
        ..least
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
/// adapter only if it is asked for, and then last. Of the same kind Vulkan and Metal before DX12, whose old shader
/// compiler, where no newer one lies beside the program, takes minutes over large register tiles, and any of them before
/// OpenGL.
pub fn best(adapters: &[wgpu::Adapter], software: bool) -> Option<&wgpu::Adapter> {
    let rank = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        rank(info.device_type, info.backend)
    };
    let usable = |adapter: &&wgpu::Adapter| suffices(adapter) && (software || rank(adapter).0 < SOFTWARE);
    adapters.iter().filter(usable).min_by_key(|adapter| rank(adapter))
}

/// The first of [`rank`] for an adapter that runs on the CPU.
const SOFTWARE: u8 = 4;

/// The order in which adapters are taken, by their kind and then by their API.
fn rank(kind: wgpu::DeviceType, api: wgpu::Backend) -> (u8, u8) {
    let by_kind = match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => SOFTWARE,
    };
    let by_api = match api {
        wgpu::Backend::Vulkan | wgpu::Backend::Metal | wgpu::Backend::BrowserWebGpu => 0,
        wgpu::Backend::Dx12 => 1,
        wgpu::Backend::Gl | wgpu::Backend::Noop => 2,
    };
    (by_kind, by_api)
}

pub(super) struct Scopes([wgpu::ErrorScopeGuard; 3]);

#[cfg(not(target_arch = "wasm32"))]
pub(super) type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_arch = "wasm32")]
pub(super) type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

impl Scopes {
    /// The first error of each scope, innermost first. Pops at once, whenever the futures are awaited.
    pub(super) fn pop(self) -> [Caught; 3] {
        let [internal, memory, validation] = self.0;
        let validation = Box::pin(validation.pop());
        let memory = Box::pin(memory.pop());
        [validation, memory, Box::pin(internal.pop())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_go_before_apis() {
        use wgpu::Backend::{Dx12, Gl, Metal, Vulkan};
        use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};
        let best = |adapters: &[(wgpu::DeviceType, wgpu::Backend)]| {
            adapters.iter().copied().min_by_key(|&(kind, api)| rank(kind, api))
        };
        assert_eq!(best(&[(DiscreteGpu, Dx12), (DiscreteGpu, Vulkan)]), Some((DiscreteGpu, Vulkan)));
        assert_eq!(best(&[(IntegratedGpu, Vulkan), (DiscreteGpu, Dx12)]), Some((DiscreteGpu, Dx12)));
        assert_eq!(best(&[(Cpu, Vulkan), (IntegratedGpu, Gl)]), Some((IntegratedGpu, Gl)));
        assert_eq!(best(&[(IntegratedGpu, Gl), (IntegratedGpu, Metal)]), Some((IntegratedGpu, Metal)));
    }
}
