//! A strict reader of the IDX format, the one MNIST and its kin come in, gzipped or not.
//!
//! A file is a big-endian header (two zero bytes, the element type, the number of dimensions, then
//! one 32-bit size for each dimension) followed by exactly as many elements as the sizes say.
//! Anything else is refused.

mod file;
#[cfg(not(target_arch = "wasm32"))]
mod set;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

pub use file::{dataset, parse_images, parse_labels, parse_planes};
#[cfg(not(target_arch = "wasm32"))]
pub use set::load;
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) use set::{key, set_of, sets};
