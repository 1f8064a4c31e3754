//! A plan with its backend: data goes in, and predictions, metrics and parameters come out.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend::{Answer, Backend, Readback};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::kernels::loss::RECORD;
use crate::kernels::{Range, Step};
use crate::plan::{Data, Phase, Plan, RING, to_rows};

/// Loss and accuracy over some images, or over their pixels where every pixel has a label.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Summed loss.
    pub loss_sum: f64,
    /// Images, or pixels, whose label has the largest logit.
    pub correct: u64,
    /// Images, or pixels.
    pub count: u64,
}

impl Metrics {
    /// The mean loss.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.count.max(1) as f64
    }

    /// The share of images that are right, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.count.max(1) as f64
    }

    /// Takes in those of other images.
    pub fn merge(&mut self, other: &Metrics) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.count += other.count;
    }

    pub(crate) fn add(&mut self, record: &[u32]) {
        self.loss_sum += f64::from(f32::from_bits(record[0]));
        self.correct += u64::from(record[1]);
        self.count += u64::from(record[2]);
    }
}

/// Four pixels or labels a word, the first in the low byte, as the shaders read them.
fn packed(bytes: &[u8]) -> Cow<'_, [u32]> {
    // A machine that has the low byte first has them so already.
    if cfg!(target_endian = "little")
        && let Ok(words) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(words);
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
    bytes.chunks(4).map(word).collect()
}

/// Bytes that are brought to the backend at once.
const PIECE: usize = 1 << 26;

fn readbacks(chunks: Vec<(usize, Readback)>) -> Vec<Readback> {
    chunks.into_iter().map(|(_, readback)| readback).collect()
}

/// A data set that is streamed, in the order in which its images are taken.
struct Source {
    set: Arc<Dataset>,
    order: Vec<u32>,
    /// Whether the next part goes into the second half.
    second: bool,
}

impl Source {
    fn new(set: Arc<Dataset>) -> Source {
        let order = (0..set.len() as u32).collect();
        Source { set, order, second: false }
    }
}

/// A plan with its backend: everything but the training loop.
pub struct Session {
    pub(crate) plan: Plan,
    pub(crate) backend: Backend,
    /// The data sets of training and evaluation, where they are streamed.
    sources: [Option<Source>; 2],
}

impl Session {
    /// Ties a plan to the backend that holds its buffers.
    pub fn new(plan: Plan, backend: Backend) -> Session {
        Session { plan, backend, sources: [None, None] }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The backend.
    pub fn backend(&mut self) -> &mut Backend {
        &mut self.backend
    }

    /// Both, for one who binds the plan's buffers in passes of their own.
    pub fn parts(&mut self) -> (&Plan, &mut Backend) {
        (&self.plan, &mut self.backend)
    }

    /// What runs the plan, for messages.
    pub fn device(&self) -> String {
        self.backend.name()
    }

    /// Writes all parameters, in the network's order.
    ///
    /// # Errors
    /// [`Error::Settings`] when a length differs.
    pub fn set_parameters<'a>(&mut self, values: impl IntoIterator<Item = &'a [f32]>) -> Result<()> {
        let flat = self.plan.join(values)?;
        self.backend.write(self.plan.parameters, bytemuck::cast_slice(&flat))
    }

    /// All parameters as one flat buffer; [`Plan::split`] cuts it.
    pub fn parameters(&mut self) -> Answer<Vec<f32>> {
        self.read(self.plan.parameters)
    }

    /// A range's floats.
    pub fn read(&mut self, range: Range) -> Answer<Vec<f32>> {
        Answer::new(vec![self.backend.read(range)], Vec::new(), |all, words| *all = bytemuck::cast_vec(words))
    }

    fn data(&self, phase: Phase) -> Data {
        match phase {
            Phase::Evaluate => self.plan.eval_data,
            _ => self.plan.train_data,
        }
    }

    fn upload(&mut self, to: Data, set: &Dataset) -> Result<()> {
        let mut at = to.images;
        for piece in set.images.pieces(PIECE) {
            self.backend.write(at, &packed(&piece?))?;
            at = Range { start: at.start + PIECE / 4, len: at.len.saturating_sub(PIECE / 4), ..at };
        }
        self.backend.write(to.labels, &packed(&set.labels))
    }

