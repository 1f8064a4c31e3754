//! A network compiled to buffers and launches, which a backend replays.
//!
//! [`Plan::new`] first looks for layers that one launch can do together, then walks what it found forward and
//! writes the launches, then backward and writes the launches of the gradients; the optimizer's launch ends the
//! step. Nothing is decided at run time.

use crate::error::{Error, Result};
use crate::kernels::optimizer::{self, Optimizer, Rule, Segment};
use crate::kernels::{
    CHUNK, Gradients, LANES, Launch, LayerBuffers, Range, batch, blocks, conv_pool, conv2d, linear, loss,
    padded, pool2d,
};
use crate::network::{Activation, Conv2d, Layer, Linear, Network, Parameter, Placed, Pool2d, Size};

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
    /// Whether layers are fused into common launches; without, each layer has its own.
    pub fuse: bool,
    /// Invocations that fill the device: larger tiles are cut up until there are so many. A few hundred suit a
    /// CPU and software adapters.
    pub fill: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch: 128,
            optimizer: Optimizer::default(),
            smoothing: 0.0,
            train_images: 1,
            eval_images: 1,
            fuse: true,
            fill: 256,
        }
    }
}

/// How much a device holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The largest buffer.
    pub buffer: u64,
    /// All buffers together.
    pub total: u64,
}

impl Memory {
    /// A device that holds whatever can be addressed.
    pub const UNBOUNDED: Memory = Memory { buffer: u64::MAX, total: u64::MAX };
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

    /// Checks the buffers against what a device holds, before anything is allocated.
    ///
    /// # Errors
    /// [`Error::Limit`] in bytes, with the buffer's name where one alone is too large.
    pub fn fits(&self, memory: Memory) -> Result<()> {
        let too_large = |what: String, needed, allowed| Err(Error::Limit { what, needed, allowed });
        for buffer in &self.buffers {
            let needed = 4 * buffer.len as u64;
            if needed > memory.buffer {
                return too_large(format!("the buffer {}, in bytes,", buffer.name), needed, memory.buffer);
            }
        }
        if self.bytes() > memory.total {
            return too_large("all buffers, in bytes,".into(), self.bytes(), memory.total);
        }
        Ok(())
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

/// Images that a batch can hold at most.
pub const LARGEST_BATCH: usize = 65_536;

/// Records in the metrics ring.
pub const RING: usize = 1024;

/// Layers that one launch does, with its buffers.
struct Node {
    op: Op,
    weights: Option<Weights>,
    input: Range,
    output: Range,
    /// What the backward pass needs beside input and output.
    saved: Range,
}

/// What a launch does.
#[derive(Clone, Copy)]
enum Op {
    Conv2d(conv2d::Geometry),
    ConvPool(conv_pool::Geometry),
    Linear(linear::Geometry),
    MaxPool(pool2d::Geometry),
    AveragePool(pool2d::Geometry),
    Activation(Activation),
}

/// An operation and the layers that it stands for.
struct Fused<'a> {
    op: Op,
    layers: &'a [&'a Placed],
}

impl Fused<'_> {
    /// The layer that has the parameters.
    fn first(&self) -> &Placed {
        self.layers[0]
    }

    /// The layer whose output it gives.
    fn last(&self) -> &Placed {
        self.layers[self.layers.len() - 1]
    }
}

