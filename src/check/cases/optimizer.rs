//! The cases of `shaders/optimizer.wgsl`.

use crate::check::kernels::*;
use crate::kernels::loss::{LOSS_NOT_FINITE, RECORD};
use crate::kernels::optimizer;
use crate::kernels::optimizer::{GRADIENT_NOT_FINITE, Optimizer, Rule, Segment};

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for rule in Rule::ALL {
        let plain = Optimizer { epsilon: 1e-3, ..Optimizer::new(rule) };
        let penalised = Optimizer {
            momentum: 0.5,
            alpha: 0.7,
            beta1: 0.6,
            beta2: 0.8,
            epsilon: 0.05,
            weight_decay: 0.2,
            l1: 0.05,
            ..plain
        };
        cases.push(case("plain", plain, None, false)?);
        cases.push(case("with penalties", penalised, None, false)?);
        cases.push(case("with bad gradients", penalised, None, true)?);
        // The gradient's norm is about 15.
        cases.push(case("clipped", penalised, Some(2.0), false)?);
    }
    cases.push(case("clipped beyond its norm", Optimizer::new(Rule::Sgd), Some(100.0), false)?);
    cases.push(case("clipped with bad gradients", Optimizer::new(Rule::Adam), Some(2.0), true)?);
    for len in [64, 70, 16_384, 300_000] {
        cases.push(norm(len, false)?);
    }
    cases.push(norm(3000, true)?);
    Ok(cases)
}

/// Sums of the squares of three tensors, of which one is frozen.
fn norm(len: usize, bad: bool) -> Result<Case> {
    let mut case =
        Case::new(format!("square_sums of {len}{}", if bad { " with a gradient too large" } else { "" }));
    let mut random = Random::of(&case.name);
    let (mut segments, mut whole) = (Vec::new(), Vec::new());
    let (mut parameter, mut gradient) = (0, CHUNK);
    for (len, partials, trainable) in [(len, 3, true), (200, 2, false), (10, 1, true)] {
        let len = padded(len);
        for chunk in 0..len / CHUNK {
            let first = ((gradient + chunk * CHUNK) / 4) as u32;
            segments.push(Segment {
                first,
                stride: (len / 4) as u32,
                partials,
                trainable: u32::from(trainable),
            });
        }
        whole.push(gradient..gradient + len);
        parameter += len;
        gradient += len * partials as usize;
    }
    let mut values = random.floats(gradient + CHUNK);
    if bad {
        values[CHUNK + 5] = 3e30;
    }
    let gradients = case.updated("gradients", &values, &whole, ARITHMETIC);
    let segments = case.integers("segments", bytemuck::cast_slice(&segments));
    let norms = case.output("norms", optimizer::sums(parameter), sums(3 * len / optimizer::sums(parameter)));
    let unused = case.floats("unused", &[0.0]);
    let unused = Range { len: parameter, ..unused };
    let buffers = optimizer::Buffers {
        parameters: unused,
        gradients,
        moment1: unused,
        moment2: unused,
        segments,
        metrics: unused,
        rows: unused,
        norms,
        positions: 1,
    };
    case.launch(buffers.square_sums())?;
    Ok(case)
}

