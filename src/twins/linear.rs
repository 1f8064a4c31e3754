//! `shaders/linear.wgsl` on the CPU: a fully connected layer and its gradients.

use pulp::{Simd, WithSimd};

use super::fused;
use super::simd::{registers, relu, scratch, vectorize, wide, wide_mut};
use super::tasks::{self, Axis, cut, grid, mixed, portions, tiles};
use crate::kernels::shaders::linear::{backward, forward, input_gradient, weight_gradient};
use crate::kernels::{LANES, Step, padded};
use crate::network::Activation;

/// What the shader's constants say; of an entry that lacks one, what does nothing.
#[derive(Clone, Copy)]
struct Shape {
    inputs: usize,
    outputs: usize,
    bias: bool,
    activation: Option<Activation>,
    input_activation: Option<Activation>,
    blocks: usize,
    splits: usize,
}

impl Shape {
    fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    /// Of a launch that goes through all products of weights and images once.
    fn operations(&self) -> usize {
        2 * self.weights() * self.blocks * LANES
    }
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let forward::Constants { inputs, outputs, bias, blocks, .. } = c;
    let activation = fused(c.activation);
    let g = Shape { inputs, outputs, bias, activation, input_activation: None, blocks, splits: 1 };
    move |b, _| self::outputs(&g, b)
}

pub(super) fn input_gradient(
    c: input_gradient::Constants,
) -> impl Fn(input_gradient::Buffers<'_>, Step) + Send + Sync {
    let input_gradient::Constants { inputs, outputs, blocks, .. } = c;
    let input_activation = fused(c.input_activation);
    let g = Shape { inputs, outputs, bias: false, activation: None, input_activation, blocks, splits: 1 };
    move |b, _| {
        let input_gradient::Buffers { input, weight, output_grad, input_grad } = b;
        gradients(&g, Backward { input, output_grad, weights: None, inputs: Some((weight, input_grad)) });
    }
}

pub(super) fn weight_gradient(
    c: weight_gradient::Constants,
) -> impl Fn(weight_gradient::Buffers<'_>, Step) + Send + Sync {
    let weight_gradient::Constants { inputs, outputs, bias, splits, .. } = c;
    let g = Shape { inputs, outputs, bias, activation: None, input_activation: None, blocks: 0, splits };
    move |b, _| {
        let weight_gradient::Buffers { input, output_grad, weight_grad, bias_grad } = b;
        let g = Shape { blocks: input.len() / (inputs * LANES), ..g };
        gradients(&g, Backward { input, output_grad, weights: Some([weight_grad, bias_grad]), inputs: None });
    }
}

pub(super) fn backward(c: backward::Constants) -> impl Fn(backward::Buffers<'_>, Step) + Send + Sync {
    let backward::Constants { inputs, outputs, bias, blocks, splits, .. } = c;
    let input_activation = fused(c.input_activation);
    let g = Shape { inputs, outputs, bias, activation: None, input_activation, blocks, splits };
    move |b, _| {
        let backward::Buffers { input, weight, output_grad, input_grad, weight_grad, bias_grad } = b;
        let (weights, inputs) = (Some([weight_grad, bias_grad]), Some((weight, input_grad)));
        gradients(&g, Backward { input, output_grad, weights, inputs });
    }
}

