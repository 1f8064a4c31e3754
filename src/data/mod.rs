//! Labelled images, signals and texts to train on, and single pictures to classify.
//!
//! [`load`] takes a name, a folder or a file, and [`named`] what is part of the program. One module a format: [`idx`]
//! (MNIST and its kin), [`folder`] (pictures in a folder for each class), [`cifar`], [`npy`] (`.npy` and `.npz`),
//! [`table`] (CSV and TSV), [`text`]; [`series`] makes bytes of real numbers, [`compose`] pictures of digits, and
//! [`picture`] brings a single one into the form of the data. Every reader is strict: what a file claims is checked
//! before anything is allocated, and a message says what was found and what was expected.

// Each uses only those before it in this order: input, names, pixels, dataset, classes, split, series, picture, formats,
// made, detect, doubts, rows.
mod classes;
mod dataset;
mod detect;
mod doubts;
mod formats;
mod input;
mod made;
mod names;
pub mod picture;
mod pixels;
mod rows;
pub mod series;
mod split;

pub use classes::places;
pub use dataset::{Dataset, Encoding};
pub use detect::{NAMES, named};
#[cfg(not(target_arch = "wasm32"))]
pub use detect::{Reading, load, load_with};
pub use doubts::{Doubt, doubts};
pub use formats::{cifar, folder, idx, npy, table, text};
pub use made::{compose, languages, mnist, waves};
pub(crate) use pixels::{NO_BYTES, hashed};
pub use pixels::{Part, Pixels};
pub use rows::{Like, Rows, rows};
pub(crate) use split::shuffle;
pub use split::{HELD_OUT, Split};
