//! The output.

use std::sync::PoisonError;

use rayon::prelude::*;

use super::correlate::{Correlate, Correlation};
use super::{Packed, Shape, TILE, floats, shares, widen};
use crate::kernels::LANES;
use crate::kernels::shaders::conv2d::forward::Buffers;
use crate::network::Activation;
use crate::twins::finish::Finish;
use crate::twins::simd::{scratch, tiles, vectorize};

pub(super) fn outputs(g: &Shape, activation: Option<Activation>, packed: &Packed, b: Buffers<'_>) {
    let Buffers { input, weight, bias, output } = b;
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
                    let (weight, finish) = (&packed[first * row..][..n * row], Finish::Value(activation));
                    vectorize(Correlate { shape, input, weight, bias, output, channels: n, finish });
                    finish.rest(output);
                }
            });
        },
    );
}
