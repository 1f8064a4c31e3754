//! Proves that every entry point of every shader computes what its CPU twin computes, and writes nothing else.

// A list of one range is a list of ranges here; and a comparison with NaN must count as a failure.
#![allow(clippy::single_range_in_vec_init, clippy::neg_cmp_op_on_partial_ord)]

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::{env, fs};

use lenet::backend::{Backend, Gpu, gpu};
use lenet::error::Error;
use lenet::kernels::activation::Activation;
use lenet::kernels::loss::{LOSS_NOT_FINITE, RECORD};
use lenet::kernels::optimizer::{GRADIENT_NOT_FINITE, Optimizer, Rule, Segment};
use lenet::kernels::{
    CHUNK, LANES, Launch, Range, SHADERS, Step, batch, blocks, conv_pool, conv2d, linear, loss, optimizer,
    padded, peak, pool2d,
};
use lenet::network::Network;
use lenet::plan::{LARGEST_BATCH, Memory, Options, Phase, Plan, Program};
use pollster::block_on;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

// ---------------------------------------------------------------------------------------------------------
// Tolerances

/// How two buffers are compared, element by element.
#[derive(Clone, Copy)]
enum Compare {
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
/// bound is 13 times as wide again at most, and still 10⁴ times smaller than one term left out.
fn sums(terms: usize) -> Compare {
    Compare::Close { absolute: (terms + 8) as f32 * f32::EPSILON, relative: 1e-6 }
}

/// Such sums, put through an activation where there is one.
fn activated(activation: Option<Activation>, terms: usize) -> Compare {
    let Compare::Close { absolute, relative } = sums(terms) else { return sums(terms) };
    match activation {
        None | Some(Activation::Relu) => Compare::Close { absolute, relative },
        Some(_) => Compare::Close { absolute: 2.0 * absolute + 2e-5, relative: 4e-5 },
    }
}

/// WGSL lets `tanh` err by 1e-5, `log` by 2⁻²¹ and `exp` by (3 + 2|x|) units in the last place.
const TRANSCENDENTAL: Compare = Compare::Close { absolute: 2e-5, relative: 4e-5 };

/// Only multiplications, additions and a division, which WGSL lets err by 2.5 units in the last place; the
/// values are below 10.
const ARITHMETIC: Compare = Compare::Close { absolute: 2e-6, relative: 1e-6 };

/// Three updates of values below 2, with steps up to 0.1 · g/√v: the roundings of three steps, and those of g
/// where its terms cancel.
const UPDATES: Compare = Compare::Close { absolute: 4e-6, relative: 1e-5 };

/// Sums of up to 64 losses, each within [`TRANSCENDENTAL`].
const METRICS: (f32, f32) = (1e-3, 4e-5);

/// Parameters of LeNet-5 after five steps of momentum: gradients differ by some 1e-6 of their size (see
/// [`sums`]), updates are at most 0.05 times as large, and the network passes small differences on.
const TRAINED: (f32, f32) = (2e-6, 1e-5);

// ---------------------------------------------------------------------------------------------------------
// Cases

/// What outputs and padding hold before the run: a quiet NaN that no operation makes.
const POISON: u32 = 0x7fc0_dead;
/// The same for integers.
const POISON_U32: u32 = 0xdead_beef;

/// A few launches over poisoned buffers, and what is known about every buffer after them.
struct Case {
    name: String,
    program: Program,
    steps: Vec<Step>,
    buffers: Vec<Known>,
    /// Words that both sides must hold in the end.
    expected: Vec<(Range, usize, u32)>,
}

/// A buffer before the run, and which of its elements the run writes.
struct Known {
    before: Vec<u32>,
    written: Vec<std::ops::Range<usize>>,
    compare: Compare,
    /// Whether NaN is a result; it must then stand at the same places.
    nan: bool,
}

impl Case {
    fn new(name: String) -> Case {
        Case {
            name,
            program: Program::default(),
            steps: vec![Step::default()],
            buffers: Vec::new(),
            expected: Vec::new(),
        }
    }

    fn add(
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
        self.buffers.push(Known { before, written: written.to_vec(), compare, nan: false });
        range
    }

    /// Floats that are only read.
    fn floats(&mut self, name: &str, values: &[f32]) -> Range {
        self.add(name, bytemuck::cast_slice(values), POISON, &[], Compare::Bits)
    }

    /// Integers that are only read.
    fn integers(&mut self, name: &str, values: &[u32]) -> Range {
        self.add(name, values, POISON_U32, &[], Compare::Bits)
    }

    /// Floats of which every one is written.
    fn output(&mut self, name: &str, len: usize, compare: Compare) -> Range {
        self.add(name, &vec![POISON; len], POISON, &[0..len], compare)
    }

    /// Floats that are read and written.
    fn updated(
        &mut self,
        name: &str,
        values: &[f32],
        written: &[std::ops::Range<usize>],
        compare: Compare,
    ) -> Range {
        self.add(name, bytemuck::cast_slice(values), POISON, written, compare)
    }

