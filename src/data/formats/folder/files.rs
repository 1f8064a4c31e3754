//! The files of classes' folders, and the pictures in them: those that are damaged are found all at once.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::MAX_FILE;
use super::layout::Content;
use crate::data::classes::Label;
use crate::data::input::{MAX_CONTENT, refuse};
use crate::data::names::{counted, listed};
use crate::data::picture;
use crate::error::Result;

/// What is in the folder of a class.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// The folder's name.
    pub(super) class: String,
}

/// The files in the folders of `dir`, in the order of the classes and by name; what belongs to no class is added to `passed`, and
/// folders without a picture to `empty`.
pub(super) fn entries(dir: &Path, passed: &mut Vec<String>, empty: &mut Vec<String>) -> Result<Vec<Entry>> {
    let Content { mut folders, files, left } = Content::of(dir)?;
    passed.extend(left.into_iter().chain(files));
    folders.sort_by(|a, b| Label::new(a).order(&Label::new(b)).then(a.cmp(b)));
    let mut entries = Vec::new();
    for class in folders {
        let folder = dir.join(&class);
        let Content { folders, files, left } = Content::of(&folder)?;
        passed.extend(left);
        if let Some(inner) = folders.first() {
            let found = counted(folders.len(), "folder");
            let message = format!("{found} in a class's folder found ({inner}, …), expected pictures only");
            return Err(refuse(folder.to_string_lossy(), message));
        }
        if files.is_empty() {
            empty.push(class);
            continue;
        }
        entries.extend(files.iter().map(|file| Entry { path: folder.join(file), class: class.clone() }));
    }
    Ok(entries)
}

/// A file that is no picture.
struct Bad {
    /// Whether it is of another kind altogether.
    foreign: bool,
    why: String,
}

/// A picture: one plane where it is grey, else three; its height and width.
type Decoded = (Vec<u8>, usize, usize);

fn read(path: &Path, size: Option<[usize; 2]>) -> Result<Decoded, Bad> {
    let damaged = |why: String| Bad { foreign: false, why };
    let length = std::fs::metadata(path).map_err(|error| damaged(error.to_string()))?.len();
    if length > MAX_FILE {
        return Err(damaged(format!("{length} bytes, expected at most {MAX_FILE}")));
    }
    let bytes = crate::files::read(path).map_err(|error| damaged(error.to_string()))?;
    if bytes.is_empty() {
        return Err(damaged("empty".into()));
    }
    if !picture::is_picture(&bytes) {
        return Err(Bad { foreign: true, why: "no picture".into() });
    }
    picture::read(&bytes, size).map_err(|why| {
        let why = why.strip_prefix("the picture cannot be decoded: ").unwrap_or(&why);
        damaged(why.to_owned())
    })
}

/// The pictures that can be decoded, and what was left out.
pub(super) struct Pictures {
    /// With the place of its entry.
    pub(super) pictures: Vec<(usize, Vec<u8>)>,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) note: Option<String>,
}

/// Decodes the pictures of all parts, which have to be of one size; those that cannot be are left out where `skip` says
/// so.
pub(super) fn decoded(
    dir: &Path,
    parts: &[Vec<Entry>],
    size: Option<[usize; 2]>,
    skip: bool,
) -> Result<Pictures> {
    let below = |path: &Path| path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
    let refused = |message: String| refuse(dir.to_string_lossy(), message);
    let entries: Vec<&Entry> = parts.iter().flatten().collect();
    // The first that can be decoded has the size that all have to have.
    let first = entries.iter().find_map(|entry| read(&entry.path, size).ok().map(|found| (*entry, found)));
    if let Some((entry, (_, height, width))) = &first {
        let count = parts.iter().map(Vec::len).max().unwrap_or(0);
        if (count as u64).saturating_mul(3 * (height * width) as u64) > MAX_CONTENT {
            return Err(refuse(
                entry.path.to_string_lossy(),
                format!(
                    "{count} pictures of {width}x{height} pixels found, expected at most {MAX_CONTENT} bytes of \
                     them; a smaller size can be asked for with DIR@WIDTHxHEIGHT"
                ),
            ));
        }
    }
    let found: Vec<Result<Decoded, Bad>> = entries.par_iter().map(|entry| read(&entry.path, size)).collect();
    let bad: Vec<(&Path, &Bad)> = entries
        .iter()
        .zip(&found)
        .filter_map(|(entry, found)| Some((&*entry.path, found.as_ref().err()?)))
        .collect();
    let mut note = None;
    if !bad.is_empty() {
        let foreign = bad.iter().filter(|(_, bad)| bad.foreign).count();
        let damaged = bad.len() - foreign;
        let mut counts = Vec::new();
        if damaged > 0 {
            counts.push(counted(damaged, "damaged picture"));
        }
        if foreign > 0 {
            let what = if foreign == 1 { "that is no picture" } else { "that are no pictures" };
            counts.push(format!("{} {what}", counted(foreign, "file")));
        }
        let told: Vec<String> =
            bad.iter().map(|(path, bad)| format!("{} ({})", below(path), bad.why)).collect();
        let told = listed(told.iter().map(String::as_str));
        let counts = format!("{} among {}", counts.join(" and "), counted(entries.len(), "file"));
        if !skip {
            let kinds = picture::KINDS;
            let message =
                format!("{counts} found: {told}; --skip-damaged goes on without, expected {kinds} files");
            return Err(refused(message));
        }
        note = Some(format!("went on without {counts}: {told}"));
    }
    let Some((like, (_, height, width))) = first else {
        return Err(refused("no picture found, expected one at least".into()));
    };
    let (mut pictures, mut other) = (Vec::new(), Vec::new());
    for (i, found) in found.into_iter().enumerate() {
        match found {
            Ok((pixels, rows, columns)) if (rows, columns) == (height, width) => pictures.push((i, pixels)),
            Ok((_, rows, columns)) => other.push((i, rows, columns)),
            Err(_) => {}
        }
    }
    if let Some(&(i, rows, columns)) = other.first() {
        let more = match other.len() {
            1 => String::new(),
            count => format!(" and {} more of another size", count - 1),
        };
        return Err(refuse(
            entries[i].path.to_string_lossy(),
            format!(
                "{columns}x{rows} pixels found{more}, expected {width}x{height} as in {}; \
                 DIR@WIDTHxHEIGHT scales all pictures to one size",
                like.path.display()
            ),
        ));
    }
    Ok(Pictures { pictures, height, width, note })
}
