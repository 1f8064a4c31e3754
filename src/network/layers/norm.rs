//! Normalisation, and the coefficient and bias of each channel.

use serde::{Deserialize, Serialize};

use super::{Kind, Outcome, Site};
use crate::error::Result;
use crate::network::Init;

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

impl Kind for BatchNorm {
    fn given(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn title(&self) -> String {
        "bn".into()
    }

    fn describe(&self) -> String {
        "batch norm".into()
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let BatchNorm { epsilon, momentum, .. } = self;
        if !(epsilon.is_finite() && *epsilon > 0.0 && (0.0..=1.0).contains(momentum)) {
            return Err(at.wrong(format!("epsilon is {epsilon}, momentum {momentum}")));
        }
        let shape = vec![at.input.channels];
        let mut list = [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
            .map(|(what, value)| at.parameter(what, shape.clone(), Init::Constant(value)));
        list[2].learned = false;
        list[3].learned = false;
        Ok(Outcome { parameters: list.to_vec(), ..Outcome::plain(at.input) })
    }
}

/// A learned coefficient and bias of each channel; after average pooling it is LeNet-5's sub-sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The name of its parameters; `scale1`, `scale2`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Kind for Scale {
    fn given(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn title(&self) -> String {
        "scale".into()
    }

    fn describe(&self) -> String {
        "coefficient and bias".into()
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let shape = vec![at.input.channels];
        let list = [("weight", 1.0), ("bias", 0.0)]
            .map(|(what, value)| at.parameter(what, shape.clone(), Init::Constant(value)));
        Ok(Outcome { parameters: list.to_vec(), ..Outcome::plain(at.input) })
    }
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

impl Kind for LocalResponseNorm {
    fn title(&self) -> String {
        "lrn".into()
    }

    fn describe(&self) -> String {
        format!("local response norm over {}", self.size)
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let LocalResponseNorm { size, alpha, beta, k } = *self;
        at.within("size", 1, &[size])?;
        if ![alpha, beta, k].iter().all(|x| x.is_finite() && *x >= 0.0) || k == 0.0 {
            return Err(at.wrong(format!("alpha is {alpha}, beta {beta}, k {k}")));
        }
        Ok(Outcome::plain(at.input))
    }
}
