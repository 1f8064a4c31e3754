//! The cases of `shaders/depthwise.wgsl`.

use super::conv2d::{CONV, Conv, case};
use super::harness::*;

pub fn cases() -> Vec<Case> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    let depthwise = Conv { channels: [3, 3], groups: 3, pad: [1, 1], ..CONV };
    let table = [
        // Rows and columns that no tile divides, and more channels than a workgroup takes.
        depthwise,
        Conv { channels: [6, 6], groups: 6, size: [4, 16], batch: 17, ..depthwise },
        Conv { size: [6, 7], pad: [0, 0], activation: Some(Relu), input_activation: Some(Relu), ..depthwise },
        Conv { size: [3, 3], pad: [2, 3], bias: false, batch: 33, ..depthwise },
        // Filters of every width.
        Conv { kernel: [5, 5], pad: [2, 2], input_activation: Some(Tanh), ..depthwise },
        Conv { kernel: [2, 4], pad: [0, 2], activation: Some(Sigmoid), ..depthwise },
        Conv { kernel: [4, 2], size: [9, 10], ..depthwise },
        Conv { kernel: [1, 1], pad: [0, 0], activation: Some(ScaledTanh), ..depthwise },
        Conv { kernel: [3, 5], size: [5, 5], pad: [1, 2], bias: false, ..depthwise },
        // Strides, with rows and columns left over, and dilation.
        Conv { size: [8, 18], stride: [2, 2], input_activation: Some(Sigmoid), batch: 17, ..depthwise },
        Conv { size: [7, 11], stride: [1, 2], pad: [0, 1], ..depthwise },
        Conv { size: [8, 9], stride: [3, 1], activation: Some(Tanh), ..depthwise },
        Conv { size: [5, 8], kernel: [2, 1], stride: [3, 3], pad: [0, 0], ..depthwise },
        Conv {
            size: [6, 20],
            dilation: [1, 2],
            pad: [1, 2],
            input_activation: Some(ScaledTanh),
            ..depthwise
        },
        Conv { size: [9, 7], dilation: [2, 1], stride: [2, 1], pad: [2, 0], ..depthwise },
        Conv { size: [7, 13], dilation: [2, 2], stride: [1, 3], pad: [1, 2], ..depthwise },
        // Fewer partial sums than blocks: two for four blocks, one for two.
        Conv { size: [4, 4], batch: 64, fill: 96, ..depthwise },
        Conv { size: [4, 5], batch: 30, fill: 48, ..depthwise },
    ];
    table.into_iter().map(case).collect()
}
