//! Where an image becomes a list of features.

use super::{Kind, Outcome, Site};
use crate::error::Result;
use crate::network::Shape;

/// Channels, rows and columns in one list.
pub(in crate::network) struct Flatten;

impl Kind for Flatten {
    fn title(&self) -> String {
        "flatten".into()
    }

    fn describe(&self) -> String {
        "flatten".into()
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        Ok(Outcome::plain(Shape { channels: at.input.len(), height: 1, width: 1 }))
    }
}
