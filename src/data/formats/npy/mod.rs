//! NumPy's arrays: `.npy` files and `.npz` archives of them, as Keras' `mnist.npz`.
//!
//! An `.npy` file is a magic, a header that is a Python dictionary of type, order and shape, and the elements. An
//! `.npz` file is a zip archive of them, stored or deflated.

mod archive;
mod array;
#[cfg(test)]
mod tests;

use crate::data::classes::Classes;
use crate::data::dataset::planes;
use crate::data::input::refuse;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::input::{extension, list};
use crate::data::series;
use crate::data::split::Split;
use crate::error::{Error, Result};
use archive::members;
use array::Kind;

pub use array::{Array, parse};

/// What the four arrays may be called: pictures and labels to train on, pictures and labels for the test.
const NAMES: [[&str; 4]; 3] = [
    ["x_train", "y_train", "x_test", "y_test"],
    ["train_images", "train_labels", "test_images", "test_labels"],
    ["train_x", "train_y", "test_x", "test_y"],
];

/// Reads an `.npz` file with four arrays, called `x_train`, `y_train`, `x_test` and `y_test`, or `train_images`,
/// `train_labels`, `test_images` and `test_labels`, or `train_x`, …; others are passed over.
///
/// `file` is what errors call the file. Pictures and labels to train on come first.
///
/// # Errors
///
/// [`Error::Data`] when the archive or an array is malformed, or one is missing.
pub fn parse_archive(file: &str, bytes: &[u8]) -> Result<[Array; 4]> {
    let members = members(bytes).map_err(|message| refuse(file, message))?;
    let find = |name: &str| members.iter().find(|member| member.name == format!("{name}.npy"));
    let names = NAMES.into_iter().find(|names| find(names[0]).is_some()).unwrap_or(NAMES[0]);
    let read = |name: &str| {
        let member = find(name).ok_or_else(|| {
            let found: Vec<_> = members.iter().map(|member| member.name.as_str()).take(10).collect();
            refuse(
                file,
                format!("no array {name} found, but {}; expected {}", found.join(", "), names.join(", ")),
            )
        })?;
        let title = format!("{file}: {}", member.name);
        parse(&title, member.unpack().map_err(|message| refuse(title.as_str(), message))?)
    };
    Ok([read(names[0])?, read(names[1])?, read(names[2])?, read(names[3])?])
}

/// All arrays of an `.npz` file, in its order, by their names.
///
/// # Errors
///
/// [`Error::Data`] when the archive or an array is malformed.
pub fn parse_all(file: &str, bytes: &[u8]) -> Result<Vec<(String, Array)>> {
    let members = members(bytes).map_err(|message| refuse(file, message))?;
    let read = |member: &archive::Member<'_>| {
        let title = format!("{file}: {}", member.name);
        let content = member.unpack().map_err(|message| refuse(title.as_str(), message))?;
        Ok((member.name.trim_end_matches(".npy").to_owned(), parse(&title, content)?))
    };
    members.iter().filter(|member| member.name.ends_with(".npy")).map(read).collect()
}

/// Makes data of four arrays: pictures and labels to train on, pictures and labels for the test.
///
/// Pictures are `N,H,W`, or `N,H,W,C` where the last is 1 or 3, else `N,C,H,W`: bytes, whole numbers of 0 to 255,
/// or fractions of 0 to 1, which become bytes times 255. `N,L` are signals `[1, 1, L]`: bytes as they are, other
/// numbers scaled by the range of the training part ([`series`]). Labels are whole numbers of 0 to 255, of
/// any type. `classes` makes classes of the training part's.
///
/// # Errors
///
/// [`Error::Data`] when a shape, a number or the count of labels does not fit.
fn arrays(
    name: &str,
    arrays: &[Array; 4],
    classes: impl FnOnce(Classes) -> Result<Classes>,
) -> Result<Split> {
    let [train, train_labels, test, test_labels] = arrays;
    let labels = [(train, train_labels), (test, test_labels)].map(|(images, labels)| {
        let (count, ..) = images.images()?;
        let found = labels.labels()?;
        if found.len() != count {
            return Err(labels.refuse(format!(
                "{} labels found, expected {count} as there are images in {}",
                found.len(),
                images.name
            )));
        }
        Ok(found)
    });
    let [a, b] = labels;
    let labels = [a?, b?];
    let classes = classes(Classes::by_labels(&labels[0]))?;
    let images = [train, test];
    let make = |i: usize, bytes: Vec<u8>| {
        let (_, shape, together) = images[i].images()?;
        let bytes = if together { planes(&bytes, shape[1] * shape[2], shape[0]) } else { bytes };
        let file = &arrays[2 * i + 1].name;
        classes.dataset(name, file, shape, bytes, labels[i].clone())
    };
    let byte = |array: &Array| (array.kind, array.size) == (Kind::Unsigned, 1);
    if train.shape.len() == 2 && test.shape.len() == 2 && !(byte(train) && byte(test)) {
        let values = images.map(|array| array.numbers().map(|value| value as f32).collect::<Vec<_>>());
        return series::scaled([&train.name, &test.name], [&values[0], &values[1]], make);
    }
    let part = |i: usize| {
        let array = images[i];
        Ok::<_, Error>((array.name.clone(), make(i, array.pixels()?)?))
    };
    Split::new(part(0)?, part(1)?)
}

