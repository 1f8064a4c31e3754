//! LeNet-5 and its kin, trained entirely on the GPU by hand-written WGSL compute shaders.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod kernels;
pub mod network;
pub mod plan;
pub mod train;

pub use error::{Error, Result};
pub use network::Network;
