//! `shaders/conv_pool.wgsl` on the CPU: convolution, bias, activation and 2×2 pooling fused, and all their gradients.

mod backward;
mod forward;
mod input_gradient;
mod weight_gradient;

use std::ops::Range;
use std::sync::Mutex;

use pulp::Simd;

use self::backward::Backward;
use super::batch::{Gather, Images};
use super::fused;
use super::simd::Line;
use crate::kernels::shaders::batch::gather::Constants as Pictures;
use crate::kernels::shaders::conv_pool as shader;
use crate::kernels::{LANES, Step};
use crate::network::Activation;

/// What the shader's constants say; of an entry that lacks one, what does nothing. Pairs are (rows, columns).
#[derive(Clone, Copy)]
struct Shape {
    in_channels: usize,
    in_size: [usize; 2],
    out_channels: usize,
    /// Of the convolution, before the pooling.
    out_size: [usize; 2],
    kernel: [usize; 2],
    pad: [usize; 2],
    bias: bool,
    average: bool,
    activation: Option<Activation>,
    input_activation: Option<Activation>,
    blocks: usize,
    splits: usize,
    row_splits: usize,
}

impl Shape {
    /// Rows and columns after the pooling.
    #[inline]
    fn pooled(&self) -> [usize; 2] {
        self.out_size.map(|n| n / 2)
    }

    /// Weights of one output channel.
    #[inline]
    fn weights(&self) -> usize {
        self.in_channels * self.kernel[0] * self.kernel[1]
    }

    /// Places of a plane of what is kept for the backward pass.
    #[inline]
    fn kept(&self) -> usize {
        let size = if self.average { self.out_size } else { self.pooled() };
        size[0] * size[1]
    }

    /// Of one of its launches.
    #[inline]
    fn operations(&self) -> usize {
        let places = 4 * self.pooled()[0] * self.pooled()[1];
        2 * self.out_channels * self.weights() * places * self.blocks * LANES
    }

    /// The rows of the input that so many rows of windows see.
    fn seen(&self, [first, count]: [usize; 2]) -> Range<usize> {
        let [start, end] = [2 * first, 2 * (first + count) + self.kernel[0] - 1];
        let end = end.saturating_sub(self.pad[0]).min(self.in_size[0]);
        start.saturating_sub(self.pad[0]).min(end)..end
    }

    /// The blocks of partial sum `split` of the weights' gradient.
    fn blocks_of(&self, split: usize) -> impl Iterator<Item = usize> {
        (split / self.row_splits..self.blocks).step_by(self.splits / self.row_splits)
    }

    /// What makes a network's first input, where this layer does.
    fn gather(&self, bytes: bool, pad: usize, mean: f32, deviation: f32) -> Option<Gather> {
        bytes.then(|| {
            let [height, width] = self.in_size.map(|n| n - 2 * pad);
            let channels = self.in_channels;
            Gather::new(Pictures { channels, height, width, pad, mean, deviation, row: 0 })
        })
    }
}

/// What the constants of all entries say; the rest is left to them.
macro_rules! shape {
    ($constants:ident) => {
        Shape {
            in_channels: $constants.in_channels,
            in_size: [$constants.in_height, $constants.in_width],
            out_channels: $constants.out_channels,
            out_size: [$constants.out_height, $constants.out_width],
            kernel: [$constants.kernel_height, $constants.kernel_width],
            pad: [$constants.pad_height, $constants.pad_width],
            bias: false,
            average: $constants.average,
            activation: fused($constants.activation),
            input_activation: None,
            blocks: 0,
            splits: 1,
            row_splits: 1,
        }
    };
}

pub(super) fn forward(
    c: shader::forward::Constants,
) -> impl Fn(shader::forward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { bias: c.bias, ..shape!(c) };
    let gather = g.gather(c.bytes, c.border, c.mean, c.deviation);
    move |b, step| {
        let shader::forward::Buffers { input, order, weight, bias, output, saved } = b;
        let [height, width] = g.pooled();
        let g = Shape { blocks: output.len() / (g.out_channels * height * width * LANES).max(1), ..g };
        let source = Source::of(gather.as_ref(), step, input, order);
        forward::forward(&g, c.save, &source, [weight, if g.bias { bias } else { &[] }], output, saved);
    }
}

pub(super) fn backward(
    c: shader::backward::Constants,
) -> impl Fn(shader::backward::Buffers<'_>, Step) + Send + Sync {
    let (splits, row_splits) = (c.splits, c.row_splits);
    let input_activation = fused(c.input_activation);
    let g = Shape { bias: c.bias, input_activation, blocks: c.blocks, splits, row_splits, ..shape!(c) };
    let (gather, kept) = (g.gather(c.bytes, c.border, c.mean, c.deviation), Kept::default());
    move |b, step| {
        let source = Source::of(gather.as_ref(), step, b.input, b.order);
        let weights = Some([b.weight_grad, b.bias_grad]);
        let inputs = Some((b.weight, b.input_grad));
        Backward { source, output_grad: b.output_grad, saved: b.recalled, weights, inputs }.run(&g, &kept);
    }
}

