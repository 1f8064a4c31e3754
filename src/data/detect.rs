//! What a name, a folder or a file is, told by the names of its files.

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

#[cfg(not(target_arch = "wasm32"))]
use super::formats::{cifar, folder, idx, npy, table, text};
use super::input::refuse;
#[cfg(not(target_arch = "wasm32"))]
use super::input::{extension, list};
use super::made::{compose, languages, mnist, waves};
use super::split::Split;
use crate::error::Result;

/// The names that [`named`] knows and [`load`] takes; anything else is taken for a path. Those with `mnist` need the
/// feature `mnist`.
pub const NAMES: &[&str] = &["mnist", "mnist-windows", "mnist-scenes", "waves", "languages"];

/// Data that is part of the program, by one of [`NAMES`].
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when there is no data of that name, or it needs a feature that the crate was
/// built without.
pub fn named(name: &str) -> Result<Split> {
    match name {
        "mnist" => mnist(),
        "mnist-windows" => compose::mnist_windows(),
        "mnist-scenes" => compose::mnist_scenes(),
        "waves" => waves(),
        "languages" => languages(),
        _ => Err(refuse(name, format!("no such data: the names are {}", NAMES.join(", ")))),
    }
}

/// Loads data by name, or from a folder or a file of any format that this module reads.
///
/// `spec` is one of [`NAMES`] (a folder of that name is `./mnist`), a folder, a `.npz`, `.csv` or `.tsv` file, or
/// the beginning of the names of the IDX files in a folder, where it holds several sets (`DIR/emnist-letters`).
/// What a folder holds is told by the names of its files:
///
/// - **IDX** ([`idx::load`]): `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same with `t10k`
///   or `test`, gzipped or not;
/// - **CIFAR** ([`cifar::load`]): `data_batch_1.bin` … and `test_batch.bin`, or `train.bin` and `test.bin`;
/// - **NumPy** ([`npy::load`]): `x_train.npy`, … or one `.npz`;
/// - **tables** ([`table::load`]): `train.csv` and `test.csv`, or `.tsv`;
/// - **text** ([`text::load`]): `train.txt` and `test.txt`;
/// - **pictures** ([`folder::load`]): a folder for each class. `DIR@WIDTHxHEIGHT` scales them to that size.
///
/// A `classes.txt` in the folder, or beside the file, names the classes, one a line in the order of the labels
/// (not where folders or a column name them).
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when `spec` is none of these, a file is missing or malformed, or the files do
/// not fit each other; [`Error::Io`](crate::Error::Io) when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(spec: &str) -> Result<Split> {
    load_with(spec, None)
}

/// As [`load`], where the label's column of a table is called `label`, or has this number from 1.
///
/// # Errors
///
/// As [`load`].
#[cfg(not(target_arch = "wasm32"))]
pub fn load_with(spec: &str, label: Option<&str>) -> Result<Split> {
    if NAMES.contains(&spec) {
        return named(spec);
    }
    let path = Path::new(spec);
    let called =
        |path: &Path| path.file_name().map_or(spec.into(), |name| name.to_string_lossy().into_owned());
    if path.is_dir() {
        return directory(path, &called(path), label);
    }
    if path.is_file() {
        let bare = spec.strip_suffix(".gz").filter(|bare| matches!(extension(bare).as_str(), "csv" | "tsv"));
        let bare = Path::new(bare.unwrap_or(spec));
        let name = bare.file_stem().map_or(spec.into(), |stem| stem.to_string_lossy());
        return match extension(&bare.to_string_lossy()).as_str() {
            "npz" => npy::load(path, &name),
            "csv" | "tsv" => table::load_file(path, &name, label),
            _ => Err(refuse(spec, "a file of another kind found, expected .npz, .csv or .tsv, or a folder")),
        };
    }
    if let Some((dir, size)) = spec.rsplit_once('@')
        && let Some(size) = folder::parse_size(size)
        && Path::new(dir).is_dir()
    {
        let dir = Path::new(dir);
        let files = list(dir)?;
        return match format_of(&files, dir) {
            Some(Format::Pictures) => folder::load(dir, &called(dir), Some(size)),
            _ => Err(refuse(spec, "a size belongs to a folder of pictures, and this is none")),
        };
    }
    if let Some(dir) = path.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
        && dir.is_dir()
    {
        let name = called(path);
        if idx::prefixes(&list(dir)?).iter().any(|prefix| prefix.trim_end_matches('-') == name) {
            return idx::load(dir, &format!("{name}-"), &name);
        }
    }
    Err(refuse(
        spec,
        format!(
            "no such data{}: expected one of the names {}, a folder with IDX, CIFAR, NumPy, CSV, text or picture \
             files, or a .npz, .csv or .tsv file",
            crate::error::meant(&called(path), NAMES),
            NAMES.join(", ")
        ),
    ))
}

/// What a folder holds.
#[cfg(not(target_arch = "wasm32"))]
enum Format {
    Idx(Vec<String>),
    Cifar,
    Npy,
    Table,
    Text,
    Pictures,
}

/// Tells by the names in a folder what it holds.
#[cfg(not(target_arch = "wasm32"))]
fn format_of(files: &[String], dir: &Path) -> Option<Format> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let prefixes = idx::prefixes(files);
    if !prefixes.is_empty() {
        Some(Format::Idx(prefixes))
    } else if cifar::is_present(files) {
        Some(Format::Cifar)
    } else if npy::is_present(files) {
        Some(Format::Npy)
    } else if table::part(files, "train").is_some() {
        Some(Format::Table)
    } else if has("train.txt") {
        Some(Format::Text)
    } else if files.iter().any(|file| !file.starts_with('.') && dir.join(file).is_dir()) {
        Some(Format::Pictures)
    } else {
        None
    }
}

