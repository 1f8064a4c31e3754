//! A strict reader of the IDX format, the one MNIST and its kin come in, gzipped or not.
//!
//! A file is a big-endian header (two zero bytes, the element type, the number of dimensions, then
//! one 32-bit size for each dimension) followed by exactly as many elements as the sizes say.
//! Anything else is refused.

use std::io::Read;

use flate2::bufread::GzDecoder;

use super::{Classes, Dataset, MAX_CONTENT};
#[cfg(not(target_arch = "wasm32"))]
use super::{Split, refuse};
use crate::error::{Error, Result};

/// The element type "unsigned byte", the only one that images and labels use.
const UNSIGNED_BYTE: u32 = 0x08;

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
        3 => (count, [3, a, b], super::planes(&pixels, a * b, 3)),
        _ => (count, [a, b, c], pixels),
    })
}

/// Reads an IDX file of labels: one byte each.
///
/// `name` is what errors call the file, `bytes` its content, gzipped or not.
///
/// # Errors
///
/// [`Error::Data`] when the magic is not `0x00000801`, the file holds no label, claims more than
/// 2 GiB, the gzip stream is damaged, or there are fewer or more bytes than the header says.
pub fn parse_labels(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let ([_count], labels) = parse::<1>(name, bytes)?;
    Ok(labels)
}

/// Parses an image file of three dimensions, or of four where its name says `idx4`, and its label file.
fn pair(files: [&str; 2], bytes: [&[u8]; 2]) -> Result<([usize; 3], Vec<u8>, Vec<u8>)> {
    let labels = parse_labels(files[1], bytes[1])?;
    let (count, shape, images) = if files[0].contains("idx4-ubyte") {
        parse_planes(files[0], bytes[0])?
    } else {
        let (count, height, width, images) = parse_images(files[0], bytes[0])?;
        (count, [1, height, width], images)
    };
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
    Ok((shape, images, labels))
}

/// Makes a data set of the contents of two IDX files, gzipped or not: pictures and their labels, of which there are
/// `classes` kinds. `files` is what errors call the two.
///
/// # Errors
///
/// [`Error::Data`] as by [`parse_images`] and [`parse_labels`], when the numbers of pictures and labels differ, or
/// when a label is not less than `classes`.
pub fn dataset(name: &str, files: [&str; 2], bytes: [&[u8]; 2], classes: usize) -> Result<Dataset> {
    grey(name, files, bytes, &Classes { count: classes, names: None })
}

/// Parses the files of one part whose classes are known.
pub(super) fn grey(name: &str, files: [&str; 2], bytes: [&[u8]; 2], classes: &Classes) -> Result<Dataset> {
    let (shape, images, labels) = pair(files, bytes)?;
    classes.dataset(name, files[1], shape, images, labels)
}

