//! The end of a residual block.

use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::{Launch, join};
use crate::network::Activation;

/// The sum of all inputs, and an activation of it.
#[derive(Debug)]
pub(in crate::plan) struct Sum(pub(in crate::plan) Option<Activation>);

impl Operation for Sum {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![join::sum(&site.inputs, self.0, site.output)?])
    }

    fn backward(&self, _: &Site, _: &Upstream<'_>) -> Result<Vec<Launch>> {
        Ok(Vec::new())
    }

    fn activation(&self) -> Option<Activation> {
        self.0
    }

    fn ending(&self, activation: Activation) -> Option<Box<dyn Operation>> {
        self.0.is_none().then(|| Box::new(Sum(Some(activation))) as Box<dyn Operation>)
    }

    fn passes_gradient(&self) -> bool {
        true
    }
}
