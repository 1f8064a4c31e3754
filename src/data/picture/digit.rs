//! One digit, brought into MNIST's form.

use image::{
    GrayImage,
    imageops::{self, FilterType},
};

use super::file::{MAX_SIDE, grey_on_white, open};
use super::grey::Grey;
use super::ink::{border_median, bounding_box, centre_of_mass, stretch, white_on_black};
use super::preparation::{Preparation, field};
use crate::error::{Error, Result};

/// Decodes a picture and brings it into MNIST's form: `height * width` grey bytes, row-major, white
/// ink on black.
///
/// `bytes` is a PNG, JPEG or PNM file and `name` what errors call it. Transparent parts are taken
/// for white, and a camera's note on which side is up is heeded. Then:
///
/// 1. The border's median is the background; if it is brighter than 127, the picture is inverted.
/// 2. The background is subtracted, what is weaker than an eighth of the strongest ink is dropped,
///    and the rest is stretched to 255.
/// 3. The ink's bounding box is scaled, keeping its proportions, into 20/28 of height and width.
/// 4. The result is placed with its centre of mass on row `height / 2` and column `width / 2`, counted
///    from 0, as in MNIST, or as near to them as no ink is lost.
///
/// A picture of exactly `height`×`width` pixels whose background is black already (a median of 0)
/// and whose ink fits 20/28 of height and width is taken bit for bit, so that a digit of MNIST that
/// was saved as a PNG comes back as it was.
///
/// # Errors
///
/// [`Error::Data`] when the file is not a picture, is damaged, has more than 16384 pixels in a row
/// or column, needs more than 512 MiB, or shows no ink; [`Error::Settings`] when `height` or `width`
/// is not 1 to 16384.
pub fn prepare(bytes: &[u8], name: &str, height: usize, width: usize) -> Result<(Vec<u8>, Preparation)> {
    let (columns, rows) = field(height, width)?;
    open(bytes)
        .and_then(|picture| normalize(grey_on_white(picture)?, columns, rows))
        .map_err(|message| Error::Data { path: name.to_owned(), message })
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
        .and_then(|grey| normalize(grey, columns, rows))
        .map_err(|message| Error::Data { path: "the picture".to_owned(), message })
}

/// Does what was done to MNIST; the picture has at least one pixel.
pub(super) fn normalize(
    mut picture: GrayImage,
    width: u32,
    height: u32,
) -> Result<(Vec<u8>, Preparation), String> {
    let cropped_from = picture.dimensions();
    // LeNet's field of 28 leaves the ink 20; other fields keep that proportion.
    let part = |side: u32| ((side * 20 + 14) / 28).max(1);
    let (box_width, box_height) = (part(width), part(height));

    let original = (cropped_from == (width, height) && border_median(&picture) == 0).then(|| picture.clone());
    let inverted = white_on_black(&mut picture)?;
    let ink @ [left, top, ink_width, ink_height] = bounding_box(&picture);

    if let Some(original) = original
        && ink_width <= box_width
        && ink_height <= box_height
    {
        let steps =
            Preparation { unchanged: true, inverted: false, cropped_from, ink, scale: 1.0, whole: false };
        return Ok((original.into_raw(), steps));
    }

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

    let (x, y) = centre_of_mass(&digit);
    let place = |side: u32, digit_side: u32, centre: f64| {
        // In MNIST the mass lies on pixel 14 of 0 to 27, half a pixel beyond the geometric middle;
        // a cast to u32 saturates at zero, so the digit stays inside on both sides.
        ((f64::from(side) / 2.0 - centre).round() as u32).min(side - digit_side)
    };
    let mut field = GrayImage::new(width, height);
    let at = (place(width, new_width, x), place(height, new_height, y));
    imageops::replace(&mut field, &digit, i64::from(at.0), i64::from(at.1));
    let steps =
        Preparation { unchanged: false, inverted, cropped_from, ink, scale: scale as f32, whole: false };
    Ok((field.into_raw(), steps))
}
