//! The cases of `shaders/pool2d.wgsl`.

use crate::check::kernels::*;
use crate::kernels::pool2d;

/// What a pooling's inputs are like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pixels {
    Random,
    /// Three integers, so that most windows have ties.
    Ties,
    /// The lowest floats there are, −inf among them.
    Lowest,
    /// Some that are not finite.
    Strange,
}

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    use Pixels::{Lowest, Random, Strange, Ties};
    // Channels, size, output's size, kernel, stride, padding, batch, pixels.
    let table = [
        (3, [8, 8], [4, 4], [2, 2], [2, 2], [0, 0], 17, Random),
        (6, [6, 10], [3, 5], [2, 2], [2, 2], [0, 0], 64, Ties),
        (1, [7, 5], [3, 2], [2, 2], [2, 2], [0, 0], 1, Random),
        (2, [9, 7], [3, 2], [3, 3], [3, 3], [0, 0], 3, Random),
        // Windows that overlap.
        (2, [7, 8], [3, 3], [3, 3], [2, 2], [0, 0], 16, Random),
        (2, [7, 8], [3, 3], [3, 3], [2, 2], [0, 0], 33, Ties),
        (1, [5, 6], [4, 5], [2, 2], [1, 1], [0, 0], 3, Ties),
        (1, [4, 4], [1, 1], [4, 4], [4, 4], [0, 0], 3, Ties),
        // Windows with gaps between.
        (2, [8, 8], [3, 3], [2, 2], [3, 3], [0, 0], 3, Random),
        // Padding.
        (2, [6, 6], [4, 4], [2, 2], [2, 2], [1, 1], 3, Random),
        (1, [5, 7], [3, 4], [3, 3], [2, 2], [1, 1], 17, Ties),
        (1, [6, 5], [6, 3], [3, 2], [1, 2], [1, 1], 3, Random),
        // Sizes rounded up: the last windows reach over the end, or over the padding too.
        (2, [5, 7], [3, 4], [2, 2], [2, 2], [0, 0], 3, Ties),
        (1, [6, 6], [4, 4], [3, 3], [2, 2], [1, 1], 3, Random),
        (1, [7, 6], [3, 3], [3, 3], [3, 3], [1, 1], 3, Ties),
        // Windows of unequal sides.
        (2, [6, 9], [2, 4], [3, 2], [3, 2], [0, 0], 20, Random),
        (1, [1, 9], [1, 4], [1, 3], [1, 2], [0, 0], 3, Ties),
        // Values as low as padding.
        (1, [5, 5], [3, 3], [3, 3], [2, 2], [1, 1], 3, Lowest),
        (2, [6, 6], [3, 3], [2, 2], [2, 2], [0, 0], 17, Lowest),
        // Windows that lie in the padding alone, which no place of the input wins.
        (2, [3, 3], [4, 4], [2, 2], [2, 2], [2, 2], 3, Lowest),
        (1, [4, 5], [7, 2], [2, 2], [1, 3], [2, 0], 17, Lowest),
        // NaNs, which win.
        (2, [6, 6], [3, 3], [2, 2], [2, 2], [0, 0], 17, Strange),
        (1, [7, 9], [4, 5], [3, 3], [2, 2], [1, 1], 3, Strange),
        // More workgroups than fit one row of the grid.
        (65, [65, 64], [64, 64], [2, 1], [1, 1], [0, 0], 1, Ties),
    ];
    let mut cases = Vec::new();
    for (channels, in_size, out_size, kernel, stride, pad, batch, pixels) in table {
        for count_pad in [true, false] {
            let g = pool2d::Geometry { channels, in_size, out_size, kernel, stride, pad, count_pad, batch };
            let mut case = Case::new(format!("{pixels:?} {g:?}"));
            let mut random = self::Random::of(&case.name);
            let rows = lanes(batch);
            let (inputs, outputs) =
                (channels * in_size[0] * in_size[1] * rows, channels * out_size[0] * out_size[1] * rows);
            let values: Vec<f32> = match pixels {
                Random => random.floats(inputs),
                Ties => (0..inputs).map(|_| random.below(3) as f32 - 1.0).collect(),
                Strange => {
                    let strange =
                        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN, 1.0, -1.0, 0.5, 0.0];
                    (0..inputs).map(|_| strange[random.below(8) as usize]).collect()
                }
                Lowest => {
                    let lowest = [f32::NEG_INFINITY, f32::MIN, -3e38, -1e38];
                    (0..inputs).map(|_| lowest[random.below(4).min(random.below(4)) as usize]).collect()
                }
            };
            let input = case.floats("input", &values);
            let output_grad = case.floats("output_grad", &random.floats(outputs));
            let terms = sums(kernel[0] * kernel[1]);
            if count_pad {
                let output = case.output("output", outputs, Compare::Close { absolute: 0.0, relative: 0.0 });
                let poison = vec![POISON_U32; outputs];
                let winner = case.add("winner", &poison, POISON_U32, &[0..outputs], Compare::Bits);
                let input_grad = case.output("input_grad", inputs, terms);
                let nan = |i: usize| {
                    let [x, y] = [i / LANES % out_size[1], i / LANES / out_size[1] % out_size[0]];
                    let start = i / (LANES * out_size[0] * out_size[1]) * in_size[0] * in_size[1];
                    let within = |at: usize, d: usize| {
                        let from = at * stride[d];
                        (from.max(pad[d])..(from + kernel[d]).min(in_size[d] + pad[d]))
                            .map(move |t| t - pad[d])
                    };
                    within(y, 0).any(|y| {
                        within(x, 1)
                            .any(|x| values[(start + y * in_size[1] + x) * LANES + i % LANES].is_nan())
                    })
                };
                case.not_numbers(output, (0..outputs).filter(|&i| pixels == Strange && nan(i)));
                case.launch(g.max_forward(input, output, winner))?;
                case.launch(g.max_backward(output_grad, winner, input_grad))?;
            }
            if matches!(pixels, Random | Ties) {
                let mean = case.output("mean", outputs, terms);
                let mean_grad = case.output("mean_grad", inputs, terms);
                case.launch(g.average_forward(input, mean))?;
                case.launch(g.average_backward(output_grad, mean_grad))?;
            }
            if !case.program.train.is_empty() {
                cases.push(case);
            }
        }
    }
    // Channels, size, adaptive output's size, batch: multiples, no multiples, all in one, larger than the input.
    let table = [
        (3, [8, 8], [4, 4], 17),
        (2, [7, 5], [3, 2], 3),
        (1, [10, 13], [7, 8], 33),
        (4, [6, 9], [1, 1], 20),
        (2, [5, 5], [5, 5], 1),
        (2, [3, 4], [5, 9], 3),
        (1, [1, 17], [1, 6], 16),
    ];
    for (channels, in_size, out_size, batch) in table {
        let g = pool2d::Geometry::adaptive(channels, in_size, out_size, batch);
        let mut case = Case::new(format!("adaptive {g:?}"));
        let mut random = self::Random::of(&case.name);
        let len = |size: [usize; 2]| channels * size[0] * size[1] * lanes(batch);
        let input = case.floats("input", &random.floats(len(in_size)));
        let output_grad = case.floats("output_grad", &random.floats(len(out_size)));
        let mean = case.output("mean", len(out_size), sums(in_size[0] * in_size[1]));
        let mean_grad = case.output("mean_grad", len(in_size), sums(out_size[0] * out_size[1]));
        case.launch(g.adaptive_forward(input, mean))?;
        case.launch(g.adaptive_backward(output_grad, mean_grad))?;
        cases.push(case);
    }
    for (channels, in_size, factor, batch) in
        [(3, [4, 4], [2, 2], 17), (1, [5, 3], [1, 3], 3), (2, [1, 6], [4, 1], 33), (2, [3, 2], [5, 4], 1)]
    {
        let g = pool2d::Geometry::upsampling(channels, in_size, factor, batch);
        let mut case = Case::new(format!("upsampling {g:?}"));
        let mut random = self::Random::of(&case.name);
        let len = |size: [usize; 2]| channels * size[0] * size[1] * lanes(batch);
        let input = case.floats("input", &random.floats(len(in_size)));
        let output_grad = case.floats("output_grad", &random.floats(len(g.out_size)));
        let output = case.output("output", len(g.out_size), Compare::Close { absolute: 0.0, relative: 0.0 });
        let input_grad = case.output("input_grad", len(in_size), sums(factor[0] * factor[1]));
        case.launch(g.upsample_forward(input, output))?;
        case.launch(g.upsample_backward(output_grad, input_grad))?;
        cases.push(case);
    }
    Ok(cases)
}
