//! A line of writing, brought to the height of the digits that a network was trained on.

use image::{
    GrayImage,
    imageops::{self, FilterType},
};

use super::file::{MAX_SIDE, flat_grey, open};
use super::grey::Grey;
use super::ink::{Ink, Wanted, bounding_box, find, stretch};
use crate::error::{Error, Result};

/// The rows to bring a line of handwriting to with [`prepare_line`], for a network that was trained on digits of 20:
/// digits that touch make one piece, which is higher than each of them, since none stands on the line exactly.
pub const LINE_HEIGHT: usize = 23;

/// A line of writing on black, and how it was brought there.
#[derive(Clone, Debug, PartialEq)]
pub struct Writing {
    /// The picture that a network reads.
    pub picture: Grey,
    /// The picture was dark on light and was inverted.
    pub inverted: bool,
    /// Width and height of the picture in the file, in pixels, as it is to be looked at.
    pub size: [u32; 2],
    /// The column and row of the file where the ink begins.
    pub ink: [u32; 2],
    /// The column and row of `picture` where the ink begins.
    pub origin: [u32; 2],
    /// Pixels of `picture` for each pixel of the file, in columns and rows.
    pub scale: [f32; 2],
}

impl Writing {
    /// A box of `picture` (left, top, right, bottom; the last two exclusive) in the pixels of the file.
    pub fn original(&self, bounds: [u32; 4]) -> [u32; 4] {
        std::array::from_fn(|i| {
            let axis = i % 2;
            let inside = (bounds[i] as f32 - self.origin[axis] as f32) / self.scale[axis];
            // Outwards, so that no ink is cut off; the cast saturates.
            let inside = if i < 2 { (inside + 1e-3).floor() } else { (inside - 1e-3).ceil() };
            ((self.ink[axis] as f32 + inside) as u32).min(self.size[axis])
        })
    }
}

/// Decodes a picture of one line of writing and makes it fit for a network that was trained on digits of
/// `digit_height` rows: white ink on black, scaled so that the writing is as high, with at least `margin` pixels of
/// ground on every side.
///
/// `bytes` is a file of a picture and `name` what errors call it. Polarity and contrast are treated as by
/// [`prepare`](super::prepare). The height of the writing is the median over its pieces, which columns
/// without ink divide, each weighted by its columns; pieces less than half as high as the highest, such as dashes and
/// specks, do not count.
/// Rows and columns of the result are multiples of 4, so that two poolings by 2 lose none, and at least `least`.
///
/// # Errors
///
/// [`Error::Data`] as by [`prepare`](super::prepare), and when the line would be longer than 16384 pixels;
/// [`Error::Settings`] when `digit_height` is not 1 to 256, or `margin` or `least` is more.
pub fn prepare_line(
    bytes: &[u8],
    name: &str,
    digit_height: usize,
    margin: usize,
    least: usize,
) -> Result<Writing> {
    if digit_height == 0 || [digit_height, margin, least].iter().any(|&size| size > 256) {
        return Err(Error::Settings(format!(
            "a line cannot be brought to {digit_height} rows with a margin of {margin} in {least} rows, expected at most 256"
        )));
    }
    let sides = [digit_height, margin, least].map(|size| size as u32);
    open(bytes)
        .and_then(flat_grey)
        .and_then(|picture| line(picture, sides))
        .map_err(|message| Error::Data { path: name.to_owned(), message })
}

/// Scales a line of writing and gives it its ground; the sizes are those of [`prepare_line`], the picture has at
/// least one pixel.
fn line(picture: GrayImage, [digit_height, margin, least]: [u32; 3]) -> Result<Writing, String> {
    let size = picture.dimensions();
    let Ink { picture, factor, inverted, .. } = find(&picture, Wanted::Line)?;
    let [left, top, ink_width, ink_height] = bounding_box(&picture);
    let ink = imageops::crop_imm(&picture, left, top, ink_width, ink_height).to_image();
    let scale = f64::from(digit_height) / f64::from(writing_height(&ink));
    let scaled = |side: u32| (f64::from(side) * scale).round().max(1.0);
    let (width, height) = (scaled(ink_width), scaled(ink_height));
    let longest = f64::from(MAX_SIDE - 2 * 256);
    if width > longest || height > longest {
        return Err(format!(
            "a line of {ink_width}x{ink_height} pixels found, which would be {width}x{height} with digits of {digit_height} rows, expected at most {longest}"
        ));
    }
    let (width, height) = (width as u32, height as u32);
    let mut writing = imageops::resize(&ink, width, height, FilterType::Triangle);
    // A thin line averages to a faint one; MNIST's lines are white whatever the size of the sheet.
    let peak = writing.iter().copied().max().unwrap_or(0);
    if peak == 0 {
        return Err("no ink found: what there is vanishes when it is scaled down".to_owned());
    }
    stretch(&mut writing, peak, 0);
    let whole = |side: u32| (side + 2 * margin).max(least).next_multiple_of(4);
    let mut field = GrayImage::new(whole(width), whole(height));
    let origin = [(field.width() - width) / 2, (field.height() - height) / 2];
    imageops::replace(&mut field, &writing, i64::from(origin[0]), i64::from(origin[1]));
    Ok(Writing {
        picture: Grey {
            height: field.height() as usize,
            width: field.width() as usize,
            pixels: field.into_raw(),
        },
        inverted,
        size: [size.0, size.1],
        ink: [left * factor, top * factor],
        origin,
        scale: [(width, ink_width), (height, ink_height)].map(|(to, of)| to as f32 / (of * factor) as f32),
    })
}

/// The height of the pieces that columns without ink divide a line into: the median over the columns of those at
/// least half as high as the highest.
fn writing_height(ink: &GrayImage) -> u32 {
    // Height and columns of each piece.
    let mut pieces: Vec<(u32, u32)> = Vec::new();
    let mut piece: Option<[u32; 3]> = None;
    for x in 0..=ink.width() {
        let mut rows = (0..ink.height()).filter(|&y| x < ink.width() && ink.get_pixel(x, y).0[0] > 0);
        match (rows.next(), piece) {
            (Some(first), _) => {
                let last = rows.next_back().unwrap_or(first);
                let [top, bottom, columns] = piece.unwrap_or([first, last, 0]);
                piece = Some([top.min(first), bottom.max(last), columns + 1]);
            }
            (None, Some([top, bottom, columns])) => {
                pieces.push((bottom - top + 1, columns));
                piece = None;
            }
            (None, None) => {}
        }
    }
    let highest = pieces.iter().map(|&(height, _)| height).max().unwrap_or(ink.height());
    pieces.retain(|&(height, _)| 2 * height >= highest);
    pieces.sort_unstable();
    let total: u32 = pieces.iter().map(|&(_, columns)| columns).sum();
    let mut below = 0;
    for (height, columns) in pieces {
        below += columns;
        if 2 * below >= total {
            return height;
        }
    }
    highest
}
