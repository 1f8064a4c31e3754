//! The output of a convolution's pooling windows, two rows of the convolution at a time.

use pulp::{Simd, WithSimd};

use super::{NOWHERE, Shape, Source, View, channel_tile, width};
use crate::kernels::LANES;
use crate::network::Activation;
use crate::twins::simd::{lanes, lanes_mut, registers, scratch, vectorize, wide, wide_mut, wide_u32_mut};
use crate::twins::tasks::{self, Axis, grid, portions};

/// The output, and with `save` what the backward pass needs.
pub(super) fn forward(
    g: &Shape,
    save: bool,
    source: &Source<'_>,
    [weight, bias]: [&[f32]; 2],
    output: &mut [f32],
    saved: &mut [u32],
) {
    let [height, width] = g.pooled();
    // Rows first: where a block is gathered or copied, each task does so with its own. Four channels share pixels in
    // registers, or three of six.
    let tile = if g.out_channels == 6 { 3 } else { 4 };
    let axes = [Axis::new(height, 1), Axis { all: g.out_channels, tile, least: 1 }];
    let wanted = tasks::wanted(g.operations());
    let [rows, channels] = if source.copies(g) {
        grid(wanted, g.blocks, axes)
    } else {
        let [channels, rows] = grid(wanted, g.blocks, [axes[1], axes[0]]);
        [rows, channels]
    };
    let lengths = rows.iter().map(|(_, len)| len);
    let outputs =
        portions(output, channels, height * width * LANES, lengths.clone().map(|len| len * width * LANES));
    // For means both rows of the convolution are kept of each row of windows.
    let kept = lengths.map(|len| len * LANES * if g.average { 2 * g.out_size[1] } else { width });
    let saved = portions(saved, channels, g.kept() * LANES, kept);
    assert_eq!(outputs.len(), saved.len(), "what is kept is as many parts as the output");
    let places = (0..g.blocks).flat_map(|block| {
        channels
            .iter()
            .flat_map(move |(first, _)| rows.iter().map(move |(row, len)| (block, first, [row, len])))
    });
    let work: Vec<_> = places.zip(outputs.into_iter().zip(saved)).collect();
    tasks::run(work, |((block, first, windows), (mut output, mut saved))| {
        let seen = g.seen(windows);
        let copy = source.copy(g, seen.len());
        let rows = 4 * 2 * 2 * width * LANES;
        scratch(copy + rows, |memory| {
            let (copy, values) = memory.split_at_mut(copy);
            let input = source.block(g, block, seen, copy);
            let weight = &weight[first * g.weights()..];
            let bias = bias.get(first..).unwrap_or_default();
            let (output, saved) = (&mut output[..], &mut saved[..]);
            vectorize(Forward { g, save, input, weight, bias, windows, values, output, saved });
        });
    });
}

/// A few output channels of one block.
struct Forward<'a, 'b> {
    g: &'a Shape,
    save: bool,
    input: View<'a>,
    weight: &'a [f32],
    bias: &'a [f32],
    /// The first row of windows, and how many.
    windows: [usize; 2],
    /// Room for two rows of up to four channels.
    values: &'a mut [f32],
    /// The rows of each channel.
    output: &'a mut [&'b mut [f32]],
    saved: &'a mut [&'b mut [u32]],
}

impl WithSimd for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = 2 * self.g.pooled()[1];
        // The tile of columns with the least waste.
        let columns = [5, 4, 2]
            .into_iter()
            .filter(|&columns| columns <= width)
            .min_by_key(|&columns| width.div_ceil(columns) * (10 * columns + 3))
            .unwrap_or(2);
        while !self.output.is_empty() && width > 0 {
            let channels = channel_tile::<S>(self.output.len());
            match (channels, columns) {
                (4, 5) => self.planes::<S, 4, 5>(simd),
                (4, 4) => self.planes::<S, 4, 4>(simd),
                (4, _) => self.planes::<S, 4, 2>(simd),
                (3, 4 | 5) => self.planes::<S, 3, 4>(simd),
                (3, _) => self.planes::<S, 3, 2>(simd),
                (2, 5) => self.planes::<S, 2, 5>(simd),
                (2, 4) => self.planes::<S, 2, 4>(simd),
                (2, _) => self.planes::<S, 2, 2>(simd),
                (_, 4 | 5) => self.planes::<S, 1, 4>(simd),
                (_, _) => self.planes::<S, 1, 2>(simd),
            }
        }
    }
}

impl Forward<'_, '_> {
    /// The next `O` output channels; advances.
    #[inline(always)]
    fn planes<S: Simd, const O: usize, const P: usize>(&mut self, simd: S) {
        match self.g.kernel[1] {
            5 => self.rows::<S, O, P, 5>(simd),
            3 => self.rows::<S, O, P, 3>(simd),
            _ => self.rows::<S, O, P, 1>(simd),
        }
        self.output = &mut std::mem::take(&mut self.output)[O..];
        self.saved = &mut std::mem::take(&mut self.saved)[O..];
        self.weight = &self.weight[O * self.g.weights()..];
        self.bias = self.bias.get(O..).unwrap_or_default();
    }

