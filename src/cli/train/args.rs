//! What `lenet train`, `lr-find` and `sweep` take on the command line, and how it becomes settings.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lenet::data::{self, Dataset, Split};
use lenet::kernels::augment::Augment;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::network::Network;
use lenet::train::Schedule;
use serde_json::{Value, json};

use super::super::presets::Preset;
use super::super::run::Record;
use super::super::{Failure, Outcome, load_network};

/// What a run is made of, but for how long it is and how its learning rate moves.
#[derive(Clone, clap::Args)]
pub struct Basis {
    /// The network: a preset (`lenet summary --list` shows them), fitted to the data, or a TOML file [default: lenet5]
    #[arg(long, value_name = "NAME|FILE")]
    net: Option<String>,
    /// The data: mnist, mnist-windows, mnist-scenes, waves, languages, a folder (IDX, CIFAR, NumPy, CSV, text, or
    /// pictures in a folder for each class; DIR@32x32 scales those), or a .npz, .csv or .tsv file [default: mnist]
    #[arg(long, value_name = "NAME|DIR|FILE")]
    data: Option<String>,
    /// Images in a batch [default: 64]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// The update rule, with PyTorch's definitions and defaults [default: adam]
    #[arg(long, value_name = "RULE", value_parser = rules())]
    optimizer: Option<Rule>,
    /// Momentum of the rules momentum, nesterov and rmsprop
    #[arg(long, value_name = "X")]
    momentum: Option<f32>,
    /// L2 penalty; with adamw a decay of the weights themselves. Frozen ones have none
    #[arg(long, value_name = "X")]
    weight_decay: Option<f32>,
    /// L1 penalty; frozen weights have none
    #[arg(long, value_name = "X")]
    l1: Option<f32>,
    /// Clip the gradient: shorten it to this norm where it is longer
    #[arg(long, value_name = "X")]
    clip: Option<f32>,
    /// Label smoothing, 0 to below 1
    #[arg(long, value_name = "X")]
    smoothing: Option<f32>,
    /// Distort the training pictures at random: light, strong, or
    /// shift=2,rotate=10,scale=0.1,shear=10,elastic=4:5,noise=0.05,cutout=8,flip
    #[arg(long, value_name = "SPEC")]
    augment: Option<Augment>,
    /// The seed of the first weights and of every epoch's order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// Take the images in the order of the file
    #[arg(long)]
    pub no_shuffle: bool,
    /// Train on the first N images of each class only (after --validation has taken its share)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_class: Option<u32>,
    /// Start from these weights, as far as their names and shapes fit: a run's folder or a .safetensors file
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Do not train the parameters of these names, where * stands for anything: conv*, *.bias
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    freeze: Vec<String>,
    /// auto, cpu, gpu, or a name or number from `lenet info` [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

/// A whole run, but for where it goes.
#[derive(Clone, clap::Args)]
pub struct Training {
    /// Begin with named settings: default, fast (99 % on MNIST soonest), best (the highest accuracy) or lenet5-1998;
    /// what else is given here goes before them
    #[arg(long, value_name = "NAME", conflicts_with = "settings")]
    preset: Option<Preset>,
    #[command(flatten)]
    pub basis: Basis,
    /// Passes over the training data [default: 6]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after this many optimizer steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// The peak of the learning rate [default: 0.002]
    #[arg(long, value_name = "X")]
    lr: Option<f32>,
    /// How the learning rate moves [default: cosine]
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<Kind>,
    /// Epochs between two drops of the step schedule [default: 2]
    #[arg(long, value_name = "N")]
    schedule_epochs: Option<usize>,
    /// The factor of a drop (step, default 0.5) or of an epoch (exponential, default 0.9)
    #[arg(long, value_name = "X")]
    gamma: Option<f32>,
    /// Steps over which the learning rate first rises from 0
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    /// Set this last share of the training data aside, evaluate the epochs on it, and keep the test data for the end
    #[arg(long, value_name = "F")]
    validation: Option<f64>,
    /// Stop after this many epochs without a lower evaluation loss, and keep the best weights
    #[arg(long, value_name = "N")]
    early_stop: Option<usize>,
    /// Repeat a run: its settings.toml; what else is given here goes before it
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Arguments of `lenet train`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub training: Training,
    /// Continue a run: its folder or its checkpoint
    #[arg(long, value_name = "DIR", conflicts_with_all = ["init", "settings", "preset"])]
    pub resume: Option<PathBuf>,
    /// The folder of the run, new or empty [default: runs/YYYY-MM-DD-HHMMSS]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to report: a progress bar and a table, or JSON lines on stdout
    #[arg(long, value_name = "FORM", default_value = "human")]
    pub log: Log,
}

/// A schedule's name.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    Constant,
    Step,
    Exponential,
    Cosine,
    OneCycle,
    #[value(name = "lecun-1998")]
    Lecun1998,
}

/// How to report.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Log {
    Human,
    Json,
}

/// Reads an update rule's name.
pub fn rules() -> impl TypedValueParser<Value = Rule> {
    PossibleValuesParser::new(Rule::ALL.map(Rule::name))
        .try_map(|name| Rule::ALL.into_iter().find(|rule| rule.name() == name).ok_or("unknown rule"))
}

