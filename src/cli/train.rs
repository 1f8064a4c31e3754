//! `lenet train`: settings from the command line, the loop around the library's trainer, and what it reports.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use lenet::Error;
use lenet::augment::Augment;
use lenet::data::{self, Dataset, Encoding, Split};
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::network::Network;
use lenet::train::{Advance, Event, Metrics, Schedule, Trainer};
use pollster::block_on;
use serde_json::{Value, json};

use super::presets::Preset;
use super::run::{About, Best, Folder, Model, Record, Saved, fingerprint};
use super::{Failure, Outcome, code, device, emit, emit_json, eval, load_network, say, table, thousands};

/// A chunk of steps should take this long: short enough to stop soon, long enough to cost nothing.
const CHUNK: Duration = Duration::from_millis(100);

/// Steps whose mean loss makes one line of the history.
const WINDOW: u64 = 50;

/// Accuracies whose time from the program's start a run reports.
const TARGETS: [f64; 2] = [0.98, 0.99];

/// Arguments of `lenet train`.
#[derive(clap::Args)]
pub struct Args {
    /// Begin with named settings: default, or fast (99 % on MNIST soonest); what else is given here goes before them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["settings", "resume"])]
    preset: Option<Preset>,
    /// The network: a preset (lenet5, lenet5-tanh, lenet5-sigmoid) or a TOML file [default: lenet5]
    #[arg(long, value_name = "NAME|FILE")]
    net: Option<String>,
    /// The data: mnist, waves, languages, a folder (IDX, CIFAR, NumPy, CSV, text, or pictures in a folder for each
    /// class; DIR@32x32 scales those), or a .npz, .csv or .tsv file [default: mnist]
    #[arg(long, value_name = "NAME|DIR|FILE")]
    data: Option<String>,
    /// Passes over the training data [default: 6]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after this many optimizer steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Images in a batch [default: 64]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// The update rule, with PyTorch's definitions and defaults [default: adam]
    #[arg(long, value_name = "RULE", value_parser = rules())]
    optimizer: Option<Rule>,
    /// The peak of the learning rate [default: 0.002]
    #[arg(long, value_name = "X")]
    lr: Option<f32>,
    /// Momentum of the rules momentum, nesterov and rmsprop
    #[arg(long, value_name = "X")]
    momentum: Option<f32>,
    /// L2 penalty; with adamw a decay of the weights themselves
    #[arg(long, value_name = "X")]
    weight_decay: Option<f32>,
    /// L1 penalty
    #[arg(long, value_name = "X")]
    l1: Option<f32>,
    /// Label smoothing, 0 to below 1
    #[arg(long, value_name = "X")]
    smoothing: Option<f32>,
    /// Distort the training pictures at random: light, strong, or shift=2,rotate=10,scale=0.1,shear=10,elastic=4:5,noise=0.05,cutout=8,flip
    #[arg(long, value_name = "SPEC")]
    augment: Option<Augment>,
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
    /// The seed of the first weights and of every epoch's order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Take the images in the order of the file
    #[arg(long)]
    no_shuffle: bool,
    /// Start from these weights: a run's folder or a .safetensors file
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Set this last share of the training data aside, evaluate the epochs on it, and keep the test data for the end
    #[arg(long, value_name = "F")]
    validation: Option<f64>,
    /// Train on the first N images of each class only (after --validation has taken its share)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_class: Option<u32>,
    /// Stop after this many epochs without a lower evaluation loss, and keep the best weights
    #[arg(long, value_name = "N")]
    early_stop: Option<usize>,
    /// Continue a run: its folder or its checkpoint
    #[arg(long, value_name = "DIR", conflicts_with_all = ["init", "settings"])]
    resume: Option<PathBuf>,
    /// Repeat a run: its settings.toml; what else is given here goes before it
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The folder of the run, new or empty [default: runs/YYYY-MM-DD-HHMMSS]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// auto, cpu, gpu, or a name or number from `lenet info` [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// How to report: a progress bar and a table, or JSON lines on stdout
    #[arg(long, value_name = "FORM", default_value = "human")]
    log: Log,
}

/// A schedule's name.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    Constant,
    Step,
    Exponential,
    Cosine,
    OneCycle,
}

/// How to report.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Log {
    Human,
    Json,
}

/// Reads an update rule's name.
pub fn rules() -> impl TypedValueParser<Value = Rule> {
    PossibleValuesParser::new(Rule::ALL.map(Rule::name))
        .try_map(|name| Rule::ALL.into_iter().find(|rule| rule.name() == name).ok_or("unknown rule"))
}

