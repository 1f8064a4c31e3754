//! The pixels of a data set: in memory, or left in a file that is larger than one wants there.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(not(target_arch = "wasm32"))]
use super::input::refuse;
use crate::error::{Error, Result};

/// The sum of no bytes.
pub(crate) const NO_BYTES: u64 = 0xcbf2_9ce4_8422_2325;

/// The sum of bytes behind others whose sum is `hash` and whose number is a multiple of eight: FNV-1a over words of 8
/// bytes, mixed so that what is far up reaches down.
pub(crate) fn hashed(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut add = |word: u64| {
        hash = (hash ^ word).wrapping_mul(0x100_0000_01b3);
        hash ^= hash >> 32;
    };
    let (whole, rest) = bytes.as_chunks();
    whole.iter().for_each(|&bytes| add(u64::from_le_bytes(bytes)));
    if !rest.is_empty() {
        add(rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    }
    hash
}

/// Bytes one after the other, as they are in a data set.
#[derive(Clone, PartialEq)]
pub enum Pixels {
    /// In memory.
    Held(Vec<u8>),
    /// In a file, of which parts are read when they are asked for.
    Filed(Part),
}

/// A part of a file that stays open. What another program writes there in the meantime is what is read.
#[derive(Clone)]
pub struct Part {
    source: Arc<Source>,
    /// Where the first image lies in the file.
    base: u64,
    /// The images that belong to it, in this order, where not all do.
    picked: Option<Picked>,
    /// Where it begins, among all images or those that were picked.
    start: usize,
    len: usize,
}

/// Images of the same size, by their numbers in the file.
#[derive(Clone, PartialEq)]
struct Picked {
    size: usize,
    images: Arc<Vec<u32>>,
}

impl Part {
    /// Where a byte lies in the file, and how many follow it there.
    fn place(&self, at: usize) -> (u64, usize) {
        let at = self.start + at;
        let Some(Picked { size, images }) = &self.picked else { return (self.base + at as u64, usize::MAX) };
        let image = images[at / size] as u64;
        (self.base + image * *size as u64 + (at % size) as u64, size - at % size)
    }

    fn read(&self, at: usize, into: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.source.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < into.len() {
            let (place, follow) = self.place(at + done);
            let end = done + follow.min(into.len() - done);
            file.seek(SeekFrom::Start(place))?;
            file.read_exact(&mut into[done..end])?;
            done = end;
        }
        Ok(())
    }
}

struct Source {
    path: String,
    /// One reader at a time: a file has one position.
    file: Mutex<File>,
}

impl PartialEq for Part {
    /// Whether it is the same part of the same file.
    fn eq(&self, other: &Part) -> bool {
        let all =
            |part: &Part| (part.source.path.clone(), part.base, part.start, part.len, part.picked.clone());
        all(self) == all(other)
    }
}

impl Pixels {
    /// All bytes of a file from `start` on, which have to be `len`. A browser has no files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be opened, [`Error::Data`] when it has another length.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &Path, start: u64, len: usize) -> Result<Pixels> {
        let file = File::open(path).map_err(Error::io(path))?;
        let found = file.metadata().map_err(Error::io(path))?.len();
        let path = path.to_string_lossy().into_owned();
        if found != start + len as u64 {
            let expected = start + len as u64;
            return Err(refuse(path, format!("{found} bytes found, expected {expected} for its sizes")));
        }
        let source = Arc::new(Source { path, file: Mutex::new(file) });
        Ok(Pixels::Filed(Part { source, base: start, picked: None, start: 0, len }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Pixels::Held(bytes) => bytes.len(),
            Pixels::Filed(part) => part.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they stay in a file.
    pub fn is_filed(&self) -> bool {
        matches!(self, Pixels::Filed(_))
    }

    /// Those of a range, which are read now if they are in a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be read, or has become shorter.
    ///
    /// # Panics
    ///
    /// When the range ends beyond [`Pixels::len`], like the indexing of a slice.
    pub fn get(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        match self {
            Pixels::Held(bytes) => Ok(Cow::Borrowed(&bytes[range])),
            Pixels::Filed(part) => {
                assert!(range.end <= part.len, "bytes {range:?} of {}", part.len);
                let mut bytes = vec![0; range.len()];
                part.read(range.start, &mut bytes).map_err(Error::io(Path::new(&part.source.path)))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// All of them, which come into memory if they are in a file.
    ///
    /// # Errors
    ///
    /// As [`Pixels::get`].
    pub fn all(&self) -> Result<Cow<'_, [u8]>> {
        self.get(0..self.len())
    }

    /// All of them, one piece of at most `size` bytes after the other.
    pub fn pieces(&self, size: usize) -> impl Iterator<Item = Result<Cow<'_, [u8]>>> {
        (0..self.len()).step_by(size).map(move |at| self.get(at..(at + size).min(self.len())))
    }

    /// The same bytes without those of other ranges; those in memory are copied.
    pub fn part(&self, range: Range<usize>) -> Pixels {
        match self {
            Pixels::Held(bytes) => Pixels::Held(bytes[range].to_vec()),
            Pixels::Filed(part) => {
                Pixels::Filed(Part { start: part.start + range.start, len: range.len(), ..part.clone() })
            }
        }
    }

    /// The images of these numbers, of `size` bytes each; those in memory are copied.
    pub fn pick(&self, size: usize, images: &[usize]) -> Pixels {
        match self {
            Pixels::Held(bytes) => {
                let mut picked = Vec::with_capacity(images.len() * size);
                images.iter().for_each(|&i| picked.extend_from_slice(&bytes[i * size..][..size]));
                Pixels::Held(picked)
            }
            Pixels::Filed(part) => {
                let number = |&i: &usize| match &part.picked {
                    Some(picked) => picked.images[part.start / size + i],
                    None => (part.start / size + i) as u32,
                };
                let picked = Picked { size, images: Arc::new(images.iter().map(number).collect()) };
                let len = images.len() * size;
                Pixels::Filed(Part { picked: Some(picked), start: 0, len, ..part.clone() })
            }
        }
    }

    /// Leaves the first `len`.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Pixels::Held(bytes) => bytes.truncate(len),
            Pixels::Filed(part) => part.len = part.len.min(len),
        }
    }
}

#[cfg(test)]
impl Pixels {
    /// All of them.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.all().unwrap().into_owned()
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pixels::Held(bytes) => bytes.fmt(f),
            Pixels::Filed(part) => write!(f, "{} bytes of {}", part.len, part.source.path),
        }
    }
}

