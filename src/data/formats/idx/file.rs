//! One IDX file, or the two of a part: pictures and their labels.

#[cfg(not(target_arch = "wasm32"))]
use std::fs::File;
use std::io::Read;
#[cfg(not(target_arch = "wasm32"))]
use std::io::Seek;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;

use flate2::bufread::GzDecoder;

use crate::data::dataset::{Dataset, planes};
use crate::data::input::MAX_CONTENT;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::{input::refuse, pixels::Pixels};
use crate::error::{Error, Result};

/// The element type "unsigned byte", the only one that images and labels use.
const UNSIGNED_BYTE: u8 = 0x08;

/// The first two bytes of a gzip stream.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads an IDX file of grey images.
///
/// `name` is what errors call the file, `bytes` its content, gzipped or not. Gives the number of
/// images, their height and width in pixels, and the pixels, `count * height * width` bytes,
/// row-major.
///
/// # Errors
///
/// [`Error::Data`] when the magic is not `0x00000803`, a size is zero, the sizes come to more than
/// 2 GiB, the gzip stream is damaged, or there are fewer or more bytes than the sizes say.
pub fn parse_images(name: &str, bytes: &[u8]) -> Result<(usize, usize, usize, Vec<u8>)> {
    let ([count, height, width], pixels) = parse::<3>(name, bytes)?;
    Ok((count, height, width, pixels))
}

/// Reads an IDX file of four dimensions: colour pictures, or pictures of any number of planes.
///
/// The sizes are `N, H, W, C` where the last is 3, else `N, C, H, W`. Gives the number of images, their channels,
/// height and width in pixels, and the pixels as planes, `[N, C, H, W]` row-major.
///
/// # Errors
///
/// Those of [`parse_images`], where the magic is `0x00000804`.
pub fn parse_planes(name: &str, bytes: &[u8]) -> Result<(usize, [usize; 3], Vec<u8>)> {
    let ([count, a, b, c], pixels) = parse::<4>(name, bytes)?;
    Ok(match c {
        3 => (count, [3, a, b], planes(&pixels, a * b, 3)),
        _ => (count, [a, b, c], pixels),
    })
}

/// Reads an IDX file of labels: whole numbers of 0 to 255 of any type, one each, or rows of several, of which the
/// first is the label (QMNIST's `idx2-int`).
///
/// `name` is what errors call the file, `bytes` its content, gzipped or not.
///
/// # Errors
///
/// [`Error::Data`] when the magic is not `0x00000801` or that of other whole numbers or of rows of them, the file holds
/// no label, claims more than 2 GiB, the gzip stream is damaged, a label is not 0 to 255, or there are fewer or more
/// bytes than the header says.
pub fn parse_labels(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let (content, size, row) = match magic(bytes) {
        Some([0, 0, kind @ (0x08 | 0x0b | 0x0c), 2]) => {
            let ([_count, row], content) = parse_of::<2>(name, bytes, kind)?;
            (content, bytes_of(kind), row)
        }
        Some([0, 0, kind @ (0x0b | 0x0c), 1]) => (parse_of::<1>(name, bytes, kind)?.1, bytes_of(kind), 1),
        _ => return Ok(parse::<1>(name, bytes)?.1),
    };
    let label = |(i, element): (usize, &[u8])| {
        // Big-endian, in as many bytes as it has: all but the last are 0.
        let (low, high) = element[..size].split_last().unwrap_or((&0, &[]));
        if high.iter().all(|&byte| byte == 0) {
            return Ok(*low);
        }
        let message = format!("the label at index {i} is not one of 0 to 255, expected one");
        Err(Error::Data { path: name.to_owned(), message })
    };
    content.chunks_exact(size * row).enumerate().map(label).collect()
}

/// Bytes of an element of a type of whole numbers.
fn bytes_of(kind: u8) -> usize {
    match kind {
        0x0b => 2,
        0x0c => 4,
        _ => 1,
    }
}

/// The first four bytes of a file's content.
fn magic(bytes: &[u8]) -> Option<[u8; 4]> {
    if !bytes.starts_with(&GZIP_MAGIC) {
        return bytes.first_chunk().copied();
    }
    let mut magic = [0; 4];
    GzDecoder::new(bytes).read_exact(&mut magic).ok()?;
    Some(magic)
}

/// Whether a file's name says that it has four dimensions.
fn has_planes(name: &str) -> bool {
    name.to_lowercase().rsplit(['/', '\\']).next().is_some_and(|name| name.contains("idx4"))
}

/// Parses an image file of three dimensions, or of four where its name says so: count, shape of each, pixels.
pub(super) fn images(name: &str, bytes: &[u8]) -> Result<(usize, [usize; 3], Vec<u8>)> {
    if has_planes(name) {
        return parse_planes(name, bytes);
    }
    let (count, height, width, images) = parse_images(name, bytes)?;
    Ok((count, [1, height, width], images))
}

