//! Pictures that are drawn here, encoded, and brought into form again.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, LumaA, Rgb, RgbImage, imageops};
use proptest::prelude::*;

use super::digit;
use super::ink::{bounding_box, centre_of_mass};
use super::*;
use crate::error::Error;

/// A picture as a PNG file.
pub(super) fn encode_png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    encode(picture, ImageFormat::Png)
}

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
pub(super) fn seven(width: u32, height: u32, left: f32, top: f32, size: f32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        let (x, y) = ((x as f32 - left) / size, (y as f32 - top) / size);
        let bar = (0.0..0.7).contains(&x) && (0.0..0.15).contains(&y);
        let stroke = (0.0..1.0).contains(&y) && (x - (0.6 - 0.4 * y)).abs() < 0.08;
        Luma([if bar || stroke { 255 } else { 0 }])
    })
}

/// Brings a picture into MNIST's form.
fn normalize(picture: GrayImage, width: u32, height: u32) -> Result<(Vec<u8>, Preparation), String> {
    digit::normalize(picture, &Form::default(), width, height)
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

#[cfg(feature = "mnist")]
#[test]
fn digits_of_mnist_pass_bit_for_bit() {
    let test = crate::data::mnist().unwrap().test;
    for i in 0..test.len() {
        let picture = GrayImage::from_raw(28, 28, test.picture(i).to_vec()).unwrap();
        let (pixels, steps) = normalize(picture, 28, 28).unwrap();
        assert!(steps.unchanged, "{i}: {steps:?}");
        assert_eq!(pixels, test.picture(i), "{i}");
    }
    for i in 0..20 {
        let grey = GrayImage::from_raw(28, 28, test.picture(i).to_vec()).unwrap();
        let colour = DynamicImage::from(grey.clone()).into_rgb8();
        for bytes in [
            encode(grey.clone(), ImageFormat::Png),
            encode(grey, ImageFormat::Pnm),
            encode(colour, ImageFormat::Png),
        ] {
            let (pixels, steps) = prepare(&bytes, "p", 28, 28).unwrap();
            assert!(steps.unchanged);
            assert_eq!(pixels, test.picture(i), "{i}");
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
    let close =
        |pixels: &[u8], tolerance: u8| pixels.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= tolerance);
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
        assert_eq!(refused(&encode(GrayImage::from_pixel(1, 1, Luma([value])), ImageFormat::Png)), message);
        assert_eq!(refused(&encode(GrayImage::from_pixel(40, 1, Luma([value])), ImageFormat::Png)), message);
    }
    let faint = GrayImage::from_fn(50, 50, |x, _| Luma([240 - (x % 20) as u8]));
    assert_eq!(refused(&encode(faint, ImageFormat::Png)), message);
}

#[test]
fn what_is_no_picture_is_refused() {
    let unknown = format!("expected a {} file", super::file::KINDS);
    assert_eq!(refused(b""), format!("0 bytes of an unknown kind found, {unknown}"));
    assert_eq!(refused(b"hello, world"), format!("12 bytes of an unknown kind found, {unknown}"));
    // A kind that is known and not read.
    assert!(refused(b"\0\0\0\x20ftypavif....").starts_with("the picture cannot be decoded: "));
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
    let refused = |channels, height, width| fit(&png, "p", channels, height, width).unwrap_err().to_string();
    assert_eq!(refused(2, 2, 2), "a picture cannot be brought to 2 channels, expected 1 or 3");
    assert_eq!(
        refused(3, 0, 2),
        "a picture cannot be brought to 2x0 pixels, expected 1 to 16384 in each direction"
    );
    assert!(fit(b"GIF89a..", "p", 3, 2, 2).unwrap_err().to_string().starts_with("p: the picture cannot be"));
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
#[cfg(feature = "mnist")]
#[test]
fn a_scan_of_a_digit_of_mnist_comes_back_close() {
    let test = crate::data::mnist().unwrap().test;
    let mut total = 0.0;
    for i in 0..100 {
        let digit = GrayImage::from_raw(28, 28, test.picture(i).to_vec()).unwrap();
        let mut scan = imageops::resize(&digit, 140, 140, imageops::FilterType::Triangle);
        imageops::invert(&mut scan);
        let (pixels, steps) = normalize(scan, 28, 28).unwrap();
        assert!(steps.inverted);
        let (a, b) = (centre(&pixels), centre(test.picture(i)));
        assert!((a.0 - b.0).abs() < 1.1 && (a.1 - b.1).abs() < 1.1, "{i}: {a:?} {b:?}");
        total += pixels.iter().zip(test.picture(i)).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
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
