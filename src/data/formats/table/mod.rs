//! Tables: CSV and TSV files with one image or signal a row.
//!
//! A label and as many values as there are pixels or numbers, as in Kaggle's `mnist_train.csv`, OpenML's
//! `mnist_784.csv` and the UCR archive of time series (`ECG200_TRAIN.tsv`).

mod read;

use crate::data::classes::{Classes, Label};
use crate::data::dataset::{Dataset, planes, transposed};
use crate::data::formats::numbers::{Levels, is_byte, square};
use crate::data::input::refuse;
use crate::data::series;
use crate::data::split::Split;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::{
    classes::read_names,
    input::{extension, list},
    names::{Side, side, words},
    picture::EXTENSIONS,
    split::{drawn, places_of, recorded},
};
use crate::error::{Error, Result};

pub use read::{Ids, Table, parse, parse_rows};

/// A file, and the names of classes in it.
pub type Names = (String, Vec<String>);

/// The shape of the picture that a row is, and whether its colours lie together; none of a signal.
fn picture(table: &Table) -> Option<([usize; 3], bool)> {
    let file = table.file.to_lowercase();
    // The archive of time series has its own names, and some of its series are as long as a square has pixels.
    let series = file.ends_with("_train.tsv") || file.ends_with("_test.tsv");
    let bytes = || table.values.iter().copied().all(is_byte);
    square(table.columns, bytes).filter(|(shape, _)| !series || (shape[0] == 1 && bytes()))
}

/// Makes data of two tables.
///
/// Rows of as many values as a square has pixels, or three squares, are pictures, `[1, side, side]` or `[3, side,
/// side]`: whole numbers of 0 to 255, or of any range from five pixels a side on, which is scaled to bytes.
/// Else a row is a signal `[1, 1, columns]` of real numbers, scaled to bytes by the range of the training part
/// ([`series`]). The classes are the labels that occur; `names` is a file and what it calls them: one name a class in
/// their order, or one a number from 0 to the greatest label.
///
/// # Errors
///
/// [`Error::Data`] when the tables differ in their columns, a table has no labels, these are not 2 to 256 different
/// ones, or `names` does not fit them.
pub fn tables(name: &str, train: &Table, test: &Table, names: Option<Names>) -> Result<Split> {
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
    let parts = [(train.file.as_str(), text[0]), (test.file.as_str(), text[1])];
    let (mut classes, labels) = Classes::of(&parts, |label| Label::new(label))?;
    if let Some((file, names)) = names {
        classes = classes.called(&file, names)?;
    }
    let files = [train.file.as_str(), test.file.as_str()];
    let values = [&train.values[..], &test.values[..]];
    let mut notes = train.notes.clone();
    let Some((shape, together)) = picture(train) else {
        let make = |i: usize, bytes| -> Result<Dataset> {
            classes.dataset(name, [1, 1, train.columns], bytes, labels[i].clone())
        };
        return Ok(Split { notes, ..series::scaled(files, values, make)? });
    };
    let levels = Levels::of(train.values.iter().copied()).map_err(|message| refuse(files[0], message))?;
    notes.extend(levels.told().into_iter().chain(levels.differs(test.values.iter().copied())));
    // As its IDX files, EMNIST's tables have rows and columns exchanged.
    let turned = name.to_lowercase().starts_with("emnist") || files[0].to_lowercase().contains("emnist-");
    if turned {
        notes.push("pictures of EMNIST are turned upright".into());
    }
    let part = |i: usize| {
        let mut bytes: Vec<u8> = values[i].iter().map(|&value| levels.byte(value)).collect();
        if together {
            bytes = planes(&bytes, shape[1] * shape[2], 3);
        }
        if turned {
            bytes = transposed(&bytes, shape);
        }
        let mut data = classes.dataset(name, shape, bytes, labels[i].clone())?;
        (data.scale, data.turned) = (levels.range(), turned);
        Ok::<_, Error>((files[i].to_owned(), data))
    };
    Ok(Split { notes, ..Split::new(part(0)?, part(1)?)? })
}

