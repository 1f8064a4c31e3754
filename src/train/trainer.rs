//! The training loop, taken apart so that its caller owns it: steps are queued, finished ones are told.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Advance, Event, Position, Settings, Snapshot, epoch_order};
use crate::backend::{Answer, Readback};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::kernels::Step;
use crate::kernels::loss::RECORD;
use crate::plan::{Options, Phase, RING, STREAMED};
use crate::session::{Metrics, Session};

enum Pending {
    Steps { first: u64, learning_rate: f32, readback: Readback },
    Evaluation { last: bool, readback: Readback },
}

/// A step's number on the device, which is never 0.
fn step_number(step: u64) -> u32 {
    (step % u64::from(u32::MAX)) as u32 + 1
}

/// A training run over a [`Session`].
pub struct Trainer {
    session: Session,
    settings: Settings,
    images: usize,
    eval_images: usize,
    /// What has been reported.
    position: Position,
    /// What has been queued.
    queued: u64,
    /// The epoch whose order lies in the buffer.
    ordered: Option<usize>,
    /// At the end of an epoch: the images whose evaluation has been queued.
    evaluating: Option<usize>,
    stopped: bool,
    pending: VecDeque<Pending>,
    evaluation: Metrics,
    rate: Option<f32>,
}

impl Trainer {
    /// The plan's options for these settings and data, with the tiles of a CPU: for another device set
    /// [`Options::target`].
    pub fn options(settings: &Settings, train: &Dataset, evaluation: &Dataset) -> Options {
        Options {
            batch: settings.batch,
            optimizer: settings.optimizer,
            clip: settings.clip,
            freeze: settings.freeze.clone(),
            smoothing: settings.smoothing,
            train_images: train.len(),
            eval_images: evaluation.len(),
            augment: settings.augment,
            form: settings.form,
            // What is not in memory goes to no device whole either.
            stream: [train, evaluation].iter().any(|data| data.images.is_filed()).then_some(STREAMED),
            ..Options::default()
        }
    }

    /// Puts the data and fresh weights in place. The session's plan must be made with [`Trainer::options`], for at
    /// least as many images; the session may be that of an earlier trainer.
    ///
    /// # Errors
    /// [`Error::Settings`] and [`Error::Network`] when something is out of range or does not fit together.
    pub fn new(
        session: Session,
        settings: Settings,
        train: &Dataset,
        evaluation: &Dataset,
    ) -> Result<Trainer> {
        Trainer::begin(session, settings, [train, evaluation], |session| {
            session.set_training(train)?;
            session.set_evaluation(evaluation)
        })
    }