impl Args {
    /// Changes `record` by what is given on the command line.
    fn apply(&self, record: &mut Record) -> Outcome {
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
        record.validation = self.validation.or(record.validation);
        if let Some(share) = record.validation
            && !(share > 0.0 && share < 1.0)
        {
            return Err(Failure::usage(format!(
                "validation is {share}, expected more than 0 and less than 1"
            )));
        }
        record.per_class = self.per_class.map(|n| n as usize).or(record.per_class);
        if record.per_class == Some(0) {
            return Err(Failure::usage("per-class is 0, expected at least 1"));
        }
        let training = &mut record.training;
        set(&mut training.epochs, self.epochs);
        // A preset may be shorter than its epochs; who says how many wants all of them.
        let preset = if self.preset.is_some() && self.epochs.is_some() { None } else { training.steps };
        training.steps = self.steps.or(preset);
        set(&mut training.batch, self.batch);
        if training.batch == 0 {
            return Err(Failure::usage("batch is 0, expected 1 to 65536"));
        }
        set(&mut training.learning_rate, self.lr);
        set(&mut training.warmup, self.warmup);
        set(&mut training.smoothing, self.smoothing);
        set(&mut training.augment, self.augment);
        set(&mut training.seed, self.seed);
        training.early_stop = self.early_stop.or(training.early_stop);
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

/// Interrupts that have arrived.
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

fn interrupted() -> bool {
    INTERRUPTS.load(Ordering::Relaxed) > 0
}

fn heed_interrupts() -> Outcome {
    ctrlc::set_handler(|| {
        if INTERRUPTS.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(i32::from(code::INTERRUPTED));
        }
    })
    .map_err(|error| Failure { code: code::OTHER, message: format!("Ctrl-C cannot be heeded: {error}") })
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%\\".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Runs `lenet train`; `start` is when the program began.
pub fn run(args: Args, start: Instant) -> Outcome<u8> {
    heed_interrupts()?;
    let saved = args.resume.as_deref().map(Saved::load).transpose()?;
    let mut record = match (&saved, &args.settings) {
        (Some(saved), _) => saved.record.clone(),
        (None, Some(file)) => Record::read(file)?,
        (None, None) => args.preset.unwrap_or(Preset::Default).record(),
    };
    args.apply(&mut record)?;
    if let Some(saved) = &saved {
        same_run(&saved.record, &record)?;
    }
    let continued = match (&saved, &args.out) {
        (Some(saved), Some(out)) => out.canonicalize().ok() == saved.dir.canonicalize().ok(),
        (saved, None) => saved.is_some(),
        (None, Some(_)) => false,
    };
    if let Some(out) = &args.out
        && !continued
        && Folder::taken(out)
    {
        let out = quoted(out);
        return Err(Failure::usage(format!(
            "{out} exists and is not empty; give another --out, or continue a run in it with --resume {out}"
        )));
    }

    let network = record.network()?;
    // Drivers load while the data is unpacked.
    let (split, chosen) = rayon::join(|| data::load(&record.data), || device::choose(&record.device));
    let Split { train, test } = split.map_err(Failure::reading)?;
    let contents = fingerprint(&[&train, &test]);
    if let Some(saved) = &saved
        && saved.data != contents
    {
        return Err(Failure::data(format!("{}: not the data that the run began with", record.data)));
    }
    let (train, evaluation, test) = match record.validation {
        None => (train, test, None),
        Some(share) => {
            let (train, validation) = train.split(share);
            if train.is_empty() || validation.is_empty() {
                return Err(Failure::usage(format!(
                    "validation {share} of {} images leaves nothing to train on or to evaluate",
                    train.len() + validation.len()
                )));
            }
            (train, validation, Some(test))
        }
    };
    let train = match record.per_class {
        Some(n) => train.per_class(n),
        None => train,
    };
    let init = match (&record.init, &saved) {
        (Some(path), None) => Some(Model::load(path, Some(network.clone()))?),
        _ => None,
    };
    let chosen = chosen?;
    let options = Trainer::options(&record.training, &train, &evaluation);
    let plan = chosen.plan(&network, &options)?;
    say(&chosen.line);
    record.device.clone_from(&chosen.request);
    let session = chosen.session(plan)?;
    let mut trainer = Trainer::new(session, record.training.clone(), &train, &evaluation)?;
    if let Some(init) = &init {
        trainer.session().set_parameters(init.parameters.iter().map(Vec::as_slice))?;
    }

    let (mut best, mut accuracy, mut dir, mut fresh) = (None, None, None, true);
    if let Some(saved) = saved {
        accuracy = saved.accuracy;
        dir = continued.then(|| saved.dir.clone());
        fresh = false;
        let (snapshot, kept) = saved.state(trainer.session().plan())?;
        trainer.restore(&snapshot)?;
        best = kept;
    }
    let (folder, epochs) = match dir {
        Some(dir) => Folder::resume(dir, trainer.position().step)?,
        None => (Folder::create(args.out.as_deref())?, Vec::new()),
    };
    folder.settings(&record)?;
    let mut job = Job {
        network,
        record,
        fingerprint: contents,
        class_names: train.class_names.clone(),
        encoding: train.encoding.clone(),
        eval_images: evaluation.len(),
        train_images: train.len(),
        test,
        chosen,
        report: Report::new(args.log, trainer.total_steps(), trainer.position().step),
        folder,
        epochs,
        best,
        accuracy,
        last: None,
        window: (trainer.position().step + 1, Metrics::default()),
        start,
        whole: trainer.position().step == 0,
        saved: trainer.position().step,
    };
    if fresh || !continued {
        job.save(&mut trainer, false)?;
    }
    // The trainer has its own copies.
    drop((train, evaluation, init));
    job.start(&trainer)?;
    match job.train(&mut trainer) {
        Ok(()) => job.finish(&mut trainer),
        Err(mut failure) => {
            job.report.clear();
            let dir = quoted(&job.folder.path);
            failure.message += &match failure.code {
                code::NOT_FINITE => format!(
                    "; the last good checkpoint, of step {}, is kept: lenet train --init {dir} starts from it",
                    job.saved
                ),
                _ => format!("; what is saved of the run continues with: lenet train --resume {dir}"),
            };
            Err(failure)
        }
    }
}

/// A run under way.
struct Job {
    network: Network,
    record: Record,
    fingerprint: String,
    class_names: Vec<String>,
    encoding: Encoding,
    train_images: usize,
    eval_images: usize,
    /// The test data, where the epochs are evaluated on something else.
    test: Option<Dataset>,
    chosen: device::Chosen,
    folder: Folder,
    report: Report,
    /// The history's line of each epoch.
    epochs: Vec<Value>,
    best: Option<Best>,
    accuracy: Option<f64>,
    /// The last evaluation in this process.
    last: Option<Metrics>,
    /// The first step since the last line of the history, and the metrics since then.
    window: (u64, Metrics),
    /// When the program began.
    start: Instant,
    /// Whether the run began in this process.
    whole: bool,
    /// The step of the last checkpoint.
    saved: u64,
}

impl Job {
    /// What the epochs are evaluated on.
    fn judged_by(&self) -> &'static str {
        if self.test.is_some() { "validation" } else { "test" }
    }

    fn start(&mut self, trainer: &Trainer) -> Outcome {
        let (step, total) = (trainer.position().step, trainer.total_steps());
        let parameters: usize = self.network.parameters()?.iter().map(|parameter| parameter.count()).sum();
        self.report.event(|| {
            json!({
                "event": "start",
                "version": env!("CARGO_PKG_VERSION"),
                "network": self.network.name,
                "parameters": parameters,
                "device": self.chosen.line.trim_start_matches("device: "),
                "data": self.record.data,
                "train_images": self.train_images,
                "evaluation_images": self.eval_images,
                "evaluation": self.judged_by(),
                "settings": self.record.training,
                "step": step,
                "total_steps": total,
                "run": self.folder.path,
            })
        })?;
        let from = if step > 0 { format!(", from step {step}") } else { String::new() };
        self.report.line(&format!(
            "training {} ({} parameters) on {} images of {}, {} steps{from}, into {}",
            self.network.name,
            thousands(parameters),
            thousands(self.train_images),
            self.record.data,
            thousands(total),
            self.folder.path.display()
        ));
        if self.record.training.early_stop.is_some() && self.test.is_none() {
            self.report.line("early stopping watches the test data; --validation 0.1 would keep them apart");
        }
        Ok(())
    }

    /// Runs steps until the run is over or interrupted; then nothing is in flight.
    fn train(&mut self, trainer: &mut Trainer) -> Outcome {
        // Queued chunks: steps, and when they were queued.
        let mut chunks: VecDeque<(usize, Instant)> = VecDeque::new();
        let mut arrived = Instant::now();
        let mut most = 1;
        loop {
            let mut queued = false;
            if trainer.in_flight() < 2 && !interrupted() {
                let now = Instant::now();
                if let Advance::Queued(steps) = trainer.advance(most)? {
                    chunks.push_back((steps, now));
                    queued = true;
                }
            }
            // Waits only when there is nothing else to do.
            let event =
                if queued && trainer.in_flight() < 2 { trainer.poll()? } else { block_on(trainer.event())? };
            match event {
                Some(Event::Steps { first, metrics, learning_rate }) => {
                    let (steps, since) = chunks.pop_front().unwrap_or((metrics.len(), arrived));
                    let took = since.max(arrived).elapsed();
                    arrived = Instant::now();
                    self.steps(trainer, first, &metrics, learning_rate, took)?;
                    let fit = CHUNK.as_secs_f64() / took.as_secs_f64().max(1e-9) * steps as f64;
                    most = (fit as usize).clamp(1, 2 * steps);
                }
                Some(Event::Epoch { epoch, step, train, evaluation, best }) => {
                    self.epoch(trainer, epoch, step, [train, evaluation], best)?;
                    arrived = Instant::now();
                }
                None if queued => {}
                None => return Ok(()),
            }
        }
    }

    fn steps(
        &mut self,
        trainer: &Trainer,
        first: u64,
        metrics: &[Metrics],
        learning_rate: f32,
        took: Duration,
    ) -> Outcome {
        for (step, one) in (first..).zip(metrics) {
            merge(&mut self.window.1, one);
            if step.is_multiple_of(WINDOW) {
                self.note_window(step, learning_rate)?;
            }
        }
        let images: u64 = metrics.iter().map(|one| one.count).sum();
        let speed = self.report.measure(images, took);
        self.report.event(|| {
            json!({
                "event": "steps",
                "first": first,
                "step": first + metrics.len() as u64 - 1,
                "losses": metrics.iter().map(Metrics::loss).collect::<Vec<_>>(),
                "correct": metrics.iter().map(|one| one.correct).collect::<Vec<_>>(),
                "counts": metrics.iter().map(|one| one.count).collect::<Vec<_>>(),
                "learning_rate": learning_rate,
                "images_per_second": speed.round(),
            })
        })?;
        self.report.progress(trainer, self.record.training.batch, self.last.map(|last| last.accuracy()));
        Ok(())
    }

    fn note_window(&mut self, step: u64, learning_rate: f32) -> Outcome {
        let (first, metrics) = std::mem::replace(&mut self.window, (step + 1, Metrics::default()));
        if metrics.count == 0 {
            return Ok(());
        }
        self.folder.note(&json!({
            "event": "steps",
            "first": first,
            "step": step,
            "loss": metrics.loss(),
            "accuracy": metrics.accuracy(),
            "learning_rate": learning_rate,
        }))
    }

    fn epoch(
        &mut self,
        trainer: &mut Trainer,
        epoch: usize,
        step: u64,
        [train, evaluation]: [Metrics; 2],
        best: bool,
    ) -> Outcome {
        let (seconds, speed) = self.report.lap();
        let line = json!({
            "event": "epoch",
            "epoch": epoch,
            "step": step,
            "train_loss": train.loss(),
            "train_accuracy": train.accuracy(),
            "evaluation": self.judged_by(),
            "loss": evaluation.loss(),
            "accuracy": evaluation.accuracy(),
            "best": best,
            "learning_rate": self.record.training.rate(step.saturating_sub(1), self.train_images),
            "seconds": seconds,
            "since_start": self.start.elapsed().as_secs_f64(),
            "images_per_second": speed.round(),
        });
        self.report.event(|| line.clone())?;
        self.report.epoch(&format!(
            "epoch {epoch}/{}  loss {:.4}  accuracy {:.2} %  {} loss {:.4}  accuracy {:.2} %  {} images/s",
            self.record.training.epochs,
            train.loss(),
            100.0 * train.accuracy(),
            self.judged_by(),
            evaluation.loss(),
            100.0 * evaluation.accuracy(),
            thousands(speed.round()),
        ));
        self.folder.note(&line)?;
        self.epochs.push(line);
        self.last = Some(evaluation);
        self.accuracy = Some(evaluation.accuracy());
        if best && self.record.training.early_stop.is_some() {
            let parameters = block_on(trainer.session().parameters())?;
            self.best = Some(Best { parameters, metrics: evaluation });
        }
        self.save(trainer, true)
    }

    /// Saves the state, and the weights if they are worth it. Nothing may be in flight.
    fn save(&mut self, trainer: &mut Trainer, model: bool) -> Outcome {
        let snapshot = block_on(trainer.snapshot())?;
        let step = snapshot.position.step;
        if snapshot.parameters.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { step, what: "weights" }.into());
        }
        let plan = trainer.session().plan();
        let about = About {
            record: &self.record,
            fingerprint: &self.fingerprint,
            class_names: &self.class_names,
            encoding: &self.encoding,
        };
        if model {
            self.folder.model(&about, plan, step, self.accuracy, &snapshot.parameters)?;
        }
        self.folder.checkpoint(&about, plan, &snapshot, self.best.as_ref(), self.accuracy)?;
        self.saved = step;
        Ok(())
    }

    /// Saves what there is, judges it, and says what to do next.
    fn finish(&mut self, trainer: &mut Trainer) -> Outcome<u8> {
        self.report.clear();
        let (step, total) = (trainer.position().step, trainer.total_steps());
        let stale = trainer.position().stale;
        let over = step >= total || trainer.settings().early_stop.is_some_and(|most| stale >= most);
        let rate = self.record.training.rate(step.saturating_sub(1), self.train_images);
        self.note_window(step, rate)?;
        let dir = quoted(&self.folder.path);
        let seconds = self.start.elapsed().as_secs_f64();
        if !over {
            self.save(trainer, true)?;
            self.report.event(|| {
                json!({
                    "event": "done", "reason": "interrupted", "step": step, "seconds": seconds,
                    "run": self.folder.path,
                })
            })?;
            say(&format!(
                "interrupted after step {} of {}; continue with: lenet train --resume {dir}",
                thousands(step),
                thousands(total)
            ));
            return Ok(code::INTERRUPTED);
        }
        let reason = if step < total { "early-stop" } else { "finished" };
        let weights = match &self.best {
            Some(best) => best.parameters.clone(),
            None => block_on(trainer.session().parameters())?,
        };
        let metrics = match (&self.test, &self.best, self.last) {
            (Some(test), ..) => {
                let batch = self.record.training.batch;
                let plan = trainer.session().plan();
                let values: Vec<&[f32]> = plan.split(&weights).map(|(_, values)| values).collect();
                let mut session = eval::session(&self.chosen, &self.network, &values, test, batch)?;
                block_on(session.evaluate(test.len()))?
            }
            (None, Some(best), _) => best.metrics,
            (None, None, Some(last)) => last,
            (None, None, None) => block_on(trainer.session().evaluate(self.eval_images))?,
        };
        let about = About {
            record: &self.record,
            fingerprint: &self.fingerprint,
            class_names: &self.class_names,
            encoding: &self.encoding,
        };
        self.folder.model(&about, trainer.session().plan(), step, Some(metrics.accuracy()), &weights)?;
        self.report.event(|| {
            json!({
                "event": "done",
                "reason": reason,
                "step": step,
                "loss": metrics.loss(),
                "accuracy": metrics.accuracy(),
                "correct": metrics.correct,
                "count": metrics.count,
                "seconds": seconds,
                "reached": self.reached().iter().map(|(accuracy, seconds)| json!({
                    "accuracy": accuracy, "seconds": seconds,
                })).collect::<Vec<_>>(),
                "run": self.folder.path,
            })
        })?;
        if self.report.log == Log::Human {
            emit(&self.closing(reason, &metrics, seconds))?;
        }
        Ok(0)
    }

    /// The targets that an evaluation reached, and the seconds from the program's start until then; none in a run
    /// that another process began, since nobody has its time.
    fn reached(&self) -> Vec<(f64, f64)> {
        let value = |line: &Value, key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        let first = |target| self.epochs.iter().find(|line| value(line, "accuracy") >= target);
        TARGETS
            .into_iter()
            .filter(|_| self.whole)
            .filter_map(|target| Some((target, value(first(target)?, "since_start"))))
            .collect()
    }

    fn closing(&self, reason: &str, metrics: &Metrics, seconds: f64) -> String {
        let heading =
            ["epoch", "step", "loss", "accuracy", self.judged_by(), "accuracy", "images/s", "seconds"];
        let mut rows = vec![heading.map(String::from).to_vec()];
        for line in &self.epochs {
            let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
            let percent = |key: &str| format!("{:.2} %", 100.0 * number(key));
            rows.push(vec![
                line["epoch"].to_string(),
                line["step"].to_string(),
                format!("{:.4}", number("train_loss")),
                percent("train_accuracy"),
                format!("{:.4}", number("loss")),
                percent("accuracy"),
                thousands(number("images_per_second")),
                format!("{:.1}", number("seconds")),
            ]);
        }
        let mut text = table(&rows);
        if reason == "early-stop" {
            text += "\nstopped early";
            text += if self.best.is_some() { "; the best weights are kept\n" } else { "\n" };
        }
        let dir = quoted(&self.folder.path);
        text += &format!(
            "\ntest accuracy {:.2} % ({} of {}), loss {:.4}, after {seconds:.1} s\n",
            100.0 * metrics.accuracy(),
            thousands(metrics.correct),
            thousands(metrics.count),
            metrics.loss(),
        );
        let reached: Vec<String> = self
            .reached()
            .iter()
            .map(|(target, seconds)| format!("{:.0} % after {seconds:.1} s", 100.0 * target))
            .collect();
        if !reached.is_empty() {
            let judged_by = self.judged_by();
            text += &format!(
                "reached       {} ({judged_by} accuracy, from the program's start)\n",
                reached.join(", ")
            );
        }
        text += &format!("run           {}\n", self.folder.path.display());
        let input = match self.encoding {
            Encoding::Ink | Encoding::Picture => "IMAGE",
            Encoding::Range { .. } | Encoding::Text { .. } => "FILE",
        };
        text += &format!("next          lenet predict {dir} {input}\n              lenet eval {dir}\n");
        text
    }
}

