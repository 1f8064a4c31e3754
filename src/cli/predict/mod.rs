//! `lenet predict`: what a picture, a signal or a text is, how sure the network is, and what it saw.

mod answer;
mod input;
mod submission;

use std::path::PathBuf;

use lenet::plan::Options;
use pollster::block_on;

use super::device;
use super::failure::{Failure, Outcome};
use super::model::Given;
use super::say::{emit, say, thousands};
use answer::{answered, labelled};
use input::Item;

/// Arguments of `lenet predict`.
#[derive(clap::Args)]
pub struct Args {
    /// What `lenet train` wrote: a run's folder or a .safetensors file
    model: PathBuf,
    /// Pictures, folders of pictures, or files of many of them: tables (.csv, .tsv, also .gz), .npy, .npz, IDX; for a
    /// network of signals or texts, files with one a line; - reads stdin
    #[arg(required = true, value_name = "IMAGE|FILE|DIR")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Show this many classes, the most likely first
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, default_value = device::AUTO)]
    device: String,
    /// Write a table of the classes, a row each: with the heading of a sample submission beside the input, with the
    /// input's id column, or with ImageId and Label
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON, one line a picture, signal or text
    #[arg(long)]
    json: bool,
}

/// Items whose probabilities are held at once.
const AT_ONCE: usize = 4096;

/// Runs `lenet predict`.
pub fn run(args: &Args) -> Outcome {
    let model = args.given.load(&args.model)?;
    let files = input::files(&args.images)?;
    let (mut items, mut bad): (Vec<Item>, Vec<String>) = (Vec::new(), Vec::new());
    for file in &files {
        match input::read(&model, file, !args.json && args.out.is_none()) {
            Ok(found) => items.extend(found),
            // One that is damaged does not keep the others from their answers.
            Err(failure) if files.len() > 1 && failure.code == super::failure::code::DATA => {
                say(&failure.to_string());
                bad.push(file.display().to_string());
            }
            Err(failure) => return Err(failure),
        }
    }
    if items.is_empty() {
        return Err(Failure::data(match bad.len() {
            0 => "there is nothing to classify: no line or picture found".to_owned(),
            some => format!("none of the {some} files can be read"),
        }));
    }
    let chosen = device::choose(&args.device)?;
    say(&chosen.line);
    let options = Options { batch: items.len().min(128), ..Options::default() };
    let mut session = chosen.session(chosen.plan(&model.network, &options)?)?;
    session.set_parameters(model.parameters.iter().map(Vec::as_slice))?;
    let (classes, places) = (session.plan().classes(), session.plan().positions);
    if places > 1 && args.out.is_some() {
        return Err(Failure::usage(format!(
            "{} has a class for every pixel, which is no table of classes",
            model.network.name
        )));
    }
    let mut taken = Vec::with_capacity(items.len());
    for items in items.chunks(AT_ONCE) {
        let pixels: Vec<u8> = items.iter().flat_map(|item| &item.pixels).copied().collect();
        let probabilities = block_on(session.predict(&pixels))?;
        for (item, row) in items.iter().zip(probabilities.chunks_exact(classes * places)) {
            if places > 1 {
                labelled(args, &model, item, row)?;
            } else {
                taken.push(answered(args, &model, item, row)?);
            }
        }
    }
    if let Some(out) = &args.out {
        let names: Vec<String> = taken.iter().map(|&class| model.class_name(class)).collect();
        submission::write(out, &files, &items, &names)?;
        say(&format!("{} classes are written to {}", thousands(items.len()), out.display()));
    }
    let known: Vec<bool> =
        items.iter().zip(&taken).filter_map(|(item, class)| Some(item.label? == *class)).collect();
    if !known.is_empty() {
        let right = known.iter().filter(|right| **right).count();
        let line = format!(
            "accuracy {:.2} % ({} of {} that say what they are)",
            100.0 * right as f64 / known.len() as f64,
            thousands(right),
            thousands(known.len())
        );
        if args.json { say(&line) } else { emit(&format!("{line}\n"))? }
    }
    match &bad[..] {
        [] => Ok(()),
        bad => {
            let shown = bad.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if bad.len() > 3 { ", …" } else { "" };
            Err(Failure::data(format!(
                "{} of {} files cannot be read: {shown}{more}; the others are answered",
                bad.len(),
                files.len()
            )))
        }
    }
}
