//! Archives and folders of arrays that are written here and read back.

mod elements;
mod meaning;

use super::*;
use crate::data::Dataset;
use crate::data::formats::written::{npy, zip};

fn four(images: [Vec<u8>; 2], labels: [Vec<u8>; 2]) -> Vec<(&'static str, Vec<u8>)> {
    let ([a, b], [c, d]) = (images, labels);
    vec![("x_train", a), ("y_train", c), ("x_test", b), ("y_test", d), ("notes", b"anything".to_vec())]
}

fn good() -> Vec<(&'static str, Vec<u8>)> {
    four(
        [npy("|u1", "(3, 1, 2)", &[1, 2, 3, 4, 5, 6]), npy("|u1", "(1, 1, 2)", &[7, 8])],
        [npy("|u1", "(3,)", &[0, 2, 1]), npy("|u1", "(1,)", &[2])],
    )
}

#[test]
fn an_archive_is_read_stored_and_deflated() {
    for deflate in [false, true] {
        let Split { train, test, .. } = dataset("d", "f", &zip(&good(), deflate)).unwrap();
        assert_eq!((train.images.to_vec(), train.labels), (vec![1, 2, 3, 4, 5, 6], vec![0, 2, 1]));
        assert_eq!((test.images.to_vec(), test.labels, test.classes), (vec![7, 8], vec![2], 3));
        assert_eq!(
            (train.channels, train.height, train.width, train.encoding),
            (1, 1, 2, crate::data::Encoding::Ink)
        );
    }
    let renamed: Vec<_> = good()
        .into_iter()
        .zip(["train_images", "train_labels", "test_images", "test_labels", "val_images"])
        .map(|((_, content), name)| (name, content))
        .collect();
    assert_eq!(dataset("d", "f", &zip(&renamed, true)).unwrap().train.labels, [0, 2, 1]);
}

#[test]
fn damaged_archives_are_refused() {
    let refused = |bytes: &[u8]| dataset("d", "f", bytes).unwrap_err().to_string();
    assert_eq!(refused(b"PK"), "f: no directory of a zip archive found at the end, expected an .npz file");
    let whole = zip(&good(), true);
    for len in 0..whole.len() {
        assert!(dataset("d", "f", &whole[..len]).is_err(), "{len}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(refused(&longer).contains("no directory"));
    let mut lacking = good();
    lacking.remove(2);
    assert_eq!(
        refused(&zip(&lacking, true)),
        "f: y_test found, its pictures missing; \
         expected x_train, y_train, x_test and y_test, or images and labels, or the like"
    );
    let mut twice = good();
    twice.push(twice[0].clone());
    assert_eq!(refused(&zip(&twice, true)), "f: x_train.npy found twice, expected different names");
    // A byte of the content of a stored file: only its checksum tells.
    let mut stored = zip(&good(), false);
    let at = stored.windows(6).position(|window| window == [1, 2, 3, 4, 5, 6]).unwrap();
    stored[at] ^= 1;
    assert!(refused(&stored).starts_with("f: x_train.npy: the checksum "), "{}", refused(&stored));
    // A directory that promises less or more than the stream gives: its size is 24 bytes into the entry.
    for (promise, says) in
        [(5u32, "or more bytes found, expected 5"), (1 << 31, "expected 2147483648"), (u32::MAX, "at most")]
    {
        let mut bytes = whole.clone();
        let at = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        bytes[at + 24..at + 28].copy_from_slice(&promise.to_le_bytes());
        assert!(refused(&bytes).contains(says), "{}", refused(&bytes));
    }
}

#[test]
fn folders_and_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(spec("a.npz"), zip(&good(), true)).unwrap();
    std::fs::write(spec("classes.txt"), "zero\none\ntwo\n").unwrap();
    let whole = crate::data::load(&spec("a.npz")).unwrap();
    assert_eq!(
        (whole.train.name.as_str(), &whole.train.class_names[..]),
        ("a", &["zero", "one", "two"].map(String::from)[..])
    );
    assert_eq!(
        crate::data::load(&spec("")).unwrap().test,
        Dataset { name: whole_name(&dir), ..whole.test.clone() }
    );
    std::fs::write(spec("b.npz"), zip(&good(), true)).unwrap();
    let message = crate::data::load(&spec("")).unwrap_err().to_string();
    assert!(
        message.contains(": arrays: several .npz files found, a.npz, b.npz: one can be named itself; "),
        "{message}"
    );
    for (name, content) in good() {
        std::fs::write(spec(&format!("{name}.npy")), content).unwrap();
    }
    assert_eq!(crate::data::load(&spec("")).unwrap().train.images.to_vec(), whole.train.images.to_vec());
    assert_eq!(crate::data::load(&spec("x_train.npy")).unwrap().test.labels, whole.test.labels);
    std::fs::remove_file(spec("y_train.npy")).unwrap();
    let message = crate::data::load(&spec("")).unwrap_err().to_string();
    assert!(message.contains(": arrays: x_test, x_train, y_test found, labels missing; "), "{message}");
    std::fs::write(spec("classes.txt"), "zero\none\n").unwrap();
    let message = crate::data::load(&spec("a.npz")).unwrap_err().to_string();
    assert!(message.ends_with("classes.txt: 2 names found, expected 3 as there are classes"), "{message}");
}

#[test]
fn a_file_of_pictures_finds_its_labels() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let values: Vec<u8> = (0..12 * 25).map(|i| (i / 25 * 20) as u8).collect();
    let labels = |order: [u8; 2]| npy("|u1", "(12,)", &order.repeat(6));
    std::fs::write(spec("own.npy"), npy("|u1", "(12, 5, 5)", &values)).unwrap();
    let message = crate::data::load(&spec("own.npy")).unwrap_err().to_string();
    assert!(
        message.ends_with("no labels beside it found, expected labels.npy, y.npy or own_labels.npy"),
        "{message}"
    );
    std::fs::write(spec("Labels.NPY"), labels([3, 4])).unwrap();
    let split = crate::data::load(&spec("own.npy")).unwrap();
    assert_eq!((split.train.class_names.join(" "), split.train.name.as_str()), ("3 4".into(), "own"));
    assert_eq!((split.train.len(), split.test.label_counts()), (10, vec![1, 1]));
    // Those of its own name go before.
    std::fs::write(spec("own_labels.npy"), labels([5, 6])).unwrap();
    assert_eq!(crate::data::load(&spec("own.npy")).unwrap().train.class_names.join(" "), "5 6");
    std::fs::write(spec("images.npy"), npy("|u1", "(12, 5, 5)", &values)).unwrap();
    assert_eq!(crate::data::load(&spec("images.npy")).unwrap().train.class_names.join(" "), "3 4");
}

fn whole_name(dir: &tempfile::TempDir) -> String {
    dir.path().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn kuzushiji_is_read_as_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    for ((_, content), part) in
        good().into_iter().zip(["train-imgs", "train-labels", "test-imgs", "test-labels"])
    {
        std::fs::write(dir.path().join(format!("k49-{part}.npz")), zip(&[("arr_0", content)], true)).unwrap();
    }
    let split = crate::data::load(dir.path().to_str().unwrap()).unwrap();
    assert_eq!((split.train.labels, split.test.labels), (vec![0, 2, 1], vec![2]));
}
