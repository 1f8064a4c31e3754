//! Whole runs: the same on both backends as far as rounding allows, the same bits twice, and the loss of a device.

use std::sync::Arc;

use lenet::Network;
use lenet::backend::gpu;
use lenet::check;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::train::{Event, Schedule, Settings, Trainer};
use pollster::block_on;
use serde_json::json;

use super::data::Pictures;
use super::part::{End, PATIENCE, Part, bounded, timed};
use crate::cli::device::{self, Chosen};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::run::drive;

/// Steps of a run.
const STEPS: u64 = 100;

/// How far the losses and the weights of two backends may be apart after [`STEPS`] steps of a network without kinks,
/// relatively: WGSL lets `tanh` and `exp` err by 1e-5, and the run passes that on from step to step. A mistake in a
/// gradient comes out a hundred times as far.
const APART: f64 = 1e-3;

/// What a run leaves behind.
#[derive(Clone)]
struct Run {
    /// The mean loss of each step.
    losses: Vec<f64>,
    /// The weights in the end, by name.
    weights: Vec<(String, Vec<f32>)>,
}

/// A preset, trained for some steps.
fn train(chosen: &Chosen, pictures: &Pictures, preset: &str, rule: Rule, batch: usize) -> Outcome<Run> {
    let network = Network::preset(preset)?;
    let train = pictures.of(&network, batch * STEPS as usize / 2)?;
    let test = train.clone().take(1);
    let settings = Settings {
        epochs: 2,
        steps: Some(STEPS),
        batch,
        learning_rate: if rule == Rule::Adam { 1e-3 } else { 0.01 },
        schedule: Schedule::Constant,
        optimizer: Optimizer::new(rule),
        ..Settings::default()
    };
    let plan = chosen.plan(&network, &Trainer::options(&settings, &train, &test))?;
    let mut trainer = Trainer::new(chosen.session(plan)?, settings, &train, &test)?;
    let mut losses = Vec::new();
    drive(&mut trainer, |_, event, _| {
        if let Event::Steps { metrics, .. } = event {
            losses.extend(metrics.iter().map(|one| one.loss()));
        }
        Ok(())
    })?;
    let flat = block_on(trainer.session().parameters())?;
    let named = trainer.session().plan().split(&flat);
    let weights = named.map(|(parameter, values)| (parameter.name.clone(), values.to_vec())).collect();
    if losses.len() as u64 != STEPS {
        return Err(Failure::device(format!("{} of {STEPS} steps were reported", losses.len())));
    }
    Ok(Run { losses, weights })
}

/// Images of a batch: fewer where a software adapter computes them.
fn batch(reduced: bool) -> usize {
    if reduced { 16 } else { 64 }
}

/// `√(Σ (a − b)² / Σ b²)`.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let error = square(&mut got.iter().zip(want).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = square(&mut want.iter().map(|&b| f64::from(b)));
    if error == 0.0 { 0.0 } else { (error / size).sqrt() }
}

/// Notes how far one run is from another.
fn compare(part: &mut Part, got: &Run, want: &Run) {
    let mut worst = [0.0f64; 2];
    for (step, (got, want)) in got.losses.iter().zip(&want.losses).enumerate() {
        let found = (got - want).abs() / want.abs();
        worst[0] = if found.is_nan() { found } else { worst[0].max(found) };
        part.difference(found, format!("the loss of step {}", step + 1));
    }
    for ((name, got), (_, want)) in got.weights.iter().zip(&want.weights) {
        let found = distance(got, want);
        worst[1] = if found.is_nan() { found } else { worst[1].max(found) };
        part.difference(found, format!("{name} after {STEPS} steps"));
    }
    part.rows.push(json!({ "losses": worst[0], "weights": worst[1] }));
}

/// A run of a network without kinks on the device and on the CPU. On the CPU itself there is nothing to compare with,
/// and only its loss is looked at.
pub fn smooth(chosen: &Arc<Chosen>, pictures: &Arc<Pictures>, reduced: bool, hung: &mut bool) -> Part {
    const PRESET: &str = "lenet5-tanh";
    let batch = batch(reduced);
    let mut what = format!("{STEPS} steps of {PRESET} (momentum, batch {batch})");
    what += if chosen.gpu().is_some() { ", against the CPU" } else { ", against nothing" };
    timed(|| {
        let mut part = Part { allowed: Some(APART), ..Part::new("run", what) };
        let run = |device: Arc<Chosen>| {
            let pictures = pictures.clone();
            bounded(PATIENCE, move || train(&device, &pictures, PRESET, Rule::Momentum, batch))
        };
        let got = match run(chosen.clone()) {
            Ok(got) => got,
            Err(end) => return ended(part, &end, hung),
        };
        let (first, last) = (got.losses[0], got.losses[STEPS as usize - 1]);
        let falls = last.is_finite() && (pictures.mnist().is_none() || last < first);
        if !falls {
            part.fail(format!("the loss went from {first} to {last}"));
        }
        part.rows.push(json!({ "first_loss": first, "last_loss": last }));
        if chosen.gpu().is_some() {
            match device::choose("cpu").map(|cpu| run(Arc::new(cpu))) {
                Ok(Ok(want)) => compare(&mut part, &got, &want),
                Ok(Err(end)) => return ended(part, &end, hung),
                Err(failure) => part.fail(failure.to_string()),
            }
        } else {
            part.allowed = None;
        }
        part.judged()
    })
}

