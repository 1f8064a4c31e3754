//! What commands that train share: their data, their first weights, the loop around the library's trainer, Ctrl-C.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lenet::data::{self, Dataset, Doubt, Split};
use lenet::model::run::HeldOut;
use lenet::model::{self, About, Layout, Record, run, safetensors};
use lenet::session::{Metrics, Session};
use lenet::train::{Advance, Event, Trainer};
use lenet::{Error, Network, files};
use pollster::block_on;

use super::failure::{Failure, Outcome, code};

/// A chunk of steps should take this long: short enough to stop soon, long enough to cost nothing.
const CHUNK: Duration = Duration::from_millis(100);

/// Interrupts that have arrived.
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

/// Whether somebody wants an end.
pub fn interrupted() -> bool {
    INTERRUPTS.load(Ordering::Relaxed) > 0
}

/// From now on Ctrl-C asks for an end; the second time it is one.
pub fn heed_interrupts() -> Outcome {
    ctrlc::set_handler(|| {
        if INTERRUPTS.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(i32::from(code::INTERRUPTED));
        }
    })
    .map_err(|error| Failure::new(code::OTHER, format!("Ctrl-C cannot be heeded: {error}")))
}

/// Fits the network to data, if it is a preset: a file means what it says. Tells what was changed.
pub fn fit(record: &mut Record, data: &Dataset) -> Outcome<Option<String>> {
    let network = record.network()?;
    let Ok(mut preset) = Network::preset(&network.name) else { return Ok(None) };
    // Other pixels make no other network.
    (preset.input.mean, preset.input.deviation) = (network.input.mean, network.input.deviation);
    if preset != network {
        return Ok(None);
    }
    let shape = [data.channels, data.height, data.width];
    let (fitted, changes) = network.fitted(shape, data.classes).map_err(|error| {
        let fits = |name: &&str| {
            Network::preset(name)
                .and_then(|preset| preset.fitted(shape, data.classes))
                .is_ok_and(|(fitted, _)| fitted.check_data(shape, data.classes, data.label_size).is_ok())
        };
        let others: Vec<&str> = Network::presets().filter(fits).collect();
        let mut failure = Failure::from(error);
        if !others.is_empty() {
            failure.message += &format!("; presets that fit this data: --net {}", others.join(", "));
        }
        failure
    })?;
    record.set_network(fitted);
    Ok((!changes.is_empty()).then(|| format!("{} for this data: {}", network.name, changes.join(", "))))
}

/// The parts of data that a run uses.
pub struct Divided {
    /// What it trains on.
    pub train: Dataset,
    /// What its epochs are evaluated on.
    pub evaluation: Dataset,
    /// The test data, where that is something else.
    pub test: Option<Dataset>,
    /// Which images were drawn to be kept apart, and by what.
    pub held_out: HeldOut,
}

/// Divides data as the settings say: validation is drawn by their seed.
pub fn divide(record: &Record, split: Split) -> Outcome<Divided> {
    let Split { train, test, held_out, .. } = split;
    let few = |train: Dataset| match record.per_class {
        Some(n) => train.per_class(n),
        None => train,
    };
    let mut held_out = HeldOut { test: held_out, ..HeldOut::default() };
    let Some(share) = record.validation else {
        return Ok(Divided { train: few(train), evaluation: test, test: None, held_out });
    };
    let all = train.len();
    let (train, evaluation, drawn) = train.hold_out(share, record.training.seed);
    if train.is_empty() || evaluation.is_empty() {
        return Err(Failure::usage(format!(
            "validation {share} of {all} images leaves nothing to train on or to evaluate"
        )));
    }
    held_out.validation = Some(drawn);
    Ok(Divided { train: few(train), evaluation, test: Some(test), held_out })
}

/// What speaks against the figures of a run on this data; an error if it is to be `strict`.
pub fn doubts(
    network: &Network,
    batch: usize,
    train: &Dataset,
    test: &Dataset,
    strict: bool,
) -> Outcome<Vec<Doubt>> {
    let mut found = data::doubts(train, test)?;
    let alone = network.normalised_alone()?.join(", ");
    let why = match (batch.min(train.len()), train.len() % batch.max(1)) {
        (1, _) => Some("with one picture in a batch"),
        (_, 1) => Some("in the last batch of an epoch, which has one picture,"),
        _ => None,
    };
    if let Some(why) = why
        && !alone.is_empty()
    {
        let message = format!("{why} {alone} normalises one value per channel, and nothing of it is left");
        found.push(Doubt { kind: "batch_of_one", message });
    }
    if strict && !found.is_empty() {
        let all: Vec<_> = found.into_iter().map(|doubt| doubt.message).collect();
        return Err(Failure::data(format!("strict: {}", all.join("; "))));
    }
    Ok(found)
}

