//! The network that learns: a slice of steps between two frames, what was reported of them, and its answers for the
//! pictures that are shown. Nothing here waits for the device.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use lenet::backend::{Answer, Backend, gpu};
use lenet::data::Split;
use lenet::plan::{Options, Plan};
use lenet::session::{Metrics, Session};
use lenet::train::pace::Pace;
use lenet::train::{Advance, Event, Settings, Trainer};
use lenet::{Error, Network};

use crate::FRAME;

/// Test pictures that are shown at a time; one batch of the network.
pub const SHOWN: usize = 64;
/// Frames between two questions about them.
const ASK: u64 = 15;

/// Points that become half as many whenever there are too many.
#[derive(Default)]
pub struct Curve {
    pub points: Vec<f32>,
    sum: f32,
    summed: usize,
    /// Values in a point, less one.
    more: usize,
}

impl Curve {
    fn push(&mut self, value: f32) {
        self.sum += value;
        self.summed += 1;
        if self.summed > self.more {
            self.points.push(self.sum / self.summed as f32);
            (self.sum, self.summed) = (0.0, 0);
        }
        if self.points.len() == 512 {
            self.points = self.points.chunks(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            self.more = 2 * self.more + 1;
        }
    }
}

/// What the trainer has reported.
#[derive(Default)]
pub struct History {
    pub loss: Curve,
    pub smooth_loss: Curve,
    pub smooth_accuracy: Curve,
    /// Loss and accuracy, averaged over some steps.
    pub smooth: Option<(f32, f32)>,
    seen: usize,
    /// Steps, and what the test said then.
    pub tests: Vec<(u64, Metrics)>,
    pub step: u64,
    pub epoch: usize,
    images: u64,
}

impl History {
    fn add(&mut self, event: Event) {
        match event {
            Event::Steps { first, metrics, .. } => {
                self.step = first + metrics.len() as u64 - 1;
                for one in metrics {
                    let (loss, accuracy) = (one.loss() as f32, one.accuracy() as f32);
                    // The mean of the first twenty, then twenty steps' memory.
                    self.seen += 1;
                    let new = 1.0 / self.seen.min(20) as f32;
                    let (old_loss, old_accuracy) = self.smooth.unwrap_or_default();
                    let smooth =
                        (old_loss + new * (loss - old_loss), old_accuracy + new * (accuracy - old_accuracy));
                    self.smooth = Some(smooth);
                    self.loss.push(loss);
                    self.smooth_loss.push(smooth.0);
                    self.smooth_accuracy.push(smooth.1);
                    self.images += one.count;
                }
            }
            Event::Epoch { epoch, step, evaluation, .. } => {
                self.epoch = epoch;
                self.tests.push((step, evaluation));
            }
        }
    }
}

/// The trainer and what is known of its run.
pub struct Learner {
    pub data: Arc<Split>,
    /// The trainer, while another thread makes it.
    coming: Option<Receiver<lenet::Result<Trainer>>>,
    trainer: Option<Trainer>,
    seed: u64,
    /// A learning rate in the schedule's place.
    rate: Option<f32>,
    pub paused: bool,
    pub done: bool,
    pub history: History,
    /// The first test picture that is shown.
    page: usize,
    question: Option<(usize, Answer<Vec<f32>>)>,
    answers: Option<(usize, Vec<u8>)>,

    frames: u64,
    pace: Pace,
    queued: bool,
    /// Time spent training.
    trained: Duration,
    /// All images trained, whatever was reset.
    images: u64,
    steps: u64,
}

impl Learner {
    /// Begins to make a trainer on the window's device: the pipelines are compiled beside the first frames.
    pub fn new(device: gpu::Device, data: Arc<Split>) -> Learner {
        let (send, coming) = channel();
        let split = data.clone();
        std::thread::spawn(move || {
            let _ = send.send(pollster::block_on(trainer(device, &split)));
        });
        Learner {
            data,
            coming: Some(coming),
            trainer: None,
            seed: 0,
            rate: None,
            paused: false,
            done: false,
            history: History::default(),
            page: 0,
            question: None,
            answers: None,
            frames: 0,
            pace: Pace::new(FRAME * 5 / 4),
            queued: false,
            trained: Duration::ZERO,
            images: 0,
            steps: 0,
        }
    }

    /// The trainer, once it is made.
    pub fn trainer(&mut self) -> Option<&mut Trainer> {
        self.trainer.as_mut()
    }

    /// Steps of the whole run and its epochs, once there is a trainer.
    pub fn run(&self) -> Option<(u64, usize)> {
        self.trainer.as_ref().map(|trainer| (trainer.total_steps(), trainer.settings().epochs))
    }

    /// Images trained in a second.
    pub fn images_per_second(&self) -> f64 {
        self.images as f64 / self.trained.as_secs_f64().max(1e-3)
    }

    /// The learning rate, and whether the schedule decides it.
    pub fn rate(&self) -> (f32, bool) {
        let scheduled = settings(self.seed).rate(self.history.step, self.data.train.len());
        (self.rate.unwrap_or(scheduled), self.rate.is_none())
    }

