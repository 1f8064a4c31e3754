//! Proves that the CPU twins' gradients are the slopes of plain f64 formulas, by central differences: every
//! backward entry by itself, and all of them in the middle of a network.

mod common;

use common::{Random, Rig, Tolerance, Worst, narrow};
use lenet::Network;
use lenet::backend::Backend;
use lenet::kernels::activation::Activation;
use lenet::kernels::{CHUNK, LANES, Step, blocks, conv2d, linear, loss, padded, pool2d};
use lenet::network::Layer;
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

/// The mean over the images of −Σ q log p.
fn loss_reference(logits: &Images, labels: &[usize], smoothing: f64) -> f64 {
    let classes = logits.features();
    let one = |(z, &label): (&[f64], &usize)| {
        let log_sum = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        let target = |k: usize| smoothing / classes as f64 + if k == label { 1.0 - smoothing } else { 0.0 };
        (0..classes).map(|k| target(k) * (log_sum - z[k])).sum::<f64>()
    };
    logits.values.chunks_exact(classes).zip(labels).map(one).sum::<f64>() / labels.len() as f64
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
    // Images in the batch, images that it has room for, classes.
    for (count, batch, classes) in [(1, 1, 2), (5, 7, 3), (19, 40, 7)] {
        for smoothing in [0.0, 0.125] {
            let what = format!("{count} of {batch} images, {classes} classes, smoothing {smoothing}");
            let shape = [count, classes, 1, 1];
            let logits = Images { shape, values: random.units(count * classes) };
            let logits = Images { values: logits.values.iter().map(|z| 4.0 * z).collect(), ..logits };
            let labels: Vec<usize> = (0..count).map(|_| random.index(classes)).collect();
            let mut rows = narrow(&logits.values);
            rows.resize(batch * classes, 0.5);
            let mut rig = Rig::default();
            let g = loss::Geometry { classes, smoothing: smoothing as f32, batch };
            let words: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
            let order: Vec<u32> = (0..count as u32).collect();
            let buffers = loss::Buffers {
                logits: rig.images("logits", &rows, classes),
                labels: rig.words("labels", &words),
                order: rig.words("order", &order),
                rows: rig.poisoned("rows", 2 * blocks(batch) * LANES),
            };
            let logits_grad = rig.result("logits_grad", classes, batch);
            let metrics = rig.poisoned("metrics", loss::RECORD);
            let launches = vec![
                g.cross_entropy_gradient(buffers, logits_grad, metrics).unwrap(),
                g.sum_rows(buffers.rows, metrics).unwrap(),
            ];
            let ran = rig.run(launches, step(count));
            let mean = ran.floats(metrics)[0] / count as f32;
            worst.close(&what, &[mean], &[loss_reference(&logits, &labels, smoothing)], LOSSES);
            let want = slopes(&logits.values, &|z| {
                loss_reference(&Images { shape, values: z.to_vec() }, &labels, smoothing)
            });
            worst.close(&what, &ran.rows(logits_grad, classes, count), &want, LOSSES);
        }
    }
    worst.report("softmax with cross-entropy");
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

/// Central differences move no value before a kink by more than 4e-6 (a pixel of 1.5, nine taps of at most 1/3),
/// and f32 is less than 1e-6 away from f64: so far from a kink, all of them stay on one side of it.
const CLEARANCE: f64 = 1e-5;

/// Slopes of the mean loss are 1e-3 to 0.3; f32 rounds on each of ten layers.
const SLOPES: Tolerance = Tolerance { absolute: 2e-8, relative: 2e-6 };

/// The reference network: the mean loss, and how near its values come to a kink.
fn network_reference(
    network: &Network,
    images: &Images,
    labels: &[usize],
    smoothing: f64,
    tensors: &[Vec<f64>],
) -> (f64, f64) {
    let mut clearance = f64::INFINITY;
    let mut tensors = tensors.iter();
    let mut next = || tensors.next().expect("as many tensors as the layers have");
    let mut value = images.clone();
    for layer in &network.layers {
        let pool = |p: &lenet::network::Pool2d| Pool {
            kernel: p.kernel.0,
            stride: p.stride.unwrap_or(p.kernel).0,
            pad: p.padding.0,
            ceil: p.ceil,
            count_pad: p.count_padding,
        };
        value = match layer {
            Layer::Conv2d(c) => {
                let k = Conv {
                    out: c.channels,
                    kernel: c.kernel.0,
                    stride: c.stride.0,
                    pad: c.padding.0,
                    dilation: c.dilation.0,
                    groups: c.groups,
                };
                let weight = next();
                conv_reference(k, &value, weight, if c.bias { next() } else { &[] })
            }
            Layer::Linear(l) => {
                let weight = next();
                linear_reference(l.outputs, &value, weight, if l.bias { next() } else { &[] })
            }
            Layer::AveragePool2d(p) => average_reference(pool(p), &value),
            Layer::MaxPool2d(p) => {
                let k = pool(p);
                let output = max_reference(k, &value);
                let [images, channels, height, width] = output.shape;
                for n in 0..images {
                    for c in 0..channels {
                        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                            let window = k.window(y, x).filter_map(|(y, x)| value.at(n, c, y, x));
                            let mut values: Vec<f64> = window.collect();
                            values.sort_by(|a, b| b.total_cmp(a));
                            // Zeros are what ReLU cut off: nothing passes there, whichever wins.
                            if values.len() > 1 && values[0] > 0.0 {
                                clearance = clearance.min(values[0] - values[1]);
                            }
                        }
                    }
                }
                output
            }
            Layer::Activation(activation) => {
                if *activation == Activation::Relu {
                    let nearest = value.values.iter().fold(f64::INFINITY, |near, x| near.min(x.abs()));
                    clearance = clearance.min(nearest);
                }
                let values = value.values.iter().map(|&x| activation_reference(*activation, x)).collect();
                Images { values, ..value }
            }
            Layer::Flatten => {
                let shape = [value.shape[0], value.features(), 1, 1];
                Images { shape, ..value }
            }
            #[allow(unreachable_patterns)]
            other => panic!("the reference has no {other:?}"),
        };
    }
    (loss_reference(&value, labels, smoothing), clearance)
}

