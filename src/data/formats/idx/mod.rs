//! A strict reader of the IDX format, the one MNIST and its kin come in, gzipped or not.
//!
//! A file is a big-endian header (two zero bytes, the element type, the number of dimensions, then
//! one 32-bit size for each dimension) followed by exactly as many elements as the sizes say.
//! Anything else is refused.

mod file;
#[cfg(not(target_arch = "wasm32"))]
mod set;

pub use file::{dataset, parse_images, parse_labels, parse_planes};
#[cfg(not(target_arch = "wasm32"))]
pub use set::load;
#[cfg(not(target_arch = "wasm32"))]
pub(in crate::data) use set::prefixes;

/// What the tests write files with.
#[cfg(test)]
mod written {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    pub fn idx(magic: u32, sizes: &[u32], content: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        for size in sizes {
            bytes.extend(size.to_be_bytes());
        }
        bytes.extend(content);
        bytes
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
}
