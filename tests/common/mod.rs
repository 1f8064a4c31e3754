//! What the tests share: reading reference files, blocked images, a program of a few launches, comparisons.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use lenet::backend::{Cpu, gpu};
use lenet::kernels::{LANES, Launch, Range, Step, blocks, padded};
use lenet::plan::{Phase, Program};
use pollster::block_on;

/// What was found, if anything. Nothing is said to be skipped, or fails where `LENET_REQUIRE_GPU=1` asks for it.
pub fn required<T>(adapter: Option<T>) -> Option<T> {
    if adapter.is_none() {
        let required = std::env::var("LENET_REQUIRE_GPU").is_ok_and(|value| value == "1");
        assert!(!required, "LENET_REQUIRE_GPU is 1, and no adapter could be opened");
        let name = std::thread::current().name().unwrap_or("a test").to_string();
        // Past the test harness, which would swallow it.
        let _ = writeln!(std::io::stderr(), "{name}: skipped, there is no GPU adapter");
    }
    adapter
}

/// A device for one test, of the first adapter that opens: drivers may compile on the queue's thread, so that
/// tests which share a device wait for each other.
pub fn gpu() -> Option<gpu::Device> {
    static ADAPTERS: OnceLock<Vec<wgpu::Adapter>> = OnceLock::new();
    required(ADAPTERS.get_or_init(|| block_on(gpu::adapters())).iter().find_map(|adapter| {
        block_on(gpu::Device::open(adapter)).inspect_err(|error| eprintln!("{error}")).ok()
    }))
}

/// A file of this project.
pub fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A tensor of a reference file. Every value is exact in f64, whatever its type in the file.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// The values as f32, which loses nothing where the file holds f32.
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }
}

/// A safetensors file of `assets/golden`, by tensor name.
pub struct Golden(pub BTreeMap<String, Array>);

impl Golden {
    pub fn read(name: &str) -> Golden {
        let path = project("assets/golden").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let array = |view: safetensors::tensor::TensorView<'_>| {
            let data = view.data();
            let values = match view.dtype() {
                safetensors::Dtype::F32 => {
                    data.as_chunks().0.iter().map(|&word| f64::from(f32::from_le_bytes(word))).collect()
                }
                safetensors::Dtype::F64 => {
                    data.as_chunks().0.iter().map(|&word| f64::from_le_bytes(word)).collect()
                }
                safetensors::Dtype::I64 => {
                    data.as_chunks().0.iter().map(|&word| i64::from_le_bytes(word) as f64).collect()
                }
                other => panic!("a tensor of {other:?}"),
            };
            Array { shape: view.shape().to_vec(), values }
        };
        Golden(file.iter().map(|(name, view)| (name.to_string(), array(view))).collect())
    }

    pub fn get(&self, name: &str) -> &Array {
        self.find(name).unwrap_or_else(|| panic!("the file holds no {name}"))
    }

    pub fn find(&self, name: &str) -> Option<&Array> {
        self.0.get(name)
    }

    /// The names before the slash.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = self.0.keys().filter_map(|name| Some(name.split_once('/')?.0)).collect();
        cases.dedup();
        cases
    }
}

/// `|got − want| ≤ absolute + relative · |want|`.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

/// The worst that a family of comparisons has seen.
#[derive(Debug, Default)]
pub struct Worst {
    compared: usize,
    error: f64,
    share: f64,
    place: String,
}

impl Worst {
    /// Fails at the worst element that is further from `want` than allowed, or that is not a number.
    pub fn close(&mut self, what: &str, got: &[f32], want: &[f64], allowed: Tolerance) {
        assert_eq!(got.len(), want.len(), "{what}: the lengths differ");
        assert!(!want.is_empty(), "{what}: there is nothing to compare");
        let (mut at, mut most) = (0, -1.0);
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(got) - want).abs();
            let share = error / (allowed.absolute + allowed.relative * want.abs());
            let share = if share.is_nan() { f64::INFINITY } else { share };
            if share > most {
                (at, most) = (i, share);
            }
            self.error = self.error.max(error);
        }
        let (a, b) = (got[at], want[at]);
        assert!(
            most <= 1.0,
            "{what}[{at}] is {a:e}, expected {b:e}: the error {:e} is {most:.3} of what {allowed:?} allows",
            (f64::from(a) - b).abs()
        );
        self.compared += got.len();
        if most > self.share {
            (self.share, self.place) = (most, format!("{what}[{at}]"));
        }
    }

    /// Notes an error that was judged elsewhere.
    pub fn note(&mut self, what: &str, error: f64, allowed: f64) {
        assert!(error <= allowed, "{what}: the error {error:e} is more than {allowed:e}");
        self.compared += 1;
        self.error = self.error.max(error);
        if error / allowed > self.share {
            (self.share, self.place) = (error / allowed, what.to_string());
        }
    }

    /// One line for `--nocapture`; fails when nothing was compared.
    pub fn report(&self, family: &str) {
        assert!(self.compared > 0, "{family}: nothing was compared");
        eprintln!(
            "{family}: {} values, largest error {:.2e}, at most {:.0}% of the tolerance ({})",
            self.compared,
            self.error,
            100.0 * self.share,
            self.place
        );
    }
}

