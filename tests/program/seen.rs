//! `lenet predict` sees what the network was trained on: single pictures, folders, tables, arrays, IDX files.

use std::fs;

use image::{GrayImage, imageops};
use lenet::data::Dataset;
use serde_json::Value;

use crate::place::{Place, idx, lines, text};

/// A set of MNIST's digits in IDX files with every pixel changed.
fn set(place: &Place, dir: &str, change: fn(u8) -> u8) -> Dataset {
    fs::create_dir(place.path(dir)).unwrap();
    let split = lenet::data::mnist().unwrap();
    let (train, mut test) = (split.train.take(1_000), split.test.take(60));
    for (part, data) in [("train", &train), ("t10k", &test)] {
        let pixels: Vec<u8> = data.images.all().unwrap().iter().map(|&pixel| change(pixel)).collect();
        fs::write(place.path(&format!("{dir}/{part}-images-idx3-ubyte")), idx(&[28, 28], &pixels)).unwrap();
        fs::write(place.path(&format!("{dir}/{part}-labels-idx1-ubyte")), idx(&[], &data.labels)).unwrap();
    }
    let pixels: Vec<u8> = test.images.all().unwrap().iter().map(|&pixel| change(pixel)).collect();
    test.images = pixels.into();
    test
}

/// Saves a picture of a set.
fn save(place: &Place, test: &Dataset, i: usize, name: &str) {
    let picture = GrayImage::from_raw(28, 28, test.image(i).unwrap().to_vec()).unwrap();
    picture.save(place.path(name)).unwrap();
}

fn classes(out: &str) -> Vec<u64> {
    lines(out).iter().map(|line| line["class"].as_u64().unwrap()).collect()
}

#[test]
fn a_set_of_dark_digits_is_judged_alike_by_eval_and_predict() {
    let place = Place::new();
    let test = set(&place, "data", |pixel| 240 - pixel / 2);
    place.ok("train --data data --epochs 3 --batch 32 --device cpu --out run");
    let judged: Value = serde_json::from_str(&place.ok("eval run --device cpu --json")).unwrap();
    fs::create_dir(place.path("pictures")).unwrap();
    for i in 0..test.len() {
        save(&place, &test, i, &format!("pictures/{i:02}.png"));
    }
    let right = |classes: &[u64]| {
        classes.iter().zip(&test.labels).filter(|(a, b)| **a == u64::from(**b)).count() as u64
    };
    let told = lines(&place.ok("predict run pictures --device cpu --json"));
    assert_eq!(told.len(), test.len());
    assert!(told.iter().all(|line| line["preparation"] == "28x28 pixels, taken as they are"), "{}", told[0]);
    assert!(told.iter().all(|line| line["doubts"].as_array().unwrap().is_empty()), "{}", told[0]);
    let of_pictures: Vec<u64> = told.iter().map(|line| line["class"].as_u64().unwrap()).collect();
    assert_eq!(Some(right(&of_pictures)), judged["correct"].as_u64());
    // The IDX file itself.
    let out = place.ok("predict run data/t10k-images-idx3-ubyte --device cpu --json");
    assert_eq!(classes(&out), of_pictures);

    // White on black and large: brought to the set's dark on light, before and after side by side.
    let digit = lenet::data::mnist().unwrap().test.image(0).unwrap().to_vec();
    let large = imageops::resize(
        &GrayImage::from_raw(28, 28, digit).unwrap(),
        200,
        200,
        imageops::FilterType::Triangle,
    );
    large.save(place.path("large.png")).unwrap();
    let out = place.ok("predict run large.png --device cpu");
    assert!(out.starts_with(&format!("large.png: {}\n", of_pictures[0])) && out.contains(" → "), "{out}");

    // A folder of folders that are called like classes says how often it is right; what is damaged is told at the end.
    fs::create_dir_all(place.path("sorted/7")).unwrap();
    fs::create_dir_all(place.path("sorted/2")).unwrap();
    save(&place, &test, 0, "sorted/7/a.png");
    save(&place, &test, 1, "sorted/2/b.png");
    fs::write(place.path("sorted/2/damaged.png"), "no picture").unwrap();
    fs::write(place.path("sorted/notes.txt"), "no picture").unwrap();
    let output = place.run("predict run sorted --device cpu --json");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert_eq!(classes(&text(&output.stdout)).len(), 2);
    for part in [
        "sorted/2/damaged.png: ",
        "1 files that are no pictures",
        " of 2 that say what they are",
        "1 of 3 files cannot be read",
    ] {
        assert!(told.replace('\\', "/").contains(part), "{part}: {told}");
    }
    fs::create_dir(place.path("empty")).unwrap();
    place.fails("predict run empty --device cpu", 3, &["empty: no picture found"]);
}

