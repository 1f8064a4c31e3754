//! Reading a string of digits with a space displacement network, and judging what was read.
//!
//! A network that knows one digit at a time, with convolutions in place of its linear layers, can be laid over a
//! picture of any size; each of its outputs then judges a window of the picture (LeCun, Bottou, Bengio and Haffner
//! 1998, section VII, "Multiple character recognition: space displacement neural networks"). [`decode`] turns the
//! grid of judgements into a string. The paper composes a Viterbi search over a grammar for that; here the network
//! has a class for "no digit in the middle", and the search is over where the digits stand.

mod measure;

use crate::data::picture::{Grey, ink_box};
use crate::error::{Error, Result};

pub use measure::{Reading, edit_distance, intersection_over_union, measure, overlap};

/// What the network says of each window.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// How many classes there are.
    pub classes: usize,
    /// Windows from top to bottom.
    pub rows: usize,
    /// Windows from left to right.
    pub columns: usize,
    /// Probabilities, `[classes, rows, columns]` row-major.
    pub probabilities: Vec<f32>,
}

/// Where the windows lie, in pixels, and what to look for in them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// From one window to the next, in both directions.
    pub stride: usize,
    /// Rows and columns of a window.
    pub field: usize,
    /// How far the first window reaches beyond the picture: the padding of the network's input.
    pub pad: usize,
    /// The class of a window without a digit in its middle.
    pub none: usize,
    /// The least distance of two digits' middles.
    pub spacing: f32,
    /// A window whose middle is this far from a digit's or more says `none`; nearer, it may say either.
    pub reach: f32,
    /// What a digit costs, in the logarithm of odds: windows with a digit are rarer in a picture than they were in
    /// training.
    pub cost: f32,
}

impl Default for Grid {
    /// LeNet-5 without padding, trained on [`crate::data::compose::windows`], laid over a picture once.
    fn default() -> Grid {
        Grid {
            stride: 4,
            field: crate::data::compose::FIELD,
            pad: 0,
            none: crate::data::compose::NONE,
            spacing: crate::data::compose::SPACING,
            reach: 6.0,
            cost: 1.5,
        }
    }
}

/// A digit that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glyph {
    /// Its class.
    pub class: usize,
    /// The probability that the network gives it, where it gives the most.
    pub confidence: f32,
    /// The column and row of its middle, in pixels.
    pub middle: [f32; 2],
    /// The ink around it: left, top, right, bottom, the last two exclusive, in pixels.
    pub bounds: [u32; 4],
}

impl Grid {
    /// The grid of [`interleaved`] windows: half the stride. A window with a digit is half as frequent there, in each
    /// direction, so a digit costs ln 4 more.
    pub fn fine(self) -> Grid {
        Grid { stride: (self.stride / 2).max(1), cost: self.cost + 4.0_f32.ln(), ..self }
    }

    /// The middle of window `i` of a row or column, in pixels.
    fn middle(&self, i: usize) -> f32 {
        i as f32 * self.stride as f32 + 0.5 * self.field as f32 - self.pad as f32
    }

    /// Columns of windows in so many pixels, rounded up; 1 to 2²⁰.
    fn columns(&self, pixels: f32) -> usize {
        // The cast saturates, and takes a NaN for 0.
        ((pixels / self.stride as f32).ceil() as usize).clamp(1, 1 << 20)
    }
}

/// Probabilities below this count as this: one certain window should not outvote all others.
const LEAST: f32 = 1e-6;

/// Reads the digits of a picture from left to right.
///
/// A column of windows says `o(k)` of a digit of class `k`: the odds `p(k) / p(none)` of the window in it where they
/// are the greatest. A string puts digits on columns at least [`Grid::spacing`] apart, and of all strings the one is
/// taken that maximises the sum over the columns of
///
/// - `ln o(k) − cost` where a digit of class `k` stands,
/// - `ln (1 + Σ o(k))` over the digits nearer than [`Grid::reach`], whose class such a column may say or not,
/// - 0 elsewhere.
///
/// This is the likelihood of the columns if they were independent, as a ratio to that of no digit at all: the first
/// says `k`, the second `k` or none, the third none. Two equal digits side by side are two, when the columns between
/// them say so or are too many for one. The maximum is found by dynamic programming over the column and class of the
/// last digit, in time of columns × classes².
///
/// # Errors
/// [`Error::Settings`] when the scores, the picture and the grid do not fit each other.
pub fn decode(scores: &Scores, picture: &Grey, grid: &Grid) -> Result<Vec<Glyph>> {
    scores.check(grid)?;
    if picture.height.checked_mul(picture.width) != Some(picture.pixels.len()) {
        return Err(Error::Settings(format!(
            "{} pixels found, expected {}x{}",
            picture.pixels.len(),
            picture.width,
            picture.height
        )));
    }
    if scores.rows == 0 || scores.columns == 0 {
        return Ok(Vec::new());
    }
    let mut glyphs: Vec<Glyph> = places(&scores.odds(grid.none), scores.columns, grid)
        .into_iter()
        .map(|(class, column)| scores.glyph(grid, class, column))
        .collect();
    bound(&mut glyphs, picture, grid);
    Ok(glyphs)
}

