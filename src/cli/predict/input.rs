//! What is classified: pictures one by one or in folders, files of many, lines of numbers or of text.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use lenet::data::picture::{self, Grey};
use lenet::data::{self, Encoding, Rows, series, text};
use lenet::files;
use lenet::model::Model;
use rayon::prelude::*;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::say::say;

/// No picture that is read from stdin is larger, in bytes.
const MOST: u64 = 1 << 30;

/// One thing that is classified.
pub struct Item {
    /// Where it comes from.
    pub name: String,
    /// The network's input.
    pub pixels: Vec<u8>,
    /// What was made of it.
    pub seen: String,
    /// What is doubtful about that.
    pub doubts: Vec<String>,
    /// What the picture looks like, if something was made of it and is to be shown.
    pub before: Option<Grey>,
    /// Its class, where its file or folder says it.
    pub label: Option<usize>,
    /// Whether it is one row of many.
    pub row: bool,
    /// What its table calls it, and how the table calls that.
    pub id: Option<(String, String)>,
}

impl Item {
    fn new(name: String, pixels: Vec<u8>, seen: String) -> Item {
        Item { name, pixels, seen, doubts: Vec::new(), before: None, label: None, row: false, id: None }
    }
}

/// The files of the command line: a folder stands for the pictures in it and in its folders, sorted.
pub fn files(given: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in given {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let (before, mut passed) = (all.len(), 0);
        pictures(path, &mut all, &mut passed)?;
        if passed > 0 {
            say(&format!("{}: {passed} files that are no pictures are passed over", path.display()));
        }
        if all.len() == before {
            let ends = picture::EXTENSIONS.join(", ");
            return Err(Failure::data(format!(
                "{}: no picture found, expected files that end in {ends}",
                path.display()
            )));
        }
    }
    Ok(all)
}

/// Adds the pictures in a folder, and counts its other files.
fn pictures(dir: &Path, all: &mut Vec<PathBuf>, passed: &mut usize) -> Outcome {
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| Failure::data(format!("{}: {error}", dir.display())))?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let end = path.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        } else if path.is_dir() {
            // A link to a folder above would lead around for ever.
            if !path.is_symlink() {
                pictures(&path, all, passed)?;
            }
        } else if picture::EXTENSIONS.contains(&end.as_str()) {
            all.push(path);
        } else {
            *passed += 1;
        }
    }
    Ok(())
}

/// What a file holds, as the network takes it; with a look at pictures as they were if they are to be `shown`.
pub fn read(model: &Model, path: &Path, shown: bool) -> Outcome<Vec<Item>> {
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
    let like = model.like();
    let length: usize = like.shape.iter().product();
    match &model.about.encoding {
        Encoding::Range { low, high } if !is_table(&name, &bytes, length) => {
            return lines(&name, &bytes)?
                .map(|(name, line)| signal(name, line, length, *low, *high))
                .collect();
        }
        Encoding::Text { alphabet } => return texts(model, alphabet, &name, &bytes),
        _ => {}
    }
    if let Some(rows) = data::rows(&name, &bytes, &like).map_err(Failure::reading)? {
        rows.notes.iter().for_each(|note| say(&format!("{name}: {note}")));
        return Ok(items(model, &name, rows, length));
    }
    let (pixels, preparation) = model.picture(&bytes, &name).map_err(|error| match error {
        lenet::Error::Settings(_) => Failure::usage(format!("{}: {error}", model.network.name)),
        error => Failure::reading(error),
    })?;
    let half = |side: usize| (side / 2).clamp(14, 32);
    let [_, height, width] = like.shape;
    let before = shown && !preparation.unchanged;
    let before = before.then(|| picture::thumbnail(&bytes, &name, half(height), half(width)));
    let before = before.transpose().map_err(Failure::reading)?;
    // The folder that a picture lies in is its class, if it is called like one.
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let label = folder.and_then(|folder| data::places(&[folder], &model.about.class_names)[0]);
    let doubts = preparation.doubts.clone();
    Ok(vec![Item { doubts, before, label, ..Item::new(name, pixels, preparation.to_string()) }])
}

/// The rows of a file, each an item.
fn items(model: &Model, name: &str, rows: Rows, length: usize) -> Vec<Item> {
    let Rows { pixels, labels, ids, .. } = rows;
    let labels: Option<Vec<usize>> = labels.and_then(|labels| {
        let mut kinds = labels.clone();
        kinds.sort_unstable();
        kinds.dedup();
        let places = data::places(&kinds, &model.about.class_names);
        let known: HashMap<_, _> = kinds.into_iter().zip(places).collect();
        let found: Option<Vec<usize>> = labels.iter().map(|label| *known.get(label)?).collect();
        if found.is_none() {
            say(&format!("{name}: its labels are other classes than the network's, and are passed over"));
        }
        found
    });
    (pixels.par_chunks_exact(length).enumerate())
        .map(|(i, pixels)| Item {
            label: labels.as_ref().map(|labels| labels[i]),
            row: true,
            id: ids.as_ref().map(|(heading, ids)| (heading.clone(), ids[i].clone())),
            ..Item::new(format!("{name}:{}", i + 1), pixels.to_vec(), "a row".into())
        })
        .collect()
}

/// Whether a file for a network of signals has more than lines of as many numbers as it takes: a heading, a label.
fn is_table(name: &str, bytes: &[u8], length: usize) -> bool {
    let lower = name.to_lowercase();
    if ![".csv", ".tsv", ".csv.gz", ".tsv.gz"].iter().any(|end| lower.ends_with(end)) {
        return [&b"\x93NUMPY"[..], b"PK\x03\x04"].iter().any(|start| bytes.starts_with(start));
    }
    let first =
        bytes.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let Ok(first) = std::str::from_utf8(first) else { return true };
    let cells: Vec<&str> = first.split([',', '\t', ';']).map(str::trim).collect();
    let words = cells.iter().filter(|cell| cell.parse::<f32>().is_err()).count();
    (cells.len() == length && 2 * words > length) || (length + 1..=length + 2).contains(&cells.len())
}

fn texts(model: &Model, alphabet: &str, name: &str, bytes: &[u8]) -> Outcome<Vec<Item>> {
    let [channels, height, width] = model.like().shape;
    if channels != alphabet.chars().count() || height != 1 {
        return Err(Failure::data(format!(
            "{} takes pictures of {channels}×{height}×{width}, its alphabet has {} characters",
            model.network.name,
            alphabet.chars().count()
        )));
    }
    let item = |(name, line)| {
        let pixels = text::encode(line, alphabet, width);
        let seen = format!("{:?}", text::decode(&pixels, alphabet, width));
        Item::new(name, pixels, seen)
    };
    Ok(lines(name, bytes)?.map(item).collect())
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
    Ok(Item::new(name, series::quantize(&values, low, high), seen))
}
