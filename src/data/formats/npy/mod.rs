//! NumPy's arrays: `.npy` files and `.npz` archives of them, as Keras' `mnist.npz`.
//!
//! An `.npy` file is a magic, a header that is a Python dictionary of type, order and shape, and the elements. An
//! `.npz` file is a zip archive of them, stored or deflated.

mod archive;
mod array;
mod header;
mod roles;
#[cfg(test)]
mod tests;

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use crate::data::classes::{Classes, Label};
use crate::data::dataset::planes;
use crate::data::formats::numbers::Levels;
use crate::data::input::refuse;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::input::{extension, list};
use crate::data::names::listed;
use crate::data::series;
use crate::data::split::{Split, drawn, places_of, recorded};
use crate::error::{Error, Result};
use archive::{Member, members};
use array::What;

pub use array::{Array, parse};
pub(in crate::data) use roles::is_beside;

/// The arrays of one set: pictures and labels.
struct Found {
    train: [Array; 2],
    test: Option<[Array; 2]>,
    notes: Vec<String>,
}

/// What names of arrays are to be like.
const EXPECTED: &str = "x_train, y_train, x_test and y_test, or images and labels, or the like";

/// Reads the arrays of an archive that belong together by their names, or by their shapes where they are `arr_0`, ….
fn parse_archive(file: &str, bytes: &[u8]) -> Result<Found> {
    let members = members(bytes).map_err(|message| refuse(file, message))?;
    let names: Vec<&str> =
        members.iter().map(|member| member.name.strip_suffix(".npy").unwrap_or(&member.name)).collect();
    let read = |i: usize| unpacked(&format!("{file}: {}", members[i].name), &members[i]);
    let (sets, lacking) = roles::sets(&names);
    let [set] = &sets[..] else {
        let numbered: Vec<usize> = (0..names.len()).filter(|&i| names[i].starts_with("arr_")).collect();
        if sets.is_empty() && matches!(numbered.len(), 2 | 4) {
            return Found::by_shape(file, numbered.into_iter().map(read).collect::<Result<_>>()?);
        }
        let told = match (&sets[..], &lacking[..]) {
            ([], []) => format!("the arrays {} found", listed(names)),
            ([], lacking) => lacking.join("; "),
            (several, _) => {
                format!("several sets found, {}", listed(several.iter().map(|set| set.key.as_str())))
            }
        };
        return Err(refuse(file, format!("{told}; expected {EXPECTED}")));
    };
    Found::read(file, set, &names, read)
}

/// All arrays of an `.npz` file, in its order, by their names.
///
/// # Errors
///
/// [`Error::Data`] when the archive or an array is malformed.
pub fn parse_all(file: &str, bytes: &[u8]) -> Result<Vec<(String, Array)>> {
    let members = members(bytes).map_err(|message| refuse(file, message))?;
    let read = |member: &Member<'_>| {
        let array = unpacked(&format!("{file}: {}", member.name), member)?;
        Ok((member.name.trim_end_matches(".npy").to_owned(), array))
    };
    members.iter().filter(|member| member.name.ends_with(".npy")).map(read).collect()
}

/// The array of an archive's member; `title` is what errors call it.
fn unpacked(title: &str, member: &Member<'_>) -> Result<Array> {
    parse(title, member.unpack().map_err(|message| refuse(title, message))?)
}

impl Found {
    /// The arrays of a set, each by its place among all.
    fn read(
        file: &str,
        set: &roles::Set,
        names: &[&str],
        mut read: impl FnMut(usize) -> Result<Array>,
    ) -> Result<Found> {
        let mut pair = |[images, labels]: [usize; 2]| Ok::<_, Error>([read(images)?, read(labels)?]);
        let (train, test) = (pair(set.train)?, set.test.map(&mut pair).transpose()?);
        let mut notes = Vec::new();
        if !set.unused.is_empty() {
            notes.push(format!("not used: {}", listed(set.unused.iter().map(|&i| names[i]))));
        }
        if test.is_none() {
            let why = match set.unlabelled {
                Some(i) => format!("{} of {file} has no labels", names[i]),
                None => format!("{file} has no test part"),
            };
            let of = names[set.train[0]];
            notes.push(format!("{why}: an image in six of each class of {of} is the test"));
        }
        Ok(Found { train, test, notes })
    }

