//! Local response normalisation.

use lenet::kernels::lrn;

use super::*;

#[derive(Debug, Clone, Copy)]
pub struct Response {
    pub size: usize,
    pub alpha: f64,
    pub beta: f64,
    pub k: f64,
}

/// Channels before the first and after the last count as 0.
pub fn response_reference(r: Response, input: &Images) -> Images {
    Images::build(input.shape, |n, c, y, x| {
        let at = |c: isize| {
            let exists = c >= 0 && c < input.shape[1] as isize;
            if exists { input.values[input.index(n, c as usize, y, x)] } else { 0.0 }
        };
        let first = c as isize - (r.size / 2) as isize;
        let squares: f64 = (first..first + r.size as isize).map(|c| at(c).powi(2)).sum();
        at(c as isize) / (r.k + r.alpha * squares / r.size as f64).powf(r.beta)
    })
}

fn geometry(r: Response, shape: [usize; 4]) -> lrn::Geometry {
    let [batch, channels, height, width] = shape;
    lrn::Geometry {
        channels,
        positions: height * width,
        size: r.size,
        alpha: r.alpha as f32,
        beta: r.beta as f32,
        k: r.k as f32,
        batch,
    }
}

fn launches(g: lrn::Geometry, f: Flow) -> Vec<Launch> {
    vec![g.forward(f.input, f.output).unwrap(), g.backward(f.input, f.output_grad, f.input_grad).unwrap()]
}

#[test]
fn local_response_normalisation() {
    let mut random = Random(9);
    let mut worst = Worst::default();
    let plain = Response { size: 5, alpha: 0.5, beta: 0.75, k: 1.0 };
    let cases = [
        ([3, 7, 2, 3], plain),
        ([2, 6, 1, 2], Response { size: 4, alpha: 2.0, k: 0.5, ..plain }),
        ([1, 5, 3, 1], Response { size: 1, beta: 0.5, ..plain }),
        ([2, 4, 2, 2], Response { size: 2, beta: 1.0, ..plain }),
        // Wider than there are channels.
        ([19, 3, 1, 2], Response { size: 8, alpha: 4.0, beta: 1.5, ..plain }),
    ];
    for (shape, r) in cases {
        let input = Images::random(shape, &mut random);
        let input = Images { values: input.values.iter().map(|x| 2.0 * x).collect(), ..input };
        let layer = Plain {
            what: format!("{r:?} of {shape:?}"),
            input,
            formula: &|input| response_reference(r, input),
            allowed: FUNCTIONS,
        };
        layer.check(&mut worst, &mut random, |_, f| launches(geometry(r, shape), f));
    }
    worst.report("local response normalisation");
}

/// Windows of an even size reach further back than ahead: what PyTorch 2 makes of six channels.
#[test]
fn local_response_windows_are_pytorchs() {
    let input = Images { shape: [1, 6, 1, 1], values: vec![-0.5, 1.0, 0.75, -2.0, 0.25, 1.5] };
    let upstream = [1.0, -0.5, 0.25, 2.0, -1.0, 0.5];
    let cases = [
        (
            4,
            [
                -0.28099310932951105,
                0.5486227746234896,
                0.3534676482702316,
                -0.948703272821106,
                0.11369377111549461,
                0.6950204354761246,
            ],
            [
                0.5412575776524009,
                -0.10124209057187505,
                0.23489038135345103,
                0.7294462631633554,
                -0.4258487563280967,
                0.20781342520539065,
            ],
        ),
        (
            5,
            [
                -0.27857421867138116,
                0.4910519593341413,
                0.3676215776891424,
                -0.9270834721232476,
                0.11910463265260535,
                0.7260552568222473,
            ],
            [
                0.5430999518852971,
                -0.11765320906174605,
                0.22343087917071586,
                0.7377467861415944,
                -0.45631840824770853,
                0.3706109265450513,
            ],
        ),
    ];
    for (size, output, gradient) in cases {
        let r = Response { size, alpha: 0.5, beta: 0.75, k: 2.0 };
        let [got, input_grad] = flow(&input, &upstream, |_, f| launches(geometry(r, input.shape), f));
        let mut worst = Worst::default();
        worst.close(&format!("{size} channels: output"), &got, &output, FUNCTIONS);
        worst.close(&format!("{size} channels: input"), &input_grad, &gradient, FUNCTIONS);
    }
}
