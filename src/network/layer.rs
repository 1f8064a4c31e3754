//! The kinds of layers: their settings, as the text form has them, and what each makes of a shape.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Activation, codes};
use super::{Initialisation, LARGEST, Shape, reasonable};
use crate::error::{Error, Result};

/// Rows and columns; in text one number stands for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrTwo", into = "OneOrTwo")]
pub struct Size(pub [usize; 2]);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl From<OneOrTwo> for Size {
    fn from(size: OneOrTwo) -> Size {
        match size {
            OneOrTwo::One(n) => Size([n, n]),
            OneOrTwo::Two(pair) => Size(pair),
        }
    }
}

impl From<Size> for OneOrTwo {
    fn from(Size(pair): Size) -> OneOrTwo {
        if pair[0] == pair[1] { OneOrTwo::One(pair[0]) } else { OneOrTwo::Two(pair) }
    }
}

impl Size {
    /// 1 × 1.
    pub const ONE: Size = Size([1, 1]);
    /// 0 × 0.
    pub const ZERO: Size = Size([0, 0]);

    fn is_one(&self) -> bool {
        *self == Size::ONE
    }

    fn is_zero(&self) -> bool {
        *self == Size::ZERO
    }
}

impl Default for Size {
    fn default() -> Size {
        Size::ONE
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.0[0], self.0[1])
    }
}

/// Zeros added on each side; in text a number, two, `"valid"` (none) or `"same"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Padding {
    /// So many rows and columns.
    Explicit(Size),
    /// By a word.
    Named(PaddingName),
}

/// Padding by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingName {
    /// As much as keeps the size, which takes stride 1 and a filter that reaches over an odd number of pixels.
    Same,
    /// None.
    Valid,
}

impl Padding {
    /// No padding.
    pub const NONE: Padding = Padding::Explicit(Size::ZERO);
    /// The size stays.
    pub const SAME: Padding = Padding::Named(PaddingName::Same);

    fn is_none(&self) -> bool {
        *self == Padding::NONE
    }
}

impl Default for Padding {
    fn default() -> Padding {
        Padding::NONE
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

fn zero() -> Size {
    Size::ZERO
}

/// Which input channels each output channel of a convolution sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Connections {
    /// A table by its name.
    Named(ConnectionTable),
    /// The input channels of each output channel.
    Lists(Vec<Vec<usize>>),
}

/// A connection table with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionTable {
    /// Layer C3 of LeNet-5: 6 to 16 channels, 60 of the 96 pairs (LeCun et al. 1998, table I).
    #[serde(rename = "lenet5-c3")]
    Lenet5C3,
}

impl Connections {
    /// The input channels of each output channel.
    pub fn lists(&self) -> Vec<Vec<usize>> {
        match self {
            Connections::Lists(lists) => lists.clone(),
            Connections::Named(ConnectionTable::Lenet5C3) => {
                let run = |first: usize, n: usize| (0..n).map(|i| (first + i) % 6).collect::<Vec<_>>();
                let mut lists: Vec<_> = (0..6).map(|i| run(i, 3)).chain((0..6).map(|i| run(i, 4))).collect();
                // Two pairs of neighbours, opposite each other; the last sees everything.
                lists.extend((0..3).map(|i| vec![i, i + 1, (i + 3) % 6, (i + 4) % 6]));
                lists.push(run(0, 6));
                lists
            }
        }
    }
}

/// 2-D convolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// The name of its parameters; `conv1`, `conv2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Channels of its output.
    pub channels: usize,
    /// Size of the filters.
    pub kernel: Size,
    /// Distance of neighbouring outputs.
    #[serde(default, skip_serializing_if = "Size::is_one")]
    pub stride: Size,
    /// Zeros added on each side.
    #[serde(default, skip_serializing_if = "Padding::is_none")]
    pub padding: Padding,
    /// Distance of neighbouring taps.
    #[serde(default, skip_serializing_if = "Size::is_one")]
    pub dilation: Size,
    /// Groups of channels that do not see each other; as many as input channels make it depthwise.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Which input channels each output channel sees; all of its group where none are given. Filters of pairs
    /// that are not connected are 0 and stay so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Whether a bias is added.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bias: bool,
}