/// A digit of a string: its class and the column where it stands.
type Digit = (usize, usize);

/// What the columns of a range add, between the digits to the left and right of it, for odds `[classes][columns]`.
fn free(
    odds: &[f32],
    columns: usize,
    reach: usize,
    range: std::ops::Range<usize>,
    left: Option<Digit>,
    right: Option<Digit>,
) -> f32 {
    let near = |digit: Option<Digit>, column: usize| match digit {
        Some((class, at)) if at.abs_diff(column) <= reach => odds[class * columns + column],
        _ => 0.0,
    };
    range
        .map(|column| {
            let (a, b) = (near(left, column), near(right, column));
            // One class is not counted twice.
            let same = left.zip(right).is_some_and(|(left, right)| left.0 == right.0);
            (if same { a.max(b) } else { a + b }).ln_1p()
        })
        .sum()
}

/// The best string for odds `[classes][columns]`.
fn places(odds: &[f32], columns: usize, grid: &Grid) -> Vec<Digit> {
    let classes = odds.len() / columns;
    let (apart, reach) = (grid.columns(grid.spacing), grid.columns(grid.reach) - 1);
    let free = |from: usize, to: usize, left, right| free(odds, columns, reach, from..to, left, right);
    // What a digit adds with the columns on its free side, where there is no other.
    let before = |digit: Digit| free(digit.1.saturating_sub(reach), digit.1, None, Some(digit));
    let after = |digit: Digit| free(digit.1 + 1, (digit.1 + reach + 1).min(columns), Some(digit), None);
    // The best strings that end with each digit, and the digit before it.
    let mut best: Vec<(f32, Option<Digit>)> = Vec::with_capacity(columns * classes);
    // The best strings that end on each column or before it, with all that they reach.
    let mut whole: Vec<(f32, Option<Digit>)> = Vec::with_capacity(columns);
    for column in 0..columns {
        let mut end = whole.last().copied().unwrap_or((0.0, None));
        for class in 0..classes {
            let digit = (class, column);
            // What stands so far away that no column is in reach of both.
            let far = column.checked_sub(apart.max(2 * reach + 1));
            let (sum, last) = far.map_or((0.0, None), |far| whole[far]);
            let mut state = (sum + before(digit), last);
            // What is nearer.
            for near in far.map_or(0, |far| far + 1)..(column + 1).saturating_sub(apart) {
                for last in (0..classes).map(|class| (class, near)) {
                    let sum = best[near * classes + last.0].0;
                    // A shortcut for all that is hopeless, `none` itself among it.
                    if sum > f32::NEG_INFINITY {
                        let sum = sum + free(near + 1, column, Some(last), Some(digit));
                        if sum > state.0 {
                            state = (sum, Some(last));
                        }
                    }
                }
            }
            // The logarithm of 0, for `none`, is minus infinity.
            state.0 += odds[class * columns + column].ln() - grid.cost;
            best.push(state);
            let sum = state.0 + after(digit);
            if sum > end.0 {
                end = (sum, Some(digit));
            }
        }
        whole.push(end);
    }
    let end = whole.last().and_then(|end| end.1);
    let mut string: Vec<Digit> =
        std::iter::successors(end, |&(class, column)| best[column * classes + class].1).collect();
    string.reverse();
    string
}

impl Scores {
    fn check(&self, grid: &Grid) -> Result<()> {
        let &Scores { classes, rows, columns, ref probabilities } = self;
        let refuse = |what: String| Err(Error::Settings(what));
        if grid.stride == 0 || grid.none >= classes {
            return refuse(format!("{grid:?} does not fit {classes} classes"));
        }
        let size = classes.checked_mul(rows).and_then(|n| n.checked_mul(columns));
        if size != Some(probabilities.len()) {
            return refuse(format!(
                "{} probabilities found, expected {classes}x{rows}x{columns}",
                probabilities.len()
            ));
        }
        Ok(())
    }

    fn at(&self, class: usize, row: usize, column: usize) -> f32 {
        self.probabilities[(class * self.rows + row) * self.columns + column]
    }

    /// The odds of each class against `none` in each column, `[classes][columns]`, of the row where they are the
    /// greatest; 0 for `none` itself.
    fn odds(&self, none: usize) -> Vec<f32> {
        let mut odds = vec![0.0_f32; self.classes * self.columns];
        for class in (0..self.classes).filter(|&class| class != none) {
            for row in 0..self.rows {
                for column in 0..self.columns {
                    let ratio =
                        self.at(class, row, column).max(LEAST) / self.at(none, row, column).max(LEAST);
                    let best = &mut odds[class * self.columns + column];
                    *best = best.max(ratio);
                }
            }
        }
        odds
    }

