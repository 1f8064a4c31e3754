//! `shaders/lrn.wgsl` on the CPU: local response normalisation across channels, and its gradient.

use super::simd::{Plain, lanes, lanes_mut, scratch, vectorize};
use super::tasks::{self, Axis, cut, grid};
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

    /// Runs `strip([block, channel, first position], output)` on every channel of every block, or some positions of it,
    /// of all outputs at once.
    fn strips<const N: usize>(
        &self,
        outputs: [&mut [f32]; N],
        strip: impl Fn([usize; 3], [&mut [f32]; N]) + Send + Sync,
    ) {
        let planes = outputs[0].len() / (self.positions * LANES);
        // A power takes some twenty operations.
        let wanted = tasks::wanted(20 * outputs[0].len());
        let [positions, _] = grid(wanted, planes, [Axis::new(self.positions, 1), Axis::whole(1)]);
        let places =
            (0..planes).flat_map(|plane| positions.iter().map(move |(first, len)| (plane, first, len)));
        let mut parts =
            outputs.map(|output| cut(output, places.clone().map(|(.., len)| len * LANES)).into_iter());
        let strips: Vec<_> = places
            .map(|(plane, first, _)| {
                let at = [plane / self.channels, plane % self.channels, first];
                (at, parts.each_mut().map(|parts| parts.next().unwrap_or_default()))
            })
            .collect();
        tasks::run(strips, |(at, outputs)| vectorize(Plain(|| strip(at, outputs))));
    }
}

fn outputs(g: &Shape, b: forward::Buffers<'_>) {
    let forward::Buffers { input, output } = b;
    let len = g.channels * g.positions * LANES;
    g.strips(
        [output],
        #[inline(always)]
        |[block, c, first], [output]| {
            let input = &input[block * len..][..len];
            for at in 0..output.len() / LANES {
                let position = first + at;
                let bases = g.bases(input, c, position);
                let x = lanes(input, c * g.positions + position);
                *lanes_mut(output, at) = std::array::from_fn(|l| x[l] * bases[l].powf(-g.beta));
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
        g.strips(
            [&mut *input_grad, &mut *terms],
            #[inline(always)]
            |[block, c, first], [own, terms]| {
                let (input, output_grad) = (&input[block * len..][..len], &output_grad[block * len..][..len]);
                for at in 0..own.len() / LANES {
                    let position = first + at;
                    let bases = g.bases(input, c, position);
                    let place = c * g.positions + position;
                    let (x, upstream) = (lanes(input, place), lanes(output_grad, place));
                    let scaled: [f32; LANES] = std::array::from_fn(|l| upstream[l] * bases[l].powf(-g.beta));
                    *lanes_mut(own, at) = scaled;
                    *lanes_mut(terms, at) = std::array::from_fn(|l| scaled[l] * x[l] / bases[l]);
                }
            },
        );
        let terms = &*terms;
        g.strips(
            [input_grad],
            #[inline(always)]
            |[block, c, first], [input_grad]| {
                let (input, terms) = (&input[block * len..][..len], &terms[block * len..][..len]);
                for at in 0..input_grad.len() / LANES {
                    let position = first + at;
                    let mut sum = [0.0; LANES];
                    for other in g.window(c, (g.size - 1) / 2, g.size / 2) {
                        let terms = lanes(terms, other * g.positions + position);
                        for l in 0..LANES {
                            sum[l] += terms[l];
                        }
                    }
                    let x = lanes(input, c * g.positions + position);
                    let grad = lanes_mut(input_grad, at);
                    for l in 0..LANES {
                        grad[l] -= share * x[l] * sum[l];
                    }
                }
            },
        );
    });
}