fn merge(into: &mut Metrics, one: &Metrics) {
    into.loss_sum += one.loss_sum;
    into.correct += one.correct;
    into.count += one.count;
}

/// What the run says while it runs.
struct Report {
    log: Log,
    bar: Option<ProgressBar>,
    /// Images a second, smoothed.
    speed: f64,
    /// Images of this epoch, and how long they took.
    images: u64,
    busy: Duration,
    since: Instant,
}

impl Report {
    fn new(log: Log, total: u64, step: u64) -> Report {
        let bar = (log == Log::Human && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total).with_position(step);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar
        });
        Report { log, bar, speed: 0.0, images: 0, busy: Duration::ZERO, since: Instant::now() }
    }

    /// A JSON line on stdout, if that is wanted.
    fn event(&self, line: impl FnOnce() -> Value) -> Outcome {
        if self.log == Log::Json { emit_json(&line()) } else { Ok(()) }
    }

    /// A line on stderr.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// A line an epoch, where there is no bar.
    fn epoch(&self, text: &str) {
        if self.bar.is_none() && self.log == Log::Human {
            say(text);
        }
    }

    /// Takes a chunk's time; gives the images a second, smoothed over a second or so.
    fn measure(&mut self, images: u64, took: Duration) -> f64 {
        self.images += images;
        self.busy += took;
        let seconds = took.as_secs_f64().max(1e-9);
        let now = images as f64 / seconds;
        let old = if self.speed == 0.0 { 0.0 } else { (-seconds).exp() };
        self.speed = old * self.speed + (1.0 - old) * now;
        self.speed
    }

    /// Ends an epoch: its seconds, and images a second while it trained.
    fn lap(&mut self) -> (f64, f64) {
        let speed = self.images as f64 / self.busy.as_secs_f64().max(1e-9);
        let seconds = self.since.elapsed().as_secs_f64();
        (self.images, self.busy, self.since) = (0, Duration::ZERO, Instant::now());
        (seconds, speed)
    }

    fn progress(&self, trainer: &Trainer, batch: usize, test: Option<f64>) {
        let Some(bar) = &self.bar else { return };
        let position = trainer.position();
        let left = (trainer.total_steps() - position.step) as f64 * batch as f64 / self.speed.max(1e-9);
        let epoch = position.step.div_ceil(trainer.steps_per_epoch());
        let test = test.map_or(String::new(), |accuracy| format!("  last epoch {:.2} %", 100.0 * accuracy));
        bar.set_position(position.step);
        bar.set_message(format!(
            "epoch {epoch}/{}  loss {:.4}  accuracy {:.2} %{test}  {} images/s  {} left",
            trainer.settings().epochs,
            position.epoch.loss(),
            100.0 * position.epoch.accuracy(),
            thousands(self.speed.round()),
            clock(left),
        ));
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds as minutes and seconds, or hours and minutes.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}
