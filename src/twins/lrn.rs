//! `shaders/lrn.wgsl` on the CPU: local response normalisation across channels, and its gradient.

use rayon::prelude::*;

use super::simd::{Plain, lanes, lanes_mut, scratch, vectorize};
use crate::kernels::shaders::lrn::{backward, forward};
use crate::kernels::{LANES, Step};

/// What the shader's constants say.
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    positions: usize,
    size: usize,
    alpha: f32,
    beta: f32,
    k: f32,
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let forward::Constants { channels, positions, size, alpha, beta, k, .. } = c;
    let g = Shape { channels, positions, size, alpha, beta, k };
    move |b, _| outputs(&g, b)
}

pub(super) fn backward(c: backward::Constants) -> impl Fn(backward::Buffers<'_>, Step) + Send + Sync {
    let backward::Constants { channels, positions, size, alpha, beta, k, .. } = c;
    let g = Shape { channels, positions, size, alpha, beta, k };
    move |b, _| gradients(&g, b)
}

impl Shape {
    /// The channels from `before` before `c` to `after` after it, as far as they exist.
    fn window(&self, c: usize, before: usize, after: usize) -> std::ops::Range<usize> {
        c.saturating_sub(before)..(c + after + 1).min(self.channels)
    }

    /// The powers' bases of channel `c` at a position of a block.
    #[inline(always)]
    fn bases(&self, block: &[f32], c: usize, position: usize) -> [f32; LANES] {
        let mut squares = [0.0; LANES];
        for other in self.window(c, self.size / 2, (self.size - 1) / 2) {
            let x = lanes(block, other * self.positions + position);
            for l in 0..LANES {
                squares[l] += x[l] * x[l];
            }
        }
        squares.map(|squares| self.k + self.alpha / self.size as f32 * squares)
    }

    /// Runs `plane(block, channel, output plane)` on every channel of every block.
    fn planes(&self, output: &mut [f32], plane: impl Fn(usize, usize, &mut [f32]) + Sync) {
        output.par_chunks_mut(self.positions * LANES).enumerate().for_each(|(i, output)| {
            vectorize(Plain(|| plane(i / self.channels, i % self.channels, output)));
        });
    }
}

fn outputs(g: &Shape, b: forward::Buffers<'_>) {
    let forward::Buffers { input, output } = b;
    let len = g.channels * g.positions * LANES;
    g.planes(
        output,
        #[inline(always)]
        |block, c, output| {
            let input = &input[block * len..][..len];
            for position in 0..g.positions {
                let bases = g.bases(input, c, position);
                let x = lanes(input, c * g.positions + position);
                *lanes_mut(output, position) = std::array::from_fn(|l| x[l] * bases[l].powf(-g.beta));
            }
        },
    );
}

fn gradients(g: &Shape, b: backward::Buffers<'_>) {
    let backward::Buffers { input, output_grad, input_grad } = b;
    let len = g.channels * g.positions * LANES;
    let share = 2.0 * g.alpha * g.beta / g.size as f32;
    // First what each channel gives to those in its window, which the shader computes for each of them anew.
    scratch(input.len(), |terms| {
        let size = g.positions * LANES;
        input_grad.par_chunks_mut(size).zip(terms.par_chunks_mut(size)).enumerate().for_each(
            |(i, (own, terms))| {
                vectorize(Plain(
                    #[inline(always)]
                    || {
                        let (block, c) = (i / g.channels, i % g.channels);
                        let (x, upstream) = (&input[i * size..][..size], &output_grad[i * size..][..size]);
                        for position in 0..g.positions {
                            let bases = g.bases(&input[block * len..][..len], c, position);
                            let (x, upstream) = (lanes(x, position), lanes(upstream, position));
                            let scaled: [f32; LANES] =
                                std::array::from_fn(|l| upstream[l] * bases[l].powf(-g.beta));
                            *lanes_mut(own, position) = scaled;
                            *lanes_mut(terms, position) =
                                std::array::from_fn(|l| scaled[l] * x[l] / bases[l]);
                        }
                    },
                ));
            },
        );
        let terms = &*terms;
        g.planes(
            input_grad,
            #[inline(always)]
            |block, c, input_grad| {
                let (input, terms) = (&input[block * len..][..len], &terms[block * len..][..len]);
                for position in 0..g.positions {
                    let mut sum = [0.0; LANES];
                    for other in g.window(c, (g.size - 1) / 2, g.size / 2) {
                        let terms = lanes(terms, other * g.positions + position);
                        for l in 0..LANES {
                            sum[l] += terms[l];
                        }
                    }
                    let x = lanes(input, c * g.positions + position);
                    let grad = lanes_mut(input_grad, position);
                    for l in 0..LANES {
                        grad[l] -= share * x[l] * sum[l];
                    }
                }
            },
        );
    });
}
