//! The cases of `shaders/conv_pool.wgsl`.

use crate::check::kernels::*;
use crate::kernels::{batch, conv_pool, conv2d};

use super::conv2d::{CONV, Conv};

/// A fused convolution; its stride, dilation and groups are 1.
#[derive(Debug, Clone, Copy)]
struct Fused {
    conv: Conv,
    average: bool,
    activation: Option<Activation>,
    input_activation: Option<Activation>,
    /// Border, mean and deviation where the launch gathers.
    gather: Option<(usize, f32, f32)>,
    count: u32,
    fill: usize,
}

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    let fused = Fused {
        conv: CONV,
        average: false,
        activation: Some(Relu),
        input_activation: None,
        gather: None,
        count: 0,
        fill: 1,
    };
    let table = [
        // As LeNet-5's first two layers, but for their size; whole rows a tile, two rows of taps.
        Fused {
            conv: Conv { channels: [1, 6], size: [10, 14], kernel: [5, 5], batch: 20, ..CONV },
            gather: Some((2, 0.1, 0.3)),
            count: 17,
            ..fused
        },
        Fused {
            conv: Conv { channels: [6, 16], size: [8, 14], kernel: [5, 5], batch: 33, ..CONV },
            input_activation: Some(Relu),
            ..fused
        },
        // As many invocations as there can be: tiles of 2 columns, partial sums of rows.
        Fused {
            conv: Conv { channels: [2, 5], size: [8, 8], kernel: [3, 3], batch: 33, ..CONV },
            activation: Some(Sigmoid),
            input_activation: Some(Tanh),
            fill: 1 << 20,
            ..fused
        },
        // A few partial sums of rows, for rows they do not divide.
        Fused {
            conv: Conv { channels: [1, 3], size: [6, 4], kernel: [1, 1], batch: 3, ..CONV },
            activation: None,
            input_activation: Some(Sigmoid),
            fill: 32,
            ..fused
        },
        // Odd sizes, of which the last row and column belong to no window.
        Fused {
            conv: Conv { channels: [3, 4], size: [5, 7], pad: [1, 1], bias: false, ..CONV },
            activation: Some(Tanh),
            input_activation: Some(ScaledTanh),
            ..fused
        },
        Fused {
            conv: Conv { channels: [5, 2], size: [7, 9], kernel: [3, 4], pad: [2, 1], batch: 17, ..CONV },
            average: true,
            activation: Some(Tanh),
            input_activation: Some(Tanh),
            ..fused
        },
        Fused {
            conv: Conv { channels: [2, 3], size: [4, 9], kernel: [2, 3], pad: [0, 1], ..CONV },
            average: true,
            activation: Some(ScaledTanh),
            fill: 1 << 20,
            ..fused
        },
        // Colour, gathered, with a border and padding.
        Fused {
            conv: Conv { channels: [3, 5], size: [6, 7], kernel: [3, 2], pad: [1, 0], batch: 17, ..CONV },
            average: true,
            activation: None,
            gather: Some((1, 0.4, 0.7)),
            count: 3,
            ..fused
        },
        // Under-filled devices: rows that are shared and split, tiles of one pair of channels and of one row of taps.
        Fused {
            conv: Conv { channels: [1, 5], size: [14, 9], batch: 20, load: Target::DISCRETE.load, ..CONV },
            gather: Some((2, 0.1, 0.3)),
            count: 19,
            fill: 16_384,
            ..fused
        },
        Fused {
            conv: Conv {
                channels: [3, 6],
                size: [12, 7],
                kernel: [5, 3],
                batch: 33,
                load: Target::DISCRETE.load,
                ..CONV
            },
            input_activation: Some(Tanh),
            fill: 2048,
            ..fused
        },
        Fused {
            conv: Conv { channels: [2, 4], size: [6, 6], pad: [1, 1], load: Target::DISCRETE.load, ..CONV },
            average: true,
            activation: Some(Sigmoid),
            fill: 600,
            ..fused
        },
        // Grids of several rows, the last of which is not full: of more groups of the weights' gradient than of the
        // input's, and of fewer; without an input's gradient.
        Fused {
            conv: Conv { channels: [5, 9], size: [6, 9], row: 5, ..CONV },
            input_activation: Some(Relu),
            fill: 512,
            ..fused
        },
        Fused {
            conv: Conv { channels: [3, 7], size: [16, 20], kernel: [1, 1], batch: 20, row: 4, ..CONV },
            fill: 4096,
            ..fused
        },
        Fused {
            conv: Conv { channels: [1, 9], size: [14, 9], batch: 20, row: 3, ..CONV },
            gather: Some((2, 0.1, 0.3)),
            count: 19,
            ..fused
        },
    ];
    // Each with the tiles that it is for, and those of large tiles with the device's, too.
    let load = Target::filled_by(fill).load;
    let filled = table.iter().filter(|fused| fused.fill == 1);
    let filled = filled.map(|fused| Fused { fill, conv: Conv { load, ..fused.conv }, ..*fused });
    let activations = [None, Some(Relu), Some(Sigmoid), Some(Tanh), Some(ScaledTanh)];
    let large = activations.into_iter().flat_map(|activation| {
        [false, true].map(|average| {
            let conv = Conv { channels: [2, FACTORS.len()], size: [4, 6], kernel: [1, 1], ..CONV };
            overflowing(Fused { conv, average, activation, ..fused })
        })
    });
    table.iter().copied().chain(filled).map(case).chain(large).collect()
}

