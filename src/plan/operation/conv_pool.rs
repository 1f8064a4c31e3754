//! A convolution, an activation and a pooling by 2×2 in one launch, and all their gradients in another.

use std::any::Any;

use super::conv2d::masked;
use super::{AveragePool, Conv2d, Elementwise, MaxPool, Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::conv_pool::{Buffers, Geometry};
use crate::kernels::{Launch, Target, batch, pool2d};
use crate::network::Activation;

/// The three together, the activation between or none.
#[derive(Debug)]
pub(in crate::plan) struct ConvPool(Geometry);

impl ConvPool {
    /// The operation that a convolution, an activation by value and a pooling are together, or the first and the last,
    /// for a device like `target`.
    pub(in crate::plan) fn of(run: &[&dyn Operation], target: Target) -> Option<Box<dyn Operation>> {
        let (conv, activation, pool) = match *run {
            [conv, activation, pool] => {
                let Elementwise(activation) = (activation as &dyn Any).downcast_ref()?;
                (conv, Some(*activation).filter(|activation| activation.by_value())?.into(), pool)
            }
            [conv, pool] => (conv, None, pool),
            _ => return None,
        };
        let Conv2d(conv) = *(conv as &dyn Any).downcast_ref()?;
        let (average, pool) = windows(pool)?;
        let halved = pool.out_size == conv.out_size.map(|n| n / 2);
        let by_two = halved && pool.kernel == [2, 2] && pool.stride == [2, 2] && pool.pad == [0, 0];
        let plain = conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1;
        let fused = Geometry { conv, average, activation, input_activation: None, gather: None, target };
        (by_two && plain && fused.fits()).then(|| Box::new(ConvPool(fused)) as Box<dyn Operation>)
    }

    fn buffers(&self, site: &Site) -> Result<Buffers> {
        let weights = site.weights()?;
        Ok(Buffers {
            input: if self.0.gather.is_some() { site.data.images } else { site.input() },
            order: site.data.order,
            weight: weights.weight,
            bias: weights.bias,
            output: site.output,
            saved: site.saved()?,
        })
    }
}

/// The windows of a pooling, and whether their mean is taken.
fn windows(pool: &dyn Operation) -> Option<(bool, pool2d::Geometry)> {
    let pool = pool as &dyn Any;
    match (pool.downcast_ref(), pool.downcast_ref()) {
        (Some(MaxPool(windows)), _) => Some((false, *windows)),
        (_, Some(AveragePool(windows))) => Some((true, *windows)),
        _ => None,
    }
}

impl Operation for ConvPool {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        let training = site.phase == super::Phase::Train;
        Ok(vec![self.0.forward(self.buffers(site)?, training)?])
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let buffers = self.buffers(site)?;
        let mut launches = Vec::new();
        if gradients.learned {
            launches.push(self.0.backward(buffers, site.gradients(gradients)?, gradients.inputs[0])?);
            launches.extend(masked(&self.0.conv, site)?);
        } else if let Some(input_grad) = gradients.inputs[0] {
            launches.push(self.0.input_gradient(buffers, gradients.arrived()?, input_grad)?);
        }
        Ok(launches)
    }

    fn saved(&self, _rows: usize) -> Option<usize> {
        Some(self.0.saved())
    }

    fn partials(&self) -> usize {
        self.0.splits()
    }

    fn activation(&self) -> Option<Activation> {
        // A maximum says by itself where a ReLU is flat, and a mean knows the values it was made of.
        self.0.activation.filter(|activation| !self.0.average && *activation != Activation::Relu)
    }

    fn multiply(&mut self, activation: Activation) -> bool {
        self.0.input_activation = Some(activation);
        true
    }

    fn gathering(&self, source: batch::Geometry) -> Option<Box<dyn Operation>> {
        Some(Box::new(ConvPool(Geometry { gather: Some(source), ..self.0 })))
    }
}
