//! How time is taken: sessions that are ready to run, samples in turns, medians and quartiles, a device's peaks.

mod peak;

use std::time::{Duration, Instant};

use lenet::Network;
use lenet::backend::Backend;
use lenet::data::{self, Dataset};
use lenet::kernels::{Range, Step};
use lenet::plan::{Data, Options, Phase, Plan, RING};
use lenet::session::Session;
use pollster::block_on;
use serde_json::{Value, json};

use crate::cli::device::Chosen;
use crate::cli::failure::Outcome;

pub use peak::Peak;

/// Samples that a measurement tries to take in its time.
const SAMPLES: u32 = 11;

/// Samples that it takes in any case.
const LEAST: usize = 3;

/// Samples of one repetition, in seconds.
#[derive(Debug, Clone)]
pub struct Samples {
    sorted: Vec<f64>,
    /// Repetitions that a sample is the mean of.
    pub repetitions: usize,
    /// Seconds below which a median is lost in what was taken off.
    floor: f64,
}

impl Samples {
    pub fn new(mut seconds: Vec<f64>, repetitions: usize) -> Samples {
        seconds.sort_by(f64::total_cmp);
        Samples { sorted: seconds, repetitions, floor: 0.0 }
    }

    /// The value below which this share of the samples lies, between two samples by proportion.
    pub fn quantile(&self, share: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else { return f64::NAN };
        let at = share * last as f64;
        let (low, high) = (self.sorted[at as usize], self.sorted[(at.ceil() as usize).min(last)]);
        low + (high - low) * at.fract()
    }

    /// The same with the time of something else taken off, down to nothing.
    pub fn less(mut self, seconds: f64) -> Samples {
        self.sorted.iter_mut().for_each(|sample| *sample = (*sample - seconds).max(0.0));
        self.floor = seconds / 10.0;
        self
    }

    /// Whether the median means something.
    pub fn resolved(&self) -> bool {
        self.median() > self.floor
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Half the distance of the quartiles, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / 2.0 / self.median()
    }

    pub fn json(&self) -> Value {
        json!({
            "median_s": self.median(),
            "least_s": self.quantile(0.0),
            "quartiles_s": [self.quantile(0.25), self.quantile(0.75)],
            "samples": self.sorted.len(),
            "repetitions_a_sample": self.repetitions,
        })
    }
}

/// Something to be repeated and waited for.
pub type Job<'a> = Box<dyn FnMut(usize) -> Outcome + 'a>;

