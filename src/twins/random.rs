//! PCG4D (Jarzynski and Olano, Hash Functions for GPU Rendering, 2020), which the shaders draw their random words from:
//! of several counters at once, word by word, counters fastest.

use pulp::Simd;

/// Of `N` counters.
#[inline(always)]
pub(super) fn pcg4d<const N: usize>([mut x, mut y, mut z, mut w]: [[u32; N]; 4]) -> [[u32; N]; 4] {
    for words in [&mut x, &mut y, &mut z, &mut w] {
        *words = words.map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    }
    for round in 0..2 {
        for l in 0..N {
            x[l] = x[l].wrapping_add(y[l].wrapping_mul(w[l]));
            y[l] = y[l].wrapping_add(z[l].wrapping_mul(x[l]));
            z[l] = z[l].wrapping_add(x[l].wrapping_mul(y[l]));
            w[l] = w[l].wrapping_add(y[l].wrapping_mul(z[l]));
        }
        if round == 0 {
            for words in [&mut x, &mut y, &mut z, &mut w] {
                *words = words.map(|word| word ^ (word >> 16));
            }
        }
    }
    [x, y, z, w]
}

/// Of as many counters as a register holds.
#[inline(always)]
pub(super) fn pcg4d_wide<S: Simd>(simd: S, counters: [S::u32s; 4]) -> [S::u32s; 4] {
    let [x, y, z, w] = counters;
    let words = [key_wide(simd, x), key_wide(simd, y), key_wide(simd, z), key_wide(simd, w)];
    let [x, y, z, w] = mix_wide(simd, words);
    mix_wide(simd, [half_wide(simd, x), half_wide(simd, y), half_wide(simd, z), half_wide(simd, w)])
}

#[inline(always)]
fn key_wide<S: Simd>(simd: S, word: S::u32s) -> S::u32s {
    simd.add_u32s(simd.mul_u32s(word, simd.splat_u32s(1_664_525)), simd.splat_u32s(1_013_904_223))
}

#[inline(always)]
fn mix_wide<S: Simd>(simd: S, [x, y, z, w]: [S::u32s; 4]) -> [S::u32s; 4] {
    let x = simd.add_u32s(x, simd.mul_u32s(y, w));
    let y = simd.add_u32s(y, simd.mul_u32s(z, x));
    let z = simd.add_u32s(z, simd.mul_u32s(x, y));
    [x, y, z, simd.add_u32s(w, simd.mul_u32s(y, z))]
}

#[inline(always)]
fn half_wide<S: Simd>(simd: S, word: S::u32s) -> S::u32s {
    simd.xor_u32s(word, simd.wrapping_dyn_shr_u32s(word, simd.splat_u32s(16)))
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::twins::simd::vectorize;

    /// Of the counter (1, 2, 3, 4), by a transcription of the paper's listing into integers of any size.
    const PUBLISHED: [u32; 4] = [0x3622_cd16, 0xf114_71d8, 0xe110_9b3f, 0x02b9_4c2f];

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(pcg4d([1, 2, 3, 4].map(|x| [x; 1])), PUBLISHED.map(|x| [x; 1]));
        assert_eq!(pcg4d([1, 2, 3, 4].map(|x| [x; 16])), PUBLISHED.map(|x| [x; 16]));
    }

    #[test]
    fn a_register_of_counters_is_hashed_as_each_alone() {
        struct Hashed;

        impl WithSimd for Hashed {
            type Output = ();

            fn with_simd<S: Simd>(self, simd: S) {
                let counters = std::array::from_fn(|k| simd.splat_u32s(k as u32 + 1));
                for (words, expected) in pcg4d_wide(simd, counters).into_iter().zip(PUBLISHED) {
                    let words = [words];
                    assert!(bytemuck::cast_slice::<_, u32>(&words).iter().all(|&word| word == expected));
                }
            }
        }
        vectorize(Hashed);
    }
}
