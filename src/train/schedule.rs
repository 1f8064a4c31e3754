//! How the learning rate moves over a run.

use serde::{Deserialize, Serialize};

/// How the learning rate moves over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It is multiplied by `gamma` every `epochs` epochs.
    Step {
        /// Epochs between two drops.
        epochs: usize,
        /// The factor of a drop.
        gamma: f32,
    },
    /// It is multiplied by `gamma` every epoch.
    Exponential {
        /// The factor of an epoch.
        gamma: f32,
    },
    /// It falls to 0 along half a cosine (Loshchilov and Hutter 2017).
    Cosine,
    /// It rises from 1/25 over the first 30 % of the steps and falls to nothing, both along half a cosine
    /// (Smith and Topin 2018, with PyTorch's constants).
    OneCycle,
    /// The global learning rates of LeNet-5's twenty passes, as shares of the first (LeCun et al. 1998, section
    /// III.B): 1 for two passes, 0.4 for three, 0.2 for three, 0.1 for four, then 0.02.
    #[serde(rename = "lecun-1998")]
    Lecun1998,
}

impl Schedule {
    /// The learning rate of step `step` of `total`, both counted from 0, as a share of the peak.
    pub fn factor(&self, step: u64, total: u64, steps_per_epoch: u64) -> f64 {
        let epoch = (step / steps_per_epoch.max(1)) as i32;
        // From `a` at 0 to `b` at 1.
        let cosine = |a: f64, b: f64, at: f64| b + (a - b) * 0.5 * (1.0 + (std::f64::consts::PI * at).cos());
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Lecun1998 => match epoch {
                0..2 => 1.0,
                2..5 => 0.4,
                5..8 => 0.2,
                8..12 => 0.1,
                _ => 0.02,
            },
            Schedule::Step { epochs, gamma } => f64::from(gamma).powi(epoch / epochs.max(1) as i32),
            Schedule::Exponential { gamma } => f64::from(gamma).powi(epoch),
            Schedule::Cosine => cosine(1.0, 0.0, step as f64 / total.max(1) as f64),
            Schedule::OneCycle => {
                // Before the first step where there are less than four.
                let peak = 0.3 * total as f64 - 1.0;
                let end = total as f64 - 1.0;
                let step = step as f64;
                if step <= peak {
                    cosine(1.0 / 25.0, 1.0, step / peak)
                } else {
                    cosine(1.0, 1.0 / 25.0 / 1e4, ((step - peak) / (end - peak)).min(1.0))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of PyTorch's `OneCycleLR`, whose first phase ends on step 0.3 · total − 1: half a cosine from
    /// there to the last step.
    #[test]
    fn a_cycle_of_few_steps_is_pytorchs() {
        let factors =
            |total| (0..total).map(|step| Schedule::OneCycle.factor(step, total, 100)).collect::<Vec<_>>();
        let expected: [&[f64]; 4] = [
            &[4e-6],
            &[0.811_745_654, 4e-6],
            &[0.994_415_435, 0.462_637_103, 4e-6],
            &[0.04, 0.811_745_654, 0.283_060_998, 4e-6],
        ];
        for expected in expected {
            let found = factors(expected.len() as u64);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} of {expected:?}");
            }
        }
    }
}
