//! How a launch is cut into tasks, and how they run.
//!
//! A task makes a part of the output of its own, and every sum of it in one order: whatever the number of threads, the
//! bits are the same.

use rayon::prelude::*;

use crate::kernels::CHUNK;

/// Operations that are worth a task: at its best a core does them in 40 ns, and making a task takes 24 ns even where no
/// other thread comes for it. A launch of fewer than this for each thread has fewer tasks than threads.
pub(crate) const WORTH: usize = 4_096;

/// Runs `work` on every task, on all threads. All that a launch does on several threads goes through here.
pub(crate) fn run<T>(tasks: T, work: impl Fn(T::Item) + Send + Sync)
where
    T: IntoParallelIterator<Iter: IndexedParallelIterator>,
{
    let tasks = tasks.into_par_iter();
    #[cfg(test)]
    return probe::run(tasks, work);
    #[cfg(not(test))]
    tasks.with_max_len(1).for_each(work);
}

/// The threads that tasks are made for.
pub(crate) fn threads() -> usize {
    #[cfg(test)]
    if let Some(threads) = probe::threads() {
        return threads;
    }
    rayon::current_num_threads()
}

/// How many tasks so many operations should become.
pub(crate) fn wanted(operations: usize) -> usize {
    threads().min(operations / WORTH).max(1)
}

/// Along what work is cut: so many steps, at multiples of `tile`, or of the smallest that leave enough parts, down to
/// `least`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub all: usize,
    pub tile: usize,
    pub least: usize,
}

impl Axis {
    /// At multiples of `tile` only.
    pub(crate) fn new(all: usize, tile: usize) -> Axis {
        Axis { all, tile, least: tile }
    }

    /// That is not cut.
    pub(crate) fn whole(all: usize) -> Axis {
        Axis::new(all, all.max(1))
    }
}

/// The parts of an axis, as even as its tiles allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub all: usize,
    pub tile: usize,
    pub count: usize,
}

impl Parts {
    /// The start and length of each.
    pub(crate) fn iter(self) -> impl Iterator<Item = (usize, usize)> + Clone {
        let tiles = self.all.div_ceil(self.tile);
        let at = move |part: usize| ((part * tiles).div_ceil(self.count) * self.tile).min(self.all);
        (0..self.count).map(move |part| (at(part), at(part + 1) - at(part)))
    }
}

/// How each of some pieces of work, which are alike, is cut along two axes: into the fewest parts that make `tasks`
/// tasks of all pieces, with which as many threads are idle for no more than a quarter of the time; along the first axis
/// rather than along the second.
pub(crate) fn grid(tasks: usize, pieces: usize, axes: [Axis; 2]) -> [Parts; 2] {
    let pieces = pieces.max(1);
    let enough = tasks.div_ceil(pieces);
    let mut best: Option<((bool, u128), [Parts; 2])> = None;
    for halvings in 0.. {
        let tile = |axis: &Axis| (axis.tile >> halvings).max(axis.least);
        let [first, second] =
            [axes[0], axes[1]].map(|axis| (axis.all.div_ceil(tile(&axis)).max(1), tile(&axis)));
        for parts in enough..2 * enough + 3 {
            for across in 1..=parts.min(second.0) {
                let along = parts.div_ceil(across).min(first.0);
                let rounds = (pieces * along * across).div_ceil(tasks);
                let longest = (first.0.div_ceil(along) * first.1) * (second.0.div_ceil(across) * second.1);
                let time = (rounds * longest) as u128;
                let few = along * across < enough;
                let even = (pieces * first.0 * first.1 * second.0 * second.1) as u128;
                let cut = [
                    Parts { all: axes[0].all, tile: first.1, count: along },
                    Parts { all: axes[1].all, tile: second.1, count: across },
                ];
                if !few && 3 * time * tasks as u128 <= 4 * even {
                    return cut;
                }
                if best.is_none_or(|(cost, _)| (few, time) < cost) {
                    best = Some(((few, time), cut));
                }
            }
        }
        if axes.iter().all(|axis| tile(axis) == axis.least) {
            break;
        }
    }
    best.expect("every axis has a part").1
}

