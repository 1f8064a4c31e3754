//! `lenet train --preset`: settings under a name.

use clap::ValueEnum;
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
            Preset::Fast => Settings {
                epochs: 2,
                learning_rate: 0.01,
                schedule: Schedule::OneCycle,
                smoothing: 0.1,
                ..default
            },
        };
        Record { training, ..Record::default() }
    }
}