/// What may have kept a run from learning anything, the likeliest first; none where its accuracy is more than chance.
///
/// A run whose accuracy, on images of which each class has so many, is that of one answer for all has learnt nothing;
/// `loss` is that of its last training pictures.
pub fn nothing_learnt(accuracy: f64, counts: &[u64], loss: f64, run: &Run<'_>) -> Option<String> {
    let (commonest, &count) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
    let all = counts.iter().sum::<u64>().max(1) as f64;
    let share = count as f64 / all;
    // Two deviations above it are luck.
    let luck = 2.0 * (share * (1.0 - share) / all).sqrt();
    if accuracy > share + luck || share == 1.0 {
        return None;
    }
    let mut reasons = Vec::new();
    if run.steps < 100 {
        reasons.push(format!("{} steps are few", run.steps));
    }
    let guess = (counts.len() as f64).ln();
    let high = format!("the learning rate {} is too high", run.rate);
    let low = format!("the learning rate {} is too low", run.rate);
    let find = "`lenet lr-find` suggests one";
    if loss > 1.05 * guess {
        reasons.extend([format!("{high} ({find})"), low]);
    } else {
        reasons.extend([format!("{low} ({find})"), high]);
    }
    reasons.push("the labels are not those of the pictures".into());
    Some(format!(
        "nothing was learnt: {:.2} % is no more than the class {} has, which is the commonest ({:.2} %); likely \
         reasons, in order: {}",
        100.0 * accuracy,
        run.names.get(commonest).map_or_else(|| commonest.to_string(), Clone::clone),
        100.0 * share,
        reasons.join(", ")
    ))
}

/// What a run was like, for [`nothing_learnt`].
pub struct Run<'a> {
    /// Steps that it took.
    pub steps: u64,
    /// Its peak learning rate.
    pub rate: f32,
    /// What its classes are called.
    pub names: &'a [String],
}

/// Weights to start from: what a file holds of a network's parameters.
pub struct Start {
    /// What it holds and what not, in lines; none where it fits exactly.
    pub told: Vec<String>,
    /// The values of each parameter, in the network's order.
    values: Vec<Option<Vec<f32>>>,
    /// Where the file's classes are other ones: its row for each class of the data, in the parameters of these numbers.
    head: Option<Head>,
}

/// The parameters that have a row for each class, and whose row of the file each class takes.
struct Head {
    parameters: Vec<usize>,
    rows: Vec<Option<usize>>,
}

impl Head {
    /// The head of a network whose last layer with parameters has a row for each class, if the classes of a file are not
    /// those of the data in the same order.
    fn matched(network: &Network, of_file: &[String], of_data: &[String]) -> Outcome<Option<Head>> {
        let mut rows = data::places(of_data, of_file);
        // A row that is not there is nobody's.
        rows.iter_mut().for_each(|row| *row = row.filter(|&row| row < of_data.len()));
        if of_file.is_empty() || rows.iter().enumerate().all(|(i, row)| *row == Some(i)) {
            return Ok(None);
        }
        let parameters = network.parameters()?;
        // conv1.weight and conv1.bias are of one layer.
        let layer = |name: &str| name.rsplit_once('.').map_or(name, |(layer, _)| layer).to_owned();
        let last = parameters.last().map(|last| layer(&last.name));
        let of_head = |i: &usize| {
            Some(layer(&parameters[*i].name)) == last && parameters[*i].shape.first() == Some(&of_data.len())
        };
        let parameters: Vec<usize> = (0..parameters.len()).filter(of_head).collect();
        Ok((!parameters.is_empty()).then_some(Head { parameters, rows }))
    }