    /// Tensors that are only read, in one buffer and away from its start.
    fn packed(&mut self, name: &str, tensors: &[&[f32]]) -> Vec<Range> {
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
    fn partials(&mut self, name: &str, lens: &[usize], splits: usize, compare: Compare) -> Vec<Range> {
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

    fn launch(&mut self, launch: lenet::Result<Launch>) {
        let launch = launch.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.program.train.push(launch);
    }

    /// Runs the case on both sides; says everything that differs.
    fn failures(&self, device: &gpu::Device) -> Vec<String> {
        let after = |mut backend: Backend| -> lenet::Result<Vec<Vec<u32>>> {
            let whole = |i: usize| {
                let buffer = lenet::plan::BufferId(i);
                Range { buffer, start: 0, len: self.program.buffers[i].len }
            };
            for (i, known) in self.buffers.iter().enumerate() {
                backend.write(whole(i), &known.before)?;
            }
            backend.run(Phase::Train, &self.steps)?;
            let reads: Vec<_> = (0..self.buffers.len()).map(|i| backend.read(whole(i))).collect();
            reads.into_iter().map(block_on).collect()
        };
        let cpu = after(Backend::cpu(&self.program)).expect("the CPU backend does not fail");
        let gpu = match block_on(Backend::gpu(device, &self.program)).and_then(after) {
            Ok(gpu) => gpu,
            Err(error) => return vec![format!("{}: {error}", self.name)],
        };
        let mut failures = Vec::new();
        for (i, known) in self.buffers.iter().enumerate() {
            let buffer = &self.program.buffers[i].name;
            for problem in known.problems(&gpu[i], &cpu[i]) {
                failures.push(format!("{}: {buffer}: {problem}", self.name));
            }
        }
        for &(range, at, want) in &self.expected {
            for (side, found) in [("gpu", &gpu), ("cpu", &cpu)] {
                let found = found[range.buffer.0][range.start + at];
                if found != want {
                    let buffer = &self.program.buffers[range.buffer.0].name;
                    failures.push(format!(
                        "{}: {buffer}[{at}] is {found:#x} on the {side}, expected {want:#x}",
                        self.name
                    ));
                }
            }
        }
        failures
    }
}

impl Known {
    fn problems(&self, gpu: &[u32], cpu: &[u32]) -> Vec<String> {
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
        let close = |absolute, relative| {
            differences(gpu, cpu, absolute, relative, self.nan, |i| written[i] && self.is_float(i))
        };
        match self.compare {
            Compare::Bits => {}
            Compare::Close { absolute, relative } => problems.extend(close(absolute, relative)),
            Compare::Metrics => problems.extend(close(METRICS.0, METRICS.1)),
        }
        let exact = |i: &usize| written[*i] && !self.is_float(*i) && gpu[*i] != cpu[*i];
        if let Some(i) = (0..written.len()).find(exact) {
            problems.push(format!("[{i}] is {} on the gpu, {} on the cpu", gpu[i], cpu[i]));
        }
        problems
    }

    fn is_float(&self, i: usize) -> bool {
        match self.compare {
            Compare::Bits => false,
            Compare::Close { .. } => true,
            Compare::Metrics => i.is_multiple_of(RECORD),
        }
    }
}

/// Says where two sides differ most, measured by the tolerance, if they differ by more than it.
fn differences(
    gpu: &[u32],
    cpu: &[u32],
    absolute: f32,
    relative: f32,
    nan: bool,
    counts: impl Fn(usize) -> bool,
) -> Option<String> {
    let mut worst = (1.0, 0);
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
        // An excess that is itself NaN, as of two infinities, counts.
        if !(excess <= 1.0) {
            many += 1;
            if !(excess <= worst.0) {
                worst = (excess, i);
            }
        }
    }
    let (excess, i) = worst;
    (many > 0).then(|| {
        let (a, b) = (f32::from_bits(gpu[i]), f32::from_bits(cpu[i]));
        format!(
            "[{i}] is {a:e} on the gpu, {b:e} on the cpu, {excess:.1} times the tolerance of {absolute:e} + \
             {relative:e}·|cpu|; {many} of {} elements differ by more than it",
            cpu.len()
        )
    })
}

fn sub(whole: Range, start: usize, len: usize) -> Range {
    Range { buffer: whole.buffer, start: whole.start + start, len }
}

/// Numbers of which a name is the seed.
struct Random(Pcg64Mcg);

impl Random {
    fn of(name: &str) -> Random {
        // FNV-1a.
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Random(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Uniform within ±1.
    fn float(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    fn below(&mut self, n: usize) -> u32 {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as u32
    }

    fn words(&mut self, len: usize) -> Vec<u32> {
        (0..len).map(|_| self.0.next_u32()).collect()
    }

    fn order(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1) as usize);
        }
        order
    }
}

/// Lanes of the blocks that hold `batch` images.
fn lanes(batch: usize) -> usize {
    blocks(batch) * LANES
}

// ---------------------------------------------------------------------------------------------------------
// batch

fn batch_cases() -> Vec<Case> {
    // Channels, rows, columns, padding, mean, deviation, batch, images in it, position in the order.
    let table = [
        (1, 28, 28, 2, 0.0, 1.0, 16, 16, 0),
        (1, 28, 28, 0, 0.1307, 0.3081, 64, 64, 1),
        (1, 5, 7, 3, 0.5, 0.25, 17, 17, 9),
        (3, 5, 7, 1, 0.4, 0.2, 3, 3, 2),
        (3, 9, 4, 0, -0.1, 1.2, 33, 20, 5),
        (2, 1, 1, 2, 0.2, 0.5, 1, 1, 30),
        (1, 6, 6, 1, 0.3, 0.7, 40, 1, 31),
        (1, 3, 3, 0, 0.0, 1.0, 5, 0, 0),
    ];
    table
        .into_iter()
        .map(|(channels, height, width, pad, mean, deviation, batch, count, cursor)| {
            let geometry = batch::Geometry { channels, height, width, pad, mean, deviation, batch };
            let mut case = Case::new(format!("{geometry:?}, {count} images from {cursor}"));
            let mut random = Random::of(&case.name);
            let images = 70;
            let bytes = images * channels * height * width;
            let features = channels * (height + 2 * pad) * (width + 2 * pad);
            let pixels = case.integers("images", &random.words(bytes.div_ceil(4)));
            let order = case.integers("order", &random.order(images));
            let output = case.output("output", features * lanes(batch), ARITHMETIC);
            case.steps = vec![Step { cursor, count, ..Step::default() }];
            case.launch(geometry.gather(batch::Buffers { images: pixels, order, output }));
            case
        })
        .collect()
}

// ---------------------------------------------------------------------------------------------------------
// conv2d

/// A convolution without its output's size.
#[derive(Debug, Clone, Copy)]
struct Conv {
    channels: [usize; 2],
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    bias: bool,
    batch: usize,
}

const CONV: Conv = Conv {
    channels: [2, 3],
    size: [7, 9],
    kernel: [3, 3],
    stride: [1, 1],
    pad: [0, 0],
    dilation: [1, 1],
    groups: 1,
    bias: true,
    batch: 3,
};

fn conv2d_cases() -> Vec<Case> {
    // Small, since a software adapter needs a second or more to compile each pipeline.
    let table = [
        // Widths of filters, and of outputs that no tile divides.
        CONV,
        Conv { channels: [1, 6], size: [12, 12], kernel: [5, 5], batch: 17, ..CONV },
        Conv { channels: [3, 5], kernel: [1, 1], batch: 1, ..CONV },
        Conv { channels: [4, 4], kernel: [2, 2], batch: 16, ..CONV },
        Conv { channels: [1, 1], kernel: [7, 7], ..CONV },
        Conv { channels: [1, 7], size: [5, 9], kernel: [2, 7], ..CONV },
        Conv { channels: [2, 3], size: [8, 5], kernel: [7, 3], batch: 33, ..CONV },
        Conv { channels: [1, 9], size: [1, 13], kernel: [1, 6], ..CONV },
        // The output is one pixel, as of LeNet-5's third convolution.
        Conv { channels: [4, 10], size: [5, 5], kernel: [5, 5], batch: 20, ..CONV },
        // Padding, also wider than the filter reaches.
        Conv { size: [5, 6], pad: [1, 1], ..CONV },
        Conv { channels: [1, 4], size: [4, 5], kernel: [5, 5], pad: [2, 2], batch: 17, ..CONV },
        Conv { size: [3, 4], kernel: [2, 2], pad: [3, 2], ..CONV },
        // Strides, with rows and columns left over.
        Conv { size: [5, 6], stride: [2, 2], batch: 17, ..CONV },
        Conv { size: [6, 8], stride: [2, 2], pad: [1, 1], ..CONV },
        Conv { kernel: [2, 2], stride: [3, 3], ..CONV },
        Conv { channels: [1, 2], size: [7, 5], kernel: [3, 2], stride: [3, 1], pad: [0, 2], ..CONV },
        // Dilation.
        Conv { channels: [1, 2], size: [7, 6], kernel: [2, 3], dilation: [3, 2], pad: [2, 3], ..CONV },
        Conv { channels: [1, 2], size: [5, 9], dilation: [1, 3], stride: [2, 2], pad: [1, 1], ..CONV },
        // Groups.
        Conv { channels: [6, 9], size: [4, 5], groups: 3, pad: [1, 1], batch: 17, ..CONV },
        Conv { channels: [5, 5], groups: 5, ..CONV },
        Conv { channels: [12, 14], groups: 2, kernel: [2, 3], dilation: [2, 1], ..CONV },
        // Without a bias.
        Conv { channels: [4, 6], size: [4, 5], groups: 2, bias: false, batch: 33, ..CONV },
        // Fewer partial sums than blocks: two for four blocks, one for two.
        Conv { channels: [16, 20], size: [6, 7], kernel: [5, 5], batch: 64, ..CONV },
        Conv { channels: [16, 32], size: [5, 6], kernel: [5, 5], batch: 30, ..CONV },
    ];
    table.into_iter().map(conv2d_case).collect()
}

impl Conv {
    fn geometry(&self) -> conv2d::Geometry {
        let side = |d: usize| {
            let reach = self.dilation[d] * (self.kernel[d] - 1) + 1;
            (self.size[d] + 2 * self.pad[d] - reach) / self.stride[d] + 1
        };
        conv2d::Geometry {
            in_channels: self.channels[0],
            in_size: self.size,
            out_channels: self.channels[1],
            out_size: [side(0), side(1)],
            kernel: self.kernel,
            stride: self.stride,
            pad: self.pad,
            dilation: self.dilation,
            groups: self.groups,
            bias: self.bias,
            batch: self.batch,
        }
    }
}

fn conv2d_case(conv: Conv) -> Case {
    let g = conv.geometry();
    let mut case = Case::new(format!("{conv:?}"));
    let mut random = Random::of(&case.name);
    let taps = g.kernel[0] * g.kernel[1];
    let (inputs, outputs) =
        (g.in_channels * g.in_size[0] * g.in_size[1], g.out_channels * g.out_size[0] * g.out_size[1]);
    let rows = lanes(g.batch);
    let input = case.floats("input", &random.floats(inputs * rows));
    let (weights, biases) = (random.floats(g.weights()), random.floats(g.out_channels));
    let parameters = case.packed("parameters", &[&weights, &biases]);
    let output = case.output("output", outputs * rows, sums(g.in_channels / g.groups * taps));
    let output_grad = case.floats("output_grad", &random.floats(outputs * rows));
    let input_grad = case.output("input_grad", inputs * rows, sums(g.out_channels / g.groups * taps));
    let lens = if g.bias { vec![g.weights(), g.out_channels] } else { vec![g.weights()] };
    let terms = sums(g.out_size[0] * g.out_size[1] * rows);
    let gradients = case.partials("gradients", &lens, g.splits(), terms);
    // Without a bias, any range does.
    let bias = if g.bias { parameters[1] } else { parameters[0] };
    let buffers = conv2d::Buffers { input, weight: parameters[0], bias, output };
    let upstream = conv2d::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
    case.launch(g.forward(buffers));
    case.launch(g.input_gradient(buffers, upstream, input_grad));
    case.launch(g.weight_gradient(buffers, upstream));
    case
}

// ---------------------------------------------------------------------------------------------------------
// linear

fn linear_cases() -> Vec<Case> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    // Inputs, outputs, batch, bias, activation, activation of the input.
    let table = [
        (1, 1, 1, true, None, None),
        (3, 2, 3, true, Some(Sigmoid), Some(Relu)),
        (5, 9, 17, true, Some(Relu), Some(Tanh)),
        (8, 13, 16, true, Some(ScaledTanh), Some(Sigmoid)),
        (7, 3, 33, false, Some(Tanh), Some(ScaledTanh)),
        (35, 33, 80, false, None, None),
        // More features than a workgroup takes, in both directions.
        (260, 5, 3, true, None, None),
        // Fewer partial sums than blocks: three for five, one for two.
        (200, 100, 80, true, Some(Relu), Some(Relu)),
        (260, 261, 30, true, None, None),
    ];
    table
        .into_iter()
        .map(|(inputs, outputs, batch, bias, activation, input_activation)| {
            let g =
                linear::Geometry { inputs, outputs, bias, activation, input_activation, batch, fill: 4096 };
            let mut case = Case::new(format!("{g:?} in {} parts", g.splits()));
            let mut random = Random::of(&case.name);
            let rows = lanes(batch);
            let input = case.floats("input", &random.floats(inputs * rows));
            let (weights, biases) = (random.floats(g.weights()), random.floats(outputs));
            let parameters = case.packed("parameters", &[&weights, &biases]);
            let output = case.output("output", outputs * rows, activated(activation, inputs));
            let output_grad = case.floats("output_grad", &random.floats(outputs * rows));
            let lens = if bias { vec![g.weights(), outputs] } else { vec![g.weights()] };
            let bound = if bias { parameters[1] } else { parameters[0] };
            let buffers = linear::Buffers { input, weight: parameters[0], bias: bound, output };
            case.launch(g.forward(buffers));
            // Both gradients in one launch and, for some shapes, in two.
            let input_grad = case.output("input_grad", inputs * rows, sums(outputs));
            let gradients = case.partials("gradients", &lens, g.splits(), sums(rows));
            let upstream =
                linear::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
            case.launch(g.backward(buffers, upstream, input_grad));
            if outputs % 2 == 1 {
                return case;
            }
            let input_grad = case.output("separate input_grad", inputs * rows, sums(outputs));
            let gradients = case.partials("separate gradients", &lens, g.splits(), sums(rows));
            let upstream =
                linear::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
            case.launch(g.input_gradient(buffers, upstream, input_grad));
            case.launch(g.weight_gradient(buffers, upstream));
            case
        })
        .collect()
}

// ---------------------------------------------------------------------------------------------------------
// conv_pool

/// A fused convolution; its stride, dilation and groups are 1.
#[derive(Debug, Clone, Copy)]
struct Fused {
    conv: Conv,
    average: bool,
    activation: Option<Activation>,
    input_activation: Option<Activation>,
    /// Border, mean and deviation where the launch gathers.
    gather: Option<(usize, f32, f32)>,
    count: u32,
    fill: usize,
}

fn conv_pool_cases() -> Vec<Case> {
    use Activation::{Relu, ScaledTanh, Sigmoid, Tanh};
    let fused = Fused {
        conv: CONV,
        average: false,
        activation: Some(Relu),
        input_activation: None,
        gather: None,
        count: 0,
        fill: 1,
    };
    let table = [
        // As LeNet-5's first two layers, but for their size; whole rows a tile, two rows of taps.
        Fused {
            conv: Conv { channels: [1, 6], size: [10, 14], kernel: [5, 5], batch: 20, ..CONV },
            gather: Some((2, 0.1, 0.3)),
            count: 17,
            ..fused
        },
        Fused {
            conv: Conv { channels: [6, 16], size: [8, 14], kernel: [5, 5], batch: 33, ..CONV },
            input_activation: Some(Relu),
            ..fused
        },
        // As many invocations as there can be: tiles of 2 columns, partial sums of rows.
        Fused {
            conv: Conv { channels: [2, 5], size: [8, 8], kernel: [3, 3], batch: 33, ..CONV },
            activation: Some(Sigmoid),
            input_activation: Some(Tanh),
            fill: 1 << 20,
            ..fused
        },
        // A few partial sums of rows, for rows they do not divide.
        Fused {
            conv: Conv { channels: [1, 3], size: [6, 4], kernel: [1, 1], batch: 3, ..CONV },
            activation: None,
            input_activation: Some(Sigmoid),
            fill: 32,
            ..fused
        },
        // Odd sizes, of which the last row and column belong to no window.
        Fused {
            conv: Conv { channels: [3, 4], size: [5, 7], pad: [1, 1], bias: false, ..CONV },
            activation: Some(Tanh),
            input_activation: Some(ScaledTanh),
            ..fused
        },
        Fused {
            conv: Conv { channels: [5, 2], size: [7, 9], kernel: [3, 4], pad: [2, 1], batch: 17, ..CONV },
            average: true,
            activation: Some(Tanh),
            input_activation: Some(Tanh),
            ..fused
        },
        Fused {
            conv: Conv { channels: [2, 3], size: [4, 9], kernel: [2, 3], pad: [0, 1], ..CONV },
            average: true,
            activation: Some(ScaledTanh),
            fill: 1 << 20,
            ..fused
        },
        // Colour, gathered, with a border and padding.
        Fused {
            conv: Conv { channels: [3, 5], size: [6, 7], kernel: [3, 2], pad: [1, 0], batch: 17, ..CONV },
            average: true,
            activation: None,
            gather: Some((1, 0.4, 0.7)),
            count: 3,
            ..fused
        },
    ];
    table.into_iter().map(conv_pool_case).collect()
}

fn conv_pool_case(fused: Fused) -> Case {
    let Fused { conv, average, activation, input_activation, count, fill, .. } = fused;
    let [in_channels, out_channels] = conv.channels;
    let [height, width] = conv.size;
    let gather = fused.gather.map(|(pad, mean, deviation)| batch::Geometry {
        channels: in_channels,
        height: height - 2 * pad,
        width: width - 2 * pad,
        pad,
        mean,
        deviation,
        batch: conv.batch,
    });
    let g =
        conv_pool::Geometry { conv: conv.geometry(), average, activation, input_activation, gather, fill };
    let mut case = Case::new(format!("{fused:?} in {} parts", g.splits()));
    let mut random = Random::of(&case.name);
    let rows = lanes(conv.batch);
    let terms = in_channels * conv.kernel[0] * conv.kernel[1];
    let [out_height, out_width] = g.conv.out_size;
    let [pooled_height, pooled_width] = g.pooled();
    let outputs = out_channels * pooled_height * pooled_width * rows;
    // Small integers add up exactly in any order, so that both sides find the same winners and the same ties.
    let mut small = |len: usize| -> Vec<f32> { (0..len).map(|_| random.below(5) as f32 - 2.0).collect() };
    let inputs = in_channels * height * width * rows;
    let (weights, biases) = (small(g.conv.weights()), small(out_channels));
    let pixels = small(inputs);
    let mut random = Random::of(&format!("{} again", case.name));
    let images = 70;
    let input = match gather {
        Some(_) => {
            let (border, ..) = fused.gather.unwrap_or_default();
            let bytes = images * in_channels * (height - 2 * border) * (width - 2 * border);
            case.integers("images", &random.words(bytes.div_ceil(4)))
        }
        None => case.floats("input", &pixels),
    };
    let order = if gather.is_some() { case.integers("order", &random.order(images)) } else { input };
    let (weights, biases) =
        if average { (random.floats(weights.len()), random.floats(biases.len())) } else { (weights, biases) };
    let parameters = case.packed("parameters", &[&weights, &biases]);
    let compare = activated(activation, 8 * terms);
    let output = case.output("output", outputs, compare);
    let poison = vec![POISON; g.saved()];
    let saved = if average {
        // The values in windows.
        let plane = out_height * out_width * LANES;
        let mut written = Vec::new();
        for start in (0..g.saved()).step_by(plane) {
            written.extend((0..2 * pooled_height).map(|y| {
                let row = start + y * out_width * LANES;
                row..row + 2 * pooled_width * LANES
            }));
        }
        case.add("saved", &poison, POISON, &written, compare)
    } else {
        case.add("saved", &poison, POISON, &[0..poison.len()], Compare::Bits)
    };
    let bias = if conv.bias { parameters[1] } else { parameters[0] };
    let buffers = conv_pool::Buffers { input, order, weight: parameters[0], bias, output, saved };
    case.steps = vec![Step { cursor: 5, count, ..Step::default() }];
    case.launch(g.forward(buffers, true));
    if conv.channels == [3, 4] {
        // For evaluation nothing is kept.
        let output = case.output("evaluated", outputs, compare);
        let saved = case.add("not saved", &poison, POISON, &[], Compare::Bits);
        case.launch(g.forward(conv_pool::Buffers { output, saved, ..buffers }, false));
    }
    // The backward pass takes winners, or values within ±1, that need not be the forward pass'.
    let recalled: Vec<u32> =
        (0..g.saved()).map(|_| if average { random.float().to_bits() } else { random.below(4) }).collect();
    let saved = case.add("recalled", &recalled, POISON, &[], Compare::Bits);
    let buffers = conv_pool::Buffers { saved, ..buffers };
    let output_grad = case.floats("output_grad", &random.floats(outputs));
    let lens = if conv.bias { vec![g.conv.weights(), out_channels] } else { vec![g.conv.weights()] };
    // Inputs are up to 2, or (1 − mean) / deviation; slopes up to 6.
    let summed = sums(3 * out_height * out_width * rows);
    let passes = match (gather.is_some(), conv.kernel) {
        (true, _) => vec![false],
        (false, [1, 1]) => vec![false, true],
        (false, _) => vec![true],
    };
    for with_input in passes {
        let name = if with_input { "gradients" } else { "first layer's gradients" };
        let gradients = case.partials(name, &lens, g.splits(), summed);
        let upstream = conv2d::Gradients { output: output_grad, weight: gradients[0], bias: gradients[1] };
        let terms = 12 * out_channels * conv.kernel[0] * conv.kernel[1];
        let input_grad = with_input.then(|| case.output("input_grad", inputs, sums(terms)));
        case.launch(g.backward(buffers, upstream, input_grad));
    }
    case
}

// ---------------------------------------------------------------------------------------------------------
// peak

fn peak_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (elements, rounds) in [(1, 8), (63, 16), (1000, 40)] {
        let mut case = Case::new(format!("{rounds} rounds of {elements} elements"));
        let values = Random::of(&case.name).floats(elements);
        let input = case.floats("input", &values);
        // Twelve chains that stay below 11 + 41 and round twice a round on one side, once on the other.
        let rounding = 12.0 * 52.0 * 2.0 * rounds as f32 * f32::EPSILON;
        let output = case.output("output", elements, Compare::Close { absolute: rounding, relative: 0.0 });
        case.launch(peak::multiply_add(input, output, rounds));
        cases.push(case);
    }
    // The last has more workgroups than fit one row of the grid.
    for words in [4, 260, 4 * (65_535 * 64 + 70)] {
        let mut case = Case::new(format!("a copy of {words} words"));
        let values = Random::of(&case.name).words(words);
        let source = case.integers("source", &values);
        let copied = case.add("copied", &vec![POISON_U32; words], POISON_U32, &[0..words], Compare::Bits);
        case.launch(peak::copy(source, copied));
        cases.push(case);
    }
    cases
}

