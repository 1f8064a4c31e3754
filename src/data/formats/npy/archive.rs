//! A zip archive, stored or deflated, as `.npz` files are.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use crate::data::input::MAX_CONTENT;

/// A file of a zip archive, as its directory lists it.
#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: String,
    method: u16,
    sum: u32,
    packed: &'a [u8],
    size: u32,
}

/// Reads the directory of a zip archive without extensions to 64 bits, of at most 4 GiB.
pub(super) fn members(bytes: &[u8]) -> Result<Vec<Member<'_>>, String> {
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
    pub(super) fn unpack(&self) -> Result<Vec<u8>, String> {
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
