//! A launch as plain data: which entry point, with which constants, over which ranges of which buffers.

use std::fmt;

use super::shaders::{Access, Entry, Shader};
use crate::error::{Error, Result};

/// A buffer of a [`Program`](crate::plan::Program).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferId(pub usize);

/// A range of one of the plan's buffers, in floats (4-byte words).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The buffer.
    pub buffer: BufferId,
    /// The first word; a multiple of [`CHUNK`](super::CHUNK).
    pub start: usize,
    /// Words.
    pub len: usize,
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
    /// The step's number, from 1: what tells the step that failed from those after it.
    pub time: u32,
}

/// The overrides of a launch, by WGSL name.
pub type Constants = Vec<(&'static str, f64)>;

/// One dispatch of one entry point. Made by the typed `launch` of its entry in [`shaders`](super::shaders).
#[derive(Clone)]
#[non_exhaustive]
pub struct Launch {
    /// The file.
    pub shader: &'static Shader,
    /// The entry point.
    pub entry: &'static Entry,
    /// Values for exactly the overrides that the entry point uses.
    pub constants: Constants,
    /// Workgroups in x, y and z.
    pub grid: [u32; 3],
    /// The ranges by WGSL name, in the order of the entry's bindings, without the step's uniform.
    pub bindings: Vec<(&'static str, Range)>,
    /// Floating-point operations (a multiply-add counts two).
    pub flop: u64,
    /// Bytes read and written if every operand travels once.
    pub bytes: u64,
    /// The names of the layers whose outputs or gradients it makes; none for the rest of a step, such as the loss.
    pub layers: Vec<String>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {:?}", self.shader.name, self.entry.name, self.grid)
    }
}

/// The most workgroups in a dimension of a grid, of WebGPU's defaults.
pub(crate) const MOST_GROUPS: usize = 65_535;

impl Launch {
    /// A launch of an entry point, whose constants and ranges are given in the entry's order.
    ///
    /// # Errors
    /// [`Error::Limit`] when the grid has more than 65,535 workgroups in a dimension; [`Error::Device`] when ranges
    /// that are read and written share a buffer, which a test of the plan would show.
    pub(super) fn new(
        (shader, entry): (&'static Shader, &'static Entry),
        constants: Constants,
        grid: [usize; 3],
        bindings: Vec<(&'static str, Range)>,
        flop: u64,
    ) -> Result<Launch> {
        let name = || format!("{}:{}", shader.name, entry.name);
        if let Some(&most) = grid.iter().find(|&&n| n > MOST_GROUPS) {
            return Err(Error::Limit {
                what: format!("the grid of {}", name()),
                needed: most as u64,
                allowed: MOST_GROUPS as u64,
            });
        }
        // WebGPU refuses a dispatch that reads and writes one buffer, whatever the ranges.
        for (i, (one, range)) in bindings.iter().enumerate() {
            for (other, with) in bindings[..i].iter().filter(|(_, with)| with.buffer == range.buffer) {
                let apart = range.start + range.len <= with.start || with.start + with.len <= range.start;
                let writes = entry.writes(one);
                if writes != entry.writes(other) || (writes && !apart) {
                    return Err(Error::Device(format!("{}: {one} and {other} share a buffer", name())));
                }
            }
        }
        let bytes = bindings.iter().map(|(_, range)| 4 * range.len as u64).sum();
        let grid = grid.map(|n| n as u32);
        Ok(Launch { shader, entry, constants, grid, bindings, flop, bytes, layers: Vec::new() })
    }

    /// The value of an override that its entry point uses.
    ///
    /// # Panics
    /// Where the entry uses none of this name: the typed structs of [`shaders`](super::shaders) never ask for one.
    pub(super) fn constant(&self, name: &str) -> f64 {
        let found = self.constants.iter().find(|(other, _)| *other == name);
        found.map_or_else(|| panic!("{self:?} has no constant {name}"), |(_, value)| *value)
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

/// A launch's buffers on the CPU: shared or exclusive slices by WGSL name, from which the typed `Buffers` of an entry
/// are made. A launch binds all that its entry names, so that asking for another is a mistake of `build.rs`.
pub struct Slots<'a>(pub(crate) Vec<(&'static str, Slot<'a>)>);

/// A slice lent to a twin.
pub(crate) enum Slot<'a> {
    /// Read by this launch.
    Read(&'a [u32]),
    /// Written by this launch.
    Write(&'a mut [u32]),
}

impl<'a> Slots<'a> {
    pub(super) fn u32(&self, name: &str) -> &'a [u32] {
        let read = self.0.iter().find_map(|(other, slot)| match slot {
            Slot::Read(words) if *other == name => Some(*words),
            _ => None,
        });
        read.unwrap_or_else(|| panic!("the launch reads no buffer called {name}"))
    }

    pub(super) fn f32(&self, name: &str) -> &'a [f32] {
        bytemuck::cast_slice(self.u32(name))
    }

    pub(super) fn u32_mut(&mut self, name: &str) -> &'a mut [u32] {
        let written = self.0.iter_mut().find_map(|(other, slot)| match slot {
            Slot::Write(words) if *other == name => Some(std::mem::take(words)),
            _ => None,
        });
        written.unwrap_or_else(|| panic!("the launch writes no buffer called {name}"))
    }

    pub(super) fn f32_mut(&mut self, name: &str) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(self.u32_mut(name))
    }
}

/// A grid for so many invocations in each of some blocks of images, which are its layers; and the invocations that one
/// of its rows covers.
pub(crate) fn over_blocks(invocations: usize, blocks: usize) -> ([usize; 3], usize) {
    let ([across, down, _], row) = elementwise(invocations);
    ([across, down, blocks], row)
}

/// A grid for elementwise work, and the elements that one of its rows covers.
pub(crate) fn elementwise(elements: usize) -> ([usize; 3], usize) {
    let groups = elements.div_ceil(super::WORKGROUP);
    let across = groups.min(MOST_GROUPS);
    ([across, groups.div_ceil(across), 1], across * super::WORKGROUP)
}