    /// As [`Trainer::new`], where a plan that streams its data keeps no copy of it.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn shared(
        session: Session,
        settings: Settings,
        train: &Arc<Dataset>,
        evaluation: &Arc<Dataset>,
    ) -> Result<Trainer> {
        Trainer::begin(session, settings, [train, evaluation], |session| session.share(train, evaluation))
    }

    fn begin(
        mut session: Session,
        settings: Settings,
        [train, evaluation]: [&Dataset; 2],
        put: impl FnOnce(&mut Session) -> Result<()>,
    ) -> Result<Trainer> {
        settings.check()?;
        if train.is_empty() || evaluation.is_empty() {
            return Err(Error::Settings("there are no images to train on or to evaluate".into()));
        }
        let made = &session.plan.options;
        let (train_images, eval_images) = (made.train_images, made.eval_images);
        if train.len() > train_images || evaluation.len() > eval_images {
            return Err(Error::Settings(format!(
                "{} and {} images are more than the {train_images} and {eval_images} that the plan was made for",
                train.len(),
                evaluation.len()
            )));
        }
        let (fuse, reuse, target, stream) = (made.fuse, made.reuse, made.target, made.stream);
        let same = Trainer::options(&settings, train, evaluation);
        if (Options { fuse, reuse, target, stream, train_images, eval_images, ..same }) != *made {
            return Err(Error::Settings("the plan was made for other settings than the trainer's".into()));
        }
        let network = session.plan.network.clone();
        put(&mut session)?;
        let first = network.initial(settings.seed)?;
        session.set_parameters(first.iter().map(Vec::as_slice))?;
        // The session may come from another trainer.
        for left in [session.plan.moment1, session.plan.moment2, session.plan.status] {
            session.backend.write(left, &vec![0; left.len])?;
        }
        Ok(Trainer {
            session,
            settings,
            images: train.len(),
            eval_images: evaluation.len(),
            position: Position::default(),
            queued: 0,
            ordered: None,
            evaluating: None,
            stopped: false,
            pending: VecDeque::new(),
            evaluation: Metrics::default(),
            rate: None,
        })
    }

    /// The session, to read from between steps.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Gives the session back.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the run stands, as far as it has been reported.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.settings.total_steps(self.images)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.settings.steps_per_epoch(self.images)
    }

    /// Read-backs that have not arrived: a caller that keeps this at two or less never runs far ahead.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Replaces the schedule by a fixed learning rate, or goes back to it, from the next queued step on.
    pub fn set_learning_rate(&mut self, rate: Option<f32>) {
        self.rate = rate;
    }

    /// Queues at most `most` steps, never beyond the end of the epoch; after that, at most `most` batches of the
    /// epoch's evaluation. Never waits for a GPU.
    ///
    /// # Errors
    /// What the device reports.
    pub fn advance(&mut self, most: usize) -> Result<Advance> {
        let total = self.total_steps();
        if self.stopped || self.evaluating.is_none() && self.queued >= total {
            return Ok(if self.pending.is_empty() { Advance::Done } else { Advance::Waiting });
        }
        if self.evaluating.is_some() {
            let batches = self.queue_evaluation(most)?;
            return Ok(if batches > 0 { Advance::Evaluating(batches) } else { Advance::Waiting });
        }
        let per_epoch = self.steps_per_epoch();
        let epoch = (self.queued / per_epoch) as usize;
        if self.ordered != Some(epoch) {
            let order = epoch_order(self.images, self.settings.seed, epoch, self.settings.shuffle);
            self.session.set_order(order)?;
            self.ordered = Some(epoch);
        }
        let end = ((epoch as u64 + 1) * per_epoch).min(total);
        let room = self.session.backend.most_steps().min(RING);
        let count = (end - self.queued).min(most.min(room).max(1) as u64);
        let batch = self.settings.batch;
        let mut steps: Vec<Step> = (self.queued..self.queued + count)
            .map(|step| {
                let cursor = (step % per_epoch) as usize * batch;
                let (correction1, correction2) = self.settings.optimizer.corrections(step + 1);
                Step {
                    cursor: cursor as u32,
                    count: batch.min(self.images - cursor) as u32,
                    slot: 0,
                    seed: (self.settings.seed as u32).wrapping_add((step as u32).wrapping_mul(0x9E37_79B9)),
                    learning_rate: self.rate.unwrap_or_else(|| self.settings.rate(step, self.images)),
                    correction1,
                    correction2,
                    time: step_number(step + 1),
                }
            })
            .collect();
        let learning_rate = steps.last().map_or(0.0, |step| step.learning_rate);
        for (count, readback) in self.session.queue(Phase::Train, &mut steps)? {
            self.pending.push_back(Pending::Steps { first: self.queued + 1, learning_rate, readback });
            self.queued += count as u64;
        }
        if self.queued == end {
            self.evaluating = Some(0);
        }
        Ok(Advance::Queued(count as usize))
    }

    /// Queues at most `most` of the batches that are left of the epoch's evaluation.
    fn queue_evaluation(&mut self, most: usize) -> Result<usize> {
        let Some(from) = self.evaluating.filter(|&from| from < self.eval_images) else { return Ok(0) };
        let room = self.session.backend.most_steps().min(RING);
        let end = (from + most.min(room).max(1) * self.settings.batch).min(self.eval_images);
        let mut steps = self.session.evaluation_steps(from..end);
        let mut left = steps.len();
        for (count, readback) in self.session.queue(Phase::Evaluate, &mut steps)? {
            left -= count;
            let last = left == 0 && end == self.eval_images;
            self.pending.push_back(Pending::Evaluation { last, readback });
        }
        self.evaluating = Some(end);
        Ok(steps.len())
    }

    /// The next event, if it has arrived. Never waits.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the step whose loss, gradient, moment or parameter is not finite: the parameters and
    /// moments are then as they were before it. And what the device reports.
    pub fn poll(&mut self) -> Result<Option<Event>> {
        loop {
            let Some(pending) = self.pending.front_mut() else { return Ok(None) };
            let (Pending::Steps { readback, .. } | Pending::Evaluation { readback, .. }) = pending;
            let Some(records) = readback.take() else { return Ok(None) };
            if let Some(event) = self.arrived(&records?)? {
                return Ok(Some(event));
            }
        }
    }

    /// The next event; `None` when nothing is queued. Queues what is left of an epoch's evaluation by itself.
    /// Dropped before it is ready, it loses nothing: the next call goes on where it was.
    ///
    /// # Errors
    /// As [`Trainer::poll`].
    pub async fn event(&mut self) -> Result<Option<Event>> {
        loop {
            let Some(pending) = self.pending.front_mut() else {
                if self.stopped || self.queue_evaluation(usize::MAX)? == 0 {
                    return Ok(None);
                }
                continue;
            };
            let (Pending::Steps { readback, .. } | Pending::Evaluation { readback, .. }) = pending;
            let records = readback.await?;
            if let Some(event) = self.arrived(&records)? {
                return Ok(Some(event));
            }
        }
    }

    /// Takes the first pending read-back off the queue.
    fn arrived(&mut self, records: &[u32]) -> Result<Option<Event>> {
        match self.pending.pop_front() {
            Some(Pending::Steps { first, learning_rate, .. }) => {
                let mut metrics = Vec::with_capacity(records.len() / RECORD);
                for (step, record) in (first..).zip(records.chunks_exact(RECORD)) {
                    if let Some(what) = self.session.plan.fault(record) {
                        self.stopped = true;
                        // The steps behind it changed nothing.
                        self.pending.clear();
                        self.session.backend.run(Phase::Restore, &[Step::default()])?;
                        return Err(Error::NotFinite { step, what });
                    }
                    let mut one = Metrics::default();
                    one.add(record);
                    self.position.epoch.add(record);
                    self.position.step = step;
                    metrics.push(one);
                }
                Ok(Some(Event::Steps { first, metrics, learning_rate }))
            }
            Some(Pending::Evaluation { last, .. }) => {
                records.chunks_exact(RECORD).for_each(|record| self.evaluation.add(record));
                Ok(last.then(|| self.end_of_epoch()))
            }
            None => Ok(None),
        }
    }

    fn end_of_epoch(&mut self) -> Event {
        let evaluation = std::mem::take(&mut self.evaluation);
        let loss = evaluation.loss();
        let best = self.position.best == 0 || loss < f64::from_bits(self.position.best);
        if best {
            self.position.best = loss.to_bits();
            self.position.stale = 0;
        } else {
            self.position.stale += 1;
        }
        self.stopped |= self.settings.early_stop.is_some_and(|most| self.position.stale >= most);
        self.evaluating = None;
        let step = self.position.step;
        // The last epoch of a run that `steps` cut short may be a part of one.
        let epoch = step.div_ceil(self.steps_per_epoch()) as usize;
        Event::Epoch { epoch, step, train: std::mem::take(&mut self.position.epoch), evaluation, best }
    }

    /// All that a resumed run needs, as it is now: what is queued later does not change it.
    ///
    /// # Errors
    /// With the answer: [`Error::Settings`] while anything is in flight, since the position is that of the last
    /// event: take events until there are no more, then a snapshot. And what the device reports.
    pub fn snapshot(&mut self) -> Answer<Snapshot> {
        if !self.pending.is_empty() || self.position.step != self.queued {
            let what = "a snapshot is taken when nothing is in flight: take the events first";
            return Answer::failed(Error::Settings(what.into()));
        }
        let plan = &self.session.plan;
        // Parameters, then the moments that the optimizer has.
        let parts = [true, plan.moment1.len == plan.parameters.len, plan.moment2.len == plan.parameters.len];
        let ranges = [plan.parameters, plan.moment1, plan.moment2];
        let held = ranges.into_iter().zip(parts).filter(|(_, held)| *held);
        let readbacks = held.map(|(range, _)| self.session.backend.read(range)).collect();
        let snapshot = Snapshot {
            position: self.position,
            parameters: Vec::new(),
            moment1: Vec::new(),
            moment2: Vec::new(),
        };
        Answer::new(readbacks, snapshot, |snapshot, words| {
            let parts = [&mut snapshot.parameters, &mut snapshot.moment1, &mut snapshot.moment2];
            if let Some(part) = parts.into_iter().find(|part| part.is_empty()) {
                *part = bytemuck::cast_vec(words);
            }
        })
    }

    /// Continues from a snapshot of a run with the same settings and data: on the same backend, with the same
    /// bits as if it had never stopped.
    ///
    /// # Errors
    /// [`Error::Settings`] when a length differs.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        let plan = &self.session.plan;
        let parts = [
            (plan.parameters, &snapshot.parameters),
            (plan.moment1, &snapshot.moment1),
            (plan.moment2, &snapshot.moment2),
        ];
        for (range, values) in parts {
            let len = if range.len == plan.parameters.len { range.len } else { 0 };
            if values.len() != len {
                let what = format!("the snapshot holds {} values, expected {len}", values.len());
                return Err(Error::Settings(what));
            }
        }
        for (range, values) in parts {
            self.session.backend.write(range, bytemuck::cast_slice(values))?;
        }
        self.session.backend.write(self.session.plan.status, &[0])?;
        // Whoever borrowed the session may have put another order in place.
        self.ordered = None;
        self.pending.clear();
        // An epoch that has metrics of its own at its end has not been evaluated.
        let step = snapshot.position.step;
        let ends = step.is_multiple_of(self.steps_per_epoch()) || step == self.total_steps();
        self.evaluating = (ends && snapshot.position.epoch.count > 0).then_some(0);
        self.stopped = self.settings.early_stop.is_some_and(|most| snapshot.position.stale >= most);
        self.evaluation = Metrics::default();
        self.position = snapshot.position;
        self.queued = snapshot.position.step;
        Ok(())
    }
}
