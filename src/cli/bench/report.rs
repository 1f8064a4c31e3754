//! What the benchmark says: tables for people, one JSON object for machines, and an honest last line.

use lenet::backend::gpu;
use serde_json::{Value, json};

use super::roofline;
use super::subject::{Bench, Measured};
use crate::cli::device::{Chosen, processor};
use crate::cli::measure::{Peak, Samples};
use crate::cli::say::{digits, table, thousands, time, unit};

/// What the figures mean, once.
const NOTES: &str = "\
± is half the distance of the quartiles. The roof of a launch is what its FLOP or its bytes take at the peaks
above, whichever is longer; bytes count every operand once and may come out of a cache, so that a launch can be
above the roof. Learning rate 0: every repetition computes with the same numbers.";

/// The conditions, and what the devices can do at most.
pub fn conditions(bench: &Bench<'_>, peaks: &[Peak]) -> String {
    let head = ["measured peaks", "GFLOP/s", "±", "copy GB/s", "±", "empty launch"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let spread = |samples: &Samples| format!("{:.0} %", 100.0 * samples.spread());
    for (device, peak) in bench.devices.iter().zip(peaks) {
        rows.push(vec![
            device.name(),
            digits(peak.flops() / 1e9),
            spread(&peak.multiply_add.0),
            digits(peak.bytes() / 1e9),
            spread(&peak.copy.0),
            time(peak.empty.median()),
        ]);
    }
    let mut text = format!(
        "{}, {}, {}; {} s a measurement; lenet {}{}\n\n{}",
        bench.network.name,
        bench.args.optimizer.name(),
        bench.images.name,
        bench.args.seconds,
        env!("CARGO_PKG_VERSION"),
        processor().map_or(String::new(), |name| format!(" on {name}")),
        table(&rows)
    );
    text += NOTES;
    text.push('\n');
    text
}

/// What was measured at one batch size.
pub fn batch(batch: usize, measured: &[Measured], peaks: &[Peak]) -> String {
    let mut text = String::new();
    for (one, peak) in measured.iter().zip(peaks) {
        let launches = roofline::text(&one.launches, peak);
        text += &format!("\nbatch {batch} on {}; by {}\n{launches}", one.device, one.method);
    }
    let per_image = |samples: &Samples| time(samples.median() / batch as f64);
    let per_second = |samples: &Samples| thousands((batch as f64 / samples.median()).round());
    let head =
        ["batch", "step", "±", "an image", "images/s", "evaluation", "images/s", "first step", "buffers"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows[0][0] = format!("batch {batch}");
    for one in measured {
        rows.push(vec![
            one.device.clone(),
            time(one.train.median()),
            format!("{:.0} %", 100.0 * one.train.spread()),
            per_image(&one.train),
            per_second(&one.train),
            time(one.evaluate.median()),
            per_second(&one.evaluate),
            time(one.first_step),
            unit(one.bytes, "B"),
        ]);
    }
    text += &format!("\n{}", table(&rows));
    text += "first step: from the making of the plan to the end of one step, with pipelines as warm as the driver's \
             cache has them\n";
    for one in measured {
        text += &format!("{} against the CPU twins: {}\n", one.device, one.difference);
    }
    for (one, other) in pairs(measured) {
        text += &format!("{}\n", compare(batch, one, other));
    }
    text
}

/// The first device with each of the others.
fn pairs(measured: &[Measured]) -> impl Iterator<Item = (&Measured, &Measured)> {
    measured.iter().skip(1).map(|other| (&measured[0], other))
}

/// How much faster one is than the other, from pairs of samples.
fn ratio(one: &Measured, other: &Measured) -> Samples {
    Samples::new(one.turns.iter().zip(&other.turns).map(|(one, other)| one / other).collect(), 1)
}

fn compare(batch: usize, one: &Measured, other: &Measured) -> String {
    let ratio = ratio(one, other);
    let inverse = ratio.median() < 1.0;
    let (fast, slow) = if inverse { (one, other) } else { (other, one) };
    let value = |share: f64| if inverse { 1.0 / ratio.quantile(1.0 - share) } else { ratio.quantile(share) };
    format!(
        "batch {batch}: {} is {} times faster than {} (quartiles {} to {}): {} and {} a trained image",
        fast.device,
        digits(value(0.5)),
        slow.device,
        digits(value(0.25)),
        digits(value(0.75)),
        time(fast.train.median() / batch as f64),
        time(slow.train.median() / batch as f64),
    )
}

/// The last line: who is faster by how much, a trained image, each at the batch size that suits it best.
pub fn verdict(all: &[(usize, Vec<Measured>)], devices: &[Chosen]) -> String {
    let best = |index: usize| {
        all.iter()
            .map(|(batch, measured)| (*batch, measured[index].train.median() / *batch as f64))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((0, f64::NAN))
    };
    let mut ranked: Vec<_> = (0..devices.len()).map(|index| (index, best(index))).collect();
    ranked.sort_by(|a, b| a.1.1.total_cmp(&b.1.1));
    let Some(&(first, (batch, seconds))) = ranked.first() else { return String::new() };
    let title = if ranked.len() > 1 { "fastest" } else { "measured alone" };
    let mut text =
        format!("{title}: {}, {} a trained image at batch {batch}", devices[first].name(), time(seconds));
    for &(index, (batch, other)) in &ranked[1..] {
        text += &format!(
            "; {} times faster than {}, {} at batch {batch}",
            digits(other / seconds),
            devices[index].name(),
            time(other)
        );
    }
    if devices.iter().any(|device| device.gpu().is_some() && !device.is_gpu()) {
        text += "; a software adapter runs on the CPU and says nothing about a GPU";
    }
    text
}

/// A device for machines.
fn device(device: &Chosen, peak: &Peak) -> Value {
    let adapter = device.gpu().map(|gpu| {
        let info = gpu.device().adapter_info();
        json!({
            "name": info.name,
            "kind": gpu::kind(info.device_type),
            "backend": info.backend.to_string(),
            "driver": info.driver,
            "driver_info": info.driver_info,
        })
    });
    json!({
        "name": device.name(),
        "adapter": adapter,
        "software": device.gpu().is_some() && !device.is_gpu(),
        "fill": device.target().fill,
        "peak": peak.json(),
    })
}

/// Everything for machines.
pub fn json(bench: &Bench<'_>, peaks: &[Peak], all: &[(usize, Vec<Measured>)], verdict: &str) -> Value {
    let batches: Vec<Value> = all
        .iter()
        .map(|(batch, measured)| {
            let devices: Vec<Value> =
                measured.iter().zip(peaks).map(|(one, peak)| on_device(*batch, one, peak)).collect();
            let ratios: Vec<Value> = pairs(measured)
                .map(|(one, other)| {
                    let ratio = ratio(one, other);
                    json!({
                        "device": other.device,
                        "times_faster_than": one.device,
                        "median": ratio.median(),
                        "quartiles": [ratio.quantile(0.25), ratio.quantile(0.75)],
                    })
                })
                .collect();
            json!({ "batch": batch, "devices": devices, "ratios": ratios })
        })
        .collect();
    json!({
        "kind": "measurement",
        "version": env!("CARGO_PKG_VERSION"),
        "processor": processor(),
        "network": bench.network.name,
        "optimizer": bench.args.optimizer.name(),
        "data": bench.images.name,
        "seconds": bench.args.seconds,
        "devices": bench.devices.iter().zip(peaks).map(|(one, peak)| device(one, peak)).collect::<Vec<_>>(),
        "batches": batches,
        "verdict": verdict,
    })
}

fn on_device(batch: usize, one: &Measured, peak: &Peak) -> Value {
    let step = |samples: &Samples| {
        json!({
            "time": samples.json(),
            "seconds_an_image": samples.median() / batch as f64,
            "images_per_second": batch as f64 / samples.median(),
        })
    };
    json!({
        "device": one.device,
        "difference": one.difference,
        "first_step_s": one.first_step,
        "bytes": one.bytes,
        "launches_timed_by": one.method,
        "train": step(&one.train),
        "evaluate": step(&one.evaluate),
        "launches": roofline::json(&one.launches, peak),
    })
}
