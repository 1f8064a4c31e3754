//! `shaders/linear.wgsl`: a fully connected layer and its gradients.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

pub use super::{Gradients, LayerBuffers as Buffers};

use super::activation::{Activation, fused_code};
use super::simd::{cut, registers, tiles, vectorize, wide, wide_mut};
use super::{Args, LANES, Launch, Range, WORKGROUP, blocks, padded};
use crate::error::Result;

/// Shapes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Features of the input.
    pub inputs: usize,
    /// Features of the output.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The activation that ends this layer, if it is one of [`Activation::by_value`].
    pub activation: Option<Activation>,
    /// The activation that made the input, if this layer's backward pass multiplies by its derivative.
    pub input_activation: Option<Activation>,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// Weights, without the bias.
    pub fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    fn weight_tiles(&self) -> usize {
        self.outputs.div_ceil(4) * (self.inputs.div_ceil(4) + usize::from(self.bias))
    }

    /// Partial sums of the weights' gradient: enough to fill a GPU, never more than there are blocks.
    pub fn splits(&self) -> usize {
        (4096 / self.weight_tiles()).clamp(1, blocks(self.batch))
    }

    fn constants(&self) -> [(&'static str, f64); 7] {
        [
            ("INPUTS", self.inputs as f64),
            ("OUTPUTS", self.outputs as f64),
            ("BIAS", f64::from(u8::from(self.bias))),
            ("ACTIVATION", fused_code(self.activation)),
            ("INPUT_ACTIVATION", fused_code(self.input_activation)),
            ("BLOCKS", blocks(self.batch) as f64),
            ("SPLITS", self.splits() as f64),
        ]
    }

    fn flop(&self) -> u64 {
        2 * (self.weights() * self.batch) as u64
    }

    fn weight_groups(&self) -> usize {
        (self.splits() * self.weight_tiles()).div_ceil(WORKGROUP)
    }

    fn input_groups(&self) -> usize {
        blocks(self.batch).div_ceil(4) * self.inputs.div_ceil(32)
    }

    /// The output.
    pub fn forward(self, b: Buffers) -> Result<Launch> {
        let grid = [blocks(self.batch).div_ceil(4), self.outputs.div_ceil(32), 1];
        let bindings = [("input", b.input), ("weight", b.weight), ("bias", b.bias), ("output", b.output)];
        let twin = move |args: &mut Args<'_>| {
            let bias = if self.bias { args.f32("bias") } else { &[] };
            forward(&self, args.f32("input"), args.f32("weight"), bias, args.f32_mut("output"));
        };
        Launch::new(("linear", "forward"), &self.constants(), grid, &bindings, self.flop(), Arc::new(twin))
    }

    /// The gradient of the input.
    pub fn input_gradient(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let bindings =
            [("input", b.input), ("weight", b.weight), ("output_grad", g.output), ("input_grad", input_grad)];
        let twin = move |args: &mut Args<'_>| {
            let input_grad = args.f32_mut("input_grad");
            input_gradient(&self, args.f32("input"), args.f32("weight"), args.f32("output_grad"), input_grad);
        };
        let (entry, grid) = (("linear", "input_gradient"), [self.input_groups(), 1, 1]);
        Launch::new(entry, &self.constants(), grid, &bindings, self.flop(), Arc::new(twin))
    }

    /// The partial sums of the gradients of weights and bias.
    pub fn weight_gradient(self, b: Buffers, g: Gradients) -> Result<Launch> {
        let bindings =
            [("input", b.input), ("output_grad", g.output), ("weight_grad", g.weight), ("bias_grad", g.bias)];
        let twin = move |args: &mut Args<'_>| {
            let (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
            weight_gradient(&self, args.f32("input"), args.f32("output_grad"), weight_grad, bias_grad);
        };
        let (entry, grid) = (("linear", "weight_gradient"), [self.weight_groups(), 1, 1]);
        Launch::new(entry, &self.constants(), grid, &bindings, self.flop(), Arc::new(twin))
    }

    /// [`Geometry::weight_gradient`] and [`Geometry::input_gradient`] in one launch.
    pub fn backward(self, b: Buffers, g: Gradients, input_grad: Range) -> Result<Launch> {
        let bindings = [
            ("input", b.input),
            ("weight", b.weight),
            ("output_grad", g.output),
            ("weight_grad", g.weight),
            ("bias_grad", g.bias),
            ("input_grad", input_grad),
        ];
        let twin = move |args: &mut Args<'_>| {
            let (input, output_grad) = (args.f32("input"), args.f32("output_grad"));
            let (weight_grad, bias_grad) = (args.f32_mut("weight_grad"), args.f32_mut("bias_grad"));
            weight_gradient(&self, input, output_grad, weight_grad, bias_grad);
            let input_grad = args.f32_mut("input_grad");
            input_gradient(&self, input, args.f32("weight"), output_grad, input_grad);
        };
        let (entry, grid) = (("linear", "backward"), [self.weight_groups() + self.input_groups(), 1, 1]);
        Launch::new(entry, &self.constants(), grid, &bindings, 2 * self.flop(), Arc::new(twin))
    }
}

