//! One table: how its cells are set apart, whether it has a heading, which column is the label.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use crate::data::input::{MAX_CONTENT, refuse};
use crate::error::Result;

/// A table as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What errors call it.
    pub file: String,
    /// The label of each row, without spaces around it; none where no column is one.
    pub labels: Option<Vec<String>>,
    /// The values, `[rows, columns]`.
    pub values: Vec<f32>,
    /// Values of a row.
    pub columns: usize,
    /// What the heading says of all columns; none where there is no heading.
    pub heading: Vec<String>,
    /// What was decided about it, a line for each thing.
    pub notes: Vec<String>,
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    /// Its labels.
    ///
    /// # Errors
    ///
    /// [`Error::Data`](crate::Error::Data) when no column is the label.
    pub fn labels(&self) -> Result<&[String]> {
        self.labels.as_deref().ok_or_else(|| {
            let shown: Vec<&str> = self.heading.iter().take(6).map(String::as_str).collect();
            let more = if self.heading.len() > shown.len() { ", …" } else { "" };
            refuse(
                self.file.as_str(),
                format!(
                    "no column of the heading ({}{more}) is called {}: name the one that is the label, \
                     --label COLUMN",
                    shown.join(", "),
                    LABELS.join(", ")
                ),
            )
        })
    }
}

/// What a label's column is called, in any case; the first of these that there is.
const LABELS: [&str; 11] = [
    "label",
    "labels",
    "class",
    "target",
    "y",
    "digit",
    "category",
    "letter",
    "character",
    "species",
    "symbol",
];

/// What columns are called that only number the rows, in any case.
const NUMBERS: [&str; 9] = ["", "unnamed: 0", "id", "index", "idx", "imageid", "image_id", "rowid", "row_id"];

/// Columns from which a row of numbers in order is a heading.
const NUMBERED: usize = 10;

/// Rows by which it is decided what the columns are.
const SAMPLE: usize = 256;

/// Bytes without gzip around them.
fn unzipped(file: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.to_vec());
    }
    let mut content = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(2 * MAX_CONTENT + 1).read_to_end(&mut content);
    read.map_err(|error| refuse(file, format!("the gzip stream is damaged or cut short: {error}")))?;
    if content.len() as u64 > 2 * MAX_CONTENT {
        return Err(refuse(
            file,
            format!("more than {} bytes unzipped, expected at most as many", 2 * MAX_CONTENT),
        ));
    }
    Ok(content)
}

/// What sets the cells of the first line apart: what it has most of, outside quotes.
fn delimiter(bytes: &[u8]) -> u8 {
    let line =
        bytes.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let mut quoted = false;
    let mut counts = [(b',', 0usize), (b'\t', 0), (b';', 0)];
    for &byte in line {
        quoted ^= byte == b'"';
        counts.iter_mut().filter(|(kind, _)| *kind == byte && !quoted).for_each(|(_, count)| *count += 1);
    }
    // Of as many the first.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(kind, _)| kind)
}

/// A cell as a number; with semicolons between the cells a comma is a point.
fn number(cell: &str, comma: bool) -> Option<f32> {
    let value = if comma { cell.replace(',', ".").parse::<f32>() } else { cell.parse::<f32>() };
    value.ok().filter(|value| value.is_finite())
}

/// What the columns of a table are.
struct Columns {
    heading: bool,
    label: Option<usize>,
    /// Those that are neither the label nor values.
    passed: BTreeSet<usize>,
    notes: Vec<String>,
}

impl Columns {
    /// Has so many columns hold values, of those in the first row: where the label would be missing otherwise, there is
    /// none.
    fn fit(&mut self, file: &str, first: &csv::StringRecord, values: usize) -> Result<()> {
        let rest = first.len() - self.passed.len();
        match rest.checked_sub(values) {
            Some(0) => self.label = None,
            Some(1) => self.label = Some(self.label.unwrap_or(0)),
            _ => {
                let found = rest - usize::from(self.label.is_some());
                return Err(refuse(file, format!("{found} values in a row found, expected {values}")));
            }
        }
        Ok(())
    }

