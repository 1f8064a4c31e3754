//! A plan with its backend: data goes in, and predictions, metrics and parameters come out.

use std::borrow::Cow;

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

/// A plan with its backend: everything but the training loop.
pub struct Session {
    pub(crate) plan: Plan,
    pub(crate) backend: Backend,
}

impl Session {
    /// Ties a plan to the backend that holds its buffers.
    pub fn new(plan: Plan, backend: Backend) -> Session {
        Session { plan, backend }
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

    pub(crate) fn upload(&mut self, to: Data, data: &Dataset) -> Result<()> {
        self.backend.write(to.images, &packed(&data.images))?;
        self.backend.write(to.labels, &packed(&data.labels))
    }

    /// Puts the training data in place; at most as many images as the plan was made for.
    ///
    /// # Errors
    /// [`Error::Network`] when the data is not what the network takes, [`Error::Settings`] when it is too much.
    pub fn set_training(&mut self, data: &Dataset) -> Result<()> {
        self.plan.network.check_data(
            [data.channels, data.height, data.width],
            data.classes,
            data.label_size,
        )?;
        self.upload(self.plan.train_data, data)
    }

    /// Puts the evaluation data in place; at most as many images as the plan was made for.
    pub fn set_evaluation(&mut self, data: &Dataset) -> Result<()> {
        self.plan.network.check_data(
            [data.channels, data.height, data.width],
            data.classes,
            data.label_size,
        )?;
        self.upload(self.plan.eval_data, data)
    }

    /// Runs steps in chunks that fit the metrics ring, each with its read-back.
    pub(crate) fn queue(&mut self, phase: Phase, steps: &mut [Step]) -> Result<Vec<Readback>> {
        let chunk = self.backend.most_steps().min(RING);
        let mut readbacks = Vec::new();
        for steps in steps.chunks_mut(chunk) {
            for (slot, step) in steps.iter_mut().enumerate() {
                step.slot = slot as u32;
            }
            self.backend.run(phase, steps)?;
            let records = Range { len: steps.len() * RECORD, ..self.plan.metrics };
            readbacks.push(self.backend.read(records));
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
        let most = self.plan.options.eval_images;
        if images > most {
            return Answer::failed(Error::Settings(format!("{images} images to evaluate, there are {most}")));
        }
        let mut steps = self.evaluation_steps(0..images);
        match self.queue(Phase::Evaluate, &mut steps) {
            Ok(readbacks) => Answer::new(readbacks, Metrics::default(), |metrics, words| {
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
