//! One digit, brought into the form of MNIST or of another set.

use image::{
    GrayImage,
    imageops::{self, FilterType},
};

use super::file::{MAX_SIDE, flat_grey, open};
use super::form::Form;
use super::grey::Grey;
use super::ink::{Ink, Wanted, bounding_box, centre_of_mass, find, stretch};
use super::preparation::{Preparation, field};
use super::whole::fit;
use crate::error::{Error, Result};

/// Decodes a picture and brings it into MNIST's form: `height * width` grey bytes, row-major, white
/// ink on black.
///
/// `bytes` is a file of a picture and `name` what errors call it. A camera's note on which side is up is heeded.
/// Then:
///
/// 1. Transparent parts become white, or black where what stands on them is light.
/// 2. Ink is what differs from the ground around it: whichever of dark and light is the narrower. The ground is what is
///    left without all that is narrow, so that shadows are part of it. Grain is averaged away, lines from edge to edge
///    are taken off, and so are the edges of the sheet and frames.
/// 3. Of the pieces that are left, those count that have a twentieth of the largest's pixels, and are not both small
///    and far from it.
/// 4. The ink's bounding box is scaled, keeping its proportions, into 20/28 of height and width.
/// 5. The result is placed with its centre of mass on row `height / 2` and column `width / 2`, counted
///    from 0, as in MNIST, or as near to them as no ink is lost.
///
/// A picture of exactly `height`×`width` pixels whose background is black already (a median of 0)
/// and whose ink fits 20/28 of height and width is taken bit for bit, so that a digit of MNIST that
/// was saved as a PNG comes back as it was. [`Form::picture`] does the same for the form of another set.
///
/// # Errors
///
/// [`Error::Data`] when the file is not a picture, is damaged, has more than 16384 pixels in a row
/// or column, needs more than 512 MiB, or shows no ink; [`Error::Settings`] when `height` or `width`
/// is not 1 to 16384.
pub fn prepare(bytes: &[u8], name: &str, height: usize, width: usize) -> Result<(Vec<u8>, Preparation)> {
    Form::default().picture(bytes, name, [1, height, width])
}

/// Brings a grey picture, such as what was drawn on a screen, into MNIST's form as [`prepare`] does.
///
/// # Errors
///
/// [`Error::Data`] when the picture's pixels are not as many as its size says, it has more than 16384 in a row or
/// column, or it shows no ink; [`Error::Settings`] as by [`prepare`].
pub fn prepare_grey(picture: Grey, height: usize, width: usize) -> Result<(Vec<u8>, Preparation)> {
    let (columns, rows) = field(height, width)?;
    let Grey { height, width, pixels } = picture;
    let found = pixels.len();
    field(height, width)
        .ok()
        .filter(|_| found == width * height)
        .and_then(|(width, height)| GrayImage::from_raw(width, height, pixels))
        .ok_or_else(|| {
            format!("{found} pixels found, expected {width}x{height}, at most {MAX_SIDE} in each direction")
        })
        .and_then(|grey| normalize(grey, &Form::default(), columns, rows))
        .map_err(|message| Error::Data { path: "the picture".to_owned(), message })
}

impl Form {
    /// Decodes a picture and brings it into this form: `channels * height * width` bytes.
    ///
    /// `bytes` is the file and `name` what errors call it. What is drawn is searched for, scaled and put in its place as
    /// by [`prepare`](super::prepare), in the set's own colours; pictures as they are, and those of several channels,
    /// are cropped and scaled by [`fit`]. A picture of the set's size that has its form is taken bit for bit.
    ///
    /// # Errors
    ///
    /// As [`prepare`](super::prepare) and [`fit`].
    pub fn picture(
        &self,
        bytes: &[u8],
        name: &str,
        [channels, height, width]: [usize; 3],
    ) -> Result<(Vec<u8>, Preparation)> {
        if channels != 1 || !self.drawn {
            return fit(bytes, name, channels, height, width);
        }
        let (columns, rows) = field(height, width)?;
        open(bytes)
            .and_then(|picture| normalize(flat_grey(picture)?, self, columns, rows))
            .map_err(|message| Error::Data { path: name.to_owned(), message })
    }
}

/// Does what was done to the pictures of a set of things on an even ground; the picture has at least one pixel.
pub(super) fn normalize(
    picture: GrayImage,
    form: &Form,
    width: u32,
    height: u32,
) -> Result<(Vec<u8>, Preparation), String> {
    let cropped_from = picture.dimensions();
    let part = |side: u32| ((side as f32 * form.side).round() as u32).clamp(1, side);
    let (box_width, box_height) = (part(width), part(height));

    if cropped_from == (width, height) && form.has(&picture) {
        let steps = Preparation {
            unchanged: true,
            inverted: false,
            cropped_from,
            ink: bounding_box(&picture),
            scale: 1.0,
            whole: false,
            doubts: Vec::new(),
        };
        return Ok((picture.into_raw(), steps));
    }

    let Ink { picture, factor, inverted, doubts } = find(&picture, Wanted::One)?;
    let [left, top, ink_width, ink_height] = bounding_box(&picture);
    let scale =
        (f64::from(box_width) / f64::from(ink_width)).min(f64::from(box_height) / f64::from(ink_height));
    let scaled = |side: u32, limit: u32| ((f64::from(side) * scale).round() as u32).clamp(1, limit);
    let (new_width, new_height) = (scaled(ink_width, box_width), scaled(ink_height, box_height));
    let crop = imageops::crop_imm(&picture, left, top, ink_width, ink_height);
    // The triangle widens with the reduction, so every pixel of the file has its share.
    let mut digit = imageops::resize(&*crop, new_width, new_height, FilterType::Triangle);
    // A thin line averages to a faint one; MNIST's lines are white whatever the size of the sheet.
    let peak = digit.iter().copied().max().unwrap_or(0);
    if peak == 0 {
        return Err("no ink found: what there is vanishes when it is scaled down".to_owned());
    }
    stretch(&mut digit, peak, 0);

    let (x, y) = if form.by_mass {
        centre_of_mass(&digit)
    } else {
        (f64::from(new_width - 1) / 2.0, f64::from(new_height - 1) / 2.0)
    };
    let place = |side: u32, at: f32, digit_side: u32, centre: f64| {
        // In MNIST the mass lies on pixel 14 of 0 to 27, half a pixel beyond the geometric middle;
        // a cast to u32 saturates at zero, so the digit stays inside on both sides.
        ((f64::from(side) * f64::from(at) - centre).round() as u32).min(side - digit_side)
    };
    let mut field = GrayImage::new(width, height);
    let at = (place(width, form.place[0], new_width, x), place(height, form.place[1], new_height, y));
    imageops::replace(&mut field, &digit, i64::from(at.0), i64::from(at.1));
    let (ground, ink) = (i32::from(form.ground), i32::from(form.ink));
    for pixel in field.iter_mut() {
        *pixel =
            (ground + (i32::from(*pixel) * (ink - ground) * 2 + 255 * (ink - ground).signum()) / 510) as u8;
    }
    let [width, height] = [(left + ink_width, left, cropped_from.0), (top + ink_height, top, cropped_from.1)]
        .map(|(end, begin, whole)| (end * factor).min(whole) - begin * factor);
    let steps = Preparation {
        unchanged: false,
        inverted: inverted != (form.ink < form.ground),
        cropped_from,
        ink: [left * factor, top * factor, width, height],
        scale: (scale / f64::from(factor)) as f32,
        whole: false,
        doubts,
    };
    Ok((field.into_raw(), steps))
}
