//! `shaders/peak.wgsl`: the most that a device does, against which the benchmark holds every other launch.

use super::shaders::peak as shader;
use super::{Launch, Range, elementwise};
use crate::error::{Error, Result};

/// Chains of multiply-adds that do not depend on each other.
pub(crate) const CHAINS: usize = 12;

/// `rounds` of twelve independent chains of multiply-adds an element of `output`, a multiple of 8 of them.
///
/// # Errors
/// [`Error::Settings`] when `rounds` is not a multiple of 8 or the ranges differ in length.
pub fn multiply_add(input: Range, output: Range, rounds: usize) -> Result<Launch> {
    if rounds == 0 || !rounds.is_multiple_of(8) || input.len != output.len {
        return Err(Error::Settings(format!(
            "{rounds} rounds from {} elements to {}, expected a multiple of 8 and equal lengths",
            input.len, output.len
        )));
    }
    let elements = output.len;
    let (grid, row) = elementwise(elements);
    let constants = shader::multiply_add::Constants { elements, row, rounds };
    let flop = (elements * rounds * CHAINS * 2) as u64;
    shader::multiply_add::launch(constants, shader::multiply_add::Bindings { input, output }, grid, flop)
}

/// Copies `source` to `copied`.
///
/// # Errors
/// [`Error::Settings`] when the ranges differ in length or are not whole vectors of four words.
pub fn copy(source: Range, copied: Range) -> Result<Launch> {
    if source.len != copied.len || !source.len.is_multiple_of(4) {
        return Err(Error::Settings(format!(
            "a copy of {} words to {}, expected equal multiples of 4",
            source.len, copied.len
        )));
    }
    let vectors = copied.len / 4;
    let (grid, row) = elementwise(vectors);
    let constants = shader::copy::Constants { elements: vectors, row };
    shader::copy::launch(constants, shader::copy::Bindings { source, copied }, grid, 0)
}
