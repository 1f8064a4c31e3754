//! The cases of `shaders/rbf.wgsl`.

use crate::check::kernels::*;
use crate::kernels::rbf;

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    // Inputs, outputs, batch, fill; LeNet-5's units at the end.
    let table = [
        (1, 1, 1, fill),
        (3, 2, 3, fill),
        (5, 9, 17, fill),
        (8, 7, 16, fill),
        (35, 6, 33, 4096),
        // Fewer partial sums than blocks: two for five.
        (20, 12, 80, 30),
        // One for four.
        (84, 10, 64, 60),
    ];
    table
        .into_iter()
        .map(|(inputs, outputs, batch, fill)| {
            let g = rbf::Geometry { inputs, outputs, batch, target: Target { fill, ..Target::CPU } };
            let mut case = Case::new(format!("{g:?} in {} parts", g.splits()));
            let mut random = Random::of(&case.name);
            let rows = lanes(batch);
            let input = case.floats("input", &random.floats(inputs * rows));
            let weights =
                if inputs == 84 { crate::network::digit_codes() } else { random.floats(g.weights()) };
            let weight = case.packed("parameters", &[&weights])[0];
            let output_grad = case.floats("output_grad", &random.floats(outputs * rows));
            // Factors are within ±2, and a square is never negative: its sum grows with every term.
            let squares =
                Compare::Close { absolute: 4.0 * (inputs + 8) as f32 * f32::EPSILON, relative: 4e-6 };
            let output = case.output("output", outputs * rows, squares);
            let input_grad = case.output("input_grad", inputs * rows, sums(4 * outputs));
            let gradients = case.partials("gradients", &[g.weights()], g.splits(), sums(4 * rows));
            let buffers = rbf::Buffers { input, weight, output };
            case.launch(g.forward(buffers))?;
            case.launch(g.input_gradient(buffers, output_grad, input_grad))?;
            case.launch(g.weight_gradient(buffers, output_grad, gradients[0]))?;
            Ok(case)
        })
        .collect()
}