/// The same of a file that is not gzipped and has more than `most` bytes, whose pixels stay there; none where it has
/// fewer.
///
/// # Errors
///
/// As [`parse_images`], and [`Error::Data`] when the colours of a pixel lie together, which is no order to read from.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn filed(path: &Path, most: u64) -> Result<Option<(usize, [usize; 3], Pixels)>> {
    let name = path.to_string_lossy();
    let mut file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() <= most {
        return Ok(None);
    }
    let mut start = Vec::new();
    (&mut file).take(2).read_to_end(&mut start).map_err(Error::io(path))?;
    file.rewind().map_err(Error::io(path))?;
    if start == GZIP_MAGIC {
        return Ok(None);
    }
    let wrong = |message: String| refuse(name.clone(), message);
    let (shape, [count, channels, height, width]) = if has_planes(&name) {
        let [n, c, h, w] = header::<4>(&mut file, UNSIGNED_BYTE, "cannot be read").map_err(wrong)?;
        (4, [n, c, h, w])
    } else {
        let [n, h, w] = header::<3>(&mut file, UNSIGNED_BYTE, "cannot be read").map_err(wrong)?;
        (3, [n, 1, h, w])
    };
    if shape == 4 && width == 3 {
        let what = "colours that lie together (N, H, W, 3)";
        return Err(wrong(format!("{what} found, expected N, C, H, W in a file of more than {most} bytes")));
    }
    let sizes = [count, channels, height, width];
    let len = sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
    let len = len.ok_or_else(|| wrong(format!("the sizes {sizes:?} found, expected those of a file")))?;
    let pixels = Pixels::open(path, 4 + 4 * shape, len)?;
    Ok(Some((count, [channels, height, width], pixels)))
}

/// Parses the label file that belongs to an image file of `count` pictures.
pub(super) fn labels(files: [&str; 2], bytes: &[u8], count: usize) -> Result<Vec<u8>> {
    let labels = parse_labels(files[1], bytes)?;
    if count != labels.len() {
        return Err(Error::Data {
            path: files[1].to_owned(),
            message: format!(
                "{} labels found, expected {count} as there are images in {}",
                labels.len(),
                files[0]
            ),
        });
    }
    Ok(labels)
}

/// Makes a data set of the contents of two IDX files, gzipped or not: pictures and their labels, of which there are
/// `classes` kinds. `files` is what errors call the two.
///
/// # Errors
///
/// [`Error::Data`] as by [`parse_images`] and [`parse_labels`], when the numbers of pictures and labels differ, or
/// when a label is not less than `classes`.
pub fn dataset(name: &str, files: [&str; 2], bytes: [&[u8]; 2], classes: usize) -> Result<Dataset> {
    let (count, shape, images) = images(files[0], bytes[0])?;
    let labels = labels(files, bytes[1], count)?;
    // Checked here as well as in `Dataset::new`, so that the message names the label file.
    if let Some(label) = labels.iter().find(|&&label| usize::from(label) >= classes) {
        let message = format!("the label {label} found, expected less than {classes}, the number of classes");
        return Err(Error::Data { path: files[1].to_owned(), message });
    }
    Dataset::segmented(name, shape, classes, images, [1, 1], labels)
}

/// Reads sizes and content of a file of bytes with `D` dimensions.
fn parse<const D: usize>(name: &str, bytes: &[u8]) -> Result<([usize; D], Vec<u8>)> {
    parse_of(name, bytes, UNSIGNED_BYTE)
}

/// The same of elements of any `kind`, whose content is the bytes as they are.
fn parse_of<const D: usize>(name: &str, bytes: &[u8], kind: u8) -> Result<([usize; D], Vec<u8>)> {
    let content = if bytes.starts_with(&GZIP_MAGIC) {
        let mut unzipped = GzDecoder::new(bytes);
        let content = read::<D>(&mut unzipped, kind, "the gzip stream is damaged or cut short");
        // Only a stream read to its end has had its checksum compared and its trailer consumed.
        content.and_then(|content| match unzipped.into_inner().len() {
            0 => Ok(content),
            rest => Err(format!("{rest} bytes found after the gzip stream, expected none")),
        })
    } else {
        read::<D>(&mut &*bytes, kind, "cannot be read")
    };
    content.map_err(|message| Error::Data { path: name.to_owned(), message })
}

