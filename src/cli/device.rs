//! Which device runs the work: `--device auto|cpu|gpu|NAME|INDEX`, and why.

use lenet::backend::{Backend, Cpu, gpu};
use lenet::network::Network;
use lenet::plan::{Memory, Options, Plan, Program, Target};
use lenet::session::Session;
use serde_json::{Map, Value, json};

use super::failure::{Failure, Outcome};

/// What `--device` says when it is not given.
pub const AUTO: &str = "auto";

/// A device, chosen.
pub struct Chosen {
    /// The `--device` that chooses it again.
    pub request: String,
    /// What it is and why, in one line.
    pub line: String,
    gpu: Option<gpu::Device>,
    adapter: Option<wgpu::Adapter>,
}

impl Chosen {
    /// What it is like, for the plan's tiles.
    pub fn target(&self) -> Target {
        self.gpu.as_ref().map_or(Target::CPU, gpu::Device::target)
    }

    /// The GPU, or none where the CPU backend runs.
    pub fn gpu(&self) -> Option<&gpu::Device> {
        self.gpu.as_ref()
    }

    /// The adapter that it was opened on, if it is one.
    pub fn adapter(&self) -> Option<&wgpu::Adapter> {
        self.adapter.as_ref()
    }

    /// Whether it is a GPU, and not the CPU backend or a software adapter on the CPU.
    pub fn is_gpu(&self) -> bool {
        let kind = |device: &gpu::Device| device.device().adapter_info().device_type;
        self.gpu.as_ref().is_some_and(|device| kind(device) != wgpu::DeviceType::Cpu)
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.gpu.as_ref().map_or_else(cpu_name, |device| device.name().to_string())
    }

    /// How much it holds: the limits of a GPU's buffers, and the memory that this machine has to spare where the
    /// work lies in it.
    pub fn memory(&self) -> Memory {
        let own = self.gpu.as_ref().map_or(Memory::UNBOUNDED, gpu::Device::memory);
        let kind = self.gpu.as_ref().map(|device| device.device().adapter_info().device_type);
        if kind == Some(wgpu::DeviceType::DiscreteGpu) {
            own
        } else {
            Memory { total: spare_memory(), ..own }
        }
    }

    /// A plan that fits it.
    pub fn plan(&self, network: &Network, options: &Options) -> lenet::Result<Plan> {
        let options = Options { target: self.target(), ..options.clone() };
        Plan::within(network, &options, self.memory())
    }

    /// Puts a program on it.
    pub fn backend(&self, program: &Program) -> Outcome<Backend> {
        match &self.gpu {
            None => Ok(Backend::cpu(program)),
            Some(device) => Ok(pollster::block_on(Backend::gpu(device, program))?),
        }
    }

    /// Puts a plan on it.
    pub fn session(&self, plan: Plan) -> Outcome<Session> {
        let backend = self.backend(&plan.program)?;
        Ok(Session::new(plan, backend))
    }
}

/// Limits that the kernels depend on, by name.
pub fn limits(limits: &wgpu::Limits) -> [(&'static str, u64); 9] {
    [
        ("max_buffer_size", limits.max_buffer_size),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("max_uniform_buffer_binding_size", limits.max_uniform_buffer_binding_size),
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x.into()),
        ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
        ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
    ]
}

/// Features that faster kernels or the benchmark could use; nothing here needs them.
pub const FEATURES: [(&str, wgpu::Features); 4] = [
    ("timestamp queries", wgpu::Features::TIMESTAMP_QUERY),
    ("16-bit floats", wgpu::Features::SHADER_F16),
    ("subgroups", wgpu::Features::SUBGROUP),
    ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
];

/// All that is known about an adapter.
pub fn about(adapter: &wgpu::Adapter) -> Value {
    let info = adapter.get_info();
    let has = |(name, feature): &(&str, wgpu::Features)| {
        ((*name).to_string(), Value::from(adapter.features().contains(*feature)))
    };
    let limits = limits(&adapter.limits()).map(|(name, value)| (name.to_string(), Value::from(value)));
    json!({
        "name": info.name,
        "kind": gpu::kind(info.device_type),
        "backend": info.backend.to_string(),
        "driver": info.driver,
        "driver_info": info.driver_info,
        "limits": Map::from_iter(limits),
        "features": Map::from_iter(FEATURES.iter().map(has)),
    })
}

/// The processor's name, where the system tells.
pub fn processor() -> Option<String> {
    let mut system = sysinfo::System::new();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let name = system.cpus().first()?.brand().trim().to_string();
    (!name.is_empty()).then_some(name)
}

/// Bytes that can be had without swapping, within the limit of the control group; everything where nobody tells.
fn spare_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|&bytes| bytes > 0);
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, now)| most.saturating_sub(now));
    machine.unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX))
}

/// What the CPU backend calls itself.
pub fn cpu_name() -> String {
    Cpu::new(&Program::default()).name()
}

/// Every adapter, in the order of `lenet info`.
pub fn adapters() -> Vec<wgpu::Adapter> {
    pollster::block_on(gpu::adapters())
}

fn is_software(adapter: &wgpu::Adapter) -> bool {
    adapter.get_info().device_type == wgpu::DeviceType::Cpu
}

