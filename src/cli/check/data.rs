//! What networks are checked on: MNIST where they take it and it is part of the program, else noise.

use lenet::Network;
use lenet::data::{self, Dataset, Split};
use lenet::plan::{Options, Plan};

use crate::cli::failure::Outcome;
use crate::cli::measure::noise;

/// Pictures for any network.
pub struct Pictures {
    mnist: Option<Split>,
}

impl Pictures {
    pub fn load() -> Pictures {
        Pictures { mnist: data::mnist().ok() }
    }

    /// MNIST, if it is part of the program.
    pub fn mnist(&self) -> Option<&Split> {
        self.mnist.as_ref()
    }

    /// The first `count` that a network takes.
    pub fn of(&self, network: &Network, count: usize) -> Outcome<Dataset> {
        let fits = |data: &&Split| {
            let train = &data.train;
            let shape = [train.channels, train.height, train.width];
            network.check_data(shape, train.classes, train.label_size).is_ok()
        };
        match self.mnist.as_ref().filter(fits) {
            Some(mnist) => Ok(mnist.train.clone().take(count)),
            None => noise(network, count),
        }
    }
}

/// A network's first weights, as a plan with these options holds them.
pub fn initial(network: &Network, options: &Options) -> Outcome<Vec<f32>> {
    let plan = Plan::new(network, options)?;
    let first = network.initial(0)?;
    Ok(plan.join(first.iter().map(Vec::as_slice))?)
}
