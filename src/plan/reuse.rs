//! Buffers that are never needed at the same time become one.

use std::ops::RangeInclusive;

use super::{Buffer, Phase, Plan, Program};
use crate::kernels::{BufferId, Range};

/// When a buffer is needed: its first and last launch of each phase.
type Life = [Option<RangeInclusive<usize>>; 4];

/// Lets the buffers of a plan from `first` on share memory, but for the images and the logits.
pub(super) fn share(plan: &mut Plan, first: BufferId) {
    let (images, logits) = (plan.images.buffer, plan.logits.buffer);
    let places = reuse(&mut plan.program, |id| id.0 < first.0 || id == images || id == logits);
    for range in [&mut plan.images, &mut plan.logits] {
        *range = moved(*range, &places);
    }
    for (_, value, gradient) in &mut plan.activations {
        *value = moved(*value, &places);
        *gradient = gradient.map(|gradient| moved(gradient, &places));
    }
}

/// Lets buffers of `program` share memory where no phase needs them at the same time; those that `keeps` names
/// stay as they are. Gives the place of every old buffer among the new ones.
///
/// A phase writes such a buffer before it reads it, so nothing is handed from one phase to the next. The largest
/// buffers choose first, each the smallest shared one that is free for its whole life and large enough (greedy by
/// size, as TensorFlow Lite's planner does).
fn reuse(program: &mut Program, keeps: impl Fn(BufferId) -> bool) -> Vec<BufferId> {
    let lives = lives(program);
    let mut order: Vec<usize> = (0..program.buffers.len()).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(program.buffers[id].len));
    let mut made: Vec<(Buffer, Vec<usize>)> = Vec::new();
    let mut places = vec![BufferId(0); program.buffers.len()];
    // Kept buffers first, in their order, so that a program without any to share stays as it is.
    for (id, (buffer, place)) in program.buffers.iter().zip(&mut places).enumerate() {
        if keeps(BufferId(id)) {
            *place = BufferId(made.len());
            made.push((buffer.clone(), Vec::new()));
        }
    }
    let kept = made.len();
    for id in order {
        if keeps(BufferId(id)) {
            continue;
        }
        let free = |owners: &[usize]| owners.iter().all(|&owner| apart(&lives[owner], &lives[id]));
        let place = (kept..made.len()).filter(|&at| free(&made[at].1)).min_by_key(|&at| made[at].0.len);
        let at = place.unwrap_or_else(|| {
            made.push((program.buffers[id].clone(), Vec::new()));
            made.len() - 1
        });
        made[at].1.push(id);
        places[id] = BufferId(at);
    }
    for (buffer, owners) in &mut made {
        if owners.len() > 1 {
            owners.sort_unstable();
            let names: Vec<&str> = owners.iter().map(|&owner| program.buffers[owner].name.as_str()).collect();
            buffer.name = names.join(", ");
        }
    }
    program.buffers = made.into_iter().map(|(buffer, _)| buffer).collect();
    let Program { train, evaluate, predict, restore, .. } = program;
    for launch in train.iter_mut().chain(evaluate).chain(predict).chain(restore) {
        for (_, range) in &mut launch.bindings {
            *range = moved(*range, &places);
        }
    }
    places
}

/// The range after [`reuse`].
fn moved(range: Range, places: &[BufferId]) -> Range {
    Range { buffer: places[range.buffer.0], ..range }
}

fn lives(program: &Program) -> Vec<Life> {
    let mut lives: Vec<Life> = vec![[const { None }; 4]; program.buffers.len()];
    for phase in Phase::ALL {
        for (at, launch) in program.launches(phase).iter().enumerate() {
            for (_, range) in &launch.bindings {
                let life = &mut lives[range.buffer.0][phase as usize];
                let first = life.as_ref().map_or(at, |life| *life.start());
                *life = Some(first..=at);
            }
        }
    }
    lives
}

/// Whether two buffers are never needed at the same time.
fn apart(a: &Life, b: &Life) -> bool {
    a.iter().zip(b).all(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => a.end() < b.start() || b.end() < a.start(),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_overlap_when_a_launch_needs_both() {
        let life = |first, last| -> Life { [Some(first..=last), None, None, None] };
        assert!(apart(&life(0, 2), &life(3, 4)));
        assert!(!apart(&life(0, 3), &life(3, 4)));
        assert!(!apart(&life(1, 9), &life(3, 4)));
        assert!(apart(&life(1, 9), &[None, Some(3..=4), None, None]));
        assert!(!apart(&[Some(0..=0), Some(3..=3), None, None], &[Some(1..=1), Some(1..=5), None, None]));
    }
}
