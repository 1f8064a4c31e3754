//! `shaders/activation.wgsl`: elementwise functions and their gradients.

use super::shaders::activation as shader;
use super::{Launch, Range, elementwise};
use crate::error::Result;
pub use crate::network::Activation;

impl Activation {
    /// The constants and the grid of a launch over so many elements.
    fn shape(self, elements: usize) -> (shader::Constants, [usize; 3]) {
        let ((kind, slope), (grid, row)) = (self.code(), elementwise(elements));
        (shader::Constants { kind, slope, elements, row }, grid)
    }

    /// `output = f(input)`, elementwise.
    pub fn forward(self, input: Range, output: Range) -> Result<Launch> {
        let (constants, grid) = self.shape(input.len);
        let bindings = shader::forward::Bindings { input, output };
        shader::forward::launch(constants, bindings, grid, input.len as u64)
    }

    /// `input_grad = f′(input) · output_grad`, elementwise.
    pub fn backward(self, input: Range, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let (constants, grid) = self.shape(input.len);
        let bindings = shader::backward::Bindings { input, output_grad, input_grad };
        shader::backward::launch(constants, bindings, grid, input.len as u64)
    }
}
