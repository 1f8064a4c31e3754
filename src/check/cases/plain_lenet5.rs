//! The cases of `shaders/plain_lenet5.wgsl`.

use crate::check::kernels::*;
use crate::kernels::optimizer::{Kind, Optimizer, Rule, STATUS};
use crate::kernels::plain_lenet5::{Buffers, Geometry, PARAMETERS, RECORD};
use crate::kernels::{Step, loss};

/// Where tensors lie among the parameters, and how many elements they have.
const TENSORS: [(usize, usize); 10] = [
    (0, 150),
    (192, 6),
    (256, 2_400),
    (2_688, 16),
    (2_752, 48_000),
    (50_752, 120),
    (50_880, 10_080),
    (60_992, 84),
    (61_120, 840),
    (62_016, 10),
];

/// Elements of a record that are written: the convolutions' gradients, and from what the linear layers saw to the verdict.
fn written(count: usize) -> Vec<std::ops::Range<usize>> {
    let own: Vec<_> =
        TENSORS[..4].iter().map(|&(start, len)| start..start + len).chain([2_752..3_572]).collect();
    let shifted = |n: usize| own.iter().map(move |part| n * RECORD + part.start..n * RECORD + part.end);
    (0..count).flat_map(shifted).collect()
}

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    // Pictures in the batch, and in this step; mean and deviation of the pixels; whether the record is of a run that
    // has failed before.
    let table = [(3, 3, 0.0, 1.0, false), (4, 2, 0.1307, 0.3081, false), (1, 1, 0.5, 0.25, true)];
    table.into_iter().map(case).collect()
}

fn case((batch, count, mean, deviation, failed): (usize, usize, f32, f32, bool)) -> Result<Case> {
    let optimizer = Optimizer { beta1: 0.8, beta2: 0.99, epsilon: 1e-6, ..Optimizer::new(Rule::Adam) };
    let g = Geometry { batch, mean, deviation, optimizer };
    let mut case =
        Case::new(format!("{g:?}, {count} pictures{}", if failed { " after a fault" } else { "" }));
    let mut random = Random::of(&case.name);
    let images = 7;
    let pixels = case.integers("images", &random.words(images * 196));
    let labels: Vec<u8> = (0..images.next_multiple_of(4)).map(|_| random.below(10) as u8).collect();
    let labels = case.integers("labels", bytemuck::cast_slice(&labels));
    let order = case.integers("order", &random.order(images));
    let mut parameters = vec![0.0; PARAMETERS];
    for (start, len) in TENSORS {
        // Weights of the size that they have, so that nothing saturates.
        let scale = 1.0 / (len as f32 / 16.0).sqrt().max(1.0);
        let values = random.floats(len);
        parameters[start..][..len].iter_mut().zip(values).for_each(|(to, value)| *to = scale * value);
    }
    let moment1: Vec<f32> = random.floats(PARAMETERS);
    let moment2: Vec<f32> = random.floats(PARAMETERS).iter().map(|value| value * value).collect();
    let everything = || if failed { vec![] } else { vec![0..PARAMETERS] };
    let records = case.add("records", &vec![POISON; batch * RECORD], POISON, &written(count), sums(120));
    let parameters = case.updated("parameters", &parameters, &everything(), UPDATES);
    let moment1 = case.updated("moment1", &moment1, &everything(), UPDATES);
    let moment2 = case.updated("moment2", &moment2, &everything(), UPDATES);
    let gradients =
        case.updated("gradients", &[f32::from_bits(POISON); PARAMETERS], &everything(), sums(400));
    let three = if failed { vec![] } else { vec![0..3 * PARAMETERS] };
    let before = case.updated("before", &[f32::from_bits(POISON); 3 * PARAMETERS], &three, UPDATES);
    let mut ring = vec![POISON_U32; 3 * loss::RECORD + STATUS];
    let status = 3 * loss::RECORD;
    ring[status] = if failed { 5 } else { 0 };
    let metrics = case.add("metrics", &ring, POISON_U32, &[loss::RECORD..2 * loss::RECORD], Compare::Metrics);
    let buffers = Buffers {
        images: pixels,
        labels,
        order,
        records,
        parameters,
        moment1,
        moment2,
        gradients,
        before,
        metrics,
    };
    case.steps = vec![Step {
        cursor: 2,
        count: count as u32,
        slot: 1,
        learning_rate: 0.01,
        correction1: 1.5,
        correction2: 1.25,
        time: 9,
        ..Step::default()
    }];
    let flags = if failed { (Kind::Earlier as u32) << 24 } else { 0 };
    case.expected.extend([(metrics, loss::RECORD + 2, count as u32), (metrics, loss::RECORD + 3, flags)]);
    case.launch(g.picture(buffers))?;
    case.launch(g.update(buffers))?;
    Ok(case)
}
