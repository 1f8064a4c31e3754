//! Normalisation by the batch, by given statistics, and a scale alone.

use lenet::kernels::norm;

use super::*;

/// Each channel by its mean and variance over the images, by given ones, or as it is; then `f(weight · x̂ + bias)`.
pub fn norm_reference(
    g: &norm::Geometry,
    input: &Images,
    [weight, bias]: [&[f64]; 2],
    running: [&[f64]; 2],
) -> Images {
    Images::build(input.shape, |n, c, y, x| {
        let (mean, variance) = match g.kind {
            norm::Kind::Batch => moments_reference(input, c),
            norm::Kind::Running => (running[0][c], running[1][c]),
            norm::Kind::Affine => (0.0, 1.0 - f64::from(g.epsilon)),
        };
        let normalised =
            (input.values[input.index(n, c, y, x)] - mean) / (variance + f64::from(g.epsilon)).sqrt();
        let z = weight[c] * normalised + bias[c];
        g.activation.map_or(z, |activation| activation_reference(activation, z))
    })
}

/// The mean and the biased variance of a channel.
fn moments_reference(input: &Images, c: usize) -> (f64, f64) {
    let [images, _, height, width] = input.shape;
    let all: Vec<f64> = (0..images)
        .flat_map(|n| input.values[input.index(n, c, 0, 0)..][..height * width].iter().copied())
        .collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    (mean, all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64)
}

#[test]
fn normalisation() {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    // Images, channels, rows, columns; images that the batch has room for; activation; invocations that fill the
    // device; by how much the second channel's mean is moved.
    let cases = [
        ([3, 2, 4, 5], 3, None, 256, 0.0),
        ([5, 3, 1, 1], 7, Some(Relu), 256, 0.5),
        ([1, 1, 3, 2], 1, Some(Tanh), 256, 0.0),
        // More than one block, several partial sums, the last block ragged or empty.
        ([19, 2, 3, 3], 20, Some(Sigmoid), 4096, 2.0),
        ([9, 1, 5, 8], 40, Some(ScaledTanh), 4096, 0.0),
        ([37, 4, 1, 1], 37, None, 4096, 8.0),
        ([18, 3, 2, 2], 18, Some(Relu), 4096, 0.0),
    ];
    let mut random = Random(7);
    let mut worst = Worst::default();
    for (shape, batch, activation, fill, far) in cases {
        let target = Target { fill, ..Target::CPU };
        for kind in [norm::Kind::Batch, norm::Kind::Running, norm::Kind::Affine] {
            let [count, channels, height, width] = shape;
            let positions = height * width;
            let g = norm::Geometry { channels, positions, kind, epsilon: 0.0625, activation, batch, target };
            let what = |tensor: &str| format!("{g:?}, {count} images: {tensor}");
            let input = Images::random(shape, &mut random);
            let input = Images::build(shape, |n, c, y, x| {
                input.values[input.index(n, c, y, x)] + if c == 1 { far } else { 0.0 }
            });
            // Moved and back in f32.
            let input =
                Images { values: narrow(&input.values).into_iter().map(f64::from).collect(), ..input };
            let (weight, bias, mean) =
                (random.units(channels), random.units(channels), random.units(channels));
            let variance: Vec<f64> = random.units(channels).iter().map(|v| v.abs() + 0.25).collect();
            let running = [&mean[..], &variance[..]];
            let reference = |input: &Images, weight: &[f64], bias: &[f64]| {
                norm_reference(&g, input, [weight, bias], running)
            };
            let output = reference(&input, &weight, &bias);
            if activation == Some(Relu) {
                let plain = norm::Geometry { activation: None, ..g };
                let before = norm_reference(&plain, &input, [&weight, &bias], running);
                // A difference of 1e-6 moves a value before the kink by less than 4e-6: 1 / √ε is 4.
                assert!(before.values.iter().all(|z| z.abs() > CLEARANCE), "{}", what("near a kink"));
            }
            let upstream = random.units(output.values.len());

            let features = input.features();
            // Images that are not there, as anything finite.
            let with_rest = |values: &[f64], rest: f32| {
                let mut rows = narrow(values);
                rows.resize(batch * features, rest);
                rows
            };
            let mut rig = Rig::default();
            let saved = rig.poisoned("saved", g.saved());
            let statistics = [0, 1].map(|_| rig.poisoned("statistics", padded(channels)));
            let buffers = norm::Buffers {
                input: rig.images("input", &with_rest(&input.values, -7.5), features),
                weight: rig.parameter("weight", &narrow(&weight)),
                bias: rig.parameter("bias", &narrow(&bias)),
                running_mean: rig.parameter("running mean", &narrow(&mean)),
                running_variance: rig.parameter("running variance", &narrow(&variance)),
                batch: statistics,
                saved,
                output: rig.result("output", features, batch),
            };
            let gradients = norm::Gradients {
                output: rig.upstream("upstream", &with_rest(&upstream, 0.0), features),
                weight: rig.poisoned("weight_grad", g.splits() * padded(channels)),
                bias: rig.poisoned("bias_grad", g.splits() * padded(channels)),
            };
            let input_grad = rig.result("input_grad", features, batch);
            let mut launches = g.statistics(buffers).unwrap();
            launches.push(g.forward(buffers).unwrap());
            launches.push(g.weight_gradient(buffers, gradients).unwrap());
            launches.push(g.input_gradient(buffers, gradients, input_grad).unwrap());
            let ran = rig.run(launches, step(count));

            let got = ran.rows(buffers.output, features, batch);
            worst.close(&what("output"), &got[..count * features], &output.values, SUMS);
            assert!(got[count * features..].iter().all(|&y| y == 0.0), "{}", what("output of nobody"));
            let want = slopes(&input.values, &|x| {
                weighed(&upstream, &reference(&Images { shape, values: x.to_vec() }, &weight, &bias))
            });
            let got = ran.rows(input_grad, features, batch);
            worst.close(&what("input"), &got[..count * features], &want, SUMS);
            assert!(got[count * features..].iter().all(|&g| g == 0.0), "{}", what("gradient of nobody"));
            let want = slopes(&weight, &|w| weighed(&upstream, &reference(&input, w, &bias)));
            worst.close(&what("weight"), &ran.summed(gradients.weight, channels, g.splits()), &want, SUMS);
            let want = slopes(&bias, &|b| weighed(&upstream, &reference(&input, &weight, b)));
            worst.close(&what("bias"), &ran.summed(gradients.bias, channels, g.splits()), &want, SUMS);

            if kind == norm::Kind::Batch {
                // What the running averages take in; a variance of all but one.
                let elements = (count * positions) as f64;
                let of = |c| moments_reference(&input, c);
                let [got_mean, got_variance] = statistics.map(|range| ran.floats(range));
                let want: Vec<f64> = (0..channels).map(|c| of(c).0).collect();
                worst.close(&what("mean"), &got_mean[..channels], &want, SUMS);
                let want: Vec<f64> = (0..channels).map(|c| of(c).1 * elements / (elements - 1.0)).collect();
                worst.close(&what("variance"), &got_variance[..channels], &want, SUMS);
            }
        }
    }
    worst.report("normalisation");
}
