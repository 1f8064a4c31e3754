//! A run in bytes that it continues from: weights, the optimizer's moments, where it stands, the best weights so far.
//!
//! Bytes and no paths, so that a page in a browser keeps its run as well as a program with a disk does.
//!
//! ```
//! use lenet::model::{About, checkpoint::{self, Checkpoint, Notes}};
//! use lenet::{Network, backend::Backend, data::Dataset, plan::Plan, session::Session, train::*};
//!
//! # fn main() -> lenet::Result<()> {
//! # let few = Dataset::new("two", [1, 28, 28], 10, vec![7; 2 * 784], vec![3, 4])?;
//! # let settings = Settings { batch: 2, ..Settings::default() };
//! let trainer = || {
//!     let plan = Plan::new(&Network::preset("lenet5")?, &Trainer::options(&settings, &few, &few))?;
//!     let backend = Backend::cpu(&plan.program);
//!     Trainer::new(Session::new(plan, backend), settings.clone(), &few, &few)
//! };
//! let mut first = trainer()?;
//! # first.advance(1)?;
//! # while pollster::block_on(first.event())?.is_some() {}
//! // … some steps later, with nothing in flight:
//! let snapshot = pollster::block_on(first.snapshot())?;
//! let plan = first.session().plan();
//! let bytes = checkpoint::encode(plan, &About::data(&few), &Notes::default(), &snapshot, None)?;
//!
//! // In another process:
//! let mut second = trainer()?;
//! let (state, _) = Checkpoint::decode("the run", &bytes)?.state(second.session().plan())?;
//! second.restore(&state)?;
//! # assert_eq!(second.position(), first.position());
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;

use serde_json::json;

use super::safetensors::{self, Tensors};
use super::{About, Record, tensors};
use crate::data::{Dataset, NO_BYTES, hashed};
use crate::error::{Error, Result};
use crate::kernels::Range;
use crate::network::Network;
use crate::plan::Plan;
use crate::session::Metrics;
use crate::train::{Position, Snapshot};

/// What the names of the first moments begin with; the parameter's name follows.
const MOMENT1: &str = "moment1.";
/// The same of the second moments.
const MOMENT2: &str = "moment2.";
/// The same of the best weights.
const BEST: &str = "best.";

/// The metadata's key for where the run stands, which no file of weights alone has.
const POSITION: &str = "position";

/// The best weights so far of a run that stops early.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// All parameters, flat.
    pub parameters: Vec<f32>,
    /// Its metrics on the evaluation data.
    pub metrics: Metrics,
}

/// What a checkpoint says besides its numbers. Who writes it decides what the texts mean; `lenet train --resume`
/// expects what [`Notes::new`] makes of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Notes {
    /// What the run is made of.
    pub settings: String,
    /// What tells its data from other data, such as a [`fingerprint`].
    pub data: String,
    /// The accuracy of the last evaluation, if there was one.
    pub accuracy: Option<f64>,
}

impl Notes {
    /// The notes of a run that `record` repeats, on data of this [`fingerprint`].
    pub fn new(record: &Record, data: &str, accuracy: Option<f64>) -> Notes {
        Notes { settings: json!(record).to_string(), data: data.into(), accuracy }
    }
}

/// Whether a range of the plan holds something for every parameter.
fn used(plan: &Plan, moment: Range) -> bool {
    moment.len == plan.parameters.len
}

