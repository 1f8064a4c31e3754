//! Proves that the CPU twins' gradients are the slopes of plain f64 formulas, by central differences: every
//! backward entry by itself, and all of them in the middle of a network.

mod common;

use common::{Random, Rig, Tolerance, Worst, narrow, pack, unblock};
use lenet::Network;
use lenet::backend::Backend;
use lenet::kernels::activation::Activation;
use lenet::kernels::{
    CHUNK, LANES, Step, conv2d, dropout, join, linear, loss, lrn, norm, padded, pool2d, rbf,
};
use lenet::network::{Conv2d, Layer, Pool2d};
use lenet::plan::{Options, Phase, Plan};
use pollster::block_on;

/// Half the distance of a central difference. In f64 its own error is about 1e-16 · |L| / 1e-6, 1e-9 here.
const EPSILON: f64 = 1e-6;

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

// ---- The reference: plain formulas on plain arrays ----

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

#[derive(Debug, Clone, Copy)]
struct Conv {
    out: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
}

impl Conv {
    fn out_size(&self, input: &Images) -> [usize; 2] {
        [0, 1].map(|d| {
            let reach = self.dilation[d] * (self.kernel[d] - 1) + 1;
            (input.shape[2 + d] + 2 * self.pad[d] - reach) / self.stride[d] + 1
        })
    }
}

fn conv_reference(k: Conv, input: &Images, weight: &[f64], bias: &[f64]) -> Images {
    let [images, channels, ..] = input.shape;
    let [height, width] = k.out_size(input);
    let (group_in, group_out) = (channels / k.groups, k.out / k.groups);
    Images::build([images, k.out, height, width], |n, o, y, x| {
        let mut sum = bias.get(o).copied().unwrap_or(0.0);
        for c in 0..group_in {
            for ky in 0..k.kernel[0] {
                for kx in 0..k.kernel[1] {
                    let iy = (y * k.stride[0] + ky * k.dilation[0]) as isize - k.pad[0] as isize;
                    let ix = (x * k.stride[1] + kx * k.dilation[1]) as isize - k.pad[1] as isize;
                    let w = weight[((o * group_in + c) * k.kernel[0] + ky) * k.kernel[1] + kx];
                    sum += w * input.at(n, o / group_out * group_in + c, iy, ix).unwrap_or(0.0);
                }
            }
        }
        sum
    })
}

#[derive(Debug, Clone, Copy)]
struct Pool {
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    ceil: bool,
    count_pad: bool,
}

impl Pool {
    /// As many windows as fit, or, rounded up, as many as start within the picture or the padding before it.
    fn out_size(&self, input: &Images) -> [usize; 2] {
        [0, 1].map(|d| {
            let size = input.shape[2 + d];
            let fits = |i: usize| {
                let start = i * self.stride[d];
                start + self.kernel[d] <= size + 2 * self.pad[d]
                    || self.ceil
                        && start < size + self.pad[d]
                        && (i - 1) * self.stride[d] + self.kernel[d] < size + 2 * self.pad[d]
            };
            (1..).take_while(|&i| fits(i)).count() + 1
        })
    }

    /// The window's positions, those outside the picture among them.
    fn window(&self, y: usize, x: usize) -> impl Iterator<Item = (isize, isize)> {
        let (top, left) = (
            (y * self.stride[0]) as isize - self.pad[0] as isize,
            (x * self.stride[1]) as isize - self.pad[1] as isize,
        );
        let [height, width] = self.kernel.map(|side| side as isize);
        (0..height).flat_map(move |ky| (0..width).map(move |kx| (top + ky, left + kx)))
    }
}

fn max_reference(k: Pool, input: &Images) -> Images {
    let [images, channels, ..] = input.shape;
    let [height, width] = k.out_size(input);
    Images::build([images, channels, height, width], |n, c, y, x| {
        k.window(y, x).filter_map(|(y, x)| input.at(n, c, y, x)).fold(f64::NEG_INFINITY, f64::max)
    })
}

fn average_reference(k: Pool, input: &Images) -> Images {
    let [images, channels, in_height, in_width] = input.shape;
    let [height, width] = k.out_size(input);
    // What lies beyond the padding, under a window of a size that was rounded up, never counts.
    let padded = |y: isize, x: isize| {
        y < (in_height + k.pad[0]) as isize && x < (in_width + k.pad[1]) as isize && k.count_pad
    };
    Images::build([images, channels, height, width], |n, c, y, x| {
        let (mut sum, mut cells) = (0.0, 0);
        for (y, x) in k.window(y, x) {
            let value = input.at(n, c, y, x);
            sum += value.unwrap_or(0.0);
            cells += usize::from(value.is_some() || padded(y, x));
        }
        sum / cells as f64
    })
}

/// The mean of every input pixel that an output pixel touches, where both sizes stretch over the same picture.
fn adaptive_reference(size: [usize; 2], input: &Images) -> Images {
    let [images, channels, in_height, in_width] = input.shape;
    let touches =
        |i: usize, from: usize, o: usize, to: usize| i * to < (o + 1) * from && (i + 1) * to > o * from;
    Images::build([images, channels, size[0], size[1]], |n, c, y, x| {
        let rows = (0..in_height).filter(|&iy| touches(iy, in_height, y, size[0]));
        let cells: Vec<f64> = rows
            .flat_map(|iy| (0..in_width).map(move |ix| (iy, ix)))
            .filter(|&(_, ix)| touches(ix, in_width, x, size[1]))
            .map(|(iy, ix)| input.values[input.index(n, c, iy, ix)])
            .collect();
        cells.iter().sum::<f64>() / cells.len() as f64
    })
}

fn upsample_reference(factor: [usize; 2], input: &Images) -> Images {
    let [images, channels, height, width] = input.shape;
    Images::build([images, channels, height * factor[0], width * factor[1]], |n, c, y, x| {
        input.values[input.index(n, c, y / factor[0], x / factor[1])]
    })
}

#[derive(Debug, Clone, Copy)]
struct Response {
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
}

/// Channels before the first and after the last count as 0.
fn response_reference(r: Response, input: &Images) -> Images {
    Images::build(input.shape, |n, c, y, x| {
        let at = |c: isize| {
            let exists = c >= 0 && c < input.shape[1] as isize;
            if exists { input.values[input.index(n, c as usize, y, x)] } else { 0.0 }
        };
        let first = c as isize - (r.size / 2) as isize;
        let squares: f64 = (first..first + r.size as isize).map(|c| at(c).powi(2)).sum();
        at(c as isize) / (r.k + r.alpha * squares / r.size as f64).powf(r.beta)
    })
}

fn linear_reference(outputs: usize, input: &Images, weight: &[f64], bias: &[f64]) -> Images {
    let inputs = input.features();
    Images::build([input.shape[0], outputs, 1, 1], |n, o, _, _| {
        let products = (0..inputs).map(|i| weight[o * inputs + i] * input.values[n * inputs + i]);
        bias.get(o).copied().unwrap_or(0.0) + products.sum::<f64>()
    })
}

/// Φ(x), the normal distribution, by Simpson's rule over its density from 0 to x.
fn normal(x: f64) -> f64 {
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let pieces = 400;
    let h = x / f64::from(pieces);
    let weight = |i: i32| if i == 0 || i == pieces { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
    0.5 + (0..=pieces).map(|i| weight(i) * density(f64::from(i) * h)).sum::<f64>() * h / 3.0
}

fn activation_reference(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::ScaledTanh => 1.7159 * (2.0 / 3.0 * x).tanh(),
        Activation::Gelu => x * normal(x),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * (x.exp() - 1.0)
            }
        }
        Activation::Softplus => (1.0 + x.exp()).ln(),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

/// The mean over the positions of all images of −Σ q log p. With a rubbish class of penalty j (LeCun et al. 1998,
/// eq. 9) the sum of exponentials has e⁻ʲ, too.
fn loss_reference(logits: &Images, labels: &[usize], smoothing: f64, rubbish: Option<f64>) -> f64 {
    let [images, classes, height, width] = logits.shape;
    let positions = height * width;
    assert_eq!(labels.len(), images * positions);
    let one = |(row, &label): (usize, &usize)| {
        let z = |k: usize| logits.values[(row / positions * classes + k) * positions + row % positions];
        let extra = rubbish.map_or(0.0, |j| (-j).exp());
        let log_sum = ((0..classes).map(|k| z(k).exp()).sum::<f64>() + extra).ln();
        let target = |k: usize| smoothing / classes as f64 + if k == label { 1.0 - smoothing } else { 0.0 };
        (0..classes).map(|k| target(k) * (log_sum - z(k))).sum::<f64>()
    };
    labels.iter().enumerate().map(one).sum::<f64>() / labels.len() as f64
}

