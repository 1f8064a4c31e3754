//! The cases of `shaders/peak.wgsl`.

use crate::check::kernels::*;
use crate::kernels::peak;

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (elements, rounds) in [(1, 8), (63, 16), (1000, 40)] {
        let mut case = Case::new(format!("{rounds} rounds of {elements} elements"));
        let mut values = Random::of(&case.name).floats(elements);
        if let [first, second, third, ..] = values.as_mut_slice() {
            (*first, *second, *third) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        }
        let input = case.floats("input", &values);
        // Twelve chains that stay below 11 + 41 and round twice a round on one side, once on the other.
        let rounding = 12.0 * 52.0 * 2.0 * rounds as f32 * f32::EPSILON;
        let output = case.output("output", elements, Compare::Close { absolute: rounding, relative: 0.0 });
        case.not_numbers(output, (0..elements).filter(|&i| values[i].is_nan()));
        case.launch(peak::multiply_add(input, output, rounds))?;
        cases.push(case);
    }
    // The last has more workgroups than fit one row of the grid.
    for words in [4, 260, 4 * (65_535 * 64 + 70)] {
        let mut case = Case::new(format!("a copy of {words} words"));
        let values = Random::of(&case.name).words(words);
        let source = case.integers("source", &values);
        let copied = case.add("copied", &vec![POISON_U32; words], POISON_U32, &[0..words], Compare::Bits);
        case.launch(peak::copy(source, copied))?;
        cases.push(case);
    }
    Ok(cases)
}
