//! What a training run leaves on the disk: its folder, and the files in it.
//!
//! ```
//! use lenet::model::{About, Record, run::{self, Folder}};
//!
//! # fn main() -> lenet::Result<()> {
//! # let place = tempfile::tempdir().map_err(|e| lenet::Error::Settings(e.to_string()))?;
//! # let runs = place.path().join("runs");
//! let mut folder = Folder::dated(&runs, 1_767_225_599)?;
//! assert_eq!(folder.path(), runs.join("2025-12-31-235959"));
//! folder.settings(&Record::default())?;
//! folder.note(&serde_json::json!({ "event": "epoch", "step": 938, "accuracy": 0.99 }))?;
//! // As long as it lives nobody else gets in.
//! assert!(Folder::open(folder.path()).is_err());
//! # Ok(())
//! # }
//! ```

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::checkpoint::{self, Best, Notes};
use super::record::{self, Record};
use super::{About, safetensors, tensors};
use crate::error::{Error, Result};
use crate::files;
use crate::plan::Plan;
use crate::train::Snapshot;

/// The weights.
pub const MODEL: &str = "model.safetensors";
/// All that a resumed run needs.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// What repeats the run: `lenet train --settings`.
pub const SETTINGS: &str = record::FILE;
/// One JSON line an epoch, and one for every 50 steps. Who writes the run has it locked.
pub const HISTORY: &str = "history.jsonl";

/// Which pictures were kept apart, where any were drawn.
pub const HELD_OUT: &str = "held_out.json";

/// Pictures that a run did not train on because they were drawn, not because they are another part of the data.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeldOut {
    /// The numbers of those of the training part that its epochs were evaluated on, from 0 in the data's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Vec<usize>>,
    /// The files or rows of the test part, where the data has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
}

/// The file that a path means: itself, or the first of `names` in a run's folder.
///
/// # Errors
/// [`Error::Data`] when a folder has none of them.
pub fn file(path: &Path, names: &[&str]) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    names.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| Error::Data {
        path: path.display().to_string(),
        message: format!("there is no {} in it", names.join(" or ")),
    })
}

/// A run's folder, which nobody else writes to as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    history: fs::File,
}

impl Folder {
    /// Whether something lies there already, so that a new run must not use it.
    pub fn taken(path: &Path) -> bool {
        match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => path.exists(),
        }
    }

    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// [`Error::Settings`] when it is [`taken`](Folder::taken), [`Error::Io`] when it cannot be made or another
    /// process has just made it.
    pub fn create(path: &Path) -> Result<Folder> {
        let refuse = || Error::Settings(format!("{} exists and is not empty", path.display()));
        if Folder::taken(path) {
            return Err(refuse());
        }
        fs::create_dir_all(path).map_err(Error::io(path))?;
        let folder = Folder::open(path)?;
        // Another run may have come and gone since.
        let files = fs::read_dir(path).map_err(Error::io(path))?.count();
        let begun = folder.history.metadata().map_err(Error::io(path))?.len() > 0;
        if files > 1 || begun { Err(refuse()) } else { Ok(folder) }
    }

    /// Makes the folder `YYYY-MM-DD-HHMMSS` in `runs`, with a number behind it where that exists; `now` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be made.
    pub fn dated(runs: &Path, now: u64) -> Result<Folder> {
        fs::create_dir_all(runs).map_err(Error::io(runs))?;
        let name = stamp(now);
        for number in 1.. {
            let path = runs.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
            match fs::create_dir(&path) {
                Ok(()) => return Folder::open(&path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(&path)(error)),
            }
        }
        Err(Error::Settings(format!("there is no free name in {}", runs.display())))
    }

    /// Goes on in the folder of a run.
    ///
    /// # Errors
    /// [`Error::Io`] when another process is writing to it.
    pub fn open(path: &Path) -> Result<Folder> {
        let history = files::lock(&path.join(HISTORY))?;
        // What a process that was killed left half written.
        files::sweep(path);
        Ok(Folder { path: path.to_path_buf(), history })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes out of the history what it says of steps after `step`: they never happened. Gives the lines that stay.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn cut(&mut self, step: u64) -> Result<Vec<Value>> {
        let file = self.path.join(HISTORY);
        let mut old = Vec::new();
        self.history.rewind().and_then(|()| self.history.read_to_end(&mut old)).map_err(Error::io(&file))?;
        let (mut lines, mut kept) = (Vec::new(), Vec::with_capacity(old.len()));
        for text in old.split(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Value>(text) else { continue };
            if line["step"].as_u64().is_some_and(|at| at <= step) {
                kept.extend_from_slice(text);
                kept.push(b'\n');
                lines.push(line);
            }
        }
        let mut shorten = || {
            // Lines only move up over what goes: stopped halfway, the file still has each that stays.
            if !old.starts_with(&kept) {
                self.history.rewind()?;
                self.history.write_all(&kept)?;
            }
            self.history.set_len(kept.len() as u64)
        };
        shorten().map_err(Error::io(&file))?;
        Ok(lines)
    }

    /// Appends a line to the history.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note(&mut self, line: &Value) -> Result<()> {
        let mut line = line.clone();
        record::shorten(&mut line);
        let text = format!("{line}\n");
        let end = self.history.seek(SeekFrom::End(0));
        let file = self.path.join(HISTORY);
        end.and_then(|_| self.history.write_all(text.as_bytes())).map_err(Error::io(&file))
    }

    /// Writes `settings.toml`.
    ///
    /// # Errors
    /// As [`Record::text`] and [`files::write_atomically`].
    pub fn settings(&self, record: &Record) -> Result<()> {
        self.write(SETTINGS, record.text()?.as_bytes())
    }

    /// Writes `held_out.json`, if anything was.
    ///
    /// # Errors
    /// As [`files::write_atomically`].
    pub fn held_out(&self, what: &HeldOut) -> Result<()> {
        if *what == HeldOut::default() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(what).map_err(|error| Error::Settings(error.to_string()))?;
        self.write(HELD_OUT, &text)
    }

    /// Writes the weights after `step` steps, flat as the plan has them.
    ///
    /// # Errors
    /// As [`model::encode`](super::encode) and [`files::write_atomically`].
    pub fn model(
        &self,
        plan: &Plan,
        about: &About,
        step: u64,
        accuracy: Option<f64>,
        flat: &[f32],
    ) -> Result<()> {
        let mut metadata = about.metadata(&plan.network);
        metadata.insert("step".into(), step.to_string());
        if let Some(accuracy) = accuracy {
            metadata.insert("accuracy".into(), accuracy.to_string());
        }
        self.write(MODEL, &safetensors::encode(&tensors(plan, "", flat)?, &metadata)?)
    }

    /// Writes all that a resumed run needs.
    ///
    /// # Errors
    /// As [`checkpoint::encode`] and [`files::write_atomically`].
    pub fn checkpoint(
        &self,
        plan: &Plan,
        about: &About,
        notes: &Notes,
        snapshot: &Snapshot,
        best: Option<&Best>,
    ) -> Result<()> {
        self.write(CHECKPOINT, &checkpoint::encode(plan, about, notes, snapshot, best)?)
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        files::write_atomically(&self.path.join(file), bytes)
    }
}