    /// The digit on a column: its middle is the mean over the windows within reach, weighted by what they say of its
    /// class.
    fn glyph(&self, grid: &Grid, class: usize, column: usize) -> Glyph {
        let reach = grid.columns(grid.reach) - 1;
        let (mut confidence, mut sum, mut middle) = (0.0_f32, 0.0, [0.0; 2]);
        for near in column.saturating_sub(reach)..(column + reach + 1).min(self.columns) {
            for row in 0..self.rows {
                let p = self.at(class, row, near);
                if near == column {
                    confidence = confidence.max(p);
                }
                sum += p;
                middle[0] += p * grid.middle(near);
                middle[1] += p * grid.middle(row);
            }
        }
        Glyph { class, confidence, middle: middle.map(|m| m / sum.max(f32::MIN_POSITIVE)), bounds: [0; 4] }
    }
}

/// Draws the boxes: each digit has the ink of its window, as far as a cut between it and its neighbours, along the
/// column with the least ink in the middle third between the two.
fn bound(glyphs: &mut [Glyph], picture: &Grey, grid: &Grid) {
    let (width, height) = (picture.width, picture.height);
    let clamp = |x: f32, end: usize| x.clamp(0.0, end as f32) as u32;
    let cuts: Vec<u32> = glyphs
        .windows(2)
        .map(|pair| {
            let [a, b] = [pair[0].middle[0], pair[1].middle[0]];
            let third = (b - a) / 3.0;
            let middle = 0.5 * (a + b);
            let (low, high) = (clamp(a + third, width), clamp(b - third, width));
            let ink = |x: u32| -> u32 {
                (0..height).map(|y| u32::from(picture.pixels[y * width + x as usize])).sum()
            };
            // Of equals, the nearest to the middle.
            (low..high)
                .min_by(|&a, &b| {
                    let far = |x: u32| (x as f32 + 0.5 - middle).abs();
                    ink(a).cmp(&ink(b)).then(far(a).total_cmp(&far(b)))
                })
                .unwrap_or(clamp(middle, width))
        })
        .collect();
    let half = 0.5 * grid.field as f32;
    for (i, glyph) in glyphs.iter_mut().enumerate() {
        let [x, y] = glyph.middle;
        let [mut left, mut right] = [clamp(x - half, width), clamp(x + half, width)];
        if let Some(&cut) = i.checked_sub(1).and_then(|i| cuts.get(i)) {
            left = left.max(cut);
        }
        if let Some(&cut) = cuts.get(i) {
            right = right.min(cut);
        }
        let window = [left, clamp(y - half, height), right, clamp(y + half, height)];
        glyph.bounds = ink_box(&picture.pixels, width, window).unwrap_or(window);
    }
}

/// The digits as text.
pub fn text(glyphs: &[Glyph]) -> String {
    glyphs.iter().map(|glyph| glyph.class.to_string()).collect()
}

/// The picture, and the picture moved by `half` a stride to the left, up, and both, each of the same size, with black
/// where nothing moves in: the batch whose scores [`interleaved`] takes.
pub fn shifted(picture: &Grey, half: usize) -> [Grey; 4] {
    [[0, 0], [0, half], [half, 0], [half, half]].map(|[down, right]| {
        let mut pixels = vec![0; picture.pixels.len()];
        let width = picture.width.max(1);
        for (to, from) in pixels.chunks_mut(width).zip(picture.pixels.chunks(width).skip(down)) {
            let from = from.get(right..).unwrap_or_default();
            to[..from.len()].copy_from_slice(from);
        }
        Grey { pixels, ..*picture }
    })
}

/// Puts the scores of four [`shifted`] pictures together to a grid of half the stride: see [`Grid::fine`].
///
/// # Errors
/// [`Error::Settings`] when their sizes differ or do not fit their probabilities.
pub fn interleaved(scores: &[Scores; 4]) -> Result<Scores> {
    let Scores { classes, rows, columns, .. } = scores[0];
    let size = |scores: &Scores| {
        let size = scores.classes.checked_mul(scores.rows).and_then(|n| n.checked_mul(scores.columns));
        (scores.classes, scores.rows, scores.columns, size)
    };
    let one = scores[0].probabilities.len();
    if scores.iter().any(|s| size(s) != (classes, rows, columns, Some(one)) || s.probabilities.len() != one) {
        return Err(Error::Settings("the scores of shifted pictures differ in size".into()));
    }
    let mut probabilities = Vec::with_capacity(4 * one);
    for class in 0..classes {
        for row in 0..2 * rows {
            for column in 0..2 * columns {
                let from = &scores[2 * (row % 2) + column % 2];
                probabilities.push(from.at(class, row / 2, column / 2));
            }
        }
    }
    Ok(Scores { classes, rows: 2 * rows, columns: 2 * columns, probabilities })
}

#[cfg(test)]
mod tests;
