//! Every layer in the middle of a network: the gradients of a training step against a reference network.

use common::{pack, unblock};
use lenet::Network;
use lenet::backend::Backend;
use lenet::kernels::{loss, norm};
use lenet::network::{Conv2d, Layer, Loss, Pool2d};
use lenet::plan::{Options, Phase, Plan};
use pollster::block_on;

use super::*;
use crate::conv2d::{Conv, conv_reference};
use crate::linear::linear_reference;
use crate::loss::loss_reference;
use crate::lrn::{Response, response_reference};
use crate::norm::norm_reference;
use crate::pool2d::{Pool, adaptive_reference, average_reference, max_reference, upsample_reference};
use crate::rbf::rbf_reference;
use crate::squared_error::squared_error_reference;

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
        let loss = match network.loss {
            Loss::MeanSquaredError => squared_error_reference(&value, labels, smoothing),
            loss => loss_reference(&value, labels, smoothing, loss.rubbish().map(f64::from)),
        };
        (loss, reference.clearance)
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
            activation: None,
            batch: value.shape[0],
            target: Target { fill: 1, ..Target::CPU },
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
        target: Target { fill: 1 << 14, ..Target::CPU },
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

#[test]
fn the_squared_error_of_a_label_for_every_pixel() {
    let text = PIXELS.replace("name = ", "loss = \"mean_squared_error\"\nname = ");
    check_network(&text, 7, 5, 1, SLOPES);
}