/// What the tasks write of `all`, pieces of planes of `plane` elements, each of which is cut into parts of these lengths:
/// for each piece and each part of its planes as many portions as lengths, of a part of every plane.
pub(crate) fn portions<T>(
    all: &mut [T],
    planes: Parts,
    plane: usize,
    lengths: impl Iterator<Item = usize> + Clone,
) -> Vec<Vec<&mut [T]>> {
    let (pieces, parts) = (all.chunks_exact_mut((planes.all * plane).max(1)), lengths.clone().count());
    let mut portions: Vec<Vec<&mut [T]>> = Vec::with_capacity(pieces.len() * planes.count * parts);
    for piece in pieces {
        let mut whole = piece.chunks_exact_mut(plane.max(1));
        for (_, count) in planes.iter() {
            let start = portions.len();
            portions.extend((0..parts).map(|_| Vec::with_capacity(count)));
            for mut plane in whole.by_ref().take(count) {
                for (portion, len) in portions[start..].iter_mut().zip(lengths.clone()) {
                    let (part, rest) = plane.split_at_mut(len);
                    portion.push(part);
                    plane = rest;
                }
            }
        }
    }
    portions
}

/// Elements of whole cache lines that a task takes at most, where all are alike.
const GRAIN: usize = 1 << 14;

/// Runs `work(start, elements)` on all of `all`, of which each is so many operations, a part a task.
pub(crate) fn elementwise<T: Send>(
    all: &mut [T],
    operations: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    let part = (all.len() / wanted(operations * all.len())).clamp(CHUNK, GRAIN) / CHUNK * CHUNK;
    run(all.par_chunks_mut(part).enumerate(), |(task, elements)| work(task * part, elements));
}

/// Runs `work(place, elements)` on every `len` elements of `all`, which are so many operations together; several of
/// them are a task where there are many.
pub(crate) fn each<T: Send>(
    all: &mut [T],
    len: usize,
    operations: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    let count = all.len().div_ceil(len);
    // A few tasks for each thread, so that none waits long for the last.
    let few = count.div_ceil(4 * threads());
    let worth = (count * WORTH / operations.max(1)).min(count);
    let several = few.max(worth).max(1);
    run(all.par_chunks_mut(several * len).enumerate(), |(task, elements)| {
        for (k, elements) in elements.chunks_mut(len).enumerate() {
            work(task * several + k, elements);
        }
    });
}

/// Cuts consecutive pieces of the given lengths off `rest`, so that threads can write them at once.
pub(crate) fn cut<T>(mut rest: &mut [T], lengths: impl IntoIterator<Item = usize>) -> Vec<&mut [T]> {
    lengths
        .into_iter()
        .map(|len| {
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            piece
        })
        .collect()
}

/// The starts and lengths of the tiles of at most `tile` that cover `total`.
pub(crate) fn tiles(total: usize, tile: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..total).step_by(tile).map(move |start| (start, tile.min(total - start)))
}

/// Two kinds of tasks evenly mixed, so that each half of the list is half of the work.
pub(crate) fn mixed<T>(some: Vec<T>, others: Vec<T>) -> Vec<T> {
    let rounds = some.len().max(others.len());
    let mut all = Vec::with_capacity(some.len() + others.len());
    let [of_some, of_others] = [some.len(), others.len()];
    let (mut some, mut others) = (some.into_iter(), others.into_iter());
    for round in 0..rounds {
        let now = |total: usize| (round + 1) * total / rounds - round * total / rounds;
        all.extend(some.by_ref().take(now(of_some)));
        all.extend(others.by_ref().take(now(of_others)));
    }
    all
}

/// Counts tasks and times them, for tests.
#[cfg(test)]
pub(crate) mod probe {
    use std::cell::{Cell, RefCell};
    use std::sync::Mutex;
    use std::time::Instant;

    use rayon::prelude::*;

    thread_local! {
        static THREADS: Cell<Option<usize>> = const { Cell::new(None) };
        static SEEN: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
    }