impl Basis {
    /// Changes `record` by what is given on the command line; the settings are not checked.
    pub fn apply(&self, record: &mut Record) -> Outcome {
        if let Some(spec) = &self.net {
            record.set_network(load_network(spec)?);
        }
        if let Some(spec) = &self.data {
            record.data.clone_from(spec);
        }
        if !data::NAMES.contains(&record.data.as_str())
            && let Ok(path) = std::path::absolute(&record.data)
            && let Some(text) = path.to_str()
        {
            // The run is to be repeated from any folder.
            record.data = text.into();
        }
        if let Some(device) = &self.device {
            record.device.clone_from(device);
        }
        if let Some(init) = &self.init {
            record.init = Some(std::path::absolute(init).unwrap_or_else(|_| init.clone()));
        }
        record.per_class = self.per_class.map(|n| n as usize).or(record.per_class);
        if record.per_class == Some(0) {
            return Err(Failure::usage("per-class is 0, expected at least 1"));
        }
        let training = &mut record.training;
        set(&mut training.batch, self.batch);
        if training.batch == 0 {
            return Err(Failure::usage("batch is 0, expected 1 to 65536"));
        }
        set(&mut training.smoothing, self.smoothing);
        set(&mut training.augment, self.augment);
        set(&mut training.seed, self.seed);
        training.clip = self.clip.or(training.clip);
        if !self.freeze.is_empty() {
            training.freeze.clone_from(&self.freeze);
        }
        training.shuffle &= !self.no_shuffle;
        if let Some(rule) = self.optimizer
            && rule != training.optimizer.rule
        {
            training.optimizer = Optimizer::new(rule);
        }
        let optimizer = &mut training.optimizer;
        set(&mut optimizer.weight_decay, self.weight_decay);
        set(&mut optimizer.l1, self.l1);
        if let Some(momentum) = self.momentum {
            if !matches!(optimizer.rule, Rule::Momentum | Rule::Nesterov | Rule::Rmsprop) {
                return Err(Failure::usage(format!(
                    "momentum means nothing to {}; the rules with momentum are momentum, nesterov and rmsprop",
                    optimizer.rule.name()
                )));
            }
            optimizer.momentum = momentum;
        }
        Ok(())
    }
}

impl Training {
    /// The settings of a new run.
    pub fn record(&self) -> Outcome<Record> {
        let mut record = match &self.settings {
            Some(file) => Record::read(file)?,
            None => self.preset.unwrap_or(Preset::Default).record(),
        };
        self.apply(&mut record)?;
        Ok(record)
    }

    /// Changes `record` by what is given on the command line.
    pub fn apply(&self, record: &mut Record) -> Outcome {
        self.basis.apply(record)?;
        record.validation = self.validation.or(record.validation);
        if let Some(share) = record.validation
            && !(share > 0.0 && share < 1.0)
        {
            return Err(Failure::usage(format!(
                "validation is {share}, expected more than 0 and less than 1"
            )));
        }
        let training = &mut record.training;
        set(&mut training.epochs, self.epochs);
        // A preset may be shorter than its epochs; who says how many wants all of them.
        let preset = if self.preset.is_some() && self.epochs.is_some() { None } else { training.steps };
        training.steps = self.steps.or(preset);
        set(&mut training.learning_rate, self.lr);
        set(&mut training.warmup, self.warmup);
        training.early_stop = self.early_stop.or(training.early_stop);
        training.schedule = self.schedule(training.schedule)?;
        Ok(training.check()?)
    }

    fn schedule(&self, before: Schedule) -> Outcome<Schedule> {
        let mut schedule = match (self.schedule, before) {
            (None, same) => same,
            (Some(Kind::Step), same @ Schedule::Step { .. }) => same,
            (Some(Kind::Exponential), same @ Schedule::Exponential { .. }) => same,
            (Some(Kind::Constant), _) => Schedule::Constant,
            (Some(Kind::Step), _) => Schedule::Step { epochs: 2, gamma: 0.5 },
            (Some(Kind::Exponential), _) => Schedule::Exponential { gamma: 0.9 },
            (Some(Kind::Cosine), _) => Schedule::Cosine,
            (Some(Kind::OneCycle), _) => Schedule::OneCycle,
            (Some(Kind::Lecun1998), _) => Schedule::Lecun1998,
        };
        match &mut schedule {
            Schedule::Step { epochs, gamma } => {
                set(epochs, self.schedule_epochs);
                set(gamma, self.gamma);
            }
            Schedule::Exponential { gamma } if self.schedule_epochs.is_none() => set(gamma, self.gamma),
            _ if self.schedule_epochs.is_some() => {
                return Err(Failure::usage("schedule-epochs belongs to --schedule step"));
            }
            _ if self.gamma.is_some() => {
                return Err(Failure::usage("gamma belongs to --schedule step or exponential"));
            }
            _ => {}
        }
        Ok(schedule)
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// Fits the network to data, if it is a preset: a file means what it says. Tells what was changed.
pub fn fit(record: &mut Record, data: &Dataset) -> Outcome<Option<String>> {
    if !record.net.as_ref().is_some_and(|net| Network::presets().any(|preset| preset == net)) {
        return Ok(None);
    }
    let network = record.network()?;
    let (fitted, changes) = network.fitted([data.channels, data.height, data.width], data.classes)?;
    record.set_network(fitted);
    Ok((!changes.is_empty()).then(|| format!("{} for this data: {}", network.name, changes.join(", "))))
}

/// Divides the data into what a run trains on, what its epochs are evaluated on, and the test data where that is
/// something else.
pub fn divide(record: &Record, split: Split) -> Outcome<(Dataset, Dataset, Option<Dataset>)> {
    let Split { train, test } = split;
    let few = |train: Dataset| match record.per_class {
        Some(n) => train.per_class(n),
        None => train,
    };
    let Some(share) = record.validation else { return Ok((few(train), test, None)) };
    let (train, validation) = train.split(share);
    if train.is_empty() || validation.is_empty() {
        return Err(Failure::usage(format!(
            "validation {share} of {} images leaves nothing to train on or to evaluate",
            train.len() + validation.len()
        )));
    }
    Ok((few(train), validation, Some(test)))
}

/// Refuses to continue a run as another one.
pub fn same_run(before: &Record, now: &Record) -> Outcome {
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
