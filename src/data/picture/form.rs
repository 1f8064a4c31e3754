//! The form of a data set's pictures: what they have in common, and which a new one has to have.

use std::borrow::Cow;

use image::GrayImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ground::border_median;
use super::ink::{GRAIN, MIN_CONTRAST};
use crate::data::dataset::{Dataset, Encoding};
use crate::error::Result;

/// Pictures of a set that are looked at, evenly spread over it.
const LOOKED_AT: usize = 20_000;

/// A border as far from the ground as this is none of it, in levels of grey.
const NEAR: u8 = 32;

/// What lies closer together than this part of a side is one size, or one place.
const TIGHT: f32 = 1.0 / 7.0;

/// What the pictures of a set have in common: ground and ink, and how large and where what is drawn on them is. Shares
/// are of a picture's height or width.
///
/// ```
/// use lenet::data::{Dataset, picture::Form};
///
/// // Dark squares of 4×4 in the middle of light pictures of 8×8.
/// let pixels = |i: usize| if (2..6).contains(&(i / 8)) && (2..6).contains(&(i % 8)) { 20 } else { 250 };
/// let pixels: Vec<u8> = (0..100).flat_map(|_| (0..64).map(pixels)).collect();
/// let data = Dataset::new("squares", [1, 8, 8], 2, pixels, vec![0; 100])?;
/// let form = Form::of(&data)?.expect("grey pictures");
/// assert_eq!((form.drawn, form.ground, form.ink, form.side), (true, 250, 20, 0.5));
/// # Ok::<(), lenet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// Things on an even ground, which is searched for them; else pictures as they are.
    pub drawn: bool,
    /// The level of the ground.
    pub ground: u8,
    /// The level of the strongest ink, as a rule.
    pub ink: u8,
    /// From and to which level the borders' medians are.
    pub border: [u8; 2],
    /// The larger of the shares that the ink's box has of height and width, as a rule.
    pub side: f32,
    /// From and to which share it goes.
    pub sides: [f32; 2],
    /// Things lie with their centre of mass at `place`, not with the middle of their box.
    pub by_mass: bool,
    /// Where things lie, as shares of width and height.
    pub place: [f32; 2],
    /// From and to where, in width and height.
    pub places: [[f32; 2]; 2],
    /// Whether there are pictures without ink.
    pub blank: bool,
}

impl Default for Form {
    /// MNIST's: white on black, in a box of 20/28, by the centre of mass; wherever and however small, if it fits that.
    fn default() -> Form {
        let side = 20.0 / 28.0;
        Form {
            drawn: true,
            ground: 0,
            ink: 255,
            border: [0, 0],
            side,
            sides: [0.0, side],
            by_mass: true,
            place: [0.5; 2],
            places: [[0.0, 1.0]; 2],
            blank: false,
        }
    }
}

/// One picture, as a form sees it.
struct Seen {
    side: f32,
    mass: [f32; 2],
    middle: [f32; 2],
    ink: u8,
}

/// What is drawn on a ground of this level; none of a blank picture.
fn seen(pixels: &[u8], width: usize, ground: u8) -> Option<Seen> {
    let height = pixels.len() / width;
    let most = pixels.iter().map(|pixel| pixel.abs_diff(ground)).max()?;
    if most < MIN_CONTRAST {
        return None;
    }
    let strongest = *pixels.iter().rfind(|pixel| pixel.abs_diff(ground) == most)?;
    let [mut left, mut top, mut right, mut bottom] = [width, height, 0, 0];
    let (mut sum, mut sums) = (0u64, [0u64; 2]);
    let is_ink = |pixel: &u8| pixel.abs_diff(ground) > most / GRAIN;
    for (y, row) in pixels.chunks_exact(width).enumerate() {
        // Most rows have none at their sides, many none at all.
        let (Some(first), Some(last)) = (row.iter().position(is_ink), row.iter().rposition(is_ink)) else {
            continue;
        };
        (left, right) = (left.min(first), right.max(last + 1));
        (top, bottom) = (top.min(y), y + 1);
        for (x, pixel) in (first..).zip(&row[first..=last]).filter(|(_, pixel)| is_ink(pixel)) {
            let ink = u64::from(pixel.abs_diff(ground));
            sum += ink;
            sums = [sums[0] + ink * x as u64, sums[1] + ink * y as u64];
        }
    }
    let share = |at: f64, of: usize| (at / of as f64) as f32;
    let mass = [0, 1].map(|axis| sums[axis] as f64 / sum.max(1) as f64);
    // The first pixel's own centre is 0, as for the mass.
    let middle = [(left + right) as f64 / 2.0 - 0.5, (top + bottom) as f64 / 2.0 - 0.5];
    Some(Seen {
        side: share((right - left) as f64, width).max(share((bottom - top) as f64, height)),
        mass: [share(mass[0], width), share(mass[1], height)],
        middle: [share(middle[0], width), share(middle[1], height)],
        ink: strongest,
    })
}

