//! Linear layers.

use lenet::kernels::linear;

use super::*;

pub fn linear_reference(outputs: usize, input: &Images, weight: &[f64], bias: &[f64]) -> Images {
    let inputs = input.features();
    Images::build([input.shape[0], outputs, 1, 1], |n, o, _, _| {
        let products = (0..inputs).map(|i| weight[o * inputs + i] * input.values[n * inputs + i]);
        bias.get(o).copied().unwrap_or(0.0) + products.sum::<f64>()
    })
}

#[test]
fn linear_layer() {
    // Images, inputs, outputs.
    let cases = [(1, 1, 1, true), (3, 17, 5, true), (5, 9, 13, false), (2, 7, 8, true), (35, 6, 11, true)];
    let mut random = Random(2);
    let mut worst = Worst::default();
    for (images, inputs, outputs, with_bias) in cases {
        let before = Images::random([images, inputs, 1, 1], &mut random);
        let weight = random.units(inputs * outputs);
        let bias = random.units(if with_bias { outputs } else { 0 });
        let g = linear::Geometry {
            inputs,
            outputs,
            bias: with_bias,
            activation: None,
            input_activation: None,
            batch: images,
            target: Target { fill: 4096, ..Target::CPU },
        };
        let what = format!("{inputs} to {outputs}, {images} images");
        let formula =
            |input: &Images, weight: &[f64], bias: &[f64]| linear_reference(outputs, input, weight, bias);
        let splits = g.splits();
        let layer = Weighted { what, before, activation: None, weight, bias, formula: &formula, splits };
        layer.check(&mut worst, &mut random, |buffers, gradients, input_grad| {
            vec![
                g.forward(buffers).unwrap(),
                g.weight_gradient(buffers, gradients).unwrap(),
                g.input_gradient(buffers, gradients, input_grad).unwrap(),
            ]
        });
    }
    worst.report("linear");
}
