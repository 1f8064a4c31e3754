//! From a network to a plan, step by step.

use super::graph::{Graph, Node};
use super::operation::{Ledger, Site, Upstream, Weights};
use super::{Data, Form, LARGEST_BATCH, Options, Phase, Plan, Program, RING, Tensor, freeze, reuse};
use crate::error::{Error, Result};
use crate::kernels::optimizer::{self, Segment};
use crate::kernels::{CHUNK, LANES, Launch, Range, batch, blocks, join, loss, padded, plain_lenet5};
use crate::network::{Input, Network, Placed, Shape};

/// Compiles `network`.
///
/// # Errors
/// As [`Plan::new`], but [`Error::Limit`] without the largest batch that would fit.
pub(super) fn compile(network: &Network, options: &Options) -> Result<Plan> {
    let placed = network.place()?;
    check(options)?;
    options.form.check(network, options)?;
    let logits = logits(network, &placed)?;
    let mut graph = Graph::new(network, &placed, logits, options);
    if graph.ends_with_nothing() {
        return Err(Error::Network(
            "the last layer is dropout: nothing after it learns to do without".into(),
        ));
    }
    let source = Source::new(network, logits, options)?;
    let gathers = graph.gather(source.plain(), source.augments());
    let mut layout = Layout::new(network, logits, options, &mut graph)?;
    layout.values(&graph, !gathers || source.augments());

    let (train, activations) = match options.form {
        Form::Layers => {
            let mut train = layout.forward(&graph, Phase::Train, source.of(Phase::Train, gathers))?;
            let (backward, activations) = layout.backward(&graph)?;
            train.extend(backward);
            train.extend(layout.update()?);
            (train, activations)
        }
        // What it makes of a picture never lies in a buffer.
        Form::Plain => (layout.plain(network)?, Activations::new()),
    };
    let [evaluate, predict] = [Phase::Evaluate, Phase::Predict]
        .map(|phase| layout.forward(&graph, phase, source.of(phase, gathers)));
    layout.program = Program { train, evaluate: evaluate?, predict: predict?, ..layout.program };
    Ok(layout.finish(network, &graph, activations))
}

/// More rows than these, each with its loss and verdict, are too many for one workgroup of a GPU.
const MANY_ROWS: usize = 4_096;

/// Checks the options that concern no layer.
fn check(options: &Options) -> Result<()> {
    let Options { batch, smoothing, .. } = *options;
    options.optimizer.check()?;
    if batch == 0 {
        return Err(Error::Settings(format!("batch is 0, expected 1 to {LARGEST_BATCH}")));
    }
    if batch > LARGEST_BATCH {
        let (needed, allowed) = (batch as u64, LARGEST_BATCH as u64);
        return Err(Error::Limit { what: "a batch, in images,".into(), needed, allowed });
    }
    if !(0.0..1.0).contains(&smoothing) {
        return Err(Error::Settings(format!("label smoothing is {smoothing}, expected 0 ≤ smoothing < 1")));
    }
    Ok(())
}

/// The shape of the logits.
fn logits(network: &Network, placed: &[Placed]) -> Result<Shape> {
    let shape = network.output()?;
    if shape.channels < 2 {
        let last = placed.last().map_or("", |last| &last.name);
        return Err(Error::Network(format!("the last layer {last} gives one logit; two classes need two")));
    }
    Ok(shape)
}

/// The images of a batch, as the first layer takes them.
struct Source(batch::Geometry);

impl Source {
    fn new(network: &Network, logits: Shape, options: &Options) -> Result<Source> {
        let input = network.input;
        let augment = Some(options.augment).filter(|augment| !augment.is_none());
        if augment.is_some() && logits.height * logits.width > 1 {
            return Err(Error::Settings("augment moves pictures, but not the labels of their pixels".into()));
        }
        Ok(Source(batch::Geometry {
            channels: input.channels,
            height: input.height,
            width: input.width,
            pad: input.pad,
            mean: input.mean,
            deviation: input.deviation,
            batch: options.batch,
            augment,
        }))
    }

    fn augments(&self) -> bool {
        self.0.augment.is_some()
    }

    /// The pictures as they are.
    fn plain(&self) -> batch::Geometry {
        batch::Geometry { augment: None, ..self.0 }
    }

    /// What a launch of its own gathers; nothing where the first layer does it, which takes the pictures as they are.
    fn of(&self, phase: Phase, gathers: bool) -> Option<batch::Geometry> {
        match phase {
            Phase::Train if self.augments() => Some(self.0),
            _ if gathers => None,
            _ => Some(self.plain()),
        }
    }
}