/// Reads the sizes at a stream's beginning, none of which is zero; `damage` says what a failure to read means.
fn header<const D: usize>(stream: &mut impl Read, kind: u8, damage: &str) -> Result<[usize; D], String> {
    let header_len = 4 + 4 * D;
    let mut header = Vec::with_capacity(header_len);
    stream.by_ref().take(header_len as u64).read_to_end(&mut header).map_err(|e| format!("{damage}: {e}"))?;

    // The magic goes before the length, so that a wrong file is called wrong rather than short.
    let expected_magic = u32::from(kind) << 8 | D as u32;
    let mut words = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let magic = words.next();
    if let Some(magic) = magic
        && magic != expected_magic
    {
        // What a server says in place of a file.
        if header.trim_ascii_start().starts_with(b"<") {
            return Err("a page of HTML found, expected an IDX file: download it again".into());
        }
        let plural = if D == 1 { "" } else { "s" };
        return Err(format!(
            "the magic {magic:#010x} found, expected {expected_magic:#010x} (an IDX file of unsigned bytes, {D} dimension{plural})"
        ));
    }
    if header.len() < header_len {
        return Err(format!("{} bytes found, expected an IDX header of {header_len} bytes", header.len()));
    }

    let mut sizes = [0; D];
    for (size, word) in sizes.iter_mut().zip(words) {
        // A cast would truncate on a target with small pointers; this says so instead.
        *size = usize::try_from(word).map_err(|e| e.to_string())?;
    }
    if sizes.contains(&0) {
        return Err(format!("the sizes {sizes:?} found, expected none of them to be zero"));
    }
    Ok(sizes)
}

