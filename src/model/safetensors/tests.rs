//! The format, its refusals, and what random bytes do to it.

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

const WEIGHT: [f32; 6] = [0.0, -0.0, 1.5, f32::MAX, f32::MIN_POSITIVE, -1e-40];

fn metadata() -> BTreeMap<String, String> {
    (0..9).map(|i| (format!("key {i}"), format!("\"value\"\n{i}"))).collect()
}

fn sample() -> Vec<u8> {
    encode(
        &[
            ("conv1.weight".to_owned(), vec![2, 3], &WEIGHT),
            ("conv1.bias".to_owned(), vec![2], &[1.0, 2.0]),
            ("scalar".to_owned(), vec![], &[7.0]),
            ("empty".to_owned(), vec![0, 4], &[]),
        ],
        &metadata(),
    )
    .unwrap()
}

/// A file with the given header, whatever it says.
fn file(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn refused(bytes: &[u8]) -> String {
    let message = decode("w", bytes).unwrap_err().to_string();
    message.strip_prefix("w: ").unwrap().to_owned()
}

#[test]
fn what_is_written_is_read_back() {
    let (tensors, found) = decode("w", &sample()).unwrap();
    assert_eq!(found, metadata());
    assert_eq!(tensors.len(), 4);
    assert_eq!(tensors["conv1.weight"].shape, [2, 3]);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&tensors["conv1.weight"].data), bits(&WEIGHT));
    assert_eq!(tensors["conv1.bias"], Tensor { shape: vec![2], data: vec![1.0, 2.0] });
    assert_eq!(tensors["scalar"], Tensor { shape: vec![], data: vec![7.0] });
    assert_eq!(tensors["empty"], Tensor { shape: vec![0, 4], data: vec![] });
    let nothing = encode(&[], &BTreeMap::new()).unwrap();
    assert_eq!(decode("w", &nothing).unwrap(), (Tensors::new(), BTreeMap::new()));
}

#[test]
fn the_bytes_are_always_the_same() {
    assert_eq!(sample(), sample());
    let bytes = encode(
        &[("a".to_owned(), vec![1], &[1.0])],
        &BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
    )
    .unwrap();
    let header = r#"{"__metadata__":{"a":"1","b":"2"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut expected = vec![88, 0, 0, 0, 0, 0, 0, 0];
    expected.extend(format!("{header:88}").as_bytes());
    expected.extend([0, 0, 0x80, 0x3f]);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
}

/// The format's own library reads what is written, and what it writes is read.
#[test]
fn the_reference_library_agrees() {
    let bytes = sample();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let (ours, _) = decode("w", &bytes).unwrap();
    assert_eq!(theirs.len(), ours.len());
    for (name, view) in theirs.tensors() {
        assert_eq!(view.dtype(), Dtype::F32);
        assert_eq!(view.shape(), ours[&name].shape);
        let data: Vec<u8> = ours[&name].data.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(view.data(), data);
    }
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().clone().unwrap().into_iter().collect::<BTreeMap<_, _>>(), metadata());
    let rewritten = safetensors::serialize(theirs.tensors(), header.metadata().clone()).unwrap();
    assert_eq!(decode("w", &rewritten).unwrap(), decode("w", &bytes).unwrap());
}

#[test]
fn what_cannot_be_read_back_is_not_written() {
    let error = encode(
        &[
            ("a".to_owned(), vec![2], &[1.0]),
            ("a".to_owned(), vec![2], &[1.0, f32::INFINITY]),
            ("__metadata__".to_owned(), vec![1], &[1.0]),
            ("b".to_owned(), vec![usize::MAX, 2], &[1.0]),
        ],
        &BTreeMap::new(),
    )
    .unwrap_err();
    let Error::Weights { path, problems } = error else { panic!("{error}") };
    assert_eq!(path, "weights to be saved");
    assert_eq!(
        problems,
        [
            "a: 1 values, which do not fit the shape [2]",
            "a: the name is used twice",
            "a: value 1 is inf, expected a finite number",
            "__metadata__: the name is reserved for the metadata",
            "b: 1 values, which do not fit the shape [18446744073709551615, 2]",
        ]
    );
}

