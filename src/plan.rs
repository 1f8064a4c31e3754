//! A network compiled to buffers and launches, which a backend replays.
//!
//! [`Plan::new`] walks the layers forward and writes their launches, then backward and writes the launches of
//! their gradients; the optimizer's launch ends the step. Nothing is decided at run time.

use crate::error::{Error, Result};
use crate::kernels::optimizer::{self, Optimizer, Rule, Segment};
use crate::kernels::{CHUNK, LANES, Launch, Range, batch, blocks, conv2d, linear, loss, padded, pool2d};
use crate::network::{Layer, Network, Parameter, Placed};

/// A buffer of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferId(pub usize);

/// A buffer, before a backend makes it.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// What it holds, for messages and debuggers.
    pub name: String,
    /// Its length in 4-byte words.
    pub len: usize,
    /// Its first content; zeros where there is none.
    pub content: Option<Vec<u32>>,
}

/// The launches of one kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Forward, backward, update: one optimizer step on the training data.
    Train,
    /// Forward and metrics on the evaluation data.
    Evaluate,
    /// Forward and probabilities of the pictures that were handed in.
    Predict,
}

/// A data set's buffers.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Packed pixels, four a word.
    pub images: Range,
    /// One word an image.
    pub labels: Range,
    /// The order in which images are taken.
    pub order: Range,
}

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
}

/// What a plan is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Images in a batch.
    pub batch: usize,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Label smoothing.
    pub smoothing: f32,
    /// Images of the training data.
    pub train_images: usize,
    /// Images of the evaluation data.
    pub eval_images: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch: 128,
            optimizer: Optimizer::default(),
            smoothing: 0.0,
            train_images: 1,
            eval_images: 1,
        }
    }
}

/// What a backend needs of a plan: its buffers, and the launches over them.
#[derive(Debug, Default)]
pub struct Program {
    /// Every buffer; a [`BufferId`] is a place in this list.
    pub buffers: Vec<Buffer>,
    /// Launches of [`Phase::Train`].
    pub train: Vec<Launch>,
    /// Launches of [`Phase::Evaluate`].
    pub evaluate: Vec<Launch>,
    /// Launches of [`Phase::Predict`].
    pub predict: Vec<Launch>,
}

