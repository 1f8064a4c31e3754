//! The cases of every shader, one file a shader file: shapes that are odd, batches that are ragged, and what no kernel
//! may touch around them.

// A list of one range is a list of ranges here.
#![allow(clippy::single_range_in_vec_init)]

mod activation;
mod batch;
mod conv2d;
mod conv_pool;
mod depthwise;
mod dropout;
mod join;
mod linear;
mod loss;
mod lrn;
mod norm;
mod optimizer;
mod peak;
mod plain_lenet5;
mod pool2d;
mod rbf;
mod squared_error;

use super::kernels::Case;
use crate::error::Result;

/// Makes the cases of one shader for a device that so many invocations fill.
type Cases = fn(usize) -> Result<Vec<Case>>;

/// Every shader's cases, in the order of their names.
const TABLE: [(&str, Cases); 17] = [
    ("activation", activation::cases),
    ("batch", batch::cases),
    ("conv2d", conv2d::cases),
    ("conv_pool", conv_pool::cases),
    ("depthwise", depthwise::cases),
    ("dropout", dropout::cases),
    ("join", join::cases),
    ("linear", linear::cases),
    ("loss", loss::cases),
    ("lrn", lrn::cases),
    ("norm", norm::cases),
    ("optimizer", optimizer::cases),
    ("peak", peak::cases),
    ("plain_lenet5", plain_lenet5::cases),
    ("pool2d", pool2d::cases),
    ("rbf", rbf::cases),
    ("squared_error", squared_error::cases),
];

/// The shaders that have cases, by name.
pub fn shaders() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The cases of a shader, with the tiles of a device that `fill` invocations fill
/// ([`Target::fill`](crate::kernels::Target::fill)); none where there is no such shader. They are the same each time.
///
/// # Errors
/// What a launch is refused for, such as a grid that is too large.
pub fn cases(shader: &str, fill: usize) -> Result<Vec<Case>> {
    let found = TABLE.iter().find(|(name, _)| *name == shader);
    found.map_or_else(|| Ok(Vec::new()), |(_, cases)| cases(fill))
}
