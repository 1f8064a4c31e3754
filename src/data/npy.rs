//! NumPy's arrays: `.npy` files and `.npz` archives of them, as Keras' `mnist.npz`.
//!
//! An `.npy` file is a magic, a header that is a Python dictionary of type, order and shape, and the elements. An
//! `.npz` file is a zip archive of them, stored or deflated.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use super::{Classes, MAX_CONTENT, Split, refuse};
use crate::error::{Error, Result};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
    kind: Kind,
    /// Bytes of an element: 1, 2, 4 or 8.
    size: usize,
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

    fn refuse(&self, message: String) -> Error {
        refuse(self.name.as_str(), message)
    }

    /// The elements as labels: whole numbers of 0 to 255, one an image.
    fn labels(&self) -> Result<Vec<u8>> {
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
    fn images(&self) -> Result<(usize, [usize; 3], bool)> {
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
    fn pixels(&self) -> Result<Vec<u8>> {
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

/// A file of a zip archive, as its directory lists it.
#[derive(Clone, Debug)]
struct Member<'a> {
    name: String,
    method: u16,
    sum: u32,
    packed: &'a [u8],
    size: u32,
}

/// Reads the directory of a zip archive without extensions to 64 bits, of at most 4 GiB.
fn members(bytes: &[u8]) -> Result<Vec<Member<'_>>, String> {
    let short = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let damaged = || "the directory of the zip archive is damaged".to_owned();
    // The end record is 22 bytes and a comment that goes to the end of the file.
    let first = bytes.len().saturating_sub(22 + usize::from(u16::MAX));
    let end = (first..=bytes.len().saturating_sub(22))
        .rev()
        .find(|&at| {
            word(at) == Some(0x0605_4b50)
                && short(at + 20).is_some_and(|comment| at + 22 + usize::from(comment) == bytes.len())
        })
        .ok_or("no directory of a zip archive found at the end, expected an .npz file")?;
    let (count, start) = (short(end + 10).ok_or_else(damaged)?, word(end + 16).ok_or_else(damaged)?);
    if start as usize > end && start != u32::MAX {
        return Err(damaged());
    }
    if count == u16::MAX || start == u32::MAX {
        return Err(
            "a zip archive of more than 4 GiB or 65534 files found, expected a smaller one".to_owned()
        );
    }
    let mut at = start as usize;
    let mut members: Vec<Member<'_>> = Vec::new();
    for _ in 0..count {
        // A directory inside the archive's end record would be read twice.
        if word(at) != Some(0x0201_4b50) || at >= end {
            return Err(damaged());
        }
        let field = |offset: usize| short(at + offset).ok_or_else(damaged);
        let long = |offset: usize| word(at + offset).ok_or_else(damaged);
        let (flags, method, sum) = (field(8)?, field(10)?, long(16)?);
        let (packed, size, local) = (long(20)? as usize, long(24)?, long(42)? as usize);
        let name_len = usize::from(field(28)?);
        let name = bytes.get(at + 46..at + 46 + name_len).ok_or_else(damaged)?;
        let name = String::from_utf8_lossy(name).into_owned();
        if flags & 1 != 0 {
            return Err(format!("{name} is encrypted, expected it not to be"));
        }
        if members.iter().any(|member| member.name == name) {
            return Err(format!("{name} found twice, expected different names"));
        }
        // The local header has its own lengths of name and extra field.
        if local > bytes.len() || word(local) != Some(0x0403_4b50) {
            return Err(damaged());
        }
        let skip = |offset: usize| short(local + offset).map(usize::from).ok_or_else(damaged);
        let from = local + 30 + skip(26)? + skip(28)?;
        let packed = bytes.get(from..from.saturating_add(packed)).ok_or_else(|| {
            format!(
                "{name} of {packed} bytes from {from} found, expected it inside the file of {}",
                bytes.len()
            )
        })?;
        members.push(Member { name, method, sum, packed, size });
        at += 46 + name_len + usize::from(field(30)?) + usize::from(field(32)?);
    }
    Ok(members)
}

impl Member<'_> {
    /// Unpacks the file.
    fn unpack(&self) -> Result<Vec<u8>, String> {
        let size = u64::from(self.size);
        // The header of an array comes on top of its content.
        if size > MAX_CONTENT + (1 << 16) {
            return Err(format!("{size} bytes found, expected at most {MAX_CONTENT}"));
        }
        let content = match self.method {
            0 => self.packed.to_vec(),
            8 => {
                let mut content = Vec::new();
                let mut stream = DeflateDecoder::new(self.packed);
                // One byte more than is promised, so that a longer stream is noticed and no more is unpacked.
                stream.by_ref().take(size + 1).read_to_end(&mut content).map_err(|e| {
                    format!("the stream is damaged or cut short after {} bytes: {e}", content.len())
                })?;
                let rest = stream.into_inner().len();
                if content.len() as u64 == size && rest > 0 {
                    return Err(format!("{rest} bytes found after the stream, expected none"));
                }
                content
            }
            method => {
                return Err(format!("the compression {method} found, expected 0 (stored) or 8 (deflate)"));
            }
        };
        if content.len() as u64 != size {
            let more = if content.len() as u64 > size { "or more " } else { "" };
            return Err(format!(
                "{} {more}bytes found, expected {size} as the directory says",
                content.len()
            ));
        }
        let mut sum = flate2::Crc::new();
        sum.update(&content);
        if sum.sum() != self.sum {
            return Err(format!("the checksum {:08x} found, expected {:08x}", sum.sum(), self.sum));
        }
        Ok(content)
    }
}

