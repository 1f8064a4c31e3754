//! The cases of `shaders/loss.wgsl`.

use crate::check::kernels::*;
use crate::kernels::loss;
use crate::kernels::loss::RECORD;
use crate::kernels::optimizer::{Fault, Kind};

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    // Classes, positions, smoothing, rubbish class, batch, images in it, position in the order.
    let table = [
        (10, 1, 0.0, None, 16, 16, 0),
        (10, 1, 0.1, None, 64, 64, 3),
        (2, 1, 0.0, None, 1, 1, 11),
        (3, 1, 0.1, None, 17, 17, 5),
        (7, 1, 0.0, None, 33, 20, 7),
        (10, 1, 0.1, None, 130, 129, 1),
        (35, 1, 0.0, None, 3, 2, 90),
        // A label at every position; as many as make a word's four labels those of two images.
        (4, 6, 0.0, None, 3, 3, 2),
        (3, 49, 0.1, None, 17, 17, 5),
        (5, 35, 0.0, None, 40, 33, 8),
        (2, 130, 0.0, Some(1.0), 16, 5, 0),
        // More workgroups than fit one row of the grid.
        (2, (1 << 18) + 3, 0.0, None, 16, 15, 0),
        // A rubbish class, which outweighs the others or does not.
        (10, 1, 0.0, Some(0.1), 64, 61, 3),
        (10, 1, 0.0, Some(-20.0), 17, 17, 0),
        (6, 9, 0.0, Some(2.5), 18, 18, 1),
    ];
    let mut cases = Vec::new();
    for (classes, positions, smoothing, rubbish, batch, count, cursor) in table {
        let g = loss::Geometry { classes, positions, smoothing, rubbish, batch };
        let mut case = Case::new(format!("{g:?}, {count} images from {cursor}"));
        let mut random = Random::of(&case.name);
        let rows = lanes(batch) * positions;
        let images = if positions < 1000 { 140 } else { 16 };
        // By turns the logits of an image are random, ±1e4 with ties, and all the same.
        let values: Vec<f32> = (0..classes * rows)
            .map(|i| match i % LANES % 3 {
                0 => 6.0 * random.float(),
                1 => [1e4, -1e4, 0.0][random.below(3) as usize],
                _ => 2.5,
            })
            .collect();
        let logits = case.floats("logits", &values);
        let labels = case.integers("labels", &random.labels(images * positions, classes));
        let order = case.integers("order", &random.order(images));
        let trained = case.output("rows", 2 * rows, TRANSCENDENTAL);
        let evaluated = case.output("evaluated rows", 2 * rows, TRANSCENDENTAL);
        let logits_grad = case.output("logits_grad", classes * rows, TRANSCENDENTAL);
        let probabilities = case.output("probabilities", classes * rows, TRANSCENDENTAL);
        let poison = vec![POISON_U32; 4 * RECORD];
        let record = 2 * RECORD..3 * RECORD;
        let metrics = case.add("metrics", &poison, POISON_U32, &[record], Compare::Metrics);
        let buffers = loss::Buffers { logits, labels, order, rows: trained };
        case.steps = vec![Step { cursor, count, slot: 2, ..Step::default() }];
        // Only the flags are cleared; the record is written at the step's end.
        let flags = 2 * RECORD + 3..2 * RECORD + 4;
        let cleared = case.add("cleared", &poison, POISON_U32, &[flags], Compare::Bits);
        case.launch(g.cross_entropy_gradient(buffers, logits_grad, cleared))?;
        case.launch(g.cross_entropy(loss::Buffers { rows: evaluated, ..buffers }))?;
        case.launch(g.softmax(logits, probabilities))?;
        case.launch(g.sum_rows(trained, metrics))?;
        // Into fewer sums than there are rows for each, or more.
        for few in [3, loss::SUMS] {
            let close = Compare::Close { absolute: METRICS.0, relative: 2.0 * METRICS.1 };
            let sums = case.output(&format!("{few} sums"), 2 * few, close);
            case.launch(loss::add_rows(trained, sums))?;
        }
        case.expected = vec![
            (metrics, 2 * RECORD + 2, count * positions as u32),
            (metrics, 2 * RECORD + 3, 0),
            (cleared, 2 * RECORD + 3, 0),
        ];
        cases.push(case);
    }
    // A loss that is not finite raises the flag.
    for (what, loss) in [("NaN", f32::NAN), ("inf", f32::INFINITY), ("-inf", f32::NEG_INFINITY)] {
        for at in [0, 79] {
            let mut case = Case::new(format!("{what} as the loss of image {at}"));
            let mut values = Random::of(&case.name).floats(2 * 80);
            values.chunks_exact_mut(2).for_each(|row| row[1] = 1.0);
            values[2 * at] = loss;
            let rows = case.floats("rows", &values);
            let poison = vec![POISON_U32; 2 * RECORD];
            let metrics = case.add("metrics", &poison, POISON_U32, &[RECORD..2 * RECORD], Compare::Metrics);
            case.buffers[metrics.buffer.0].nan = true;
            case.steps = vec![Step { count: 80, slot: 1, ..Step::default() }];
            case.launch(PLAIN.sum_rows(rows, metrics))?;
            case.expected = vec![
                (metrics, RECORD + 1, 80),
                (metrics, RECORD + 2, 80),
                (metrics, RECORD + 3, Fault { kind: Kind::Loss, chunk: 0 }.flags()),
            ];
            cases.push(case);
        }
    }
    Ok(cases)
}

/// A classifier's loss of 80 images.
const PLAIN: loss::Geometry =
    loss::Geometry { classes: 10, positions: 1, smoothing: 0.0, rubbish: None, batch: 80 };
