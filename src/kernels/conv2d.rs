//! `shaders/conv2d.wgsl`: 2-D convolution (cross-correlation) with its activation, and its gradients.
//!
//! The CPU twins share one routine, `correlate`: the input's gradient is a correlation of the upstream
//! gradient with the flipped filters, one for each place of a column within a stride. A 1×1 convolution treats a
//! picture as one row, and where a group is one channel, `depthwise` does the work.

use std::sync::{Arc, Mutex, PoisonError};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

pub use super::{Gradients, LayerBuffers as Buffers};

use super::activation::{Activation, fused_code};
use super::simd::{Line, cut, registers, scratch, share, tiles, vectorize, wide, wide_mut};
use super::{Args, LANES, Launch, Range, WORKGROUP, blocks, depthwise, padded};
use crate::error::Result;

/// Shapes of a convolution; pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels of the input.
    pub in_channels: usize,
    /// Size of the input.
    pub in_size: [usize; 2],
    /// Channels of the output.
    pub out_channels: usize,
    /// Size of the output: `(in + 2·pad − dilation·(kernel − 1) − 1) / stride + 1`.
    pub out_size: [usize; 2],
    /// Size of the filters.
    pub kernel: [usize; 2],
    /// Distance of neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub pad: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if `input_gradient` multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
    /// Invocations that fill the device: large tiles are cut up, and the weights' gradient is split, until there
    /// are so many.
    pub fill: usize,
}

/// Columns and channels of a tile: 4 or 8 of each.
#[derive(Debug, Clone, Copy)]
struct Tile {
    columns: usize,
    channels: usize,
}

/// The multiply-adds that cost as much as a load, on a software adapter.
const LOAD: usize = 13;

impl Geometry {
    pub(super) fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    pub(super) fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Weights, without the bias.
    pub fn weights(&self) -> usize {
        self.out_channels * self.group_in() * self.taps()
    }

    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> u64 {
        (self.weights() * self.out_size[0] * self.out_size[1]) as u64
    }

    pub(super) fn flop(&self) -> u64 {
        2 * self.multiply_adds() * self.batch as u64
    }

    /// Whether every channel has one small filter of its own, which `shaders/depthwise.wgsl` does.
    fn depthwise(&self) -> bool {
        let alone = self.in_channels == self.groups && self.out_channels == self.groups;
        alone && self.groups > 1 && self.kernel.iter().all(|&n| n <= 5)
    }

    /// The same convolution, with a picture as a single row where a filter sees only one pixel.
    fn flat(self) -> Geometry {
        if self.kernel != [1, 1] || self.stride != [1, 1] || self.pad != [0, 0] {
            return self;
        }
        let size = [1, self.in_size[0] * self.in_size[1]];
        Geometry { in_size: size, out_size: size, dilation: [1, 1], ..self }
    }

    /// The tile of the least work that still leaves `fill` invocations, or as many as there can be. There are
    /// `others` times as many tiles as it takes for `columns` and `channels`, and `window` says whether the taps
    /// of a row share pixels.
    fn tile(&self, [columns, channels]: [usize; 2], others: usize, window: bool) -> Tile {
        let taps = self.kernel[1];
        let sizes = [[8, 8], [4, 8], [8, 4], [4, 4]].map(|[columns, channels]| Tile { columns, channels });
        let count = |tile: &Tile| columns.div_ceil(tile.columns) * channels.div_ceil(tile.channels);
        let cost = |tile: &Tile| {
            let pixels =
                if window { taps.div_ceil(3) * (tile.columns - 1) + taps } else { taps * tile.columns };
            // A weight, the same for all invocations, costs half a load.
            let loads = pixels + taps * tile.channels / 2;
            count(tile) * (taps * tile.columns * tile.channels + LOAD * loads)
        };
        let filling = sizes.into_iter().filter(|tile| count(tile) * others >= self.fill).min_by_key(cost);
        filling.unwrap_or(sizes[3])
    }

    fn forward_tile(&self) -> Tile {
        let others = self.groups * self.out_size[0] * blocks(self.batch) * LANES;
        let window = self.stride[1] == 1 && self.dilation[1] == 1;
        self.tile([self.out_size[1], self.group_out()], others, window)
    }

    fn input_tile(&self) -> Tile {
        let others = self.groups * self.in_size[0] * self.stride[1] * blocks(self.batch) * LANES;
        let window = self.stride[1] == 1 && self.dilation[1] == 1;
        self.tile([self.in_size[1].div_ceil(self.stride[1]), self.group_in()], others, window)
    }

