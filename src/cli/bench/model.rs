//! `lenet bench --model`: what a step might take on a GPU that is not here, from its data sheet.
//!
//! A model, not a measurement: every launch is taken to reach the roofline as far as it fills the device.

use lenet::Network;
use lenet::kernels::Launch;
use lenet::plan::{Options, Plan, Target};
use serde_json::{Value, json};

use crate::cli::failure::{Failure, Outcome};
use crate::cli::say::{digits, emit, emit_json, launch_name, table, thousands, time, unit};

/// A GPU's figures.
struct Gpu {
    name: &'static str,
    /// Peak of `f32` multiply-adds in TFLOP/s, by the data sheet, at its boost clock.
    tflops: f64,
    /// Memory bandwidth in GB/s, by the data sheet.
    gigabytes: f64,
    /// Microseconds between two dependent launches of a pass: an assumption.
    overhead: f64,
    /// Invocations that keep every lane busy: four for each, a multiply-add's latency in cycles.
    fill: f64,
    /// Whether it has memory of its own, which decides how the plan cuts its tiles.
    discrete: bool,
}

const fn gpu(
    name: &'static str,
    tflops: f64,
    gigabytes: f64,
    overhead: f64,
    lanes: u32,
    discrete: bool,
) -> Gpu {
    Gpu { name, tflops, gigabytes, overhead, fill: 4.0 * lanes as f64, discrete }
}

/// Public figures of data sheets.
const GPUS: [Gpu; 10] = [
    gpu("NVIDIA H100 SXM", 66.9, 3350.0, 3.0, 16_896, true),
    gpu("NVIDIA RTX 4090", 82.6, 1008.0, 3.0, 16_384, true),
    gpu("NVIDIA RTX 3060 Laptop", 10.9, 336.0, 4.0, 3840, true),
    gpu("AMD RX 7900 XTX", 61.4, 960.0, 4.0, 6144, true),
    gpu("AMD RX 6800 XT", 20.7, 512.0, 4.0, 4608, true),
    gpu("Apple M1", 2.6, 68.3, 8.0, 1024, false),
    gpu("Apple M2", 3.6, 102.4, 8.0, 1280, false),
    gpu("Apple M3 Max", 14.1, 400.0, 8.0, 5120, false),
    gpu("Intel Arc A770", 19.7, 560.0, 8.0, 4096, true),
    gpu("Intel Iris Xe", 2.1, 68.3, 10.0, 768, false),
];

/// What every form of the output calls itself.
const KIND: &str = "model, not a measurement";

/// Seconds that a load from memory takes, and bytes of loads that an invocation keeps on their way: assumptions.
const LATENCY: f64 = 0.5e-6;
const IN_FLIGHT: f64 = 64.0;

const FORMULA: &str = "time = overhead + max(FLOP / (peak · min(1, invocations / fill)), \
                       bytes / min(bandwidth, invocations · 64 B / 0.5 µs))";

const CAVEAT: &str = "Kernels at the roofline, every operand through memory once: real ones are slower where they \
                      wait or recompute, and may be faster where caches serve them.";

impl Gpu {
    /// Seconds of a launch, and what bounds it.
    fn estimate(&self, launch: &Launch) -> (f64, &'static str) {
        let invocations: f64 =
            launch.grid.iter().chain(&launch.entry.workgroup_size).map(|&n| f64::from(n)).product();
        let compute = launch.flop as f64 / (self.tflops * 1e12 * (invocations / self.fill).min(1.0));
        // Little's law: what is on its way, by the time that it takes.
        let bandwidth = (self.gigabytes * 1e9).min(invocations * IN_FLIGHT / LATENCY);
        let memory = launch.bytes as f64 / bandwidth;
        let overhead = self.overhead * 1e-6;
        let longest = compute.max(memory);
        let by = match () {
            () if overhead > longest => "launch",
            () if compute >= memory => "FLOP",
            () => "bytes",
        };
        (overhead + longest, by)
    }

    /// The plan as such a device would be given it.
    fn plan(&self, network: &Network, options: &Options, batch: usize) -> Outcome<Plan> {
        let target = if self.discrete { Target::DISCRETE } else { Target::INTEGRATED };
        Ok(Plan::new(network, &Options { batch, target, ..options.clone() })?)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "tflops": self.tflops,
            "gigabytes_per_second": self.gigabytes,
            "overhead_us": self.overhead,
            "fill": self.fill,
        })
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.name.into(),
            digits(self.tflops),
            digits(self.gigabytes),
            digits(self.overhead),
            thousands(self.fill),
        ]
    }
}

const CONSTANTS: [&str; 5] = ["GPU", "TFLOP/s", "GB/s", "overhead µs", "fill"];

fn constants<'a>(gpus: impl IntoIterator<Item = &'a Gpu>) -> String {
    let mut rows = vec![CONSTANTS.map(String::from).to_vec()];
    rows.extend(gpus.into_iter().map(Gpu::row));
    table(&rows)
}

/// The GPUs that `request` means: one whose name is it or has it as a part, or all of them.
fn chosen(request: &str) -> Outcome<Vec<&'static Gpu>> {
    let lower = request.to_lowercase();
    if lower == "all" {
        return Ok(GPUS.iter().collect());
    }
    let names = |gpus: &[&Gpu]| gpus.iter().map(|gpu| gpu.name).collect::<Vec<_>>().join(", ");
    let part: Vec<&Gpu> = GPUS.iter().filter(|gpu| gpu.name.to_lowercase().contains(&lower)).collect();
    let whole = GPUS.iter().find(|gpu| gpu.name.to_lowercase() == lower);
    match (whole, part.as_slice()) {
        (Some(gpu), _) | (None, &[gpu]) => Ok(vec![gpu]),
        (None, []) => Err(Failure::usage(format!(
            "there is no model of {request:?}; there are {}",
            names(&GPUS.iter().collect::<Vec<_>>())
        ))),
        (None, several) => Err(Failure::usage(format!("{request:?} may be any of {}", names(several)))),
    }
}