#[test]
fn a_table_gets_a_class_a_row() {
    let place = Place::new();
    fs::create_dir(place.path("competition")).unwrap();
    let split = lenet::data::mnist().unwrap();
    let (train, test) = (split.train.take(1_200), split.test.take(50));
    let heading: Vec<String> = (0..784).map(|i| format!("pixel{i}")).collect();
    // Values of 0 to 1, as the set's own are.
    let row = |data: &Dataset, i: usize| {
        let cells: Vec<String> =
            data.image(i).unwrap().iter().map(|&pixel| format!("{:.4}", f32::from(pixel) / 255.0)).collect();
        cells.join(",")
    };
    let mut text = format!("label,{}\n", heading.join(","));
    (0..train.len()).for_each(|i| text += &format!("{},{}\n", train.labels[i], row(&train, i)));
    fs::write(place.path("competition/train.csv"), text).unwrap();
    let (mut bare, mut known, mut named) =
        (format!("{}\n", heading.join(",")), String::new(), format!("id,{}\n", heading.join(",")));
    for i in 0..test.len() {
        let row = row(&test, i);
        bare += &format!("{row}\n");
        known += &format!("{},{row}\n", test.labels[i]);
        named += &format!("{},{row}\n", 1000 + i);
    }
    fs::write(place.path("competition/test.csv"), &bare).unwrap();
    fs::write(place.path("known.csv"), known).unwrap();
    fs::write(place.path("named.csv"), named).unwrap();
    fs::write(place.path("short.csv"), "1,2,3\n").unwrap();
    place.ok("train --data competition/train.csv --epochs 3 --batch 32 --device cpu --out run");

    let told = place.ok("predict run competition/test.csv --device cpu --json");
    let found = classes(&told);
    let right = found.iter().zip(&test.labels).filter(|(a, b)| **a == u64::from(**b)).count();
    assert!(found.len() == 50 && right > 35, "{right}");
    assert_eq!(lines(&told)[4]["image"], "competition/test.csv:5");
    let written = |line: &str| {
        place.ok(line);
        fs::read_to_string(place.path("out.csv")).unwrap()
    };
    let rows = |heading: &str, first: usize| {
        let rows: String =
            found.iter().enumerate().map(|(i, class)| format!("{},{class}\n", first + i)).collect();
        format!("{heading}\n{rows}")
    };
    assert_eq!(
        written("predict run competition/test.csv --device cpu --out out.csv"),
        rows("ImageId,Label", 1)
    );
    assert_eq!(written("predict run named.csv --device cpu --out out.csv"), rows("id,label", 1000));
    fs::write(place.path("competition/sample_submission.csv"), "Id,Category\n0,0\n1,0\n").unwrap();
    assert_eq!(
        written("predict run competition/test.csv --device cpu --out out.csv"),
        rows("Id,Category", 0)
    );
    let out = place.ok("predict run known.csv --device cpu");
    assert!(out.starts_with(&format!("known.csv:1: {}  ", found[0])), "{out}");
    let accuracy = format!("accuracy {:.2} % ({right} of 50 that say what they are)\n", 2.0 * right as f64);
    assert!(out.ends_with(&accuracy), "{accuracy}: {out}");
    place.fails("predict run short.csv --device cpu", 3, &["short.csv: ", "expected 784"]);
}
