//! `shaders/conv2d.wgsl` on the CPU: 2-D convolution (cross-correlation) with its activation, and its gradients.
//!
//! `forward` and `input_gradient` share one routine, `correlate`: the input's gradient is a correlation of the upstream
//! gradient with the flipped filters, one for each place of a column within a stride.

mod correlate;
mod forward;
mod input_gradient;
mod weight_gradient;

use std::ops::Range;
use std::sync::Mutex;

use super::fused;
use super::simd::Line;
use super::tasks::{self, Axis, grid, portions, tiles};
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

    /// Of one of its launches on so many blocks.
    fn operations(&self, blocks: usize) -> usize {
        2 * self.weights() * self.out_size[0] * self.out_size[1] * blocks * LANES
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

/// Channels of a group in tiles, each of which is packed by itself: the first channel of all, where its weights go, and
/// `row` of them for each channel.
fn pack(
    packed: &mut [f32],
    [groups, channels, row]: [usize; 3],
    work: impl Fn(usize, usize, &mut [f32]) + Send + Sync,
) {
    let all = (0..groups)
        .flat_map(|group| tiles(channels, TILE).map(move |(first, n)| (group * channels + first, n)));
    let tiles: Vec<_> = all.clone().zip(tasks::cut(packed, all.map(|(_, n)| n * row))).collect();
    tasks::run(tiles, |((first, n), packed)| work(first, n, packed));
}

/// Copies some rows of each plane of `from` between margins of zeros, `left` columns and what is left of `wide`.
fn widen(
    from: &[f32],
    [height, width]: [usize; 2],
    rows: Range<usize>,
    to: &mut [f32],
    wide: usize,
    left: usize,
) {
    let planes = from.chunks_exact(height * width * LANES);
    let rows = planes.flat_map(|plane| {
        plane[rows.start * width * LANES..rows.end * width * LANES].chunks_exact(width * LANES)
    });
    for (from, to) in rows.zip(to.chunks_exact_mut(wide * LANES)) {
        to[..left * LANES].fill(0.0);
        to[left * LANES..][..width * LANES].copy_from_slice(from);
        to[(left + width) * LANES..].fill(0.0);
    }
}

/// So many channels of a group of `all` from `first` on, tile by tile: the first and how many, the tile's first and how
/// many channels it has.
fn by_tile(first: usize, count: usize, all: usize) -> impl Iterator<Item = ([usize; 2], [usize; 2])> {
    tiles(all, TILE).filter_map(move |(start, width)| {
        let (from, to) = (first.max(start), (first + count).min(start + width));
        (from < to).then(|| ([from, to - from], [start, width]))
    })
}

/// What one task makes: some channels of one group of a block, and some rows of theirs.
struct Work<'a> {
    block: usize,
    group: usize,
    /// The first channel of the group.
    first: usize,
    /// The first row, and how many.
    rows: [usize; 2],
    /// Those rows of each channel.
    output: Vec<&'a mut [f32]>,
}

/// All of that work, for `output` of so many channels of each group and planes of this size.
fn works<'a>(g: &Shape, channels: usize, size: [usize; 2], output: &'a mut [f32]) -> Vec<Work<'a>> {
    // Of all blocks.
    let groups = output.len() / (channels * size[0] * size[1] * LANES);
    let wanted = tasks::wanted(g.operations(groups / g.groups));
    // Rows first: of an input that is copied between its padding, each takes its own. A picture of a single row has
    // only channels.
    let [rows, channels] =
        grid(wanted, groups, [Axis::new(size[0], 1), Axis { all: channels, tile: TILE, least: 1 }]);
    let lengths = rows.iter().map(|(_, len)| len * size[1] * LANES);
    let mut outputs = portions(output, channels, size[0] * size[1] * LANES, lengths).into_iter();
    let mut work = Vec::with_capacity(outputs.len());
    for piece in 0..groups {
        for (first, _) in channels.iter() {
            for ((start, len), output) in rows.iter().zip(outputs.by_ref()) {
                let (block, group) = (piece / g.groups, piece % g.groups);
                work.push(Work { block, group, first, rows: [start, len], output });
            }
        }
    }
    work
}