/// What the sets of IDX files among `files` begin with: nothing for MNIST, `emnist-letters-`; sorted.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn prefixes(files: &[String]) -> Vec<String> {
    let mut found: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let stem = file.strip_suffix(".gz").unwrap_or(file).strip_suffix("-ubyte")?;
            // The labels count, too, so that a set without its images is told what it lacks.
            ["train-images", "train-labels"].iter().find_map(|part| {
                let (prefix, end) = stem.split_once(part)?;
                ["-idx1", ".idx1", "-idx3", ".idx3", "-idx4", ".idx4"]
                    .contains(&end)
                    .then(|| prefix.to_owned())
            })
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Loads the IDX files of a folder whose names begin with `prefix`, which may be nothing.
///
/// Behind it come `train-images`, `train-labels`, and `t10k-images` and `t10k-labels` or `test-images` and
/// `test-labels`; then `-` or `.`; then `idx3-ubyte` (grey), `idx4-ubyte` (colour) or `idx1-ubyte` (labels); then
/// nothing or `.gz`. Where several fit, the unzipped one with `-` is read.
///
/// The number of classes is the greatest training label plus one, at least 2, unless `classes.txt` names them. A
/// file `PREFIXmapping.txt` of EMNIST (a line for each label: the label, then the codes of the characters it
/// stands for) makes its labels the classes, in their order, and the characters their names. The pictures of a
/// set whose name begins with `emnist-` are stored with rows and columns exchanged, and are turned upright.
///
/// # Errors
///
/// [`Error::Data`] when a file is missing or malformed or the files do not fit each other; [`Error::Io`] when one
/// cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(dir: &std::path::Path, prefix: &str, name: &str) -> Result<Split> {
    let read = |parts: &[&str]| {
        let stems =
            |what: &str| parts.iter().map(|part| format!("{prefix}{part}-{what}")).collect::<Vec<_>>();
        let images = find(dir, &stems("images"), &[3, 4])?;
        let labels = find(dir, &stems("labels"), &[1])?;
        let files = [images.to_string_lossy(), labels.to_string_lossy()];
        let bytes = [crate::files::read(&images)?, crate::files::read(&labels)?];
        let (mut shape, mut pixels, labels) = pair([&files[0], &files[1]], [&bytes[0], &bytes[1]])?;
        if prefix.starts_with("emnist-") {
            pixels = transposed(&pixels, shape);
            shape.swap(1, 2);
        }
        Ok((files.map(std::borrow::Cow::into_owned), shape, pixels, labels))
    };
    let mut parts = [read(&["train"])?, read(&["t10k", "test"])?];
    let path = dir.join(format!("{prefix}mapping.txt"));
    let found = match mapping(&path)? {
        None => Classes::by_labels(&parts[0].3),
        Some((classes, names)) => {
            for ([_, file], _, _, labels) in &mut parts {
                for label in labels.iter_mut() {
                    *label = classes[usize::from(*label)].ok_or_else(|| {
                        refuse(
                            file.as_str(),
                            format!("the label {label} found, expected one of {}", path.display()),
                        )
                    })?;
                }
            }
            Classes::named(&path.to_string_lossy(), names)?
        }
    };
    let classes = super::classes(dir, found)?;
    let [train, test] = parts.map(|([images, file], shape, pixels, labels)| {
        Ok::<_, Error>((images, classes.dataset(name, &file, shape, pixels, labels)?))
    });
    super::split(train?, test?)
}

/// Finds a file under any of its accepted names.
#[cfg(not(target_arch = "wasm32"))]
fn find(dir: &std::path::Path, stems: &[String], dimensions: &[u8]) -> Result<std::path::PathBuf> {
    let mut names = Vec::new();
    for stem in stems {
        for dimensions in dimensions {
            for (mark, end) in [("-", ""), (".", ""), ("-", ".gz"), (".", ".gz")] {
                names.push(format!("{stem}{mark}idx{dimensions}-ubyte{end}"));
            }
        }
    }
    names.iter().map(|name| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        refuse(dir.to_string_lossy(), format!("no file found under any of the names {}", names.join(", ")))
    })
}

/// Pictures with rows and columns exchanged; `shape` is what they have before.
#[cfg(not(target_arch = "wasm32"))]
fn transposed(pixels: &[u8], [_, height, width]: [usize; 3]) -> Vec<u8> {
    pixels
        .chunks_exact(height * width)
        .flat_map(|plane| (0..width).flat_map(move |x| plane[x..].iter().step_by(width).copied()))
        .collect()
}

/// The class of each label and the names of the classes.
#[cfg(not(target_arch = "wasm32"))]
type Mapping = ([Option<u8>; 256], Vec<String>);

/// Reads EMNIST's mapping of labels to characters, if it is there.
#[cfg(not(target_arch = "wasm32"))]
fn mapping(path: &std::path::Path) -> Result<Option<Mapping>> {
    let Some(lines) = super::read_lines(path)? else { return Ok(None) };
    let mut names = std::collections::BTreeMap::new();
    for (i, line) in lines.iter().enumerate() {
        let wrong = |what: &str| {
            refuse(path.to_string_lossy(), format!("{line:?} found in line {}, expected {what}", i + 1))
        };
        let mut words = line.split_ascii_whitespace();
        let label: u8 =
            words.next().and_then(|word| word.parse().ok()).ok_or_else(|| wrong("a label of 0 to 255"))?;
        let codes: Option<String> = words
            .map(|word| word.parse().ok().and_then(char::from_u32).filter(|c| !c.is_control()))
            .collect();
        let name = codes
            .filter(|name| !name.is_empty())
            .ok_or_else(|| wrong("codes of characters behind the label"))?;
        if names.insert(label, name).is_some() {
            return Err(wrong("each label once"));
        }
    }
    let mut classes = [None; 256];
    for (class, label) in (0..=255).zip(names.keys()) {
        classes[usize::from(*label)] = Some(class);
    }
    Ok(Some((classes, names.into_values().collect())))
}

