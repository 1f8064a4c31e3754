//! A folder of IDX files: the set of four that belong together, EMNIST's mapping of labels to characters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file;
use crate::data::classes::{Classes, Label};
use crate::data::dataset::{Dataset, transposed};
use crate::data::input::{MAX_CONTENT, list, read_lines, refuse};
use crate::data::names::{Side, is_left_behind, listed, side, words};
use crate::data::pixels::Pixels;
use crate::data::split::{Split, drawn, places_of, recorded};
use crate::error::Result;

/// What may follow the name of an IDX file: its type, the packing, and what programs add to the name of a copy.
const ENDS: [&str; 11] =
    ["ubyte", "int", "gz", "gzip", "idx", "bin", "dat", "copy", "kopie", "copie", "copia"];

/// What an IDX file is, by its name.
struct Role {
    key: Vec<String>,
    side: Side,
    /// 0 for pictures, 1 for labels.
    kind: usize,
    /// How many words a copy's name has more, how many follow in all, and how early its part's word is: of several the
    /// least is read.
    order: [usize; 3],
}

/// `train-images-idx3-ubyte`, with anything before it, any signs between the words, and [`ENDS`] or numbers behind.
fn role(name: &str) -> Option<Role> {
    let words = words(name);
    let at = words.iter().position(|word| ["idx1", "idx2", "idx3", "idx4"].contains(&word.as_str()))?;
    let more = &words[at + 1..];
    let known =
        |word: &String| ENDS.contains(&word.as_str()) || word.bytes().all(|byte| byte.is_ascii_digit());
    if !more.iter().all(known) {
        return None;
    }
    let (mut key, mut part, mut kind) = (Vec::new(), None, None);
    for word in words[..at].iter().rev() {
        let what = match word.as_str() {
            "images" | "image" | "imgs" | "x" => Some(0),
            "labels" | "label" | "y" => Some(1),
            _ => None,
        };
        match (side(word), what) {
            (Some(side), _) if part.is_none() => part = Some(side),
            (_, Some(what)) if kind.is_none() => kind = Some(what),
            _ => key.insert(0, word.clone()),
        }
    }
    let (side, early) = part?;
    let copied = more.iter().filter(|word| !["ubyte", "int", "gz"].contains(&word.as_str())).count();
    let kind = kind.unwrap_or(usize::from(matches!(words[at].as_str(), "idx1" | "idx2")));
    Some(Role { key, side, kind, order: [copied, more.len(), early] })
}

/// The files of one set, as paths from the folder: pictures and labels to learn from, pictures and labels for the test.
struct Found {
    /// What its names begin with, in words that `-` joins: nothing for MNIST, `emnist-letters`.
    key: String,
    files: [Option<PathBuf>; 4],
}

impl Found {
    /// The names of its files, and what it lacks; nothing where it is whole. The test part may be missing as a whole.
    fn lacks(&self) -> Option<String> {
        let has = self.files.each_ref().map(Option::is_some);
        let part = if has[2] || has[3] { "t10k" } else { "test" };
        let missing = match has {
            [true, true, a, b] if a == b => return None,
            [false, ..] => "train-images",
            [_, false, ..] => "train-labels",
            [.., false, _] => &format!("{part}-images"),
            _ => &format!("{part}-labels"),
        };
        let names: Vec<_> = self.files.iter().flatten().map(|path| path.to_string_lossy()).collect();
        let found = listed(names.iter().map(AsRef::as_ref));
        let key = if self.key.is_empty() { String::new() } else { format!("{}-", self.key) };
        Some(format!("{found} found, {key}{missing} missing"))
    }
}

/// A file that may be one of a set, and its order: of several the least is read.
type Candidate = Option<((bool, [usize; 3]), PathBuf)>;

