//! Tables: CSV and TSV files with one image or signal a row.
//!
//! A label and as many values as there are pixels or numbers, as in Kaggle's `mnist_train.csv`, OpenML's
//! `mnist_784.csv` and the UCR archive of time series (`ECG200_TRAIN.tsv`).

mod read;

#[cfg(not(target_arch = "wasm32"))]
use std::collections::BTreeMap;

use crate::data::classes::{Classes, known_names, label_classes};
use crate::data::dataset::{Dataset, planes, transposed};
use crate::data::input::refuse;
use crate::data::series;
use crate::data::split::Split;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::{classes::read_names, input::list, split::held_out};
use crate::error::{Error, Result};

pub use read::{Ids, Table, parse, parse_rows};

/// The least side of a picture whose values are of any range.
const LEAST_SIDE: usize = 5;

/// The shape of the picture that a row is, and whether its colours lie together; none of a signal.
fn picture(table: &Table) -> Option<([usize; 3], bool)> {
    let columns = table.columns;
    let (grey, colour) = (columns.isqrt(), (columns / 3).isqrt());
    let bytes = || table.values.iter().all(|value| (0.0..=255.0).contains(value) && value.fract() == 0.0);
    let file = table.file.to_lowercase();
    // The archive of time series has its own names, and some of its series are as long as a square has pixels.
    let series = file.ends_with("_train.tsv") || file.ends_with("_test.tsv");
    if grey * grey == columns && ((grey >= LEAST_SIDE && !series) || bytes()) {
        return Some(([1, grey, grey], false));
    }
    (3 * colour * colour == columns && colour >= LEAST_SIDE && !series).then_some(([3, colour, colour], true))
}

/// The numbers that bytes 0 and 255 stand for, of those that pictures usually have; and it in words, where it is not
/// told by itself.
fn levels(values: &[f32]) -> (f32, f32, Option<String>) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let whole = values.iter().all(|value| value.fract() == 0.0);
    let (low, high) = match (least, most) {
        _ if least >= 0.0 && most <= 1.0 => (0.0, 1.0),
        _ if whole && least >= 0.0 && most <= 16.0 => (0.0, 16.0),
        _ if least >= 0.0 && most <= 255.0 => (0.0, 255.0),
        _ if least >= -1.0 && most <= 1.0 => (-1.0, 1.0),
        other => other,
    };
    let told = (low, high) != (0.0, 255.0);
    (low, high, told.then(|| format!("pixels of {low} to {high} are black to white")))
}

/// Makes data of two tables.
///
/// Rows of as many values as a square has pixels, or three squares, are pictures, `[1, side, side]` or `[3, side,
/// side]`: whole numbers of 0 to 255, or of any range from five pixels a side on, which is scaled to bytes.
/// Else a row is a signal `[1, 1, columns]` of real numbers, scaled to bytes by the range of the training part
/// ([`series`]). `names` are names for the classes, where they have others than their labels.
///
/// # Errors
///
/// [`Error::Data`] when the tables differ in their columns, a table has no labels, these are not 2 to 256 different
/// ones, the second has one that the first lacks, or `names` are not as many as them.
pub fn tables(name: &str, train: &Table, test: &Table, names: Option<Vec<String>>) -> Result<Split> {
    let text = [train.labels()?, test.labels()?];
    if test.columns != train.columns {
        return Err(refuse(
            test.file.as_str(),
            format!(
                "{} values in a row found, expected {} as in {}",
                test.columns, train.columns, train.file
            ),
        ));
    }
    let (own, labels) = label_classes([(&train.file, text[0]), (&test.file, text[1])])?;
    let numbers = own.iter().enumerate().all(|(i, label)| *label == i.to_string());
    let names = match names {
        Some(names) if names.len() != own.len() => {
            return Err(refuse(
                train.file.as_str(),
                format!("{} different labels found, expected {} as there are names", own.len(), names.len()),
            ));
        }
        Some(names) => Some(names),
        None => {
            if numbers {
                known_names(name, own.len())
            } else {
                None
            }
        }
    };
    let classes = Classes { count: own.len(), names: Some(names.unwrap_or(own)) };
    let files = [train.file.as_str(), test.file.as_str()];
    let values = [&train.values[..], &test.values[..]];
    let mut notes = train.notes.clone();
    let Some((shape, together)) = picture(train) else {
        let make = |i: usize, bytes| -> Result<Dataset> {
            classes.dataset(name, files[i], [1, 1, train.columns], bytes, labels[i].clone())
        };
        return Ok(Split { notes, ..series::scaled(files, values, make)? });
    };
    let (low, high, told) = levels(&train.values);
    notes.extend(told);
    // As its IDX files, EMNIST's tables have rows and columns exchanged.
    let turned = name.to_lowercase().starts_with("emnist") || files[0].to_lowercase().contains("emnist-");
    if turned {
        notes.push("pictures of EMNIST are turned upright".into());
    }
    let part = |i: usize| {
        let mut bytes = match (low, high) {
            (0.0, 255.0) => values[i].iter().map(|&value| value.round() as u8).collect(),
            _ => series::quantize(values[i], low, high),
        };
        if together {
            bytes = planes(&bytes, shape[1] * shape[2], 3);
        }
        if turned {
            bytes = transposed(&bytes, shape);
        }
        let mut data = classes.dataset(name, files[i], shape, bytes, labels[i].clone())?;
        (data.scale, data.turned) = (((low, high) != (0.0, 255.0)).then_some([low, high]), turned);
        Ok::<_, Error>((files[i].to_owned(), data))
    };
    Ok(Split { notes, ..Split::new(part(0)?, part(1)?)? })
}