fn timed(job: &mut Job<'_>, repetitions: usize) -> Outcome<f64> {
    let start = Instant::now();
    job(repetitions)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Warms a job up; gives the repetitions that take a sample's time.
fn calibrate(job: &mut Job<'_>, seconds: f64) -> Outcome<usize> {
    let target = seconds / f64::from(SAMPLES);
    let (mut repetitions, start) = (1, Instant::now());
    loop {
        let took = timed(job, repetitions)?;
        let fit = (target / (took / repetitions as f64)).ceil().max(1.0);
        // The first runs are slow and say little: it may be several times as many.
        if took >= target / 2.0 || start.elapsed().as_secs_f64() > seconds {
            return Ok(fit as usize);
        }
        repetitions = (fit as usize).min(8 * repetitions).max(repetitions + 1);
    }
}

/// Samples of every job, taken in turns after a warm-up, so that what disturbs the machine disturbs all of them;
/// the samples in their order, one list a job.
pub fn in_turns(jobs: &mut [Job<'_>], seconds: f64) -> Outcome<Vec<(Vec<f64>, usize)>> {
    let repetitions: Vec<usize> =
        jobs.iter_mut().map(|job| calibrate(job, seconds)).collect::<Outcome<_>>()?;
    let mut samples = vec![Vec::new(); jobs.len()];
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let (start, most) = (Instant::now(), seconds * jobs.len() as f64);
    while samples[0].len() < LEAST || start.elapsed().as_secs_f64() < most {
        for ((job, samples), &repetitions) in jobs.iter_mut().zip(&mut samples).zip(&repetitions) {
            samples.push(timed(job, repetitions)? / repetitions as f64);
        }
    }
    Ok(samples.into_iter().zip(repetitions).collect())
}

/// Samples of one job.
pub fn alone(job: Job<'_>, seconds: f64) -> Outcome<Samples> {
    let (samples, repetitions) = in_turns(&mut [job], seconds)?.swap_remove(0);
    Ok(Samples::new(samples, repetitions))
}

/// Images for a network: MNIST where it takes them, else noise; each at least as many as a batch.
pub struct Images {
    pub train: Dataset,
    pub test: Dataset,
    /// What they are.
    pub name: String,
}

impl Images {
    pub fn new(network: &Network, largest_batch: usize) -> Outcome<Images> {
        let split = data::mnist()?;
        let shape = |data: &Dataset| [data.channels, data.height, data.width];
        let input = network.input;
        let fits = network.check_data(shape(&split.train), split.train.classes, [1, 1]).is_ok();
        let (train, test, name) = if fits {
            (split.train, split.test, "MNIST")
        } else {
            // 64 MB or so.
            let count = ((64 << 20) / (input.channels * input.height * input.width)).clamp(1, 1024);
            (noise(network, count)?, noise(network, count)?, "noise")
        };
        let (train, test) = (cycled(train, largest_batch)?, cycled(test, largest_batch)?);
        Ok(Images { name: format!("{name}, {} and {} images", train.len(), test.len()), train, test })
    }

    /// The options of a plan over these images.
    pub fn options(&self, options: &Options) -> Options {
        Options { train_images: self.train.len(), eval_images: self.test.len(), ..options.clone() }
    }

    /// Bytes of the buffers that hold them: pixels, labels, order.
    pub fn bytes(&self) -> u64 {
        let padded = |len: usize| len.next_multiple_of(4);
        let bytes = |data: &Dataset| padded(data.images.len()) + padded(data.len()) + 4 * data.len();
        (bytes(&self.train) + bytes(&self.test)) as u64
    }
}

/// Pictures without a pattern for a network, with labels for each place that it labels.
pub fn noise(network: &Network, count: usize) -> Outcome<Dataset> {
    let (input, output) = (network.input, network.output()?);
    let (classes, places) = (output.channels.min(256), output.height * output.width);
    // The high byte of a multiplicative sequence has no pattern that a kernel could profit from.
    let byte = |i: usize| ((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    let shape = [input.channels, input.height, input.width];
    let pixels = (0..count * shape.iter().product::<usize>()).map(byte).collect::<Vec<_>>();
    let labels = (0..count * places).map(|i| (i % classes) as u8).collect();
    let size = [output.height, output.width];
    Ok(Dataset::segmented("noise", shape, classes, pixels, size, labels)?)
}

/// The images again and again until there are as many as asked for.
fn cycled(mut data: Dataset, count: usize) -> Outcome<Dataset> {
    if data.len() < count {
        let images = data.images.all()?;
        let images: Vec<u8> = images.iter().copied().cycle().take(count * data.pixels()).collect();
        data.images = images.into();
        data.labels = data.labels.iter().copied().cycle().take(count).collect();
    }
    Ok(data)
}

/// A network on a device, with data and weights in place.
pub struct Rig {
    pub session: Session,
    /// From the making of the plan to the end of the first step.
    pub first_step: Duration,
    taken: usize,
}

/// The seed of all weights.
const SEED: u64 = 0;

impl Rig {
    /// Compiles the network for a device and takes one step.
    pub fn new(chosen: &Chosen, network: &Network, options: &Options, images: &Images) -> Outcome<Rig> {
        let start = Instant::now();
        let mut rig = Rig::with_plan(chosen, chosen.plan(network, &images.options(options))?, images)?;
        rig.first_step = start.elapsed();
        Ok(rig)
    }

    /// Puts everything in place and takes one step from the first weights.
    pub fn with_plan(chosen: &Chosen, plan: Plan, images: &Images) -> Outcome<Rig> {
        let start = Instant::now();
        let first = plan.network.initial(SEED)?;
        let mut rig = Rig { session: chosen.session(plan)?, first_step: Duration::ZERO, taken: 0 };
        rig.session.set_training(&images.train)?;
        rig.session.set_evaluation(&images.test)?;
        rig.session.set_parameters(first.iter().map(Vec::as_slice))?;
        rig.run(Phase::Train, 1)?;
        rig.first_step = start.elapsed();
        Ok(rig)
    }

    /// Steps over the data, one batch after the other. The learning rate is 0: the weights stay, so that every
    /// repetition computes with the same numbers, and none of them fades into denormals.
    pub fn steps(&mut self, phase: Phase, count: usize) -> Vec<Step> {
        let plan = self.session.plan();
        let Data { order, .. } = if phase == Phase::Train { plan.train_data } else { plan.eval_data };
        let batch = plan.options.batch;
        let images = if phase == Phase::Train { plan.options.train_images } else { plan.options.eval_images };
        let batches = (images.min(order.len) / batch).max(1);
        (0..count)
            .map(|_| {
                self.taken += 1;
                Step {
                    cursor: (self.taken % batches * batch) as u32,
                    count: batch as u32,
                    slot: (self.taken % RING) as u32,
                    correction1: 1.0,
                    correction2: 1.0,
                    ..Step::default()
                }
            })
            .collect()
    }

    /// Runs steps and waits for them.
    pub fn run(&mut self, phase: Phase, count: usize) -> Outcome {
        let steps = self.steps(phase, count);
        let metrics = self.session.plan().metrics;
        self.session.backend().run(phase, &steps)?;
        wait(self.session.backend(), metrics)
    }
}

/// Waits until a backend has done all that it was told.
pub fn wait(backend: &mut Backend, any: Range) -> Outcome {
    block_on(backend.read(Range { len: any.len.min(4), ..any }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples() {
        let samples = Samples::new(vec![4.0, 1.0, 3.0, 2.0], 1);
        assert_eq!([0.0, 0.5, 1.0].map(|share| samples.quantile(share)), [1.0, 2.5, 4.0]);
        assert_eq!(samples.quantile(0.25), 1.75);
        assert!(Samples::new(Vec::new(), 1).median().is_nan());
        assert!(samples.clone().less(2.0).resolved() && !samples.clone().less(2.8).resolved());
        assert_eq!(samples.less(2.0).quantile(0.0), 0.0);
    }

    #[test]
    fn repetitions_fill_a_sample() {
        let mut calls = 0;
        let job: Job<'_> = Box::new(|repetitions| {
            calls += repetitions;
            std::thread::sleep(Duration::from_micros(500) * repetitions as u32);
            Ok(())
        });
        let samples = alone(job, 0.11).unwrap();
        // A sample lasts 10 ms; sleeping takes longer than asked, on a busy machine much longer.
        assert!((1..=20).contains(&samples.repetitions), "{}", samples.repetitions);
        assert!(samples.quantile(0.0) >= 0.5e-3, "{}", samples.quantile(0.0));
        assert!(calls > 3 * samples.repetitions);
    }

    #[test]
    fn images_are_repeated_to_fill_a_batch() {
        let data = Dataset::new("two", [1, 1, 2], 3, vec![1, 2, 3, 4], vec![0, 2]).unwrap();
        let data = cycled(data, 3).unwrap();
        assert_eq!((data.images, data.labels), (vec![1, 2, 3, 4, 1, 2].into(), vec![0, 2, 0]));
    }
}
