//! Convolutions of all strides, paddings, dilations and groups.

use lenet::kernels::{conv2d, depthwise};

use super::*;

#[derive(Debug, Clone, Copy)]
pub struct Conv {
    pub out: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub pad: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Conv {
    fn out_size(&self, input: &Images) -> [usize; 2] {
        [0, 1].map(|d| {
            let reach = self.dilation[d] * (self.kernel[d] - 1) + 1;
            (input.shape[2 + d] + 2 * self.pad[d] - reach) / self.stride[d] + 1
        })
    }
}

pub fn conv_reference(k: Conv, input: &Images, weight: &[f64], bias: &[f64]) -> Images {
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
    let (mut worst, mut depthwise_cases) = (Worst::default(), 0);
    let ends = [
        None,
        Some(Activation::Relu),
        Some(Activation::Sigmoid),
        Some(Activation::Tanh),
        Some(Activation::ScaledTanh),
    ];
    for ((shape, k, with_bias), activation) in cases.into_iter().zip(ends.into_iter().cycle()) {
        let before = Images::random(shape, &mut random);
        let weight = random.units(k.out * shape[1] / k.groups * k.kernel[0] * k.kernel[1]);
        let bias = random.units(if with_bias { k.out } else { 0 });
        let g = conv2d::Geometry {
            in_channels: shape[1],
            in_size: [shape[2], shape[3]],
            out_channels: k.out,
            out_size: k.out_size(&before),
            kernel: k.kernel,
            stride: k.stride,
            pad: k.pad,
            dilation: k.dilation,
            groups: k.groups,
            bias: with_bias,
            activation,
            input_activation: activation,
            batch: shape[0],
            target: Target { fill: 4096, ..Target::CPU },
        };
        let what = format!("{k:?} with {activation:?} of {shape:?}");
        let formula = |input: &Images, weight: &[f64], bias: &[f64]| conv_reference(k, input, weight, bias);
        let splits = g.splits();
        let mut layer = Weighted { what, before, activation, weight, bias, formula: &formula, splits };
        layer.check(&mut worst, &mut random, |buffers, gradients, input_grad| {
            vec![
                g.forward(buffers).unwrap(),
                g.weight_gradient(buffers, gradients).unwrap(),
                g.input_gradient(buffers, gradients, input_grad).unwrap(),
            ]
        });
        let Some(g) = depthwise::Geometry::of(&g) else { continue };
        depthwise_cases += 1;
        layer.splits = g.splits();
        layer.check(&mut worst, &mut random, |buffers, gradients, input_grad| {
            vec![
                g.forward(buffers).unwrap(),
                g.weight_gradient(buffers, gradients).unwrap(),
                g.input_gradient(buffers, gradients, input_grad).unwrap(),
            ]
        });
    }
    assert_eq!(depthwise_cases, 5);
    worst.report("conv2d");
}
