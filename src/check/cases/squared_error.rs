//! The cases of `shaders/squared_error.wgsl`.

use crate::check::kernels::*;
use crate::kernels::loss::RECORD;
use crate::kernels::squared_error::{Buffers, Geometry};

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    // Classes, positions, smoothing, batch, images in it, position in the order.
    let table = [
        (10, 1, 0.0, 16, 16, 0),
        (10, 1, 0.1, 64, 61, 3),
        (2, 1, 0.0, 1, 1, 11),
        (7, 1, 0.1, 33, 20, 7),
        (35, 1, 0.0, 130, 129, 1),
        (4, 6, 0.0, 3, 3, 2),
        (5, 35, 0.1, 40, 33, 8),
        // More workgroups than fit one row of the grid.
        (2, (1 << 18) + 3, 0.0, 16, 15, 0),
    ];
    let mut cases = Vec::new();
    for (classes, positions, smoothing, batch, count, cursor) in table {
        let g = Geometry { classes, positions, smoothing, batch };
        let mut case = Case::new(format!("{g:?}, {count} images from {cursor}"));
        let mut random = Random::of(&case.name);
        let rows = lanes(batch) * positions;
        let images = if positions < 1000 { 140 } else { 16 };
        // By turns the outputs of an image are random, none positive with ties, and all the same.
        let values: Vec<f32> = (0..classes * rows)
            .map(|i| match i % LANES % 3 {
                0 => 2.0 * random.float(),
                1 => [-3.0, -0.5, 0.0][random.below(3) as usize],
                _ => 0.25,
            })
            .collect();
        let logits = case.floats("logits", &values);
        let labels = case.integers("labels", &random.labels(images * positions, classes));
        let order = case.integers("order", &random.order(images));
        let near = sums(classes);
        let trained = case.output("rows", 2 * rows, near);
        let evaluated = case.output("evaluated rows", 2 * rows, near);
        let logits_grad = case.output("logits_grad", classes * rows, ARITHMETIC);
        let probabilities = case.output("probabilities", classes * rows, ARITHMETIC);
        let buffers = Buffers { logits, labels, order, rows: trained };
        case.steps = vec![Step { cursor, count, slot: 2, ..Step::default() }];
        // Only the flags are cleared; the record is written at the step's end.
        let flags = 2 * RECORD + 3..2 * RECORD + 4;
        let poison = vec![POISON_U32; 4 * RECORD];
        let cleared = case.add("cleared", &poison, POISON_U32, &[flags], Compare::Bits);
        case.launch(g.squared_error_gradient(buffers, logits_grad, cleared))?;
        case.launch(g.squared_error(Buffers { rows: evaluated, ..buffers }))?;
        case.launch(g.shares(logits, probabilities))?;
        case.expected = vec![(cleared, 2 * RECORD + 3, 0)];
        cases.push(case);
    }
    Ok(cases)
}
