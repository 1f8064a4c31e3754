//! What a training run leaves on the disk: its folder, its files, and how they are read again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use lenet::Error;
use lenet::data::Dataset;
use lenet::files;
use lenet::model::safetensors::{self, Tensors};
use lenet::model::{self, About, Model};
use lenet::network::Network;
use lenet::plan::Plan;
use lenet::session::Metrics;
use lenet::train::{Position, Settings, Snapshot, Trainer};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Failure, Outcome, load_network, toml_problem};

/// The weights.
pub const MODEL: &str = "model.safetensors";
/// All that a resumed run needs.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// What repeats the run: `lenet train --settings`.
pub const SETTINGS: &str = "settings.toml";
/// One JSON line an epoch, and one for every 50 steps.
pub const HISTORY: &str = "history.jsonl";

/// What a run is made of, but for its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The preset's name, unless the whole network follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    /// A data set's name or folder.
    pub data: String,
    /// What `--device` takes.
    pub device: String,
    /// The share of the training data that the epochs are evaluated on, in place of the test data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// How many images of each class are trained on, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
    /// The file of the first weights, if they are not drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// How to train.
    pub training: Settings,
    /// The network, unless it is a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

impl Default for Record {
    fn default() -> Record {
        Record {
            net: Some("lenet5".into()),
            data: "mnist".into(),
            device: super::device::AUTO.into(),
            validation: None,
            per_class: None,
            init: None,
            training: Settings::default(),
            network: None,
        }
    }
}

impl Record {
    /// Reads `settings.toml`.
    pub fn read(path: &Path) -> Outcome<Record> {
        let file = path.display().to_string();
        let text = String::from_utf8(files::read(path)?)
            .map_err(|_| Failure::usage(format!("{file}: not text, expected settings as TOML")))?;
        toml::from_str(&text).map_err(|error| Failure::usage(toml_problem(&file, &text, &error)))
    }

    /// The text of `settings.toml`.
    fn text(&self) -> Outcome<String> {
        let text = toml::to_string(self).map_err(|error| Failure::usage(format!("settings: {error}")))?;
        Ok(format!("# Repeats this run: lenet train --settings {SETTINGS}\n{text}"))
    }

    /// The network.
    pub fn network(&self) -> Outcome<Network> {
        match (&self.network, &self.net) {
            (Some(network), _) => {
                network.place()?;
                Ok(network.clone())
            }
            (None, Some(name)) => load_network(name),
            (None, None) => Err(Failure::usage("the settings name no network")),
        }
    }

    /// Takes another network; a preset by its name.
    pub fn set_network(&mut self, network: Network) {
        if Network::preset(&network.name).is_ok_and(|preset| preset == network) {
            (self.net, self.network) = (Some(network.name), None);
        } else {
            (self.net, self.network) = (None, Some(network));
        }
    }
}

/// Reads a run's folder or a `.safetensors` file. Without `network`, the file has to name its own.
pub fn load_model(path: &Path, network: Option<Network>) -> Outcome<Model> {
    let file = resolve(path, &[MODEL, CHECKPOINT])?;
    let bytes = files::read(&file).map_err(Failure::reading)?;
    Model::decode(&file.display().to_string(), &bytes, network).map_err(|error| match error {
        Error::Settings(what) => Failure::usage(format!("{what}: name it with --net")),
        other => Failure::reading(other),
    })
}

/// Weights to start from: what a file holds of a network's parameters.
pub struct Start {
    /// What it holds and what not, in lines; none where it fits exactly.
    pub told: Vec<String>,
    /// The values of each parameter, in the network's order.
    values: Vec<Option<Vec<f32>>>,
}