impl From<Vec<u8>> for Pixels {
    fn from(bytes: Vec<u8>) -> Pixels {
        Pixels::Held(bytes)
    }
}

/// The bytes themselves; none of a file are.
impl<T: AsRef<[u8]>> PartialEq<T> for Pixels {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Pixels::Held(bytes) if bytes == other.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        fs::write(&path, (0..100).collect::<Vec<u8>>()).unwrap();
        let mut filed = Pixels::open(&path, 10, 90).unwrap();
        let mut held = Pixels::from((10..100).collect::<Vec<u8>>());
        let same = |a: &Pixels, b: &Pixels| {
            let all = |pixels: &Pixels| {
                pixels.pieces(7).map(|piece| piece.unwrap().into_owned()).collect::<Vec<_>>()
            };
            assert_eq!((a.len(), all(a)), (b.len(), all(b)));
        };
        same(&filed, &held);
        same(&filed.part(5..70), &held.part(5..70));
        assert_eq!(filed.get(3..6).unwrap(), held.get(3..6).unwrap());
        filed.truncate(20);
        held.truncate(20);
        same(&filed, &held);
        assert!(filed.is_filed() && filed == filed.clone() && filed != held);
        // Images of four bytes each, and some of these.
        let (some, of_held) = (filed.pick(4, &[4, 0, 3]), held.pick(4, &[4, 0, 3]));
        same(&some, &of_held);
        same(&some.pick(4, &[2, 1]), &of_held.pick(4, &[2, 1]));
        same(&some.part(4..12).pick(4, &[1]), &of_held.part(4..12).pick(4, &[1]));
        assert!(some != filed && some == filed.pick(4, &[4, 0, 3]));

        let refused = Pixels::open(&path, 10, 91).unwrap_err().to_string();
        assert!(refused.contains("100 bytes found, expected 101"), "{refused}");
        // What another program cuts off is an error of the read.
        fs::write(&path, [0; 15]).unwrap();
        assert!(matches!(filed.get(0..20), Err(Error::Io { .. })));
        assert_eq!(filed.get(0..5).unwrap(), [0; 5].as_slice());
    }
}
