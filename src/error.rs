//! The one error type of the crate: each variant says what its reader can mend.

use std::path::PathBuf;

/// What can go wrong, by what the reader can mend.
///
/// Nothing that a caller or a file gives makes the library panic; it arrives here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file: look at its path, its rights, the disk.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A data or image file is not what it claims to be: look at the file.
    #[error("{path}: {message}")]
    Data {
        /// The file, or the name of data that is not in a file.
        path: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A weights file does not fit: every difference is listed.
    #[error("{path}: {}", .problems.join("; "))]
    Weights {
        /// The file.
        path: String,
        /// All differences, one a line, each with its tensor's name.
        problems: Vec<String>,
    },
    /// The network contradicts itself: look at the named layer.
    #[error("network: {0}")]
    Network(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Settings(String),
    /// The work does not fit the device: take a smaller batch, a smaller network or less data.
    #[error("{what} needs {needed}, the device allows {allowed}")]
    Limit {
        /// What does not fit.
        what: String,
        /// How much it needs, in the unit of `allowed`.
        needed: u64,
        /// How much the device allows.
        allowed: u64,
    },
    /// No adapter meets the request, or the device refused a command.
    #[error("device: {0}")]
    Device(String),
    /// The device went away (driver reset, unplugged, destroyed): make a new one and resume.
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The loss, a gradient, or what becomes of one overflowed: lower the learning rate.
    #[error("step {step}: {what} is not finite; a lower learning rate may help")]
    NotFinite {
        /// The optimizer step, counted from 1.
        step: u64,
        /// What was not, with the tensor's name.
        what: String,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Ties an operating-system error to the file it concerns.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }
}

/// Which of the names that there are was probably meant, as the end of a sentence; nothing where none is near.
pub(crate) fn meant(name: &str, known: &[&str]) -> String {
    let name = name.to_lowercase();
    let near = |known: &&&str| strsim::jaro_winkler(&name, &known.to_lowercase());
    let best = known.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
    match best {
        Some(best) if near(&best) > 0.85 => format!("; did you mean {best}?"),
        _ => String::new(),
    }
}
