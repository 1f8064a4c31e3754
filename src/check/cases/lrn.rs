//! The cases of `shaders/lrn.wgsl`.

use crate::check::kernels::*;
use crate::kernels::lrn::Geometry;

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    // Channels, rows times columns, size of the window, alpha, beta, k, batch.
    let table = [
        (6, 20, 5, 1e-4, 0.75, 1.0, 17),
        (16, 9, 5, 0.5, 0.75, 2.0, 3),
        (7, 5, 4, 1.0, 0.75, 0.5, 33),
        (5, 3, 1, 0.8, 0.5, 1.0, 3),
        (4, 6, 2, 0.7, 1.0, 1.0, 16),
        (3, 7, 3, 0.9, 2.0, 0.75, 1),
        // Windows wider than there are channels.
        (3, 4, 9, 1.5, 0.75, 1.0, 3),
        (1, 10, 6, 1.0, 0.6, 1.0, 20),
        // Nothing but a constant.
        (4, 4, 3, 0.0, 0.75, 2.0, 3),
        (4, 4, 3, 1.0, 0.0, 2.0, 3),
    ];
    let mut cases = Vec::new();
    for (channels, positions, size, alpha, beta, k, batch) in table {
        let g = Geometry { channels, positions, size, alpha, beta, k, batch };
        let mut case = Case::new(format!("{g:?}"));
        let mut random = Random::of(&case.name);
        let len = channels * positions * lanes(batch);
        // By turns images are of size 1, of size 100, and black.
        let pixel = |(i, v): (usize, f32)| v * [1.0, 100.0, 0.0][i % LANES % 3];
        let values: Vec<f32> = random.floats(len).into_iter().enumerate().map(pixel).collect();
        let input = case.floats("input", &values);
        let output_grad = case.floats("output_grad", &random.floats(len));
        let output = case.output("output", len, TRANSCENDENTAL);
        let input_grad = case.output("input_grad", len, TRANSCENDENTAL);
        case.launch(g.forward(input, output))?;
        case.launch(g.backward(input, output_grad, input_grad))?;
        cases.push(case);
    }
    Ok(cases)
}
