//! `lenet summary`: a network's layers, or every launch of its steps.

use lenet::kernels::Launch;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::model::record::load_network;
use lenet::network::{Input, Network, Placed};
use lenet::plan::{Form, Options, Phase, Plan, Target};
use serde_json::{Value, json};

use super::args::{forms, rules};
use super::failure::Outcome;
use super::say::{emit, emit_json, launch_name, table, thousands, unit};

/// Arguments of `lenet summary`.
#[derive(clap::Args)]
pub struct Args {
    /// The network: a preset (`lenet summary --list` shows them) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "lenet5")]
    net: String,
    /// List the presets with what they are
    #[arg(long)]
    list: bool,
    /// Images in a batch, for --plan [default: that of `lenet train`]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// The update rule, for --plan
    #[arg(long, value_name = "RULE", value_parser = rules(), default_value = "adam")]
    optimizer: Rule,
    /// How a step is cut into launches, for --plan
    #[arg(long, value_name = "FORM", value_parser = forms(), default_value = "layers")]
    form: Form,
    /// Show every launch: shader, workgroups, floating-point operations, bytes
    #[arg(long)]
    plan: bool,
    /// Invocations that fill the device, for --plan: tiles are cut up until there are so many. 16384 stands for a
    /// discrete GPU, 4096 for an integrated one [default: that of a CPU]
    #[arg(long, value_name = "N")]
    fill: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Images of the data that a plan is shown for: those of MNIST.
const IMAGES: (usize, usize) = (60_000, 10_000);

/// Runs `lenet summary`.
pub fn run(args: &Args) -> Outcome {
    if args.list {
        return list();
    }
    let network = load_network(&args.net)?;
    if !args.plan {
        return if args.json { emit_json(&layers_json(&network)?) } else { emit(&layers(&network)?) };
    }
    let options = Options {
        batch: args.batch.unwrap_or(lenet::train::Settings::default().batch),
        optimizer: Optimizer::new(args.optimizer),
        form: args.form,
        train_images: IMAGES.0,
        eval_images: IMAGES.1,
        ..Options::default()
    };
    let target = args.fill.map_or(options.target, Target::filled_by);
    let options = Options { target, ..options };
    let plan = Plan::new(&network, &options)?;
    if args.json {
        let list = |phase| plan.program.launches(phase).iter().map(launch_json).collect::<Vec<_>>();
        return emit_json(&json!({
            "train": list(Phase::Train),
            "eval": list(Phase::Evaluate),
            "predict": list(Phase::Predict),
        }));
    }
    let mut text = format!(
        "{}, batch {}, {}; buffers of {} in all ({} if none shared its memory), for {} and {} images\n",
        network.name,
        options.batch,
        args.optimizer.name(),
        unit(plan.program.bytes(), "B"),
        unit(plan.unshared, "B"),
        thousands(IMAGES.0),
        thousands(IMAGES.1),
    );
    for (title, phase) in [("train", Phase::Train), ("eval", Phase::Evaluate), ("predict", Phase::Predict)] {
        let launches = plan.program.launches(phase);
        let mut rows = vec![[title, "workgroups", "FLOP", "bytes"].map(String::from).to_vec()];
        rows.extend(launches.iter().map(|launch| {
            vec![
                launch_name(launch),
                launch.grid.map(|n| n.to_string()).join("×"),
                unit(launch.flop, ""),
                unit(launch.bytes, "B"),
            ]
        }));
        let sum = |what: fn(&Launch) -> u64| launches.iter().map(what).sum::<u64>();
        rows.push(vec![
            format!("{} launches", launches.len()),
            String::new(),
            unit(sum(|launch| launch.flop), ""),
            unit(sum(|launch| launch.bytes), "B"),
        ]);
        text += &format!("\n{}", table(&rows));
    }
    emit(&text)
}

/// Every preset, with the first words about it, and its size.
fn list() -> Outcome {
    let mut rows = vec![["preset", "", "input", "parameters", "MACs"].map(String::from).to_vec()];
    for name in Network::presets() {
        let network = Network::preset(name)?;
        let (parameters, macs) = totals(&network.place()?);
        let Input { channels, height, width, .. } = network.input;
        rows.push(vec![
            name.into(),
            Network::about(name)?.into(),
            format!("{channels}×{height}×{width}"),
            thousands(parameters),
            thousands(macs),
        ]);
    }
    left(&mut rows);
    emit(&table(&rows))
}

/// Sets the second column from the left: it holds words.
fn left(rows: &mut [Vec<String>]) {
    let widest = rows.iter().map(|row| row[1].chars().count()).max().unwrap_or(0);
    for row in rows {
        row[1] = format!("{:widest$}", row[1]);
    }
}

fn launch_json(launch: &Launch) -> Value {
    let constants: serde_json::Map<_, _> =
        launch.constants.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    json!({
        "shader": launch.shader.file,
        "entry": launch.entry.name,
        "constants": constants,
        "workgroups": launch.grid,
        "flop": launch.flop,
        "bytes": launch.bytes,
    })
}

/// Parameters that are learned.
fn weights(layer: &Placed) -> usize {
    layer.parameters.iter().map(|parameter| parameter.count()).sum()
}

/// Every layer in the order in which they run, with how deep it lies.
fn all(placed: &[Placed]) -> impl Iterator<Item = (usize, &Placed)> {
    placed.iter().flat_map(Placed::all)
}

fn layers(network: &Network) -> Outcome<String> {
    let placed = network.place()?;
    let Input { channels, height, width, pad, mean, deviation } = network.input;
    let mut rows = vec![["layer", "", "output", "parameters", "MACs"].map(String::from).to_vec()];
    let mut kind = format!("pictures {channels}×{height}×{width}");
    if pad > 0 {
        kind += &format!(", padded by {pad}");
    }
    if (mean, deviation) != (0.0, 1.0) {
        kind += &format!(", less {mean}, by {deviation}");
    }
    rows.push(vec!["input".into(), kind, network.input_shape().to_string(), "0".into(), "0".into()]);
    rows.extend(all(&placed).map(|(depth, layer)| {
        vec![
            format!("{}{}", "  ".repeat(depth), layer.name),
            layer.layer.describe(),
            layer.output.to_string(),
            thousands(weights(layer)),
            thousands(layer.multiply_adds),
        ]
    }));
    left(&mut rows);
    let (parameters, macs) = totals(&placed);
    Ok(format!(
        "{}\n\n{}\n{} parameters ({}), {} multiply-adds an image\n",
        network.name,
        table(&rows),
        thousands(parameters),
        unit(4 * parameters as u64, "B"),
        thousands(macs),
    ))
}

fn totals(placed: &[Placed]) -> (usize, u64) {
    let layers = || all(placed).map(|(_, layer)| layer);
    (layers().map(weights).sum(), layers().map(|layer| layer.multiply_adds).sum())
}

fn layers_json(network: &Network) -> Outcome<Value> {
    let placed = network.place()?;
    let (parameters, macs) = totals(&placed);
    let layers: Vec<_> = all(&placed)
        .map(|(depth, layer)| {
            let shapes: serde_json::Map<_, _> = layer
                .parameters
                .iter()
                .map(|parameter| (parameter.name.clone(), json!(parameter.shape)))
                .collect();
            json!({
                "name": layer.name,
                "depth": depth,
                "kind": layer.layer.describe(),
                "input": [layer.input.channels, layer.input.height, layer.input.width],
                "output": [layer.output.channels, layer.output.height, layer.output.width],
                "parameters": weights(layer),
                "tensors": shapes,
                "macs": layer.multiply_adds,
            })
        })
        .collect();
    Ok(json!({
        "name": network.name,
        "input": network.input,
        "layers": layers,
        "parameters": parameters,
        "macs": macs,
    }))
}