/// Sums of terms that are no numbers, in every fourth image at all places, in the next ones at one of each window, now the
/// first, now a later one; and of terms that overflow.
fn overflowing(fused: Fused) -> Result<Case> {
    let g = geometry(fused);
    let mut case = Case::new(format!("{fused:?} of terms that overflow"));
    let mut random = Random::of(&case.name);
    let [height, width] = g.conv.in_size;
    let mut values = random.floats(2 * height * width * LANES);
    for (i, value) in values.iter_mut().enumerate() {
        let (lane, x, y) = (i % LANES, i / LANES % width, i / LANES / width % height);
        *value = match lane % 4 {
            0 => f32::NAN,
            1 if x % 2 + 2 * (y % 2) == (x / 2 + y / 2 * 2) % 4 => f32::NAN,
            2 => HUGE,
            _ => *value,
        };
    }
    let input = case.floats("input", &values);
    let weights = FACTORS.as_flattened();
    let parameters = case.packed("parameters", &[weights, &random.floats(FACTORS.len())]);
    let plane = height / 2 * (width / 2) * LANES;
    let output = case.output("output", FACTORS.len() * plane, activated(fused.activation, 8));
    case.not_numbers(output, (0..FACTORS.len() * plane).filter(|i| i % LANES % 4 < 2));
    let saved = case.add("not saved", &vec![POISON; g.saved()], POISON, &[], Compare::Bits);
    let [weight, bias] = [parameters[0], parameters[1]];
    let buffers = conv_pool::Buffers { input, order: input, weight, bias, output, saved };
    case.launch(g.forward(buffers, false))?;
    Ok(case)
}

fn geometry(fused: Fused) -> conv_pool::Geometry {
    let Fused { conv, average, activation, input_activation, fill, .. } = fused;
    let [height, width] = conv.size;
    let gather = fused.gather.map(|(pad, mean, deviation)| batch::Geometry {
        channels: conv.channels[0],
        height: height - 2 * pad,
        width: width - 2 * pad,
        pad,
        mean,
        deviation,
        batch: conv.batch,
        augment: None,
    });
    let target = Target { fill, load: conv.load, row: conv.row, ..Target::CPU };
    conv_pool::Geometry { conv: conv.geometry(), average, activation, input_activation, gather, target }
}