pub(super) fn backward_first(
    c: shader::backward_first::Constants,
) -> impl Fn(shader::backward_first::Buffers<'_>, Step) + Send + Sync {
    let (splits, row_splits) = (c.splits, c.row_splits);
    let g = Shape { bias: c.bias, blocks: c.blocks, splits, row_splits, ..shape!(c) };
    let (gather, kept) = (g.gather(c.bytes, c.border, c.mean, c.deviation), Kept::default());
    move |b, step| {
        let source = Source::of(gather.as_ref(), step, b.input, b.order);
        let weights = Some([b.weight_grad, b.bias_grad]);
        let inputs = None;
        Backward { source, output_grad: b.output_grad, saved: b.recalled, weights, inputs }.run(&g, &kept);
    }
}

pub(super) fn input_gradient(
    c: shader::input_gradient::Constants,
) -> impl Fn(shader::input_gradient::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { input_activation: fused(c.input_activation), blocks: c.blocks, ..shape!(c) };
    move |b, _| {
        let source = Source::Floats(bytemuck::cast_slice(b.input));
        let inputs = Some((b.weight, b.input_grad));
        let (output_grad, saved) = (b.output_grad, b.recalled);
        Backward { source, output_grad, saved, weights: None, inputs }.run(&g, &Kept::default());
    }
}

/// The winner of a window in which a ReLU is flat.
const NOWHERE: u32 = 4;

/// Where the twins find their images.
enum Source<'a> {
    Floats(&'a [f32]),
    Bytes(Images<'a>),
    /// With their padding.
    Gathered(&'a [f32]),
}

/// `[in_channels, rows, width]` of a block's images, as far as it is in memory.
struct View<'a> {
    values: &'a [f32],
    /// Those of the input.
    rows: Range<usize>,
}

impl View<'_> {
    /// Where row `y` of a channel lies, in rows.
    #[inline(always)]
    fn row(&self, channel: usize, y: usize) -> usize {
        channel * self.rows.len() + y - self.rows.start
    }
}

/// Gathered images, kept between steps so that the memory is not allocated and zeroed each time.
type Kept = Mutex<Vec<Line>>;

impl<'a> Source<'a> {
    fn of(gather: Option<&'a Gather>, step: Step, input: &'a [u32], order: &'a [u32]) -> Source<'a> {
        match gather {
            Some(gather) => Source::Bytes(gather.images(step, input, order)),
            None => Source::Floats(bytemuck::cast_slice(input)),
        }
    }

    /// Whether [`Source::block`] makes a copy, because pixels are bytes or rows need their padding.
    fn copies(&self, g: &Shape) -> bool {
        match self {
            Source::Floats(_) => g.pad[1] > 0,
            Source::Bytes(_) => true,
            Source::Gathered(_) => false,
        }
    }

    /// Floats that [`Source::block`] needs for its copy of so many rows of a block.
    fn copy(&self, g: &Shape, rows: usize) -> usize {
        if self.copies(g) { g.in_channels * rows * width(g) * LANES } else { 0 }
    }

    /// A block's images, or these rows of them where that takes a copy.
    fn block<'b>(&'b self, g: &Shape, block: usize, rows: Range<usize>, copy: &'b mut [f32]) -> View<'b> {
        let all = 0..g.in_size[0];
        match self {
            Source::Bytes(images) => {
                images.block(block, g.pad[1], rows.clone(), copy);
                View { values: copy, rows }
            }
            Source::Gathered(values) => {
                let len = g.in_channels * g.in_size[0] * width(g) * LANES;
                View { values: &values[block * len..][..len], rows: all }
            }
            Source::Floats(values) => {
                let row = g.in_size[1] * LANES;
                let plane = g.in_size[0] * row;
                let planes = &values[block * g.in_channels * plane..][..g.in_channels * plane];
                if g.pad[1] == 0 {
                    return View { values: planes, rows: all };
                }
                let margin = g.pad[1] * LANES;
                let from = planes.chunks_exact(plane);
                let from = from.flat_map(|plane| plane[rows.start * row..rows.end * row].chunks_exact(row));
                for (to, from) in copy.chunks_exact_mut(row + 2 * margin).zip(from) {
                    to[..margin].fill(0.0);
                    to[margin..][..row].copy_from_slice(from);
                    to[margin + row..].fill(0.0);
                }
                View { values: copy, rows }
            }
        }
    }
}

/// Columns of a row of the input with its padding.
#[inline]
fn width(g: &Shape) -> usize {
    g.in_size[1] + 2 * g.pad[1]
}

/// The widest tile of `left` output channels for which a thread holds all sums.
#[inline(always)]
fn channel_tile<S: Simd>(left: usize) -> usize {
    match left {
        _ if S::F32_LANES < 16 => left.min(2),
        // Two tiles of three are alike and keep the registers as full; six with their pixels would overflow them.
        6 => 3,
        _ => left.min(4),
    }
}
