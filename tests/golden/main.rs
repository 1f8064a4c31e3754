//! Proves that the CPU twins, and whole networks on both backends, compute what PyTorch computes.

#[path = "../common/mod.rs"]
mod common;
mod exact;
mod network;

use std::io::Read;

use common::{Array, Golden, Ran, Rig, Tolerance, Worst, pack, project, relative_l2, unblock};
use lenet::Network;
use lenet::backend::{Backend, gpu};
use lenet::kernels::activation::Activation;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::kernels::{
    CHUNK, Gradients, LANES, Launch, LayerBuffers, Range, Step, Target, blocks, conv2d, linear, loss, padded,
    pool2d,
};
use lenet::network::{Conv2d, Initialisation, Input, Layer, Linear, Loss, Padding, Pool2d, Size};
use lenet::plan::{Form, Options, Phase, Plan};
use pollster::block_on;
use serde_json::Value;

/// Cases of the files that this crate has no layer for.
const SKIPPED: [(&str, &str); 3] = [
    // LeCun's trainable sub-sampling.
    ("avgpool", "lenet_subsample_2x2"),
    // LeCun's radial basis functions.
    ("linear", "rbf_lenet_84x10"),
    // Mean squared error of targets that are no classes.
    ("softmax_ce", "mse_b3_c7"),
];

/// The references are f64 rounded to f32 (relative 6e-8). A sum of n products of size 1 walks as far as √n, each
/// of its roundings is up to 2⁻²⁴ of that, and n of them walk in turn: about n · 2⁻²⁴ if they go one after the
/// other in one register, of which a tail of a thousand values sees twice as much.
fn sums(terms: usize) -> Tolerance {
    let ulp = f64::from(f32::EPSILON);
    Tolerance { absolute: (terms + 4) as f64 * ulp, relative: 2.0 * ulp }
}
/// A window holds at most 35 cells.
const POOLS: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };
/// A few roundings of values near 1 (an f32 has 6e-8), and 1.5e-7 of the erf behind GELU, multiplied by
/// an upstream gradient of up to 4; where a slope is a difference (1 − tanh²) the error stays absolute.
const FUNCTIONS: Tolerance = Tolerance { absolute: 2e-6, relative: 2e-6 };
/// Exponentials of f32, and sums of up to 13 of them; losses of ±1e4 logits are large, thus the relative part.
const LOSSES: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };

fn manifest() -> Value {
    let text = std::fs::read_to_string(project("assets/golden/manifest.json")).expect("the manifest");
    serde_json::from_str(&text).expect("JSON")
}

/// Runs `run` on every case of a file but the skipped ones, and reports the worst error.
fn cases(family: &str, run: impl Fn(&Case<'_>, &mut Worst)) {
    let manifest = manifest();
    let described = manifest["layers"][family].as_object().expect("the family's cases");
    let golden = Golden::read(&format!("layers.{family}"));
    let mut names = golden.cases();
    names.sort_unstable();
    let mut listed: Vec<&str> = described.keys().map(String::as_str).collect();
    listed.sort_unstable();
    assert_eq!(names, listed, "the manifest and the file hold different cases");
    for (_, skipped) in SKIPPED.iter().filter(|(of, _)| *of == family) {
        assert!(names.contains(skipped), "there is no case {skipped} to skip");
    }
    let mut worst = Worst::default();
    let mut ran = 0;
    for name in &names {
        if !SKIPPED.contains(&(family, name)) {
            run(&Case { golden: &golden, name, info: &described[*name] }, &mut worst);
            ran += 1;
        }
    }
    let skipped = SKIPPED.iter().filter(|(of, _)| *of == family).count();
    assert_eq!(ran + skipped, names.len());
    worst.report(&format!("{family}, {ran} cases"));
}

struct Case<'a> {
    golden: &'a Golden,
    name: &'a str,
    info: &'a Value,
}