    /// The arrays of an archive whose names say nothing: pictures have more numbers in a row than labels, and what to
    /// learn from comes first.
    fn by_shape(file: &str, mut arrays: Vec<Array>) -> Result<Found> {
        let count = |array: &Array| array.shape.first().copied().unwrap_or(1);
        arrays.sort_by_key(|array| std::cmp::Reverse(array.len() / count(array).max(1)));
        let short = |array: &Array| array.name.rsplit(": ").next().unwrap_or_default().to_owned();
        let told = |images: &Array, labels: &Array| {
            format!("{} is pictures, {} labels", short(images), short(labels))
        };
        let four = match <[Array; 2]>::try_from(arrays) {
            Ok([images, labels]) => {
                let drawn = format!("{file} has no test part: an image in six of each class is the test");
                let notes = vec![told(&images, &labels), drawn];
                return Ok(Found { train: [images, labels], test: None, notes });
            }
            Err(arrays) => <[Array; 4]>::try_from(arrays),
        };
        let Ok([images, others, mut labels, mut of_others]) = four else {
            return Err(refuse(file, format!("arrays without names found, expected {EXPECTED}")));
        };
        if count(&labels) != count(&images) {
            std::mem::swap(&mut labels, &mut of_others);
        }
        let notes = vec![told(&images, &labels), format!("for the test {}", told(&others, &of_others))];
        Ok(Found { train: [images, labels], test: Some([others, of_others]), notes })
    }

    /// Makes data of the arrays; `classes` names their classes.
    fn split(self, name: &str, classes: impl FnOnce(Classes) -> Result<Classes>) -> Result<Split> {
        let Found { train: [images, labels], test, mut notes } = self;
        let found = |images: &Array, labels: &Array| labels.labels(images.images()?.count, &images.name);
        let mut parts = vec![(labels.name.as_str(), found(&images, &labels)?)];
        if let Some([images, labels]) = &test {
            parts.push((labels.name.as_str(), found(images, labels)?));
        }
        let parts: Vec<(&str, &[Label])> = parts.iter().map(|(file, part)| (*file, &part[..])).collect();
        let (found, numbers) = Classes::of(&parts, Label::clone)?;
        let classes = classes(found)?;
        let (mut numbers, mut held_out) = (numbers.into_iter(), None);
        let first = numbers.next().unwrap_or_default();
        let (images, labels) = match test {
            Some([other, _]) => ([images, other], [first, numbers.next().unwrap_or_default()]),
            None => {
                let places = places_of(&drawn(&first));
                held_out = recorded("image", &places[1]);
                let of = |rows: &Vec<usize>| rows.iter().map(|&i| first[i]).collect::<Vec<u8>>();
                ([images.pick(&places[0]), images.pick(&places[1])], [of(&places[0]), of(&places[1])])
            }
        };
        let what = [images[0].images()?, images[1].images()?];
        notes.extend(what[0].note.clone());
        let make = |i: usize, bytes: Vec<u8>| {
            let [channels, height, width] = what[i].shape;
            let bytes = if what[i].together { planes(&bytes, height * width, channels) } else { bytes };
            classes.dataset(name, what[i].shape, bytes, labels[i].clone())
        };
        let files = [&images[0].name[..], &images[1].name];
        let levels = match what[0].what {
            What::Signal => {
                let values = [0, 1].map(|i| images[i].pixels().collect::<Vec<_>>());
                let split = series::scaled(files, [&values[0], &values[1]], make)?;
                return Ok(Split { held_out, notes, ..split });
            }
            What::Bytes => Levels::BYTES,
            What::Pixels => Levels::of(images[0].pixels()).map_err(|message| images[0].refuse(message))?,
        };
        notes.extend(levels.told().into_iter().chain(levels.differs(images[1].pixels())));
        let part = |i: usize| {
            if let Some((at, value)) = images[i].pixels().enumerate().find(|(_, value)| !value.is_finite()) {
                let message = format!("the value {value} found at index {at}, expected a finite number");
                return Err(images[i].refuse(message));
            }
            let mut data = make(i, images[i].pixels().map(|pixel| levels.byte(pixel)).collect())?;
            data.scale = levels.range();
            Ok((files[i].to_owned(), data))
        };
        Ok(Split { held_out, notes, ..Split::new(part(0)?, part(1)?)? })
    }
}

/// Makes data of an `.npz` file's content: of its arrays those that belong together by their names, in any case and
/// with any signs between their words, as `x_train`, `y_train`, `x_test` and `y_test`, `trainImages`, …, or `images`
/// and `labels`; others are passed over. Without a test part an image in [`HELD_OUT`](crate::data::HELD_OUT) of each
/// class is it.
///
/// Pictures are `N,H,W`, or `N,H,W,C` where the last is 1 or 3, else `N,C,H,W`, of numbers of any type. Those of the
/// training part that lie between 0 and 1, whole ones between 0 and 16, those between 0 and 255 and between −1 and 1
/// are scaled from these ends to bytes, others from their own; true is 255. `N,L` are pictures where L numbers make a
/// square, or three of them; else signals `[1, 1, L]`: bytes as they are, other numbers scaled by the range of the
/// training part ([`series`]). Labels are whole numbers, texts, or one-hot; those that occur are the classes.
///
/// # Errors
///
/// [`Error::Data`] when the archive is malformed, or a shape, a number or the count of labels does not fit.
pub fn dataset(name: &str, file: &str, bytes: &[u8]) -> Result<Split> {
    parse_archive(file, bytes)?.split(name, Ok)
}

