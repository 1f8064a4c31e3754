//! The cases of `shaders/linear.wgsl`.

use crate::check::kernels::*;
use crate::kernels::linear;

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    // Inputs, outputs, batch, bias, activation, activation of the input.
    let table = [
        (1, 1, 1, true, None, None),
        (3, 2, 3, true, Some(Sigmoid), Some(Relu)),
        (5, 9, 17, true, Some(Relu), Some(Tanh)),
        (8, 13, 16, true, Some(ScaledTanh), Some(Sigmoid)),
        (7, 3, 33, false, Some(Tanh), Some(ScaledTanh)),
        (35, 33, 80, false, None, None),
        // More features than a workgroup takes, in both directions.
        (260, 5, 3, true, None, None),
    ];
    // Fewer partial sums than blocks: three for five, one for two.
    let split = [(200, 100, 80, true, Some(Relu), Some(Relu)), (260, 261, 30, true, None, None)];
    // For devices that so many invocations fill: tiles of 4, 2 and 1 features, whose sums 1 to 16 invocations share.
    let filled = [
        ((33, 21, 49, true, Some(Relu), Some(Tanh)), 256),
        ((33, 21, 49, true, None, None), 16_384),
        ((200, 100, 80, true, Some(Relu), Some(Relu)), 4096),
        ((13, 260, 64, false, None, Some(Sigmoid)), 1024),
        // Two partial sums of three blocks and of two.
        ((35, 33, 80, true, None, None), 4096),
        ((5, 9, 17, true, Some(Tanh), None), 4096),
        ((130, 9, 20, true, None, Some(ScaledTanh)), 1024),
        ((260, 5, 3, true, Some(Sigmoid), None), 16_384),
        ((66, 40, 30, true, None, None), 600),
    ];
    let plain = table.map(|shape| (shape, Target::filled_by(fill)));
    let split = split.map(|shape| (shape, Target { fill: 4096, ..Target::CPU }));
    let filled = filled.map(|(shape, fill)| (shape, Target { fill, ..Target::DISCRETE }));
    // Grids of several rows, the last of which is not full: of more groups of the weights' gradient than of the
    // input's, and of fewer.
    let folded = [
        ((70, 34, 80, true, Some(Relu), Some(Tanh)), Target { fill: 2048, row: 3, ..Target::DISCRETE }),
        ((230, 6, 70, true, None, None), Target { row: 2, ..Target::CPU }),
        ((9, 330, 20, false, Some(Sigmoid), None), Target { row: 5, ..Target::CPU }),
    ];
    let activations = [None, Some(Relu), Some(Sigmoid), Some(Tanh), Some(ScaledTanh)];
    let large = activations
        .into_iter()
        .flat_map(|activation| [Target::CPU, Target::DISCRETE].map(|target| overflowing(activation, target)));
    plain
        .into_iter()
        .chain(split)
        .chain(filled)
        .chain(folded)
        .map(|((inputs, outputs, batch, bias, activation, input_activation), target)| {
            let g = linear::Geometry { inputs, outputs, bias, activation, input_activation, batch, target };
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
        .chain(large)
        .collect()
}

/// Sums of terms that are no numbers, of every third image, and of the next ones of terms that overflow.
fn overflowing(activation: Option<Activation>, target: Target) -> Result<Case> {
    let (inputs, outputs, batch) = (9, FACTORS.len(), 3);
    let g =
        linear::Geometry { inputs, outputs, bias: true, activation, input_activation: None, batch, target };
    let mut case = Case::new(format!("{g:?} of terms that overflow"));
    let mut random = Random::of(&case.name);
    let mut values = random.floats(inputs * LANES);
    for lane in 0..LANES {
        let strange = [f32::NAN, HUGE, values[lane]][lane % 3];
        (values[lane], values[LANES + lane]) = (strange, strange);
    }
    let input = case.floats("input", &values);
    let mut weights = random.floats(g.weights());
    weights.chunks_exact_mut(inputs).zip(FACTORS).for_each(|(row, two)| row[..2].copy_from_slice(&two));
    let parameters = case.packed("parameters", &[&weights, &random.floats(outputs)]);
    let output = case.output("output", outputs * LANES, activated(activation, inputs));
    case.not_numbers(output, (0..outputs * LANES).filter(|i| (i % LANES).is_multiple_of(3)));
    case.launch(g.forward(linear::Buffers { input, weight: parameters[0], bias: parameters[1], output }))?;
    Ok(case)
}
