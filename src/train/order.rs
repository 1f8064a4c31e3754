//! In which order an epoch takes its images.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// The order of an epoch's images: a shuffle that only the seed and the epoch decide, so that a resumed run
/// finds it again.
pub fn epoch_order(images: usize, seed: u64, epoch: usize, shuffle: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..images as u32).collect();
    if shuffle {
        let stream = seed.wrapping_add((epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut random = Pcg64Mcg::seed_from_u64(stream);
        for i in (1..images).rev() {
            // The product's high half is uniform to within images / 2⁶⁴.
            let j = (u128::from(random.next_u64()) * (i as u128 + 1)) >> 64;
            order.swap(i, j as usize);
        }
    }
    order
}