/// Runs `lenet bench --model`.
pub fn run(request: &str, network: &Network, options: &Options, batches: &[usize], as_json: bool) -> Outcome {
    if request.to_lowercase() == "list" {
        if as_json {
            let list: Vec<Value> = GPUS.iter().map(Gpu::json).collect();
            return emit_json(&json!({ "kind": KIND, "formula": FORMULA, "gpus": list }));
        }
        return emit(&format!("{}\n{KIND}: {FORMULA}\n", constants(&GPUS)));
    }
    let gpus = chosen(request)?;
    let plans = |gpu: &'static Gpu| {
        batches.iter().map(move |&batch| Ok((batch, gpu.plan(network, options, batch)?.program.train)))
    };
    let title = format!("{}, {}: {KIND}", network.name, options.optimizer.rule.name());
    if as_json {
        let mut list = Vec::new();
        for &gpu in &gpus {
            let steps: Vec<(usize, Vec<Launch>)> = plans(gpu).collect::<Outcome<_>>()?;
            let batches: Vec<Value> =
                steps.iter().map(|(batch, step)| step_json(gpu, *batch, step)).collect();
            list.push(json!({ "gpu": gpu.json(), "batches": batches }));
        }
        return emit_json(&json!({
            "kind": KIND,
            "version": env!("CARGO_PKG_VERSION"),
            "network": network.name,
            "optimizer": options.optimizer.rule.name(),
            "formula": FORMULA,
            "caveat": CAVEAT,
            "estimates": list,
        }));
    }
    let mut text = format!("{title}\n{FORMULA}\n{CAVEAT}\n\n{}", constants(gpus.iter().copied()));
    let head = ["estimate", "batch", "a step", "launches alone", "images/s"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for &gpu in &gpus {
        for step in plans(gpu) {
            let (batch, launches) = step?;
            if gpus.len() == 1 {
                text += &format!("\nbatch {batch} on {}, {KIND}\n{}", gpu.name, step_text(gpu, &launches));
            }
            let seconds: f64 = launches.iter().map(|launch| gpu.estimate(launch).0).sum();
            rows.push(vec![
                gpu.name.into(),
                batch.to_string(),
                time(seconds),
                time(launches.len() as f64 * gpu.overhead * 1e-6),
                thousands((batch as f64 / seconds).round()),
            ]);
        }
    }
    emit(&format!("{text}\n{}{KIND}\n", table(&rows)))
}

fn step_text(gpu: &Gpu, launches: &[Launch]) -> String {
    let head = ["launch", "workgroups", "FLOP", "bytes", "time", "by"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for launch in launches {
        let (seconds, by) = gpu.estimate(launch);
        rows.push(vec![
            launch_name(launch),
            launch.grid.map(|n| n.to_string()).join("×"),
            unit(launch.flop, ""),
            unit(launch.bytes, "B"),
            time(seconds),
            by.into(),
        ]);
    }
    table(&rows)
}

fn step_json(gpu: &Gpu, batch: usize, launches: &[Launch]) -> Value {
    let estimates: Vec<Value> = launches
        .iter()
        .map(|launch| {
            let (seconds, by) = gpu.estimate(launch);
            json!({
                "launch": launch_name(launch),
                "workgroups": launch.grid,
                "flop": launch.flop,
                "bytes": launch.bytes,
                "seconds": seconds,
                "bound_by": by,
            })
        })
        .collect();
    let seconds: f64 = launches.iter().map(|launch| gpu.estimate(launch).0).sum();
    json!({
        "batch": batch,
        "step_s": seconds,
        "images_per_second": batch as f64 / seconds,
        "launches": estimates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_a_part_of_it_chooses() {
        let names =
            |request: &str| chosen(request).map(|gpus| gpus.iter().map(|gpu| gpu.name).collect::<Vec<_>>());
        assert_eq!(names("rtx 4090").unwrap(), ["NVIDIA RTX 4090"]);
        assert_eq!(names("Apple M1").unwrap(), ["Apple M1"]);
        assert_eq!(names("all").unwrap().len(), GPUS.len());
        assert!(names("apple").unwrap_err().message.contains("Apple M1, Apple M2, Apple M3 Max"));
        assert!(names("voodoo").unwrap_err().message.contains("NVIDIA H100 SXM"));
    }

    #[test]
    fn the_estimate_is_its_formula() {
        let network = Network::preset("lenet5").unwrap();
        let device = gpu("it", 1.0, 100.0, 5.0, 1 << 20, true);
        for launch in device.plan(&network, &Options::default(), 64).unwrap().program.train {
            // It never fills so many lanes: operations slow down by the share of invocations.
            let invocations = f64::from(launch.grid.iter().product::<u32>() * 64);
            let compute = launch.flop as f64 / 1e12 / (invocations / f64::from(4 << 20));
            let memory = launch.bytes as f64 / (invocations * 128e6).min(1e11);
            let (seconds, by) = device.estimate(&launch);
            assert!((seconds - 5e-6 - compute.max(memory)).abs() < 1e-12);
            assert_eq!(by == "bytes", memory > compute && memory > 5e-6);
        }
    }
}
