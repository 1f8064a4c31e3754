//! Elements of every type, and arrays that are refused.

use proptest::prelude::*;

use super::{four, good, npy, zip};
use crate::data::formats::npy::{dataset, parse};

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
    // 1, -2, the least of all, the greatest, one third.
    let halves = [0x3c00u16, 0xc000, 0x0001, 0x7bff, 0x3555];
    let exact = [1.0, -2.0, 5.960_464_477_539_063e-8, 65504.0, 0.333_251_953_125];
    assert_eq!(numbers("<f2", &halves.map(u16::to_le_bytes).concat()), exact);
    assert_eq!(numbers(">f2", &halves.map(u16::to_be_bytes).concat()), exact);
    assert!(
        numbers("<f2", &[0x00, 0x7e])[0].is_nan() && numbers("<f2", &[0x00, 0xfc])[0] == f64::NEG_INFINITY
    );
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
        refused(&npy("<c8", "(2,)", &[0; 16])),
        "elements of the type \"<c8\" found, expected u1 to u8, i1 to i8, f2 to f8, b1, S or U"
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
    let told = refused(&npy("|O", "(2,)", b"\x80\x04pickled."));
    assert_eq!(
        told,
        "Python objects (a pickle) found, expected numbers or texts; in Python: \
         np.save(\"a\", np.array(np.load(\"a\", allow_pickle=True).tolist()))"
    );
    let archive = zip(&four([npy("|O", "(2,)", b"..."), vec![]], [vec![], vec![]]), false);
    let told = dataset("d", "dir/f.npz", &archive).unwrap_err().to_string();
    assert!(
        told.ends_with(
            "in Python: d = np.load(\"f.npz\", allow_pickle=True); \
             np.savez(\"plain.npz\", **{k: np.array(d[k].tolist()) for k in d})"
        ),
        "{told}"
    );
}

#[test]
fn fortran_order_is_put_into_c_order() {
    // Pictures 2 x 3 x 2 whose bytes say where they are: 100 n + 10 y + x.
    let value = |n: u8, y: u8, x: u8| 100 * n + 10 * y + x;
    let mut fortran = Vec::new();
    for x in 0..2 {
        for y in 0..3 {
            (0..2).for_each(|n| fortran.extend([value(n, y, x), 0]));
        }
    }
    let mut file = npy("<u2", "(2, 3, 2)", &fortran);
    let at = file.windows(5).position(|window| window == b"False").unwrap();
    file.splice(at..at + 5, *b"True ");
    let array = parse("a", file).unwrap();
    let expected: Vec<f64> = (0..12u8).map(|i| f64::from(value(i / 6, i / 2 % 3, i % 2))).collect();
    assert_eq!(array.numbers().collect::<Vec<_>>(), expected);
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
