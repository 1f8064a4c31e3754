//! Pictures put together from digits: strings to read, windows to learn reading from, scenes to segment.
//!
//! All is drawn from a seed, each picture from its own stream and without a function of the machine's maths
//! library: the same seed gives the same bytes on every machine, whatever the number of threads.

mod scenes;
mod stock;
mod strings;
mod windows;

pub use scenes::{SCENE, mnist_scenes, scenes};
pub use stock::SPACING;
pub use strings::{Line, strings};
pub use windows::{FIELD, NONE, mnist_windows, windows};
