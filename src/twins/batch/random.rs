//! The random numbers of `augment`: hashes of what they are for, and what is made of their words.

use pulp::Simd;

use crate::twins::random::{pcg4d, pcg4d_wide};

/// What a random number is for; the shader's constants.
pub(super) const FOR_MAP: u32 = 0;
pub(super) const FOR_PLACE: u32 = 1;
pub(super) const FOR_FIELD: u32 = 2;
pub(super) const FOR_NOISE: u32 = 3;

/// Four words for a detail of an image.
#[inline(always)]
pub(super) fn random(seed: u32, image: u32, detail: u32, purpose: u32) -> [u32; 4] {
    pcg4d([seed, image, detail, purpose].map(|word| [word])).map(|[word]| word)
}

/// [`random`] of several details.
#[inline(always)]
pub(super) fn random_wide<S: Simd>(
    simd: S,
    [seed, image]: [u32; 2],
    detail: S::u32s,
    purpose: u32,
) -> [S::u32s; 4] {
    pcg4d_wide(simd, [simd.splat_u32s(seed), simd.splat_u32s(image), detail, simd.splat_u32s(purpose)])
}

/// Uniform in −1 ≤ x < 1, without rounding.
#[inline(always)]
pub(super) fn symmetric(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Added to a float below 2²³, leaves the nearest integer in the low bits.
pub(super) const WHOLE: f32 = (1 << 23) as f32;

/// Integers below 2²³ as floats.
#[inline(always)]
pub(super) fn whole<S: Simd>(simd: S, values: S::u32s) -> S::f32s {
    let bits = simd.or_u32s(values, simd.splat_u32s(WHOLE.to_bits()));
    simd.sub_f32s(simd.transmute_f32s_u32s(bits), simd.splat_f32s(WHOLE))
}

#[inline(always)]
pub(super) fn shifted<S: Simd>(simd: S, word: S::u32s, by: u32) -> S::u32s {
    simd.wrapping_dyn_shr_u32s(word, simd.splat_u32s(by))
}

/// [`symmetric`] of several words, whose 24 bits are one too many for [`whole`].
#[inline(always)]
pub(super) fn symmetric_wide<S: Simd>(simd: S, word: S::u32s) -> S::f32s {
    let high = simd.sub_f32s(whole(simd, shifted(simd, word, 9)), simd.splat_f32s((1 << 22) as f32));
    let low = whole(simd, simd.and_u32s(shifted(simd, word, 8), simd.splat_u32s(1)));
    simd.mul_f32s(simd.add_f32s(simd.add_f32s(high, high), low), simd.splat_f32s(1.0 / (1 << 23) as f32))
}

/// The sum of each word's four bytes.
#[inline(always)]
pub(super) fn bytes_wide<S: Simd>(simd: S, word: S::u32s) -> S::f32s {
    let every_second = simd.splat_u32s(0x00ff_00ff);
    let even = simd.and_u32s(word, every_second);
    let pairs = simd.add_u32s(even, simd.and_u32s(shifted(simd, word, 8), every_second));
    let sum = simd.add_u32s(simd.and_u32s(pairs, simd.splat_u32s(0xffff)), shifted(simd, pairs, 16));
    whole(simd, sum)
}
