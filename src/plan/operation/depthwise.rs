//! A convolution in which every channel has one filter of its own.

use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::depthwise::Geometry;
use crate::network::Activation;

/// A convolution by channels, with an activation at its end or without.
#[derive(Debug)]
pub(in crate::plan) struct Depthwise(pub(in crate::plan) Geometry);

impl Operation for Depthwise {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.forward(site.buffers()?)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let (buffers, own) = (site.buffers()?, site.gradients(gradients)?);
        let mut launches = Vec::new();
        if gradients.learned {
            launches.push(self.0.weight_gradient(buffers, own)?);
        }
        if let Some(input_grad) = gradients.inputs[0] {
            launches.push(self.0.input_gradient(buffers, own, input_grad)?);
        }
        Ok(launches)
    }

    fn partials(&self) -> usize {
        self.0.splits()
    }

    fn activation(&self) -> Option<Activation> {
        self.0.activation
    }

    fn ending(&self, activation: Activation) -> Option<Box<dyn Operation>> {
        Some(Box::new(Depthwise(Geometry { activation: Some(activation), ..self.0 })))
    }

    fn multiply(&mut self, activation: Activation) -> bool {
        self.0.input_activation = Some(activation);
        true
    }
}
