//! The cases of `shaders/depthwise.wgsl`.

use lenet::kernels::depthwise;

use super::conv2d::{CONV, Conv, convolution};
use super::harness::*;

const PLAIN: Conv = Conv { channels: [3, 3], groups: 3, pad: [1, 1], ..CONV };

pub fn cases() -> Vec<Case> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    let table = [
        // Rows and columns that no tile divides, and more channels than a workgroup takes.
        PLAIN,
        Conv { channels: [6, 6], groups: 6, size: [4, 16], batch: 17, ..PLAIN },
        Conv { size: [6, 7], pad: [0, 0], activation: Some(Relu), input_activation: Some(Relu), ..PLAIN },
        Conv { size: [3, 3], pad: [2, 3], bias: false, batch: 33, ..PLAIN },
        // Filters of every width.
        Conv { kernel: [5, 5], pad: [2, 2], input_activation: Some(Tanh), ..PLAIN },
        Conv { kernel: [2, 4], pad: [0, 2], activation: Some(Sigmoid), ..PLAIN },
        Conv { kernel: [4, 2], size: [9, 10], ..PLAIN },
        Conv { kernel: [1, 1], pad: [0, 0], activation: Some(ScaledTanh), ..PLAIN },
        Conv { kernel: [3, 5], size: [5, 5], pad: [1, 2], bias: false, ..PLAIN },
        // Strides, with rows and columns left over, and dilation.
        Conv { size: [8, 18], stride: [2, 2], input_activation: Some(Sigmoid), batch: 17, ..PLAIN },
        Conv { size: [7, 11], stride: [1, 2], pad: [0, 1], ..PLAIN },
        Conv { size: [8, 9], stride: [3, 1], activation: Some(Tanh), ..PLAIN },
        Conv { size: [5, 8], kernel: [2, 1], stride: [3, 3], pad: [0, 0], ..PLAIN },
        Conv { size: [6, 20], dilation: [1, 2], pad: [1, 2], input_activation: Some(ScaledTanh), ..PLAIN },
        Conv { size: [9, 7], dilation: [2, 1], stride: [2, 1], pad: [2, 0], ..PLAIN },
        Conv { size: [7, 13], dilation: [2, 2], stride: [1, 3], pad: [1, 2], ..PLAIN },
        // Fewer partial sums than blocks: two for four blocks, one for two.
        Conv { size: [4, 4], batch: 64, fill: 96, ..PLAIN },
        Conv { size: [4, 5], batch: 30, fill: 48, ..PLAIN },
        // Rows that are shared, and split.
        Conv { size: [7, 6], fill: 192, load: Target::DISCRETE.load, ..PLAIN },
        Conv { size: [9, 5], batch: 33, fill: 1200, load: Target::DISCRETE.load, ..PLAIN },
        Conv { size: [3, 8], kernel: [5, 3], pad: [2, 1], load: Target::DISCRETE.load, ..PLAIN },
        Conv { size: [12, 5], stride: [2, 1], bias: false, load: Target::DISCRETE.load, ..PLAIN },
    ];
    table.into_iter().map(case).collect()
}

fn case(conv: Conv) -> Case {
    let g = conv.geometry();
    let g = depthwise::Geometry {
        channels: conv.groups,
        in_size: g.in_size,
        out_size: g.out_size,
        kernel: g.kernel,
        stride: g.stride,
        pad: g.pad,
        dilation: g.dilation,
        bias: g.bias,
        activation: g.activation,
        input_activation: g.input_activation,
        batch: g.batch,
        target: g.target,
    };
    convolution(conv, g.splits(), |b, upstream, input_grad| {
        [g.forward(b), g.input_gradient(b, upstream, input_grad), g.weight_gradient(b, upstream)]
    })
}

#[test]
fn only_small_filters_of_single_channels_are_depthwise() {
    let suits = |conv: Conv| depthwise::Geometry::of(&conv.geometry()).is_some();
    assert!(suits(PLAIN));
    assert!(suits(Conv { kernel: [5, 5], ..PLAIN }));
    assert!(!suits(Conv { kernel: [6, 1], ..PLAIN }));
    assert!(!suits(Conv { channels: [3, 6], ..PLAIN }));
    assert!(!suits(Conv { channels: [6, 3], ..PLAIN }));
    // A single channel is a convolution like others.
    assert!(!suits(Conv { channels: [1, 1], groups: 1, ..PLAIN }));
}