/// What is done to a sum before it is stored.
#[derive(Clone, Copy)]
enum Finish<'a> {
    /// The activation.
    Value(Option<Activation>),
    /// It is multiplied by the activation's derivative where its value is this, one block after the other.
    Slope(Option<Activation>, [&'a [f32]; 2]),
}

/// `output[k] = start[k] + Σ i weight[k · across + i · along] · input[i]`, finished, for one block or two.
struct Rows<'a> {
    inputs: usize,
    /// The distance of the weights of neighbouring rows, and of neighbouring inputs.
    across: usize,
    along: usize,
    weight: &'a [f32],
    start: &'a [f32],
    /// The second is empty where there is one block only.
    input: [&'a [f32]; 2],
    output: [&'a mut [f32]; 2],
    finish: Finish<'a>,
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.output[0].len() / LANES;
        let (mut first, two) = (0, !self.output[1].is_empty());
        while first < rows {
            // Two blocks share the weights: 8 × 2 sums.
            let tile = match (rows - first, S::F32_LANES >= 16 && two) {
                (8.., true) => self.tile::<S, 8, 2>(simd, first),
                (4.., true) => self.tile::<S, 4, 2>(simd, first),
                (2.., true) => self.tile::<S, 2, 2>(simd, first),
                (_, true) => self.tile::<S, 1, 2>(simd, first),
                (8.., _) => self.tile::<S, 8, 1>(simd, first),
                (4.., _) => self.tile::<S, 4, 1>(simd, first),
                (2.., _) => self.tile::<S, 2, 1>(simd, first),
                (_, _) => self.tile::<S, 1, 1>(simd, first),
            };
            first += tile;
        }
        // What has no instruction of its own.
        for (block, output) in self.output.into_iter().enumerate() {
            match self.finish {
                Finish::Value(Some(activation)) if activation != Activation::Relu => {
                    output.iter_mut().for_each(|y| *y = activation.value(*y));
                }
                Finish::Slope(Some(activation), input) if activation != Activation::Relu => {
                    let slopes = input[block].iter().map(|&y| activation.slope_by_value(y));
                    output.iter_mut().zip(slopes).for_each(|(grad, slope)| *grad *= slope);
                }
                _ => {}
            }
        }
    }
}

impl Rows<'_> {
    /// `R` rows from `first` on, of `B` blocks at once; gives `R`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const B: usize>(&mut self, simd: S, first: usize) -> usize {
        let n = registers::<S>();
        let start: [f32; R] = std::array::from_fn(|k| self.start.get(first + k).copied().unwrap_or(0.0));
        // One block at a time where registers are few.
        for block in (0..if self.output[1].is_empty() { 1 } else { 2 }).step_by(B) {
            let input: [&[S::f32s]; B] =
                std::array::from_fn(|b| &wide::<S>(self.input[block + b])[..self.inputs * n]);
            for register in 0..n {
                let mut sums = [[simd.splat_f32s(0.0); B]; R];
                for (sums, &start) in sums.iter_mut().zip(&start) {
                    *sums = [simd.splat_f32s(start); B];
                }
                if self.across == 1 {
                    for i in 0..self.inputs {
                        let weights = &self.weight[i * self.along + first..][..R];
                        let x: [S::f32s; B] = std::array::from_fn(|b| input[b][i * n + register]);
                        for k in 0..R {
                            let w = simd.splat_f32s(weights[k]);
                            for b in 0..B {
                                sums[k][b] = simd.mul_add_e_f32s(w, x[b], sums[k][b]);
                            }
                        }
                    }
                } else {
                    let weights: [&[f32]; R] =
                        std::array::from_fn(|k| &self.weight[(first + k) * self.across..][..self.inputs]);
                    for i in 0..self.inputs {
                        let x: [S::f32s; B] = std::array::from_fn(|b| input[b][i * n + register]);
                        for k in 0..R {
                            let w = simd.splat_f32s(weights[k][i]);
                            for b in 0..B {
                                sums[k][b] = simd.mul_add_e_f32s(w, x[b], sums[k][b]);
                            }
                        }
                    }
                }
                let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
                for b in 0..B {
                    let output = &mut wide_mut::<S>(self.output[block + b])[first * n..][..R * n];
                    match self.finish {
                        Finish::Value(Some(Activation::Relu)) => {
                            for k in 0..R {
                                output[k * n + register] = relu(simd, sums[k][b]);
                            }
                        }
                        Finish::Slope(Some(Activation::Relu), input) => {
                            let input = &wide::<S>(input[block + b])[first * n..][..R * n];
                            for k in 0..R {
                                let positive = simd.greater_than_f32s(input[k * n + register], zero);
                                let slope = simd.select_f32s(positive, one, zero);
                                output[k * n + register] = simd.mul_f32s(sums[k][b], slope);
                            }
                        }
                        _ => {
                            for k in 0..R {
                                output[k * n + register] = sums[k][b];
                            }
                        }
                    }
                }
            }
        }
        R
    }
}

/// The first of a pair of blocks, the first of its rows that a task makes, and where they go.
type RowShare<'a> = (usize, usize, [&'a mut [f32]; 2]);

/// Pairs of blocks and a share of their rows, `wanted` tasks of them, with the part of `output` that belongs to them.
fn row_shares<'a>(g: &Shape, wanted: usize, rows: usize, output: &'a mut [f32]) -> Vec<RowShare<'a>> {
    let axis = Axis { all: rows, tile: 8, least: 1 };
    // One block at a time where there are too few rows for pairs.
    let together = if g.blocks.div_ceil(2) * rows < wanted { 1 } else { 2 };
    let [shares, _] = grid(wanted, g.blocks.div_ceil(together), [axis, Axis::whole(1)]);
    let shares = || shares.iter();
    let mut work = Vec::new();
    for (at, output) in output.chunks_mut(together * rows * LANES).enumerate() {
        let (one, other) = output.split_at_mut(rows * LANES);
        let there = usize::from(!other.is_empty());
        let mut others = cut(other, shares().map(|(_, n)| there * n * LANES)).into_iter();
        for ((first, _), one) in shares().zip(cut(one, shares().map(|(_, n)| n * LANES))) {
            work.push((together * at, first, [one, others.next().unwrap_or_default()]));
        }
    }
    work
}