/// Makes data of an `.npz` file's content; see [`parse_archive`] for the names of its arrays.
///
/// Pictures are `N,H,W`, or `N,H,W,C` where the last is 1 or 3, else `N,C,H,W`: bytes, whole numbers of 0 to 255,
/// or fractions of 0 to 1, which become bytes times 255. `N,L` are signals `[1, 1, L]`: bytes as they are, other
/// numbers scaled by the range of the training part ([`series`]). Labels are whole numbers of 0 to 255, of
/// any type; the greatest to train on decides how many classes there are.
///
/// # Errors
///
/// [`Error::Data`] when the archive is malformed, or a shape, a number or the count of labels does not fit.
pub fn dataset(name: &str, file: &str, bytes: &[u8]) -> Result<Split> {
    arrays(name, &parse_archive(file, bytes)?, Ok)
}

/// Whether these are arrays of NumPy.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn is_present(files: &[String]) -> bool {
    let has = |end: &str| files.iter().any(|file| file.to_lowercase().ends_with(end));
    has(".npz") || NAMES.iter().any(|names| files.contains(&format!("{}.npy", names[0])))
}

/// Loads an `.npz` file, or a folder with one or with four `.npy` files of the names of [`parse_archive`]; see
/// [`dataset`] for what the arrays may be. A `classes.txt` beside them names the classes.
///
/// Kuzushiji's four archives, `kmnist-train-imgs.npz`, `-train-labels`, `-test-imgs` and `-test-labels`, each with
/// one array `arr_0`, are read too.
///
/// # Errors
///
/// Those of [`dataset`], and [`Error::Io`] when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(path: &std::path::Path, name: &str) -> Result<Split> {
    let dir = if path.is_dir() { Some(path) } else { path.parent() };
    let finish = |found: [Array; 4]| {
        arrays(name, &found, |classes| match dir {
            Some(dir) => classes.named_in(dir),
            None => Ok(classes),
        })
    };
    if !path.is_dir() {
        return finish(parse_archive(&path.to_string_lossy(), &crate::files::read(path)?)?);
    }
    let files = list(path)?;
    let refused = |message: String| refuse(path.to_string_lossy(), message);
    if let Some(names) = NAMES.iter().find(|names| files.contains(&format!("{}.npy", names[0]))) {
        let read = |name: &str| {
            let file = path.join(format!("{name}.npy"));
            if !file.is_file() {
                return Err(refused(format!(
                    "no file {name}.npy found, expected {}, each .npy",
                    names.join(", ")
                )));
            }
            parse(&file.to_string_lossy(), crate::files::read(&file)?)
        };
        return finish([read(names[0])?, read(names[1])?, read(names[2])?, read(names[3])?]);
    }
    let archives: Vec<_> = files.iter().filter(|file| extension(file) == "npz").collect();
    if let Some(prefix) = archives.iter().find_map(|file| file.strip_suffix("train-imgs.npz")) {
        let read = |part: &str| {
            let file = path.join(format!("{prefix}{part}.npz"));
            if !file.is_file() {
                return Err(refused(format!("no file {prefix}{part}.npz found, expected one")));
            }
            let title = file.to_string_lossy();
            let bytes = crate::files::read(&file)?;
            match &members(&bytes).map_err(|message| refuse(title.as_ref(), message))?[..] {
                [member] => {
                    parse(&title, member.unpack().map_err(|message| refuse(title.as_ref(), message))?)
                }
                several => {
                    Err(refuse(title.as_ref(), format!("{} arrays found, expected one", several.len())))
                }
            }
        };
        return finish([
            read("train-imgs")?,
            read("train-labels")?,
            read("test-imgs")?,
            read("test-labels")?,
        ]);
    }
    match &archives[..] {
        [file] => load(&path.join(file), name),
        several => Err(refused(format!(
            "{} .npz files found, expected one; a file can be named itself",
            several.len()
        ))),
    }
}