impl Conv2d {
    /// A convolution with a square filter, its stride 1, without padding.
    pub fn new(channels: usize, kernel: usize) -> Conv2d {
        Conv2d {
            name: None,
            channels,
            kernel: Size([kernel, kernel]),
            stride: Size::ONE,
            padding: Padding::NONE,
            dilation: Size::ONE,
            groups: 1,
            connections: None,
            bias: true,
        }
    }

    /// Rows and columns of zeros added on each side.
    pub fn pad(&self) -> [usize; 2] {
        match self.padding {
            Padding::Explicit(Size(pad)) => pad,
            Padding::Named(PaddingName::Valid) => [0, 0],
            Padding::Named(PaddingName::Same) => [0, 1].map(|d| (self.reach(d) - 1) / 2),
        }
    }

    /// Pixels that a filter reaches over.
    fn reach(&self, d: usize) -> usize {
        self.dilation.0[d] * (self.kernel.0[d] - 1) + 1
    }
}

/// 1-D convolution: over the columns of a series, which has one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv1d {
    /// The name of its parameters; `conv1`, `conv2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Channels of its output.
    pub channels: usize,
    /// Length of the filters.
    pub kernel: usize,
    /// Distance of neighbouring outputs.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride: usize,
    /// Zeros added on each side.
    #[serde(default, skip_serializing_if = "Padding1d::is_none")]
    pub padding: Padding1d,
    /// Distance of neighbouring taps.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Whether a bias is added.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bias: bool,
}

/// Zeros added at both ends of a series; in text a number, `"valid"` (none) or `"same"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Padding1d {
    /// So many.
    Explicit(usize),
    /// By a word.
    Named(PaddingName),
}

impl Padding1d {
    fn is_none(&self) -> bool {
        *self == Padding1d::Explicit(0)
    }
}

impl Default for Padding1d {
    fn default() -> Padding1d {
        Padding1d::Explicit(0)
    }
}

impl Conv1d {
    /// The same as a convolution over one row.
    pub fn two_dimensional(&self) -> Conv2d {
        Conv2d {
            name: self.name.clone(),
            channels: self.channels,
            kernel: Size([1, self.kernel]),
            stride: Size([1, self.stride]),
            padding: match self.padding {
                Padding1d::Explicit(n) => Padding::Explicit(Size([0, n])),
                Padding1d::Named(name) => Padding::Named(name),
            },
            dilation: Size([1, self.dilation]),
            groups: self.groups,
            connections: None,
            bias: self.bias,
        }
    }
}

/// Pooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool2d {
    /// Size of the windows.
    pub kernel: Size,
    /// Distance of neighbouring windows; the windows' size where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Size>,
    /// Cells added on each side.
    #[serde(default = "zero", skip_serializing_if = "Size::is_zero")]
    pub padding: Size,
    /// Whether the output's size is rounded up, so that every cell of the input lies in a window.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ceil: bool,
    /// Whether a mean counts the padding.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub count_padding: bool,
}

impl Pool2d {
    /// Square windows side by side.
    pub fn new(kernel: usize) -> Pool2d {
        let kernel = Size([kernel, kernel]);
        Pool2d { kernel, stride: None, padding: Size::ZERO, ceil: false, count_padding: true }
    }
}

/// Pooling over the columns of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool1d {
    /// Length of the windows.
    pub kernel: usize,
    /// Distance of neighbouring windows; the windows' length where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Cells added at both ends.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padding: usize,
}

impl Pool1d {
    /// The same over one row.
    pub fn two_dimensional(&self) -> Pool2d {
        Pool2d {
            kernel: Size([1, self.kernel]),
            stride: self.stride.map(|stride| Size([1, stride])),
            padding: Size([0, self.padding]),
            ceil: false,
            count_padding: true,
        }
    }
}

