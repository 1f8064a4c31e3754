//! `lenet info`: the devices of this machine, and which one `--device auto` takes.

use lenet::backend::gpu;
use serde_json::json;

use super::device;
use super::failure::Outcome;
use super::say::{emit, emit_json};

/// Arguments of `lenet info`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Limits that the kernels depend on, by name.
fn limits(limits: &wgpu::Limits) -> [(&'static str, u64); 9] {
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
const FEATURES: [(&str, wgpu::Features); 4] = [
    ("timestamp queries", wgpu::Features::TIMESTAMP_QUERY),
    ("16-bit floats", wgpu::Features::SHADER_F16),
    ("subgroups", wgpu::Features::SUBGROUP),
    ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
];

/// Runs `lenet info`.
pub fn run(args: &Args) -> Outcome {
    let adapters = device::adapters();
    let (chosen, why) = device::automatic(&adapters);
    let chosen = chosen.and_then(|chosen| adapters.iter().position(|adapter| std::ptr::eq(adapter, chosen)));
    let least = limits(&wgpu::Limits::default());
    if args.json {
        let list: Vec<_> = adapters
            .iter()
            .enumerate()
            .map(|(index, adapter)| {
                let info = adapter.get_info();
                let features: serde_json::Map<_, _> = FEATURES
                    .iter()
                    .map(|(name, feature)| ((*name).into(), adapter.features().contains(*feature).into()))
                    .collect();
                let limits: serde_json::Map<_, _> = limits(&adapter.limits())
                    .map(|(name, value)| (name.into(), value.into()))
                    .into_iter()
                    .collect();
                json!({
                    "index": index,
                    "name": info.name,
                    "kind": gpu::kind(info.device_type),
                    "backend": info.backend.to_string(),
                    "driver": info.driver,
                    "driver_info": info.driver_info,
                    "default_limits": gpu::suffices(adapter),
                    "limits": limits,
                    "features": features,
                })
            })
            .collect();
        return emit_json(&json!({
            "cpu": device::cpu_name(),
            "adapters": list,
            "auto": { "adapter": chosen, "why": why },
        }));
    }
    let mut text = format!("cpu  {}\n", device::cpu_name());
    for (index, adapter) in adapters.iter().enumerate() {
        let info = adapter.get_info();
        let driver = format!("{} {}", info.driver, info.driver_info);
        text += &format!("\n{index}  {}\n", info.name);
        text += &format!("   kind      {}, through {}\n", gpu::kind(info.device_type), info.backend);
        if !driver.trim().is_empty() {
            text += &format!("   driver    {}\n", driver.trim());
        }
        let has: Vec<&str> = FEATURES
            .iter()
            .filter(|(_, feature)| adapter.features().contains(*feature))
            .map(|(name, _)| *name)
            .collect();
        text += &format!(
            "   features  {}\n",
            if has.is_empty() { "none of interest".into() } else { has.join(", ") }
        );
        let verdict = if gpu::suffices(adapter) { "at least" } else { "below" };
        text += &format!("   limits    {verdict} WebGPU's defaults\n");
        for ((name, value), (_, default)) in limits(&adapter.limits()).into_iter().zip(least) {
            if value != default {
                text += &format!("             {name} {value}, default {default}\n");
            }
        }
    }
    let taken = match chosen {
        Some(index) => format!("{index}  {}", adapters[index].get_info().name),
        None => "cpu".into(),
    };
    text += &format!("\n--device auto takes {taken} ({why})\n");
    emit(&text)
}
