//! One picture from a PNG, JPEG or PNM file, brought into the form the network was trained on.
//!
//! MNIST's digits are white ink on black, scaled to fit a box of 20×20 pixels and placed by their
//! centre of mass in a field of 28×28. A photograph or scan is dark ink on light paper, of any size
//! and anywhere on the sheet; [`prepare`] repeats what was done to MNIST. A network that was trained on
//! pictures as they are, colour ones among them, is given the whole picture: [`fit`].

use std::{fmt, io::Cursor};

use image::{
    DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage,
    imageops::{self, FilterType},
};

use crate::error::{Error, Result};

/// The widest and highest picture that is decoded, in pixels.
pub(super) const MAX_SIDE: u32 = 16384;

/// The most memory, in bytes, that decoding may take: 512 MiB.
const MAX_ALLOCATION: u64 = 512 << 20;

/// A border brighter than this is paper, not the black of MNIST.
const PAPER: u8 = 127;

/// A picture whose strongest ink differs by less than this from its background is blank.
const MIN_CONTRAST: u8 = 24;

/// Ink weaker than this part of the strongest is grain of the paper or a trace of compression.
const GRAIN: u8 = 8;

/// Paler pixels are the soft edge of ink, not ink, where boxes are drawn around it.
pub const INK: u8 = 64;

/// The rows to bring a line of handwriting to with [`prepare_line`], for a network that was trained on digits of 20:
/// digits that touch make one piece, which is higher than each of them, since none stands on the line exactly.
pub const LINE_HEIGHT: usize = 23;

/// A grey picture of any size.
#[derive(Clone, PartialEq, Eq)]
pub struct Grey {
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
    /// `[height, width]` row-major, 0 for black to 255 for white.
    pub pixels: Vec<u8>,
}

impl fmt::Debug for Grey {
    /// Shows the size only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grey {{ {}x{} }}", self.width, self.height)
    }
}

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

/// The steps that were taken to prepare a picture, for display.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// The picture had the right form already and was taken bit for bit; nothing else was done.
    pub unchanged: bool,
    /// The picture was dark on light and was inverted.
    pub inverted: bool,
    /// Width and height of the picture in the file, in pixels, as it is to be looked at.
    pub cropped_from: (u32, u32),
    /// The ink's bounding box in that picture: left, top, width, height in pixels.
    pub ink: [u32; 4],
    /// By how much the ink was scaled: output pixels for each pixel of the file.
    pub scale: f32,
    /// The picture itself was cropped about its middle and scaled, by [`fit`]; `ink` is what was kept of it.
    pub whole: bool,
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.cropped_from;
        if self.unchanged {
            return write!(f, "{width}x{height} pixels, taken as they are");
        }
        let [left, top, ink_width, ink_height] = self.ink;
        let inverted = if self.inverted { "inverted, " } else { "" };
        let centred = if self.whole { "" } else { ", centred" };
        write!(
            f,
            "{width}x{height} pixels, {inverted}cropped to {ink_width}x{ink_height} at {left},{top}, scaled by {:.3}{centred}",
            self.scale
        )
    }
}

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

/// Decodes a picture of one line of writing and makes it fit for a network that was trained on digits of
/// `digit_height` rows: white ink on black, scaled so that the writing is as high, with at least `margin` pixels of
/// ground on every side.
///
/// `bytes` is a PNG, JPEG or PNM file and `name` what errors call it. Polarity and contrast are treated as by
/// [`prepare`]. The height of the writing is the median over its pieces, which columns without ink divide, each
/// weighted by its columns; pieces less than half as high as the highest, such as dashes and specks, do not count.
/// Rows and columns of the result are multiples of 4, so that two poolings by 2 lose none, and at least `least`.
///
/// # Errors
///
/// [`Error::Data`] as by [`prepare`], and when the line would be longer than 16384 pixels; [`Error::Settings`] when
/// `digit_height` is not 1 to 256, or `margin` or `least` is more.
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
        .and_then(grey_on_white)
        .and_then(|picture| line(picture, sides))
        .map_err(|message| Error::Data { path: name.to_owned(), message })
}

