//! What the GPU can be asked to do: one module per shader file, with its geometry, its launches and, beside
//! them, the CPU twins that compute the same buffers.
//!
//! # How images lie in memory
//!
//! Activations are stored in blocks of [`LANES`] images, the image varying fastest: element `(n, c, y, x)` of
//! a tensor of shape `[C, H, W]` is at `(((n / 16 · C + c) · H + y) · W + x) · 16 + n % 16`. Neighbouring
//! invocations hold neighbouring images, so every load is contiguous, every filter weight is the same for all
//! of them, and no shape of layer leaves a vector half empty. A SIMD register of the CPU twins holds the same
//! 16 images. (It is cuda-convnet's CHWN layout, cut into blocks so that a block fits a cache.)

pub mod activation;
pub mod batch;
pub mod conv2d;
pub mod conv_pool;
pub(crate) mod depthwise;
pub mod dropout;
pub mod join;
pub mod linear;
pub mod loss;
pub mod lrn;
pub mod norm;
pub mod optimizer;
pub mod peak;
pub mod pool2d;
pub mod rbf;
pub(crate) mod simd;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::BufferId;

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Images in a block: the fastest dimension of every activation.
pub const LANES: usize = 16;

/// The invocations of a workgroup, in every shader.
pub const WORKGROUP: usize = 64;

/// The length of every `var<uniform>` but the step: all that WebGPU allows. What lies behind the range that is
/// meant is not used.
pub const UNIFORM_BYTES: usize = 64 << 10;

/// Parameters, gradients and moments lie at multiples of this many floats (256 bytes, the strictest
/// alignment of a storage binding).
pub const CHUNK: usize = 64;

/// The blocks that hold `batch` images.
pub fn blocks(batch: usize) -> usize {
    batch.div_ceil(LANES)
}

/// `len` rounded up to whole chunks.
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(CHUNK)
}

/// A WGSL file, as `build.rs` found it.
#[derive(Debug)]
pub struct Shader {
    /// The file's stem: `conv2d`.
    pub name: &'static str,
    /// The file, from the project's root: `shaders/conv2d.wgsl`.
    pub file: &'static str,
    /// Its text, whole.
    pub source: &'static str,
    /// Its entry points.
    pub entries: &'static [Entry],
}

/// An entry point and what it uses.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Invocations of a workgroup.
    pub workgroup_size: [u32; 3],
    /// The buffers it touches, all in group 0.
    pub bindings: &'static [BindingInfo],
    /// The pipeline-overridable constants it depends on.
    pub overrides: &'static [Override],
}

/// A binding of an entry point.
#[derive(Debug)]
pub struct BindingInfo {
    /// The WGSL variable's name.
    pub name: &'static str,
    /// Its number in group 0.
    pub binding: u32,
    /// How it is bound.
    pub access: Access,
}

/// How a buffer is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The per-step uniform, bound with a dynamic offset.
    Step,
    /// Parameters that every invocation reads at the same place, bound as [`UNIFORM_BYTES`] of `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A pipeline-overridable constant.
#[derive(Debug)]
pub struct Override {
    /// Its name.
    pub name: &'static str,
    /// Whether it has no default.
    pub required: bool,
}

/// The shader of this name, and one of its entry points.
pub fn lookup(shader: &str, entry: &str) -> Option<(&'static Shader, &'static Entry)> {
    let shader = SHADERS.iter().find(|candidate| candidate.name == shader)?;
    Some((shader, shader.entries.iter().find(|candidate| candidate.name == entry)?))
}

/// What changes from step to step: the one struct that the shaders share with the host (32 bytes).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Step {
    /// The position in `order` of the batch's first image.
    pub cursor: u32,
    /// Images in this batch; the lanes after them are computed as zeros and count for nothing.
    pub count: u32,
    /// The record of the metrics ring that this step writes.
    pub slot: u32,
    /// The seed of this step's random numbers.
    pub seed: u32,
    /// The learning rate.
    pub learning_rate: f32,
    /// Adam's `1 / (1 − β₁ᵗ)`.
    pub correction1: f32,
    /// Adam's `1 / √(1 − β₂ᵗ)`.
    pub correction2: f32,
    /// Fills the struct to a multiple of 16 bytes.
    pub reserved: u32,
}

/// A range of one of the plan's buffers, in floats (4-byte words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The buffer.
    pub buffer: BufferId,
    /// The first word; a multiple of [`CHUNK`].
    pub start: usize,
    /// Words.
    pub len: usize,
}

/// The buffers of a layer with weights.
#[derive(Debug, Clone, Copy)]
pub struct LayerBuffers {
    /// The layer's input, of each image.
    pub input: Range,
    /// `[out_channels, in_channels / groups, KH, KW]` of a convolution, `[outputs, inputs]` of a linear layer.
    pub weight: Range,
    /// `[out_channels]` or `[outputs]`; any range where there is no bias.
    pub bias: Range,
    /// The layer's output, of each image.
    pub output: Range,
}

/// The buffers of such a layer's backward launches, beside those of the forward launch.
#[derive(Debug, Clone, Copy)]
pub struct Gradients {
    /// The gradient that arrives, shaped like the output.
    pub output: Range,
    /// Partial sums of the weights' gradient: the geometry's `splits()` times `padded(weights)`.
    pub weight: Range,
    /// Partial sums of the bias' gradient; any range where there is no bias.
    pub bias: Range,
}

