//! `shaders/peak.wgsl` on the CPU: the most that it does, against which the benchmark holds every other twin.

use pulp::{Simd, WithSimd};

use super::simd::vectorize;
use super::tasks::{each, threads};
use crate::kernels::Step;
use crate::kernels::peak::CHAINS;
use crate::kernels::shaders::peak::{copy, multiply_add};

/// What a chain is multiplied by.
const FACTOR: f32 = 0.9999;

/// Elements that a thread takes at once.
const GRAIN: usize = 1 << 10;

pub(super) fn multiply_add(
    c: multiply_add::Constants,
) -> impl Fn(multiply_add::Buffers<'_>, Step) + Send + Sync {
    let rounds = c.rounds;
    move |b, _| {
        let multiply_add::Buffers { input, output } = b;
        let operations = 2 * CHAINS * rounds * output.len();
        each(output, GRAIN, operations, |at, output| {
            let input = &input[at * GRAIN..][..output.len()];
            vectorize(Chains { input, output, rounds });
        });
    }
}

pub(super) fn copy(_: copy::Constants) -> impl Fn(copy::Buffers<'_>, Step) + Send + Sync {
    |b, _| {
        let copy::Buffers { source, copied } = b;
        // One piece a thread, so that a large copy goes past the caches.
        let piece = copied.len().div_ceil(threads()).max(1);
        let operations = copied.len();
        each(copied, piece, operations, |at, copied| {
            copied.copy_from_slice(&source[at * piece..][..copied.len()]);
        });
    }
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
