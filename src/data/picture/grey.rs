//! A grey picture: its pixels, its ink, and how it looks in a terminal.

use std::fmt;

/// Paler pixels are the soft edge of ink, not ink, where boxes are drawn around it.
pub const INK: u8 = 64;

/// A grey picture of any size.
#[derive(Clone, PartialEq, Eq)]
pub struct Grey {
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
    /// `[height, width]` row-major, 0 for black to 255 for white.
    pub pixels: Vec<u8>,
}

impl fmt::Debug for Grey {
    /// Shows the size only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grey {{ {}x{} }}", self.width, self.height)
    }
}

/// The box (left, top, right, bottom; the last two exclusive) of the pixels of [`INK`] and brighter inside a box;
/// `pixels` has `width` columns and holds the box.
pub(crate) fn ink_box(pixels: &[u8], width: usize, within: [u32; 4]) -> Option<[u32; 4]> {
    let mut ink: Option<[u32; 4]> = None;
    for y in within[1]..within[3] {
        let row = &pixels[y as usize * width..][..width];
        for x in (within[0]..within[2]).filter(|&x| row[x as usize] >= INK) {
            let [left, top, right, bottom] = ink.unwrap_or([x, y, x, y]);
            ink = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
        }
    }
    ink
}

/// A grey picture as lines of text, two columns a pixel, from ' ' for black to '█' for white.
///
/// `pixels` is row-major with `width` pixels a row; a last row that is not full is shown as far as
/// it goes, and a `width` of 0 gives no text.
pub fn show(pixels: &[u8], width: usize) -> String {
    const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
    if width == 0 {
        return String::new();
    }
    let mut text = String::new();
    for row in pixels.chunks(width) {
        text.extend(row.iter().map(|&value| SHADES[usize::from(value) * SHADES.len() / 256]));
        text.push('\n');
    }
    text
}
