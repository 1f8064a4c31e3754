//! Figures that nobody judges: what a launch costs, what the device does at most, how long a step takes, how soon a
//! run is at 99 %.

use std::sync::Arc;
use std::time::Instant;

use lenet::Network;
use lenet::data::Split;
use lenet::kernels::{Step, peak};
use lenet::plan::{Options, Phase, Program};
use lenet::train::{Event, Trainer};
use serde_json::{Value, json};

use super::data::Pictures;
use super::part::{End, PATIENCE, bounded};
use crate::cli::device::Chosen;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::measure::{Images, Job, Peak, Rig, Samples, alone, wait};
use crate::cli::presets::Preset;
use crate::cli::run::drive;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Images in a batch, for each step that is timed.
    pub batches: &'static [usize],
    /// Whether a run to 99 % is timed.
    pub run: bool,
}

impl Extent {
    /// Less where it is to be quick, and less where a software adapter computes.
    pub fn of(quick: bool, software: bool) -> Extent {
        let batches: &[usize] = match (quick, software) {
            (true, true) => &[16, 64],
            (true, false) => &[64, 1024],
            (false, true) => &[1, 4, 16, 64, 256],
            (false, false) => &[1, 4, 16, 64, 256, 1024, 4096],
        };
        Extent { seconds: if quick { 0.2 } else { 0.5 }, batches, run: !quick }
    }
}

/// Everything that was measured; a figure that could not be taken says why.
#[derive(Default)]
pub struct Figures {
    pub overhead: Option<Result<Overhead, String>>,
    pub peaks: Option<Result<Peak, String>>,
    pub steps: Vec<(usize, Result<Samples, String>)>,
    pub run: Option<Result<Reached, String>>,
}

/// The time of chained launches that do nothing, as a straight line over their number.
pub struct Overhead {
    /// Seconds of one more launch.
    pub launch: f64,
    /// Seconds of a submission and a read-back.
    pub submission: f64,
    /// The share of the variance that the line explains.
    pub fit: f64,
    /// Launches, and the least seconds until the last one was seen to be done: all else is a disturbance.
    pub points: Vec<(usize, f64)>,
}

/// A run with the settings of `lenet train --preset fast`.
pub struct Reached {
    /// From the making of the plan to the first evaluation of 99 % or more, in seconds.
    pub seconds: Option<f64>,
    /// The test accuracy in the end, and the seconds until then.
    pub accuracy: f64,
    pub whole: f64,
    pub images: u64,
}

/// The network whose steps are timed.
const NET: &str = "lenet5";

/// Launches of the chain in one step.
const CHAIN: usize = 4;

/// Steps of a chain; the most makes a thousand launches in one submission.
const CHAINS: [usize; 7] = [1, 10, 25, 60, 120, 185, 250];

/// Times chains of launches, each of which reads what the one before has written.
fn overhead(chosen: &Chosen, seconds: f64) -> Outcome<Overhead> {
    let mut program = Program::default();
    let [a, b] = ["a", "b"].map(|name| program.add(name, 4));
    for launch in 0..CHAIN {
        let (from, to) = if launch % 2 == 0 { (a, b) } else { (b, a) };
        program.train.push(peak::copy(from, to)?);
    }
    let mut backend = chosen.backend(&program)?;
    let mut points = Vec::new();
    for steps in CHAINS {
        let chain = vec![Step::default(); steps];
        let mut job = || -> Outcome<f64> {
            let start = Instant::now();
            backend.run(Phase::Train, &chain)?;
            wait(&mut backend, a)?;
            Ok(start.elapsed().as_secs_f64())
        };
        // The first pays for what is made once.
        job()?;
        let (start, mut samples) = (Instant::now(), Vec::new());
        while samples.len() < 5 || (start.elapsed().as_secs_f64() < seconds && samples.len() < 101) {
            samples.push(job()?);
        }
        points.push((CHAIN * steps, samples.into_iter().fold(f64::INFINITY, f64::min)));
    }
    let line: Vec<(f64, f64)> = points.iter().map(|&(n, seconds)| (n as f64, seconds)).collect();
    let (launch, submission, fit) = least_squares(&line);
    Ok(Overhead { launch, submission, fit, points })
}

/// Slope, intercept and the explained share of the variance of the straight line through some points.
fn least_squares(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
    let xx = sum(&|point| (point.0 - x).powi(2));
    let xy = sum(&|point| (point.0 - x) * (point.1 - y));
    let yy = sum(&|point| (point.1 - y).powi(2));
    let slope = xy / xx;
    (slope, y - slope * x, if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 })
}

/// Times a training step of LeNet-5 with Adam.
fn step(chosen: &Chosen, images: &Images, batch: usize, seconds: f64) -> Outcome<Samples> {
    let network = Network::preset(NET)?;
    let mut rig = Rig::new(chosen, &network, &Options { batch, ..Options::default() }, images)?;
    let job: Job<'_> = Box::new(|repetitions| rig.run(Phase::Train, repetitions));
    alone(job, seconds)
}

