//! What every reader of data shares: the error of one file, the most content, a folder's names, lines of text.

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use crate::error::Error;
#[cfg(not(target_arch = "wasm32"))]
use crate::error::Result;

/// The most content, in bytes, that is made of one file or one part of the data: 2 GiB.
pub(super) const MAX_CONTENT: u64 = 1 << 31;

/// An error of one file.
pub(super) fn refuse(path: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Data { path: path.into(), message: message.into() }
}

/// The names in a folder, sorted.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(dir))?.file_name();
        // A name that is not UTF-8 could not be found again under what it is shown as.
        let name = name.into_string().map_err(|name| {
            refuse(dir.join(&name).to_string_lossy(), "a name that is not UTF-8 found, expected UTF-8")
        })?;
        names.push(name);
    }
    names.sort();
    Ok(names)
}

/// What follows the last dot of a name, lower case.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn extension(name: &str) -> String {
    Path::new(name).extension().map_or(String::new(), |end| end.to_string_lossy().to_lowercase())
}

/// Reads a small text file of at most 1 MiB, if it is there: its lines, without blank ones at the end.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read_lines(path: &Path) -> Result<Option<Vec<String>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let name = path.to_string_lossy();
    let bytes = crate::files::read(path)?;
    if bytes.len() > 1 << 20 {
        return Err(refuse(name, format!("{} bytes found, expected at most {}", bytes.len(), 1 << 20)));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| refuse(name, "bytes that are not UTF-8 found, expected text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(Some(text.trim_end().lines().map(|line| line.trim().to_owned()).collect()))
}
