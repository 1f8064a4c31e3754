//! Texts as images: one channel for each character of an alphabet, one column for each character of the text.
//!
//! The byte of channel c in column x is 255 where the text has the alphabet's character c at place x, else 0.

use std::collections::BTreeMap;

use crate::data::classes::{Classes, Label};
use crate::data::dataset::Encoding;
use crate::data::input::refuse;
use crate::data::split::Split;
#[cfg(not(target_arch = "wasm32"))]
use crate::data::{
    input::list,
    names::{Side, side},
    split::{drawn, places_of, recorded},
};
use crate::error::{Error, Result};

/// The most characters of an alphabet; of more, the most frequent are taken.
pub const MAX_ALPHABET: usize = 255;

/// The most characters of a text; what is longer is cut.
pub const MAX_LENGTH: usize = 256;

/// The most bytes that the texts of one part may take: 128 MiB.
const MAX_BYTES: u64 = 128 << 20;

/// A class and a text.
type Line = (String, String);

/// Reads lines of a class, a tab and a text; blank lines are passed over.
///
/// `file` is what errors call the file.
///
/// # Errors
///
/// [`Error::Data`] when the file is not UTF-8, a line has no tab, or the class or the text is empty.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        refuse(file, format!("bytes that are not UTF-8 found in line {line}, expected text"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match line.split_once('\t').map(|(class, text)| (class.trim(), text.trim())) {
            Some((class, text)) if !class.is_empty() && !text.is_empty() => {
                lines.push((class.into(), text.into()))
            }
            _ => {
                let shown: String = line.chars().take(40).collect();
                return Err(refuse(
                    file,
                    format!("{shown:?} found in line {}, expected a class, a tab and a text", i + 1),
                ));
            }
        }
    }
    if lines.is_empty() {
        return Err(refuse(file, "no line found, expected one at least"));
    }
    Ok(lines)
}

/// A text as an image `[alphabet, 1, length]`: characters that the alphabet lacks and places beyond the text's end
/// are all 0, and what lies beyond `length` is cut. Upper case counts as lower case.
pub fn encode(text: &str, alphabet: &str, length: usize) -> Vec<u8> {
    let mut image = vec![0; alphabet.chars().count() * length];
    write(text, &channels(alphabet), length, &mut image);
    image
}

/// The channel of each character.
fn channels(alphabet: &str) -> BTreeMap<char, usize> {
    alphabet.chars().enumerate().map(|(channel, c)| (c, channel)).collect()
}

fn write(text: &str, channels: &BTreeMap<char, usize>, length: usize, image: &mut [u8]) {
    for (x, c) in folded(text).take(length).enumerate() {
        if let Some(channel) = channels.get(&c) {
            image[channel * length + x] = 255;
        }
    }
}

