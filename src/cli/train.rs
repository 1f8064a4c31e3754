//! `lenet train`: settings from the command line, the loop around the library's trainer, and what it reports.

mod args;
mod report;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lenet::Error;
use lenet::data::{self, Dataset, Encoding};
use lenet::model::About;
use lenet::network::{Input, Network};
use lenet::session::Metrics;
use lenet::train::{Advance, Event, Trainer};
use pollster::block_on;
use serde_json::{Value, json};

use super::run::{Best, Folder, Notes, Record, Saved, Start, fingerprint};
use super::{Failure, Outcome, code, device, emit, eval, say, table, thousands};

use args::same_run;
pub use args::{Args, Basis, Log, Training, divide, fit, rules};
use report::Report;

/// A chunk of steps should take this long: short enough to stop soon, long enough to cost nothing.
const CHUNK: Duration = Duration::from_millis(100);

/// Steps whose mean loss makes one line of the history.
const WINDOW: u64 = 50;

/// Accuracies whose time from the program's start a run reports.
const TARGETS: [f64; 2] = [0.98, 0.99];

/// Interrupts that have arrived.
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

pub fn interrupted() -> bool {
    INTERRUPTS.load(Ordering::Relaxed) > 0
}

pub fn heed_interrupts() -> Outcome {
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
    let record = match &saved {
        Some(saved) => {
            let mut record = saved.record.clone();
            args.training.apply(&mut record)?;
            // A preset that is named again stands for what it was fitted to.
            let before = saved.record.network()?;
            if record.net.is_some() && saved.record.net.is_none() {
                let Input { channels, height, width, .. } = before.input;
                let classes = before.place()?.last().map_or(0, |last| last.output.len());
                record.set_network(record.network()?.fitted([channels, height, width], classes)?.0);
            }
            same_run(&saved.record, &record)?;
            record
        }
        None => args.training.record()?,
    };
    let mut record = record;
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

    // Drivers load while the data is unpacked.
    let (split, chosen) = rayon::join(|| data::load(&record.data), || device::choose(&record.device));
    let split = split.map_err(Failure::reading)?;
    let contents = fingerprint(&[&split.train, &split.test]);
    if let Some(saved) = &saved
        && saved.data != contents
    {
        return Err(Failure::data(format!("{}: not the data that the run began with", record.data)));
    }
    let changes = if saved.is_none() { fit(&mut record, &split.train)? } else { None };
    let network = record.network()?;
    let (train, evaluation, test) = divide(&record, split)?;
    let init = match (&record.init, &saved) {
        (Some(path), None) => Some(Start::load(path, &network)?),
        _ => None,
    };
    let chosen = chosen?;
    let options = Trainer::options(&record.training, &train, &evaluation);
    let plan = chosen.plan(&network, &options)?;
    say(&chosen.line);
    changes.iter().chain(init.iter().flat_map(|init| &init.told)).for_each(|line| say(line));
    record.device.clone_from(&chosen.request);
    let session = chosen.session(plan)?;
    let mut trainer = Trainer::new(session, record.training.clone(), &train, &evaluation)?;
    if let Some(init) = &init {
        init.put(&mut trainer)?;
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
    let about = About { trained_on: Some(record.data.clone()), ..About::data(&train) };
    let mut job = Job {
        network,
        record,
        fingerprint: contents,
        about,
        eval_images: evaluation.len(),
        train_images: train.len(),
        labels_per_image: train.labels_per_image() as u64,
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

/// A run under way.
struct Job {
    network: Network,
    record: Record,
    fingerprint: String,
    about: About,
    train_images: usize,
    /// Labels of an image: 1, or one for every pixel.
    labels_per_image: u64,
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

    /// Runs the steps, and reports and saves what they give.
    fn train(&mut self, trainer: &mut Trainer) -> Outcome {
        drive(trainer, |trainer, event, took| match event {
            Event::Steps { first, metrics, learning_rate } => {
                self.steps(trainer, first, &metrics, learning_rate, took)
            }
            Event::Epoch { epoch, step, train, evaluation, best } => {
                self.epoch(trainer, epoch, step, [train, evaluation], best)
            }
        })
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
        let rows: u64 = metrics.iter().map(|one| one.count).sum();
        let images = rows / self.labels_per_image;
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

    fn notes(&self) -> Notes<'_> {
        Notes { record: &self.record, fingerprint: &self.fingerprint, about: &self.about }
    }

    /// Saves the state, and the weights if they are worth it. Nothing may be in flight.
    fn save(&mut self, trainer: &mut Trainer, model: bool) -> Outcome {
        let snapshot = block_on(trainer.snapshot())?;
        let step = snapshot.position.step;
        if snapshot.parameters.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { step, what: "weights" }.into());
        }
        let plan = trainer.session().plan();
        let notes = self.notes();
        if model {
            self.folder.model(&notes, plan, step, self.accuracy, &snapshot.parameters)?;
        }
        self.folder.checkpoint(&notes, plan, &snapshot, self.best.as_ref(), self.accuracy)?;
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
        let notes = self.notes();
        self.folder.model(&notes, trainer.session().plan(), step, Some(metrics.accuracy()), &weights)?;
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
        let input = match self.about.encoding {
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