fn case(what: &str, settings: Optimizer, clip: Option<f32>, bad: bool) -> Result<Case> {
    let mut case = Case::new(format!("{} {what}", settings.rule.name()));
    let mut random = Random::of(&case.name);
    // Length, partial sums, whether it is trained.
    let tensors = [(70, 1, true), (64, 3, true), (10, 2, false), (200, 4, true), (5, 1, false), (1, 2, true)];
    let mut segments = Vec::new();
    let (mut parameter, mut gradient) = (0, CHUNK);
    // Elements that change, and first partial sums.
    let (mut changed, mut whole) = (Vec::new(), Vec::new());
    let mut starts = Vec::new();
    for (len, partials, trainable) in tensors {
        let len = padded(len);
        for chunk in 0..len / CHUNK {
            segments.push(Segment {
                first: ((gradient + chunk * CHUNK) / 4) as u32,
                stride: (len / 4) as u32,
                partials,
                trainable: u32::from(trainable),
            });
        }
        if trainable {
            changed.push(parameter..parameter + len);
        }
        whole.push(gradient..gradient + len);
        starts.push((parameter, gradient));
        parameter += len;
        gradient += len * partials as usize;
    }
    let mut gradients = random.floats(gradient + CHUNK);
    let mut flags = 0;
    if bad {
        flags = GRADIENT_NOT_FINITE;
        // In the only partial sum, in a later one, and made by adding up.
        let bad = [
            (0, 21, f32::NAN),
            (1, 2 * 64 + 3, f32::INFINITY),
            (3, 70, f32::INFINITY),
            (3, 256 + 70, f32::NEG_INFINITY),
            (3, 130, 3e38),
            (3, 3 * 256 + 130, 3e38),
        ];
        for (tensor, at, value) in bad {
            gradients[starts[tensor].1 + at] = value;
        }
        // The vectors of four around them stay as they are; where there is no norm to clip to, all do.
        if clip.is_some() {
            changed.clear();
        }
        for at in [starts[0].0 + 20, starts[1].0, starts[3].0 + 68, starts[3].0 + 128] {
            let Some(hit) = changed.iter().position(|range| range.contains(&at)) else { continue };
            let range = changed.swap_remove(hit);
            changed.extend([range.start..at, at + 4..range.end]);
        }
    }
    let mut values: Vec<f32> = random.floats(parameter);
    // The penalty's sign of zero is zero.
    values[8..12].copy_from_slice(&[0.0, -0.0, 0.0, -0.0]);
    let parameters = case.updated("parameters", &values, &changed, UPDATES);
    let gradients = case.updated("gradients", &gradients, &whole, UPDATES);
    case.buffers[gradients.buffer.0].nan = bad;
    let used = match settings.rule {
        Rule::Sgd => 0,
        Rule::Momentum | Rule::Nesterov => 1,
        Rule::Rmsprop | Rule::Adam | Rule::Adamw => 2,
    };
    let none = Vec::new();
    let values = random.floats(parameter);
    let moment1 = case.updated("moment1", &values, if used > 0 { &changed } else { &none }, UPDATES);
    let values: Vec<f32> = random.floats(parameter).into_iter().map(|v| 0.1 + v * v).collect();
    let moment2 = case.updated("moment2", &values, if used > 1 { &changed } else { &none }, UPDATES);
    let segments = case.integers("segments", bytemuck::cast_slice(&segments));
    // Each step writes its own record, and keeps the flags that are there.
    const OTHER_FLAG: u32 = 4;
    const POSITIONS: usize = 3;
    let records: Vec<u32> = (0..5).flat_map(|slot| [POISON_U32, slot, 16, OTHER_FLAG]).collect();
    let written: Vec<_> = (1..4).map(|slot| slot * RECORD..slot * RECORD + 4).collect();
    let metrics = case.add("metrics", &records, POISON_U32, &written, Compare::Metrics);
    case.buffers[metrics.buffer.0].nan = bad;
    let mut values: Vec<f32> =
        (0..5 * POSITIONS * LANES).flat_map(|_| [3.0 * random.float(), random.below(2) as f32]).collect();
    if bad {
        flags |= LOSS_NOT_FINITE;
        values[2 * 70] = f32::NAN;
    }
    let rows = case.floats("rows", &values);
    case.steps = (1..4)
        .map(|time| {
            let (correction1, correction2) = settings.corrections(u64::from(time));
            let learning_rate = [0.1, 0.03, 0.01][time as usize - 1];
            Step { slot: time, count: 70 + time, learning_rate, correction1, correction2, ..Step::default() }
        })
        .collect();
    let norms = match clip {
        Some(_) => case.output("norms", optimizer::sums(parameter), sums(parameter)),
        None => case.floats("norms", &[]),
    };
    case.buffers[norms.buffer.0].nan = bad;
    let buffers = optimizer::Buffers {
        parameters,
        gradients,
        moment1,
        moment2,
        segments,
        metrics,
        rows,
        positions: POSITIONS,
        norms,
    };
    if clip.is_some() {
        case.launch(buffers.square_sums())?;
    }
    case.launch(settings.launch(buffers, clip))?;
    case.expected = (1..4)
        .flat_map(|slot| {
            let count = (70 + slot as u32) * POSITIONS as u32;
            [(metrics, slot * RECORD + 2, count), (metrics, slot * RECORD + 3, OTHER_FLAG | flags)]
        })
        .collect();
    Ok(case)
}
