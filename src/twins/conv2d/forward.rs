//! The output.

use std::sync::PoisonError;

use super::correlate::{Correlate, Correlation};
use super::{Packed, Shape, Work, by_tile, floats, pack, widen, works};
use crate::kernels::LANES;
use crate::kernels::shaders::conv2d::forward::Buffers;
use crate::network::Activation;
use crate::twins::finish::Finish;
use crate::twins::simd::{scratch, vectorize};
use crate::twins::tasks;

pub(super) fn outputs(g: &Shape, activation: Option<Activation>, packed: &Packed, b: Buffers<'_>) {
    let Buffers { input, weight, bias, output } = b;
    let (group_in, group_out, row) = (g.group_in(), g.group_out(), g.group_in() * g.taps());
    let mut packed = packed.lock().unwrap_or_else(PoisonError::into_inner);
    let packed = floats(&mut packed, g.weights());
    pack(packed, [g.groups, group_out, row], |first, n, packed| {
        for (k, to) in packed.chunks_exact_mut(n).enumerate() {
            for (o, to) in to.iter_mut().enumerate() {
                *to = weight[(first + o) * row + k];
            }
        }
    });
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
    tasks::run(works(g, group_out, g.out_size, output), |work| {
        let Work { block, group, first, rows, mut output } = work;
        let input = &input[(block * g.groups + group) * group_input..][..group_input];
        let (mut shape, seen) = shape.strip(rows);
        let copy = if g.pad[1] > 0 { group_in * seen.len() * shape.in_width * LANES } else { 0 };
        scratch(copy, |copy| {
            let input = if g.pad[1] > 0 {
                shape = shape.over(&seen);
                widen(input, g.in_size, seen, copy, shape.in_width, g.pad[1]);
                &*copy
            } else {
                input
            };
            let mut output = &mut output[..];
            for ([from, n], [start, width]) in by_tile(first, output.len(), group_out) {
                let (own, rest) = std::mem::take(&mut output).split_at_mut(n);
                let weight = &packed[(group * group_out + start) * row..][..width * row];
                let finish = Finish::Value(activation);
                vectorize(Correlate {
                    shape,
                    input,
                    weight: &weight[from - start..],
                    side_by_side: width,
                    bias: bias.get(group * group_out + from..).unwrap_or_default(),
                    output: own,
                    finish: (finish, 0),
                });
                own.iter_mut().for_each(|output| finish.rest(output));
                output = rest;
            }
        });
    });
}
