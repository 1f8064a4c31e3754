//! Weights and what goes with them, in files of the safetensors format.
//!
//! What is written are little-endian 32-bit floats; counters and settings travel as strings in the metadata. Floats
//! of 16 and 64 bits are read, too. Of what PyTorch writes, only the batches that a batch normalisation has counted are
//! passed over: no network here reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::kind::kind;
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

/// A tensor to be written: its name, its shape and its row-major values.
pub type Named<'a> = (String, Vec<usize>, &'a [f32]);

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a file holds: tensors, metadata, and the types of those tensors that were not of 32 bits.
pub type Typed = (Tensors, BTreeMap<String, String>, BTreeSet<String>);

/// Writes tensors and metadata as a safetensors file.
///
/// The tensors stay in the order given; the same arguments give the same bytes on every machine.
///
/// # Errors
///
/// [`Error::Weights`], with all problems, when a name is used twice or reserved, the number of values
/// does not fit the shape, or a value is not finite, which [`decode`] would refuse; or when the names
/// and metadata come to more than 100 MB.
pub fn encode(tensors: &[Named<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let refuse = |problems| Error::Weights { path: "weights to be saved".to_owned(), problems };
    let mut problems = Vec::new();
    let mut entries = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        entries.push(format!("{}:{}", json(METADATA)?, json(metadata)?));
    }
    let mut names = BTreeSet::new();
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
/// [`Error::Weights`], with all problems, when a tensor's type is not one of floats or a value is not finite as one of
/// 32 bits.
pub fn decode(name: &str, bytes: &[u8]) -> Result<(Tensors, BTreeMap<String, String>)> {
    decode_types(name, bytes).map(|(tensors, metadata, _)| (tensors, metadata))
}

/// As [`decode`], with the types of the tensors that were not of 32 bits.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_types(name: &str, bytes: &[u8]) -> Result<Typed> {
    let damaged = |message| Error::Data { path: name.to_owned(), message };
    // What has no header of the format may be one of another.
    let strange = |message| damaged(kind(bytes).unwrap_or(message));
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
        return Err(strange(format!(
            "a header of {length} bytes is announced and {} bytes follow: not a safetensors file, or cut short",
            body.len()
        )));
    };
    let Header { mut tensors, metadata } = serde_json::from_slice(header).map_err(|e| {
        strange(format!("the header is not that of a safetensors file: {}", printable(&e.to_string())))
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

    let counters: BTreeSet<String> = tensors
        .iter()
        .filter_map(|(tensor, _)| tensor.strip_suffix(".running_mean"))
        .map(|norm| format!("{norm}.num_batches_tracked"))
        .collect();
    let mut decoded = Tensors::new();
    let mut types = BTreeSet::new();
    let mut problems = Vec::new();
    for (tensor, TensorInfo { dtype, shape, data_offsets: (start, end) }) in tensors {
        if integer(dtype) && shape.is_empty() && counters.contains(&tensor) {
            continue;
        }
        let label = printable(&tensor);
        // The layout was checked above; an empty slice in place of a panic costs nothing.
        let values = values.get(start..end).unwrap_or_default();
        let data: Vec<f32> = match dtype {
            Dtype::F32 => values.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Dtype::F64 => {
                values.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect()
            }
            // The upper half of 32 bits.
            Dtype::BF16 => values
                .as_chunks()
                .0
                .iter()
                .map(|&[low, high]| f32::from_le_bytes([0, 0, low, high]))
                .collect(),
            Dtype::F16 => values.as_chunks().0.iter().map(|&bytes| half(u16::from_le_bytes(bytes))).collect(),
            _ => {
                problems.push(format!("{label}: dtype {dtype}, expected F32, F16, BF16 or F64"));
                continue;
            }
        };
        if dtype != Dtype::F32 {
            types.insert(dtype.to_string());
        }
        problems.extend(not_finite(&label, data.iter().copied()));
        decoded.insert(tensor, Tensor { shape, data });
    }
    if problems.is_empty() {
        Ok((decoded, metadata, types))
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
    let known: BTreeSet<_> = expected.iter().map(|(tensor, _)| tensor).collect();
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
                let mut names = BTreeSet::new();
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

/// A float of 16 bits (IEEE 754 binary16).
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, bits & 1023);
    let size = match exponent {
        0 => f32::from(fraction) / 16_777_216.0,
        31 if fraction == 0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + f32::from(fraction) / 1024.0) * (f32::from(exponent) - 15.0).exp2(),
    };
    if sign == 1 { -size } else { size }
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
mod tests;
