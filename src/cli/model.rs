//! What commands that use a trained network share.

use std::path::Path;

use lenet::data::Dataset;
use lenet::model::{Model, run};
use lenet::network::Network;
use lenet::plan::{Options, STREAMED};
use lenet::session::Session;
use lenet::{Error, files};

use super::device::Chosen;
use super::failure::{Failure, Outcome};

/// Reads a run's folder or a `.safetensors` file. Without `network`, the file has to name its own.
pub fn load_model(path: &Path, network: Option<Network>) -> Outcome<Model> {
    let file = run::file(path, &[run::MODEL, run::CHECKPOINT]).map_err(Failure::reading)?;
    let bytes = files::read(&file).map_err(Failure::reading)?;
    Model::decode(&file.display().to_string(), &bytes, network).map_err(|error| match error {
        Error::Settings(what) => Failure::usage(format!("{what}: name it with --net")),
        other => Failure::reading(other),
    })
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
