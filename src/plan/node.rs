//! The list of operations that a network is flattened to, and the launches of each.

use super::fuse::{Fused, Op, fuse};
use super::{Data, Options, Tensor};
use crate::error::{Error, Result};
use crate::kernels::{CHUNK, Gradients, Launch, LayerBuffers, Range, conv_pool, join, padded};
use crate::network::{Activation, Layer, Placed};

/// What flows between two operations.
pub(super) struct Value {
    /// The name of the layer that gives it.
    pub(super) name: String,
    /// Elements of one image.
    pub(super) features: usize,
    /// Whether a parameter before it is learned, so that its gradient is needed.
    pub(super) learns: bool,
    /// Operations that read it.
    pub(super) readers: usize,
}

/// An operation between values.
pub(super) struct Node {
    pub(super) op: Op,
    /// The name of the layer that has the parameters.
    pub(super) name: String,
    /// Its parameters, as places in the plan's tensors.
    pub(super) tensors: std::ops::Range<usize>,
    /// The values that it reads.
    pub(super) inputs: Vec<usize>,
    /// The value that it gives.
    pub(super) output: usize,
    /// What its backward launches need beside input and output.
    pub(super) saved: Option<Range>,
    /// Whether its reader multiplies the gradient by the derivative of its activation.
    pub(super) multiplied: bool,
}

/// A network as a list.
pub(super) struct Graph<'a> {
    options: &'a Options,
    pub(super) values: Vec<Value>,
    pub(super) nodes: Vec<Node>,
    pub(super) tensors: Vec<Tensor>,
    /// The value that is the logits.
    pub(super) output: usize,
}

impl<'a> Graph<'a> {
    /// Flattens `layers`; the first value is the images, of so many elements.
    pub(super) fn new(layers: &[Placed], features: usize, options: &'a Options) -> Graph<'a> {
        let images = Value { name: "images".into(), features, learns: false, readers: 0 };
        let mut graph =
            Graph { options, values: vec![images], nodes: Vec::new(), tensors: Vec::new(), output: 0 };
        graph.output = graph.sequence(layers, 0);
        graph
    }

    /// The value that a sequence makes of another.
    fn sequence(&mut self, layers: &[Placed], mut value: usize) -> usize {
        let mut rest = layers;
        loop {
            let plain = rest.iter().position(|layer| !layer.inside.is_empty()).unwrap_or(rest.len());
            for fused in fuse(&rest[..plain], self.options) {
                value = self.add(fused, vec![value]);
            }
            let Some(block) = rest.get(plain) else { return value };
            rest = &rest[plain + 1..];
            let ends: Vec<usize> =
                block.inside.iter().map(|sequence| self.sequence(sequence, value)).collect();
            let mut last = block;
            let op = if matches!(block.layer, Layer::Residual(_)) {
                let mut activation = None;
                if let [next, others @ ..] = rest
                    && let Some(by_value) = by_value(next).filter(|_| self.options.fuse)
                {
                    (activation, last, rest) = (Some(by_value), next, others);
                }
                Op::Sum(activation)
            } else {
                Op::Concat
            };
            value = self.add(Fused { op, first: block, last, multiplied: false }, ends);
        }
    }

    fn add(&mut self, fused: Fused<'_>, inputs: Vec<usize>) -> usize {
        let Fused { op, first, last, multiplied } = fused;
        let start = self.tensors.len();
        let (mut offset, mut gradient) = match self.tensors.last() {
            Some(tensor) => {
                let len = padded(tensor.len());
                (tensor.offset + len, tensor.gradient + len * tensor.partials)
            }
            None => (0, 0),
        };
        for parameter in &first.parameters {
            let partials = if parameter.learned { op.splits() } else { 1 };
            let len = padded(parameter.len());
            let trainable = parameter.learned;
            self.tensors.push(Tensor { parameter: parameter.clone(), offset, gradient, partials, trainable });
            offset += len;
            gradient += len * partials;
        }
        let tensors = start..self.tensors.len();
        let learned = self.tensors[tensors.clone()].iter().any(|tensor| tensor.trainable);
        for &input in &inputs {
            self.values[input].readers += 1;
        }
        let output = self.values.len();
        self.values.push(Value {
            name: last.name.clone(),
            features: last.output.len(),
            learns: learned || inputs.iter().any(|&input| self.values[input].learns),
            readers: 0,
        });
        let name = first.name.clone();
        self.nodes.push(Node { op, name, tensors, inputs, output, saved: None, multiplied });
        output
    }
}

/// The activation that a layer is, if a launch can end with it.
pub(super) fn by_value(layer: &Placed) -> Option<Activation> {
    match layer.layer {
        Layer::Activation(activation) if activation.by_value() => Some(activation),
        _ => None,
    }
}

/// Where a node's parameters and their gradients lie.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    weight: Range,
    bias: Range,
    weight_grad: Range,
    bias_grad: Range,
}