    fn weight_tiles(&self) -> usize {
        let rows = self.group_in() * self.kernel[0] * self.kernel[1].div_ceil(3);
        let row_tiles = rows.div_ceil(if self.kernel[1] == 1 { 12 } else { 4 });
        self.groups * self.group_out().div_ceil(4) * (row_tiles + usize::from(self.bias))
    }

    /// Partial sums of the weights' gradient: no more than fill the device, never more than there are blocks.
    pub fn splits(&self) -> usize {
        let tiles = if self.depthwise() { self.groups } else { self.weight_tiles() };
        (self.fill / (tiles * LANES)).clamp(1, blocks(self.batch))
    }

    pub(super) fn constants(&self) -> [(&'static str, f64); 24] {
        let (forward, input) = (self.forward_tile(), self.input_tile());
        let size = |n: usize| n as f64;
        [
            ("CHANNELS", size(forward.channels)),
            ("COLUMNS", size(forward.columns)),
            ("IN_TILE", size(input.channels)),
            ("IN_COLUMNS", size(input.columns)),
            ("IN_CHANNELS", size(self.in_channels)),
            ("IN_HEIGHT", size(self.in_size[0])),
            ("IN_WIDTH", size(self.in_size[1])),
            ("OUT_CHANNELS", size(self.out_channels)),
            ("OUT_HEIGHT", size(self.out_size[0])),
            ("OUT_WIDTH", size(self.out_size[1])),
            ("KERNEL_HEIGHT", size(self.kernel[0])),
            ("KERNEL_WIDTH", size(self.kernel[1])),
            ("STRIDE_HEIGHT", size(self.stride[0])),
            ("STRIDE_WIDTH", size(self.stride[1])),
            ("PAD_HEIGHT", size(self.pad[0])),
            ("PAD_WIDTH", size(self.pad[1])),
            ("DILATION_HEIGHT", size(self.dilation[0])),
            ("DILATION_WIDTH", size(self.dilation[1])),
            ("GROUPS", size(self.groups)),
            ("BIAS", f64::from(u8::from(self.bias))),
            ("ACTIVATION", fused_code(self.activation)),
            ("INPUT_ACTIVATION", fused_code(self.input_activation)),
            ("BLOCKS", size(blocks(self.batch))),
            ("SPLITS", size(self.splits())),
        ]
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        if self.depthwise() {
            return depthwise::forward(self, b);
        }
        let g = self.flat();
        let tile = g.forward_tile();
        let tiles = g.out_size[0] * g.out_size[1].div_ceil(tile.columns);
        let channels = g.groups * g.group_out().div_ceil(tile.channels);
        let grid = [tiles.div_ceil(4), channels, blocks(g.batch)];
        let bindings = [("input", b.input), ("weight", b.weight), ("bias", b.bias), ("output", b.output)];
        let packed = Mutex::default();
        let twin = move |args: &mut Args<'_>| {
            let bias = if g.bias { args.f32("bias") } else { &[] };
            forward(&g, &packed, args.f32("input"), args.f32("weight"), bias, args.f32_mut("output"));
        };
        Launch::old(("conv2d", "forward"), &g.constants(), grid, &bindings, g.flop(), Arc::new(twin))
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        if self.depthwise() {
            return depthwise::input_gradient(self, b, g, input_grad);
        }
        let bindings =
            [("input", b.input), ("weight", b.weight), ("output_grad", g.output), ("input_grad", input_grad)];
        let g = self.flat();
        let tile = g.input_tile();
        let strips = g.stride[1] * g.in_size[1].div_ceil(g.stride[1]).div_ceil(tile.columns);
        let channels = g.groups * g.group_in().div_ceil(tile.channels);
        let grid = [(g.in_size[0] * strips).div_ceil(4), channels, blocks(g.batch)];
        let packed = Mutex::default();
        let twin = move |args: &mut Args<'_>| {
            let input_grad = args.f32_mut("input_grad");
            let (input, weight) = (args.f32("input"), args.f32("weight"));
            input_gradient(&g, &packed, input, weight, args.f32("output_grad"), input_grad);
        };
        Launch::old(("conv2d", "input_gradient"), &g.constants(), grid, &bindings, g.flop(), Arc::new(twin))
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        if self.depthwise() {
            return depthwise::weight_gradient(self, b, g);
        }
        let bindings =
            [("input", b.input), ("output_grad", g.output), ("weight_grad", g.weight), ("bias_grad", g.bias)];
        let g = self.flat();
        let grid = [g.weight_tiles().div_ceil(4), g.splits(), 1];
        let twin = move |args: &mut Args<'_>| weight_gradient(&g, args);
        Launch::old(("conv2d", "weight_gradient"), &g.constants(), grid, &bindings, g.flop(), Arc::new(twin))
    }

    /// Clears the gradients of the weights between channels that `mask`, a word for each pair of an output channel and
    /// a channel of its group's input, does not connect; in all partial sums that `weight_grad` holds, whichever launch
    /// made them.
    pub fn mask_gradient(self, mask: Range, weight_grad: Range) -> Result<Launch> {
        let grid = [self.weights().div_ceil(WORKGROUP), weight_grad.len / padded(self.weights()), 1];
        let bindings = [("mask", mask), ("weight_grad", weight_grad)];
        let twin = move |args: &mut Args<'_>| {
            let (mask, weight_grad) = (args.u32("mask"), args.f32_mut("weight_grad"));
            for sums in weight_grad.chunks_exact_mut(padded(self.weights())) {
                let filters = sums[..self.weights()].chunks_exact_mut(self.taps());
                filters.zip(mask).filter(|(_, seen)| **seen == 0).for_each(|(filter, _)| filter.fill(0.0));
            }
        };
        Launch::old(("conv2d", "mask_gradient"), &self.constants(), grid, &bindings, 0, Arc::new(twin))
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

