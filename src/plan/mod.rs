//! A network compiled to buffers and launches, which a backend replays.
//!
//! [`Plan::new`] flattens the nested sequences into a list of operations, where it looks for layers that one
//! launch can do together; walks the list forward and writes the launches, then backward and writes those of the
//! gradients; the optimizer's launch ends the step. Last, buffers that are never needed at the same time become
//! one. Nothing is decided at run time.

mod compile;
mod form;
mod freeze;
mod fuse;
mod graph;
mod lower;
mod operation;
mod program;
mod reuse;

use crate::error::{Error, Result};
use crate::kernels::augment::Augment;
use crate::kernels::optimizer::{Fault, Kind, Optimizer};
use crate::kernels::{CHUNK, LANES, Range, blocks, padded};
use crate::network::{Network, Parameter};

pub use crate::kernels::{BufferId, Target};
pub use form::Form;
pub use freeze::matches;
pub use program::{Buffer, Data, Memory, Phase, Program};

/// A parameter and where it lies.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name, shape and fan-in.
    pub parameter: Parameter,
    /// Where it lies in the parameters and the moments, in floats.
    pub offset: usize,
    /// Where its gradient lies, in floats; the partial sums after the first follow it.
    pub gradient: usize,
    /// Partial sums of its gradient.
    pub partials: usize,
    /// Whether the optimizer updates it.
    pub trainable: bool,
    /// Of a running statistic that follows the batches: the share of a new one.
    pub share: Option<f32>,
}

impl Tensor {
    /// Elements.
    pub fn len(&self) -> usize {
        self.parameter.len()
    }

    /// Whether there are none; a plan's tensors never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where its values lie in the flat parameters.
    fn value(&self, parameters: Range) -> Range {
        Range { buffer: parameters.buffer, start: self.offset, len: padded(self.len()) }
    }

    /// Where the partial sums of its gradient lie in the flat gradients.
    fn partial_sums(&self, gradients: Range) -> Range {
        Range { buffer: gradients.buffer, start: self.gradient, len: padded(self.len()) * self.partials }
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Images in a batch.
    pub batch: usize,
    /// The update rule.
    pub optimizer: Optimizer,
    /// The norm that the gradient is clipped to, if it is.
    pub clip: Option<f32>,
    /// Patterns of names whose parameters are not trained; see [`crate::plan::matches`].
    pub freeze: Vec<String>,
    /// Label smoothing of the training; evaluation has none.
    pub smoothing: f32,
    /// Images of the training data.
    pub train_images: usize,
    /// Images of the evaluation data.
    pub eval_images: usize,
    /// Whether data sets are streamed, and in how many steps' pictures at a time: their buffers then hold two such
    /// parts. Without, they lie on the device as a whole. The bits of a run are the same.
    pub stream: Option<usize>,
    /// How the training pictures are distorted.
    pub augment: Augment,
    /// How a training step is cut into launches.
    pub form: Form,
    /// Whether layers are fused into common launches; without, each layer has its own.
    pub fuse: bool,
    /// Whether buffers that are never needed at the same time are one. Without, every layer's values and gradients
    /// can be read after a step.
    pub reuse: bool,
    /// What the device is like for which tiles and splits are chosen; see
    /// [`gpu::Device::target`](crate::backend::gpu::Device::target).
    pub target: Target,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch: 128,
            optimizer: Optimizer::default(),
            clip: None,
            freeze: Vec::new(),
            smoothing: 0.0,
            train_images: 1,
            eval_images: 1,
            stream: None,
            augment: Augment::NONE,
            form: Form::Layers,
            fuse: true,
            reuse: true,
            target: Target::CPU,
        }
    }
}

/// A network compiled for one batch size and one optimizer.
#[derive(Debug)]
pub struct Plan {
    /// The network.
    pub network: Network,
    /// What the plan was made for.
    pub options: Options,
    /// Places of an image that have a label: 1, or every pixel of the last layer's output.
    pub positions: usize,
    /// The buffers and launches.
    pub program: Program,
    /// Bytes of all buffers if none shared its memory with others.
    pub unshared: u64,
    /// Every parameter, in the network's order.
    pub tensors: Vec<Tensor>,
    /// All parameters.
    pub parameters: Range,
    /// All gradients with their partial sums.
    pub gradients: Range,
    /// The optimizer's first moment (momentum).
    pub moment1: Range,
    /// The optimizer's second moment (mean square).
    pub moment2: Range,
    /// The metrics ring: [`RING`] records of [`RECORD`](crate::kernels::loss::RECORD) words; behind them the status.
    pub metrics: Range,
    /// The number of the step that was not finite, or 0: after it, no step changes anything.
    pub status: Range,
    /// The training data.
    pub train_data: Data,
    /// The evaluation data.
    pub eval_data: Data,
    /// The pictures of [`Phase::Predict`], one batch.
    pub predict_data: Data,
    /// The last layer's output.
    pub logits: Range,
    /// Their softmax, written by [`Phase::Predict`].
    pub probabilities: Range,
    /// The images of a batch as the first layer sees them.
    pub images: Range,
    /// Each layer's output and, where it has one, its gradient, for whoever wants to look: meaningful after a step
    /// if the plan was made without [`Options::reuse`].
    pub activations: Vec<(String, Range, Option<Range>)>,
}

/// Images that a batch can hold at most.
pub const LARGEST_BATCH: usize = 65_536;

/// Steps of streamed data that are brought to the device at once, where there is room for them.
pub const STREAMED: usize = 64;

/// Records in the metrics ring.
pub const RING: usize = 1024;

