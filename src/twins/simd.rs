//! How the CPU twins use a core: the widest SIMD it has, chosen at run time, and memory of each thread.

use std::cell::Cell;

#[cfg(not(target_arch = "wasm32"))]
use pulp::Arch;
use pulp::{Simd, WithSimd};

use crate::kernels::LANES;

/// Runs `work` compiled for the widest instruction set of this machine.
#[inline]
pub(crate) fn vectorize<W: WithSimd<Output = ()>>(work: W) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        static ARCH: std::sync::OnceLock<Arch> = std::sync::OnceLock::new();
        ARCH.get_or_init(Arch::new).dispatch(work);
    }
    // Here it is known when this is compiled, so that what is not taken is left out of a page's download.
    #[cfg(target_arch = "wasm32")]
    match pulp::core_arch::wasm::Simd128::try_new() {
        Some(simd128) => Simd::vectorize(pulp::wasm::Simd128 { simd128 }, work),
        None => Simd::vectorize(pulp::Scalar, work),
    }
}

/// How wide that is, for messages.
pub(crate) fn name() -> String {
    struct Lanes<'a>(&'a mut usize);
    impl WithSimd for Lanes<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, _: S) {
            *self.0 = S::F32_LANES;
        }
    }
    let mut lanes = 1;
    vectorize(Lanes(&mut lanes));
    format!("{} floats a register", lanes)
}

/// A closure that is compiled for the widest instruction set, for loops over [`lanes`] that vectorise by
/// themselves.
pub(crate) struct Plain<F>(pub F);

impl<F: FnOnce()> WithSimd for Plain<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        (self.0)();
    }
}

/// The 16 images of place `at`.
#[inline(always)]
pub(crate) fn lanes<T>(plane: &[T], at: usize) -> &[T; LANES] {
    plane[at * LANES..][..LANES].try_into().expect("LANES elements")
}

/// The 16 images of place `at`.
#[inline(always)]
pub(crate) fn lanes_mut<T>(plane: &mut [T], at: usize) -> &mut [T; LANES] {
    (&mut plane[at * LANES..][..LANES]).try_into().expect("LANES elements")
}

/// Sixteen words on a cache line, so that a register never straddles two.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Line(pub [u32; LANES]);

/// Lends `len` floats of this thread, on cache lines. They hold whatever was left there: whoever asks writes
/// before reading.
pub(crate) fn scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    }
    let mut lines = KEPT.take();
    let needed = len.div_ceil(LANES);
    if lines.len() < needed {
        lines = vec![Line([0; LANES]); needed];
    }
    let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut lines);
    let result = work(&mut floats[..len]);
    KEPT.set(lines);
    result
}

/// Registers that a block of [`LANES`] images fills.
#[inline(always)]
pub(crate) const fn registers<S: Simd>() -> usize {
    LANES / S::F32_LANES
}

/// `values` as whole registers.
#[inline(always)]
pub(crate) fn wide<S: Simd>(values: &[f32]) -> &[S::f32s] {
    S::as_simd_f32s(values).0
}

/// `values` as whole registers.
#[inline(always)]
pub(crate) fn wide_u32<S: Simd>(values: &[u32]) -> &[S::u32s] {
    S::as_simd_u32s(values).0
}

/// `values` as whole registers.
#[inline(always)]
pub(crate) fn wide_u32_mut<S: Simd>(values: &mut [u32]) -> &mut [S::u32s] {
    S::as_mut_simd_u32s(values).0
}

/// `values` as whole registers.
#[inline(always)]
pub(crate) fn wide_mut<S: Simd>(values: &mut [f32]) -> &mut [S::f32s] {
    S::as_mut_simd_f32s(values).0
}

/// A ReLU, which leaves a NaN as it is: a maximum does not on every machine.
#[inline(always)]
pub(crate) fn relu<S: Simd>(simd: S, z: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_or_equal_f32s(z, zero), zero, z)
}