/// What the four arrays may be called: pictures and labels to train on, pictures and labels for the test.
const NAMES: [[&str; 4]; 3] = [
    ["x_train", "y_train", "x_test", "y_test"],
    ["train_images", "train_labels", "test_images", "test_labels"],
    ["train_x", "train_y", "test_x", "test_y"],
];

/// Reads an `.npz` file with four arrays, called `x_train`, `y_train`, `x_test` and `y_test`, or `train_images`,
/// `train_labels`, `test_images` and `test_labels`, or `train_x`, …; others are passed over.
///
/// `file` is what errors call the file. Pictures and labels to train on come first.
///
/// # Errors
///
/// [`Error::Data`] when the archive or an array is malformed, or one is missing.
pub fn parse_archive(file: &str, bytes: &[u8]) -> Result<[Array; 4]> {
    let members = members(bytes).map_err(|message| refuse(file, message))?;
    let find = |name: &str| members.iter().find(|member| member.name == format!("{name}.npy"));
    let names = NAMES.into_iter().find(|names| find(names[0]).is_some()).unwrap_or(NAMES[0]);
    let read = |name: &str| {
        let member = find(name).ok_or_else(|| {
            let found: Vec<_> = members.iter().map(|member| member.name.as_str()).take(10).collect();
            refuse(
                file,
                format!("no array {name} found, but {}; expected {}", found.join(", "), names.join(", ")),
            )
        })?;
        let title = format!("{file}: {}", member.name);
        parse(&title, member.unpack().map_err(|message| refuse(title.as_str(), message))?)
    };
    Ok([read(names[0])?, read(names[1])?, read(names[2])?, read(names[3])?])
}

