//! The cases of `shaders/dropout.wgsl`.

use crate::check::kernels::*;
use crate::kernels::dropout;

/// Both sides draw the same words and do one multiplication: their results are the same bits.
const EXACT: Compare = Compare::Close { absolute: 0.0, relative: 0.0 };

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    // Features, rate, layer, batch, seed.
    let table = [
        (1, 0.5, 0, 1, 0),
        (7, 0.5, 1, 17, 1),
        (120, 0.25, 2, 64, 0x9E37_79B9),
        (301, 0.1, u32::MAX, 33, u32::MAX),
        (64, 0.9, 3, 16, 7),
        (10, 0.0, 4, 40, 8),
        (1030, 0.999_999_9, 5, 16, 9),
        // More workgroups than fit one row of the grid.
        (65_535 * 16 + 5, 0.4, 6, 16, 10),
    ];
    table
        .into_iter()
        .map(|(features, rate, layer, batch, seed)| {
            let g = dropout::Geometry { features, rate, layer, batch };
            let mut case = Case::new(format!("{g:?}, seed {seed}"));
            case.steps = vec![Step { seed, ..Step::default() }];
            let elements = features * lanes(batch);
            let mut random = Random::of(&case.name);
            let [input, output_grad] =
                ["input", "output_grad"].map(|name| case.floats(name, &random.floats(elements)));
            let [output, input_grad] =
                ["output", "input_grad"].map(|name| case.output(name, elements, EXACT));
            case.launch(g.forward(input, output))?;
            case.launch(g.backward(output_grad, input_grad))?;
            Ok(case)
        })
        .collect()
}
