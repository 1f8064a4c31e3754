//! Proves that the CPU twins' gradients are the slopes of plain f64 formulas, by central differences: every
//! backward entry by itself, and all of them in the middle of a network.

mod activation;
#[path = "../common/mod.rs"]
mod common;
mod conv2d;
mod dropout;
mod join;
mod linear;
mod loss;
mod lrn;
mod network;
mod norm;
mod pool2d;
mod rbf;
mod squared_error;

use activation::activation_reference;
use common::{Random, Rig, Tolerance, Worst, narrow};
use lenet::kernels::activation::Activation;
use lenet::kernels::{CHUNK, Gradients, LANES, Launch, LayerBuffers, Range, Step, Target, padded};

/// Half the distance of a central difference. In f64 its own error is about 1e-16 · |L| / 1e-6, 1e-9 here.
const EPSILON: f64 = 1e-6;

/// Central differences move no value before a kink by more than 4e-6 (a pixel of 1.5, nine taps of at most 1/3),
/// and f32 is less than 1e-6 away from f64: so far from a kink, all of them stay on one side of it.
const CLEARANCE: f64 = 1e-5;

/// Sums of up to 300 products of size 1 in f32 are off by up to 2e-6: a rounding is 6e-8 of a sum that walks to
/// 10, and there are 300 of them, in 16 lanes.
const SUMS: Tolerance = Tolerance { absolute: 5e-6, relative: 1e-6 };
/// A window holds at most 12 cells.
const POOLS: Tolerance = Tolerance { absolute: 5e-7, relative: 5e-7 };
/// A few roundings of f32 functions of size 1 times an upstream gradient of up to 1; a slope like 1 − tanh²
/// is a difference, so its error stays absolute. GELU's erf adds 1.5e-7.
const FUNCTIONS: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
/// Exponentials in f32 and sums of up to 7 of them.
const LOSSES: Tolerance = Tolerance { absolute: 3e-7, relative: 1e-6 };

/// `[N, C, H, W]` in f64.
#[derive(Debug, Clone)]
struct Images {
    shape: [usize; 4],
    values: Vec<f64>,
}

impl Images {
    fn zeros(shape: [usize; 4]) -> Images {
        Images { shape, values: vec![0.0; shape.iter().product()] }
    }

    fn random(shape: [usize; 4], random: &mut Random) -> Images {
        Images { shape, values: random.units(shape.iter().product()) }
    }

    fn index(&self, n: usize, c: usize, y: usize, x: usize) -> usize {
        let [_, channels, height, width] = self.shape;
        ((n * channels + c) * height + y) * width + x
    }

    /// The element, or nothing outside the picture.
    fn at(&self, n: usize, c: usize, y: isize, x: isize) -> Option<f64> {
        let [_, _, height, width] = self.shape;
        let inside = y >= 0 && x >= 0 && y < height as isize && x < width as isize;
        inside.then(|| self.values[self.index(n, c, y as usize, x as usize)])
    }

    /// An image of this shape whose every element is `f(n, c, y, x)`.
    fn build(shape: [usize; 4], f: impl Fn(usize, usize, usize, usize) -> f64) -> Images {
        let mut images = Images::zeros(shape);
        for n in 0..shape[0] {
            for c in 0..shape[1] {
                for y in 0..shape[2] {
                    for x in 0..shape[3] {
                        let at = images.index(n, c, y, x);
                        images.values[at] = f(n, c, y, x);
                    }
                }
            }
        }
        images
    }

    fn features(&self) -> usize {
        self.values.len() / self.shape[0]
    }
}

/// `Σ upstream · layer`: what a layer's gradients are the slopes of.
fn weighed(upstream: &[f64], output: &Images) -> f64 {
    assert_eq!(upstream.len(), output.values.len());
    upstream.iter().zip(&output.values).map(|(u, y)| u * y).sum()
}

/// The slope of `f` in direction `i` at `x`.
fn slope(x: &[f64], i: usize, f: &dyn Fn(&[f64]) -> f64) -> f64 {
    let mut moved = x.to_vec();
    moved[i] = x[i] + EPSILON;
    let above = f(&moved);
    moved[i] = x[i] - EPSILON;
    (above - f(&moved)) / (2.0 * EPSILON)
}

/// Its slopes in every direction.
fn slopes(x: &[f64], f: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    (0..x.len()).map(|i| slope(x, i, f)).collect()
}

fn step(images: usize) -> Step {
    Step { count: images as u32, ..Step::default() }
}

/// Where a layer without parameters reads and writes.
#[derive(Debug, Clone, Copy)]
struct Flow {
    input: Range,
    output: Range,
    output_grad: Range,
    input_grad: Range,
}