/// What a block and the one after it, if there is one, have in `all`.
fn two_blocks(all: &[f32], block: usize, features: usize) -> [&[f32]; 2] {
    [block, block + 1].map(|block| all.get(block * features * LANES..).unwrap_or_default())
}

fn outputs(g: &Shape, b: forward::Buffers<'_>) {
    let forward::Buffers { input, weight, bias, output } = b;
    let bias = if g.bias { bias } else { &[] };
    let work = row_shares(g, tasks::wanted(g.operations()), g.outputs, output);
    tasks::run(work, |(block, first, output)| {
        vectorize(Rows {
            inputs: g.inputs,
            across: g.inputs,
            along: 1,
            weight: &weight[first * g.inputs..],
            start: bias.get(first..).unwrap_or_default(),
            input: two_blocks(input, block, g.inputs),
            output,
            finish: Finish::Value(g.activation),
        });
    });
}

/// A part of the backward pass that one thread does.
enum Task<'a> {
    /// Columns from `first[1]` on of rows from `first[0]` on of partial sum `split`: a slice of each row; and the rows'
    /// biases, or none.
    Weights { split: usize, first: [usize; 2], rows: Vec<&'a mut [f32]>, biases: &'a mut [f32] },
    /// The gradient of some inputs of a pair of blocks.
    Input { block: usize, first: usize, output: [&'a mut [f32]; 2] },
}

/// What the backward launches bind; a part of it where they make one of the two gradients only.
struct Backward<'a> {
    input: &'a [f32],
    output_grad: &'a [f32],
    /// The gradients of weights and biases.
    weights: Option<[&'a mut [f32]; 2]>,
    /// The weights, and the gradient of the input.
    inputs: Option<(&'a [f32], &'a mut [f32])>,
}

fn gradients(g: &Shape, b: Backward<'_>) {
    let Backward { input, output_grad, .. } = b;
    // Of each of the two gradients, so that a thread's share of the list is as much of either.
    let wanted = tasks::wanted(g.operations());
    let mut weights = Vec::new();
    if let Some([weight_grad, bias_grad]) = b.weights {
        // Along the columns, each of which is then turned once, and across them where those are too few.
        let columns = Axis::new(g.inputs, LANES);
        let [columns, rows] = grid(wanted, g.splits, [columns, Axis { all: g.outputs, tile: 6, least: 2 }]);
        let mut biases = bias_grad.chunks_mut(padded(g.outputs));
        let splits = weight_grad.chunks_mut(padded(g.weights())).take(g.splits);
        for (split, weight_grad) in splits.enumerate() {
            let mut biases =
                if g.bias { &mut biases.next().unwrap_or_default()[..g.outputs] } else { &mut [] };
            let lengths = columns.iter().map(|(_, count)| count);
            let mut portions = portions(&mut weight_grad[..g.weights()], rows, g.inputs, lengths).into_iter();
            for (row, count) in rows.iter() {
                let (mut own, rest) = biases.split_at_mut(if g.bias { count } else { 0 });
                biases = rest;
                for ((column, _), rows) in columns.iter().zip(portions.by_ref()) {
                    let (first, biases) = ([row, column], std::mem::take(&mut own));
                    weights.push(Task::Weights { split, first, rows, biases });
                }
            }
        }
    }
    let mut inputs = Vec::new();
    let mut weight: &[f32] = &[];
    if let Some((values, input_grad)) = b.inputs {
        weight = values;
        let work = row_shares(g, wanted, g.inputs, input_grad);
        inputs.extend(work.into_iter().map(|(block, first, output)| Task::Input { block, first, output }));
    }
    tasks::run(mixed(inputs, weights), |task| match task {
        Task::Weights { split, first, rows, biases } => {
            let columns = rows.first().map_or(0, |row| row.len());
            // A whole number of registers for each image.
            let stride = columns.next_multiple_of(LANES);
            let images = (split..g.blocks).step_by(g.splits).count() * LANES;
            scratch(images * stride, |turned| {
                vectorize(WeightGradient {
                    g,
                    input,
                    output_grad,
                    split,
                    first,
                    stride,
                    turned,
                    rows,
                    biases,
                });
            });
        }
        Task::Input { block, first, output } => vectorize(Rows {
            inputs: g.outputs,
            across: 1,
            along: g.inputs,
            weight: &weight[first..],
            start: &[],
            input: two_blocks(output_grad, block, g.outputs),
            output,
            finish: Finish::Slope(
                g.input_activation,
                two_blocks(input, block, g.inputs)
                    .map(|input| input.get(first * LANES..).unwrap_or_default()),
            ),
        }),
    });
}

/// `weight_grad[o, i] = Σ image output_grad[o, image] · input[image, i]` for some rows `o` and columns `i`, over the
/// blocks of one split. The input is turned first, so that a register holds columns: nothing is left to be added up
/// across its lanes.
struct WeightGradient<'a> {
    g: &'a Shape,
    input: &'a [f32],
    output_grad: &'a [f32],
    split: usize,
    /// The first row and column.
    first: [usize; 2],
    /// Columns, rounded up to whole registers.
    stride: usize,
    /// Room for the input's columns: `[image][stride]`.
    turned: &'a mut [f32],
    rows: Vec<&'a mut [f32]>,
    biases: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (g, stride) = (self.g, self.stride);
        let columns = self.rows.first().map_or(0, |row| row.len());
        let blocks = || (self.split..g.blocks).step_by(g.splits);
        for (block, turned) in blocks().zip(self.turned.chunks_exact_mut(LANES * stride)) {
            let input = &self.input[(block * g.inputs + self.first[1]) * LANES..][..columns * LANES];
            for (i, pixels) in input.chunks_exact(LANES).enumerate() {
                for (image, &pixel) in turned.chunks_exact_mut(stride).zip(pixels) {
                    image[i] = pixel;
                }
            }
            turned.chunks_exact_mut(stride).for_each(|image| image[columns..].fill(0.0));
        }
        for (o, bias) in self.biases.iter_mut().enumerate() {
            let mut sum = simd.splat_f32s(0.0);
            for block in blocks() {
                let at = (block * g.outputs + self.first[0] + o) * LANES;
                for &value in wide::<S>(&self.output_grad[at..][..LANES]) {
                    sum = simd.add_f32s(sum, value);
                }
            }
            *bias = simd.reduce_sum_f32s(sum);
        }
        let registers = columns.div_ceil(S::F32_LANES);
        for (i, n) in tiles(registers, 4) {
            let mut o = 0;
            while o < self.rows.len() {
                let left = self.rows.len() - o;
                o += match (n, left) {
                    (4, 6..) if S::F32_LANES >= 16 => self.outer::<S, 6, 4>(simd, o, i),
                    (3, 6..) if S::F32_LANES >= 16 => self.outer::<S, 6, 3>(simd, o, i),
                    (2, 6..) if S::F32_LANES >= 16 => self.outer::<S, 6, 2>(simd, o, i),
                    (1, 6..) => self.outer::<S, 6, 1>(simd, o, i),
                    (4, 2..) => self.outer::<S, 2, 4>(simd, o, i),
                    (3, 2..) => self.outer::<S, 2, 3>(simd, o, i),
                    (2, 2..) => self.outer::<S, 2, 2>(simd, o, i),
                    (1, 2..) => self.outer::<S, 2, 1>(simd, o, i),
                    (4, _) => self.outer::<S, 1, 4>(simd, o, i),
                    (3, _) => self.outer::<S, 1, 3>(simd, o, i),
                    (2, _) => self.outer::<S, 1, 2>(simd, o, i),
                    (_, _) => self.outer::<S, 1, 1>(simd, o, i),
                };
            }
        }
    }
}

