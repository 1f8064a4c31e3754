//! Batch normalisation, and the affine map alone.

use super::{Evaluated, Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::norm::{Buffers, Geometry, Kind};
use crate::network::Activation;

/// Each channel normalised and put through an affine map, with an activation at its end or without.
#[derive(Debug)]
pub(in crate::plan) struct Norm(pub(in crate::plan) Geometry);

impl Norm {
    fn buffers(&self, site: &Site) -> Result<Buffers> {
        let weights = site.weights()?;
        let [running_mean, running_variance] = weights.running;
        Ok(Buffers {
            input: site.input(),
            weight: weights.weight,
            bias: weights.bias,
            running_mean,
            running_variance,
            batch: weights.running_grad,
            saved: site.saved.unwrap_or(weights.weight),
            output: site.output,
        })
    }

    /// The same by the running averages, if it is by the batch.
    fn running(&self) -> Option<Geometry> {
        (self.0.kind == Kind::Batch).then_some(Geometry { kind: Kind::Running, ..self.0 })
    }
}

impl Operation for Norm {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        let buffers = self.buffers(site)?;
        let mut launches = self.0.statistics(buffers)?;
        launches.push(self.0.forward(buffers)?);
        Ok(launches)
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let (buffers, own) = (self.buffers(site)?, site.gradients(gradients)?);
        let mut launches = Vec::new();
        // The gradient of what was normalised by the batch goes through the same sums.
        if gradients.learned || self.0.kind == Kind::Batch {
            launches.push(self.0.weight_gradient(buffers, own)?);
        }
        if let Some(input_grad) = gradients.inputs[0] {
            launches.push(self.0.input_gradient(buffers, own, input_grad)?);
        }
        Ok(launches)
    }

    fn saved(&self, _rows: usize) -> Option<usize> {
        (self.0.kind == Kind::Batch).then(|| self.0.saved())
    }

    fn partials(&self) -> usize {
        self.0.splits()
    }

    fn evaluated(&self) -> Evaluated {
        self.running().map_or(Evaluated::Same, |running| Evaluated::Other(Box::new(Norm(running))))
    }

    /// What is frozen whole is not to follow the batches either.
    fn hold(&mut self) {
        self.0 = self.running().unwrap_or(self.0);
    }

    fn ending(&self, activation: Activation) -> Option<Box<dyn Operation>> {
        Some(Box::new(Norm(Geometry { activation: Some(activation), ..self.0 })))
    }
}
