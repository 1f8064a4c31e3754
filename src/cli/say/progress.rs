//! What a training run says while it runs: a progress bar, lines, or JSON.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lenet::train::Trainer;
use serde_json::Value;

use super::{emit_json, say, thousands};
use crate::cli::failure::Outcome;

/// How to report.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Log {
    Human,
    Json,
}

/// Columns of a terminal that has room for a bar.
const NARROW: u16 = 90;

/// What the run says while it runs.
pub struct Progress {
    pub log: Log,
    bar: Option<ProgressBar>,
    /// Images a second, smoothed.
    speed: f64,
    /// Images of this epoch, and how long they took.
    images: u64,
    busy: Duration,
    since: Instant,
}

impl Progress {
    pub fn new(log: Log, total: u64, step: u64) -> Progress {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let bar = (log == Log::Human && !dumb && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total).with_position(step);
            // What does not fit the terminal's width is cut off; a narrow one has no room for the bar itself.
            let narrow = console::Term::stderr().size().1 < NARROW;
            let template =
                if narrow { "{percent:>3} %  {wide_msg}" } else { "{bar:30} {percent:>3} %  {wide_msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar
        });
        Progress { log, bar, speed: 0.0, images: 0, busy: Duration::ZERO, since: Instant::now() }
    }

    /// A JSON line on stdout, if that is wanted.
    pub fn event(&self, line: impl FnOnce() -> Value) -> Outcome {
        if self.log == Log::Json { emit_json(&line()) } else { Ok(()) }
    }

    /// A line on stderr.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// A line an epoch.
    pub fn epoch(&self, text: &str) {
        if self.log == Log::Human {
            self.line(text);
        }
    }

    /// Takes a chunk's time; gives the images a second, smoothed over a second or so.
    pub fn measure(&mut self, images: u64, took: Duration) -> f64 {
        self.images += images;
        self.busy += took;
        let seconds = took.as_secs_f64().max(1e-9);
        let now = images as f64 / seconds;
        let old = if self.speed == 0.0 { 0.0 } else { (-seconds).exp() };
        self.speed = old * self.speed + (1.0 - old) * now;
        self.speed
    }

    /// Ends an epoch: its seconds, and images a second while it trained.
    pub fn lap(&mut self) -> (f64, f64) {
        let speed = self.images as f64 / self.busy.as_secs_f64().max(1e-9);
        let seconds = self.since.elapsed().as_secs_f64();
        (self.images, self.busy, self.since) = (0, Duration::ZERO, Instant::now());
        (seconds, speed)
    }

    pub fn progress(&self, trainer: &Trainer, batch: usize, test: Option<f64>) {
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

    pub fn clear(&self) {
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
