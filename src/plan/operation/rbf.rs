//! Euclidean radial basis units.

use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::Launch;
use crate::kernels::rbf::{Buffers, Geometry};

/// The negative squared distance from each unit's code.
#[derive(Debug)]
pub(in crate::plan) struct Rbf(pub(in crate::plan) Geometry);

fn buffers(site: &Site) -> Result<Buffers> {
    Ok(Buffers { input: site.input(), weight: site.weights()?.weight, output: site.output })
}

impl Operation for Rbf {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        Ok(vec![self.0.forward(buffers(site)?)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let (buffers, arrived) = (buffers(site)?, gradients.arrived()?);
        let mut launches = Vec::new();
        if gradients.learned {
            launches.push(self.0.weight_gradient(buffers, arrived, site.weights()?.weight_grad)?);
        }
        if let Some(input_grad) = gradients.inputs[0] {
            launches.push(self.0.input_gradient(buffers, arrived, input_grad)?);
        }
        Ok(launches)
    }

    fn partials(&self) -> usize {
        self.0.splits()
    }
}
