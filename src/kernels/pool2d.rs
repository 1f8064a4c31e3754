//! `shaders/pool2d.wgsl`: the maximum or the mean of each window, upsampling, and their gradients.

use super::shaders::pool2d as shader;
use super::{LANES, Launch, Range, blocks, over_blocks};
use crate::error::{Error, Result};

/// Shapes of a pooling layer; pairs are (rows, columns).
///
/// [`Geometry::adaptive`] and [`Geometry::upsampling`] make those of the layers that are not told their windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Size of the input.
    pub in_size: [usize; 2],
    /// Size of the output.
    pub out_size: [usize; 2],
    /// Size of the windows.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Cells added on each side, which never win a maximum.
    pub pad: [usize; 2],
    /// Whether a mean counts the padding.
    pub count_pad: bool,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// Of an adaptive mean, whose windows follow from the two sizes, as in PyTorch: in each dimension window `i`
    /// goes from `⌊i · in / out⌋` up to, but not with, `⌈(i + 1) · in / out⌉`. An output of 1×1 is the global
    /// mean. For [`Geometry::adaptive_forward`] and [`Geometry::adaptive_backward`].
    pub fn adaptive(channels: usize, in_size: [usize; 2], out_size: [usize; 2], batch: usize) -> Geometry {
        // The largest window, in each dimension.
        let kernel = [0, 1].map(|d| {
            (0..out_size[d]).map(|at| adaptive(at, in_size[d], out_size[d]).len()).max().unwrap_or(1)
        });
        let (stride, pad) = ([1, 1], [0, 0]);
        Geometry { channels, in_size, out_size, kernel, stride, pad, count_pad: false, batch }
    }

    /// Of an upsampling by whole factors, every pixel becoming a rectangle of its copies. For
    /// [`Geometry::upsample_forward`] and [`Geometry::upsample_backward`].
    pub fn upsampling(channels: usize, in_size: [usize; 2], factor: [usize; 2], batch: usize) -> Geometry {
        let out_size = [0, 1].map(|d| in_size[d] * factor[d]);
        let (kernel, pad) = ([1, 1], [0, 0]);
        Geometry { channels, in_size, out_size, kernel, stride: factor, pad, count_pad: false, batch }
    }

    /// The constants and the grid of launches over a plane of this size.
    fn shape(&self, size: [usize; 2]) -> (shader::Constants, [usize; 3]) {
        let invocations = self.channels * size[0] * size[1] * LANES;
        let (grid, row) = over_blocks(invocations, blocks(self.batch));
        let constants = shader::Constants {
            channels: self.channels,
            in_height: self.in_size[0],
            in_width: self.in_size[1],
            out_height: self.out_size[0],
            out_width: self.out_size[1],
            kernel_height: self.kernel[0],
            kernel_width: self.kernel[1],
            stride_height: self.stride[0],
            stride_width: self.stride[1],
            pad_height: self.pad[0],
            pad_width: self.pad[1],
            count_pad: self.count_pad,
            row,
        };
        (constants, grid)
    }

    fn flop(&self) -> u64 {
        let windows = self.channels * self.out_size[0] * self.out_size[1];
        (windows * self.kernel[0] * self.kernel[1] * self.batch) as u64
    }

    /// The maximum of each window, and the place in the window where it was first found.
    pub fn max_forward(self, input: Range, output: Range, winner: Range) -> Result<Launch> {
        let bindings = shader::max_forward::Bindings { input, output, winner };
        let (constants, grid) = self.shape(self.out_size);
        shader::max_forward::launch(constants, bindings, grid, self.flop())
    }

    /// The gradient of a maximum's input.
    pub fn max_backward(self, output_grad: Range, winner: Range, input_grad: Range) -> Result<Launch> {
        let bindings = shader::max_backward::Bindings { output_grad, won: winner, input_grad };
        let (constants, grid) = self.shape(self.in_size);
        shader::max_backward::launch(constants, bindings, grid, self.flop())
    }

    /// The mean of each window.
    pub fn average_forward(self, input: Range, output: Range) -> Result<Launch> {
        let bindings = shader::average_forward::Bindings { input, output };
        let (constants, grid) = self.shape(self.out_size);
        shader::average_forward::launch(constants, bindings, grid, self.flop())
    }

    /// The gradient of a mean's input.
    pub fn average_backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = shader::average_backward::Bindings { output_grad, input_grad };
        let (constants, grid) = self.shape(self.in_size);
        shader::average_backward::launch(constants, bindings, grid, self.flop())
    }

    /// Refuses sizes whose windows a shader cannot work out in 32 bits.
    fn within_words(&self) -> Result<()> {
        let ends = [0, 1].map(|d| {
            let [from, to] = [self.in_size[d], self.out_size[d]].map(|n| n as u64);
            from * to + from.max(to)
        });
        match ends.into_iter().find(|&end| end > u64::from(u32::MAX)) {
            Some(needed) => Err(Error::Limit {
                what: "the product of an adaptive mean's sizes".into(),
                needed,
                allowed: u32::MAX.into(),
            }),
            None => Ok(()),
        }
    }

    /// The mean of each adaptive window.
    ///
    /// # Errors
    /// [`Error::Limit`] when the sizes of input and output have a product beyond 32 bits.
    pub fn adaptive_forward(self, input: Range, output: Range) -> Result<Launch> {
        self.within_words()?;
        let bindings = shader::adaptive_forward::Bindings { input, output };
        let (constants, grid) = self.shape(self.out_size);
        shader::adaptive_forward::launch(constants, bindings, grid, self.flop())
    }

    /// The gradient of an adaptive mean's input.
    ///
    /// # Errors
    /// As [`Geometry::adaptive_forward`].
    pub fn adaptive_backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        self.within_words()?;
        let bindings = shader::adaptive_backward::Bindings { output_grad, input_grad };
        let (constants, grid) = self.shape(self.in_size);
        shader::adaptive_backward::launch(constants, bindings, grid, self.flop())
    }

    /// Copies of each pixel, as many as the stride.
    pub fn upsample_forward(self, input: Range, output: Range) -> Result<Launch> {
        let bindings = shader::upsample_forward::Bindings { input, output };
        let (constants, grid) = self.shape(self.out_size);
        shader::upsample_forward::launch(constants, bindings, grid, self.flop())
    }

    /// The gradient of an upsampling's input: the sum of its copies' gradients.
    pub fn upsample_backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = shader::upsample_backward::Bindings { output_grad, input_grad };
        let (constants, grid) = self.shape(self.in_size);
        shader::upsample_backward::launch(constants, bindings, grid, self.flop())
    }
}

/// Adaptive window `at` of `to` over `from` positions.
pub(crate) fn adaptive(at: usize, from: usize, to: usize) -> std::ops::Range<usize> {
    at * from / to..((at + 1) * from).div_ceil(to)
}
