//! Poolings over windows, and their reverse.

use super::{Operation, Site, Upstream, of_input};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::pool2d::Geometry;

/// The maximum of each window.
#[derive(Debug)]
pub(in crate::plan) struct MaxPool(pub(in crate::plan) Geometry);

/// The mean of each window.
#[derive(Debug)]
pub(in crate::plan) struct AveragePool(pub(in crate::plan) Geometry);

/// The means of so many windows that cover the input evenly.
#[derive(Debug)]
pub(in crate::plan) struct AdaptivePool(pub(in crate::plan) Geometry);

/// Each pixel repeated.
#[derive(Debug)]
pub(in crate::plan) struct Upsample(pub(in crate::plan) Geometry);

impl Operation for MaxPool {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.max_forward(site.input(), site.output, site.saved()?)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let winner = site.saved()?;
        of_input(gradients, |arrived, input_grad| self.0.max_backward(arrived, winner, input_grad))
    }

    /// The place of each window's maximum.
    fn saved(&self, rows: usize) -> Option<usize> {
        Some(self.0.channels * self.0.out_size[0] * self.0.out_size[1] * rows)
    }
}

impl Operation for AveragePool {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.average_forward(site.input(), site.output)?])
    }

    fn backward(&self, _: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        of_input(gradients, |arrived, input_grad| self.0.average_backward(arrived, input_grad))
    }
}

impl Operation for AdaptivePool {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.adaptive_forward(site.input(), site.output)?])
    }

    fn backward(&self, _: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        of_input(gradients, |arrived, input_grad| self.0.adaptive_backward(arrived, input_grad))
    }
}

impl Operation for Upsample {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.upsample_forward(site.input(), site.output)?])
    }

    fn backward(&self, _: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        of_input(gradients, |arrived, input_grad| self.0.upsample_backward(arrived, input_grad))
    }
}
