//! The cases of `shaders/norm.wgsl`.

use crate::check::kernels::*;
use crate::kernels::norm;
use crate::kernels::norm::Kind;

/// What the inputs are like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Values {
    /// Within ±1.
    Plain,
    /// The same and 1000: what a mean square without the mean would lose.
    Far,
    /// One value a channel: there is no variance.
    Constant,
}

/// A case: shapes, and how many images there are.
#[derive(Debug, Clone, Copy)]
struct Norm {
    channels: usize,
    positions: usize,
    activation: Option<Activation>,
    batch: usize,
    count: usize,
    fill: usize,
    values: Values,
    row: usize,
}

pub fn cases(fill: usize) -> Result<Vec<Case>> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    let plain = Norm {
        channels: 3,
        positions: 7,
        activation: None,
        batch: 3,
        count: 3,
        fill,
        values: Values::Plain,
        row: Target::CPU.row,
    };
    let table = [
        plain,
        Norm { channels: 1, positions: 1, batch: 1, count: 1, ..plain },
        // After a linear layer; more channels than a chunk or a workgroup has; images missing.
        Norm { channels: 70, positions: 1, batch: 33, count: 20, activation: Some(Relu), ..plain },
        Norm { channels: 5, positions: 1, batch: 80, count: 80, ..plain },
        // Split channels: by positions, by blocks, with pieces that are empty.
        Norm { positions: 100, batch: 17, count: 17, fill: 4096, activation: Some(Relu), ..plain },
        Norm { channels: 2, positions: 9, batch: 130, count: 129, fill: 4096, ..plain },
        Norm { channels: 1, positions: 65, batch: 16, count: 9, fill: 4096, activation: Some(Tanh), ..plain },
        Norm { channels: 6, positions: 36, batch: 64, count: 64, fill: 1 << 14, ..plain },
        Norm { channels: 2, positions: 30, batch: 40, count: 5, fill: 1 << 14, ..plain },
        // Other activations.
        Norm { positions: 20, batch: 20, count: 19, activation: Some(Sigmoid), ..plain },
        Norm { positions: 11, batch: 16, count: 16, activation: Some(ScaledTanh), ..plain },
        // Means far from 0, and channels without a variance.
        Norm { positions: 50, batch: 40, count: 33, fill: 4096, values: Values::Far, ..plain },
        Norm { positions: 24, batch: 20, count: 18, values: Values::Far, ..plain },
        Norm { positions: 12, batch: 16, count: 11, values: Values::Constant, ..plain },
        // Sums over grids of several rows, the last of which is not full.
        Norm { channels: 7, row: 3, ..plain },
        Norm { channels: 330, positions: 20, batch: 20, count: 20, fill: 1 << 16, row: 2, ..plain },
        // No image at all.
        Norm { positions: 4, batch: 5, count: 0, ..plain },
    ];
    let mut cases = Vec::new();
    for norm in table {
        for kind in [Kind::Batch, Kind::Running, Kind::Affine] {
            // The kinds without statistics have few ways to go wrong.
            let simple = norm.fill == fill && norm.values == Values::Plain && norm.count > 0;
            if kind == Kind::Batch || simple {
                cases.push(case(norm, kind)?);
            }
        }
    }
    for activation in [None, Some(Relu), Some(Sigmoid), Some(Tanh), Some(ScaledTanh)] {
        cases.push(not_finite(activation)?);
    }
    Ok(cases)
}

/// The affine map alone, of elements that are not finite.
fn not_finite(activation: Option<Activation>) -> Result<Case> {
    let (channels, positions, batch) = (2, 3, 5);
    let (kind, epsilon, target) = (Kind::Affine, 1e-3, Target::CPU);
    let g = norm::Geometry { channels, positions, kind, epsilon, activation, batch, target };
    let mut case = Case::new(format!("{g:?} of what is not finite"));
    case.steps = vec![Step { count: batch as u32, ..Step::default() }];
    let elements = channels * positions * LANES;
    let special = [f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY];
    let values: Vec<f32> = (0..elements).map(|i| special[i % 7 % 4]).collect();
    let input = case.floats("input", &values);
    let parameters = case.packed("parameters", &[&[0.5, -2.0], &[0.25, 1.0]]);
    let output = case.output("output", elements, TRANSCENDENTAL);
    case.not_numbers(output, (0..elements).filter(|&i| i % LANES < batch && values[i].is_nan()));
    let [weight, bias] = [parameters[0], parameters[1]];
    let unused = [weight; 2];
    let [running_mean, running_variance] = unused;
    let buffers = norm::Buffers {
        input,
        weight,
        bias,
        running_mean,
        running_variance,
        batch: unused,
        saved: weight,
        output,
    };
    case.launch(g.forward(buffers))?;
    Ok(case)
}

