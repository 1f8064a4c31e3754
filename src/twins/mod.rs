//! What the CPU computes in place of the shaders: for each file a module of the same name, and for each entry point a
//! function of exactly what the shader gets. Called with the launch's constants it gives a closure, made once, over
//! the launch's buffers and the step.
//!
//! The twins are three things: the oracle of every kernel test, the baseline of the benchmark, and what trains on a
//! machine without a GPU. They compute on every core, with the widest SIMD registers that the machine has.

mod activation;
mod batch;
mod conv2d;
mod conv_pool;
mod depthwise;
mod dropout;
mod finish;
mod join;
mod linear;
mod loss;
mod lrn;
mod norm;
mod optimizer;
mod peak;
mod plain_lenet5;
mod pool2d;
mod random;
mod rbf;
pub(crate) mod simd;
mod squared_error;
pub(crate) mod tasks;

use crate::kernels::{Launch, Slots, Step};
use crate::network::Activation;

/// What the CPU runs in place of a launch.
pub(crate) type Twin = Box<dyn Fn(&mut Slots<'_>, Step) + Send + Sync>;

include!(concat!(env!("OUT_DIR"), "/twins.rs"));

/// The activation that a launch ends with, or by whose derivative it multiplies, by its number; none of 99.
fn fused(number: usize) -> Option<Activation> {
    Activation::of_code(number, 0.0)
}
