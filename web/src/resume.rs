//! A run as bytes, to go on from: the file that `lenet train` writes as `checkpoint.safetensors`, so that the program
//! resumes what the page has begun on all pictures, and the page what the program has.

use lenet::data::Dataset;
use lenet::model::{About, Record, checkpoint};
use lenet::plan::Plan;
use lenet::train::{Settings, Snapshot};
use lenet::{Error, Network, Result};

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

/// The bytes of a run as it was at `snapshot`.
///
/// # Errors
/// [`Error::NotFinite`] when a weight or a moment is not finite.
pub fn encode(plan: &Plan, training: &Settings, snapshot: &Snapshot, notes: &Notes) -> Result<Vec<u8>> {
    let step = snapshot.position.step;
    let moments = [&snapshot.moment1, &snapshot.moment2];
    for (what, values) in
        [("a weight", &snapshot.parameters), ("a moment", moments[0]), ("a moment", moments[1])]
    {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { step, what: what.into() });
        }
    }
    // As `lenet train` keeps them: a preset goes by its name.
    let mut record = Record {
        data: notes.about.trained_on.clone().unwrap_or_default(),
        device: notes.device.into(),
        training: training.clone(),
        ..Record::default()
    };
    record.set_network(plan.network.clone());
    let said = checkpoint::Notes::new(&record, &notes.data, notes.accuracy);
    checkpoint::encode(plan, &notes.about, &said, snapshot, None)
}

/// A checkpoint that was read.
pub struct Checkpoint {
    /// The network.
    pub network: Network,
    /// The last evaluation.
    pub accuracy: Option<f64>,
    record: Record,
    read: checkpoint::Checkpoint,
}

impl Checkpoint {
    /// Reads one.
    ///
    /// # Errors
    /// As [`checkpoint::Checkpoint::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint> {
        let read = checkpoint::Checkpoint::decode(NAME, bytes)?;
        let (network, record, accuracy) = (read.network()?, read.record()?, read.notes.accuracy);
        Ok(Checkpoint { network, accuracy, record, read })
    }

    /// Whether a run with these settings, on pictures of this fingerprint, is the one that was kept.
    ///
    /// # Errors
    /// [`Error::Settings`] for other settings, [`Error::Data`] for other pictures.
    pub fn check(&self, training: &Settings, data: &str) -> Result<()> {
        if self.record.training != *training || !self.on_all() {
            return Err(Error::Settings(format!("{NAME} is of a run with other settings")));
        }
        if self.read.notes.data != data {
            let message = "its run began on other pictures, or on another number of them";
            return Err(Error::Data { path: NAME.into(), message: message.into() });
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
        let is_preset = Network::preset(&self.network.name).is_ok_and(|preset| preset == self.network);
        let preset = is_preset.then_some(self.network.name.as_str());
        self.on_all().then_some((&self.record.training, preset))
    }

    /// The state to restore, flat as the plan of the same network has it.
    ///
    /// # Errors
    /// As [`checkpoint::Checkpoint::state`].
    pub fn snapshot(self, plan: &Plan) -> Result<Snapshot> {
        self.read.state(plan).map(|(snapshot, _)| snapshot)
    }
}

/// Whether the bytes are those of a checkpoint, and not of weights alone.
///
/// # Errors
/// As [`lenet::model::safetensors::decode`].
pub fn is_checkpoint(bytes: &[u8]) -> Result<bool> {
    Ok(lenet::model::safetensors::decode(NAME, bytes)?.1.contains_key("position"))
}

/// The number by which a checkpoint knows its pictures again: the one that `lenet train` writes.
///
/// # Errors
/// As [`checkpoint::fingerprint`].
pub fn fingerprint(parts: &[&Dataset]) -> Result<String> {
    checkpoint::fingerprint(parts)
}
