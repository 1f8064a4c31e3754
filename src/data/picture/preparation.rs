//! The form that a picture is brought to, and what was done to bring it there.

use std::fmt;

use super::file::MAX_SIDE;
use crate::error::{Error, Result};

/// The steps that were taken to prepare a picture, for display.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// The picture had the right form already and was taken bit for bit; nothing else was done.
    pub unchanged: bool,
    /// The picture was dark on light and was inverted.
    pub inverted: bool,
    /// Width and height of the picture in the file, in pixels, as it is to be looked at.
    pub cropped_from: (u32, u32),
    /// The ink's bounding box in that picture: left, top, width, height in pixels.
    pub ink: [u32; 4],
    /// By how much the ink was scaled: output pixels for each pixel of the file.
    pub scale: f32,
    /// The picture itself was cropped about its middle and scaled, by [`fit`](super::fit); `ink` is what was kept
    /// of it.
    pub whole: bool,
    /// What is doubtful about it, in words: several digits side by side, ink that is hardly any.
    pub doubts: Vec<String>,
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.cropped_from;
        if self.unchanged {
            return write!(f, "{width}x{height} pixels, taken as they are");
        }
        let [left, top, ink_width, ink_height] = self.ink;
        let inverted = if self.inverted { "inverted, " } else { "" };
        let centred = if self.whole { "" } else { ", centred" };
        write!(
            f,
            "{width}x{height} pixels, {inverted}cropped to {ink_width}x{ink_height} at {left},{top}, scaled by {:.3}{centred}",
            self.scale
        )
    }
}

/// Width and height of the target, checked.
pub(super) fn field(height: usize, width: usize) -> Result<(u32, u32)> {
    let side = |size: usize| u32::try_from(size).ok().filter(|size| (1..=MAX_SIDE).contains(size));
    match (side(width), side(height)) {
        (Some(columns), Some(rows)) => Ok((columns, rows)),
        _ => Err(Error::Settings(format!(
            "a picture cannot be brought to {width}x{height} pixels, expected 1 to {MAX_SIDE} in each direction"
        ))),
    }
}
