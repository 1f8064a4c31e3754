//! Tables: CSV and TSV files with one image or signal a row.
//!
//! A label and then as many values as there are pixels or numbers, as in Kaggle's `mnist_train.csv` and in the
//! UCR archive of time series (`ECG200_TRAIN.tsv`).

#[cfg(not(target_arch = "wasm32"))]
use std::collections::BTreeMap;

use crate::data::classes::{Classes, known_names, label_classes};
use crate::data::dataset::Dataset;
use crate::data::input::{MAX_CONTENT, refuse};
use crate::data::series;
use crate::data::split::Split;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::{
    classes::read_names,
    input::{extension, list},
    split::held_out,
};
use crate::error::{Error, Result};

/// A table as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What errors call it.
    pub file: String,
    /// The label of each row, without spaces around it.
    pub labels: Vec<String>,
    /// The values, `[rows, columns]`.
    pub values: Vec<f32>,
    /// Values of a row.
    pub columns: usize,
}

/// Reads a table with commas, or with tabs where `tabs`.
///
/// If no value of the first row is a number, or it has a `label`, the row is the heading. The label is the column
/// of that name, else the first; the others are values.
///
/// # Errors
///
/// [`Error::Data`] when there is no row, a row has more or fewer columns than the first, a value is not a finite
/// number, or the values come to more than 2 GiB.
pub fn parse(file: &str, bytes: &[u8], tabs: bool) -> Result<Table> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(if tabs { b'\t' } else { b',' })
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
    let mut table = Table { file: file.to_owned(), labels: Vec::new(), values: Vec::new(), columns: 0 };
    let mut record = csv::StringRecord::new();
    let mut label_column = 0;
    let mut first = true;
    while reader.read_record(&mut record).map_err(wrong)? {
        let line = record.position().map_or(0, csv::Position::line);
        if first {
            first = false;
            if record.len() < 2 {
                return Err(refuse(
                    file,
                    format!("{} column found, expected a label and values", record.len()),
                ));
            }
            table.columns = record.len() - 1;
            let label = record.iter().position(|cell| cell.eq_ignore_ascii_case("label"));
            label_column = label.unwrap_or(0);
            if label.is_some() || record.iter().skip(1).all(|cell| cell.parse::<f32>().is_err()) {
                continue;
            }
        }
        if (table.values.len() + table.columns) as u64 * 4 > MAX_CONTENT {
            return Err(refuse(
                file,
                format!(
                    "more values than {MAX_CONTENT} bytes hold found by line {line}, expected at most that many"
                ),
            ));
        }
        for (column, cell) in record.iter().enumerate() {
            if column == label_column {
                if cell.is_empty() {
                    return Err(refuse(file, format!("no label found in line {line}, expected one")));
                }
                table.labels.push(cell.to_owned());
                continue;
            }
            match cell.parse::<f32>() {
                Ok(value) if value.is_finite() => table.values.push(value),
                _ => {
                    return Err(refuse(
                        file,
                        format!(
                            "{cell:?} found in line {line}, column {}, expected a finite number",
                            column + 1
                        ),
                    ));
                }
            }
        }
    }
    if table.labels.is_empty() {
        return Err(refuse(file, "no row found, expected one at least"));
    }
    Ok(table)
}

/// Makes data of two tables.
///
/// If all values are whole numbers of 0 to 255 and there are as many in a row as a square has pixels, they are
/// the pixels of square pictures, `[1, side, side]`. Else a row is a signal `[1, 1, columns]` of real numbers,
/// scaled to bytes by the range of the training part ([`series`]). `names` are names for the classes, where
/// they have others than their labels.
///
/// # Errors
///
/// [`Error::Data`] when the tables differ in their columns, the labels are not 2 to 256 different ones, the second
/// has one that the first lacks, or `names` are not as many as them.
pub fn tables(name: &str, train: &Table, test: &Table, names: Option<Vec<String>>) -> Result<Split> {
    if test.columns != train.columns {
        return Err(refuse(
            test.file.as_str(),
            format!(
                "{} values in a row found, expected {} as in {}",
                test.columns, train.columns, train.file
            ),
        ));
    }
    let (own, labels) = label_classes([(&train.file, &train.labels), (&test.file, &test.labels)])?;
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
    let side = train.columns.isqrt();
    let pixels =
        |values: &[f32]| values.iter().all(|&value| (0.0..=255.0).contains(&value) && value.fract() == 0.0);
    if side * side == train.columns && values.iter().all(|values| pixels(values)) {
        let part = |i: usize| {
            let bytes = values[i].iter().map(|&value| value as u8).collect::<Vec<_>>();
            let data = classes.dataset(name, files[i], [1, side, side], bytes, labels[i].clone())?;
            Ok::<_, Error>((files[i].to_owned(), data))
        };
        return Split::new(part(0)?, part(1)?);
    }
    let make = |i: usize, bytes| -> Result<Dataset> {
        classes.dataset(name, files[i], [1, 1, train.columns], bytes, labels[i].clone())
    };
    series::scaled(files, values, make)
}

