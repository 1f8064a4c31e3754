//! The forms of sets, and that their own pictures come back as they are.

use image::{DynamicImage, GrayImage, Luma, LumaA, imageops};

use super::tests::{encode_png as png, seven};
use super::*;
use crate::data::{Dataset, Encoding};

/// A set of sevens of 28×28, made of each number's picture.
fn set(count: u32, picture: impl Fn(u32) -> GrayImage) -> Dataset {
    let pixels = (0..count).flat_map(|i| picture(i).into_raw()).collect();
    Dataset::new("set", [1, 28, 28], 2, pixels, vec![0; count as usize]).unwrap()
}

fn form(data: &Dataset) -> Form {
    Form::of(data).unwrap().unwrap()
}

fn of(form: &Form, picture: &GrayImage) -> (Vec<u8>, Preparation) {
    form.picture(&png(picture.clone()), "it", [1, 28, 28]).unwrap()
}

#[cfg(feature = "mnist")]
#[test]
fn every_test_picture_of_a_set_has_the_form_of_its_training_part() {
    let split = crate::data::mnist().unwrap();
    let inverted = |data: &Dataset| {
        let pixels = data.images.to_vec().iter().map(|pixel| 255 - pixel).collect();
        Dataset::new("inverted", [1, 28, 28], 10, pixels, data.labels.clone()).unwrap()
    };
    let few = split.train.clone().take(100);
    for (train, test) in
        [(&split.train, &split.test), (&inverted(&split.train), &inverted(&split.test)), (&few, &split.test)]
    {
        let form = form(train);
        assert!(form.drawn && form.by_mass && (form.side - 20.0 / 28.0).abs() < 1e-6, "{form:?}");
        for i in 0..test.len() {
            let picture = GrayImage::from_raw(28, 28, test.picture(i).to_vec()).unwrap();
            assert!(form.has(&picture), "{i} {form:?}");
        }
    }
    // What the other set has is not of its form.
    let (light, dark) = (form(&split.train), form(&inverted(&split.train)));
    let digit = GrayImage::from_raw(28, 28, split.test.picture(0).to_vec()).unwrap();
    let mut other = digit.clone();
    imageops::invert(&mut other);
    for (form, own, other) in [(&light, &digit, &other), (&dark, &other, &digit)] {
        assert_eq!(of(form, own).0, *own.as_raw());
        let (pixels, steps) = of(form, other);
        assert!(!steps.unchanged);
        let differ: u32 = pixels.iter().zip(own.as_raw()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        assert!(differ < 12 * 784, "{differ}");
    }
}

#[test]
fn dark_on_light_sets_get_dark_on_light_pictures() {
    let paper = |i: u32| {
        let ink = seven(28, 28, 4.0 + (i % 3) as f32, 5.0, 18.0);
        GrayImage::from_fn(28, 28, |x, y| Luma([230 - (f32::from(ink.get_pixel(x, y).0[0]) * 0.8) as u8]))
    };
    let form = form(&set(90, paper));
    assert!(form.drawn, "{form:?}");
    assert_eq!((form.ground, form.ink), (230, 26));
    // White on black, large: brought to the same ground and ink.
    let (pixels, steps) = of(&form, &seven(300, 200, 90.0, 30.0, 120.0));
    assert!(steps.inverted && !steps.unchanged);
    assert_eq!((pixels[0], pixels.iter().min()), (230, Some(&26)));
    // As dark on light as the set, there is nothing to exchange.
    let mut dark = seven(300, 200, 90.0, 30.0, 120.0);
    imageops::invert(&mut dark);
    let (again, steps) = of(&form, &dark);
    assert!(!steps.inverted);
    assert!(pixels.iter().zip(&again).all(|(a, b)| a.abs_diff(*b) < 4));
}

#[test]
fn pictures_that_fill_their_field_are_taken_as_they_are() {
    // Solid blocks that reach an edge or all of them, as clothes do.
    let block = |i: u32| {
        GrayImage::from_fn(28, 28, |x, y| {
            let inside = x >= i % 6 && x < 28 - i % 5 && y < 28 - i % 3;
            Luma([if inside { 90 + (x * y % 120) as u8 } else { 0 }])
        })
    };
    let form = form(&set(120, block));
    for i in 0..60 {
        let picture = block(2 * i + 1);
        assert_eq!(of(&form, &picture).0, *picture.as_raw(), "{form:?}");
    }
}

#[test]
fn photographs_have_no_ground() {
    let photo =
        |i: u32| GrayImage::from_fn(28, 28, |x, y| Luma([(x * 9 + y * (i % 7) + 40 * (i % 5)) as u8]));
    let mut data = set(100, photo);
    data.encoding = Encoding::Picture;
    let form = form(&data);
    assert!(!form.drawn, "{form:?}");
    let dark_on_light = of(&form, &GrayImage::from_fn(28, 28, |x, _| Luma([if x == 9 { 0 } else { 255 }])));
    assert!(dark_on_light.1.unchanged);
    // Neither have signals, texts and colours.
    data.encoding = Encoding::Range { low: 0.0, high: 1.0 };
    assert_eq!(Form::of(&data).unwrap(), None);
}

#[test]
fn what_stands_on_a_transparent_ground_is_light_or_dark() {
    let ink = seven(200, 160, 60.0, 20.0, 100.0);
    let expected = prepare(&png(ink.clone()), "it", 28, 28).unwrap().0;
    for colour in [0, 60, 255, 230] {
        let clear =
            image::GrayAlphaImage::from_fn(200, 160, |x, y| LumaA([colour, ink.get_pixel(x, y).0[0]]));
        let (pixels, _) = prepare(&png(DynamicImage::from(clear)), "it", 28, 28).unwrap();
        assert!(pixels.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) < 4), "{colour}");
    }
    // A set of such has one ground, whatever lies beneath what cannot be seen.
    let small = image::RgbaImage::from_fn(28, 28, |x, y| image::Rgba([255, 255, 255, (x * y % 256) as u8]));
    let (pixels, _) = fit(&png(small), "it", 1, 28, 28).unwrap();
    assert_eq!((pixels[0], pixels[15 * 28 + 17]), (0, 255));
}

