//! How folders of pictures are laid out: two parts of classes, or classes alone.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::data::input::{extension, list};
use crate::data::names::{Side, is_left_behind, listed, side, words};
use crate::data::picture;
use crate::error::{Error, Result};

/// Files of a folder that are looked at to tell whether it holds pictures.
const LOOKED_AT: usize = 16;

/// What a folder holds.
pub(super) struct Content {
    pub(super) folders: Vec<String>,
    pub(super) files: Vec<String>,
    /// What systems and programs left there.
    pub(super) left: Vec<String>,
}

impl Content {
    pub(super) fn of(dir: &Path) -> Result<Content> {
        let mut content = Content { folders: Vec::new(), files: Vec::new(), left: Vec::new() };
        for name in list(dir)? {
            let is_folder = dir.join(&name).is_dir();
            match (is_left_behind(&name, is_folder), is_folder) {
                (true, _) => content.left.push(name),
                (_, true) => content.folders.push(name),
                (_, false) => content.files.push(name),
            }
        }
        Ok(content)
    }
}

/// Whether a file is a picture by its first bytes, or by its name where it is damaged.
fn is_picture(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    // What cannot be opened is told when it is read.
    if let Ok(file) = File::open(path) {
        file.take(64).read_to_end(&mut head).map_err(Error::io(path))?;
    }
    Ok(picture::is_picture(&head)
        || picture::EXTENSIONS.contains(&extension(&path.to_string_lossy()).as_str()))
}

/// Whether a folder holds pictures itself.
fn has_pictures(dir: &Path) -> Result<bool> {
    for file in Content::of(dir)?.files.iter().take(LOOKED_AT) {
        if is_picture(&dir.join(file))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The folders in `dir` that hold pictures.
fn with_pictures(dir: &Path, folders: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in folders {
        if has_pictures(&dir.join(folder))? {
            found.push(folder.clone());
        }
    }
    Ok(found)
}

/// The folder whose folders hold pictures: `dir`, or the only one in it.
fn of_classes(dir: &Path) -> Result<Option<PathBuf>> {
    let folders = Content::of(dir)?.folders;
    if !with_pictures(dir, &folders)?.is_empty() {
        return Ok(Some(dir.to_owned()));
    }
    let [only] = &folders[..] else { return Ok(None) };
    let inner = dir.join(only);
    let found = !with_pictures(&inner, &Content::of(&inner)?.folders)?.is_empty();
    Ok(found.then_some(inner))
}

/// The part that a folder is by its name, how early of several it is taken, and the name's other words.
fn part(name: &str) -> Option<(Side, usize, Vec<String>)> {
    let mut words = words(name);
    let at = words.iter().position(|word| side(word).is_some())?;
    let (side, early) = side(&words.remove(at))?;
    words.iter().all(|word| self::side(word).is_none()).then_some((side, early, words))
}

/// How the pictures in a folder are laid out.
pub(in crate::data) enum Layout {
    /// A folder for each part, in which there is one for each class.
    Parts {
        /// What to learn from.
        train: PathBuf,
        /// What to be judged by.
        test: Option<PathBuf>,
        /// What was found besides, a line for each thing.
        notes: Vec<String>,
    },
    /// A folder for each class.
    Classes,
}

/// How the pictures in a folder are laid out; none where there are none, or only folders of a part that hold pictures
/// of no class. `few` says whether one folder of pictures is enough to be taken for classes.
///
/// # Errors
///
/// [`Error::Io`] when a folder or a file cannot be read.
pub(in crate::data) fn layout(dir: &Path, few: bool) -> Result<Option<Layout>> {
    let folders = Content::of(dir)?.folders;
    let mut trains: Vec<_> = Vec::new();
    let mut tests: Vec<_> = Vec::new();
    for folder in &folders {
        match part(folder) {
            Some((Side::Train, early, rest)) => trains.push((rest.len(), early, rest, folder)),
            Some((Side::Test, early, rest)) => tests.push((rest.len(), early, rest, folder)),
            None => {}
        }
    }
    trains.sort();
    tests.sort();
    for (_, _, rest, name) in &trains {
        let of_part: Vec<_> =
            tests.iter().filter(|(_, _, other, _)| other == rest).map(|(.., name)| *name).collect();
        // Other words than that of the part stand in the names of both, or it is a class of its own.
        if !rest.is_empty() && of_part.is_empty() {
            continue;
        }
        let Some(train) = of_classes(&dir.join(name))? else { continue };
        let (mut test, mut notes, mut unused, mut why) = (None, Vec::new(), Vec::new(), None);
        for other in of_part {
            match of_classes(&dir.join(other))? {
                Some(found) if test.is_none() => test = Some(found),
                Some(_) => unused.push(other.as_str()),
                None if has_pictures(&dir.join(other))? => {
                    why.get_or_insert(format!("the pictures in {other} are of no class"));
                }
                None => {
                    why.get_or_insert(format!("{other} holds no pictures"));
                }
            }
        }
        if test.is_none() {
            let why = why.unwrap_or_else(|| format!("there is no test part beside {name}"));
            notes.push(format!("{why}: a picture in six of each class of {name} is the test"));
        }
        if !unused.is_empty() {
            notes.push(format!("not used: {}", listed(unused)));
        }
        return Ok(Some(Layout::Parts { train, test, notes }));
    }
    let pictures = with_pictures(dir, &folders)?;
    let parts = pictures.iter().all(|folder| part(folder).is_some_and(|(.., rest)| rest.is_empty()));
    let enough = pictures.len() >= if few { 1 } else { 2 };
    Ok((enough && !parts).then_some(Layout::Classes))
}

/// What there is of folders with pictures where [`layout`] finds none, and what is missing.
///
/// # Errors
///
/// [`Error::Io`] when a folder or a file cannot be read.
pub(in crate::data) fn near(dir: &Path) -> Result<Vec<String>> {
    let Content { folders, files, .. } = Content::of(dir)?;
    let pictures = with_pictures(dir, &folders)?;
    let mut told = Vec::new();
    for folder in &pictures {
        told.push(format!("{folder} holds pictures, expected a folder for each class in it"));
    }
    if pictures.is_empty() {
        let part = |wanted: Side| {
            folders
                .iter()
                .find(|name| part(name).is_some_and(|(side, _, rest)| side == wanted && rest.is_empty()))
        };
        match (part(Side::Train), part(Side::Test)) {
            (None, Some(test)) => told.push(format!("{test} found, train missing")),
            (Some(train), _) => told.push(format!("{train} found, without a folder of pictures in it")),
            (None, None) if !folders.is_empty() => {
                told.push(format!("{} without pictures found", listed(folders.iter().map(String::as_str))));
            }
            (None, None) => {}
        }
    }
    for file in files.iter().take(LOOKED_AT) {
        if is_picture(&dir.join(file))? {
            told.push(format!("the picture {file} found in no folder, expected a folder for each class"));
            break;
        }
    }
    Ok(told)
}