/// What a folder has of arrays.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) enum Content {
    /// One archive of this name.
    Archive(String),
    /// Files of one array each, of these names.
    Files(roles::Set, Vec<String>),
}

/// A name without its end.
#[cfg(not(target_arch = "wasm32"))]
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// What the names in a folder say of arrays, and what the arrays lack.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn content(files: &[String]) -> (Option<Content>, Vec<String>) {
    let of = |end: &str| files.iter().filter(|file| extension(file) == end).cloned().collect::<Vec<_>>();
    let set = |files: Vec<String>| {
        let (mut sets, lacking) = roles::sets(&files.iter().map(|file| stem(file)).collect::<Vec<_>>());
        let one = if sets.len() == 1 { sets.pop() } else { None };
        let several = sets.iter().map(|set| format!("a set {}", set.key)).collect::<Vec<_>>();
        (one.map(|set| Content::Files(set, files)), [several, lacking].concat())
    };
    let (arrays, mut lacking) = set(of("npy"));
    if arrays.is_some() {
        return (arrays, lacking);
    }
    let archives = of("npz");
    if let [only] = &archives[..] {
        return (Some(Content::Archive(only.clone())), lacking);
    }
    if !archives.is_empty() {
        let names = listed(archives.iter().map(String::as_str));
        let (arrays, more) = set(archives);
        if arrays.is_some() {
            return (arrays, more);
        }
        lacking.push(format!("several .npz files found, {names}: one can be named itself"));
    }
    (None, lacking)
}

/// Loads an `.npz` file; a folder with one, or with files of one array each; or an `.npy` file with pictures, whose
/// labels lie beside it. See [`dataset`] for what the arrays may be and are called. A `classes.txt` beside them names
/// the classes.
///
/// # Errors
///
/// Those of [`dataset`], and [`Error::Io`] when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(path: &Path, name: &str) -> Result<Split> {
    if path.is_dir() {
        return match content(&list(path)?) {
            (Some(Content::Archive(file)), _) => load(&path.join(file), name),
            (Some(Content::Files(set, files)), _) => files_in(path, &set, &files)?.named(name, path),
            (None, lacking) => {
                let told = if lacking.is_empty() { "no arrays found".into() } else { lacking.join("; ") };
                Err(refuse(path.to_string_lossy(), format!("{told}; expected {EXPECTED}")))
            }
        };
    }
    let dir = crate::files::parent(path);
    let file = path.to_string_lossy();
    if extension(&file) == "npz" {
        return parse_archive(&file, &crate::files::read(path)?)?.named(name, dir);
    }
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files: Vec<String> = list(dir)?.into_iter().filter(|file| extension(file) == "npy").collect();
    let names: Vec<&str> = files.iter().map(|file| stem(file)).collect();
    let at = files.iter().position(|file| *file == own);
    let belongs = |set: &roles::Set| {
        let mut all = set.train.iter().chain(set.test.iter().flatten()).chain(&set.unlabelled);
        at.is_some_and(|at| all.any(|&i| i == at))
    };
    let beside = || Some([at?, roles::labels_of(stem(&own), &names).filter(|&labels| Some(labels) != at)?]);
    let set = roles::sets(&names).0.into_iter().find(belongs).or_else(|| {
        Some(roles::Set {
            key: String::new(),
            train: beside()?,
            test: None,
            unlabelled: None,
            unused: Vec::new(),
        })
    });
    let Some(set) = set else {
        let stem = stem(&own);
        let message = format!("no labels beside it found, expected labels.npy, y.npy or {stem}_labels.npy");
        return Err(refuse(file, message));
    };
    files_in(dir, &set, &files)?.named(name, dir)
}

/// The arrays of a set of files in a folder.
#[cfg(not(target_arch = "wasm32"))]
fn files_in(dir: &Path, set: &roles::Set, files: &[String]) -> Result<Found> {
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    Found::read(&dir.to_string_lossy(), set, &names, |i| {
        let path = dir.join(&files[i]);
        let (title, bytes) = (path.to_string_lossy(), crate::files::read(&path)?);
        if extension(&title) != "npz" {
            return parse(&title, bytes);
        }
        match &members(&bytes).map_err(|message| refuse(title.as_ref(), message))?[..] {
            [member] => unpacked(&title, member),
            several => Err(refuse(title.as_ref(), format!("{} arrays found, expected one", several.len()))),
        }
    })
}

#[cfg(not(target_arch = "wasm32"))]
impl Found {
    /// Makes data of the arrays, whose classes a `classes.txt` in `dir` names.
    fn named(self, name: &str, dir: &Path) -> Result<Split> {
        self.split(name, |classes| classes.named_in(dir))
    }
}
