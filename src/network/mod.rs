//! Networks as data: layers with their shapes and parameters, the presets, and the text that describes them.
//!
//! Nothing here knows of buffers or kernels: [`crate::plan`] turns a network into launches.

mod activation;
mod fitted;
mod layer;
mod layers;
mod placed;
mod sliding;

use std::fmt;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

pub use activation::Activation;
pub use layer::Layer;
pub use layers::{
    BatchNorm, ConnectionTable, Connections, Conv1d, Conv2d, Linear, LocalResponseNorm, Padding, Padding1d,
    PaddingName, Pool1d, Pool2d, Rbf, Residual, Scale, Size, digit_codes,
};
pub use placed::{Init, Parameter, Placed};
pub use sliding::Windows;

use placed::Placing;

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

/// What training makes small.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Softmax with cross-entropy.
    #[default]
    CrossEntropy,
    /// The maximum a posteriori criterion of LeNet-5: cross-entropy with one more class of pictures that are no
    /// character, whose penalty `rubbish` (j > 0) is fixed (LeCun et al. 1998, equation 9).
    Map {
        /// The paper's j.
        rubbish: f32,
    },
    /// The mean squared error of the outputs and the one-hot labels, as PyTorch's `MSELoss` has it.
    MeanSquaredError,
}

impl Loss {
    /// The fixed penalty of a picture that is no character, where the criterion has one.
    pub fn rubbish(&self) -> Option<f32> {
        match *self {
            Loss::Map { rubbish } => Some(rubbish),
            Loss::CrossEntropy | Loss::MeanSquaredError => None,
        }
    }

    fn is_default(&self) -> bool {
        *self == Loss::CrossEntropy
    }
}

/// How far from 0 filters and linear weights start: uniform within ± a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialisation {
    /// ±1/√fan-in, and the biases too, as PyTorch's layers start.
    #[default]
    Pytorch,
    /// ±√(6/fan-in), for deep networks of ReLUs (He et al. 2015); biases are 0.
    He,
    /// ±2.4/fan-in (LeCun et al. 1998, appendix A); biases too.
    #[serde(rename = "lecun-1998")]
    Lecun1998,
}

impl Initialisation {
    fn is_default(&self) -> bool {
        *self == Initialisation::Pytorch
    }

    fn weight(self, fan_in: usize) -> Init {
        let fan_in = fan_in as f64;
        Init::Uniform(match self {
            Initialisation::Pytorch => 1.0 / fan_in.sqrt(),
            Initialisation::He => (6.0 / fan_in).sqrt(),
            Initialisation::Lecun1998 => 2.4 / fan_in,
        })
    }

    fn bias(self, fan_in: usize) -> Init {
        match self {
            Initialisation::He => Init::Constant(0.0),
            _ => self.weight(fan_in),
        }
    }
}

/// A network: a sequence of layers, some of which hold sequences themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// What training makes small.
    #[serde(default, skip_serializing_if = "Loss::is_default")]
    pub loss: Loss,
    /// How its weights start.
    #[serde(default, skip_serializing_if = "Initialisation::is_default")]
    pub init: Initialisation,
    /// What it takes.
    pub input: Input,
    /// Its layers, in order.
    pub layers: Vec<Layer>,
}