/// Loads what a folder holds; `name` is what to call it.
#[cfg(not(target_arch = "wasm32"))]
fn directory(dir: &Path, name: &str, label: Option<&str>) -> Result<Split> {
    match format_of(&list(dir)?, dir) {
        Some(Format::Idx(prefixes)) => match &prefixes[..] {
            [prefix] => idx::load(dir, prefix, name),
            several => {
                let sets: Vec<_> = several.iter().map(|prefix| prefix.trim_end_matches('-')).collect();
                Err(refuse(
                    dir.to_string_lossy(),
                    format!(
                        "several sets of IDX files found: {}; name one, as in {}",
                        sets.join(", "),
                        dir.join(sets.last().unwrap_or(&"")).display()
                    ),
                ))
            }
        },
        Some(Format::Cifar) => cifar::load(dir, name),
        Some(Format::Npy) => npy::load(dir, name),
        Some(Format::Table) => table::load(dir, name, label),
        Some(Format::Text) => text::load(dir, name),
        Some(Format::Pictures) => folder::load(dir, name, None),
        None => Err(refuse(
            dir.to_string_lossy(),
            "no data found, expected train-images-idx3-ubyte, data_batch_1.bin, train.bin, x_train.npy, one .npz, \
             train.csv, train.tsv, train.txt, or folders of pictures",
        )),
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::{fs, io::Write, path::Path};

    use super::*;

    /// Writes an IDX file of one-by-`width` images, or of labels when `width` is zero.
    fn write(path: &Path, width: u8, content: &[u8]) {
        let count = content.len() / usize::from(width.max(1));
        let mut bytes = vec![0, 0, 8, if width == 0 { 1 } else { 3 }];
        bytes.extend((count as u32).to_be_bytes());
        if width > 0 {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, width]);
        }
        bytes.extend(content);
        if path.extension().is_some_and(|e| e == "gz") {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        fs::write(path, bytes).unwrap();
    }

    /// A directory with two training images and one test image, under four different kinds of name.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("train-images-idx3-ubyte"), 2, &[1, 2, 3, 4]);
        write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 2]);
        write(&dir.path().join("t10k-images-idx3-ubyte.gz"), 2, &[5, 6]);
        write(&dir.path().join("t10k-labels.idx1-ubyte.gz"), 0, &[1]);
        dir
    }

    fn refused(dir: &tempfile::TempDir) -> String {
        load(dir.path().to_str().unwrap())
            .unwrap_err()
            .to_string()
            .replace(dir.path().to_str().unwrap(), "DIR")
            .replace('\\', "/")
    }

    #[test]
    fn a_directory_is_read_under_any_accepted_name() {
        let dir = directory();
        let Split { train, test, .. } = load(dir.path().to_str().unwrap()).unwrap();
        assert_eq!((train.classes, test.classes), (3, 3));
        assert_eq!((train.height, train.width), (1, 2));
        assert_eq!((train.images.to_vec(), train.labels), (vec![1, 2, 3, 4], vec![0, 2]));
        assert_eq!((test.images.to_vec(), test.labels), (vec![5, 6], vec![1]));
        assert_eq!(train.name, dir.path().file_name().unwrap().to_str().unwrap());
        // One label only still makes two classes.
        write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 0]);
        assert_eq!(load(dir.path().to_str().unwrap()).unwrap().train.classes, 2);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(
            load("nowhere/at-all").unwrap_err().to_string(),
            "nowhere/at-all: no such data: expected one of the names mnist, mnist-windows, mnist-scenes, waves, \
             languages, a folder with IDX, CIFAR, NumPy, CSV, text or picture files, or a .npz, .csv or .tsv file"
        );
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            refused(&empty),
            "DIR: no data found, expected train-images-idx3-ubyte, data_batch_1.bin, train.bin, x_train.npy, one .npz, \
             train.csv, train.tsv, train.txt, or folders of pictures"
        );
        fs::write(empty.path().join("data.xyz"), "x").unwrap();
        let file = empty.path().join("data.xyz");
        let message = load(file.to_str().unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("expected .npz, .csv or .tsv, or a folder"), "{message}");
        let dir = directory();
        fs::remove_file(dir.path().join("train-labels.idx1-ubyte")).unwrap();
        assert_eq!(
            refused(&dir),
            "DIR: no file found under any of the names train-labels-idx1-ubyte, train-labels.idx1-ubyte, \
             train-labels-idx1-ubyte.gz, train-labels.idx1-ubyte.gz"
        );
        let dir = directory();
        write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 1, 2]);
        assert_eq!(
            refused(&dir),
            "DIR/train-labels.idx1-ubyte: 3 labels found, expected 2 as there are images in DIR/train-images-idx3-ubyte"
        );
        let dir = directory();
        write(&dir.path().join("t10k-labels.idx1-ubyte.gz"), 0, &[3]);
        assert_eq!(
            refused(&dir),
            "DIR/t10k-labels.idx1-ubyte.gz: the label 3 found, expected less than 3, the classes of the training data"
        );
        let dir = directory();
        write(&dir.path().join("t10k-images-idx3-ubyte.gz"), 3, &[5, 6, 7]);
        assert_eq!(
            refused(&dir),
            "DIR/t10k-images-idx3-ubyte.gz: images of 3x1 pixels found, expected 2x1 as in DIR/train-images-idx3-ubyte"
        );
        let dir = directory();
        fs::write(dir.path().join("t10k-images-idx3-ubyte.gz"), b"nonsense").unwrap();
        assert_eq!(
            refused(&dir),
            "DIR/t10k-images-idx3-ubyte.gz: the magic 0x6e6f6e73 found, expected 0x00000803 \
             (an IDX file of unsigned bytes, 3 dimensions)"
        );
    }
}
