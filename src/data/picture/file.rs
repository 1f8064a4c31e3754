//! Decodes a file, within limits, to a picture that stands upright on its ground.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

/// The widest and highest picture that is decoded, in pixels.
pub(in crate::data) const MAX_SIDE: u32 = 16384;

/// The most memory, in bytes, that decoding may take: 512 MiB.
const MAX_ALLOCATION: u64 = 512 << 20;

/// The kinds of files that are read.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) const KINDS: &str =
    "PNG, JPEG, PNM, BMP, GIF, WebP, TIFF, TGA, QOI, ICO, DDS, HDR or farbfeld";

/// The kinds of files that are read: a page leaves others to its browser.
#[cfg(target_arch = "wasm32")]
const KINDS: &str = "PNG, JPEG or PNM";

/// The ends of names that pictures have which are read, in lower case.
#[cfg(not(target_arch = "wasm32"))]
pub const EXTENSIONS: [&str; 23] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "pnm", "pbm", "pgm", "ppm", "pam", "bmp", "dib", "gif", "webp",
    "tif", "tiff", "tga", "qoi", "ico", "cur", "dds", "hdr", "ff",
];

/// What a file is, by its first bytes.
fn kind(bytes: &[u8]) -> Option<ImageFormat> {
    image::guess_format(bytes).ok().or_else(|| is_tga(bytes).then_some(ImageFormat::Tga))
}

/// Whether a file is a picture, by its first bytes.
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn is_picture(bytes: &[u8]) -> bool {
    kind(bytes).is_some()
}

/// Whether a file may be a TGA, which has no mark of its own: its header is one that makes sense.
fn is_tga(bytes: &[u8]) -> bool {
    let Some(&[_, palette, kind, first_low, first_high, count_low, count_high, entry, ref rest @ ..]) =
        bytes.first_chunk::<18>()
    else {
        return false;
    };
    let (size, [depth, flags]) = (&rest[4..8], [rest[8], rest[9]]);
    let colours = match (palette, kind) {
        (0, 2 | 3 | 10 | 11) => [first_low, first_high, count_low, count_high, entry] == [0; 5],
        (1, 1 | 9) => [count_low, count_high] != [0; 2] && [15, 16, 24, 32].contains(&entry),
        _ => false,
    };
    colours
        && [8, 15, 16, 24, 32].contains(&depth)
        && flags & 0xc0 == 0
        && size[..2] != [0; 2]
        && size[2..] != [0; 2]
}

/// Decodes a file, upright.
pub(super) fn open(bytes: &[u8]) -> Result<DynamicImage, String> {
    let explain = |error: ImageError| match error {
        ImageError::Limits(_) => {
            format!(
                "a picture that is too large found, expected at most {MAX_SIDE}x{MAX_SIDE} pixels in {} MiB",
                MAX_ALLOCATION >> 20
            )
        }
        other => format!("the picture cannot be decoded: {other}"),
    };
    let Some(kind) = kind(bytes) else {
        return Err(format!("{} bytes of an unknown kind found, expected a {KINDS} file", bytes.len()));
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
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

/// A channel under `alpha`, on a ground.
fn over(value: u8, alpha: u8, ground: u8) -> u8 {
    let (value, alpha, ground) = (u32::from(value), u32::from(alpha), u32::from(ground));
    ((value * alpha + ground * (255 - alpha) + 127) / 255) as u8
}

/// The ground under a picture with transparent parts, from its grey levels with their alpha: white as in a browser,
/// unless what stands on it is light and would vanish there; then black.
fn ground_under(layered: impl Iterator<Item = [u8; 2]>) -> u8 {
    let (mut weight, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for [value, alpha] in layered {
        let (value, alpha) = (f64::from(value), f64::from(alpha));
        weight += alpha;
        sum += alpha * value;
        squares += alpha * value * value;
    }
    let mean = sum / f64::max(weight, 1.0);
    let deviation = (squares / f64::max(weight, 1.0) - mean * mean).max(0.0).sqrt();
    let drawn_in_one_colour = deviation < 24.0;
    if mean > 200.0 || (mean > 127.0 && drawn_in_one_colour) { 0 } else { 255 }
}

/// A picture as grey, its transparent parts on the ground on which the rest is seen.
pub(super) fn flat_grey(picture: DynamicImage) -> Result<GrayImage, String> {
    if !picture.color().has_alpha() {
        return Ok(picture.into_luma8());
    }
    let layered = picture.into_luma_alpha8();
    let ground = ground_under(layered.pixels().map(|pixel| pixel.0));
    let pixels = layered.pixels().map(|pixel| over(pixel.0[0], pixel.0[1], ground));
    GrayImage::from_raw(layered.width(), layered.height(), pixels.collect())
        .ok_or_else(|| "the picture's size contradicts itself".to_owned())
}

/// A picture as red, green and blue, its transparent parts on the ground on which the rest is seen.
pub(super) fn flat_colour(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let grey = picture.to_luma_alpha8();
    let ground = ground_under(grey.pixels().map(|pixel| pixel.0));
    let layered = picture.into_rgba8();
    RgbImage::from_fn(layered.width(), layered.height(), |x, y| {
        let [red, green, blue, alpha] = layered.get_pixel(x, y).0;
        image::Rgb([red, green, blue].map(|value| over(value, alpha, ground)))
    })
}
