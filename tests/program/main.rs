//! The `lenet` program from outside: what it writes, prints and refuses, and that runs repeat and resume exactly.
#![cfg(all(feature = "program", feature = "mnist"))]

mod check;
#[path = "../common/mod.rs"]
mod common;
mod models;
mod place;
mod refusals;
mod resume;
mod runs;
mod seen;
mod tools;