/// Where everything lies, while the launches are written.
struct Layout<'a> {
    options: &'a Options,
    program: Program,
    /// Lanes of a batch: images, rounded up to whole blocks.
    rows: usize,
    positions: usize,
    /// Of training, evaluation and prediction.
    data: [Data; 3],
    tensors: Vec<Tensor>,
    parameters: Range,
    gradients: Range,
    moments: [Range; 2],
    before: Range,
    segments: Range,
    ledger: Ledger,
    /// Of each node.
    masks: Vec<Option<Range>>,
    /// Of each node.
    saved: Vec<Option<Range>>,
    /// Of each of the graph's values.
    values: Vec<Range>,
}

/// Each layer's output and, where it has one, its gradient, by the layer's name.
type Activations = Vec<(String, Range, Option<Range>)>;

impl<'a> Layout<'a> {
    /// Places the data, what is written of it, and the parameters with all that belongs to them.
    fn new(
        network: &Network,
        logits: Shape,
        options: &'a Options,
        graph: &mut Graph<'_>,
    ) -> Result<Layout<'a>> {
        let Options { batch, train_images, eval_images, .. } = *options;
        let rows = blocks(batch) * LANES;
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
        let (input, positions) = (network.input, logits.height * logits.width);
        let pixels = input.channels * input.height * input.width;
        // Whole blocks, so that halves begin at whole words.
        let half = options.stream.map(|steps| (steps * batch).next_multiple_of(LANES));
        let data = [("train", train_images), ("eval", eval_images), ("predict", batch)]
            .map(|(name, images)| program.add_data(name, images, [pixels, positions], half));
        let metrics = program.add("metrics", RING * loss::RECORD + optimizer::STATUS);
        let row_results = program.add("rows", 2 * rows * positions);
        // One workgroup sums few rows as fast as many would.
        let many = options.target.fine() && rows * positions > MANY_ROWS;
        let row_sums = many.then(|| program.add("row sums", 2 * loss::SUMS));

