//! `shaders/rbf.wgsl`: Euclidean radial basis units (LeCun et al. 1998, equation 7), and their gradients.

use std::sync::Arc;

use rayon::prelude::*;

pub use super::Gradients;

use super::simd::{Plain, lanes, lanes_mut, vectorize};
use super::{Args, LANES, Launch, Range, WORKGROUP, blocks, padded};
use crate::error::Result;

/// Shapes of a layer of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Features of the input.
    pub inputs: usize,
    /// Units.
    pub outputs: usize,
    /// Images in a batch.
    pub batch: usize,
    /// Invocations that fill the device: the weights' gradient is split until there are so many.
    pub fill: usize,
}

/// The buffers of a layer of units.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[inputs]` of each image.
    pub input: Range,
    /// `[outputs, inputs]`: the codes.
    pub weight: Range,
    /// `[outputs]` of each image.
    pub output: Range,
}

impl Geometry {
    /// Weights.
    pub fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    fn weight_tiles(&self) -> usize {
        self.inputs.div_ceil(4) * self.outputs.div_ceil(4)
    }

    /// Partial sums of the weights' gradient: no more than fill the device, never more than there are blocks.
    pub fn splits(&self) -> usize {
        (self.fill / self.weight_tiles()).clamp(1, blocks(self.batch))
    }

    fn launch(
        self,
        entry: &'static str,
        invocations: usize,
        bindings: &[(&str, Range)],
        twin: impl Fn(&Geometry, &mut Args<'_>) + Send + Sync + 'static,
    ) -> Result<Launch> {
        let constants = [
            ("INPUTS", self.inputs as f64),
            ("OUTPUTS", self.outputs as f64),
            ("BLOCKS", blocks(self.batch) as f64),
            ("SPLITS", self.splits() as f64),
        ];
        let grid = [invocations.div_ceil(WORKGROUP), 1, 1];
        // A difference, a product, a sum.
        let flop = 3 * (self.weights() * self.batch) as u64;
        let twin = Arc::new(move |args: &mut Args<'_>| twin(&self, args));
        Launch::old(("rbf", entry), &constants, grid, bindings, flop, twin)
    }

    /// The negative squared distance of each image from each code.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let bindings = [("input", b.input), ("weight", b.weight), ("output", b.output)];
        let invocations = 4 * blocks(self.batch) * self.outputs.div_ceil(4);
        self.launch("forward", invocations, &bindings, forward)
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = [
            ("input", b.input),
            ("weight", b.weight),
            ("output_grad", output_grad),
            ("input_grad", input_grad),
        ];
        let invocations = 4 * blocks(self.batch) * self.inputs.div_ceil(4);
        self.launch("input_gradient", invocations, &bindings, input_gradient)
    }

    /// The partial sums of the codes' gradient: [`Geometry::splits`] times `padded(weights)`.
    pub fn weight_gradient(self, b: Buffers, output_grad: Range, weight_grad: Range) -> Result<Launch> {
        let bindings = [
            ("input", b.input),
            ("weight", b.weight),
            ("output_grad", output_grad),
            ("weight_grad", weight_grad),
        ];
        let invocations = self.splits() * self.weight_tiles();
        self.launch("weight_gradient", invocations, &bindings, weight_gradient)
    }
}

fn forward(g: &Geometry, args: &mut Args<'_>) {
    let (input, weight) = (args.f32("input"), args.f32("weight"));
    let output = args.f32_mut("output");
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

fn input_gradient(g: &Geometry, args: &mut Args<'_>) {
    let [input, weight, output_grad] = ["input", "weight", "output_grad"].map(|name| args.f32(name));
    let input_grad = args.f32_mut("input_grad");
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

fn weight_gradient(g: &Geometry, args: &mut Args<'_>) {
    let [input, weight, output_grad] = ["input", "weight", "output_grad"].map(|name| args.f32(name));
    let splits = args.f32_mut("weight_grad").chunks_mut(padded(g.weights())).take(g.splits());
    let rows = splits.enumerate().flat_map(|(split, sums)| {
        let rows = sums[..g.weights()].chunks_mut(g.inputs);
        rows.enumerate().map(move |(i, row)| (split, i, row))
    });
    rows.collect::<Vec<_>>().into_par_iter().for_each(|(split, i, row)| {
        vectorize(Plain(
            #[inline(always)]
            || {
                for (j, (sum, w)) in row.iter_mut().zip(&weight[i * g.inputs..]).enumerate() {
                    let mut all = [0.0; LANES];
                    for block in (split..blocks(g.batch)).step_by(g.splits()) {
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