impl Start {
    /// Takes what fits by name and shape out of a run's folder or a `.safetensors` file.
    pub fn load(path: &Path, network: &Network) -> Outcome<Start> {
        let file = resolve(path, &[MODEL, CHECKPOINT])?;
        let name = file.display().to_string();
        let bytes = files::read(&file).map_err(Failure::reading)?;
        let (mut tensors, _) = model::weights(&name, &bytes).map_err(Failure::reading)?;
        let parameters = network.parameters()?;
        let expected: Vec<_> =
            parameters.iter().map(|parameter| (parameter.name.clone(), parameter.shape.clone())).collect();
        let problems = match safetensors::check(&name, &tensors, &expected) {
            Err(Error::Weights { problems, .. }) => problems,
            other => other.map(|()| Vec::new()).map_err(Failure::reading)?,
        };
        let values: Vec<_> = expected
            .iter()
            .map(|(name, shape)| Some(tensors.remove(name).filter(|found| found.shape == *shape)?.data))
            .collect();
        let names = |taken: bool| {
            let names = expected.iter().zip(&values).filter(|(_, values)| values.is_some() == taken);
            names.map(|((name, _), _)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        if values.iter().all(Option::is_none) {
            let (net, problems) = (&network.name, problems.join("; "));
            return Err(Failure::data(format!("{name}: nothing in it fits {net}: {problems}")));
        }
        let mut told = Vec::new();
        if !problems.is_empty() {
            told.push(format!("init: took {} from {name}", names(true)));
            let left: Vec<_> = problems
                .iter()
                .filter(|problem| !problem.contains(": missing"))
                .map(String::as_str)
                .collect();
            if !left.is_empty() {
                told.push(format!("init: left {}", left.join("; ")));
            }
        }
        if values.iter().any(Option::is_none) {
            told.push(format!("init: fresh {}", names(false)));
        }
        Ok(Start { told, values })
    }

    /// Puts the values in place of those that a new trainer has drawn.
    pub fn put(&self, trainer: &mut Trainer) -> Outcome {
        let seed = trainer.settings().seed;
        let fresh = trainer.session().plan().network.initial(seed)?;
        let values = self.values.iter().zip(&fresh);
        let values = values.map(|(taken, fresh)| taken.as_ref().unwrap_or(fresh).as_slice());
        Ok(trainer.session().set_parameters(values)?)
    }
}

/// The file that a path means: itself, or the first of `names` in a run's folder.
pub fn resolve(path: &Path, names: &[&str]) -> Outcome<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    names
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Failure::data(format!("{}: there is no {} in it", path.display(), names.join(" or "))))
}

/// The best weights so far of a run that stops early.
#[derive(Debug, Clone)]
pub struct Best {
    /// All parameters, flat.
    pub parameters: Vec<f32>,
    /// Its metrics on the evaluation data.
    pub metrics: Metrics,
}

/// A run as it was saved.
pub struct Saved {
    /// What it is made of.
    pub record: Record,
    /// The folder it lies in.
    pub dir: PathBuf,
    /// The fingerprint of its data.
    pub data: String,
    /// Where it stands.
    pub position: Position,
    /// The last evaluation.
    pub accuracy: Option<f64>,
    best: Option<Metrics>,
    name: String,
    tensors: Tensors,
}

impl Saved {
    /// Reads the checkpoint in a run's folder, or a checkpoint file.
    pub fn load(path: &Path) -> Outcome<Saved> {
        let file = resolve(path, &[CHECKPOINT])?;
        let name = file.display().to_string();
        let bytes = files::read(&file).map_err(Failure::reading)?;
        let (tensors, metadata) = safetensors::decode(&name, &bytes).map_err(Failure::reading)?;
        let text = |key: &str| {
            metadata.get(key).map(String::as_str).ok_or_else(|| {
                Failure::data(format!(
                    "{name}: it says nothing about its {key}; expected a checkpoint of `lenet train`"
                ))
            })
        };
        let damaged = |error: serde_json::Error| Failure::data(format!("{name}: {error}"));
        Ok(Saved {
            position: serde_json::from_str(text("position")?).map_err(damaged)?,
            record: serde_json::from_str(text("settings")?).map_err(damaged)?,
            data: text("data")?.to_string(),
            accuracy: metadata.get("accuracy").and_then(|text| text.parse().ok()),
            best: metadata.get("best").map(|text| serde_json::from_str(text)).transpose().map_err(damaged)?,
            dir: file
                .parent()
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or(Path::new("."))
                .to_path_buf(),
            name,
            tensors,
        })
    }

