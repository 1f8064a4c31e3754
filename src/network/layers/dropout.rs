//! Dropout.

use super::{Kind, Outcome, Site};
use crate::error::Result;

/// Sets this share of the features to 0 in training.
pub(in crate::network) struct Dropout(pub f32);

impl Kind for Dropout {
    fn title(&self) -> String {
        "dropout".into()
    }

    fn describe(&self) -> String {
        format!("dropout {}", self.0)
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let Dropout(rate) = self;
        if !(0.0..1.0).contains(rate) {
            return Err(at.wrong(format!("the rate is {rate}, expected 0 to below 1")));
        }
        Ok(Outcome::plain(at.input))
    }
}
