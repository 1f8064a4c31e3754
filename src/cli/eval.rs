//! `lenet eval`: what a trained network gets right, by class.

use std::path::PathBuf;

use lenet::data;
use lenet::read;
use pollster::block_on;
use serde_json::json;

use super::device;
use super::failure::{Failure, Outcome};
use super::model::{Given, evaluator, largest};
use super::run::judge;
use super::say::{emit, emit_json, say, table, thousands};

/// Arguments of `lenet eval`.
#[derive(clap::Args)]
pub struct Args {
    /// What `lenet train` wrote: a run's folder or a .safetensors file
    model: PathBuf,
    #[command(flatten)]
    given: Given,
    /// The data, as `lenet train` takes it [default: what the model was trained on, else mnist]
    #[arg(long, value_name = "NAME|DIR|FILE")]
    data: Option<String>,
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, default_value = device::AUTO)]
    device: String,
    /// The column of a table that holds the labels, by its name or its number from 1, where that cannot be told
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Go on without the pictures of a folder that are damaged or none, and say how many they are
    #[arg(long)]
    skip_damaged: bool,
    /// Images in a batch
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Images whose probabilities are held at once.
const AT_ONCE: usize = 4096;

/// Runs `lenet eval`.
pub fn run(args: &Args) -> Outcome {
    let mut model = args.given.load(&args.model)?;
    let spec =
        args.data.as_ref().or(model.about.trained_on.as_ref()).map_or("mnist", String::as_str).to_owned();
    let reading = data::Reading { label: args.label.as_deref(), skip_damaged: args.skip_damaged };
    let loaded = data::load_with(&spec, reading).map_err(Failure::reading)?;
    loaded.notes.iter().for_each(|line| say(line));
    let mut test = loaded.test;
    if test.is_empty() {
        return Err(Failure::data(format!("{spec}: there are no test images")));
    }
    // The model's classes that the data has, too.
    let mut judged: Vec<usize> = (0..test.classes).collect();
    if model.about.class_names.is_empty() {
        model.about.class_names.clone_from(&test.class_names);
    } else {
        judged = data::places(&test.class_names, &model.about.class_names).into_iter().flatten().collect();
        judged.sort_unstable();
        test = test.with_classes(&model.about.class_names).map_err(Failure::reading)?;
    }
    let chosen = device::choose(&args.device)?;
    say(&chosen.line);
    let parameters: Vec<&[f32]> = model.parameters.iter().map(Vec::as_slice).collect();
    let mut session = evaluator(&chosen, &model.network, &parameters, &test, args.batch)?;
    let metrics = judge(&mut session, test.len())?;

    let (classes, places) = (session.plan().classes(), session.plan().positions);
    // Rows are what the images, or their pixels, are; columns what they are taken for.
    let mut confusion = vec![vec![0u64; classes]; classes.max(test.classes)];
    let pieces = test.images.pieces(AT_ONCE * test.pixels()).zip(test.labels.chunks(AT_ONCE * places));
    for (pictures, labels) in pieces {
        let probabilities = block_on(session.predict(&pictures?))?;
        for (image, labels) in probabilities.chunks_exact(classes * places).zip(labels.chunks_exact(places)) {
            for (place, &label) in labels.iter().enumerate() {
                let row: Vec<f32> = (0..classes).map(|class| image[class * places + place]).collect();
                confusion[usize::from(label)][largest(&row)] += 1;
            }
        }
    }
    let overlap = (places > 1).then(|| read::intersection_over_union(&confusion));
    let correct: u64 = (0..classes).map(|class| confusion[class][class]).sum();
    let accuracy = correct as f64 / test.labels.len() as f64;
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let figures: Vec<_> = judged
        .iter()
        .map(|&class| {
            let (row, taken) = (&confusion[class], confusion.iter().map(|row| row[class]).sum());
            let count: u64 = row.iter().sum();
            (model.class_name(class), share(row[class], taken), share(row[class], count), count)
        })
        .collect();

    let rows_of = |class: &usize| confusion[*class].clone();
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
            "intersection_over_union": overlap.as_ref().map(|(each, mean)| json!({ "classes": each, "mean": mean })),
            "confusion": judged.iter().map(rows_of).collect::<Vec<_>>(),
            "taken_for": (0..classes).map(|class| model.class_name(class)).collect::<Vec<_>>(),
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
        thousands(test.labels.len() as u64 - correct),
    );
    if let Some((_, mean)) = &overlap {
        text += &format!("mean IoU  {mean:.4}, of {} labelled pixels an image\n\n", thousands(places));
    }
    let percent = |share: Option<f64>| share.map_or("—".into(), |share| format!("{:.2} %", 100.0 * share));
    let what = if overlap.is_some() { "pixels" } else { "images" };
    let mut rows = vec![["class", "precision", "recall", what].map(String::from).to_vec()];
    if overlap.is_some() {
        rows[0].push("IoU".into());
    }
    for (row, (&class, (name, precision, recall, count))) in judged.iter().zip(&figures).enumerate() {
        rows.push(vec![name.clone(), percent(*precision), percent(*recall), thousands(*count)]);
        if let Some((each, _)) = &overlap {
            rows[row + 1].push(each[class].map_or("—".into(), |share| format!("{share:.4}")));
        }
    }
    text += &table(&rows);
    text += &format!("\nconfusion: rows are what the {what} are, columns what they are taken for\n");
    let mut rows = vec![vec![String::new()]];
    rows[0].extend((0..classes).map(|class| model.class_name(class)));
    for class in judged {
        let mut cells = vec![model.class_name(class)];
        cells.extend(
            confusion[class].iter().map(|&count| if count == 0 { "·".into() } else { thousands(count) }),
        );
        rows.push(cells);
    }
    text += &table(&rows);
    emit(&text)
}