/// Gradients of parameters of every tensor, after one training step on `count` images of a batch with room for
/// `batch`, taken from the middle of a shuffled data set.
fn check_network(text: &str, batch: usize, count: usize, seed: u64) {
    let network = Network::parse(text).unwrap();
    let smoothing = 0.125;
    let (cursor, stored) = (3, count + 5);
    let options = Options {
        batch,
        smoothing: smoothing as f32,
        train_images: stored, // Enough that every gradient is several partial sums where there are several blocks.
        fill: 1 << 14,
        ..Options::default()
    };
    let plan = Plan::new(&network, &options).unwrap();
    let mut backend = Backend::cpu(&plan.program);
    let mut random = Random(seed);
    let input = network.input;
    let pixels = input.channels * input.height * input.width;
    let mut bytes: Vec<u8> = (0..stored * pixels).map(|_| random.index(256) as u8).collect();
    let labels: Vec<usize> = (0..stored).map(|_| random.index(4)).collect();
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
    let own_labels: Vec<usize> = taken.iter().map(|&image| labels[image]).collect();

    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let words: Vec<u32> = bytes.as_chunks().0.iter().map(|&word| u32::from_ne_bytes(word)).collect();
    let u32s = |values: &[usize]| values.iter().map(|&value| value as u32).collect::<Vec<_>>();
    backend.write(plan.train_data.images, &words).unwrap();
    backend.write(plan.train_data.labels, &u32s(&labels)).unwrap();
    backend.write(plan.train_data.order, &u32s(&order)).unwrap();
    let flat = plan.join(parameters.iter().map(Vec::as_slice)).unwrap();
    let flat: Vec<u32> = flat.iter().map(|value| value.to_bits()).collect();
    backend.write(plan.parameters, &flat).unwrap();
    let step = Step {
        cursor: cursor as u32,
        count: count as u32,
        slot: 2,
        learning_rate: 1e-3,
        correction1: 1.0,
        correction2: 1.0,
        ..Step::default()
    };
    backend.run(Phase::Train, &[step]).unwrap();
    let floats = |words: Vec<u32>| words.into_iter().map(f32::from_bits).collect::<Vec<f32>>();
    let gradients = floats(block_on(backend.read(plan.gradients)).unwrap());
    let metrics = block_on(backend.read(plan.metrics)).unwrap();

    let tensors: Vec<Vec<f64>> =
        parameters.iter().map(|values| values.iter().map(|&value| f64::from(value)).collect()).collect();
    let (loss, clearance) = network_reference(&network, &images, &own_labels, smoothing, &tensors);
    assert!(clearance > CLEARANCE, "seed {seed} comes within {clearance:e} of a kink: take another");
    let mut worst = Worst::default();
    let record = &metrics[2 * loss::RECORD..][..loss::RECORD];
    assert_eq!(record[2..], [count as u32, 0]);
    worst.close("loss", &[f32::from_bits(record[0]) / count as f32], &[loss], LOSSES);

    for (t, (parameter, got)) in plan.split_gradients(&gradients).enumerate() {
        assert!(batch <= LANES || plan.tensors[t].partials > 1, "{} is one partial sum", parameter.name);
        let mut moved = tensors.clone();
        for i in random.order(parameter.len()).into_iter().take(10) {
            let mut at = |value: f64| {
                moved[t][i] = value;
                network_reference(&network, &images, &own_labels, smoothing, &moved).0
            };
            let value = tensors[t][i];
            let want = (at(value + EPSILON) - at(value - EPSILON)) / (2.0 * EPSILON);
            at(value);
            worst.close(&format!("{}[{i}]", parameter.name), &got[i..=i], &[want], SLOPES);
        }
    }
    worst.report(&format!("{}, {count} of {batch} images", network.name));
}

#[test]
fn a_network_with_a_ragged_batch() {
    check_network(NETWORK, 7, 5, 1);
}

#[test]
fn a_network_with_partial_sums() {
    check_network(NETWORK, 50, 37, 7);
}

#[test]
fn a_fused_network_with_a_ragged_batch() {
    check_network(FUSED, 7, 5, 1);
}

#[test]
fn a_fused_network_with_partial_sums() {
    check_network(FUSED, 50, 20, 1);
}
