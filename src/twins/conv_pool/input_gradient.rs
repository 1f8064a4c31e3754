//! The gradient of the input.

use pulp::{Simd, WithSimd};

use super::backward::{NEAR, Upstream};
use super::{Shape, Source};
use crate::kernels::LANES;
use crate::network::Activation;
use crate::twins::simd::{registers, scratch, vectorize, wide, wide_mut};
use crate::twins::tasks::tiles;

/// The gradient of a block's input channels from `first` on for which there is room.
pub(super) fn input_gradient(
    upstream: &Upstream<'_>,
    source: &Source<'_>,
    block: usize,
    first: usize,
    weight: &[f32],
    input_grad: &mut [f32],
) {
    let g = upstream.g;
    let plane = 4 * g.pooled()[0] * g.pooled()[1] * LANES;
    let few = (NEAR / plane.max(1)).clamp(1, g.out_channels);
    let channels = input_grad.len() / (g.in_size[0] * g.in_size[1] * LANES);
    // Rows of sums have room for all that a row of dz reaches.
    let reach = 2 * g.pooled()[1] + g.kernel[1] - 1;
    let sums_width = reach.max(g.in_size[1] + g.pad[1]);
    let sums = channels * g.in_size[0] * sums_width * LANES;
    let place = (block, first, channels);
    let input = match (source, g.input_activation) {
        (Source::Floats(all), Some(activation)) => {
            let size = g.in_size[0] * g.in_size[1] * LANES;
            let at = (block * g.in_channels + first) * size;
            Some((&all[at..][..channels * size], activation))
        }
        _ => None,
    };
    scratch(few * plane + sums, |memory| {
        let (dz, sums) = memory.split_at_mut(few * plane);
        vectorize(InputGradient { upstream, input, place, few, weight, sums_width, dz, sums, input_grad });
    });
}

/// The gradient of a few input channels of a block.
struct InputGradient<'a> {
    upstream: &'a Upstream<'a>,
    /// The input and the activation that made it.
    input: Option<(&'a [f32], Activation)>,
    /// Block, first channel, channels.
    place: (usize, usize, usize),
    /// Output channels that it takes at once.
    few: usize,
    weight: &'a [f32],
    sums_width: usize,
    /// `[output channel, row, column]` of a few output channels.
    dz: &'a mut [f32],
    /// `[channel, row]` of the input, with [`Self::sums_width`] columns from the padding on.
    sums: &'a mut [f32],
    input_grad: &'a mut [f32],
}

impl WithSimd for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let g = self.upstream.g;
        let (block, first, channels) = self.place;
        let [height, width] = g.pooled().map(|n| 2 * n);
        let n = registers::<S>();
        self.sums.fill(0.0);
        for (o, few) in tiles(g.out_channels, self.few) {
            for (k, plane) in self.dz.chunks_exact_mut((height * width * LANES).max(1)).take(few).enumerate()
            {
                for window in 0..height / 2 {
                    let to = &mut plane[2 * window * width * LANES..];
                    self.upstream.spread::<S>(simd, (block, o + k, window), to, [width, 1]);
                }
            }
            let dz = &wide::<S>(self.dz)[..few * height * width * n];
            let rows = wide_mut::<S>(self.sums).chunks_exact_mut(self.sums_width * n).enumerate();
            for (row, sums) in rows.take(channels * g.in_size[0]) {
                let (c, y) = (first + row / g.in_size[0], row % g.in_size[0]);
                let weight = &self.weight[o * g.weights()..];
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
        let sums = self.sums.chunks_exact(self.sums_width * LANES);
        for (to, sums) in self.input_grad.chunks_exact_mut(row).zip(sums) {
            to.copy_from_slice(&sums[g.pad[1] * LANES..][..row]);
        }
        match self.input {
            Some((input, Activation::Relu)) => {
                let (one, zero) = (simd.splat_f32s(1.0), simd.splat_f32s(0.0));
                for (grad, &y) in wide_mut::<S>(self.input_grad).iter_mut().zip(wide::<S>(input)) {
                    let slope = simd.select_f32s(simd.greater_than_f32s(y, zero), one, zero);
                    *grad = simd.mul_f32s(*grad, slope);
                }
            }
            Some((input, activation)) => {
                for (grad, &y) in self.input_grad.iter_mut().zip(input) {
                    *grad *= activation.slope_by_value(y);
                }
            }
            None => {}
        }
    }
}

/// Adds what `W` columns of dz from `x` on give to row `[channel, y]` of the sums: `A` of them with filters of
/// five columns, `B` with three.
#[inline(always)]
fn strew_taps<S: Simd, const W: usize, const A: usize, const B: usize>(
    simd: S,
    g: &Shape,
    dz: &[S::f32s],
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
    dz: &[S::f32s],
    weight: &[f32],
    [c, y, x]: [usize; 3],
    kx: usize,
    sums: &mut [S::f32s],
) {
    let n = registers::<S>();
    let [height, width] = g.pooled().map(|n| 2 * n);
    let [kernel_height, kernel_width] = g.kernel;
    let padded = y + g.pad[0];
    let rows = (padded + 1).saturating_sub(height)..kernel_height.min(padded + 1);
    for register in 0..n {
        let sums = &mut sums[(x + kx) * n + register..][..(A - 1) * n + 1];
        let mut held: [S::f32s; A] = std::array::from_fn(|k| sums[k * n]);
        for (o, dz) in dz.chunks_exact(height * width * n).enumerate() {
            for ky in rows.clone() {
                let dz = &dz[((padded - ky) * width + x) * n + register..][..(W - 1) * n + 1];
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
