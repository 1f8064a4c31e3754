//! How the program fails: one line, and an exit code that says what kind of thing it was.

use std::fmt;

use lenet::Error;

/// Exit codes.
pub mod code {
    pub const OTHER: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const DATA: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const NOT_FINITE: u8 = 5;
    pub const INTERRUPTED: u8 = 130;
}

/// Why the program ends early.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What went wrong.
    pub message: String,
    /// What is to be shown before: the rows of a table of all that differs.
    pub rows: Vec<Vec<String>>,
}

/// What a command gives; the code is 0 unless it was interrupted.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), rows: Vec::new() }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(code::USAGE, message)
    }

    pub fn data(message: impl Into<String>) -> Failure {
        Failure::new(code::DATA, message)
    }

    pub fn device(message: impl Into<String>) -> Failure {
        Failure::new(code::DEVICE, message)
    }

    /// An error of reading a data, picture or weights file.
    pub fn reading(error: Error) -> Failure {
        Failure { code: code::DATA, ..Failure::from(error) }
    }

    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::new(code::OTHER, format!("{}: {error}", path.display()))
    }
}

/// Differences of weights, one a row.
fn differences(problems: &[String]) -> Vec<Vec<String>> {
    let mut rows = vec![["tensor", "found", "expected"].map(String::from).to_vec()];
    for problem in problems {
        let (tensor, what) = problem.split_once(": ").unwrap_or((problem, ""));
        let (found, expected) = what.split_once(", expected ").unwrap_or((what, ""));
        rows.push([tensor, found, expected].map(String::from).to_vec());
    }
    rows
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match error {
            Error::Data { .. } | Error::Weights { .. } => code::DATA,
            Error::Network(_) | Error::Settings(_) => code::USAGE,
            Error::Limit { .. } | Error::Device(_) | Error::DeviceLost(_) => code::DEVICE,
            Error::NotFinite { .. } => code::NOT_FINITE,
            _ => code::OTHER,
        };
        match error {
            Error::Weights { path, problems } if problems.len() > 1 => {
                let more = problems.len() - 1;
                let message = format!("{path}: {}; and {more} more, see above", problems[0]);
                Failure { rows: differences(&problems), ..Failure::new(code, message) }
            }
            other => Failure::new(code, other.to_string()),
        }
    }
}

impl From<clap::Error> for Failure {
    /// What clap has to say, as the rest of the program says it.
    fn from(error: clap::Error) -> Failure {
        use clap::error::ErrorKind;
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Failure::new(0, error.render().to_string())
            }
            _ => {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                let end = text.find("\n\nUsage:").or_else(|| text.find("\n\nFor more")).unwrap_or(text.len());
                Failure::usage(&text[..end])
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the cause had to say; a name keeps its spaces.
        let lines: Vec<&str> = self.message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        f.write_str(&lines.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::usage("a\n  | b\n").to_string(), "a | b");
        assert_eq!(Failure::usage("two  spaces\r\n\n stay").to_string(), "two  spaces stay");
    }
}
