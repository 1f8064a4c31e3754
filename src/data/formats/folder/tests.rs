//! Folders of pictures as people have them, and those that are refused.

use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

use super::*;
use crate::data::{Encoding, Reading, Split};

fn grey(dir: &Path, name: &str, value: u8) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(3, 2, |x, y| Luma([value + (3 * y + x) as u8])).save(path).unwrap();
}

fn colour(dir: &Path, name: &str, width: u32, height: u32) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, 100 + y as u8, 200])).save(path).unwrap();
}

fn load_with(dir: &Path, end: &str, skip_damaged: bool) -> Result<Split, String> {
    let path = dir.to_str().unwrap();
    crate::data::load_with(&format!("{path}{end}"), Reading { label: None, skip_damaged })
        .map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
}

fn load(dir: &Path, end: &str) -> Result<Split, String> {
    load_with(dir, end, false)
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("train/dog/b.png", 20),
        ("train/dog/a.pgm", 10),
        ("train/cat/x.png", 30),
        ("test/dog/1.png", 40),
        ("test/cat/2.png", 50),
    ] {
        grey(dir.path(), name, value);
    }
    dir
}

#[test]
fn parts_and_classes_are_folders() {
    let dir = tree();
    std::fs::write(dir.path().join("train/.hidden"), "x").unwrap();
    std::fs::write(dir.path().join("train/dog/.hidden"), "x").unwrap();
    let Split { train, test, .. } = load(dir.path(), "").unwrap();
    assert_eq!((train.channels, train.height, train.width, train.classes), (1, 2, 3, 2));
    assert_eq!(
        (&train.class_names[..], &train.labels[..]),
        (&["cat".to_owned(), "dog".to_owned()][..], &[0, 1, 1][..])
    );
    assert_eq!(train.images, [30, 31, 32, 33, 34, 35, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25]);
    assert_eq!((test.picture(0)[0], test.labels, test.encoding), (50, vec![0, 1], Encoding::Picture));
}

#[test]
fn one_colour_picture_makes_three_planes() {
    let dir = tree();
    colour(dir.path(), "test/cat/3.png", 3, 2);
    // Colour by its kind, but grey in every pixel.
    RgbImage::from_pixel(3, 2, Rgb([7; 3])).save(dir.path().join("train/cat/y.png")).unwrap();
    let Split { train, test, .. } = load(dir.path(), "").unwrap();
    assert_eq!((train.channels, test.channels), (3, 3));
    assert_eq!(train.picture(0), [30, 31, 32, 33, 34, 35].repeat(3));
    assert_eq!(train.picture(1), [7; 18]);
    assert_eq!(
        test.picture(1),
        [0, 1, 2, 0, 1, 2, 100, 100, 100, 101, 101, 101, 200, 200, 200, 200, 200, 200]
    );
    std::fs::remove_file(dir.path().join("test/cat/3.png")).unwrap();
    assert_eq!(load(dir.path(), "").unwrap().train.channels, 1);
}

#[test]
fn a_size_that_is_asked_for_is_made() {
    let dir = tree();
    colour(dir.path(), "train/cat/y.png", 40, 10);
    assert_eq!(
        load(dir.path(), "").unwrap_err(),
        "DIR/train/cat/y.png: 40x10 pixels found, expected 3x2 as in DIR/train/cat/x.png; \
         DIR@WIDTHxHEIGHT scales all pictures to one size"
    );
    let Split { train, .. } = load(dir.path(), "@8x4").unwrap();
    assert_eq!((train.channels, train.height, train.width), (3, 4, 8));
    // Cropped to 20x10 about the middle, then halved or so: red runs from 10 to 29.
    let red = &train.picture(1)[..8];
    assert!(red[0] >= 10 && red[7] <= 29 && red.is_sorted(), "{red:?}");
    assert_eq!(load(dir.path(), "@5").unwrap().test.picture(0).len(), 75);
    assert!(load(dir.path(), "@0x4").unwrap_err().contains("no such data"));
    for (text, size) in [
        ("32", Some([32, 32])),
        ("32x8", Some([8, 32])),
        ("", None),
        ("x", None),
        ("8x", None),
        ("+8", None),
        ("16385", None),
        ("8x8x8", None),
        ("-1", None),
    ] {
        assert_eq!(parse_size(text), size, "{text}");
    }
}