/// Numbers in order, with what a form wants to know of them.
struct Spread(Vec<f32>);

impl Spread {
    fn of(values: impl Iterator<Item = f32>) -> Spread {
        let mut values: Vec<f32> = values.collect();
        values.sort_by(f32::total_cmp);
        Spread(values)
    }

    fn at(&self, share: f32) -> f32 {
        self.0.get(((self.0.len().max(1) - 1) as f32 * share).round() as usize).copied().unwrap_or_default()
    }

    /// How far all but a few lie apart.
    fn width(&self) -> f32 {
        self.at(0.99) - self.at(0.01)
    }

    /// From where to where they go if they lie close together, and `more` on either side; else 0 to 1.
    fn range(&self, more: f32) -> [f32; 2] {
        if self.width() > TIGHT { [0.0, 1.0] } else { [self.at(0.0) - more, self.at(1.0) + more] }
    }
}

impl Form {
    /// The form of a set's pictures; none where they have several channels or are signals or texts.
    ///
    /// # Errors
    ///
    /// As [`Pixels::get`](crate::data::Pixels::get).
    pub fn of(data: &Dataset) -> Result<Option<Form>> {
        let pictures = matches!(data.encoding, Encoding::Ink | Encoding::Picture);
        if data.channels != 1 || !pictures || data.is_empty() {
            return Ok(None);
        }
        let count = data.len().min(LOOKED_AT);
        let at = |i: usize| data.image((i as u64 * data.len() as u64 / count as u64) as usize);
        let pictures = (0..count).into_par_iter().map(at);
        let border = |picture: Cow<'_, [u8]>| border_median(&picture, data.width);
        let borders: Vec<u8> = pictures.clone().map(|picture| picture.map(border)).collect::<Result<_>>()?;
        let mut levels = [0usize; 256];
        borders.iter().for_each(|&border| levels[usize::from(border)] += 1);
        // Of as many the darker one.
        let ground = (0..=255u8).rev().max_by_key(|&level| levels[usize::from(level)]).unwrap_or_default();
        let all = pictures.map(|picture| Ok(seen(&picture?, data.width, ground)));
        let all: Vec<Option<Seen>> = all.collect::<Result<_>>()?;
        let all: Vec<Seen> = all.into_iter().flatten().collect();
        let blank = all.len() < count;
        let side = Spread::of(all.iter().map(|seen| seen.side));
        let [mass, middle] = [|seen: &Seen| seen.mass, |seen: &Seen| seen.middle]
            .map(|place| [0, 1].map(|axis| Spread::of(all.iter().map(|seen| place(seen)[axis]))));
        let wide = |place: &[Spread; 2]| place[0].width().max(place[1].width());
        let by_mass = wide(&mass) <= wide(&middle);
        let place = if by_mass { mass } else { middle };
        // Fewer pictures say less of those that are to come.
        let more = TIGHT / 2.0 + 1.0 / (all.len().max(1) as f32).sqrt();
        let near = borders.iter().filter(|border| border.abs_diff(ground) < NEAR).count();
        let one_form = side.width() <= TIGHT || wide(&place) <= TIGHT;
        let drawn = match data.encoding {
            Encoding::Ink => 2 * near >= count,
            _ => 10 * near >= 9 * count && one_form,
        };
        let [least, most] =
            [borders.iter().min(), borders.iter().max()].map(|border| border.map_or(0, |b| *b));
        let inks = Spread::of(all.iter().map(|seen| f32::from(seen.ink)));
        Ok(Some(Form {
            drawn: drawn && !all.is_empty(),
            ground,
            ink: inks.at(0.5) as u8,
            border: [least.saturating_sub(NEAR / 4), most.saturating_add(NEAR / 4)],
            side: side.at(0.5),
            sides: side.range(more),
            by_mass,
            place: [place[0].at(0.5), place[1].at(0.5)],
            places: if wide(&place) <= TIGHT {
                [0, 1].map(|axis| place[axis].range(more))
            } else {
                [[0.0, 1.0]; 2]
            },
            blank,
        }))
    }

    /// Whether a picture of the set's size has this form already. One without any ink has it if the set has such.
    pub(super) fn has(&self, picture: &GrayImage) -> bool {
        let within = |[low, high]: [f32; 2], value: f32| (low..=high).contains(&value);
        if !(self.border[0]..=self.border[1])
            .contains(&border_median(picture.as_raw(), picture.width() as usize))
        {
            return false;
        }
        let Some(seen) = seen(picture.as_raw(), picture.width() as usize, self.ground) else {
            return self.blank;
        };
        let place = if self.by_mass { seen.mass } else { seen.middle };
        // Half a pixel of the numbers' own inexactness is none.
        within(self.sides, seen.side - 1e-4)
            && [0, 1].iter().all(|&axis| within(self.places[axis], place[axis]))
    }
}
