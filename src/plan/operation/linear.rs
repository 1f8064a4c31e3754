//! A fully connected layer.

use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::linear::Geometry;
use crate::network::Activation;

/// A fully connected layer, with an activation at its end or without.
#[derive(Debug)]
pub(in crate::plan) struct Linear(pub(in crate::plan) Geometry);

impl Operation for Linear {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.forward(site.buffers()?)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let (g, buffers, own) = (self.0, site.buffers()?, site.gradients(gradients)?);
        match gradients.inputs[0] {
            Some(input_grad) if site.fuse && gradients.learned => {
                Ok(vec![g.backward(buffers, own, input_grad)?])
            }
            input_grad => {
                let mut launches = Vec::new();
                if gradients.learned {
                    launches.push(g.weight_gradient(buffers, own)?);
                }
                if let Some(input_grad) = input_grad {
                    launches.push(g.input_gradient(buffers, own, input_grad)?);
                }
                Ok(launches)
            }
        }
    }

    fn partials(&self) -> usize {
        self.0.splits()
    }

    fn activation(&self) -> Option<Activation> {
        self.0.activation
    }

    fn ending(&self, activation: Activation) -> Option<Box<dyn Operation>> {
        Some(Box::new(Linear(Geometry { activation: Some(activation), ..self.0 })))
    }

    fn multiply(&mut self, activation: Activation) -> bool {
        self.0.input_activation = Some(activation);
        true
    }
}