#[test]
fn one_in_six_is_held_out_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..120 {
        grey(dir.path(), &format!("{}/picture{i}.png", ["a", "b"][i % 2]), i as u8);
    }
    let first = load(dir.path(), "").unwrap();
    assert_eq!(first.train.len() + first.test.len(), 120);
    let of_class = |class| first.test.labels.iter().filter(|&&label| label == class).count();
    assert_eq!([of_class(0), of_class(1)], [10, 10]);
    assert!(
        first.held_out.iter().flatten().any(|file| file.starts_with("a/picture")),
        "{:?}",
        first.held_out
    );
    // Pictures that are added move few others.
    grey(dir.path(), "a/another.png", 200);
    grey(dir.path(), "b/one-more.png", 201);
    let second = load(dir.path(), "").unwrap();
    let values = |data: &crate::data::Dataset| {
        (0..data.len()).map(|i| data.picture(i)[0]).filter(|&v| v < 200).collect::<Vec<_>>()
    };
    let (before, after) = (values(&first.test), values(&second.test));
    assert!(before.iter().filter(|value| after.contains(value)).count() >= 18, "{before:?} {after:?}");
}

/// A tree of pictures of one value each, told by their paths.
fn planted(paths: &[(&str, u8)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    paths.iter().for_each(|(path, value)| grey(dir.path(), path, *value));
    dir
}

#[test]
fn parts_go_by_many_names() {
    for (train, test) in [
        ("Training", "TESTING"),
        ("train", "val"),
        ("TRAIN", "Valid"),
        ("training", "validation"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set", "test_set"),
        ("outer/mnist_png/training", "outer/mnist_png/testing"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (part, value) in [(train, 10), (train, 20), (test, 30)] {
            for class in ["a", "b"] {
                grey(dir.path(), &format!("{part}/{class}/{value}.png"), value);
            }
        }
        let split = load(dir.path(), "").unwrap();
        assert_eq!((split.train.len(), split.test.len(), split.train.classes), (4, 2, 2), "{train}");
        assert_eq!(split.test.picture(0)[0], 30);
        let told = split.notes.iter().any(|note| note.starts_with("the data is in "));
        assert_eq!(told, train.starts_with("outer"), "{:?}", split.notes);
    }
    // Of several parts to be judged by one is read, and the others are told.
    let dir = tree();
    grey(dir.path(), "val/dog/1.png", 0);
    grey(dir.path(), "validation/cat/1.png", 0);
    let split = load(dir.path(), "").unwrap();
    assert_eq!(
        (split.test.picture(0)[0], &split.notes[..]),
        (50, &["not used: val, validation".to_owned()][..])
    );
}

#[test]
fn without_a_test_part_a_share_is_drawn_and_told() {
    let paths: Vec<String> = (0..24).map(|i| format!("train/{}/{i}.png", ["a", "b"][i % 2])).collect();
    let paths: Vec<(&str, u8)> = paths.iter().map(|path| (path.as_str(), 9)).collect();
    let told = |more: &dyn Fn(&Path)| {
        let dir = planted(&paths);
        more(dir.path());
        let split = load(dir.path(), "").unwrap();
        assert_eq!((split.test.label_counts(), split.train.len()), (vec![2, 2], 20));
        assert!(split.held_out.unwrap()[0].replace('\\', "/").starts_with("train/a/"));
        split.notes.concat()
    };
    let end = ": a picture in six of each class of train is the test";
    assert_eq!(told(&|_| ()), format!("there is no test part beside train{end}"));
    assert_eq!(told(&|dir| grey(dir, "test/1.png", 9)), format!("the pictures in test are of no class{end}"));
    assert_eq!(
        told(&|dir| std::fs::create_dir_all(dir.join("test/a")).unwrap()),
        format!("test holds no pictures{end}")
    );
}

#[test]
fn classes_are_the_folders_with_pictures_of_both_parts() {
    let dir = tree();
    grey(dir.path(), "test/bird/1.png", 60);
    std::fs::create_dir(dir.path().join("train/fish")).unwrap();
    let split = load(dir.path(), "").unwrap();
    assert_eq!(split.train.class_names, ["bird", "cat", "dog"]);
    assert_eq!((split.train.labels, split.test.labels), (vec![1, 2, 2], vec![0, 1, 2]));
    assert_eq!(split.notes, ["passed over 1 folder without a picture: fish"]);
    // Numbers are in the order of their values, under the names that they have.
    let dir = planted(&[
        ("10/a.png", 1),
        ("10/b.png", 2),
        ("9/a.png", 3),
        ("9/b.png", 4),
        ("007/a.png", 5),
        ("x/a.png", 6),
    ]);
    let split = load(dir.path(), "").unwrap();
    assert_eq!(split.train.class_names, ["007", "9", "10", "x"]);
    assert_eq!(split.train.picture(0)[0], 5);
    // A train is a class among others.
    let dir = planted(&[
        ("car/1.png", 1),
        ("car/2.png", 1),
        ("train/1.png", 2),
        ("train/2.png", 2),
        ("plane/1.png", 3),
    ]);
    assert_eq!(load(dir.path(), "").unwrap().train.class_names, ["car", "plane", "train"]);
}

#[test]
fn what_systems_leave_behind_is_passed_over_and_counted() {
    let dir = tree();
    for path in [
        "Thumbs.db",
        "train/desktop.ini",
        "train/labels.csv",
        "train/dog/.DS_Store",
        "test/cat/Thumbs.db",
        "README.md",
        "__MACOSX/train/dog/._a.png",
        "train/.ipynb_checkpoints/a-checkpoint.png",
        "train/dog/.ipynb_checkpoints/a-checkpoint.png",
        "test/LICENSE",
    ] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let split = load(dir.path(), "").unwrap();
    assert_eq!((split.train.classes, split.train.len(), split.test.len()), (2, 3, 2));
    assert_eq!(
        split.notes,
        [
            "passed over 10 entries that belong to no class: README.md, Thumbs.db, __MACOSX, .ipynb_checkpoints, \
          desktop.ini, labels.csv, .DS_Store, .ipynb_checkpoints and 2 more"
        ]
    );
}

#[test]
fn tables_and_archives_beside_pictures_are_passed_over() {
    let dir = planted(&[("a/1.png", 1), ("a/2.png", 2), ("b/1.png", 3), ("b/2.png", 4)]);
    std::fs::write(dir.path().join("train.csv"), "file,label\na/1.png,a\nb/1.png,b\n").unwrap();
    std::fs::write(dir.path().join("features.npz"), "x").unwrap();
    let split = load(dir.path(), "").unwrap();
    assert_eq!(split.train.class_names, ["a", "b"]);
    assert_eq!(split.notes, ["passed over 2 entries that belong to no class: features.npz, train.csv"]);
    // A table of pixels is data.
    std::fs::write(dir.path().join("train.csv"), "label,p,q\n0,1,2\n1,2,3\n0,1,2\n1,2,3\n").unwrap();
    assert_eq!(load(dir.path(), "").unwrap().train.class_names, ["0", "1"]);
}

#[test]
fn every_kind_of_picture_is_read_whatever_it_is_called() {
    // Few colours, so that what has a palette holds them.
    let picture = RgbImage::from_fn(6, 5, |x, y| Rgb([255 * (x % 2) as u8, 255 * (y % 2) as u8, 0]));
    let like = {
        let dir = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            std::fs::create_dir(dir.path().join(class)).unwrap();
            (0..2).for_each(|i| picture.save(dir.path().join(format!("{class}/{i}.png"))).unwrap());
        }
        load(dir.path(), "").unwrap()
    };
    for kind in [
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Tga,
        ImageFormat::Qoi,
        ImageFormat::Ico,
        ImageFormat::Farbfeld,
        ImageFormat::Pnm,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = DynamicImage::ImageRgb8(picture.clone());
        let picture = match kind {
            ImageFormat::Ico => DynamicImage::ImageRgba8(picture.into_rgba8()),
            ImageFormat::Farbfeld => DynamicImage::ImageRgba16(picture.into_rgba16()),
            _ => picture,
        };
        picture.write_to(&mut bytes, kind).unwrap();
        for class in ["a", "b"] {
            std::fs::create_dir(dir.path().join(class)).unwrap();
            for name in ["0.png", "1.dat"] {
                std::fs::write(dir.path().join(class).join(name), bytes.get_ref()).unwrap();
            }
        }
        let split = load(dir.path(), "").unwrap();
        assert_eq!(split.train.images, like.train.images, "{kind:?}");
    }
}

#[test]
fn damaged_pictures_are_found_all_at_once_and_can_be_skipped() {
    let dir = tree();
    let whole = std::fs::read(dir.path().join("test/dog/1.png")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("train/dog/0.png", &whole[..40]);
    write("test/cat/9.png", &whole[..whole.len() / 2]);
    write("train/dog/empty.png", b"");
    write("train/dog/notes.txt", b"what this is");
    write("train/cat/page.jpg", b"<html>404</html>");
    let file = std::fs::File::create(dir.path().join("train/dog/c.png")).unwrap();
    file.set_len(MAX_FILE + 1).unwrap();
    let told = load(dir.path(), "").unwrap_err();
    for part in [
        "DIR: 4 damaged pictures and 2 files that are no pictures among 11 files found: ",
        "train/cat/page.jpg (no picture), train/dog/0.png (",
        "train/dog/c.png (67108865 bytes, expected at most 67108864), train/dog/empty.png (empty), \
         train/dog/notes.txt (no picture), test/cat/9.png (",
        "; --skip-damaged goes on without, expected PNG, JPEG, PNM, BMP, ",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let split = load_with(dir.path(), "", true).unwrap();
    let clean = load(tree().path(), "").unwrap();
    assert_eq!((split.train.images, split.test.labels), (clean.train.images, clean.test.labels));
    let note = split.notes.concat();
    assert!(
        note.starts_with(
            "went on without 4 damaged pictures and 2 files that are no pictures among 11 files: "
        )
    );
    // A class of which nothing is left is none.
    write("train/bird.png", b"");
    std::fs::create_dir(dir.path().join("train/bird")).unwrap();
    write("train/bird/1.png", b"");
    assert_eq!(load_with(dir.path(), "", true).unwrap().train.classes, 2);
    let one = tree();
    std::fs::write(one.path().join("test/dog/1.png"), &whole[..40]).unwrap();
    let told = load(one.path(), "").unwrap_err();
    assert!(told.starts_with("DIR: 1 damaged picture among 5 files found: test/dog/1.png ("), "{told}");
}

#[test]
fn what_does_not_belong_is_refused() {
    let with = |change: &dyn Fn(&Path)| {
        let dir = tree();
        change(dir.path());
        load(dir.path(), "").unwrap_err()
    };
    assert_eq!(
        with(&|dir| grey(dir, "train/dog/more/1.png", 0)),
        "DIR/train/dog: 1 folder in a class's folder found (more, …), expected pictures only"
    );
    assert_eq!(
        with(&|dir| {
            for part in ["train", "test"] {
                std::fs::remove_dir_all(dir.join(part).join("dog")).unwrap();
            }
        }),
        "DIR/train: 1 class, cat, found, expected 2 to 256"
    );
    let message = with(&|dir| std::fs::remove_dir_all(dir.join("train")).unwrap());
    assert!(message.starts_with("DIR: folders: test found, train missing; expected IDX files"), "{message}");
    // Pictures that no folder gives a class.
    let flat = planted(&[("train/1.png", 0), ("train/2.png", 1), ("test/3.png", 2)]);
    let message = load(flat.path(), "").unwrap_err();
    let says =
        "DIR: folders: test holds pictures, expected a folder for each class in it; folders: train holds ";
    assert!(message.starts_with(says), "{message}");
    let bare = planted(&[("1.png", 0)]);
    let message = load(bare.path(), "").unwrap_err();
    assert!(
        message.contains("the picture 1.png found in no folder, expected a folder for each class"),
        "{message}"
    );
    assert!(load(bare.path(), "@8").unwrap_err().contains("the picture 1.png found in no folder"));
}