/// The bytes of a `.safetensors` file with all that a resumed run needs. As a file of weights it serves, too.
///
/// # Errors
/// [`Error::Weights`] when a value is not finite, [`Error::Settings`] when the snapshot is of another plan.
pub fn encode(
    plan: &Plan,
    about: &About,
    notes: &Notes,
    snapshot: &Snapshot,
    best: Option<&Best>,
) -> Result<Vec<u8>> {
    let mut metadata = about.metadata(&plan.network);
    metadata.insert(POSITION.into(), json!(snapshot.position).to_string());
    metadata.insert("settings".into(), notes.settings.clone());
    metadata.insert("data".into(), notes.data.clone());
    if let Some(accuracy) = notes.accuracy {
        metadata.insert("accuracy".into(), accuracy.to_string());
    }
    let mut all = tensors(plan, "", &snapshot.parameters)?;
    for (prefix, moment) in [(MOMENT1, &snapshot.moment1), (MOMENT2, &snapshot.moment2)] {
        if !moment.is_empty() {
            all.extend(tensors(plan, prefix, moment)?);
        }
    }
    if let Some(best) = best {
        metadata.insert("best".into(), json!(best.metrics).to_string());
        all.extend(tensors(plan, BEST, &best.parameters)?);
    }
    safetensors::encode(&all, &metadata)
}

/// Takes out of a checkpoint's tensors what is no weight; a file of weights alone stays as it is.
pub(super) fn keep_weights(tensors: &mut Tensors, metadata: &BTreeMap<String, String>) {
    if metadata.contains_key(POSITION) {
        let other = |name: &str| [MOMENT1, MOMENT2, BEST].iter().any(|prefix| name.starts_with(prefix));
        tensors.retain(|name, _| !other(name));
    }
}

/// A run as it was saved, before its plan is known.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Where the run stands.
    pub position: Position,
    /// What else the file says.
    pub notes: Notes,
    /// The metrics of the best weights, where they are kept.
    best: Option<Metrics>,
    /// The network's text.
    network: Option<String>,
    /// What errors call the file.
    name: String,
    tensors: Tensors,
}

impl Checkpoint {
    /// Reads what [`encode`] gave. `name` is what errors call it.
    ///
    /// # Errors
    /// As [`safetensors::decode`], and [`Error::Data`] when it is no checkpoint.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Checkpoint> {
        let (tensors, metadata) = safetensors::decode(name, bytes)?;
        let text = |key: &str| {
            metadata.get(key).ok_or_else(|| Error::Data {
                path: name.into(),
                message: format!("it says nothing about its {key}; expected a checkpoint of `lenet train`"),
            })
        };
        let position = parsed(name, text(POSITION)?)?;
        let notes = Notes {
            settings: text("settings")?.clone(),
            data: text("data")?.clone(),
            accuracy: metadata.get("accuracy").and_then(|text| text.parse().ok()),
        };
        let best = metadata.get("best").map(|text| parsed(name, text)).transpose()?;
        let network = metadata.get("network").cloned();
        Ok(Checkpoint { position, notes, best, network, name: name.into(), tensors })
    }

    /// What the run is made of, where its notes are those of [`Notes::new`].
    ///
    /// # Errors
    /// [`Error::Data`] when they are not.
    pub fn record(&self) -> Result<Record> {
        parsed(&self.name, &self.notes.settings)
    }

    /// The network that the run trains.
    ///
    /// # Errors
    /// [`Error::Data`] when the file does not say it, or not in the network's text form.
    pub fn network(&self) -> Result<Network> {
        let refuse = |message: String| Error::Data { path: self.name.clone(), message };
        let text = self.network.as_ref().ok_or_else(|| refuse("it does not say of which network".into()))?;
        Network::parse(text).map_err(|error| refuse(error.to_string()))
    }

    /// The state that [`Trainer::restore`](crate::train::Trainer::restore) takes, and the best weights if they are
    /// kept, for a plan of the same network and optimizer.
    ///
    /// # Errors
    /// [`Error::Weights`] with every difference from the names and shapes that the plan expects.
    pub fn state(self, plan: &Plan) -> Result<(Snapshot, Option<Best>)> {
        let Checkpoint { position, best, name, mut tensors, .. } = self;
        let parts = [
            ("", true),
            (MOMENT1, used(plan, plan.moment1)),
            (MOMENT2, used(plan, plan.moment2)),
            (BEST, best.is_some()),
        ];
        let named = |prefix: &str| {
            let full = |parameter: &str| format!("{prefix}{parameter}");
            let own = plan.tensors.iter().map(|tensor| &tensor.parameter);
            own.map(|parameter| (full(&parameter.name), parameter.shape.clone())).collect::<Vec<_>>()
        };
        let held = || parts.into_iter().filter(|(_, held)| *held);
        let expected: Vec<_> = held().flat_map(|(prefix, _)| named(prefix)).collect();
        safetensors::check(&name, &tensors, &expected)?;
        let flat = |(prefix, held): (&str, bool)| {
            if !held {
                return Ok(Vec::new());
            }
            let values: Vec<_> = named(prefix).iter().filter_map(|(name, _)| tensors.remove(name)).collect();
            plan.join(values.iter().map(|tensor| tensor.data.as_slice()))
        };
        let [parameters, moment1, moment2, kept] = parts.map(flat);
        let snapshot = Snapshot { position, parameters: parameters?, moment1: moment1?, moment2: moment2? };
        let parameters = kept?;
        Ok((snapshot, best.map(|metrics| Best { parameters, metrics })))
    }
}

