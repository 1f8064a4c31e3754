//! What commands that train share: their data, their first weights, the loop around the library's trainer, Ctrl-C.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lenet::data::{Dataset, Split};
use lenet::model::{self, Record, run, safetensors};
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
    .map_err(|error| Failure { code: code::OTHER, message: format!("Ctrl-C cannot be heeded: {error}") })
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
        None => Ok(train),
    };
    let Some(share) = record.validation else { return Ok((few(train)?, test, None)) };
    let (train, validation) = train.split(share);
    if train.is_empty() || validation.is_empty() {
        return Err(Failure::usage(format!(
            "validation {share} of {} images leaves nothing to train on or to evaluate",
            train.len() + validation.len()
        )));
    }
    Ok((few(train)?, validation, Some(test)))
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
        let file = run::file(path, &[run::MODEL, run::CHECKPOINT]).map_err(Failure::reading)?;
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
