//! What there is of data where none is found: what each layout that comes near has and lacks, and files of other
//! programs.

use std::path::Path;

use super::find::below;
use crate::data::formats::{cifar, folder, idx, npy, table, text};
use crate::data::input::{extension, list, refuse};
use crate::data::names::{Side, listed};
use crate::error::{Error, Result};

/// The most lines that a refusal has.
const MOST: usize = 8;

/// What is read.
const EXPECTED: &str = "IDX files (train-images-idx3-ubyte, …), CIFAR's (data_batch_1.bin, …), arrays (x_train.npy, …, \
                        one .npz), tables (train.csv), texts (train.txt), or a folder of pictures for each class";

/// The tables among files.
pub(super) fn tables(files: &[String]) -> impl Iterator<Item = &String> {
    let bare = |file: &str| file.strip_suffix(".gz").unwrap_or(file).to_owned();
    files.iter().filter(move |file| matches!(extension(&bare(&file.to_lowercase())).as_str(), "csv" | "tsv"))
}

/// The refusal of a folder in which nothing is found that is whole.
pub(super) fn refused(dir: &Path) -> Result<Error> {
    let mut told = Vec::new();
    for folder in below(dir)?.iter().flatten() {
        if let Some(message) = cifar::pickled(&list(folder)?) {
            return Ok(refuse(folder.to_string_lossy(), message));
        }
        let inside = folder.strip_prefix(dir).unwrap_or(folder).to_string_lossy();
        let place = if inside.is_empty() { String::new() } else { format!("{inside}: ") };
        told.extend(lines(folder, inside.is_empty())?.into_iter().map(|line| format!("{place}{line}")));
    }
    let more = told.len().saturating_sub(MOST);
    told.truncate(MOST);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = match &told[..] {
        [] => format!("no data found, expected {EXPECTED}"),
        told => format!("{}{more}; expected {EXPECTED}", told.join("; ")),
    };
    Ok(refuse(dir.to_string_lossy(), message))
}

/// What each layout has and lacks in a folder; `top` says whether it is the one that was named.
fn lines(dir: &Path, top: bool) -> Result<Vec<String>> {
    let files = list(dir)?;
    let mut told = Vec::new();
    let mut tell =
        |what: &str, lines: Vec<String>| told.extend(lines.into_iter().map(|line| format!("{what}{line}")));
    tell("", cifar::content(&files).1);
    tell("IDX: ", idx::sets(dir, &files)?.1);
    tell("arrays: ", npy::content(&files).1);
    let test = |train: Option<&String>, test: Option<&String>, missing: &str| match (train, test) {
        (None, Some(test)) => vec![format!("{test} found, {missing} missing")],
        _ => Vec::new(),
    };
    let part = |side| table::part(&files, side);
    let lacking = test(part(Side::Train), part(Side::Test), "train.csv");
    match tables(&files).collect::<Vec<_>>() {
        several if several.len() > 1 && lacking.is_empty() => {
            let names = listed(several.into_iter().map(String::as_str));
            tell("tables: ", vec![format!("{names} found, of which one can be named itself")]);
        }
        _ => tell("tables: ", lacking),
    }
    let part = |side| text::part(&files, side);
    tell("texts: ", test(part(Side::Train), part(Side::Test), "train.txt"));
    tell("", files.iter().filter(|file| !dir.join(file).is_dir()).filter_map(|file| foreign(file)).collect());
    if top {
        tell("folders: ", folder::near(dir)?);
    }
    Ok(told)
}

/// What a file of another program is, by its name, and how what is in it can be read.
pub(super) fn foreign(file: &str) -> Option<String> {
    let lower = file.to_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    let (what, python) = if ends(&[".pkl", ".pickle", ".pkl.gz", ".pickle.gz"]) {
        let open = if lower.ends_with(".gz") { "gzip.open" } else { "open" };
        let mode = if lower.ends_with(".gz") { "" } else { ", \"rb\"" };
        let parts = if lower.starts_with("mnist") { "train, valid, test" } else { "train, test" };
        let python = format!(
            "{parts} = pickle.load({open}({file:?}{mode}), encoding=\"latin1\"); np.savez(\"data.npz\", \
             x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])"
        );
        ("a pickle, which only Python reads", python)
    } else if ends(&[".pt", ".pth"]) {
        let python = format!("x, y = torch.load({file:?}); np.savez(\"data.npz\", images=x, labels=y)");
        ("a file of PyTorch's", python)
    } else if ends(&[".mat"]) {
        let python = format!(
            "d = scipy.io.loadmat({file:?}); np.savez(\"data.npz\", images=d[\"X\"], labels=d[\"y\"])"
        );
        ("a file of MATLAB's", python)
    } else if ends(&[".h5", ".hdf5"]) {
        let python = format!("d = h5py.File({file:?}); np.savez(\"data.npz\", **{{k: d[k][:] for k in d}})");
        ("a file of HDF5's", python)
    } else if ends(&[".parquet"]) {
        let python = format!("pd.read_parquet({file:?}).to_csv(\"data.csv\", index=False)");
        ("a file of Parquet's", python)
    } else if ends(&[".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".xz", ".bz2"])
    {
        return Some(format!("{file} is packed, expected what is in it"));
    } else {
        return None;
    };
    Some(format!("{file} is {what}; in Python: {python}"))
}
