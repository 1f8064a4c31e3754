//! What a folder holds, or the folders in it.

use std::path::{Path, PathBuf};

use super::near::refused;
use super::{Reading, near};
use crate::data::formats::{cifar, folder, idx, npy, table, text};
use crate::data::input::{list, refuse};
use crate::data::names::{Side, is_left_behind, listed, side};
use crate::data::split::Split;
use crate::error::Result;

/// How many folders down data is searched for.
const DEPTH: usize = 2;

/// The most folders that are looked at on the way.
const LOOKED_AT: usize = 256;

/// What a folder holds.
enum Format {
    /// What the names of its sets begin with.
    Idx(Vec<String>),
    Cifar,
    Npy,
    Table,
    OneTable(String),
    Text,
    Pictures,
}

/// Tells by the names in a folder what it holds; `few` says whether the least is enough to be taken for data.
fn format_of(dir: &Path, few: bool) -> Result<Option<Format>> {
    let files = list(dir)?;
    let sets = idx::sets(dir, &files)?.0;
    if !sets.is_empty() {
        return Ok(Some(Format::Idx(sets)));
    }
    if cifar::content(&files).0 {
        return Ok(Some(Format::Cifar));
    }
    let pictures = folder::layout(dir, few)?;
    let arrays = npy::content(&files).0;
    // Of an archive beside pictures it is not said that it is the data.
    if arrays.is_some_and(|found| pictures.is_none() || !matches!(found, npy::Content::Archive(_))) {
        return Ok(Some(Format::Npy));
    }
    // Tables beside them say what the pictures are called.
    if let Some(folder::Layout::Parts { .. }) = pictures {
        return Ok(Some(Format::Pictures));
    }
    if let Some(file) = table::part(&files, Side::Train)
        && !(pictures.is_some() && table::names_pictures(&dir.join(file))?)
    {
        return Ok(Some(Format::Table));
    }
    if text::part(&files, Side::Train).is_some() {
        return Ok(Some(Format::Text));
    }
    if pictures.is_some() {
        return Ok(Some(Format::Pictures));
    }
    let tables: Vec<&String> = near::tables(&files).collect();
    Ok(match tables[..] {
        [only] if few && table::part(&files, Side::Test).is_none() => Some(Format::OneTable(only.clone())),
        _ => None,
    })
}

/// The folders in a folder that are not left behind by systems.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut names = list(dir)?;
    names.retain(|name| !is_left_behind(name, true));
    Ok(names.into_iter().map(|name| dir.join(name)).filter(|path| path.is_dir()).collect())
}

/// The folders below a folder, those of each depth.
pub(super) fn below(dir: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let (mut levels, mut left) = (vec![vec![dir.to_owned()]], LOOKED_AT);
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for folder in levels.last().into_iter().flatten() {
            let mut found = folders(folder)?;
            found.truncate(left);
            left -= found.len();
            next.extend(found);
        }
        levels.push(next);
    }
    Ok(levels)
}

/// What to call the data of a path.
pub(super) fn called(path: &Path) -> String {
    // torchvision keeps its files in `FashionMNIST/raw`.
    let path =
        path.parent().filter(|outer| path.ends_with("raw") && outer.file_name().is_some()).unwrap_or(path);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Loads what a folder holds, or the only one of the folders in it that holds data; `size` is that of pictures.
pub(super) fn load(dir: &Path, size: Option<[usize; 2]>, reading: Reading<'_>) -> Result<Split> {
    if let Some(format) = format_of(dir, false)? {
        return load_format(&format, dir, size, reading);
    }
    for level in &below(dir)?[1..] {
        let mut found = Vec::new();
        // A part alone is not the data.
        let is_part = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            side(&name).is_some()
        };
        for folder in level.iter().filter(|path| !is_part(path)) {
            found.extend(format_of(folder, false)?.map(|format| (folder, format)));
        }
        match &found[..] {
            [] => {}
            [(folder, format)] => {
                let mut split = load_format(format, folder, size, reading)?;
                split.notes.insert(0, format!("the data is in {}", folder.display()));
                return Ok(split);
            }
            several => {
                let names: Vec<_> = several.iter().map(|(folder, _)| folder.to_string_lossy()).collect();
                let names = listed(names.iter().map(AsRef::as_ref));
                return Err(refuse(
                    dir.to_string_lossy(),
                    format!("several sets of data found: {names}; name one"),
                ));
            }
        }
    }
    match format_of(dir, true)? {
        Some(format) => load_format(&format, dir, size, reading),
        None => Err(refused(dir)?),
    }
}

fn load_format(format: &Format, dir: &Path, size: Option<[usize; 2]>, reading: Reading<'_>) -> Result<Split> {
    let name = &called(dir);
    if size.is_some() && !matches!(format, Format::Pictures) {
        return Err(refuse(
            dir.to_string_lossy(),
            "a size belongs to a folder of pictures, and this is none",
        ));
    }
    match format {
        Format::Idx(sets) => match &sets[..] {
            [set] => idx::load(dir, set, name),
            several => {
                let names = several.iter().map(|set| if set.is_empty() { "(no name)" } else { set });
                let last = several.last().map_or("", String::as_str);
                let message = format!(
                    "several sets of IDX files found: {}; name one, as in {}",
                    listed(names),
                    dir.join(last).display()
                );
                Err(refuse(dir.to_string_lossy(), message))
            }
        },
        Format::Cifar => cifar::load(dir, name),
        Format::Npy => npy::load(dir, name),
        Format::Table => table::load(dir, name, reading.label),
        Format::OneTable(file) => table::load_file(&dir.join(file), name, reading.label),
        Format::Text => text::load(dir, name),
        Format::Pictures => folder::load(dir, name, size, reading.skip_damaged),
    }
}
