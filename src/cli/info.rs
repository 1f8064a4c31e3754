//! `lenet info`: the devices of this machine, and which one `--device auto` takes.

use lenet::backend::gpu;
use serde_json::json;

use super::device::{self, FEATURES, limits};
use super::failure::Outcome;
use super::say::{emit, emit_json};

/// Arguments of `lenet info`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

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
                let mut told = device::about(adapter);
                told["index"] = index.into();
                told["default_limits"] = gpu::suffices(adapter).into();
                told
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