/// What is done to a sum before it is stored.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// The activation.
    Value(Option<Activation>),
    /// It is multiplied by the activation's derivative where its value is this.
    Slope(Option<Activation>, &'a [f32]),
}

impl Finish<'_> {
    /// What has an instruction of its own, for the sum that goes to register `at`.
    #[inline(always)]
    pub(super) fn register<S: Simd>(self, simd: S, at: usize, sum: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        match self {
            Finish::Value(Some(Activation::Relu)) => simd.max_f32s(sum, zero),
            Finish::Slope(Some(Activation::Relu), value) => {
                let positive = simd.greater_than_f32s(wide::<S>(value)[at], zero);
                simd.mul_f32s(sum, simd.select_f32s(positive, simd.splat_f32s(1.0), zero))
            }
            _ => sum,
        }
    }

    /// What has none, for all that was stored.
    #[inline(always)]
    pub(super) fn rest(self, stored: &mut [f32]) {
        match self {
            Finish::Value(Some(activation)) if activation != Activation::Relu => {
                stored.iter_mut().for_each(|y| *y = activation.value(*y));
            }
            Finish::Slope(Some(activation), value) if activation != Activation::Relu => {
                let slopes = value.iter().map(|&y| activation.slope_by_value(y));
                stored.iter_mut().zip(slopes).for_each(|(grad, slope)| *grad *= slope);
            }
            _ => {}
        }
    }
}

/// One group of one block, as the shared routine sees it.
#[derive(Clone, Copy)]
struct Correlation {
    in_channels: usize,
    in_height: usize,
    /// Columns in memory, with margins of zeros.
    in_width: usize,
    /// The column that the first tap of the first output sees.
    from: usize,
    out_size: [usize; 2],
    /// The columns of the output that are made: the first, and the distance of the next.
    columns: [usize; 2],
    /// Rows and columns of taps.
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Rows of zeros above the input, which are not in memory; negative where rows of it are skipped.
    pad_rows: isize,
    /// The input's rows lie this far apart, with rows of zeros between that are not in memory.
    spread_rows: usize,
}

impl Correlation {
    /// The row of the input that tap `ky` of output row `y` reads, if it is not one of zeros.
    #[inline(always)]
    fn row(&self, y: usize, ky: usize) -> Option<usize> {
        let row = (y * self.stride[0] + ky * self.dilation[0]).checked_add_signed(-self.pad_rows)?;
        (row % self.spread_rows == 0 && row / self.spread_rows < self.in_height)
            .then_some(row / self.spread_rows)
    }
}