    /// The state to restore, and the best weights if they are kept, for the plan of the same network.
    pub fn state(self, plan: &Plan) -> Outcome<(Snapshot, Option<Best>)> {
        let Saved { position, best, name, tensors, .. } = self;
        let mut parts: BTreeMap<&str, Tensors> = BTreeMap::new();
        for (tensor, values) in tensors {
            let prefix =
                model::PREFIXES.into_iter().find(|prefix| tensor.starts_with(prefix)).unwrap_or_default();
            parts.entry(prefix).or_default().insert(tensor, values);
        }
        let mut flat = |prefix: &'static str, wanted: bool| {
            if !wanted && !parts.contains_key(prefix) {
                return Ok(Vec::new());
            }
            let tensors = parts.remove(prefix).unwrap_or_default();
            let values = model::take(&name, tensors, &plan.network, prefix).map_err(Failure::reading)?;
            Ok::<_, Failure>(plan.join(values.iter().map(Vec::as_slice))?)
        };
        let used = |range: lenet::kernels::Range| range.len == plan.parameters.len;
        let snapshot = Snapshot {
            position,
            parameters: flat("", true)?,
            moment1: flat("moment1.", used(plan.moment1))?,
            moment2: flat("moment2.", used(plan.moment2))?,
        };
        let best = match best {
            Some(metrics) => Some(Best { parameters: flat("best.", true)?, metrics }),
            None => None,
        };
        Ok((snapshot, best))
    }
}

/// A run's folder.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    history: std::fs::File,
}

impl Folder {
    /// Whether something lies there already, so that a new run must not use it.
    pub fn taken(path: &Path) -> bool {
        match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => path.exists(),
        }
    }

    /// Makes the folder of a new run: `out`, or a dated one.
    pub fn create(out: Option<&Path>) -> Outcome<Folder> {
        let path = match out {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|error| Failure::io(path, &error))?;
                path.to_path_buf()
            }
            None => dated()?,
        };
        Folder::open(path)
    }

    /// Goes on in a folder; what its history says of steps after `step` never happened.
    pub fn resume(path: PathBuf, step: u64) -> Outcome<(Folder, Vec<serde_json::Value>)> {
        let file = path.join(HISTORY);
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<serde_json::Value> = old
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| line["step"].as_u64().is_some_and(|at| at <= step))
            .collect();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        files::write_atomically(&file, text.as_bytes())?;
        let epochs = lines.into_iter().filter(|line| line["event"] == "epoch").collect();
        Ok((Folder::open(path)?, epochs))
    }

    fn open(path: PathBuf) -> Outcome<Folder> {
        let file = path.join(HISTORY);
        let history = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&file)
            .map_err(|error| Failure::io(&file, &error))?;
        Ok(Folder { path, history })
    }

    /// Writes `settings.toml`.
    pub fn settings(&self, record: &Record) -> Outcome {
        files::write_atomically(&self.path.join(SETTINGS), record.text()?.as_bytes())?;
        Ok(())
    }

    /// Appends a line to the history.
    pub fn note(&mut self, line: &serde_json::Value) -> Outcome {
        let file = self.path.join(HISTORY);
        self.history.write_all(format!("{line}\n").as_bytes()).map_err(|error| Failure::io(&file, &error))
    }

    /// Writes the weights, flat as the plan has them.
    pub fn model(
        &self,
        notes: &Notes<'_>,
        plan: &Plan,
        step: u64,
        accuracy: Option<f64>,
        flat: &[f32],
    ) -> Outcome {
        let mut metadata = notes.about.metadata(&plan.network);
        metadata.insert("step".into(), step.to_string());
        if let Some(accuracy) = accuracy {
            metadata.insert("accuracy".into(), accuracy.to_string());
        }
        self.write(MODEL, &model::tensors(plan, "", flat), &metadata)
    }

    /// Writes all that a resumed run needs.
    pub fn checkpoint(
        &self,
        notes: &Notes<'_>,
        plan: &Plan,
        snapshot: &Snapshot,
        best: Option<&Best>,
        accuracy: Option<f64>,
    ) -> Outcome {
        let mut metadata = notes.about.metadata(&plan.network);
        let position = snapshot.position;
        metadata.insert("position".into(), json!(position).to_string());
        metadata.insert("settings".into(), json!(notes.record).to_string());
        metadata.insert("data".into(), notes.fingerprint.into());
        if let Some(accuracy) = accuracy {
            metadata.insert("accuracy".into(), accuracy.to_string());
        }
        let mut tensors = model::tensors(plan, "", &snapshot.parameters);
        for (prefix, moment) in model::PREFIXES.iter().zip([&snapshot.moment1, &snapshot.moment2]) {
            if !moment.is_empty() {
                tensors.extend(model::tensors(plan, prefix, moment));
            }
        }
        if let Some(best) = best {
            metadata.insert("best".into(), json!(best.metrics).to_string());
            tensors.extend(model::tensors(plan, "best.", &best.parameters));
        }
        self.write(CHECKPOINT, &tensors, &metadata)
    }

    fn write(
        &self,
        file: &str,
        tensors: &[(String, Vec<usize>, &[f32])],
        metadata: &BTreeMap<String, String>,
    ) -> Outcome {
        let bytes = safetensors::encode(tensors, metadata)?;
        files::write_atomically(&self.path.join(file), &bytes)?;
        Ok(())
    }
}