impl Case<'_> {
    fn get(&self, tensor: &str) -> &Array {
        self.golden.get(&format!("{}/{tensor}", self.name))
    }

    fn find(&self, tensor: &str) -> Option<&Array> {
        self.golden.find(&format!("{}/{tensor}", self.name))
    }

    fn what(&self, tensor: &str) -> String {
        format!("{}/{tensor}", self.name)
    }

    /// A setting that is one number or two.
    fn pair(&self, key: &str, default: usize) -> [usize; 2] {
        let number = |value: &Value| value.as_u64().expect("a number") as usize;
        match &self.info[key] {
            Value::Null => [default; 2],
            Value::Array(pair) => [number(&pair[0]), number(&pair[1])],
            one => [number(one); 2],
        }
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.info[key].as_bool().unwrap_or(default)
    }

    /// The shape that the crate's own inference gives for `layer` on this case's input, which must be the
    /// reference's output.
    fn check_shape(&self, layer: Layer) {
        let (from, to) = (&self.get("input").shape, &self.get("output").shape);
        let network = Network {
            name: self.name.into(),
            loss: Loss::CrossEntropy,
            init: Initialisation::Pytorch,
            input: Input {
                channels: from[1],
                height: from[2],
                width: from[3],
                pad: 0,
                mean: 0.0,
                deviation: 1.0,
            },
            layers: vec![layer, Layer::Linear(Linear { name: None, outputs: 2, bias: true })],
        };
        let placed = network.place().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let shape = placed[0].output;
        assert_eq!([shape.channels, shape.height, shape.width], to[1..], "{}", self.name);
    }
}

/// What the launches of a layer with weights left behind.
struct Results {
    ran: Ran,
    output: Range,
    input_grad: Range,
    weight_grad: Range,
    bias_grad: Range,
    splits: usize,
}

/// Compares everything that a layer with weights computes.
fn check_weighted(case: &Case<'_>, worst: &mut Worst, images: usize, r: &Results) {
    let weight = case.get("grad.weight");
    let (rows, columns) = (weight.shape[0], weight.values.len() / weight.shape[0]);
    // An input's gradient sums as many terms as there are weights for each channel that it reaches.
    let back = weight.values.len() / weight.shape[1];
    for (tensor, range, terms) in [("output", r.output, columns), ("grad_input", r.input_grad, back)] {
        let want = &case.get(tensor).values;
        let got = r.ran.rows(range, want.len() / images, images);
        worst.close(&case.what(tensor), &got, want, sums(terms));
    }
    let terms = case.get("output").values.len() / rows;
    let got = r.ran.summed(r.weight_grad, weight.values.len(), r.splits);
    worst.close(&case.what("grad.weight"), &got, &weight.values, sums(terms));
    match case.find("grad.bias") {
        Some(bias) => {
            let got = r.ran.summed(r.bias_grad, bias.values.len(), r.splits);
            worst.close(&case.what("grad.bias"), &got, &bias.values, sums(terms));
        }
        None => {
            let untouched = r.ran.floats(r.bias_grad).iter().all(|value| value.is_nan());
            assert!(untouched, "{}: there is no bias, and its gradient was written", case.name);
        }
    }
}

#[test]
fn conv2d_matches_pytorch() {
    cases("conv2d", |case, worst| {
        let (input, output) = (case.get("input"), case.get("output"));
        let (weight, bias) = (case.get("param.weight"), case.find("param.bias"));
        assert_eq!(bias.is_some(), case.flag("bias", true), "{}", case.name);
        let g = conv2d::Geometry {
            in_channels: input.shape[1],
            in_size: [input.shape[2], input.shape[3]],
            out_channels: output.shape[1],
            out_size: [output.shape[2], output.shape[3]],
            kernel: [weight.shape[2], weight.shape[3]],
            stride: case.pair("stride", 1),
            pad: case.pair("padding", 0),
            dilation: case.pair("dilation", 1),
            groups: case.pair("groups", 1)[0],
            bias: bias.is_some(),
            activation: None,
            input_activation: None,
            batch: input.shape[0],
            target: Target { fill: 4096, ..Target::CPU },
        };
        case.check_shape(Layer::Conv2d(Conv2d {
            name: None,
            channels: g.out_channels,
            kernel: Size(g.kernel),
            stride: Size(g.stride),
            padding: Padding::Explicit(Size(g.pad)),
            dilation: Size(g.dilation),
            groups: g.groups,
            connections: None,
            bias: g.bias,
        }));
        check_convolution(case, worst, &g, g.splits(), |b, upstream, input_grad| {
            [g.forward(b), g.weight_gradient(b, upstream), g.input_gradient(b, upstream, input_grad)]
        });
    });
}

