//! The list of operations that a network is flattened to, and the launches of each.

use super::fuse::{Fused, Op, fuse};
use super::{Data, Options, Tensor};
use crate::error::{Error, Result};
use crate::kernels::norm::Kind;
use crate::kernels::{CHUNK, Gradients, Launch, LayerBuffers, Range, conv_pool, join, norm, padded, rbf};
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
    /// The names of the layers that it stands for.
    pub(super) layers: Vec<String>,
    /// Its parameters, as places in the plan's tensors.
    pub(super) tensors: std::ops::Range<usize>,
    /// The values that it reads.
    pub(super) inputs: Vec<usize>,
    /// The value that it gives.
    pub(super) output: usize,
    /// What its backward launches need beside input and output.
    pub(super) saved: Option<Range>,
    /// Which filters of a convolution are connected: a word for each pair of channels.
    pub(super) mask: Option<Range>,
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
            let mut layers = vec![block.name.clone()];
            layers.extend((last.name != block.name).then(|| last.name.clone()));
            value = self.add(Fused { op, first: block, last, layers, multiplied: false }, ends);
        }
    }

    fn add(&mut self, fused: Fused<'_>, inputs: Vec<usize>) -> usize {
        let Fused { mut op, first, last, layers, multiplied } = fused;
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
            let frozen = |pattern: &String| super::matches(pattern, &parameter.name);
            let trainable = parameter.learned && !self.options.freeze.iter().any(frozen);
            self.tensors.push(Tensor { parameter: parameter.clone(), offset, gradient, partials, trainable });
            offset += len;
            gradient += len * partials;
        }
        let tensors = start..self.tensors.len();
        let learned = self.tensors[tensors.clone()].iter().any(|tensor| tensor.trainable);
        match &mut op {
            // Counted among its kind, so that fusing other layers does not change what it draws.
            Op::Dropout(g) => {
                let before = self.nodes.iter().filter(|node| matches!(node.op, Op::Dropout(_)));
                g.layer = before.count() as u32;
            }
            // What is frozen whole is not to follow the batches either.
            Op::Norm(g) if g.kind == Kind::Batch && !learned => g.kind = Kind::Running,
            _ => {}
        }
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
        let (saved, mask) = (None, None);
        self.nodes.push(Node { op, name, layers, tensors, inputs, output, saved, mask, multiplied });
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
    /// Mean and variance, where there are any.
    running: [Range; 2],
}

