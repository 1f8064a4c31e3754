//! Every launch against what the device was measured to do: its multiply-adds and its copies a second.

use std::time::Instant;

use lenet::backend::Backend;
use lenet::kernels::Launch;
use lenet::plan::Phase;
use pollster::block_on;
use serde_json::{Value, json};

use crate::cli::failure::Outcome;
use crate::cli::measure::{Job, Peak, Rig, Samples, alone, wait};
use crate::cli::say::{digits, launch_name, table, time, unit};

/// Most steps in which launches are timed one by one.
const STEPS: usize = 4096;

/// Samples of every launch of a training step, and how they were taken.
pub fn launches(rig: &mut Rig, peak: &Peak, seconds: f64) -> Outcome<(Vec<Samples>, &'static str)> {
    let launches = rig.session.plan().program.train.len();
    let timestamps = match rig.session.backend() {
        Backend::Cpu(_) => {
            let samples = on_cpu(rig, launches, seconds)?;
            return Ok((samples, "the clock around each launch, in the order of the step"));
        }
        Backend::Gpu(gpu) => gpu.device().has_timestamps(),
    };
    if timestamps {
        let samples = by_timestamps(rig, launches, seconds)?;
        // There are drivers whose timestamps stand still.
        if samples.iter().all(|samples| samples.median() > 0.0) {
            return Ok((
                samples,
                "timestamps around each launch, a pass of its own, in the order of the step",
            ));
        }
    }
    let samples = by_repetition(rig, launches, peak, seconds)?;
    Ok((samples, "the clock around repetitions of a launch in one submission, less an empty launch"))
}

/// The device's own time.
fn by_timestamps(rig: &mut Rig, launches: usize, seconds: f64) -> Outcome<Vec<Samples>> {
    let mut samples = vec![Vec::new(); launches];
    let (start, mut count, mut warm) = (Instant::now(), 1, false);
    while samples[0].len() < 3 || (start.elapsed().as_secs_f64() < seconds && samples[0].len() < STEPS) {
        let steps = rig.steps(Phase::Train, count);
        let Backend::Gpu(gpu) = rig.session.backend() else { break };
        let nanoseconds = block_on(gpu.time(Phase::Train, &steps))?;
        // The first round warms up.
        if std::mem::replace(&mut warm, true) {
            for step in nanoseconds.chunks_exact(launches) {
                for (samples, ns) in samples.iter_mut().zip(step) {
                    samples.push(ns / 1e9);
                }
            }
        }
        // More at once, as long as a round stays within a quarter of the time.
        let a_step = start.elapsed().as_secs_f64() / (samples[0].len() + 1) as f64;
        count = (2 * count).min(64).min((seconds / 4.0 / a_step) as usize).max(1);
    }
    Ok(samples.into_iter().map(|samples| Samples::new(samples, 1)).collect())
}

fn on_cpu(rig: &mut Rig, launches: usize, seconds: f64) -> Outcome<Vec<Samples>> {
    let warm_up = 2;
    let mut samples = vec![Vec::new(); launches];
    let (start, mut taken) = (Instant::now(), 0);
    while taken < warm_up + 3 || (start.elapsed().as_secs_f64() < seconds && taken < STEPS) {
        let step = rig.steps(Phase::Train, 1)[0];
        let Backend::Cpu(cpu) = rig.session.backend() else { break };
        // Inside the pool, as the backend runs a step.
        rayon::scope(|_| {
            for (at, samples) in samples.iter_mut().enumerate() {
                let start = Instant::now();
                cpu.launch(Phase::Train, at, step);
                if taken >= warm_up {
                    samples.push(start.elapsed().as_secs_f64());
                }
            }
        });
        taken += 1;
    }
    Ok(samples.into_iter().map(|samples| Samples::new(samples, 1)).collect())
}

/// Where the device has no clock of its own.
fn by_repetition(rig: &mut Rig, launches: usize, peak: &Peak, seconds: f64) -> Outcome<Vec<Samples>> {
    let any = rig.session.plan().metrics;
    let empty = peak.empty.median();
    (0..launches)
        .map(|index| {
            let step = rig.steps(Phase::Train, 1)[0];
            let job: Job<'_> = Box::new(|repetitions| {
                if let Backend::Gpu(gpu) = rig.session.backend() {
                    gpu.repeat(Phase::Train, index, repetitions, step)?;
                }
                wait(rig.session.backend(), any)
            });
            let samples = alone(job, seconds / launches as f64)?;
            Ok(samples.less(empty))
        })
        .collect()
}

/// A share in percent.
fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Work that took some time, against its roof.
struct Work {
    flop: u64,
    bytes: u64,
    seconds: f64,
    roof: f64,
}

impl Work {
    /// What it is, and unless it took no longer than an empty launch how fast it was.
    fn row(&self, title: String, grid: String, resolved: bool, spread: String, by: &str) -> Vec<String> {
        let (flop, bytes) = (self.flop as f64, self.bytes as f64);
        let mut cells =
            vec![title, grid, unit(self.flop, ""), unit(self.bytes, "B"), digits(flop / bytes.max(1.0))];
        if resolved {
            cells.extend([
                time(self.seconds),
                spread,
                digits(flop / self.seconds / 1e9),
                digits(bytes / self.seconds / 1e9),
                percent(self.roof / self.seconds),
            ]);
        } else {
            cells.extend(["≈ empty", "", "", "", ""].map(String::from));
        }
        cells.push(by.into());
        cells
    }
}

/// What the columns are.
const HEAD: [&str; 11] =
    ["launch", "workgroups", "FLOP", "bytes", "FLOP/byte", "time", "±", "GFLOP/s", "GB/s", "of roof", "by"];

/// The launches of a step as a table, the last row their sum.
pub fn text(launches: &[(Launch, Samples)], peak: &Peak) -> String {
    let mut rows = vec![HEAD.map(String::from).to_vec()];
    let mut sum = Work { flop: 0, bytes: 0, seconds: 0.0, roof: 0.0 };
    for (launch, samples) in launches {
        let (roof, by) = peak.roof(launch);
        let work = Work { flop: launch.flop, bytes: launch.bytes, seconds: samples.median(), roof };
        let grid = launch.grid.map(|n| n.to_string()).join("×");
        rows.push(work.row(launch_name(launch), grid, samples.resolved(), percent(samples.spread()), by));
        sum.flop += work.flop;
        sum.bytes += work.bytes;
        sum.seconds += work.seconds;
        sum.roof += work.roof;
    }
    rows.push(sum.row(format!("{} launches", launches.len()), String::new(), true, String::new(), ""));
    table(&rows)
}

/// The launches of a step for machines.
pub fn json(launches: &[(Launch, Samples)], peak: &Peak) -> Value {
    let one = |(launch, samples): &(Launch, Samples)| {
        let (roof, by) = peak.roof(launch);
        // Nothing where it took no longer than an empty launch.
        let rate = |amount: f64| samples.resolved().then(|| amount / samples.median());
        json!({
            "launch": launch_name(launch),
            "workgroups": launch.grid,
            "flop": launch.flop,
            "bytes": launch.bytes,
            "flop_per_byte": launch.flop as f64 / launch.bytes.max(1) as f64,
            "time": samples.json(),
            "gflops": rate(launch.flop as f64 / 1e9),
            "gigabytes_per_second": rate(launch.bytes as f64 / 1e9),
            "share_of_roof": rate(roof),
            "bound_by": by,
        })
    };
    launches.iter().map(one).collect()
}