/// Compares a convolution's three launches, whichever shader does them.
fn check_convolution(
    case: &Case<'_>,
    worst: &mut Worst,
    g: &conv2d::Geometry,
    splits: usize,
    launches: impl FnOnce(LayerBuffers, Gradients, Range) -> [lenet::Result<Launch>; 3],
) {
    let (input, output) = (case.get("input"), case.get("output"));
    let (weight, bias) = (case.get("param.weight"), case.find("param.bias"));
    let (into, out) = (input.values.len() / g.batch, output.values.len() / g.batch);
    let mut rig = Rig::default();
    let weights = rig.parameter("weight", &weight.f32());
    let buffers = LayerBuffers {
        input: rig.images("input", &input.f32(), into),
        weight: weights,
        bias: bias.map_or(weights, |bias| rig.parameter("bias", &bias.f32())),
        output: rig.result("output", out, g.batch),
    };
    let bias_grad = if g.bias { splits * padded(g.out_channels) } else { CHUNK };
    let gradients = Gradients {
        output: rig.upstream("upstream", &case.get("upstream").f32(), out),
        weight: rig.poisoned("weight_grad", splits * padded(g.weights())),
        bias: rig.poisoned("bias_grad", bias_grad),
    };
    let input_grad = rig.result("input_grad", into, g.batch);
    let launches = launches(buffers, gradients, input_grad).map(|launch| launch.unwrap());
    let ran = rig.run(launches.into(), Step { count: g.batch as u32, ..Step::default() });
    let results = Results {
        ran,
        output: buffers.output,
        input_grad,
        weight_grad: gradients.weight,
        bias_grad: gradients.bias,
        splits,
    };
    check_weighted(case, worst, g.batch, &results);
}