    /// As many threads as tasks are to be made for by this thread, whatever its pool.
    pub(crate) fn pretend(threads: Option<usize>) {
        THREADS.set(threads);
    }

    pub(super) fn threads() -> Option<usize> {
        THREADS.get()
    }

    /// Of every [`run`](super::run) that this thread has begun since it was last asked, the seconds of each task.
    pub(crate) fn seen() -> Vec<Vec<f64>> {
        SEEN.take()
    }

    pub(super) fn run<T: IndexedParallelIterator>(tasks: T, work: impl Fn(T::Item) + Send + Sync) {
        let seconds = Mutex::new(Vec::with_capacity(tasks.len()));
        tasks.with_max_len(1).for_each(|task| {
            let start = Instant::now();
            work(task);
            seconds.lock().expect("no task panics").push(start.elapsed().as_secs_f64());
        });
        SEEN.with_borrow_mut(|seen| seen.push(seconds.into_inner().expect("no task panics")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows, channels by fours and down to one, taps, and an axis that is not cut.
    const AXES: [[Axis; 2]; 4] = [
        [Axis { all: 14, tile: 1, least: 1 }, Axis { all: 6, tile: 3, least: 1 }],
        [Axis { all: 64, tile: 4, least: 1 }, Axis { all: 7, tile: 1, least: 1 }],
        [Axis { all: 120, tile: 8, least: 1 }, Axis { all: 1, tile: 1, least: 1 }],
        [Axis { all: 30, tile: 1, least: 1 }, Axis { all: 4, tile: 2, least: 2 }],
    ];

    #[test]
    fn every_thread_has_a_part_and_all_are_even() {
        for axes in AXES {
            let finest: usize = axes.iter().map(|axis| axis.all.div_ceil(axis.least)).product();
            for (tasks, pieces) in
                (1..=64).flat_map(|tasks| [1, 2, 4, 5, 40, 128].map(|pieces| (tasks, pieces)))
            {
                let cut = grid(tasks, pieces, axes);
                let made = pieces * cut[0].count * cut[1].count;
                assert!(made >= tasks.min(pieces * finest), "{axes:?}: {made} of {tasks}, {pieces} pieces");
                for (parts, axis) in cut.into_iter().zip(axes) {
                    let mut next = 0;
                    for (start, len) in parts.iter() {
                        assert!(start == next && len > 0, "{parts:?}");
                        next = start + len;
                    }
                    assert_eq!(next, axis.all, "{parts:?}");
                    let tiles = parts.iter().map(|(_, len)| len.div_ceil(parts.tile));
                    let (most, least) = (tiles.clone().max(), tiles.min());
                    assert!(most <= least.map(|least| 2 * least), "{parts:?}");
                }
            }
        }
    }

    #[test]
    fn one_or_two_threads_share_nothing_that_they_can_take_whole() {
        for axes in AXES {
            for pieces in 1..=130 {
                let whole = |tasks| grid(tasks, pieces, axes).iter().all(|parts| parts.count == 1);
                assert!(whole(1), "{pieces} pieces, one thread");
                assert!(pieces == 1 || whole(2), "{pieces} pieces, two threads");
            }
        }
    }

    #[test]
    fn portions_are_the_parts_of_every_plane() {
        // Two pieces of three planes of five elements, of which the last is no one's.
        let mut all: Vec<usize> = (0..30).collect();
        let planes = Parts { all: 3, tile: 2, count: 2 };
        let portions = portions(&mut all, planes, 5, [3, 1].into_iter());
        let seen: Vec<Vec<&[usize]>> =
            portions.iter().map(|portion| portion.iter().map(|part| &**part).collect()).collect();
        let first: [&[&[usize]]; 4] = [&[&[0, 1, 2], &[5, 6, 7]], &[&[3], &[8]], &[&[10, 11, 12]], &[&[13]]];
        assert_eq!(seen[..4], first);
        assert_eq!((seen.len(), seen[7][0]), (8, &[28][..]));
    }
}