/// `output[o, y, x] = bias[o] + Σ weight[c, ky, kx, o] · input[c, row(y, ky), from + x·S + kx·D]` for one block and
/// the output channels of a tile, before it is finished.
struct Correlate<'a> {
    shape: Correlation,
    input: &'a [f32],
    /// `[in_channels, taps, channels]`.
    weight: &'a [f32],
    bias: &'a [f32],
    output: &'a mut [f32],
    channels: usize,
    finish: Finish<'a>,
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let c = self.shape;
        let width = c.out_size[1].saturating_sub(c.columns[0]).div_ceil(c.columns[1]);
        if width == 0 {
            return;
        }
        // The tile of columns with the least waste; 4 × 5 sums fill the 32 registers of AVX-512, 2 × 5 the
        // 16 of AVX2.
        let columns = [5, 4, 1]
            .into_iter()
            .filter(|&columns| columns <= width)
            .min_by_key(|&columns| width.div_ceil(columns) * (10 * columns + 3))
            .unwrap_or(1);
        let mut first = 0;
        while first < self.channels {
            let left = self.channels - first;
            first += match (if S::F32_LANES >= 16 && left >= 4 { 4 } else { left.min(2) }, columns) {
                (4, 5) => self.planes::<S, 4, 5>(simd, first, width),
                (4, 4) => self.planes::<S, 4, 4>(simd, first, width),
                (4, _) => self.planes::<S, 4, 1>(simd, first, width),
                (2, 5) => self.planes::<S, 2, 5>(simd, first, width),
                (2, 4) => self.planes::<S, 2, 4>(simd, first, width),
                (2, _) => self.planes::<S, 2, 1>(simd, first, width),
                (_, 5) => self.planes::<S, 1, 5>(simd, first, width),
                (_, 4) => self.planes::<S, 1, 4>(simd, first, width),
                (_, _) => self.planes::<S, 1, 1>(simd, first, width),
            };
        }
    }
}

impl Correlate<'_> {
    /// Output channels from `first` on; gives how many.
    #[inline(always)]
    fn planes<S: Simd, const O: usize, const P: usize>(
        &mut self,
        simd: S,
        first: usize,
        width: usize,
    ) -> usize {
        let c = &self.shape;
        match (c.stride[1] == 1 && c.dilation[1] == 1, c.kernel[1]) {
            (true, 5) => self.rows::<S, O, P, 5, true>(simd, first, width),
            (true, 3) => self.rows::<S, O, P, 3, true>(simd, first, width),
            (true, _) => self.rows::<S, O, P, 1, true>(simd, first, width),
            (false, _) => self.rows::<S, O, P, 1, false>(simd, first, width),
        }
        O
    }

    /// `O` output channels, `P` neighbouring columns at a time, all in registers; `T` taps of a row are unrolled.
    /// `UNIT` says that stride and dilation of columns are 1.
    #[inline(always)]
    fn rows<S: Simd, const O: usize, const P: usize, const T: usize, const UNIT: bool>(
        &mut self,
        simd: S,
        first: usize,
        width: usize,
    ) {
        let c = self.shape;
        let n = registers::<S>();
        let [out_height, out_width] = c.out_size;
        let [kernel_height, kernel_width] = c.kernel;
        let [shift, step] = c.columns;
        let (stride, dilation) = if UNIT { (1, 1) } else { (c.stride[1], c.dilation[1]) };
        let reach = ((P - 1) * stride + (T - 1) * dilation) * n + 1;
        let input = wide::<S>(self.input);
        let output = wide_mut::<S>(self.output);
        let bias: [f32; O] = std::array::from_fn(|o| self.bias.get(first + o).copied().unwrap_or(0.0));
        let mut there = Vec::with_capacity(kernel_height);
        for y in 0..out_height {
            there.clear();
            there.extend((0..kernel_height).filter_map(|ky| Some((ky * kernel_width, c.row(y, ky)?))));
            for register in 0..n {
                for x in (0..width).step_by(P) {
                    // The last tile may overlap the one before it: it writes the same values again.
                    let x = x.min(width - P);
                    let mut sums = [[simd.splat_f32s(0.0); P]; O];
                    for (sums, &bias) in sums.iter_mut().zip(&bias) {
                        *sums = [simd.splat_f32s(bias); P];
                    }
                    for channel in 0..c.in_channels {
                        for &(tap, row) in &there {
                            let start = (channel * c.in_height + row) * c.in_width + c.from + x * stride;
                            let tap = channel * kernel_height * kernel_width + tap;
                            for kx in (0..kernel_width).step_by(T) {
                                let pixels = &input[(start + kx * dilation) * n + register..][..reach];
                                let weights = &self.weight[(tap + kx) * self.channels + first..];
                                let weights = &weights[..(T - 1) * self.channels + O];
                                for t in 0..T {
                                    let pixels: [S::f32s; P] =
                                        std::array::from_fn(|p| pixels[(p * stride + t * dilation) * n]);
                                    let weights: &[f32; O] =
                                        weights[t * self.channels..][..O].try_into().expect("O weights");
                                    for o in 0..O {
                                        let w = simd.splat_f32s(weights[o]);
                                        for p in 0..P {
                                            sums[o][p] = simd.mul_add_e_f32s(w, pixels[p], sums[o][p]);
                                        }
                                    }
                                }
                            }
                        }
                    }
                    for (o, sums) in sums.into_iter().enumerate() {
                        for (p, sum) in sums.into_iter().enumerate() {
                            let column = shift + (x + p) * step;
                            let at = (((first + o) * out_height + y) * out_width + column) * n + register;
                            output[at] = self.finish.register(simd, at, sum);
                        }
                    }
                }
            }
        }
    }
}

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
fn shares<'a>(
    g: &Geometry,
    channels: usize,
    plane: usize,
    output: &'a mut [f32],
) -> Vec<(Work, &'a mut [f32])> {
    let groups = blocks(g.batch) * g.groups;
    let most = share(groups, channels, TILE);
    let work = (0..groups)
        .flat_map(|k| tiles(channels, most).map(move |(first, n)| (k / g.groups, k % g.groups, first, n)));
    let outputs = cut(output, work.clone().map(|(_, _, _, n)| n * plane));
    work.zip(outputs).collect()
}

