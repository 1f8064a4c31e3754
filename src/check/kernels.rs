//! Runs launches on the GPU and on the CPU over the same poisoned buffers, and says where they differ.

// A list of one range is a list of ranges here.
#![allow(clippy::single_range_in_vec_init)]

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::backend::{Backend, gpu};
use crate::kernels::loss::RECORD;
use crate::plan::{BufferId, Phase, Program};

pub use crate::error::Result;
pub use crate::kernels::{CHUNK, LANES, Launch, Range, Step, Target, blocks, padded};
pub use crate::network::Activation;

// ---------------------------------------------------------------------------------------------------------
// Tolerances

/// How two buffers are compared, element by element.
#[derive(Clone, Copy)]
pub enum Compare {
    /// Integers, or what must not change.
    Bits,
    /// Floats: |gpu − cpu| ≤ absolute + relative · |cpu|.
    Close { absolute: f32, relative: f32 },
    /// The metrics ring: the loss of a record as [`METRICS`], the rest exactly.
    Metrics,
}

/// Sums of `terms` products of factors within ±1.
///
/// The two sides add in another order, and one of them fuses multiply and add. After k terms a sum of random
/// signs is about √k / 3, and each addition rounds by up to 2⁻²⁵ of that; so the roundings of all terms come
/// to 2⁻²⁵ · terms / 4 (root mean square), and the worst of a few thousand sums lies at five times that. The
/// bound is 13 times as wide again at most, and still 10⁴ times smaller than one term left out. It grows with the
/// terms and not with the sum: where terms cancel, the sum is small, and its error is still that of the terms.
pub fn sums(terms: usize) -> Compare {
    Compare::Close { absolute: (terms + 8) as f32 * f32::EPSILON, relative: 1e-6 }
}

/// Such sums, put through an activation where there is one.
pub fn activated(activation: Option<Activation>, terms: usize) -> Compare {
    let Compare::Close { absolute, relative } = sums(terms) else { return sums(terms) };
    match activation {
        None | Some(Activation::Relu) => Compare::Close { absolute, relative },
        Some(_) => Compare::Close { absolute: 2.0 * absolute + 2e-5, relative: 4e-5 },
    }
}

/// WGSL lets `tanh` err by 1e-5, `log` by 2⁻²¹ and `exp` by (3 + 2|x|) units in the last place.
pub const TRANSCENDENTAL: Compare = Compare::Close { absolute: 2e-5, relative: 4e-5 };

/// Only multiplications, additions and a division, which WGSL lets err by 2.5 units in the last place; the
/// values are below 10.
pub const ARITHMETIC: Compare = Compare::Close { absolute: 2e-6, relative: 1e-6 };

/// Three updates of values below 2, with steps up to 0.1 · g/√v: the roundings of three steps, and those of g
/// where its terms cancel.
pub const UPDATES: Compare = Compare::Close { absolute: 4e-6, relative: 1e-5 };

/// Sums of up to 64 losses, each within [`TRANSCENDENTAL`].
pub const METRICS: (f32, f32) = (1e-3, 4e-5);

// ---------------------------------------------------------------------------------------------------------
// Cases

/// What outputs and padding hold before the run: a quiet NaN that no operation makes.
pub const POISON: u32 = 0x7fc0_dead;
/// The same for integers.
pub const POISON_U32: u32 = 0xdead_beef;

/// A few launches over poisoned buffers, and what is known about every buffer after them.
pub struct Case {
    /// What is special about it, in words.
    pub name: String,
    /// Its buffers, and its launches in the phase of training.
    pub program: Program,
    /// The steps for which the launches run.
    pub steps: Vec<Step>,
    pub(super) buffers: Vec<Known>,
    /// Words that both sides must hold in the end.
    pub(super) expected: Vec<(Range, usize, u32)>,
}

