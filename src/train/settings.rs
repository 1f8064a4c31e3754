//! How to train, as settings files hold it.

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::error::{Error, Result};
use crate::kernels::augment::Augment;
use crate::kernels::optimizer::{self, Optimizer};
use crate::plan::Form;

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Passes over the training data.
    pub epochs: usize,
    /// Stops after this many optimizer steps, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Images in a batch; the last of an epoch may be smaller.
    pub batch: usize,
    /// The peak of the learning rate.
    pub learning_rate: f32,
    /// How it moves.
    pub schedule: Schedule,
    /// Steps over which it first rises from 0, on top of the schedule.
    #[serde(default)]
    pub warmup: u64,
    /// Label smoothing of the training; evaluation has none.
    #[serde(default)]
    pub smoothing: f32,
    /// How the training pictures are distorted.
    #[serde(default, skip_serializing_if = "Augment::is_none")]
    pub augment: Augment,
    /// How a step is cut into launches: it decides about the last bits.
    #[serde(default, skip_serializing_if = "Form::is_default")]
    pub form: Form,
    /// The norm that the whole gradient is clipped to, if given (Pascanu et al. 2013).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
    /// Patterns of names (see [`crate::plan::matches`]) whose parameters keep their first values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Stops after this many epochs without a lower evaluation loss, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<usize>,
    /// The seed of the first weights and of every epoch's order.
    pub seed: u64,
    /// Whether the images are taken in another order each epoch.
    pub shuffle: bool,
    /// The update rule.
    pub optimizer: Optimizer,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            epochs: 6,
            steps: None,
            batch: 64,
            learning_rate: 2e-3,
            schedule: Schedule::Cosine,
            warmup: 0,
            smoothing: 0.0,
            augment: Augment::NONE,
            form: Form::Layers,
            clip: None,
            freeze: Vec::new(),
            early_stop: None,
            seed: 0,
            shuffle: true,
            optimizer: Optimizer::default(),
        }
    }
}

impl Settings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Settings`] with the setting's name, its value and what was expected.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Settings(what));
        if !(self.learning_rate.is_finite() && self.learning_rate >= 0.0) {
            return refuse(format!("lr is {}, expected 0 or more", self.learning_rate));
        }
        if self.epochs == 0 || self.epochs > 1_000_000 {
            return refuse(format!("epochs is {}, expected 1 to 1000000", self.epochs));
        }
        if self.steps == Some(0) || self.early_stop == Some(0) {
            return refuse("steps and early-stop count from 1".into());
        }
        match self.schedule {
            Schedule::Step { epochs: 0, .. } => {
                return refuse("the step schedule drops every 0 epochs".into());
            }
            Schedule::Step { gamma, .. } | Schedule::Exponential { gamma }
                if !(gamma.is_finite() && gamma > 0.0) =>
            {
                return refuse(format!("the schedule's gamma is {gamma}, expected more than 0"));
            }
            _ => {}
        }
        self.augment.check()?;
        optimizer::check_clip(self.clip)?;
        self.optimizer.check()
    }

    /// Steps of an epoch over `images`.
    pub fn steps_per_epoch(&self, images: usize) -> u64 {
        images.div_ceil(self.batch.max(1)) as u64
    }

    /// Steps of the whole run over `images`.
    pub fn total_steps(&self, images: usize) -> u64 {
        let all = self.epochs as u64 * self.steps_per_epoch(images);
        self.steps.map_or(all, |steps| steps.min(all))
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate(&self, step: u64, images: usize) -> f32 {
        let factor = self.schedule.factor(step, self.total_steps(images), self.steps_per_epoch(images));
        let warm = if step < self.warmup { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        (f64::from(self.learning_rate) * factor * warm) as f32
    }
}
