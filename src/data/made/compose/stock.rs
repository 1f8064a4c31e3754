//! Digits to put together: where the ink of each is, how they stand side by side, and how one is drawn.

use std::borrow::Cow;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::data::dataset::Dataset;
use crate::data::picture::{INK, ink_box};
use crate::error::{Error, Result};

/// The least distance of two neighbours' middles in a string, in pixels.
pub const SPACING: f32 = 12.0;

/// Numbers drawn from one stream of a seed.
pub(super) struct Draw(pub(super) Pcg64Mcg);

impl Draw {
    /// Stream `i` of a seed; `kind` keeps the uses of a seed apart.
    pub(super) fn new(seed: u64, kind: u64, i: usize) -> Draw {
        let stream = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(kind << 56);
        Draw(Pcg64Mcg::seed_from_u64(seed.wrapping_add(stream)))
    }

    /// From `low` to `high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits are exact in an f32.
        low + (high - low) * ((self.0.next_u32() >> 8) as f32 / (1 << 24) as f32)
    }

    /// From 0 to `n - 1`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// True in this share of the cases.
    pub(super) fn chance(&mut self, share: f32) -> bool {
        self.range(0.0, 1.0) < share
    }
}

/// Digits to put together, each with the box of its ink.
pub(super) struct Stock<'a> {
    digits: &'a Dataset,
    images: Cow<'a, [u8]>,
    boxes: Vec<[f32; 4]>,
}

/// A digit on its place: the middle of its ink in pixels, and its size.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) digit: usize,
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) scale: f32,
}

impl<'a> Stock<'a> {
    pub(super) fn new(digits: &'a Dataset) -> Result<Stock<'a>> {
        if digits.channels != 1 || digits.labels_per_image() != 1 || digits.classes != 10 || digits.is_empty()
        {
            return Err(Error::Data {
                path: digits.name.clone(),
                message: format!(
                    "{} images of {} channels in {} classes found, expected grey digits with one label each",
                    digits.len(),
                    digits.channels,
                    digits.classes
                ),
            });
        }
        let images = digits.images.all()?;
        let boxes = images
            .par_chunks_exact(digits.pixels())
            .map(|pixels| {
                let [width, height] = [digits.width, digits.height].map(|side| side as u32);
                ink_box(pixels, digits.width, [0, 0, width, height])
                    .unwrap_or([0, 0, width, height])
                    .map(|edge| edge as f32)
            })
            .collect();
        Ok(Stock { digits, images, boxes })
    }

    pub(super) fn len(&self) -> usize {
        self.digits.len()
    }

    pub(super) fn label(&self, digit: usize) -> u8 {
        self.digits.labels[digit]
    }

    /// Columns and rows of a digit's ink.
    pub(super) fn size(&self, digit: usize) -> [f32; 2] {
        let [left, top, right, bottom] = self.boxes[digit];
        [right - left, bottom - top]
    }

    /// Sets digits side by side, the first with its ink at column 0, all near row 0.
    pub(super) fn row(&self, draw: &mut Draw, digits: &[usize]) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::with_capacity(digits.len());
        let mut right = 0.0;
        for &digit in digits {
            let (scale, y) = (draw.range(0.85, 1.15), draw.range(-3.0, 3.0));
            let half = 0.5 * scale * self.size(digit)[0];
            let x = match places.last() {
                None => half,
                Some(last) => (right + draw.range(-4.0, 6.0) + half).max(last.x + SPACING),
            };
            right = x + half;
            places.push(Place { digit, x, y, scale });
        }
        places
    }

    /// Draws a digit into a picture of `width` columns, where it is brighter than what is there, and its class
    /// plus one into `map`, if that is not empty. Gives the box of its ink, if any is inside.
    pub(super) fn paste(
        &self,
        place: Place,
        pixels: &mut [u8],
        map: &mut [u8],
        width: usize,
    ) -> Option<[u32; 4]> {
        let Place { digit, x, y, scale } = place;
        let [left, top, right, bottom] = self.boxes[digit];
        let source = &self.images[digit * self.digits.pixels()..];
        let columns = self.digits.width as i32;
        let rows = self.digits.height as i32;
        let value = |x: i32, y: i32| match (0..columns).contains(&x) && (0..rows).contains(&y) {
            true => f32::from(source[(y * columns + x) as usize]),
            false => 0.0,
        };
        // Faint ink reaches two pixels beyond the box at most.
        let span = |middle: f32, size: f32, end: usize| {
            let half = scale * (0.5 * size + 2.0);
            ((middle - half).floor().max(0.0) as usize, ((middle + half).ceil().max(0.0) as usize).min(end))
        };
        let (x_from, x_to) = span(x, right - left, width);
        let (y_from, y_to) = span(y, bottom - top, pixels.len() / width);
        let mut ink: Option<[u32; 4]> = None;
        for to_y in y_from..y_to {
            let v = (to_y as f32 + 0.5 - y) / scale + 0.5 * (top + bottom) - 0.5;
            let (y0, part_y) = (v.floor() as i32, v - v.floor());
            for to_x in x_from..x_to {
                let u = (to_x as f32 + 0.5 - x) / scale + 0.5 * (left + right) - 0.5;
                let (x0, part_x) = (u.floor() as i32, u - u.floor());
                let above = value(x0, y0) * (1.0 - part_x) + value(x0 + 1, y0) * part_x;
                let below = value(x0, y0 + 1) * (1.0 - part_x) + value(x0 + 1, y0 + 1) * part_x;
                let level = (above * (1.0 - part_y) + below * part_y + 0.5) as u8;
                let at = to_y * width + to_x;
                if level >= INK {
                    let (x, y) = (to_x as u32, to_y as u32);
                    let [left, top, right, bottom] = ink.unwrap_or([x, y, x, y]);
                    ink = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
                }
                if level > pixels[at] {
                    pixels[at] = level;
                    if level >= INK
                        && let Some(class) = map.get_mut(at)
                    {
                        *class = 1 + self.label(digit);
                    }
                }
            }
        }
        ink
    }
}