fn forward(g: &Geometry, packed: &Packed, input: &[f32], weight: &[f32], bias: &[f32], output: &mut [f32]) {
    let (group_in, group_out, row) = (g.group_in(), g.group_out(), g.group_in() * g.taps());
    let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
    let packed = floats(&mut packed, g.weights());
    for group in 0..g.groups {
        for (first, n) in tiles(group_out, TILE) {
            let at = (group * group_out + first) * row;
            for (k, to) in packed[at..][..n * row].chunks_exact_mut(n).enumerate() {
                for (o, to) in to.iter_mut().enumerate() {
                    *to = weight[at + o * row + k];
                }
            }
        }
    }
    let packed = &*packed;
    let shape = Correlation {
        in_channels: group_in,
        in_height: g.in_size[0],
        in_width: g.in_size[1] + 2 * g.pad[1],
        from: 0,
        out_size: g.out_size,
        columns: [0, 1],
        kernel: g.kernel,
        stride: g.stride,
        dilation: g.dilation,
        pad_rows: g.pad[0] as isize,
        spread_rows: 1,
    };
    let group_input = group_in * g.in_size[0] * g.in_size[1] * LANES;
    let copy = if g.pad[1] > 0 { group_in * shape.in_height * shape.in_width * LANES } else { 0 };
    let plane = g.out_size[0] * g.out_size[1] * LANES;
    shares(g, group_out, plane, output).into_par_iter().with_max_len(1).for_each(
        |((block, group, first, channels), output)| {
            let input = &input[(block * g.groups + group) * group_input..][..group_input];
            scratch(copy, |copy| {
                let input = if g.pad[1] > 0 {
                    widen(input, g.in_size[1], copy, shape.in_width, g.pad[1]);
                    &*copy
                } else {
                    input
                };
                for ((start, n), output) in tiles(channels, TILE).zip(output.chunks_mut(TILE * plane)) {
                    let first = group * group_out + first + start;
                    let bias = bias.get(first..).unwrap_or_default();
                    let (weight, finish) = (&packed[first * row..][..n * row], Finish::Value(g.activation));
                    vectorize(Correlate { shape, input, weight, bias, output, channels: n, finish });
                    finish.rest(output);
                }
            });
        },
    );
}

/// The input's columns that lie at one place within a stride, and the taps that reach them.
struct Phase {
    /// Of all columns.
    place: usize,
    /// From the last to the first, as neighbouring columns of the gradient meet them.
    taps: Vec<usize>,
    /// The column of the gradient that the first of `taps` brings to the first column of the phase.
    from: isize,
    /// And how many the next tap lies further on.
    dilation: usize,
}

impl Phase {
    fn all(g: &Geometry) -> Vec<Phase> {
        let (stride, pad, dilation) = (g.stride[1], g.pad[1] as isize, g.dilation[1]);
        let phases = (0..stride.min(g.in_size[1])).map(|place| {
            // The column, times the stride, through which tap `kx` reaches column `place`.
            let meets = |kx: usize| place as isize + pad - (kx * dilation) as isize;
            let taps: Vec<usize> =
                (0..g.kernel[1]).rev().filter(|&kx| meets(kx) % stride as isize == 0).collect();
            let columns: Vec<isize> = taps.iter().map(|&kx| meets(kx) / stride as isize).collect();
            let dilation = columns.get(1).map_or(1, |next| (next - columns[0]) as usize);
            Phase { place, taps, from: columns.first().copied().unwrap_or(0), dilation }
        });
        phases.collect()
    }

