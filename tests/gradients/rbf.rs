//! Euclidean radial basis function units.

use lenet::kernels::rbf;

use super::*;

pub fn rbf_reference(outputs: usize, input: &Images, weight: &[f64]) -> Images {
    let inputs = input.features();
    Images::build([input.shape[0], outputs, 1, 1], |n, i, _, _| {
        let pairs = weight[i * inputs..][..inputs].iter().zip(&input.values[n * inputs..]);
        -pairs.map(|(w, x)| (x - w).powi(2)).sum::<f64>()
    })
}

#[test]
fn radial_basis_units() {
    // Images, inputs, outputs.
    let cases = [(1, 1, 1), (3, 17, 5), (2, 8, 7), (35, 6, 11)];
    let mut random = Random(9);
    let mut worst = Worst::default();
    for (images, inputs, outputs) in cases {
        let before = Images::random([images, inputs, 1, 1], &mut random);
        let weight = random.units(inputs * outputs);
        let g =
            rbf::Geometry { inputs, outputs, batch: images, target: Target { fill: 4096, ..Target::CPU } };
        let layer = Weighted {
            what: format!("{inputs} to {outputs}, {images} images"),
            before,
            activation: None,
            weight,
            bias: Vec::new(),
            formula: &|input, weight, _| rbf_reference(outputs, input, weight),
            splits: g.splits(),
        };
        layer.check(
            &mut worst,
            &mut random,
            |LayerBuffers { input, weight, output, .. }, gradients, input_grad| {
                let buffers = rbf::Buffers { input, weight, output };
                vec![
                    g.forward(buffers).unwrap(),
                    g.weight_gradient(buffers, gradients.output, gradients.weight).unwrap(),
                    g.input_gradient(buffers, gradients.output, input_grad).unwrap(),
                ]
            },
        );
    }
    worst.report("radial basis units");
}