/// What a case came to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Everything that differs, one line each; none where the device computes what the CPU computes.
    pub failures: Vec<String>,
    /// The largest difference of an element that rounding may explain, as a share of what it explains; infinite
    /// where one side is not a number.
    pub worst: f64,
    /// Where that is: the buffer and the element.
    pub place: String,
    /// Elements that were compared.
    pub elements: usize,
    /// Where a NaN was left out, one line each: a compiler may assume that there are none, so that this is no failure.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Takes another verdict in: all failures, and the worse of the two differences.
    pub fn add(&mut self, other: Verdict) {
        self.failures.extend(other.failures);
        self.notes.extend(other.notes);
        self.elements += other.elements;
        if other.worst > self.worst {
            (self.worst, self.place) = (other.worst, other.place);
        }
    }
}

/// A buffer before the run, and which of its elements the run writes.
pub(super) struct Known {
    pub(super) before: Vec<u32>,
    pub(super) written: Vec<std::ops::Range<usize>>,
    pub(super) compare: Compare,
    /// Whether NaN is a result; it must then stand at the same places.
    pub(super) nan: bool,
    /// Elements that must be NaN: on the CPU, and on a device whose compiler does not leave them out.
    pub(super) nans: Vec<usize>,
}

impl Case {
    pub(super) fn new(name: String) -> Case {
        Case {
            name,
            program: Program::default(),
            steps: vec![Step::default()],
            buffers: Vec::new(),
            expected: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        name: &str,
        values: &[u32],
        poison: u32,
        written: &[std::ops::Range<usize>],
        compare: Compare,
    ) -> Range {
        let range = self.program.add(name, values.len());
        let mut before = vec![poison; self.program.buffers[range.buffer.0].len];
        before[..values.len()].copy_from_slice(values);
        self.buffers.push(Known { before, written: written.to_vec(), compare, nan: false, nans: Vec::new() });
        range
    }

    /// Floats that are only read.
    pub(super) fn floats(&mut self, name: &str, values: &[f32]) -> Range {
        self.add(name, bytemuck::cast_slice(values), POISON, &[], Compare::Bits)
    }

    /// Integers that are only read.
    pub(super) fn integers(&mut self, name: &str, values: &[u32]) -> Range {
        self.add(name, values, POISON_U32, &[], Compare::Bits)
    }

    /// Floats of which every one is written.
    pub(super) fn output(&mut self, name: &str, len: usize, compare: Compare) -> Range {
        self.add(name, &vec![POISON; len], POISON, &[0..len], compare)
    }

    /// Floats that are read and written.
    pub(super) fn updated(
        &mut self,
        name: &str,
        values: &[f32],
        written: &[std::ops::Range<usize>],
        compare: Compare,
    ) -> Range {
        self.add(name, bytemuck::cast_slice(values), POISON, written, compare)
    }

    /// Tensors that are only read, in one buffer and away from its start.
    pub(super) fn packed(&mut self, name: &str, tensors: &[&[f32]]) -> Vec<Range> {
        let mut all = vec![f32::from_bits(POISON); CHUNK];
        let starts: Vec<usize> = tensors
            .iter()
            .map(|tensor| {
                let start = all.len();
                all.extend_from_slice(tensor);
                all.resize(padded(all.len()), f32::from_bits(POISON));
                start
            })
            .collect();
        let whole = self.floats(name, &all);
        starts.iter().zip(tensors).map(|(&start, tensor)| sub(whole, start, padded(tensor.len()))).collect()
    }

    /// Partial sums of tensors, in one buffer and away from its start.
    pub(super) fn partials(
        &mut self,
        name: &str,
        lens: &[usize],
        splits: usize,
        compare: Compare,
    ) -> Vec<Range> {
        let mut written = Vec::new();
        let mut starts = Vec::new();
        let mut end = CHUNK;
        for &len in lens {
            starts.push(end);
            written
                .extend((0..splits).map(|split| end + split * padded(len)..end + split * padded(len) + len));
            end += splits * padded(len);
        }
        // One chunk more, which nothing may write.
        let whole = self.add(name, &vec![POISON; end + CHUNK], POISON, &written, compare);
        let mut ranges: Vec<Range> =
            starts.iter().zip(lens).map(|(&start, len)| sub(whole, start, splits * padded(*len))).collect();
        ranges.push(sub(whole, end, CHUNK));
        ranges
    }

    /// Says which elements of a range are NaN, and that no others are.
    pub(super) fn not_numbers(&mut self, range: Range, at: impl IntoIterator<Item = usize>) {
        self.buffers[range.buffer.0].nans.extend(at.into_iter().map(|i| range.start + i));
    }

    pub(super) fn launch(&mut self, launch: Result<Launch>) -> Result<()> {
        self.program.train.push(launch?);
        Ok(())
    }

    /// Runs the case on a device and on the CPU, and compares every element of every buffer.
    ///
    /// # Errors
    /// What the device reports.
    pub async fn judge(&self, device: &gpu::Device) -> Result<Verdict> {
        let gpu = self.after(Backend::gpu(device, &self.program).await?).await?;
        let cpu = self.after(Backend::cpu(&self.program)).await?;
        let mut verdict = Verdict::default();
        for (i, known) in self.buffers.iter().enumerate() {
            let buffer = &self.program.buffers[i].name;
            let mut one = known.judge(&gpu[i], &cpu[i]);
            one.failures
                .iter_mut()
                .chain(&mut one.notes)
                .for_each(|problem| *problem = format!("{}: {buffer}: {problem}", self.name));
            one.place = format!("{}: {buffer}{}", self.name, one.place);
            verdict.add(one);
        }
        for &(range, at, want) in &self.expected {
            for (side, found) in [("gpu", &gpu), ("cpu", &cpu)] {
                let found = found[range.buffer.0][range.start + at];
                if found != want {
                    let buffer = &self.program.buffers[range.buffer.0].name;
                    verdict.failures.push(format!(
                        "{}: {buffer}[{at}] is {found:#x} on the {side}, expected {want:#x}",
                        self.name
                    ));
                }
            }
        }
        Ok(verdict)
    }

    /// What the buffers hold after the run.
    async fn after(&self, mut backend: Backend) -> Result<Vec<Vec<u32>>> {
        let whole = |i: usize| Range { buffer: BufferId(i), start: 0, len: self.program.buffers[i].len };
        for (i, known) in self.buffers.iter().enumerate() {
            backend.write(whole(i), &known.before)?;
        }
        backend.run(Phase::Train, &self.steps)?;
        let reads: Vec<_> = (0..self.buffers.len()).map(|i| backend.read(whole(i))).collect();
        let mut found = Vec::with_capacity(reads.len());
        for read in reads {
            found.push(read.await?);
        }
        Ok(found)
    }
}

impl Known {
    /// What differs between two sides, or was written where it should not be.
    fn judge(&self, gpu: &[u32], cpu: &[u32]) -> Verdict {
        let mut written = vec![false; self.before.len()];
        for range in &self.written {
            written[range.clone()].fill(true);
        }
        let mut problems = Vec::new();
        for (side, found) in [("gpu", gpu), ("cpu", cpu)] {
            let places: Vec<usize> = (0..written.len())
                .filter(|&i| {
                    if written[i] {
                        found[i] == POISON || found[i] == POISON_U32
                    } else {
                        found[i] != self.before[i]
                    }
                })
                .collect();
            if let Some(&i) = places.first() {
                let what = if written[i] { "was not written" } else { "was written" };
                let value = f32::from_bits(found[i]);
                let many = places.len();
                problems.push(format!(
                    "[{i}] {what} on the {side} ({:#x}, as a float {value}); {many} such elements",
                    found[i]
                ));
            }
        }
        let exact = |i: &usize| written[*i] && !self.is_float(*i) && gpu[*i] != cpu[*i];
        if let Some(i) = (0..written.len()).find(exact) {
            problems.push(format!("[{i}] is {} on the gpu, {} on the cpu", gpu[i], cpu[i]));
        }
        let (absolute, relative) = match self.compare {
            Compare::Bits => (0.0, 0.0),
            Compare::Close { absolute, relative } => (absolute, relative),
            Compare::Metrics => METRICS,
        };
        let mut lost = [Vec::new(), Vec::new()];
        for &i in &self.nans {
            written[i] = false;
            for (found, lost) in [gpu, cpu].into_iter().zip(&mut lost) {
                if !f32::from_bits(found[i]).is_nan() {
                    lost.push(i);
                }
            }
        }
        let [notes, wrong] = lost.map(|lost| {
            let first = lost.first().map(|i| format!("[{i}] should be NaN; {} such elements", lost.len()));
            first.into_iter().collect::<Vec<_>>()
        });
        problems.extend(wrong);
        let floats = |i: usize| written[i] && self.is_float(i);
        let (worst, at, problem) = differences(gpu, cpu, absolute, relative, self.nan, floats);
        problems.extend(problem);
        let elements = written.iter().filter(|&&written| written).count() + self.nans.len();
        Verdict { failures: problems, worst: worst.into(), place: format!("[{at}]"), elements, notes }
    }