    /// How many columns of the input belong to it.
    fn columns(&self, g: &Geometry) -> usize {
        (g.in_size[1] - self.place).div_ceil(g.stride[1])
    }
}

fn input_gradient(
    g: &Geometry,
    packed: &Packed,
    input: &[f32],
    weight: &[f32],
    output_grad: &[f32],
    input_grad: &mut [f32],
) {
    let (taps, group_in, group_out) = (g.taps(), g.group_in(), g.group_out());
    let phases = Phase::all(g);
    // In the correlation that yields the input's gradient, inputs and outputs change places, and filters are
    // flipped.
    let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
    let packed = floats(&mut packed, g.weights());
    let mut rest = &mut *packed;
    for phase in &phases {
        for group in 0..g.groups {
            for (first, n) in tiles(group_in, TILE) {
                for o in group * group_out..(group + 1) * group_out {
                    for ky in (0..g.kernel[0]).rev() {
                        for kx in &phase.taps {
                            let (to, tail) = rest.split_at_mut(n);
                            let at = (o * group_in + first) * taps + ky * g.kernel[1] + kx;
                            for (c, to) in to.iter_mut().enumerate() {
                                *to = weight[at + c * taps];
                            }
                            rest = tail;
                        }
                    }
                }
            }
        }
    }
    let packed = &*packed;
    // Margins of zeros that the filters reach into.
    let margin = |columns: isize| usize::try_from(columns).unwrap_or(0);
    let left = phases.iter().map(|phase| margin(-phase.from)).max().unwrap_or(0);
    let ends = phases.iter().map(|phase| {
        let last = phase.from + (phase.taps.len().max(1) - 1) as isize * phase.dilation as isize;
        margin(last + phase.columns(g) as isize)
    });
    let width = left + ends.max().unwrap_or(0).max(g.out_size[1]);
    let shape = Correlation {
        in_channels: group_out,
        in_height: g.out_size[0],
        in_width: width,
        from: 0,
        out_size: g.in_size,
        columns: [0, 1],
        kernel: g.kernel,
        stride: [1, 1],
        dilation: g.dilation,
        pad_rows: ((g.kernel[0] - 1) * g.dilation[0]) as isize - g.pad[0] as isize,
        spread_rows: g.stride[0],
    };
    let plane = g.in_size[0] * g.in_size[1] * LANES;
    let group_grads = group_out * g.out_size[0] * g.out_size[1] * LANES;
    let wider = width > g.out_size[1];
    let copy = if wider { group_out * g.out_size[0] * width * LANES } else { 0 };
    shares(g, group_in, plane, input_grad).into_par_iter().with_max_len(1).for_each(
        |((block, group, first, channels), output)| {
            let grads = &output_grad[(block * g.groups + group) * group_grads..][..group_grads];
            scratch(copy, |copy| {
                let grads = if wider {
                    widen(grads, g.out_size[1], copy, width, left);
                    &*copy
                } else {
                    grads
                };
                for ((start, n), output) in tiles(channels, TILE).zip(output.chunks_mut(TILE * plane)) {
                    let first = group * group_in + first + start;
                    let value = &input[(block * g.in_channels + first) * plane..][..n * plane];
                    let finish = Finish::Slope(g.input_activation, value);
                    let mut packed = packed;
                    for phase in &phases {
                        let row = group_out * g.kernel[0] * phase.taps.len();
                        let (weights, later) = packed.split_at(g.in_channels * row);
                        packed = later;
                        let shape = Correlation {
                            from: left.wrapping_add_signed(phase.from),
                            columns: [phase.place, g.stride[1]],
                            kernel: [g.kernel[0], phase.taps.len()],
                            dilation: [g.dilation[0], phase.dilation],
                            ..shape
                        };
                        vectorize(Correlate {
                            shape,
                            input: grads,
                            weight: &weights[first * row..][..n * row],
                            bias: &[],
                            output: &mut *output,
                            channels: n,
                            finish,
                        });
                    }
                    finish.rest(output);
                }
            });
        },
    );
}

