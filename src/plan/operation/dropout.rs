//! Dropout, which only training does.

use super::{Evaluated, Operation, Site, Upstream, of_input};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::dropout::Geometry;

/// Elements left out at random.
#[derive(Debug)]
pub(in crate::plan) struct Dropout(pub(in crate::plan) Geometry);

impl Operation for Dropout {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.forward(site.input(), site.output)?])
    }

    fn backward(&self, _: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        of_input(gradients, |arrived, input_grad| self.0.backward(arrived, input_grad))
    }

    fn evaluated(&self) -> Evaluated {
        Evaluated::Nothing
    }

    fn number(&mut self) -> Option<&mut u32> {
        Some(&mut self.0.layer)
    }
}
