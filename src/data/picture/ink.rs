//! Ink and ground: which is which, how strong the ink is, where it lies.

use image::{GrayImage, imageops};

/// A border brighter than this is paper, not the black of MNIST.
const PAPER: u8 = 127;

/// A picture whose strongest ink differs by less than this from its background is blank.
const MIN_CONTRAST: u8 = 24;

/// Ink weaker than this part of the strongest is grain of the paper or a trace of compression.
const GRAIN: u8 = 8;

/// Makes the ink white and the ground black, and says whether it was the other way round.
pub(super) fn white_on_black(picture: &mut GrayImage) -> Result<bool, String> {
    let mut background = border_median(picture);
    let inverted = background > PAPER;
    if inverted {
        imageops::invert(picture);
        background = 255 - background;
    }
    for value in picture.iter_mut() {
        *value = value.saturating_sub(background);
    }
    let peak = picture.iter().copied().max().unwrap_or(0);
    if peak < MIN_CONTRAST {
        return Err(format!(
            "no ink found: nothing differs by {MIN_CONTRAST} or more levels of grey from the background"
        ));
    }
    stretch(picture, peak, peak / GRAIN);
    Ok(inverted)
}

/// The median of the outermost pixels, each counted once.
pub(super) fn border_median(picture: &GrayImage) -> u8 {
    let (right, bottom) = (picture.width() - 1, picture.height() - 1);
    let mut counts = [0u32; 256];
    let mut total = 0;
    let mut count = |x, y| {
        counts[usize::from(picture.get_pixel(x, y).0[0])] += 1;
        total += 1;
    };
    for x in 0..=right {
        count(x, 0);
        if bottom > 0 {
            count(x, bottom);
        }
    }
    for y in 1..bottom {
        count(0, y);
        if right > 0 {
            count(right, y);
        }
    }
    let mut below = 0;
    for (value, count) in (0..=255).zip(counts) {
        below += count;
        if below * 2 >= total {
            return value;
        }
    }
    255
}

/// Maps `peak` to 255 and what does not exceed `floor` to 0.
pub(super) fn stretch(picture: &mut GrayImage, peak: u8, floor: u8) {
    let mut levels = [0; 256];
    for (value, level) in (0u32..).zip(&mut levels) {
        if value > u32::from(floor) {
            *level = ((value * 255 + u32::from(peak) / 2) / u32::from(peak)).min(255) as u8;
        }
    }
    for value in picture.iter_mut() {
        *value = levels[usize::from(*value)];
    }
}

/// Left, top, width and height of what is not 0; the whole picture if everything is.
pub(super) fn bounding_box(picture: &GrayImage) -> [u32; 4] {
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y, _) in picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 0) {
        (left, right) = (left.min(x), right.max(x));
        (top, bottom) = (top.min(y), bottom.max(y));
    }
    if left > right {
        return [0, 0, picture.width(), picture.height()];
    }
    [left, top, right - left + 1, bottom - top + 1]
}

/// The centre of mass in pixels, where the first pixel's own centre is 0; the picture is not black.
pub(super) fn centre_of_mass(picture: &GrayImage) -> (f64, f64) {
    let (mut mass, mut x_sum, mut y_sum) = (0.0, 0.0, 0.0);
    for (x, y, pixel) in picture.enumerate_pixels() {
        let ink = f64::from(pixel.0[0]);
        mass += ink;
        x_sum += ink * f64::from(x);
        y_sum += ink * f64::from(y);
    }
    (x_sum / mass, y_sum / mass)
}
