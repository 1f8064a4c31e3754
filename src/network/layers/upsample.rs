//! Upsampling by repetition.

use super::{Kind, Outcome, Site};
use crate::error::Result;
use crate::network::Shape;

/// Each pixel repeated so many times in both directions.
pub(in crate::network) struct Upsample(pub usize);

impl Kind for Upsample {
    fn title(&self) -> String {
        "upsample".into()
    }

    fn describe(&self) -> String {
        format!("upsample {0}×{0}", self.0)
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let Upsample(factor) = *self;
        at.within("factor", 1, &[factor])?;
        let output = Shape { height: at.input.height * factor, width: at.input.width * factor, ..at.input };
        at.sized(&[output.channels, output.height, output.width])?;
        Ok(Outcome::plain(output))
    }
}