// ---------------------------------------------------------------------------------------------------------
// pool2d

/// What a pooling's inputs are like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pixels {
    Random,
    /// Three integers, so that most windows have ties.
    Ties,
    /// The lowest floats there are, −inf among them.
    Lowest,
}

fn pool2d_cases() -> Vec<Case> {
    use Pixels::{Lowest, Random, Ties};
    // Channels, size, output's size, kernel, stride, padding, batch, pixels.
    let table = [
        (3, [8, 8], [4, 4], [2, 2], [2, 2], [0, 0], 17, Random),
        (6, [6, 10], [3, 5], [2, 2], [2, 2], [0, 0], 64, Ties),
        (1, [7, 5], [3, 2], [2, 2], [2, 2], [0, 0], 1, Random),
        (2, [9, 7], [3, 2], [3, 3], [3, 3], [0, 0], 3, Random),
        // Windows that overlap.
        (2, [7, 8], [3, 3], [3, 3], [2, 2], [0, 0], 16, Random),
        (2, [7, 8], [3, 3], [3, 3], [2, 2], [0, 0], 33, Ties),
        (1, [5, 6], [4, 5], [2, 2], [1, 1], [0, 0], 3, Ties),
        (1, [4, 4], [1, 1], [4, 4], [4, 4], [0, 0], 3, Ties),
        // Windows with gaps between.
        (2, [8, 8], [3, 3], [2, 2], [3, 3], [0, 0], 3, Random),
        // Padding.
        (2, [6, 6], [4, 4], [2, 2], [2, 2], [1, 1], 3, Random),
        (1, [5, 7], [3, 4], [3, 3], [2, 2], [1, 1], 17, Ties),
        (1, [6, 5], [6, 3], [3, 2], [1, 2], [1, 1], 3, Random),
        // Sizes rounded up: the last windows reach over the end, or over the padding too.
        (2, [5, 7], [3, 4], [2, 2], [2, 2], [0, 0], 3, Ties),
        (1, [6, 6], [4, 4], [3, 3], [2, 2], [1, 1], 3, Random),
        (1, [7, 6], [3, 3], [3, 3], [3, 3], [1, 1], 3, Ties),
        // Windows of unequal sides.
        (2, [6, 9], [2, 4], [3, 2], [3, 2], [0, 0], 20, Random),
        (1, [1, 9], [1, 4], [1, 3], [1, 2], [0, 0], 3, Ties),
        // Values as low as padding.
        (1, [5, 5], [3, 3], [3, 3], [2, 2], [1, 1], 3, Lowest),
        (2, [6, 6], [3, 3], [2, 2], [2, 2], [0, 0], 17, Lowest),
    ];
    let mut cases = Vec::new();
    for (channels, in_size, out_size, kernel, stride, pad, batch, pixels) in table {
        for count_pad in [true, false] {
            let g = pool2d::Geometry { channels, in_size, out_size, kernel, stride, pad, count_pad, batch };
            let mut case = Case::new(format!("{pixels:?} {g:?}"));
            let mut random = self::Random::of(&case.name);
            let rows = lanes(batch);
            let (inputs, outputs) =
                (channels * in_size[0] * in_size[1] * rows, channels * out_size[0] * out_size[1] * rows);
            let values: Vec<f32> = match pixels {
                Random => random.floats(inputs),
                Ties => (0..inputs).map(|_| random.below(3) as f32 - 1.0).collect(),
                Lowest => {
                    let lowest = [f32::NEG_INFINITY, f32::MIN, -3e38, -1e38];
                    (0..inputs).map(|_| lowest[random.below(4).min(random.below(4)) as usize]).collect()
                }
            };
            let input = case.floats("input", &values);
            let output_grad = case.floats("output_grad", &random.floats(outputs));
            let terms = sums(kernel[0] * kernel[1]);
            if count_pad {
                let output = case.output("output", outputs, Compare::Close { absolute: 0.0, relative: 0.0 });
                let poison = vec![POISON_U32; outputs];
                let winner = case.add("winner", &poison, POISON_U32, &[0..outputs], Compare::Bits);
                let input_grad = case.output("input_grad", inputs, terms);
                case.launch(g.max_forward(input, output, winner));
                case.launch(g.max_backward(output_grad, winner, input_grad));
            }
            if pixels != Lowest {
                let mean = case.output("mean", outputs, terms);
                let mean_grad = case.output("mean_grad", inputs, terms);
                case.launch(g.average_forward(input, mean));
                case.launch(g.average_backward(output_grad, mean_grad));
            }
            if !case.program.train.is_empty() {
                cases.push(case);
            }
        }
    }
    cases
}

