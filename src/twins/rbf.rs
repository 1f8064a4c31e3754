//! `shaders/rbf.wgsl` on the CPU: Euclidean radial basis units, and their gradients.

use super::simd::{Plain, lanes, lanes_mut, vectorize};
use super::tasks::each;
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
    // Of each block and unit.
    let operations = 3 * g.inputs * output.len();
    each(output, LANES, operations, |at, output| {
        let (block, i) = (at / g.outputs, at % g.outputs);
        let input = &input[block * g.inputs * LANES..];
        vectorize(Plain(
            #[inline(always)]
            || {
                let mut sum = [0.0; LANES];
                for (j, w) in weight[i * g.inputs..][..g.inputs].iter().enumerate() {
                    let x = lanes(input, j);
                    for l in 0..LANES {
                        sum[l] += (x[l] - w) * (x[l] - w);
                    }
                }
                *lanes_mut(output, 0) = sum.map(|sum: f32| -sum);
            },
        ));
    });
}

fn input_gradients(g: &Shape, b: input_gradient::Buffers<'_>) {
    let input_gradient::Buffers { input, weight, output_grad, input_grad } = b;
    // Of each block and feature.
    let operations = 3 * g.outputs * input_grad.len();
    each(input_grad, LANES, operations, |at, input_grad| {
        let (block, j) = (at / g.inputs, at % g.inputs);
        let output_grad = &output_grad[block * g.outputs * LANES..];
        vectorize(Plain(
            #[inline(always)]
            || {
                let x = lanes(input, at);
                let mut sum = [0.0; LANES];
                for i in 0..g.outputs {
                    let (grad, w) = (lanes(output_grad, i), weight[i * g.inputs + j]);
                    for l in 0..LANES {
                        sum[l] += grad[l] * (x[l] - w);
                    }
                }
                *lanes_mut(input_grad, 0) = sum.map(|sum: f32| -2.0 * sum);
            },
        ));
    });
}

fn weight_gradients(g: &Shape, splits: usize, b: weight_gradient::Buffers<'_>) {
    let weight_gradient::Buffers { input, weight, output_grad, weight_grad } = b;
    let (weights, blocks) = (g.inputs * g.outputs, input.len() / (g.inputs * LANES));
    let sums = weight_grad.chunks_mut(padded(weights)).take(splits);
    let rows = sums.enumerate().flat_map(|(split, sums)| {
        let rows = sums[..weights].chunks_mut(g.inputs);
        rows.enumerate().map(move |(i, row)| (split, i, row))
    });
    let mut rows: Vec<_> = rows.collect();
    each(&mut rows, 1, 3 * weights * blocks * LANES, |_, rows| {
        let [(split, i, row)] = rows else { return };
        vectorize(Plain(
            #[inline(always)]
            || {
                for (j, (sum, w)) in row.iter_mut().zip(&weight[*i * g.inputs..]).enumerate() {
                    let mut all = [0.0; LANES];
                    for block in (*split..blocks).step_by(splits) {
                        let x = lanes(input, block * g.inputs + j);
                        let grad = lanes(output_grad, block * g.outputs + *i);
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