/// Sums that a thread holds at once.
const TILE: usize = 8;

/// `output[k] = start[k] + Σ i weight[k · across + i · along] · input[i]`, for one block and up to [`TILE`] rows.
struct Rows<'a> {
    inputs: usize,
    /// The distance of the weights of neighbouring rows, and of neighbouring inputs.
    across: usize,
    along: usize,
    weight: &'a [f32],
    start: &'a [f32],
    input: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = registers::<S>();
        let input = wide::<S>(self.input);
        let output = wide_mut::<S>(self.output);
        let rows = output.len() / n;
        for register in 0..n {
            let mut sums: [S::f32s; TILE] =
                std::array::from_fn(|k| simd.splat_f32s(self.start.get(k).copied().unwrap_or(0.0)));
            if rows == TILE && self.across == 1 {
                for i in 0..self.inputs {
                    let x = input[i * n + register];
                    let weights = &self.weight[i * self.along..][..TILE];
                    for k in 0..TILE {
                        sums[k] = simd.mul_add_e_f32s(simd.splat_f32s(weights[k]), x, sums[k]);
                    }
                }
            } else if rows == TILE {
                let weights: [&[f32]; TILE] =
                    std::array::from_fn(|k| &self.weight[k * self.across..][..self.inputs]);
                for i in 0..self.inputs {
                    let x = input[i * n + register];
                    for k in 0..TILE {
                        sums[k] = simd.mul_add_e_f32s(simd.splat_f32s(weights[k][i]), x, sums[k]);
                    }
                }
            } else {
                for (k, sum) in sums.iter_mut().enumerate().take(rows) {
                    for i in 0..self.inputs {
                        let w = simd.splat_f32s(self.weight[k * self.across + i * self.along]);
                        *sum = simd.mul_add_e_f32s(w, input[i * n + register], *sum);
                    }
                }
            }
            for k in 0..rows {
                output[k * n + register] = sums[k];
            }
        }
    }
}

/// Every block's rows, [`TILE`] at a time: (block, first row, rows).
fn row_tiles(blocks: usize, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    (0..blocks).flat_map(move |block| tiles(rows, TILE).map(move |(first, n)| (block, first, n)))
}

fn forward(g: &Geometry, input: &[f32], weight: &[f32], bias: &[f32], output: &mut [f32]) {
    let work = row_tiles(blocks(g.batch), g.outputs);
    let outputs = cut(output, work.clone().map(|(_, _, n)| n * LANES));
    work.zip(outputs).collect::<Vec<_>>().into_par_iter().with_min_len(4).for_each(
        |((block, first, _), output)| {
            vectorize(Rows {
                inputs: g.inputs,
                across: g.inputs,
                along: 1,
                weight: &weight[first * g.inputs..],
                start: bias.get(first..).unwrap_or_default(),
                input: &input[block * g.inputs * LANES..][..g.inputs * LANES],
                output,
            });
            if let Some(activation) = g.activation {
                output.iter_mut().for_each(|y| *y = activation.value(*y));
            }
        },
    );
}

fn input_gradient(g: &Geometry, input: &[f32], weight: &[f32], output_grad: &[f32], input_grad: &mut [f32]) {
    let work = row_tiles(blocks(g.batch), g.inputs);
    let outputs = cut(input_grad, work.clone().map(|(_, _, n)| n * LANES));
    work.zip(outputs).collect::<Vec<_>>().into_par_iter().with_min_len(4).for_each(
        |((block, first, _), output)| {
            vectorize(Rows {
                inputs: g.outputs,
                across: 1,
                along: g.inputs,
                weight: &weight[first..],
                start: &[],
                input: &output_grad[block * g.outputs * LANES..][..g.outputs * LANES],
                output,
            });
            if let Some(activation) = g.input_activation {
                let input = &input[(block * g.inputs + first) * LANES..];
                output.iter_mut().zip(input).for_each(|(grad, &y)| *grad *= activation.slope_by_value(y));
            }
        },
    );
}

