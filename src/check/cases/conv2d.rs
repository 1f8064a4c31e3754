//! The cases of `shaders/conv2d.wgsl`.

use crate::check::kernels::*;
use crate::kernels::{Gradients, LayerBuffers, conv2d};

/// A convolution without its output's size.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    pub channels: [usize; 2],
    pub size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub pad: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
    pub bias: bool,
    pub activation: Option<Activation>,
    pub input_activation: Option<Activation>,
    pub batch: usize,
    pub fill: usize,
    pub load: usize,
    pub row: usize,
}

pub const CONV: Conv = Conv {
    channels: [2, 3],
    size: [7, 9],
    kernel: [3, 3],
    stride: [1, 1],
    pad: [0, 0],
    dilation: [1, 1],
    groups: 1,
    bias: true,
    activation: None,
    input_activation: None,
    batch: 3,
    fill: 1,
    load: Target::CPU.load,
    row: Target::CPU.row,
};

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    // At 16,384: small tiles, and as many partial sums as there are blocks.
    let conv = Conv { fill, load: Target::filled_by(fill).load, ..CONV };
    // Small, since a software adapter needs a second or more to compile each pipeline.
    let table = [
        // Widths of filters, and of outputs that no tile divides.
        conv,
        Conv { channels: [1, 6], size: [12, 12], kernel: [5, 5], batch: 17, ..conv },
        Conv { channels: [3, 5], kernel: [1, 1], batch: 1, ..conv },
        Conv { channels: [4, 4], kernel: [2, 2], batch: 16, ..conv },
        Conv { channels: [1, 1], kernel: [7, 7], ..conv },
        Conv { channels: [1, 7], size: [5, 9], kernel: [2, 7], ..conv },
        Conv { channels: [2, 3], size: [8, 5], kernel: [7, 3], batch: 33, ..conv },
        Conv { channels: [1, 9], size: [1, 13], kernel: [1, 6], ..conv },
        // The output is one pixel, as of LeNet-5's third convolution.
        Conv { channels: [4, 10], size: [5, 5], kernel: [5, 5], batch: 20, ..conv },
        // Padding, also wider than the filter reaches.
        Conv { size: [5, 6], pad: [1, 1], ..conv },
        Conv { channels: [1, 4], size: [4, 5], kernel: [5, 5], pad: [2, 2], batch: 17, ..conv },
        Conv { size: [3, 4], kernel: [2, 2], pad: [3, 2], ..conv },
        // Strides, with rows and columns left over.
        Conv { size: [5, 6], stride: [2, 2], batch: 17, ..conv },
        Conv { size: [6, 8], stride: [2, 2], pad: [1, 1], ..conv },
        Conv { kernel: [2, 2], stride: [3, 3], ..conv },
        Conv { channels: [1, 2], size: [7, 5], kernel: [3, 2], stride: [3, 1], pad: [0, 2], ..conv },
        // Dilation.
        Conv { channels: [1, 2], size: [7, 6], kernel: [2, 3], dilation: [3, 2], pad: [2, 3], ..conv },
        Conv { channels: [1, 2], size: [5, 9], dilation: [1, 3], stride: [2, 2], pad: [1, 1], ..conv },
        // Groups.
        Conv { channels: [6, 9], size: [4, 5], groups: 3, pad: [1, 1], batch: 17, ..conv },
        Conv { channels: [5, 5], groups: 5, kernel: [6, 1], ..conv },
        Conv { channels: [3, 6], groups: 3, ..conv },
        Conv { channels: [12, 14], groups: 2, kernel: [2, 3], dilation: [2, 1], ..conv },
        // Without a bias.
        Conv { channels: [4, 6], size: [4, 5], groups: 2, bias: false, batch: 33, ..conv },
        // Fewer partial sums than blocks: two for four blocks, one for two.
        Conv { channels: [16, 20], size: [6, 7], kernel: [5, 5], batch: 64, fill: 8192, ..conv },
        Conv { channels: [16, 32], size: [5, 6], kernel: [5, 5], batch: 30, fill: 4096, ..conv },
        // Large tiles, which the shapes do not fill; with activations.
        Conv { channels: [5, 12], size: [6, 11], pad: [1, 1], batch: 17, fill: 1, ..conv },
        Conv {
            channels: [13, 9],
            size: [4, 8],
            activation: Some(Tanh),
            input_activation: Some(Sigmoid),
            fill: 1,
            ..conv
        },
        Conv {
            channels: [16, 8],
            size: [3, 16],
            pad: [1, 1],
            activation: Some(Relu),
            input_activation: Some(Relu),
            fill: 1,
            ..conv
        },
        Conv {
            channels: [9, 3],
            size: [5, 4],
            kernel: [2, 5],
            pad: [1, 2],
            activation: Some(ScaledTanh),
            fill: 1,
            ..conv
        },
        Conv { channels: [3, 5], size: [4, 11], pad: [1, 1], fill: 1, ..conv },
        Conv { channels: [8, 6], size: [2, 9], kernel: [1, 7], pad: [0, 3], fill: 1, ..conv },
        Conv {
            channels: [6, 10],
            size: [8, 17],
            stride: [2, 2],
            pad: [1, 1],
            activation: Some(Sigmoid),
            input_activation: Some(Tanh),
            fill: 1,
            ..conv
        },
        Conv {
            channels: [7, 5],
            size: [4, 20],
            kernel: [1, 4],
            stride: [1, 3],
            pad: [0, 2],
            fill: 1,
            ..conv
        },
        Conv {
            channels: [5, 8],
            size: [7, 19],
            dilation: [2, 2],
            stride: [3, 2],
            pad: [2, 1],
            fill: 1,
            ..conv
        },
        Conv {
            channels: [5, 6],
            size: [5, 9],
            stride: [2, 4],
            dilation: [1, 2],
            pad: [1, 2],
            fill: 1,
            ..conv
        },
        // Filters of one pixel: a picture is one row.
        Conv {
            channels: [26, 9],
            size: [3, 5],
            kernel: [1, 1],
            activation: Some(Relu),
            input_activation: Some(ScaledTanh),
            batch: 17,
            fill: 1,
            ..conv
        },
        Conv { channels: [24, 16], size: [4, 4], kernel: [1, 1], groups: 2, fill: 1, ..conv },
        Conv { channels: [5, 8], size: [5, 7], kernel: [1, 1], stride: [2, 2], fill: 1, ..conv },
        Conv { channels: [5, 2], size: [3, 4], kernel: [1, 1], pad: [1, 0], ..conv },
        // Grids of several rows, the last of which is not full.
        Conv { channels: [10, 9], size: [7, 12], pad: [1, 1], batch: 17, row: 3, ..conv },
        Conv { channels: [9, 15], size: [6, 9], groups: 3, stride: [1, 2], row: 2, ..conv },
    ];
    let masks = [
        (conv, 1),
        // Two partial sums, and a group's own channels.
        (Conv { channels: [6, 16], size: [6, 6], kernel: [5, 5], batch: 33, ..conv }, 2),
        (Conv { channels: [12, 14], groups: 2, kernel: [2, 3], ..conv }, 3),
        // A grid of several rows.
        (Conv { channels: [6, 9], row: 2, ..conv }, 2),
    ];
    // Under-filled devices: tiles of two columns and of one, and weight gradients whose rows are shared and split.
    let empty = Conv { fill: 16_384, load: Target::DISCRETE.load, ..CONV };
    let filled = [
        Conv { channels: [3, 9], size: [5, 11], pad: [1, 1], batch: 17, fill: 4096, ..empty },
        Conv { channels: [9, 5], size: [7, 7], kernel: [5, 5], pad: [2, 2], fill: 2048, ..empty },
        Conv { channels: [4, 6], size: [9, 5], groups: 2, pad: [1, 1], bias: false, batch: 40, ..empty },
        Conv { channels: [5, 3], size: [9, 9], stride: [2, 2], pad: [1, 1], fill: 1 << 20, ..empty },
        Conv { channels: [13, 10], size: [6, 7], kernel: [1, 1], batch: 33, activation: Some(Relu), ..empty },
        Conv { channels: [2, 4], size: [1, 9], kernel: [1, 3], pad: [0, 1], batch: 50, ..empty },
        Conv { channels: [1, 4], size: [3, 20], pad: [1, 1], input_activation: Some(Tanh), ..empty },
        Conv { channels: [16, 12], size: [8, 9], dilation: [1, 2], batch: 20, fill: 1500, row: 7, ..empty },
    ];
    let table = table.into_iter().chain(filled);
    let activations = [None, Some(Relu), Some(Sigmoid), Some(Tanh), Some(ScaledTanh)];
    let large = activations.map(|activation| {
        let conv = Conv { channels: [2, FACTORS.len()], size: [2, 5], kernel: [1, 1], activation, ..conv };
        overflowing(conv, |b| conv.geometry().forward(b))
    });
    table.map(case).chain(masks.map(|(conv, splits)| masked(conv, splits))).chain(large).collect()
}

