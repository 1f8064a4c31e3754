//! What several commands take on the command line, and how it becomes settings.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lenet::data;
use lenet::kernels::augment::Augment;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::model::Record;
use lenet::model::record::load_network;
use lenet::plan::Form;
use lenet::train::Schedule;

use super::failure::{Failure, Outcome};
use super::model::{Order, normalise};
use super::presets::Preset;

/// The headings of a command's help.
pub const DATA: &str = "Data and network";
pub const TRAINING: &str = "Training";
pub const RUN: &str = "The run";

/// What a run is made of, but for how long it is and how its learning rate moves.
#[derive(Clone, clap::Args)]
pub struct Basis {
    /// The network: a preset (`lenet summary --list` shows them), fitted to the data, or a TOML file [default: lenet5]
    #[arg(long, help_heading = DATA, value_name = "NAME|FILE")]
    net: Option<String>,
    /// The data: mnist, mnist-windows, mnist-scenes, waves, languages, a folder (IDX, CIFAR, NumPy, CSV, text, or
    /// pictures in a folder for each class; DIR@32x32 scales those), or a .npz, .npy, .csv or .tsv file [default: mnist]
    #[arg(long, help_heading = DATA, value_name = "NAME|DIR|FILE")]
    data: Option<String>,
    /// The column of a table that holds the labels, by its name or its number from 1, where that cannot be told
    #[arg(long, help_heading = DATA, value_name = "COLUMN")]
    label: Option<String>,
    /// Go on without the pictures of a folder that are damaged or none, and say how many they are
    #[arg(long, help_heading = DATA)]
    skip_damaged: bool,
    /// Images in a batch [default: 64]
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    batch: Option<usize>,
    /// The update rule, with PyTorch's definitions and defaults [default: adam]
    #[arg(long, help_heading = TRAINING, value_name = "RULE", value_parser = rules())]
    optimizer: Option<Rule>,
    /// Momentum of the rules momentum, nesterov and rmsprop
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    momentum: Option<f32>,
    /// L2 penalty; with adamw a decay of the weights themselves. Frozen ones have none
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    weight_decay: Option<f32>,
    /// L1 penalty; frozen weights have none
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    l1: Option<f32>,
    /// Clip the gradient: shorten it to this norm where it is longer
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    clip: Option<f32>,
    /// Label smoothing, 0 to below 1
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    smoothing: Option<f32>,
    /// Distort the training pictures at random: light, strong, or
    /// shift=2,rotate=10,scale=0.1,shear=10,elastic=4:5,noise=0.05,cutout=8,flip
    #[arg(long, help_heading = TRAINING, value_name = "SPEC")]
    augment: Option<Augment>,
    /// How a step is cut into launches: layers, or plain, the two of shaders/plain_lenet5.wgsl, which is written to be
    /// read [default: layers]
    #[arg(long, help_heading = TRAINING, value_name = "FORM", value_parser = forms())]
    form: Option<Form>,
    /// The seed of the first weights and of every epoch's order
    #[arg(long, help_heading = TRAINING, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// Take the images in the order of the file
    #[arg(long, help_heading = TRAINING)]
    pub no_shuffle: bool,
    /// Train on the first N images of each class only (after --validation has taken its share)
    #[arg(long, help_heading = DATA, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_class: Option<u32>,
    /// Start from these weights, as far as their names and shapes fit: a run's folder or a .safetensors file
    #[arg(long, help_heading = DATA, value_name = "FILE")]
    init: Option<PathBuf>,
    /// In which order the axes of those weights are: as PyTorch has them, or Keras and TensorFlow
    #[arg(long, help_heading = DATA, value_name = "ORDER", default_value = "pytorch")]
    pub layout: Order,
    /// Take this off the pixels (0 to 1) before the first layer, as Normalize(0.1307, 0.3081) does [default: 0]
    #[arg(long, help_heading = DATA, value_name = "X")]
    mean: Option<f32>,
    /// Divide them by this then [default: 1]
    #[arg(long, help_heading = DATA, value_name = "X")]
    deviation: Option<f32>,
    /// Do not train the parameters of these names, where * stands for anything: conv*, *.bias
    #[arg(long, help_heading = DATA, value_name = "PATTERN", value_delimiter = ',')]
    freeze: Vec<String>,
    /// auto, cpu, gpu, or a name or number from `lenet info` [default: auto]
    #[arg(long, help_heading = RUN, value_name = "DEVICE")]
    device: Option<String>,
    /// Refuse what else is only told: data whose figures cannot be trusted, a run that has learnt nothing
    #[arg(long, help_heading = RUN)]
    pub strict: bool,
}

/// A whole run, but for where it goes.
#[derive(Clone, clap::Args)]
pub struct Training {
    /// Begin with named settings: default, fast (99 % on MNIST soonest), best (the highest accuracy) or lenet5-1998;
    /// what else is given here goes before them
    #[arg(long, help_heading = RUN, value_name = "NAME", conflicts_with = "settings")]
    preset: Option<Preset>,
    #[command(flatten)]
    pub basis: Basis,
    /// Passes over the training data [default: 6]
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after this many optimizer steps
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    steps: Option<u64>,
    /// The peak of the learning rate [default: 0.002]
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    lr: Option<f32>,
    /// How the learning rate moves [default: cosine]
    #[arg(long, help_heading = TRAINING, value_name = "SCHEDULE")]
    schedule: Option<Kind>,
    /// Epochs between two drops of the step schedule [default: 2]
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    schedule_epochs: Option<usize>,
    /// The factor of a drop (step, default 0.5) or of an epoch (exponential, default 0.9)
    #[arg(long, help_heading = TRAINING, value_name = "X")]
    gamma: Option<f32>,
    /// Steps over which the learning rate first rises from 0
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    warmup: Option<u64>,
    /// Draw this share of each class's training images by the seed, evaluate the epochs on them, and keep the test
    /// data for the end
    #[arg(long, help_heading = DATA, value_name = "F")]
    validation: Option<f64>,
    /// Stop after this many epochs without a lower evaluation loss, and keep the best weights
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    early_stop: Option<usize>,
    /// Repeat a run: its settings.toml; what else is given here goes before it
    #[arg(long, help_heading = RUN, value_name = "FILE")]
    settings: Option<PathBuf>,
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

/// Reads the name of one of `all`.
fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let of = move |given: String| all.into_iter().find(|one| name(*one) == given).ok_or("unknown name");
    PossibleValuesParser::new(all.map(name)).try_map(of)
}

/// Reads an update rule's name.
pub fn rules() -> impl TypedValueParser<Value = Rule> {
    named(Rule::ALL, Rule::name)
}

/// Reads a form's name.
pub fn forms() -> impl TypedValueParser<Value = Form> {
    named(Form::ALL, Form::name)
}

impl Basis {
    /// Changes `record` by what is given on the command line; the settings are not checked.
    pub fn apply(&self, record: &mut Record) -> Outcome {
        if let Some(spec) = &self.net {
            record.set_network(load_network(spec)?);
        }
        if self.mean.is_some() || self.deviation.is_some() {
            let mut network = record.network()?;
            normalise(&mut network, self.mean, self.deviation)?;
            record.set_network(network);
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
        if let Some(label) = &self.label {
            record.label = Some(label.clone());
        }
        record.skip_damaged |= self.skip_damaged;
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
        set(&mut training.form, self.form);
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
