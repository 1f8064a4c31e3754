//! `lenet predict`: what a picture shows, how sure the network is, and what it saw.

use std::io::Read;
use std::path::PathBuf;

use lenet::checkpoint;
use lenet::data::picture;
use lenet::plan::Options;
use pollster::block_on;
use serde_json::json;

use super::run::Model;
use super::{Failure, Outcome, device, emit, emit_json, load_network, say};

/// No picture that is read from stdin is larger, in bytes.
const MOST: u64 = 1 << 30;

/// Columns of a full bar.
const BAR: usize = 40;

/// Arguments of `lenet predict`.
#[derive(clap::Args)]
pub struct Args {
    /// What `lenet train` wrote: a run's folder or a .safetensors file
    model: PathBuf,
    /// Pictures: PNG, JPEG or PNM files; - reads one from stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The network, where the file does not say: a preset or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    net: Option<String>,
    /// Show this many classes, the most likely first
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, default_value = device::AUTO)]
    device: String,
    /// Print JSON, one line a picture
    #[arg(long)]
    json: bool,
}

/// Runs `lenet predict`.
pub fn run(args: &Args) -> Outcome {
    let network = args.net.as_deref().map(load_network).transpose()?;
    let model = Model::load(&args.model, network)?;
    let input = model.network.input;
    if input.channels != 1 {
        return Err(Failure::usage(format!(
            "{} takes pictures of {} channels; predict makes grey ones",
            model.network.name, input.channels
        )));
    }
    let mut pixels = Vec::new();
    let mut pictures = Vec::new();
    for path in &args.images {
        let (name, bytes) = if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .take(MOST)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::data(format!("stdin: {error}")))?;
            ("stdin".to_string(), bytes)
        } else {
            (path.display().to_string(), checkpoint::read(path).map_err(Failure::reading)?)
        };
        let (picture, preparation) =
            picture::prepare(&bytes, &name, input.height, input.width).map_err(Failure::reading)?;
        pixels.extend_from_slice(&picture);
        pictures.push((name, picture, preparation));
    }
    let chosen = device::choose(&args.device)?;
    say(&chosen.line);
    let options = Options { batch: pictures.len().min(128), ..Options::default() };
    let mut session = chosen.session(chosen.plan(&model.network, &options)?)?;
    session.set_parameters(model.parameters.iter().map(Vec::as_slice))?;
    let probabilities = block_on(session.predict(&pixels))?;
    let classes = session.plan().classes();
    for ((name, picture, preparation), row) in pictures.iter().zip(probabilities.chunks_exact(classes)) {
        let mut ranked: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
        // The sort is stable: of equals the first stays first.
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(usize::from(args.top));
        let Some(&(class, probability)) = ranked.first() else { continue };
        if args.json {
            let top: Vec<_> = ranked
                .iter()
                .map(|&(class, probability)| {
                    json!({ "class": class, "name": model.class_name(class), "probability": probability })
                })
                .collect();
            emit_json(&json!({
                "image": name,
                "class": class,
                "name": model.class_name(class),
                "probability": probability,
                "top": top,
                "probabilities": row,
                "preparation": preparation.to_string(),
            }))?;
            continue;
        }
        let mut text = format!("{name}: {}\n", model.class_name(class));
        text += &framed(&picture::show(picture, input.width), input.width);
        text += &format!("seen as: {preparation}\n");
        let width =
            ranked.iter().map(|(class, _)| model.class_name(*class).chars().count()).max().unwrap_or(0);
        for (class, probability) in ranked {
            text += &format!(
                "{:>width$}  {:>6.2} %  {}\n",
                model.class_name(class),
                100.0 * probability,
                bar(probability)
            );
        }
        text.push('\n');
        emit(&text)?;
    }
    Ok(())
}

/// Lines of text, two columns a pixel, in a frame.
fn framed(text: &str, width: usize) -> String {
    let edge = "─".repeat(2 * width);
    let lines: String = text.lines().map(|line| format!("│{line}│\n")).collect();
    format!("┌{edge}┐\n{lines}└{edge}┘\n")
}

/// A share as a bar, in eighths of a column.
fn bar(share: f32) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (8 * BAR) as f32).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}