    /// What becomes of the rows, in a line.
    fn told(&self, of_data: &[String]) -> String {
        let names = |taken: bool| {
            let some = self.rows.iter().zip(of_data).filter(|(row, _)| row.is_some() == taken);
            some.map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        match (names(true).as_str(), names(false).as_str()) {
            ("", _) => "init: none of its classes are the data's: the last layer starts afresh".into(),
            (taken, "") => {
                format!("init: the classes {taken} by their names, which stand in another order there")
            }
            (taken, fresh) => format!("init: the classes {taken} by their names; afresh {fresh}"),
        }
    }
}

impl Start {
    /// Takes what fits by name and shape out of a run's folder or a `.safetensors` file, of the last layer the rows of
    /// the classes that have the names `classes`.
    pub fn load(path: &Path, network: &Network, classes: &[String], layout: Layout) -> Outcome<Start> {
        let file = run::file(path, &[run::MODEL, run::CHECKPOINT]).map_err(Failure::reading)?;
        let name = file.display().to_string();
        let bytes = files::read(&file).map_err(Failure::reading)?;
        let model::Weights { mut tensors, metadata, told: mut done, keras } =
            model::weights(&name, &bytes, network, layout).map_err(Failure::reading)?;
        if keras {
            done.push("the axes are in Keras' order: --layout keras turns them".into());
        }
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
            let error =
                Error::Weights { path: format!("{name}: nothing in it fits {}", network.name), problems };
            return Err(Failure::reading(error));
        }
        let mut told: Vec<String> = done.iter().map(|line| format!("init: {line}")).collect();
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
        let of_file = About::read(network, &metadata).class_names;
        let mut head = Head::matched(network, &of_file, classes)?;
        head = head.filter(|head| head.parameters.iter().any(|&i| values[i].is_some()));
        told.extend(head.iter().map(|head| head.told(classes)));
        Ok(Start { told, values, head })
    }

    /// Puts the values in place of those that a new trainer has drawn.
    pub fn put(&self, trainer: &mut Trainer) -> Outcome {
        let seed = trainer.settings().seed;
        let fresh = trainer.session().plan().network.initial(seed)?;
        let values = self.values.iter().zip(&fresh).map(|(taken, fresh)| taken.as_ref().unwrap_or(fresh));
        let mut values: Vec<Vec<f32>> = values.cloned().collect();
        if let Some(head) = &self.head {
            for &i in &head.parameters {
                let Some(taken) = &self.values[i] else { continue };
                let width = taken.len() / head.rows.len();
                for (class, row) in head.rows.iter().enumerate() {
                    let to = &mut values[i][class * width..][..width];
                    match row {
                        Some(row) => to.copy_from_slice(&taken[row * width..][..width]),
                        None => to.copy_from_slice(&fresh[i][class * width..][..width]),
                    }
                }
            }
        }
        Ok(trainer.session().set_parameters(values.iter().map(Vec::as_slice))?)
    }
}

/// Loss and accuracy over the first `images` of a session's evaluation data, in slices that take a device no longer than
/// a chunk of steps, as it is seen to take.
pub fn judge(session: &mut Session, images: usize) -> Outcome<Metrics> {
    let (mut all, mut at, mut slice) = (Metrics::default(), 0, session.plan().options.batch);
    while at < images {
        let end = (at + slice).min(images);
        let since = Instant::now();
        all.merge(&block_on(session.evaluate_part(at..end))?);
        let fit = CHUNK.as_secs_f64() / since.elapsed().as_secs_f64().max(1e-9) * (end - at) as f64;
        let batch = session.plan().options.batch;
        slice = (fit as usize / batch * batch).clamp(batch, 8 * slice);
        at = end;
    }
    Ok(all)
}

/// Runs steps until the run is over or interrupted; then nothing is in flight. What arrives is handed on, with the
/// time that its steps took.
pub fn drive(
    trainer: &mut Trainer,
    mut heed: impl FnMut(&mut Trainer, Event, Duration) -> Outcome,
) -> Outcome {
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
            Some(event @ Event::Steps { .. }) => {
                let (steps, since) = chunks.pop_front().unwrap_or((1, arrived));
                let took = since.max(arrived).elapsed();
                arrived = Instant::now();
                heed(trainer, event, took)?;
                let fit = CHUNK.as_secs_f64() / took.as_secs_f64().max(1e-9) * steps as f64;
                most = (fit as usize).clamp(1, 2 * steps);
            }
            Some(event @ Event::Epoch { .. }) => {
                heed(trainer, event, arrived.elapsed())?;
                arrived = Instant::now();
            }
            None if queued => {}
            None => return Ok(()),
        }
    }
}
