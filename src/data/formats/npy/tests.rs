//! Arrays, archives and folders of them that are written here and read back.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};
use proptest::prelude::*;

use super::*;
use crate::data::{Dataset, Encoding};

/// An `.npy` file of version 1.
fn npy(descr: &str, shape: &str, content: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(content);
    bytes
}

/// A zip archive, deflated or stored.
fn zip(files: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let name = format!("{name}.npy");
        let packed = if deflate {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        } else {
            content.clone()
        };
        let mut sum = flate2::Crc::new();
        sum.update(content);
        let mut common = Vec::new();
        common.extend([20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0]);
        common.extend(sum.sum().to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        let local = bytes.len() as u32;
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        // An extra field in the local header alone, as NumPy writes it.
        bytes.extend([4, 0]);
        bytes.extend(name.as_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 12]);
        directory.extend(local.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([(files.len() as u16).to_le_bytes(); 2].concat());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn refused(bytes: &[u8]) -> String {
    let message = parse("a", bytes.to_vec()).unwrap_err().to_string();
    message.strip_prefix("a: ").unwrap().to_owned()
}

fn numbers(descr: &str, content: &[u8]) -> Vec<f64> {
    let size: usize = descr[2..].parse().unwrap();
    let array = parse("a", npy(descr, &format!("({},)", content.len() / size), content)).unwrap();
    array.numbers().collect()
}

#[test]
fn every_type_is_read() {
    assert_eq!(numbers("|u1", &[0, 200, 255]), [0.0, 200.0, 255.0]);
    assert_eq!(numbers("|b1", &[0, 1]), [0.0, 1.0]);
    assert_eq!(numbers("|i1", &[0, 127, 128, 255]), [0.0, 127.0, -128.0, -1.0]);
    assert_eq!(numbers("<u2", &[1, 2]), [513.0]);
    assert_eq!(numbers(">u2", &[1, 2]), [258.0]);
    assert_eq!(numbers("<i4", &(-7i32).to_le_bytes()), [-7.0]);
    assert_eq!(numbers(">i4", &(-7i32).to_be_bytes()), [-7.0]);
    assert_eq!(numbers("<i8", &(-7i64).to_le_bytes()), [-7.0]);
    assert_eq!(numbers("<u8", &u64::MAX.to_le_bytes()), [18_446_744_073_709_551_615.0]);
    assert_eq!(numbers("<f4", &1.5f32.to_le_bytes()), [1.5]);
    assert_eq!(numbers(">f8", &(-0.1f64).to_be_bytes()), [-0.1]);
    let array = parse("a", npy("<u2", "(2, 1, 3)", &[0; 12])).unwrap();
    assert_eq!((&array.shape[..], array.len(), array.is_empty()), (&[2, 1, 3][..], 6, false));
    // The other versions of the format differ in the length's length.
    let mut second = npy("|u1", "(3,)", &[1, 2, 3]);
    second[6] = 2;
    second.splice(10..10, [0, 0]);
    assert_eq!(parse("a", second).unwrap().numbers().collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
}

#[test]
fn malformed_arrays_are_refused() {
    assert_eq!(refused(b""), "0 bytes found, expected an array of NumPy");
    assert_eq!(refused(b"\x89PNG\r\n\x1a\n"), "no magic of NumPy found, expected \\x93NUMPY");
    let good = npy("|u1", "(2, 3)", &[0; 6]);
    let mut other = good.clone();
    other[6] = 9;
    assert_eq!(refused(&other), "version 9.0 of NumPy's format found, expected 1.0, 2.0 or 3.0");
    assert_eq!(refused(&good[..40]), "40 bytes found, expected a header of 118 bytes");
    let message = "5 bytes found after the header, expected 6 for the shape [2, 3]";
    assert_eq!(refused(&good[..good.len() - 1]), message);
    other = good.clone();
    other.push(0);
    assert_eq!(refused(&other), message.replace('5', "7"));
    assert_eq!(
        refused(&npy("<U4", "(2,)", &[0; 32])),
        "elements of the type \"<U4\" found, expected u1 to u8, i1 to i8, f4 or f8"
    );
    assert_eq!(
        refused(&npy("=u2", "(2,)", &[0; 4])),
        "elements of the type \"=u2\" found, expected < or > before it"
    );
    assert_eq!(
        refused(&npy("|u1", "(4294967296, 4294967296)", &[])),
        "the shape [4294967296, 4294967296] found, expected it to come to at most 2147483648 bytes"
    );
    // A claim alone reserves nothing.
    assert!(refused(&npy("|u1", "(2147483648,)", &[])).starts_with("0 bytes found after the header"));
    for (shape, what) in [
        ("(2, x)", "whole numbers as shape"),
        ("(2, -3)", "whole numbers as shape"),
        ("[2, 3]", "a list of sizes as shape"),
        ("(2, 3", "a list of sizes as shape"),
    ] {
        assert!(refused(&npy("|u1", shape, &[0; 6])).ends_with(&format!("expected {what}")), "{shape}");
    }
    let header = |text: &str| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        refused(&bytes)
    };
    let shape = "'shape': (1,)";
    for (text, what) in [
        ("nothing".to_owned(), "a dictionary"),
        ("{}".to_owned(), "descr, fortran_order and shape"),
        (format!("{{'descr': [('a', '<f4')], {shape}}}"), "numbers of one type"),
        (format!("{{'descr': '|u1' {shape}}}"), "a comma between two entries"),
        (format!("{{'descr': '|u1', 'fortran_order': 0, {shape}}}"), "True or False as fortran_order"),
        ("{'descr' '|u1'}".to_owned(), "a colon after a key"),
        ("{'descr: '|u1'}".to_owned(), "a colon after a key"),
        ("{'other': 1}".to_owned(), "the keys descr, fortran_order and shape"),
    ] {
        assert_eq!(header(&text), format!("the header {text:?} found, expected {what}"));
    }
    assert_eq!(
        header("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}"),
        "an array in Fortran's order found, expected C's (np.ascontiguousarray)"
    );
}

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
        assert_eq!((train.channels, train.height, train.width, train.encoding), (1, 1, 2, Encoding::Ink));
    }
    let renamed: Vec<_> = good()
        .into_iter()
        .zip(["train_images", "train_labels", "test_images", "test_labels", "val_images"])
        .map(|((_, content), name)| (name, content))
        .collect();
    assert_eq!(dataset("d", "f", &zip(&renamed, true)).unwrap().train.labels, [0, 2, 1]);
}