/// Divides one table: of each label a row in [`HELD_OUT`](crate::data::HELD_OUT), by its number, is the test part.
#[cfg(not(target_arch = "wasm32"))]
fn divided(name: &str, table: &Table, names: Option<Vec<String>>) -> Result<Split> {
    let labels = table.labels()?;
    let mut classes = BTreeMap::new();
    let numbers: Vec<usize> = labels
        .iter()
        .map(|label| {
            let next = classes.len();
            *classes.entry(label).or_insert(next)
        })
        .collect();
    let held = held_out(&numbers, |i| i.to_string().into_bytes());
    let part = |test: bool| Table {
        labels: Some(
            labels
                .iter()
                .zip(&held)
                .filter(|(_, held)| **held == test)
                .map(|(label, _)| label.clone())
                .collect(),
        ),
        values: (table.values.chunks_exact(table.columns).zip(&held))
            .filter(|(_, held)| **held == test)
            .flat_map(|(values, _)| values)
            .copied()
            .collect(),
        notes: if test { Vec::new() } else { table.notes.clone() },
        file: table.file.clone(),
        columns: table.columns,
        heading: table.heading.clone(),
    };
    let rows = held.iter().enumerate().filter(|(_, held)| **held).map(|(i, _)| format!("row {i}")).collect();
    Ok(Split { held_out: Some(rows), ..tables(name, &part(false), &part(true), names)? })
}

/// The table of one part: `train.csv`, `mnist_train.csv`, `ECG200_TRAIN.tsv`, …, gzipped or not; the first of several.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn part<'a>(files: &'a [String], part: &str) -> Option<&'a String> {
    files.iter().find(|file| {
        let lower = file.to_lowercase();
        let stem = lower.strip_suffix(".gz").unwrap_or(&lower);
        stem.strip_suffix(".csv")
            .or_else(|| stem.strip_suffix(".tsv"))
            .and_then(|stem| stem.strip_suffix(part))
            .is_some_and(|before| before.is_empty() || before.ends_with(['_', '-']))
    })
}

/// Loads the tables of a folder: `train` and `test`, perhaps with something and a `_` or `-` before it, and
/// `.csv` or `.tsv` behind it, gzipped or not. Where the second has no labels, as in a competition, a part of the first
/// is the test. `label` is what the label's column is called, if that cannot be told.
///
/// # Errors
///
/// [`Error::Data`] when a table is missing or malformed, or they do not fit each other; [`Error::Io`] when one
/// cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(dir: &std::path::Path, name: &str, label: Option<&str>) -> Result<Split> {
    let files = list(dir)?;
    let read_part = |what: &str, label: Option<&str>| match part(&files, what) {
        Some(file) => read(&dir.join(file), label),
        None => Err(refuse(
            dir.to_string_lossy(),
            format!("no file {what}.csv or {what}.tsv found, expected one"),
        )),
    };
    let names = read_names(&dir.join("classes.txt"))?;
    let (train, test) = (read_part("train", label)?, read_part("test", None)?);
    // With a heading the second one's label is called what the first one's is.
    let test = match label {
        Some(label) if test.heading.iter().any(|column| column.eq_ignore_ascii_case(label)) => {
            read_part("test", Some(label))?
        }
        _ => test,
    };
    let unlabelled = !train.heading.is_empty() && test.columns == train.columns && test.labels.is_none();
    if !unlabelled {
        return tables(name, &train, &test, names);
    }
    let mut split = divided(name, &train, names)?;
    split.notes.push(format!("{} has no labels: a row in six of {} is the test", test.file, train.file));
    Ok(split)
}

/// Loads one table, of which a part is the test. `label` is what the label's column is called, if that cannot be told.
///
/// # Errors
///
/// Those of [`load`].
#[cfg(not(target_arch = "wasm32"))]
pub fn load_file(path: &std::path::Path, name: &str, label: Option<&str>) -> Result<Split> {
    let table = read(path, label)?;
    let names = path.parent().map(|dir| read_names(&dir.join("classes.txt"))).transpose()?.flatten();
    divided(name, &table, names)
}

#[cfg(not(target_arch = "wasm32"))]
fn read(path: &std::path::Path, label: Option<&str>) -> Result<Table> {
    let file = path.to_string_lossy();
    parse(&file, &crate::files::read(path)?, label)
}

#[cfg(test)]
mod tests;
