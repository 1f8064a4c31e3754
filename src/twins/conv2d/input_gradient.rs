//! The gradient of the input.

use std::sync::PoisonError;

use super::correlate::{Correlate, Correlation};
use super::{Packed, Shape, Work, by_tile, floats, pack, widen, works};
use crate::kernels::LANES;
use crate::kernels::shaders::conv2d::input_gradient::Buffers;
use crate::network::Activation;
use crate::twins::finish::Finish;
use crate::twins::simd::{scratch, vectorize};
use crate::twins::tasks;

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
    fn all(g: &Shape) -> Vec<Phase> {
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
    fn columns(&self, g: &Shape) -> usize {
        (g.in_size[1] - self.place).div_ceil(g.stride[1])
    }
}

pub(super) fn gradients(g: &Shape, input_activation: Option<Activation>, packed: &Packed, b: Buffers<'_>) {
    let Buffers { input, weight, output_grad, input_grad } = b;
    let (taps, group_in, group_out) = (g.taps(), g.group_in(), g.group_out());
    let phases = Phase::all(g);
    // In the correlation that yields the input's gradient, inputs and outputs change places, and filters are
    // flipped.
    let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
    let packed = floats(&mut packed, g.weights());
    let mut rest = &mut *packed;
    for phase in &phases {
        let row = group_out * g.kernel[0] * phase.taps.len();
        let (own, later) = rest.split_at_mut(g.in_channels * row);
        rest = later;
        pack(own, [g.groups, group_in, row], |first, n, packed| {
            let (group, first) = (first / group_in, first % group_in);
            let mut to = packed.chunks_exact_mut(n);
            for o in group * group_out..(group + 1) * group_out {
                for ky in (0..g.kernel[0]).rev() {
                    for (kx, to) in phase.taps.iter().zip(to.by_ref()) {
                        let at = (o * group_in + first) * taps + ky * g.kernel[1] + kx;
                        for (c, to) in to.iter_mut().enumerate() {
                            *to = weight[at + c * taps];
                        }
                    }
                }
            }
        });
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
    tasks::run(works(g, group_in, g.in_size, input_grad), |work| {
        let Work { block, group, first, rows, mut output } = work;
        let grads = &output_grad[(block * g.groups + group) * group_grads..][..group_grads];
        let (mut shape, seen) = shape.strip(rows);
        let copy = if wider { group_out * seen.len() * width * LANES } else { 0 };
        scratch(copy, |copy| {
            let grads = if wider {
                shape = shape.over(&seen);
                widen(grads, g.out_size, seen, copy, width, left);
                &*copy
            } else {
                grads
            };
            let mut output = &mut output[..];
            for ([from, n], [start, side_by_side]) in by_tile(first, output.len(), group_in) {
                let (own, rest) = std::mem::take(&mut output).split_at_mut(n);
                let channel = group * group_in + from;
                let value = (block * g.in_channels + channel) * plane + rows[0] * g.in_size[1] * LANES;
                let finish = Finish::Slope(input_activation, &input[value..]);
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
                    let weight = &weights[(group * group_in + start) * row..][..side_by_side * row];
                    vectorize(Correlate {
                        shape,
                        input: grads,
                        weight: &weight[(from - start).min(weight.len())..],
                        side_by_side,
                        bias: &[],
                        output: &mut *own,
                        finish: (finish, plane),
                    });
                }
                for (channel, output) in own.iter_mut().enumerate() {
                    finish.from(channel * plane).rest(output);
                }
                output = rest;
            }
        });
    });
}