impl Weights {
    /// The first two of `tensors`. Where there is no bias, a spare chunk takes its gradient.
    pub(super) fn of(tensors: &[Tensor], parameters: Range, gradients: Range) -> Option<Weights> {
        let (weight, bias) = (tensors.first()?, tensors.get(1));
        let spare = Range { buffer: gradients.buffer, start: gradients.len - CHUNK, len: CHUNK };
        Some(Weights {
            weight: weight.value(parameters),
            bias: bias.unwrap_or(weight).value(parameters),
            weight_grad: weight.partial_sums(gradients),
            bias_grad: bias.map_or(spare, |bias| bias.partial_sums(gradients)),
        })
    }

    /// Beside the gradient that arrives.
    fn gradients(&self, output: Range) -> Gradients {
        Gradients { output, weight: self.weight_grad, bias: self.bias_grad }
    }
}

/// A node with the ranges of one phase.
pub(super) struct Bound {
    pub(super) op: Op,
    pub(super) data: Data,
    pub(super) inputs: Vec<Range>,
    pub(super) output: Range,
    pub(super) weights: Option<Weights>,
    pub(super) saved: Option<Range>,
}

impl Bound {
    /// Where the parameters lie; operations without parameters never ask.
    fn weights(&self) -> Result<Weights> {
        self.weights.ok_or_else(|| Error::Network("a layer's parameters were not placed".into()))
    }

    /// What the backward launches need beside input and output; operations that need nothing never ask.
    fn saved(&self) -> Result<Range> {
        self.saved.ok_or_else(|| Error::Network("what a layer saves was not placed".into()))
    }

    fn buffers(&self, w: Weights) -> LayerBuffers {
        LayerBuffers { input: self.inputs[0], weight: w.weight, bias: w.bias, output: self.output }
    }

    fn conv_pool(&self, w: Weights, g: &conv_pool::Geometry) -> Result<conv_pool::Buffers> {
        Ok(conv_pool::Buffers {
            input: if g.gather.is_some() { self.data.images } else { self.inputs[0] },
            order: self.data.order,
            weight: w.weight,
            bias: w.bias,
            output: self.output,
            saved: self.saved()?,
        })
    }

    /// The launches that make the output; `training` says whether a backward pass follows.
    pub(super) fn forward(&self, training: bool) -> Result<Vec<Launch>> {
        let (input, output) = (self.inputs[0], self.output);
        let launch = match &self.op {
            Op::Conv2d(g) => g.forward(self.buffers(self.weights()?)),
            Op::ConvPool(g) => g.forward(self.conv_pool(self.weights()?, g)?, training),
            Op::Linear(g) => g.forward(self.buffers(self.weights()?)),
            Op::MaxPool(g) => g.max_forward(input, output, self.saved()?),
            Op::AveragePool(g) => g.average_forward(input, output),
            Op::Activation(a) => a.forward(input, output),
            Op::Sum(activation) => join::sum(&self.inputs, *activation, output),
            Op::Concat => todo!(),
        };
        Ok(vec![launch?])
    }

    /// The launches that take the gradient of the output to those of the weights, if they are `learned`, and of
    /// those inputs that have a range for it.
    pub(super) fn backward(
        &self,
        gradient: Range,
        input_grads: &[Option<Range>],
        learned: bool,
        fuse: bool,
    ) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        let input_grad = input_grads[0];
        match &self.op {
            Op::Conv2d(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                if learned {
                    launches.push(g.weight_gradient(self.buffers(w), gradients)?);
                }
                if let Some(input_grad) = input_grad {
                    launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                }
            }
            Op::ConvPool(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                launches.push(g.backward(self.conv_pool(w, g)?, gradients, input_grad)?);
            }
            Op::Linear(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                match input_grad {
                    Some(input_grad) if fuse && learned => {
                        launches.push(g.backward(self.buffers(w), gradients, input_grad)?)
                    }
                    _ => {
                        if learned {
                            launches.push(g.weight_gradient(self.buffers(w), gradients)?);
                        }
                        if let Some(input_grad) = input_grad {
                            launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                        }
                    }
                }
            }
            Op::MaxPool(g) => {
                if let Some(input_grad) = input_grad {
                    launches.push(g.max_backward(gradient, self.saved()?, input_grad)?);
                }
            }
            Op::AveragePool(g) => {
                if let Some(input_grad) = input_grad {
                    launches.push(g.average_backward(gradient, input_grad)?);
                }
            }
            Op::Activation(a) => {
                if let Some(input_grad) = input_grad {
                    launches.push(a.backward(self.inputs[0], gradient, input_grad)?);
                }
            }
            // The gradient of a sum is that of each term: there is nothing to launch.
            Op::Sum(_) => {}
            Op::Concat => todo!(),
        }
        Ok(launches)
    }
}
