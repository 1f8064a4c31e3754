//! A folder of IDX files: the set of four that belong together, EMNIST's mapping of labels to characters.

use std::path::{Path, PathBuf};

use super::file;
use crate::data::classes::Classes;
use crate::data::dataset::transposed;
use crate::data::input::{MAX_CONTENT, read_lines, refuse};
use crate::data::pixels::Pixels;
use crate::data::split::Split;
use crate::error::{Error, Result};

/// What the sets of IDX files among `files` begin with: nothing for MNIST, `emnist-letters-`; sorted.
pub(in crate::data) fn prefixes(files: &[String]) -> Vec<String> {
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
/// The pixels of a file that is not gzipped and has more than 2 GiB stay there: see [`Pixels`].
///
/// # Errors
///
/// [`Error::Data`] when a file is missing or malformed or the files do not fit each other; [`Error::Io`] when one
/// cannot be read.
pub fn load(dir: &Path, prefix: &str, name: &str) -> Result<Split> {
    load_below(dir, prefix, name, MAX_CONTENT)
}

/// The same, where image files of more than `most` bytes stay where they are.
fn load_below(dir: &Path, prefix: &str, name: &str, most: u64) -> Result<Split> {
    let read = |parts: &[&str]| {
        let stems =
            |what: &str| parts.iter().map(|part| format!("{prefix}{part}-{what}")).collect::<Vec<_>>();
        let images = find(dir, &stems("images"), &[3, 4])?;
        let labels = find(dir, &stems("labels"), &[1])?;
        let files = [images.to_string_lossy(), labels.to_string_lossy()];
        let turned = prefix.starts_with("emnist-");
        let (count, shape, pixels) = match file::filed(&images, most)? {
            Some(_) if turned => {
                let message = format!("more than {most} bytes found, expected at most as many, to be turned");
                return Err(refuse(files[0].as_ref(), message));
            }
            Some(filed) => filed,
            None => {
                let (count, [channels, height, width], pixels) =
                    file::images(&files[0], &crate::files::read(&images)?)?;
                if turned {
                    let pixels = transposed(&pixels, [channels, height, width]);
                    (count, [channels, width, height], pixels.into())
                } else {
                    (count, [channels, height, width], Pixels::Held(pixels))
                }
            }
        };
        let labels = file::labels([&files[0], &files[1]], &crate::files::read(&labels)?, count)?;
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
    let classes = found.named_in(dir)?;
    let [train, test] = parts.map(|([images, file], shape, pixels, labels)| {
        let mut data = classes.dataset(name, &file, shape, pixels, labels)?;
        data.turned = prefix.starts_with("emnist-");
        Ok::<_, Error>((images, data))
    });
    Split::new(train?, test?)
}

/// Finds a file under any of its accepted names.
fn find(dir: &Path, stems: &[String], dimensions: &[u8]) -> Result<PathBuf> {
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

/// The class of each label and the names of the classes.
type Mapping = ([Option<u8>; 256], Vec<String>);

/// Reads EMNIST's mapping of labels to characters, if it is there.
fn mapping(path: &Path) -> Result<Option<Mapping>> {
    let Some(lines) = read_lines(path)? else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use super::super::written::{gzip, idx};
    use super::*;

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
        let Split { train, test, .. } = load(&dir, "").unwrap();
        assert_eq!((train.height, train.width, train.classes), (3, 2, 26));
        assert_eq!(train.picture(0), [1, 4, 2, 5, 3, 6]);
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
    fn what_is_too_large_for_memory_stays_in_its_file() {
        let pixels: Vec<u8> = (0..60).collect();
        let set = |name: &str, magic: u32, sizes: &[u32]| {
            let dir = folder(&[
                (&format!("train-images-{name}"), idx(magic, sizes, &pixels)),
                ("train-labels-idx1-ubyte", idx(0x801, &[sizes[0]], &vec![1; sizes[0] as usize])),
                (&format!("t10k-images-{name}"), idx(magic, sizes, &pixels)),
                ("t10k-labels-idx1-ubyte", idx(0x801, &[sizes[0]], &vec![0; sizes[0] as usize])),
            ]);
            let told = |most| {
                load_below(dir.path(), "", "made", most).map_err(|error| {
                    error.to_string().replace(&dir.path().to_string_lossy()[..], "DIR").replace('\\', "/")
                })
            };
            (told(60), told(1000))
        };
        for (name, magic, sizes) in
            [("idx3-ubyte", 0x803, &[10, 2, 3][..]), ("idx4-ubyte", 0x804, &[5, 3, 2, 2])]
        {
            let (filed, held) = set(name, magic, sizes);
            let (filed, held) = (filed.unwrap(), held.unwrap());
            assert!(filed.train.images.is_filed() && !held.train.images.is_filed());
            for (a, b) in [(&filed.train, &held.train), (&filed.test, &held.test)] {
                assert_eq!(a.images.to_vec(), b.images.to_vec());
                assert_eq!(
                    (a.channels, a.height, a.width, &a.labels),
                    (b.channels, b.height, b.width, &b.labels)
                );
            }
            // Parts of it are, too.
            let [(first, last, drawn), (as_first, as_last, as_drawn)] =
                [&filed, &held].map(|one| one.train.hold_out(0.4, 1));
            assert_eq!(
                (first.images.to_vec(), last.images.to_vec(), drawn),
                (as_first.images.to_vec(), as_last.images.to_vec(), as_drawn)
            );
            assert!(last.images.is_filed());
            assert_eq!(filed.train.per_class(1).images.to_vec(), held.train.per_class(1).images.to_vec());
        }
        let refused = |name, magic, sizes: &[u32]| set(name, magic, sizes).0.unwrap_err();
        assert!(refused("idx4-ubyte", 0x804, &[5, 2, 2, 3]).contains("expected N, C, H, W"));
        assert_eq!(
            refused("idx3-ubyte", 0x803, &[11, 2, 3]),
            "DIR/train-images-idx3-ubyte: 76 bytes found, expected 82 for its sizes"
        );
        assert!(refused("idx3-ubyte", 0x804, &[10, 2, 3]).contains("expected 0x00000803"));
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
        let Split { train, test, .. } = load(&dir, "/qmnist").unwrap();
        assert_eq!((train.channels, train.height, train.width, train.classes), (3, 1, 2, 2));
        assert_eq!(
            (train.images.to_vec(), test.images.to_vec()),
            (vec![1, 4, 2, 5, 3, 6], vec![1, 3, 5, 2, 4, 6])
        );
        assert!(load(&dir, "/other").unwrap_err().contains("no such data"));
        std::fs::write(dir.path().join("classes.txt"), "no\nyes\nperhaps\n").unwrap();
        let train = load(&dir, "/qmnist").unwrap().train;
        assert_eq!((train.classes, train.class_names[2].as_str()), (3, "perhaps"));
    }
}
