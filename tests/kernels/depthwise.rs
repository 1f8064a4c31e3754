//! What `shaders/depthwise.wgsl` takes.

use lenet::kernels::{Target, conv2d, depthwise};

#[test]
fn only_small_filters_of_single_channels_are_depthwise() {
    let conv = |channels: [usize; 2], groups, kernel: [usize; 2]| conv2d::Geometry {
        in_channels: channels[0],
        in_size: [7, 9],
        out_channels: channels[1],
        out_size: [8 - kernel[0], 10 - kernel[1]],
        kernel,
        stride: [1, 1],
        pad: [0, 0],
        dilation: [1, 1],
        groups,
        bias: true,
        activation: None,
        input_activation: None,
        batch: 3,
        target: Target::CPU,
    };
    let suits = |channels, groups, kernel| depthwise::Geometry::of(&conv(channels, groups, kernel)).is_some();
    assert!(suits([3, 3], 3, [3, 3]));
    assert!(suits([3, 3], 3, [5, 5]));
    assert!(!suits([3, 3], 3, [6, 1]));
    assert!(!suits([3, 6], 3, [3, 3]));
    assert!(!suits([6, 3], 3, [3, 3]));
    // A single channel is a convolution like others.
    assert!(!suits([1, 1], 1, [3, 3]));
}
