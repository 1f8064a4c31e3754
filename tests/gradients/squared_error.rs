//! The mean squared error.

use common::pack;
use lenet::kernels::loss;
use lenet::kernels::squared_error::{Buffers, Geometry};

use super::*;

/// The mean over the positions of all images of Σ (z − q)² / classes.
pub fn squared_error_reference(outputs: &Images, labels: &[usize], smoothing: f64) -> f64 {
    let [images, classes, height, width] = outputs.shape;
    let positions = height * width;
    assert_eq!(labels.len(), images * positions);
    let one = |(row, &label): (usize, &usize)| {
        let z = |k: usize| outputs.values[(row / positions * classes + k) * positions + row % positions];
        let target = |k: usize| smoothing / classes as f64 + if k == label { 1.0 - smoothing } else { 0.0 };
        (0..classes).map(|k| (z(k) - target(k)).powi(2)).sum::<f64>() / classes as f64
    };
    labels.iter().enumerate().map(one).sum::<f64>() / labels.len() as f64
}

#[test]
fn mean_squared_error() {
    let mut random = Random(16);
    let mut worst = Worst::default();
    // Images in the batch, images that it has room for, classes, rows and columns of positions.
    let table =
        [(1, 1, 2, [1, 1]), (5, 7, 3, [1, 1]), (19, 40, 7, [1, 1]), (2, 2, 5, [3, 4]), (18, 20, 3, [5, 1])];
    for (count, batch, classes, [height, width]) in table {
        for smoothing in [0.0, 0.125] {
            let positions = height * width;
            let what = format!("{count} of {batch}, {classes} classes at {positions}, smoothing {smoothing}");
            let shape = [count, classes, height, width];
            let outputs = Images::random(shape, &mut random);
            let labels: Vec<usize> = (0..count * positions).map(|_| random.index(classes)).collect();
            let features = classes * positions;
            let mut rows = narrow(&outputs.values);
            rows.resize(batch * features, 0.5);
            let mut rig = Rig::default();
            let g = Geometry { classes, positions, smoothing: smoothing as f32, batch };
            // The data set holds the batch's images in reverse, an image of no interest before them.
            let order: Vec<u32> = (1..=count as u32).rev().collect();
            let stored = labels.chunks(positions).rev().flatten().map(|&label| label as u8);
            let stored: Vec<u8> = vec![255; positions].into_iter().chain(stored).collect();
            let buffers = Buffers {
                logits: rig.images("logits", &rows, features),
                labels: rig.words("labels", &pack(&stored)),
                order: rig.words("order", &order),
                rows: rig.poisoned("rows", 2 * g.rows()),
            };
            let logits_grad = rig.result("logits_grad", features, batch);
            let probabilities = rig.result("probabilities", features, batch);
            let metrics = rig.poisoned("metrics", loss::RECORD);
            let launches = vec![
                g.squared_error_gradient(buffers, logits_grad, metrics).unwrap(),
                loss::sum_rows(g.rows(), positions, buffers.rows, metrics).unwrap(),
                g.shares(buffers.logits, probabilities).unwrap(),
            ];
            let ran = rig.run(launches, step(count));
            let mean = ran.floats(metrics)[0] / (count * positions) as f32;
            let reference = |outputs: &Images| squared_error_reference(outputs, &labels, smoothing);
            worst.close(&what, &[mean], &[reference(&outputs)], LOSSES);
            let want = slopes(&outputs.values, &|z| reference(&Images { shape, values: z.to_vec() }));
            worst.close(&what, &ran.rows(logits_grad, features, count), &want, LOSSES);
            let want = Images::build(shape, |n, k, y, x| {
                let z = |k: usize| outputs.values[outputs.index(n, k, y, x)];
                let sum: f64 = (0..classes).map(|k| z(k).max(0.0)).sum();
                let best = (1..classes).fold(0, |best, k| if z(k) > z(best) { k } else { best });
                if sum > 0.0 { z(k).max(0.0) / sum } else { f64::from(u8::from(k == best)) }
            });
            worst.close(&what, &ran.rows(probabilities, features, count), &want.values, LOSSES);
            let right = labels.iter().enumerate().filter(|&(row, &label)| {
                let z =
                    |k: usize| outputs.values[(row / positions * classes + k) * positions + row % positions];
                (0..classes).all(|k| k == label || z(k) < z(label))
            });
            let record = [right.count() as u32, (count * positions) as u32, 0];
            assert_eq!(ran.words(metrics)[1..], record, "{what}: rows right, rows, flags");
        }
    }
    worst.report("mean squared error");
}