    fn put(&mut self, phase: Phase, set: &Dataset, shared: Option<&Arc<Dataset>>) -> Result<()> {
        self.plan.network.check_data([set.channels, set.height, set.width], set.classes, set.label_size)?;
        let data = self.data(phase);
        let most = match phase {
            Phase::Evaluate => self.plan.options.eval_images,
            _ => self.plan.options.train_images,
        };
        if set.len() > most {
            let what = format!("{} images are more than the {most} that the plan was made for", set.len());
            return Err(Error::Settings(what));
        }
        let streamed = || Source::new(shared.cloned().unwrap_or_else(|| Arc::new(set.clone())));
        self.sources[phase as usize] = data.half.map(|_| streamed());
        if data.half.is_none() { self.upload(data, set) } else { Ok(()) }
    }

    /// Puts the training data in place; at most as many images as the plan was made for. Of a plan that streams it, a
    /// copy is kept.
    ///
    /// # Errors
    /// [`Error::Network`] when the data is not what the network takes, [`Error::Settings`] when it is too much.
    pub fn set_training(&mut self, data: &Dataset) -> Result<()> {
        self.put(Phase::Train, data, None)
    }

    /// Puts the evaluation data in place; at most as many images as the plan was made for. Of a plan that streams it, a
    /// copy is kept.
    ///
    /// # Errors
    /// As [`Session::set_training`].
    pub fn set_evaluation(&mut self, data: &Dataset) -> Result<()> {
        self.put(Phase::Evaluate, data, None)
    }

    /// As [`Session::set_training`] and [`Session::set_evaluation`], without a copy.
    ///
    /// # Errors
    /// As [`Session::set_training`].
    pub fn share(&mut self, training: &Arc<Dataset>, evaluation: &Arc<Dataset>) -> Result<()> {
        self.put(Phase::Train, training, Some(training))?;
        self.put(Phase::Evaluate, evaluation, Some(evaluation))
    }

    /// The order in which the training data is taken from now on, a permutation of its images.
    ///
    /// # Errors
    /// [`Error::Settings`] when it is longer than the plan was made for, or names an image that is not there.
    pub fn set_order(&mut self, order: Vec<u32>) -> Result<()> {
        match &mut self.sources[Phase::Train as usize] {
            None => self.backend.write(self.plan.train_data.order, &order),
            Some(source) => {
                let images = source.set.len();
                if order.len() > images || order.iter().any(|&image| image as usize >= images) {
                    return Err(Error::Settings(format!("the order is not one of {images} images")));
                }
                source.order = order;
                Ok(())
            }
        }
    }

