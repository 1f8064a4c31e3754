//! A part of the check: what it found, and how it is kept from waiting forever.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::cli::failure::Outcome;

/// The longest that a unit of work may take: a shader's cases, a preset's step, a run, a figure.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    Failed,
    /// There was nothing to compare, or no device that answers.
    Skipped,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Failed => "FAILED",
            State::Skipped => "skipped",
        }
    }
}

/// What a part found.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    pub name: &'static str,
    /// What was checked, in words.
    pub what: String,
    pub state: State,
    /// The worst difference, in the unit of `allowed`.
    pub worst: Option<f64>,
    /// The largest difference that passes.
    pub allowed: Option<f64>,
    /// Where the worst difference is.
    pub place: String,
    pub seconds: f64,
    /// Everything that is wrong.
    pub failures: Vec<String>,
    /// What is strange and not wrong.
    pub notes: Vec<String>,
    /// One row for each shader, preset or run.
    pub rows: Vec<Value>,
}

impl Part {
    pub fn new(name: &'static str, what: impl Into<String>) -> Part {
        Part {
            name,
            what: what.into(),
            state: State::Ok,
            worst: None,
            allowed: None,
            place: String::new(),
            seconds: 0.0,
            failures: Vec::new(),
            notes: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub fn skipped(name: &'static str, why: impl Into<String>) -> Part {
        Part { state: State::Skipped, ..Part::new(name, why) }
    }

    /// Notes a difference; one that is not a number is the worst there is.
    pub fn difference(&mut self, found: f64, place: impl Into<String>) {
        let found = if found.is_nan() { f64::INFINITY } else { found };
        if self.worst.is_none_or(|worst| found > worst) {
            (self.worst, self.place) = (Some(found), place.into());
        }
    }

    pub fn fail(&mut self, what: impl Into<String>) {
        self.state = State::Failed;
        self.failures.push(what.into());
    }

    /// Judges the worst difference.
    pub fn judged(mut self) -> Part {
        if let (Some(worst), Some(allowed)) = (self.worst, self.allowed)
            && worst > allowed
            && self.failures.is_empty()
        {
            let place = self.place.clone();
            self.fail(format!("{place} differs by {worst:.1e}, allowed {allowed:.1e}"));
        }
        self
    }
}

/// How work ended that gave no result.
#[derive(Debug)]
pub enum End {
    /// It failed, or panicked.
    Failed(String),
    /// It is still going on, and whatever it uses is not to be used again.
    Hangs(String),
}

impl End {
    pub fn message(&self) -> &str {
        match self {
            End::Failed(message) | End::Hangs(message) => message,
        }
    }
}

/// Does work on a thread of its own and waits for it, but not longer than `limit`.
pub fn bounded<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Result<T, End> {
    let (sender, receiver) = channel();
    let spawned = thread::Builder::new().name("check".into()).spawn(move || {
        // Nobody listens any more after the limit.
        let _ = sender.send(work());
    });
    if let Err(error) = spawned {
        return Err(End::Failed(format!("there is no thread for it: {error}")));
    }
    match receiver.recv_timeout(limit) {
        Ok(outcome) => outcome.map_err(|failure| End::Failed(failure.to_string())),
        Err(RecvTimeoutError::Disconnected) => Err(End::Failed("it panicked".into())),
        Err(RecvTimeoutError::Timeout) => {
            Err(End::Hangs(format!("there is no answer after {} s", limit.as_secs_f64())))
        }
    }
}

/// A part with the time that it took.
pub fn timed(work: impl FnOnce() -> Part) -> Part {
    let start = Instant::now();
    let mut part = work();
    part.seconds = start.elapsed().as_secs_f64();
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::Failure;

    #[test]
    fn what_hangs_fails_or_panics_ends() {
        let limit = Duration::from_secs(20);
        assert_eq!(bounded(limit, || Ok(3)).unwrap(), 3);
        let failed = bounded(limit, || Err::<(), _>(Failure::device("gone"))).unwrap_err();
        assert!(matches!(failed, End::Failed(what) if what == "gone"));
        let panicked = bounded(limit, || -> Outcome { panic!("on purpose") }).unwrap_err();
        assert!(matches!(panicked, End::Failed(what) if what == "it panicked"));
        let (start, short) = (Instant::now(), Duration::from_millis(20));
        let hung = bounded(short, || {
            thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        assert!(matches!(hung, Err(End::Hangs(_))) && start.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_difference_that_is_too_large_fails() {
        let part = |differences: &[f64]| {
            let mut part = Part { allowed: Some(1e-3), ..Part::new("it", "") };
            differences.iter().for_each(|&found| part.difference(found, format!("at {found}")));
            part.judged()
        };
        assert_eq!(part(&[1e-4, 1e-3]).state, State::Ok);
        let failed = part(&[1e-4, 2e-3, 5e-4]);
        assert_eq!((failed.state, failed.place.as_str()), (State::Failed, "at 0.002"));
        assert!(failed.failures[0].contains("2.0e-3, allowed 1.0e-3"), "{:?}", failed.failures);
        assert_eq!(part(&[f64::NAN, 1e-4]).state, State::Failed);
    }
}
