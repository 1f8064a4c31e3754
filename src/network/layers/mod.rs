//! The families of layers, each in a file of its own: settings as the text form has them, name, description, and
//! what each makes of a shape.

mod block;
mod conv;
mod dropout;
mod flatten;
mod linear;
mod norm;
mod pool;
mod rbf;
mod size;
mod upsample;

pub use block::Residual;
pub use conv::{ConnectionTable, Connections, Conv1d, Conv2d, Padding, Padding1d, PaddingName};
pub use linear::Linear;
pub use norm::{BatchNorm, LocalResponseNorm, Scale};
pub use pool::{Pool1d, Pool2d};
pub use rbf::{Rbf, digit_codes};
pub use size::Size;

pub(super) use block::Branches;
pub(super) use dropout::Dropout;
pub(super) use flatten::Flatten;
pub(super) use pool::{AdaptiveAverage, GlobalAverage, Reduction, Windowed, Windowed1d};
pub(super) use upsample::Upsample;

use super::placed::Placing;
use super::{Init, LARGEST, Layer, Parameter, Placed, Shape, reasonable};
use crate::error::{Error, Result};

/// What every kind of layer says of itself.
pub(super) trait Kind {
    /// The name that was given.
    fn given(&self) -> Option<&String> {
        None
    }

    /// What the layer is called, before a number, where no name was given.
    fn title(&self) -> String;

    /// What the layer does, in a few words.
    fn describe(&self) -> String;

    /// Whether the layer has a convolutional form, so that it may be laid over a larger input.
    fn slides(&self) -> bool {
        true
    }

    /// Checks the settings against the input, and works out what the layer gives and holds.
    ///
    /// # Errors
    /// [`Error::Network`] with the layer's name and description, and what does not fit.
    fn place(&self, at: &mut Site<'_>) -> Result<Outcome>;
}

/// What a layer makes of its input.
pub(super) struct Outcome {
    /// What it gives.
    pub output: Shape,
    /// What it holds.
    pub parameters: Vec<Parameter>,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// The sequences inside.
    pub inside: Vec<Vec<Placed>>,
}

impl Outcome {
    /// That of a layer that holds nothing.
    pub fn plain(output: Shape) -> Outcome {
        Outcome { output, parameters: Vec::new(), multiply_adds: 0, inside: Vec::new() }
    }
}

/// The place of a layer in a network while its shapes are worked out.
pub(super) struct Site<'a> {
    /// The layer's name.
    pub name: &'a str,
    /// The layer.
    pub kind: &'a dyn Kind,
    /// What it takes.
    pub input: Shape,
    /// How deep its sequence is nested.
    pub depth: usize,
    /// The network's names and how its parameters start.
    pub placing: &'a mut Placing,
}

impl Site<'_> {
    /// The same place for another kind that does the layer's work.
    fn under<'b>(&'b mut self, kind: &'b dyn Kind) -> Site<'b> {
        Site { name: self.name, kind, input: self.input, depth: self.depth, placing: self.placing }
    }

    /// The error of a layer that does not fit.
    pub fn wrong(&self, what: String) -> Error {
        Error::Network(format!("layer {} ({}): {what}", self.name, self.kind.describe()))
    }

    /// Refuses numbers below `least` or above [`LARGEST`].
    fn within(&self, what: &str, least: usize, numbers: &[usize]) -> Result<()> {
        match numbers.iter().find(|&&n| n < least || n > LARGEST) {
            Some(n) => Err(self.wrong(format!("{what} is {n}, expected {least} to {LARGEST}"))),
            None => Ok(()),
        }
    }

    /// Refuses tensors that are too large.
    fn sized(&self, shape: &[usize]) -> Result<()> {
        if reasonable(shape) { Ok(()) } else { Err(self.wrong("it is too large".into())) }
    }

    /// Refuses inputs of more than one row.
    fn one_row(&self) -> Result<()> {
        match self.input.height {
            1 => Ok(()),
            n => {
                Err(self.wrong(format!("it runs over a series of one row, the input {} has {n}", self.input)))
            }
        }
    }

    /// How a weight of so many inputs starts.
    fn weight_init(&self, fan_in: usize) -> Init {
        self.placing.initialisation.weight(fan_in)
    }

    /// A learned parameter.
    fn parameter(&self, what: &str, shape: Vec<usize>, init: Init) -> Parameter {
        Parameter { name: format!("{}.{what}", self.name), shape, init, learned: true, mask: None }
    }

    /// A weight, and a bias of each output.
    fn parameters(&self, weight: Vec<usize>, bias: bool) -> Vec<Parameter> {
        let fan_in = weight[1..].iter().product();
        let outputs = weight[0];
        let mut list = vec![self.parameter("weight", weight, self.weight_init(fan_in))];
        if bias {
            let init = self.placing.initialisation.bias(fan_in);
            list.push(self.parameter("bias", vec![outputs], init));
        }
        list
    }

    /// Places a sequence inside the layer.
    fn sequence(&mut self, layers: &[Layer]) -> Result<Vec<Placed>> {
        self.placing.sequence(layers, self.input, self.depth + 1)
    }
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}