/// Divides one table: of each label a row in [`HELD_OUT`](crate::data::HELD_OUT), by its number, is the test part.
#[cfg(not(target_arch = "wasm32"))]
fn divided(name: &str, table: &Table, names: Option<Names>) -> Result<Split> {
    let labels = table.labels()?;
    let held = drawn(labels);
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
    let held_out = recorded("row", &places_of(&held)[1]);
    Ok(Split { held_out, ..tables(name, &part(false), &part(true), names)? })
}

/// The table of one part: `train.csv`, `mnist_train.csv`, `ECG200_TRAIN.tsv`, `testing.csv.gz`, …: of several the one
/// whose name ends with the word, and the first.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn part(files: &[String], part: Side) -> Option<&String> {
    let fits = |file: &String| {
        let lower = file.to_lowercase();
        let stem = lower.strip_suffix(".gz").unwrap_or(&lower);
        let words = words(stem.strip_suffix(".csv").or_else(|| stem.strip_suffix(".tsv"))?);
        let place =
            |word: Option<&String>| side(word?).filter(|(side, _)| *side == part).map(|(_, early)| early);
        place(words.last()).map(|early| (0, early)).or_else(|| place(words.first()).map(|early| (1, early)))
    };
    files.iter().filter_map(|file| Some((fits(file)?, file))).min().map(|(_, file)| file)
}

/// Whether a table says what pictures are called, by its second line.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn names_pictures(path: &std::path::Path) -> Result<bool> {
    use std::io::Read;

    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(4096).read_to_end(&mut head).map_err(Error::io(path))?;
    let text = String::from_utf8_lossy(&head);
    let mut cells = text.lines().nth(1).unwrap_or_default().split([',', ';', '\t']);
    Ok(cells.any(|cell| EXTENSIONS.contains(&extension(cell.trim().trim_matches('"')).as_str())))
}

/// Loads the tables of a folder: `train` and `test`, perhaps with something and a `_` or `-` before it, and
/// `.csv` or `.tsv` behind it, gzipped or not. Where the second is missing or has no labels, as in a competition, a part
/// of the first is the test. `label` is what the label's column is called, if that cannot be told.
///
/// # Errors
///
/// [`Error::Data`] when a table is missing or malformed, or they do not fit each other; [`Error::Io`] when one
/// cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(dir: &std::path::Path, name: &str, label: Option<&str>) -> Result<Split> {
    let files = list(dir)?;
    let Some(file) = part(&files, Side::Train) else {
        return Err(refuse(dir.to_string_lossy(), "no file train.csv or train.tsv found, expected one"));
    };
    let names = names_in(dir)?;
    let train = read(&dir.join(file), label)?;
    let why = match part(&files, Side::Test).map(|file| dir.join(file)) {
        None => format!("{} has no test part", dir.display()),
        Some(path) => {
            let mut test = read(&path, None)?;
            // With a heading the second one's label is called what the first one's is.
            if let Some(label) = label
                && test.heading.iter().any(|column| column.eq_ignore_ascii_case(label))
            {
                test = read(&path, Some(label))?;
            }
            let labelled = train.heading.is_empty() || test.columns != train.columns || test.labels.is_some();
            if labelled {
                return tables(name, &train, &test, names);
            }
            format!("{} has no labels", test.file)
        }
    };
    let mut split = divided(name, &train, names)?;
    split.notes.push(format!("{why}: a row in six of each class of {} is the test", train.file));
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
    let names = path.parent().map(names_in).transpose()?.flatten();
    divided(name, &table, names)
}

/// What a `classes.txt` in a folder calls the classes.
#[cfg(not(target_arch = "wasm32"))]
fn names_in(dir: &std::path::Path) -> Result<Option<Names>> {
    let path = dir.join("classes.txt");
    Ok(read_names(&path)?.map(|names| (path.to_string_lossy().into_owned(), names)))
}

#[cfg(not(target_arch = "wasm32"))]
fn read(path: &std::path::Path, label: Option<&str>) -> Result<Table> {
    let file = path.to_string_lossy();
    parse(&file, &crate::files::read(path)?, label)
}

#[cfg(test)]
mod tests;