/// Trains with the settings of `--preset fast`.
fn run(chosen: &Chosen, split: &Split) -> Outcome<Reached> {
    let record = Preset::Fast.record();
    let (network, settings) = (record.network()?, record.training);
    let start = Instant::now();
    let options = Trainer::options(&settings, &split.train, &split.test);
    let session = chosen.session(chosen.plan(&network, &options)?)?;
    let mut trainer = Trainer::new(session, settings, &split.train, &split.test)?;
    let mut reached = Reached { seconds: None, accuracy: f64::NAN, whole: 0.0, images: 0 };
    drive(&mut trainer, |_, event, _| {
        match event {
            Event::Steps { metrics, .. } => {
                reached.images += metrics.iter().map(|one| one.count).sum::<u64>()
            }
            Event::Epoch { evaluation, .. } => {
                reached.accuracy = evaluation.accuracy();
                reached.whole = start.elapsed().as_secs_f64();
                if reached.accuracy >= 0.99 && reached.seconds.is_none() {
                    reached.seconds = Some(reached.whole);
                }
            }
        }
        Ok(())
    })?;
    Ok(reached)
}

impl Figures {
    /// Takes them all, one after the other, until one of them hangs.
    pub fn take(chosen: &Arc<Chosen>, pictures: &Arc<Pictures>, extent: Extent, hung: &mut bool) -> Figures {
        let mut figures = Figures::default();
        let seconds = extent.seconds;
        let device = chosen.clone();
        figures.overhead = told(bounded(PATIENCE, move || overhead(&device, seconds / 5.0)), hung);
        let device = chosen.clone();
        figures.peaks = (!*hung)
            .then(|| told(bounded(PATIENCE, move || Peak::measure(&device, seconds)), hung))
            .flatten();
        let most = extent.batches.iter().copied().max().unwrap_or(1);
        let images = Network::preset(NET).map_err(Failure::from).and_then(|net| Images::new(&net, most));
        let images = Arc::new(images.map_err(|failure| failure.to_string()));
        for &batch in extent.batches {
            if *hung {
                break;
            }
            let (device, images) = (chosen.clone(), images.clone());
            let samples = bounded(PATIENCE, move || match images.as_ref() {
                Ok(images) => step(&device, images, batch, seconds),
                Err(why) => Err(Failure::data(why.as_str())),
            });
            figures.steps.extend(told(samples, hung).map(|samples| (batch, samples)));
        }
        if extent.run && !*hung {
            let (device, pictures) = (chosen.clone(), pictures.clone());
            let reached = bounded(PATIENCE, move || {
                let missing = || Failure::data("MNIST is not part of this build");
                run(&device, pictures.mnist().ok_or_else(missing)?)
            });
            figures.run = told(reached, hung);
        }
        figures
    }

    /// Everything for machines.
    pub fn json(&self) -> Value {
        let points = |overhead: &Overhead| -> Vec<Value> {
            overhead.points.iter().map(|(n, seconds)| json!({ "launches": n, "least_s": seconds })).collect()
        };
        json!({
            "launch_overhead": self.overhead.as_ref().map(|overhead| told_json(overhead, |overhead| json!({
                "seconds_a_launch": overhead.launch,
                "seconds_a_submission": overhead.submission,
                "fit": overhead.fit,
                "points": points(overhead),
            }))),
            "peaks": self.peaks.as_ref().map(|peaks| told_json(peaks, Peak::json)),
            "steps": self.steps.iter().map(|(batch, samples)| told_json(samples, |samples| json!({
                "batch": batch,
                "time": samples.json(),
                "images_per_second": *batch as f64 / samples.median(),
            }))).collect::<Vec<_>>(),
            "run": self.run.as_ref().map(|run| told_json(run, |run| json!({
                "settings": "train --preset fast",
                "seconds_to_99_percent": run.seconds,
                "accuracy": run.accuracy,
                "seconds": run.whole,
                "images": run.images,
            }))),
        })
    }
}

fn told<T>(result: Result<T, End>, hung: &mut bool) -> Option<Result<T, String>> {
    *hung |= matches!(result, Err(End::Hangs(_)));
    Some(result.map_err(|end| end.message().to_string()))
}

fn told_json<T>(result: &Result<T, String>, json: impl FnOnce(&T) -> Value) -> Value {
    match result {
        Ok(value) => json(value),
        Err(why) => json!({ "not_measured": why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_through_its_points() {
        let line: Vec<(f64, f64)> = [4.0, 100.0, 1000.0].map(|n| (n, 3e-4 + 5e-6 * n)).to_vec();
        let (slope, intercept, fit) = least_squares(&line);
        assert!((slope - 5e-6).abs() < 1e-15 && (intercept - 3e-4).abs() < 1e-12 && fit > 0.999_999);
        // A point off the line takes from what it explains.
        let (slope, _, fit) = least_squares(&[(0.0, 0.0), (1.0, 2.0), (2.0, 0.0)]);
        assert!(slope.abs() < 1e-12 && fit < 1e-12);
    }
}
