//! The routine that `forward` and `input_gradient` share.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::twins::finish::Finish;
use crate::twins::simd::{registers, wide, wide_mut};

/// One group of one block, as the shared routine sees it.
#[derive(Clone, Copy)]
pub(super) struct Correlation {
    pub in_channels: usize,
    pub in_height: usize,
    /// Columns in memory, with margins of zeros.
    pub in_width: usize,
    /// The column that the first tap of the first output sees.
    pub from: usize,
    pub out_size: [usize; 2],
    /// The columns of the output that are made: the first, and the distance of the next.
    pub columns: [usize; 2],
    /// Rows and columns of taps.
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Rows of zeros above the input, which are not in memory; negative where rows of it are skipped.
    pub pad_rows: isize,
    /// The input's rows lie this far apart, with rows of zeros between that are not in memory.
    pub spread_rows: usize,
}

impl Correlation {
    /// The same for so many output rows from `start` on alone, and the rows of the input that they see.
    pub(super) fn strip(self, [start, len]: [usize; 2]) -> (Correlation, Range<usize>) {
        let pad_rows = self.pad_rows - (start * self.stride[0]) as isize;
        let reach = (len.max(1) - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0];
        let end = reach.checked_add_signed(1 - pad_rows).unwrap_or(0);
        let end = end.div_ceil(self.spread_rows).min(self.in_height);
        let first = usize::try_from(-pad_rows).unwrap_or(0).div_ceil(self.spread_rows).min(end);
        (Correlation { pad_rows, out_size: [len, self.out_size[1]], ..self }, first..end)
    }

    /// The same where only these rows of the input are in memory.
    pub(super) fn over(self, rows: &Range<usize>) -> Correlation {
        let pad_rows = self.pad_rows + (rows.start * self.spread_rows) as isize;
        Correlation { in_height: rows.len(), pad_rows, ..self }
    }

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
pub(super) struct Correlate<'a, 'b> {
    pub shape: Correlation,
    pub input: &'a [f32],
    /// `[in_channels, taps, side_by_side]`, from the first channel on.
    pub weight: &'a [f32],
    /// Channels whose weights lie side by side, which are these or more.
    pub side_by_side: usize,
    pub bias: &'a [f32],
    /// The rows of each channel.
    pub output: &'a mut [&'b mut [f32]],
    /// What is done to the first channel, and how many elements later to the next one.
    pub finish: (Finish<'a>, usize),
}

impl WithSimd for Correlate<'_, '_> {
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
        while first < self.output.len() {
            let left = self.output.len() - first;
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

impl Correlate<'_, '_> {
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
        let channels = self.side_by_side;
        let finish: [Finish<'_>; O] =
            std::array::from_fn(|o| self.finish.0.from((first + o) * self.finish.1));
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
                                let weights = &self.weight[(tap + kx) * channels + first..];
                                let weights = &weights[..(T - 1) * channels + O];
                                for t in 0..T {
                                    let pixels: [S::f32s; P] =
                                        std::array::from_fn(|p| pixels[(p * stride + t * dilation) * n]);
                                    let weights: &[f32; O] =
                                        weights[t * channels..][..O].try_into().expect("O weights");
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
                        let output = wide_mut::<S>(self.output[first + o]);
                        for (p, sum) in sums.into_iter().enumerate() {
                            let at = (y * out_width + shift + (x + p) * step) * n + register;
                            output[at] = finish[o].register(simd, at, sum);
                        }
                    }
                }
            }
        }
    }
}
