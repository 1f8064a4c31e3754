//! `shaders/join.wgsl` on the CPU: where the branches of a network meet and part.

use super::fused;
use super::tasks::{self, Axis, cut, elementwise, grid};
use crate::kernels::join::MOST;
use crate::kernels::shaders::join::{concat, slice, slope, split2, split3, split4, sum};
use crate::kernels::{LANES, Step};

pub(super) fn sum(c: sum::Constants) -> impl Fn(sum::Buffers<'_>, Step) + Send + Sync {
    let (count, activation) = (c.terms, fused(c.activation));
    move |b, _| {
        let sum::Buffers { a, b, c, d, output } = b;
        let terms = [a, b, c, d];
        elementwise(output, 4, |start, output| {
            let len = output.len();
            let part = |term: usize| &terms[term][start..][..len];
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
        let slope::Buffers { value, output_grad, input_grad, .. } = b;
        elementwise(input_grad, 4, |start, grad| {
            let upstream = &output_grad[start..];
            for ((grad, &y), upstream) in grad.iter_mut().zip(&value[start..]).zip(upstream) {
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
        let mut copies = Vec::new();
        for (block, output) in output.chunks_mut(g.total * LANES).enumerate() {
            let lengths = g.features.map(|features| features * LANES);
            let parts = cut(&mut output[g.offset * LANES..], lengths);
            for ((to, from), len) in parts.into_iter().zip([a, b, c, d]).zip(lengths) {
                if len > 0 {
                    copies.push((to, &from[block * len..][..len]));
                }
            }
        }
        copy(copies);
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
    let (mut offset, mut copies) = (g.offset, Vec::new());
    for (part, features) in parts.into_iter().zip(g.features) {
        for (to, from) in part.chunks_mut(features * LANES).zip(whole.chunks(g.total * LANES)) {
            let from = &from[offset * LANES..][..to.len()];
            copies.push((to, from));
        }
        offset += features;
    }
    copy(copies);
}

/// Copies what lies in one piece, on all threads.
fn copy(copies: Vec<(&mut [f32], &[f32])>) {
    let (wanted, pieces) = (tasks::wanted(copies.iter().map(|(to, _)| to.len()).sum()), copies.len());
    let parts = copies.into_iter().flat_map(|(to, from)| {
        let [parts, _] = grid(wanted, pieces, [Axis::new(to.len(), LANES), Axis::whole(1)]);
        cut(to, parts.iter().map(|(_, len)| len))
            .into_iter()
            .zip(parts.iter().map(|(start, _)| &from[start..]))
    });
    tasks::run(parts.collect::<Vec<_>>(), |(to, from)| to.copy_from_slice(&from[..to.len()]));
}
