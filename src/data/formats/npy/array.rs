//! One `.npy` file: a magic, a header that is a Python dictionary of type, order and shape, and the elements.

use crate::data::input::{MAX_CONTENT, refuse};
use crate::error::{Error, Result};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Signed,
    Unsigned,
    Float,
}

/// An array of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// What errors call it.
    pub name: String,
    /// Its sizes, row-major.
    pub shape: Vec<usize>,
    pub(super) kind: Kind,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub(super) size: usize,
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Array {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.size
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements; whole numbers beyond 2^53 are rounded.
    pub fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        self.bytes.chunks_exact(self.size).map(|element| {
            let fill = |byte: u8| [byte; 8];
            let negative = |top: u8| if self.kind == Kind::Signed && top >= 128 { 255 } else { 0 };
            // Little-endian in eight bytes, the sign extended.
            let mut wide;
            if self.big_endian {
                wide = fill(negative(element[0]));
                for (to, from) in wide.iter_mut().zip(element.iter().rev()) {
                    *to = *from;
                }
            } else {
                wide = fill(negative(element[self.size - 1]));
                wide[..self.size].copy_from_slice(element);
            }
            let bits = u64::from_le_bytes(wide);
            match (self.kind, self.size) {
                (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
                (Kind::Float, _) => f64::from_bits(bits),
                (Kind::Signed, _) => bits as i64 as f64,
                (Kind::Unsigned, _) => bits as f64,
            }
        })
    }

    pub(super) fn refuse(&self, message: String) -> Error {
        refuse(self.name.as_str(), message)
    }

    /// The elements as labels: whole numbers of 0 to 255, one an image.
    pub(super) fn labels(&self) -> Result<Vec<u8>> {
        // Keras gives CIFAR's labels a second size of one.
        if !matches!(self.shape[..], [_] | [_, 1]) {
            return Err(self.refuse(format!("the shape {:?} found, expected one label an image", self.shape)));
        }
        self.numbers()
            .enumerate()
            .map(|(i, value)| {
                if (0.0..=255.0).contains(&value) && value.fract() == 0.0 {
                    return Ok(value as u8);
                }
                Err(self.refuse(format!(
                    "the label {value} found at index {i}, expected a whole number of 0 to 255"
                )))
            })
            .collect()
    }

    /// The number of images, the shape `[C, H, W]` of one, and whether the colours of a pixel lie together.
    pub(super) fn images(&self) -> Result<(usize, [usize; 3], bool)> {
        let (count, shape, together) = match self.shape[..] {
            [n, length] => (n, [1, 1, length], false),
            [n, h, w] => (n, [1, h, w], false),
            [n, h, w, c @ (1 | 3)] => (n, [c, h, w], true),
            [n, c, h, w] => (n, [c, h, w], false),
            _ => {
                return Err(self.refuse(format!(
                    "the shape {:?} found, expected N,L or N,H,W or N,H,W,C or N,C,H,W",
                    self.shape
                )));
            }
        };
        if self.is_empty() {
            return Err(self.refuse(format!("the shape {:?} found, expected no size to be zero", self.shape)));
        }
        Ok((count, shape, together))
    }

    /// The elements as pixels in the order of the array: bytes, whole numbers of 0 to 255, or fractions of 0 to 1.
    pub(super) fn pixels(&self) -> Result<Vec<u8>> {
        if (self.kind, self.size) == (Kind::Unsigned, 1) {
            return Ok(self.bytes.clone());
        }
        let (scale, top) = if self.kind == Kind::Float { (255.0, 1.0) } else { (1.0, 255.0) };
        self.numbers()
            .enumerate()
            .map(|(i, value)| {
                if (0.0..=top).contains(&value) {
                    return Ok((value * scale).round() as u8);
                }
                Err(self.refuse(format!("the pixel {value} found at index {i}, expected 0 to {top}")))
            })
            .collect()
    }
}

/// Reads an `.npy` file; `name` is what errors call it.
///
/// # Errors
///
/// [`Error::Data`] when the magic or the header is malformed, the elements are not whole numbers or `f4` or `f8`,
/// they are in Fortran's order, come to more than 2 GiB, or there are fewer or more bytes than the shape says.
pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Array> {
    read(name, bytes).map_err(|message| refuse(name, message))
}

