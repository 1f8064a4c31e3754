//! `shaders/rbf.wgsl` on the CPU: Euclidean radial basis units, and their gradients.

use rayon::prelude::*;

use super::simd::{Plain, lanes, lanes_mut, vectorize};
use crate::kernels::shaders::rbf::{forward, input_gradient, weight_gradient};
use crate::kernels::{LANES, Step, padded};

/// Features of the input, and units.
#[derive(Clone, Copy)]
struct Shape {
    inputs: usize,
    outputs: usize,
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { inputs: c.inputs, outputs: c.outputs };
    move |b, _| distances(&g, b)
}

pub(super) fn input_gradient(
    c: input_gradient::Constants,
) -> impl Fn(input_gradient::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { inputs: c.inputs, outputs: c.outputs };
    move |b, _| input_gradients(&g, b)
}

pub(super) fn weight_gradient(
    c: weight_gradient::Constants,
) -> impl Fn(weight_gradient::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { inputs: c.inputs, outputs: c.outputs };
    move |b, _| weight_gradients(&g, c.splits, b)
}

fn distances(g: &Shape, b: forward::Buffers<'_>) {
    let forward::Buffers { input, weight, output } = b;
    output.par_chunks_mut(g.outputs * LANES).zip(input.par_chunks(g.inputs * LANES)).for_each(
        |(output, input)| {
            vectorize(Plain(
                #[inline(always)]
                || {
                    for (i, output) in output.chunks_mut(LANES).enumerate() {
                        let mut sum = [0.0; LANES];
                        for (j, w) in weight[i * g.inputs..][..g.inputs].iter().enumerate() {
                            let x = lanes(input, j);
                            for l in 0..LANES {
                                sum[l] += (x[l] - w) * (x[l] - w);
                            }
                        }
                        *lanes_mut(output, 0) = sum.map(|sum: f32| -sum);
                    }
                },
            ));
        },
    );
}

fn input_gradients(g: &Shape, b: input_gradient::Buffers<'_>) {
    let input_gradient::Buffers { input, weight, output_grad, input_grad } = b;
    let upstream = input.par_chunks(g.inputs * LANES).zip(output_grad.par_chunks(g.outputs * LANES));
    input_grad.par_chunks_mut(g.inputs * LANES).zip(upstream).for_each(
        |(input_grad, (input, output_grad))| {
            vectorize(Plain(
                #[inline(always)]
                || {
                    for j in 0..g.inputs {
                        let x = lanes(input, j);
                        let mut sum = [0.0; LANES];
                        for i in 0..g.outputs {
                            let (grad, w) = (lanes(output_grad, i), weight[i * g.inputs + j]);
                            for l in 0..LANES {
                                sum[l] += grad[l] * (x[l] - w);
                            }
                        }
                        *lanes_mut(input_grad, j) = sum.map(|sum: f32| -2.0 * sum);
                    }
                },
            ));
        },
    );
}

fn weight_gradients(g: &Shape, splits: usize, b: weight_gradient::Buffers<'_>) {
    let weight_gradient::Buffers { input, weight, output_grad, weight_grad } = b;
    let (weights, blocks) = (g.inputs * g.outputs, input.len() / (g.inputs * LANES));
    let sums = weight_grad.chunks_mut(padded(weights)).take(splits);
    let rows = sums.enumerate().flat_map(|(split, sums)| {
        let rows = sums[..weights].chunks_mut(g.inputs);
        rows.enumerate().map(move |(i, row)| (split, i, row))
    });
    rows.collect::<Vec<_>>().into_par_iter().for_each(|(split, i, row)| {
        vectorize(Plain(
            #[inline(always)]
            || {
                for (j, (sum, w)) in row.iter_mut().zip(&weight[i * g.inputs..]).enumerate() {
                    let mut all = [0.0; LANES];
                    for block in (split..blocks).step_by(splits) {
                        let x = lanes(input, block * g.inputs + j);
                        let grad = lanes(output_grad, block * g.outputs + i);
                        for l in 0..LANES {
                            all[l] += grad[l] * (x[l] - w);
                        }
                    }
                    *sum = 2.0 * all.iter().sum::<f32>();
                }
            },
        ));
    });
}
