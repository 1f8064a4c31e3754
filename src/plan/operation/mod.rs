//! What a plan is made of: an operation is what one layer does, or what several do together. Each is one file, with
//! all that a plan asks of it.

mod activation;
mod concat;
mod conv2d;
mod conv_pool;
mod depthwise;
mod dropout;
mod linear;
mod loss;
mod lrn;
mod norm;
mod pool2d;
mod rbf;
mod squared_error;
mod sum;

use std::any::Any;
use std::fmt::Debug;

use super::{Data, Phase, Tensor};
use crate::error::{Error, Result};
use crate::kernels::{CHUNK, Gradients, Launch, LayerBuffers, Range, batch, loss as rows};
use crate::network::Activation;

pub(super) use activation::Elementwise;
pub(super) use concat::Concat;
pub(super) use conv_pool::ConvPool;
pub(super) use conv2d::Conv2d;
pub(super) use depthwise::Depthwise;
pub(super) use dropout::Dropout;
pub(super) use linear::Linear;
pub(super) use loss::CrossEntropy;
pub(super) use lrn::LocalResponseNorm;
pub(super) use norm::Norm;
pub(super) use pool2d::{AdaptivePool, AveragePool, MaxPool, Upsample};
pub(super) use rbf::Rbf;
pub(super) use squared_error::SquaredError;
pub(super) use sum::Sum;

/// What one launch, or a few, do of a network.
pub(super) trait Operation: Any + Debug {
    /// The launches that make the output; of the loss, those that judge it.
    fn forward(&self, site: &Site) -> Result<Vec<Launch>>;

    /// The launches that take the gradient of the output to those of the weights, if they are learned, and of those
    /// inputs that have a range for it.
    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>>;

    /// Words that the backward launches need beside input and output, for so many rows of a batch.
    fn saved(&self, _rows: usize) -> Option<usize> {
        None
    }

    /// Partial sums of the gradients of its parameters.
    fn partials(&self) -> usize {
        1
    }

    /// What it is when nothing is learned.
    fn evaluated(&self) -> Evaluated {
        Evaluated::Same
    }

    /// Told when none of its parameters is learned.
    fn hold(&mut self) {}

    /// The activation that ends the forward launch, where the gradient that comes back must have been multiplied by
    /// its derivative.
    fn activation(&self) -> Option<Activation> {
        None
    }

    /// The same operation with an activation at its end, if its launches can end with one. It is
    /// [by value](Activation::by_value).
    fn ending(&self, _activation: Activation) -> Option<Box<dyn Operation>> {
        None
    }

    /// Has the launch that makes the gradient of the input multiply it by the derivative of `activation`, which ended
    /// the launch before. Says whether it can.
    fn multiply(&mut self, _activation: Activation) -> bool {
        false
    }

    /// The same operation on a data set's bytes, if it can gather its images itself.
    fn gathering(&self, _source: batch::Geometry) -> Option<Box<dyn Operation>> {
        None
    }

    /// The number that tells its random numbers from those of others, if it draws any.
    fn number(&mut self) -> Option<&mut u32> {
        None
    }

    /// Whether the gradient of the output is that of each input as it stands, with nothing to launch.
    fn passes_gradient(&self) -> bool {
        false
    }
}

/// What becomes of an operation where nothing is learned.
pub(super) enum Evaluated {
    /// It is the same.
    Same,
    /// Another one.
    Other(Box<dyn Operation>),
    /// It does nothing: its output is its input.
    Nothing,
}

/// Where an operation stands in one phase.
pub(super) struct Site {
    pub(super) phase: Phase,
    /// Lanes of a batch: images, rounded up to whole blocks.
    pub(super) rows: usize,
    /// Whether launches may be fused.
    pub(super) fuse: bool,
    pub(super) data: Data,
    pub(super) inputs: Vec<Range>,
    pub(super) output: Range,
    pub(super) weights: Option<Weights>,
    pub(super) saved: Option<Range>,
    /// Which filters of a convolution are connected: a word for each pair of channels.
    pub(super) mask: Option<Range>,
    pub(super) ledger: Ledger,
}