    /// Fixes the learning rate, or leaves it to the schedule.
    pub fn set_rate(&mut self, rate: Option<f32>) {
        self.rate = rate;
        if let Some(trainer) = &mut self.trainer {
            trainer.set_learning_rate(rate);
        }
    }

    /// The next or the last page of test pictures.
    pub fn turn(&mut self, by: isize) {
        let pages = (self.data.test.len() / SHOWN).max(1) as isize;
        self.page = ((self.page / SHOWN) as isize + by).rem_euclid(pages) as usize * SHOWN;
    }

    /// The shown test pictures, and for each the class that was answered and whether it is right.
    pub fn shown(&self) -> impl Iterator<Item = (usize, Option<(u8, bool)>)> {
        let answers = self.answers.as_ref().filter(|(page, _)| *page == self.page);
        (self.page..self.page + SHOWN).map(move |i| {
            (
                i,
                answers.map(|(page, classes)| {
                    (classes[i - page], classes[i - page] == self.data.test.labels[i])
                }),
            )
        })
    }

    /// Starts again from other weights. The pipelines and the buffers, which the picture uses, stay.
    ///
    /// # Errors
    /// What the device reports; there is no trainer then.
    pub fn reset(&mut self) -> lenet::Result<()> {
        let Some(trainer) = self.trainer.take() else { return Ok(()) };
        self.seed += 1;
        let (train, test) = (&self.data.train, &self.data.test);
        let mut trainer = Trainer::new(trainer.into_session(), settings(self.seed), train, test)?;
        trainer.set_learning_rate(self.rate);
        self.trainer = Some(trainer);
        self.done = false;
        self.history = History::default();
        (self.question, self.answers) = (None, None);
        Ok(())
    }

    /// What there is to do in a frame, the last of which took so long.
    ///
    /// # Errors
    /// What the trainer reports.
    pub fn frame(&mut self, took: Duration) -> lenet::Result<()> {
        self.frames += 1;
        if self.queued {
            self.pace.round(took);
            self.trained += took;
        }
        self.train()?;
        self.ask()
    }

    /// Takes the trainer when it is made, queues some steps and takes note of those that are done.
    fn train(&mut self) -> lenet::Result<()> {
        self.queued = false;
        if let Some(coming) = &self.coming {
            match coming.try_recv() {
                Ok(made) => {
                    let mut trainer = made?;
                    trainer.set_learning_rate(self.rate);
                    (self.trainer, self.coming) = (Some(trainer), None);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::Settings("the thread that makes the trainer is gone".into()));
                }
            }
        }
        let Some(trainer) = &mut self.trainer else { return Ok(()) };
        // Two rounds in flight keep the device busy and the window lively.
        if !self.paused && !self.done && trainer.in_flight() < 2 {
            match trainer.advance(self.pace.steps())? {
                Advance::Queued(_) | Advance::Evaluating(_) => self.queued = true,
                Advance::Waiting => {}
                Advance::Done => self.done = true,
            }
        }
        while let Some(event) = trainer.poll()? {
            let (images, step) = (self.history.images, self.history.step);
            self.history.add(event);
            self.images += self.history.images - images;
            self.steps += self.history.step - step;
        }
        Ok(())
    }

    /// Asks for the classes of the shown pictures now and then, and takes the answer when it is there.
    fn ask(&mut self) -> lenet::Result<()> {
        let Some(trainer) = &mut self.trainer else { return Ok(()) };
        let test = &self.data.test;
        let turned = self.answers.as_ref().is_none_or(|(page, _)| *page != self.page);
        if self.question.is_none() && (turned || !self.done && self.frames.is_multiple_of(ASK)) {
            let pixels = test.pixels();
            let pictures = test.images.get(self.page * pixels..(self.page + SHOWN) * pixels)?;
            self.question = Some((self.page, trainer.session().predict(&pictures)));
        }
        if let Some((page, question)) = &mut self.question
            && let Some(probabilities) = question.take()
        {
            let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let classes =
                probabilities?.chunks_exact(test.classes).map(|row| best(row).unwrap_or(0) as u8).collect();
            self.answers = Some((*page, classes));
            self.question = None;
        }
        Ok(())
    }

    /// One line about the whole run.
    pub fn summary(&self) -> String {
        let (rate, slice) = (self.images_per_second(), self.pace.steps());
        format!("{} steps, {rate:.0} images/s, {slice} steps a frame at the end", self.steps)
    }
}

fn settings(seed: u64) -> Settings {
    Settings { seed, ..Settings::default() }
}

async fn trainer(device: gpu::Device, data: &Split) -> lenet::Result<Trainer> {
    let Split { train, test, .. }: &Split = data;
    let options = Options { target: device.target(), ..Trainer::options(&settings(0), train, test) };
    let plan = Plan::new(&Network::preset("lenet5")?, &options)?;
    let backend = Backend::gpu(&device, &plan.program).await?;
    Trainer::new(Session::new(plan, backend), settings(0), train, test)
}