#[test]
fn what_is_doubtful_is_told() {
    let (first, second) = (seven(400, 200, 40.0, 50.0, 90.0), seven(400, 200, 230.0, 55.0, 90.0));
    let two = GrayImage::from_fn(400, 200, |x, y| {
        Luma([255 - first.get_pixel(x, y).0[0].max(second.get_pixel(x, y).0[0])])
    });
    let told = |picture: GrayImage| prepare(&png(picture), "it", 28, 28).unwrap().1.doubts;
    assert_eq!(told(two), ["2 pieces of about one height side by side: several digits?"]);
    let faint = seven(300, 300, 90.0, 60.0, 140.0);
    let faint = GrayImage::from_fn(300, 300, |x, y| Luma([240 - faint.get_pixel(x, y).0[0] / 8]));
    assert_eq!(told(faint), ["the ink is hardly stronger than its ground"]);
    assert_eq!(told(seven(300, 300, 90.0, 60.0, 140.0)), [""; 0]);
}

#[test]
fn a_line_is_found_under_shadow_between_rules_and_specks() {
    let (first, second) = (seven(500, 200, 70.0, 60.0, 80.0), seven(500, 200, 240.0, 64.0, 80.0));
    let ink = |x, y| f32::from(first.get_pixel(x, y).0[0].max(second.get_pixel(x, y).0[0])) / 255.0;
    let sheet = |light: &dyn Fn(u32) -> f32, more: &dyn Fn(u32, u32) -> f32| {
        GrayImage::from_fn(500, 200, |x, y| {
            Luma([((235.0 - 200.0 * ink(x, y).max(more(x, y))) * light(x)) as u8])
        })
    };
    let read = |picture: GrayImage| prepare_line(&png(picture), "it", 20, 20, 36).unwrap();
    let clean = read(sheet(&|_| 1.0, &|_, _| 0.0));
    let ruled = |_: u32, y: u32| if y % 30 < 2 { 0.4 } else { 0.0 };
    let specks = |x: u32, y: u32| if (x % 97) < 2 && (y % 61) < 2 { 0.9 } else { 0.0 };
    let nothing = |_: u32, _: u32| 0.0;
    let shade = |x: u32| 0.45 + 0.55 * x as f32 / 500.0;
    for (name, sheet) in [
        ("shadow", sheet(&shade, &nothing)),
        ("specks", sheet(&|_| 1.0, &specks)),
        ("ruled", sheet(&|_| 1.0, &ruled)),
        ("all", sheet(&shade, &|x, y| ruled(x, y).max(specks(x, y)))),
    ] {
        let found = read(sheet);
        assert!(found.inverted);
        for (axis, (a, b)) in found.ink.into_iter().zip(clean.ink).enumerate() {
            assert!(a.abs_diff(b) <= 3, "{name}: {axis} {a} {b}");
        }
        assert_eq!(
            (found.picture.height, found.picture.width),
            (clean.picture.height, clean.picture.width),
            "{name}"
        );
        let pairs = found.picture.pixels.iter().zip(&clean.picture.pixels);
        let differ: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        let all: u32 = clean.picture.pixels.iter().map(|&pixel| u32::from(pixel)).sum();
        assert!(5 * differ < all, "{name}: {differ} of {all}");
    }
}

#[test]
fn a_photograph_of_twelve_megapixels_takes_less_than_a_second_when_optimised() {
    let photo = seven(4000, 3000, 1200.0, 500.0, 1800.0);
    let photo = GrayImage::from_fn(4000, 3000, |x, y| {
        let light = 0.5 + 0.5 * x as f32 / 4000.0;
        Luma([((240.0 - 0.8 * f32::from(photo.get_pixel(x, y).0[0])) * light) as u8])
    });
    let begin = std::time::Instant::now();
    let (pixels, steps) = super::digit::normalize(photo, &Form::default(), 28, 28).unwrap();
    let took = begin.elapsed();
    assert!(steps.inverted && pixels.contains(&255));
    // Without optimisation it takes twenty times as long.
    assert!(cfg!(debug_assertions) || took.as_secs_f32() < 1.0, "{took:?}");
}