/// `√(Σ (got − want)² / Σ want²)`.
pub fn relative_l2(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let (mut error, mut size) = (0.0, 0.0);
    for (&got, &want) in got.iter().zip(want) {
        error += (f64::from(got) - want).powi(2);
        size += want * want;
    }
    (error / size).sqrt()
}

/// Numbers without a pattern (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn index(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in −1 … 1, exact in f32.
    pub fn unit(&mut self) -> f64 {
        f64::from((self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }

    pub fn units(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.unit()).collect()
    }

    /// 0 … n − 1 in random order.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.index(i + 1));
        }
        order
    }
}

/// Narrows values that are exact in f32.
pub fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// Bytes as words, the first in the low byte.
pub fn pack(bytes: &[u8]) -> Vec<u32> {
    let word = |four: &[u8]| four.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
    bytes.chunks(4).map(word).collect()
}

/// `[n][feature]` as blocks of images; lanes without an image hold `rest`.
pub fn block(rows: &[f32], features: usize, rest: f32) -> Vec<f32> {
    let images = rows.len() / features;
    assert_eq!(rows.len(), images * features);
    let mut blocked = vec![rest; blocks(images) * LANES * features];
    for n in 0..images {
        for feature in 0..features {
            blocked[(n / LANES * features + feature) * LANES + n % LANES] = rows[n * features + feature];
        }
    }
    blocked
}

/// The reverse of [`block`].
pub fn unblock(blocked: &[f32], features: usize, images: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(images * features);
    for n in 0..images {
        for feature in 0..features {
            rows.push(blocked[(n / LANES * features + feature) * LANES + n % LANES]);
        }
    }
    rows
}

/// What lanes without an image hold in a layer's input: anything finite, since no result may depend on it.
const NOBODY: f32 = 0.625;

/// A program of a few launches, made by hand. Whatever a launch is to write holds NaN before.
#[derive(Default)]
pub struct Rig {
    pub program: Program,
}

impl Rig {
    fn filled(&mut self, name: &str, words: Vec<u32>) -> Range {
        let range = self.program.add(name, words.len());
        self.program.buffers[range.buffer.0].content = Some(words);
        range
    }

    /// Integers.
    pub fn words(&mut self, name: &str, words: &[u32]) -> Range {
        self.filled(name, words.to_vec())
    }

    /// A layer's input.
    pub fn images(&mut self, name: &str, rows: &[f32], features: usize) -> Range {
        self.filled(name, bits(&block(rows, features, NOBODY)))
    }

    /// A gradient that arrives: 0 in lanes without an image, as the loss leaves them.
    pub fn upstream(&mut self, name: &str, rows: &[f32], features: usize) -> Range {
        self.filled(name, bits(&block(rows, features, 0.0)))
    }

    /// Parameters, with NaN between their end and that of their last chunk.
    pub fn parameter(&mut self, name: &str, values: &[f32]) -> Range {
        let mut values = values.to_vec();
        values.resize(padded(values.len()), f32::NAN);
        self.filled(name, bits(&values))
    }

    /// A buffer of NaN.
    pub fn poisoned(&mut self, name: &str, len: usize) -> Range {
        self.filled(name, vec![f32::NAN.to_bits(); len])
    }

    /// A layer's output or the gradient of its input.
    pub fn result(&mut self, name: &str, features: usize, images: usize) -> Range {
        self.poisoned(name, blocks(images) * LANES * features)
    }

    /// The launches in order, once, on the CPU twins.
    pub fn run(&mut self, launches: Vec<Launch>, step: Step) -> Ran {
        self.program.train = launches;
        let mut cpu = Cpu::new(&self.program);
        cpu.run(Phase::Train, &[step]);
        Ran(cpu)
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The buffers after [`Rig::run`].
pub struct Ran(Cpu);

impl Ran {
    pub fn words(&self, range: Range) -> Vec<u32> {
        self.0.read(range)
    }

    pub fn floats(&self, range: Range) -> Vec<f32> {
        self.words(range).into_iter().map(f32::from_bits).collect()
    }

    /// `[n][feature]` of an activation.
    pub fn rows(&self, range: Range, features: usize, images: usize) -> Vec<f32> {
        unblock(&self.floats(range), features, images)
    }

    /// The partial sums of `len` weights, added up in the optimizer's order.
    pub fn summed(&self, range: Range, len: usize, partials: usize) -> Vec<f32> {
        let all = self.floats(range);
        assert_eq!(all.len(), partials * padded(len));
        (0..len).map(|i| (1..partials).fold(all[i], |sum, k| sum + all[k * padded(len) + i])).collect()
    }
}