#[test]
fn other_types_are_refused_by_name() {
    let header = r#"{
        "conv1.weight": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "conv1.bias": {"dtype": "I16", "shape": [2], "data_offsets": [8, 12]},
        "fine": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
        "fc.bias": {"dtype": "U16", "shape": [2], "data_offsets": [16, 20]},
        "not fine": {"dtype": "F32", "shape": [4], "data_offsets": [20, 36]}
    }"#;
    let mut values = vec![0; 20];
    for value in [0.0, f32::NAN, 2.0, f32::NEG_INFINITY] {
        values.extend(value.to_le_bytes());
    }
    let Error::Weights { path, problems } = decode("w", &file(header, &values)).unwrap_err() else {
        panic!()
    };
    assert_eq!(path, "w");
    assert_eq!(
        problems,
        [
            "conv1.bias: dtype I16, expected F32, F16, BF16 or F64",
            "conv1.weight: dtype I64, expected F32, F16, BF16 or F64",
            "fc.bias: dtype U16, expected F32, F16, BF16 or F64",
            "not fine: value 1 is NaN, expected a finite number (and 1 more)",
        ]
    );
}

/// PyTorch counts the batches of every batch normalisation; what counts something else is no such number.
#[test]
fn counted_batches_are_left_out() {
    let norm = |counter: &str, dtype: &str, shape: &str, bytes: usize| {
        let end = 8 + bytes;
        let header = format!(
            r#"{{"bn.weight": {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
                 "bn.running_mean": {{"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
                 "{counter}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [8, {end}]}}}}"#
        );
        file(&header, &vec![0; end])
    };
    let counter = "bn.num_batches_tracked";
    for (dtype, bytes) in [("I64", 8), ("U64", 8), ("I32", 4), ("U32", 4), ("I16", 2), ("U16", 2), ("I8", 1)]
    {
        let (tensors, _) = decode("w", &norm(counter, dtype, "[]", bytes)).unwrap();
        assert!(tensors.keys().eq(["bn.running_mean", "bn.weight"]), "{dtype}: {tensors:?}");
    }
    let refusals = [
        // No normalisation of that name; no name; a table; a number that is not whole.
        ("cn.num_batches_tracked", "I64", "[]", 8),
        ("bn.batches", "I64", "[]", 8),
        (".num_batches_tracked", "I64", "[]", 8),
        (counter, "I64", "[2]", 16),
        (counter, "BOOL", "[]", 1),
    ];
    for (name, dtype, shape, bytes) in refusals {
        let message = refused(&norm(name, dtype, shape, bytes));
        assert_eq!(message, format!("{name}: dtype {dtype}, expected F32, F16, BF16 or F64"));
    }
    // As a float it is a tensor like any other, and the networks know none of that name.
    assert!(decode("w", &norm(counter, "F32", "[]", 4)).unwrap().0.contains_key(counter));
}

#[test]
fn a_damaged_file_is_refused() {
    assert_eq!(refused(b""), "0 bytes found, expected a safetensors file, which has at least 8");
    assert_eq!(refused(b"seven b"), "7 bytes found, expected a safetensors file, which has at least 8");
    let follow = "not a safetensors file, or cut short";
    assert_eq!(
        refused(b"\x89PNG\r\n\x1a\n and so on"),
        format!("a header of 727905341920923785 bytes is announced and 10 bytes follow: {follow}")
    );
    let whole = sample();
    assert_eq!(
        refused(&whole[..100]),
        format!(
            "a header of {} bytes is announced and 92 bytes follow: {follow}",
            u64::from_le_bytes(*whole.first_chunk().unwrap())
        )
    );
    assert_eq!(
        refused(&whole[..whole.len() - 3]),
        "33 bytes of values found, expected 36: the file is cut short"
    );
    let mut long = whole.clone();
    long.push(0);
    assert_eq!(refused(&long), "37 bytes of values found, expected 36");
}

#[test]
fn a_false_header_is_refused() {
    let not = "the header is not that of a safetensors file: ";
    assert_eq!(refused(&file("", b"")), format!("{not}EOF while parsing a value at line 1 column 0"));
    for header in
        ["nonsense", "[]", "{} {}", r#"{"__metadata__": {"a": 1}}"#, "{\"a\u{1b}\": 1}", &"[".repeat(9999)]
    {
        let message = refused(&file(header, b""));
        assert!(message.starts_with(not) && !message.contains('\u{1b}'), "{message}");
    }
    assert!(refused(&[&[2, 0, 0, 0, 0, 0, 0, 0], &b"\xff\xff"[..]].concat()).starts_with(not));
    let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{from}, {to}]}}"#)
    };
    let one = tensor("F32", "[1]", 0, 4);
    assert!(
        refused(&file(&format!(r#"{{"a": {one}, "a": {one}}}"#), &[0; 4]))
            .starts_with(&format!("{not}the name a is used twice"))
    );
    assert!(
        refused(&file(&format!(r#"{{"a": {}}}"#, tensor("F31", "[1]", 0, 4)), &[0; 4]))
            .starts_with(&format!("{not}unknown variant `F31`"))
    );
    let itself = "the header contradicts itself: ";
    for (shape, from, to) in [("[2]", 0, 4), ("[1]", 4, 8), ("[1]", 4, 0), ("[4611686018427387904, 4]", 0, 0)]
    {
        let header = format!(r#"{{"a": {}}}"#, tensor("F32", shape, from, to));
        let message = refused(&file(&header, &[0; 8]));
        assert!(message.starts_with(itself), "{message}");
    }
    // Sizes that each are possible and together exceed what can be counted.
    let quarter = 1u64 << 60;
    let huge: Vec<String> = (0..15)
        .map(|i| {
            let shape = format!("[{}]", quarter / 4);
            format!(r#""{i}": {}"#, tensor("F32", &shape, i * quarter, (i + 1) * quarter))
        })
        .chain([format!(r#""x": {}"#, tensor("U8", &format!("[{}]", quarter - 1), 15 * quarter, u64::MAX))])
        .collect();
    assert_eq!(
        refused(&file(&format!("{{{}}}", huge.join(",")), &[0; 8])),
        format!("8 bytes of values found, expected {}: the file is cut short", u64::MAX)
    );
}

#[test]
fn all_differences_are_listed() {
    let (mut tensors, _) = decode("w", &sample()).unwrap();
    let expected = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    let right = [
        expected("conv1.weight", &[2, 3]),
        expected("conv1.bias", &[2]),
        expected("scalar", &[]),
        expected("empty", &[0, 4]),
    ];
    check("w", &tensors, &right).unwrap();
    tensors.insert("long".to_owned(), Tensor { shape: vec![2], data: vec![0.0; 3] });
    let error = check(
        "w",
        &tensors,
        &[
            expected("conv1.weight", &[3, 2]),
            expected("conv1.bias", &[2]),
            expected("fc.weight", &[10, 84]),
            expected("long", &[2]),
        ],
    )
    .unwrap_err();
    let Error::Weights { path, problems } = error else { panic!("{error}") };
    assert_eq!(path, "w");
    assert_eq!(
        problems,
        [
            "conv1.weight: shape [2, 3], expected [3, 2]",
            "fc.weight: missing, expected shape [10, 84]",
            "long: 3 values, which do not fit the shape [2]",
            "empty: not expected, has shape [0, 4]",
            "scalar: not expected, has shape []",
        ]
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        header in prop::collection::vec(any::<u8>(), 0..80),
        values in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let _ = decode("w", &header);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(&header);
        bytes.extend(&values);
        let _ = decode("w", &bytes);
    }

    #[test]
    fn corruptions_never_panic(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), b'0'..=b'9', Just(b'"'), Just(b',')]),
            0..6,
        ),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = sample();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        // What is accepted has to be consistent.
        for tensor in decode("w", &bytes).map(|(tensors, _)| tensors).unwrap_or_default().values() {
            prop_assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
        }
    }

    #[test]
    fn any_weights_make_the_round_trip(
        values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..40),
        name in "\\PC{0,8}",
    ) {
        let bytes = encode(&[(name.clone(), vec![values.len()], &values)], &BTreeMap::new()).unwrap();
        let (tensors, _) = decode("w", &bytes).unwrap();
        prop_assert_eq!(&tensors[&name].data, &values);
        prop_assert_eq!(&tensors[&name].shape, &[values.len()]);
    }
}