/// What `auto` takes, and why: an adapter, or the CPU backend where there is none.
pub fn automatic(adapters: &[wgpu::Adapter]) -> (Option<&wgpu::Adapter>, String) {
    if let Some(adapter) = gpu::best(adapters, false) {
        let why = match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => "the first discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "the first integrated GPU; there is no discrete one",
            _ => "the first GPU; there is neither a discrete nor an integrated one",
        };
        let info = adapter.get_info();
        let twice = |other: &wgpu::Adapter| {
            let other = other.get_info();
            other.backend == wgpu::Backend::Dx12 && other.device == info.device && other.vendor == info.vendor
        };
        if info.backend == wgpu::Backend::Vulkan && adapters.iter().any(twice) {
            return (
                Some(adapter),
                format!("{why}; by Vulkan, not by DX12, whose shader compiler may be an old one"),
            );
        }
        return (Some(adapter), why.into());
    }
    let why = if let Some(software) = gpu::best(adapters, true) {
        format!(
            "no GPU found; software adapter {} is used only on request: --device gpu",
            software.get_info().name
        )
    } else if adapters.is_empty() {
        "no GPU found".into()
    } else {
        format!("no adapter has WebGPU's default limits: {}", list(adapters))
    };
    (None, why)
}

fn list(adapters: &[wgpu::Adapter]) -> String {
    let names: Vec<String> = adapters
        .iter()
        .enumerate()
        .map(|(index, adapter)| {
            let info = adapter.get_info();
            format!("{index} {} ({}, {})", info.name, gpu::kind(info.device_type), info.backend)
        })
        .collect();
    if names.is_empty() { "no adapter".into() } else { names.join("; ") }
}

fn cpu(why: &str) -> Chosen {
    let mut line = format!("device: {}", cpu_name());
    if !why.is_empty() {
        line += &format!(" ({why})");
    }
    Chosen { request: "cpu".into(), line, gpu: None, adapter: None }
}

fn open(adapter: &wgpu::Adapter, why: &str, features: wgpu::Features) -> Outcome<Chosen> {
    let info = adapter.get_info();
    let device = pollster::block_on(gpu::Device::open_with(adapter, features))?;
    let mut line = format!("device: {}", device.name());
    if !why.is_empty() {
        line += &format!(" ({why})");
    }
    Ok(Chosen { request: info.name, line, gpu: Some(device), adapter: Some(adapter.clone()) })
}

/// What a software adapter is chosen for.
const SOFTWARE: &str = "a software adapter, as asked";

/// The devices to compare: those of `requests`, where `all` means the CPU and every adapter that suffices;
/// without any request the CPU and the adapter that `--device gpu` takes. Adapters are opened with timestamps if
/// they have and are to use them.
pub fn compared(requests: &[String], timestamps: bool) -> Outcome<Vec<Chosen>> {
    let features = if timestamps { wgpu::Features::TIMESTAMP_QUERY } else { wgpu::Features::empty() };
    let mut devices = Vec::new();
    for request in requests {
        if request.to_lowercase() == "all" {
            devices.push(cpu(""));
            for adapter in adapters().iter().filter(|adapter| gpu::suffices(adapter)) {
                devices.push(open(adapter, if is_software(adapter) { SOFTWARE } else { "" }, features)?);
            }
        } else {
            devices.push(choose_with(request, features)?);
        }
    }
    if requests.is_empty() {
        devices.push(cpu(""));
        let adapters = adapters();
        if let Some(adapter) = gpu::best(&adapters, true) {
            devices.push(open(
                adapter,
                if is_software(adapter) { "a software adapter" } else { "" },
                features,
            )?);
        }
    }
    Ok(devices)
}

/// Chooses the device that `request` means.
///
/// A request by name or number that cannot be met is an error and never something else.
pub fn choose(request: &str) -> Outcome<Chosen> {
    choose_with(request, wgpu::Features::empty())
}

/// As [`choose`], with those of `features` that the adapter has.
fn choose_with(request: &str, features: wgpu::Features) -> Outcome<Chosen> {
    let lower = request.to_lowercase();
    if lower == "cpu" {
        return Ok(cpu(""));
    }
    let adapters = adapters();
    if lower == AUTO {
        return match automatic(&adapters) {
            (None, why) => Ok(cpu(&why)),
            (Some(adapter), why) => open(adapter, &why, features)
                .or_else(|failure| Ok(cpu(&format!("{} does not open: {failure}", adapter.get_info().name)))),
        };
    }
    let missing = |what: String| Failure::device(format!("{what}; there are cpu and {}", list(&adapters)));
    if lower == "gpu" {
        let adapter = gpu::best(&adapters, true)
            .ok_or_else(|| missing("no adapter with WebGPU's default limits found".into()))?;
        return open(adapter, if is_software(adapter) { SOFTWARE } else { "" }, features);
    }
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name.to_lowercase()).collect();
    let at = match request.parse::<usize>() {
        Ok(index) => (index < adapters.len()).then_some(index),
        // A whole name before a part of one.
        Err(_) => names
            .iter()
            .position(|name| *name == lower)
            .or_else(|| names.iter().position(|name| !lower.is_empty() && name.contains(&lower))),
    };
    let adapter = at
        .and_then(|at| adapters.get(at))
        .ok_or_else(|| missing(format!("no device is called {request:?} or has that number")))?;
    open(adapter, if is_software(adapter) { SOFTWARE } else { "" }, features)
}
