//! One picture from a file, of any kind that the `image` crate reads in Rust, in a page PNG, JPEG or PNM; brought into the form the network was trained on.
//!
//! MNIST's digits are white ink on black, scaled to fit a box of 20×20 pixels and placed by their
//! centre of mass in a field of 28×28. A photograph or scan is dark ink on light paper, of any size
//! and anywhere on the sheet; [`prepare`] repeats what was done to MNIST. A network that was trained on
//! pictures as they are, colour ones among them, is given the whole picture: [`fit`].

mod digit;
mod file;
mod form;
#[cfg(test)]
mod forms;
mod grey;
mod ground;
mod ink;
mod line;
mod lines;
mod pieces;
mod plane;
mod preparation;
#[cfg(test)]
mod tests;
mod whole;

pub use digit::{prepare, prepare_grey};
#[cfg(not(target_arch = "wasm32"))]
pub use file::EXTENSIONS;
pub(super) use file::MAX_SIDE;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use file::{KINDS, is_picture};
pub use form::Form;
pub(crate) use grey::ink_box;
pub use grey::{Grey, INK, show};
pub use line::{LINE_HEIGHT, Writing, prepare_line};
pub use preparation::Preparation;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use whole::read;
pub use whole::{fit, thumbnail};
