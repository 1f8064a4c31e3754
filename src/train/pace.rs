//! How many steps to queue at once, for callers that do something else beside training.

use std::time::Duration;

use crate::plan::RING;

/// Grows and shrinks a slice of training steps so that each round of the caller's loop, a frame or the wait for a
/// read-back, stays within a budget.
///
/// It asks no clock: the caller tells how long a round took. A round within the budget lets the slice grow by an
/// eighth, at least by one step; one beyond it cuts the slice to two thirds. So a display that shows frames at its
/// own rate, where a round never takes less than a frame, is served as well as a loop that runs freely.
///
/// ```
/// # use std::time::Duration;
/// let mut pace = lenet::train::pace::Pace::new(Duration::from_millis(20));
/// assert_eq!(pace.steps(), 1);
/// pace.round(Duration::from_millis(17)); // in time: try more
/// assert_eq!(pace.steps(), 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    budget: Duration,
    steps: usize,
}

impl Pace {
    /// Starts with one step a round. A display wants a budget somewhat above its frame, say 5/4 of it.
    pub fn new(budget: Duration) -> Pace {
        Pace { budget, steps: 1 }
    }

    /// The steps to hand to [`Trainer::advance`](crate::train::Trainer::advance) in the next round.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Takes note of how long a round took in which [`Pace::steps`] steps were queued.
    pub fn round(&mut self, took: Duration) {
        self.steps =
            if took > self.budget { self.steps * 2 / 3 } else { self.steps + self.steps.div_ceil(8) };
        self.steps = self.steps.clamp(1, RING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slices after many rounds on a device that takes `step` for a step and a display that shows frames of
    /// `frame`.
    fn settled(step: f64, frame: f64, budget: f64) -> Vec<usize> {
        let mut pace = Pace::new(Duration::from_secs_f64(budget));
        let mut slices = Vec::new();
        for _ in 0..400 {
            let work = step * pace.steps() as f64;
            let took = if frame > 0.0 { frame * (work / frame).ceil().max(1.0) } else { work };
            pace.round(Duration::from_secs_f64(took));
            slices.push(pace.steps());
        }
        slices.split_off(300)
    }

    #[test]
    fn a_slice_settles_at_what_fits_the_budget() {
        let free = settled(0.001, 0.0, 0.02);
        assert!(free.iter().all(|steps| (13..=23).contains(steps)), "{free:?}");
        let display = settled(0.001, 1.0 / 60.0, 0.02);
        assert!(display.iter().all(|steps| (10..=19).contains(steps)), "{display:?}");
    }

    #[test]
    fn a_slow_device_gets_one_step_and_a_fast_one_no_more_than_the_ring_holds() {
        assert!(settled(1.0, 0.0, 0.02).iter().all(|&steps| steps == 1));
        assert!(settled(1e-9, 0.0, 0.02).iter().all(|&steps| steps == RING));
    }
}