// ---------------------------------------------------------------------------------------------------------
// activation

fn activation_cases() -> Vec<Case> {
    let kinds = [
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::LeakyRelu(-0.3),
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::ScaledTanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Elu(1.0),
        Activation::Elu(0.4),
        Activation::Softplus,
        Activation::HardSwish,
    ];
    let mut cases = Vec::new();
    for kind in kinds {
        let sizes: &[usize] = if kind == Activation::Relu { &[1, 63, 64, 1000] } else { &[999] };
        for &elements in sizes {
            let mut case = Case::new(format!("{kind:?} of {elements}"));
            let mut random = Random::of(&case.name);
            let special =
                [0.0, -0.0, 1e4, -1e4, 3.0, -3.0, 15.0, -15.0, 88.0, -88.0, 20.0, -20.0, 1e-6, -1e-6, 1.0];
            let mut values: Vec<f32> = (0..elements).map(|_| 5.0 * random.float()).collect();
            for (value, special) in values.iter_mut().zip(special) {
                *value = special;
            }
            let input = case.floats("input", &values);
            let output_grad = case.floats("output_grad", &random.floats(elements));
            let output = case.output("output", elements, TRANSCENDENTAL);
            let input_grad = case.output("input_grad", elements, TRANSCENDENTAL);
            case.launch(kind.forward(input, output));
            case.launch(kind.backward(input, output_grad, input_grad));
            cases.push(case);
        }
    }
    // More workgroups than fit one row of the grid.
    let elements = 65_535 * 64 + 70;
    let mut case = Case::new(format!("Relu of {elements}"));
    let values = Random::of(&case.name).floats(elements);
    let input = case.floats("input", &values);
    let output = case.output("output", elements, ARITHMETIC);
    let input_grad = case.output("input_grad", elements, ARITHMETIC);
    case.launch(Activation::Relu.forward(input, output));
    case.launch(Activation::Relu.backward(input, input, input_grad));
    cases.push(case);
    cases
}