/// The characters of a text in lower case.
fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// The characters of the texts in lower case, sorted; of more than [`MAX_ALPHABET`] the most frequent.
fn alphabet(texts: &[Line]) -> String {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for c in texts.iter().flat_map(|(_, text)| folded(text)) {
        *counts.entry(c).or_default() += 1;
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    // The sort is stable: of equally frequent ones the first by code stays.
    ranked.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    ranked.truncate(MAX_ALPHABET);
    ranked.sort();
    ranked.into_iter().map(|(c, _)| c).collect()
}

/// Makes data of classes and texts, to train on and for the test.
///
/// The alphabet is the characters of the training part, lower case, at most [`MAX_ALPHABET`]; an image is
/// `[alphabet, 1, length]`, where the length is that of its longest text, at most [`MAX_LENGTH`]. Classes are
/// sorted: numbers by value, then words.
///
/// # Errors
///
/// [`Error::Data`] when there are not 2 to 256 classes, or a part takes more than 128 MiB.
pub fn texts(name: &str, files: [&str; 2], parts: [&[(String, String)]; 2]) -> Result<Split> {
    let labels = parts.map(|part| part.iter().map(|(class, _)| class.clone()).collect::<Vec<_>>());
    let parts_of = [(files[0], &labels[0][..]), (files[1], &labels[1][..])];
    let (classes, labels) = Classes::of(&parts_of, |label| Label::new(label))?;
    let alphabet = alphabet(parts[0]);
    let channels = channels(&alphabet);
    let longest = parts[0].iter().map(|(_, text)| folded(text).count()).max().unwrap_or(0);
    let shape = [channels.len(), 1, longest.clamp(1, MAX_LENGTH)];
    let pixels = shape[0] * shape[2];
    let make = |i: usize| {
        let bytes = pixels as u64 * parts[i].len() as u64;
        if bytes > MAX_BYTES {
            return Err(refuse(
                files[i],
                format!(
                    "{} texts of {} characters in {} channels found, {bytes} bytes, expected at most {MAX_BYTES}",
                    parts[i].len(),
                    shape[2],
                    shape[0]
                ),
            ));
        }
        let mut images = vec![0; pixels * parts[i].len()];
        for ((_, text), image) in parts[i].iter().zip(images.chunks_exact_mut(pixels.max(1))) {
            write(text, &channels, shape[2], image);
        }
        let mut data = classes.dataset(name, shape, images, labels[i].clone())?;
        data.encoding = Encoding::Text { alphabet: alphabet.clone() };
        Ok::<_, Error>((files[i].to_owned(), data))
    };
    Split::new(make(0)?, make(1)?)
}

/// A text that an image stands for, a space where no character is set.
pub fn decode(image: &[u8], alphabet: &str, length: usize) -> String {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let at = |x: usize| {
        alphabet.iter().enumerate().find(|(channel, _)| image.get(channel * length + x) == Some(&255))
    };
    let text: String = (0..length).map(|x| at(x).map_or(' ', |(_, c)| *c)).collect();
    text.trim_end().to_owned()
}

/// The file of texts of one part: `train.txt`, `Testing.txt`, …
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) fn part(files: &[String], part: Side) -> Option<&String> {
    let fits =
        |file: &String| side(file.to_lowercase().strip_suffix(".txt")?).filter(|(side, _)| *side == part);
    files.iter().filter_map(|file| Some((fits(file)?, file))).min().map(|(_, file)| file)
}

