//! The cases of `shaders/optimizer.wgsl`.

use crate::check::kernels::*;
use crate::kernels::loss::RECORD;
use crate::kernels::optimizer;
use crate::kernels::optimizer::{Fault, Kind, Optimizer, Rule, STATUS, Segment, TRAINED};

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
        cases.push(case("plain", plain, None, None)?);
        cases.push(case("with penalties", penalised, None, None)?);
        for bad in [Kind::Loss, Kind::Gradient, Kind::Moment] {
            if bad != Kind::Moment || rule != Rule::Sgd {
                cases.push(case("with", penalised, None, Some(bad))?);
            }
        }
        // The gradient's norm is about 15.
        cases.push(case("clipped", penalised, Some(2.0), None)?);
    }
    let plain = Optimizer::new(Rule::Sgd);
    // Rules whose step follows the size of the gradient, which does not overflow itself.
    for rule in [Rule::Sgd, Rule::Momentum, Rule::Nesterov] {
        cases.push(case("with", Optimizer::new(rule), None, Some(Kind::Parameter))?);
    }
    cases.push(case("clipped beyond its norm", plain, Some(100.0), None)?);
    for bad in [Kind::Gradient, Kind::Norm] {
        cases.push(case("clipped with", Optimizer::new(Rule::Adam), Some(2.0), Some(bad))?);
    }
    for moments in 0..3 {
        cases.push(restoring(moments)?);
    }
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
            segments.push(Segment { first, stride: (len / 4) as u32, partials, share: u32::from(trainable) });
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
        before: unused,
    };
    case.launch(buffers.square_sums())?;
    Ok(case)
}

/// What was kept is put back, for a rule with so many moments.
fn restoring(moments: usize) -> Result<Case> {
    let mut case = Case::new(format!("restore of {moments} moments"));
    let mut random = Random::of(&case.name);
    let len = padded(300);
    let parameters = case.output("parameters", len, Compare::Bits);
    let [moment1, moment2] = [1, 2].map(|number| match moments >= number {
        true => case.output("moment", len, Compare::Bits),
        false => case.floats("no moment", &[0.0; 4]),
    });
    let kept = random.floats((1 + moments) * len);
    let before = case.floats("before", &kept);
    for (range, kept) in [parameters, moment1, moment2].into_iter().zip(kept.chunks(len)) {
        case.expected.extend(kept.iter().enumerate().map(|(i, value)| (range, i, value.to_bits())));
    }
    let unused = Range { len: CHUNK, ..before };
    let buffers = optimizer::Buffers {
        parameters,
        gradients: unused,
        moment1,
        moment2,
        segments: unused,
        metrics: unused,
        rows: unused,
        norms: unused,
        positions: 1,
        before,
    };
    case.launch(buffers.restore(moments))?;
    Ok(case)
}

/// What becomes of a tensor.
const FREE: u32 = TRAINED;
const HELD: u32 = optimizer::FROZEN;

