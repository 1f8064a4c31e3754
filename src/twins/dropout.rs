//! `shaders/dropout.wgsl` on the CPU: elements left out at random, and the gradient.

use super::random::pcg4d;
use super::simd::{Plain, vectorize};
use super::tasks::{self, Axis, cut, grid};
use crate::kernels::shaders::dropout::{backward, forward};
use crate::kernels::{LANES, Step};

/// What the shader's constants say.
#[derive(Clone, Copy)]
struct Shape {
    features: usize,
    layer: u32,
    threshold: u32,
    scale: f32,
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let forward::Constants { features, layer, threshold, scale, .. } = c;
    let g = Shape { features, layer: layer as u32, threshold: threshold as u32, scale };
    move |b, step| dropped(&g, step.seed, b.input, b.output)
}

pub(super) fn backward(c: backward::Constants) -> impl Fn(backward::Buffers<'_>, Step) + Send + Sync {
    let backward::Constants { features, layer, threshold, scale, .. } = c;
    let g = Shape { features, layer: layer as u32, threshold: threshold as u32, scale };
    move |b, step| dropped(&g, step.seed, b.output_grad, b.input_grad)
}

fn dropped(g: &Shape, seed: u32, from: &[f32], to: &mut [f32]) {
    let Shape { threshold, scale, .. } = *g;
    // A hash of four words takes some sixty operations.
    let (blocks, wanted) = (to.len() / (g.features * LANES), tasks::wanted(15 * to.len()));
    // At multiples of four features, so that each hash of 16 counters is of one block.
    let [features, _] = grid(wanted, blocks, [Axis::new(g.features, 4), Axis::whole(1)]);
    let places = (0..blocks).flat_map(|block| features.iter().map(move |features| (block, features)));
    let parts = cut(to, places.clone().map(|(_, (_, count))| count * LANES));
    let shares: Vec<_> = places.zip(parts).collect();
    tasks::run(shares, |((block, (first, _)), to)| {
        let from = &from[(block * g.features + first) * LANES..];
        vectorize(Plain(
            #[inline(always)]
            || {
                // Four features of 16 images are 16 counters: four images of one feature each.
                let vectors = to.chunks_mut(4 * LANES).zip(from.chunks(4 * LANES)).enumerate();
                for (i, (to, from)) in vectors {
                    let feature = (first + 4 * i) as u32;
                    let counter =
                        |l: usize| [seed, g.layer, (4 * block + l % 4) as u32, feature + l as u32 / 4];
                    let words =
                        pcg4d::<LANES>(std::array::from_fn(|k| std::array::from_fn(|l| counter(l)[k])));
                    for (e, (to, from)) in to.iter_mut().zip(from).enumerate() {
                        *to = if words[e % 4][e / 4] >= threshold { from * scale } else { 0.0 };
                    }
                }
            },
        ));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dropout::Geometry;
    use crate::kernels::{BufferId, Range, blocks};

    /// Which of the batch's elements are kept, image by image.
    fn kept(g: Geometry, seed: u32) -> Vec<bool> {
        let ones = vec![1.0; blocks(g.batch) * LANES * g.features];
        let mut output = vec![f32::NAN; ones.len()];
        let range = |buffer| Range { buffer: BufferId(buffer), start: 0, len: ones.len() };
        let launch = g.forward(range(0), range(1)).expect("a launch that WebGPU allows");
        let c = forward::Constants::of(&launch);
        let buffers = forward::Buffers { input: &ones, output: &mut output };
        forward(c)(buffers, Step { seed, ..Step::default() });
        assert!(output.iter().all(|&y| y == 0.0 || y == c.scale));
        output.into_iter().map(|y| y != 0.0).collect()
    }

    /// How many standard deviations the number of agreements of two masks is from what independent ones have.
    fn agreement(a: &[bool], b: &[bool], rate: f64) -> f64 {
        let agree = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
        let chance = rate * rate + (1.0 - rate) * (1.0 - rate);
        let n = a.len() as f64;
        (agree - n * chance) / (n * chance * (1.0 - chance)).sqrt()
    }

    /// A normal variable is further than this from its mean once in 500 million times. There are some 1,200 of them
    /// below, so that chance fails once in 400,000 hashes, and this one is always the same.
    const DEVIATIONS: f64 = 6.0;

    #[test]
    fn as_many_are_kept_as_the_rate_says() {
        for rate in [0.0, 0.1, 0.25, 0.5, 0.9] {
            for seed in 0..20u32 {
                let g = Geometry { features: 1000, rate, layer: seed % 3, batch: 64 };
                let mask = kept(g, seed.wrapping_mul(0x9E37_79B9));
                let share = mask.iter().filter(|&&kept| kept).count() as f64 / mask.len() as f64;
                let rate = f64::from(rate);
                let deviation = (rate * (1.0 - rate) / mask.len() as f64).sqrt();
                let off = (share - (1.0 - rate)).abs();
                assert!(off <= DEVIATIONS * deviation, "{g:?}, seed {seed}: {share} are kept");
            }
        }
        // All but a share of 2⁻²⁴, whatever the rounding.
        let g = Geometry { features: 1000, rate: 1.0 - f32::EPSILON / 2.0, layer: 0, batch: 16 };
        assert!(kept(g, 0).iter().filter(|&&kept| kept).count() <= 1);
    }

    #[test]
    fn masks_of_steps_layers_images_and_features_are_independent() {
        let rate = 0.5;
        let g = Geometry { features: 512, rate, layer: 0, batch: 64 };
        let check = |what: &str, a: &[bool], b: &[bool]| {
            let off = agreement(a, b, f64::from(rate));
            assert!(off.abs() <= DEVIATIONS, "{what} agree {off:.1} standard deviations from chance");
        };
        // Seeds of neighbouring steps, as the trainer makes them, and neighbouring numbers.
        let seeds: Vec<u32> = (0..16u32).map(|step| step.wrapping_mul(0x9E37_79B9)).chain(1..16).collect();
        let masks: Vec<Vec<bool>> = seeds.iter().map(|&seed| kept(g, seed)).collect();
        for a in 0..masks.len() {
            assert_eq!(masks[a], kept(g, seeds[a]), "one seed, two masks");
            for b in 0..a {
                check(&format!("seeds {} and {}", seeds[a], seeds[b]), &masks[a], &masks[b]);
            }
        }
        let layers: Vec<Vec<bool>> = (0..16).map(|layer| kept(Geometry { layer, ..g }, 7)).collect();
        for a in 0..layers.len() {
            for b in 0..a {
                check(&format!("layers {a} and {b}"), &layers[a], &layers[b]);
            }
        }
        // A seed that goes up as a layer does.
        for k in 1..8 {
            check("layers and seeds", &kept(Geometry { layer: k, ..g }, 0), &kept(g, k));
        }
        // The mask and itself, moved by some images, features and blocks.
        for distance in (1..=64).chain([g.features * LANES, 2 * g.features * LANES]) {
            let mask = &masks[3];
            check(&format!("elements {distance} apart"), &mask[distance..], &mask[..mask.len() - distance]);
        }
    }
}
