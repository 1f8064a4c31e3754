//! Weights and what goes with them, in files of the safetensors format.
//!
//! Every tensor is little-endian 32-bit floats; counters and settings travel as strings in the
//! metadata. Of what PyTorch writes, only the batches that a
//! batch normalisation has counted are passed over: no network here reads them.

use std::{collections::BTreeMap, fmt};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result};

/// The header's key for the metadata, which no tensor may have for its name.
const METADATA: &str = "__metadata__";

/// The longest header, in bytes, that readers of the format accept.
const MAX_HEADER: usize = 100_000_000;

/// One array of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The sizes, outermost first; none for a single number.
    pub shape: Vec<usize>,
    /// The values, row-major, as many as the product of the sizes.
    pub data: Vec<f32>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Writes tensors, each a name, a shape and its row-major values, and metadata as a safetensors file.
///
/// The tensors stay in the order given; the same arguments give the same bytes on every machine.
///
/// # Errors
///
/// [`Error::Weights`], with all problems, when a name is used twice or reserved, the number of values
/// does not fit the shape, or a value is not finite, which [`decode`] would refuse; or when the names
/// and metadata come to more than 100 MB.
pub fn encode(
    tensors: &[(String, Vec<usize>, &[f32])],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let refuse = |problems| Error::Weights { path: "weights to be saved".to_owned(), problems };
    let mut problems = Vec::new();
    let mut entries = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        entries.push(format!("{}:{}", json(METADATA)?, json(metadata)?));
    }
    let mut names = std::collections::BTreeSet::new();
    let mut offset = 0;
    for (name, shape, data) in tensors {
        let label = printable(name);
        if name == METADATA {
            problems.push(format!("{label}: the name is reserved for the metadata"));
        } else if !names.insert(name) {
            problems.push(format!("{label}: the name is used twice"));
        }
        problems.extend(wrong_len(&label, shape, data.len()));
        problems.extend(not_finite(&label, data.iter().copied()));
        let end = offset + size_of_val(*data);
        entries.push(format!(
            r#"{}:{{"dtype":"F32","shape":{},"data_offsets":[{offset},{end}]}}"#,
            json(name)?,
            json(shape)?
        ));
        offset = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    // Readers that map the file expect the values to start at a multiple of 8.
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    if header.len() > MAX_HEADER {
        problems.push(format!("a header of {} bytes found, expected at most {MAX_HEADER}", header.len()));
    }
    if !problems.is_empty() {
        return Err(refuse(problems));
    }
    let mut bytes = Vec::with_capacity(8 + header.len() + offset);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    for (_, _, data) in tensors {
        bytes.extend(data.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(bytes)
}

/// Reads a safetensors file: its tensors and its metadata. `name` is what errors call the file.
///
/// PyTorch keeps an integer `X.num_batches_tracked` beside every `X.running_mean`; it is left out.
///
/// # Errors
///
/// [`Error::Data`] when `bytes` are not a whole safetensors file and nothing else;
/// [`Error::Weights`], with all problems, when a tensor's type is not F32 or a value is not finite.
pub fn decode(name: &str, bytes: &[u8]) -> Result<(Tensors, BTreeMap<String, String>)> {
    let damaged = |message| Error::Data { path: name.to_owned(), message };
    let Some((length, body)) = bytes.split_first_chunk::<8>() else {
        return Err(damaged(format!(
            "{} bytes found, expected a safetensors file, which has at least 8",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    let Some((header, values)) = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER)
        .and_then(|length| body.split_at_checked(length))
    else {
        return Err(damaged(format!(
            "a header of {length} bytes is announced and {} bytes follow: not a safetensors file, or cut short",
            body.len()
        )));
    };
    let Header { mut tensors, metadata } = serde_json::from_slice(header).map_err(|e| {
        damaged(format!("the header is not that of a safetensors file: {}", printable(&e.to_string())))
    })?;
    // The format leaves the order of the header's entries open; the check goes by position.
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let layout = Metadata::new(None, tensors.clone())
        .map_err(|e| damaged(format!("the header contradicts itself: {}", printable(&e.to_string()))))?;
    if layout.data_len() != values.len() {
        let cut = if values.len() < layout.data_len() { ": the file is cut short" } else { "" };
        return Err(damaged(format!(
            "{} bytes of values found, expected {}{cut}",
            values.len(),
            layout.data_len()
        )));
    }

    let counters: std::collections::BTreeSet<String> = tensors
        .iter()
        .filter_map(|(tensor, _)| tensor.strip_suffix(".running_mean"))
        .map(|norm| format!("{norm}.num_batches_tracked"))
        .collect();
    let mut decoded = Tensors::new();
    let mut problems = Vec::new();
    for (tensor, TensorInfo { dtype, shape, data_offsets: (start, end) }) in tensors {
        if integer(dtype) && shape.is_empty() && counters.contains(&tensor) {
            continue;
        }
        let label = printable(&tensor);
        if dtype != Dtype::F32 {
            problems.push(format!("{label}: dtype {dtype}, expected F32"));
            continue;
        }
        // The layout was checked above; an empty slice in place of a panic costs nothing.
        let values = values.get(start..end).unwrap_or_default();
        let data: Vec<f32> =
            values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        problems.extend(not_finite(&label, data.iter().copied()));
        decoded.insert(tensor, Tensor { shape, data });
    }
    if problems.is_empty() {
        Ok((decoded, metadata))
    } else {
        // In the order of the names, which is the order people look them up in.
        problems.sort();
        Err(Error::Weights { path: name.to_owned(), problems })
    }
}

/// Compares tensors with the names and shapes a network expects. `name` is what errors call the file.
///
/// # Errors
///
/// [`Error::Weights`] with every difference: tensors that are missing, have another shape, hold
/// another number of values than their shape says, or are not expected.
pub fn check(name: &str, tensors: &Tensors, expected: &[(String, Vec<usize>)]) -> Result<()> {
    let mut problems = Vec::new();
    for (tensor, shape) in expected {
        let label = printable(tensor);
        match tensors.get(tensor) {
            None => problems.push(format!("{label}: missing, expected shape {shape:?}")),
            Some(found) if found.shape != *shape => {
                problems.push(format!("{label}: shape {:?}, expected {shape:?}", found.shape));
            }
            Some(found) => problems.extend(wrong_len(&label, shape, found.data.len())),
        }
    }
    let known: std::collections::BTreeSet<_> = expected.iter().map(|(tensor, _)| tensor).collect();
    for (tensor, found) in tensors.iter().filter(|(tensor, _)| !known.contains(tensor)) {
        problems.push(format!("{}: not expected, has shape {:?}", printable(tensor), found.shape));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Weights { path: name.to_owned(), problems }) }
}

/// The header of a file, as far as JSON can tell.
struct Header {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to tensors")
            }

            /// Derived code would keep the last of two tensors with one name; which is meant is unknown.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut names = std::collections::BTreeSet::new();
                let mut header = Header { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("the name {name} is used twice")));
                    }
                    if name == METADATA {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The first value that is not finite, as a problem.
fn not_finite(label: &str, values: impl Iterator<Item = f32>) -> Option<String> {
    let mut wrong = values.enumerate().filter(|(_, value)| !value.is_finite());
    let (at, value) = wrong.next()?;
    let more = match wrong.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("{label}: value {at} is {value}, expected a finite number{more}"))
}

/// Whether a type is one of whole numbers.
fn integer(dtype: Dtype) -> bool {
    use Dtype::{I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
}

/// A number of values that is not the product of the sizes, as a problem.
fn wrong_len(label: &str, shape: &[usize], len: usize) -> Option<String> {
    let expected = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    (expected != Some(len)).then(|| format!("{label}: {len} values, which do not fit the shape {shape:?}"))
}

/// A name out of a file, without what would control a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Anything as JSON; strings, numbers and maps of them cannot fail, but the signature says so.
fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::Weights { path: "weights to be saved".to_owned(), problems: vec![e.to_string()] })
}

#[cfg(test)]
mod tests {
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
        let header =
            r#"{"__metadata__":{"a":"1","b":"2"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
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
            "conv1.weight": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
            "conv1.bias": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
            "fine": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
            "fc.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [16, 20]},
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
                "conv1.bias: dtype F16, expected F32",
                "conv1.weight: dtype F64, expected F32",
                "fc.bias: dtype BF16, expected F32",
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
        for (dtype, bytes) in
            [("I64", 8), ("U64", 8), ("I32", 4), ("U32", 4), ("I16", 2), ("U16", 2), ("I8", 1)]
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
            (counter, "F64", "[]", 8),
            (counter, "BOOL", "[]", 1),
        ];
        for (name, dtype, shape, bytes) in refusals {
            let message = refused(&norm(name, dtype, shape, bytes));
            assert_eq!(message, format!("{name}: dtype {dtype}, expected F32"));
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
        for header in [
            "nonsense",
            "[]",
            "{} {}",
            r#"{"__metadata__": {"a": 1}}"#,
            "{\"a\u{1b}\": 1}",
            &"[".repeat(9999),
        ] {
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
        for (shape, from, to) in
            [("[2]", 0, 4), ("[1]", 4, 8), ("[1]", 4, 0), ("[4611686018427387904, 4]", 0, 0)]
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
            .chain([format!(
                r#""x": {}"#,
                tensor("U8", &format!("[{}]", quarter - 1), 15 * quarter, u64::MAX)
            )])
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
}
