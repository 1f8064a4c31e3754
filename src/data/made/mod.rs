//! Data that is part of the program: MNIST, and what is generated.

pub mod compose;
mod languages;
mod mnist;
mod waves;

pub use languages::languages;
pub use mnist::mnist;
pub use waves::waves;
