//! Scenes of digits anywhere in noise: which pixels are ink, and of which digit?

use rand_pcg::rand_core::Rng;
use rayon::prelude::*;

use super::stock::{Draw, Place, Stock};
use crate::data::dataset::{Dataset, Encoding};
use crate::data::made::mnist;
use crate::data::split::Split;
use crate::error::Result;

/// Rows and columns of a scene.
pub const SCENE: usize = 64;

/// Scenes of 64×64 pixels with 1 to 5 digits anywhere, 0.7 to 1.4 of their size, in noise; the class of each pixel
/// is 0 for the ground and 1 plus the digit for ink.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) when the data set is not one of grey digits.
pub fn scenes(digits: &Dataset, count: usize, seed: u64) -> Result<Dataset> {
    const PIXELS: usize = SCENE * SCENE;
    let stock = Stock::new(digits)?;
    let (mut images, mut labels) = (vec![0; count * PIXELS], vec![0; count * PIXELS]);
    let scene = |(i, (pixels, map)): (usize, (&mut [u8], &mut [u8]))| {
        let mut draw = Draw::new(seed, 3, i);
        let mut taken: Vec<[f32; 4]> = Vec::new();
        let wanted = 1 + draw.below(5);
        // Where there is no room after some tries, there are fewer digits.
        for _ in 0..8 * wanted {
            if taken.len() == wanted {
                break;
            }
            let (digit, scale) = (draw.below(stock.len()), draw.range(0.7, 1.4));
            let [half_x, half_y] = stock.size(digit).map(|size| 0.5 * scale * size);
            let side = SCENE as f32;
            let x = draw.range(half_x, side - half_x);
            let y = draw.range(half_y, side - half_y);
            let [left, top, right, bottom] = [x - half_x, y - half_y, x + half_x, y + half_y];
            // Boxes may overlap by two pixels, their ink hardly does.
            let apart = |other: &[f32; 4]| {
                left > other[2] - 2.0
                    || right < other[0] + 2.0
                    || top > other[3] - 2.0
                    || bottom < other[1] + 2.0
            };
            if taken.iter().all(apart) {
                stock.paste(Place { digit, x, y, scale }, pixels, map, SCENE);
                taken.push([left, top, right, bottom]);
            }
        }
        // Four bytes add up to nearly a normal distribution, 148 wide.
        let strength = draw.below(33) as i32;
        for pixel in pixels {
            let sum: i32 = draw.0.next_u32().to_le_bytes().into_iter().map(i32::from).sum();
            *pixel = (i32::from(*pixel) + (sum - 510) * strength / 148).clamp(0, 255) as u8;
        }
    };
    images.par_chunks_exact_mut(PIXELS).zip(labels.par_chunks_exact_mut(PIXELS)).enumerate().for_each(scene);
    let mut data = Dataset::segmented("mnist-scenes", [1, SCENE, SCENE], 11, images, [SCENE, SCENE], labels)?;
    // Noise and all: a new picture is not searched for its ink.
    data.encoding = Encoding::Picture;
    data.class_names = std::iter::once("ground".into()).chain((0..10).map(|d| d.to_string())).collect();
    Ok(data)
}

/// The data set `mnist-scenes`: 8,000 scenes of MNIST's training digits, 1,000 of its test digits.
///
/// # Errors
/// Those of [`mnist`].
pub fn mnist_scenes() -> Result<Split> {
    let Split { train, test, .. } = mnist()?;
    Ok(Split::of(scenes(&train, 8_000, 0)?, scenes(&test, 1_000, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "mnist")]
    #[test]
    fn scenes_mark_their_ink() {
        let Split { train, test, .. } = crate::data::load("mnist-scenes").unwrap();
        assert_eq!((train.len(), test.len(), test.classes), (8_000, 1_000, 11));
        assert_eq!((test.height, test.width, test.label_size), (64, 64, [64, 64]));
        assert_eq!([&test.class_names[0], &test.class_names[10]], ["ground", "9"]);
        let mut counts = [0_u64; 11];
        let (mut ground, mut ink) = (0, 0);
        for (&label, &pixel) in test.labels.iter().zip(&test.images.to_vec()) {
            counts[usize::from(label)] += 1;
            *(if label == 0 { &mut ground } else { &mut ink }) += u64::from(pixel);
        }
        let marked: u64 = counts[1..].iter().sum();
        assert!(counts.iter().all(|&count| count > 10_000), "{counts:?}");
        assert!(ground / counts[0] < 20 && ink / marked > 160, "{ground} {ink} {counts:?}");
        // No scene is empty.
        assert!(test.labels.chunks_exact(SCENE * SCENE).all(|map| map.iter().any(|&label| label > 0)));
    }
}
