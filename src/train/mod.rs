//! Training over a session: epochs, schedules, metrics, evaluation, stop and resume.
//!
//! A [`Trainer`] never waits and never owns the thread: [`Trainer::advance`] queues a few steps,
//! [`Trainer::poll`] tells what has been finished, and between the two the caller may pause, change the
//! learning rate, save or drop it. Time, files and threads are the caller's.

mod event;
mod order;
pub mod pace;
mod schedule;
mod settings;
mod snapshot;
mod trainer;

pub use event::{Advance, Event};
pub use order::epoch_order;
pub use schedule::Schedule;
pub use settings::Settings;
pub use snapshot::{Position, Snapshot};
pub use trainer::Trainer;
