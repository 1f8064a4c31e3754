//! Networks as data: layers with their shapes and parameters, the presets, and the text that describes them.
//!
//! Nothing here knows of buffers or kernels: [`crate::plan`] turns a network into launches.

use std::fmt;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

pub use crate::kernels::activation::Activation;

use crate::error::{Error, Result};

/// The shape of one image between two layers: channels, rows, columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Channels, or features where there are no rows and columns.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Elements of one image.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether there are none; a network's shapes never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.height == 1 && self.width == 1 {
            write!(f, "{}", self.channels)
        } else {
            write!(f, "{}×{}×{}", self.channels, self.height, self.width)
        }
    }
}

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
    #[serde(default = "zero", skip_serializing_if = "Size::is_zero")]
    pub padding: Size,
    /// Distance of neighbouring taps.
    #[serde(default, skip_serializing_if = "Size::is_one")]
    pub dilation: Size,
    /// Groups of channels that do not see each other.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Whether a bias is added.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bias: bool,
}

fn zero() -> Size {
    Size::ZERO
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

/// One layer of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// 2-D convolution.
    Conv2d(Conv2d),
    /// The maximum of each window.
    MaxPool2d(Pool2d),
    /// The mean of each window.
    AveragePool2d(Pool2d),
    /// A fully connected layer.
    Linear(Linear),
    /// From here on an image is a list of features, in the order channel, row, column.
    Flatten,
    /// An elementwise function.
    #[serde(untagged)]
    Activation(Activation),
}

/// What a network takes, and how pixels become numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Colour planes of the stored pictures.
    pub channels: usize,
    /// Rows of the stored pictures.
    pub height: usize,
    /// Columns of the stored pictures.
    pub width: usize,
    /// Background added on each side.
    #[serde(default)]
    pub pad: usize,
    /// Subtracted from pixels/255.
    #[serde(default)]
    pub mean: f32,
    /// Divides what is left.
    #[serde(default = "unit")]
    pub deviation: f32,
}

fn unit() -> f32 {
    1.0
}

/// A network: a sequence of layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub input: Input,
    /// Its layers, in order.
    pub layers: Vec<Layer>,
}

/// A tensor that is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// `conv1.weight`, …, as PyTorch names it.
    pub name: String,
    /// Its shape: OIHW for filters, out × in for linear layers.
    pub shape: Vec<usize>,
    /// Inputs that each output of its layer sums.
    pub fan_in: usize,
}

impl Parameter {
    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none; a network's parameters never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    /// What it learns: weight, then bias.
    pub parameters: Vec<Parameter>,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
}

const PRESETS: [(&str, &str); 3] = [
    ("lenet5", include_str!("../assets/nets/lenet5.toml")),
    ("lenet5-tanh", include_str!("../assets/nets/lenet5-tanh.toml")),
    ("lenet5-sigmoid", include_str!("../assets/nets/lenet5-sigmoid.toml")),
];

/// No size or count in a network may exceed this.
const LARGEST: usize = 1 << 20;

/// Whether a tensor of this shape has at most 2³¹ elements, so that its byte offsets fit 64 bits everywhere.
fn reasonable(shape: &[usize]) -> bool {
    shape.iter().map(|&n| n as u128).product::<u128>() <= 1 << 31
}

impl Network {
    /// The names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// [`Error::Network`] with the names that exist.
    pub fn preset(name: &str) -> Result<Network> {
        let text =
            PRESETS.iter().find(|(preset, _)| *preset == name).map(|(_, text)| *text).ok_or_else(|| {
                let known: Vec<_> = Network::presets().collect();
                Error::Network(format!("there is no preset called {name}; there are {}", known.join(", ")))
            })?;
        Network::parse(text)
    }

    /// Reads a network's text form (TOML) and checks it.
    ///
    /// # Errors
    /// [`Error::Network`] with the line, or with the layer and the shapes that do not fit.
    pub fn parse(text: &str) -> Result<Network> {
        let network: Network = toml::from_str(text).map_err(|error| Error::Network(error.to_string()))?;
        network.place()?;
        Ok(network)
    }

    /// The text form.
    pub fn text(&self) -> String {
        // Writing a value that was parsed from, or built as, plain tables and arrays cannot fail.
        toml::to_string(self).unwrap_or_default()
    }

    /// The shape of an image as the first layer sees it.
    pub fn input_shape(&self) -> Shape {
        let Input { channels, height, width, pad, .. } = self.input;
        Shape { channels, height: height + 2 * pad, width: width + 2 * pad }
    }

    /// Works out every layer's name, shapes and parameters.
    ///
    /// # Errors
    /// [`Error::Network`] with the name of the layer that does not fit and the shapes.
    pub fn place(&self) -> Result<Vec<Placed>> {
        let Input { channels, height, width, pad, mean, deviation } = self.input;
        if [channels, height, width].iter().any(|&n| n == 0 || n > LARGEST) || pad > LARGEST {
            return Err(Error::Network(format!("the input is {channels}×{height}×{width} padded by {pad}")));
        }
        if !reasonable(&[channels, height + 2 * pad, width + 2 * pad]) {
            return Err(Error::Network(format!("the input {channels}×{height}×{width} is too large")));
        }
        if !mean.is_finite() || !deviation.is_finite() || deviation <= 0.0 {
            return Err(Error::Network(format!(
                "pixels are normalised by mean {mean} and deviation {deviation}"
            )));
        }
        if self.layers.is_empty() {
            return Err(Error::Network("there are no layers".into()));
        }
        let mut shape = self.input_shape();
        let mut placed: Vec<Placed> = Vec::with_capacity(self.layers.len());
        let mut counts = std::collections::BTreeMap::new();
        for layer in &self.layers {
            let (given, kind) = layer.title();
            let number = counts.entry(kind.clone()).and_modify(|n| *n += 1).or_insert(1);
            let name = given.unwrap_or_else(|| format!("{kind}{number}"));
            if placed.iter().any(|other| other.name == name) {
                return Err(Error::Network(format!("two layers are called {name}")));
            }
            let next = layer.place(name, shape)?;
            shape = next.output;
            placed.push(next);
        }
        if placed.iter().all(|layer| layer.parameters.is_empty()) {
            return Err(Error::Network("no layer has parameters: there is nothing to train".into()));
        }
        Ok(placed)
    }

