//! In which order an epoch takes its images.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng;

use crate::data;

/// The order of an epoch's images: a shuffle that only the seed and the epoch decide, so that a resumed run
/// finds it again.
pub fn epoch_order(images: usize, seed: u64, epoch: usize, shuffle: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..images as u32).collect();
    if shuffle {
        let stream = seed.wrapping_add((epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut random = Pcg64Mcg::seed_from_u64(stream);
        data::shuffle(&mut order, &mut random);
    }
    order
}
