//! Transitional: launches that still carry their twin.

use std::sync::Arc;

use super::launch::Slot;
use super::shaders::{Access, SHADERS};
use super::{Constants, Launch, Range, Step};
use crate::error::{Error, Result};

/// What the CPU runs instead of a launch.
pub type Twin = Arc<dyn Fn(&mut Args<'_>) + Send + Sync>;

impl Launch {
    pub(super) fn old(
        (shader, entry): (&str, &str),
        constants: &[(&'static str, f64)],
        grid: [usize; 3],
        bindings: &[(&str, Range)],
        flop: u64,
        twin: Twin,
    ) -> Result<Launch> {
        let mistake = |what: String| Error::Device(format!("{shader}:{entry}: {what}"));
        let file = SHADERS.iter().find(|file| file.name == shader).ok_or_else(|| mistake("none".into()))?;
        let point =
            file.entries.iter().find(|point| point.name == entry).ok_or_else(|| mistake("none".into()))?;
        let used: Constants = point
            .overrides
            .iter()
            .filter_map(|name| constants.iter().find(|(other, _)| other == name).copied())
            .collect();
        let mut bound = Vec::new();
        for info in point.bindings.iter().filter(|info| info.access != Access::Step) {
            let found = bindings.iter().find(|(name, _)| *name == info.name);
            let (_, range) = found.ok_or_else(|| mistake(format!("no buffer for {}", info.name)))?;
            bound.push((info.name, *range));
        }
        let mut launch = Launch::new((file, point), used, grid, bound, flop)?;
        launch.twin = Some(twin);
        Ok(launch)
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
