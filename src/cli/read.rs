//! `lenet read`: a string of digits out of a picture, by a network laid over it.

use std::collections::HashMap;
use std::path::PathBuf;

use lenet::data::picture::{self, Grey};
use lenet::data::{self, compose};
use lenet::files;
use lenet::model::Model;
use lenet::network::{Network, Windows};
use lenet::plan::Options;
use lenet::read::{self, Glyph, Grid, Scores};
use lenet::session::Session;
use pollster::block_on;
use serde_json::json;

use super::device::{self, Chosen};
use super::failure::{Failure, Outcome};
use super::model::Given;
use super::say::{emit, emit_json, say, thousands};

/// Arguments of `lenet read`.
#[derive(clap::Args)]
pub struct Args {
    /// A network with a class for windows without a digit, as `lenet train --net lenet5-windows --data
    /// mnist-windows` makes it: a run's folder or a .safetensors file
    model: PathBuf,
    /// Pictures of one line of digits
    #[arg(required_unless_present = "measure", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Read so many strings that are put together from MNIST's test digits, and say how well
    #[arg(long, value_name = "N", conflicts_with = "images", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    measure: Option<u32>,
    /// Digits of such a string
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=64))]
    length: u16,
    /// The seed of the strings
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    given: Given,
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, default_value = device::AUTO)]
    device: String,
    /// Print JSON, one line a picture
    #[arg(long)]
    json: bool,
}

/// Runs `lenet read`.
pub fn run(args: &Args) -> Outcome {
    let mut reader = Reader::new(args.given.load(&args.model)?, device::choose(&args.device)?)?;
    say(&reader.chosen.line);
    if let Some(count) = args.measure {
        return measure(args, &mut reader, count as usize);
    }
    // A window around any digit is to lie inside.
    let (margin, least) = (reader.windows.field / 2 + 4, reader.windows.field + 4);
    for path in &args.images {
        let name = path.display().to_string();
        let bytes = files::read(path).map_err(Failure::reading)?;
        let writing = picture::prepare_line(&bytes, &name, picture::LINE_HEIGHT, margin, least)
            .map_err(Failure::reading)?;
        let glyphs = reader.glyphs(&writing.picture)?;
        let text = read::text(&glyphs);
        let boxes: Vec<[u32; 4]> = glyphs.iter().map(|glyph| writing.original(glyph.bounds)).collect();
        if args.json {
            let digits: Vec<_> = glyphs
                .iter()
                .zip(&boxes)
                .map(|(glyph, bounds)| {
                    json!({ "digit": glyph.class, "probability": glyph.confidence, "box": bounds })
                })
                .collect();
            emit_json(&json!({ "image": name, "text": text, "size": writing.size, "digits": digits }))?;
            continue;
        }
        let mut said = format!("{name}: {text}\n");
        for (glyph, [left, top, right, bottom]) in glyphs.iter().zip(boxes) {
            said += &format!(
                "  {}  {:>6.2} %  columns {left}–{right}, rows {top}–{bottom}\n",
                glyph.class,
                100.0 * glyph.confidence
            );
        }
        emit(&said)?;
    }
    Ok(())
}

fn measure(args: &Args, reader: &mut Reader, count: usize) -> Outcome {
    let digits = data::mnist()?.test;
    let lines = compose::strings(&digits, usize::from(args.length), count, args.seed)?;
    let mut reading = read::Reading::default();
    for line in &lines {
        reading.add(line, &reader.glyphs(&line.picture)?);
    }
    if args.json {
        return emit_json(&json!({
            "strings": reading.strings,
            "length": args.length,
            "seed": args.seed,
            "string_accuracy": reading.accuracy(),
            "character_error_rate": reading.error_rate(),
            "box_overlap": reading.mean_overlap(),
        }));
    }
    emit(&format!(
        "{} strings of {} digits, seed {}\nstring accuracy       {:.2} %\ncharacter error rate  {:.2} %\n\
         box overlap (IoU)     {:.3}\n",
        thousands(count),
        args.length,
        args.seed,
        100.0 * reading.accuracy(),
        100.0 * reading.error_rate(),
        reading.mean_overlap(),
    ))
}

/// A network with its plans for the sizes of pictures that it has met.
struct Reader {
    model: Model,
    chosen: Chosen,
    windows: Windows,
    grid: Grid,
    sessions: HashMap<(usize, usize), Session>,
}

impl Reader {
    fn new(model: Model, chosen: Chosen) -> Outcome<Reader> {
        let network = &model.network;
        let windows = network.windows()?;
        let none = model.about.class_names.iter().position(|name| name == "none");
        let none = none.ok_or_else(|| {
            Failure::usage(format!(
                "{} has no class called none, for windows without a digit; `lenet train --net lenet5-windows --data \
                 mnist-windows` trains one that has",
                network.name
            ))
        })?;
        let Windows { stride, field } = windows;
        let pad = network.input.pad;
        let grid = Grid { stride, field, pad, none, ..Grid::default() };
        Ok(Reader { model, chosen, windows, grid, sessions: HashMap::new() })
    }

    /// The digits of a picture, from four runs over it, each moved by half a stride.
    fn glyphs(&mut self, picture: &Grey) -> Outcome<Vec<Glyph>> {
        let half = self.grid.stride / 2;
        let pictures = read::shifted(picture, half);
        let pixels: Vec<u8> = pictures.iter().flat_map(|picture| &picture.pixels).copied().collect();
        let network: Network = self.model.network.convolutional(picture.height, picture.width)?;
        let output = network.output()?;
        let size = (picture.height, picture.width);
        if !self.sessions.contains_key(&size) {
            let options = Options { batch: pictures.len(), ..Options::default() };
            let mut session = self.chosen.session(self.chosen.plan(&network, &options)?)?;
            session.set_parameters(self.model.parameters.iter().map(Vec::as_slice))?;
            self.sessions.insert(size, session);
        }
        let Some(session) = self.sessions.get_mut(&size) else { return Ok(Vec::new()) };
        let probabilities = block_on(session.predict(&pixels))?;
        let one = output.len();
        let scores: [Scores; 4] = std::array::from_fn(|i| Scores {
            classes: output.channels,
            rows: output.height,
            columns: output.width,
            probabilities: probabilities[i * one..][..one].to_vec(),
        });
        if half == 0 {
            return Ok(read::decode(&scores[0], picture, &self.grid)?);
        }
        Ok(read::decode(&read::interleaved(&scores)?, picture, &self.grid.fine())?)
    }
}
