//! How an answer looks: in words, with what the network saw, or as JSON.

use lenet::data::Encoding;
use lenet::data::picture::{self, Grey};
use lenet::model::Model;
use lenet::network::Shape;
use serde_json::json;

use super::Args;
use super::input::Item;
use crate::cli::failure::Outcome;
use crate::cli::model::largest;
use crate::cli::say::{emit, emit_json};

/// Columns of a full bar.
const BAR: usize = 40;

/// Says what an item is; gives its class.
pub fn answered(args: &Args, model: &Model, item: &Item, row: &[f32]) -> Outcome<usize> {
    let mut ranked: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
    // The sort is stable: of equals the first stays first.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(usize::from(args.top));
    let (class, probability) = ranked.first().copied().unwrap_or_default();
    let Item { name, pixels, seen, doubts, .. } = item;
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
            "doubts": doubts,
        }))?;
        return Ok(class);
    }
    if args.out.is_some() {
        return Ok(class);
    }
    if item.row {
        emit(&format!("{name}: {}  {:.2} %\n", model.class_name(class), 100.0 * probability))?;
        return Ok(class);
    }
    let mut text = format!("{name}: {}\n", model.class_name(class));
    if matches!(model.about.encoding, Encoding::Ink | Encoding::Picture) {
        let input = &model.network.input;
        let after = framed(&picture::show(&grey(pixels, input.channels), input.width), input.width);
        text += &match &item.before {
            Some(Grey { width, pixels, .. }) => {
                beside(&framed(&picture::show(pixels, *width), *width), &after)
            }
            None => after,
        };
    }
    text += &format!("seen as: {seen}\n");
    if !doubts.is_empty() {
        text += &format!("doubtful: {}\n", doubts.join("; "));
    }
    let width = ranked.iter().map(|(class, _)| model.class_name(*class).chars().count()).max().unwrap_or(0);
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
    Ok(class)
}

/// Two blocks of lines side by side, each line of a block as wide as the others of it; the first in the middle.
fn beside(first: &str, second: &str) -> String {
    let (first, second): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let width = first.first().map_or(0, |line| line.chars().count());
    let above = second.len().saturating_sub(first.len()) / 2;
    let mut text = String::new();
    for y in 0..second.len().max(first.len() + above) {
        let line = y.checked_sub(above).and_then(|y| first.get(y)).copied().unwrap_or_default();
        let arrow = if y == second.len() / 2 { " → " } else { "   " };
        let both = format!("{line:width$}{arrow}{}", second.get(y).copied().unwrap_or_default());
        text += both.trim_end();
        text.push('\n');
    }
    text
}

/// Shows the class of every pixel: the first letter of its name, or a dot for the first class, the ground.
pub fn labelled(args: &Args, model: &Model, item: &Item, scores: &[f32]) -> Outcome {
    let Shape { channels, height, width } = model.network.output()?;
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
