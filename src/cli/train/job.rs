//! A run under way: what it does, reports and saves as its steps and epochs arrive.

use std::time::{Duration, Instant};

use lenet::Error;
use lenet::data::{Dataset, Doubt, Encoding};
use lenet::model::checkpoint::{Best, Notes};
use lenet::model::run::Folder;
use lenet::model::{About, Record};
use lenet::network::Network;
use lenet::session::Metrics;
use lenet::train::{Event, Trainer};
use pollster::block_on;
use serde_json::{Value, json};

use crate::cli::device::Chosen;
use crate::cli::failure::{Failure, Outcome, code};
use crate::cli::model::evaluator;
use crate::cli::run::{Run, drive, judge, nothing_learnt};
use crate::cli::say::{Log, Progress, emit, quoted, say, table, thousands};

/// Steps whose mean loss makes one line of the history.
const WINDOW: u64 = 50;

/// Accuracies whose time from the program's start a run reports.
const TARGETS: [f64; 2] = [0.98, 0.99];

/// A run under way.
pub struct Job {
    pub network: Network,
    pub record: Record,
    pub fingerprint: String,
    pub about: About,
    pub train_images: usize,
    /// Labels of an image: 1, or one for every pixel.
    pub labels_per_image: u64,
    pub eval_images: usize,
    /// The test data, where the epochs are evaluated on something else.
    pub test: Option<Dataset>,
    /// Labels of each class in what the run is judged by in the end.
    pub counts: Vec<u64>,
    /// What speaks against its figures.
    pub doubts: Vec<Doubt>,
    /// Whether a run that has learnt nothing is an error.
    pub strict: bool,
    pub chosen: Chosen,
    pub folder: Folder,
    pub progress: Progress,
    /// The history's line of each epoch.
    pub epochs: Vec<Value>,
    pub best: Option<Best>,
    pub accuracy: Option<f64>,
    /// The last evaluation in this process.
    pub last: Option<Metrics>,
    /// The first step since the last line of the history, and the metrics since then.
    pub window: (u64, Metrics),
    /// When the program began.
    pub start: Instant,
    /// Whether the run began in this process.
    pub whole: bool,
    /// The step of the last checkpoint.
    pub saved: u64,
}