/// Reads a whole stream; `damage` says what a failure to read means.
fn read<const D: usize>(
    stream: &mut impl Read,
    kind: u8,
    damage: &str,
) -> Result<([usize; D], Vec<u8>), String> {
    let sizes = header::<D>(stream, kind, damage)?;
    let expected = sizes.iter().try_fold(bytes_of(kind) as u64, |all, &size| all.checked_mul(size as u64));
    let expected = expected.filter(|&e| e <= MAX_CONTENT).ok_or_else(|| {
        format!("the sizes {sizes:?} found, expected them to come to at most {MAX_CONTENT} bytes")
    })?;

    // The buffer grows with the bytes that arrive: a header alone reserves nothing.
    let mut content = Vec::new();
    let got = stream
        .by_ref()
        .take(expected)
        .read_to_end(&mut content)
        .map_err(|e| format!("{damage} after {} of {expected} bytes: {e}", content.len()))?;
    if (got as u64) < expected {
        return Err(format!(
            "{got} bytes found after the header, expected {expected} for the sizes {sizes:?}"
        ));
    }
    // The read that finds the end is also the one that compares a gzip stream's checksum.
    let mut beyond = [0];
    match stream.read(&mut beyond) {
        Ok(0) => {}
        Ok(_) => {
            return Err(format!(
                "more than {expected} bytes found after the header, expected no more for the sizes {sizes:?}"
            ));
        }
        Err(e) => return Err(format!("{damage} after {expected} of {expected} bytes: {e}")),
    }
    content.shrink_to_fit();
    Ok((sizes, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::formats::written::{gzip, idx};

    /// The message for an image file, which has to begin with the file's name.
    fn refused(bytes: &[u8]) -> String {
        let message = parse_images("some-file", bytes).unwrap_err().to_string();
        message.strip_prefix("some-file: ").unwrap().to_owned()
    }

    fn good() -> Vec<u8> {
        idx(0x803, &[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    }

    #[test]
    fn good_files_are_read_zipped_or_not() {
        let expected = (2, 2, 3, (1..=12).collect::<Vec<u8>>());
        assert_eq!(parse_images("a", &good()).unwrap(), expected);
        assert_eq!(parse_images("a", &gzip(&good())).unwrap(), expected);
        let labels = idx(0x801, &[3], &[7, 0, 255]);
        assert_eq!(parse_labels("a", &labels).unwrap(), [7, 0, 255]);
        assert_eq!(parse_labels("a", &gzip(&labels)).unwrap(), [7, 0, 255]);
    }

    #[test]
    fn a_wrong_magic_is_refused() {
        let expected = "expected 0x00000803 (an IDX file of unsigned bytes, 3 dimensions)";
        assert_eq!(refused(&idx(0x801, &[3], &[1, 2, 3])), format!("the magic 0x00000801 found, {expected}"));
        assert_eq!(
            refused(&idx(0xd03, &[1, 1, 1], &[0; 4])),
            format!("the magic 0x00000d03 found, {expected}")
        );
        assert_eq!(refused(b"\x89PNG...."), format!("the magic 0x89504e47 found, {expected}"));
        let page = b"\n<!DOCTYPE html><html>403 Forbidden</html>";
        assert_eq!(refused(page), "a page of HTML found, expected an IDX file: download it again");
        assert_eq!(
            parse_labels("f", &good()).unwrap_err().to_string(),
            "f: the magic 0x00000803 found, expected 0x00000801 (an IDX file of unsigned bytes, 1 dimension)"
        );
    }

    #[test]
    fn a_short_header_is_refused() {
        assert_eq!(refused(b""), "0 bytes found, expected an IDX header of 16 bytes");
        assert_eq!(refused(&good()[..15]), "15 bytes found, expected an IDX header of 16 bytes");
        assert_eq!(refused(&gzip(b"")), "0 bytes found, expected an IDX header of 16 bytes");
    }

    #[test]
    fn zero_sizes_are_refused() {
        assert_eq!(
            refused(&idx(0x803, &[0, 28, 28], &[])),
            "the sizes [0, 28, 28] found, expected none of them to be zero"
        );
        assert_eq!(
            refused(&idx(0x803, &[5, 28, 0], &[])),
            "the sizes [5, 28, 0] found, expected none of them to be zero"
        );
        assert_eq!(
            parse_labels("f", &idx(0x801, &[0], &[])).unwrap_err().to_string(),
            "f: the sizes [0] found, expected none of them to be zero"
        );
    }

    #[test]
    fn sizes_too_large_are_refused() {
        let limit = "expected them to come to at most 2147483648 bytes";
        assert_eq!(
            refused(&idx(0x803, &[2_147_483_649, 1, 1], &[])),
            format!("the sizes [2147483649, 1, 1] found, {limit}")
        );
        assert_eq!(
            refused(&idx(0x803, &[u32::MAX; 3], &[])),
            format!("the sizes [4294967295, 4294967295, 4294967295] found, {limit}")
        );
    }

    #[test]
    fn too_few_bytes_are_refused() {
        let sizes = "for the sizes [2, 2, 3]";
        let short = &good()[..20];
        assert_eq!(refused(short), format!("4 bytes found after the header, expected 12 {sizes}"));
        assert_eq!(refused(&gzip(short)), format!("4 bytes found after the header, expected 12 {sizes}"));
        // A claim of 2 GiB without the bytes must fail at once rather than reserve the memory.
        assert_eq!(
            refused(&idx(0x803, &[1 << 31, 1, 1], &[0])),
            "1 bytes found after the header, expected 2147483648 for the sizes [2147483648, 1, 1]"
        );
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut long = good();
        long.push(0);
        let message = "more than 12 bytes found after the header, expected no more for the sizes [2, 2, 3]";
        assert_eq!(refused(&long), message);
        assert_eq!(refused(&gzip(&long)), message);
        let mut after = gzip(&good());
        after.extend(b"abc");
        assert_eq!(refused(&after), "3 bytes found after the gzip stream, expected none");
        let mut twice = gzip(&good());
        let member = twice.clone();
        twice.extend(&member);
        assert_eq!(
            refused(&twice),
            format!("{} bytes found after the gzip stream, expected none", member.len())
        );
    }

    #[test]
    fn a_damaged_gzip_stream_is_refused() {
        let whole = gzip(&good());
        for len in 2..whole.len() {
            let message = refused(&whole[..len]);
            assert!(message.starts_with("the gzip stream is damaged or cut short"), "{len}: {message}");
        }
        // The trailer is four bytes of checksum and four of length.
        for at in whole.len() - 8..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            let message = refused(&wrong);
            assert!(
                message.starts_with("the gzip stream is damaged or cut short after 12 of 12 bytes: "),
                "{at}: {message}"
            );
        }
    }

    #[test]
    fn colour_is_read_with_channels_first_or_last() {
        let last = idx(0x804, &[2, 1, 2, 3], &(0..12).collect::<Vec<_>>());
        assert_eq!(
            parse_planes("a", &last).unwrap(),
            (2, [3, 1, 2], vec![0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11])
        );
        let first = idx(0x804, &[2, 3, 1, 2], &(0..12).collect::<Vec<_>>());
        assert_eq!(parse_planes("a", &gzip(&first)).unwrap(), (2, [3, 1, 2], (0..12).collect()));
        assert_eq!(
            parse_planes("f", &good()).unwrap_err().to_string(),
            "f: the magic 0x00000803 found, expected 0x00000804 (an IDX file of unsigned bytes, 4 dimensions)"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_images("f", &bytes);
            let _ = parse_labels("f", &bytes);
            let mut zipped = GZIP_MAGIC.to_vec();
            zipped.extend(&bytes);
            let _ = parse_images("f", &zipped);
        }

        #[test]
        fn corruptions_never_panic(
            zip in any::<bool>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            keep in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = if zip { gzip(&good()) } else { good() };
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(keep.index(bytes.len()));
            }
            // What is accepted has to be consistent.
            if let Ok((count, height, width, pixels)) = parse_images("f", &bytes) {
                prop_assert_eq!(count * height * width, pixels.len());
            }
        }
    }
}
