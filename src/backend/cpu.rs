//! The CPU backend: the twins of a plan's launches, replayed over the same buffers.

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

/// A launch and the twin of its entry point.
struct Work {
    launch: Launch,
    twin: Twin,
}

impl Work {
    fn new(launch: &Launch) -> Work {
        Work { launch: launch.clone(), twin: specialise(launch) }
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
        let Launch { entry, bindings, .. } = &self.launch;
        let mut slots = Vec::with_capacity(bindings.len());
        for (id, lines) in memory.iter_mut().enumerate() {
            let mut here: Vec<(&'static str, Range)> =
                bindings.iter().filter(|(_, range)| range.buffer.0 == id).copied().collect();
            if here.is_empty() {
                continue;
            }
            let whole = words(lines);
            // The launch was refused unless all of them read, or all of them write disjoint ranges.
            if entry.writes(here[0].0) {
                here.sort_by_key(|(_, range)| range.start);
                let (mut rest, mut at) = (whole, 0);
                for (name, range) in here {
                    let (_, tail) = rest.split_at_mut(range.start - at);
                    let (slice, tail) = tail.split_at_mut(range.len);
                    slots.push((name, Slot::Write(slice)));
                    (rest, at) = (tail, range.start + range.len);
                }
            } else {
                let whole = &*whole;
                let slice = |range: Range| Slot::Read(&whole[range.start..][..range.len]);
                slots.extend(here.into_iter().map(|(name, range)| (name, slice(range))));
            }
        }
        (self.twin)(&mut Slots(slots), step);
    }
}
