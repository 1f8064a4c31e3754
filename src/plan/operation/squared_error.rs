//! The mean squared error, a second loss.

use super::loss::buffers;
use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::squared_error::Geometry;
use crate::plan::Phase;

/// The mean squared error of the outputs and the one-hot labels.
#[derive(Debug)]
pub(in crate::plan) struct SquaredError(pub(in crate::plan) Geometry);

impl Operation for SquaredError {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        let (g, ledger) = (self.0, &site.ledger);
        match site.phase {
            // The launch that makes the gradient makes the loss, too.
            Phase::Train => Ok(Vec::new()),
            Phase::Evaluate => {
                Ok([g.squared_error(buffers(site))?].into_iter().chain(ledger.sum(g.positions)?).collect())
            }
            Phase::Predict => Ok(vec![g.shares(site.input(), ledger.probabilities)?]),
            Phase::Restore => Ok(Vec::new()),
        }
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let launch =
            |logits_grad| self.0.squared_error_gradient(buffers(site), logits_grad, site.ledger.metrics);
        gradients.inputs[0].into_iter().map(launch).collect()
    }
}
