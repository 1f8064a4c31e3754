//! A strict reader of CIFAR-10 and CIFAR-100 in their binary version.
//!
//! A file is nothing but records: one label (CIFAR-10) or a coarse and a fine one (CIFAR-100), a byte each, then
//! 3072 bytes of pixels, the planes red, green and blue of 32 rows of 32.

#[cfg(not(target_arch = "wasm32"))]
use crate::data::classes::{Classes, Label, read_names};
#[cfg(not(target_arch = "wasm32"))]
use crate::data::input::{list, refuse};
#[cfg(not(target_arch = "wasm32"))]
use crate::data::split::Split;
use crate::error::{Error, Result};

/// Channels, height and width of every picture.
pub const SHAPE: [usize; 3] = [3, 32, 32];

/// Bytes of a picture.
const PIXELS: usize = 3 * 32 * 32;

/// Reads a file of records: pixels `[N, 3, 32, 32]` and labels `[N]`, of which the last byte before the pixels
/// counts.
///
/// `name` is what errors call the file; `label_bytes` is 1 for CIFAR-10 and 2 for CIFAR-100.
///
/// # Errors
///
/// [`Error::Data`] when the file is empty or does not end with a record.
pub fn parse(name: &str, bytes: &[u8], label_bytes: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    let record = label_bytes.max(1) + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(Error::Data {
            path: name.to_owned(),
            message: format!(
                "{} bytes found, expected a multiple of {record}, the length of a picture with its label",
                bytes.len()
            ),
        });
    }
    let records = || bytes.chunks_exact(record);
    let images = records().flat_map(|record| &record[record.len() - PIXELS..]).copied().collect();
    let labels = records().map(|record| record[record.len() - PIXELS - 1]).collect();
    Ok((images, labels))
}

/// Where a file lies in a folder under a name in any case.
#[cfg(not(target_arch = "wasm32"))]
fn found<'a>(files: &'a [String], name: &str) -> Option<&'a String> {
    files.iter().find(|file| file.eq_ignore_ascii_case(name))
}

/// Whether these are the files of CIFAR-10 or CIFAR-100; and what is missing among them.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn content(files: &[String]) -> (bool, Vec<String>) {
    let has = |name: &str| found(files, name).is_some();
    if has("data_batch_1.bin") || (has("train.bin") && has("test.bin")) {
        return (true, Vec::new());
    }
    let lacking =
        [("test_batch.bin", "data_batch_1.bin"), ("train.bin", "test.bin"), ("test.bin", "train.bin")];
    let told = lacking.iter().filter(|(file, _)| has(file));
    (false, told.map(|(file, missing)| format!("{file} found, {missing} missing")).collect())
}

/// What helps where these are the files of CIFAR's Python version.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn pickled(files: &[String]) -> Option<String> {
    let has = |name: &str| found(files, name).is_some();
    let ten = (1..=5).any(|i| has(&format!("data_batch_{i}"))) || (has("batches.meta") && has("test_batch"));
    let hundred = has("meta") && has("train") && has("test");
    let (version, archive) = match (ten, hundred) {
        (true, _) => ("CIFAR-10", "cifar-10-binary.tar.gz"),
        (_, true) => ("CIFAR-100", "cifar-100-binary.tar.gz"),
        _ => return None,
    };
    Some(format!(
        "the Python version of {version} (pickles) found, expected the binary version: {archive} from \
         https://www.cs.toronto.edu/~kriz/cifar.html"
    ))
}