    fn find(file: &str, sample: &[csv::StringRecord], comma: bool, wanted: Option<&str>) -> Result<Columns> {
        let first: Vec<&str> = sample.first().into_iter().flatten().collect();
        let rest = sample.get(1..).unwrap_or_default();
        let is = |cell: &str, names: &[&str]| names.iter().any(|name| cell.eq_ignore_ascii_case(name));
        let numeric = |row: &csv::StringRecord, column: usize| {
            row.get(column).is_some_and(|cell| number(cell, comma).is_some())
        };
        let all_numeric = |column: usize| rest.iter().all(|row| numeric(row, column));
        let named = |column: usize| number(first[column], comma).is_none() && !first[column].is_empty();
        let whole = |cell: &str| cell.parse::<usize>().ok();
        let in_order = first.len() >= NUMBERED
            && !rest.is_empty()
            && whole(first[0])
                .is_some_and(|from| from <= 1 && (0..first.len()).all(|i| whole(first[i]) == Some(from + i)));
        let heading = in_order
            || first.iter().any(|cell| is(cell, &LABELS))
            // A cell that is damaged makes no heading of a row of numbers.
            || (2 * (0..first.len()).filter(|&column| named(column)).count() >= first.len()
                && (0..first.len()).any(|column| named(column) && all_numeric(column) && !rest.is_empty()))
            || (rest.is_empty() && (1..first.len()).all(named));
        let rows = if heading { rest } else { sample };
        let mut notes = Vec::new();

        let mut passed = BTreeSet::new();
        if heading {
            passed = (0..first.len()).filter(|&column| is(first[column], &NUMBERS)).collect();
            if let Some(wanted) = wanted {
                passed.retain(|&column| !first[column].eq_ignore_ascii_case(wanted));
            }
        }
        let words: Vec<usize> = (0..first.len())
            .filter(|column| !passed.contains(column) && !rows.is_empty())
            .filter(|&column| rows.iter().all(|row| !numeric(row, column)))
            .collect();
        let label = match wanted {
            Some(wanted) => Some(Columns::named(file, &first, heading, wanted)?),
            // Numbers name nothing.
            None if heading && !in_order => {
                let by_name = LABELS
                    .iter()
                    .find_map(|name| first.iter().position(|cell| cell.eq_ignore_ascii_case(name)));
                match (by_name, &words[..]) {
                    (None, [only]) => {
                        notes.push(format!(
                            "the column {:?} is the label: it alone holds words",
                            first[*only]
                        ));
                        Some(*only)
                    }
                    // Names such as class,p1,p2 are found above; a first one that is called otherwise is none.
                    (found, _) => found,
                }
            }
            None => Columns::unnamed(&first, rows, &words, &mut notes),
        };
        if let Some(label) = label {
            passed.remove(&label);
        }
        if !passed.is_empty() {
            let names: Vec<String> = passed.iter().map(|&column| format!("{:?}", first[column])).collect();
            notes.push(format!("passed over the columns {}, which number the rows", names.join(", ")));
        }
        Ok(Columns { heading, label, passed, notes })
    }

    /// The column that is asked for, by its name or its number from 1.
    fn named(file: &str, first: &[&str], heading: bool, wanted: &str) -> Result<usize> {
        let by_name = first.iter().position(|cell| heading && cell.eq_ignore_ascii_case(wanted));
        let by_number =
            || wanted.parse::<usize>().ok()?.checked_sub(1).filter(|&column| column < first.len());
        by_name.or_else(by_number).ok_or_else(|| {
            let shown: Vec<&str> = first.iter().take(6).copied().collect();
            refuse(
                file,
                format!(
                    "no column {wanted} found, expected one of the {}: {}",
                    first.len(),
                    shown.join(", ")
                ),
            )
        })
    }

    /// Without a heading: the column of words, else the first if its values may be labels, else the last.
    fn unnamed(
        first: &[&str],
        rows: &[csv::StringRecord],
        words: &[usize],
        notes: &mut Vec<String>,
    ) -> Option<usize> {
        let last = first.len().checked_sub(1)?;
        let plausible = |column: usize| {
            let cells: BTreeSet<&str> = rows.iter().filter_map(|row| row.get(column)).collect();
            let whole = cells.iter().all(|cell| cell.parse::<f64>().is_ok_and(|value| value.fract() == 0.0));
            whole && (2..=256).contains(&cells.len()) && (rows.len() < 8 || cells.len() <= rows.len() / 2)
        };
        let (column, why) = match words {
            [only] => (*only, "it alone holds words"),
            _ if plausible(0) || rows.len() < 8 || !plausible(last) => (0, "there is no heading"),
            _ => (last, "there is no heading, and the first is none"),
        };
        if column != 0 {
            let which = if column == last { "last".into() } else { format!("{}.", column + 1) };
            notes.push(format!("the {which} column is the label: {why}"));
        }
        Some(column)
    }
}

