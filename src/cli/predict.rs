//! `lenet predict`: what a picture, a signal or a text is, how sure the network is, and what it saw.

use std::io::Read;
use std::path::PathBuf;

use lenet::data::{Encoding, picture, series, text};
use lenet::files;
use lenet::model::Model;
use lenet::network::{Input, Shape};
use lenet::plan::Options;
use pollster::block_on;
use serde_json::json;

use super::device;
use super::failure::{Failure, Outcome};
use super::model::{Given, largest};
use super::say::{emit, emit_json, say};

/// No picture that is read from stdin is larger, in bytes.
const MOST: u64 = 1 << 30;

/// Columns of a full bar.
const BAR: usize = 40;

/// Arguments of `lenet predict`.
#[derive(clap::Args)]
pub struct Args {
    /// What `lenet train` wrote: a run's folder or a .safetensors file
    model: PathBuf,
    /// Pictures: PNG, JPEG or PNM files; for a network of signals or texts, files with one a line; - reads stdin
    #[arg(required = true, value_name = "IMAGE|FILE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Show this many classes, the most likely first
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, default_value = device::AUTO)]
    device: String,
    /// Print JSON, one line a picture, signal or text
    #[arg(long)]
    json: bool,
}

/// Runs `lenet predict`.
pub fn run(args: &Args) -> Outcome {
    let model = args.given.load(&args.model)?;
    let input = model.network.input;
    let mut items = Vec::new();
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
            (path.display().to_string(), files::read(path).map_err(Failure::reading)?)
        };
        items.extend(Item::read(&model, &input, name, &bytes)?);
    }
    if items.is_empty() {
        return Err(Failure::data("there is nothing to classify: no line found"));
    }
    let pixels: Vec<u8> = items.iter().flat_map(|item| &item.pixels).copied().collect();
    let chosen = device::choose(&args.device)?;
    say(&chosen.line);
    let options = Options { batch: items.len().min(128), ..Options::default() };
    let mut session = chosen.session(chosen.plan(&model.network, &options)?)?;
    session.set_parameters(model.parameters.iter().map(Vec::as_slice))?;
    let probabilities = block_on(session.predict(&pixels))?;
    let (classes, places) = (session.plan().classes(), session.plan().positions);
    if places > 1 {
        let shape = model.network.output()?;
        for (item, scores) in items.iter().zip(probabilities.chunks_exact(classes * places)) {
            labelled(args, &model, item, scores, shape)?;
        }
        return Ok(());
    }
    for (Item { name, pixels, seen, .. }, row) in items.iter().zip(probabilities.chunks_exact(classes)) {
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
                "preparation": seen,
            }))?;
            continue;
        }
        let mut text = format!("{name}: {}\n", model.class_name(class));
        if matches!(model.about.encoding, Encoding::Ink | Encoding::Picture) {
            text += &framed(&picture::show(&grey(pixels, input.channels), input.width), input.width);
        }
        text += &format!("seen as: {seen}\n");
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

/// Shows the class of every pixel: the first letter of its name, or a dot for the first class, the ground.
fn labelled(args: &Args, model: &Model, item: &Item, scores: &[f32], shape: Shape) -> Outcome {
    let Shape { channels, height, width } = shape;
    let places = height * width;
    let classes: Vec<usize> = (0..places)
        .map(|place| {
            let row: Vec<f32> = (0..channels).map(|class| scores[class * places + place]).collect();
            largest(&row)
        })
        .collect();
    let counts: Vec<(String, usize)> = (0..channels)
        .map(|class| (model.class_name(class), classes.iter().filter(|&&other| other == class).count()))
        .collect();
    if args.json {
        let counts: serde_json::Map<_, _> =
            counts.into_iter().map(|(name, count)| (name, count.into())).collect();
        let map: Vec<&[usize]> = classes.chunks_exact(width).collect();
        return emit_json(&json!({
            "image": item.name,
            "classes": map,
            "pixels": counts,
            "preparation": item.seen,
        }));
    }
    let letter = |class: usize| {
        let name = model.class_name(class);
        if class == 0 { '·' } else { name.chars().next().unwrap_or('?') }
    };
    let mut text = format!("{}:\n", item.name);
    // A letter is about twice as high as it is wide.
    for row in classes.chunks_exact(width).step_by(2) {
        text.extend(row.iter().map(|&class| letter(class)));
        text.push('\n');
    }
    text += &format!("seen as: {}\n", item.seen);
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        text += &format!("{name:>10}  {count} pixels\n");
    }
    emit(&text)
}