/// How far 1 / √variance may be off, relatively, and what comes of it: inputs of size `size` have a spacing of 2⁻²⁴ of
/// it, the mean is off by a few of those, and so is every difference from it, which a deviation near 0.6 divides.
fn of_size(size: f32, terms: usize) -> Compare {
    let spacing = size * f32::EPSILON;
    Compare::Close { absolute: 8.0 * spacing + (terms + 8) as f32 * (f32::EPSILON + spacing), relative: 1e-5 }
}

fn case(norm: Norm, kind: Kind) -> Result<Case> {
    let Norm { channels, positions, activation, batch, count, fill, values, row } = norm;
    let target = Target { row, ..Target::filled_by(fill) };
    let g = norm::Geometry { channels, positions, kind, epsilon: 1e-3, activation, batch, target };
    let mut case = Case::new(format!("{g:?}, {count} images, {values:?}, in {} parts", g.splits()));
    case.steps = vec![Step { count: count as u32, ..Step::default() }];
    let mut random = Random::of(&case.name);
    let features = channels * positions;
    let (elements, size) = (features * lanes(batch), if values == Values::Far { 1000.0 } else { 1.0 });
    let channel_of = |i: usize| i / LANES / positions % channels;
    let there = |i: usize| i / LANES / features * LANES + i % LANES < count;
    // Where there is no image lies what would spoil any sum.
    let input: Vec<f32> = (0..elements)
        .map(|i| match (there(i), values) {
            (false, _) => 1e30 * random.float(),
            (_, Values::Plain) => random.float(),
            (_, Values::Far) => 1000.0 + random.float(),
            (_, Values::Constant) => channel_of(i) as f32 - 0.7,
        })
        .collect();
    let input = case.floats("input", &input);
    let upstream: Vec<f32> = (0..elements).map(|i| if there(i) { random.float() } else { 0.0 }).collect();
    let output_grad = case.floats("output_grad", &upstream);
    let (weights, biases) = (random.floats(channels), random.floats(channels));
    let parameters = case.packed("parameters", &[&weights, &biases]);
    // An element of the output is one product; of size 1 / √ε where a channel has no variance.
    let close = of_size(size, 32);
    let averages: Vec<f32> =
        (0..2 * padded(channels)).map(|i| 0.5 + random.float().abs() + i as f32 * 1e-3).collect();
    let running = case.floats("running", &averages);
    let [running_mean, running_variance] =
        [0, 1].map(|i| sub(running, i * padded(channels), padded(channels)));
    let (mut saved, mut statistics) = (parameters[0], [parameters[0]; 2]);
    if kind == Kind::Batch {
        let written = [0..channels, padded(channels)..padded(channels) + channels];
        let compare = Compare::Close { absolute: 4.0 * size * f32::EPSILON, relative: 1e-5 };
        let both = case.add("statistics", &vec![POISON; 2 * padded(channels)], POISON, &written, compare);
        statistics = [0, 1].map(|i| sub(both, i * padded(channels), padded(channels)));
        let parts = if g.splits() > 1 { 2 + 3 * g.splits() } else { 2 };
        let written: Vec<_> =
            (0..parts).map(|i| i * padded(channels)..i * padded(channels) + channels).collect();
        // Sums of up to 129 · 100 squares below 1.
        let compare = Compare::Close { absolute: 16.0 * size * f32::EPSILON, relative: 1e-5 };
        saved = case.add("saved", &vec![POISON; g.saved()], POISON, &written, compare);
    }
    let compare = match activation {
        None | Some(Activation::Relu) => close,
        Some(_) => Compare::Close { absolute: 1e-4, relative: 4e-5 },
    };
    let output = case.output("output", elements, compare);
    let sums = of_size(size, positions * count);
    let gradients = case.partials("gradients", &[channels, channels], g.splits(), sums);
    let input_grad = case.output("input_grad", elements, of_size(size, 64));
    let buffers = norm::Buffers {
        input,
        weight: parameters[0],
        bias: parameters[1],
        running_mean,
        running_variance,
        batch: statistics,
        saved,
        output,
    };
    let upstream = norm::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
    for launch in g.statistics(buffers)? {
        case.launch(Ok(launch))?;
    }
    case.launch(g.forward(buffers))?;
    case.launch(g.weight_gradient(buffers, upstream))?;
    case.launch(g.input_gradient(buffers, upstream, input_grad))?;
    // Zeros where there is no image, on both sides.
    for i in (0..elements).filter(|&i| !there(i)) {
        case.expected.extend([(output, i, 0), (input_grad, i, 0)]);
    }
    Ok(case)
}
