//! What a name, a folder or a file is, told by the names of its files.

#[cfg(not(target_arch = "wasm32"))]
mod find;
#[cfg(not(target_arch = "wasm32"))]
mod near;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

#[cfg(not(target_arch = "wasm32"))]
use super::formats::{folder, idx, npy, table};
use super::input::refuse;
#[cfg(not(target_arch = "wasm32"))]
use super::input::{extension, list};
use super::made::{compose, languages, mnist, waves};
use super::split::Split;
use crate::error::Result;
#[cfg(not(target_arch = "wasm32"))]
use crate::files::parent;

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

/// What the files of data do not say themselves.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading<'a> {
    /// What the label's column of a table is called, or its number from 1.
    pub label: Option<&'a str>,
    /// Whether damaged pictures in folders are left out, and counted, instead of refused.
    pub skip_damaged: bool,
}

/// Loads data by name, or from a folder or a file of any format that this module reads.
///
/// `spec` is one of [`NAMES`] (a folder of that name is `./mnist`), a folder, a `.npz`, `.npy`, `.csv` or `.tsv` file,
/// an IDX file, or the beginning of the names of the IDX files in a folder, where it holds several sets
/// (`DIR/emnist-letters`). What a folder holds is told by the names of its files, in any case:
///
/// - **IDX** ([`idx::load`]): `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same with `t10k`
///   or `test`, gzipped or not;
/// - **CIFAR** ([`cifar::load`](super::cifar::load)): `data_batch_1.bin` … and `test_batch.bin`, or `train.bin` and
///   `test.bin`;
/// - **NumPy** ([`npy::load`]): `x_train.npy`, … or one `.npz`;
/// - **pictures** ([`folder::load`]): a folder for each class, in `train` and `test` or alone. `DIR@WIDTHxHEIGHT`
///   scales them to that size;
/// - **tables** ([`table::load`]): `train.csv` and `test.csv`, or `.tsv`, or one of any name;
/// - **text** ([`text::load`](super::text::load)): `train.txt` and `test.txt`.
///
/// Where it holds nothing of these, the folders in it, and in those, are looked at. A `classes.txt` in the folder, or
/// beside the file, names the classes, one a line in the order of the labels (not where folders name them).
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when `spec` is none of these, a file is missing or malformed, or the files do
/// not fit each other; [`Error::Io`](crate::Error::Io) when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(spec: &str) -> Result<Split> {
    load_with(spec, Reading::default())
}

/// As [`load`], with what the files do not say.
///
/// # Errors
///
/// As [`load`].
#[cfg(not(target_arch = "wasm32"))]
pub fn load_with(spec: &str, reading: Reading<'_>) -> Result<Split> {
    if NAMES.contains(&spec) {
        return named(spec);
    }
    let path = Path::new(spec);
    if path.is_dir() {
        return find::load(path, None, reading);
    }
    if path.is_file() {
        return file(spec, path, reading);
    }
    if let Some((dir, size)) = spec.rsplit_once('@')
        && let Some(size) = folder::parse_size(size)
        && Path::new(dir).is_dir()
    {
        return find::load(Path::new(dir), Some(size), reading);
    }
    let (dir, name) = (parent(path), find::called(path));
    if dir.is_dir() && idx::sets(dir, &list(dir)?)?.0.contains(&idx::key(&name)) {
        return idx::load(dir, &name, &name);
    }
    Err(refuse(
        spec,
        format!(
            "no such data{}: expected one of the names {}, a folder with IDX, CIFAR, NumPy, CSV, text or picture \
             files, or a .npz, .npy, .csv or .tsv file",
            crate::error::meant(&name, NAMES),
            NAMES.join(", ")
        ),
    ))
}

/// Loads a file.
#[cfg(not(target_arch = "wasm32"))]
fn file(spec: &str, path: &Path, reading: Reading<'_>) -> Result<Split> {
    let bare = spec.strip_suffix(".gz").filter(|bare| matches!(extension(bare).as_str(), "csv" | "tsv"));
    let bare = Path::new(bare.unwrap_or(spec));
    let name = bare.file_stem().map_or(spec.into(), |stem| stem.to_string_lossy());
    match extension(&bare.to_string_lossy()).as_str() {
        "npz" | "npy" => return npy::load(path, &name),
        "csv" | "tsv" => return table::load_file(path, &name, reading.label),
        _ => {}
    }
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(set) = idx::set_of(&own)
        && idx::sets(parent(path), &list(parent(path))?)?.0.contains(&set)
    {
        return idx::load(parent(path), &set, &find::called(parent(path)));
    }
    let message = near::foreign(&own).unwrap_or_else(|| {
        "a file of another kind found, expected .npz, .npy, .csv or .tsv, or a folder".into()
    });
    Err(refuse(spec, message))
}