    /// Two rows of the convolution at a time, `P` neighbouring columns and `T` taps of a row unrolled; then
    /// their windows, while they are in the nearest cache.
    #[inline(always)]
    fn rows<S: Simd, const O: usize, const P: usize, const T: usize>(&mut self, simd: S) {
        let g = self.g;
        let n = registers::<S>();
        let [height, in_width] = [g.in_size[0], width(g)];
        let [kernel_height, kernel_width] = g.kernel;
        let taps = kernel_height * kernel_width;
        let out_width = 2 * g.pooled()[1];
        let input = wide::<S>(self.input.values);
        let weights: [&[f32]; O] = std::array::from_fn(|o| &self.weight[o * g.weights()..][..g.weights()]);
        let bias: [f32; O] = std::array::from_fn(|o| self.bias.get(o).copied().unwrap_or(0.0));
        let [start_row, rows] = self.windows;
        for (at, row) in (start_row..start_row + rows).enumerate() {
            let values = wide_mut::<S>(self.values);
            for dy in 0..2 {
                for register in 0..n {
                    for x in (0..out_width).step_by(P) {
                        // The last tile may overlap the one before it: it writes the same values again.
                        let x = x.min(out_width - P);
                        let mut sums = [[simd.splat_f32s(0.0); P]; O];
                        for (sums, &bias) in sums.iter_mut().zip(&bias) {
                            *sums = [simd.splat_f32s(bias); P];
                        }
                        for channel in 0..g.in_channels {
                            for ky in 0..kernel_height {
                                let y = (2 * row + dy + ky).wrapping_sub(g.pad[0]);
                                if y >= height {
                                    continue;
                                }
                                let start = self.input.row(channel, y) * in_width + x;
                                for kx in (0..kernel_width).step_by(T) {
                                    let pixels = &input[(start + kx) * n + register..][..(P + T - 2) * n + 1];
                                    let at = channel * taps + ky * kernel_width + kx;
                                    let filters: [&[f32]; O] =
                                        std::array::from_fn(|o| &weights[o][at..][..T]);
                                    for t in 0..T {
                                        let pixels: [S::f32s; P] =
                                            std::array::from_fn(|p| pixels[(p + t) * n]);
                                        for o in 0..O {
                                            let w = simd.splat_f32s(filters[o][t]);
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
                                values[((o * 2 + dy) * out_width + x + p) * n + register] = sum;
                            }
                        }
                    }
                }
            }
            for o in 0..O {
                let values = &mut self.values[2 * o * out_width * LANES..][..2 * out_width * LANES];
                let output = &mut self.output[o][at * g.pooled()[1] * LANES..][..g.pooled()[1] * LANES];
                let saved = &mut *self.saved[o];
                if g.average {
                    let from = 2 * at * g.out_size[1] * LANES;
                    average(g, self.save, values, output, &mut saved[from..]);
                } else {
                    let saved = &mut saved[at * g.pooled()[1] * LANES..][..g.pooled()[1] * LANES];
                    maximum::<S>(simd, g.activation, self.save, values, output, saved);
                }
            }
        }
    }
}

/// The activation of the largest of each window of two rows, and its place.
#[inline(always)]
fn maximum<S: Simd>(
    simd: S,
    activation: Option<Activation>,
    save: bool,
    values: &[f32],
    output: &mut [f32],
    saved: &mut [u32],
) {
    let n = registers::<S>();
    let (upper, lower) = wide::<S>(values).split_at(values.len() / (2 * S::F32_LANES));
    let windows = upper.chunks_exact(2 * n).zip(lower.chunks_exact(2 * n));
    let results = wide_mut::<S>(output).chunks_exact_mut(n).zip(wide_u32_mut::<S>(saved).chunks_exact_mut(n));
    for ((upper, lower), (output, saved)) in windows.zip(results) {
        for register in 0..n {
            let [a, b, c, d] = [upper[register], upper[n + register], lower[register], lower[n + register]];
            let (mut best, mut place) = (a, simd.splat_u32s(0));
            for (k, other) in [b, c, d].into_iter().enumerate() {
                let more = simd.greater_than_f32s(other, best);
                best = simd.select_f32s(more, other, best);
                place = simd.select_u32s(more, simd.splat_u32s(k as u32 + 1), place);
            }
            // No NaN is more than anything, but the sum knows of it.
            let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
            best = simd.select_f32s(simd.equal_f32s(sum, sum), best, sum);
            if activation == Some(Activation::Relu) {
                let flat = simd.less_than_or_equal_f32s(best, simd.splat_f32s(0.0));
                place = simd.select_u32s(flat, simd.splat_u32s(NOWHERE), place);
                best = simd.select_f32s(flat, simd.splat_f32s(0.0), best);
            }
            output[register] = best;
            if save {
                saved[register] = place;
            }
        }
    }
    if let Some(activation) = activation.filter(|&activation| activation != Activation::Relu) {
        output.iter_mut().for_each(|y| *y = activation.value(*y));
    }
}

/// The mean of the activations in each window of two rows. Values in a last odd row or column belong to no
/// window and are not kept, as on the GPU.
#[inline(always)]
fn average(g: &Shape, save: bool, values: &mut [f32], output: &mut [f32], saved: &mut [u32]) {
    if let Some(activation) = g.activation {
        values.iter_mut().for_each(|y| *y = activation.value(*y));
    }
    let (upper, lower) = values.split_at(values.len() / 2);
    for at in 0..output.len() / LANES {
        let [a, b] = [2 * at, 2 * at + 1].map(|place| lanes(upper, place));
        let [c, d] = [2 * at, 2 * at + 1].map(|place| lanes(lower, place));
        *lanes_mut(output, at) = std::array::from_fn(|l| 0.25 * (a[l] + b[l] + c[l] + d[l]));
    }
    if save {
        for (row, values) in [upper, lower].into_iter().enumerate() {
            for place in 0..values.len() / LANES {
                *lanes_mut(saved, row * g.out_size[1] + place) = lanes(values, place).map(f32::to_bits);
            }
        }
    }
}