/// A fully connected layer over all features of its input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// The name of its parameters; `fc1`, `fc2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Features of its output.
    pub outputs: usize,
    /// Whether a bias is added.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bias: bool,
}

/// Euclidean radial basis units: `−Σ (x − w)²` of each class' code (LeCun et al. 1998, equation 7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rbf {
    /// The name of its parameters; `rbf1`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Classes.
    pub outputs: usize,
    /// Whether the codes are learned; they start as 7×12 pictures of the ten digits where the input has 84
    /// features and there are ten outputs, and as random ±1 otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trainable: bool,
}

/// Normalisation of each channel by the batch's mean and variance (Ioffe and Szegedy 2015), and a learned
/// coefficient and bias of each channel. Evaluation takes running statistics instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// The name of its parameters; `bn1`, `bn2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Added to the variance.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
    /// The share of a batch in the running statistics.
    #[serde(default = "momentum")]
    pub momentum: f32,
}

fn epsilon() -> f32 {
    1e-5
}

fn momentum() -> f32 {
    0.1
}

/// A learned coefficient and bias of each channel; after average pooling it is LeNet-5's sub-sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The name of its parameters; `scale1`, `scale2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Local response normalisation: `x / (k + α/size · Σ x²)^β` over neighbouring channels (Krizhevsky et al. 2012).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalResponseNorm {
    /// Channels in a neighbourhood.
    pub size: usize,
    /// α.
    #[serde(default = "alpha")]
    pub alpha: f32,
    /// β.
    #[serde(default = "beta")]
    pub beta: f32,
    /// k.
    #[serde(default = "unit")]
    pub k: f32,
}

fn alpha() -> f32 {
    1e-4
}

fn beta() -> f32 {
    0.75
}

fn unit() -> f32 {
    1.0
}

/// A body and a shortcut around it, added up (He et al. 2016).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// What is learned beside the shortcut.
    pub body: Vec<Layer>,
    /// The input itself where there are no layers; otherwise usually a convolution that changes its shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortcut: Vec<Layer>,
}

/// One layer of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// 2-D convolution.
    Conv2d(Conv2d),
    /// 1-D convolution.
    Conv1d(Conv1d),
    /// The maximum of each window.
    MaxPool2d(Pool2d),
    /// The mean of each window.
    AveragePool2d(Pool2d),
    /// The maximum of each window of a series.
    MaxPool1d(Pool1d),
    /// The mean of each window of a series.
    AveragePool1d(Pool1d),
    /// The means of so many windows that cover the input evenly, whatever its size.
    AdaptiveAveragePool2d(Size),
    /// The mean of each channel.
    GlobalAveragePool,
    /// Each pixel repeated so many times in both directions.
    Upsample(usize),
    /// A fully connected layer.
    Linear(Linear),
    /// Euclidean radial basis units.
    Rbf(Rbf),
    /// Batch normalisation.
    BatchNorm(BatchNorm),
    /// A coefficient and a bias of each channel.
    Scale(Scale),
    /// Local response normalisation.
    LocalResponseNorm(LocalResponseNorm),
    /// Sets this share of the features to 0 in training, and divides the others by what is left (Srivastava et
    /// al. 2014).
    Dropout(f32),
    /// A body and a shortcut, added up.
    Residual(Residual),
    /// Branches from one input, their channels put side by side; an empty branch is the input itself.
    Branches(Vec<Vec<Layer>>),
    /// From here on an image is a list of features, in the order channel, row, column.
    Flatten,
    /// An elementwise function.
    #[serde(untagged)]
    Activation(Activation),
}

/// How a parameter starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// Uniform within ±bound.
    Uniform(f64),
    /// −1 or 1.
    Signs,
    /// One value.
    Constant(f32),
    /// These values.
    Values(Arc<Vec<f32>>),
}

/// A tensor that belongs to a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// `conv1.weight`, …, as PyTorch names it.
    pub name: String,
    /// Its shape: OIHW for filters, out × in for linear layers.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Whether an optimizer may change it. Running statistics and fixed codes it may not.
    pub learned: bool,
    /// Of a filter with a connection table: whether output `o` sees input `i`, at `o · inputs + i`.
    pub mask: Option<Arc<Vec<bool>>>,
}