/// Rows of weights that a thread sums at once.
const GRADIENT_ROWS: usize = 4;

/// The partial sums of up to [`GRADIENT_ROWS`] rows over the blocks of one split.
struct WeightGradient<'a> {
    g: &'a Geometry,
    input: &'a [f32],
    output_grad: &'a [f32],
    split: usize,
    first: usize,
    weight_grad: &'a mut [f32],
    bias_grad: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.weight_grad.len() / self.g.inputs;
        let mut done = 0;
        while done < rows {
            let n = if S::F32_LANES >= 16 && rows - done >= 4 { 4 } else { (rows - done).min(2) };
            for (i, columns) in tiles(self.g.inputs, 5) {
                match (n, columns) {
                    (4, 5) => outer::<S, 4, 5>(simd, &mut self, done, i),
                    (2, 5) => outer::<S, 2, 5>(simd, &mut self, done, i),
                    (1, 5) => outer::<S, 1, 5>(simd, &mut self, done, i),
                    (4, _) => (i..i + columns).for_each(|i| outer::<S, 4, 1>(simd, &mut self, done, i)),
                    (2, _) => (i..i + columns).for_each(|i| outer::<S, 2, 1>(simd, &mut self, done, i)),
                    (_, _) => (i..i + columns).for_each(|i| outer::<S, 1, 1>(simd, &mut self, done, i)),
                }
            }
            done += n;
        }
        for (o, bias) in self.bias_grad.iter_mut().enumerate() {
            let mut sum = simd.splat_f32s(0.0);
            for block in (self.split..blocks(self.g.batch)).step_by(self.g.splits()) {
                let at = (block * self.g.outputs + self.first + o) * LANES;
                for &value in wide::<S>(&self.output_grad[at..at + LANES]) {
                    sum = simd.add_f32s(sum, value);
                }
            }
            *bias = simd.reduce_sum_f32s(sum);
        }
    }
}

/// `O` rows × `I` columns from (`first + done`, `i`) on, summed over the images in registers.
#[inline(always)]
fn outer<S: Simd, const O: usize, const I: usize>(
    simd: S,
    work: &mut WeightGradient<'_>,
    done: usize,
    i: usize,
) {
    let g = work.g;
    let n = registers::<S>();
    let (input, grads) = (wide::<S>(work.input), wide::<S>(work.output_grad));
    let mut sums = [[simd.splat_f32s(0.0); I]; O];
    for block in (work.split..blocks(g.batch)).step_by(g.splits()) {
        let x = &input[(block * g.inputs + i) * n..][..I * n];
        let d = &grads[(block * g.outputs + work.first + done) * n..][..O * n];
        for register in 0..n {
            let x: [S::f32s; I] = std::array::from_fn(|k| x[k * n + register]);
            for o in 0..O {
                let d = d[o * n + register];
                for k in 0..I {
                    sums[o][k] = simd.mul_add_e_f32s(d, x[k], sums[o][k]);
                }
            }
        }
    }
    for (o, sums) in sums.into_iter().enumerate() {
        let at = (done + o) * g.inputs + i;
        for (weight, sum) in work.weight_grad[at..at + I].iter_mut().zip(sums) {
            *weight = simd.reduce_sum_f32s(sum);
        }
    }
}

fn weight_gradient(
    g: &Geometry,
    input: &[f32],
    output_grad: &[f32],
    weight_grad: &mut [f32],
    bias_grad: &mut [f32],
) {
    let rows = || tiles(g.outputs, GRADIENT_ROWS);
    let mut weights = Vec::new();
    for split in weight_grad.chunks_mut(padded(g.weights())).take(g.splits()) {
        weights.extend(cut(split, rows().map(|(_, n)| n * g.inputs)));
    }
    let mut biases: Vec<&mut [f32]> = Vec::new();
    for split in bias_grad.chunks_mut(padded(g.outputs)).take(if g.bias { g.splits() } else { 0 }) {
        biases.extend(cut(split, rows().map(|(_, n)| n)));
    }
    biases.resize_with(weights.len(), Default::default);
    let work = (0..g.splits()).flat_map(|split| rows().map(move |(first, _)| (split, first)));
    work.zip(weights.into_iter().zip(biases)).collect::<Vec<_>>().into_par_iter().for_each(
        |((split, first), (weight_grad, bias_grad))| {
            vectorize(WeightGradient { g, input, output_grad, split, first, weight_grad, bias_grad });
        },
    );
}