// ---------------------------------------------------------------------------------------------------------
// loss

fn loss_cases() -> Vec<Case> {
    // Classes, smoothing, batch, images in it, position in the order.
    let table = [
        (10, 0.0, 16, 16, 0),
        (10, 0.1, 64, 64, 3),
        (2, 0.0, 1, 1, 11),
        (3, 0.1, 17, 17, 5),
        (7, 0.0, 33, 20, 7),
        (10, 0.1, 130, 129, 1),
        (35, 0.0, 3, 2, 90),
    ];
    let mut cases = Vec::new();
    for (classes, smoothing, batch, count, cursor) in table {
        let g = loss::Geometry { classes, smoothing, batch };
        let mut case = Case::new(format!("{g:?}, {count} images from {cursor}"));
        let mut random = Random::of(&case.name);
        let rows = lanes(batch);
        let images = 140;
        // By turns the logits of an image are random, ±1e4 with ties, and all the same.
        let values: Vec<f32> = (0..classes * rows)
            .map(|i| match i % LANES % 3 {
                0 => 6.0 * random.float(),
                1 => [1e4, -1e4, 0.0][random.below(3) as usize],
                _ => 2.5,
            })
            .collect();
        let logits = case.floats("logits", &values);
        let labels: Vec<u32> = (0..images).map(|_| random.below(classes)).collect();
        let labels = case.integers("labels", &labels);
        let order = case.integers("order", &random.order(images));
        let trained = case.output("rows", 2 * rows, TRANSCENDENTAL);
        let evaluated = case.output("evaluated rows", 2 * rows, TRANSCENDENTAL);
        let logits_grad = case.output("logits_grad", classes * rows, TRANSCENDENTAL);
        let probabilities = case.output("probabilities", classes * rows, TRANSCENDENTAL);
        let poison = vec![POISON_U32; 4 * RECORD];
        let record = 2 * RECORD..3 * RECORD;
        let metrics = case.add("metrics", &poison, POISON_U32, &[record], Compare::Metrics);
        let buffers = loss::Buffers { logits, labels, order, rows: trained };
        case.steps = vec![Step { cursor, count, slot: 2, ..Step::default() }];
        // Only the flags are cleared; the record is written at the step's end.
        let flags = 2 * RECORD + 3..2 * RECORD + 4;
        let cleared = case.add("cleared", &poison, POISON_U32, &[flags], Compare::Bits);
        case.launch(g.cross_entropy_gradient(buffers, logits_grad, cleared));
        case.launch(g.cross_entropy(loss::Buffers { rows: evaluated, ..buffers }));
        case.launch(g.softmax(logits, probabilities));
        case.launch(g.sum_rows(trained, metrics));
        case.expected = vec![
            (metrics, 2 * RECORD + 2, count),
            (metrics, 2 * RECORD + 3, 0),
            (cleared, 2 * RECORD + 3, 0),
        ];
        cases.push(case);
    }
    // A loss that is not finite raises the flag.
    for (what, loss) in [("NaN", f32::NAN), ("inf", f32::INFINITY), ("-inf", f32::NEG_INFINITY)] {
        for at in [0, 79] {
            let mut case = Case::new(format!("{what} as the loss of image {at}"));
            let mut values = Random::of(&case.name).floats(2 * 80);
            values.chunks_exact_mut(2).for_each(|row| row[1] = 1.0);
            values[2 * at] = loss;
            let rows = case.floats("rows", &values);
            let poison = vec![POISON_U32; 2 * RECORD];
            let metrics = case.add("metrics", &poison, POISON_U32, &[RECORD..2 * RECORD], Compare::Metrics);
            case.buffers[metrics.buffer.0].nan = true;
            case.steps = vec![Step { count: 80, slot: 1, ..Step::default() }];
            case.launch(loss::Geometry { classes: 10, smoothing: 0.0, batch: 80 }.sum_rows(rows, metrics));
            case.expected = vec![
                (metrics, RECORD + 1, 80),
                (metrics, RECORD + 2, 80),
                (metrics, RECORD + 3, LOSS_NOT_FINITE),
            ];
            cases.push(case);
        }
    }
    cases
}