#[test]
fn shapes_and_types_of_pictures() {
    let of = |descr: &str, shape: &str, content: &[u8]| {
        let label = |count: u8| npy("<i8", &format!("({count}, 1)"), &vec![0; 8 * usize::from(count)]);
        let image = || npy(descr, shape, content);
        dataset("d", "f", &zip(&four([image(), image()], [label(2), label(2)]), true))
    };
    let shape = |split: &Split| [split.train.channels, split.train.height, split.train.width];
    let bytes: Vec<u8> = (0..12).collect();
    let last = of("|u1", "(2, 1, 2, 3)", &bytes).unwrap();
    assert_eq!((shape(&last), last.train.images.part(0..6).to_vec()), ([3, 1, 2], vec![0, 3, 1, 4, 2, 5]));
    assert_eq!(last.train.encoding, Encoding::Picture);
    let first = of("|u1", "(2, 3, 1, 2)", &bytes).unwrap();
    assert_eq!((shape(&first), first.train.images.to_vec()), ([3, 1, 2], bytes.clone()));
    let signal = of("|u1", "(2, 6)", &bytes).unwrap();
    assert_eq!((shape(&signal), signal.train.images.to_vec()), ([1, 1, 6], bytes.clone()));
    let fractions: Vec<u8> = [0.0f32, 1.0, 0.5, 0.2].iter().flat_map(|v| v.to_le_bytes()).collect();
    let fractions = of("<f4", "(2, 1, 2)", &fractions).unwrap();
    assert_eq!((shape(&fractions), fractions.train.images.to_vec()), ([1, 1, 2], vec![0, 255, 128, 51]));
    let values: Vec<u8> = [-2.0f32, 2.0, 0.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let series = of("<f4", "(2, 2)", &values).unwrap();
    assert_eq!((shape(&series), series.train.images.to_vec()), ([1, 1, 2], vec![0, 255, 128, 191]));
    assert_eq!(series.test.encoding, Encoding::Range { low: -2.0, high: 2.0 });
    for (descr, shape, content, message) in [
        ("<f4", "(2, 1, 2)", &values, "f: x_train.npy: the pixel -2 found at index 0, expected 0 to 1"),
        ("<i2", "(2, 1, 4)", &values, "f: x_train.npy: the pixel -16384 found at index 1, expected 0 to 255"),
        (
            "|u1",
            "(16,)",
            &values,
            "f: x_train.npy: the shape [16] found, expected N,L or N,H,W or N,H,W,C or N,C,H,W",
        ),
        (
            "|u1",
            "(4, 4)",
            &values,
            "f: y_train.npy: 2 labels found, expected 4 as there are images in f: x_train.npy",
        ),
    ] {
        assert_eq!(of(descr, shape, content).unwrap_err().to_string(), message);
    }
    assert_eq!(
        of("|u1", "(2, 0, 3)", &[]).unwrap_err().to_string(),
        "f: x_train.npy: the shape [2, 0, 3] found, expected no size to be zero"
    );
}

#[test]
fn labels_are_checked() {
    let with = |i: usize, array: Vec<u8>| {
        let mut files = good();
        files[i].1 = array;
        dataset("d", "f", &zip(&files, false)).unwrap_err().to_string()
    };
    assert_eq!(
        with(1, npy("|i1", "(3,)", &[0, 255, 1])),
        "f: y_train.npy: the label -1 found at index 1, expected a whole number of 0 to 255"
    );
    assert_eq!(
        with(1, npy("<f4", "(3,)", &[0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 0, 0])),
        "f: y_train.npy: the label 0.5 found at index 1, expected a whole number of 0 to 255"
    );
    assert_eq!(
        with(3, npy("|u1", "(1,)", &[3])),
        "f: y_test.npy: the label 3 found, expected less than 3, the classes of the training data"
    );
    assert_eq!(
        with(1, npy("|u1", "(3, 10)", &[0; 30])),
        "f: y_train.npy: the shape [3, 10] found, expected one label an image"
    );
    assert_eq!(
        with(2, npy("|u1", "(1, 2, 2)", &[0; 4])),
        "f: x_test.npy: images of 2x2 pixels found, expected 2x1 as in f: x_train.npy"
    );
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
        "f: no array x_test found, but x_train.npy, y_train.npy, y_test.npy, notes.npy; \
         expected x_train, y_train, x_test, y_test"
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
    assert!(message.ends_with("2 .npz files found, expected one; a file can be named itself"), "{message}");
    for (name, content) in good() {
        std::fs::write(spec(&format!("{name}.npy")), content).unwrap();
    }
    assert_eq!(crate::data::load(&spec("")).unwrap().train.images.to_vec(), whole.train.images.to_vec());
    std::fs::remove_file(spec("y_test.npy")).unwrap();
    let message = crate::data::load(&spec("")).unwrap_err().to_string();
    assert!(
        message.ends_with("no file y_test.npy found, expected x_train, y_train, x_test, y_test, each .npy")
    );
    std::fs::write(spec("classes.txt"), "zero\none\n").unwrap();
    let message = crate::data::load(&spec("a.npz")).unwrap_err().to_string();
    assert!(message.ends_with("classes.txt: 2 names found, expected 3 as there are classes"), "{message}");
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

proptest! {
    #[test]
    fn corruptions_never_panic(
        deflate in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = zip(&good(), deflate);
        let mut array = npy("<f4", "(2, 1)", &[0; 8]);
        for (at, value) in changes {
            for bytes in [&mut bytes, &mut array] {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
            array.truncate(keep.index(array.len()));
        }
        let _ = parse("a", array);
        if let Ok(split) = dataset("d", "f", &bytes) {
            prop_assert_eq!(split.train.len() * split.train.pixels(), split.train.images.len());
        }
    }
}