/// Makes data of four arrays: pictures and labels to train on, pictures and labels for the test.
///
/// Pictures are `N,H,W`, or `N,H,W,C` where the last is 1 or 3, else `N,C,H,W`: bytes, whole numbers of 0 to 255,
/// or fractions of 0 to 1, which become bytes times 255. `N,L` are signals `[1, 1, L]`: bytes as they are, other
/// numbers scaled by the range of the training part ([`super::series`]). Labels are whole numbers of 0 to 255, of
/// any type. `classes` makes classes of the training part's.
///
/// # Errors
///
/// [`Error::Data`] when a shape, a number or the count of labels does not fit.
fn arrays(
    name: &str,
    arrays: &[Array; 4],
    classes: impl FnOnce(Classes) -> Result<Classes>,
) -> Result<Split> {
    let [train, train_labels, test, test_labels] = arrays;
    let labels = [(train, train_labels), (test, test_labels)].map(|(images, labels)| {
        let (count, ..) = images.images()?;
        let found = labels.labels()?;
        if found.len() != count {
            return Err(labels.refuse(format!(
                "{} labels found, expected {count} as there are images in {}",
                found.len(),
                images.name
            )));
        }
        Ok(found)
    });
    let [a, b] = labels;
    let labels = [a?, b?];
    let classes = classes(Classes::by_labels(&labels[0]))?;
    let images = [train, test];
    let make = |i: usize, bytes: Vec<u8>| {
        let (_, shape, together) = images[i].images()?;
        let bytes = if together { super::planes(&bytes, shape[1] * shape[2], shape[0]) } else { bytes };
        let file = &arrays[2 * i + 1].name;
        classes.dataset(name, file, shape, bytes, labels[i].clone())
    };
    let byte = |array: &Array| (array.kind, array.size) == (Kind::Unsigned, 1);
    if train.shape.len() == 2 && test.shape.len() == 2 && !(byte(train) && byte(test)) {
        let values = images.map(|array| array.numbers().map(|value| value as f32).collect::<Vec<_>>());
        return super::series::scaled([&train.name, &test.name], [&values[0], &values[1]], make);
    }
    let part = |i: usize| {
        let array = images[i];
        Ok::<_, Error>((array.name.clone(), make(i, array.pixels()?)?))
    };
    super::split(part(0)?, part(1)?)
}

/// Makes data of an `.npz` file's content; see [`parse_archive`] for the names of its arrays.
///
/// Pictures are `N,H,W`, or `N,H,W,C` where the last is 1 or 3, else `N,C,H,W`: bytes, whole numbers of 0 to 255,
/// or fractions of 0 to 1, which become bytes times 255. `N,L` are signals `[1, 1, L]`: bytes as they are, other
/// numbers scaled by the range of the training part ([`super::series`]). Labels are whole numbers of 0 to 255, of
/// any type; the greatest to train on decides how many classes there are.
///
/// # Errors
///
/// [`Error::Data`] when the archive is malformed, or a shape, a number or the count of labels does not fit.
pub fn dataset(name: &str, file: &str, bytes: &[u8]) -> Result<Split> {
    arrays(name, &parse_archive(file, bytes)?, Ok)
}

/// Whether these are arrays of NumPy.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn is_present(files: &[String]) -> bool {
    let has = |end: &str| files.iter().any(|file| file.to_lowercase().ends_with(end));
    has(".npz") || NAMES.iter().any(|names| files.contains(&format!("{}.npy", names[0])))
}

