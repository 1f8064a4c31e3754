//! All that is printed: results to stdout, talk to stderr, and how numbers, tables and names look.

mod progress;

use std::fmt;
use std::io::Write;
use std::path::Path;

use lenet::kernels::Launch;
use lenet::model::record;

use super::failure::{Failure, Outcome, code};

pub use progress::{Log, Progress};

/// Writes a result to stdout. A reader that has gone away, as `head` does, is no error.
pub fn emit(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(code::OTHER, format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a value as one line of JSON to stdout, its numbers as short as they are.
pub fn emit_json(value: &serde_json::Value) -> Outcome {
    let mut value = value.clone();
    record::shorten(&mut value);
    emit(&format!("{value}\n"))
}

/// Says something on stderr, if anyone listens.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A count with its thousands apart.
pub fn thousands(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns of text: the first to the left, the others to the right; a line under the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        if i == 0 {
            text += &"─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
            text.push('\n');
        }
    }
    text
}

/// A number with a unit and three digits or so.
pub fn unit(number: u64, unit: &str) -> String {
    let space = if unit.is_empty() { "" } else { " " };
    let mut value = number as f64;
    for prefix in ["", "k", "M", "G", "T"] {
        if value < 999.95 || prefix == "T" {
            return if prefix.is_empty() {
                format!("{number}{space}{unit}")
            } else {
                format!("{value:.1} {prefix}{unit}")
            };
        }
        value /= 1000.0;
    }
    number.to_string()
}

/// A time with three digits.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// Three digits or so.
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A launch's name.
pub fn launch_name(launch: &Launch) -> String {
    format!("{}:{}", launch.shader.name, launch.entry.name)
}

/// A path as a shell of this system takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if cfg!(windows) { quoted_on_windows(text) } else { quoted_on_unix(text) }
}

fn plain(text: &str, also: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || "/._-+,:@".contains(c) || also.contains(c))
}

fn quoted_on_unix(text: String) -> String {
    if plain(&text, "%") { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// For `cmd` and PowerShell alike, as far as there is such a form.
fn quoted_on_windows(text: String) -> String {
    if plain(&text, "\\") {
        text
    } else if text.contains(['$', '`']) {
        // PowerShell reads these inside double quotes, too.
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_the_shell() {
        let unix = ["runs/a-1", "my  runs", "it's", r"a\b", ""].map(|text| quoted_on_unix(text.into()));
        assert_eq!(unix, ["runs/a-1", "'my  runs'", r"'it'\''s'", r"'a\b'", "''"]);
        let windows =
            [r"C:\runs\a", r"C:\my runs", "it's", "$a b's"].map(|text| quoted_on_windows(text.into()));
        assert_eq!(windows, [r"C:\runs\a", "\"C:\\my runs\"", "\"it's\"", "'$a b''s'"]);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["7", "999", "1000", "61706", "1234567"].map(thousands).join(" "),
            "7 999 1,000 61,706 1,234,567"
        );
    }
}
