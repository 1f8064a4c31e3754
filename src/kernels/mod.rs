//! What the GPU can be asked to do: for each shader file a module with its geometry (constants, grid, bindings,
//! floating-point operations) and launches. Nothing here computes: the GPU does, or the CPU's twins in `src/twins/`.
//!
//! # How images lie in memory
//!
//! Activations are stored in blocks of [`LANES`] images, the image varying fastest: element `(n, c, y, x)` of
//! a tensor of shape `[C, H, W]` is at `(((n / 16 · C + c) · H + y) · W + x) · 16 + n % 16`. Neighbouring
//! invocations hold neighbouring images, so every load is contiguous, every filter weight is the same for all
//! of them, and no shape of layer leaves a vector half empty. A SIMD register of the CPU twins holds the same
//! 16 images. (It is cuda-convnet's CHWN layout, cut into blocks so that a block fits a cache.)

pub mod activation;
pub mod augment;
pub mod batch;
pub mod conv2d;
pub mod conv_pool;
pub mod depthwise;
pub mod dropout;
pub mod join;
mod launch;
pub mod linear;
pub mod loss;
pub mod lrn;
pub mod norm;
pub mod optimizer;
pub mod peak;
pub mod plain_lenet5;
pub mod pool2d;
pub mod rbf;
pub mod shaders;
pub mod squared_error;
mod target;

pub use launch::{BufferId, Constants, Launch, Range, Slots, Step};
pub(crate) use launch::{MOST_GROUPS, Slot, elementwise, over_blocks};
pub use shaders::SHADERS;
pub(crate) use target::Parts;
pub use target::Target;

use crate::network::Activation;

/// Images in a block: the fastest dimension of every activation.
pub const LANES: usize = 16;

/// The invocations of a workgroup, in every shader.
pub const WORKGROUP: usize = 64;

/// The length of every `var<uniform>` but the step: all that WebGPU allows. What lies behind the range that is
/// meant is not used.
pub const UNIFORM_BYTES: usize = 64 << 10;

/// Parameters, gradients and moments lie at multiples of this many floats (256 bytes, the strictest
/// alignment of a storage binding).
pub const CHUNK: usize = 64;

/// The most partial sums of a gradient on a GPU: the optimizer adds them up one after the other.
pub(crate) const MOST_PARTIALS: usize = 32;

/// The blocks that hold `batch` images.
pub fn blocks(batch: usize) -> usize {
    batch.div_ceil(LANES)
}

/// `len` rounded up to whole chunks.
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(CHUNK)
}

/// The buffers of a layer with weights.
#[derive(Debug, Clone, Copy)]
pub struct LayerBuffers {
    /// The layer's input, of each image.
    pub input: Range,
    /// `[out_channels, in_channels / groups, KH, KW]` of a convolution, `[outputs, inputs]` of a linear layer.
    pub weight: Range,
    /// `[out_channels]` or `[outputs]`; any range where there is no bias.
    pub bias: Range,
    /// The layer's output, of each image.
    pub output: Range,
}

/// The buffers of such a layer's backward launches, beside those of the forward launch.
#[derive(Debug, Clone, Copy)]
pub struct Gradients {
    /// The gradient that arrives, shaped like the output.
    pub output: Range,
    /// Partial sums of the weights' gradient: the geometry's `splits()` times `padded(weights)`.
    pub weight: Range,
    /// Partial sums of the bias' gradient; any range where there is no bias.
    pub bias: Range,
}

/// The number by which a launch knows the activation that it ends with, or by whose derivative it multiplies; 99 where
/// there is none, or none that such a launch knows.
fn fused(activation: Option<Activation>) -> usize {
    activation.filter(|activation| activation.by_value()).map_or(99, |activation| activation.code().0)
}
