//! One reader a format. Each is strict: what a file claims is checked before anything is allocated, and a message
//! says what was found and what was expected.

pub mod cifar;
pub mod folder;
pub mod idx;
pub mod npy;
mod numbers;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod same;
pub mod table;
pub mod text;
#[cfg(test)]
mod written;
