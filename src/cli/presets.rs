//! `lenet train --preset`: settings under a name.

use clap::ValueEnum;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::train::{Schedule, Settings};

use super::run::Record;

/// Named settings; flags change them one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// What a run takes without any flag.
    Default,
    /// 99 % test accuracy on MNIST as soon as the CPU backend can.
    Fast,
}

impl Preset {
    /// The settings.
    pub fn record(self) -> Record {
        let default = Settings::default();
        let training = match self {
            Preset::Default => default,
            // An epoch and a half of MNIST: with one and a third, a seed in ten or twenty stays just below 99 %.
            Preset::Fast => Settings {
                epochs: 2,
                steps: Some(1_406),
                learning_rate: 0.01,
                schedule: Schedule::OneCycle,
                smoothing: 0.15,
                optimizer: Optimizer { weight_decay: 0.05, ..Optimizer::new(Rule::Adamw) },
                ..default
            },
        };
        Record { training, ..Record::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_settings_that_hold() {
        for preset in Preset::value_variants() {
            preset.record().training.check().unwrap();
        }
        assert_eq!(Preset::Default.record(), Record::default());
        assert_ne!(Preset::Fast.record(), Record::default());
    }
}
