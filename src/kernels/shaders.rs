//! The shader files as `build.rs` found them: their entry points with bindings and constants, and typed structs of
//! those for each file and entry.

/// A WGSL file.
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
    /// The pipeline-overridable constants that a launch gives it.
    pub overrides: &'static [&'static str],
}

impl Entry {
    /// Whether it writes the buffer of this name.
    pub fn writes(&self, name: &str) -> bool {
        self.bindings.iter().any(|info| info.name == name && info.access == Access::ReadWrite)
    }
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
    /// Parameters that every invocation reads at the same place, bound as [`UNIFORM_BYTES`](super::UNIFORM_BYTES) of
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
