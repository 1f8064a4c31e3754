//! The cases of `shaders/join.wgsl`.

use crate::check::kernels::*;
use crate::kernels::join;
use crate::kernels::join::{Geometry, MOST, Part};

const ACTIVATIONS: [Option<Activation>; 5] = [
    None,
    Some(Activation::Relu),
    Some(Activation::Sigmoid),
    Some(Activation::Tanh),
    Some(Activation::ScaledTanh),
];

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for terms in 2..=MOST {
        for activation in ACTIVATIONS {
            cases.push(sum(terms, activation, 16 * 61)?);
        }
    }
    for activation in ACTIVATIONS {
        let mut case = Case::new(format!("{activation:?} of terms that are not finite"));
        let (most, least) = (f32::INFINITY, f32::NEG_INFINITY);
        let terms = [[f32::NAN, most, most, least, 1.0], [1.0, least, 1.0, 1.0, f32::NAN]];
        let terms = terms.map(|term| case.floats("term", &term));
        let output = case.output("output", 5, TRANSCENDENTAL);
        case.not_numbers(output, [0, 1, 4]);
        case.launch(join::sum(&terms, activation, output))?;
        cases.push(case);
    }
    // More workgroups than fit one row of the grid.
    cases.push(sum(2, Some(Activation::Relu), 65_535 * 64 + 80)?);
    // Features of each part, features before and after them, batch.
    let table: [(&[usize], usize, usize, usize); 9] = [
        (&[5], 0, 0, 3),
        (&[7], 3, 9, 17),
        (&[4, 9], 0, 0, 16),
        (&[1, 1], 2, 0, 33),
        (&[13, 2, 6], 0, 0, 20),
        (&[3, 12, 1], 0, 5, 3),
        (&[2, 5, 1, 7], 0, 0, 40),
        (&[16, 3, 8, 4], 11, 2, 17),
        (&[40, 40, 40, 40], 40, 40, 1),
    ];
    for (features, offset, after, batch) in table {
        let total = offset + features.iter().sum::<usize>() + after;
        let g = Geometry { offset, total, batch };
        let mut case = Case::new(format!("{features:?} of {g:?}"));
        let mut random = Random::of(&case.name);
        let rows = lanes(batch);
        let exact = Compare::Bits;
        let parts: Vec<Part> = features
            .iter()
            .map(|&features| Part { range: case.floats("part", &random.floats(features * rows)), features })
            .collect();
        let run = features.iter().sum::<usize>() * LANES;
        let written: Vec<_> = (0..rows / LANES)
            .map(|block| {
                let start = (block * total + offset) * LANES;
                start..start + run
            })
            .collect();
        let whole = case.add("output", &vec![POISON; total * rows], POISON, &written, exact);
        let output_grad = case.floats("output_grad", &random.floats(total * rows));
        let gradients: Vec<Part> = features
            .iter()
            .map(|&features| Part { range: case.output("part_grad", features * rows, exact), features })
            .collect();
        case.launch(g.concat(&parts, whole))?;
        case.launch(g.split(output_grad, &gradients))?;
        cases.push(case);
    }
    Ok(cases)
}

fn sum(terms: usize, activation: Option<Activation>, elements: usize) -> Result<Case> {
    let mut case = Case::new(format!("{activation:?} of {terms} terms of {elements}"));
    let mut random = Random::of(&case.name);
    // Sums of exactly 0 among them.
    let values = |random: &mut Random, sign: f32| -> Vec<f32> {
        random
            .floats(elements)
            .iter()
            .enumerate()
            .map(|(i, v)| if i % 7 == 0 { sign } else { 4.0 * v })
            .collect()
    };
    let ranges: Vec<Range> = (0..terms)
        .map(|term| {
            let sign = if term + 1 == terms { (1 - terms as i32) as f32 } else { 1.0 };
            case.floats("term", &values(&mut random, sign))
        })
        .collect();
    let compare = if activation.is_some_and(|a| a != Activation::Relu) { TRANSCENDENTAL } else { ARITHMETIC };
    let output = case.output("output", elements, compare);
    case.launch(join::sum(&ranges, activation, output))?;
    if let Some(activation) = activation {
        let output_grad = case.floats("output_grad", &random.floats(elements));
        let input_grad = case.output("input_grad", elements, compare);
        case.launch(join::slope(activation, output, output_grad, input_grad))?;
    }
    Ok(case)
}