/// Loads a folder with `data_batch_1.bin`, … `test_batch.bin` and `batches.meta.txt`, or with `train.bin`,
/// `test.bin` and `fine_label_names.txt`, in any case.
///
/// There may be fewer than five batches, but none between two others may be missing. The labels that occur are the
/// classes.
///
/// # Errors
///
/// [`Error::Data`] when a file is missing or malformed, a label is not one of 10 or 100 or has no name; [`Error::Io`]
/// when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(dir: &std::path::Path, name: &str) -> Result<Split> {
    let files = list(dir)?;
    let hundred = found(&files, "train.bin").is_some();
    let (label_bytes, count, names) =
        if hundred { (2, 100, "fine_label_names.txt") } else { (1, 10, "batches.meta.txt") };
    let (train, test) = if hundred {
        (vec!["train.bin".to_owned()], "test.bin")
    } else {
        let batch = |i: usize| format!("data_batch_{i}.bin");
        let last = (1..=5).rev().find(|&i| found(&files, &batch(i)).is_some()).unwrap_or(1);
        ((1..=last).map(batch).collect(), "test_batch.bin")
    };
    let read = |wanted: &[String]| {
        let (mut images, mut labels, mut first) = (Vec::new(), Vec::new(), None);
        for file in wanted {
            let Some(file) = found(&files, file) else {
                return Err(refuse(dir.to_string_lossy(), format!("no file {file} found, expected one")));
            };
            let path = dir.join(file);
            let file = path.to_string_lossy();
            let (pixels, classes_of) = parse(&file, &crate::files::read(&path)?, label_bytes)?;
            if let Some(label) = classes_of.iter().find(|&&label| usize::from(label) >= count) {
                return Err(refuse(file, format!("the label {label} found, expected less than {count}")));
            }
            images.extend(pixels);
            labels.extend(classes_of);
            first.get_or_insert(file.into_owned());
        }
        Ok((first.unwrap_or_default(), images, labels))
    };
    let parts = [read(&train)?, read(&[test.to_owned()])?];
    let labels = parts.each_ref().map(|(file, _, labels)| (file.as_str(), &labels[..]));
    let (classes, mut numbers) = Classes::of(&labels, |&label| Label::Number(f64::from(label)))?;
    let path = dir.join(names);
    let classes = match read_names(&path)? {
        Some(names) => classes.called_by_number(&path.to_string_lossy(), &names)?,
        None => classes.named_in(dir)?,
    };
    let mut make =
        |(file, images, _)| Ok::<_, Error>((file, classes.dataset(name, SHAPE, images, numbers.remove(0))?));
    let [train, test] = parts;
    Split::new(make(train)?, make(test)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record: labels, then 1024 bytes each of red, green and blue.
    fn record(labels: &[u8], colours: [u8; 3]) -> Vec<u8> {
        [labels.to_vec(), colours.iter().flat_map(|&value| [value; 1024]).collect()].concat()
    }

    fn load(dir: &tempfile::TempDir) -> Result<crate::data::Split, String> {
        let path = dir.path().to_str().unwrap();
        crate::data::load(path).map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
    }

    fn ten() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| std::fs::write(dir.path().join(name), content).unwrap();
        write("data_batch_1.bin", &[record(&[3], [1, 2, 3]), record(&[9], [4, 5, 6])].concat());
        write("data_batch_2.bin", &record(&[0], [7, 8, 9]));
        write("test_batch.bin", &record(&[1], [10, 11, 12]));
        dir
    }

    #[test]
    fn cifar_10_is_read() {
        let dir = ten();
        let split = load(&dir).unwrap();
        // The classes are the labels that occur in either part: 0, 1, 3 and 9.
        assert_eq!(split.train.labels, [2, 3, 0]);
        assert_eq!(
            (split.train.channels, split.train.height, split.train.width, split.train.classes),
            (3, 32, 32, 4)
        );
        assert_eq!([0, 1023, 1024, 2048, 3071].map(|i| split.train.picture(2)[i]), [7, 7, 8, 9, 9]);
        assert_eq!((split.test.labels, split.test.images.to_vec()[3071]), (vec![1], 12));
        assert_eq!(split.train.class_names, ["0", "1", "3", "9"]);
        let names: Vec<String> = (0..10).map(|i| format!("thing {i}")).collect();
        std::fs::write(dir.path().join("batches.meta.txt"), names.join("\n") + "\n\n").unwrap();
        let called = load(&dir).unwrap().train.class_names;
        assert_eq!(called, ["thing 0", "thing 1", "thing 3", "thing 9"]);
        // Names in another case are the same files.
        std::fs::rename(dir.path().join("data_batch_1.bin"), dir.path().join("DATA_BATCH_1.BIN")).unwrap();
        assert_eq!(load(&dir).unwrap().train.images, split.train.images);
    }

    #[test]
    fn cifar_100_counts_the_fine_label() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("train.bin"),
            [record(&[3, 99], [1, 2, 3]), record(&[4, 5], [1, 2, 3])].concat(),
        )
        .unwrap();
        std::fs::write(dir.path().join("test.bin"), record(&[3, 98], [1, 2, 3])).unwrap();
        let split = load(&dir).unwrap();
        assert_eq!((split.train.labels, split.test.labels, split.train.classes), (vec![2, 0], vec![1], 3));
        assert_eq!(split.train.images.to_vec()[..1025], [vec![1; 1024], vec![2]].concat());
    }

    #[test]
    fn malformed_files_are_refused() {
        let with = |name: &str, content: &[u8]| {
            let dir = ten();
            std::fs::write(dir.path().join(name), content).unwrap();
            load(&dir).unwrap_err()
        };
        let message = "expected a multiple of 3073, the length of a picture with its label";
        assert_eq!(with("data_batch_2.bin", b""), format!("DIR/data_batch_2.bin: 0 bytes found, {message}"));
        assert_eq!(
            with("test_batch.bin", &[0; 3072]),
            format!("DIR/test_batch.bin: 3072 bytes found, {message}")
        );
        assert_eq!(
            with("data_batch_1.bin", &[0; 3074]),
            format!("DIR/data_batch_1.bin: 3074 bytes found, {message}")
        );
        assert_eq!(
            with("data_batch_2.bin", &record(&[10], [0; 3])),
            "DIR/data_batch_2.bin: the label 10 found, expected less than 10"
        );
        assert_eq!(
            with("data_batch_4.bin", &record(&[1], [0; 3])),
            "DIR: no file data_batch_3.bin found, expected one"
        );
        assert_eq!(
            with("batches.meta.txt", b"a\nb\nc\nd\n"),
            "DIR/batches.meta.txt: 4 names found, expected 4 as there are classes, or 10 for the labels up to 9"
        );
        assert_eq!(
            with("batches.meta.txt", b"a\n\nb\n"),
            "DIR/batches.meta.txt: line 2 is empty, expected the name of class 1"
        );
        assert_eq!(
            with("batches.meta.txt", b"a\nb\na\n"),
            "DIR/batches.meta.txt: the name a found twice, expected different ones"
        );
        let dir = ten();
        std::fs::remove_file(dir.path().join("data_batch_1.bin")).unwrap();
        let message = load(&dir).unwrap_err();
        assert!(
            message.starts_with("DIR: test_batch.bin found, data_batch_1.bin missing; expected "),
            "{message}"
        );
        let dir = ten();
        std::fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
        assert_eq!(load(&dir).unwrap_err(), "DIR: no file test_batch.bin found, expected one");
    }

    #[test]
    fn the_python_version_is_told_from_the_binary_one() {
        for (files, version, archive) in [
            (
                &["data_batch_1", "data_batch_2", "test_batch", "batches.meta"][..],
                "CIFAR-10",
                "cifar-10-binary.tar.gz",
            ),
            (&["train", "test", "meta"], "CIFAR-100", "cifar-100-binary.tar.gz"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            files.iter().for_each(|name| std::fs::write(dir.path().join(name), b"\x80\x02}q\x01.").unwrap());
            assert_eq!(
                load(&dir).unwrap_err(),
                format!(
                    "DIR: the Python version of {version} (pickles) found, expected the binary version: {archive} \
                     from https://www.cs.toronto.edu/~kriz/cifar.html"
                )
            );
        }
    }
}