/// What the files of a run say besides its numbers.
pub struct Notes<'a> {
    /// What the run is made of.
    pub record: &'a Record,
    /// The fingerprint of its data.
    pub fingerprint: &'a str,
    /// What the data says of the network.
    pub about: &'a About,
}

/// A number that changes when the data does (FNV-1a over words of 8 bytes).
pub fn fingerprint(parts: &[&Dataset]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for bytes in parts.iter().flat_map(|data| [&data.images, &data.labels]) {
        let mut add = |word: u64| {
            hash = (hash ^ word).wrapping_mul(0x100_0000_01b3);
            hash ^= hash >> 32;
        };
        let (whole, rest) = bytes.as_chunks();
        whole.iter().for_each(|&bytes| add(u64::from_le_bytes(bytes)));
        if !rest.is_empty() {
            add(rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)));
        }
        hash = (hash ^ bytes.len() as u64).wrapping_mul(0x100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Makes `runs/YYYY-MM-DD-HHMMSS`, with a number behind it where that exists.
fn dated() -> Outcome<PathBuf> {
    let runs = Path::new("runs");
    std::fs::create_dir_all(runs).map_err(|error| Failure::io(runs, &error))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let name = stamp(now.map_or(0, |since| since.as_secs()));
    for number in 1.. {
        let path = runs.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::io(&path, &error)),
        }
    }
    Err(Failure::usage("there is no free name in runs"))
}

/// Seconds since 1970 as a date and time in UTC, fit for a file's name.
fn stamp(seconds: u64) -> String {
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
    fn settings_make_the_round_trip() {
        let mut record = Record::default();
        record.training.learning_rate = 0.1 + 1e-7;
        record.training.optimizer.weight_decay = f32::MIN_POSITIVE;
        record.training.seed = i64::MAX as u64;
        record.training.schedule = lenet::train::Schedule::Step { epochs: 3, gamma: 0.3 };
        record.validation = Some(0.1);
        record.per_class = Some(50);
        let mut other = Network::preset("lenet5-tanh").unwrap();
        other.input.deviation = 0.3081;
        for network in [other, Network::preset("lenet5-sigmoid").unwrap()] {
            record.set_network(network.clone());
            let text = record.text().unwrap();
            assert_eq!(toml::from_str::<Record>(&text).unwrap(), record, "{text}");
            assert_eq!(record.network().unwrap(), network);
            assert_eq!(serde_json::from_str::<Record>(&json!(record).to_string()).unwrap(), record);
        }
    }

    #[test]
    fn the_fingerprint_tells_data_apart() {
        let data = |images: Vec<u8>| Dataset::new("d", [1, 1, 3], 3, images, vec![0, 1, 2]).unwrap();
        let one = data(vec![1; 9]);
        let mut changed = one.clone();
        changed.images[8] = 2;
        assert_eq!(fingerprint(&[&one]), fingerprint(&[&one.clone()]));
        assert_ne!(fingerprint(&[&one]), fingerprint(&[&changed]));
        assert_ne!(fingerprint(&[&one]), fingerprint(&[&one, &one]));
        // Checkpoints that exist hold it.
        assert_eq!(fingerprint(&[&one]), "6705661d6ad12c09");
    }
}