impl Plan {
    /// Compiles `network`.
    ///
    /// # Errors
    /// [`Error::Network`] when it contradicts itself, [`Error::Settings`] when an option is out of range,
    /// [`Error::Limit`] when a launch or a buffer would outgrow what WebGPU can address, with the largest batch
    /// that would not.
    pub fn new(network: &Network, options: &Options) -> Result<Plan> {
        Plan::within(network, options, Memory::UNBOUNDED)
    }

    /// Compiles `network` for a device that holds so much; nothing is allocated. Data sets that do not fit are streamed,
    /// unless [`Options::stream`] says how they are anyway.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Limit`] also when the buffers need more than the device holds.
    pub fn within(network: &Network, options: &Options, memory: Memory) -> Result<Plan> {
        let fitting = |options: &Options| {
            compile::compile(network, options).and_then(|plan| plan.program.fits(memory).map(|()| plan))
        };
        // As many steps at a time as there is room for.
        let streams: &[usize] = if options.stream.is_none() { &[STREAMED, 8, 1] } else { &[] };
        let mut made = fitting(options);
        for &steps in streams {
            if !matches!(made, Err(Error::Limit { .. })) {
                break;
            }
            made = fitting(&Options { stream: Some(steps), ..options.clone() });
        }
        let Err(Error::Limit { what, needed, allowed }) = made else { return made };
        let batch = options.batch;
        let largest = match Plan::largest_batch(network, options, memory)? {
            Some(most) if most >= batch => return Err(Error::Limit { what, needed, allowed }),
            Some(most) => format!("the largest that does is {most}"),
            None => "not even one image does".into(),
        };
        Err(Error::Limit { what: format!("batch {batch} does not fit ({largest}): {what}"), needed, allowed })
    }

    /// The largest batch for which a plan, all else equal, fits a device that holds so much; none where not even
    /// one image does. Nothing is allocated.
    ///
    /// # Errors
    /// What [`Plan::new`] finds wrong whatever the batch.
    pub fn largest_batch(network: &Network, options: &Options, memory: Memory) -> Result<Option<usize>> {
        // Where the whole sets fit, so do parts of them.
        let stream = options.stream.or(Some(1));
        let fits = |batch| {
            let options = Options { batch, stream, ..options.clone() };
            match compile::compile(network, &options).and_then(|plan| plan.program.fits(memory)) {
                Ok(()) => Ok(true),
                Err(Error::Limit { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        // What fits grows with the batch: bisection between one that fits and one that does not.
        let (mut good, mut bad) = (0, LARGEST_BATCH + 1);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle)? { good = middle } else { bad = middle }
        }
        Ok((good > 0).then_some(good))
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.outputs() / self.positions
    }

    /// Logits of an image, at all places: classes, where each image has one label.
    pub fn outputs(&self) -> usize {
        self.probabilities.len / (blocks(self.options.batch) * LANES)
    }

    /// What a step's record says was not finite, in words.
    pub fn fault(&self, record: &[u32]) -> Option<String> {
        let Fault { kind, chunk } = Fault::of(record[3])?;
        let tensor = self.tensors.iter().rev().find(|tensor| tensor.offset <= chunk * CHUNK);
        let name = tensor.map_or("a parameter", |tensor| &tensor.parameter.name);
        Some(match kind {
            Kind::Loss => "the loss".into(),
            Kind::Gradient if tensor.is_some_and(|tensor| tensor.share.is_some()) => {
                format!("the batch's part of {name}")
            }
            Kind::Gradient => format!("the gradient of {name}"),
            Kind::Norm => "the norm of the gradient".into(),
            Kind::Moment => format!("a moment of {name}"),
            Kind::Parameter => name.into(),
            Kind::Earlier => "something before".into(),
        })
    }

    /// The tensors' values out of the flat parameters (or moments), by name and shape.
    pub fn split<'a>(&'a self, flat: &'a [f32]) -> impl Iterator<Item = (&'a Parameter, &'a [f32])> {
        self.tensors.iter().map(|tensor| (&tensor.parameter, &flat[tensor.offset..][..tensor.len()]))
    }

    /// The tensors' gradients out of the flat gradients, by name and shape; whole after a step.
    pub fn split_gradients<'a>(
        &'a self,
        flat: &'a [f32],
    ) -> impl Iterator<Item = (&'a Parameter, &'a [f32])> {
        self.tensors.iter().map(|tensor| (&tensor.parameter, &flat[tensor.gradient..][..tensor.len()]))
    }

    /// The flat parameters (or moments) of values in the tensors' order. Filters of pairs of channels that are not
    /// connected become 0.
    ///
    /// # Errors
    /// [`Error::Settings`] when a length differs, which a checked weights file never does.
    pub fn join<'a>(&self, values: impl IntoIterator<Item = &'a [f32]>) -> Result<Vec<f32>> {
        let mut flat = vec![0.0; self.parameters.len];
        let mut values = values.into_iter();
        for tensor in &self.tensors {
            match values.next() {
                Some(values) if values.len() == tensor.len() => {
                    let own = &mut flat[tensor.offset..][..tensor.len()];
                    own.copy_from_slice(values);
                    tensor.parameter.disconnect(own);
                }
                other => {
                    return Err(Error::Settings(format!(
                        "{} has {} values, expected {}",
                        tensor.parameter.name,
                        other.map_or(0, <[f32]>::len),
                        tensor.len()
                    )));
                }
            }
        }
        Ok(flat)
    }
}

/// Elements of an activation in memory, as rows of features: `[n][feature]` for the first `count` images.
pub fn to_rows(blocked: &[f32], features: usize, count: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(count * features);
    for n in 0..count {
        let start = n / LANES * features * LANES + n % LANES;
        rows.extend((0..features).map(|feature| blocked[start + feature * LANES]));
    }
    rows
}