    /// Gathers the images of some steps, as many as fit, into the half of the window that is not in use, and points the
    /// steps there. Gives the steps that fit. The write is queued behind the steps that read the half before.
    fn feed(&mut self, phase: Phase, steps: &mut [Step]) -> Result<usize> {
        let data = self.data(phase);
        let (Some(half), Some(source)) = (data.half, self.sources.get_mut(phase as usize)) else {
            return Ok(steps.len());
        };
        let Some(source) = source else {
            return Err(Error::Settings("there is no data set to stream from".into()));
        };
        let set = &*source.set;
        let (pixels, places) = (set.pixels(), set.labels_per_image());
        let count = (half / self.plan.options.batch).min(steps.len());
        let first = if source.second { half } else { 0 };
        source.second = !source.second;
        let (mut images, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for step in &mut steps[..count] {
            let taken = &source.order[step.cursor as usize..][..step.count as usize];
            step.cursor = (first + names.len()) as u32;
            for &image in taken {
                let image = image as usize;
                images.extend_from_slice(&set.image(image)?);
                labels.extend_from_slice(&set.labels[image * places..][..places]);
            }
            names.extend_from_slice(taken);
        }
        // Halves are whole blocks of sixteen images: they begin and end at words.
        let part = |range: Range, at: usize, len: usize| Range { start: range.start + at, len, ..range };
        images.resize(images.len().next_multiple_of(4), 0);
        labels.resize(labels.len().next_multiple_of(4), 0);
        let of_images = part(data.images, first * pixels / 4, half * pixels / 4);
        let of_labels = part(data.labels, first * places / 4, half * places / 4);
        let of_names = part(data.order, 2 * half + first, half);
        self.backend.write(of_images, &packed(&images))?;
        self.backend.write(of_labels, &packed(&labels))?;
        self.backend.write(of_names, &names)?;
        Ok(count)
    }

    /// Runs steps in chunks that fit the metrics ring and a streamed set's window; gives the steps of each, with the
    /// read-back of their records.
    pub(crate) fn queue(&mut self, phase: Phase, mut steps: &mut [Step]) -> Result<Vec<(usize, Readback)>> {
        let most = self.backend.most_steps().min(RING);
        let mut readbacks = Vec::new();
        while !steps.is_empty() {
            let chunk = most.min(steps.len());
            let chunk = self.feed(phase, &mut steps[..chunk])?;
            let (now, later) = std::mem::take(&mut steps).split_at_mut(chunk);
            steps = later;
            for (slot, step) in now.iter_mut().enumerate() {
                step.slot = slot as u32;
            }
            self.backend.run(phase, now)?;
            let records = Range { len: now.len() * RECORD, ..self.plan.metrics };
            readbacks.push((now.len(), self.backend.read(records)));
        }
        Ok(readbacks)
    }

    pub(crate) fn evaluation_steps(&self, images: std::ops::Range<usize>) -> Vec<Step> {
        let (end, batch) = (images.end, self.plan.options.batch);
        images
            .step_by(batch)
            .map(|cursor| Step {
                cursor: cursor as u32,
                count: batch.min(end - cursor) as u32,
                ..Step::default()
            })
            .collect()
    }

    /// Loss and accuracy over the first `images` of the evaluation data. A loss that is not finite is given as it
    /// is.
    ///
    /// # Errors
    /// With the answer: [`Error::Settings`] when the plan was made for fewer images, and what the device reports.
    pub fn evaluate(&mut self, images: usize) -> Answer<Metrics> {
        self.evaluate_part(0..images)
    }

    /// The same over some images, for a caller who hands the device no more at once than takes it a moment.
    ///
    /// # Errors
    /// As [`Session::evaluate`].
    pub fn evaluate_part(&mut self, images: std::ops::Range<usize>) -> Answer<Metrics> {
        let most = self.plan.options.eval_images;
        if images.end > most {
            let end = images.end;
            return Answer::failed(Error::Settings(format!("{end} images to evaluate, there are {most}")));
        }
        let mut steps = self.evaluation_steps(images);
        match self.queue(Phase::Evaluate, &mut steps) {
            Ok(chunks) => Answer::new(readbacks(chunks), Metrics::default(), |metrics, words| {
                words.chunks_exact(RECORD).for_each(|record| metrics.add(record));
            }),
            Err(error) => Answer::failed(error),
        }
    }

    /// Probabilities of the classes, `[images][classes]`, of pictures laid out like a data set's. All of it is
    /// queued at once: a caller with frames to draw hands in few pictures at a time.
    ///
    /// # Errors
    /// With the answer: [`Error::Settings`] when the bytes are not whole pictures, and what the device reports.
    pub fn predict(&mut self, pictures: &[u8]) -> Answer<Vec<f32>> {
        let input = self.plan.network.input;
        let pixels = input.channels * input.height * input.width;
        if !pictures.len().is_multiple_of(pixels) {
            let what = format!("{} bytes are not whole pictures of {pixels}", pictures.len());
            return Answer::failed(Error::Settings(what));
        }
        let (batch, classes) = (self.plan.options.batch, self.plan.outputs());
        let images = pictures.len() / pixels;
        let mut readbacks = Vec::with_capacity(images.div_ceil(batch));
        for pictures in pictures.chunks(batch * pixels) {
            let step = Step { count: (pictures.len() / pixels) as u32, ..Step::default() };
            let queued = self
                .backend
                .write(self.plan.predict_data.images, &packed(pictures))
                .and_then(|()| self.backend.run(Phase::Predict, &[step]));
            if let Err(error) = queued {
                return Answer::failed(error);
            }
            readbacks.push(self.backend.read(self.plan.probabilities));
        }
        let all = Vec::with_capacity(images * classes);
        Answer::new(readbacks, all, move |all, words| {
            let count = batch.min(images - all.len() / classes);
            all.extend(to_rows(bytemuck::cast_slice(&words), classes, count));
        })
    }
}
