//! What commands that use a trained network share.

use std::path::Path;

use lenet::data::Dataset;
use lenet::model::record::load_network;
use lenet::model::{Layout, Model, run};
use lenet::network::Network;
use lenet::plan::{Options, STREAMED};
use lenet::session::Session;
use lenet::{Error, files};

use super::device::Chosen;
use super::failure::{Failure, Outcome};
use super::say::say;

/// What a weights file may not say of itself.
#[derive(clap::Args)]
pub struct Given {
    /// The network, where the file does not say: a preset or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    net: Option<String>,
    /// In which order the axes of the weights are: as PyTorch has them, or Keras and TensorFlow
    #[arg(long, value_name = "ORDER", default_value = "pytorch")]
    layout: Order,
    /// The mean that was taken off the pixels (0 to 1) when the weights were trained, as in Normalize(0.1307, 0.3081)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    mean: Option<f32>,
    /// What they were divided by then
    #[arg(long, value_name = "X")]
    deviation: Option<f32>,
}

/// [`Layout`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    Pytorch,
    Keras,
}

impl From<Order> for Layout {
    fn from(order: Order) -> Layout {
        match order {
            Order::Pytorch => Layout::Pytorch,
            Order::Keras => Layout::Keras,
        }
    }
}

impl Given {
    /// Reads a run's folder or a `.safetensors` file, and says what had to be done to it. Where no network is given,
    /// the file has to name its own.
    pub fn load(&self, path: &Path) -> Outcome<Model> {
        let network = self.net.as_deref().map(load_network).transpose()?;
        let file = run::file(path, &[run::MODEL, run::CHECKPOINT]).map_err(Failure::reading)?;
        let bytes = files::read(&file).map_err(Failure::reading)?;
        let name = file.display().to_string();
        let mut model =
            Model::decode_as(&name, &bytes, network, self.layout.into()).map_err(|error| match error {
                Error::Settings(what) => Failure::usage(format!("{what}: name it with --net")),
                other => Failure::reading(other),
            })?;
        if !model.told.is_empty() {
            say(&format!("{name}: {}", model.told.join("; ")));
        }
        normalise(&mut model.network, self.mean, self.deviation)?;
        Ok(model)
    }
}

/// Has a network take another mean off its pixels, and divide them by another deviation, where they are given.
pub fn normalise(network: &mut Network, mean: Option<f32>, deviation: Option<f32>) -> Outcome {
    network.input.mean = mean.unwrap_or(network.input.mean);
    network.input.deviation = deviation.unwrap_or(network.input.deviation);
    network.place()?;
    Ok(())
}

/// A network with its weights and the data to judge it by.
pub fn evaluator(
    chosen: &Chosen,
    network: &Network,
    parameters: &[&[f32]],
    test: &Dataset,
    batch: usize,
) -> Outcome<Session> {
    let stream = test.images.is_filed().then_some(STREAMED);
    let options = Options { batch, eval_images: test.len(), stream, ..Options::default() };
    let mut session = chosen.session(chosen.plan(network, &options)?)?;
    session.set_parameters(parameters.iter().copied())?;
    session.set_evaluation(test)?;
    Ok(session)
}

/// The index of the largest value; the first of several.
pub fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}
