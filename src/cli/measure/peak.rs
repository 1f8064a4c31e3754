//! What a device does at most: its multiply-adds and its copies a second, and a launch that does nothing.

use lenet::kernels::{Launch, Range, Step, peak};
use lenet::plan::{Phase, Program};
use serde_json::{Value, json};

use super::{Samples, alone, wait};
use crate::cli::device::Chosen;
use crate::cli::failure::Outcome;

/// Words of each of the two buffers of the copy: WebGPU's largest binding, more than most caches.
const COPIED: usize = (128 << 20) / 4;

/// Invocations of the multiply-adds, enough to fill any GPU.
const ELEMENTS: usize = 1 << 18;

/// The most that a device was seen to do.
pub struct Peak {
    /// Seconds of a launch of multiply-adds, and its floating-point operations.
    pub multiply_add: (Samples, u64),
    /// Seconds of a copy, and its bytes read and written.
    pub copy: (Samples, u64),
    /// Seconds of a launch that does nothing, one of many in a submission.
    pub empty: Samples,
}

impl Peak {
    /// Measures a device for `seconds` each.
    pub fn measure(chosen: &Chosen, seconds: f64) -> Outcome<Peak> {
        let mut program = Program::default();
        // A CPU takes some milliseconds for the fewer rounds, a GPU for the more.
        let rounds = if chosen.is_gpu() { 4096 } else { 256 };
        let [input, output] = ["input", "output"].map(|name| program.add(name, ELEMENTS));
        let [source, copied] = ["source", "copied"].map(|name| program.add(name, COPIED));
        let [small, nothing] = ["small", "nothing"].map(|name| program.add(name, 4));
        program.train = vec![peak::multiply_add(input, output, rounds)?];
        program.evaluate = vec![peak::copy(source, copied)?];
        program.predict = vec![peak::copy(small, nothing)?];
        let mut backend = chosen.backend(&program)?;
        // Memory that was never written may not exist: all of it is touched first.
        let pattern: Vec<u32> = (0..1 << 18).map(|i| 0x3f00_0000 + i).collect();
        backend.write(input, &pattern)?;
        for start in (0..COPIED).step_by(pattern.len()) {
            backend.write(Range { start, len: pattern.len(), ..source }, &pattern)?;
        }
        let mut measure = |phase: Phase| {
            alone(
                Box::new(|repetitions| {
                    backend.run(phase, &vec![Step::default(); repetitions])?;
                    wait(&mut backend, nothing)
                }),
                seconds,
            )
        };
        Ok(Peak {
            multiply_add: (measure(Phase::Train)?, program.train[0].flop),
            copy: (measure(Phase::Evaluate)?, program.evaluate[0].bytes),
            empty: measure(Phase::Predict)?,
        })
    }

    /// Floating-point operations a second.
    pub fn flops(&self) -> f64 {
        self.multiply_add.1 as f64 / self.multiply_add.0.median()
    }

    /// Bytes a second, read and written.
    pub fn bytes(&self) -> f64 {
        self.copy.1 as f64 / self.copy.0.median()
    }

    /// The seconds below which a launch could not come, and whether bytes or operations bound it.
    pub fn roof(&self, launch: &Launch) -> (f64, &'static str) {
        let (compute, memory) = (launch.flop as f64 / self.flops(), launch.bytes as f64 / self.bytes());
        if compute >= memory { (compute, "FLOP") } else { (memory, "bytes") }
    }

    pub fn json(&self) -> Value {
        json!({
            "gflops": self.flops() / 1e9,
            "gigabytes_per_second": self.bytes() / 1e9,
            "copied_bytes": 4 * COPIED,
            "multiply_add": self.multiply_add.0.json(),
            "copy": self.copy.0.json(),
            "empty_launch": self.empty.json(),
        })
    }
}