impl Program {
    /// The launches of a phase.
    pub fn launches(&self, phase: Phase) -> &[Launch] {
        match phase {
            Phase::Train => &self.train,
            Phase::Evaluate => &self.evaluate,
            Phase::Predict => &self.predict,
        }
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| 4 * buffer.len as u64).sum()
    }

    /// Adds a buffer of zeros, and gives the range that is all of it.
    pub fn add(&mut self, name: impl Into<String>, len: usize) -> Range {
        let buffer = BufferId(self.buffers.len());
        // A binding must not be empty.
        let len = len.max(1);
        self.buffers.push(Buffer { name: name.into(), len: padded(len), content: None });
        Range { buffer, start: 0, len }
    }

    fn add_data(&mut self, name: &str, images: usize, pixels: usize) -> Data {
        let order = self.add(format!("{name}.order"), images);
        self.buffers[order.buffer.0].content = Some((0..images as u32).collect());
        Data {
            images: self.add(format!("{name}.images"), (images * pixels).div_ceil(4)),
            labels: self.add(format!("{name}.labels"), images),
            order,
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
    /// The buffers and launches.
    pub program: Program,
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
    /// The metrics ring: [`RING`] records of [`loss::RECORD`] words.
    pub metrics: Range,
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
    /// Each layer's output and, where it has one, its gradient, for whoever wants to look.
    pub activations: Vec<(String, Range, Option<Range>)>,
}

/// Records in the metrics ring.
pub const RING: usize = 1024;

/// A layer with its buffers.
struct Node {
    op: Op,
    input: Range,
    output: Range,
}

enum Op {
    Conv2d(conv2d::Geometry, Weights),
    Linear(linear::Geometry, Weights),
    MaxPool(pool2d::Geometry, Range),
    AveragePool(pool2d::Geometry),
    Activation(crate::network::Activation),
}

/// Where a layer's parameters and their gradients lie.
#[derive(Clone, Copy)]
struct Weights {
    weight: Range,
    bias: Range,
    weight_grad: Range,
    bias_grad: Range,
}

impl Plan {
    /// Compiles `network`.
    ///
    /// # Errors
    /// [`Error::Network`] when it contradicts itself, [`Error::Settings`] when an option is out of range,
    /// [`Error::Limit`] when a launch or a buffer would outgrow what WebGPU can address.
    pub fn new(network: &Network, options: &Options) -> Result<Plan> {
        let placed = network.place()?;
        options.optimizer.check()?;
        let Options { batch, smoothing, train_images, eval_images, .. } = *options;
        if batch == 0 || batch > 65_536 {
            return Err(Error::Settings(format!("batch is {batch}, expected 1 to 65536")));
        }
        if !(0.0..1.0).contains(&smoothing) {
            return Err(Error::Settings(format!(
                "label smoothing is {smoothing}, expected 0 ≤ smoothing < 1"
            )));
        }
        let rows = blocks(batch) * LANES;
        let last = placed.last().ok_or_else(|| Error::Network("there are no layers".into()))?;
        let classes = last.output.len();
        if classes < 2 {
            return Err(Error::Network(format!(
                "the last layer {} gives one logit; two classes need two",
                last.name
            )));
        }
        for (what, len) in placed
            .iter()
            .map(|layer| (format!("the output of {}", layer.name), layer.output.len() * rows))
            .chain([("the input".to_string(), network.input_shape().len() * rows)])
        {
            // Shaders index with 32 bits.
            if len > u32::MAX as usize / 4 {
                return Err(Error::Limit {
                    what: format!("{what} at batch {batch}"),
                    needed: 4 * len as u64,
                    allowed: u64::from(u32::MAX),
                });
            }
        }

        let mut program = Program::default();
        let input = network.input;
        let pixels = input.channels * input.height * input.width;
        let train_data = program.add_data("train", train_images, pixels);
        let eval_data = program.add_data("eval", eval_images, pixels);
        let predict_data = program.add_data("predict", batch, pixels);
        let metrics = program.add("metrics", RING * loss::RECORD);
        let row_results = program.add("rows", 2 * rows);
        let images = program.add("images", network.input_shape().len() * rows);

        let tensors = lay_out(&placed, batch);
        let parameters = program.add("parameters", tensors.iter().map(|tensor| padded(tensor.len())).sum());
        let gradient_len: usize = tensors.iter().map(|tensor| tensor.partials * padded(tensor.len())).sum();
        // One chunk more, for layers without a bias to bind.
        let gradients = program.add("gradients", gradient_len + CHUNK);
        let moments = match options.optimizer.rule {
            Rule::Sgd => [false, false],
            Rule::Momentum | Rule::Nesterov => [true, false],
            Rule::Rmsprop | Rule::Adam | Rule::Adamw => [true, true],
        };
        let moment1 = program.add("moment1", if moments[0] { parameters.len } else { 0 });
        let moment2 = program.add("moment2", if moments[1] { parameters.len } else { 0 });
        let segments = program.add("segments", parameters.len / CHUNK * size_of::<Segment>() / 4);
        program.buffers[segments.buffer.0].content = Some(segment_table(&tensors));

        let mut nodes = Vec::new();
        let mut activations = Vec::new();
        let mut value = images;
        for layer in &placed {
            let weights = layer.parameters.first().and_then(|first| {
                let at = tensors.iter().position(|tensor| tensor.parameter.name == first.name)?;
                Some(weights(&tensors, at, layer.parameters.len() > 1, parameters, gradients))
            });
            let Some(op) = operation(layer, weights, batch, &mut program) else { continue };
            let output = program.add(layer.name.clone(), layer.output.len() * rows);
            nodes.push(Node { op, input: value, output });
            activations.push((layer.name.clone(), output, None));
            value = output;
        }
        let logits = value;
        let probabilities = program.add("probabilities", classes * rows);

        let gather = |data: Data| {
            let geometry = batch::Geometry {
                channels: input.channels,
                height: input.height,
                width: input.width,
                pad: input.pad,
                mean: input.mean,
                deviation: input.deviation,
                batch,
            };
            geometry.gather(batch::Buffers { images: data.images, order: data.order, output: images })
        };
        let forward = nodes.iter().map(Node::forward).collect::<Result<Vec<Launch>>>()?;
        let geometry = loss::Geometry { classes, smoothing, batch };
        let loss_buffers =
            |data: Data| loss::Buffers { logits, labels: data.labels, order: data.order, rows: row_results };

        let mut train = vec![gather(train_data)?];
        train.extend(forward.iter().cloned());
        let mut gradient = program.add("logits.grad", classes * rows);
        train.push(geometry.cross_entropy_gradient(loss_buffers(train_data), gradient)?);
        train.push(geometry.sum_rows(row_results, metrics)?);
        for (i, node) in nodes.iter().enumerate().rev() {
            activations[i].2 = Some(gradient);
            // Nothing before the first layer with parameters is learned.
            let learns_before =
                nodes[..i].iter().any(|node| matches!(node.op, Op::Conv2d(..) | Op::Linear(..)));
            let input_grad = learns_before.then(|| {
                program.add(format!("{}.grad", program.buffers[node.input.buffer.0].name), node.input.len)
            });
            train.extend(node.backward(gradient, input_grad)?);
            let Some(input_grad) = input_grad else { break };
            gradient = input_grad;
        }
        train.push(options.optimizer.launch(optimizer::Buffers {
            parameters,
            gradients,
            moment1,
            moment2,
            segments,
            metrics,
        })?);

        let mut evaluate = vec![gather(eval_data)?];
        evaluate.extend(forward.iter().cloned());
        evaluate.push(geometry.cross_entropy(loss_buffers(eval_data))?);
        evaluate.push(geometry.sum_rows(row_results, metrics)?);

        let mut predict = vec![gather(predict_data)?];
        predict.extend(forward);
        predict.push(geometry.softmax(logits, probabilities)?);

        Ok(Plan {
            network: network.clone(),
            options: options.clone(),
            program: Program { buffers: program.buffers, train, evaluate, predict },
            tensors,
            parameters,
            gradients,
            moment1,
            moment2,
            metrics,
            train_data,
            eval_data,
            predict_data,
            logits,
            probabilities,
            images,
            activations,
        })
    }

    /// Logits of an image, that is classes.
    pub fn classes(&self) -> usize {
        self.probabilities.len / (blocks(self.options.batch) * LANES)
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

    /// The flat parameters (or moments) of values in the tensors' order.
    ///
    /// # Errors
    /// [`Error::Settings`] when a length differs, which a checked weights file never does.
    pub fn join<'a>(&self, values: impl IntoIterator<Item = &'a [f32]>) -> Result<Vec<f32>> {
        let mut flat = vec![0.0; self.parameters.len];
        let mut values = values.into_iter();
        for tensor in &self.tensors {
            match values.next() {
                Some(values) if values.len() == tensor.len() => {
                    flat[tensor.offset..][..tensor.len()].copy_from_slice(values);
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

/// Places every parameter and its gradient.
fn lay_out(placed: &[Placed], batch: usize) -> Vec<Tensor> {
    let (mut offset, mut gradient) = (0, 0);
    let mut tensors = Vec::new();
    for layer in placed {
        let partials = match &layer.layer {
            Layer::Conv2d(_) => conv_geometry(layer, batch).map_or(1, |g| g.splits()),
            Layer::Linear(_) => linear_geometry(layer, batch).map_or(1, |g| g.splits()),
            _ => 1,
        };
        for parameter in &layer.parameters {
            let len = padded(parameter.len());
            tensors.push(Tensor {
                parameter: parameter.clone(),
                offset,
                gradient,
                partials,
                trainable: true,
            });
            offset += len;
            gradient += len * partials;
        }
    }
    tensors
}

fn segment_table(tensors: &[Tensor]) -> Vec<u32> {
    let mut table = Vec::new();
    for tensor in tensors {
        let len = padded(tensor.len());
        for chunk in 0..len / CHUNK {
            table.push(Segment {
                first: ((tensor.gradient + chunk * CHUNK) / 4) as u32,
                stride: (len / 4) as u32,
                partials: tensor.partials as u32,
                trainable: u32::from(tensor.trainable),
            });
        }
    }
    bytemuck::cast_slice(&table).to_vec()
}

fn weights(tensors: &[Tensor], at: usize, bias: bool, parameters: Range, gradients: Range) -> Weights {
    let value = |tensor: &Tensor| Range {
        buffer: parameters.buffer,
        start: tensor.offset,
        len: padded(tensor.len()),
    };
    let gradient = |tensor: &Tensor| Range {
        buffer: gradients.buffer,
        start: tensor.gradient,
        len: padded(tensor.len()) * tensor.partials,
    };
    let weight = value(&tensors[at]);
    let spare = Range { buffer: gradients.buffer, start: gradients.len - CHUNK, len: CHUNK };
    Weights {
        weight,
        bias: if bias { value(&tensors[at + 1]) } else { weight },
        weight_grad: gradient(&tensors[at]),
        bias_grad: if bias { gradient(&tensors[at + 1]) } else { spare },
    }
}

fn conv_geometry(layer: &Placed, batch: usize) -> Option<conv2d::Geometry> {
    let Layer::Conv2d(c) = &layer.layer else { return None };
    Some(conv2d::Geometry {
        in_channels: layer.input.channels,
        in_size: [layer.input.height, layer.input.width],
        out_channels: layer.output.channels,
        out_size: [layer.output.height, layer.output.width],
        kernel: c.kernel.0,
        stride: c.stride.0,
        pad: c.padding.0,
        dilation: c.dilation.0,
        groups: c.groups,
        bias: c.bias,
        batch,
    })
}

fn linear_geometry(layer: &Placed, batch: usize) -> Option<linear::Geometry> {
    let Layer::Linear(l) = &layer.layer else { return None };
    Some(linear::Geometry {
        inputs: layer.input.len(),
        outputs: l.outputs,
        bias: l.bias,
        activation: None,
        input_activation: None,
        batch,
    })
}

/// The operation of a layer, or none where it only renames dimensions.
fn operation(layer: &Placed, weights: Option<Weights>, batch: usize, program: &mut Program) -> Option<Op> {
    let pool = |p: &crate::network::Pool2d| pool2d::Geometry {
        channels: layer.input.channels,
        in_size: [layer.input.height, layer.input.width],
        out_size: [layer.output.height, layer.output.width],
        kernel: p.kernel.0,
        stride: p.stride.unwrap_or(p.kernel).0,
        pad: p.padding.0,
        count_pad: p.count_padding,
        batch,
    };
    match &layer.layer {
        Layer::Conv2d(_) => Some(Op::Conv2d(conv_geometry(layer, batch)?, weights?)),
        Layer::Linear(_) => Some(Op::Linear(linear_geometry(layer, batch)?, weights?)),
        Layer::MaxPool2d(p) => {
            let winner =
                program.add(format!("{}.winner", layer.name), layer.output.len() * blocks(batch) * LANES);
            Some(Op::MaxPool(pool(p), winner))
        }
        Layer::AveragePool2d(p) => Some(Op::AveragePool(pool(p))),
        Layer::Activation(a) => Some(Op::Activation(*a)),
        Layer::Flatten => None,
    }
}

impl Node {
    fn forward(&self) -> Result<Launch> {
        let (input, output) = (self.input, self.output);
        match &self.op {
            Op::Conv2d(g, w) => g.forward(conv2d::Buffers { input, weight: w.weight, bias: w.bias, output }),
            Op::Linear(g, w) => g.forward(linear::Buffers { input, weight: w.weight, bias: w.bias, output }),
            Op::MaxPool(g, winner) => g.max_forward(input, output, *winner),
            Op::AveragePool(g) => g.average_forward(input, output),
            Op::Activation(a) => a.forward(input, output),
        }
    }

    fn backward(&self, gradient: Range, input_grad: Option<Range>) -> Result<Vec<Launch>> {
        let (input, output) = (self.input, self.output);
        let mut launches = Vec::new();
        match &self.op {
            Op::Conv2d(g, w) => {
                let buffers = conv2d::Buffers { input, weight: w.weight, bias: w.bias, output };
                let gradients =
                    conv2d::Gradients { output: gradient, weight: w.weight_grad, bias: w.bias_grad };
                launches.push(g.weight_gradient(buffers, gradients)?);
                if let Some(input_grad) = input_grad {
                    launches.push(g.input_gradient(buffers, gradients, input_grad)?);
                }
            }
            Op::Linear(g, w) => {
                let buffers = linear::Buffers { input, weight: w.weight, bias: w.bias, output };
                let gradients =
                    linear::Gradients { output: gradient, weight: w.weight_grad, bias: w.bias_grad };
                launches.push(g.weight_gradient(buffers, gradients)?);
                if let Some(input_grad) = input_grad {
                    launches.push(g.input_gradient(buffers, gradients, input_grad)?);
                }
            }
            Op::MaxPool(g, winner) => {
                if let Some(input_grad) = input_grad {
                    launches.push(g.max_backward(gradient, *winner, input_grad)?);
                }
            }
            Op::AveragePool(g) => {
                if let Some(input_grad) = input_grad {
                    launches.push(g.average_backward(gradient, input_grad)?);
                }
            }
            Op::Activation(a) => {
                if let Some(input_grad) = input_grad {
                    launches.push(a.backward(input, gradient, input_grad)?);
                }
            }
        }
        Ok(launches)
    }
}