/// The sets of IDX files in a folder that holds `files`.
fn all(dir: &Path, files: &[String]) -> Result<Vec<Found>> {
    let mut sets: BTreeMap<Vec<String>, [Candidate; 4]> = BTreeMap::new();
    for name in files.iter().filter(|name| !is_left_behind(name, false)) {
        let Some(Role { key, side, kind, order }) = role(name) else { continue };
        let mut path = PathBuf::from(name);
        let is_folder = dir.join(name).is_dir();
        if is_folder {
            // What unpacks a file may put it into a folder of its name.
            let mut inside = list(&dir.join(name))?;
            inside.retain(|file| !is_left_behind(file, false) && dir.join(name).join(file).is_file());
            let [file] = &inside[..] else { continue };
            path.push(file);
        }
        let found = ((is_folder, order), path);
        let slot = &mut sets.entry(key).or_default()[usize::from(side == Side::Test) * 2 + kind];
        if slot.as_ref().is_none_or(|before| found < *before) {
            *slot = Some(found);
        }
    }
    let of = |(key, files): (Vec<String>, [Option<(_, PathBuf)>; 4])| Found {
        key: key.join("-"),
        files: files.map(|file| file.map(|(_, path)| path)),
    };
    Ok(sets.into_iter().map(of).collect())
}

/// What the whole sets of IDX files in a folder begin with, and what the others lack.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) when a folder cannot be read.
pub(in crate::data) fn sets(dir: &Path, files: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut whole, mut lacking) = (Vec::new(), Vec::new());
    for set in all(dir, files)? {
        match set.lacks() {
            None => whole.push(set.key),
            Some(lacks) => lacking.push(lacks),
        }
    }
    Ok((whole, lacking))
}

/// What the set of a file begins with, as [`sets`] gives it, if it is called like an IDX file.
pub(in crate::data) fn set_of(file: &str) -> Option<String> {
    role(file).map(|role| role.key.join("-"))
}

/// What a name of a set is among those that [`sets`] gives.
pub(in crate::data) fn key(name: &str) -> String {
    words(name).join("-")
}

/// Loads the IDX files of a folder whose names begin with `prefix`, which may be nothing.
///
/// Behind it come `train-images`, `train-labels`, and `t10k-images` and `t10k-labels`, with `test`, `val` or the like
/// in place of `t10k`; then `idx3-ubyte` (grey), `idx4-ubyte` (colour), `idx1-ubyte` (labels) or `idx2-int` (QMNIST's
/// rows of numbers, of which the first is the label). Case, the signs between the words, a `.gz`, and what browsers and
/// unzippers add to a name do not count, and whether a file is gzipped is told by its content; a folder with nothing
/// but the file stands for it. Of several the one with the shortest name is read. Without a test part, an image in
/// [`HELD_OUT`](crate::data::HELD_OUT) of each class is it.
///
/// The classes are the labels that occur. A file `PREFIXmapping.txt` of EMNIST (a line for each label: the label, then
/// the codes of the characters it stands for) gives their names, and `classes.txt` goes before it. The pictures of a
/// set whose name, or whose data's, begins with `emnist` are stored with rows and columns exchanged, and are turned
/// upright.
///
/// The pixels of a file that is not gzipped and has more than 2 GiB stay there: see [`Pixels`].
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when a file is missing or malformed or the files do not fit each other;
/// [`Error::Io`](crate::Error::Io) when one cannot be read.
pub fn load(dir: &Path, prefix: &str, name: &str) -> Result<Split> {
    load_below(dir, prefix, name, MAX_CONTENT)
}

/// One part: what its files are called, the shape of a picture, the pixels and the labels.
struct Part {
    files: [String; 2],
    shape: [usize; 3],
    pixels: Pixels,
    labels: Vec<u8>,
}