/// Three steps, of which the first meets what is `bad`, if anything is.
fn case(what: &str, settings: Optimizer, clip: Option<f32>, bad: Option<Kind>) -> Result<Case> {
    let name = bad.map_or(String::new(), |bad| format!(" a {bad:?} that is not finite"));
    let mut case = Case::new(format!("{} {what}{name}", settings.rule.name()));
    let mut random = Random::of(&case.name);
    let share = 0.25f32;
    // Length, partial sums, what becomes of it.
    let tensors = [
        (70, 1, FREE),
        (64, 3, FREE),
        (10, 2, HELD),
        (200, 4, FREE),
        (5, 1, HELD),
        (1, 2, FREE),
        (40, 1, share.to_bits()),
    ];
    let mut segments = Vec::new();
    let (mut parameter, mut gradient) = (0, CHUNK);
    // Elements that change, and first partial sums.
    let (mut changed, mut averaged, mut whole) = (Vec::new(), 0..0, Vec::new());
    let mut starts = Vec::new();
    for (len, partials, share) in tensors {
        let len = padded(len);
        for chunk in 0..len / CHUNK {
            let first = ((gradient + chunk * CHUNK) / 4) as u32;
            segments.push(Segment { first, stride: (len / 4) as u32, partials, share });
        }
        match share {
            HELD => {}
            FREE => changed.push(parameter..parameter + len),
            _ => averaged = parameter..parameter + len,
        }
        whole.push(gradient..gradient + len);
        starts.push((parameter, gradient));
        parameter += len;
        gradient += len * partials as usize;
    }
    let mut gradients = random.floats(gradient + CHUNK);
    let mut values: Vec<f32> = random.floats(parameter);
    // The penalty's sign of zero is zero.
    values[8..12].copy_from_slice(&[0.0, -0.0, 0.0, -0.0]);
    let mut first = random.floats(parameter);
    let second: Vec<f32> = random.floats(parameter).into_iter().map(|v| 0.1 + v * v).collect();
    // In the fourth tensor, whose first chunk is the fifth.
    let (there, its_gradient) = (starts[3].0 + 130, starts[3].1 + 130);
    let mut fault = bad.map(|kind| Fault { kind, chunk: there / CHUNK });
    match bad {
        None | Some(Kind::Earlier) => {}
        Some(Kind::Loss | Kind::Norm) => fault = bad.map(|kind| Fault { kind, chunk: 0 }),
        Some(Kind::Gradient) => {
            // In the only partial sum, in a later one, made by adding up, and in a running statistic.
            let bad = [
                (1, 2 * 64 + 3, f32::INFINITY),
                (3, 70, f32::INFINITY),
                (3, 256 + 70, f32::NEG_INFINITY),
                (3, 130, 3e38),
                (3, 3 * 256 + 130, 3e38),
                (6, 7, f32::NAN),
            ];
            for (tensor, at, value) in bad {
                gradients[starts[tensor].1 + at] = value;
            }
            // The vectors of four around them stay as they are; where there is no norm to clip to, all do.
            if clip.is_some() {
                changed.clear();
            }
            for at in [starts[1].0, starts[3].0 + 68, starts[3].0 + 128] {
                let Some(hit) = changed.iter().position(|range| range.contains(&at)) else { continue };
                let range = changed.swap_remove(hit);
                changed.extend([range.start..at, at + 4..range.end]);
            }
            changed.extend([averaged.start..averaged.start + 4, averaged.start + 8..averaged.end]);
            fault = Some(Fault { kind: Kind::Gradient, chunk: starts[1].0 / CHUNK });
        }
        Some(Kind::Moment) => {
            // Its square overflows; or it does with what the momentum keeps.
            gradients[its_gradient] = 3e38;
            first[there] = 3e38;
        }
        Some(Kind::Parameter) => (values[there], gradients[its_gradient]) = (-3e38, 3e38),
    }
    if bad == Some(Kind::Norm) {
        gradients[its_gradient] = 3e30;
        changed.clear();
    }
    if bad != Some(Kind::Gradient) {
        changed.push(averaged);
    }
    let used = settings.rule.moments();
    let kept: Vec<f32> = [&values, &first, &second].into_iter().take(1 + used).flatten().copied().collect();
    let parameters = case.updated("parameters", &values, &changed, UPDATES);
    let gradients = case.updated("gradients", &gradients, &whole, UPDATES);
    let none = Vec::new();
    // A running statistic has no moment.
    let trained: Vec<_> = changed.iter().filter(|range| range.end <= starts[6].0).cloned().collect();
    let moment1 = case.updated("moment1", &first, if used > 0 { &trained } else { &none }, UPDATES);
    let moment2 = case.updated("moment2", &second, if used > 1 { &trained } else { &none }, UPDATES);
    let segments = case.integers("segments", bytemuck::cast_slice(&segments));
    // Each step writes its own record, and keeps a flag that is there unless its own is larger.
    const OTHER_FLAG: u32 = 4;
    const POSITIONS: usize = 3;
    let mut records: Vec<u32> = (0..5).flat_map(|slot| [POISON_U32, slot, 16, OTHER_FLAG]).collect();
    records.extend([0; STATUS]);
    let mut written: Vec<_> = (1..4).map(|slot| slot * RECORD..slot * RECORD + 4).collect();
    written.push(5 * RECORD..5 * RECORD + 1);
    let metrics = case.add("metrics", &records, POISON_U32, &written, Compare::Metrics);
    let mut losses: Vec<f32> =
        (0..5 * POSITIONS * LANES).flat_map(|_| [3.0 * random.float(), random.below(2) as f32]).collect();
    if bad == Some(Kind::Loss) {
        losses[2 * 70] = f32::NAN;
    }
    let rows = case.floats("rows", &losses);
    case.steps = (1..4)
        .map(|time| {
            let (correction1, correction2) = settings.corrections(u64::from(time));
            let mut learning_rate = [0.1, 0.03, 0.01][time as usize - 1];
            if bad == Some(Kind::Parameter) {
                learning_rate = 1.0;
            }
            let count = 70 + time;
            Step { slot: time, count, learning_rate, correction1, correction2, time, ..Step::default() }
        })
        .collect();
    let norms = match clip {
        Some(_) => case.output("norms", optimizer::sums(parameter), sums(parameter)),
        None => case.floats("norms", &[]),
    };
    // What the last step that changed anything found: of a run that fails in its first, all that there was.
    let before = case.output("before", (1 + used) * parameter, UPDATES);
    if bad.is_some() {
        for (i, value) in kept.iter().enumerate() {
            case.expected.push((before, i, value.to_bits()));
        }
    }
    for range in [parameters, gradients, moment1, moment2, metrics, norms] {
        case.buffers[range.buffer.0].nan = bad.is_some();
    }
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
        before,
    };
    if clip.is_some() {
        case.launch(buffers.square_sums())?;
    }
    case.launch(settings.launch(buffers, clip))?;
    let earlier = Fault { kind: Kind::Earlier, chunk: 0xff_ffff }.flags();
    case.expected.push((metrics, 5 * RECORD, u32::from(bad.is_some())));
    for slot in 1..4 {
        let flags = match fault {
            Some(fault) if slot == 1 => fault.flags(),
            Some(_) => earlier,
            None => OTHER_FLAG,
        };
        let count = (70 + slot as u32) * POSITIONS as u32;
        case.expected.extend([(metrics, slot * RECORD + 2, count), (metrics, slot * RECORD + 3, flags)]);
    }
    Ok(case)
}
