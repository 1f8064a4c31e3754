//! A table of classes, as a competition asks for it.

use std::path::{Path, PathBuf};

use lenet::files;

use super::input::Item;
use crate::cli::failure::{Failure, Outcome};

/// What a sample of a submission shows: its heading, and the first row's number.
struct Sample {
    heading: [String; 2],
    first: Option<i64>,
}

impl Sample {
    /// The first table beside a file whose name says that it is one.
    fn beside(file: &Path) -> Option<Sample> {
        let dir = files::parent(file);
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
        names.sort();
        let is_sample = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            name.contains("sample") && name.contains("submission") && name.ends_with(".csv")
        };
        let bytes = files::read(names.iter().find(|path| is_sample(path))?).ok()?;
        let mut rows =
            csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(&bytes[..]);
        let mut rows = rows.records().map_while(Result::ok);
        let heading = rows.next()?;
        let [id, label] = [heading.get(0)?.to_owned(), heading.get(1)?.to_owned()];
        let first = rows.next().and_then(|row| row.get(0)?.parse().ok());
        (heading.len() == 2).then_some(Sample { heading: [id, label], first })
    }
}

/// Writes the classes, a row each.
pub fn write(out: &Path, inputs: &[PathBuf], items: &[Item], classes: &[String]) -> Outcome {
    let sample = inputs.iter().find_map(|file| Sample::beside(file));
    let id = items.first().and_then(|item| item.id.as_ref());
    let rows = items.iter().all(|item| item.row);
    let own = match id {
        Some((heading, _)) => [heading, "label"],
        None if rows => ["ImageId", "Label"],
        None => ["image", "label"],
    };
    let heading = sample.as_ref().map_or(own.map(String::from), |sample| sample.heading.clone());
    let first = sample.and_then(|sample| sample.first).unwrap_or(1);
    let wrong = |error: csv::Error| Failure::data(format!("{}: {error}", out.display()));
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(&heading).map_err(wrong)?;
    for ((number, item), class) in (first..).zip(items).zip(classes) {
        let id = match &item.id {
            Some((_, id)) => id.clone(),
            None if rows => number.to_string(),
            None => item.name.clone(),
        };
        table.write_record([&id, class]).map_err(wrong)?;
    }
    let bytes = table.into_inner().map_err(|error| Failure::data(format!("{}: {error}", out.display())))?;
    Ok(files::write_atomically(out, &bytes)?)
}
