//! One `.npy` file: a magic, a header and the elements.

use super::header::Header;
use crate::data::classes::Label;
use crate::data::formats::numbers::{is_byte, square};
use crate::data::input::{MAX_CONTENT, refuse};
use crate::error::{Error, Result};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A byte that is 0 or 1.
    Truth,
    Signed,
    Unsigned,
    Float,
    /// A text of bytes.
    Bytes,
    /// A text of characters of four bytes each.
    Characters,
}

/// An array of numbers or texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// What errors call it.
    pub name: String,
    /// Its sizes, row-major.
    pub shape: Vec<usize>,
    pub(super) kind: Kind,
    /// Bytes of an element; 1, 2, 4 or 8 of a number.
    pub(super) size: usize,
    big_endian: bool,
    bytes: Vec<u8>,
}

/// What numbers are to become.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum What {
    /// Pixels, black to white.
    Pixels,
    /// Signals of real numbers.
    Signal,
    /// Signals of bytes, which stay as they are.
    Bytes,
}

/// What the images of an array are.
pub(super) struct Images {
    pub(super) count: usize,
    /// `[C, H, W]` of one.
    pub(super) shape: [usize; 3],
    /// Whether the colours of a pixel lie together.
    pub(super) together: bool,
    pub(super) what: What,
    /// What was decided about them.
    pub(super) note: Option<String>,
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

    /// The elements, none of which is a text; whole numbers beyond 2^53 are rounded. Of texts there are none.
    pub fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        let bytes = if self.is_text() { &[] } else { &self.bytes[..] };
        bytes.chunks_exact(self.size).map(|element| {
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
                (Kind::Float, 2) => half(bits as u16),
                (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
                (Kind::Float, _) => f64::from_bits(bits),
                (Kind::Signed, _) => bits as i64 as f64,
                _ => bits as f64,
            }
        })
    }

    /// The elements as pixels: true is full ink.
    pub(super) fn pixels(&self) -> impl Iterator<Item = f32> + '_ {
        let one = if self.kind == Kind::Truth { 255.0 } else { 1.0 };
        self.numbers().map(move |value| (one * value) as f32)
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Bytes | Kind::Characters)
    }

    pub(super) fn refuse(&self, message: String) -> Error {
        refuse(self.name.as_str(), message)
    }

    /// The rows of these numbers, in this order.
    pub(super) fn pick(&self, rows: &[usize]) -> Array {
        let row = self.bytes.len() / self.shape.first().copied().unwrap_or(1).max(1);
        let mut shape = self.shape.clone();
        shape.iter_mut().take(1).for_each(|count| *count = rows.len());
        let bytes = rows.iter().flat_map(|&i| &self.bytes[i * row..][..row]).copied().collect();
        Array { name: self.name.clone(), shape, bytes, ..*self }
    }

    /// The elements as the labels of so many images: texts or whole numbers, one an image or one-hot.
    pub(super) fn labels(&self, count: usize, images: &str) -> Result<Vec<Label>> {
        let classes = match self.shape[..] {
            [_] | [_, 1] => 1,
            // A row, as other programs write what has one size.
            [1, n] if n == count => 1,
            [_, classes] if classes > 0 && !self.is_text() => classes,
            _ => {
                return Err(
                    self.refuse(format!("the shape {:?} found, expected one label an image", self.shape))
                );
            }
        };
        let found = self.len() / classes;
        if found != count {
            let message = format!("{found} labels found, expected {count} as there are images in {images}");
            return Err(self.refuse(message));
        }
        if self.is_text() {
            return (0..count).map(|i| Ok(Label::new(self.text(i)?.trim()))).collect();
        }
        if classes > 1 {
            return self.one_hot(classes);
        }
        let label = |(i, value): (usize, f64)| match value.fract() {
            0.0 => Ok(Label::Number(value + 0.0)),
            _ => Err(self.refuse(format!("the label {value} found at index {i}, expected a whole number"))),
        };
        self.numbers().enumerate().map(label).collect()
    }

    /// Labels of which each is a row with a one at its class and else zeros.
    fn one_hot(&self, classes: usize) -> Result<Vec<Label>> {
        let values: Vec<f64> = self.numbers().collect();
        let class = |(i, row): (usize, &[f64])| {
            let at = row.iter().position(|&value| value == 1.0);
            let zeros = row.iter().filter(|&&value| value == 0.0).count();
            match at {
                Some(at) if zeros + 1 == classes => Ok(Label::Number(at as f64)),
                _ => Err(self.refuse(format!(
                    "the shape {:?} found, whose row {i} is not one 1 among zeros, expected one label an image",
                    self.shape
                ))),
            }
        };
        values.chunks_exact(classes).enumerate().map(class).collect()
    }

    /// The text at a place, without the zeros that fill it up.
    fn text(&self, i: usize) -> Result<String> {
        let element = &self.bytes[i * self.size..][..self.size];
        let code = |bytes: &[u8; 4]| match self.big_endian {
            true => u32::from_be_bytes(*bytes),
            false => u32::from_le_bytes(*bytes),
        };
        let text = match self.kind {
            Kind::Characters => element.as_chunks::<4>().0.iter().map(|c| char::from_u32(code(c))).collect(),
            _ => std::str::from_utf8(element).ok().map(str::to_owned),
        };
        let text: String = text.ok_or_else(|| self.refuse(format!("the label at index {i} is no text")))?;
        Ok(text.trim_end_matches('\0').to_owned())
    }

    /// What its images are.
    pub(super) fn images(&self) -> Result<Images> {
        let wrong = |expected: &str| {
            Err(self.refuse(format!("the shape {:?} found, expected {expected}", self.shape)))
        };
        if self.is_text() {
            return Err(self.refuse("texts found, expected pictures or signals".to_owned()));
        }
        if self.shape.contains(&0) {
            return wrong("no size to be zero");
        }
        let (count, shape, together) = match self.shape[..] {
            // One channel in one row or column is a row of numbers.
            [n, length] | [n, length, 1] | [n, 1, length] | [n, 1, 1, length] => {
                return Ok(self.flat(n, length));
            }
            [n, h, w] => (n, [1, h, w], false),
            [_, h, w, 4] if h > 4 && w > 4 => {
                return wrong("colours without transparency, as in x[..., :3]");
            }
            [n, h, w, c @ (1 | 3)] => (n, [c, h, w], true),
            [n, h, w, 2] if h > 4 && w > 4 => (n, [2, h, w], true),
            [n, c, h, w] => (n, [c, h, w], false),
            _ => return wrong("N,L or N,H,W or N,H,W,C or N,C,H,W"),
        };
        Ok(Images { count, shape, together, what: What::Pixels, note: None })
    }

    /// What rows of so many numbers are: pictures where they make squares, else signals.
    fn flat(&self, count: usize, length: usize) -> Images {
        let small = || self.shape.len() == 2 && self.numbers().all(|value| is_byte(value as f32));
        if let Some((shape @ [channels, _, side], together)) = square(length, small) {
            let colours = if channels == 3 { ", red, green and blue of a pixel together" } else { "" };
            let note = Some(format!("{length} values are a picture of {side}×{side} pixels{colours}"));
            return Images { count, shape, together, what: What::Pixels, note };
        }
        let what = match (self.kind, self.size) {
            (Kind::Unsigned, 1) => What::Bytes,
            (Kind::Truth, _) => What::Pixels,
            _ => What::Signal,
        };
        Images { count, shape: [1, 1, length], together: false, what, note: None }
    }
}