/// The same run twice: every loss and weight has the same bits.
pub fn twice(chosen: &Arc<Chosen>, pictures: &Arc<Pictures>, reduced: bool, hung: &mut bool) -> Part {
    const PRESET: &str = "lenet5";
    let batch = batch(reduced);
    let what = format!("the same bits twice: {STEPS} steps of {PRESET} (adam, batch {batch})");
    timed(|| {
        // Numbers whose bits differ.
        let mut part = Part { allowed: Some(0.0), ..Part::new("repeat", what) };
        let mut runs = Vec::new();
        for _ in 0..2 {
            let (device, pictures) = (chosen.clone(), pictures.clone());
            match bounded(PATIENCE, move || train(&device, &pictures, PRESET, Rule::Adam, batch)) {
                Ok(run) => runs.push(run),
                Err(end) => return ended(part, &end, hung),
            }
        }
        let (differ, place) = differing(&runs[0], &runs[1]);
        part.difference(differ as f64, place);
        part.judged()
    })
}

/// How many numbers of two runs differ in their bits, and where the first is.
fn differing(one: &Run, other: &Run) -> (usize, String) {
    let losses = one.losses.iter().zip(&other.losses).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let (mut all, mut place) = (losses, if losses > 0 { "the losses".into() } else { String::new() });
    for ((name, a), (_, b)) in one.weights.iter().zip(&other.weights) {
        let found = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        if found > 0 && place.is_empty() {
            place.clone_from(name);
        }
        all += found;
    }
    (all, place)
}

/// A device of its own is destroyed under a backend.
pub fn lost(chosen: &Arc<Chosen>, hung: &mut bool) -> Part {
    timed(|| {
        let part = Part::new("lost device", "a device destroyed while it is used: errors, no panic, no hang");
        let chosen = chosen.clone();
        let survived = bounded(PATIENCE / 5, move || {
            let adapter = chosen.adapter().ok_or_else(|| Failure::device("there is no adapter"))?;
            let own = block_on(gpu::Device::open(adapter))?;
            Ok(block_on(check::survives_loss(&own))?)
        });
        match survived {
            Ok(()) => part,
            Err(end) => ended(part, &end, hung),
        }
    })
}

fn ended(mut part: Part, end: &End, hung: &mut bool) -> Part {
    *hung |= matches!(end, End::Hangs(_));
    part.fail(end.message());
    part
}

#[cfg(test)]
mod tests {
    use super::super::part::State;
    use super::*;

    fn run(loss: f64, weight: f32) -> Run {
        Run { losses: vec![2.3, loss], weights: vec![("fc1.weight".into(), vec![0.5, weight])] }
    }

    #[test]
    fn runs_that_differ_are_found() {
        let judged = |got: &Run| {
            let mut part = Part { allowed: Some(APART), ..Part::new("run", "") };
            compare(&mut part, got, &run(1.5, -0.25));
            part.judged()
        };
        assert_eq!(judged(&run(1.500_01, -0.250_01)).state, State::Ok);
        let wrong = judged(&run(1.51, -0.25));
        assert!(wrong.state == State::Failed && wrong.place == "the loss of step 2", "{wrong:?}");
        let wrong = judged(&run(1.5, -0.251));
        assert!(wrong.state == State::Failed && wrong.place.starts_with("fc1.weight"), "{wrong:?}");
        assert_eq!(judged(&run(f64::NAN, -0.25)).state, State::Failed);
        assert_eq!(judged(&run(1.5, f32::NAN)).state, State::Failed);
    }

    #[test]
    fn a_bit_that_differs_is_found() {
        let one = run(1.5, 0.25);
        assert_eq!(differing(&one, &one.clone()), (0, String::new()));
        let other = run(1.5, f32::from_bits(0.25f32.to_bits() + 1));
        assert_eq!(differing(&one, &other), (1, "fc1.weight".into()));
        assert_eq!(differing(&one, &run(1.5 + f64::EPSILON, 0.25)).1, "the losses");
    }
}