/// Some partial sums of one split: of neighbouring output channels with neighbouring input channels of their group.
struct WeightGradient<'a> {
    g: &'a Geometry,
    split: usize,
    /// The first output channel, of all.
    first: usize,
    /// The first input channel, of all.
    first_input: usize,
    /// For each output channel, the weights of the input channels.
    rows: Vec<&'a mut [f32]>,
    /// For each output channel, or for none.
    biases: &'a mut [f32],
    output_grad: &'a [f32],
    input: &'a [f32],
    /// The plane of `input` that holds the first channel of the split's first block, and how many planes further on
    /// the next block's lies.
    planes: [usize; 2],
    /// Columns of `input`, with its padding.
    in_width: usize,
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut first = 0;
        while first < self.rows.len() {
            let left = self.rows.len() - first;
            first += match if S::F32_LANES >= 16 && left >= 4 { 4 } else { left.min(2) } {
                4 => self.filters::<S, 4>(simd, first),
                2 => self.filters::<S, 2>(simd, first),
                _ => self.filters::<S, 1>(simd, first),
            };
        }
        let plane = self.g.out_size[0] * self.g.out_size[1] * LANES;
        for (o, bias) in self.biases.iter_mut().enumerate() {
            let mut sums = [simd.splat_f32s(0.0); 4];
            for block in (self.split..blocks(self.g.batch)).step_by(self.g.splits()) {
                let at = (block * self.g.out_channels + self.first + o) * plane;
                for (k, &value) in wide::<S>(&self.output_grad[at..][..plane]).iter().enumerate() {
                    sums[k % 4] = simd.add_f32s(sums[k % 4], value);
                }
            }
            let [a, b, c, d] = sums;
            *bias = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        }
    }
}

impl WeightGradient<'_> {
    /// All weights of `O` output channels from `first` on; gives `O`.
    #[inline(always)]
    fn filters<S: Simd, const O: usize>(&mut self, simd: S, first: usize) -> usize {
        let g = self.g;
        let unit = g.stride[1] == 1 && g.dilation[1] == 1;
        // Channels outside, so that all taps find their planes in a near cache.
        for (start, channels) in tiles(self.rows[0].len() / g.taps(), if g.kernel[1] < 3 { 4 } else { 2 }) {
            for ky in 0..g.kernel[0] {
                let mut kx = 0;
                while kx < g.kernel[1] {
                    let taps = match g.kernel[1] - kx {
                        5 if unit => 5,
                        3.. => 3,
                        _ => 1,
                    };
                    let mut c = start;
                    while c < start + channels {
                        c += match (taps, start + channels - c) {
                            (5, _) => self.taps::<S, O, 1, 5, true>(simd, first, [c, ky, kx]),
                            (3, 2..) if unit => self.taps::<S, O, 2, 3, true>(simd, first, [c, ky, kx]),
                            (3, 2..) => self.taps::<S, O, 2, 3, false>(simd, first, [c, ky, kx]),
                            (3, _) => self.taps::<S, O, 1, 3, false>(simd, first, [c, ky, kx]),
                            (_, 4..) if unit => self.taps::<S, O, 4, 1, true>(simd, first, [c, ky, kx]),
                            (_, 4..) => self.taps::<S, O, 4, 1, false>(simd, first, [c, ky, kx]),
                            (_, _) => self.taps::<S, O, 1, 1, false>(simd, first, [c, ky, kx]),
                        };
                    }
                    kx += taps;
                }
            }
        }
        O
    }

    /// `O` output channels × `C` input channels × `T` neighbouring taps from `[channel, ky, kx]` on, summed in
    /// registers; gives `C`. `UNIT` says that stride and dilation of columns are 1.
    #[inline(always)]
    fn taps<S: Simd, const O: usize, const C: usize, const T: usize, const UNIT: bool>(
        &mut self,
        simd: S,
        first: usize,
        [c, ky, kx]: [usize; 3],
    ) -> usize {
        let g = self.g;
        let n = registers::<S>();
        let [out_height, out_width] = g.out_size;
        let in_height = g.in_size[0];
        let (stride, dilation) = if UNIT { (1, 1) } else { (g.stride[1], g.dilation[1]) };
        let (input, grads) = (wide::<S>(self.input), wide::<S>(self.output_grad));
        let mut sums = [[[simd.splat_f32s(0.0); T]; C]; O];
        for (k, block) in (self.split..blocks(g.batch)).step_by(g.splits()).enumerate() {
            let plane = self.planes[0] + k * self.planes[1] + c;
            let channel = block * g.out_channels + self.first + first;
            for y in 0..out_height {
                let Some(row) = (y * g.stride[0] + ky * g.dilation[0]).checked_sub(g.pad[0]) else {
                    continue;
                };
                if row >= in_height {
                    continue;
                }
                for register in 0..n {
                    let rows: [&[S::f32s]; C] = std::array::from_fn(|c| {
                        let at = ((plane + c) * in_height + row) * self.in_width + kx * dilation;
                        &input[at * n + register..]
                    });
                    let grads: [&[S::f32s]; O] = std::array::from_fn(|o| {
                        let at = ((channel + o) * out_height + y) * out_width;
                        &grads[at * n + register..][..(out_width - 1) * n + 1]
                    });
                    for x in 0..out_width {
                        let grads: [S::f32s; O] = std::array::from_fn(|o| grads[o][x * n]);
                        for (c, row) in rows.iter().enumerate() {
                            let pixels = &row[x * stride * n..][..(T - 1) * dilation * n + 1];
                            for t in 0..T {
                                let pixel = pixels[t * dilation * n];
                                for (sums, &grad) in sums.iter_mut().zip(&grads) {
                                    sums[c][t] = simd.mul_add_e_f32s(grad, pixel, sums[c][t]);
                                }
                            }
                        }
                    }
                }
            }
        }
        for (row, sums) in self.rows[first..].iter_mut().zip(sums) {
            for (k, sums) in sums.into_iter().enumerate() {
                let at = (c + k) * g.taps() + ky * g.kernel[1] + kx;
                for (weight, sum) in row[at..at + T].iter_mut().zip(sums) {
                    *weight = simd.reduce_sum_f32s(sum);
                }
            }
        }
        C
    }
}