/// Loads a folder with `train.txt` and `test.txt`, lines of a class, a tab and a text; see [`texts`]. Where the second
/// is missing, a part of the first is the test.
///
/// # Errors
///
/// [`Error::Data`] when a file is missing or malformed or they do not fit each other; [`Error::Io`] when one
/// cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(dir: &std::path::Path, name: &str) -> Result<Split> {
    let files = list(dir)?;
    let read = |file: &String| {
        let path = dir.join(file);
        let file = path.to_string_lossy().into_owned();
        let lines = parse(&file, &crate::files::read(&path)?)?;
        Ok::<_, Error>((file, lines))
    };
    let Some(train) = part(&files, Side::Train) else {
        return Err(refuse(dir.to_string_lossy(), "no file train.txt found, expected one"));
    };
    let train = read(train)?;
    if let Some(test) = part(&files, Side::Test) {
        let test = read(test)?;
        return texts(name, [&train.0, &test.0], [&train.1, &test.1]);
    }
    let labels: Vec<&String> = train.1.iter().map(|(class, _)| class).collect();
    let places = places_of(&drawn(&labels));
    let [rest, held] =
        places.each_ref().map(|part| part.iter().map(|&i| train.1[i].clone()).collect::<Vec<_>>());
    let mut split = texts(name, [&train.0, &train.0], [&rest, &held])?;
    split.held_out = recorded("line", &places[1]);
    split.notes.push(format!("there is no test.txt: a line in six of each class of {} is the test", train.0));
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[(&str, &str)]) -> Vec<Line> {
        lines.iter().map(|(class, text)| ((*class).into(), (*text).into())).collect()
    }

    #[test]
    fn a_text_is_one_channel_a_character() {
        let train = lines(&[("b", "Ab"), ("a", "baÄ"), ("b", "a")]);
        let test = lines(&[("a", "bäzab")]);
        let Split { train, test, .. } = texts("t", ["f", "g"], [&train, &test]).unwrap();
        assert_eq!((train.channels, train.height, train.width, train.classes), (3, 1, 3, 2));
        assert_eq!(
            (train.class_names.clone(), train.labels.clone()),
            (vec!["a".into(), "b".into()], vec![1, 0, 1])
        );
        assert_eq!(train.encoding, Encoding::Text { alphabet: "abä".into() });
        assert_eq!(train.picture(0), [255, 0, 0, 0, 255, 0, 0, 0, 0]);
        assert_eq!(train.picture(1), [0, 255, 0, 255, 0, 0, 0, 0, 255]);
        // An unknown character is no channel, and what is too long is cut.
        assert_eq!(test.picture(0), [0, 0, 0, 255, 0, 0, 0, 255, 0]);
        assert_eq!(encode("BÄZAB", "abä", 3), test.picture(0));
        assert_eq!(decode(train.picture(1), "abä", 3), "baä");
        assert_eq!(decode(train.picture(2), "abä", 3), "a");
    }

    #[test]
    fn the_most_frequent_characters_make_the_alphabet() {
        let many: String = (0x4e00..0x4e00 + 300).filter_map(char::from_u32).collect();
        let texts = lines(&[("a", &many), ("b", &many[30..])]);
        let alphabet = alphabet(&texts);
        assert_eq!(alphabet.chars().count(), MAX_ALPHABET);
        // The first ten are rarer than the others.
        assert_eq!(alphabet.chars().next(), many.chars().nth(10));
        assert!(alphabet.chars().is_sorted());
    }

    #[test]
    fn malformed_texts_are_refused() {
        let refused = |bytes: &[u8]| parse("f", bytes).unwrap_err().to_string();
        assert_eq!(refused(b""), "f: no line found, expected one at least");
        assert_eq!(refused(b"\n \n"), "f: no line found, expected one at least");
        assert_eq!(refused(b"a\tb\nab\n"), "f: \"ab\" found in line 2, expected a class, a tab and a text");
        assert_eq!(refused(b"a\t \n"), "f: \"a\\t \" found in line 1, expected a class, a tab and a text");
        assert_eq!(refused(b"a\tb\nc\t\xff\n"), "f: bytes that are not UTF-8 found in line 2, expected text");
        assert_eq!(parse("f", b"\xef\xbb\xbfa\tb c\td\r\n\n").unwrap(), lines(&[("a", "b c\td")]));

        let of = |train: &[(&str, &str)], test: &[(&str, &str)]| {
            texts("t", ["f", "g"], [&lines(train), &lines(test)]).unwrap_err().to_string()
        };
        assert_eq!(of(&[("a", "x")], &[]), "f: 1 class, a, found, expected 2 to 256");
        assert_eq!(of(&[("a", "x"), ("b", "y")], &[]), "g: no image found, expected one at least");
        let long = "abcdefghijklmnopqrstuvwxyz".repeat(20);
        let many: Vec<Line> = (0..20_200).map(|i| (["a", "b"][i % 2].to_owned(), long.clone())).collect();
        assert_eq!(
            texts("t", ["f", "g"], [&many, &many]).unwrap_err().to_string(),
            "f: 20200 texts of 256 characters in 26 channels found, 134451200 bytes, expected at most 134217728"
        );
    }

    #[test]
    fn a_folder_of_texts_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Test.txt"), "9\tnoon\n").unwrap();
        let message = crate::data::load(dir.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains(": texts: Test.txt found, train.txt missing; expected"), "{message}");
        std::fs::write(dir.path().join("train.txt"), "10\tyes\n9\tno\n").unwrap();
        let Split { train, test, .. } = crate::data::load(dir.path().to_str().unwrap()).unwrap();
        // Numbers are in the order of their values.
        assert_eq!(
            (&train.class_names[..], &test.labels[..]),
            (&["9".to_owned(), "10".to_owned()][..], &[0][..])
        );
        assert_eq!(decode(test.picture(0), "enosy", 3), "noo");
        // Alone, a part of it is the test, of each class alike.
        std::fs::remove_file(dir.path().join("Test.txt")).unwrap();
        std::fs::write(dir.path().join("train.txt"), "10\tyes\n9\tno\n".repeat(12)).unwrap();
        let split = crate::data::load(dir.path().to_str().unwrap()).unwrap();
        assert_eq!((split.train.len(), split.test.label_counts()), (20, vec![2, 2]));
        assert_eq!(split.held_out.unwrap().len(), 4);
        assert!(split.notes[0].starts_with("there is no test.txt: a line in six of each class of "));
    }
}