impl Job {
    /// What the epochs are evaluated on.
    fn judged_by(&self) -> &'static str {
        if self.test.is_some() { "validation" } else { "test" }
    }

    /// Says what begins.
    pub fn start(&mut self, trainer: &Trainer) -> Outcome {
        let (step, total) = (trainer.position().step, trainer.total_steps());
        let parameters: usize = self.network.parameters()?.iter().map(|parameter| parameter.count()).sum();
        self.progress.event(|| {
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
                "run": self.folder.path(),
            })
        })?;
        for Doubt { kind, message } in &self.doubts {
            self.progress.event(|| json!({ "event": "doubt", "kind": kind, "message": message }))?;
            self.progress.line(&format!("doubt: {message}"));
        }
        let from = if step > 0 { format!(", from step {step}") } else { String::new() };
        self.progress.line(&format!(
            "training {} ({} parameters) on {} images of {}, {} steps{from}, into {}",
            self.network.name,
            thousands(parameters),
            thousands(self.train_images),
            self.record.data,
            thousands(total),
            self.folder.path().display()
        ));
        if self.record.training.early_stop.is_some() && self.test.is_none() {
            self.progress
                .line("early stopping watches the test data; --validation 0.1 would keep them apart");
        }
        Ok(())
    }

    /// Runs the steps, and reports and saves what they give.
    pub fn train(&mut self, trainer: &mut Trainer) -> Outcome {
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
            self.window.1.merge(one);
            if step.is_multiple_of(WINDOW) {
                self.note_window(step, learning_rate)?;
            }
        }
        let rows: u64 = metrics.iter().map(|one| one.count).sum();
        let images = rows / self.labels_per_image;
        let speed = self.progress.measure(images, took);
        self.progress.event(|| {
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
        self.progress.progress(trainer, self.record.training.batch, self.last.map(|last| last.accuracy()));
        Ok(())
    }

    fn note_window(&mut self, step: u64, learning_rate: f32) -> Outcome {
        let (first, metrics) = std::mem::replace(&mut self.window, (step + 1, Metrics::default()));
        if metrics.count == 0 {
            return Ok(());
        }
        Ok(self.folder.note(&json!({
            "event": "steps",
            "first": first,
            "step": step,
            "loss": metrics.loss(),
            "accuracy": metrics.accuracy(),
            "learning_rate": learning_rate,
        }))?)
    }

    fn epoch(
        &mut self,
        trainer: &mut Trainer,
        epoch: usize,
        step: u64,
        [train, evaluation]: [Metrics; 2],
        best: bool,
    ) -> Outcome {
        let (seconds, speed) = self.progress.lap();
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
        self.progress.event(|| line.clone())?;
        self.progress.epoch(&format!(
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
    pub fn save(&mut self, trainer: &mut Trainer, model: bool) -> Outcome {
        let snapshot = block_on(trainer.snapshot())?;
        let step = snapshot.position.step;
        if snapshot.parameters.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { step, what: "a weight".into() }.into());
        }
        let plan = trainer.session().plan();
        if model {
            self.folder.model(plan, &self.about, step, self.accuracy, &snapshot.parameters)?;
        }
        let notes = Notes::new(&self.record, &self.fingerprint, self.accuracy);
        self.folder.checkpoint(plan, &self.about, &notes, &snapshot, self.best.as_ref())?;
        self.saved = step;
        Ok(())
    }

    /// Saves what there is, judges it, and says what to do next.
    pub fn finish(&mut self, trainer: &mut Trainer) -> Outcome<u8> {
        self.progress.clear();
        let (step, total) = (trainer.position().step, trainer.total_steps());
        let stale = trainer.position().stale;
        let over = step >= total || trainer.settings().early_stop.is_some_and(|most| stale >= most);
        let rate = self.record.training.rate(step.saturating_sub(1), self.train_images);
        self.note_window(step, rate)?;
        let dir = quoted(self.folder.path());
        let seconds = self.start.elapsed().as_secs_f64();
        if !over {
            self.save(trainer, true)?;
            self.progress.event(|| {
                json!({
                    "event": "done", "reason": "interrupted", "step": step, "seconds": seconds,
                    "run": self.folder.path(),
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
                let mut session = evaluator(&self.chosen, &self.network, &values, test, batch)?;
                judge(&mut session, test.len())?
            }
            (None, Some(best), _) => best.metrics,
            (None, None, Some(last)) => last,
            (None, None, None) => judge(trainer.session(), self.eval_images)?,
        };
        let accuracy = Some(metrics.accuracy());
        self.folder.model(trainer.session().plan(), &self.about, step, accuracy, &weights)?;
        let loss = self.epochs.last().and_then(|line| line["train_loss"].as_f64()).unwrap_or(metrics.loss());
        let rate = self.record.training.learning_rate;
        let run = Run { steps: step, rate, names: &self.about.class_names };
        let nothing = nothing_learnt(metrics.accuracy(), &self.counts, loss, &run);
        if let Some(message) = &nothing {
            let line = json!({ "event": "doubt", "kind": "nothing_learnt", "message": message });
            self.progress.event(|| line)?;
        }
        self.progress.event(|| {
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
                "run": self.folder.path(),
            })
        })?;
        if self.progress.log == Log::Human {
            emit(&self.closing(reason, &metrics, seconds))?;
        }
        match nothing {
            Some(message) if self.strict => Err(Failure::new(code::OTHER, format!("strict: {message}"))),
            Some(message) => {
                self.progress.line(&message);
                Ok(0)
            }
            None => Ok(0),
        }
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
        let dir = quoted(self.folder.path());
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
        text += &format!("run           {}\n", self.folder.path().display());
        let input = match self.about.encoding {
            Encoding::Ink | Encoding::Picture => "IMAGE",
            Encoding::Range { .. } | Encoding::Text { .. } => "FILE",
        };
        text += &format!("next          lenet predict {dir} {input}\n              lenet eval {dir}\n");
        text
    }
}
