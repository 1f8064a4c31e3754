//! The partial sums of the gradients of weights and bias.

use pulp::{Simd, WithSimd};

use super::backward::{NEAR, Upstream};
use super::{Shape, Source, channel_tile, width};
use crate::kernels::LANES;
use crate::twins::simd::{registers, scratch, vectorize, wide, wide_mut};

/// Partial sum `split` of the gradients of the output channels from `first` on for which there is room: of the rows of
/// taps from `taps` on.
pub(super) fn weight_gradient(
    upstream: &Upstream<'_>,
    source: &Source<'_>,
    [split, first, taps]: [usize; 3],
    weight_grad: Vec<&mut [f32]>,
    bias_grad: &mut [f32],
) {
    let g = upstream.g;
    let channels = weight_grad.len();
    let weights = weight_grad.first().map_or(0, |filter| filter.len());
    // Rows of windows, of up to four channels.
    let window_row = 4 * 2 * 2 * g.pooled()[1] * LANES;
    let strip = (NEAR / window_row.max(1)).clamp(1, g.pooled()[0].max(1));
    let (copy, sums) = (source.copy(g, g.in_size[0]), channels * (weights + 1) * LANES);
    scratch(copy + strip * window_row + sums, |memory| {
        let (copy, memory) = memory.split_at_mut(copy);
        let (dz, sums) = memory.split_at_mut(strip * window_row);
        let place = Part { split, first, channels, taps: [taps, weights / g.kernel[1]], strip };
        vectorize(WeightGradient { upstream, source, place, copy, dz, sums, weight_grad, bias_grad });
    });
}

/// Which partial sums a task makes: channels `first` to `first + channels` of partial sum `split`.
#[derive(Clone, Copy)]
struct Part {
    split: usize,
    first: usize,
    channels: usize,
    /// The first row of taps, of all input channels, and how many.
    taps: [usize; 2],
    /// Rows of windows that it takes at once.
    strip: usize,
}

/// The partial sums of a few output channels over the blocks and rows of one split.
struct WeightGradient<'a> {
    upstream: &'a Upstream<'a>,
    source: &'a Source<'a>,
    place: Part,
    copy: &'a mut [f32],
    /// dz of a strip: `[row, column, channel]`.
    dz: &'a mut [f32],
    /// One register for each weight, `[channel, ky, kx, output channel]` of each tile of output channels; then
    /// one for each bias.
    sums: &'a mut [f32],
    /// Of each output channel.
    weight_grad: Vec<&'a mut [f32]>,
    bias_grad: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let WeightGradient { upstream, source, place, copy, dz, sums, mut weight_grad, bias_grad } = self;
        let g = upstream.g;
        let weights = place.taps[1] * g.kernel[1];
        let sums = &mut wide_mut::<S>(sums)[..place.channels * (weights + 1)];
        sums.fill(simd.splat_f32s(0.0));
        let (sums, biases) = sums.split_at_mut(place.channels * weights);
        // Its rows of windows are `start`, `start + step` and so on.
        let (start, step) = (place.split % g.row_splits, g.row_splits);
        for block in g.blocks_of(place.split) {
            let input = wide::<S>(source.block(g, block, 0..g.in_size[0], copy).values);
            for start in (start..g.pooled()[0]).step_by(step * place.strip) {
                let windows = (start..g.pooled()[0]).step_by(step).take(place.strip);
                let mut done = 0;
                while done < place.channels {
                    let channels = channel_tile::<S>(place.channels - done);
                    let sums = &mut sums[done * weights..][..channels * weights];
                    for (row, window) in windows.clone().enumerate() {
                        for o in 0..channels {
                            let width = 2 * g.pooled()[1] * channels;
                            let to = &mut dz[(2 * row * width + o) * LANES..];
                            let from = (block, place.first + done + o, window);
                            let sum = upstream.spread::<S>(simd, from, to, [width, channels]);
                            biases[done + o] = simd.add_f32s(biases[done + o], sum);
                        }
                    }
                    let dz = wide::<S>(dz);
                    match channels {
                        4 => tap_rows::<S, 4>(simd, g, input, windows.clone(), dz, place.taps, sums),
                        3 => tap_rows::<S, 3>(simd, g, input, windows.clone(), dz, place.taps, sums),
                        2 => tap_rows::<S, 2>(simd, g, input, windows.clone(), dz, place.taps, sums),
                        _ => tap_rows::<S, 1>(simd, g, input, windows.clone(), dz, place.taps, sums),
                    }
                    done += channels;
                }
            }
        }
        let mut done = 0;
        while done < place.channels {
            let channels = channel_tile::<S>(place.channels - done);
            for o in 0..channels {
                let sums = sums[done * weights + o..].iter().step_by(channels);
                for (weight, &sum) in weight_grad[done + o].iter_mut().zip(sums) {
                    *weight = simd.reduce_sum_f32s(sum);
                }
            }
            done += channels;
        }
        for (bias, &sum) in bias_grad.iter_mut().zip(&*biases) {
            *bias = simd.reduce_sum_f32s(sum);
        }
    }
}

