//! `lenet bench --growth`: images a second and memory against the batch size and against the network's width.
//!
//! Memory is predicted before anything is allocated; what does not fit is said, and the curve goes on without it.

use lenet::Error;
use lenet::network::{Layer, Network};
use lenet::plan::{Options, Phase, Plan};
use serde_json::{Value, json};

use super::subject::Bench;
use super::svg::{Curve, Panel};
use crate::cli::device::{self, Chosen};
use crate::cli::failure::Outcome;
use crate::cli::measure::{Job, Rig, Samples, in_turns};
use crate::cli::say::{emit, emit_json, table, thousands, time, unit};

/// A device at one batch size and width.
struct Point {
    batch: usize,
    width: usize,
    parameters: usize,
    /// Bytes of all buffers as predicted, and how many of them are the data set's.
    bytes: Option<(u64, u64)>,
    /// Seconds of a step, or why there is none.
    step: Result<Samples, String>,
}

impl Point {
    fn images_per_second(&self) -> Option<f64> {
        self.step.as_ref().ok().map(|step| self.batch as f64 / step.median())
    }

    /// What grows with the batch and the network.
    fn working_bytes(&self) -> Option<f64> {
        self.bytes.map(|(all, data)| (all - data) as f64)
    }
}

/// 1, 2, 4, … up to `most`.
fn doublings(most: usize) -> Vec<usize> {
    std::iter::successors(Some(1usize), |n| n.checked_mul(2)).take_while(|&n| n <= most).collect()
}

/// Hands out every layer, those inside others too, in the order in which they run.
fn each<'a>(layers: &'a mut [Layer], all: &mut Vec<&'a mut Layer>) {
    for layer in layers {
        match layer {
            Layer::Residual(_) | Layer::Branches(_) => {
                layer.inside_mut().into_iter().for_each(|inside| each(inside, all));
            }
            _ => all.push(layer),
        }
    }
}

/// The network with its channels and hidden features times `factor`; what comes in and the classes stay.
pub fn widened(network: &Network, factor: usize) -> Network {
    let mut wide = network.clone();
    let mut all = Vec::new();
    each(&mut wide.layers, &mut all);
    let learns = |layer: &&mut Layer| {
        matches!(layer, Layer::Conv2d(_) | Layer::Conv1d(_) | Layer::Linear(_) | Layer::Rbf(_))
    };
    let last = all.iter().rposition(learns).unwrap_or(0);
    for layer in &mut all[..last] {
        match layer {
            Layer::Conv2d(conv) => {
                conv.channels *= factor;
                // Depthwise stays depthwise, and a table of single channels says nothing about more of them.
                conv.groups *= if conv.groups > 1 { factor } else { 1 };
                conv.connections = None;
            }
            Layer::Conv1d(conv) => {
                conv.channels *= factor;
                conv.groups *= if conv.groups > 1 { factor } else { 1 };
            }
            Layer::Linear(linear) => linear.outputs *= factor,
            _ => {}
        }
    }
    wide
}

/// The largest batch of the curve that some device holds.
pub fn largest(devices: &[Chosen], network: &Network, options: &Options, most: usize) -> Outcome<usize> {
    let mut largest = 1;
    for device in devices {
        let fits = Plan::largest_batch(network, options, device.memory())?.unwrap_or(1);
        largest = doublings(most.min(fits)).into_iter().fold(largest, usize::max);
    }
    Ok(largest)
}

