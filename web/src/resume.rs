//! A run as bytes, to go on from: the file that `lenet train` writes as `checkpoint.safetensors`, so that the program
//! resumes what the page has begun on all pictures, and the page what the program has.

use std::collections::BTreeMap;

use lenet::checkpoint::{self, Tensors};
use lenet::data::Dataset;
use lenet::model::{self, About};
use lenet::plan::Plan;
use lenet::train::{Position, Settings, Snapshot};
use lenet::{Error, Network, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// What errors call the bytes.
const NAME: &str = "the checkpoint";

/// What a checkpoint says besides its numbers.
pub struct Notes {
    /// What `--device` takes: `cpu`, or `auto` for a GPU, which the program may not have.
    pub device: &'static str,
    /// The [`fingerprint`] of the pictures.
    pub data: String,
    /// What the data says of the network.
    pub about: About,
    /// The last evaluation.
    pub accuracy: Option<f64>,
}

/// The settings in a checkpoint, as far as the page has to know them.
#[derive(Deserialize)]
struct Record {
    training: Settings,
    validation: Option<f64>,
    per_class: Option<usize>,
}

/// The bytes of a run as it was at `snapshot`.
///
/// # Errors
/// [`Error::NotFinite`] when a weight or a moment is not finite.
pub fn encode(plan: &Plan, training: &Settings, snapshot: &Snapshot, notes: &Notes) -> Result<Vec<u8>> {
    let step = snapshot.position.step;
    let moments = [&snapshot.moment1, &snapshot.moment2];
    for (what, values) in [("weights", &snapshot.parameters), ("moment", moments[0]), ("moment", moments[1])]
    {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { step, what });
        }
    }
    let mut metadata = notes.about.metadata(&plan.network);
    metadata.insert("position".into(), json!(snapshot.position).to_string());
    metadata.insert("settings".into(), record(&plan.network, training, notes).to_string());
    metadata.insert("data".into(), notes.data.clone());
    if let Some(accuracy) = notes.accuracy {
        metadata.insert("accuracy".into(), accuracy.to_string());
    }
    let mut tensors = model::tensors(plan, "", &snapshot.parameters);
    for (prefix, moment) in model::PREFIXES.iter().zip(moments) {
        if !moment.is_empty() {
            tensors.extend(model::tensors(plan, prefix, moment));
        }
    }
    checkpoint::encode(&tensors, &metadata)
}

/// The run's settings, as `lenet train` keeps them: a preset goes by its name.
fn record(network: &Network, training: &Settings, notes: &Notes) -> Value {
    let mut record = json!({ "data": notes.about.trained_on, "device": notes.device, "training": training });
    if is_preset(network) {
        record["net"] = json!(network.name);
    } else {
        record["network"] = json!(network);
    }
    record
}

fn is_preset(network: &Network) -> bool {
    Network::preset(&network.name).is_ok_and(|preset| preset == *network)
}

/// A checkpoint that was read.
pub struct Checkpoint {
    /// The network.
    pub network: Network,
    /// The last evaluation.
    pub accuracy: Option<f64>,
    record: Record,
    data: String,
    position: Position,
    tensors: Tensors,
}

impl Checkpoint {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Data`] and [`Error::Weights`] as [`checkpoint::decode`], and for a file that is no checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint> {
        let (tensors, metadata) = checkpoint::decode(NAME, bytes)?;
        let text = |key: &str| {
            let said = metadata.get(key).map(String::as_str);
            said.ok_or_else(|| damaged(format!("it says nothing about its {key}")))
        };
        let wrong = |error: serde_json::Error| damaged(error.to_string());
        Ok(Checkpoint {
            network: Network::parse(text("network")?).map_err(|error| damaged(error.to_string()))?,
            accuracy: metadata.get("accuracy").and_then(|text| text.parse().ok()),
            record: serde_json::from_str(text("settings")?).map_err(wrong)?,
            data: text("data")?.into(),
            position: serde_json::from_str(text("position")?).map_err(wrong)?,
            tensors,
        })
    }

    /// Whether a run with these settings, on pictures of this [`fingerprint`], is the one that was kept.
    ///
    /// # Errors
    /// [`Error::Settings`] for other settings, [`Error::Data`] for other pictures.
    pub fn check(&self, training: &Settings, data: &str) -> Result<()> {
        if self.record.training != *training || !self.on_all() {
            return Err(Error::Settings(format!("{NAME} is of a run with other settings")));
        }
        if self.data != data {
            return Err(damaged("its run began on other pictures, or on another number of them".into()));
        }
        Ok(())
    }

    /// Whether the run trains on all pictures that its fingerprint is of.
    fn on_all(&self) -> bool {
        self.record.validation.is_none() && self.record.per_class.is_none()
    }

    /// The settings that the run goes on with, and the preset's name, unless the network is none; nothing for a run
    /// that holds pictures back.
    pub fn settings(&self) -> Option<(&Settings, Option<&str>)> {
        let preset = is_preset(&self.network).then_some(self.network.name.as_str());
        self.on_all().then_some((&self.record.training, preset))
    }

    /// The state to restore, flat as the plan of the same network has it.
    ///
    /// # Errors
    /// [`Error::Weights`] when the tensors are not those of the network and its optimizer.
    pub fn snapshot(self, plan: &Plan) -> Result<Snapshot> {
        let mut parts: BTreeMap<&str, Tensors> = BTreeMap::new();
        for (name, tensor) in self.tensors {
            let prefix = model::PREFIXES.into_iter().find(|prefix| name.starts_with(prefix));
            parts.entry(prefix.unwrap_or_default()).or_default().insert(name, tensor);
        }
        let mut flat = |prefix: &'static str, wanted: bool| {
            if !wanted && !parts.contains_key(prefix) {
                return Ok(Vec::new());
            }
            let tensors = parts.remove(prefix).unwrap_or_default();
            plan.join(model::take(NAME, tensors, &plan.network, prefix)?.iter().map(Vec::as_slice))
        };
        let [first, second, _] = model::PREFIXES;
        Ok(Snapshot {
            position: self.position,
            parameters: flat("", true)?,
            moment1: flat(first, plan.moment1.len == plan.parameters.len)?,
            moment2: flat(second, plan.moment2.len == plan.parameters.len)?,
        })
    }
}

fn damaged(message: String) -> Error {
    Error::Data { path: NAME.into(), message }
}

/// Whether the bytes are those of a checkpoint, and not of weights alone.
///
/// # Errors
/// As [`checkpoint::decode`].
pub fn is_checkpoint(bytes: &[u8]) -> Result<bool> {
    Ok(checkpoint::decode(NAME, bytes)?.1.contains_key("position"))
}

/// A number that changes when the data does (FNV-1a over words of 8 bytes): the one that `lenet train` writes.
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