/// The table of one part: `train.csv`, `mnist_train.csv`, `ECG200_TRAIN.tsv`, …; the first of several.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn part<'a>(files: &'a [String], part: &str) -> Option<&'a String> {
    files.iter().find(|file| {
        let lower = file.to_lowercase();
        lower
            .strip_suffix(".csv")
            .or_else(|| lower.strip_suffix(".tsv"))
            .and_then(|stem| stem.strip_suffix(part))
            .is_some_and(|before| before.is_empty() || before.ends_with(['_', '-']))
    })
}

/// Loads the tables of a folder: `train` and `test`, perhaps with something and a `_` or `-` before it, and
/// `.csv` or `.tsv` behind it.
///
/// # Errors
///
/// [`Error::Data`] when a table is missing or malformed, or they do not fit each other; [`Error::Io`] when one
/// cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(dir: &std::path::Path, name: &str) -> Result<Split> {
    let files = list(dir)?;
    let read_part = |what: &str| match part(&files, what) {
        Some(file) => read(&dir.join(file)),
        None => Err(refuse(
            dir.to_string_lossy(),
            format!("no file {what}.csv or {what}.tsv found, expected one"),
        )),
    };
    tables(name, &read_part("train")?, &read_part("test")?, read_names(&dir.join("classes.txt"))?)
}

/// Loads one table, of which a row in [`HELD_OUT`](crate::data::HELD_OUT) is the test part, by its number.
///
/// # Errors
///
/// Those of [`load`].
#[cfg(not(target_arch = "wasm32"))]
pub fn load_file(path: &std::path::Path, name: &str) -> Result<Split> {
    let table = read(path)?;
    let names = path.parent().map(|dir| read_names(&dir.join("classes.txt"))).transpose()?.flatten();
    let (file, columns) = (&table.file, table.columns);
    let [mut train, mut test] =
        [(); 2].map(|()| Table { file: file.clone(), labels: Vec::new(), values: Vec::new(), columns });
    let mut classes = BTreeMap::new();
    let numbers: Vec<usize> = table
        .labels
        .iter()
        .map(|label| {
            let next = classes.len();
            *classes.entry(label).or_insert(next)
        })
        .collect();
    let held = held_out(&numbers, |i| i.to_string().into_bytes());
    for ((label, values), held) in table.labels.iter().zip(table.values.chunks_exact(columns)).zip(&held) {
        let part = if *held { &mut test } else { &mut train };
        part.labels.push(label.clone());
        part.values.extend(values);
    }
    let rows = held.iter().enumerate().filter(|(_, held)| **held).map(|(i, _)| format!("row {i}")).collect();
    Ok(Split { held_out: Some(rows), ..tables(name, &train, &test, names)? })
}