/// Sums of terms that are no numbers, of every third image, and of the next ones of terms that overflow. Each filter has
/// two weights.
pub fn overflowing(conv: Conv, forward: impl FnOnce(LayerBuffers) -> Result<Launch>) -> Result<Case> {
    let g = conv.geometry();
    let mut case = Case::new(format!("{conv:?} of terms that overflow"));
    let mut random = Random::of(&case.name);
    let inputs = g.in_channels * g.in_size[0] * g.in_size[1] * LANES;
    let values: Vec<f32> = (0..inputs).map(|i| [f32::NAN, HUGE, random.float()][i % LANES % 3]).collect();
    let input = case.floats("input", &values);
    let weights: Vec<f32> = FACTORS.into_iter().take(g.out_channels).flatten().collect();
    let parameters = case.packed("parameters", &[&weights, &random.floats(g.out_channels)]);
    let plane = g.out_size[0] * g.out_size[1] * LANES;
    let output = case.output("output", g.out_channels * plane, activated(g.activation, 2));
    case.not_numbers(output, (0..g.out_channels * plane).filter(|i| (i % LANES).is_multiple_of(3)));
    case.launch(forward(LayerBuffers { input, weight: parameters[0], bias: parameters[1], output }))?;
    Ok(case)
}

/// Gradients that are numbers and ones that are not, of which about half are masked.
fn masked(conv: Conv, splits: usize) -> Result<Case> {
    let g = conv.geometry();
    let mut case = Case::new(format!("the mask of {conv:?}, {splits} parts"));
    let mut random = Random::of(&case.name);
    let taps = g.kernel[0] * g.kernel[1];
    let mask: Vec<u32> = (0..g.weights() / taps).map(|_| random.below(2)).collect();
    let stride = padded(g.weights());
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-42];
    let mut values = vec![f32::from_bits(POISON); splits * stride];
    let mut written = Vec::new();
    let mut zeros = Vec::new();
    for split in 0..splits {
        for i in 0..g.weights() {
            let seen = mask[i / taps] == 1;
            // What is let through is finite, for the comparison's sake.
            let strange = !seen && random.below(4) == 0;
            let at = split * stride + i;
            values[at] = if strange { special[random.below(5) as usize] } else { random.float() };
            if !seen {
                written.push(at..at + 1);
                zeros.push(at);
            }
        }
    }
    // One chunk more, which nothing may write.
    values.resize(values.len() + CHUNK, f32::from_bits(POISON));
    let mask = case.integers("mask", &mask);
    let exact = Compare::Close { absolute: 0.0, relative: 0.0 };
    let gradients = case.updated("weight_grad", &values, &written, exact);
    case.expected = zeros.into_iter().map(|at| (gradients, at, 0)).collect();
    case.launch(g.mask_gradient(mask, sub(gradients, 0, splits * stride)))?;
    Ok(case)
}