/// Reads sizes and content of a file with `D` dimensions.
fn parse<const D: usize>(name: &str, bytes: &[u8]) -> Result<([usize; D], Vec<u8>)> {
    let content = if bytes.starts_with(&GZIP_MAGIC) {
        let mut unzipped = GzDecoder::new(bytes);
        let content = read::<D>(&mut unzipped, "the gzip stream is damaged or cut short");
        // Only a stream read to its end has had its checksum compared and its trailer consumed.
        content.and_then(|content| match unzipped.into_inner().len() {
            0 => Ok(content),
            rest => Err(format!("{rest} bytes found after the gzip stream, expected none")),
        })
    } else {
        read::<D>(&mut &*bytes, "cannot be read")
    };
    content.map_err(|message| Error::Data { path: name.to_owned(), message })
}

/// Reads a whole stream; `damage` says what a failure to read means.
fn read<const D: usize>(stream: &mut impl Read, damage: &str) -> Result<([usize; D], Vec<u8>), String> {
    let header_len = 4 + 4 * D;
    let mut header = Vec::with_capacity(header_len);
    stream.by_ref().take(header_len as u64).read_to_end(&mut header).map_err(|e| format!("{damage}: {e}"))?;

    // The magic goes before the length, so that a wrong file is called wrong rather than short.
    let expected_magic = UNSIGNED_BYTE << 8 | D as u32;
    let mut words = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let magic = words.next();
    if let Some(magic) = magic
        && magic != expected_magic
    {
        let plural = if D == 1 { "" } else { "s" };
        return Err(format!(
            "the magic {magic:#010x} found, expected {expected_magic:#010x} (an IDX file of unsigned bytes, {D} dimension{plural})"
        ));
    }
    if header.len() < header_len {
        return Err(format!("{} bytes found, expected an IDX header of {header_len} bytes", header.len()));
    }

    let mut sizes = [0; D];
    let mut expected = Some(1u64);
    for (size, word) in sizes.iter_mut().zip(words) {
        // A cast would truncate on a target with small pointers; this says so instead.
        *size = usize::try_from(word).map_err(|e| e.to_string())?;
        expected = expected.and_then(|e| e.checked_mul(u64::from(word)));
    }
    if sizes.contains(&0) {
        return Err(format!("the sizes {sizes:?} found, expected none of them to be zero"));
    }
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
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn idx(magic: u32, sizes: &[u32], content: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        for size in sizes {
            bytes.extend(size.to_be_bytes());
        }
        bytes.extend(content);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

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

    type Files<'a> = &'a [(&'a str, Vec<u8>)];

    fn folder(files: Files) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let content = if name.ends_with(".gz") { gzip(content) } else { content.clone() };
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn load(dir: &tempfile::TempDir, end: &str) -> Result<Split, String> {
        let path = dir.path().to_str().unwrap();
        crate::data::load(&format!("{path}{end}"))
            .map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
    }

    fn emnist(mapping: &str) -> tempfile::TempDir {
        let pixels: Vec<u8> = (1..=12).collect();
        folder(&[
            ("emnist-letters-train-images-idx3-ubyte.gz", idx(0x803, &[2, 2, 3], &pixels)),
            ("emnist-letters-train-labels-idx1-ubyte.gz", idx(0x801, &[2], &[26, 1])),
            ("emnist-letters-test-images-idx3-ubyte.gz", idx(0x803, &[1, 2, 3], &pixels[..6])),
            ("emnist-letters-test-labels-idx1-ubyte.gz", idx(0x801, &[1], &[2])),
            ("emnist-letters-mapping.txt", mapping.as_bytes().to_vec()),
        ])
    }

    fn letters() -> String {
        (1..=26).map(|i| format!("{i} {} {}\n", 64 + i, 96 + i)).collect()
    }

    #[test]
    fn emnist_is_turned_and_its_letters_are_named() {
        let dir = emnist(&letters());
        let Split { train, test } = load(&dir, "").unwrap();
        assert_eq!((train.height, train.width, train.classes), (3, 2, 26));
        assert_eq!(train.image(0), [1, 4, 2, 5, 3, 6]);
        assert_eq!((&train.labels[..], &test.labels[..]), (&[25, 0][..], &[1][..]));
        assert_eq!((train.class_names[0].as_str(), train.class_names[25].as_str()), ("Aa", "Zz"));
        assert_eq!(load(&dir, "/emnist-letters").unwrap().train.name, "emnist-letters");
        // Without the mapping labels are what they are.
        std::fs::remove_file(dir.path().join("emnist-letters-mapping.txt")).unwrap();
        let train = load(&dir, "").unwrap().train;
        assert_eq!((train.classes, train.labels), (27, vec![26, 1]));
    }

    #[test]
    fn malformed_mappings_are_refused() {
        let with = |mapping: &str| load(&emnist(mapping), "").unwrap_err();
        let file = "DIR/emnist-letters-mapping.txt";
        assert_eq!(
            with("1 65\nx 66\n"),
            format!("{file}: \"x 66\" found in line 2, expected a label of 0 to 255")
        );
        assert_eq!(
            with("1 65\n256 66\n"),
            format!("{file}: \"256 66\" found in line 2, expected a label of 0 to 255")
        );
        let codes = "expected codes of characters behind the label";
        for line in ["1", "1 0", "1 55296", "1 a"] {
            assert_eq!(with(line), format!("{file}: {line:?} found in line 1, {codes}"));
        }
        assert_eq!(
            with("1 65\n1 66\n"),
            format!("{file}: \"1 66\" found in line 2, expected each label once")
        );
        assert_eq!(
            with("1 65\n"),
            format!(
                "DIR/emnist-letters-train-labels-idx1-ubyte.gz: the label 26 found, expected one of {file}"
            )
        );
        let many: String = (3..30).map(|i| format!("{i} {}\n", 64 + i)).collect();
        assert_eq!(
            with(&many),
            format!(
                "DIR/emnist-letters-train-labels-idx1-ubyte.gz: the label 1 found, expected one of {file}"
            )
        );
    }

    #[test]
    fn one_of_several_sets_is_named() {
        let dir = emnist(&letters());
        for (name, content) in [
            ("qmnist-train-images-idx4-ubyte", idx(0x804, &[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6])),
            ("qmnist-train-labels.idx1-ubyte", idx(0x801, &[1], &[0])),
            ("qmnist-t10k-images-idx4-ubyte", idx(0x804, &[1, 3, 1, 2], &[1, 3, 5, 2, 4, 6])),
            ("qmnist-t10k-labels-idx1-ubyte", idx(0x801, &[1], &[1])),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        assert_eq!(
            load(&dir, "").unwrap_err(),
            "DIR: several sets of IDX files found: emnist-letters, qmnist; name one, as in DIR/qmnist"
        );
        let Split { train, test } = load(&dir, "/qmnist").unwrap();
        assert_eq!((train.channels, train.height, train.width, train.classes), (3, 1, 2, 2));
        assert_eq!((train.images, test.images), (vec![1, 4, 2, 5, 3, 6], vec![1, 3, 5, 2, 4, 6]));
        assert!(load(&dir, "/other").unwrap_err().contains("no such data"));
        std::fs::write(dir.path().join("classes.txt"), "no\nyes\nperhaps\n").unwrap();
        let train = load(&dir, "/qmnist").unwrap().train;
        assert_eq!((train.classes, train.class_names[2].as_str()), (3, "perhaps"));
    }

    /// The `mnist` crate is a reader that shares no code with this one.
    #[test]
    fn another_reader_sees_the_same_mnist() {
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/mnist");
        let dir = tempfile::tempdir().unwrap();
        let mut ours = Vec::new();
        for file in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
            let zipped = std::fs::read(assets.join(format!("{file}-ubyte.gz"))).unwrap();
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut plain).unwrap();
            std::fs::write(dir.path().join(format!("{file}-ubyte")), &plain).unwrap();
            ours.push(if file.contains("images") {
                let (count, height, width, pixels) = parse_images(file, &zipped).unwrap();
                assert_eq!((height, width), (28, 28));
                assert_eq!(count * 28 * 28, pixels.len());
                pixels
            } else {
                parse_labels(file, &zipped).unwrap()
            });
        }
        let theirs = mnist::MnistBuilder::new()
            .base_path(dir.path().to_str().unwrap())
            .training_set_length(60_000)
            .validation_set_length(0)
            .test_set_length(10_000)
            .finalize();
        // Not assert_eq, which would print 47 million numbers.
        assert!(ours[0] == theirs.trn_img);
        assert!(ours[1] == theirs.trn_lbl);
        assert!(ours[2] == theirs.tst_img);
        assert!(ours[3] == theirs.tst_lbl);
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