#[cfg(not(target_arch = "wasm32"))]
fn read(path: &std::path::Path) -> Result<Table> {
    let file = path.to_string_lossy();
    parse(&file, &crate::files::read(path)?, extension(&file) == "tsv")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::Encoding;

    fn refused(text: &str) -> String {
        let message = parse("f", text.as_bytes(), false).unwrap_err().to_string();
        message.strip_prefix("f: ").unwrap().to_owned()
    }

    #[test]
    fn headings_and_label_columns_are_found() {
        let table = |text: &str| parse("f", text.as_bytes(), false).unwrap();
        let plain = table("3,1,2\n5,4,0.5\n");
        assert_eq!(
            (&plain.labels[..], &plain.values[..]),
            (&["3".to_owned(), "5".to_owned()][..], &[1.0, 2.0, 4.0, 0.5][..])
        );
        assert_eq!(table("class,p1,p2\n3,1,2\n5,4,0.5\n"), plain);
        assert_eq!(table("p1,Label,p2\r\n1, 3 ,2\r\n4,5,0.5"), plain);
        assert_eq!(table("label,0,1\n3,1,2\n5,4,0.5\n"), plain);
        assert_eq!(table("\u{feff}\"3\",1,2\n\n5,4,5e-1\n"), plain);
        assert_eq!(parse("f", b"3\t1\t2\n5\t4\t0.5\n", true).unwrap(), plain);
    }

    #[test]
    fn malformed_tables_are_refused() {
        assert_eq!(refused(""), "no row found, expected one at least");
        assert_eq!(refused("label,a,b\n"), "no row found, expected one at least");
        assert_eq!(refused("1\n2\n"), "1 column found, expected a label and values");
        assert_eq!(refused("1,2,3\n1,2\n"), "2 columns found in line 2, expected 3 as in the first");
        assert_eq!(refused("1,2,x\n"), "\"x\" found in line 1, column 3, expected a finite number");
        assert_eq!(refused("1,2,3\n1,,3\n"), "\"\" found in line 2, column 2, expected a finite number");
        assert_eq!(
            refused("1,2,3\n1,2,NaN\n"),
            "\"NaN\" found in line 2, column 3, expected a finite number"
        );
        assert_eq!(refused("1,2,1e40\n"), "\"1e40\" found in line 1, column 3, expected a finite number");
        assert_eq!(refused("1,2\n,2\n"), "no label found in line 2, expected one");
        let message = parse("f", b"1,2\n\xff,3\n", false).unwrap_err().to_string();
        assert_eq!(message, "f: bytes that are not UTF-8 found in line 2, expected text");
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn load(dir: &tempfile::TempDir) -> Result<Split, String> {
        let path = dir.path().to_str().unwrap();
        crate::data::load(path).map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
    }

    #[test]
    fn whole_squares_are_pictures() {
        let dir =
            folder(&[("mnist_train.csv", "1,0,255,3,4\n0,5,6,7,8\n"), ("mnist_test.csv", "0,1,2,3,4\n")]);
        let Split { train, test, .. } = load(&dir).unwrap();
        assert_eq!((train.channels, train.height, train.width, &train.encoding), (1, 2, 2, &Encoding::Ink));
        assert_eq!((train.images.to_vec(), train.labels), (vec![0, 255, 3, 4, 5, 6, 7, 8], vec![1, 0]));
        assert_eq!(
            (test.images.to_vec(), test.class_names),
            (vec![1, 2, 3, 4], vec!["0".into(), "1".into()])
        );
    }

    #[test]
    fn ucr_tables_are_signals() {
        let dir = folder(&[
            ("ECG200_TRAIN.tsv", "-1\t0.5\t-1.5\n1\t2.5\t0.5\n2.0\t0\t0\n"),
            ("ECG200_TEST.tsv", "1\t-9\t0.5\n"),
        ]);
        let Split { train, test, .. } = load(&dir).unwrap();
        assert_eq!((train.channels, train.height, train.width, train.classes), (1, 1, 2, 3));
        assert_eq!(
            (&train.class_names[..], &train.labels[..]),
            (&["-1", "1", "2"].map(String::from)[..], &[0, 1, 2][..])
        );
        assert_eq!(train.encoding, Encoding::Range { low: -1.5, high: 2.5 });
        assert_eq!(
            (train.images.to_vec(), test.images.to_vec()),
            (vec![128, 0, 255, 128, 96, 96], vec![0, 128])
        );
        assert_eq!(test.labels, [1]);
        std::fs::write(dir.path().join("classes.txt"), "a\nb\nc\n").unwrap();
        assert_eq!(load(&dir).unwrap().train.class_names, ["a", "b", "c"]);
        std::fs::write(dir.path().join("classes.txt"), "a\nb\n").unwrap();
        assert_eq!(
            load(&dir).unwrap_err(),
            "DIR/ECG200_TRAIN.tsv: 3 different labels found, expected 2 as there are names"
        );
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let with =
            |train: &str, test: &str| load(&folder(&[("train.csv", train), ("test.csv", test)])).unwrap_err();
        assert_eq!(
            with("0,1,2\n1,2,3\n", "0,1\n"),
            "DIR/test.csv: 1 values in a row found, expected 2 as in DIR/train.csv"
        );
        assert_eq!(
            with("0,1,2\n1,2,3\n", "2,1,2\n"),
            "DIR/test.csv: the label 2 found, expected one of those in DIR/train.csv"
        );
        assert_eq!(
            with("0,1,2\n0,2,3\n", "0,1,2\n"),
            "DIR/train.csv: 1 label found, expected 2 to 256 different ones"
        );
        assert_eq!(
            with("0,7,7\n1,7,7\n", "0,1,2\n"),
            "DIR/train.csv: 4 values without two different ones found, expected some"
        );
        let many: String = (0..257).map(|i| format!("{i},1,2\n")).collect();
        assert_eq!(
            with(&many, "0,1,2\n"),
            "DIR/train.csv: more than 256 different labels found, expected 2 to 256"
        );
        assert_eq!(
            load(&folder(&[("train.csv", "0,1,2\n")])).unwrap_err(),
            "DIR: no file test.csv or test.tsv found, expected one"
        );
    }

    #[test]
    fn one_file_is_split_the_same_way_each_time() {
        let text: String = (0..600).map(|i| format!("{},{i},0.5\n", ["cat", "dog"][i % 2])).collect();
        let dir = folder(&[("pets.csv", &text)]);
        let path = dir.path().join("pets.csv");
        let split = crate::data::load(path.to_str().unwrap()).unwrap();
        assert_eq!((split.train.len() + split.test.len(), split.train.name.as_str()), (600, "pets"));
        assert!((75..125).contains(&split.test.len()), "{}", split.test.len());
        assert_eq!(split.train.class_names, ["cat", "dog"]);
        // A row that is added moves no other to the other part.
        std::fs::write(&path, text + "dog,0,0.5\n").unwrap();
        let more = crate::data::load(path.to_str().unwrap()).unwrap();
        assert_eq!(more.test.labels[..split.test.len()], split.test.labels);
    }

    proptest! {
        #[test]
        fn random_tables_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[-0-9.,\n\t\"a]{0,60}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                for tabs in [false, true] {
                    if let Ok(table) = parse("f", bytes, tabs) {
                        prop_assert_eq!(table.labels.len() * table.columns, table.values.len());
                        let _ = tables("t", &table, &table, None);
                    }
                }
            }
        }
    }
}
