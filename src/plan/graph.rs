//! The list of operations that a network is flattened to, the values that flow between them, and its parameters.

use super::fuse::{Fused, Lowered, fuse};
use super::operation::{Evaluated, Operation};
use super::{Form, Options, Tensor, lower, matches};
use crate::kernels::{batch, padded};
use crate::network::{Layer, Network, Placed, Shape};

/// What flows between two operations.
pub(super) struct Value {
    /// The name of the layer that gives it.
    pub(super) name: String,
    /// Elements of one image.
    pub(super) features: usize,
    /// Whether a parameter before it is learned, so that its gradient is needed.
    pub(super) learns: bool,
    /// Operations that read it.
    readers: usize,
}

/// An operation between values.
pub(super) struct Node {
    /// What training does.
    pub(super) operation: Box<dyn Operation>,
    /// What is done where nothing is learned.
    pub(super) evaluated: Evaluated,
    /// The name of the layer that has the parameters.
    pub(super) name: String,
    /// The names of the layers that it stands for; none of the loss.
    pub(super) layers: Vec<String>,
    /// Its parameters, as places in the plan's tensors.
    pub(super) tensors: std::ops::Range<usize>,
    /// The values that it reads.
    pub(super) inputs: Vec<usize>,
    /// The value that it gives; of the loss, the logits that it reads.
    pub(super) output: usize,
    /// Whether its reader multiplies the gradient by the derivative of its activation.
    pub(super) multiplied: bool,
}

impl Node {
    /// What it does in training or out of it; nothing where the input passes as it is.
    pub(super) fn operation(&self, training: bool) -> Option<&dyn Operation> {
        match &self.evaluated {
            _ if training => Some(&*self.operation),
            Evaluated::Same => Some(&*self.operation),
            Evaluated::Other(other) => Some(&**other),
            Evaluated::Nothing => None,
        }
    }
}

/// A network as a list, the loss its last.
pub(super) struct Graph<'a> {
    options: &'a Options,
    pub(super) values: Vec<Value>,
    pub(super) nodes: Vec<Node>,
    pub(super) tensors: Vec<Tensor>,
    /// The value that is the logits.
    pub(super) logits: usize,
    /// How many operations draw random numbers.
    drawing: u32,
}

impl<'a> Graph<'a> {
    /// Flattens `layers`, which give logits of shape `logits`; the first value is the images.
    pub(super) fn new(
        network: &Network,
        layers: &[Placed],
        logits: Shape,
        options: &'a Options,
    ) -> Graph<'a> {
        let features = network.input_shape().len();
        let images = Value { name: "images".into(), features, learns: false, readers: 0 };
        let mut graph = Graph {
            options,
            values: vec![images],
            nodes: Vec::new(),
            tensors: Vec::new(),
            logits: 0,
            drawing: 0,
        };
        let output = graph.sequence(layers, 0);
        graph.logits = output;
        graph.nodes.push(Node {
            operation: lower::loss(network, logits, options),
            // What is judged is the network, not how it was trained.
            evaluated: if options.smoothing > 0.0 {
                Evaluated::Other(lower::loss(network, logits, &Options { smoothing: 0.0, ..options.clone() }))
            } else {
                Evaluated::Same
            },
            name: "loss".into(),
            layers: Vec::new(),
            tensors: 0..0,
            inputs: vec![output],
            output,
            multiplied: false,
        });
        graph
    }

    /// Whether the last layer does nothing but in training.
    pub(super) fn ends_with_nothing(&self) -> bool {
        let last = self.nodes.iter().rev().nth(1);
        last.is_some_and(|last| matches!(last.evaluated, Evaluated::Nothing))
    }

    /// Has the first operation gather its images itself, if it can and is alone to read them; in training only where
    /// the pictures are taken as they are. Says whether it can.
    pub(super) fn gather(&mut self, source: batch::Geometry, augments: bool) -> bool {
        let first = &mut self.nodes[0];
        let (1, Some(gathering)) = (self.values[0].readers, first.operation.gathering(source)) else {
            return false;
        };
        if augments {
            first.evaluated = Evaluated::Other(gathering);
        } else {
            first.operation = gathering;
        }
        true
    }

    /// The value that a sequence makes of another.
    fn sequence(&mut self, layers: &[Placed], value: usize) -> usize {
        let mut run = Vec::new();
        // What the first of the run reads.
        let mut inputs = vec![value];
        for layer in layers {
            let lowered = Lowered::new(layer, self.options);
            if !layer.inside.is_empty() {
                let value = self.run(std::mem::take(&mut run), inputs);
                inputs = layer.inside.iter().map(|sequence| self.sequence(sequence, value)).collect();
            }
            run.push(lowered);
        }
        self.run(run, inputs)
    }

    /// The value that a run of layers makes of others.
    fn run(&mut self, run: Vec<Lowered<'_>>, mut inputs: Vec<usize>) -> usize {
        for fused in fuse(run, self.options) {
            inputs = vec![self.add(fused, inputs)];
        }
        inputs[0]
    }

    fn add(&mut self, fused: Fused<'_>, inputs: Vec<usize>) -> usize {
        let Fused { mut operation, layers, multiplied } = fused;
        let (first, last) = (layers[0], layers[layers.len() - 1]);
        let tensors = self.place(first, operation.partials());
        let learned = self.tensors[tensors.clone()].iter().any(|tensor| tensor.trainable);
        if !learned {
            operation.hold();
            self.tensors[tensors.clone()].iter_mut().for_each(|tensor| tensor.share = None);
        }
        // Counted among its kind, so that fusing other layers does not change what it draws.
        if let Some(number) = operation.number() {
            *number = self.drawing;
            self.drawing += 1;
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
        self.nodes.push(Node {
            evaluated: operation.evaluated(),
            operation,
            name: first.name.clone(),
            layers: layers.iter().map(|layer| layer.name.clone()).collect(),
            tensors,
            inputs,
            output,
            multiplied,
        });
        output
    }

    /// Puts a layer's parameters behind the others; `partials` sums make the gradient of one that is learned.
    fn place(&mut self, layer: &Placed, partials: usize) -> std::ops::Range<usize> {
        let start = self.tensors.len();
        let (mut offset, mut gradient) = match self.tensors.last() {
            Some(tensor) => {
                let len = padded(tensor.len());
                (tensor.offset + len, tensor.gradient + len * tensor.partials)
            }
            None => (0, 0),
        };
        let share = match &layer.layer {
            Layer::BatchNorm(norm) => Some(norm.momentum),
            _ => None,
        };
        for parameter in &layer.parameters {
            let share = share.filter(|_| !parameter.learned);
            let summed = parameter.learned && self.options.form == Form::Layers;
            let partials = if summed { partials } else { 1 };
            let len = padded(parameter.len());
            let frozen = |pattern: &String| matches(pattern, &parameter.name);
            let trainable = parameter.learned && !self.options.freeze.iter().any(frozen);
            let parameter = parameter.clone();
            self.tensors.push(Tensor { parameter, offset, gradient, partials, trainable, share });
            offset += len;
            gradient += len * partials;
        }
        start..self.tensors.len()
    }
}
