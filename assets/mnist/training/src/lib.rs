//! The 60,000 training pictures of the MNIST database of handwritten digits and their labels: the original IDX
//! files, gzipped, byte for byte. A crate of their own, so that only who asks for them has to fetch them; the test
//! files, which are a sixth as large, are in the crate `lenet`, since all four are too large for one crate.
//!
//! By Yann LeCun, Corinna Cortes and Christopher J. C. Burges, under CC BY-SA 3.0.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// `train-images-idx3-ubyte.gz`: 60,000 pictures of 28×28 bytes, 0 for black.
pub const TRAINING_IMAGES: &[u8] = include_bytes!("../train-images-idx3-ubyte.gz");

/// `train-labels-idx1-ubyte.gz`: the digit that each picture shows, a byte each.
pub const TRAINING_LABELS: &[u8] = include_bytes!("../train-labels-idx1-ubyte.gz");