/// Loads an `.npz` file, or a folder with one or with four `.npy` files of the names of [`parse_archive`]; see
/// [`dataset`] for what the arrays may be. A `classes.txt` beside them names the classes.
///
/// Kuzushiji's four archives, `kmnist-train-imgs.npz`, `-train-labels`, `-test-imgs` and `-test-labels`, each with
/// one array `arr_0`, are read too.
///
/// # Errors
///
/// Those of [`dataset`], and [`Error::Io`] when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(path: &std::path::Path, name: &str) -> Result<Split> {
    let dir = if path.is_dir() { Some(path) } else { path.parent() };
    let finish = |found: [Array; 4]| {
        arrays(name, &found, |classes| match dir {
            Some(dir) => super::classes(dir, classes),
            None => Ok(classes),
        })
    };
    if !path.is_dir() {
        return finish(parse_archive(&path.to_string_lossy(), &crate::files::read(path)?)?);
    }
    let files = super::list(path)?;
    let refused = |message: String| refuse(path.to_string_lossy(), message);
    if let Some(names) = NAMES.iter().find(|names| files.contains(&format!("{}.npy", names[0]))) {
        let read = |name: &str| {
            let file = path.join(format!("{name}.npy"));
            if !file.is_file() {
                return Err(refused(format!(
                    "no file {name}.npy found, expected {}, each .npy",
                    names.join(", ")
                )));
            }
            parse(&file.to_string_lossy(), crate::files::read(&file)?)
        };
        return finish([read(names[0])?, read(names[1])?, read(names[2])?, read(names[3])?]);
    }
    let archives: Vec<_> = files.iter().filter(|file| super::extension(file) == "npz").collect();
    if let Some(prefix) = archives.iter().find_map(|file| file.strip_suffix("train-imgs.npz")) {
        let read = |part: &str| {
            let file = path.join(format!("{prefix}{part}.npz"));
            if !file.is_file() {
                return Err(refused(format!("no file {prefix}{part}.npz found, expected one")));
            }
            let title = file.to_string_lossy();
            let bytes = crate::files::read(&file)?;
            match &members(&bytes).map_err(|message| refuse(title.as_ref(), message))?[..] {
                [member] => {
                    parse(&title, member.unpack().map_err(|message| refuse(title.as_ref(), message))?)
                }
                several => {
                    Err(refuse(title.as_ref(), format!("{} arrays found, expected one", several.len())))
                }
            }
        };
        return finish([
            read("train-imgs")?,
            read("train-labels")?,
            read("test-imgs")?,
            read("test-labels")?,
        ]);
    }
    match &archives[..] {
        [file] => load(&path.join(file), name),
        several => Err(refused(format!(
            "{} .npz files found, expected one; a file can be named itself",
            several.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
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
            let Split { train, test } = dataset("d", "f", &zip(&good(), deflate)).unwrap();
            assert_eq!((train.images, train.labels), (vec![1, 2, 3, 4, 5, 6], vec![0, 2, 1]));
            assert_eq!((test.images, test.labels, test.classes), (vec![7, 8], vec![2], 3));
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
        assert_eq!((shape(&last), &last.train.images[..6]), ([3, 1, 2], &[0, 3, 1, 4, 2, 5][..]));
        assert_eq!(last.train.encoding, Encoding::Picture);
        let first = of("|u1", "(2, 3, 1, 2)", &bytes).unwrap();
        assert_eq!((shape(&first), &first.train.images), ([3, 1, 2], &bytes));
        let signal = of("|u1", "(2, 6)", &bytes).unwrap();
        assert_eq!((shape(&signal), &signal.train.images), ([1, 1, 6], &bytes));
        let fractions: Vec<u8> = [0.0f32, 1.0, 0.5, 0.2].iter().flat_map(|v| v.to_le_bytes()).collect();
        let fractions = of("<f4", "(2, 1, 2)", &fractions).unwrap();
        assert_eq!((shape(&fractions), fractions.train.images), ([1, 1, 2], vec![0, 255, 128, 51]));
        let values: Vec<u8> = [-2.0f32, 2.0, 0.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let series = of("<f4", "(2, 2)", &values).unwrap();
        assert_eq!((shape(&series), series.train.images), ([1, 1, 2], vec![0, 255, 128, 191]));
        assert_eq!(series.test.encoding, Encoding::Range { low: -2.0, high: 2.0 });
        for (descr, shape, content, message) in [
            ("<f4", "(2, 1, 2)", &values, "f: x_train.npy: the pixel -2 found at index 0, expected 0 to 1"),
            (
                "<i2",
                "(2, 1, 4)",
                &values,
                "f: x_train.npy: the pixel -16384 found at index 1, expected 0 to 255",
            ),
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
        assert_eq!(
            refused(b"PK"),
            "f: no directory of a zip archive found at the end, expected an .npz file"
        );
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
        for (promise, says) in [
            (5u32, "or more bytes found, expected 5"),
            (1 << 31, "expected 2147483648"),
            (u32::MAX, "at most"),
        ] {
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
            message.ends_with("2 .npz files found, expected one; a file can be named itself"),
            "{message}"
        );
        for (name, content) in good() {
            std::fs::write(spec(&format!("{name}.npy")), content).unwrap();
        }
        assert_eq!(crate::data::load(&spec("")).unwrap().train.images, whole.train.images);
        std::fs::remove_file(spec("y_test.npy")).unwrap();
        let message = crate::data::load(&spec("")).unwrap_err().to_string();
        assert!(
            message
                .ends_with("no file y_test.npy found, expected x_train, y_train, x_test, y_test, each .npy")
        );
        std::fs::write(spec("classes.txt"), "zero\none\n").unwrap();
        let message = crate::data::load(&spec("a.npz")).unwrap_err().to_string();
        assert!(
            message.ends_with("classes.txt: 2 names found, expected 3 as there are classes"),
            "{message}"
        );
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
            std::fs::write(dir.path().join(format!("k49-{part}.npz")), zip(&[("arr_0", content)], true))
                .unwrap();
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
}
