//! The gradient of the input.

use pulp::{Simd, WithSimd};

use super::backward::{NEAR, Upstream};
use super::{Shape, Source};
use crate::kernels::LANES;
use crate::network::Activation;
use crate::twins::simd::{registers, scratch, vectorize, wide, wide_mut};
use crate::twins::tasks::tiles;

/// The gradient of a block's input channels from `first` on for which there is room: of so many rows from `row` on.
pub(super) fn input_gradient(
    upstream: &Upstream<'_>,
    source: &Source<'_>,
    [block, first]: [usize; 2],
    rows: [usize; 2],
    weight: &[f32],
    input_grad: Vec<&mut [f32]>,
) {
    let g = upstream.g;
    let channels = input_grad.len();
    // The rows of windows through which these rows of the input are seen.
    let reached = rows[0] + rows[1] + g.pad[0];
    let end = reached.min(2 * g.pooled()[0]).div_ceil(2);
    let start = ((rows[0] + g.pad[0] + 1).saturating_sub(g.kernel[0]) / 2).min(end);
    let plane = 4 * (end - start) * g.pooled()[1] * LANES;
    let few = (NEAR / plane.max(1)).clamp(1, g.out_channels);
    // Rows of sums have room for all that a row of dz reaches.
    let reach = 2 * g.pooled()[1] + g.kernel[1] - 1;
    let sums_width = reach.max(g.in_size[1] + g.pad[1]);
    let sums = channels * rows[1] * sums_width * LANES;
    let input = match (source, g.input_activation) {
        (Source::Floats(all), Some(activation)) => Some((*all, activation)),
        _ => None,
    };
    let place = Place { block, first, rows, windows: [start, end] };
    scratch(few * plane + sums, |memory| {
        let (dz, sums) = memory.split_at_mut(few * plane);
        vectorize(InputGradient { upstream, input, place, few, weight, sums_width, dz, sums, input_grad });
    });
}

/// Which part of the gradient a task makes.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    /// The first channel.
    first: usize,
    /// The first row, and how many.
    rows: [usize; 2],
    /// The rows of windows that reach them: the first, and the one after the last.
    windows: [usize; 2],
}

/// The gradient of a few input channels of a block.
struct InputGradient<'a> {
    upstream: &'a Upstream<'a>,
    /// All of the input, and the activation that made it.
    input: Option<(&'a [f32], Activation)>,
    place: Place,
    /// Output channels that it takes at once.
    few: usize,
    weight: &'a [f32],
    sums_width: usize,
    /// `[output channel, row, column]` of a few output channels.
    dz: &'a mut [f32],
    /// `[channel, row]` of the input, with [`Self::sums_width`] columns from the padding on.
    sums: &'a mut [f32],
    /// The rows of each channel.
    input_grad: Vec<&'a mut [f32]>,
}