impl Parameter {
    /// Elements, those of pairs of channels that are not connected among them.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none; a network's parameters never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements that are learned.
    pub fn count(&self) -> usize {
        match &self.mask {
            _ if !self.learned => 0,
            None => self.len(),
            Some(mask) => self.len() / mask.len() * mask.iter().filter(|&&connected| connected).count(),
        }
    }

    /// Sets elements of pairs that are not connected to 0.
    pub fn disconnect(&self, values: &mut [f32]) {
        if let Some(mask) = &self.mask {
            let taps = self.len() / mask.len();
            for (values, connected) in values.chunks_exact_mut(taps).zip(mask.iter()) {
                if !connected {
                    values.fill(0.0);
                }
            }
        }
    }
}

/// A layer with its shapes worked out.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its name, unique in the network.
    pub name: String,
    /// The layer.
    pub layer: Layer,
    /// What it takes.
    pub input: Shape,
    /// What it gives.
    pub output: Shape,
    /// What it holds: weight, bias, running mean, running variance.
    pub parameters: Vec<Parameter>,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// The sequences inside: body and shortcut, or the branches.
    pub inside: Vec<Vec<Placed>>,
}

impl Placed {
    /// The layer and all layers inside it, in the order in which they run, with how deep they lie.
    pub fn all(&self) -> Vec<(usize, &Placed)> {
        let mut all = vec![(0, self)];
        for sequence in &self.inside {
            all.extend(sequence.iter().flat_map(Placed::all).map(|(depth, layer)| (depth + 1, layer)));
        }
        all
    }
}

/// Names layers and their places while a network's shapes are worked out.
pub(super) struct Placing {
    pub(super) initialisation: Initialisation,
    pub(super) counts: std::collections::BTreeMap<String, usize>,
    pub(super) names: std::collections::BTreeSet<String>,
}

/// How deep sequences may be nested: more than any network needs, and less than a thread's stack.
const DEEPEST: usize = 16;

impl Placing {
    /// Places a sequence of layers.
    pub(super) fn sequence(
        &mut self,
        layers: &[Layer],
        mut shape: Shape,
        depth: usize,
    ) -> Result<Vec<Placed>> {
        if depth > DEEPEST {
            return Err(Error::Network(format!("layers are nested more than {DEEPEST} deep")));
        }
        let mut placed: Vec<Placed> = Vec::with_capacity(layers.len());
        for layer in layers {
            let (given, kind) = layer.title();
            let number = self.counts.entry(kind.clone()).and_modify(|n| *n += 1).or_insert(1);
            let name = given.unwrap_or_else(|| format!("{kind}{number}"));
            if !self.names.insert(name.clone()) {
                return Err(Error::Network(format!("two layers are called {name}")));
            }
            let next = self.place(layer, name, shape, depth)?;
            shape = next.output;
            placed.push(next);
        }
        Ok(placed)
    }