fn read(name: &str, mut bytes: Vec<u8>) -> Result<Array, String> {
    let Some((magic, rest)) = bytes.split_at_checked(8) else {
        return Err(format!("{} bytes found, expected an array of NumPy", bytes.len()));
    };
    let (length_bytes, length) = match (magic, rest) {
        ([0x93, b'N', b'U', b'M', b'P', b'Y', 1, 0], [a, b, ..]) => (2, u32::from_le_bytes([*a, *b, 0, 0])),
        ([0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, 0], [a, b, c, d, ..]) => {
            (4, u32::from_le_bytes([*a, *b, *c, *d]))
        }
        ([0x93, b'N', b'U', b'M', b'P', b'Y', major, minor], _) => {
            return Err(format!("version {major}.{minor} of NumPy's format found, expected 1.0, 2.0 or 3.0"));
        }
        _ => return Err("no magic of NumPy found, expected \\x93NUMPY".to_owned()),
    };
    // No array needs a header of a megabyte; a sum of more could overflow where pointers are small.
    if length > 1 << 20 {
        return Err(format!("a header of {length} bytes found, expected at most {}", 1 << 20));
    }
    let start = 8 + length_bytes + length as usize;
    let Some(header) = bytes.get(8 + length_bytes..start) else {
        return Err(format!("{} bytes found, expected a header of {length} bytes", bytes.len()));
    };
    let header = std::str::from_utf8(header).map_err(|_| "a header that is not text found".to_owned())?;
    let Header { descr, fortran, shape } = header.parse().map_err(|what: &str| {
        let shown: String = header.trim().chars().take(80).collect();
        format!("the header {shown:?} found, expected {what}")
    })?;
    let mut marks = descr.chars();
    let (order, kind, size) = (marks.next(), marks.next(), marks.as_str());
    let (kind, size) = match (kind, size) {
        (Some('u'), "1" | "2" | "4" | "8") => (Kind::Unsigned, size),
        (Some('b'), "1") => (Kind::Unsigned, size),
        (Some('i'), "1" | "2" | "4" | "8") => (Kind::Signed, size),
        (Some('f'), "4" | "8") => (Kind::Float, size),
        _ => {
            return Err(format!(
                "elements of the type {descr:?} found, expected u1 to u8, i1 to i8, f4 or f8"
            ));
        }
    };
    let size = size.parse::<usize>().map_err(|e| e.to_string())?;
    let big_endian = match (order, size) {
        (Some('<'), _) | (Some('|'), 1) => false,
        (Some('>'), _) => true,
        _ => return Err(format!("elements of the type {descr:?} found, expected < or > before it")),
    };
    if fortran && shape.iter().filter(|&&size| size != 1).count() > 1 {
        return Err("an array in Fortran's order found, expected C's (np.ascontiguousarray)".to_owned());
    }
    let expected = shape
        .iter()
        .try_fold(size as u64, |product, &size| product.checked_mul(size as u64))
        .filter(|&bytes| bytes <= MAX_CONTENT)
        .ok_or_else(|| {
            format!("the shape {shape:?} found, expected it to come to at most {MAX_CONTENT} bytes")
        })?;
    let found = bytes.len() - start;
    if found as u64 != expected {
        return Err(format!(
            "{found} bytes found after the header, expected {expected} for the shape {shape:?}"
        ));
    }
    bytes.drain(..start);
    Ok(Array { name: name.to_owned(), shape, kind, size, big_endian, bytes })
}

/// What the header of an `.npy` file says.
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl std::str::FromStr for Header {
    type Err = &'static str;

    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, its keys in any order.
    fn from_str(text: &str) -> Result<Header, &'static str> {
        let mut rest = text
            .trim()
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .ok_or("a dictionary")?
            .trim();
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':').ok_or("a colon after a key")?.trim_start();
            rest = match key {
                "descr" => {
                    let (text, after) = quoted(value).map_err(|_| "numbers of one type")?;
                    descr = Some(text.to_owned());
                    after
                }
                "fortran_order" => {
                    let (word, known) =
                        if value.starts_with("True") { ("True", true) } else { ("False", false) };
                    fortran = Some(known);
                    value.strip_prefix(word).ok_or("True or False as fortran_order")?
                }
                "shape" => {
                    let (list, after) = value
                        .strip_prefix('(')
                        .and_then(|value| value.split_once(')'))
                        .ok_or("a list of sizes as shape")?;
                    let sizes = list.trim().strip_suffix(',').unwrap_or(list.trim()).trim();
                    let sizes: Option<Vec<usize>> = match sizes {
                        "" => Some(Vec::new()),
                        sizes => sizes
                            .split(',')
                            // A large size of Python 2 ends in L.
                            .map(|size| size.trim().trim_end_matches('L').parse().ok())
                            .collect(),
                    };
                    shape = Some(sizes.ok_or("whole numbers as shape")?);
                    after
                }
                _ => return Err("the keys descr, fortran_order and shape"),
            }
            .trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err("a comma between two entries"),
            };
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Header { descr, fortran, shape }),
            _ => Err("descr, fortran_order and shape"),
        }
    }
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Result<(&str, &str), &'static str> {
    let quote = text.chars().next().filter(|mark| ['\'', '"'].contains(mark)).ok_or("a name in quotes")?;
    text[1..].split_once(quote).ok_or("a quote at a name's end")
}