impl Weights {
    /// The first two of `tensors`. Where there is no bias, a spare chunk takes its gradient.
    pub(super) fn of(tensors: &[Tensor], parameters: Range, gradients: Range) -> Option<Weights> {
        let (weight, bias) = (tensors.first()?, tensors.get(1));
        let spare = Range { buffer: gradients.buffer, start: gradients.len - CHUNK, len: CHUNK };
        let running = [2, 3].map(|i| tensors.get(i).unwrap_or(weight).value(parameters));
        Some(Weights {
            running,
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
    pub(super) mask: Option<Range>,
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

    fn norm(&self, w: Weights) -> norm::Buffers {
        let [running_mean, running_variance] = w.running;
        norm::Buffers {
            input: self.inputs[0],
            weight: w.weight,
            bias: w.bias,
            running_mean,
            running_variance,
            saved: self.saved.unwrap_or(w.weight),
            output: self.output,
        }
    }

    fn rbf(&self, w: Weights) -> rbf::Buffers {
        rbf::Buffers { input: self.inputs[0], weight: w.weight, output: self.output }
    }

    /// What each launch of a concatenation takes: neighbouring inputs with the `ranges` that stand for them, up to
    /// [`join::MOST`]. An input without a range separates those before it from those after it.
    fn parts(
        &self,
        ranges: impl Iterator<Item = Option<Range>>,
        rows: usize,
    ) -> Vec<(join::Geometry, Vec<join::Part>)> {
        let total = self.output.len / rows;
        let mut launches: Vec<(join::Geometry, Vec<join::Part>)> = Vec::new();
        // Where the last launch ends, and where the next input begins.
        let (mut end, mut offset) = (0, 0);
        for (input, range) in self.inputs.iter().zip(ranges) {
            let features = input.len / rows;
            if let Some(range) = range {
                let part = join::Part { range, features };
                match launches.last_mut() {
                    Some((_, parts)) if end == offset && parts.len() < join::MOST => parts.push(part),
                    _ => launches.push((join::Geometry { offset, total, batch: rows }, vec![part])),
                }
                end = offset + features;
            }
            offset += features;
        }
        launches
    }

    /// The launches that make the output; `training` says whether a backward pass follows. A batch has `rows` rows.
    pub(super) fn forward(&self, training: bool, rows: usize) -> Result<Vec<Launch>> {
        let (input, output) = (self.inputs[0], self.output);
        let launch = match &self.op {
            Op::Conv2d(g) => g.forward(self.buffers(self.weights()?)),
            Op::Depthwise(g) => g.forward(self.buffers(self.weights()?)),
            Op::ConvPool(g) => g.forward(self.conv_pool(self.weights()?, g)?, training),
            Op::Linear(g) => g.forward(self.buffers(self.weights()?)),
            Op::Rbf(g) => g.forward(self.rbf(self.weights()?)),
            Op::MaxPool(g) => g.max_forward(input, output, self.saved()?),
            Op::AveragePool(g) => g.average_forward(input, output),
            Op::AdaptivePool(g) => g.adaptive_forward(input, output),
            Op::Upsample(g) => g.upsample_forward(input, output),
            Op::LocalResponseNorm(g) => g.forward(input, output),
            Op::Dropout(g) => g.forward(input, output),
            Op::Activation(a) => a.forward(input, output),
            Op::Sum(activation) => join::sum(&self.inputs, *activation, output),
            Op::Norm(g) => {
                let buffers = self.norm(self.weights()?);
                let mut launches = g.statistics(buffers)?;
                launches.push(g.forward(buffers)?);
                return Ok(launches);
            }
            Op::Concat => {
                let launches = self.parts(self.inputs.iter().copied().map(Some), rows).into_iter();
                return launches.map(|(g, parts)| g.concat(&parts, output)).collect();
            }
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
        options: &Options,
        rows: usize,
    ) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        match &self.op {
            Op::Conv2d(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                if learned {
                    launches.push(g.weight_gradient(self.buffers(w), gradients)?);
                    if let Some(mask) = self.mask {
                        launches.push(g.mask_gradient(mask, w.weight_grad)?);
                    }
                }
                if let Some(input_grad) = input_grads[0] {
                    launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                }
            }
            Op::Depthwise(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                if learned {
                    launches.push(g.weight_gradient(self.buffers(w), gradients)?);
                }
                if let Some(input_grad) = input_grads[0] {
                    launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                }
            }
            Op::ConvPool(g) => {
                let w = self.weights()?;
                let buffers = self.conv_pool(w, g)?;
                if learned {
                    launches.push(g.backward(buffers, w.gradients(gradient), input_grads[0])?);
                    if let Some(mask) = self.mask {
                        launches.push(g.conv.mask_gradient(mask, w.weight_grad)?);
                    }
                } else if let Some(input_grad) = input_grads[0] {
                    launches.push(g.input_gradient(buffers, gradient, input_grad)?);
                }
            }
            Op::Linear(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                match input_grads[0] {
                    Some(input_grad) if options.fuse && learned => {
                        launches.push(g.backward(self.buffers(w), gradients, input_grad)?)
                    }
                    input_grad => {
                        if learned {
                            launches.push(g.weight_gradient(self.buffers(w), gradients)?);
                        }
                        if let Some(input_grad) = input_grad {
                            launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                        }
                    }
                }
            }
            Op::Rbf(g) => {
                let w = self.weights()?;
                if learned {
                    launches.push(g.weight_gradient(self.rbf(w), gradient, w.weight_grad)?);
                }
                if let Some(input_grad) = input_grads[0] {
                    launches.push(g.input_gradient(self.rbf(w), gradient, input_grad)?);
                }
            }
            Op::Norm(g) => {
                let w = self.weights()?;
                let (buffers, gradients) = (self.norm(w), w.gradients(gradient));
                // The gradient of what was normalised by the batch goes through the same sums.
                if learned || g.kind == Kind::Batch {
                    launches.push(g.weight_gradient(buffers, gradients)?);
                }
                if let Some(input_grad) = input_grads[0] {
                    launches.push(g.input_gradient(buffers, gradients, input_grad)?);
                }
            }
            // The gradient of a sum is that of each term: there is nothing to launch.
            Op::Sum(_) => {}
            Op::Concat => {
                for (g, parts) in self.parts(input_grads.iter().copied(), rows) {
                    launches.push(g.split(gradient, &parts)?);
                }
            }
            Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::AdaptivePool(_)
            | Op::Upsample(_)
            | Op::LocalResponseNorm(_)
            | Op::Dropout(_)
            | Op::Activation(_) => {
                if let Some(input_grad) = input_grads[0] {
                    launches.push(self.without_parameters(gradient, input_grad)?);
                }
            }
        }
        Ok(launches)
    }

    /// The gradient of the input of an operation that has no parameters.
    fn without_parameters(&self, gradient: Range, input_grad: Range) -> Result<Launch> {
        match &self.op {
            Op::MaxPool(g) => g.max_backward(gradient, self.saved()?, input_grad),
            Op::AveragePool(g) => g.average_backward(gradient, input_grad),
            Op::AdaptivePool(g) => g.adaptive_backward(gradient, input_grad),
            Op::Upsample(g) => g.upsample_backward(gradient, input_grad),
            Op::LocalResponseNorm(g) => g.backward(self.inputs[0], gradient, input_grad),
            Op::Dropout(g) => g.backward(gradient, input_grad),
            Op::Activation(a) => a.backward(self.inputs[0], gradient, input_grad),
            _ => Err(Error::Network("an operation with parameters was taken for one without".into())),
        }
    }
}