    fn place(&mut self, layer: &Layer, name: String, input: Shape, depth: usize) -> Result<Placed> {
        let wrong = |what: String| Error::Network(format!("layer {name} ({}): {what}", layer.describe()));
        let sequences: Vec<&[Layer]> = match layer {
            Layer::Residual(Residual { body, shortcut }) => vec![body, shortcut],
            Layer::Branches(branches) => branches.iter().map(Vec::as_slice).collect(),
            _ => return layer.place(name, input, self.initialisation),
        };
        if sequences.len() < 2 || sequences.iter().all(|sequence| sequence.is_empty()) {
            return Err(wrong("it needs two sequences at least, not all empty".into()));
        }
        let inside: Vec<Vec<Placed>> = sequences
            .into_iter()
            .map(|sequence| self.sequence(sequence, input, depth + 1))
            .collect::<Result<_>>()?;
        let ends: Vec<Shape> =
            inside.iter().map(|sequence| sequence.last().map_or(input, |last| last.output)).collect();
        let last = |i: usize| {
            inside[i].last().map_or("the input".into(), |last: &Placed| format!("layer {}", last.name))
        };
        let output = if let Layer::Residual(_) = layer {
            if ends[0] != ends[1] {
                return Err(wrong(format!(
                    "its body ends with {} at {}, its shortcut with {} at {}; they are added up",
                    ends[0],
                    last(0),
                    ends[1],
                    last(1)
                )));
            }
            ends[0]
        } else {
            let differs =
                ends.iter().position(|end| (end.height, end.width) != (ends[0].height, ends[0].width));
            if let Some(i) = differs {
                return Err(wrong(format!(
                    "a branch ends with {} at {}, another with {} at {}; their rows and columns must agree",
                    ends[0],
                    last(0),
                    ends[i],
                    last(i)
                )));
            }
            Shape { channels: ends.iter().map(|end| end.channels).sum(), ..ends[0] }
        };
        let multiply_adds = 0;
        Ok(Placed {
            name,
            layer: layer.clone(),
            input,
            output,
            parameters: Vec::new(),
            multiply_adds,
            inside,
        })
    }
}

impl Layer {
    /// The name that was given, and what the layer is called otherwise.
    fn title(&self) -> (Option<String>, String) {
        match self {
            Layer::Conv2d(Conv2d { name, .. }) | Layer::Conv1d(Conv1d { name, .. }) => {
                (name.clone(), "conv".into())
            }
            Layer::Linear(linear) => (linear.name.clone(), "fc".into()),
            Layer::Rbf(rbf) => (rbf.name.clone(), "rbf".into()),
            Layer::BatchNorm(norm) => (norm.name.clone(), "bn".into()),
            Layer::Scale(scale) => (scale.name.clone(), "scale".into()),
            Layer::MaxPool2d(_)
            | Layer::AveragePool2d(_)
            | Layer::MaxPool1d(_)
            | Layer::AveragePool1d(_)
            | Layer::AdaptiveAveragePool2d(_)
            | Layer::GlobalAveragePool => (None, "pool".into()),
            Layer::Upsample(_) => (None, "upsample".into()),
            Layer::LocalResponseNorm(_) => (None, "lrn".into()),
            Layer::Dropout(_) => (None, "dropout".into()),
            Layer::Residual(_) => (None, "residual".into()),
            Layer::Branches(_) => (None, "branches".into()),
            Layer::Flatten => (None, "flatten".into()),
            Layer::Activation(activation) => {
                let text = format!("{activation:?}").to_lowercase();
                (None, text.split('(').next().unwrap_or_default().to_string())
            }
        }
    }