fn weight_gradient(g: &Geometry, args: &mut Args<'_>) {
    let (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
    let (input, output_grad) = (args.f32("input"), args.f32("output_grad"));
    let (splits, group_in, group_out) = (g.splits(), g.group_in(), g.group_out());
    // Tasks take different input channels, each of which is then copied once, and where those are too few, different
    // output channels.
    let inputs = share(splits * g.groups, group_in, TILE);
    let outputs = share(splits * g.groups * group_in.div_ceil(inputs), group_out, TILE);
    let in_width = g.in_size[1] + 2 * g.pad[1];
    let mut work = Vec::new();
    let mut biases = bias_grad.chunks_mut(padded(g.out_channels));
    for (split, weight_grad) in weight_grad.chunks_mut(padded(g.weights())).take(splits).enumerate() {
        let mut biases = if g.bias { biases.next().unwrap_or_default() } else { &mut [] };
        let mut filters = weight_grad[..g.weights()].chunks_exact_mut(group_in * g.taps());
        for group in 0..g.groups {
            for (first, n) in tiles(group_out, outputs) {
                let (mut here, rest) = biases.split_at_mut(if g.bias { n } else { 0 });
                biases = rest;
                let mut shares: Vec<Vec<&mut [f32]>> =
                    tiles(group_in, inputs).map(|_| Vec::with_capacity(n)).collect();
                for filter in filters.by_ref().take(n) {
                    for (share, part) in shares.iter_mut().zip(filter.chunks_mut(inputs * g.taps())) {
                        share.push(part);
                    }
                }
                for ((first_input, _), rows) in tiles(group_in, inputs).zip(shares) {
                    let first_input = group * group_in + first_input;
                    work.push(WeightGradient {
                        g,
                        split,
                        first: group * group_out + first,
                        first_input,
                        rows,
                        biases: std::mem::take(&mut here),
                        output_grad,
                        input,
                        planes: [split * g.in_channels + first_input, splits * g.in_channels],
                        in_width,
                    });
                }
            }
        }
    }
    work.into_par_iter().with_max_len(1).for_each(|task| {
        if g.pad[1] == 0 {
            return vectorize(task);
        }
        let row = g.in_size[1] * LANES;
        let (plane, wide_plane) = (g.in_size[0] * row, g.in_size[0] * in_width * LANES);
        let channels = task.rows[0].len() / g.taps();
        let blocks = (task.split..blocks(g.batch)).step_by(splits);
        scratch(blocks.len() * channels * wide_plane, |copy| {
            for (block, copy) in blocks.zip(copy.chunks_exact_mut(channels * wide_plane)) {
                let from = &input[(block * g.in_channels + task.first_input) * plane..][..channels * plane];
                widen(from, g.in_size[1], copy, in_width, g.pad[1]);
            }
            vectorize(WeightGradient { input: copy, planes: [0, channels], ..task });
        });
    });
}