const PRESETS: [(&str, &str); 15] = [
    ("lenet5", include_str!("../../assets/nets/lenet5.toml")),
    ("lenet5-tanh", include_str!("../../assets/nets/lenet5-tanh.toml")),
    ("lenet5-sigmoid", include_str!("../../assets/nets/lenet5-sigmoid.toml")),
    ("lenet5-1998", include_str!("../../assets/nets/lenet5-1998.toml")),
    ("lenet5-1998-softmax", include_str!("../../assets/nets/lenet5-1998-softmax.toml")),
    ("lenet5-bn", include_str!("../../assets/nets/lenet5-bn.toml")),
    ("alexnet", include_str!("../../assets/nets/alexnet.toml")),
    ("vgg", include_str!("../../assets/nets/vgg.toml")),
    ("resnet", include_str!("../../assets/nets/resnet.toml")),
    ("inception", include_str!("../../assets/nets/inception.toml")),
    ("mobilenet", include_str!("../../assets/nets/mobilenet.toml")),
    ("series", include_str!("../../assets/nets/series.toml")),
    ("characters", include_str!("../../assets/nets/characters.toml")),
    ("lenet5-windows", include_str!("../../assets/nets/lenet5-windows.toml")),
    ("segment", include_str!("../../assets/nets/segment.toml")),
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

    /// What a preset is, in one sentence.
    ///
    /// # Errors
    /// As [`Network::preset`].
    pub fn about(name: &str) -> Result<&'static str> {
        Network::preset(name)?;
        let text = PRESETS.iter().find(|(preset, _)| *preset == name).map_or("", |(_, text)| *text);
        Ok(text.lines().next().unwrap_or_default().trim_start_matches('#').trim())
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

    /// The batch normalisations whose maps are one position: over a batch of one they have one value per channel.
    ///
    /// # Errors
    /// As [`Network::place`].
    pub fn normalised_alone(&self) -> Result<Vec<String>> {
        let placed = self.place()?;
        let alone = |layer: &&Placed| {
            matches!(layer.layer, Layer::BatchNorm(_)) && layer.input.height * layer.input.width == 1
        };
        let all = placed.iter().flat_map(Placed::all).map(|(_, layer)| layer);
        Ok(all.filter(alone).map(|layer| layer.name.clone()).collect())
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
        if let Loss::Map { rubbish } = self.loss
            && !(rubbish.is_finite() && rubbish > 0.0)
        {
            return Err(Error::Network(format!("the loss' rubbish is {rubbish}, expected more than 0")));
        }
        let mut placing = Placing::new(self.init);
        let placed = placing.sequence(&self.layers, self.input_shape(), 0)?;
        let learns = |layer: &Placed| layer.parameters.iter().any(|parameter| parameter.learned);
        if !placed.iter().flat_map(Placed::all).any(|(_, layer)| learns(layer)) {
            return Err(Error::Network("no layer has parameters: there is nothing to train".into()));
        }
        Ok(placed)
    }

    /// The shape of the logits: classes, and where every pixel is labelled rows and columns.
    pub fn output(&self) -> Result<Shape> {
        let placed = self.place()?;
        placed.last().map(|last| last.output).ok_or_else(|| Error::Network("there are no layers".into()))
    }

    /// The parameters of all layers, in order.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        let placed = self.place()?;
        let all = placed.iter().flat_map(Placed::all);
        Ok(all.flat_map(|(_, layer)| layer.parameters.clone()).collect())
    }

    /// Fresh parameters, as [`Initialisation`] says, from a portable stream.
    pub fn initial(&self, seed: u64) -> Result<Vec<Vec<f32>>> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let parameters = self.parameters()?;
        Ok(parameters
            .iter()
            .map(|parameter| {
                let mut uniform = |bound: f64| {
                    let share = (f64::from(random.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
                    ((2.0 * share - 1.0) * bound) as f32
                };
                let mut values: Vec<f32> = match &parameter.init {
                    Init::Uniform(bound) => (0..parameter.len()).map(|_| uniform(*bound)).collect(),
                    Init::Signs => (0..parameter.len()).map(|_| uniform(1.0).signum()).collect(),
                    Init::Constant(value) => vec![*value; parameter.len()],
                    Init::Values(values) => values.to_vec(),
                };
                parameter.disconnect(&mut values);
                values
            })
            .collect())
    }

    /// Checks the network against data of `shape` (channels, rows, columns) with `classes` classes, and labels
    /// of `labels` rows and columns: 1 × 1 where a picture has one label.
    ///
    /// # Errors
    /// [`Error::Network`] with the layer and both shapes.
    pub fn check_data(
        &self,
        [channels, height, width]: [usize; 3],
        classes: usize,
        labels: [usize; 2],
    ) -> Result<()> {
        let want = self.input;
        if [want.channels, want.height, want.width] != [channels, height, width] {
            return Err(Error::Network(format!(
                "the input of {} takes pictures of {}×{}×{}, the data has {channels}×{height}×{width}",
                self.name, want.channels, want.height, want.width,
            )));
        }
        let placed = self.place()?;
        let last = placed.last().ok_or_else(|| Error::Network("there are no layers".into()))?;
        let Shape { channels: logits, height, width } = last.output;
        if [height, width] != labels {
            return Err(Error::Network(format!(
                "the last layer {} gives {logits} logits at each of {height}×{width} places, the data has {}×{} \
                 labels a picture",
                last.name, labels[0], labels[1]
            )));
        }
        if logits < classes {
            return Err(Error::Network(format!(
                "the last layer {} gives {} logits, the data has {classes} classes",
                last.name, last.output,
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