/// A number of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// Reads an `.npy` file; `name` is what errors call it.
///
/// Elements in Fortran's order are put into C's.
///
/// # Errors
///
/// [`Error::Data`] when the magic or the header is malformed, the elements are neither whole numbers, truths, floats
/// of 16, 32 or 64 bits nor texts, they come to more than 2 GiB, or there are fewer or more bytes than the shape says.
pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Array> {
    read(name, bytes).map_err(|message| refuse(name, message))
}

/// Kind, bytes and order of elements of a type: `<f4`, `|b1`, `>U5`.
fn element(descr: &str) -> Result<(Kind, usize, bool), String> {
    let mut marks = descr.chars();
    let (order, kind, size) = (marks.next(), marks.next(), marks.as_str());
    let count = size.parse::<usize>().ok().filter(|size| (1..=1 << 16).contains(size));
    let (kind, size) = match (kind, count) {
        (Some('u'), Some(size @ (1 | 2 | 4 | 8))) => (Kind::Unsigned, size),
        (Some('b'), Some(1)) => (Kind::Truth, 1),
        (Some('i'), Some(size @ (1 | 2 | 4 | 8))) => (Kind::Signed, size),
        (Some('f'), Some(size @ (2 | 4 | 8))) => (Kind::Float, size),
        (Some('S'), Some(size)) => (Kind::Bytes, size),
        (Some('U'), Some(length)) => (Kind::Characters, 4 * length),
        _ => {
            return Err(format!(
                "elements of the type {descr:?} found, expected u1 to u8, i1 to i8, f2 to f8, b1, S or U"
            ));
        }
    };
    match (order, size) {
        (Some('<'), _) => Ok((kind, size, false)),
        (Some('>'), _) => Ok((kind, size, true)),
        (Some('|'), size) if size == 1 || kind == Kind::Bytes => Ok((kind, size, false)),
        _ => Err(format!("elements of the type {descr:?} found, expected < or > before it")),
    }
}

/// What is to be done in Python where an array holds objects.
fn pickled(name: &str) -> String {
    // An array of an archive is called by the archive's name and its own.
    let file = name.split_once(".npz: ").map_or(name, |(file, _)| &name[..file.len() + 4]);
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let python = if file.ends_with(".npz") {
        format!(
            "d = np.load({file:?}, allow_pickle=True); \
             np.savez(\"plain.npz\", **{{k: np.array(d[k].tolist()) for k in d}})"
        )
    } else {
        format!("np.save({file:?}, np.array(np.load({file:?}, allow_pickle=True).tolist()))")
    };
    format!("Python objects (a pickle) found, expected numbers or texts; in Python: {python}")
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
    if descr.trim_start_matches(['|', '<', '>', '=']).starts_with('O') {
        return Err(pickled(name));
    }
    let (kind, size, big_endian) = element(&descr)?;
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
    if fortran && shape.iter().filter(|&&size| size != 1).count() > 1 {
        bytes = row_major(&bytes, size, &shape);
    }
    Ok(Array { name: name.to_owned(), shape, kind, size, big_endian, bytes })
}

/// Elements in Fortran's order, where the first index moves fastest, in C's, where the last does.
fn row_major(bytes: &[u8], size: usize, shape: &[usize]) -> Vec<u8> {
    let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[..axis].iter().product()).collect();
    let mut ordered = Vec::with_capacity(bytes.len());
    let (mut index, mut at) = (vec![0; shape.len()], 0);
    while ordered.len() < bytes.len() {
        ordered.extend_from_slice(&bytes[at * size..][..size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}