impl WithSimd for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let g = self.upstream.g;
        let Place { block, first, rows: [top, count], windows: [start, end] } = self.place;
        let [height, width] = [2 * (end - start), 2 * g.pooled()[1]];
        let n = registers::<S>();
        self.sums.fill(0.0);
        for (o, few) in tiles(g.out_channels, self.few) {
            for (k, plane) in self.dz.chunks_exact_mut((height * width * LANES).max(1)).take(few).enumerate()
            {
                for window in start..end {
                    let to = &mut plane[2 * (window - start) * width * LANES..];
                    self.upstream.spread::<S>(simd, (block, o + k, window), to, [width, 1]);
                }
            }
            let dz = &wide::<S>(self.dz)[..few * height * width * n];
            let rows = wide_mut::<S>(self.sums).chunks_exact_mut(self.sums_width * n).enumerate();
            for (row, sums) in rows.take(self.input_grad.len() * count) {
                let (c, y) = (first + row / count, top + row % count);
                let (dz, weight) = ((dz, [2 * start, 2 * end]), &self.weight[o * g.weights()..]);
                let mut x = 0;
                while x < width {
                    match (S::F32_LANES, width - x) {
                        (16.., 10..) => {
                            strew_taps::<S, 10, 14, 12>(simd, g, dz, weight, [c, y, x], sums);
                            x += 10;
                        }
                        (_, 4..) => {
                            strew_taps::<S, 4, 8, 6>(simd, g, dz, weight, [c, y, x], sums);
                            x += 4;
                        }
                        _ => {
                            strew_taps::<S, 2, 6, 4>(simd, g, dz, weight, [c, y, x], sums);
                            x += 2;
                        }
                    }
                }
            }
        }
        let row = g.in_size[1] * LANES;
        let mut sums = self.sums.chunks_exact(self.sums_width * LANES);
        for (c, input_grad) in self.input_grad.into_iter().enumerate() {
            for (to, sums) in input_grad.chunks_exact_mut(row).zip(sums.by_ref()) {
                to.copy_from_slice(&sums[g.pad[1] * LANES..][..row]);
            }
            let Some((input, activation)) = self.input else { continue };
            let at = ((block * g.in_channels + first + c) * g.in_size[0] + top) * row;
            let input = &input[at..][..input_grad.len()];
            if activation == Activation::Relu {
                let (one, zero) = (simd.splat_f32s(1.0), simd.splat_f32s(0.0));
                for (grad, &y) in wide_mut::<S>(input_grad).iter_mut().zip(wide::<S>(input)) {
                    let slope = simd.select_f32s(simd.greater_than_f32s(y, zero), one, zero);
                    *grad = simd.mul_f32s(*grad, slope);
                }
            } else {
                for (grad, &y) in input_grad.iter_mut().zip(input) {
                    *grad *= activation.slope_by_value(y);
                }
            }
        }
    }
}

/// dz of some output channels, one after the other, and which rows of it are there: the first, and the one after the
/// last.
type Rows<'a, F> = (&'a [F], [usize; 2]);

/// Adds what `W` columns of dz from `x` on give to row `[channel, y]` of the sums: `A` of them with filters of
/// five columns, `B` with three.
#[inline(always)]
fn strew_taps<S: Simd, const W: usize, const A: usize, const B: usize>(
    simd: S,
    g: &Shape,
    dz: Rows<'_, S::f32s>,
    weight: &[f32],
    at: [usize; 3],
    sums: &mut [S::f32s],
) {
    match g.kernel[1] {
        5 => strew::<S, W, 5, A>(simd, g, dz, weight, at, 0, sums),
        3 => strew::<S, W, 3, B>(simd, g, dz, weight, at, 0, sums),
        taps => (0..taps).for_each(|kx| strew::<S, W, 1, W>(simd, g, dz, weight, at, kx, sums)),
    }
}

/// `T` taps of each filter from `kx` on, `A = W + T − 1` sums in registers: no product with the zeros around
/// dz is made.
#[inline(always)]
fn strew<S: Simd, const W: usize, const T: usize, const A: usize>(
    simd: S,
    g: &Shape,
    dz: Rows<'_, S::f32s>,
    weight: &[f32],
    [c, y, x]: [usize; 3],
    kx: usize,
    sums: &mut [S::f32s],
) {
    let n = registers::<S>();
    let (dz, [top, end]) = dz;
    let (height, width) = (end - top, 2 * g.pooled()[1]);
    let [kernel_height, kernel_width] = g.kernel;
    let padded = y + g.pad[0];
    let rows = (padded + 1).saturating_sub(end)..kernel_height.min(padded + 1);
    for register in 0..n {
        let sums = &mut sums[(x + kx) * n + register..][..(A - 1) * n + 1];
        let mut held: [S::f32s; A] = std::array::from_fn(|k| sums[k * n]);
        for (o, dz) in dz.chunks_exact((height * width * n).max(1)).enumerate() {
            for ky in rows.clone() {
                let dz = &dz[((padded - ky - top) * width + x) * n + register..][..(W - 1) * n + 1];
                let dz: [S::f32s; W] = std::array::from_fn(|k| dz[k * n]);
                let at = o * g.weights() + (c * kernel_height + ky) * kernel_width + kx;
                let filter = &weight[at..][..T];
                for t in 0..T {
                    let w = simd.splat_f32s(filter[t]);
                    for k in 0..W {
                        held[k + t] = simd.mul_add_e_f32s(w, dz[k], held[k + t]);
                    }
                }
            }
        }
        for (k, held) in held.into_iter().enumerate() {
            sums[k * n] = held;
        }
    }
}
