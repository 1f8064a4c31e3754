//! The CPU backend: the twins of a plan's launches, replayed over the same buffers.

use crate::kernels::simd::Line;
use crate::kernels::{Access, Args, LANES, Launch, Range, Slot, Step};
use crate::plan::{Phase, Program};

/// A plan on the CPU.
pub struct Cpu {
    memory: Vec<Vec<Line>>,
    train: Vec<Launch>,
    evaluate: Vec<Launch>,
    predict: Vec<Launch>,
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
        let Program { train, evaluate, predict, .. } = program;
        Cpu { memory, train: train.clone(), evaluate: evaluate.clone(), predict: predict.clone() }
    }

    /// What runs the plan, for messages.
    pub fn name(&self) -> String {
        let threads = rayon::current_num_threads();
        format!(
            "CPU, {threads} thread{}, {}",
            if threads == 1 { "" } else { "s" },
            crate::kernels::simd::name()
        )
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

    /// Runs the launches of a phase once for each step.
    pub fn run(&mut self, phase: Phase, steps: &[Step]) {
        let Cpu { memory, train, evaluate, predict } = self;
        let launches: &[Launch] = match phase {
            Phase::Train => train,
            Phase::Evaluate => evaluate,
            Phase::Predict => predict,
        };
        // Inside the pool, so that the launches do not wake it up one by one.
        rayon::scope(|_| {
            for &step in steps {
                for launch in launches {
                    run_one(memory, launch, step);
                }
            }
        });
    }

    /// Runs one launch.
    pub fn launch(&mut self, launch: &Launch, step: Step) {
        run_one(&mut self.memory, launch, step);
    }
}

fn words(lines: &mut [Line]) -> &mut [u32] {
    bytemuck::cast_slice_mut(lines)
}

/// Lends the launch's ranges to its twin.
fn run_one(memory: &mut [Vec<Line>], launch: &Launch, step: Step) {
    let mut slots = Vec::with_capacity(launch.bindings.len());
    for (id, lines) in memory.iter_mut().enumerate() {
        let mut here: Vec<(&'static str, Range)> =
            launch.bindings.iter().filter(|(_, range)| range.buffer.0 == id).copied().collect();
        if here.is_empty() {
            continue;
        }
        let writes = |name: &str| {
            launch.entry.bindings.iter().any(|info| info.name == name && info.access == Access::ReadWrite)
        };
        let whole = words(lines);
        // Launch::new made sure that all of them read, or all of them write disjoint ranges.
        if writes(here[0].0) {
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
            slots.extend(
                here.into_iter().map(|(name, range)| (name, Slot::Read(&whole[range.start..][..range.len]))),
            );
        }
    }
    (launch.twin)(&mut Args { step, slots });
}