/// JSON out of the metadata of the file `name`.
fn parsed<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::Data { path: name.into(), message: error.to_string() })
}

/// A number that changes when the data does (FNV-1a over words of 8 bytes).
///
/// # Errors
/// [`Error::Io`] when pixels that stay in a file cannot be read.
pub fn fingerprint(parts: &[&Dataset]) -> Result<String> {
    let mut hash = NO_BYTES;
    let ended = |hash: u64, len: usize| (hash ^ len as u64).wrapping_mul(0x100_0000_01b3);
    for data in parts {
        // Pieces are whole words.
        for piece in data.images.pieces(1 << 24) {
            hash = hashed(hash, &piece?);
        }
        hash = ended(hash, data.images.len());
        hash = ended(hashed(hash, &data.labels), data.labels.len());
        // What is called by its number has no name that could be another.
        if data.class_names.iter().enumerate().any(|(class, name)| *name != class.to_string()) {
            let names = data.class_names.join("\n");
            hash = ended(hashed(hash, names.as_bytes()), names.len());
        }
    }
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::optimizer::{Optimizer, Rule};
    use crate::plan::Options;

    fn plan(rule: Rule) -> Plan {
        let network = Network::preset("lenet5").unwrap();
        Plan::new(&network, &Options { batch: 1, optimizer: Optimizer::new(rule), ..Options::default() })
            .unwrap()
    }

    /// Values that the seed decides, as a plan lays them out.
    fn flat(plan: &Plan, seed: u64) -> Vec<f32> {
        let values = plan.network.initial(seed).unwrap();
        plan.join(values.iter().map(Vec::as_slice)).unwrap()
    }

    fn snapshot(plan: &Plan, moments: usize) -> Snapshot {
        let moment = |number: usize| if number > moments { Vec::new() } else { flat(plan, number as u64) };
        let epoch = Metrics { loss_sum: 0.1, correct: 3, count: 4 };
        let position = Position { step: 7, epoch, best: 0.3f64.to_bits(), stale: 2 };
        Snapshot { position, parameters: flat(plan, 9), moment1: moment(1), moment2: moment(2) }
    }

    #[test]
    fn a_run_comes_back_as_it_was_saved() {
        for (rule, moments) in [(Rule::Sgd, 0), (Rule::Momentum, 1), (Rule::Adam, 2)] {
            let plan = plan(rule);
            let snapshot = snapshot(&plan, moments);
            let metrics = Metrics { loss_sum: 1.0 / 3.0, correct: 8, count: 9 };
            let kept = Best { parameters: flat(&plan, 5), metrics };
            for best in [None, Some(&kept)] {
                let notes = Notes::new(&Record::default(), "abc", best.map(|_| 0.1 + 0.2));
                let bytes = encode(&plan, &About::default(), &notes, &snapshot, best).unwrap();
                let read = Checkpoint::decode("it", &bytes).unwrap();
                assert_eq!((&read.notes, read.position), (&notes, snapshot.position));
                assert_eq!(read.record().unwrap(), Record::default());
                assert_eq!(read.network().unwrap(), plan.network);
                assert_eq!(read.state(&plan).unwrap(), (snapshot.clone(), best.cloned()));
                // Who wants the weights only finds them.
                let weights =
                    crate::model::weights("it", &bytes, &plan.network, Default::default()).unwrap().tensors;
                assert_eq!(weights.len(), plan.tensors.len());
            }
        }
    }

    #[test]
    fn everything_that_another_plan_expects_is_listed_at_once() {
        let of = plan(Rule::Momentum);
        let bytes = encode(&of, &About::default(), &Notes::default(), &snapshot(&of, 1), None).unwrap();
        let network = Network::preset("lenet5").unwrap().fitted([1, 28, 28], 3).unwrap().0;
        let options = Options { batch: 1, optimizer: Optimizer::new(Rule::Adam), ..Options::default() };
        let other = Plan::new(&network, &options).unwrap();
        let error = Checkpoint::decode("it", &bytes).unwrap().state(&other).unwrap_err();
        let Error::Weights { path, problems } = error else { panic!("{error}") };
        assert_eq!((path.as_str(), problems.len()), ("it", 4 + 10));
        assert_eq!(problems[0], "fc3.weight: shape [10, 84], expected [3, 84]");
        assert_eq!(problems[3], "moment1.fc3.bias: shape [10], expected [3]");
        assert_eq!(problems[13], "moment2.fc3.bias: missing, expected shape [3]");
        // And what the plan has no use for.
        let error = Checkpoint::decode("it", &bytes).unwrap().state(&plan(Rule::Sgd)).unwrap_err();
        let Error::Weights { problems, .. } = error else { panic!("{error}") };
        assert_eq!(problems.len(), 10);
        assert!(problems.contains(&"moment1.fc3.bias: not expected, has shape [10]".into()), "{problems:?}");
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let plan = plan(Rule::Sgd);
        let refused = |bytes: &[u8]| {
            let error = Checkpoint::decode("it", bytes).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error}");
            error.to_string()
        };
        let weights = crate::model::encode(&plan, &flat(&plan, 1), &About::default()).unwrap();
        assert_eq!(
            refused(&weights),
            "it: it says nothing about its position; expected a checkpoint of `lenet train`"
        );
        let metadata = |position: &str| {
            let pairs = [("position", position), ("settings", "?"), ("data", "")];
            pairs.map(|(key, value)| (key.to_string(), value.to_string())).into()
        };
        assert!(refused(&safetensors::encode(&[], &metadata("{")).unwrap()).starts_with("it: EOF"));
        let position = json!(Position::default()).to_string();
        let odd = Checkpoint::decode("it", &safetensors::encode(&[], &metadata(&position)).unwrap()).unwrap();
        assert!(odd.record().is_err() && odd.network().is_err());
        // A snapshot of another plan has no names for its values.
        let short = Snapshot { parameters: vec![1.0; 3], ..snapshot(&plan, 0) };
        let error = encode(&plan, &About::default(), &Notes::default(), &short, None).unwrap_err();
        assert!(matches!(error, Error::Settings(_)), "{error}");
    }

    #[test]
    fn the_fingerprint_tells_data_apart() {
        let data = |images: Vec<u8>| Dataset::new("d", [1, 1, 3], 3, images, vec![0, 1, 2]).unwrap();
        let one = data(vec![1; 9]);
        let mut changed = one.clone();
        let mut pixels = changed.images.to_vec();
        pixels[8] = 2;
        changed.images = pixels.into();
        assert_eq!(fingerprint(&[&one]).unwrap(), fingerprint(&[&one.clone()]).unwrap());
        assert_ne!(fingerprint(&[&one]).unwrap(), fingerprint(&[&changed]).unwrap());
        assert_ne!(fingerprint(&[&one]).unwrap(), fingerprint(&[&one, &one]).unwrap());
        // Checkpoints that exist hold it.
        assert_eq!(fingerprint(&[&one]).unwrap(), "6705661d6ad12c09");
    }
}
