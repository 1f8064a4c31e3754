//! What training makes small: where the forward pass ends and the gradients begin.

use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::loss::{Buffers, Geometry};
use crate::plan::Phase;

/// Softmax with cross-entropy, over the logits that are its input.
#[derive(Debug)]
pub(in crate::plan) struct CrossEntropy(pub(in crate::plan) Geometry);

/// What a loss reads, and where its verdicts go.
pub(super) fn buffers(site: &Site) -> Buffers {
    Buffers { logits: site.input(), labels: site.data.labels, order: site.data.order, rows: site.ledger.rows }
}

impl Operation for CrossEntropy {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        let (g, ledger) = (self.0, &site.ledger);
        match site.phase {
            // The launch that makes the gradient makes the loss, too.
            Phase::Train => Ok(Vec::new()),
            Phase::Evaluate => {
                Ok([g.cross_entropy(buffers(site))?].into_iter().chain(ledger.sum(g.positions)?).collect())
            }
            Phase::Predict => Ok(vec![g.softmax(site.input(), ledger.probabilities)?]),
            Phase::Restore => Ok(Vec::new()),
        }
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let launch =
            |logits_grad| self.0.cross_entropy_gradient(buffers(site), logits_grad, site.ledger.metrics);
        gradients.inputs[0].into_iter().map(launch).collect()
    }
}