/// Seconds since 1970 as a date and time in UTC, fit for a file's name: `2026-11-24-024853`.
pub fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days counted from 1 March of the year 0, when leap days come last (Howard Hinnant's algorithm).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}-{hours:02}{minutes:02}{seconds:02}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seconds_are_dates() {
        assert_eq!(stamp(0), "1970-01-01-000000");
        assert_eq!(stamp(951_827_696), "2000-02-29-123456");
        assert_eq!(stamp(1_709_251_199), "2024-02-29-235959");
        assert_eq!(stamp(1_709_251_200), "2024-03-01-000000");
        assert_eq!(stamp(1_767_225_599), "2025-12-31-235959");
        assert_eq!(stamp(4_107_542_400), "2100-03-01-000000");
    }

    #[test]
    fn a_folder_has_one_writer() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/run");
        assert!(!Folder::taken(&path));
        let folder = Folder::create(&path).unwrap();
        let error = Folder::open(&path).unwrap_err().to_string();
        assert!(error.contains("history.jsonl: another process is writing to it"), "{error}");
        assert!(Folder::taken(&path) && matches!(Folder::create(&path), Err(Error::Settings(_))));
        drop(folder);
        Folder::open(&path).unwrap();
        // Who has lost the race for a new folder does not go on in the winner's.
        assert!(matches!(Folder::create(&path), Err(Error::Settings(_))));
        let dates = [0, 1].map(|_| Folder::dated(place.path(), 0).unwrap());
        let names = dates.each_ref().map(|folder| folder.path().strip_prefix(place.path()).unwrap());
        assert_eq!(names, ["1970-01-01-000000", "1970-01-01-000000-2"].map(Path::new));
    }

    #[test]
    fn the_history_is_cut_where_the_run_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let history = || fs::read_to_string(place.path().join(HISTORY)).unwrap();
        let line = |step: u64| json!({ "step": step, "loss": 0.1 + 0.2 });
        let mut folder = Folder::create(place.path()).unwrap();
        (1..=4).for_each(|step| folder.note(&line(step)).unwrap());
        let whole = history();
        assert_eq!(folder.cut(9).unwrap(), [1, 2, 3, 4].map(line));
        assert_eq!(history(), whole);
        assert_eq!(folder.cut(3).unwrap(), [1, 2, 3].map(line));
        folder.note(&line(7)).unwrap();
        let kept = [1, 2, 3, 7].map(|step| format!("{}\n", line(step))).concat();
        assert_eq!(history(), kept);
        drop(folder);
        // What is no line of a history goes, wherever it is; a last line that was cut short, too.
        let odd = kept.replacen('\n', "\n\u{7}nothing\n[]\n", 1) + "{\"step\": 7, \"lo";
        fs::write(place.path().join(HISTORY), odd).unwrap();
        let mut folder = Folder::open(place.path()).unwrap();
        assert_eq!(folder.cut(7).unwrap(), [1, 2, 3, 7].map(line));
        assert_eq!(history(), kept);
    }

    #[test]
    fn a_path_means_a_file() {
        let place = tempfile::tempdir().unwrap();
        let named = |names: &[&str]| file(place.path(), names).map_err(|error| error.to_string());
        let missing = format!("{}: there is no {MODEL} or {CHECKPOINT} in it", place.path().display());
        assert_eq!(named(&[MODEL, CHECKPOINT]), Err(missing));
        fs::write(place.path().join(CHECKPOINT), "").unwrap();
        assert_eq!(named(&[MODEL, CHECKPOINT]), Ok(place.path().join(CHECKPOINT)));
        assert_eq!(file(Path::new("none"), &[MODEL]).unwrap(), Path::new("none"));
    }
}