/// The overrides of a launch.
pub type Constants = Vec<(&'static str, f64)>;

/// What the CPU runs instead of a launch.
pub type Twin = Arc<dyn Fn(&mut Args<'_>) + Send + Sync>;

/// One dispatch of one entry point, and its CPU twin.
#[derive(Clone)]
pub struct Launch {
    /// The file.
    pub shader: &'static Shader,
    /// The entry point.
    pub entry: &'static Entry,
    /// Values for exactly the overrides that the entry point uses.
    pub constants: Constants,
    /// Workgroups in x, y and z.
    pub grid: [u32; 3],
    /// The buffers by WGSL name, in the order of the entry's bindings, without the step's uniform.
    pub bindings: Vec<(&'static str, Range)>,
    /// Floating-point operations (a multiply-add counts two).
    pub flop: u64,
    /// Bytes read and written if every operand travels once.
    pub bytes: u64,
    /// What the CPU runs instead.
    pub twin: Twin,
    /// The names of the layers whose outputs or gradients it makes; none for the rest of a step, such as the loss.
    pub layers: Vec<String>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {:?}", self.shader.name, self.entry.name, self.grid)
    }
}

impl Launch {
    /// A launch of `shader:entry`.
    ///
    /// `constants` may hold values for all of the file's overrides: those that the entry does not use are
    /// left out. `bindings` name every storage buffer of the entry.
    ///
    /// # Errors
    /// [`Error::Limit`] when the grid has more than 65,535 workgroups in a dimension; [`Error::Device`] when
    /// the entry does not exist or a constant or buffer is missing, which a test of the plan would show.
    pub fn new(
        (shader, entry): (&str, &str),
        constants: &[(&'static str, f64)],
        grid: [usize; 3],
        bindings: &[(&str, Range)],
        flop: u64,
        twin: Twin,
    ) -> Result<Launch> {
        let mistake = |what: String| Error::Device(format!("{shader}:{entry}: {what}"));
        let (file, point) = lookup(shader, entry).ok_or_else(|| mistake("no such entry point".into()))?;
        if let Some(&most) = grid.iter().find(|&&n| n > 65_535) {
            return Err(Error::Limit {
                what: format!("the grid of {shader}:{entry}"),
                needed: most as u64,
                allowed: 65_535,
            });
        }
        let mut used = Constants::new();
        for item in point.overrides {
            match constants.iter().find(|(name, _)| *name == item.name) {
                Some(&pair) => used.push(pair),
                None if item.required => return Err(mistake(format!("no value for {}", item.name))),
                None => {}
            }
        }
        let mut bound = Vec::with_capacity(point.bindings.len());
        let mut bytes = 0;
        for info in point.bindings.iter().filter(|info| info.access != Access::Step) {
            let (_, range) = bindings
                .iter()
                .find(|(name, _)| *name == info.name)
                .ok_or_else(|| mistake(format!("no buffer for {}", info.name)))?;
            bytes += 4 * range.len as u64;
            bound.push((info.name, *range));
        }
        // WebGPU refuses a dispatch that reads and writes one buffer, whatever the ranges.
        let writes = |name: &str| {
            point.bindings.iter().any(|info| info.name == name && info.access == Access::ReadWrite)
        };
        for (i, (name, range)) in bound.iter().enumerate() {
            for (other, with) in bound[..i].iter().filter(|(_, with)| with.buffer == range.buffer) {
                let apart = range.start + range.len <= with.start || with.start + with.len <= range.start;
                if writes(name) != writes(other) || (writes(name) && !apart) {
                    return Err(mistake(format!("{name} and {other} share a buffer")));
                }
            }
        }
        Ok(Launch {
            shader: file,
            entry: point,
            constants: used,
            grid: grid.map(|n| n as u32),
            bindings: bound,
            flop,
            bytes,
            twin,
            layers: Vec::new(),
        })
    }

    /// The same launch with its memory traffic corrected, where not every bound byte travels.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Launch {
        self.bytes = bytes;
        self
    }

    /// The same launch as part of these layers.
    #[must_use]
    pub(crate) fn of(mut self, layers: &[String]) -> Launch {
        self.layers = layers.to_vec();
        self
    }

    /// Whether the entry reads the per-step uniform.
    pub fn reads_step(&self) -> bool {
        self.entry.bindings.iter().any(|info| info.access == Access::Step)
    }
}

/// The buffers of one launch, for its CPU twin: shared or exclusive slices by WGSL name.
///
/// A twin asks for exactly the names of its entry point. A wrong name is a mistake in this crate that every
/// kernel test would show, so it panics.
pub struct Args<'a> {
    /// The step's values.
    pub step: Step,
    /// The slices, in the order of the launch's bindings.
    pub slots: Vec<(&'static str, Slot<'a>)>,
}

/// A slice lent to a twin.
pub enum Slot<'a> {
    /// Read by this launch.
    Read(&'a [u32]),
    /// Written by this launch.
    Write(&'a mut [u32]),
}

impl<'a> Args<'a> {
    /// The words of a buffer that the launch reads.
    pub fn u32(&self, name: &str) -> &'a [u32] {
        self.slots
            .iter()
            .find_map(|(other, slot)| match slot {
                Slot::Read(words) if *other == name => Some(*words),
                _ => None,
            })
            .unwrap_or_else(|| panic!("the launch reads no buffer called {name}"))
    }

    /// The floats of a buffer that the launch reads.
    pub fn f32(&self, name: &str) -> &'a [f32] {
        bytemuck::cast_slice(self.u32(name))
    }

    /// The words of a buffer that the launch writes; each can be taken once.
    pub fn u32_mut(&mut self, name: &str) -> &'a mut [u32] {
        self.slots
            .iter_mut()
            .find_map(|(other, slot)| match slot {
                Slot::Write(words) if *other == name => Some(std::mem::take(words)),
                _ => None,
            })
            .unwrap_or_else(|| panic!("the launch writes no buffer called {name}"))
    }

    /// The floats of a buffer that the launch writes; each can be taken once.
    pub fn f32_mut(&mut self, name: &str) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(self.u32_mut(name))
    }
}