/// Each channel by its mean and variance over the images, by given ones, or as it is; then `f(weight · x̂ + bias)`.
fn norm_reference(
    g: &norm::Geometry,
    input: &Images,
    [weight, bias]: [&[f64]; 2],
    running: [&[f64]; 2],
) -> Images {
    Images::build(input.shape, |n, c, y, x| {
        let (mean, variance) = match g.kind {
            norm::Kind::Batch => moments_reference(input, c),
            norm::Kind::Running => (running[0][c], running[1][c]),
            norm::Kind::Affine => (0.0, 1.0 - f64::from(g.epsilon)),
        };
        let normalised =
            (input.values[input.index(n, c, y, x)] - mean) / (variance + f64::from(g.epsilon)).sqrt();
        let z = weight[c] * normalised + bias[c];
        g.activation.map_or(z, |activation| activation_reference(activation, z))
    })
}

/// The mean and the biased variance of a channel.
fn moments_reference(input: &Images, c: usize) -> (f64, f64) {
    let [images, _, height, width] = input.shape;
    let all: Vec<f64> = (0..images)
        .flat_map(|n| input.values[input.index(n, c, 0, 0)..][..height * width].iter().copied())
        .collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    (mean, all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64)
}

fn rbf_reference(outputs: usize, input: &Images, weight: &[f64]) -> Images {
    let inputs = input.features();
    Images::build([input.shape[0], outputs, 1, 1], |n, i, _, _| {
        let pairs = weight[i * inputs..][..inputs].iter().zip(&input.values[n * inputs..]);
        -pairs.map(|(w, x)| (x - w).powi(2)).sum::<f64>()
    })
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

// ---- Every backward entry by itself ----

fn step(images: usize) -> Step {
    Step { count: images as u32, ..Step::default() }
}

#[test]
fn convolution() {
    let plain = Conv { out: 3, kernel: [3, 3], stride: [1, 1], pad: [0, 0], dilation: [1, 1], groups: 1 };
    let cases = [
        ([3, 2, 5, 7], plain, true),
        ([2, 1, 6, 4], Conv { out: 5, kernel: [2, 3], pad: [1, 0], ..plain }, false),
        ([1, 3, 7, 5], Conv { out: 2, kernel: [3, 2], stride: [2, 1], pad: [1, 2], ..plain }, true),
        ([2, 2, 9, 8], Conv { out: 7, kernel: [2, 3], dilation: [3, 2], stride: [1, 2], ..plain }, true),
        ([2, 6, 4, 5], Conv { out: 9, groups: 3, kernel: [3, 1], pad: [2, 1], ..plain }, true),
        ([2, 2, 8, 11], Conv { out: 4, kernel: [2, 2], stride: [3, 4], ..plain }, true),
        ([1, 1, 6, 13], Conv { out: 1, kernel: [1, 7], stride: [2, 1], pad: [0, 3], ..plain }, true),
        ([2, 1, 3, 3], Conv { out: 2, kernel: [2, 2], pad: [3, 4], ..plain }, true),
        // A stride larger than the filter, and a filter as large as the picture.
        ([3, 2, 1, 6], Conv { out: 2, kernel: [1, 6], stride: [5, 9], ..plain }, false),
        // More than one block of images, so several partial sums, the last block ragged.
        ([19, 1, 4, 5], Conv { out: 2, kernel: [2, 3], pad: [1, 1], ..plain }, true),
        ([37, 2, 3, 3], Conv { out: 5, kernel: [2, 2], stride: [1, 2], groups: 1, ..plain }, true),
        // Filters of one pixel, and more channels than a tile has.
        ([2, 13, 3, 2], Conv { out: 6, kernel: [1, 1], ..plain }, true),
        ([1, 6, 4, 5], Conv { out: 10, pad: [1, 1], ..plain }, true),
        ([1, 9, 4, 5], Conv { out: 6, stride: [2, 2], pad: [1, 1], ..plain }, true),
        // A filter of its own for each channel.
        ([3, 3, 5, 9], Conv { out: 3, pad: [1, 1], groups: 3, ..plain }, true),
        (
            [2, 2, 7, 6],
            Conv { out: 2, kernel: [5, 4], stride: [2, 1], pad: [2, 1], groups: 2, ..plain },
            true,
        ),
        (
            [18, 2, 4, 7],
            Conv { out: 2, kernel: [2, 3], stride: [1, 2], pad: [0, 1], groups: 2, ..plain },
            true,
        ),
        ([1, 2, 9, 8], Conv { out: 2, dilation: [2, 3], pad: [1, 2], groups: 2, ..plain }, true),
        ([2, 2, 7, 5], Conv { out: 2, kernel: [1, 2], stride: [3, 3], groups: 2, ..plain }, false),
    ];
    let mut random = Random(1);
    let mut worst = Worst::default();
    let ends = [
        None,
        Some(Activation::Relu),
        Some(Activation::Sigmoid),
        Some(Activation::Tanh),
        Some(Activation::ScaledTanh),
    ];
    for ((shape, k, with_bias), activation) in cases.into_iter().zip(ends.into_iter().cycle()) {
        // The same activation made the input and ends the layer; the upstream gradient is the one before it.
        let ended = |x: &[f64]| {
            let value = |&x: &f64| activation.map_or(x, |activation| activation_reference(activation, x));
            x.iter().map(value).collect::<Vec<f64>>()
        };
        let what = |tensor: &str| format!("{k:?} with {activation:?} of {shape:?}: {tensor}");
        let before = Images::random(shape, &mut random);
        let input = Images { shape, values: ended(&before.values) };
        let weight = random.units(k.out * shape[1] / k.groups * k.kernel[0] * k.kernel[1]);
        let bias = random.units(if with_bias { k.out } else { 0 });
        let output = conv_reference(k, &input, &weight, &bias);
        let upstream = random.units(output.values.len());

        let g = conv2d::Geometry {
            in_channels: shape[1],
            in_size: [shape[2], shape[3]],
            out_channels: k.out,
            out_size: [output.shape[2], output.shape[3]],
            kernel: k.kernel,
            stride: k.stride,
            pad: k.pad,
            dilation: k.dilation,
            groups: k.groups,
            bias: with_bias,
            activation,
            input_activation: activation,
            batch: shape[0],
            fill: 4096,
        };
        assert!(shape[0] <= LANES || g.splits() > 1, "{}", what("there is one partial sum only"));
        let (into, out) = (input.features(), output.features());
        let mut rig = Rig::default();
        let weights = rig.parameter("weight", &narrow(&weight));
        let buffers = conv2d::Buffers {
            input: rig.images("input", &narrow(&input.values), into),
            weight: weights,
            bias: if with_bias { rig.parameter("bias", &narrow(&bias)) } else { weights },
            output: rig.result("output", out, g.batch),
        };
        let bias_len = if with_bias { g.splits() * padded(k.out) } else { CHUNK };
        let gradients = conv2d::Gradients {
            output: rig.upstream("upstream", &narrow(&upstream), out),
            weight: rig.poisoned("weight_grad", g.splits() * padded(g.weights())),
            bias: rig.poisoned("bias_grad", bias_len),
        };
        let input_grad = rig.result("input_grad", into, g.batch);
        let launches = vec![
            g.forward(buffers).unwrap(),
            g.weight_gradient(buffers, gradients).unwrap(),
            g.input_gradient(buffers, gradients, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, step(g.batch));

        let got = ran.rows(buffers.output, out, g.batch);
        worst.close(&what("output"), &got, &ended(&output.values), SUMS);
        let want = slopes(&before.values, &|x| {
            let moved = Images { shape, values: ended(x) };
            weighed(&upstream, &conv_reference(k, &moved, &weight, &bias))
        });
        worst.close(&what("input"), &ran.rows(input_grad, into, g.batch), &want, SUMS);
        let want = slopes(&weight, &|w| weighed(&upstream, &conv_reference(k, &input, w, &bias)));
        worst.close(&what("weight"), &ran.summed(gradients.weight, weight.len(), g.splits()), &want, SUMS);
        if with_bias {
            let want = slopes(&bias, &|b| weighed(&upstream, &conv_reference(k, &input, &weight, b)));
            worst.close(&what("bias"), &ran.summed(gradients.bias, bias.len(), g.splits()), &want, SUMS);
        }
    }
    worst.report("conv2d");
}

#[test]
fn linear_layer() {
    // Images, inputs, outputs.
    let cases = [(1, 1, 1, true), (3, 17, 5, true), (5, 9, 13, false), (2, 7, 8, true), (35, 6, 11, true)];
    let mut random = Random(2);
    let mut worst = Worst::default();
    for (images, inputs, outputs, with_bias) in cases {
        let what = |tensor: &str| format!("{inputs} to {outputs}, {images} images: {tensor}");
        let shape = [images, inputs, 1, 1];
        let input = Images::random(shape, &mut random);
        let weight = random.units(inputs * outputs);
        let bias = random.units(if with_bias { outputs } else { 0 });
        let output = linear_reference(outputs, &input, &weight, &bias);
        let upstream = random.units(output.values.len());

        let g = linear::Geometry {
            inputs,
            outputs,
            bias: with_bias,
            activation: None,
            input_activation: None,
            batch: images,
            fill: 4096,
        };
        assert!(images <= LANES || g.splits() > 1, "{}", what("there is one partial sum only"));
        let mut rig = Rig::default();
        let weights = rig.parameter("weight", &narrow(&weight));
        let buffers = linear::Buffers {
            input: rig.images("input", &narrow(&input.values), inputs),
            weight: weights,
            bias: if with_bias { rig.parameter("bias", &narrow(&bias)) } else { weights },
            output: rig.result("output", outputs, images),
        };
        let bias_len = if with_bias { g.splits() * padded(outputs) } else { CHUNK };
        let gradients = linear::Gradients {
            output: rig.upstream("upstream", &narrow(&upstream), outputs),
            weight: rig.poisoned("weight_grad", g.splits() * padded(g.weights())),
            bias: rig.poisoned("bias_grad", bias_len),
        };
        let input_grad = rig.result("input_grad", inputs, images);
        let launches = vec![
            g.forward(buffers).unwrap(),
            g.weight_gradient(buffers, gradients).unwrap(),
            g.input_gradient(buffers, gradients, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, step(images));

        let got = ran.rows(buffers.output, outputs, images);
        worst.close(&what("output"), &got, &output.values, SUMS);
        let want = slopes(&input.values, &|x| {
            let moved = Images { shape, values: x.to_vec() };
            weighed(&upstream, &linear_reference(outputs, &moved, &weight, &bias))
        });
        worst.close(&what("input"), &ran.rows(input_grad, inputs, images), &want, SUMS);
        let want = slopes(&weight, &|w| weighed(&upstream, &linear_reference(outputs, &input, w, &bias)));
        worst.close(&what("weight"), &ran.summed(gradients.weight, weight.len(), g.splits()), &want, SUMS);
        if with_bias {
            let want = slopes(&bias, &|b| weighed(&upstream, &linear_reference(outputs, &input, &weight, b)));
            worst.close(&what("bias"), &ran.summed(gradients.bias, bias.len(), g.splits()), &want, SUMS);
        }
    }
    worst.report("linear");
}

/// Pooling's cases: overlapping, gaps, padding, sizes rounded up so that a window reaches past the padding.
fn pool_cases() -> [([usize; 4], Pool); 8] {
    let plain = Pool { kernel: [2, 2], stride: [2, 2], pad: [0, 0], ceil: false, count_pad: true };
    [
        ([3, 2, 5, 7], plain),
        ([2, 3, 6, 5], Pool { kernel: [3, 2], stride: [1, 2], ..plain }),
        ([1, 1, 7, 8], Pool { kernel: [3, 3], stride: [2, 1], pad: [1, 1], ..plain }),
        ([2, 2, 8, 9], Pool { kernel: [2, 3], stride: [3, 4], pad: [1, 0], ..plain }),
        ([2, 1, 5, 7], Pool { ceil: true, ..plain }),
        ([2, 2, 6, 9], Pool { kernel: [3, 4], stride: [2, 3], pad: [1, 2], ceil: true, ..plain }),
        ([1, 3, 4, 3], Pool { kernel: [4, 3], stride: [4, 3], ..plain }),
        ([19, 1, 3, 5], Pool { kernel: [2, 3], stride: [1, 1], pad: [1, 1], ..plain }),
    ]
}

fn pool_geometry(k: Pool, input: &Images, output: &Images) -> pool2d::Geometry {
    pool2d::Geometry {
        channels: input.shape[1],
        in_size: [input.shape[2], input.shape[3]],
        out_size: [output.shape[2], output.shape[3]],
        kernel: k.kernel,
        stride: k.stride,
        pad: k.pad,
        count_pad: k.count_pad,
        batch: input.shape[0],
    }
}

#[test]
fn max_pooling() {
    let mut random = Random(3);
    let mut worst = Worst::default();
    for (shape, k) in pool_cases() {
        let what = |tensor: &str| format!("{k:?} of {shape:?}: {tensor}");
        // Values further apart than the differences reach: no ties, and no maximum that changes its place.
        let len: usize = shape.iter().product();
        let values = random.order(len).iter().map(|&i| (i as f64 - len as f64 / 2.0) / 64.0).collect();
        let input = Images { shape, values };
        let output = max_reference(k, &input);
        let upstream = random.units(output.values.len());
        let g = pool_geometry(k, &input, &output);
        let (into, out) = (input.features(), output.features());
        let mut rig = Rig::default();
        let from = rig.images("input", &narrow(&input.values), into);
        let to = rig.result("output", out, g.batch);
        let winner = rig.result("winner", out, g.batch);
        let gradient = rig.upstream("upstream", &narrow(&upstream), out);
        let input_grad = rig.result("input_grad", into, g.batch);
        let launches = vec![
            g.max_forward(from, to, winner).unwrap(),
            g.max_backward(gradient, winner, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, step(g.batch));
        worst.close(&what("output"), &ran.rows(to, out, g.batch), &output.values, POOLS);
        let want = slopes(&input.values, &|x| {
            weighed(&upstream, &max_reference(k, &Images { shape, values: x.to_vec() }))
        });
        worst.close(&what("input"), &ran.rows(input_grad, into, g.batch), &want, POOLS);
    }
    worst.report("max pooling");
}

#[test]
fn average_pooling() {
    let mut random = Random(4);
    let mut worst = Worst::default();
    for (shape, k) in pool_cases() {
        for count_pad in [true, false] {
            let k = Pool { count_pad, ..k };
            let what = |tensor: &str| format!("{k:?} of {shape:?}: {tensor}");
            let input = Images::random(shape, &mut random);
            let output = average_reference(k, &input);
            let upstream = random.units(output.values.len());
            let g = pool_geometry(k, &input, &output);
            let (into, out) = (input.features(), output.features());
            let mut rig = Rig::default();
            let from = rig.images("input", &narrow(&input.values), into);
            let to = rig.result("output", out, g.batch);
            let gradient = rig.upstream("upstream", &narrow(&upstream), out);
            let input_grad = rig.result("input_grad", into, g.batch);
            let launches =
                vec![g.average_forward(from, to).unwrap(), g.average_backward(gradient, input_grad).unwrap()];
            let ran = rig.run(launches, step(g.batch));
            worst.close(&what("output"), &ran.rows(to, out, g.batch), &output.values, POOLS);
            let want = slopes(&input.values, &|x| {
                weighed(&upstream, &average_reference(k, &Images { shape, values: x.to_vec() }))
            });
            worst.close(&what("input"), &ran.rows(input_grad, into, g.batch), &want, POOLS);
        }
    }
    worst.report("average pooling");
}

#[test]
fn adaptive_pooling() {
    let mut random = Random(7);
    let mut worst = Worst::default();
    let cases = [
        ([3, 2, 8, 6], [4, 3]),
        ([2, 3, 7, 5], [3, 2]),
        ([1, 2, 10, 9], [7, 4]),
        ([2, 1, 5, 8], [1, 1]),
        ([19, 1, 3, 2], [5, 3]),
    ];
    for (shape, size) in cases {
        let what = |tensor: &str| format!("{shape:?} to {size:?}: {tensor}");
        let input = Images::random(shape, &mut random);
        let output = adaptive_reference(size, &input);
        let upstream = random.units(output.values.len());
        let g = pool2d::Geometry::adaptive(shape[1], [shape[2], shape[3]], size, shape[0]);
        let (into, out) = (input.features(), output.features());
        let mut rig = Rig::default();
        let from = rig.images("input", &narrow(&input.values), into);
        let to = rig.result("output", out, g.batch);
        let gradient = rig.upstream("upstream", &narrow(&upstream), out);
        let input_grad = rig.result("input_grad", into, g.batch);
        let launches =
            vec![g.adaptive_forward(from, to).unwrap(), g.adaptive_backward(gradient, input_grad).unwrap()];
        let ran = rig.run(launches, step(g.batch));
        worst.close(&what("output"), &ran.rows(to, out, g.batch), &output.values, SUMS);
        let want = slopes(&input.values, &|x| {
            weighed(&upstream, &adaptive_reference(size, &Images { shape, values: x.to_vec() }))
        });
        worst.close(&what("input"), &ran.rows(input_grad, into, g.batch), &want, SUMS);
    }
    worst.report("adaptive pooling");
}

/// Of the squares of 1 to 35, over 64, as 5 rows of 7: what PyTorch 2 makes of them in 3 rows of 4.
#[test]
fn adaptive_windows_are_pytorchs() {
    let input: Vec<f32> = (1..36).map(|i| (i * i) as f32 / 64.0).collect();
    let want = [
        0.5859375,
        0.8619791666666666,
        1.3307291666666667,
        1.7578125,
        4.268229166666667,
        5.036458333333333,
        6.161458333333333,
        7.080729166666667,
        10.7578125,
        12.018229166666666,
        13.799479166666666,
        15.2109375,
    ];
    let mut rig = Rig::default();
    let from = rig.images("input", &input, 35);
    let to = rig.result("output", 12, 1);
    let g = pool2d::Geometry::adaptive(1, [5, 7], [3, 4], 1);
    let ran = rig.run(vec![g.adaptive_forward(from, to).unwrap()], step(1));
    Worst::default().close("output", &ran.rows(to, 12, 1), &want, POOLS);
}

#[test]
fn upsampling() {
    let mut random = Random(8);
    let mut worst = Worst::default();
    for (shape, factor) in [([3, 2, 4, 3], [2, 2]), ([17, 1, 2, 5], [3, 1]), ([2, 3, 1, 3], [1, 4])] {
        let what = |tensor: &str| format!("{shape:?} times {factor:?}: {tensor}");
        let input = Images::random(shape, &mut random);
        let output = upsample_reference(factor, &input);
        let upstream = random.units(output.values.len());
        let g = pool2d::Geometry::upsampling(shape[1], [shape[2], shape[3]], factor, shape[0]);
        let (into, out) = (input.features(), output.features());
        let mut rig = Rig::default();
        let from = rig.images("input", &narrow(&input.values), into);
        let to = rig.result("output", out, g.batch);
        let gradient = rig.upstream("upstream", &narrow(&upstream), out);
        let input_grad = rig.result("input_grad", into, g.batch);
        let launches =
            vec![g.upsample_forward(from, to).unwrap(), g.upsample_backward(gradient, input_grad).unwrap()];
        let ran = rig.run(launches, step(g.batch));
        worst.close(&what("output"), &ran.rows(to, out, g.batch), &output.values, POOLS);
        let want = slopes(&input.values, &|x| {
            weighed(&upstream, &upsample_reference(factor, &Images { shape, values: x.to_vec() }))
        });
        worst.close(&what("input"), &ran.rows(input_grad, into, g.batch), &want, POOLS);
    }
    worst.report("upsampling");
}

/// The normalised images, and the gradient of the input.
fn response(r: Response, input: &Images, upstream: &[f64]) -> [Vec<f32>; 2] {
    let [batch, channels, height, width] = input.shape;
    let g = lrn::Geometry {
        channels,
        positions: height * width,
        size: r.size,
        alpha: r.alpha as f32,
        beta: r.beta as f32,
        k: r.k as f32,
        batch,
    };
    let features = input.features();
    let mut rig = Rig::default();
    let from = rig.images("input", &narrow(&input.values), features);
    let to = rig.result("output", features, batch);
    let gradient = rig.upstream("upstream", &narrow(upstream), features);
    let input_grad = rig.result("input_grad", features, batch);
    let launches = vec![g.forward(from, to).unwrap(), g.backward(from, gradient, input_grad).unwrap()];
    let ran = rig.run(launches, step(batch));
    [to, input_grad].map(|range| ran.rows(range, features, batch))
}

#[test]
fn local_response_normalisation() {
    let mut random = Random(9);
    let mut worst = Worst::default();
    let plain = Response { size: 5, alpha: 0.5, beta: 0.75, k: 1.0 };
    let cases = [
        ([3, 7, 2, 3], plain),
        ([2, 6, 1, 2], Response { size: 4, alpha: 2.0, k: 0.5, ..plain }),
        ([1, 5, 3, 1], Response { size: 1, beta: 0.5, ..plain }),
        ([2, 4, 2, 2], Response { size: 2, beta: 1.0, ..plain }),
        // Wider than there are channels.
        ([19, 3, 1, 2], Response { size: 8, alpha: 4.0, beta: 1.5, ..plain }),
    ];
    for (shape, r) in cases {
        let what = |tensor: &str| format!("{r:?} of {shape:?}: {tensor}");
        let input = Images::random(shape, &mut random);
        let input = Images { values: input.values.iter().map(|x| 2.0 * x).collect(), ..input };
        let output = response_reference(r, &input);
        let upstream = random.units(output.values.len());
        let [got, input_grad] = response(r, &input, &upstream);
        worst.close(&what("output"), &got, &output.values, FUNCTIONS);
        let want = slopes(&input.values, &|x| {
            weighed(&upstream, &response_reference(r, &Images { shape, values: x.to_vec() }))
        });
        worst.close(&what("input"), &input_grad, &want, FUNCTIONS);
    }
    worst.report("local response normalisation");
}

/// Windows of an even size reach further back than ahead: what PyTorch 2 makes of six channels.
#[test]
fn local_response_windows_are_pytorchs() {
    let input = Images { shape: [1, 6, 1, 1], values: vec![-0.5, 1.0, 0.75, -2.0, 0.25, 1.5] };
    let upstream = [1.0, -0.5, 0.25, 2.0, -1.0, 0.5];
    let cases = [
        (
            4,
            [
                -0.28099310932951105,
                0.5486227746234896,
                0.3534676482702316,
                -0.948703272821106,
                0.11369377111549461,
                0.6950204354761246,
            ],
            [
                0.5412575776524009,
                -0.10124209057187505,
                0.23489038135345103,
                0.7294462631633554,
                -0.4258487563280967,
                0.20781342520539065,
            ],
        ),
        (
            5,
            [
                -0.27857421867138116,
                0.4910519593341413,
                0.3676215776891424,
                -0.9270834721232476,
                0.11910463265260535,
                0.7260552568222473,
            ],
            [
                0.5430999518852971,
                -0.11765320906174605,
                0.22343087917071586,
                0.7377467861415944,
                -0.45631840824770853,
                0.3706109265450513,
            ],
        ),
    ];
    for (size, output, gradient) in cases {
        let r = Response { size, alpha: 0.5, beta: 0.75, k: 2.0 };
        let [got, input_grad] = response(r, &input, &upstream);
        let mut worst = Worst::default();
        worst.close(&format!("{size} channels: output"), &got, &output, FUNCTIONS);
        worst.close(&format!("{size} channels: input"), &input_grad, &gradient, FUNCTIONS);
    }
}

#[test]
fn sums() {
    let mut random = Random(10);
    let mut worst = Worst::default();
    let by_value = [Activation::Relu, Activation::Sigmoid, Activation::Tanh, Activation::ScaledTanh];
    let activations = [None].into_iter().chain(by_value.map(Some));
    for (count, activation) in (2..=4).flat_map(|count| activations.clone().map(move |f| (count, f))) {
        let what = |tensor: &str| format!("{activation:?} of {count} terms: {tensor}");
        let (images, features) = (19, 6);
        // A sum near 0 is near the kink of a ReLU.
        let terms: Vec<Vec<f64>> = (0..count).map(|_| random.units(images * features)).collect();
        let near = |i: usize| terms.iter().map(|term| term[i]).sum::<f64>().abs() < 1e-4;
        assert!(!(0..images * features).any(near), "{}", what("too near the kink"));
        let reference = |terms: &[f64]| -> Vec<f64> {
            let sum = |i: usize| terms.iter().skip(i).step_by(images * features).sum::<f64>();
            let f = |x: f64| activation.map_or(x, |activation| activation_reference(activation, x));
            (0..images * features).map(|i| f(sum(i))).collect()
        };
        let upstream = random.units(images * features);
        let mut rig = Rig::default();
        let ranges: Vec<_> = terms.iter().map(|term| rig.images("term", &narrow(term), features)).collect();
        let output = rig.result("output", features, images);
        let gradient = rig.upstream("upstream", &narrow(&upstream), features);
        let mut launches = vec![join::sum(&ranges, activation, output).unwrap()];
        // Without an activation the gradient of the sum is that of its terms.
        let mut term_grad = gradient;
        if let Some(activation) = activation {
            term_grad = rig.result("term_grad", features, images);
            launches.push(join::slope(activation, output, gradient, term_grad).unwrap());
        }
        let ran = rig.run(launches, step(images));
        let all = terms.concat();
        worst.close(&what("output"), &ran.rows(output, features, images), &reference(&all), FUNCTIONS);
        let want = slopes(&all, &|terms| {
            upstream.iter().zip(reference(terms)).map(|(upstream, y)| upstream * y).sum()
        });
        let got = ran.rows(term_grad, features, images);
        for want in want.chunks(images * features) {
            worst.close(&what("a term"), &got, want, FUNCTIONS);
        }
    }
    worst.report("sums");
}

#[test]
fn concatenation() {
    let mut random = Random(11);
    let mut worst = Worst::default();
    // Channels of each part; more than four take two launches.
    for channels in [&[3][..], &[2, 5], &[1, 4, 2], &[3, 1, 2, 2], &[2, 1, 3, 1, 2, 4]] {
        let what = |tensor: &str| format!("{channels:?} channels: {tensor}");
        let (images, [height, width]) = (18, [2, 3]);
        let total: usize = channels.iter().sum();
        let parts: Vec<Images> =
            channels.iter().map(|&c| Images::random([images, c, height, width], &mut random)).collect();
        let reference = |parts: &[Images]| {
            Images::build([images, total, height, width], |n, c, y, x| {
                let mut c = c;
                let mut parts = parts.iter();
                loop {
                    let part = parts.next().expect("a part that has the channel");
                    if c < part.shape[1] {
                        return part.values[part.index(n, c, y, x)];
                    }
                    c -= part.shape[1];
                }
            })
        };
        let output = reference(&parts);
        let upstream = random.units(output.values.len());
        let mut rig = Rig::default();
        let whole = rig.result("output", output.features(), images);
        let gradient = rig.upstream("upstream", &narrow(&upstream), output.features());
        let mut launches = Vec::new();
        let mut offset = 0;
        let mut gradients = Vec::new();
        for parts in parts.chunks(join::MOST) {
            let g = join::Geometry { offset, total: output.features(), batch: images };
            let from: Vec<_> = parts
                .iter()
                .map(|part| join::Part {
                    range: rig.images("part", &narrow(&part.values), part.features()),
                    features: part.features(),
                })
                .collect();
            let to: Vec<_> = parts
                .iter()
                .map(|part| join::Part {
                    range: rig.result("part_grad", part.features(), images),
                    features: part.features(),
                })
                .collect();
            launches.push(g.concat(&from, whole).unwrap());
            launches.push(g.split(gradient, &to).unwrap());
            gradients.extend(to);
            offset += parts.iter().map(Images::features).sum::<usize>();
        }
        let ran = rig.run(launches, step(images));
        let got = ran.rows(whole, output.features(), images);
        worst.close(&what("output"), &got, &output.values, POOLS);
        for (i, part) in parts.iter().enumerate() {
            let want = slopes(&part.values, &|x| {
                let mut moved = parts.clone();
                moved[i].values = x.to_vec();
                weighed(&upstream, &reference(&moved))
            });
            let got = ran.rows(gradients[i].range, part.features(), images);
            worst.close(&what(&format!("part {i}")), &got, &want, POOLS);
        }
    }
    worst.report("concatenation");
}

#[test]
fn activations() {
    let all = [
        Activation::Relu,
        Activation::LeakyRelu(0.0625),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::ScaledTanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Elu(0.75),
        Activation::Softplus,
        Activation::HardSwish,
    ];
    // A new function has to be added above: this match does not compile without it.
    let kinks = |activation: Activation| -> &[f64] {
        match activation {
            Activation::Relu | Activation::LeakyRelu(_) | Activation::Elu(_) => &[0.0],
            Activation::HardSwish => &[-3.0, 3.0],
            Activation::Sigmoid
            | Activation::Tanh
            | Activation::ScaledTanh
            | Activation::Gelu
            | Activation::GeluTanh
            | Activation::Silu
            | Activation::Softplus => &[],
        }
    };
    let mut random = Random(5);
    for activation in all {
        let mut worst = Worst::default();
        let near = |x: f64| kinks(activation).iter().any(|kink| (x - kink).abs() < 1e-4);
        let input: Vec<f64> = random.units(331).iter().map(|x| 6.0 * x).filter(|&x| !near(x)).collect();
        // 6 x is not exact in f32.
        let input: Vec<f64> = input.iter().map(|&x| f64::from(x as f32)).collect();
        let upstream = random.units(input.len());
        let features = input.len();
        let mut rig = Rig::default();
        let from = rig.images("input", &narrow(&input), features);
        let to = rig.result("output", features, 1);
        let gradient = rig.upstream("upstream", &narrow(&upstream), features);
        let input_grad = rig.result("input_grad", features, 1);
        let launches = vec![
            activation.forward(from, to).unwrap(),
            activation.backward(from, gradient, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, step(1));
        let want: Vec<f64> = input.iter().map(|&x| activation_reference(activation, x)).collect();
        worst.close(&format!("{activation:?}: output"), &ran.rows(to, features, 1), &want, FUNCTIONS);
        let want: Vec<f64> = input
            .iter()
            .zip(&upstream)
            .map(|(&x, u)| u * slope(&[x], 0, &|x| activation_reference(activation, x[0])))
            .collect();
        let got = ran.rows(input_grad, features, 1);
        worst.close(&format!("{activation:?}: input"), &got, &want, FUNCTIONS);
        if activation.by_value() {
            let outputs = ran.rows(to, features, 1);
            let by_value =
                outputs.iter().zip(&upstream).map(|(&y, &u)| activation.slope_by_value(y) * u as f32);
            let got: Vec<f32> = by_value.collect();
            worst.close(&format!("{activation:?}: by value"), &got, &want, FUNCTIONS);
        }
        worst.report(&format!("{activation:?}"));
    }
}

#[test]
fn softmax_cross_entropy() {
    let mut random = Random(6);
    let mut worst = Worst::default();
    // Images in the batch, images that it has room for, classes, rows and columns of positions.
    let table =
        [(1, 1, 2, [1, 1]), (5, 7, 3, [1, 1]), (19, 40, 7, [1, 1]), (2, 2, 5, [3, 4]), (18, 20, 3, [5, 1])];
    // Label smoothing, and the penalty of a rubbish class.
    let settings = [(0.0, None), (0.125, None), (0.0, Some(0.5)), (0.0, Some(-2.0))];
    for (count, batch, classes, [height, width]) in table {
        for (smoothing, rubbish) in settings {
            let positions = height * width;
            let what = format!(
                "{count} of {batch} images, {classes} classes at {positions} positions, smoothing {smoothing}, \
                 rubbish {rubbish:?}"
            );
            let shape = [count, classes, height, width];
            let logits = Images::random(shape, &mut random);
            let logits = Images { values: logits.values.iter().map(|z| 4.0 * z).collect(), ..logits };
            let labels: Vec<usize> = (0..count * positions).map(|_| random.index(classes)).collect();
            let features = classes * positions;
            let mut rows = narrow(&logits.values);
            rows.resize(batch * features, 0.5);
            let mut rig = Rig::default();
            let g = loss::Geometry {
                classes,
                positions,
                smoothing: smoothing as f32,
                rubbish: rubbish.map(|j| j as f32),
                batch,
            };
            // The data set holds the batch's images in reverse, an image of no interest before them.
            let order: Vec<u32> = (1..=count as u32).rev().collect();
            let stored = labels.chunks(positions).rev().flatten().map(|&label| label as u8);
            let stored: Vec<u8> = vec![255; positions].into_iter().chain(stored).collect();
            let buffers = loss::Buffers {
                logits: rig.images("logits", &rows, features),
                labels: rig.words("labels", &pack(&stored)),
                order: rig.words("order", &order),
                rows: rig.poisoned("rows", 2 * g.rows()),
            };
            let logits_grad = rig.result("logits_grad", features, batch);
            let probabilities = rig.result("probabilities", features, batch);
            let metrics = rig.poisoned("metrics", loss::RECORD);
            let launches = vec![
                g.cross_entropy_gradient(buffers, logits_grad, metrics).unwrap(),
                g.sum_rows(buffers.rows, metrics).unwrap(),
                g.softmax(buffers.logits, probabilities).unwrap(),
            ];
            let ran = rig.run(launches, step(count));
            let mean = ran.floats(metrics)[0] / (count * positions) as f32;
            let reference = |logits: &Images| loss_reference(logits, &labels, smoothing, rubbish);
            worst.close(&what, &[mean], &[reference(&logits)], LOSSES);
            let want = slopes(&logits.values, &|z| reference(&Images { shape, values: z.to_vec() }));
            worst.close(&what, &ran.rows(logits_grad, features, count), &want, LOSSES);
            // Without the rubbish class, which is no class, whatever the loss.
            let want = Images::build(shape, |n, k, y, x| {
                let z = |k: usize| logits.values[logits.index(n, k, y, x)];
                z(k).exp() / (0..classes).map(|k| z(k).exp()).sum::<f64>()
            });
            worst.close(&what, &ran.rows(probabilities, features, count), &want.values, LOSSES);
            let right = labels.iter().enumerate().filter(|&(row, &label)| {
                let z =
                    |k: usize| logits.values[(row / positions * classes + k) * positions + row % positions];
                (0..classes).all(|k| k == label || z(k) < z(label))
            });
            let record = [right.count() as u32, (count * positions) as u32, 0];
            assert_eq!(ran.words(metrics)[1..], record, "{what}: rows right, rows, flags");
        }
    }
    worst.report("softmax with cross-entropy");
}

#[test]
fn normalisation() {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    // Images, channels, rows, columns; images that the batch has room for; activation; invocations that fill the
    // device; by how much the second channel's mean is moved.
    let cases = [
        ([3, 2, 4, 5], 3, None, 256, 0.0),
        ([5, 3, 1, 1], 7, Some(Relu), 256, 0.5),
        ([1, 1, 3, 2], 1, Some(Tanh), 256, 0.0),
        // More than one block, several partial sums, the last block ragged or empty.
        ([19, 2, 3, 3], 20, Some(Sigmoid), 4096, 2.0),
        ([9, 1, 5, 8], 40, Some(ScaledTanh), 4096, 0.0),
        ([37, 4, 1, 1], 37, None, 4096, 8.0),
        ([18, 3, 2, 2], 18, Some(Relu), 4096, 0.0),
    ];
    let mut random = Random(7);
    let mut worst = Worst::default();
    for (shape, batch, activation, fill, far) in cases {
        for kind in [norm::Kind::Batch, norm::Kind::Running, norm::Kind::Affine] {
            let [count, channels, height, width] = shape;
            let positions = height * width;
            let (epsilon, momentum) = (0.0625, 0.25);
            let g = norm::Geometry { channels, positions, kind, epsilon, momentum, activation, batch, fill };
            let what = |tensor: &str| format!("{g:?}, {count} images: {tensor}");
            let input = Images::random(shape, &mut random);
            let input = Images::build(shape, |n, c, y, x| {
                input.values[input.index(n, c, y, x)] + if c == 1 { far } else { 0.0 }
            });
            // Moved and back in f32.
            let input =
                Images { values: narrow(&input.values).into_iter().map(f64::from).collect(), ..input };
            let (weight, bias, mean) =
                (random.units(channels), random.units(channels), random.units(channels));
            let variance: Vec<f64> = random.units(channels).iter().map(|v| v.abs() + 0.25).collect();
            let running = [&mean[..], &variance[..]];
            let reference = |input: &Images, weight: &[f64], bias: &[f64]| {
                norm_reference(&g, input, [weight, bias], running)
            };
            let output = reference(&input, &weight, &bias);
            if activation == Some(Relu) {
                let plain = norm::Geometry { activation: None, ..g };
                let before = norm_reference(&plain, &input, [&weight, &bias], running);
                // A difference of 1e-6 moves a value before the kink by less than 4e-6: 1 / √ε is 4.
                assert!(before.values.iter().all(|z| z.abs() > CLEARANCE), "{}", what("near a kink"));
            }
            let upstream = random.units(output.values.len());

            let features = input.features();
            // Images that are not there, as anything finite.
            let with_rest = |values: &[f64], rest: f32| {
                let mut rows = narrow(values);
                rows.resize(batch * features, rest);
                rows
            };
            let mut rig = Rig::default();
            let saved = rig.poisoned("saved", g.saved());
            let buffers = norm::Buffers {
                input: rig.images("input", &with_rest(&input.values, -7.5), features),
                weight: rig.parameter("weight", &narrow(&weight)),
                bias: rig.parameter("bias", &narrow(&bias)),
                running_mean: rig.parameter("running mean", &narrow(&mean)),
                running_variance: rig.parameter("running variance", &narrow(&variance)),
                saved,
                output: rig.result("output", features, batch),
            };
            let gradients = norm::Gradients {
                output: rig.upstream("upstream", &with_rest(&upstream, 0.0), features),
                weight: rig.poisoned("weight_grad", g.splits() * padded(channels)),
                bias: rig.poisoned("bias_grad", g.splits() * padded(channels)),
            };
            let input_grad = rig.result("input_grad", features, batch);
            let mut launches = g.statistics(buffers).unwrap();
            launches.push(g.forward(buffers).unwrap());
            launches.push(g.weight_gradient(buffers, gradients).unwrap());
            launches.push(g.input_gradient(buffers, gradients, input_grad).unwrap());
            let ran = rig.run(launches, step(count));

            let got = ran.rows(buffers.output, features, batch);
            worst.close(&what("output"), &got[..count * features], &output.values, SUMS);
            assert!(got[count * features..].iter().all(|&y| y == 0.0), "{}", what("output of nobody"));
            let want = slopes(&input.values, &|x| {
                weighed(&upstream, &reference(&Images { shape, values: x.to_vec() }, &weight, &bias))
            });
            let got = ran.rows(input_grad, features, batch);
            worst.close(&what("input"), &got[..count * features], &want, SUMS);
            assert!(got[count * features..].iter().all(|&g| g == 0.0), "{}", what("gradient of nobody"));
            let want = slopes(&weight, &|w| weighed(&upstream, &reference(&input, w, &bias)));
            worst.close(&what("weight"), &ran.summed(gradients.weight, channels, g.splits()), &want, SUMS);
            let want = slopes(&bias, &|b| weighed(&upstream, &reference(&input, &weight, b)));
            worst.close(&what("bias"), &ran.summed(gradients.bias, channels, g.splits()), &want, SUMS);

            let elements = (count * positions) as f64;
            let averages = |old: &[f64], of: fn((f64, f64), f64) -> f64| -> Vec<f64> {
                if kind != norm::Kind::Batch {
                    return old.to_vec();
                }
                let new = |c: usize| of(moments_reference(&input, c), elements);
                old.iter().enumerate().map(|(c, old)| 0.75 * old + 0.25 * new(c)).collect()
            };
            let got = ran.floats(buffers.running_mean);
            worst.close(&what("running mean"), &got[..channels], &averages(&mean, |of, _| of.0), SUMS);
            let got = ran.floats(buffers.running_variance);
            let unbiased = |of: (f64, f64), n: f64| of.1 * n / (n - 1.0);
            worst.close(&what("running variance"), &got[..channels], &averages(&variance, unbiased), SUMS);
        }
    }
    worst.report("normalisation");
}

#[test]
fn dropping_out() {
    let mut random = Random(8);
    let mut worst = Worst::default();
    for (images, features, rate) in [(1, 1, 0.5), (3, 17, 0.25), (35, 6, 0.75), (2, 300, 0.125)] {
        let g = dropout::Geometry { features, rate, layer: 3, batch: images };
        let input = random.units(images * features);
        let upstream = random.units(images * features);
        let mut rig = Rig::default();
        let ones = rig.images("ones", &vec![1.0; images * features], features);
        let mask = rig.result("mask", features, images);
        let from = rig.images("input", &narrow(&input), features);
        let to = rig.result("output", features, images);
        let gradient = rig.upstream("upstream", &narrow(&upstream), features);
        let input_grad = rig.result("input_grad", features, images);
        let launches = vec![
            g.forward(ones, mask).unwrap(),
            g.forward(from, to).unwrap(),
            g.backward(gradient, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, Step { seed: 99, ..step(images) });
        // Which elements are kept is whatever the step drew; what becomes of them is the formula's.
        let kept: Vec<bool> = ran.rows(mask, features, images).iter().map(|&y| y != 0.0).collect();
        assert!(kept.len() < 20 || kept.contains(&true) && kept.contains(&false));
        let reference = |x: &[f64]| {
            let kept =
                x.iter().zip(&kept).map(|(x, &kept)| if kept { x / (1.0 - f64::from(rate)) } else { 0.0 });
            Images { shape: [images, features, 1, 1], values: kept.collect() }
        };
        let what = |tensor: &str| format!("{g:?}: {tensor}");
        worst.close(&what("output"), &ran.rows(to, features, images), &reference(&input).values, POOLS);
        let want = slopes(&input, &|x| weighed(&upstream, &reference(x)));
        worst.close(&what("input"), &ran.rows(input_grad, features, images), &want, POOLS);
    }
    worst.report("dropout");
}

#[test]
fn radial_basis_units() {
    // Images, inputs, outputs.
    let cases = [(1, 1, 1), (3, 17, 5), (2, 8, 7), (35, 6, 11)];
    let mut random = Random(9);
    let mut worst = Worst::default();
    for (images, inputs, outputs) in cases {
        let what = |tensor: &str| format!("{inputs} to {outputs}, {images} images: {tensor}");
        let shape = [images, inputs, 1, 1];
        let input = Images::random(shape, &mut random);
        let weight = random.units(inputs * outputs);
        let output = rbf_reference(outputs, &input, &weight);
        let upstream = random.units(output.values.len());

        let g = rbf::Geometry { inputs, outputs, batch: images, fill: 4096 };
        assert!(images <= LANES || g.splits() > 1, "{}", what("there is one partial sum only"));
        let mut rig = Rig::default();
        let buffers = rbf::Buffers {
            input: rig.images("input", &narrow(&input.values), inputs),
            weight: rig.parameter("weight", &narrow(&weight)),
            output: rig.result("output", outputs, images),
        };
        let output_grad = rig.upstream("upstream", &narrow(&upstream), outputs);
        let weight_grad = rig.poisoned("weight_grad", g.splits() * padded(g.weights()));
        let input_grad = rig.result("input_grad", inputs, images);
        let launches = vec![
            g.forward(buffers).unwrap(),
            g.weight_gradient(buffers, output_grad, weight_grad).unwrap(),
            g.input_gradient(buffers, output_grad, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, step(images));

        let got = ran.rows(buffers.output, outputs, images);
        worst.close(&what("output"), &got, &output.values, SUMS);
        let want = slopes(&input.values, &|x| {
            let moved = Images { shape, values: x.to_vec() };
            weighed(&upstream, &rbf_reference(outputs, &moved, &weight))
        });
        worst.close(&what("input"), &ran.rows(input_grad, inputs, images), &want, SUMS);
        let want = slopes(&weight, &|w| weighed(&upstream, &rbf_reference(outputs, &input, w)));
        worst.close(&what("weight"), &ran.summed(weight_grad, weight.len(), g.splits()), &want, SUMS);
    }
    worst.report("radial basis units");
}

// ---- All of them in the middle of a network ----

const NETWORK: &str = r#"
name = "a bit of everything"
input = { channels = 2, height = 11, width = 9, pad = 1, mean = 0.25, deviation = 0.5 }
layers = [
    { conv2d = { channels = 6, kernel = [3, 2] } },
    "tanh",
    { average_pool2d = { kernel = [2, 3], stride = 2, padding = 1, count_padding = false } },
    { conv2d = { channels = 9, kernel = 3, stride = [1, 2], padding = [2, 1], groups = 3, bias = false } },
    "relu",
    { max_pool2d = { kernel = 3, stride = 2, padding = 1 } },
    "flatten",
    { linear = { outputs = 11 } },
    "silu",
    { linear = { outputs = 4 } },
]
"#;

/// The layers that a plan fuses: 5×5 filters, an activation, 2×2 pooling; linear layers with an activation.
const FUSED: &str = r#"
name = "what can be fused"
input = { channels = 3, height = 12, width = 16, pad = 2, mean = 0.25, deviation = 0.5 }
layers = [
    { conv2d = { channels = 5, kernel = 5 } },
    "relu",
    { max_pool2d = { kernel = 2 } },
    { conv2d = { channels = 7, kernel = [3, 4] } },
    "sigmoid",
    { average_pool2d = { kernel = 2 } },
    "flatten",
    { linear = { outputs = 9 } },
    "scaled_tanh",
    { linear = { outputs = 11 } },
    "relu",
    { linear = { outputs = 4 } },
]
"#;

/// Layers in layers: sums with an activation and without, five branches of which one is the input itself, values with
/// several readers, normalisations, a connection table, dropout.
const FAMILY: &str = r#"
name = "the family"
input = { channels = 2, height = 8, width = 9, pad = 1, mean = 0.25, deviation = 0.5 }
layers = [
    { conv2d = { channels = 6, kernel = 3, padding = "same" } },
    { batch_norm = {} },
    "tanh",
    { residual = { body = [
        { conv2d = { channels = 6, kernel = 3, padding = "same", bias = false } },
        { batch_norm = { epsilon = 1e-2 } },
        "sigmoid",
        { conv2d = { channels = 6, kernel = [1, 3], padding = [0, 1], groups = 6 } },
    ] } },
    "tanh",
    { local_response_norm = { size = 3, alpha = 0.5, k = 2.0 } },
    { branches = [
        [],
        [{ conv2d = { channels = 4, kernel = 1 } }, "tanh"],
        [{ average_pool2d = { kernel = 3, stride = 1, padding = 1 } }, { conv2d = { channels = 3, kernel = 1 } }],
        [{ residual = { body = [{ conv2d = { channels = 6, kernel = 3, padding = "same" } }], shortcut = [] } }],
        [{ conv2d = { channels = 2, kernel = 3, padding = "same" } }, "silu"],
    ] },
    { scale = {} },
    "scaled_tanh",
    { residual = { body = [
        { conv2d = { channels = 5, kernel = 3, stride = 2, padding = 1 } },
    ], shortcut = [
        { conv2d = { channels = 5, kernel = 1, stride = 2 } },
    ] } },
    { upsample = 2 },
    { adaptive_average_pool2d = [4, 5] },
    { conv2d = { channels = 4, kernel = 2, connections = [[0, 1, 4], [2], [0, 3], [1, 2, 3, 4]] } },
    "tanh",
    "flatten",
    { dropout = 0.25 },
    { linear = { outputs = 12 } },
    { batch_norm = { epsilon = 1e-2 } },
    "tanh",
    { dropout = 0.25 },
    { linear = { outputs = 4 } },
]
"#;

/// A series, codes that are learned, and the criterion of 1998; the layers that LeNet-5 fuses among them.
const SERIES: &str = r#"
name = "a series"
loss = { map = { rubbish = 1.5 } }
input = { channels = 3, height = 1, width = 40, mean = 0.25, deviation = 0.5 }
layers = [
    { conv1d = { channels = 5, kernel = 5, padding = "same" } },
    "tanh",
    { max_pool1d = { kernel = 2 } },
    { conv1d = { channels = 6, kernel = 3, stride = 2, dilation = 2 } },
    "scaled_tanh",
    { average_pool1d = { kernel = 3, stride = 1, padding = 1 } },
    "flatten",
    { linear = { outputs = 8 } },
    "tanh",
    { rbf = { outputs = 4, trainable = true } },
]
"#;

/// A label for every pixel.
const PIXELS: &str = r#"
name = "pixels"
input = { channels = 1, height = 8, width = 6, mean = 0.25, deviation = 0.5 }
layers = [
    { conv2d = { channels = 4, kernel = 3, padding = "same" } },
    "tanh",
    { branches = [
        [],
        [
            { average_pool2d = { kernel = 2 } },
            { conv2d = { channels = 5, kernel = 3, padding = "same" } },
            "tanh",
            { upsample = 2 },
        ],
    ] },
    { conv2d = { channels = 3, kernel = 1 } },
]
"#;

/// Central differences move no value before a kink by more than 4e-6 (a pixel of 1.5, nine taps of at most 1/3),
/// and f32 is less than 1e-6 away from f64: so far from a kink, all of them stay on one side of it.
const CLEARANCE: f64 = 1e-5;

/// Slopes of the mean loss are 1e-3 to 0.3; f32 rounds on each of ten layers.
const SLOPES: Tolerance = Tolerance { absolute: 2e-8, relative: 2e-6 };

/// Twenty layers deep, where normalisations multiply a rounding by up to ten.
const DEEP_SLOPES: Tolerance = Tolerance { absolute: 3e-7, relative: 1e-5 };

/// The reference network.
struct Reference<'a> {
    tensors: std::slice::Iter<'a, Vec<f64>>,
    /// What each dropout multiplies by.
    masks: std::slice::Iter<'a, Images>,
    /// How near its values came to a kink.
    clearance: f64,
}

impl Reference<'_> {
    /// The mean loss, and the clearance.
    fn run(
        network: &Network,
        images: &Images,
        labels: &[usize],
        smoothing: f64,
        tensors: &[Vec<f64>],
        masks: &[Images],
    ) -> (f64, f64) {
        let mut reference =
            Reference { tensors: tensors.iter(), masks: masks.iter(), clearance: f64::INFINITY };
        let value = reference.sequence(&network.layers, images.clone());
        assert!(reference.tensors.next().is_none(), "a tensor was not used");
        let rubbish = network.loss.rubbish().map(f64::from);
        (loss_reference(&value, labels, smoothing, rubbish), reference.clearance)
    }

    fn sequence(&mut self, layers: &[Layer], mut value: Images) -> Images {
        for layer in layers {
            value = self.layer(layer, value);
        }
        value
    }

    fn next(&mut self) -> &[f64] {
        self.tensors.next().expect("as many tensors as the layers have")
    }

    fn conv(&mut self, c: &Conv2d, value: &Images) -> Images {
        let k = Conv {
            out: c.channels,
            kernel: c.kernel.0,
            stride: c.stride.0,
            pad: c.pad(),
            dilation: c.dilation.0,
            groups: c.groups,
        };
        let weight = self.next().to_vec();
        conv_reference(k, value, &weight, if c.bias { self.next() } else { &[] })
    }

    fn norm(&mut self, value: &Images, kind: norm::Kind, epsilon: f32) -> Images {
        let g = norm::Geometry {
            channels: value.shape[1],
            positions: value.shape[2] * value.shape[3],
            kind,
            epsilon,
            momentum: 0.0,
            activation: None,
            batch: value.shape[0],
            fill: 1,
        };
        let (weight, bias) = (self.next().to_vec(), self.next().to_vec());
        if kind == norm::Kind::Batch {
            // The running statistics; training looks at the batch's.
            self.next();
            self.next();
        }
        norm_reference(&g, value, [&weight, &bias], [&[], &[]])
    }

    fn max_pool(&mut self, k: Pool, value: &Images) -> Images {
        let output = max_reference(k, value);
        let [images, channels, height, width] = output.shape;
        for n in 0..images {
            for c in 0..channels {
                for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                    let window = k.window(y, x).filter_map(|(y, x)| value.at(n, c, y, x));
                    let mut values: Vec<f64> = window.collect();
                    values.sort_by(|a, b| b.total_cmp(a));
                    // Zeros are what ReLU cut off: nothing passes there, whichever wins.
                    if values.len() > 1 && values[0] != 0.0 {
                        self.clearance = self.clearance.min(values[0] - values[1]);
                    }
                }
            }
        }
        output
    }

    fn layer(&mut self, layer: &Layer, value: Images) -> Images {
        let pool = |p: &Pool2d| Pool {
            kernel: p.kernel.0,
            stride: p.stride.unwrap_or(p.kernel).0,
            pad: p.padding.0,
            ceil: p.ceil,
            count_pad: p.count_padding,
        };
        match layer {
            Layer::Conv2d(c) => self.conv(c, &value),
            Layer::Conv1d(c) => self.conv(&c.two_dimensional(), &value),
            Layer::Linear(l) => {
                let weight = self.next().to_vec();
                linear_reference(l.outputs, &value, &weight, if l.bias { self.next() } else { &[] })
            }
            Layer::Rbf(r) => rbf_reference(r.outputs, &value, self.next()),
            Layer::AveragePool2d(p) => average_reference(pool(p), &value),
            Layer::AveragePool1d(p) => average_reference(pool(&p.two_dimensional()), &value),
            Layer::MaxPool2d(p) => self.max_pool(pool(p), &value),
            Layer::MaxPool1d(p) => self.max_pool(pool(&p.two_dimensional()), &value),
            Layer::AdaptiveAveragePool2d(size) => adaptive_reference(size.0, &value),
            Layer::GlobalAveragePool => adaptive_reference([1, 1], &value),
            Layer::Upsample(factor) => upsample_reference([*factor; 2], &value),
            Layer::BatchNorm(n) => self.norm(&value, norm::Kind::Batch, n.epsilon),
            Layer::Scale(_) => self.norm(&value, norm::Kind::Affine, 0.0),
            Layer::LocalResponseNorm(n) => {
                let [alpha, beta, k] = [n.alpha, n.beta, n.k].map(f64::from);
                response_reference(Response { size: n.size, alpha, beta, k }, &value)
            }
            Layer::Dropout(_) => {
                let mask = self.masks.next().expect("as many masks as dropouts");
                let values = value.values.iter().zip(&mask.values).map(|(x, m)| x * m).collect();
                Images { values, ..value }
            }
            Layer::Residual(r) => {
                let mut body = self.sequence(&r.body, value.clone());
                let shortcut = self.sequence(&r.shortcut, value);
                body.values.iter_mut().zip(&shortcut.values).for_each(|(sum, term)| *sum += term);
                body
            }
            Layer::Branches(branches) => {
                let ends: Vec<Images> =
                    branches.iter().map(|branch| self.sequence(branch, value.clone())).collect();
                let [images, _, height, width] = ends[0].shape;
                let channels = ends.iter().map(|end| end.shape[1]).sum();
                let all = (0..images).flat_map(|n| {
                    ends.iter().flat_map(move |end| &end.values[n * end.features()..][..end.features()])
                });
                Images { shape: [images, channels, height, width], values: all.copied().collect() }
            }
            Layer::Activation(activation) => {
                if *activation == Activation::Relu {
                    let nearest = value.values.iter().fold(f64::INFINITY, |near, x| near.min(x.abs()));
                    self.clearance = self.clearance.min(nearest);
                }
                let values = value.values.iter().map(|&x| activation_reference(*activation, x)).collect();
                Images { values, ..value }
            }
            Layer::Flatten => {
                let shape = [value.shape[0], value.features(), 1, 1];
                Images { shape, ..value }
            }
        }
    }
}

/// Gradients of parameters of every tensor, after one training step on `count` images of a batch with room for
/// `batch`, taken from the middle of a shuffled data set.
fn check_network(text: &str, batch: usize, count: usize, seed: u64, slopes: Tolerance) {
    let network = Network::parse(text).unwrap();
    let smoothing = if network.loss.rubbish().is_some() { 0.0 } else { 0.125 };
    let (cursor, stored) = (3, count + 5);
    let options = Options {
        batch,
        smoothing: smoothing as f32,
        train_images: stored,
        // Enough that every gradient is several partial sums where there are several blocks.
        fill: 1 << 14,
        ..Options::default()
    };
    let mut random = Random(seed);
    let input = network.input;
    let pixels = input.channels * input.height * input.width;
    let output = network.output().unwrap();
    let (classes, positions) = (output.channels, output.height * output.width);
    let bytes: Vec<u8> = (0..stored * pixels).map(|_| random.index(256) as u8).collect();
    let labels: Vec<usize> = (0..stored * positions).map(|_| random.index(classes)).collect();
    let order = random.order(stored);
    let parameters = network.initial(seed).unwrap();

    let taken = &order[cursor..cursor + count];
    let (mean, deviation) = (f64::from(input.mean), f64::from(input.deviation));
    let padded_shape = [count, input.channels, input.height + 2 * input.pad, input.width + 2 * input.pad];
    let images = Images::build(padded_shape, |n, c, y, x| {
        let inside = (input.pad..input.pad + input.height).contains(&y)
            && (input.pad..input.pad + input.width).contains(&x);
        let at = || (c * input.height + y - input.pad) * input.width + x - input.pad;
        let byte = if inside { bytes[taken[n] * pixels + at()] } else { 0 };
        (f64::from(byte) / 255.0 - mean) / deviation
    });
    let own_labels: Vec<usize> =
        taken.iter().flat_map(|&image| labels[image * positions..][..positions].iter().copied()).collect();

    let step = Step {
        cursor: cursor as u32,
        count: count as u32,
        slot: 2,
        seed: 99,
        learning_rate: 1e-3,
        correction1: 1.0,
        correction2: 1.0,
        ..Step::default()
    };
    let run = |options: &Options| {
        let plan = Plan::new(&network, options).unwrap();
        let mut backend = Backend::cpu(&plan.program);
        let u32s = |values: &[usize]| values.iter().map(|&value| value as u32).collect::<Vec<_>>();
        backend.write(plan.train_data.images, &pack(&bytes)).unwrap();
        let label_bytes: Vec<u8> = labels.iter().map(|&label| label as u8).collect();
        backend.write(plan.train_data.labels, &pack(&label_bytes)).unwrap();
        backend.write(plan.train_data.order, &u32s(&order)).unwrap();
        let flat = plan.join(parameters.iter().map(Vec::as_slice)).unwrap();
        let flat: Vec<u32> = flat.iter().map(|value| value.to_bits()).collect();
        backend.write(plan.parameters, &flat).unwrap();
        backend.run(Phase::Train, &[step]).unwrap();
        (plan, backend)
    };
    let floats = |words: Vec<u32>| words.into_iter().map(f32::from_bits).collect::<Vec<f32>>();
    let (plan, mut backend) = run(&options);
    let words = block_on(backend.read(plan.gradients)).unwrap();
    let metrics = block_on(backend.read(plan.metrics)).unwrap();
    let (apart, mut kept) = run(&Options { reuse: false, ..options.clone() });
    let again = block_on(kept.read(apart.gradients)).unwrap();
    assert_eq!(words, again, "buffers that share memory change the result");
    let gradients = floats(words);
    let dropouts: Vec<_> =
        apart.activations.iter().filter(|(name, ..)| name.starts_with("dropout")).collect();
    let masks: Vec<Images> = dropouts
        .into_iter()
        .map(|&(_, range, _)| {
            let values = floats(block_on(kept.read(range)).unwrap());
            let features = values.len() / (batch.div_ceil(LANES) * LANES);
            let rows = unblock(&values, features, count);
            assert!(rows.contains(&0.0), "a dropout leaves nothing out");
            // The rate of every dropout here is 1/4.
            let values = rows.iter().map(|&y| if y == 0.0 { 0.0 } else { 1.0 / 0.75 }).collect();
            Images { shape: [count, features, 1, 1], values }
        })
        .collect();

    let tensors: Vec<Vec<f64>> =
        parameters.iter().map(|values| values.iter().map(|&value| f64::from(value)).collect()).collect();
    let reference =
        |tensors: &[Vec<f64>]| Reference::run(&network, &images, &own_labels, smoothing, tensors, &masks);
    let (loss, clearance) = reference(&tensors);
    assert!(clearance > CLEARANCE, "seed {seed} comes within {clearance:e} of a kink: take another");
    let mut worst = Worst::default();
    let record = &metrics[2 * loss::RECORD..][..loss::RECORD];
    let rows = count * positions;
    assert_eq!(record[2..], [rows as u32, 0]);
    worst.close("loss", &[f32::from_bits(record[0]) / rows as f32], &[loss], LOSSES);

    // A reference of many layers is slow.
    let tried = if tensors.len() > 20 { 3 } else { 10 };
    for (t, (parameter, got)) in plan.split_gradients(&gradients).enumerate() {
        if !parameter.learned {
            continue;
        }
        let mut moved = tensors.clone();
        for i in random.order(parameter.len()).into_iter().take(tried) {
            let connected = parameter.mask.as_ref().is_none_or(|mask| mask[i * mask.len() / parameter.len()]);
            if !connected {
                assert_eq!(got[i], 0.0, "{}[{i}] is not connected", parameter.name);
                continue;
            }
            let mut at = |value: f64| {
                moved[t][i] = value;
                reference(&moved).0
            };
            let value = tensors[t][i];
            let want = (at(value + EPSILON) - at(value - EPSILON)) / (2.0 * EPSILON);
            at(value);
            worst.close(&format!("{}[{i}]", parameter.name), &got[i..=i], &[want], slopes);
        }
    }
    worst.report(&format!("{}, {count} of {batch} images", network.name));
    if batch > LANES {
        let partials = plan.tensors.iter().filter(|tensor| tensor.partials > 1).count();
        assert!(partials > 1, "every gradient is one partial sum");
    }
}

#[test]
fn a_network_with_a_ragged_batch() {
    check_network(NETWORK, 7, 5, 1, SLOPES);
}

#[test]
fn a_network_with_partial_sums() {
    check_network(NETWORK, 50, 37, 7, SLOPES);
}

#[test]
fn a_fused_network_with_a_ragged_batch() {
    check_network(FUSED, 7, 5, 1, SLOPES);
}

#[test]
fn a_fused_network_with_partial_sums() {
    check_network(FUSED, 50, 20, 1, SLOPES);
}

#[test]
fn the_family_with_a_ragged_batch() {
    check_network(FAMILY, 7, 5, 1, DEEP_SLOPES);
}

#[test]
fn the_family_with_partial_sums() {
    check_network(FAMILY, 50, 20, 2, DEEP_SLOPES);
}

#[test]
fn a_series_with_codes() {
    check_network(SERIES, 7, 5, 1, DEEP_SLOPES);
    check_network(SERIES, 50, 20, 1, DEEP_SLOPES);
}

#[test]
fn a_label_for_every_pixel() {
    check_network(PIXELS, 7, 5, 1, SLOPES);
    check_network(PIXELS, 40, 19, 1, SLOPES);
}