fn case(fused: Fused) -> Result<Case> {
    let Fused { conv, average, activation, count, .. } = fused;
    let g = geometry(fused);
    let gather = g.gather;
    let [in_channels, out_channels] = conv.channels;
    let [height, width] = conv.size;
    let mut case = Case::new(format!("{fused:?} in {} parts", g.splits()));
    let mut random = Random::of(&case.name);
    let rows = lanes(conv.batch);
    let terms = in_channels * conv.kernel[0] * conv.kernel[1];
    let [out_height, out_width] = g.conv.out_size;
    let [pooled_height, pooled_width] = g.pooled();
    let outputs = out_channels * pooled_height * pooled_width * rows;
    // Small integers add up exactly in any order, so that both sides find the same winners and the same ties.
    let mut small = |len: usize| -> Vec<f32> { (0..len).map(|_| random.below(5) as f32 - 2.0).collect() };
    let inputs = in_channels * height * width * rows;
    let (weights, biases) = (small(g.conv.weights()), small(out_channels));
    let pixels = small(inputs);
    let mut random = Random::of(&format!("{} again", case.name));
    let images = 70;
    let input = match gather {
        Some(_) => {
            let (border, ..) = fused.gather.unwrap_or_default();
            let bytes = images * in_channels * (height - 2 * border) * (width - 2 * border);
            case.integers("images", &random.words(bytes.div_ceil(4)))
        }
        None => case.floats("input", &pixels),
    };
    let order = if gather.is_some() { case.integers("order", &random.order(images)) } else { input };
    let (weights, biases) =
        if average { (random.floats(weights.len()), random.floats(biases.len())) } else { (weights, biases) };
    let parameters = case.packed("parameters", &[&weights, &biases]);
    let compare = activated(activation, 8 * terms);
    let output = case.output("output", outputs, compare);
    let poison = vec![POISON; g.saved()];
    let saved = if average {
        // The values in windows.
        let plane = out_height * out_width * LANES;
        let mut written = Vec::new();
        for start in (0..g.saved()).step_by(plane) {
            written.extend((0..2 * pooled_height).map(|y| {
                let row = start + y * out_width * LANES;
                row..row + 2 * pooled_width * LANES
            }));
        }
        case.add("saved", &poison, POISON, &written, compare)
    } else {
        case.add("saved", &poison, POISON, &[0..poison.len()], Compare::Bits)
    };
    let bias = if conv.bias { parameters[1] } else { parameters[0] };
    let buffers = conv_pool::Buffers { input, order, weight: parameters[0], bias, output, saved };
    case.steps = vec![Step { cursor: 5, count, ..Step::default() }];
    case.launch(g.forward(buffers, true))?;
    if conv.channels == [3, 4] {
        // For evaluation nothing is kept.
        let output = case.output("evaluated", outputs, compare);
        let saved = case.add("not saved", &poison, POISON, &[], Compare::Bits);
        case.launch(g.forward(conv_pool::Buffers { output, saved, ..buffers }, false))?;
    }
    // The backward pass takes winners, or windows without one, or values within ±1, that need not be the forward pass'.
    let recalled: Vec<u32> =
        (0..g.saved()).map(|_| if average { random.float().to_bits() } else { random.below(5) }).collect();
    let saved = case.add("recalled", &recalled, POISON, &[], Compare::Bits);
    let buffers = conv_pool::Buffers { saved, ..buffers };
    let output_grad = case.floats("output_grad", &random.floats(outputs));
    let lens = if conv.bias { vec![g.conv.weights(), out_channels] } else { vec![g.conv.weights()] };
    // Inputs are up to 2, or (1 − mean) / deviation; slopes up to 6.
    let summed = sums(3 * out_height * out_width * rows);
    let passes = match (gather.is_some(), conv.kernel) {
        (true, _) => vec![false],
        (false, [1, 1]) => vec![false, true],
        (false, _) => vec![true],
    };
    for with_input in passes {
        let name = if with_input { "gradients" } else { "first layer's gradients" };
        let gradients = case.partials(name, &lens, g.splits(), summed);
        let upstream = conv2d::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
        let terms = 12 * out_channels * conv.kernel[0] * conv.kernel[1];
        let input_grad = with_input.then(|| case.output("input_grad", inputs, sums(terms)));
        case.launch(g.backward(buffers, upstream, input_grad))?;
    }
    if gather.is_none() {
        let terms = 12 * out_channels * conv.kernel[0] * conv.kernel[1];
        let input_grad = case.output("frozen layer's input_grad", inputs, sums(terms));
        case.launch(g.input_gradient(buffers, output_grad, input_grad))?;
    }
    Ok(case)
}
