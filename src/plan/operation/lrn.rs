//! Local response normalisation.

use super::{Operation, Site, Upstream, of_input};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::lrn::Geometry;

/// Local response normalisation across channels.
#[derive(Debug)]
pub(in crate::plan) struct LocalResponseNorm(pub(in crate::plan) Geometry);

impl Operation for LocalResponseNorm {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.forward(site.input(), site.output)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        of_input(gradients, |arrived, input_grad| self.0.backward(site.input(), arrived, input_grad))
    }
}