    /// The sequences inside: body and shortcut, or the branches.
    pub fn inside_mut(&mut self) -> Vec<&mut Vec<Layer>> {
        match self {
            Layer::Residual(Residual { body, shortcut }) => vec![body, shortcut],
            Layer::Branches(branches) => branches.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// What the layer does, in a few words.
    pub fn describe(&self) -> String {
        let extra = |what: &str, size: Size, usual: Size| {
            if size == usual { String::new() } else { format!(", {what} {size}") }
        };
        match self {
            Layer::Conv2d(c) => {
                let mut text = format!("conv2d {}@{}", c.channels, c.kernel);
                text += &extra("stride", c.stride, Size::ONE);
                text += &match c.padding {
                    Padding::Named(PaddingName::Same) => ", same size".into(),
                    Padding::Named(PaddingName::Valid) => String::new(),
                    Padding::Explicit(size) => extra("padding", size, Size::ZERO),
                };
                text += &extra("dilation", c.dilation, Size::ONE);
                if c.groups > 1 {
                    text += &format!(", {} groups", c.groups);
                }
                if let Some(connections) = &c.connections {
                    let pairs: usize = connections.lists().iter().map(Vec::len).sum();
                    text += &format!(", {pairs} connections");
                }
                text
            }
            Layer::Conv1d(c) => {
                let text = Layer::Conv2d(c.two_dimensional()).describe();
                text.replacen("conv2d", "conv1d", 1).replace("1×", "")
            }
            Layer::MaxPool2d(p) | Layer::AveragePool2d(p) => {
                let kind = if matches!(self, Layer::MaxPool2d(_)) { "max pool" } else { "average pool" };
                let mut text = format!("{kind} {}", p.kernel);
                text += &extra("stride", p.stride.unwrap_or(p.kernel), p.kernel);
                text += &extra("padding", p.padding, Size::ZERO);
                text
            }
            Layer::MaxPool1d(p) => Layer::MaxPool2d(p.two_dimensional()).describe().replace("1×", ""),
            Layer::AveragePool1d(p) => Layer::AveragePool2d(p.two_dimensional()).describe().replace("1×", ""),
            Layer::AdaptiveAveragePool2d(size) => format!("average pool to {size}"),
            Layer::GlobalAveragePool => "global average pool".into(),
            Layer::Upsample(factor) => format!("upsample {factor}×{factor}"),
            Layer::Linear(l) => format!("linear {}", l.outputs),
            Layer::Rbf(r) => format!("radial basis {}", r.outputs),
            Layer::BatchNorm(_) => "batch norm".into(),
            Layer::Scale(_) => "coefficient and bias".into(),
            Layer::LocalResponseNorm(n) => format!("local response norm over {}", n.size),
            Layer::Dropout(rate) => format!("dropout {rate}"),
            Layer::Residual(_) => "residual".into(),
            Layer::Branches(branches) => format!("{} branches", branches.len()),
            Layer::Flatten => "flatten".into(),
            Layer::Activation(a) => format!("{a:?}").to_lowercase(),
        }
    }

    fn place(&self, name: String, input: Shape, initialisation: Initialisation) -> Result<Placed> {
        let wrong = |what: String| Error::Network(format!("layer {name} ({}): {what}", self.describe()));
        let within = |what: &str, least: usize, numbers: &[usize]| match numbers
            .iter()
            .find(|&&n| n < least || n > LARGEST)
        {
            Some(n) => Err(wrong(format!("{what} is {n}, expected {least} to {LARGEST}"))),
            None => Ok(()),
        };
        let plain = |output: Shape| Placed {
            name: name.clone(),
            layer: self.clone(),
            input,
            output,
            parameters: Vec::new(),
            multiply_adds: 0,
            inside: Vec::new(),
        };
        let parameter = |what: &str, shape: Vec<usize>, init: Init| Parameter {
            name: format!("{name}.{what}"),
            shape,
            init,
            learned: true,
            mask: None,
        };
        let parameters = |weight: Vec<usize>, bias: bool| {
            let fan_in = weight[1..].iter().product();
            let outputs = weight[0];
            let mut list = vec![parameter("weight", weight, initialisation.weight(fan_in))];
            if bias {
                list.push(parameter("bias", vec![outputs], initialisation.bias(fan_in)));
            }
            list
        };
        let one_row = || match input.height {
            1 => Ok(()),
            n => Err(wrong(format!("it runs over a series of one row, the input {input} has {n}"))),
        };
        match self {
            Layer::Conv2d(c) => {
                within("channels", 1, &[c.channels])?;
                within("kernel", 1, &c.kernel.0)?;
                within("stride", 1, &c.stride.0)?;
                within("dilation", 1, &c.dilation.0)?;
                if c.padding == Padding::SAME
                    && (c.stride != Size::ONE || [0, 1].iter().any(|&d| c.reach(d) % 2 == 0))
                {
                    return Err(wrong(
                        "same padding takes stride 1 and an odd filter; give the padding as numbers".into(),
                    ));
                }
                within("padding", 0, &c.pad())?;
                if c.groups == 0
                    || !input.channels.is_multiple_of(c.groups)
                    || !c.channels.is_multiple_of(c.groups)
                {
                    return Err(wrong(format!(
                        "{} groups do not divide {} input and {} output channels",
                        c.groups, input.channels, c.channels
                    )));
                }
                let side = |d: usize, size: usize| {
                    let reach = c.reach(d);
                    (size + 2 * c.pad()[d])
                        .checked_sub(reach)
                        .map(|room| room / c.stride.0[d] + 1)
                        .ok_or_else(|| {
                            wrong(format!("its filter reaches over {reach} pixels, the input is {input}"))
                        })
                };
                let output = Shape {
                    channels: c.channels,
                    height: side(0, input.height)?,
                    width: side(1, input.width)?,
                };
                let weight = vec![c.channels, input.channels / c.groups, c.kernel.0[0], c.kernel.0[1]];
                if !reasonable(&weight) || !reasonable(&[output.channels, output.height, output.width]) {
                    return Err(wrong("it is too large".into()));
                }
                let taps: usize = c.kernel.0.iter().product();
                let mut list = parameters(weight, c.bias);
                let mut pairs = c.channels * (input.channels / c.groups);
                if let Some(connections) = &c.connections {
                    let lists = connections.lists();
                    let known =
                        |list: &Vec<usize>| !list.is_empty() && list.iter().all(|&i| i < input.channels);
                    if c.groups != 1 || lists.len() != c.channels || !lists.iter().all(known) {
                        return Err(wrong(format!(
                            "its connections must be {} lists of input channels below {}, in one group",
                            c.channels, input.channels
                        )));
                    }
                    let mut mask = vec![false; c.channels * input.channels];
                    for (o, inputs) in lists.iter().enumerate() {
                        inputs.iter().for_each(|&i| mask[o * input.channels + i] = true);
                    }
                    pairs = mask.iter().filter(|&&connected| connected).count();
                    // The mean number of inputs decides how the filters start.
                    let fan_in = (pairs * taps).div_ceil(c.channels);
                    list[0].init = initialisation.weight(fan_in);
                    list[0].mask = Some(Arc::new(mask));
                }
                let multiply_adds = (pairs * taps) as u64 * (output.height * output.width) as u64;
                Ok(Placed { parameters: list, multiply_adds, ..plain(output) })
            }
            Layer::Conv1d(c) => {
                one_row()?;
                within("kernel", 1, &[c.kernel])?;
                within("dilation", 1, &[c.dilation])?;
                let mut placed =
                    Layer::Conv2d(c.two_dimensional()).place(name.clone(), input, initialisation)?;
                // PyTorch's filters of a series have no rows.
                placed.parameters[0].shape.remove(2);
                Ok(Placed { layer: self.clone(), ..placed })
            }
            Layer::MaxPool2d(p) | Layer::AveragePool2d(p) => {
                let stride = p.stride.unwrap_or(p.kernel);
                within("kernel", 1, &p.kernel.0)?;
                within("stride", 1, &stride.0)?;
                if p.padding.0.iter().zip(&p.kernel.0).any(|(pad, kernel)| 2 * pad > *kernel) {
                    return Err(wrong("the padding is more than half of the window".into()));
                }
                let side = |d: usize, size: usize| {
                    let room = (size + 2 * p.padding.0[d])
                        .checked_sub(p.kernel.0[d])
                        .ok_or_else(|| wrong(format!("its window is larger than the input {input}")))?;
                    if !p.ceil {
                        return Ok(room / stride.0[d] + 1);
                    }
                    let windows = room.div_ceil(stride.0[d]) + 1;
                    // As in PyTorch, the last window must start within the input or the padding before it.
                    Ok(if (windows - 1) * stride.0[d] >= size + p.padding.0[d] {
                        windows - 1
                    } else {
                        windows
                    })
                };
                Ok(plain(Shape { height: side(0, input.height)?, width: side(1, input.width)?, ..input }))
            }
            Layer::MaxPool1d(p) | Layer::AveragePool1d(p) => {
                one_row()?;
                let pool = Layer::MaxPool2d(p.two_dimensional());
                Ok(plain(pool.place(name.clone(), input, initialisation)?.output))
            }
            Layer::AdaptiveAveragePool2d(Size(size)) => {
                within("size", 1, size)?;
                if size[0] > input.height || size[1] > input.width {
                    return Err(wrong(format!("the input {input} is smaller")));
                }
                Ok(plain(Shape { height: size[0], width: size[1], ..input }))
            }
            Layer::GlobalAveragePool => Ok(plain(Shape { height: 1, width: 1, ..input })),
            Layer::Upsample(factor) => {
                within("factor", 1, &[*factor])?;
                let output = Shape { height: input.height * factor, width: input.width * factor, ..input };
                if !reasonable(&[output.channels, output.height, output.width]) {
                    return Err(wrong("it is too large".into()));
                }
                Ok(plain(output))
            }
            Layer::Linear(Linear { outputs, bias, .. }) => {
                within("outputs", 1, &[*outputs])?;
                let weight = vec![*outputs, input.len()];
                if !reasonable(&weight) {
                    return Err(wrong("it is too large".into()));
                }
                let multiply_adds = (outputs * input.len()) as u64;
                let output = Shape { channels: *outputs, height: 1, width: 1 };
                Ok(Placed { parameters: parameters(weight, *bias), multiply_adds, ..plain(output) })
            }
            Layer::Rbf(Rbf { outputs, trainable, .. }) => {
                within("outputs", 1, &[*outputs])?;
                let shape = vec![*outputs, input.len()];
                if !reasonable(&shape) {
                    return Err(wrong("it is too large".into()));
                }
                let codes = codes::digit_codes();
                let digits = *outputs == 10 && codes.len() == 10 * input.len();
                let init = if digits { Init::Values(Arc::new(codes)) } else { Init::Signs };
                let weight = Parameter { learned: *trainable, ..parameter("weight", shape, init) };
                let output = Shape { channels: *outputs, height: 1, width: 1 };
                let multiply_adds = (outputs * input.len()) as u64;
                Ok(Placed { parameters: vec![weight], multiply_adds, ..plain(output) })
            }
            Layer::BatchNorm(BatchNorm { epsilon, momentum, .. }) => {
                if !(epsilon.is_finite() && *epsilon > 0.0 && (0.0..=1.0).contains(momentum)) {
                    return Err(wrong(format!("epsilon is {epsilon}, momentum {momentum}")));
                }
                let shape = vec![input.channels];
                let mut list = [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
                    .map(|(what, value)| parameter(what, shape.clone(), Init::Constant(value)));
                list[2].learned = false;
                list[3].learned = false;
                Ok(Placed { parameters: list.to_vec(), ..plain(input) })
            }
            Layer::Scale(_) => {
                let shape = vec![input.channels];
                let list = [("weight", 1.0), ("bias", 0.0)]
                    .map(|(what, value)| parameter(what, shape.clone(), Init::Constant(value)));
                Ok(Placed { parameters: list.to_vec(), ..plain(input) })
            }
            Layer::LocalResponseNorm(n) => {
                within("size", 1, &[n.size])?;
                if ![n.alpha, n.beta, n.k].iter().all(|x| x.is_finite() && *x >= 0.0) || n.k == 0.0 {
                    return Err(wrong(format!("alpha is {}, beta {}, k {}", n.alpha, n.beta, n.k)));
                }
                Ok(plain(input))
            }
            Layer::Dropout(rate) => {
                if !(0.0..1.0).contains(rate) {
                    return Err(wrong(format!("the rate is {rate}, expected 0 to below 1")));
                }
                Ok(plain(input))
            }
            Layer::Flatten => Ok(plain(Shape { channels: input.len(), height: 1, width: 1 })),
            Layer::Activation(a) => {
                if let Activation::LeakyRelu(slope) | Activation::Elu(slope) = a
                    && !slope.is_finite()
                {
                    return Err(wrong(format!("its slope is {slope}")));
                }
                Ok(plain(input))
            }
            // Placing goes into these by itself.
            Layer::Residual(_) | Layer::Branches(_) => Err(wrong("it holds layers".into())),
        }
    }
}