impl WeightGradient<'_> {
    /// `O` rows × `I` registers of columns from (`first`, `i`) on, summed over the images; gives `O`.
    #[inline(always)]
    fn outer<S: Simd, const O: usize, const I: usize>(&mut self, simd: S, first: usize, i: usize) -> usize {
        let g = self.g;
        let wide_stride = self.stride / S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); I]; O];
        let blocks = (self.split..g.blocks).step_by(g.splits);
        for (block, turned) in blocks.zip(wide::<S>(self.turned).chunks_exact(LANES * wide_stride)) {
            let at = (block * g.outputs + self.first[0] + first) * LANES;
            let grads = &self.output_grad[at..][..O * LANES];
            for (image, columns) in turned.chunks_exact(wide_stride).enumerate() {
                let columns: [S::f32s; I] = columns[i..][..I].try_into().expect("I registers");
                for o in 0..O {
                    let d = simd.splat_f32s(grads[o * LANES + image]);
                    for k in 0..I {
                        sums[o][k] = simd.mul_add_e_f32s(d, columns[k], sums[o][k]);
                    }
                }
            }
        }
        for (row, sums) in self.rows[first..].iter_mut().zip(sums) {
            let row = &mut row[i * S::F32_LANES..];
            for (columns, sum) in row.chunks_mut(S::F32_LANES).zip(sums) {
                // The last register of a row may be wider than what is left of it.
                let lanes = [sum];
                columns.copy_from_slice(&bytemuck::cast_slice(&lanes)[..columns.len()]);
            }
        }
        O
    }
}
