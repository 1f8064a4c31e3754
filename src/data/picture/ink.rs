//! The ink of a picture: found under uneven light, between lines, specks and the edges of the sheet.

use image::GrayImage;

use super::ground::{self, is_dark_on_light, level};
use super::lines;
use super::pieces::{Pieces, grown};
use super::plane::Plane;

/// A picture whose strongest ink differs by less than this from its background is blank.
pub(super) const MIN_CONTRAST: u8 = 24;

/// Ink weaker than this part of the strongest is grain of the paper or a trace of compression.
pub(super) const GRAIN: u8 = 8;

/// Lines weaker than this part of the strongest ink are none.
const LINE: f32 = 20.0;

/// Ink fainter than this, of 255, may be none.
const FAINT: f32 = 40.0;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One digit, letter or thing.
    One,
    /// A line of them.
    Line,
}

/// Ink on black.
pub(super) struct Ink {
    /// The picture, or means of its pixels; what is no ink is 0, the strongest ink 255.
    pub(super) picture: GrayImage,
    /// How many pixels of the file a pixel is, in both directions.
    pub(super) factor: u32,
    /// Whether it was dark on light.
    pub(super) inverted: bool,
    /// What is doubtful about it, in words.
    pub(super) doubts: Vec<String>,
}

/// Finds the ink of a picture, which has at least one pixel.
pub(super) fn find(picture: &GrayImage, wanted: Wanted) -> Result<Ink, String> {
    let inverted = is_dark_on_light(picture);
    let (columns, rows) = (picture.width() as usize, picture.height() as usize);
    let factor = match wanted {
        Wanted::One => Plane::factor(columns, rows, 640),
        Wanted::Line => Plane::factor(columns, rows, 8192).max(Plane::factor(1, columns.min(rows), 512)),
    };
    let mut light = Plane::of(picture, factor);
    if inverted {
        light.values.iter_mut().for_each(|value| *value = 255.0 - *value);
    }
    let mut ink = ground::ink(&light, inverted);
    let (width, height) = (ink.width, ink.height);
    let blank = || {
        format!("no ink found: nothing differs by {MIN_CONTRAST} or more levels of grey from the background")
    };
    let mut peak = level_of_peak(&ink);
    if peak < f32::from(MIN_CONTRAST) {
        return Err(blank());
    }
    // The grain is taken off as far as no stroke of the smallest digit that there may be goes with it.
    let mut grain = ink.grain();
    let most = width.min(height) / 112;
    let radius = (1..=most.min(2)).find(|&radius| grain / (2 * radius + 1) as f32 <= peak / 30.0);
    if grain > peak / 30.0 && most > 0 {
        let radius = radius.unwrap_or(most.min(2));
        ink = ink.blurred(radius);
        grain /= (2 * radius + 1) as f32;
        peak = level_of_peak(&ink);
    }
    let mut found = Sheet { ink, peak, grain };
    found.clear_edges()?;
    let mut lines = 0.0;
    // Means over a part of a line have little of the grain.
    if let Some((without, level)) = lines::without(&found.ink, (found.peak / LINE).max(grain)) {
        let left = level_of_peak(&without);
        if left >= f32::from(MIN_CONTRAST).max(found.peak / 3.0) {
            (found.ink, found.peak, lines) = (without, left, level);
            found.clear_edges()?;
        }
    }
    let Sheet { ink, peak, grain } = found;
    // What is left of a line is no stronger than it was.
    let over_lines = (1.1 * lines).min(0.7 * peak);
    let bound = (SEED * threshold(&ink, peak)).max(4.0 * grain).max(peak / f32::from(GRAIN)).max(over_lines);
    let over: Vec<bool> = ink.values.iter().map(|&value| value > bound).collect();
    let pieces = Pieces::of(&over, width);
    let all = vec![true; pieces.all().len()];
    let kept = match wanted {
        Wanted::One => pieces.of_the_largest(&all),
        Wanted::Line => pieces.of_the_line(&all),
    };
    let mask = pieces.mask(&kept);
    let mut levels: Vec<f32> =
        ink.values.iter().zip(&mask).filter(|(_, mask)| **mask).map(|(value, _)| *value).collect();
    levels.sort_by(f32::total_cmp);
    let Some(&top) = levels.get(levels.len() * 19 / 20) else { return Err(blank()) };
    let floor = (top / f32::from(GRAIN)).max(2.5 * grain);
    let open: Vec<bool> = ink.values.iter().map(|&value| value > floor).collect();
    let reach = (0.6 * pieces.stroke(&kept)).ceil() as usize + 1;
    let near = grown(&mask, &open, width, reach);
    let bytes =
        ink.values.iter().zip(&near).map(|(value, near)| {
            if *near && *value > floor { (value * 255.0 / top).round() as u8 } else { 0 }
        });
    let mut doubts = Vec::new();
    let strength = levels[levels.len() / 2];
    if strength < FAINT || strength < 5.0 * grain {
        doubts.push("the ink is hardly stronger than its ground".into());
    }
    if wanted == Wanted::One {
        doubts.extend(pieces.doubts(&kept));
    }
    let picture = GrayImage::from_raw(width as u32, height as u32, bytes.collect())
        .ok_or_else(|| "the picture's size contradicts itself".to_owned())?;
    Ok(Ink { picture, factor: factor as u32, inverted, doubts })
}

