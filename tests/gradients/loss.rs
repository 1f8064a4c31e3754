//! Softmax with cross-entropy.

use common::pack;
use lenet::kernels::loss;

use super::*;

/// The mean over the positions of all images of −Σ q log p. With a rubbish class of penalty j (LeCun et al. 1998,
/// eq. 9) the sum of exponentials has e⁻ʲ, too.
pub fn loss_reference(logits: &Images, labels: &[usize], smoothing: f64, rubbish: Option<f64>) -> f64 {
    let [images, classes, height, width] = logits.shape;
    let positions = height * width;
    assert_eq!(labels.len(), images * positions);
    let one = |(row, &label): (usize, &usize)| {
        let z = |k: usize| logits.values[(row / positions * classes + k) * positions + row % positions];
        let extra = rubbish.map_or(0.0, |j| (-j).exp());
        let log_sum = ((0..classes).map(|k| z(k).exp()).sum::<f64>() + extra).ln();
        let target = |k: usize| smoothing / classes as f64 + if k == label { 1.0 - smoothing } else { 0.0 };
        (0..classes).map(|k| target(k) * (log_sum - z(k))).sum::<f64>()
    };
    labels.iter().enumerate().map(one).sum::<f64>() / labels.len() as f64
}

#[test]
fn softmax_cross_entropy() {
    let mut random = Random(6);
    let mut worst = Worst::default();
    // Images in the batch, images that it has room for, classes, rows and columns of positions.
    let table =
        [(1, 1, 2, [1, 1]), (5, 7, 3, [1, 1]), (19, 40, 7, [1, 1]), (2, 2, 5, [3, 4]), (18, 20, 3, [5, 1])];
    // Label smoothing, and the penalty of a rubbish class.
    let settings = [(0.0, None), (0.125, None), (0.0, Some(0.5)), (0.0, Some(-2.0))];
    for (count, batch, classes, [height, width]) in table {
        for (smoothing, rubbish) in settings {
            let positions = height * width;
            let what = format!(
                "{count} of {batch} images, {classes} classes at {positions} positions, smoothing {smoothing}, \
                 rubbish {rubbish:?}"
            );
            let shape = [count, classes, height, width];
            let logits = Images::random(shape, &mut random);
            let logits = Images { values: logits.values.iter().map(|z| 4.0 * z).collect(), ..logits };
            let labels: Vec<usize> = (0..count * positions).map(|_| random.index(classes)).collect();
            let features = classes * positions;
            let mut rows = narrow(&logits.values);
            rows.resize(batch * features, 0.5);
            let mut rig = Rig::default();
            let g = loss::Geometry {
                classes,
                positions,
                smoothing: smoothing as f32,
                rubbish: rubbish.map(|j| j as f32),
                batch,
            };
            // The data set holds the batch's images in reverse, an image of no interest before them.
            let order: Vec<u32> = (1..=count as u32).rev().collect();
            let stored = labels.chunks(positions).rev().flatten().map(|&label| label as u8);
            let stored: Vec<u8> = vec![255; positions].into_iter().chain(stored).collect();
            let buffers = loss::Buffers {
                logits: rig.images("logits", &rows, features),
                labels: rig.words("labels", &pack(&stored)),
                order: rig.words("order", &order),
                rows: rig.poisoned("rows", 2 * g.rows()),
            };
            let logits_grad = rig.result("logits_grad", features, batch);
            let probabilities = rig.result("probabilities", features, batch);
            let metrics = rig.poisoned("metrics", loss::RECORD);
            let launches = vec![
                g.cross_entropy_gradient(buffers, logits_grad, metrics).unwrap(),
                g.sum_rows(buffers.rows, metrics).unwrap(),
                g.softmax(buffers.logits, probabilities).unwrap(),
            ];
            let ran = rig.run(launches, step(count));
            let mean = ran.floats(metrics)[0] / (count * positions) as f32;
            let reference = |logits: &Images| loss_reference(logits, &labels, smoothing, rubbish);
            worst.close(&what, &[mean], &[reference(&logits)], LOSSES);
            let want = slopes(&logits.values, &|z| reference(&Images { shape, values: z.to_vec() }));
            worst.close(&what, &ran.rows(logits_grad, features, count), &want, LOSSES);
            // Without the rubbish class, which is no class, whatever the loss.
            let want = Images::build(shape, |n, k, y, x| {
                let z = |k: usize| logits.values[logits.index(n, k, y, x)];
                z(k).exp() / (0..classes).map(|k| z(k).exp()).sum::<f64>()
            });
            worst.close(&what, &ran.rows(probabilities, features, count), &want.values, LOSSES);
            let right = labels.iter().enumerate().filter(|&(row, &label)| {
                let z =
                    |k: usize| logits.values[(row / positions * classes + k) * positions + row % positions];
                (0..classes).all(|k| k == label || z(k) < z(label))
            });
            let record = [right.count() as u32, (count * positions) as u32, 0];
            assert_eq!(ran.words(metrics)[1..], record, "{what}: rows right, rows, flags");
        }
    }
    worst.report("softmax with cross-entropy");
}
