//! The layers that a network may have, and which kind answers for each.

use serde::{Deserialize, Serialize};

use super::layers::{
    AdaptiveAverage, Branches, Dropout, Flatten, GlobalAverage, Kind, Reduction, Upsample, Windowed,
    Windowed1d,
};
use super::{
    Activation, BatchNorm, Conv1d, Conv2d, Linear, LocalResponseNorm, Pool1d, Pool2d, Rbf, Residual, Scale,
    Size,
};

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

impl Layer {
    /// Puts a question to the layer's kind.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&dyn Kind) -> T) -> T {
        match self {
            Layer::Conv2d(conv) => question(conv),
            Layer::Conv1d(conv) => question(conv),
            Layer::MaxPool2d(pool) => question(&Windowed(Reduction::Max, pool)),
            Layer::AveragePool2d(pool) => question(&Windowed(Reduction::Average, pool)),
            Layer::MaxPool1d(pool) => question(&Windowed1d(Reduction::Max, pool)),
            Layer::AveragePool1d(pool) => question(&Windowed1d(Reduction::Average, pool)),
            Layer::AdaptiveAveragePool2d(size) => question(&AdaptiveAverage(*size)),
            Layer::GlobalAveragePool => question(&GlobalAverage),
            Layer::Upsample(factor) => question(&Upsample(*factor)),
            Layer::Linear(linear) => question(linear),
            Layer::Rbf(rbf) => question(rbf),
            Layer::BatchNorm(norm) => question(norm),
            Layer::Scale(scale) => question(scale),
            Layer::LocalResponseNorm(norm) => question(norm),
            Layer::Dropout(rate) => question(&Dropout(*rate)),
            Layer::Residual(residual) => question(residual),
            Layer::Branches(branches) => question(&Branches(branches)),
            Layer::Flatten => question(&Flatten),
            Layer::Activation(activation) => question(activation),
        }
    }

    /// What the layer does, in a few words.
    pub fn describe(&self) -> String {
        self.ask(|kind| kind.describe())
    }

    /// The sequences inside: body and shortcut, or the branches.
    pub fn inside_mut(&mut self) -> Vec<&mut Vec<Layer>> {
        match self {
            Layer::Residual(Residual { body, shortcut }) => vec![body, shortcut],
            Layer::Branches(branches) => branches.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// The number of outputs, where the layer's settings decide it.
    pub(super) fn outputs_mut(&mut self) -> Option<&mut usize> {
        match self {
            Layer::Conv2d(conv) => Some(&mut conv.channels),
            Layer::Conv1d(conv) => Some(&mut conv.channels),
            Layer::Linear(linear) => Some(&mut linear.outputs),
            Layer::Rbf(rbf) => Some(&mut rbf.outputs),
            _ => None,
        }
    }
}