        let mut tensors = std::mem::take(&mut graph.tensors);
        freeze::freeze(&mut tensors, &options.freeze)?;
        let parameters = program.add("parameters", tensors.iter().map(|tensor| padded(tensor.len())).sum());
        let gradient_len: usize = tensors.iter().map(|tensor| tensor.partials * padded(tensor.len())).sum();
        // One chunk more, for layers without a bias to bind.
        let gradients = program.add("gradients", gradient_len + CHUNK);
        let held = options.optimizer.rule.moments();
        // Four floats where there is none, the least that is bound.
        let moments = [("moment1", 1), ("moment2", 2)]
            .map(|(name, number)| program.add(name, if held >= number { parameters.len } else { 4 }));
        let before = program.add("before", (1 + held) * parameters.len);
        let table = segments(&tensors);
        let segments = program.add("segments", parameters.len / CHUNK * size_of::<Segment>() / 4);
        program.buffers[segments.buffer.0].content = Some(table);
        let probabilities = program.add("probabilities", logits.channels * positions * rows);
        let masks = graph.nodes.iter().map(|node| mask(node, &tensors, &mut program)).collect();
        let ledger = Ledger { rows: row_results, sums: row_sums, metrics, probabilities };
        Ok(Layout {
            options,
            program,
            rows,
            positions,
            data,
            tensors,
            parameters,
            gradients,
            moments,
            before,
            segments,
            ledger,
            masks,
            saved: Vec::new(),
            values: Vec::new(),
        })
    }

    /// Places what lies between the operations; `images` says whether those of a batch are ever written.
    fn values(&mut self, graph: &Graph<'_>, images: bool) {
        for (i, value) in graph.values.iter().enumerate() {
            let len = if i == 0 && !images { 0 } else { value.features * self.rows };
            self.values.push(self.program.add(value.name.clone(), len));
        }
        for node in &graph.nodes {
            let len = node.operation.saved(self.rows);
            self.saved.push(len.map(|len| self.program.add(format!("{}.saved", node.name), len)));
        }
    }

    fn data(&self, phase: Phase) -> Data {
        self.data[phase as usize]
    }

    /// Where node `at` of the graph stands in a phase, in which the values lie in these ranges.
    fn site(&self, at: usize, node: &Node, phase: Phase, values: &[Range]) -> Site {
        Site {
            phase,
            rows: self.rows,
            fuse: self.options.fuse,
            data: self.data(phase),
            inputs: node.inputs.iter().map(|&value| values[value]).collect(),
            output: values[node.output],
            weights: Weights::of(&self.tensors[node.tensors.clone()], self.parameters, self.gradients),
            saved: self.saved[at],
            mask: self.masks[at],
            ledger: self.ledger,
        }
    }

    /// The launches from the bytes of a data set, which `source` gathers unless the first layer does, to the loss.
    fn forward(
        &self,
        graph: &Graph<'_>,
        phase: Phase,
        source: Option<batch::Geometry>,
    ) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        if let Some(source) = source {
            let Data { images, order, half, .. } = self.data(phase);
            let buffers = batch::Buffers { images, order, output: self.values[0] };
            launches.push(source.gather_window(buffers, half.map_or(0, |half| 2 * half))?);
        }
        // What only training does leaves its output where its input lies.
        let mut values = self.values.clone();
        for (at, node) in graph.nodes.iter().enumerate() {
            match node.operation(phase == Phase::Train) {
                Some(operation) => {
                    let made = operation.forward(&self.site(at, node, phase, &values))?;
                    launches.extend(made.into_iter().map(|launch| launch.of(&node.layers)));
                }
                None => values[node.output] = values[node.inputs[0]],
            }
        }
        Ok(launches)
    }

    /// The launches from the loss back to the first layer that learns, and where the outputs and their gradients lie.
    fn backward(&mut self, graph: &Graph<'_>) -> Result<(Vec<Launch>, Activations)> {
        let mut launches = Vec::new();
        // The gradients of each value, one from each reader.
        let mut arrived: Vec<Vec<Range>> = vec![Vec::new(); graph.values.len()];
        let mut activations = Activations::new();
        for (at, node) in graph.nodes.iter().enumerate().rev() {
            let value = &graph.values[node.output];
            let is_loss = at + 1 == graph.nodes.len();
            let mut made = Vec::new();
            let gradient = if is_loss {
                None
            } else {
                let gradient = if value.learns {
                    self.total(&value.name, std::mem::take(&mut arrived[node.output]), &mut made)?
                } else {
                    // Nothing before the first layer with parameters is learned.
                    None
                };
                activations.push((value.name.clone(), self.values[node.output], gradient));
                let Some(gradient) = gradient else { continue };
                Some(self.before_activation(node, &value.name, gradient, &mut made)?)
            };
            if let (Some(gradient), true) = (gradient, node.operation.passes_gradient()) {
                node.inputs.iter().for_each(|&input| arrived[input].push(gradient));
            } else {
                let inputs = self.input_gradients(graph, node);
                for (&input, range) in node.inputs.iter().zip(&inputs) {
                    arrived[input].extend(*range);
                }
                let learned = self.tensors[node.tensors.clone()].iter().any(|tensor| tensor.trainable);
                let site = self.site(at, node, Phase::Train, &self.values);
                made.extend(
                    node.operation
                        .backward(&site, &Upstream { output: gradient, inputs: &inputs, learned })?,
                );
            }
            launches.extend(made.into_iter().map(|launch| launch.of(&node.layers)));
        }
        activations.reverse();
        Ok((launches, activations))
    }

    /// A range for the gradient of a value.
    fn gradient(&mut self, name: &str, len: usize) -> Range {
        self.program.add(format!("{name}.grad"), len)
    }

    /// Adds up what a value's readers give, four at a time; nothing where none gives anything.
    fn total(
        &mut self,
        name: &str,
        mut terms: Vec<Range>,
        launches: &mut Vec<Launch>,
    ) -> Result<Option<Range>> {
        while terms.len() > 1 {
            let some = terms.len().min(join::MOST);
            let sum = self.gradient(name, terms[0].len);
            launches.push(join::sum(&terms[..some], None, sum)?);
            terms.splice(..some, [sum]);
        }
        Ok(terms.first().copied())
    }

    /// The gradient before the activation that ends an operation, where no reader could multiply by its derivative.
    fn before_activation(
        &mut self,
        node: &Node,
        name: &str,
        gradient: Range,
        launches: &mut Vec<Launch>,
    ) -> Result<Range> {
        let Some(activation) = node.operation.activation().filter(|_| !node.multiplied) else {
            return Ok(gradient);
        };
        let before = self.program.add(format!("{name}.before.grad"), gradient.len);
        launches.push(join::slope(activation, self.values[node.output], gradient, before)?);
        Ok(before)
    }

    /// Ranges for the gradients of those inputs before which something is learned.
    fn input_gradients(&mut self, graph: &Graph<'_>, node: &Node) -> Vec<Option<Range>> {
        let range = |&input: &usize| {
            let value = &graph.values[input];
            value.learns.then(|| self.gradient(&value.name, value.features * self.rows))
        };
        node.inputs.iter().map(range).collect()
    }

    /// The launches of a step in the plain form.
    fn plain(&mut self, network: &Network) -> Result<Vec<Launch>> {
        let records = self.program.add("records", plain_lenet5::RECORD * self.options.batch);
        self.optimizer(self.ledger.rows)?;
        let Data { images, labels, order, .. } = self.data(Phase::Train);
        let buffers = plain_lenet5::Buffers {
            images,
            labels,
            order,
            records,
            parameters: self.parameters,
            moment1: self.moments[0],
            moment2: self.moments[1],
            gradients: Range { len: self.parameters.len, ..self.gradients },
            before: self.before,
            metrics: self.ledger.metrics,
        };
        let Options { batch, optimizer, .. } = *self.options;
        let Input { mean, deviation, .. } = network.input;
        let geometry = plain_lenet5::Geometry { batch, mean, deviation, optimizer };
        Ok(vec![geometry.picture(buffers)?, geometry.update(buffers)?])
    }

    /// The launches that end a step: one, two where the gradient is clipped, and one more where rows are many.
    fn update(&mut self) -> Result<Vec<Launch>> {
        let (few, rows) = self.ledger.few()?;
        let buffers = self.optimizer(rows)?;
        let mut launches = Vec::from_iter(few);
        if self.options.clip.is_some() {
            launches.push(buffers.square_sums()?);
        }
        launches.push(self.options.optimizer.launch(buffers, self.options.clip)?);
        Ok(launches)
    }

    /// The buffers of the optimizer, which adds these rows up; puts back what a step has changed, too.
    fn optimizer(&mut self, rows: Range) -> Result<optimizer::Buffers> {
        let buffers = optimizer::Buffers {
            parameters: self.parameters,
            gradients: self.gradients,
            moment1: self.moments[0],
            moment2: self.moments[1],
            segments: self.segments,
            metrics: self.ledger.metrics,
            rows,
            positions: self.positions,
            norms: self.program.add("norms", optimizer::sums(self.parameters.len)),
            before: self.before,
        };
        self.program.restore = vec![buffers.restore(self.options.optimizer.rule.moments())?];
        Ok(buffers)
    }

    /// The plan, its buffers shared where that is asked for.
    fn finish(self, network: &Network, graph: &Graph<'_>, activations: Activations) -> Plan {
        let mut plan = Plan {
            network: network.clone(),
            options: self.options.clone(),
            positions: self.positions,
            unshared: self.program.bytes(),
            program: self.program,
            tensors: self.tensors,
            parameters: self.parameters,
            gradients: self.gradients,
            moment1: self.moments[0],
            moment2: self.moments[1],
            metrics: self.ledger.metrics,
            status: Range {
                start: self.ledger.metrics.len - optimizer::STATUS,
                len: 1,
                ..self.ledger.metrics
            },
            train_data: self.data[0],
            eval_data: self.data[1],
            predict_data: self.data[2],
            logits: self.values[graph.logits],
            probabilities: self.ledger.probabilities,
            images: self.values[0],
            activations,
        };
        if self.options.reuse {
            // What was made before the values is data and parameters.
            reuse::share(&mut plan, self.values[0].buffer);
        }
        plan
    }
}

/// A buffer that says which filters of a node are connected, where not all are.
fn mask(node: &Node, tensors: &[Tensor], program: &mut Program) -> Option<Range> {
    let mask = tensors[node.tensors.clone()].first()?.parameter.mask.as_ref()?;
    let range = program.add(format!("{}.mask", node.name), mask.len());
    let words = mask.iter().map(|&connected| u32::from(connected)).collect();
    program.buffers[range.buffer.0].content = Some(words);
    Some(range)
}

/// Where the gradient of each chunk of parameters lies: the words of a [`Segment`] for each.
fn segments(tensors: &[Tensor]) -> Vec<u32> {
    let mut table = Vec::new();
    for tensor in tensors {
        let len = padded(tensor.len());
        for chunk in 0..len / CHUNK {
            table.push(Segment {
                first: ((tensor.gradient + chunk * CHUNK) / 4) as u32,
                stride: (len / 4) as u32,
                partials: tensor.partials as u32,
                share: tensor.share.map_or(u32::from(tensor.trainable), f32::to_bits),
            });
        }
    }
    bytemuck::cast_slice(&table).to_vec()
}