/// Reads a table, gzipped or not, with commas, semicolons or tabs between its cells.
///
/// A first row is the heading if it names the label, if it has words over numbers, or if it counts the columns (0, 1,
/// 2, …). The label is the column called `label`, `class`, `target`, `y`, `digit` and so on, in any case, or the one
/// called `wanted`; without a heading the column of words, else the first or the last, whichever may be one. Columns
/// that number the rows (`id`, `index`, pandas' nameless one) are passed over.
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when there is no row, a row has more or fewer columns than the first, a value is
/// not a finite number, or the values come to more than 2 GiB.
pub fn parse(file: &str, bytes: &[u8], wanted: Option<&str>) -> Result<Table> {
    Ok(read(file, bytes, wanted, None)?.0)
}

/// What a column that numbers or names the rows is called, and what it says of each.
pub type Ids = (String, Vec<String>);

/// Reads a table of which it is known how many values a row has, and with it the column that names its rows; labels
/// are there or not.
///
/// # Errors
///
/// As [`parse`], and [`Error::Data`](crate::Error::Data) when a row does not have so many values.
pub fn parse_rows(file: &str, bytes: &[u8], values: usize) -> Result<(Table, Option<Ids>)> {
    read(file, bytes, None, Some(values))
}

fn read(
    file: &str,
    bytes: &[u8],
    wanted: Option<&str>,
    known: Option<usize>,
) -> Result<(Table, Option<Ids>)> {
    let bytes = unzipped(file, bytes)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let delimiter = delimiter(bytes);
    let comma = delimiter == b';';
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let wrong = |error: csv::Error| {
        let message = match error.kind() {
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => format!(
                "{len} columns found in line {}, expected {expected_len} as in the first",
                pos.as_ref().map_or(0, csv::Position::line)
            ),
            csv::ErrorKind::Utf8 { pos, .. } => format!(
                "bytes that are not UTF-8 found in line {}, expected text",
                pos.as_ref().map_or(0, csv::Position::line)
            ),
            _ => error.to_string(),
        };
        refuse(file, message)
    };
    let mut records = reader.records();
    let mut sample = Vec::new();
    for record in records.by_ref().take(SAMPLE) {
        sample.push(record.map_err(wrong)?);
    }
    let Some(width) = sample.first().map(csv::StringRecord::len) else {
        return Err(refuse(file, "no row found, expected one at least"));
    };
    if width < 2 {
        return Err(refuse(file, format!("{width} column found, expected a label and values")));
    }
    let mut columns = Columns::find(file, &sample, comma, wanted)?;
    if let (Some(known), Some(first)) = (known, sample.first()) {
        columns.fit(file, first, known)?;
    }
    let heading: Vec<String> = match columns.heading {
        true => sample.remove(0).iter().map(str::to_owned).collect(),
        false => Vec::new(),
    };
    // A nameless column is none that anyone asks for by its name.
    let id = columns
        .passed
        .iter()
        .copied()
        .find(|&column| heading.get(column).is_some_and(|name| !name.is_empty()));
    let mut ids = id.and_then(|column| Some((heading.get(column)?.clone(), Vec::new())));
    let values = width - columns.passed.len() - usize::from(columns.label.is_some());
    let mut table = Table {
        file: file.to_owned(),
        labels: columns.label.map(|_| Vec::new()),
        values: Vec::new(),
        columns: values,
        heading,
        notes: columns.notes,
    };
    if values == 0 {
        return Err(refuse(file, "no column of values found, expected one at least"));
    }
    for record in sample.into_iter().map(Ok).chain(records) {
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, csv::Position::line);
        if (table.values.len() + values) as u64 * 4 > MAX_CONTENT {
            return Err(refuse(
                file,
                format!(
                    "more values than {MAX_CONTENT} bytes hold found by line {line}, expected at most that many"
                ),
            ));
        }
        for (column, cell) in record.iter().enumerate() {
            if Some(column) == columns.label {
                if cell.is_empty() {
                    return Err(refuse(file, format!("no label found in line {line}, expected one")));
                }
                table.labels.iter_mut().for_each(|labels| labels.push(cell.to_owned()));
            } else if Some(column) == id {
                ids.iter_mut().for_each(|(_, ids)| ids.push(cell.to_owned()));
            } else if !columns.passed.contains(&column) {
                table.values.push(number(cell, comma).ok_or_else(|| {
                    let what = format!("{cell:?} found in line {line}, column {}", column + 1);
                    refuse(file, format!("{what}, expected a finite number"))
                })?);
            }
        }
    }
    if table.values.is_empty() {
        return Err(refuse(file, "no row found, expected one at least"));
    }
    Ok((table, ids))
}