/// What is classified.
struct Item {
    /// Where it comes from.
    name: String,
    /// The network's input.
    pixels: Vec<u8>,
    /// What was made of it.
    seen: String,
}

impl Item {
    /// What a file holds: a picture, or a signal or text in each line, as the network takes them.
    fn read(model: &Model, input: &Input, name: String, bytes: &[u8]) -> Outcome<Vec<Item>> {
        let (channels, height, width) = (input.channels, input.height, input.width);
        let picture = match &model.about.encoding {
            Encoding::Ink if channels == 1 => picture::prepare(bytes, &name, height, width),
            Encoding::Ink | Encoding::Picture => picture::fit(bytes, &name, channels, height, width),
            Encoding::Range { low, high } => {
                return lines(&name, bytes)?
                    .map(|(name, line)| signal(name, line, channels * height * width, *low, *high))
                    .collect();
            }
            Encoding::Text { alphabet } => {
                if channels != alphabet.chars().count() || height != 1 {
                    return Err(Failure::data(format!(
                        "{} takes pictures of {channels}×{height}×{width}, its alphabet has {} characters",
                        model.network.name,
                        alphabet.chars().count()
                    )));
                }
                return Ok(lines(&name, bytes)?
                    .map(|(name, line)| {
                        let pixels = text::encode(line, alphabet, width);
                        let seen = format!("{:?}", text::decode(&pixels, alphabet, width));
                        Item { name, pixels, seen }
                    })
                    .collect());
            }
        };
        let (pixels, preparation) = picture.map_err(|error| match error {
            lenet::Error::Settings(_) => Failure::usage(format!("{}: {error}", model.network.name)),
            error => Failure::reading(error),
        })?;
        Ok(vec![Item { name, pixels, seen: preparation.to_string() }])
    }
}

/// The lines of a file that are not blank, each with the file's name and its number.
fn lines<'a>(name: &'a str, bytes: &'a [u8]) -> Outcome<impl Iterator<Item = (String, &'a str)>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Failure::data(format!("{name}: bytes that are not UTF-8 found, expected text")))?;
    Ok(text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(move |(i, line)| (format!("{name}:{}", i + 1), line.trim())))
}

/// A line of numbers with commas, tabs or spaces between them as the network's input.
fn signal(name: String, line: &str, length: usize, low: f32, high: f32) -> Outcome<Item> {
    let values = line
        .split([',', '\t', ' '])
        .filter(|cell| !cell.is_empty())
        .map(|cell| {
            cell.parse::<f32>()
                .ok()
                .filter(|value| value.is_finite())
                .ok_or_else(|| Failure::data(format!("{name}: {cell:?} found, expected a finite number")))
        })
        .collect::<Outcome<Vec<f32>>>()?;
    if values.len() != length {
        return Err(Failure::data(format!("{name}: {} numbers found, expected {length}", values.len())));
    }
    let beyond = values.iter().filter(|value| !(low..=high).contains(*value)).count();
    let seen = format!("{length} numbers, {beyond} of them beyond {low} to {high}");
    Ok(Item { name, pixels: series::quantize(&values, low, high), seen })
}

/// A picture's planes as one, for display.
fn grey(planes: &[u8], channels: usize) -> Vec<u8> {
    let area = planes.len() / channels.max(1);
    // Rounded means: how it looks matters here, not its exact luminance.
    (0..area)
        .map(|i| {
            let sum: usize = planes[i..].iter().step_by(area).map(|&value| usize::from(value)).sum();
            ((sum + channels / 2) / channels.max(1)) as u8
        })
        .collect()
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