/// Runs `lenet bench --growth`.
pub fn run(bench: &Bench<'_>) -> Outcome {
    let args = bench.args;
    let base = args.batch.first().copied().unwrap_or(lenet::train::Settings::default().batch);
    let by_batch: Vec<_> = doublings(args.most_batch).into_iter().map(|batch| (batch, 1)).collect();
    let by_width: Vec<_> = doublings(args.most_width).into_iter().map(|width| (base, width)).collect();
    let curves = [measure(bench, &by_batch)?, measure(bench, &by_width)?];
    let names: Vec<String> = bench.devices.iter().map(|device| device.name()).collect();
    let parts = [("batch", curves[0].as_slice()), ("width", curves[1].as_slice())];
    if let Some(path) = &args.svg {
        let panels = parts.map(|(what, curve)| panel(what, base, &names, curve));
        let title = format!("{}: training with {}", bench.network.name, args.optimizer.name());
        super::svg::write(path, &title, &panels)?;
    }
    if args.json {
        return emit_json(&json!({
            "kind": "measurement",
            "version": env!("CARGO_PKG_VERSION"),
            "processor": device::processor(),
            "network": bench.network.name,
            "optimizer": args.optimizer.name(),
            "data": bench.images.name,
            "seconds": args.seconds,
            "growth": parts.map(|(what, curve)| json!({
                "against": what,
                "devices": names.iter().zip(curve).map(|(name, points)| json!({
                    "device": name,
                    "points": points.iter().map(point).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            })),
        }));
    }
    let mut text = format!(
        "{}, {}, {}; {} s a measurement\n",
        bench.network.name,
        args.optimizer.name(),
        bench.images.name,
        args.seconds
    );
    for (what, curve) in parts {
        text += &as_table(what, &names, curve);
    }
    text += "\nmemory: all buffers without the data set, predicted before they are made\n";
    emit(&text)
}

/// Every device at every batch size and width, the devices in turns.
fn measure(bench: &Bench<'_>, places: &[(usize, usize)]) -> Outcome<Vec<Vec<Point>>> {
    let mut curves: Vec<Vec<Point>> = bench.devices.iter().map(|_| Vec::new()).collect();
    for &(batch, width) in places {
        let network = widened(&bench.network, width);
        let options = Options { batch, ..bench.options.clone() };
        let images = &bench.images;
        let mut rigs = Vec::new();
        for (device, curve) in bench.devices.iter().zip(&mut curves) {
            let parameters = network.parameters()?.iter().map(|one| one.len()).sum();
            let mut point = Point { batch, width, parameters, bytes: None, step: Err(String::new()) };
            match device.plan(&network, &images.options(&options)) {
                Ok(plan) => {
                    point.bytes = Some((plan.program.bytes(), images.bytes()));
                    rigs.push(Rig::with_plan(device, plan, images)?);
                }
                Err(limit @ Error::Limit { .. }) => point.step = Err(limit.to_string()),
                Err(error) => return Err(error.into()),
            }
            curve.push(point);
        }
        let mut jobs: Vec<Job<'_>> = rigs
            .iter_mut()
            .map(|rig| Box::new(move |repetitions| rig.run(Phase::Train, repetitions)) as Job<'_>)
            .collect();
        let samples = in_turns(&mut jobs, bench.args.seconds)?;
        let fitting = curves.iter_mut().filter_map(|curve| curve.last_mut()).filter(|p| p.bytes.is_some());
        for (point, (samples, repetitions)) in fitting.zip(samples) {
            point.step = Ok(Samples::new(samples, repetitions));
        }
    }
    Ok(curves)
}

fn point(point: &Point) -> Value {
    json!({
        "batch": point.batch,
        "width": point.width,
        "parameters": point.parameters,
        "bytes": point.bytes.map(|(all, _)| all),
        "data_bytes": point.bytes.map(|(_, data)| data),
        "images_per_second": point.images_per_second(),
        "step": point.step.as_ref().ok().map(Samples::json),
        "does_not_fit": point.step.as_ref().err(),
    })
}

fn as_table(what: &str, names: &[String], curves: &[Vec<Point>]) -> String {
    let mut text = String::new();
    for (name, points) in names.iter().zip(curves) {
        let head = [what, "parameters", "memory", "a step", "±", "images/s"];
        let mut rows = vec![head.map(String::from).to_vec()];
        let mut notes = String::new();
        for point in points {
            let title = if what == "batch" {
                point.batch.to_string()
            } else {
                format!("×{} at batch {}", point.width, point.batch)
            };
            let mut row = vec![title.clone(), thousands(point.parameters)];
            row.push(point.working_bytes().map_or("—".into(), |bytes| unit(bytes as u64, "B")));
            match &point.step {
                Ok(step) => row.extend([
                    time(step.median()),
                    format!("{:.0} %", 100.0 * step.spread()),
                    thousands(point.images_per_second().unwrap_or_default().round()),
                ]),
                Err(why) => notes += &format!("{title}: {why}\n"),
            }
            rows.push(row);
        }
        text += &format!("\n{name}\n{}{notes}", table(&rows));
    }
    text
}

fn panel(what: &str, base: usize, names: &[String], curves: &[Vec<Point>]) -> Panel {
    let x = |point: &Point| if what == "batch" { point.batch } else { point.width } as f64;
    let speed = |(name, points): (&String, &Vec<Point>)| Curve {
        name: name.clone(),
        points: points.iter().filter_map(|p| Some((x(p), p.images_per_second()?))).collect(),
    };
    let memory = |points: &Vec<Point>| {
        points.iter().filter_map(|p| Some((x(p), p.working_bytes()?))).collect::<Vec<_>>()
    };
    // Plans differ little between devices: the one that got furthest stands for all.
    let longest = curves.iter().map(memory).max_by_key(Vec::len).unwrap_or_default();
    Panel {
        prefix: if what == "batch" { "" } else { "×" },
        x: if what == "batch" { "images in a batch".into() } else { format!("width, at batch {base}") },
        left: "images/s".into(),
        curves: names.iter().zip(curves).map(speed).collect(),
        right: "memory".into(),
        dashed: Curve { name: "memory (right)".into(), points: longest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_network_keeps_its_input_and_classes() {
        let network = Network::preset("lenet5").unwrap();
        assert_eq!(widened(&network, 1), network);
        let wide = widened(&network, 3);
        let shapes: Vec<_> = wide.parameters().unwrap().into_iter().map(|one| one.shape).collect();
        assert_eq!(shapes[0], [18, 1, 5, 5]);
        assert_eq!(shapes[2], [48, 18, 5, 5]);
        assert_eq!(shapes[8], [10, 252]);
        assert_eq!(doublings(9), [1, 2, 4, 8]);
        assert!(doublings(0).is_empty());
    }
}
