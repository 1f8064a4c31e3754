//! `shaders/join.wgsl` on the CPU: where the branches of a network meet and part.

use rayon::prelude::*;

use super::fused;
use crate::kernels::join::MOST;
use crate::kernels::shaders::join::{concat, slice, slope, split2, split3, split4, sum};
use crate::kernels::{LANES, Step};

/// Elements that a thread takes at once.
const GRAIN: usize = 1 << 14;

pub(super) fn sum(c: sum::Constants) -> impl Fn(sum::Buffers<'_>, Step) + Send + Sync {
    let (count, activation) = (c.terms, fused(c.activation));
    move |b, _| {
        let sum::Buffers { a, b, c, d, output } = b;
        let terms = [a, b, c, d];
        output.par_chunks_mut(GRAIN).enumerate().for_each(|(i, output)| {
            let len = output.len();
            let part = |term: usize| &terms[term][i * GRAIN..][..len];
            let (a, b) = (part(0), part(1));
            output.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum = a + b);
            for term in 2..count {
                let part = part(term);
                output.iter_mut().zip(part).for_each(|(sum, term)| *sum += term);
            }
            if let Some(activation) = activation {
                output.iter_mut().for_each(|sum| *sum = activation.value(*sum));
            }
        });
    }
}

pub(super) fn slope(c: slope::Constants) -> impl Fn(slope::Buffers<'_>, Step) + Send + Sync {
    let activation = fused(c.activation).expect("ACTIVATION is the number of a function");
    move |b, _| {
        let upstream = b.value.par_chunks(GRAIN).zip(b.output_grad.par_chunks(GRAIN));
        b.input_grad.par_chunks_mut(GRAIN).zip(upstream).for_each(|(grad, (values, upstream))| {
            for ((grad, &y), upstream) in grad.iter_mut().zip(values).zip(upstream) {
                *grad = activation.slope_by_value(y) * upstream;
            }
        });
    }
}

/// Some neighbouring features of a concatenation.
#[derive(Clone, Copy)]
struct Shape {
    /// Of each part; 0 where there is none.
    features: [usize; MOST],
    offset: usize,
    total: usize,
}

pub(super) fn concat(c: concat::Constants) -> impl Fn(concat::Buffers<'_>, Step) + Send + Sync {
    let concat::Constants { a, b, c, d, offset, total, .. } = c;
    let g = Shape { features: [a, b, c, d], offset, total };
    move |b, _| {
        let concat::Buffers { a, b, c, d, output } = b;
        output.par_chunks_mut(g.total * LANES).enumerate().for_each(|(block, output)| {
            let mut output = &mut output[g.offset * LANES..];
            for (part, features) in [a, b, c, d].into_iter().zip(g.features) {
                let len = features * LANES;
                let (here, rest) = output.split_at_mut(len);
                here.copy_from_slice(&part[block * len..][..len]);
                output = rest;
            }
        });
    }
}

pub(super) fn slice(c: slice::Constants) -> impl Fn(slice::Buffers<'_>, Step) + Send + Sync {
    let slice::Constants { a, b, c, d, offset, total, .. } = c;
    let g = Shape { features: [a, b, c, d], offset, total };
    move |b, _| part(&g, b.output_grad, [b.a_grad])
}

pub(super) fn split2(c: split2::Constants) -> impl Fn(split2::Buffers<'_>, Step) + Send + Sync {
    let split2::Constants { a, b, c, d, offset, total, .. } = c;
    let g = Shape { features: [a, b, c, d], offset, total };
    move |b, _| part(&g, b.output_grad, [b.a_grad, b.b_grad])
}

pub(super) fn split3(c: split3::Constants) -> impl Fn(split3::Buffers<'_>, Step) + Send + Sync {
    let split3::Constants { a, b, c, d, offset, total, .. } = c;
    let g = Shape { features: [a, b, c, d], offset, total };
    move |b, _| part(&g, b.output_grad, [b.a_grad, b.b_grad, b.c_grad])
}

pub(super) fn split4(c: split4::Constants) -> impl Fn(split4::Buffers<'_>, Step) + Send + Sync {
    let split4::Constants { a, b, c, d, offset, total, .. } = c;
    let g = Shape { features: [a, b, c, d], offset, total };
    move |b, _| part(&g, b.output_grad, [b.a_grad, b.b_grad, b.c_grad, b.d_grad])
}

/// Copies to each part, or the first few of them, its features of the whole.
fn part<const N: usize>(g: &Shape, whole: &[f32], parts: [&mut [f32]; N]) {
    let mut offset = g.offset;
    for (part, features) in parts.into_iter().zip(g.features) {
        let blocks = part.par_chunks_mut(features * LANES);
        blocks.zip(whole.par_chunks(g.total * LANES)).for_each(|(part, whole)| {
            part.copy_from_slice(&whole[offset * LANES..][..part.len()]);
        });
        offset += features;
    }
}
