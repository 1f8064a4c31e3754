//! The CPU backend: the twins of a plan's launches, replayed over the same buffers.

#[cfg(test)]
mod tests;

use crate::kernels::{LANES, Launch, Range, Slot, Slots, Step};
use crate::plan::{Phase, Program};
use crate::twins::simd::{self, Line};
use crate::twins::{Twin, specialise};

/// A plan on the CPU.
pub struct Cpu {
    memory: Vec<Vec<Line>>,
    /// Of each phase.
    works: [Vec<Work>; 4],
}

/// What runs in place of a launch.
struct Work {
    twin: Twin,
    /// What the twin is lent, in the order of the buffers.
    loans: Vec<Loan>,
}

/// The ranges of a buffer that a launch binds, in the order in which they lie: all of them read, or all written.
struct Loan {
    buffer: usize,
    written: bool,
    ranges: Vec<(&'static str, Range)>,
}

impl Work {
    fn new(launch: &Launch) -> Work {
        let mut bound = launch.bindings.clone();
        bound.sort_by_key(|(_, range)| (range.buffer.0, range.start));
        let buffers = bound.chunk_by(|(_, one), (_, other)| one.buffer == other.buffer);
        // The launch was refused unless it reads all of a buffer's ranges, or writes all and they are disjoint.
        let loan = |ranges: &[(&'static str, Range)]| Loan {
            buffer: ranges[0].1.buffer.0,
            written: launch.entry.writes(ranges[0].0),
            ranges: ranges.to_vec(),
        };
        Work { twin: specialise(launch), loans: buffers.map(loan).collect() }
    }
}

impl Cpu {
    /// Allocates the program's buffers.
    pub fn new(program: &Program) -> Cpu {
        let memory = program
            .buffers
            .iter()
            .map(|buffer| {
                let mut lines = vec![Line([0; LANES]); buffer.len.div_ceil(LANES)];
                if let Some(content) = &buffer.content {
                    words(&mut lines)[..content.len()].copy_from_slice(content);
                }
                lines
            })
            .collect();
        let works = Phase::ALL.map(|phase| program.launches(phase).iter().map(Work::new).collect());
        Cpu { memory, works }
    }

    /// What runs the plan, for messages.
    pub fn name(&self) -> String {
        let threads = rayon::current_num_threads();
        format!("CPU, {threads} thread{}, {}", if threads == 1 { "" } else { "s" }, simd::name())
    }

    /// Writes `data` to the start of a range.
    pub fn write(&mut self, range: Range, data: &[u32]) {
        words(&mut self.memory[range.buffer.0])[range.start..][..data.len()].copy_from_slice(data);
    }

    /// A copy of a range.
    pub fn read(&self, range: Range) -> Vec<u32> {
        let all: &[u32] = bytemuck::cast_slice(&self.memory[range.buffer.0]);
        all[range.start..][..range.len].to_vec()
    }

    /// The launches of a phase, beside the memory.
    fn phase(&mut self, phase: Phase) -> (&[Work], &mut [Vec<Line>]) {
        (&self.works[phase as usize], &mut self.memory)
    }

    /// Runs the launches of a phase once for each step.
    pub fn run(&mut self, phase: Phase, steps: &[Step]) {
        let (works, memory) = self.phase(phase);
        // Inside the pool, so that the launches do not wake it up one by one.
        rayon::scope(|_| {
            for &step in steps {
                for work in works {
                    work.run(memory, step);
                }
            }
        });
    }

    /// Runs launch `at` of a phase alone, to time it.
    pub fn launch(&mut self, phase: Phase, at: usize, step: Step) {
        let (works, memory) = self.phase(phase);
        works[at].run(memory, step);
    }
}

fn words(lines: &mut [Line]) -> &mut [u32] {
    bytemuck::cast_slice_mut(lines)
}

impl Work {
    /// Lends the launch's ranges to its twin.
    fn run(&self, memory: &mut [Vec<Line>], step: Step) {
        let mut slots = Vec::with_capacity(self.loans.iter().map(|loan| loan.ranges.len()).sum());
        let (mut buffers, mut next) = (memory, 0);
        for loan in &self.loans {
            let (_, later) = buffers.split_at_mut(loan.buffer - next);
            let (lines, later) = later.split_first_mut().expect("a plan names buffers that it has");
            (buffers, next) = (later, loan.buffer + 1);
            let whole = words(lines);
            if loan.written {
                let (mut rest, mut at) = (whole, 0);
                for &(name, range) in &loan.ranges {
                    let (_, tail) = rest.split_at_mut(range.start - at);
                    let (slice, tail) = tail.split_at_mut(range.len);
                    slots.push((name, Slot::Write(slice)));
                    (rest, at) = (tail, range.start + range.len);
                }
            } else {
                let whole = &*whole;
                let slice = |range: Range| Slot::Read(&whole[range.start..][..range.len]);
                slots.extend(loan.ranges.iter().map(|&(name, range)| (name, slice(range))));
            }
        }
        (self.twin)(&mut Slots(slots), step);
    }
}