impl Conv {
    pub fn geometry(&self) -> conv2d::Geometry {
        let side = |d: usize| {
            let reach = self.dilation[d] * (self.kernel[d] - 1) + 1;
            (self.size[d] + 2 * self.pad[d] - reach) / self.stride[d] + 1
        };
        conv2d::Geometry {
            in_channels: self.channels[0],
            in_size: self.size,
            out_channels: self.channels[1],
            out_size: [side(0), side(1)],
            kernel: self.kernel,
            stride: self.stride,
            pad: self.pad,
            dilation: self.dilation,
            groups: self.groups,
            bias: self.bias,
            activation: self.activation,
            input_activation: self.input_activation,
            batch: self.batch,
            target: Target { fill: self.fill, load: self.load, row: self.row, ..Target::CPU },
        }
    }
}

fn case(conv: Conv) -> Result<Case> {
    let g = conv.geometry();
    convolution(conv, g.splits(), |b, upstream, input_grad| {
        [g.forward(b), g.input_gradient(b, upstream, input_grad), g.weight_gradient(b, upstream)]
    })
}

/// A convolution's three launches, whichever shader does them.
pub fn convolution(
    conv: Conv,
    splits: usize,
    launches: impl FnOnce(LayerBuffers, Gradients, Range) -> [Result<Launch>; 3],
) -> Result<Case> {
    let g = conv.geometry();
    let mut case = Case::new(format!("{conv:?}"));
    let mut random = Random::of(&case.name);
    let taps = g.kernel[0] * g.kernel[1];
    let (inputs, outputs) =
        (g.in_channels * g.in_size[0] * g.in_size[1], g.out_channels * g.out_size[0] * g.out_size[1]);
    let rows = lanes(g.batch);
    let input = case.floats("input", &random.floats(inputs * rows));
    let (weights, biases) = (random.floats(g.weights()), random.floats(g.out_channels));
    let parameters = case.packed("parameters", &[&weights, &biases]);
    let terms = g.in_channels / g.groups * taps;
    let output = case.output("output", outputs * rows, activated(g.activation, terms));
    let output_grad = case.floats("output_grad", &random.floats(outputs * rows));
    let input_grad = case.output("input_grad", inputs * rows, sums(g.out_channels / g.groups * taps));
    let lens = if g.bias { vec![g.weights(), g.out_channels] } else { vec![g.weights()] };
    let terms = sums(g.out_size[0] * g.out_size[1] * rows);
    let gradients = case.partials("gradients", &lens, splits, terms);
    // Without a bias, any range does.
    let bias = if g.bias { parameters[1] } else { parameters[0] };
    let buffers = LayerBuffers { input, weight: parameters[0], bias, output };
    let upstream = Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
    for launch in launches(buffers, upstream, input_grad) {
        case.launch(launch)?;
    }
    Ok(case)
}