/// Adds the products of a strip to the sums of some rows of taps of `O` output channels.
#[inline(always)]
fn tap_rows<S: Simd, const O: usize>(
    simd: S,
    g: &Shape,
    input: &[S::f32s],
    windows: impl Iterator<Item = usize> + Clone,
    dz: &[S::f32s],
    [first, rows]: [usize; 2],
    sums: &mut [S::f32s],
) {
    let [kernel_height, kernel_width] = g.kernel;
    for (row, sums) in (first..first + rows).zip(sums.chunks_exact_mut(kernel_width * O)) {
        let (c, ky) = (row / kernel_height, row % kernel_height);
        match kernel_width {
            5 => tap_sums::<S, O, 5>(simd, g, input, windows.clone(), dz, [c, ky, 0], sums),
            3 => tap_sums::<S, O, 3>(simd, g, input, windows.clone(), dz, [c, ky, 0], sums),
            _ => sums.chunks_exact_mut(O).enumerate().for_each(|(kx, sums)| {
                tap_sums::<S, O, 1>(simd, g, input, windows.clone(), dz, [c, ky, kx], sums);
            }),
        }
    }
}

/// `O` output channels × `T` neighbouring taps from `[channel, ky, kx]` on, summed in registers.
#[inline(always)]
fn tap_sums<S: Simd, const O: usize, const T: usize>(
    simd: S,
    g: &Shape,
    input: &[S::f32s],
    windows: impl Iterator<Item = usize>,
    dz: &[S::f32s],
    [c, ky, kx]: [usize; 3],
    sums: &mut [S::f32s],
) {
    let n = registers::<S>();
    let out_width = 2 * g.pooled()[1];
    let mut held: [[S::f32s; O]; T] = std::array::from_fn(|t| std::array::from_fn(|o| sums[t * O + o]));
    for (window, dz) in windows.zip(dz.chunks_exact(2 * out_width * O * n)) {
        for (dy, dz) in dz.chunks_exact(out_width * O * n).enumerate() {
            let y = (2 * window + dy + ky).wrapping_sub(g.pad[0]);
            if y >= g.in_size[0] {
                continue;
            }
            let start = (c * g.in_size[0] + y) * width(g) + kx;
            for register in 0..n {
                let pixels = &input[start * n + register..][..(out_width + T - 2) * n + 1];
                let pixels = pixels.windows((T - 1) * n + 1).step_by(n);
                for (dz, pixels) in dz.chunks_exact(O * n).zip(pixels) {
                    let pixels: [S::f32s; T] = std::array::from_fn(|t| pixels[t * n]);
                    for o in 0..O {
                        let d = dz[o * n + register];
                        for t in 0..T {
                            held[t][o] = simd.mul_add_e_f32s(d, pixels[t], held[t][o]);
                        }
                    }
                }
            }
        }
    }
    for (sums, held) in sums.chunks_exact_mut(O).zip(held) {
        sums.copy_from_slice(&held);
    }
}
