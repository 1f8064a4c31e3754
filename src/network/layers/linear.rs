//! Fully connected layers.

use serde::{Deserialize, Serialize};

use super::{Kind, Outcome, Site, is_true, yes};
use crate::error::Result;
use crate::network::Shape;

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

impl Kind for Linear {
    fn given(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn title(&self) -> String {
        "fc".into()
    }

    fn describe(&self) -> String {
        format!("linear {}", self.outputs)
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        at.within("outputs", 1, &[self.outputs])?;
        let weight = vec![self.outputs, at.input.len()];
        at.sized(&weight)?;
        let multiply_adds = (self.outputs * at.input.len()) as u64;
        let output = Shape { channels: self.outputs, height: 1, width: 1 };
        Ok(Outcome { parameters: at.parameters(weight, self.bias), multiply_adds, ..Outcome::plain(output) })
    }
}