// ---------------------------------------------------------------------------------------------------------
// optimizer

fn optimizer_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for rule in Rule::ALL {
        let plain = Optimizer { epsilon: 1e-3, ..Optimizer::new(rule) };
        let penalised = Optimizer {
            momentum: 0.5,
            alpha: 0.7,
            beta1: 0.6,
            beta2: 0.8,
            epsilon: 0.05,
            weight_decay: 0.2,
            l1: 0.05,
            ..plain
        };
        cases.push(optimizer_case("plain", plain, false));
        cases.push(optimizer_case("with penalties", penalised, false));
        cases.push(optimizer_case("with bad gradients", penalised, true));
    }
    cases
}

fn optimizer_case(what: &str, settings: Optimizer, bad: bool) -> Case {
    let mut case = Case::new(format!("{} {what}", settings.rule.name()));
    let mut random = Random::of(&case.name);
    // Length, partial sums, whether it is trained.
    let tensors = [(70, 1, true), (64, 3, true), (10, 2, false), (200, 4, true), (5, 1, false), (1, 2, true)];
    let mut segments = Vec::new();
    let (mut parameter, mut gradient) = (0, CHUNK);
    // Elements that change, and first partial sums.
    let (mut changed, mut whole) = (Vec::new(), Vec::new());
    let mut starts = Vec::new();
    for (len, partials, trainable) in tensors {
        let len = padded(len);
        for chunk in 0..len / CHUNK {
            segments.push(Segment {
                first: ((gradient + chunk * CHUNK) / 4) as u32,
                stride: (len / 4) as u32,
                partials,
                trainable: u32::from(trainable),
            });
        }
        if trainable {
            changed.push(parameter..parameter + len);
        }
        whole.push(gradient..gradient + len);
        starts.push((parameter, gradient));
        parameter += len;
        gradient += len * partials as usize;
    }
    let mut gradients = random.floats(gradient + CHUNK);
    let mut flags = 0;
    if bad {
        flags = GRADIENT_NOT_FINITE;
        // In the only partial sum, in a later one, and made by adding up.
        let bad = [
            (0, 21, f32::NAN),
            (1, 2 * 64 + 3, f32::INFINITY),
            (3, 70, f32::INFINITY),
            (3, 256 + 70, f32::NEG_INFINITY),
            (3, 130, 3e38),
            (3, 3 * 256 + 130, 3e38),
        ];
        for (tensor, at, value) in bad {
            gradients[starts[tensor].1 + at] = value;
        }
        // The vectors of four around them stay as they are.
        for at in [starts[0].0 + 20, starts[1].0, starts[3].0 + 68, starts[3].0 + 128] {
            let hit = changed.iter().position(|range| range.contains(&at)).expect("a trained tensor");
            let range = changed.swap_remove(hit);
            changed.extend([range.start..at, at + 4..range.end]);
        }
    }
    let mut values: Vec<f32> = random.floats(parameter);
    // The penalty's sign of zero is zero.
    values[8..12].copy_from_slice(&[0.0, -0.0, 0.0, -0.0]);
    let parameters = case.updated("parameters", &values, &changed, UPDATES);
    let gradients = case.updated("gradients", &gradients, &whole, UPDATES);
    case.buffers[gradients.buffer.0].nan = bad;
    let used = match settings.rule {
        Rule::Sgd => 0,
        Rule::Momentum | Rule::Nesterov => 1,
        Rule::Rmsprop | Rule::Adam | Rule::Adamw => 2,
    };
    let none = Vec::new();
    let values = random.floats(parameter);
    let moment1 = case.updated("moment1", &values, if used > 0 { &changed } else { &none }, UPDATES);
    let values: Vec<f32> = random.floats(parameter).into_iter().map(|v| 0.1 + v * v).collect();
    let moment2 = case.updated("moment2", &values, if used > 1 { &changed } else { &none }, UPDATES);
    let segments = case.integers("segments", bytemuck::cast_slice(&segments));
    // Each step writes its own record, and keeps the flags that are there.
    const OTHER_FLAG: u32 = 4;
    let records: Vec<u32> = (0..5).flat_map(|slot| [POISON_U32, slot, 16, OTHER_FLAG]).collect();
    let written: Vec<_> = (1..4).map(|slot| slot * RECORD..slot * RECORD + 4).collect();
    let metrics = case.add("metrics", &records, POISON_U32, &written, Compare::Metrics);
    case.buffers[metrics.buffer.0].nan = bad;
    let mut values: Vec<f32> =
        (0..5 * LANES).flat_map(|_| [3.0 * random.float(), random.below(2) as f32]).collect();
    if bad {
        flags |= LOSS_NOT_FINITE;
        values[2 * 70] = f32::NAN;
    }
    let rows = case.floats("rows", &values);
    case.steps = (1..4)
        .map(|time| {
            let (correction1, correction2) = settings.corrections(u64::from(time));
            let learning_rate = [0.1, 0.03, 0.01][time as usize - 1];
            Step { slot: time, count: 70 + time, learning_rate, correction1, correction2, ..Step::default() }
        })
        .collect();
    case.launch(settings.launch(optimizer::Buffers {
        parameters,
        gradients,
        moment1,
        moment2,
        segments,
        metrics,
        rows,
    }));
    case.expected = (1..4)
        .flat_map(|slot| {
            [(metrics, slot * RECORD + 2, 70 + slot as u32), (metrics, slot * RECORD + 3, OTHER_FLAG | flags)]
        })
        .collect();
    case
}

// ---------------------------------------------------------------------------------------------------------
// The table, and its tests

/// Makes the cases of one shader.
type Cases = fn() -> Vec<Case>;

/// Every shader's cases.
const TABLE: [(&str, Cases); 9] = [
    ("activation", activation_cases),
    ("batch", batch_cases),
    ("conv2d", conv2d_cases),
    ("conv_pool", conv_pool_cases),
    ("linear", linear_cases),
    ("loss", loss_cases),
    ("optimizer", optimizer_cases),
    ("peak", peak_cases),
    ("pool2d", pool2d_cases),
];

/// A device for one test, of the first adapter that opens: drivers may compile on the queue's thread, so that
/// tests which share a device wait for each other. Without an adapter, says that the test is skipped, or fails
/// where `LENET_REQUIRE_GPU=1` asks for one.
fn device() -> Option<gpu::Device> {
    let device = open();
    if device.is_none() {
        let required = env::var("LENET_REQUIRE_GPU").is_ok_and(|value| value == "1");
        assert!(!required, "LENET_REQUIRE_GPU=1, but no adapter could be opened");
        let name = std::thread::current().name().unwrap_or("a test").to_string();
        eprintln!("{name}: skipped, there is no GPU adapter");
    }
    device
}