/// Decodes a picture and brings it whole to the form of a network that was trained on pictures as they are: one
/// grey plane or three of red, green and blue, `channels * height * width` bytes.
///
/// `bytes` is a PNG, JPEG or PNM file and `name` what errors call it. Transparent parts are taken for white, and
/// a camera's note on which side is up is heeded. The picture is cropped about its middle to the proportion of
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
        let grey =
            grey_on_white(picture).map_err(|message| Error::Data { path: name.to_owned(), message })?;
        let (pixels, steps) = scaled(DynamicImage::ImageLuma8(grey), columns, rows);
        return Ok((pixels.into_luma8().into_raw(), steps));
    }
    let (pixels, steps) = scaled(DynamicImage::ImageRgb8(colour_on_white(picture)), columns, rows);
    Ok((super::planes(&pixels.into_rgb8(), height * width, 3), steps))
}

/// Decodes a picture of a data set: its pixels, height and width; one plane if it is grey, else three.
///
/// With `size`, a height and a width, it is brought to that as by [`fit`].
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read(bytes: &[u8], size: Option<[usize; 2]>) -> Result<(Vec<u8>, usize, usize), String> {
    let mut picture = colour_on_white(open(bytes)?);
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
        super::planes(&pixels, height * width, 3)
    };
    Ok((pixels, height, width))
}

/// Width and height of the target, checked.
fn field(height: usize, width: usize) -> Result<(u32, u32)> {
    let side = |size: usize| u32::try_from(size).ok().filter(|size| (1..=MAX_SIDE).contains(size));
    match (side(width), side(height)) {
        (Some(columns), Some(rows)) => Ok((columns, rows)),
        _ => Err(Error::Settings(format!(
            "a picture cannot be brought to {width}x{height} pixels, expected 1 to {MAX_SIDE} in each direction"
        ))),
    }
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
    };
    // The triangle widens with the reduction, so every pixel of the file has its share.
    let fits = (crop_width, crop_height) == (width, height);
    (if fits { crop } else { crop.resize_exact(width, height, FilterType::Triangle) }, steps)
}

/// Decodes a file, upright.
fn open(bytes: &[u8]) -> Result<DynamicImage, String> {
    let explain = |error: ImageError| match error {
        ImageError::Limits(_) => {
            format!(
                "a picture that is too large found, expected at most {MAX_SIDE}x{MAX_SIDE} pixels in {} MiB",
                MAX_ALLOCATION >> 20
            )
        }
        other => format!("the picture cannot be decoded: {other}"),
    };
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err(format!(
            "{} bytes of an unknown kind found, expected a PNG, JPEG or PNM file",
            bytes.len()
        ));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(explain)?;
    // `ImageReader::into_decoder` leaves the buffer of the result to its caller to limit.
    limits.reserve(decoder.total_bytes()).map_err(explain)?;
    decoder.set_limits(limits).map_err(explain)?;
    let orientation = decoder.orientation().map_err(explain)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(explain)?;
    picture.apply_orientation(orientation);
    if picture.width() == 0 || picture.height() == 0 {
        return Err("no pixels found".to_owned());
    }
    Ok(picture)
}

/// A channel under `alpha`, on white.
fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// A picture as grey, on white.
fn grey_on_white(picture: DynamicImage) -> Result<GrayImage, String> {
    if !picture.color().has_alpha() {
        return Ok(picture.into_luma8());
    }
    let layered = picture.into_luma_alpha8();
    let pixels = layered.pixels().map(|pixel| on_white(pixel.0[0], pixel.0[1]));
    GrayImage::from_raw(layered.width(), layered.height(), pixels.collect())
        .ok_or_else(|| "the picture's size contradicts itself".to_owned())
}

/// A picture as red, green and blue, on white.
fn colour_on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let layered = picture.into_rgba8();
    RgbImage::from_fn(layered.width(), layered.height(), |x, y| {
        let [red, green, blue, alpha] = layered.get_pixel(x, y).0;
        image::Rgb([red, green, blue].map(|value| on_white(value, alpha)))
    })
}