    fn is_float(&self, i: usize) -> bool {
        match self.compare {
            Compare::Bits => false,
            Compare::Close { .. } => true,
            Compare::Metrics => i.is_multiple_of(RECORD),
        }
    }
}

/// Where two sides differ most, measured by the tolerance: by how much of it, at which element, and in words if that
/// is too much.
fn differences(
    gpu: &[u32],
    cpu: &[u32],
    absolute: f32,
    relative: f32,
    nan: bool,
    counts: impl Fn(usize) -> bool,
) -> (f32, usize, Option<String>) {
    let mut worst = (0.0, 0);
    let mut many = 0;
    for i in (0..cpu.len()).filter(|&i| counts(i)) {
        let (a, b) = (f32::from_bits(gpu[i]), f32::from_bits(cpu[i]));
        let excess = if a.is_nan() || b.is_nan() {
            if nan && a.is_nan() && b.is_nan() { 0.0 } else { f32::INFINITY }
        } else if a == b {
            0.0
        } else {
            (a - b).abs() / (absolute + relative * b.abs())
        };
        // An excess that is itself NaN, as of two infinities, is beyond everything.
        let excess = if excess.is_nan() { f32::INFINITY } else { excess };
        many += usize::from(excess > 1.0);
        if excess > worst.0 {
            worst = (excess, i);
        }
    }
    let (excess, i) = worst;
    let problem = (many > 0).then(|| {
        let (a, b) = (f32::from_bits(gpu[i]), f32::from_bits(cpu[i]));
        format!(
            "[{i}] is {a:e} on the gpu, {b:e} on the cpu, {excess:.1} times the tolerance of {absolute:e} + \
             {relative:e}·|cpu|; {many} of {} elements differ by more than it",
            cpu.len()
        )
    });
    (excess, i, problem)
}

pub fn sub(whole: Range, start: usize, len: usize) -> Range {
    Range { buffer: whole.buffer, start: whole.start + start, len }
}

/// Numbers of which a name is the seed.
pub struct Random(Pcg64Mcg);

impl Random {
    pub fn of(name: &str) -> Random {
        // FNV-1a.
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Random(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Uniform within ±1.
    pub fn float(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    pub fn below(&mut self, n: usize) -> u32 {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as u32
    }

    pub fn words(&mut self, len: usize) -> Vec<u32> {
        (0..len).map(|_| self.0.next_u32()).collect()
    }

    /// `len` labels of so many classes, four a word; 255, which is none, fills the last word.
    pub fn labels(&mut self, len: usize, classes: usize) -> Vec<u32> {
        let mut bytes: Vec<u8> = (0..len).map(|_| self.below(classes) as u8).collect();
        bytes.resize(len.next_multiple_of(4), 255);
        bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
    }

    pub fn order(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1) as usize);
        }
        order
    }
}

/// Twice as much is infinite.
pub const HUGE: f32 = 3e38;

/// By which two such numbers are multiplied: their sum is infinite either way, and finite.
pub const FACTORS: [[f32; 2]; 3] = [[2.0, 2.0], [-2.0, -2.0], [0.5, -0.25]];

/// Lanes of the blocks that hold `batch` images.
pub fn lanes(batch: usize) -> usize {
    blocks(batch) * LANES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_finds_mistakes() {
        let known = |compare, nan| Known {
            before: vec![POISON; 4],
            written: vec![0..3],
            compare,
            nan,
            nans: Vec::new(),
        };
        let close = known(Compare::Close { absolute: 0.01, relative: 0.01 }, false);
        let words = |values: [f32; 3]| {
            let [a, b, c] = values.map(f32::to_bits);
            [a, b, c, POISON]
        };
        let right = words([1.0, -2.0, 100.0]);
        let count = |known: &Known, gpu: &[u32], cpu: &[u32]| known.judge(gpu, cpu).failures.len();
        assert_eq!(count(&close, &right, &right), 0);
        assert_eq!(count(&close, &words([1.01, -2.01, 100.9]), &right), 0);
        assert_eq!(count(&close, &words([1.03, -2.0, 100.0]), &right), 1);
        assert_eq!(count(&close, &words([1.0, 2.0, 100.0]), &right), 1);
        assert_eq!(count(&close, &words([1.0, f32::NAN, 100.0]), &right), 1);
        assert_eq!(count(&close, &words([1.0, f32::INFINITY, 100.0]), &right), 1);
        assert_eq!(count(&close, &right, &words([1.0, f32::INFINITY, 100.0])), 1);
        let nan = words([1.0, f32::NAN, 100.0]);
        assert_eq!(count(&close, &nan, &nan), 1);
        let may = known(Compare::Close { absolute: 0.01, relative: 0.01 }, true);
        assert_eq!(count(&may, &nan, &nan), 0);
        assert_eq!(count(&may, &nan, &right), 1);
        // A NaN that must be there, and on the device may be left out.
        let must = Known { nans: vec![1], ..known(Compare::Close { absolute: 0.01, relative: 0.01 }, false) };
        let notes = |gpu: &[u32], cpu: &[u32]| must.judge(gpu, cpu).notes.len();
        assert_eq!((count(&must, &nan, &nan), notes(&nan, &nan)), (0, 0));
        assert_eq!((count(&must, &right, &nan), notes(&right, &nan)), (0, 1));
        assert_eq!((count(&must, &nan, &right), notes(&nan, &right)), (1, 0));
        let more = words([f32::NAN, f32::NAN, 100.0]);
        assert_eq!(count(&must, &more, &nan), 1);
        // Not written on both sides, and written beyond the end on one.
        let missing = [right[0], POISON, right[2], POISON];
        assert_eq!(count(&may, &missing, &missing), 2);
        assert_eq!(count(&close, &[right[0], right[1], right[2], 0], &right), 1);
        let exact = known(Compare::Bits, false);
        assert_eq!(count(&exact, &[1, 2, 3, POISON], &[1, 2, 3, POISON]), 0);
        assert_eq!(count(&exact, &[1, 2, 4, POISON], &[1, 2, 3, POISON]), 1);
        let metrics = known(Compare::Metrics, false);
        assert_eq!(count(&metrics, &[right[0] + 1, 2, 3, POISON], &[right[0], 2, 3, POISON]), 0);
        assert_eq!(count(&metrics, &[right[0], 3, 3, POISON], &[right[0], 2, 3, POISON]), 1);
    }
}