/// Where the loss writes what it finds.
#[derive(Clone, Copy)]
pub(super) struct Ledger {
    /// Loss, and 1 if right, of each row of the batch.
    pub(super) rows: Range,
    /// Where many rows become few before they are summed.
    pub(super) sums: Option<Range>,
    /// The metrics ring.
    pub(super) metrics: Range,
    pub(super) probabilities: Range,
}

impl Ledger {
    /// The rows as whoever sums them reads them, and the launch that makes them few.
    pub(super) fn few(&self) -> Result<(Option<Launch>, Range)> {
        match self.sums {
            Some(sums) => Ok((Some(rows::add_rows(self.rows, sums)?), sums)),
            None => Ok((None, self.rows)),
        }
    }

    /// The launches that sum the rows of a batch, `positions` an image, into its record.
    fn sum(&self, positions: usize) -> Result<impl Iterator<Item = Launch>> {
        let (few, rows) = self.few()?;
        let sum = rows::sum_rows(rows.len / 2, positions, rows, self.metrics)?;
        Ok(few.into_iter().chain([sum]))
    }
}

/// The gradients at a site.
pub(super) struct Upstream<'a> {
    /// That of the output; none of the loss, where they begin.
    pub(super) output: Option<Range>,
    /// Those of the inputs, where they are asked for.
    pub(super) inputs: &'a [Option<Range>],
    /// Whether any of the parameters is learned.
    pub(super) learned: bool,
}

impl Upstream<'_> {
    /// The gradient that arrives; the loss never asks.
    fn arrived(&self) -> Result<Range> {
        self.output.ok_or_else(|| Error::Network("no gradient arrives at a layer".into()))
    }
}

/// Where the parameters of an operation and their gradients lie.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    weight: Range,
    bias: Range,
    weight_grad: Range,
    bias_grad: Range,
    /// Mean and variance, where there are any.
    running: [Range; 2],
    /// Of the batch, as the optimizer takes it into them.
    running_grad: [Range; 2],
}

impl Weights {
    /// Those of `tensors`: weight, bias, running mean and variance. Where there is no bias, a spare chunk takes its
    /// gradient.
    pub(super) fn of(tensors: &[Tensor], parameters: Range, gradients: Range) -> Option<Weights> {
        let (weight, bias) = (tensors.first()?, tensors.get(1));
        let spare = Range { buffer: gradients.buffer, start: gradients.len - CHUNK, len: CHUNK };
        let statistics = [2, 3].map(|i| tensors.get(i).unwrap_or(weight));
        Some(Weights {
            running: statistics.map(|tensor| tensor.value(parameters)),
            running_grad: statistics.map(|tensor| tensor.partial_sums(gradients)),
            weight: weight.value(parameters),
            bias: bias.unwrap_or(weight).value(parameters),
            weight_grad: weight.partial_sums(gradients),
            bias_grad: bias.map_or(spare, |bias| bias.partial_sums(gradients)),
        })
    }
}

impl Site {
    /// The only input, or the first.
    fn input(&self) -> Range {
        self.inputs[0]
    }

    /// Where the parameters lie; operations without parameters never ask.
    fn weights(&self) -> Result<Weights> {
        self.weights.ok_or_else(|| Error::Network("a layer's parameters were not placed".into()))
    }

    /// What the backward launches need beside input and output; operations that need nothing never ask.
    fn saved(&self) -> Result<Range> {
        self.saved.ok_or_else(|| Error::Network("what a layer saves was not placed".into()))
    }

    /// The buffers of a layer with weights.
    fn buffers(&self) -> Result<LayerBuffers> {
        let Weights { weight, bias, .. } = self.weights()?;
        Ok(LayerBuffers { input: self.input(), weight, bias, output: self.output })
    }

    /// The gradient that arrives, with those of the parameters.
    fn gradients(&self, upstream: &Upstream<'_>) -> Result<Gradients> {
        let Weights { weight_grad: weight, bias_grad: bias, .. } = self.weights()?;
        Ok(Gradients { output: upstream.arrived()?, weight, bias })
    }
}

/// The launch that makes the gradient of the only input, where it is asked for.
fn of_input(
    gradients: &Upstream<'_>,
    launch: impl FnOnce(Range, Range) -> Result<Launch>,
) -> Result<Vec<Launch>> {
    match gradients.inputs[0] {
        Some(input_grad) => Ok(vec![launch(gradients.arrived()?, input_grad)?]),
        None => Ok(Vec::new()),
    }
}