/// Does what was done to MNIST; the picture has at least one pixel.
fn normalize(mut picture: GrayImage, width: u32, height: u32) -> Result<(Vec<u8>, Preparation), String> {
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

/// Makes the ink white and the ground black, and says whether it was the other way round.
fn white_on_black(picture: &mut GrayImage) -> Result<bool, String> {
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

/// Scales a line of writing and gives it its ground; the sizes are those of [`prepare_line`], the picture has at
/// least one pixel.
fn line(mut picture: GrayImage, [digit_height, margin, least]: [u32; 3]) -> Result<Writing, String> {
    let size = picture.dimensions();
    let inverted = white_on_black(&mut picture)?;
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
        ink: [left, top],
        origin,
        scale: [width as f32 / ink_width as f32, height as f32 / ink_height as f32],
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

/// The box (left, top, right, bottom; the last two exclusive) of the pixels of [`INK`] and brighter inside a box;
/// `pixels` has `width` columns and holds the box.
pub(crate) fn ink_box(pixels: &[u8], width: usize, within: [u32; 4]) -> Option<[u32; 4]> {
    let mut ink: Option<[u32; 4]> = None;
    for y in within[1]..within[3] {
        let row = &pixels[y as usize * width..][..width];
        for x in (within[0]..within[2]).filter(|&x| row[x as usize] >= INK) {
            let [left, top, right, bottom] = ink.unwrap_or([x, y, x, y]);
            ink = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
        }
    }
    ink
}

/// The median of the outermost pixels, each counted once.
fn border_median(picture: &GrayImage) -> u8 {
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
fn stretch(picture: &mut GrayImage, peak: u8, floor: u8) {
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
fn bounding_box(picture: &GrayImage) -> [u32; 4] {
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
fn centre_of_mass(picture: &GrayImage) -> (f64, f64) {
    let (mut mass, mut x_sum, mut y_sum) = (0.0, 0.0, 0.0);
    for (x, y, pixel) in picture.enumerate_pixels() {
        let ink = f64::from(pixel.0[0]);
        mass += ink;
        x_sum += ink * f64::from(x);
        y_sum += ink * f64::from(y);
    }
    (x_sum / mass, y_sum / mass)
}

/// A grey picture as lines of text, two columns a pixel, from ' ' for black to '█' for white.
///
/// `pixels` is row-major with `width` pixels a row; a last row that is not full is shown as far as
/// it goes, and a `width` of 0 gives no text.
pub fn show(pixels: &[u8], width: usize) -> String {
    const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
    if width == 0 {
        return String::new();
    }
    let mut text = String::new();
    for row in pixels.chunks(width) {
        text.extend(row.iter().map(|&value| SHADES[usize::from(value) * SHADES.len() / 256]));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Luma, LumaA, Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_drawing_is_treated_as_the_same_picture_in_a_file() {
        let drawn = seven(200, 160, 30.0, 20.0, 100.0);
        let grey = Grey { height: 160, width: 200, pixels: drawn.clone().into_raw() };
        let file = prepare(&encode(drawn, ImageFormat::Png), "it", 28, 28).unwrap();
        assert_eq!(prepare_grey(grey.clone(), 28, 28).unwrap(), file);
        let wrong = |grey| prepare_grey(grey, 28, 28).unwrap_err().to_string();
        assert!(wrong(Grey { width: 199, ..grey.clone() }).contains("expected 199x160"));
        assert!(wrong(Grey { pixels: vec![0; 32_000], ..grey }).contains("no ink"));
        assert!(wrong(Grey { height: 0, width: 0, pixels: vec![] }).contains("expected 0x0"));
    }

    /// A seven of white ink on black: a bar of the given thickness and a slanted stroke.
    fn seven(width: u32, height: u32, left: f32, top: f32, size: f32) -> GrayImage {
        GrayImage::from_fn(width, height, |x, y| {
            let (x, y) = ((x as f32 - left) / size, (y as f32 - top) / size);
            let bar = (0.0..0.7).contains(&x) && (0.0..0.15).contains(&y);
            let stroke = (0.0..1.0).contains(&y) && (x - (0.6 - 0.4 * y)).abs() < 0.08;
            Luma([if bar || stroke { 255 } else { 0 }])
        })
    }

    fn prepared(picture: impl Into<DynamicImage>) -> (Vec<u8>, Preparation) {
        prepare(&encode(picture, ImageFormat::Png), "p", 28, 28).unwrap()
    }

    fn refused(bytes: &[u8]) -> String {
        let message = prepare(bytes, "p.png", 28, 28).unwrap_err().to_string();
        message.strip_prefix("p.png: ").unwrap().to_owned()
    }

    fn centre(pixels: &[u8]) -> (f64, f64) {
        centre_of_mass(&GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap())
    }

    #[test]
    fn black_on_white_equals_white_on_black() {
        let light = seven(300, 200, 150.0, 40.0, 110.0);
        let mut dark = light.clone();
        imageops::invert(&mut dark);
        // Grey paper and a worn pen: the levels have to be stretched.
        let worn = GrayImage::from_fn(300, 200, |x, y| {
            Luma([200 - (f32::from(light.get_pixel(x, y).0[0]) * 0.5) as u8])
        });
        let (expected, steps) = prepared(light);
        assert!(!steps.inverted && !steps.unchanged);
        for other in [dark, worn] {
            let (pixels, steps) = prepared(other);
            assert!(steps.inverted);
            for (a, b) in pixels.iter().zip(&expected) {
                assert!(a.abs_diff(*b) <= 3, "{a} {b}");
            }
        }
        assert_eq!(expected.iter().max(), Some(&255));
    }

    #[test]
    fn the_ink_is_scaled_to_the_box_and_centred_by_mass() {
        for (left, top, size) in [(5.0, 3.0, 180.0), (400.0, 290.0, 60.0), (3.0, 200.0, 190.0)] {
            let (pixels, steps) = prepared(seven(500, 400, left, top, size));
            let (x, y) = centre(&pixels);
            assert!((x - 14.0).abs() < 0.6 && (y - 14.0).abs() < 0.6, "{x} {y}");
            let [_, _, width, height] = bounding_box(&GrayImage::from_raw(28, 28, pixels).unwrap());
            assert_eq!(width.max(height), 20);
            assert_eq!(steps.cropped_from, (500, 400));
            assert!((steps.scale * size - 20.0).abs() < 0.6, "{steps:?}");
        }
    }

    #[test]
    fn other_targets_keep_the_proportion() {
        let bytes = encode(seven(90, 90, 10.0, 10.0, 60.0), ImageFormat::Png);
        for (height, width) in [(32, 32), (14, 28), (1, 1), (3, 200)] {
            let (pixels, _) = prepare(&bytes, "p", height, width).unwrap();
            assert_eq!(pixels.len(), height * width);
            assert!(pixels.contains(&255));
        }
        for (height, width) in [(0, 28), (28, 0), (28, 16385), (usize::MAX, 1)] {
            assert_eq!(
                prepare(&bytes, "p", height, width).unwrap_err().to_string(),
                format!(
                    "a picture cannot be brought to {width}x{height} pixels, expected 1 to 16384 in each direction"
                )
            );
        }
    }

    #[test]
    fn digits_of_mnist_pass_bit_for_bit() {
        let test = crate::data::mnist().unwrap().test;
        for i in 0..test.len() {
            let picture = GrayImage::from_raw(28, 28, test.image(i).to_vec()).unwrap();
            let (pixels, steps) = normalize(picture, 28, 28).unwrap();
            assert!(steps.unchanged, "{i}: {steps:?}");
            assert_eq!(pixels, test.image(i), "{i}");
        }
        for i in 0..20 {
            let grey = GrayImage::from_raw(28, 28, test.image(i).to_vec()).unwrap();
            let colour = DynamicImage::from(grey.clone()).into_rgb8();
            for bytes in [
                encode(grey.clone(), ImageFormat::Png),
                encode(grey, ImageFormat::Pnm),
                encode(colour, ImageFormat::Png),
            ] {
                let (pixels, steps) = prepare(&bytes, "p", 28, 28).unwrap();
                assert!(steps.unchanged);
                assert_eq!(pixels, test.image(i), "{i}");
            }
        }
    }

    #[test]
    fn a_line_is_scaled_to_the_height_of_its_digits() {
        // Two sevens of 60 pixels, one of them lower, a dash and a speck.
        let mut sheet = seven(400, 300, 50.0, 100.0, 60.0);
        for (x, y, pixel) in seven(400, 300, 140.0, 115.0, 60.0).enumerate_pixels() {
            let here = sheet.get_pixel_mut(x, y);
            here.0[0] = here.0[0].max(pixel.0[0]);
        }
        for x in 230..270 {
            (135..139).for_each(|y| sheet.put_pixel(x, y, Luma([255])));
        }
        (300..302).for_each(|x| sheet.put_pixel(x, 140, Luma([255])));
        let bytes = encode(sheet.clone(), ImageFormat::Png);
        let writing = prepare_line(&bytes, "p", 20, 20, 36).unwrap();
        assert!(!writing.inverted);
        assert_eq!((writing.size, writing.ink), ([400, 300], [50, 100]));
        assert!((writing.scale[0] - 1.0 / 3.0).abs() < 0.01 && (writing.scale[1] - 1.0 / 3.0).abs() < 0.01);
        let Grey { height, width, pixels } = &writing.picture;
        assert_eq!((height % 4, width % 4, pixels.len()), (0, 0, height * width));
        let ink @ [left, top, right, bottom] =
            ink_box(pixels, *width, [0, 0, *width as u32, *height as u32]).unwrap();
        assert!(left >= 20 && top >= 20 && right + 20 <= *width as u32 && bottom + 20 <= *height as u32);
        // The first seven, there and back.
        let first = ink_box(pixels, *width, [left, top, left + 22, bottom]).unwrap();
        for (found, expected) in writing.original(first).into_iter().zip([50, 100, 92, 160]) {
            assert!(found.abs_diff(expected) <= 3, "{found} {expected}");
        }
        // The speck has faded.
        for (found, expected) in writing.original(ink).into_iter().zip([50, 100, 270, 175]) {
            assert!(found.abs_diff(expected) <= 3, "{found} {expected}");
        }
        // What lies outside of the file is cut off.
        let [left, _, right, bottom] = writing.original([0, 0, u32::MAX, u32::MAX]);
        assert_eq!([left, right, bottom], [0, 400, 300]);
        // Dark on light is the same, and the least height is kept.
        imageops::invert(&mut sheet);
        let paper = prepare_line(&encode(sheet, ImageFormat::Png), "p", 20, 20, 100).unwrap();
        assert_eq!((paper.inverted, paper.picture.height, paper.scale), (true, 100, writing.scale));
    }

    #[test]
    fn a_line_that_cannot_be_is_refused() {
        let line = |picture: GrayImage| prepare_line(&encode(picture, ImageFormat::Png), "p", 20, 20, 36);
        let blank = line(GrayImage::from_pixel(40, 40, Luma([255]))).unwrap_err().to_string();
        assert!(blank.starts_with("p: no ink found"), "{blank}");
        let long = GrayImage::from_fn(2000, 3, |_, y| Luma([if y == 1 { 0 } else { 255 }]));
        assert_eq!(
            line(long).unwrap_err().to_string(),
            "p: a line of 2000x1 pixels found, which would be 40000x20 with digits of 20 rows, expected at most 15872"
        );
        let bytes = encode(seven(60, 60, 5.0, 5.0, 50.0), ImageFormat::Png);
        for [digits, margin, least] in [[0, 20, 36], [257, 20, 36], [20, 257, 36], [20, 20, 257]] {
            assert!(matches!(prepare_line(&bytes, "p", digits, margin, least), Err(Error::Settings(_))));
        }
    }

    #[test]
    fn a_field_filled_to_its_border_is_scaled() {
        let (pixels, steps) = prepared(seven(28, 28, 1.0, 1.0, 26.0));
        assert!(!steps.unchanged);
        assert_eq!(steps.ink[3], 26);
        let [_, _, _, height] = bounding_box(&GrayImage::from_raw(28, 28, pixels).unwrap());
        assert_eq!(height, 20);
    }

    #[test]
    fn colour_and_transparency_are_read() {
        let ink = seven(120, 120, 20.0, 20.0, 80.0);
        let (expected, _) = prepared(ink.clone());
        let close = |pixels: &[u8], tolerance: u8| {
            pixels.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= tolerance)
        };
        // Black ink on nothing, and blue ink on yellowish paper.
        let layered = image::GrayAlphaImage::from_fn(120, 120, |x, y| LumaA([0, ink.get_pixel(x, y).0[0]]));
        let blue = RgbImage::from_fn(120, 120, |x, y| {
            Rgb(if ink.get_pixel(x, y).0[0] > 0 { [20, 40, 160] } else { [240, 235, 210] })
        });
        assert!(close(&prepared(layered).0, 1));
        assert!(close(&prepared(blue.clone()).0, 1));
        let (pixels, steps) = prepare(&encode(blue, ImageFormat::Jpeg), "p", 28, 28).unwrap();
        assert!(steps.inverted && close(&pixels, 40), "{}", show(&pixels, 28));
    }

    #[test]
    fn blank_pictures_are_refused() {
        let message = "no ink found: nothing differs by 24 or more levels of grey from the background";
        for value in [0, 100, 127, 128, 255] {
            assert_eq!(
                refused(&encode(GrayImage::from_pixel(1, 1, Luma([value])), ImageFormat::Png)),
                message
            );
            assert_eq!(
                refused(&encode(GrayImage::from_pixel(40, 1, Luma([value])), ImageFormat::Png)),
                message
            );
        }
        let faint = GrayImage::from_fn(50, 50, |x, _| Luma([240 - (x % 20) as u8]));
        assert_eq!(refused(&encode(faint, ImageFormat::Png)), message);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let unknown = "expected a PNG, JPEG or PNM file";
        assert_eq!(refused(b""), format!("0 bytes of an unknown kind found, {unknown}"));
        assert_eq!(refused(b"hello, world"), format!("12 bytes of an unknown kind found, {unknown}"));
        assert!(refused(b"GIF89a............").starts_with("the picture cannot be decoded: "));
        let whole = encode(seven(60, 60, 5.0, 5.0, 50.0), ImageFormat::Png);
        for len in [8, 20, 33, whole.len() / 2] {
            let message = refused(&whole[..len]);
            assert!(message.starts_with("the picture cannot be decoded: "), "{len}: {message}");
        }
    }

    /// A PNG that declares a size and holds no pixels.
    fn declared(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut header = b"IHDR".to_vec();
        header.extend(width.to_be_bytes());
        header.extend(height.to_be_bytes());
        header.extend([8, 6, 0, 0, 0]);
        for chunk in [&header[..], b"IDAT"] {
            let mut sum = flate2::Crc::new();
            sum.update(chunk);
            bytes.extend((chunk.len() as u32 - 4).to_be_bytes());
            bytes.extend(chunk);
            bytes.extend(sum.sum().to_be_bytes());
        }
        bytes
    }

    #[test]
    fn a_huge_picture_is_refused() {
        let message = "a picture that is too large found, expected at most 16384x16384 pixels in 512 MiB";
        assert_eq!(refused(&declared(16385, 1)), message);
        assert_eq!(refused(&declared(1, 2_000_000_000)), message);
        assert_eq!(refused(&declared(16384, 16384)), message);
        assert_eq!(refused(b"P5\n100000 100000\n255\n"), message);
        assert!(refused(&declared(0, 5)).starts_with("the picture cannot be decoded: "));
        // As large as is allowed, but without its pixels.
        assert!(refused(b"P5\n2000 2000\n255\n").starts_with("the picture cannot be decoded: "));
    }

    #[test]
    fn a_whole_picture_keeps_its_colours() {
        let picture = RgbImage::from_fn(6, 4, |x, y| Rgb([10 * x as u8, 20 * y as u8, 200]));
        let png = encode(picture.clone(), ImageFormat::Png);
        let (pixels, steps) = fit(&png, "p", 3, 4, 6).unwrap();
        assert!(steps.unchanged);
        assert_eq!(steps.to_string(), "6x4 pixels, taken as they are");
        let plane = |c: usize| picture.pixels().map(move |pixel| pixel.0[c]).collect::<Vec<_>>();
        assert_eq!(pixels, [plane(0), plane(1), plane(2)].concat());
        // A square out of the middle: columns 1 to 4, halved.
        let (pixels, steps) = fit(&png, "p", 3, 2, 2).unwrap();
        assert_eq!(steps.to_string(), "6x4 pixels, cropped to 4x4 at 1,0, scaled by 0.500");
        assert!(pixels[0] < 25 && pixels[1] > 25 && pixels[4] < 30 && pixels[6] > 30, "{pixels:?}");
        assert_eq!(pixels[8..], [200; 4]);
        // Taller than wide, and larger than the file.
        let (pixels, steps) = fit(&png, "p", 1, 300, 100).unwrap();
        assert_eq!((pixels.len(), steps.ink, steps.inverted), (30_000, [2, 0, 1, 4], false));
        // One channel of a colour picture is its grey, on a light ground no less.
        let light = GrayImage::from_fn(5, 5, |x, y| Luma([250 - (x + y) as u8]));
        let png = encode(light.clone(), ImageFormat::Png);
        assert_eq!(fit(&png, "p", 1, 5, 5).unwrap().0, light.into_raw());
        let (grey, _) = fit(&png, "p", 3, 5, 5).unwrap();
        assert_eq!((&grey[..25], &grey[25..50]), (&grey[50..], &grey[50..]));
        // Transparent parts are white in every plane.
        let clear = image::RgbaImage::from_pixel(2, 2, image::Rgba([10, 20, 30, 0]));
        assert_eq!(fit(&encode(clear, ImageFormat::Png), "p", 3, 2, 2).unwrap().0, [255; 12]);
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let png = encode(GrayImage::new(2, 2), ImageFormat::Png);
        let refused =
            |channels, height, width| fit(&png, "p", channels, height, width).unwrap_err().to_string();
        assert_eq!(refused(2, 2, 2), "a picture cannot be brought to 2 channels, expected 1 or 3");
        assert_eq!(
            refused(3, 0, 2),
            "a picture cannot be brought to 2x0 pixels, expected 1 to 16384 in each direction"
        );
        assert!(
            fit(b"GIF89a..", "p", 3, 2, 2).unwrap_err().to_string().starts_with("p: the picture cannot be")
        );
        // One black pixel by the narrowest of targets: no side becomes zero.
        assert_eq!(fit(&png, "p", 1, 1, 16384).unwrap().0.len(), 16384);
    }

    #[test]
    fn pixels_are_shown_as_text() {
        assert_eq!(show(&[0, 60, 120, 180, 255, 0], 3), "  ░░▒▒\n▓▓██  \n");
        assert_eq!(show(&[255, 255, 255], 2), "████\n██\n");
        assert_eq!(show(&[1, 2], 0), "");
        assert_eq!(show(&[], 28), "");
    }

    #[test]
    fn the_steps_are_told() {
        let (_, steps) = prepared(GrayImage::from_fn(100, 50, |x, y| {
            Luma([if (10..50).contains(&x) && (5..45).contains(&y) { 0 } else { 255 }])
        }));
        assert_eq!(
            steps.to_string(),
            "100x50 pixels, inverted, cropped to 40x40 at 10,5, scaled by 0.500, centred"
        );
    }

    /// A digit enlarged, put on paper and prepared again is where and what it was.
    #[test]
    fn a_scan_of_a_digit_of_mnist_comes_back_close() {
        let test = crate::data::mnist().unwrap().test;
        let mut total = 0.0;
        for i in 0..100 {
            let digit = GrayImage::from_raw(28, 28, test.image(i).to_vec()).unwrap();
            let mut scan = imageops::resize(&digit, 140, 140, FilterType::Triangle);
            imageops::invert(&mut scan);
            let (pixels, steps) = normalize(scan, 28, 28).unwrap();
            assert!(steps.inverted);
            let (a, b) = (centre(&pixels), centre(test.image(i)));
            assert!((a.0 - b.0).abs() < 1.1 && (a.1 - b.1).abs() < 1.1, "{i}: {a:?} {b:?}");
            total += pixels.iter().zip(test.image(i)).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
        }
        // Aiming half a pixel off, at the geometric middle, nearly doubles the difference.
        let mean = total / (100.0 * 784.0);
        assert!(mean < 9.5, "{mean}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn corruptions_never_panic(
            format in prop::sample::select(vec![ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Pnm]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            keep in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = encode(seven(24, 24, 2.0, 2.0, 20.0), format);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(keep.index(bytes.len()));
            }
            let _ = prepare(&bytes, "p", 28, 28);
            let _ = fit(&bytes, "p", 3, 5, 9);
            let _ = prepare_line(&bytes, "p", 20, 20, 36);
        }

        #[test]
        fn any_pixels_give_a_full_field(
            (width, height) in (1u32..20, 1u32..20),
            values in prop::collection::vec(any::<u8>(), 400),
        ) {
            let size = (width * height) as usize;
            let picture = GrayImage::from_raw(width, height, values[..size].to_vec()).unwrap();
            if let Ok((pixels, _)) = normalize(picture, 28, 28) {
                prop_assert_eq!(pixels.len(), 28 * 28);
                prop_assert!(pixels.iter().any(|&value| value > 0));
            }
        }
    }
}
