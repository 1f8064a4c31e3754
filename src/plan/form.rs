//! How a training step is cut into launches, and what can be cut so.

use serde::{Deserialize, Serialize};

use super::Options;
use crate::error::{Error, Result};
use crate::kernels::plain_lenet5;
use crate::network::{Input, Network};

/// How a training step is cut into launches. Evaluation and prediction are in layers always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A launch or a few for each layer, as far as [`Options::fuse`] joins none.
    #[default]
    Layers,
    /// The two launches of `shaders/plain_lenet5.wgsl`, which is written to be read, of `lenet5` and Adam alone.
    Plain,
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 2] = [Form::Layers, Form::Plain];

    /// What `--form` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Form::Layers => "layers",
            Form::Plain => "plain",
        }
    }

    /// Whether it is the one that nobody has to ask for.
    pub fn is_default(&self) -> bool {
        *self == Form::default()
    }

    /// Checks that a step can be cut so.
    ///
    /// # Errors
    /// [`Error::Settings`] with what stands against it.
    pub(super) fn check(self, network: &Network, options: &Options) -> Result<()> {
        if self == Form::Layers {
            return Ok(());
        }
        let lenet5 = Network::preset("lenet5")?;
        let Input { mean, deviation, .. } = network.input;
        let input = Input { mean, deviation, ..lenet5.input };
        let against = match options {
            _ if *network
                != (Network { name: network.name.clone(), init: network.init, input, ..lenet5 }) =>
            {
                format!("{} is another network than lenet5 with ten classes", network.name)
            }
            _ if !plain_lenet5::Geometry::knows(&options.optimizer) => {
                "the update rule is another than adam without penalties".into()
            }
            Options { clip: Some(_), .. } => "it does not clip the gradient".into(),
            Options { smoothing, .. } if *smoothing > 0.0 => "it does not smooth labels".into(),
            Options { augment, .. } if !augment.is_none() => "it does not distort pictures".into(),
            Options { freeze, .. } if !freeze.is_empty() => "it freezes no parameters".into(),
            _ => return Ok(()),
        };
        Err(Error::Settings(format!("the plain form does not fit: {against}; --form layers does")))
    }
}
