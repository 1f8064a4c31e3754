//! `lenet bench`: how fast CPU and GPU are, launch by launch and step by step, against what each was measured to
//! do at most.
//!
//! `roofline` judges the launches, `subject` is what is measured and checked, `report` says it all; `growth` measures
//! curves, which `svg` draws; `model` estimates GPUs that are not here.

mod args;
mod growth;
mod model;
mod report;
mod roofline;
mod subject;
mod svg;

use lenet::kernels::optimizer::Optimizer;
use lenet::model::record::load_network;
use lenet::plan::Options;

pub use self::args::Args;
use self::subject::Bench;
use super::device::compared;
use super::failure::{Failure, Outcome};
use super::measure::{Images, Peak};
use super::say::{emit, emit_json, say};

/// Runs `lenet bench`.
pub fn run(args: &Args) -> Outcome {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Failure::usage(format!(
            "seconds is {}, expected more than 0 and at most 3600",
            args.seconds
        )));
    }
    let network = load_network(&args.net)?;
    let batches = match args.batch.as_slice() {
        [] => vec![lenet::train::Settings::default().batch],
        batches => batches.to_vec(),
    };
    let options =
        Options { optimizer: Optimizer::new(args.optimizer), form: args.form, ..Options::default() };
    if let Some(request) = &args.model {
        return model::run(request, &network, &options, &batches, args.json);
    }
    let devices = compared(&args.device, !args.no_timestamps)?;
    for device in &devices {
        say(&device.line);
    }
    // Images are repeated to fill the largest batch, but not for one that does not fit anyway.
    let mut most = 1;
    for &batch in &batches {
        for device in &devices {
            device.plan(&network, &Options { batch, train_images: batch, ..options.clone() })?;
        }
        most = most.max(batch);
    }
    if args.growth {
        most = most.max(growth::largest(&devices, &network, &options, args.most_batch)?);
    }
    let images = Images::new(&network, most)?;
    let bench = Bench { args, network, options, images, devices };
    if args.growth { growth::run(&bench) } else { steps(&bench, &batches) }
}

/// Checks, measures and tells the steps of every batch size.
fn steps(bench: &Bench<'_>, batches: &[usize]) -> Outcome {
    // Results before times: what does not compute the same is not worth a measurement.
    let mut ready = Some(bench.ready(batches[0])?);
    let mut peaks = Vec::new();
    for device in &bench.devices {
        peaks.push(Peak::measure(device, bench.args.seconds)?);
    }
    if !bench.args.json {
        emit(&report::conditions(bench, &peaks))?;
    }
    let mut all = Vec::new();
    for &batch in batches {
        let rigs = match ready.take() {
            Some(rigs) => rigs,
            None => bench.ready(batch)?,
        };
        let measured = bench.measure(rigs, &peaks)?;
        if !bench.args.json {
            emit(&report::batch(batch, &measured, &peaks))?;
        }
        all.push((batch, measured));
    }
    let verdict = report::verdict(&all, &bench.devices);
    if bench.args.json {
        return emit_json(&report::json(bench, &peaks, &all, &verdict));
    }
    emit(&format!("\n{verdict}\n"))
}