/// The same, where image files of more than `most` bytes stay where they are.
pub(super) fn load_below(dir: &Path, prefix: &str, name: &str, most: u64) -> Result<Split> {
    let files = list(dir)?;
    let wanted = key(prefix);
    let refused = |message: String| refuse(dir.to_string_lossy(), message);
    let Some(set) = all(dir, &files)?.into_iter().find(|set| set.key == wanted) else {
        return Err(refused(format!("no IDX files {prefix}train-images-idx3-ubyte, … found, expected some")));
    };
    if let Some(lacks) = set.lacks() {
        return Err(refused(lacks));
    }
    let turned = wanted.starts_with("emnist") || name.to_lowercase().starts_with("emnist");
    let mut notes = Vec::new();
    let mut parts = Vec::new();
    for pair in set.files.chunks_exact(2) {
        if let [Some(images), Some(labels)] = pair {
            parts.push(read([dir.join(images), dir.join(labels)], turned, most)?);
        }
    }
    let labels: Vec<(&str, &[u8])> =
        parts.iter().map(|part| (part.files[1].as_str(), &part.labels[..])).collect();
    let (mut classes, numbers) = Classes::of(&labels, |&label| Label::Number(f64::from(label)))?;
    let mapped = if wanted.is_empty() { "mapping-txt".into() } else { format!("{wanted}-mapping-txt") };
    if let Some(file) = files.iter().find(|file| key(file) == mapped) {
        let path = dir.join(file);
        classes = classes.translated(&path.to_string_lossy(), &mapping(&path)?)?;
    }
    let classes = classes.named_in(dir)?;
    if turned {
        notes.push("pictures of EMNIST are turned upright".to_owned());
    }
    let mut made = Vec::new();
    for (part, numbers) in parts.into_iter().zip(numbers) {
        let [images, _] = part.files;
        let mut data = classes.dataset(name, part.shape, part.pixels, numbers)?;
        data.turned = turned;
        made.push((images, data));
    }
    let split = match (made.pop(), made.pop()) {
        (Some(test), Some(train)) => Split::new(train, test)?,
        (Some((file, all)), None) => {
            notes.push(format!(
                "there is no t10k-images: an image in six of each class of {file} is the test"
            ));
            divided(file, &all)?
        }
        _ => return Err(refused("no images found, expected some".to_owned())),
    };
    Ok(Split { notes, ..split })
}

/// Draws the test part.
fn divided(file: String, all: &Dataset) -> Result<Split> {
    let [rest, held] = places_of(&drawn(&all.labels));
    let split = Split::new((file.clone(), all.pick(&rest)), (file, all.pick(&held)))?;
    Ok(Split { held_out: recorded("image", &held), ..split })
}

/// Reads the pictures and the labels of a part; those that are `turned` are put upright.
fn read([images, labels]: [PathBuf; 2], turned: bool, most: u64) -> Result<Part> {
    let files = [&images, &labels].map(|path| path.to_string_lossy().into_owned());
    let (count, shape, pixels) = match file::filed(&images, most)? {
        Some(_) if turned => {
            let message = format!("more than {most} bytes found, expected at most as many, to be turned");
            return Err(refuse(files[0].as_str(), message));
        }
        Some(filed) => filed,
        None => {
            let (count, shape, pixels) = file::images(&files[0], &crate::files::read(&images)?)?;
            match shape {
                [channels, height, width] if turned => {
                    (count, [channels, width, height], transposed(&pixels, shape).into())
                }
                _ => (count, shape, Pixels::Held(pixels)),
            }
        }
    };
    let labels = file::labels([&files[0], &files[1]], &crate::files::read(&labels)?, count)?;
    Ok(Part { files, shape, pixels, labels })
}

/// Reads EMNIST's mapping of labels to the characters that they stand for.
fn mapping(path: &Path) -> Result<BTreeMap<u8, String>> {
    let mut names = BTreeMap::new();
    for (i, line) in read_lines(path)?.iter().flatten().enumerate() {
        let wrong = |what: &str| {
            refuse(path.to_string_lossy(), format!("{line:?} found in line {}, expected {what}", i + 1))
        };
        let mut words = line.split_ascii_whitespace();
        let label: u8 =
            words.next().and_then(|word| word.parse().ok()).ok_or_else(|| wrong("a label of 0 to 255"))?;
        let codes: Option<String> = words
            .map(|word| word.parse().ok().and_then(char::from_u32).filter(|c| !c.is_control()))
            .collect();
        let name = codes
            .filter(|name| !name.is_empty())
            .ok_or_else(|| wrong("codes of characters behind the label"))?;
        if names.insert(label, name).is_some() {
            return Err(wrong("each label once"));
        }
    }
    Ok(names)
}
