//! Sums over a channel, which are added up in one order whatever the number of tasks.

use super::{OPERATIONS, Shape};
use crate::kernels::{LANES, Step};
use crate::twins::simd::{Plain, lanes, vectorize};
use crate::twins::tasks::{each, wanted};

/// Lanes that a task adds up where channels are few.
const HALF: usize = LANES / 2;

/// A closure may carry an attribute as an argument only.
#[inline(always)]
pub(super) fn inlined<const N: usize, F: Fn([f32; N]) -> [f32; 2]>(value: F) -> F {
    value
}

/// The sums of both values of all elements of some tensors: of every channel of every split, channels fastest, whose
/// place `value` is told. Each piece is summed lane by lane, then the pieces are, then the lanes.
pub(super) fn sums<const N: usize, V: Fn([f32; N]) -> [f32; 2]>(
    g: &Shape,
    step: Step,
    tensors: [&[f32]; N],
    value: impl Fn(usize) -> V + Send + Sync,
) -> Vec<[f32; 2]> {
    let operations = OPERATIONS * tensors[0].len();
    let pieces = |i: usize| g.pieces(i / g.channels, i % g.channels, step);
    let mut sums = vec![[0.0; 2]; g.splits * g.channels];
    if sums.len() < wanted(operations) {
        by_pieces(g, step, tensors, value, &mut sums);
        return sums;
    }
    each(&mut sums, 1, operations, |i, sums| {
        let value = value(i);
        vectorize(Plain(
            #[inline(always)]
            || {
                let mut all = [[0.0; LANES]; 2];
                for (place, images) in pieces(i) {
                    let elements = tensors.map(|tensor| &tensor[place.clone()]);
                    let mut own = [[0.0; LANES]; 2];
                    for p in 0..elements[0].len() / LANES {
                        let elements = elements.map(|elements| lanes(elements, p));
                        for l in 0..LANES {
                            let [first, second] = value(elements.map(|elements| elements[l]));
                            own[0][l] += first;
                            own[1][l] += second;
                        }
                    }
                    for (all, own) in all.iter_mut().zip(own) {
                        all.iter_mut().zip(own).take(images).for_each(|(all, own)| *all += own);
                    }
                }
                sums[0] = all.map(|lanes| lanes.iter().sum());
            },
        ));
    });
    sums
}

/// The same where there are fewer channels than threads: half of the lanes of a piece a task.
fn by_pieces<const N: usize, V: Fn([f32; N]) -> [f32; 2]>(
    g: &Shape,
    step: Step,
    tensors: [&[f32]; N],
    value: impl Fn(usize) -> V + Send + Sync,
    sums: &mut [[f32; 2]],
) {
    let pieces = |i: usize| g.pieces(i / g.channels, i % g.channels, step);
    let most = (0..g.splits).map(|split| g.pieces(split, 0, step).count()).max().unwrap_or(0);
    let mut halves = vec![[[0.0; HALF]; 2]; 2 * most * sums.len()];
    each(&mut halves, 1, OPERATIONS * tensors[0].len(), |at, own| {
        let (i, piece, half) = (at / (2 * most), at / 2 % most, at % 2);
        let Some((place, _)) = pieces(i).nth(piece) else { return };
        let (value, own) = (value(i), &mut own[0]);
        vectorize(Plain(
            #[inline(always)]
            || {
                let elements = tensors.map(|tensor| &tensor[place.clone()]);
                let [mut first, mut second] = *own;
                for p in 0..elements[0].len() / LANES {
                    let elements = elements.map(|elements| &lanes(elements, p).as_chunks::<HALF>().0[half]);
                    for l in 0..HALF {
                        let values = value(elements.map(|elements| elements[l]));
                        first[l] += values[0];
                        second[l] += values[1];
                    }
                }
                *own = [first, second];
            },
        ));
    });
    for (i, (sums, halves)) in sums.iter_mut().zip(halves.chunks(2 * most)).enumerate() {
        let mut all = [[0.0; LANES]; 2];
        for ((_, images), [left, right]) in pieces(i).zip(halves.as_chunks().0) {
            for (all, (left, right)) in all.iter_mut().zip(left.iter().zip(right)) {
                let own = left.iter().chain(right).take(images);
                all.iter_mut().zip(own).for_each(|(all, own)| *all += own);
            }
        }
        *sums = all.map(|lanes| lanes.iter().sum());
    }
}