#[test]
fn linear_matches_pytorch() {
    cases("linear", |case, worst| {
        let (input, output) = (case.get("input"), case.get("output"));
        let bias = case.find("param.bias");
        assert_eq!(bias.is_some(), case.flag("bias", true), "{}", case.name);
        let g = linear::Geometry {
            inputs: input.shape[1],
            outputs: output.shape[1],
            bias: bias.is_some(),
            activation: None,
            input_activation: None,
            batch: input.shape[0],
            target: Target { fill: 4096, ..Target::CPU },
        };
        let mut rig = Rig::default();
        let weights = rig.parameter("weight", &case.get("param.weight").f32());
        let buffers = linear::Buffers {
            input: rig.images("input", &input.f32(), g.inputs),
            weight: weights,
            bias: bias.map_or(weights, |bias| rig.parameter("bias", &bias.f32())),
            output: rig.result("output", g.outputs, g.batch),
        };
        let bias_grad = if g.bias { g.splits() * padded(g.outputs) } else { CHUNK };
        let gradients = linear::Gradients {
            output: rig.upstream("upstream", &case.get("upstream").f32(), g.outputs),
            weight: rig.poisoned("weight_grad", g.splits() * padded(g.weights())),
            bias: rig.poisoned("bias_grad", bias_grad),
        };
        let input_grad = rig.result("input_grad", g.inputs, g.batch);
        let launches = vec![
            g.forward(buffers).unwrap(),
            g.weight_gradient(buffers, gradients).unwrap(),
            g.input_gradient(buffers, gradients, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, Step { count: g.batch as u32, ..Step::default() });
        let results = Results {
            ran,
            output: buffers.output,
            input_grad,
            weight_grad: gradients.weight,
            bias_grad: gradients.bias,
            splits: g.splits(),
        };
        check_weighted(case, worst, g.batch, &results);
    });
}

fn check_pool(case: &Case<'_>, worst: &mut Worst, maximum: bool) {
    let (input, output) = (case.get("input"), case.get("output"));
    let in_size = [input.shape[2], input.shape[3]];
    let global = case.info["kind"] == "global";
    let kernel = if global { in_size } else { case.pair("kernel_size", 0) };
    let g = pool2d::Geometry {
        channels: input.shape[1],
        in_size,
        out_size: [output.shape[2], output.shape[3]],
        kernel,
        stride: if global { kernel } else { case.pair("stride", 0) },
        pad: case.pair("padding", 0),
        count_pad: case.flag("count_include_pad", true),
        batch: input.shape[0],
    };
    let layer = Pool2d {
        kernel: Size(g.kernel),
        stride: Some(Size(g.stride)),
        padding: Size(g.pad),
        ceil: case.flag("ceil_mode", false),
        count_padding: g.count_pad,
    };
    case.check_shape(if maximum { Layer::MaxPool2d(layer) } else { Layer::AveragePool2d(layer) });
    let (into, out) = (input.values.len() / g.batch, output.values.len() / g.batch);
    let mut rig = Rig::default();
    let from = rig.images("input", &input.f32(), into);
    let to = rig.result("output", out, g.batch);
    let upstream = rig.upstream("upstream", &case.get("upstream").f32(), out);
    let input_grad = rig.result("input_grad", into, g.batch);
    let launches = if maximum {
        let winner = rig.result("winner", out, g.batch);
        vec![g.max_forward(from, to, winner).unwrap(), g.max_backward(upstream, winner, input_grad).unwrap()]
    } else {
        vec![g.average_forward(from, to).unwrap(), g.average_backward(upstream, input_grad).unwrap()]
    };
    let ran = rig.run(launches, Step { count: g.batch as u32, ..Step::default() });
    for (tensor, range, features) in [("output", to, out), ("grad_input", input_grad, into)] {
        let got = ran.rows(range, features, g.batch);
        worst.close(&case.what(tensor), &got, &case.get(tensor).values, POOLS);
    }
}

#[test]
fn max_pooling_matches_pytorch() {
    cases("maxpool", |case, worst| check_pool(case, worst, true));
}

#[test]
fn average_pooling_matches_pytorch() {
    cases("avgpool", |case, worst| check_pool(case, worst, false));
}

#[test]
fn activations_match_pytorch() {
    cases("activation", |case, worst| {
        let activation = match case.name {
            "relu" => Activation::Relu,
            "leaky_relu_0p01" => Activation::LeakyRelu(0.01),
            "leaky_relu_0p2" => Activation::LeakyRelu(0.2),
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            "lenet_tanh" => Activation::ScaledTanh,
            "gelu_erf" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            "silu" => Activation::Silu,
            "elu" => Activation::Elu(1.0),
            "softplus" => Activation::Softplus,
            "hardswish" => Activation::HardSwish,
            other => panic!("no activation stands for {other}"),
        };
        let mut rig = Rig::default();
        // Elementwise: how the elements lie does not matter.
        let features = case.get("input").values.len();
        let input = rig.images("input", &case.get("input").f32(), features);
        let upstream = rig.upstream("upstream", &case.get("upstream").f32(), features);
        let output = rig.result("output", features, 1);
        let input_grad = rig.result("input_grad", features, 1);
        let launches = vec![
            activation.forward(input, output).unwrap(),
            activation.backward(input, upstream, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, Step { count: 1, ..Step::default() });
        for (tensor, range) in [("output", output), ("grad_input", input_grad)] {
            let got = ran.rows(range, features, 1);
            worst.close(&case.what(tensor), &got, &case.get(tensor).values, FUNCTIONS);
        }
    });
}

/// The first largest logit.
fn best(logits: &[f64]) -> usize {
    (1..logits.len()).fold(0, |best, k| if logits[k] > logits[best] { k } else { best })
}

#[test]
fn softmax_cross_entropy_matches_pytorch() {
    cases("softmax_ce", |case, worst| {
        let input = case.get("input");
        let (images, classes) = (input.shape[0], input.shape[1]);
        let smoothing = case.info["label_smoothing"].as_f64().expect("the smoothing");
        let target: Vec<usize> = case.get("labels").values.iter().map(|&label| label as usize).collect();
        // The labels of a data set that is taken backwards, from the third image on.
        let cursor = 2;
        let order: Vec<u32> = (0..(images + cursor) as u32).rev().collect();
        let mut labels = vec![0; images + cursor];
        for (n, &label) in target.iter().enumerate() {
            labels[order[cursor + n] as usize] = label as u8;
        }
        let g = loss::Geometry {
            classes,
            positions: 1,
            smoothing: smoothing as f32,
            rubbish: None,
            batch: images,
        };
        let mut rig = Rig::default();
        let buffers = loss::Buffers {
            logits: rig.images("logits", &input.f32(), classes),
            labels: rig.words("labels", &pack(&labels)),
            order: rig.words("order", &order),
            rows: rig.poisoned("rows", 2 * blocks(images) * LANES),
        };
        let logits_grad = rig.result("logits_grad", classes, images);
        let metrics = rig.poisoned("metrics", 2 * loss::RECORD);
        let probabilities = rig.result("probabilities", classes, images);
        let launches = vec![
            g.cross_entropy_gradient(buffers, logits_grad, metrics).unwrap(),
            g.sum_rows(buffers.rows, metrics).unwrap(),
            g.softmax(buffers.logits, probabilities).unwrap(),
        ];
        let step = Step { cursor: cursor as u32, count: images as u32, slot: 1, ..Step::default() };
        let ran = rig.run(launches, step);

        let got = ran.rows(probabilities, classes, images);
        worst.close(&case.what("softmax"), &got, &case.get("softmax").values, LOSSES);

        // Every row's loss out of the reference's log-softmax.
        let rows = ran.floats(buffers.rows);
        let losses: Vec<f32> = rows.chunks_exact(2).take(images).map(|row| row[0]).collect();
        let log_softmax = case.get("log_softmax").values.chunks_exact(classes);
        let want: Vec<f64> = log_softmax
            .zip(&target)
            .map(|(row, &label)| {
                let mean = row.iter().sum::<f64>() / classes as f64;
                -(1.0 - smoothing) * row[label] - smoothing * mean
            })
            .collect();
        worst.close(&case.what("log_softmax"), &losses, &want, LOSSES);
        assert!(
            rows[2 * images..].iter().all(|&value| value == 0.0),
            "{}: lanes without an image",
            case.name
        );

        // Of which the record is the sum; the gradient is that of the mean.
        let record = &ran.words(metrics)[loss::RECORD..];
        let summed = f32::from_bits(record[0]);
        let right = input.values.chunks_exact(classes).zip(&target).filter(|(z, label)| best(z) == **label);
        assert_eq!(record[1..], [right.count() as u32, images as u32, 0], "{}", case.name);
        let output = &case.get("output").values;
        let upstream = &case.get("upstream").values;
        let n = images as f64;
        let (total, scale): (f64, Vec<f64>) = match case.info["reduction"].as_str().expect("a reduction") {
            "mean" => (n * output[0], vec![upstream[0]; images]),
            "sum" => (output[0], vec![n * upstream[0]; images]),
            "none" => {
                worst.close(&case.what("output"), &losses, output, LOSSES);
                (output.iter().sum(), upstream.iter().map(|upstream| n * upstream).collect())
            }
            other => panic!("no reduction is called {other}"),
        };
        let allowed = Tolerance { absolute: n * LOSSES.absolute, ..LOSSES };
        worst.close(&case.what("output"), &[summed], &[total], allowed);
        let got: Vec<f32> = ran
            .rows(logits_grad, classes, images)
            .iter()
            .enumerate()
            .map(|(i, &gradient)| (f64::from(gradient) * scale[i / classes]) as f32)
            .collect();
        worst.close(&case.what("grad_input"), &got, &case.get("grad_input").values, LOSSES);
        let lanes = ran.rows(logits_grad, classes, blocks(images) * LANES);
        assert!(lanes[images * classes..].iter().all(|&value| value == 0.0), "{}: ghosts", case.name);
    });
}
