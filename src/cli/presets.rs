//! `lenet train --preset`: settings under a name.

use clap::ValueEnum;
use lenet::kernels::augment::Augment;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::model::Record;
use lenet::train::{Schedule, Settings};

/// Named settings; flags change them one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// What a run takes without any flag.
    Default,
    /// 99 % test accuracy on MNIST as soon as the CPU backend can.
    Fast,
    /// The highest test accuracy on MNIST: another network, augmentation.
    Best,
    /// LeNet-5 as in 1998, with the paper's passes and the shape of its learning rates.
    #[value(name = "lenet5-1998")]
    Original,
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
            Preset::Best => Settings {
                epochs: 10,
                learning_rate: 4e-3,
                schedule: Schedule::OneCycle,
                augment: Augment::LIGHT,
                optimizer: Optimizer::new(Rule::Adamw),
                ..default
            },
            // The paper steps after every picture, each weight with a rate of its own (stochastic diagonal
            // Levenberg-Marquardt); Adam after every 16 does as well.
            Preset::Original => Settings {
                epochs: 20,
                batch: 16,
                learning_rate: 1e-3,
                schedule: Schedule::Lecun1998,
                ..default
            },
        };
        let net = match self {
            Preset::Default | Preset::Fast => "lenet5",
            Preset::Best => "lenet5-bn",
            Preset::Original => "lenet5-1998",
        };
        Record { training, net: Some(net.into()), ..Record::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_settings_that_hold() {
        for preset in Preset::value_variants() {
            preset.record().training.check().unwrap();
            preset.record().network().unwrap();
        }
        assert_eq!(Preset::Default.record(), Record::default());
        assert_ne!(Preset::Fast.record(), Record::default());
    }
}
