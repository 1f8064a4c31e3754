//! Where branches meet: sums and concatenations.

use lenet::kernels::join;

use super::*;

#[test]
fn sums() {
    let mut random = Random(10);
    let mut worst = Worst::default();
    let by_value = [Activation::Relu, Activation::Sigmoid, Activation::Tanh, Activation::ScaledTanh];
    let activations = [None].into_iter().chain(by_value.map(Some));
    for (count, activation) in (2..=4).flat_map(|count| activations.clone().map(move |f| (count, f))) {
        let what = |tensor: &str| format!("{activation:?} of {count} terms: {tensor}");
        let (images, features) = (19, 6);
        // A sum near 0 is near the kink of a ReLU.
        let terms: Vec<Vec<f64>> = (0..count).map(|_| random.units(images * features)).collect();
        let near = |i: usize| terms.iter().map(|term| term[i]).sum::<f64>().abs() < 1e-4;
        assert!(!(0..images * features).any(near), "{}", what("too near the kink"));
        let reference = |terms: &[f64]| -> Vec<f64> {
            let sum = |i: usize| terms.iter().skip(i).step_by(images * features).sum::<f64>();
            let f = |x: f64| activation.map_or(x, |activation| activation_reference(activation, x));
            (0..images * features).map(|i| f(sum(i))).collect()
        };
        let upstream = random.units(images * features);
        let mut rig = Rig::default();
        let ranges: Vec<_> = terms.iter().map(|term| rig.images("term", &narrow(term), features)).collect();
        let output = rig.result("output", features, images);
        let gradient = rig.upstream("upstream", &narrow(&upstream), features);
        let mut launches = vec![join::sum(&ranges, activation, output).unwrap()];
        // Without an activation the gradient of the sum is that of its terms.
        let mut term_grad = gradient;
        if let Some(activation) = activation {
            term_grad = rig.result("term_grad", features, images);
            launches.push(join::slope(activation, output, gradient, term_grad).unwrap());
        }
        let ran = rig.run(launches, step(images));
        let all = terms.concat();
        worst.close(&what("output"), &ran.rows(output, features, images), &reference(&all), FUNCTIONS);
        let want = slopes(&all, &|terms| {
            upstream.iter().zip(reference(terms)).map(|(upstream, y)| upstream * y).sum()
        });
        let got = ran.rows(term_grad, features, images);
        for want in want.chunks(images * features) {
            worst.close(&what("a term"), &got, want, FUNCTIONS);
        }
    }
    worst.report("sums");
}

#[test]
fn concatenation() {
    let mut random = Random(11);
    let mut worst = Worst::default();
    // Channels of each part; more than four take two launches.
    for channels in [&[3][..], &[2, 5], &[1, 4, 2], &[3, 1, 2, 2], &[2, 1, 3, 1, 2, 4]] {
        let what = |tensor: &str| format!("{channels:?} channels: {tensor}");
        let (images, [height, width]) = (18, [2, 3]);
        let total: usize = channels.iter().sum();
        let parts: Vec<Images> =
            channels.iter().map(|&c| Images::random([images, c, height, width], &mut random)).collect();
        let reference = |parts: &[Images]| {
            Images::build([images, total, height, width], |n, c, y, x| {
                let mut c = c;
                let mut parts = parts.iter();
                loop {
                    let part = parts.next().expect("a part that has the channel");
                    if c < part.shape[1] {
                        return part.values[part.index(n, c, y, x)];
                    }
                    c -= part.shape[1];
                }
            })
        };
        let output = reference(&parts);
        let upstream = random.units(output.values.len());
        let mut rig = Rig::default();
        let whole = rig.result("output", output.features(), images);
        let gradient = rig.upstream("upstream", &narrow(&upstream), output.features());
        let mut launches = Vec::new();
        let mut offset = 0;
        let mut gradients = Vec::new();
        for parts in parts.chunks(join::MOST) {
            let g = join::Geometry { offset, total: output.features(), batch: images };
            let from: Vec<_> = parts
                .iter()
                .map(|part| join::Part {
                    range: rig.images("part", &narrow(&part.values), part.features()),
                    features: part.features(),
                })
                .collect();
            let to: Vec<_> = parts
                .iter()
                .map(|part| join::Part {
                    range: rig.result("part_grad", part.features(), images),
                    features: part.features(),
                })
                .collect();
            launches.push(g.concat(&from, whole).unwrap());
            launches.push(g.split(gradient, &to).unwrap());
            gradients.extend(to);
            offset += parts.iter().map(Images::features).sum::<usize>();
        }
        let ran = rig.run(launches, step(images));
        let got = ran.rows(whole, output.features(), images);
        worst.close(&what("output"), &got, &output.values, POOLS);
        for (i, part) in parts.iter().enumerate() {
            let want = slopes(&part.values, &|x| {
                let mut moved = parts.clone();
                moved[i].values = x.to_vec();
                weighed(&upstream, &reference(&moved))
            });
            let got = ran.rows(gradients[i].range, part.features(), images);
            worst.close(&what(&format!("part {i}")), &got, &want, POOLS);
        }
    }
    worst.report("concatenation");
}
