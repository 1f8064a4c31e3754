//! The cases of `shaders/activation.wgsl`.

use crate::check::kernels::*;

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    let kinds = [
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::LeakyRelu(-0.3),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::ScaledTanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Elu(1.0),
        Activation::Elu(0.4),
        Activation::Softplus,
        Activation::HardSwish,
    ];
    let mut cases = Vec::new();
    for kind in kinds {
        let sizes: &[usize] = if kind == Activation::Relu { &[1, 63, 64, 1000] } else { &[999] };
        for &elements in sizes {
            let mut case = Case::new(format!("{kind:?} of {elements}"));
            let mut random = Random::of(&case.name);
            let special =
                [0.0, -0.0, 1e4, -1e4, 3.0, -3.0, 15.0, -15.0, 88.0, -88.0, 20.0, -20.0, 1e-6, -1e-6, 1.0];
            let mut values: Vec<f32> = (0..elements).map(|_| 5.0 * random.float()).collect();
            for (value, special) in values.iter_mut().zip(special) {
                *value = special;
            }
            let input = case.floats("input", &values);
            let output_grad = case.floats("output_grad", &random.floats(elements));
            let output = case.output("output", elements, TRANSCENDENTAL);
            let input_grad = case.output("input_grad", elements, TRANSCENDENTAL);
            case.launch(kind.forward(input, output))?;
            case.launch(kind.backward(input, output_grad, input_grad))?;
            cases.push(case);
        }
    }
    // What is no number stays none, and what is infinite goes where the function goes.
    for kind in kinds {
        let mut case = Case::new(format!("{kind:?} of what is not finite"));
        let mut values = vec![f32::NAN, 2.0, -f32::NAN, -2.0];
        if kind.by_value() {
            values.extend([f32::INFINITY, f32::NEG_INFINITY]);
        }
        let input = case.floats("input", &values);
        let output = case.output("output", values.len(), TRANSCENDENTAL);
        case.not_numbers(output, [0, 2]);
        case.launch(kind.forward(input, output))?;
        cases.push(case);
    }
    // More workgroups than fit one row of the grid.
    let elements = 65_535 * 64 + 70;
    let mut case = Case::new(format!("Relu of {elements}"));
    let values = Random::of(&case.name).floats(elements);
    let input = case.floats("input", &values);
    let output = case.output("output", elements, ARITHMETIC);
    let input_grad = case.output("input_grad", elements, ARITHMETIC);
    case.launch(Activation::Relu.forward(input, output))?;
    case.launch(Activation::Relu.backward(input, input, input_grad))?;
    cases.push(case);
    Ok(cases)
}
