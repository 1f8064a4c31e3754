//! `shaders/conv2d.wgsl` on the CPU: 2-D convolution (cross-correlation) with its activation, and its gradients.
//!
//! `forward` and `input_gradient` share one routine, `correlate`: the input's gradient is a correlation of the upstream
//! gradient with the flipped filters, one for each place of a column within a stride.

mod correlate;
mod forward;
mod input_gradient;
mod weight_gradient;

use std::sync::Mutex;

use super::fused;
use super::simd::{Line, cut, share, tiles};
use crate::kernels::shaders::conv2d as shader;
use crate::kernels::{LANES, Step, padded};

/// What the constants of the three entries that convolve have in common; pairs are (rows, columns).
#[derive(Clone, Copy)]
struct Shape {
    in_channels: usize,
    in_size: [usize; 2],
    out_channels: usize,
    out_size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
}

/// The shape in the constants of one of them.
macro_rules! shape {
    ($constants:expr) => {
        Shape {
            in_channels: $constants.in_channels,
            in_size: [$constants.in_height, $constants.in_width],
            out_channels: $constants.out_channels,
            out_size: [$constants.out_height, $constants.out_width],
            kernel: [$constants.kernel_height, $constants.kernel_width],
            stride: [$constants.stride_height, $constants.stride_width],
            pad: [$constants.pad_height, $constants.pad_width],
            dilation: [$constants.dilation_height, $constants.dilation_width],
            groups: $constants.groups,
        }
    };
}

impl Shape {
    fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn weights(&self) -> usize {
        self.out_channels * self.group_in() * self.taps()
    }
}

pub(super) fn forward(
    c: shader::forward::Constants,
) -> impl Fn(shader::forward::Buffers<'_>, Step) + Send + Sync {
    let (g, activation, packed) = (shape!(c), fused(c.activation), Mutex::default());
    move |b, _| {
        let bias = if c.bias { b.bias } else { &[] };
        forward::outputs(&g, activation, &packed, shader::forward::Buffers { bias, ..b });
    }
}

pub(super) fn input_gradient(
    c: shader::input_gradient::Constants,
) -> impl Fn(shader::input_gradient::Buffers<'_>, Step) + Send + Sync {
    let (g, input_activation, packed) = (shape!(c), fused(c.input_activation), Mutex::default());
    move |b, _| input_gradient::gradients(&g, input_activation, &packed, b)
}

pub(super) fn weight_gradient(
    c: shader::weight_gradient::Constants,
) -> impl Fn(shader::weight_gradient::Buffers<'_>, Step) + Send + Sync {
    let g = shape!(c);
    move |b, _| weight_gradient::partial_sums(&g, c, b)
}

pub(super) fn mask_gradient(
    c: shader::mask_gradient::Constants,
) -> impl Fn(shader::mask_gradient::Buffers<'_>, Step) + Send + Sync {
    let taps = c.kernel_height * c.kernel_width;
    let weights = c.out_channels * (c.in_channels / c.groups) * taps;
    move |b, _| {
        for sums in b.weight_grad.chunks_exact_mut(padded(weights)) {
            let filters = sums[..weights].chunks_exact_mut(taps);
            filters.zip(b.mask).filter(|(_, seen)| **seen == 0).for_each(|(filter, _)| filter.fill(0.0));
        }
    }
}

/// Weights in the order in which a twin reads them, kept between steps so that the memory is not allocated and zeroed
/// each time.
type Packed = Mutex<Vec<Line>>;

/// `len` floats of it, on cache lines, holding whatever was left there.
fn floats(packed: &mut Vec<Line>, len: usize) -> &mut [f32] {
    packed.resize(len.div_ceil(LANES), Line([0; LANES]));
    &mut bytemuck::cast_slice_mut(packed)[..len]
}

/// Channels whose weights lie side by side, for a thread to take them at once.
const TILE: usize = 4;

/// Copies rows of `from` between margins of zeros, `left` columns and what is left of `wide`.
fn widen(from: &[f32], width: usize, to: &mut [f32], wide: usize, left: usize) {
    for (from, to) in from.chunks_exact(width * LANES).zip(to.chunks_exact_mut(wide * LANES)) {
        to[..left * LANES].fill(0.0);
        to[left * LANES..][..width * LANES].copy_from_slice(from);
        to[(left + width) * LANES..].fill(0.0);
    }
}

/// The channels of a block that one thread makes, from one group: (block, group, first, channels).
type Work = (usize, usize, usize, usize);

/// All of that work, with the planes of `output` that each makes.
fn shares<'a>(g: &Shape, channels: usize, plane: usize, output: &'a mut [f32]) -> Vec<(Work, &'a mut [f32])> {
    // Of all blocks.
    let groups = output.len() / (channels * plane);
    let most = share(groups, channels, TILE);
    let work = (0..groups)
        .flat_map(|k| tiles(channels, most).map(move |(first, n)| (k / g.groups, k % g.groups, first, n)));
    let outputs = cut(output, work.clone().map(|(_, _, _, n)| n * plane));
    work.zip(outputs).collect()
}