/// Finds layers that one launch can do, from the last to the first: convolution, activation and 2×2 pooling;
/// linear layer and activation. An activation joins only where the launch that makes the gradient of its value
/// can multiply by its derivative.
fn fuse<'a>(layers: &'a [&'a Placed], options: &Options) -> Vec<Fused<'a>> {
    let mut found: Vec<Fused<'a>> = Vec::new();
    let mut end = layers.len();
    while end > 0 {
        let multiplies = found.last().is_some_and(|next| matches!(next.op, Op::Linear(_) | Op::ConvPool(_)));
        let longest = if options.fuse { end.min(3) } else { 1 };
        let several = (2..=longest)
            .rev()
            .find_map(|n| Some((together(&layers[end - n..end], multiplies, options)?, n)));
        let single = || Some((alone(layers[end - 1], options)?, 1));
        let Some((op, n)) = several.or_else(single) else {
            // Flattening only renames dimensions.
            end -= 1;
            continue;
        };
        found.push(Fused { op, layers: &layers[end - n..end] });
        end -= n;
    }
    found.reverse();
    // Who ended with an activation leaves its derivative to the next.
    let mut left = None;
    for fused in &mut found {
        left = match &mut fused.op {
            Op::Linear(g) => {
                g.input_activation = left;
                g.activation
            }
            Op::ConvPool(g) => {
                g.input_activation = left;
                // A maximum says by itself where a ReLU is flat.
                g.activation.filter(|activation| !g.average && *activation != Activation::Relu)
            }
            _ => None,
        };
    }
    found
}

/// The one operation of two or three layers, if there is one. `multiplies` says whether the next operation
/// multiplies its input's gradient by the derivative of an activation.
fn together(layers: &[&Placed], multiplies: bool, options: &Options) -> Option<Op> {
    let by_value = |layer: &Placed| match layer.layer {
        Layer::Activation(activation) if activation.by_value() => Some(activation),
        _ => None,
    };
    match *layers {
        [conv, activation, pool] => {
            let activation = Some(by_value(activation)?);
            let geometry = conv_pool_geometry(conv, activation, pool, options)?;
            let alone = geometry.average || activation == Some(Activation::Relu);
            (alone || multiplies).then_some(Op::ConvPool(geometry))
        }
        [first, second] => match &first.layer {
            Layer::Linear(l) if multiplies => {
                let activation = Some(by_value(second)?);
                Some(Op::Linear(linear::Geometry { activation, ..linear_geometry(first, l, options) }))
            }
            _ => conv_pool_geometry(first, None, second, options).map(Op::ConvPool),
        },
        _ => None,
    }
}

/// Where a layer's parameters and their gradients lie.
#[derive(Clone, Copy)]
struct Weights {
    weight: Range,
    bias: Range,
    weight_grad: Range,
    bias_grad: Range,
}

impl Weights {
    /// Beside the gradient that arrives.
    fn gradients(&self, output: Range) -> Gradients {
        Gradients { output, weight: self.weight_grad, bias: self.bias_grad }
    }
}

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

    /// Compiles `network` for a device that holds so much; nothing is allocated.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Limit`] also when the buffers need more than the device holds.
    pub fn within(network: &Network, options: &Options, memory: Memory) -> Result<Plan> {
        match Plan::compile(network, options).and_then(|plan| plan.program.fits(memory).map(|()| plan)) {
            Err(Error::Limit { what, needed, allowed }) => {
                let largest = match Plan::largest_batch(network, options, memory)? {
                    Some(batch) => format!("the largest that does is {batch}"),
                    None => "not even one image does".into(),
                };
                let what = format!("batch {} does not fit ({largest}): {what}", options.batch);
                Err(Error::Limit { what, needed, allowed })
            }
            other => other,
        }
    }

    /// The largest batch for which a plan, all else equal, fits a device that holds so much; none where not even
    /// one image does. Nothing is allocated.
    ///
    /// # Errors
    /// What [`Plan::new`] finds wrong whatever the batch.
    pub fn largest_batch(network: &Network, options: &Options, memory: Memory) -> Result<Option<usize>> {
        let fits = |batch| {
            let options = Options { batch, ..options.clone() };
            match Plan::compile(network, &options).and_then(|plan| plan.program.fits(memory)) {
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

    fn compile(network: &Network, options: &Options) -> Result<Plan> {
        let placed = network.place()?;
        options.optimizer.check()?;
        let Options { batch, smoothing, train_images, eval_images, .. } = *options;
        if batch == 0 {
            return Err(Error::Settings(format!("batch is 0, expected 1 to {LARGEST_BATCH}")));
        }
        if batch > LARGEST_BATCH {
            let (needed, allowed) = (batch as u64, LARGEST_BATCH as u64);
            return Err(Error::Limit { what: "a batch, in images,".into(), needed, allowed });
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

        let layers: Vec<&Placed> = placed.iter().collect();
        let mut fused = fuse(&layers, options);
        let source = batch::Geometry {
            channels: input.channels,
            height: input.height,
            width: input.width,
            pad: input.pad,
            mean: input.mean,
            deviation: input.deviation,
            batch,
        };
        // The first layer gathers its images itself, if it can.
        let mut gathers = false;
        if let Some(Fused { op: Op::ConvPool(first), .. }) = fused.first_mut() {
            first.gather = Some(source);
            gathers = true;
        }
        let images = program.add("images", if gathers { 0 } else { network.input_shape().len() * rows });
        let tensors = lay_out(&fused);
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
        for fused in &fused {
            let weights = fused.first().parameters.first().and_then(|first| {
                let at = tensors.iter().position(|tensor| tensor.parameter.name == first.name)?;
                Some(weights(&tensors, at, fused.first().parameters.len() > 1, parameters, gradients))
            });
            let layer = fused.last();
            let saved = match &fused.op {
                Op::MaxPool(_) => program.add(format!("{}.winner", layer.name), layer.output.len() * rows),
                Op::ConvPool(g) => program.add(format!("{}.saved", layer.name), g.saved()),
                _ => value,
            };
            let output = program.add(layer.name.clone(), layer.output.len() * rows);
            nodes.push(Node { op: fused.op, weights, input: value, output, saved });
            activations.push((layer.name.clone(), output, None));
            value = output;
        }
        let logits = value;
        let probabilities = program.add("probabilities", classes * rows);

        // The launches up to the logits, from the bytes of a data set.
        let forward = |data: Data, save: bool| -> Result<Vec<Launch>> {
            let mut launches = Vec::new();
            if !gathers {
                let buffers = batch::Buffers { images: data.images, order: data.order, output: images };
                launches.push(source.gather(buffers)?);
            }
            for node in &nodes {
                launches.push(node.forward(data, save)?);
            }
            Ok(launches)
        };
        let geometry = loss::Geometry { classes, smoothing, batch };
        let loss_buffers =
            |data: Data| loss::Buffers { logits, labels: data.labels, order: data.order, rows: row_results };

        let mut train = forward(train_data, true)?;
        let mut gradient = program.add("logits.grad", classes * rows);
        train.push(geometry.cross_entropy_gradient(loss_buffers(train_data), gradient, metrics)?);
        for (i, node) in nodes.iter().enumerate().rev() {
            activations[i].2 = Some(gradient);
            // Nothing before the first layer with parameters is learned.
            let learns_before = nodes[..i].iter().any(|node| node.weights.is_some());
            let name = format!("{}.grad", program.buffers[node.input.buffer.0].name);
            let input_grad = learns_before.then(|| program.add(name, node.input.len));
            train.extend(node.backward(train_data, gradient, input_grad, options.fuse)?);
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
            rows: row_results,
        })?);

        let mut evaluate = forward(eval_data, false)?;
        evaluate.push(geometry.cross_entropy(loss_buffers(eval_data))?);
        evaluate.push(geometry.sum_rows(row_results, metrics)?);

        let mut predict = forward(predict_data, false)?;
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
fn lay_out(fused: &[Fused<'_>]) -> Vec<Tensor> {
    let (mut offset, mut gradient) = (0, 0);
    let mut tensors = Vec::new();
    for fused in fused {
        let partials = match &fused.op {
            Op::Conv2d(g) => g.splits(),
            Op::ConvPool(g) => g.splits(),
            Op::Linear(g) => g.splits(),
            _ => 1,
        };
        for parameter in &fused.first().parameters {
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

fn conv_geometry(layer: &Placed, c: &Conv2d, batch: usize) -> conv2d::Geometry {
    conv2d::Geometry {
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
        activation: None,
        input_activation: None,
        batch,
        fill: 16_384,
    }
}

fn linear_geometry(layer: &Placed, l: &Linear, options: &Options) -> linear::Geometry {
    linear::Geometry {
        inputs: layer.input.len(),
        outputs: l.outputs,
        bias: l.bias,
        activation: None,
        input_activation: None,
        batch: options.batch,
        fill: options.fill,
    }
}

/// The fused geometry of a convolution and a pooling layer, with an activation between them, if there is one.
fn conv_pool_geometry(
    conv: &Placed,
    activation: Option<Activation>,
    pool: &Placed,
    options: &Options,
) -> Option<conv_pool::Geometry> {
    let Layer::Conv2d(c) = &conv.layer else { return None };
    let geometry = conv_geometry(conv, c, options.batch);
    let (average, p) = match &pool.layer {
        Layer::MaxPool2d(p) => (false, p),
        Layer::AveragePool2d(p) => (true, p),
        _ => return None,
    };
    let two = Size([2, 2]);
    let even = geometry.out_size.iter().all(|n| n % 2 == 0);
    let windows =
        p.kernel == two && p.stride.unwrap_or(two) == two && p.padding == Size::ZERO && (even || !p.ceil);
    let plain = geometry.stride == [1, 1] && geometry.dilation == [1, 1] && geometry.groups == 1;
    let fused = conv_pool::Geometry {
        conv: geometry,
        average,
        activation,
        input_activation: None,
        gather: None,
        fill: options.fill,
    };
    (windows && plain && fused.fits()).then_some(fused)
}

/// The operation of one layer; flattening has none.
fn alone(layer: &Placed, options: &Options) -> Option<Op> {
    let batch = options.batch;
    let pool = |p: &Pool2d| pool2d::Geometry {
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
        Layer::Conv2d(c) => Some(Op::Conv2d(conv_geometry(layer, c, batch))),
        Layer::Linear(l) => Some(Op::Linear(linear_geometry(layer, l, options))),
        Layer::MaxPool2d(p) => Some(Op::MaxPool(pool(p))),
        Layer::AveragePool2d(p) => Some(Op::AveragePool(pool(p))),
        Layer::Activation(activation) => Some(Op::Activation(*activation)),
        Layer::Flatten => None,
    }
}

impl Node {
    /// Where the parameters lie; operations without parameters never ask.
    fn weights(&self) -> Result<Weights> {
        self.weights.ok_or_else(|| Error::Network("a layer's parameters were not placed".into()))
    }

    fn buffers(&self, w: Weights) -> LayerBuffers {
        LayerBuffers { input: self.input, weight: w.weight, bias: w.bias, output: self.output }
    }

    fn conv_pool(&self, w: Weights, data: Data, g: &conv_pool::Geometry) -> conv_pool::Buffers {
        conv_pool::Buffers {
            input: if g.gather.is_some() { data.images } else { self.input },
            order: data.order,
            weight: w.weight,
            bias: w.bias,
            output: self.output,
            saved: self.saved,
        }
    }

    fn forward(&self, data: Data, save: bool) -> Result<Launch> {
        let (input, output) = (self.input, self.output);
        match &self.op {
            Op::Conv2d(g) => g.forward(self.buffers(self.weights()?)),
            Op::ConvPool(g) => g.forward(self.conv_pool(self.weights()?, data, g), save),
            Op::Linear(g) => g.forward(self.buffers(self.weights()?)),
            Op::MaxPool(g) => g.max_forward(input, output, self.saved),
            Op::AveragePool(g) => g.average_forward(input, output),
            Op::Activation(a) => a.forward(input, output),
        }
    }

    /// The launches that take the gradient of the output to those of the weights and, where it has a range, of
    /// the input.
    fn backward(
        &self,
        data: Data,
        gradient: Range,
        input_grad: Option<Range>,
        fuse: bool,
    ) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        match &self.op {
            Op::Conv2d(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                launches.push(g.weight_gradient(self.buffers(w), gradients)?);
                if let Some(input_grad) = input_grad {
                    launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                }
            }
            Op::ConvPool(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                launches.push(g.backward(self.conv_pool(w, data, g), gradients, input_grad)?);
            }
            Op::Linear(g) => {
                let w = self.weights()?;
                let gradients = w.gradients(gradient);
                match input_grad {
                    Some(input_grad) if fuse => {
                        launches.push(g.backward(self.buffers(w), gradients, input_grad)?)
                    }
                    _ => launches.push(g.weight_gradient(self.buffers(w), gradients)?),
                }
                if let Some(input_grad) = input_grad.filter(|_| !fuse) {
                    launches.push(g.input_gradient(self.buffers(w), gradients, input_grad)?);
                }
            }
            Op::MaxPool(g) => {
                if let Some(input_grad) = input_grad {
                    launches.push(g.max_backward(gradient, self.saved, input_grad)?);
                }
            }
            Op::AveragePool(g) => {
                if let Some(input_grad) = input_grad {
                    launches.push(g.average_backward(gradient, input_grad)?);
                }
            }
            Op::Activation(a) => {
                if let Some(input_grad) = input_grad {
                    launches.push(a.backward(self.input, gradient, input_grad)?);
                }
            }
        }
        Ok(launches)
    }
}
