//! `lenet eval`: what a trained network gets right, by class.

use std::path::PathBuf;

use lenet::data::{self, Dataset};
use lenet::network::Network;
use lenet::plan::Options;
use lenet::train::Session;
use pollster::block_on;
use serde_json::json;

use super::run::Model;
use super::{Failure, Outcome, device, emit, emit_json, load_network, say, table, thousands};

/// Arguments of `lenet eval`.
#[derive(clap::Args)]
pub struct Args {
    /// What `lenet train` wrote: a run's folder or a .safetensors file
    model: PathBuf,
    /// The network, where the file does not say: a preset or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    net: Option<String>,
    /// The data, as `lenet train` takes it [default: what the model was trained on, else mnist]
    #[arg(long, value_name = "NAME|DIR|FILE")]
    data: Option<String>,
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, default_value = device::AUTO)]
    device: String,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A network with its weights and the data to judge it by.
pub fn session(
    chosen: &device::Chosen,
    network: &Network,
    parameters: &[&[f32]],
    test: &Dataset,
    batch: usize,
) -> Outcome<Session> {
    let options = Options { batch, eval_images: test.len(), ..Options::default() };
    let mut session = chosen.session(chosen.plan(network, &options)?)?;
    session.set_parameters(parameters.iter().copied())?;
    session.set_evaluation(test)?;
    Ok(session)
}

/// Runs `lenet eval`.
pub fn run(args: &Args) -> Outcome {
    let network = args.net.as_deref().map(load_network).transpose()?;
    let mut model = Model::load(&args.model, network)?;
    let spec = args.data.as_ref().or(model.trained_on.as_ref()).map_or("mnist", String::as_str).to_owned();
    let test = data::load(&spec).map_err(Failure::reading)?.test;
    if test.is_empty() {
        return Err(Failure::data(format!("{spec}: there are no test images")));
    }
    if model.class_names.is_empty() {
        model.class_names.clone_from(&test.class_names);
    }
    let chosen = device::choose(&args.device)?;
    say(&chosen.line);
    let parameters: Vec<&[f32]> = model.parameters.iter().map(Vec::as_slice).collect();
    let mut session = session(&chosen, &model.network, &parameters, &test, args.batch)?;
    let metrics = block_on(session.evaluate(test.len()))?;
    let probabilities = block_on(session.predict(&test.images))?;

    let classes = session.plan().classes();
    // Rows are what the images are, columns what they are taken for.
    let mut confusion = vec![vec![0u64; classes]; test.classes];
    for (row, &label) in probabilities.chunks_exact(classes).zip(&test.labels) {
        confusion[usize::from(label)][largest(row)] += 1;
    }
    let correct: u64 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    let accuracy = correct as f64 / test.len() as f64;
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let figures: Vec<_> = confusion
        .iter()
        .enumerate()
        .map(|(class, row)| {
            let taken: u64 = confusion.iter().map(|row| row[class]).sum();
            let count: u64 = row.iter().sum();
            (model.class_name(class), share(row[class], taken), share(row[class], count), count)
        })
        .collect();

    if args.json {
        let per_class: Vec<_> = figures
            .iter()
            .map(|(name, precision, recall, count)| {
                json!({ "class": name, "precision": precision, "recall": recall, "count": count })
            })
            .collect();
        return emit_json(&json!({
            "network": model.network.name,
            "data": spec,
            "device": session.device(),
            "images": test.len(),
            "loss": metrics.loss(),
            "accuracy": accuracy,
            "correct": correct,
            "classes": per_class,
            "confusion": confusion,
        }));
    }
    let mut text = format!(
        "{} on {} test images of {}\nloss      {:.4}\naccuracy  {:.2} % ({} right, {} wrong)\n\n",
        model.network.name,
        thousands(test.len()),
        spec,
        metrics.loss(),
        100.0 * accuracy,
        thousands(correct),
        thousands(test.len() as u64 - correct),
    );
    let percent = |share: Option<f64>| share.map_or("—".into(), |share| format!("{:.2} %", 100.0 * share));
    let mut rows = vec![["class", "precision", "recall", "images"].map(String::from).to_vec()];
    for (name, precision, recall, count) in &figures {
        rows.push(vec![name.clone(), percent(*precision), percent(*recall), thousands(count)]);
    }
    text += &table(&rows);
    text += "\nconfusion: rows are what the images are, columns what they are taken for\n";
    let mut rows = vec![vec![String::new()]];
    rows[0].extend((0..classes).map(|class| model.class_name(class)));
    for (class, row) in confusion.iter().enumerate() {
        let mut cells = vec![model.class_name(class)];
        cells.extend(row.iter().map(|&count| if count == 0 { "·".into() } else { thousands(count) }));
        rows.push(cells);
    }
    text += &table(&rows);
    emit(&text)
}

/// The index of the largest value; the first of several.
pub fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}