/// The output of a layer without parameters, and the gradient of its input.
fn flow(
    input: &Images,
    upstream: &[f64],
    launches: impl FnOnce(&mut Rig, Flow) -> Vec<Launch>,
) -> [Vec<f32>; 2] {
    let images = input.shape[0];
    let (into, out) = (input.features(), upstream.len() / images);
    let mut rig = Rig::default();
    let flow = Flow {
        input: rig.images("input", &narrow(&input.values), into),
        output: rig.result("output", out, images),
        output_grad: rig.upstream("upstream", &narrow(upstream), out),
        input_grad: rig.result("input_grad", into, images),
    };
    let launches = launches(&mut rig, flow);
    let ran = rig.run(launches, step(images));
    [ran.rows(flow.output, out, images), ran.rows(flow.input_grad, into, images)]
}

/// A layer without parameters beside its formula.
struct Plain<'a> {
    what: String,
    input: Images,
    formula: &'a dyn Fn(&Images) -> Images,
    allowed: Tolerance,
}

impl Plain<'_> {
    fn check(
        &self,
        worst: &mut Worst,
        random: &mut Random,
        launches: impl FnOnce(&mut Rig, Flow) -> Vec<Launch>,
    ) {
        let Plain { what, input, formula, allowed } = self;
        let output = formula(input);
        let upstream = random.units(output.values.len());
        let [got, input_grad] = flow(input, &upstream, launches);
        worst.close(&format!("{what}: output"), &got, &output.values, *allowed);
        let want = slopes(&input.values, &|x| {
            weighed(&upstream, &formula(&Images { shape: input.shape, values: x.to_vec() }))
        });
        worst.close(&format!("{what}: input"), &input_grad, &want, *allowed);
    }
}

/// What a layer makes of input, weights and bias.
type Formula<'a> = dyn Fn(&Images, &[f64], &[f64]) -> Images + 'a;

/// A layer with weights beside its formula.
struct Weighted<'a> {
    what: String,
    /// What the activation makes the input of.
    before: Images,
    /// Ends the layer before and this one.
    activation: Option<Activation>,
    weight: Vec<f64>,
    /// Empty where there is none.
    bias: Vec<f64>,
    formula: &'a Formula<'a>,
    /// Partial sums of the gradients.
    splits: usize,
}

impl Weighted<'_> {
    /// The values after the activation.
    fn ended(&self, values: &[f64]) -> Vec<f64> {
        let value = |&x: &f64| self.activation.map_or(x, |activation| activation_reference(activation, x));
        values.iter().map(value).collect()
    }

    /// The gradient of the input is the one before the activation that made it, and so is the one that arrives.
    fn check(
        &self,
        worst: &mut Worst,
        random: &mut Random,
        launches: impl FnOnce(LayerBuffers, Gradients, Range) -> Vec<Launch>,
    ) {
        let Weighted { before, weight, bias, formula, splits, .. } = self;
        let (shape, splits, with_bias) = (before.shape, *splits, !bias.is_empty());
        let what = |tensor: &str| format!("{}: {tensor}", self.what);
        let input = Images { shape, values: self.ended(&before.values) };
        let output = formula(&input, weight, bias);
        let upstream = random.units(output.values.len());
        let images = shape[0];
        assert!(images <= LANES || splits > 1, "{}", what("there is one partial sum only"));

        let (into, out) = (input.features(), output.features());
        let mut rig = Rig::default();
        let weights = rig.parameter("weight", &narrow(weight));
        let buffers = LayerBuffers {
            input: rig.images("input", &narrow(&input.values), into),
            weight: weights,
            bias: if with_bias { rig.parameter("bias", &narrow(bias)) } else { weights },
            output: rig.result("output", out, images),
        };
        let bias_len = if with_bias { splits * padded(bias.len()) } else { CHUNK };
        let gradients = Gradients {
            output: rig.upstream("upstream", &narrow(&upstream), out),
            weight: rig.poisoned("weight_grad", splits * padded(weight.len())),
            bias: rig.poisoned("bias_grad", bias_len),
        };
        let input_grad = rig.result("input_grad", into, images);
        let ran = rig.run(launches(buffers, gradients, input_grad), step(images));

        let got = ran.rows(buffers.output, out, images);
        worst.close(&what("output"), &got, &self.ended(&output.values), SUMS);
        let want = slopes(&before.values, &|x| {
            weighed(&upstream, &formula(&Images { shape, values: self.ended(x) }, weight, bias))
        });
        worst.close(&what("input"), &ran.rows(input_grad, into, images), &want, SUMS);
        let want = slopes(weight, &|w| weighed(&upstream, &formula(&input, w, bias)));
        worst.close(&what("weight"), &ran.summed(gradients.weight, weight.len(), splits), &want, SUMS);
        if with_bias {
            let want = slopes(bias, &|b| weighed(&upstream, &formula(&input, weight, b)));
            worst.close(&what("bias"), &ran.summed(gradients.bias, bias.len(), splits), &want, SUMS);
        }
    }
}
