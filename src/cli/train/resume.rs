//! A run that was saved, and what it means to continue it: as it began.

use std::path::{Path, PathBuf};

use lenet::files;
use lenet::model::Record;
use lenet::model::checkpoint::Checkpoint;
use lenet::model::run;
use lenet::network::Input;
use lenet::train::Schedule;
use serde_json::{Value, json};

use crate::cli::args::Training;
use crate::cli::failure::{Failure, Outcome};

/// A run as it was saved.
pub struct Saved {
    /// What it is made of.
    record: Record,
    /// The folder it lies in.
    pub dir: PathBuf,
    /// Where it stands.
    pub checkpoint: Checkpoint,
}

impl Saved {
    /// Reads the checkpoint in a run's folder, or a checkpoint file.
    pub fn load(path: &Path) -> Outcome<Saved> {
        let read = || {
            let file = run::file(path, &[run::CHECKPOINT])?;
            let checkpoint = Checkpoint::decode(&file.display().to_string(), &files::read(&file)?)?;
            let dir = files::parent(&file);
            Ok(Saved { record: checkpoint.record()?, dir: dir.to_path_buf(), checkpoint })
        };
        read().map_err(Failure::reading)
    }

    /// What the run goes on with, changed by what is given on the command line.
    pub fn continued(&self, training: &Training) -> Outcome<Record> {
        let mut record = self.record.clone();
        training.apply(&mut record)?;
        // A preset that is named again stands for what it was fitted to.
        let before = self.record.network()?;
        if record.net.is_some() && self.record.net.is_none() {
            let Input { channels, height, width, .. } = before.input;
            let classes = before.place()?.last().map_or(0, |last| last.output.len());
            record.set_network(record.network()?.fitted([channels, height, width], classes)?.0);
        }
        same_run(&self.record, &record)?;
        Ok(record)
    }

    /// Whether a folder is the one it lies in.
    pub fn lies_in(&self, folder: &Path) -> bool {
        folder.canonicalize().ok() == self.dir.canonicalize().ok()
    }
}

/// Refuses to continue a run as another one.
fn same_run(before: &Record, now: &Record) -> Outcome {
    let depends = matches!(before.training.schedule, Schedule::Cosine | Schedule::OneCycle);
    let length = (before.training.epochs, before.training.steps) != (now.training.epochs, now.training.steps);
    if length && depends {
        return Err(Failure::usage(
            "the run cannot be made longer or shorter: its schedule depends on the number of steps \
             (constant, step and exponential do not)",
        ));
    }
    if now.training.early_stop.is_some() && before.training.steps != now.training.steps {
        return Err(Failure::usage("steps cannot be changed with early-stop: the evaluations would differ"));
    }
    let mut changed = Vec::new();
    if before.network()? != now.network()? {
        changed.push("net".into());
    }
    let flat = |record: &Record| {
        let mut training = record.training.clone();
        (training.epochs, training.steps) = (before.training.epochs, before.training.steps);
        let mut values = Vec::new();
        leaves("", &json!(training), &mut values);
        leaves("", &json!({ "validation": record.validation, "per_class": record.per_class }), &mut values);
        values
    };
    let (old, new) = (flat(before), flat(now));
    for (name, value) in &new {
        let was = old.iter().find(|(other, _)| other == name).map_or("not given", |(_, was)| was);
        if was != value {
            changed.push(format!("{name} was {was}, now {value}"));
        }
    }
    changed.extend(
        old.iter()
            .filter(|(name, _)| new.iter().all(|(other, _)| other != name))
            .map(|(name, was)| format!("{name} was {was}, now not given")),
    );
    if changed.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "a resumed run continues as it began, but these settings differ: {}; \
         a new run can start from its weights with --init",
        changed.join("; ")
    )))
}

/// All values of a JSON object, by the names that lead to them.
fn leaves(path: &str, value: &Value, into: &mut Vec<(String, String)>) {
    let Value::Object(map) = value else {
        into.push((path.replace("learning_rate", "lr").replace('_', "-"), value.to_string()));
        return;
    };
    for (key, value) in map {
        let path = if path.is_empty() { key.clone() } else { format!("{path}-{key}") };
        leaves(&path, value, into);
    }
}
