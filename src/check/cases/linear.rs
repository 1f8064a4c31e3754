//! The cases of `shaders/linear.wgsl`.

use crate::check::kernels::*;
use crate::kernels::linear;

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    // Inputs, outputs, batch, bias, activation, activation of the input, fill.
    let table = [
        (1, 1, 1, true, None, None, fill),
        (3, 2, 3, true, Some(Sigmoid), Some(Relu), fill),
        (5, 9, 17, true, Some(Relu), Some(Tanh), fill),
        (8, 13, 16, true, Some(ScaledTanh), Some(Sigmoid), fill),
        (7, 3, 33, false, Some(Tanh), Some(ScaledTanh), fill),
        (35, 33, 80, false, None, None, fill),
        // More features than a workgroup takes, in both directions.
        (260, 5, 3, true, None, None, fill),
        // Fewer partial sums than blocks: three for five, one for two.
        (200, 100, 80, true, Some(Relu), Some(Relu), 4096),
        (260, 261, 30, true, None, None, 4096),
    ];
    table
        .into_iter()
        .map(|(inputs, outputs, batch, bias, activation, input_activation, fill)| {
            let g = linear::Geometry { inputs, outputs, bias, activation, input_activation, batch, fill };
            let mut case = Case::new(format!("{g:?} in {} parts", g.splits()));
            let mut random = Random::of(&case.name);
            let rows = lanes(batch);
            let input = case.floats("input", &random.floats(inputs * rows));
            let (weights, biases) = (random.floats(g.weights()), random.floats(outputs));
            let parameters = case.packed("parameters", &[&weights, &biases]);
            let output = case.output("output", outputs * rows, activated(activation, inputs));
            let output_grad = case.floats("output_grad", &random.floats(outputs * rows));
            let lens = if bias { vec![g.weights(), outputs] } else { vec![g.weights()] };
            let bound = if bias { parameters[1] } else { parameters[0] };
            let buffers = linear::Buffers { input, weight: parameters[0], bias: bound, output };
            case.launch(g.forward(buffers))?;
            // Both gradients in one launch and, for some shapes, in two.
            let input_grad = case.output("input_grad", inputs * rows, sums(outputs));
            let gradients = case.partials("gradients", &lens, g.splits(), sums(rows));
            let upstream =
                linear::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
            case.launch(g.backward(buffers, upstream, input_grad))?;
            if outputs % 2 == 1 {
                return Ok(case);
            }
            let input_grad = case.output("separate input_grad", inputs * rows, sums(outputs));
            let gradients = case.partials("separate gradients", &lens, g.splits(), sums(rows));
            let upstream =
                linear::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
            case.launch(g.input_gradient(buffers, upstream, input_grad))?;
            case.launch(g.weight_gradient(buffers, upstream))?;
            Ok(case)
        })
        .collect()
}