    /// The parameters of all layers, in order.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        Ok(self.place()?.into_iter().flat_map(|layer| layer.parameters).collect())
    }

    /// Fresh parameters, uniform within ±1/√fan-in as PyTorch's layers start, from a portable stream.
    pub fn initial(&self, seed: u64) -> Result<Vec<Vec<f32>>> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let parameters = self.parameters()?;
        Ok(parameters
            .iter()
            .map(|parameter| {
                let bound = 1.0 / (parameter.fan_in as f64).sqrt();
                let uniform = |bits: u32| (f64::from(bits) + 0.5) / (f64::from(u32::MAX) + 1.0);
                (0..parameter.len())
                    .map(|_| ((2.0 * uniform(random.next_u32()) - 1.0) * bound) as f32)
                    .collect()
            })
            .collect())
    }

    /// Checks the network against data of `shape` (channels, rows, columns) with `classes` labels.
    ///
    /// # Errors
    /// [`Error::Network`] with the layer and both shapes.
    pub fn check_data(&self, [channels, height, width]: [usize; 3], classes: usize) -> Result<()> {
        let want = self.input;
        if [want.channels, want.height, want.width] != [channels, height, width] {
            return Err(Error::Network(format!(
                "{} takes pictures of {}×{}×{}, the data has {channels}×{height}×{width}",
                self.name, want.channels, want.height, want.width,
            )));
        }
        let placed = self.place()?;
        let last = placed.last().ok_or_else(|| Error::Network("there are no layers".into()))?;
        if last.output.len() < classes {
            return Err(Error::Network(format!(
                "the last layer {} gives {} logits, the data has {classes} classes",
                last.name, last.output,
            )));
        }
        Ok(())
    }
}

impl Layer {
    /// The name that was given, and what the layer is called otherwise.
    fn title(&self) -> (Option<String>, String) {
        match self {
            Layer::Conv2d(conv) => (conv.name.clone(), "conv".into()),
            Layer::Linear(linear) => (linear.name.clone(), "fc".into()),
            Layer::MaxPool2d(_) | Layer::AveragePool2d(_) => (None, "pool".into()),
            Layer::Flatten => (None, "flatten".into()),
            Layer::Activation(activation) => {
                let text = format!("{activation:?}").to_lowercase();
                (None, text.split('(').next().unwrap_or_default().to_string())
            }
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
                text += &extra("padding", c.padding, Size::ZERO);
                text += &extra("dilation", c.dilation, Size::ONE);
                if c.groups > 1 {
                    text += &format!(", {} groups", c.groups);
                }
                text
            }
            Layer::MaxPool2d(p) | Layer::AveragePool2d(p) => {
                let kind = if matches!(self, Layer::MaxPool2d(_)) { "max pool" } else { "average pool" };
                let mut text = format!("{kind} {}", p.kernel);
                text += &extra("stride", p.stride.unwrap_or(p.kernel), p.kernel);
                text += &extra("padding", p.padding, Size::ZERO);
                text
            }
            Layer::Linear(l) => format!("linear {}", l.outputs),
            Layer::Flatten => "flatten".into(),
            Layer::Activation(a) => format!("{a:?}").to_lowercase(),
        }
    }

    fn place(&self, name: String, input: Shape) -> Result<Placed> {
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
        };
        let parameters = |weight: Vec<usize>, bias: bool| {
            let fan_in = weight[1..].iter().product();
            let outputs = weight[0];
            let mut list = vec![Parameter { name: format!("{name}.weight"), shape: weight, fan_in }];
            if bias {
                list.push(Parameter { name: format!("{name}.bias"), shape: vec![outputs], fan_in });
            }
            list
        };
        match self {
            Layer::Conv2d(c) => {
                within("channels", 1, &[c.channels])?;
                within("kernel", 1, &c.kernel.0)?;
                within("stride", 1, &c.stride.0)?;
                within("padding", 0, &c.padding.0)?;
                within("dilation", 1, &c.dilation.0)?;
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
                    let reach = c.dilation.0[d] * (c.kernel.0[d] - 1) + 1;
                    (size + 2 * c.padding.0[d])
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
                let multiply_adds =
                    weight.iter().product::<usize>() as u64 * (output.height * output.width) as u64;
                Ok(Placed { parameters: parameters(weight, c.bias), multiply_adds, ..plain(output) })
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
            Layer::Linear(l) => {
                within("outputs", 1, &[l.outputs])?;
                let weight = vec![l.outputs, input.len()];
                if !reasonable(&weight) {
                    return Err(wrong("it is too large".into()));
                }
                let multiply_adds = (l.outputs * input.len()) as u64;
                let output = Shape { channels: l.outputs, height: 1, width: 1 };
                Ok(Placed { parameters: parameters(weight, l.bias), multiply_adds, ..plain(output) })
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
        }
    }
}
