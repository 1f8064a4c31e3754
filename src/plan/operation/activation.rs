//! A function of each element, in a launch of its own.

use super::{Operation, Site, Upstream, of_input};
use crate::error::Result;
use crate::kernels::Launch;
use crate::network::Activation;

/// An elementwise function.
#[derive(Debug)]
pub(in crate::plan) struct Elementwise(pub(in crate::plan) Activation);

impl Operation for Elementwise {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.forward(site.input(), site.output)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        of_input(gradients, |arrived, input_grad| self.0.backward(site.input(), arrived, input_grad))
    }
}