/// No ink, in words.
fn blank() -> String {
    format!("no ink found: nothing differs by {MIN_CONTRAST} or more levels of grey from the background")
}

/// The level of the strongest ink: a few specks are not it.
fn level_of_peak(ink: &Plane) -> f32 {
    level(ink, 0.0005, 1)
}

/// Ink with what is known of it.
struct Sheet {
    ink: Plane,
    peak: f32,
    /// The standard deviation of the grain.
    grain: f32,
}

impl Sheet {
    /// Takes off what is part of the sheet. That may be darker than all ink: without it there is another peak.
    fn clear_edges(&mut self) -> Result<(), String> {
        let (width, height) = (self.ink.width, self.ink.height);
        for _ in 0..3 {
            let bound = threshold(&self.ink, self.peak).max(4.0 * self.grain);
            let over: Vec<bool> = self.ink.values.iter().map(|&value| value > bound).collect();
            let pieces = Pieces::of(&over, width);
            let found = pieces.of_the_sheet();
            if !found.contains(&true) {
                break;
            }
            let soft = self.peak / (2.0 * f32::from(GRAIN));
            let near: Vec<bool> = self.ink.values.iter().map(|&value| value > soft).collect();
            let sheet = grown(&pieces.mask(&found), &near, width, 2 + width.min(height) / 32);
            let values = self.ink.values.iter_mut().zip(&sheet);
            values.filter(|(_, sheet)| **sheet).for_each(|(value, _)| *value = 0.0);
            self.peak = level_of_peak(&self.ink);
            if self.peak < f32::from(MIN_CONTRAST) {
                return Err(blank());
            }
        }
        Ok(())
    }
}

/// The part of the threshold from which ink is a piece.
const SEED: f32 = 0.6;

/// Halfway between what is below it and what is above, of all that is above 0, however much there is of either.
fn threshold(ink: &Plane, peak: f32) -> f32 {
    let mut bound = peak / 2.0;
    for _ in 0..16 {
        let mean = |above: bool| {
            let of = ink.values.iter().filter(|value| (**value > bound) == above);
            let (sum, count) =
                of.fold((0.0_f64, 0), |(sum, count), value| (sum + f64::from(*value), count + 1));
            sum / f64::from(count.max(1))
        };
        let next = ((mean(false) + mean(true)) / 2.0) as f32;
        if (next - bound).abs() < 0.5 {
            break;
        }
        bound = next;
    }
    bound
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
