//! Dropout: the mask is whatever the step drew.

use lenet::kernels::dropout;

use super::*;

#[test]
fn dropping_out() {
    let mut random = Random(8);
    let mut worst = Worst::default();
    for (images, features, rate) in [(1, 1, 0.5), (3, 17, 0.25), (35, 6, 0.75), (2, 300, 0.125)] {
        let g = dropout::Geometry { features, rate, layer: 3, batch: images };
        let input = random.units(images * features);
        let upstream = random.units(images * features);
        let mut rig = Rig::default();
        let ones = rig.images("ones", &vec![1.0; images * features], features);
        let mask = rig.result("mask", features, images);
        let from = rig.images("input", &narrow(&input), features);
        let to = rig.result("output", features, images);
        let gradient = rig.upstream("upstream", &narrow(&upstream), features);
        let input_grad = rig.result("input_grad", features, images);
        let launches = vec![
            g.forward(ones, mask).unwrap(),
            g.forward(from, to).unwrap(),
            g.backward(gradient, input_grad).unwrap(),
        ];
        let ran = rig.run(launches, Step { seed: 99, ..step(images) });
        // Which elements are kept is whatever the step drew; what becomes of them is the formula's.
        let kept: Vec<bool> = ran.rows(mask, features, images).iter().map(|&y| y != 0.0).collect();
        assert!(kept.len() < 20 || kept.contains(&true) && kept.contains(&false));
        let reference = |x: &[f64]| {
            let kept =
                x.iter().zip(&kept).map(|(x, &kept)| if kept { x / (1.0 - f64::from(rate)) } else { 0.0 });
            Images { shape: [images, features, 1, 1], values: kept.collect() }
        };
        let what = |tensor: &str| format!("{g:?}: {tensor}");
        worst.close(&what("output"), &ran.rows(to, features, images), &reference(&input).values, POOLS);
        let want = slopes(&input, &|x| weighed(&upstream, &reference(x)));
        worst.close(&what("input"), &ran.rows(input_grad, features, images), &want, POOLS);
    }
    worst.report("dropout");
}
