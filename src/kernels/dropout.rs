//! `shaders/dropout.wgsl`: elements left out at random, and the gradient.

use super::shaders::dropout as shader;
use super::{Launch, Range, blocks, elementwise};
use crate::error::Result;

/// Shapes and settings of a dropout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Elements of an image.
    pub features: usize,
    /// The probability of being left out, from 0 to below 1.
    pub rate: f32,
    /// A number that no other dropout of the network has.
    pub layer: u32,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// A random word from here on keeps its element.
    fn threshold(&self) -> u32 {
        // A float that is too large becomes the largest word.
        (f64::from(self.rate) * 2f64.powi(32)).round() as u32
    }

    /// What a kept element is multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (1.0 - self.rate)
    }

    fn constants(&self) -> shader::Constants {
        let vectors = self.vectors();
        let (_, row) = elementwise(vectors);
        let (layer, threshold) = (self.layer as usize, self.threshold() as usize);
        shader::Constants { features: self.features, layer, threshold, scale: self.scale(), vectors, row }
    }

    /// Vectors of four images' elements.
    fn vectors(&self) -> usize {
        blocks(self.batch) * self.features * 4
    }

    fn grid(&self) -> [usize; 3] {
        elementwise(self.vectors()).0
    }

    fn flop(&self) -> u64 {
        (self.features * self.batch) as u64
    }

    /// The elements that stay, scaled up, and zeros.
    pub fn forward(self, input: Range, output: Range) -> Result<Launch> {
        let bindings = shader::forward::Bindings { input, output };
        shader::forward::launch(self.constants(), bindings, self.grid(), self.flop())
    }

    /// The gradient of the input, by the step's mask, which is drawn again.
    pub fn backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = shader::backward::Bindings { output_grad, input_grad };
        shader::backward::launch(self.constants(), bindings, self.grid(), self.flop())
    }
}
