//! `shaders/peak.wgsl`: the most that a device does, against which the benchmark holds every other launch.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::vectorize;
use super::{Args, Launch, Range, elementwise};
use crate::error::{Error, Result};

/// Chains of multiply-adds that do not depend on each other.
const CHAINS: usize = 12;

/// What a chain is multiplied by.
const FACTOR: f32 = 0.9999;

/// Elements that a thread takes at once.
const GRAIN: usize = 1 << 10;

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
    let constants = [("ELEMENTS", elements as f64), ("ROW", row as f64), ("ROUNDS", rounds as f64)];
    let twin = move |args: &mut Args<'_>| {
        let (input, output) = (args.f32("input"), args.f32_mut("output"));
        output
            .par_chunks_mut(GRAIN)
            .zip(input.par_chunks(GRAIN))
            .for_each(|(output, input)| vectorize(Chains { input, output, rounds }));
    };
    let flop = (elements * rounds * CHAINS * 2) as u64;
    let bindings = [("input", input), ("output", output)];
    Launch::old(("peak", "multiply_add"), &constants, grid, &bindings, flop, Arc::new(twin))
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
    let constants = [("ELEMENTS", vectors as f64), ("ROW", row as f64)];
    let twin = |args: &mut Args<'_>| {
        let (source, copied) = (args.u32("source"), args.u32_mut("copied"));
        // One piece a thread, so that a large copy goes past the caches.
        let piece = copied.len().div_ceil(rayon::current_num_threads()).max(1);
        copied
            .par_chunks_mut(piece)
            .zip(source.par_chunks(piece))
            .for_each(|(copied, source)| copied.copy_from_slice(source));
    };
    Launch::old(
        ("peak", "copy"),
        &constants,
        grid,
        &[("source", source), ("copied", copied)],
        0,
        Arc::new(twin),
    )
}

/// The chains of some elements.
struct Chains<'a> {
    input: &'a [f32],
    output: &'a mut [f32],
    rounds: usize,
}

impl WithSimd for Chains<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Chains { input, output, rounds } = self;
        let (wide, rest) = S::as_simd_f32s(input);
        let (wide_output, rest_output) = S::as_mut_simd_f32s(output);
        let factor = simd.splat_f32s(FACTOR);
        for (output, &x) in wide_output.iter_mut().zip(wide) {
            let mut chains = [x; CHAINS];
            for (k, chain) in chains.iter_mut().enumerate() {
                *chain = simd.add_f32s(x, simd.splat_f32s(k as f32));
            }
            for _ in 0..rounds {
                for chain in &mut chains {
                    *chain = simd.mul_add_e_f32s(*chain, factor, x);
                }
            }
            // In the shader's order: three vectors, then their four components.
            let mut sum = [x; 4];
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum = simd.add_f32s(simd.add_f32s(chains[i], chains[4 + i]), chains[8 + i]);
            }
            let [a, b, c, d] = sum;
            *output = simd.add_f32s(simd.add_f32s(simd.add_f32s(a, b), c), d);
        }
        for (output, &x) in rest_output.iter_mut().zip(rest) {
            *output = (0..CHAINS)
                .map(|k| (0..rounds).fold(x + k as f32, |chain, _| chain.mul_add(FACTOR, x)))
                .sum();
        }
    }
}