fn open() -> Option<gpu::Device> {
    static ADAPTERS: OnceLock<Vec<wgpu::Adapter>> = OnceLock::new();
    ADAPTERS.get_or_init(|| block_on(gpu::adapters())).iter().find_map(|adapter| {
        block_on(gpu::Device::open(adapter)).inspect_err(|error| eprintln!("{error}")).ok()
    })
}

fn check(shader: &str) {
    let (_, cases) = TABLE.iter().find(|(name, _)| *name == shader).expect("a shader of the table");
    let Some(device) = device() else { return };
    let failures: Vec<String> = cases().iter().flat_map(|case| case.failures(&device)).collect();
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn activation() {
    check("activation");
}

#[test]
fn batch() {
    check("batch");
}

#[test]
fn conv2d() {
    check("conv2d");
}

#[test]
fn conv_pool() {
    check("conv_pool");
}

#[test]
fn linear() {
    check("linear");
}

#[test]
fn loss() {
    check("loss");
}

#[test]
fn optimizer() {
    check("optimizer");
}

#[test]
fn peak() {
    check("peak");
}

#[test]
fn pool2d() {
    check("pool2d");
}

#[test]
fn every_entry_point_has_a_case() {
    let mut tested = BTreeSet::new();
    for (shader, cases) in TABLE {
        for case in cases() {
            for launch in &case.program.train {
                assert_eq!(launch.shader.name, shader, "{} is in another shader's table", case.name);
                tested.insert((launch.shader.name, launch.entry.name));
            }
        }
    }
    let all: BTreeSet<_> = SHADERS
        .iter()
        .flat_map(|shader| shader.entries.iter().map(move |entry| (shader.name, entry.name)))
        .collect();
    let missing: Vec<_> = all.difference(&tested).collect();
    assert!(missing.is_empty(), "no case in tests/kernels.rs for {missing:?}");
}

/// The value of a constant in every launch that has it.
fn constants<const N: usize>(cases: &[Case], names: [&str; N]) -> BTreeSet<[usize; N]> {
    let of = |launch: &Launch, name: &str| {
        launch.constants.iter().find(|(other, _)| *other == name).map(|(_, value)| *value as usize)
    };
    let mut found = BTreeSet::new();
    for launch in cases.iter().flat_map(|case| &case.program.train) {
        let values: Vec<usize> = names.iter().filter_map(|name| of(launch, name)).collect();
        found.extend(<[usize; N]>::try_from(values));
    }
    found
}

#[test]
fn weight_gradients_have_cases_of_every_kind() {
    for (shader, cases) in [("conv2d", conv2d_cases()), ("linear", linear_cases())] {
        let found = constants(&cases, ["SPLITS", "BLOCKS"]);
        let any = |kind: fn(usize, usize) -> bool| found.iter().any(|&[splits, blocks]| kind(splits, blocks));
        assert!(any(|splits, blocks| splits == 1 && blocks == 1), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits == 1 && blocks > 1), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits > 1 && splits == blocks), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits > 1 && splits < blocks), "{shader}: {found:?}");
    }
    let cases = conv_pool_cases();
    let found = constants(&cases, ["ROW_SPLITS", "OUT_HEIGHT"]);
    assert!(found.iter().any(|&[splits, height]| splits > 1 && height / 2 == splits), "{found:?}");
    assert!(found.iter().any(|&[splits, height]| splits > 1 && height / 2 % splits != 0), "{found:?}");
    let ends = [("COLUMNS", 2, 10), ("CHANNELS", 2, 6), ("IN_COLUMNS", 2, 14), ("IN_TILE", 2, 8)];
    for (name, least, most) in ends.into_iter().chain([("PAIRS", 1, 3), ("TAP_ROWS", 1, 2)]) {
        let found = constants(&cases, [name]);
        assert!(found.contains(&[least]) && found.contains(&[most]), "{name}: {found:?}");
    }
}

