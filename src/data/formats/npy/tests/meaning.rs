//! What arrays are: pictures of any shape, type and range, signals, labels.

use super::{four, good, npy, zip};
use crate::data::formats::npy::dataset;
use crate::data::{Encoding, Split};

/// Two images of a shape, and labels 0 and 1 for them, as both parts.
fn images(descr: &str, shape: &str, content: &[u8]) -> Result<Split, String> {
    let labels = || npy("|u1", "(2,)", &[0, 1]);
    let image = || npy(descr, shape, content);
    dataset("d", "f", &zip(&four([image(), image()], [labels(), labels()]), true))
        .map_err(|error| error.to_string())
}

fn shape(split: &Split) -> [usize; 3] {
    [split.train.channels, split.train.height, split.train.width]
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn shapes_of_pictures() {
    let bytes: Vec<u8> = (0..12).map(|i| 20 * i).collect();
    let last = images("|u1", "(2, 1, 2, 3)", &bytes).unwrap();
    assert_eq!((shape(&last), last.train.picture(0)), ([3, 1, 2], &[0, 60, 20, 80, 40, 100][..]));
    assert_eq!(last.train.encoding, Encoding::Picture);
    let first = images("|u1", "(2, 3, 1, 2)", &bytes).unwrap();
    assert_eq!((shape(&first), first.train.images.to_vec()), ([3, 1, 2], bytes.clone()));
    let signal = images("|u1", "(2, 6)", &bytes).unwrap();
    assert_eq!((shape(&signal), signal.train.images.to_vec()), ([1, 1, 6], bytes));
    let values = floats(&[-2.0, 2.0, 0.0, 1.0]);
    let series = images("<f4", "(2, 2)", &values).unwrap();
    assert_eq!((shape(&series), series.train.images.to_vec()), ([1, 1, 2], vec![0, 255, 128, 191]));
    assert_eq!(series.test.encoding, Encoding::Range { low: -2.0, high: 2.0 });
    // Flat ones, and sizes of one wherever programs put them: always the same picture.
    let flat: Vec<u8> = (0..72).map(|i| (i * 7) as u8).collect();
    for (text, told) in [
        ("(2, 6, 6)", false),
        ("(2, 6, 6, 1)", false),
        ("(2, 1, 6, 6)", false),
        ("(2, 36)", true),
        ("(2, 36, 1)", true),
        ("(2, 1, 36)", true),
        ("(2, 1, 1, 36)", true),
    ] {
        let split = images("|u1", text, &flat).unwrap();
        assert_eq!((shape(&split), split.train.images.to_vec()), ([1, 6, 6], flat.clone()), "{text}");
        let note = "36 values are a picture of 6×6 pixels".to_owned();
        assert_eq!(split.notes, if told { vec![note] } else { vec![] }, "{text}");
    }
    let colour: Vec<u8> = (0..150).collect();
    let split = images("|u1", "(2, 75)", &colour).unwrap();
    assert_eq!((shape(&split), split.train.picture(0)[..3].to_vec()), ([3, 5, 5], vec![0, 3, 6]));
    assert_eq!(images("|u1", "(2, 5, 5, 3)", &colour).unwrap().train.images, split.train.images);
    for (descr, shape, content, message) in [
        ("|u1", "(2, 0, 3)", &[][..], "the shape [2, 0, 3] found, expected no size to be zero"),
        ("|u1", "(16,)", &values, "the shape [16] found, expected N,L or N,H,W or N,H,W,C or N,C,H,W"),
        ("|S8", "(2,)", &values, "texts found, expected pictures or signals"),
        (
            "|u1",
            "(2, 5, 5, 4)",
            &[0; 200],
            "the shape [2, 5, 5, 4] found, expected colours without transparency, as in x[..., :3]",
        ),
    ] {
        assert_eq!(images(descr, shape, content).unwrap_err(), format!("f: x_train.npy: {message}"));
    }
}

#[test]
fn pixels_of_every_type_and_range_are_the_same_pictures() {
    let bytes: Vec<u8> = (0..50u8).map(|i| i * 5).chain([255; 22]).collect();
    let of = |descr: &str, content: Vec<u8>| {
        let split = images(descr, "(2, 6, 6)", &content).unwrap();
        assert_eq!(split.test.images, split.train.images);
        (split.train.images.to_vec(), split.notes)
    };
    let wide = |size: usize, big: bool| -> Vec<u8> {
        let element = |&byte: &u8| {
            let mut element = vec![0; size];
            element[if big { size - 1 } else { 0 }] = byte;
            element
        };
        bytes.iter().flat_map(element).collect()
    };
    for (descr, size, big) in [
        ("|u1", 1, false),
        ("<u2", 2, false),
        (">i2", 2, true),
        ("<i4", 4, false),
        (">u4", 4, true),
        ("<i8", 8, false),
    ] {
        assert_eq!(of(descr, wide(size, big)), (bytes.clone(), vec![]), "{descr}");
    }
    let scaled = |low: f32, high: f32| -> Vec<f32> {
        bytes.iter().map(|&byte| low + f32::from(byte) / 255.0 * (high - low)).collect()
    };
    assert_eq!(of("<f4", floats(&scaled(0.0, 255.0))), (bytes.clone(), vec![]));
    let doubles =
        |values: Vec<f32>| values.iter().flat_map(|&value| f64::from(value).to_be_bytes()).collect();
    for (low, high, told) in [
        (0.0, 1.0, "pixels of 0 to 1 are black to white"),
        (-1.0, 1.0, "pixels of -1 to 1 are black to white"),
        (-0.42, 2.82, "pixels of -0.42 to 2.82 are black to white"),
        (0.0, 4095.0, "pixels of 0 to 4095 are black to white"),
    ] {
        let expected = (bytes.clone(), vec![told.to_owned()]);
        assert_eq!(of("<f4", floats(&scaled(low, high))), expected);
        assert_eq!(of(">f8", doubles(scaled(low, high))), expected);
    }
    let sixteenths: Vec<u8> = bytes.iter().map(|byte| byte / 16 + u8::from(*byte == 255)).collect();
    let expected: Vec<u8> = sixteenths.iter().map(|&v| (f32::from(v) / 16.0 * 255.0).round() as u8).collect();
    assert_eq!(of("|u1", sixteenths), (expected, vec!["pixels of 0 to 16 are black to white".to_owned()]));
    // True is full ink, and so is 1 where there is nothing but 0 and 1.
    let truths: Vec<u8> = bytes.iter().map(|byte| u8::from(*byte > 127)).collect();
    let ink: Vec<u8> = truths.iter().map(|truth| 255 * truth).collect();
    assert_eq!(of("|b1", truths.clone()), (ink.clone(), vec![]));
    assert_eq!(of("|i1", truths).0, ink);
    // What lies beyond the range of the training part takes its ends, and what is no number is refused in both parts.
    let labels = || npy("|u1", "(2,)", &[0, 1]);
    let image = |values: &[f32]| npy("<f4", "(2, 2, 2)", &floats(values));
    let two = |a: &[f32], b: &[f32]| {
        dataset("d", "f", &zip(&four([image(a), image(b)], [labels(), labels()]), true))
    };
    let train = [-3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let far = two(&train, &[-9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    assert_eq!(far.test.picture(0), [0, 255, 128, 128]);
    for (a, b, file) in [([f32::NAN; 8], train, "x_train"), (train, [f32::INFINITY; 8], "x_test")] {
        let message = two(&a, &b).unwrap_err().to_string();
        let value = if file == "x_test" { "inf" } else { "NaN" };
        let told = format!("f: {file}.npy: the value {value} found at index 0, expected a finite number");
        assert_eq!(message, told);
    }
    assert_eq!(
        two(&[300.0; 8], &train).unwrap_err().to_string(),
        "f: x_train.npy: all pixels are 300, expected two different ones"
    );
}

fn with(i: usize, array: Vec<u8>) -> Result<Split, String> {
    let mut files = good();
    files[i].1 = array;
    dataset("d", "f", &zip(&files, false)).map_err(|error| error.to_string())
}

#[test]
fn labels_of_every_kind_are_read() {
    let utf32 = |text: &str, big: bool| -> Vec<u8> {
        let code = |c: char| if big { (c as u32).to_be_bytes() } else { (c as u32).to_le_bytes() };
        let mut bytes: Vec<u8> = text.chars().flat_map(code).collect();
        bytes.resize(16, 0);
        bytes
    };
    let words = |big: bool| ["pear", "äpfl", "äpfl"].map(|word| utf32(word, big)).concat();
    for (array, names, labels) in [
        (npy("<i8", "(3, 1)", &[7i64, 9, 7].map(i64::to_le_bytes).concat()), "2 7 9", [1, 2, 1]),
        (npy("|u1", "(1, 3)", &[7, 9, 7]), "2 7 9", [1, 2, 1]),
        (npy("<i4", "(3,)", &[-1i32, 1000, -1].map(i32::to_le_bytes).concat()), "-1 2 1000", [0, 2, 0]),
        (npy("<f4", "(3,)", &floats(&[4.0, 2.0, 0.0])), "0 2 4", [2, 1, 0]),
        (npy("|b1", "(3,)", &[1, 0, 1]), "0 1 2", [1, 0, 1]),
        (npy("|u1", "(3, 4)", &[0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]), "0 2 3", [2, 0, 2]),
        (npy("<f4", "(3, 2)", &floats(&[0.0, 1.0, 1.0, 0.0, 0.0, 1.0])), "0 1 2", [1, 0, 1]),
        (npy("|b1", "(3, 2)", &[0, 1, 1, 0, 0, 1]), "0 1 2", [1, 0, 1]),
        (npy("<U4", "(3,)", &words(false)), "2 pear äpfl", [1, 2, 2]),
        (npy(">U4", "(3,)", &words(true)), "2 pear äpfl", [1, 2, 2]),
        (npy("|S3", "(3, 1)", b"cat7\0\0dog"), "2 7 cat dog", [2, 1, 3]),
    ] {
        // The test's label is 2, which is a class of its own where the training part lacks it.
        let split = with(1, array).unwrap();
        assert_eq!(
            (split.train.class_names.join(" ").as_str(), &split.train.labels[..]),
            (names, &labels[..])
        );
    }
    for (array, message) in [
        (
            npy("<f4", "(3,)", &floats(&[0.0, 0.5, 0.0])),
            "the label 0.5 found at index 1, expected a whole number",
        ),
        (
            npy("|u1", "(3, 2)", &[0, 1, 1, 1, 0, 1]),
            "the shape [3, 2] found, whose row 1 is not one 1 among zeros, expected one label an image",
        ),
        (npy("|u1", "(3, 1, 2)", &[0; 6]), "the shape [3, 1, 2] found, expected one label an image"),
        (npy("|u1", "(2,)", &[0, 1]), "2 labels found, expected 3 as there are images in f: x_train.npy"),
        (npy("|S1", "(3,)", b"a\xffb"), "the label at index 1 is no text"),
    ] {
        assert_eq!(with(1, array).unwrap_err(), format!("f: y_train.npy: {message}"));
    }
    assert_eq!(
        with(2, npy("|u1", "(1, 2, 2)", &[0; 4])).unwrap_err(),
        "f: x_test.npy: images of 2x2 pixels found, expected 2x1 as in f: x_train.npy"
    );
}

#[test]
fn without_a_test_part_an_image_in_six_of_each_class_is_it() {
    let values: Vec<u8> = (0..24 * 25).map(|i| (i / 25 * 10) as u8).collect();
    let labels = [vec![5; 12], vec![8; 12]].concat();
    let one = [("images", npy("|u1", "(24, 5, 5)", &values)), ("labels", npy("|u1", "(24,)", &labels))];
    let split = dataset("d", "f", &zip(&one, true)).unwrap();
    assert_eq!((split.train.label_counts(), split.test.label_counts()), (vec![10, 10], vec![2, 2]));
    assert_eq!(
        (&split.train.class_names[..], split.train.picture(0).len()),
        (&["5", "8"].map(String::from)[..], 25)
    );
    let drawn = split.held_out.clone().unwrap();
    assert_eq!(drawn[3], format!("image {}", split.test.picture(3)[0] / 10));
    assert_eq!(split.notes, ["f has no test part: an image in six of each class of images is the test"]);
    // Pictures for the test without labels are a competition's.
    let mut competition = one.to_vec();
    competition.push(("test_images", npy("|u1", "(1, 5, 5)", &[0; 25])));
    let same = dataset("d", "f", &zip(&competition, true)).unwrap();
    assert_eq!((same.held_out, &same.test.images), (split.held_out, &split.test.images));
    assert!(same.notes[0].starts_with("test_images of f has no labels: "), "{:?}", same.notes);
    // Arrays without names are told by their shapes.
    let numbered = [("arr_0", one[0].1.clone()), ("arr_1", one[1].1.clone())];
    for turned in [false, true] {
        let mut files = numbered.clone();
        if turned {
            (files[0].1, files[1].1) = (one[1].1.clone(), one[0].1.clone());
        }
        let same = dataset("d", "f", &zip(&files, true)).unwrap();
        assert_eq!((&same.train.images, &same.train.labels), (&split.train.images, &split.train.labels));
        assert_eq!(
            same.notes[0],
            if turned {
                "arr_1.npy is pictures, arr_0.npy labels"
            } else {
                "arr_0.npy is pictures, arr_1.npy labels"
            }
        );
    }
    let four = good();
    let order = [0, 2, 1, 3].map(|i| four[i].1.clone());
    let names = ["arr_0", "arr_1", "arr_2", "arr_3"];
    let files: Vec<_> = names.into_iter().zip(order).collect();
    let split = dataset("d", "f", &zip(&files, true)).unwrap();
    assert_eq!((split.train.labels, split.test.labels), (vec![0, 2, 1], vec![2]));
}
