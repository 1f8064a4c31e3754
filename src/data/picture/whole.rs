//! A whole picture, grey or in colour, cropped about its middle and scaled.

use image::{DynamicImage, imageops::FilterType};

use super::file::{flat_colour, flat_grey, open};
use super::grey::Grey;
use super::preparation::{Preparation, field};
use crate::data::dataset::planes;
use crate::error::{Error, Result};

/// Decodes a picture and brings it whole to the form of a network that was trained on pictures as they are: one
/// grey plane or three of red, green and blue, `channels * height * width` bytes.
///
/// `bytes` is a file of a picture and `name` what errors call it. Transparent parts are taken for white, or
/// for black where the rest is light, and a camera's note on which side is up is heeded. The picture is cropped about its middle to the proportion of
/// `width` to `height`, and scaled; one of that size already is taken bit for bit.
///
/// # Errors
///
/// [`Error::Data`] when the file is not a picture, is damaged, has more than 16384 pixels in a row or column, or
/// needs more than 512 MiB; [`Error::Settings`] when `channels` is neither 1 nor 3, or `height` or `width` is not
/// 1 to 16384.
pub fn fit(
    bytes: &[u8],
    name: &str,
    channels: usize,
    height: usize,
    width: usize,
) -> Result<(Vec<u8>, Preparation)> {
    let (columns, rows) = field(height, width)?;
    if channels != 1 && channels != 3 {
        return Err(Error::Settings(format!(
            "a picture cannot be brought to {channels} channels, expected 1 or 3"
        )));
    }
    let picture = open(bytes).map_err(|message| Error::Data { path: name.to_owned(), message })?;
    if channels == 1 {
        let grey = flat_grey(picture).map_err(|message| Error::Data { path: name.to_owned(), message })?;
        let (pixels, steps) = scaled(DynamicImage::ImageLuma8(grey), columns, rows);
        return Ok((pixels.into_luma8().into_raw(), steps));
    }
    let (pixels, steps) = scaled(DynamicImage::ImageRgb8(flat_colour(picture)), columns, rows);
    Ok((planes(&pixels.into_rgb8(), height * width, 3), steps))
}

/// Decodes a picture and makes it small enough to be shown in `height` rows and `width` columns, in its proportions.
///
/// # Errors
///
/// [`Error::Data`] as by [`fit`]; [`Error::Settings`] when `height` or `width` is not 1 to 16384.
pub fn thumbnail(bytes: &[u8], name: &str, height: usize, width: usize) -> Result<Grey> {
    let (columns, rows) = field(height, width)?;
    let grey = open(bytes).and_then(flat_grey);
    let grey = grey.map_err(|message| Error::Data { path: name.to_owned(), message })?;
    let shown = DynamicImage::ImageLuma8(grey).resize(columns, rows, FilterType::Triangle).into_luma8();
    Ok(Grey { height: shown.height() as usize, width: shown.width() as usize, pixels: shown.into_raw() })
}

/// Decodes a picture of a data set: its pixels, height and width; one plane if it is grey, else three.
///
/// With `size`, a height and a width, it is brought to that as by [`fit`].
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn read(
    bytes: &[u8],
    size: Option<[usize; 2]>,
) -> Result<(Vec<u8>, usize, usize), String> {
    let mut picture = flat_colour(open(bytes)?);
    if let Some([height, width]) = size {
        let (columns, rows) = field(height, width).map_err(|error| error.to_string())?;
        picture = scaled(DynamicImage::ImageRgb8(picture), columns, rows).0.into_rgb8();
    }
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let pixels = picture.into_raw();
    let (colours, _) = pixels.as_chunks::<3>();
    let pixels = if colours.iter().all(|[red, green, blue]| red == green && green == blue) {
        colours.iter().map(|colour| colour[0]).collect()
    } else {
        planes(&pixels, height * width, 3)
    };
    Ok((pixels, height, width))
}

/// Crops a picture about its middle to the proportion of `width` to `height` and scales it to them.
fn scaled(picture: DynamicImage, width: u32, height: u32) -> (DynamicImage, Preparation) {
    let (from_width, from_height) = (picture.width(), picture.height());
    // In u64 no product of two sides overflows.
    let part = |side: u32, of: u32, to: u32, limit: u32| {
        let rounded = (u64::from(side) * u64::from(to) + u64::from(of) / 2) / u64::from(of);
        rounded.clamp(1, u64::from(limit)) as u32
    };
    let crop_width = part(from_height, height, width, from_width);
    let crop_height = part(from_width, width, height, from_height);
    let (left, top) = ((from_width - crop_width) / 2, (from_height - crop_height) / 2);
    let crop = picture.crop_imm(left, top, crop_width, crop_height);
    let steps = Preparation {
        unchanged: (from_width, from_height) == (width, height),
        inverted: false,
        cropped_from: (from_width, from_height),
        ink: [left, top, crop_width, crop_height],
        scale: (f64::from(width) / f64::from(crop_width)) as f32,
        whole: true,
        doubts: Vec::new(),
    };
    // The triangle widens with the reduction, so every pixel of the file has its share.
    let fits = (crop_width, crop_height) == (width, height);
    (if fits { crop } else { crop.resize_exact(width, height, FilterType::Triangle) }, steps)
}