#[test]
fn every_shader_file_is_registered() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .expect("the folder of shaders")
        .map(|entry| format!("shaders/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    let registered: BTreeSet<String> = SHADERS.iter().map(|shader| shader.file.to_string()).collect();
    assert_eq!(files, registered, "the files in shaders/, and what build.rs registered");
    for shader in SHADERS {
        assert!(!shader.entries.is_empty(), "{} has no entry point", shader.file);
    }
}

// ---------------------------------------------------------------------------------------------------------
// The comparison itself

#[test]
fn the_comparison_finds_mistakes() {
    let known = |compare, nan| Known { before: vec![POISON; 4], written: vec![0..3], compare, nan };
    let close = known(Compare::Close { absolute: 0.01, relative: 0.01 }, false);
    let words = |values: [f32; 3]| {
        let [a, b, c] = values.map(f32::to_bits);
        [a, b, c, POISON]
    };
    let right = words([1.0, -2.0, 100.0]);
    let count = |known: &Known, gpu: &[u32], cpu: &[u32]| known.problems(gpu, cpu).len();
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

// ---------------------------------------------------------------------------------------------------------
// Whole networks

/// Trains a preset for five steps on random bytes, the last batch ragged; gives all parameters and metrics.
fn train(plan: &Plan, mut backend: Backend) -> lenet::Result<(Vec<u32>, Vec<u32>)> {
    let mut random = Random::of(&plan.network.name);
    let initial = plan.network.initial(7)?;
    let values = plan.join(initial.iter().map(Vec::as_slice))?;
    backend.write(plan.parameters, bytemuck::cast_slice(&values))?;
    backend.write(plan.train_data.images, &random.words(plan.train_data.images.len))?;
    let labels: Vec<u32> = (0..plan.train_data.labels.len).map(|_| random.below(10)).collect();
    backend.write(plan.train_data.labels, &labels)?;
    backend.write(plan.train_data.order, &random.order(plan.train_data.order.len))?;
    let steps: Vec<Step> = (0..5u32)
        .map(|i| {
            let (correction1, correction2) = plan.options.optimizer.corrections(u64::from(i) + 1);
            let count = if i < 4 { 20 } else { 17 };
            let (cursor, slot, learning_rate) = (20 * i, i, 0.01);
            Step { cursor, count, slot, learning_rate, correction1, correction2, ..Step::default() }
        })
        .collect();
    backend.run(Phase::Train, &steps)?;
    let reads = [backend.read(plan.parameters), backend.read(sub(plan.metrics, 0, 5 * RECORD))];
    let [parameters, metrics] = reads.map(block_on);
    Ok((parameters?, metrics?))
}

fn plan(rule: Rule) -> Plan {
    let network = Network::preset("lenet5").expect("a preset");
    let options =
        Options { batch: 20, optimizer: Optimizer::new(rule), train_images: 97, ..Options::default() };
    Plan::new(&network, &options).expect("a plan")
}

#[test]
fn training_repeats_bit_for_bit_on_the_cpu() {
    let plan = plan(Rule::Adam);
    let run = || train(&plan, Backend::cpu(&plan.program)).expect("training");
    assert!(run() == run(), "two runs differ");
}

#[test]
fn training_repeats_bit_for_bit_on_the_gpu() {
    let Some(device) = device() else { return };
    let plan = plan(Rule::Adam);
    let run = || {
        let backend = block_on(Backend::gpu(&device, &plan.program)).expect("a backend");
        train(&plan, backend).expect("training")
    };
    assert!(run() == run(), "two runs differ");
}

#[test]
fn training_agrees_between_gpu_and_cpu() {
    let Some(device) = device() else { return };
    // Not Adam: its first steps are as large for a gradient of 1e-9 as for one of 1, whatever the rounding.
    let plan = plan(Rule::Momentum);
    let (cpu, cpu_metrics) = train(&plan, Backend::cpu(&plan.program)).expect("training");
    let backend = block_on(Backend::gpu(&device, &plan.program)).expect("a backend");
    let (gpu, gpu_metrics) = train(&plan, backend).expect("training");
    let initial = plan.network.initial(7).expect("initial parameters");
    let initial = plan.join(initial.iter().map(Vec::as_slice)).expect("initial parameters");
    let moved = cpu.iter().zip(&initial).filter(|(after, before)| **after != before.to_bits()).count();
    // Of LeNet-5's 61,706; those behind dead pixels and units stay.
    assert!(moved > 30_000, "only {moved} parameters moved");
    if let Some(problem) = differences(&gpu, &cpu, TRAINED.0, TRAINED.1, false, |_| true) {
        panic!("parameters: {problem}");
    }
    for (record, (gpu, cpu)) in gpu_metrics.chunks(RECORD).zip(cpu_metrics.chunks(RECORD)).enumerate() {
        assert_eq!(gpu[1..], cpu[1..], "step {record}: images right, images, flags");
        if let Some(problem) = differences(&gpu[..1], &cpu[..1], METRICS.0, METRICS.1, false, |_| true) {
            panic!("loss of step {record}: {problem}");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------
// Errors

#[test]
fn a_buffer_over_the_limits_is_an_error() {
    let Some(device) = device() else { return };
    let mut program = Program::default();
    let most = wgpu::Limits::default().max_storage_buffer_binding_size;
    program.add("the largest", CHUNK);
    program.add("too large", most as usize / 4 + CHUNK);
    match block_on(Backend::gpu(&device, &program)) {
        Err(Error::Limit { what, needed, allowed }) => {
            assert!(what.contains("too large"), "{what}");
            assert!(needed > allowed && allowed == most, "{needed} of {allowed}");
        }
        Err(other) => panic!("expected Error::Limit, got {other:?}"),
        Ok(_) => panic!("a buffer of more than {most} bytes was made"),
    }
}

#[test]
fn a_grid_over_the_limits_is_an_error() {
    let mut program = Program::default();
    let [images, order, output] = ["images", "order", "output"].map(|name| program.add(name, CHUNK));
    let (height, width) = (1024, 1024);
    let geometry =
        batch::Geometry { channels: 1, height, width, pad: 0, mean: 0.0, deviation: 1.0, batch: 1 };
    match geometry.gather(batch::Buffers { images, order, output }) {
        Err(Error::Limit { needed, allowed, .. }) => assert!(needed > allowed && allowed == 65_535),
        other => panic!("expected Error::Limit, got {other:?}"),
    }
}

#[test]
fn the_largest_batch_is_the_largest() {
    let network = Network::preset("lenet5").expect("a preset");
    let options = Options { train_images: 97, ..Options::default() };
    let plan = |batch, memory| Plan::within(&network, &Options { batch, ..options.clone() }, memory);
    let largest = |memory| Plan::largest_batch(&network, &options, memory).expect("a network that fits");
    let needs = |batch| plan(batch, Memory::UNBOUNDED).expect("a plan").program.bytes();
    for memory in [
        Memory { total: needs(100), ..Memory::UNBOUNDED },
        Memory { buffer: 1 << 22, ..Memory::UNBOUNDED },
        Memory { buffer: 1 << 27, total: 1 << 28 },
    ] {
        let most = largest(memory).expect("a batch");
        assert!((1..LARGEST_BATCH).contains(&most), "{memory:?}: {most}");
        let program = plan(most, memory).expect("a plan that fits").program;
        assert!(program.fits(memory).is_ok() && program.bytes() <= memory.total);
        match plan(most + 1, memory) {
            Err(Error::Limit { what, needed, allowed }) => {
                assert!(what.contains(&format!("the largest that does is {most}")), "{what}");
                assert!(needed > allowed, "{needed} of {allowed}");
            }
            other => panic!("expected Error::Limit, got {other:?}"),
        }
    }
    assert_eq!(largest(Memory::UNBOUNDED), Some(LARGEST_BATCH));
    assert_eq!(largest(Memory { total: 1000, ..Memory::UNBOUNDED }), None);
    match plan(1, Memory { total: 1000, ..Memory::UNBOUNDED }) {
        Err(Error::Limit { what, .. }) => assert!(what.contains("not even one image"), "{what}"),
        other => panic!("expected Error::Limit, got {other:?}"),
    }
}

#[test]
fn launches_are_timed_by_the_device() {
    let opened = device();
    if opened.is_none() {
        return;
    }
    let adapters = block_on(gpu::adapters());
    let timed = |adapter| block_on(gpu::Device::open_with(adapter, wgpu::Features::TIMESTAMP_QUERY)).ok();
    let Some(device) = adapters.iter().find_map(timed) else { return };
    let plan = plan(Rule::Sgd);
    let mut gpu = block_on(Gpu::new(&device, &plan.program)).expect("a backend");
    let steps = [Step { count: 20, ..Step::default() }; 3];
    match block_on(gpu.time(Phase::Train, &steps)) {
        Ok(nanoseconds) => {
            assert!(device.has_timestamps());
            assert_eq!(nanoseconds.len(), 3 * plan.program.train.len());
            assert_eq!(gpu.dispatched(), nanoseconds.len() as u64);
            // Whole numbers of ticks; some launch takes longer than one.
            assert!(nanoseconds.iter().all(|&ns| ns >= 0.0) && nanoseconds.iter().sum::<f64>() > 0.0);
        }
        Err(Error::Device(message)) => assert!(!device.has_timestamps(), "{message}"),
        Err(other) => panic!("{other:?}"),
    }
    gpu.repeat(Phase::Train, 0, 5, steps[0]).expect("a launch that exists");
    assert!(matches!(gpu.repeat(Phase::Train, 99, 1, steps[0]), Err(Error::Settings(_))));
    let mut plain = block_on(Gpu::new(&opened.expect("a device"), &plan.program)).expect("a backend");
    assert!(matches!(block_on(plain.time(Phase::Train, &steps)), Err(Error::Device(_))));
}

#[test]
fn a_lost_device_is_an_error() {
    let Some(device) = device() else { return };
    let case = batch_cases().swap_remove(0);
    let mut backend = block_on(Backend::gpu(&device, &case.program)).expect("a backend");
    let range = Range { len: CHUNK, ..case.program.train[0].bindings[0].1 };
    backend.run(Phase::Train, &case.steps).expect("a step");
    block_on(backend.read(range)).expect("a read");
    device.device().destroy();
    // GPUs report late: what is only queued may be accepted until the device has been polled, but a read must
    // fail at once.
    let _ = backend.write(range, &[0; CHUNK]);
    let _ = backend.run(Phase::Train, &case.steps);
    match block_on(backend.read(range)) {
        Err(Error::DeviceLost(_) | Error::Device(_)) => {}
        other => panic!("the first read gave {other:?}"),
    }
    let _ = device.device().poll(wgpu::PollType::Poll);
    for result in [backend.run(Phase::Train, &case.steps), block_on(backend.read(range)).map(drop)] {
        assert!(matches!(result, Err(Error::DeviceLost(_))), "expected Error::DeviceLost, got {result:?}");
    }
    match block_on(Backend::gpu(&device, &case.program)) {
        Err(Error::DeviceLost(_)) => {}
        Err(other) => panic!("a new backend gave {other:?}"),
        Ok(_) => panic!("a new backend was made on a lost device"),
    }
}
