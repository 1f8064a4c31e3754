//! Pictures in folders: one folder for each class, its name the name of the class.

#[cfg(not(target_arch = "wasm32"))]
mod files;
#[cfg(not(target_arch = "wasm32"))]
mod layout;
#[cfg(not(target_arch = "wasm32"))]
mod load;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

/// The most bytes that a file of one picture may have: 64 MiB.
pub const MAX_FILE: u64 = 64 << 20;

/// Reads a size, `WIDTHxHEIGHT` or one number for both, in pixels: height and width.
pub fn parse_size(text: &str) -> Option<[usize; 2]> {
    let side = |text: &str| match text.parse() {
        Ok(side @ 1..=crate::data::picture::MAX_SIDE) if !text.starts_with('+') => Some(side as usize),
        _ => None,
    };
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    Some([side(height)?, side(width)?])
}

#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) use layout::{Layout, layout, near};
#[cfg(not(target_arch = "wasm32"))]
pub use load::load;
