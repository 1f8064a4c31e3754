//! The cases of `shaders/depthwise.wgsl`.

use crate::check::kernels::*;
use crate::kernels::depthwise;

use super::conv2d::{CONV, Conv, convolution, overflowing};

const PLAIN: Conv = Conv { channels: [3, 3], groups: 3, pad: [1, 1], ..CONV };

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    let plain = Conv { fill, load: Target::filled_by(fill).load, ..PLAIN };
    let empty = Conv { fill: 16_384, load: Target::DISCRETE.load, ..PLAIN };
    let table = [
        // Rows and columns that no tile divides, and more channels than a workgroup takes.
        plain,
        Conv { channels: [6, 6], groups: 6, size: [4, 16], batch: 17, ..plain },
        Conv { size: [6, 7], pad: [0, 0], activation: Some(Relu), input_activation: Some(Relu), ..plain },
        Conv { size: [3, 3], pad: [2, 3], bias: false, batch: 33, ..plain },
        // Filters of every width.
        Conv { kernel: [5, 5], pad: [2, 2], input_activation: Some(Tanh), ..plain },
        Conv { kernel: [2, 4], pad: [0, 2], activation: Some(Sigmoid), ..plain },
        Conv { kernel: [4, 2], size: [9, 10], ..plain },
        Conv { kernel: [1, 1], pad: [0, 0], activation: Some(ScaledTanh), ..plain },
        Conv { kernel: [3, 5], size: [5, 5], pad: [1, 2], bias: false, ..plain },
        // Strides, with rows and columns left over, and dilation.
        Conv { size: [8, 18], stride: [2, 2], input_activation: Some(Sigmoid), batch: 17, ..plain },
        Conv { size: [7, 11], stride: [1, 2], pad: [0, 1], ..plain },
        Conv { size: [8, 9], stride: [3, 1], activation: Some(Tanh), ..plain },
        Conv { size: [5, 8], kernel: [2, 1], stride: [3, 3], pad: [0, 0], ..plain },
        Conv { size: [6, 20], dilation: [1, 2], pad: [1, 2], input_activation: Some(ScaledTanh), ..plain },
        Conv { size: [9, 7], dilation: [2, 1], stride: [2, 1], pad: [2, 0], ..plain },
        Conv { size: [7, 13], dilation: [2, 2], stride: [1, 3], pad: [1, 2], ..plain },
        // Fewer partial sums than blocks: two for four blocks, one for two.
        Conv { size: [4, 4], batch: 64, fill: 96, load: Target::CPU.load, ..plain },
        Conv { size: [4, 5], batch: 30, fill: 48, load: Target::CPU.load, ..plain },
        // Rows that are shared, and split.
        Conv { size: [7, 6], fill: 192, ..empty },
        Conv { size: [9, 5], batch: 33, fill: 1200, ..empty },
        Conv { size: [3, 8], kernel: [5, 3], pad: [2, 1], ..empty },
        Conv { size: [12, 5], stride: [2, 1], bias: false, ..empty },
        // Grids of several rows, the last of which is not full.
        Conv { channels: [11, 11], groups: 11, size: [5, 17], batch: 17, row: 2, ..plain },
        Conv { channels: [7, 7], groups: 7, size: [10, 9], stride: [2, 2], row: 5, ..empty },
    ];
    let activations = [None, Some(Relu), Some(Sigmoid), Some(Tanh), Some(ScaledTanh)];
    let large = activations.map(|activation| {
        let conv = Conv { size: [2, 5], kernel: [1, 2], pad: [0, 0], activation, ..plain };
        overflowing(conv, |b| geometry(conv).forward(b))
    });
    table.into_iter().map(case).chain(large).collect()
}

fn geometry(conv: Conv) -> depthwise::Geometry {
    let g = conv.geometry();
    depthwise::Geometry {
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
    }
}

fn case(conv: Conv) -> Result<Case> {
    let g = geometry(conv);
    convolution(conv, g.splits(), |b, upstream, input_grad| {
        [g.forward(b), g.input_gradient(b, upstream, input_grad), g.weight_gradient(b, upstream)]
    })
}
