//! A network compiled to buffers and launches, which a backend replays.
//!
//! [`Plan::new`] flattens the nested sequences into a list of operations, where it looks for layers that one
//! launch can do together; walks the list forward and writes the launches, then backward and writes those of the
//! gradients; the optimizer's launch ends the step. Last, buffers that are never needed at the same time become
//! one. Nothing is decided at run time.

mod freeze;
mod fuse;
mod node;
mod reuse;

use crate::error::{Error, Result};
pub use crate::kernels::BufferId;
use crate::kernels::augment::Augment;
use crate::kernels::optimizer::{self, Optimizer, Rule, Segment};
use crate::kernels::{CHUNK, LANES, Launch, Range, batch, blocks, join, loss, padded};
use crate::network::{Network, Parameter};
pub use freeze::matches;
use fuse::Op;
use node::{Bound, Graph, Node, Value, Weights};

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
    /// Packed labels, four a word.
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
    /// Label smoothing.
    pub smoothing: f32,
    /// Images of the training data.
    pub train_images: usize,
    /// Images of the evaluation data.
    pub eval_images: usize,
    /// How the training pictures are distorted.
    pub augment: Augment,
    /// Whether layers are fused into common launches; without, each layer has its own.
    pub fuse: bool,
    /// Whether buffers that are never needed at the same time are one. Without, every layer's values and gradients
    /// can be read after a step.
    pub reuse: bool,
    /// Invocations that fill the device: larger tiles are cut up until there are so many. A few hundred suit a
    /// CPU and software adapters.
    pub fill: usize,
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
            augment: Augment::NONE,
            fuse: true,
            reuse: true,
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

    fn add_data(&mut self, name: &str, images: usize, pixels: usize, labels: usize) -> Data {
        let order = self.add(format!("{name}.order"), images);
        self.buffers[order.buffer.0].content = Some((0..images as u32).collect());
        Data {
            images: self.add(format!("{name}.images"), (images * pixels).div_ceil(4)),
            labels: self.add(format!("{name}.labels"), (images * labels).div_ceil(4)),
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
    /// Each layer's output and, where it has one, its gradient, for whoever wants to look: meaningful after a step
    /// if the plan was made without [`Options::reuse`].
    pub activations: Vec<(String, Range, Option<Range>)>,
}

/// Images that a batch can hold at most.
pub const LARGEST_BATCH: usize = 65_536;

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
        let shape = network.output()?;
        let (classes, positions) = (shape.channels, shape.height * shape.width);
        if classes < 2 {
            let last = placed.last().map_or("", |last| &last.name);
            return Err(Error::Network(format!(
                "the last layer {last} gives one logit; two classes need two"
            )));
        }
        let mut graph = Graph::new(&placed, network.input_shape().len(), options);
        if graph.nodes.last().is_some_and(|last| last.op.evaluated().is_none()) {
            return Err(Error::Network(
                "the last layer is dropout: nothing after it learns to do without".into(),
            ));
        }
        for value in &graph.values {
            // Shaders index with 32 bits.
            let len = value.features * rows;
            if len > u32::MAX as usize / 4 {
                return Err(Error::Limit {
                    what: format!("the values of {} at batch {batch}", value.name),
                    needed: 4 * len as u64,
                    allowed: u64::from(u32::MAX),
                });
            }
        }

        let mut program = Program::default();
        let input = network.input;
        let pixels = input.channels * input.height * input.width;
        let train_data = program.add_data("train", train_images, pixels, positions);
        let eval_data = program.add_data("eval", eval_images, pixels, positions);
        let predict_data = program.add_data("predict", batch, pixels, positions);
        let metrics = program.add("metrics", RING * loss::RECORD);
        let row_results = program.add("rows", 2 * rows * positions);

        let source = batch::Geometry {
            channels: input.channels,
            height: input.height,
            width: input.width,
            pad: input.pad,
            mean: input.mean,
            deviation: input.deviation,
            batch,
            augment: None,
        };
        let augments = !options.augment.is_none();
        if augments && positions > 1 {
            return Err(Error::Settings("augment moves pictures, but not the labels of their pixels".into()));
        }
        let augmented = batch::Geometry { augment: augments.then_some(options.augment), ..source };
        // The first layer gathers its images itself, if it can and takes them as they are.
        let gathers = matches!(graph.nodes[0].op, Op::ConvPool(_)) && graph.values[0].readers == 1;
        if let (Op::ConvPool(g), true, false) = (&mut graph.nodes[0].op, gathers, augments) {
            g.gather = Some(source);
        }
        let mut tensors = std::mem::take(&mut graph.tensors);
        freeze::freeze(&mut tensors, &options.freeze)?;
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
        let probabilities = program.add("probabilities", classes * positions * rows);

        for node in &mut graph.nodes {
            let mask =
                tensors[node.tensors.clone()].first().and_then(|weight| weight.parameter.mask.as_ref());
            node.mask = mask.map(|mask| {
                let range = program.add(format!("{}.mask", node.name), mask.len());
                program.buffers[range.buffer.0].content =
                    Some(mask.iter().map(|&connected| u32::from(connected)).collect());
                range
            });
        }

        // What lies between the layers.
        let mut values = Vec::with_capacity(graph.values.len());
        for (i, value) in graph.values.iter().enumerate() {
            let len = if i == 0 && gathers && !augments { 0 } else { value.features * rows };
            values.push(program.add(value.name.clone(), len));
        }
        for node in &mut graph.nodes {
            let len = node.op.saved(rows);
            node.saved = len.map(|len| program.add(format!("{}.saved", node.name), len));
        }
        let (images, logits) = (values[0], values[graph.output]);
        let bind = |node: &Node, op: Op, data: Data, at: &[Range]| Bound {
            op,
            data,
            inputs: node.inputs.iter().map(|&value| at[value]).collect(),
            output: at[node.output],
            weights: Weights::of(&tensors[node.tensors.clone()], parameters, gradients),
            saved: node.saved,
            mask: node.mask,
        };

        // The launches up to the logits, from the bytes of a data set.
        let forward = |data: Data, training: bool| -> Result<Vec<Launch>> {
            let mut launches = Vec::new();
            if !gathers || training && augments {
                let buffers = batch::Buffers { images: data.images, order: data.order, output: images };
                launches.push(if training { augmented } else { source }.gather(buffers)?);
            }
            // What only training does leaves its output where its input lies.
            let mut at = values.clone();
            for (i, node) in graph.nodes.iter().enumerate() {
                let mut op = if training { Some(node.op) } else { node.op.evaluated() };
                if let (0, false, Some(Op::ConvPool(g))) = (i, training, &mut op) {
                    g.gather = gathers.then_some(source);
                }
                match op {
                    Some(op) => {
                        let made = bind(node, op, data, &at).forward(training, rows)?;
                        launches.extend(made.into_iter().map(|launch| launch.of(&node.layers)));
                    }
                    None => at[node.output] = at[node.inputs[0]],
                }
            }
            Ok(launches)
        };
        let geometry =
            loss::Geometry { classes, positions, smoothing, rubbish: network.loss.rubbish(), batch };
        let loss_buffers =
            |data: Data| loss::Buffers { logits, labels: data.labels, order: data.order, rows: row_results };

        let mut train = forward(train_data, true)?;
        let logits_grad = program.add("logits.grad", classes * positions * rows);
        train.push(geometry.cross_entropy_gradient(loss_buffers(train_data), logits_grad, metrics)?);
        // The gradients of each value, one from each reader.
        let mut arrived: Vec<Vec<Range>> = vec![Vec::new(); values.len()];
        arrived[graph.output].push(logits_grad);
        let mut activations = Vec::new();
        let mut starts = Vec::new();
        for node in graph.nodes.iter().rev() {
            starts.push((train.len(), &node.layers));
            let value = &graph.values[node.output];
            // Nothing before the first layer with parameters is learned.
            if !value.learns {
                activations.push((value.name.clone(), values[node.output], None));
                continue;
            }
            let add = |program: &mut Program, what: &str| {
                program.add(format!("{}.{what}", value.name), value.features * rows)
            };
            // Terms are added four at a time.
            let mut terms = std::mem::take(&mut arrived[node.output]);
            while terms.len() > 1 {
                let some = terms.len().min(join::MOST);
                let sum = add(&mut program, "grad");
                train.push(join::sum(&terms[..some], None, sum)?);
                terms.splice(..some, [sum]);
            }
            let Some(&gradient) = terms.first() else { continue };
            activations.push((value.name.clone(), values[node.output], Some(gradient)));
            let bound = bind(node, node.op, train_data, &values);
            // Where no reader could multiply by the derivative of the activation.
            let gradient = match node.op.activation().filter(|_| !node.multiplied) {
                Some(activation) => {
                    let before = add(&mut program, "before.grad");
                    train.push(join::slope(activation, bound.output, gradient, before)?);
                    before
                }
                None => gradient,
            };
            if let Op::Sum(_) = node.op {
                // Each term's gradient is that of the sum.
                for &input in &node.inputs {
                    arrived[input].push(gradient);
                }
                continue;
            }
            let mut input_grads = Vec::with_capacity(node.inputs.len());
            for &input in &node.inputs {
                let Value { name, features, learns, .. } = &graph.values[input];
                let range = learns.then(|| program.add(format!("{name}.grad"), features * rows));
                arrived[input].extend(range);
                input_grads.push(range);
            }
            let learned = tensors[node.tensors.clone()].iter().any(|tensor| tensor.trainable);
            train.extend(bound.backward(gradient, &input_grads, learned, options, rows)?);
        }
        activations.reverse();
        for (start, layers) in starts.into_iter().rev() {
            for launch in train[start..].iter_mut().filter(|launch| launch.layers.is_empty()) {
                launch.layers.clone_from(layers);
            }
        }
        let update = optimizer::Buffers {
            parameters,
            gradients,
            moment1,
            moment2,
            segments,
            metrics,
            rows: row_results,
            positions,
            norms: program.add("norms", optimizer::sums(parameters.len)),
        };
        if options.clip.is_some() {
            train.push(update.square_sums()?);
        }
        train.push(options.optimizer.launch(update, options.clip)?);

        let mut evaluate = forward(eval_data, false)?;
        evaluate.push(geometry.cross_entropy(loss_buffers(eval_data))?);
        evaluate.push(geometry.sum_rows(row_results, metrics)?);

        let mut predict = forward(predict_data, false)?;
        predict.push(geometry.softmax(logits, probabilities)?);

        let mut plan = Plan {
            network: network.clone(),
            options: options.clone(),
            positions,
            unshared: 0,
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
        };
        plan.unshared = plan.program.bytes();
        if options.reuse {
            plan.reuse(&values);
        }
        Ok(plan)
    }

    /// Lets the buffers between the layers share memory, but for the images and the logits.
    fn reuse(&mut self, values: &[Range]) {
        // What was made before the values is data and parameters.
        let first = values[0].buffer.0;
        let (images, logits) = (self.images.buffer, self.logits.buffer);
        let places = reuse::reuse(&mut self.program, |id| id.0 < first || id == images || id == logits);
        self.images = reuse::moved(self.images, &places);
        self.logits = reuse::moved(self.logits, &places);
        for (_, value, gradient) in &mut self.activations {
            *value = reuse::moved(*value, &places);
            *gradient = gradient.map(|gradient| reuse::moved(gradient, &places));
        }
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.outputs() / self.positions
    }

    /// Logits of an image, at all places: classes, where each image has one label.
    pub fn outputs(&self) -> usize {
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
