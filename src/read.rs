//! Reading a string of digits with a space displacement network, and judging what was read.
//!
//! A network that knows one digit at a time, with convolutions in place of its linear layers, can be laid over a
//! picture of any size; each of its outputs then judges a window of the picture (LeCun, Bottou, Bengio and Haffner
//! 1998, section VII, "Multiple character recognition: space displacement neural networks"). [`decode`] turns the
//! grid of judgements into a string. The paper composes a Viterbi search over a grammar for that; here the network
//! has a class for "no digit in the middle", and the search is over where the digits stand.

use crate::data::compose::Line;
use crate::data::picture::{Grey, ink_box};
use crate::error::{Error, Result};

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

/// How well strings were read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Strings that were read.
    pub strings: u64,
    /// Those without a mistake.
    pub exact: u64,
    /// Digits in all strings.
    pub characters: u64,
    /// Digits to insert, delete or replace.
    pub edits: u64,
    /// Intersection over union of each digit's box with the one that was found, summed; 0 for a digit without.
    pub overlap: f64,
}

impl Reading {
    /// Counts one string in.
    pub fn add(&mut self, line: &Line, glyphs: &[Glyph]) {
        let read = text(glyphs);
        self.strings += 1;
        self.exact += u64::from(read == line.text);
        self.characters += line.text.len() as u64;
        self.edits += edit_distance(&read, &line.text) as u64;
        let found: Vec<_> = glyphs.iter().map(|glyph| glyph.bounds).collect();
        self.overlap += matched_overlap(&found, &line.boxes);
    }

    /// The share of strings without a mistake.
    pub fn accuracy(&self) -> f64 {
        self.exact as f64 / self.strings.max(1) as f64
    }

    /// Edits for each digit.
    pub fn error_rate(&self) -> f64 {
        self.edits as f64 / self.characters.max(1) as f64
    }

    /// The mean intersection over union of the boxes.
    pub fn mean_overlap(&self) -> f64 {
        self.overlap / self.characters.max(1) as f64
    }
}

/// Reads strings with a network, `judge`, and compares.
///
/// # Errors
/// Those of `judge` and of [`decode`].
pub fn measure(
    lines: &[Line],
    grid: &Grid,
    mut judge: impl FnMut(&Grey) -> Result<Scores>,
) -> Result<Reading> {
    let mut reading = Reading::default();
    for line in lines {
        let glyphs = decode(&judge(&line.picture)?, &line.picture, grid)?;
        reading.add(line, &glyphs);
    }
    Ok(reading)
}

/// The fewest characters to insert, delete or replace to make one text the other (Levenshtein 1966).
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Intersection over union of two boxes (left, top, right, bottom; the last two exclusive); 0 where both are empty.
pub fn overlap(a: [u32; 4], b: [u32; 4]) -> f64 {
    let area = |[left, top, right, bottom]: [u32; 4]| {
        f64::from(right.saturating_sub(left)) * f64::from(bottom.saturating_sub(top))
    };
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// The greatest sum of overlaps over all ways to match two rows of boxes in order.
fn matched_overlap(found: &[[u32; 4]], wanted: &[[u32; 4]]) -> f64 {
    let mut row = vec![0.0_f64; wanted.len() + 1];
    for &found in found {
        let mut corner = row[0];
        for (j, &wanted) in wanted.iter().enumerate() {
            let matched = corner + overlap(found, wanted);
            corner = row[j + 1];
            row[j + 1] = matched.max(corner).max(row[j]);
        }
    }
    row[wanted.len()]
}

/// Intersection over union of each class, and the mean over the classes that occur or were found.
///
/// `confusion` is square: rows are what the pixels are, columns what they are taken for. A class that neither
/// occurs nor was found has none. The mean of no class is 0.
///
/// # Panics
/// When a row is shorter than there are rows, like the indexing of a slice.
pub fn intersection_over_union(confusion: &[Vec<u64>]) -> (Vec<Option<f64>>, f64) {
    let each: Vec<Option<f64>> = (0..confusion.len())
        .map(|class| {
            let is: u64 = confusion[class].iter().sum();
            let taken: u64 = confusion.iter().map(|row| row[class]).sum();
            let both = confusion[class][class];
            let either = is + taken - both;
            (either > 0).then(|| both as f64 / either as f64)
        })
        .collect();
    let known: Vec<f64> = each.iter().copied().flatten().collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    (each, mean)
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg64Mcg;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    use super::*;

    /// Windows that say `none` (class 10), but for `(class, row, column, probability)`.
    fn scores(rows: usize, columns: usize, marks: &[(usize, usize, usize, f32)]) -> Scores {
        let mut probabilities = vec![0.001; 11 * rows * columns];
        probabilities[10 * rows * columns..].fill(0.99);
        for &(class, row, column, p) in marks {
            let at = |class: usize| (class * rows + row) * columns + column;
            probabilities[at(class)] = p;
            probabilities[at(10)] = (0.99 - p).max(0.001);
        }
        Scores { classes: 11, rows, columns, probabilities }
    }

    fn black(scores: &Scores) -> Grey {
        let (height, width) = (4 * scores.rows + 28, 4 * scores.columns + 28);
        Grey { height, width, pixels: vec![0; height * width] }
    }

    fn read(scores: &Scores) -> String {
        text(&decode(scores, &black(scores), &Grid::default()).unwrap())
    }

    #[test]
    fn digits_are_read_from_left_to_right() {
        let s = scores(2, 12, &[(4, 0, 1, 0.9), (0, 1, 5, 0.98), (7, 0, 10, 0.9)]);
        let glyphs = decode(&s, &black(&s), &Grid::default()).unwrap();
        assert_eq!(text(&glyphs), "407");
        assert_eq!(glyphs[1].confidence, 0.98);
        for (glyph, [x, y]) in glyphs.iter().zip([[20.0, 16.0], [36.0, 20.0], [56.0, 16.0]]) {
            assert!((glyph.middle[0] - x).abs() < 0.1 && (glyph.middle[1] - y).abs() < 0.1, "{glyph:?}");
        }
        assert_eq!(read(&scores(2, 12, &[])), "");
        assert_eq!(read(&scores(0, 12, &[])), "");
        assert_eq!(read(&scores(2, 0, &[])), "");
    }

    #[test]
    fn a_digit_is_one_and_a_pair_is_two() {
        // Wherever it lies between the columns, a digit is seen by one to three of them.
        for marks in [
            &[(3, 0, 4, 0.9)][..],
            &[(3, 0, 4, 0.9), (3, 0, 5, 0.9)],
            &[(3, 0, 3, 0.6), (3, 0, 4, 0.95), (3, 0, 5, 0.7)],
        ] {
            assert_eq!(read(&scores(1, 9, marks)), "3");
        }
        // What a neighbour's edge looks like does not outvote the digit.
        assert_eq!(read(&scores(1, 9, &[(1, 0, 3, 0.5), (3, 0, 4, 0.95)])), "3");
        for marks in [
            &[(3, 0, 2, 0.9), (3, 0, 5, 0.9)][..],
            &[(3, 0, 2, 0.9), (3, 0, 3, 0.8), (3, 0, 5, 0.9), (3, 0, 6, 0.8)],
            &[(3, 0, 1, 0.9), (3, 0, 2, 0.9), (3, 0, 3, 0.9), (3, 0, 4, 0.9), (3, 0, 5, 0.9)],
        ] {
            assert_eq!(read(&scores(1, 9, marks)), "33");
        }
        // Odds below the cost of a digit are none.
        assert_eq!(read(&scores(1, 9, &[(3, 0, 4, 0.6)])), "");
        assert_eq!(read(&scores(1, 9, &[(3, 0, 4, 0.85)])), "3");
    }

    /// What a string is worth, straight from the definition.
    fn worth(odds: &[f32], columns: usize, grid: &Grid, string: &[Digit]) -> f32 {
        let (apart, reach) = (grid.columns(grid.spacing), grid.columns(grid.reach) - 1);
        if string.windows(2).any(|pair| pair[1].1 - pair[0].1 < apart) {
            return f32::NEG_INFINITY;
        }
        (0..columns)
            .map(|column| match string.iter().find(|digit| digit.1 == column) {
                Some((class, _)) => odds[class * columns + column].ln() - grid.cost,
                None => {
                    // The nearest on either side; each class once.
                    let left =
                        string.iter().rev().find(|digit| digit.1 < column && column - digit.1 <= reach);
                    let right = string.iter().find(|digit| digit.1 > column && digit.1 - column <= reach);
                    let mut classes: Vec<usize> =
                        left.into_iter().chain(right).map(|digit| digit.0).collect();
                    classes.dedup();
                    classes.iter().map(|class| odds[class * columns + column]).sum::<f32>().ln_1p()
                }
            })
            .sum()
    }

    #[test]
    fn no_string_is_better_than_the_one_that_is_read() {
        const COLUMNS: usize = 8;
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let mut lengths = [0; COLUMNS + 1];
        for round in 0..300 {
            let spacing = [4.0, 8.0, 10.0, 13.0][round % 4];
            let reach = [4.0, 6.0, 9.0][round % 3];
            let grid = Grid { spacing, reach, cost: 0.5, ..Grid::default() };
            let odds: Vec<f32> = (0..2 * COLUMNS)
                .map(|_| ((random.next_u32() >> 8) as f32 / (1 << 23) as f32 * 4.0 - 4.5).exp())
                .collect();
            let found = places(&odds, COLUMNS, &grid);
            lengths[found.len()] += 1;
            // Each column holds none, 0 or 1.
            let most = (0..3usize.pow(COLUMNS as u32))
                .map(|code| {
                    let digits = (0..COLUMNS).map(|i| (code / 3usize.pow(i as u32) % 3, i));
                    let string: Vec<Digit> =
                        digits.filter(|digit| digit.0 > 0).map(|(class, i)| (class - 1, i)).collect();
                    worth(&odds, COLUMNS, &grid, &string)
                })
                .fold(f32::NEG_INFINITY, f32::max);
            let found = worth(&odds, COLUMNS, &grid, &found);
            assert!((found - most).abs() < 1e-4, "{found} {most} {odds:?} {grid:?}");
        }
        assert!(lengths.iter().filter(|&&count| count > 0).count() > 3, "{lengths:?}");
    }

    #[test]
    fn boxes_hold_the_ink_up_to_the_neighbour() {
        let s = scores(2, 12, &[(1, 0, 2, 0.95), (2, 0, 6, 0.95)]);
        let mut picture = black(&s);
        let mut draw = |[left, top, right, bottom]: [usize; 4], value: u8| {
            for y in top..bottom {
                picture.pixels[y * picture.width..][left..right].fill(value);
            }
        };
        // Middles at columns 24 and 40; the two touch along columns 31 and 32 of one thin row.
        draw([18, 8, 31, 24], 255);
        draw([34, 6, 45, 25], 255);
        draw([31, 15, 34, 16], 200);
        draw([60, 0, 70, 30], 255);
        // Too pale to be ink.
        draw([45, 6, 47, 25], 40);
        let glyphs = decode(&s, &picture, &Grid::default()).unwrap();
        // Of the two columns nearest to the middle, the first.
        assert_eq!(glyphs[0].bounds, [18, 8, 31, 24]);
        assert_eq!(glyphs[1].bounds, [31, 6, 45, 25]);
    }

    #[test]
    fn four_grids_make_a_finer_one() {
        let pixels: Vec<u8> = (0..8 * 12).collect();
        let picture = Grey { height: 8, width: 12, pixels };
        // A network of one class that says the pixel in the corner of each window of 4.
        let judge = |picture: Grey| {
            let corner = |row: usize, column: usize| f32::from(picture.pixels[4 * row * 12 + 4 * column]);
            let probabilities =
                (0..2).flat_map(|row| (0..3).map(move |column| corner(row, column))).collect();
            Scores { classes: 1, rows: 2, columns: 3, probabilities }
        };
        let four = shifted(&picture, 2).map(judge);
        let fine = interleaved(&four).unwrap();
        assert_eq!((fine.rows, fine.columns), (4, 6));
        for (i, &found) in fine.probabilities.iter().enumerate() {
            assert_eq!(found, f32::from(picture.pixels[i / 6 * 2 * 12 + i % 6 * 2]), "{i}");
        }
        let [_, right, down, both] = shifted(&picture, 20);
        assert!([right, down, both].iter().all(|moved| moved.pixels.iter().all(|&pixel| pixel == 0)));
        let [a, b, c, _] = four;
        assert!(interleaved(&[a, b, c, scores(1, 1, &[])]).is_err());
        assert_eq!(Grid::default().fine().stride, 2);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = scores(2, 12, &[]);
        let picture = black(&good);
        let grid = Grid::default();
        let short = Scores { probabilities: vec![0.0; 5], ..good.clone() };
        let message = decode(&short, &picture, &grid).unwrap_err().to_string();
        assert_eq!(message, "5 probabilities found, expected 11x2x12");
        let cut = Grey { pixels: vec![0; 7], ..picture.clone() };
        let message = decode(&good, &cut, &grid).unwrap_err().to_string();
        assert_eq!(message, "7 pixels found, expected 76x36");
        for grid in [Grid { stride: 0, ..grid }, Grid { none: 11, ..grid }] {
            assert!(decode(&good, &picture, &grid).is_err());
        }
        // Odd values are not refused, and do no harm.
        let odd = scores(2, 12, &[(1, 0, 3, f32::NAN), (2, 1, 6, f32::INFINITY), (3, 0, 9, -1.0)]);
        for x in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
            let _ = decode(&odd, &picture, &Grid { spacing: x, reach: x, cost: x, ..grid });
        }
    }

    /// Composed strings and a network that knows the answers: what is left is geometry.
    #[cfg(feature = "mnist")]
    #[test]
    fn composed_strings_are_read_by_one_who_knows() {
        let digits = crate::data::mnist().unwrap().test;
        let lines = crate::data::compose::strings(&digits, 7, 60, 5).unwrap();
        let grid = Grid::default();
        let mut next = lines.iter();
        let reading = measure(&lines, &grid, |picture| {
            let line = next.next().unwrap();
            let (rows, columns) = ((picture.height - 32) / 4 + 1, (picture.width - 32) / 4 + 1);
            let mut marks = Vec::new();
            for (class, ink) in line.text.bytes().zip(&line.boxes) {
                let [x, y] = [0, 1].map(|axis| 0.5 * (ink[axis] + ink[axis + 2]) as f32);
                for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                    let far = [grid.middle(column) - x, grid.middle(row) - y].map(f32::abs);
                    // Half a pixel more than half a stride, since ink is drawn on whole pixels.
                    if far[0] <= 2.5 && far[1] <= 2.5 {
                        marks.push((usize::from(class - b'0'), row, column, 0.98));
                    }
                }
            }
            Ok(scores(rows, columns, &marks))
        })
        .unwrap();
        assert_eq!((reading.strings, reading.characters), (60, 420));
        assert!(reading.accuracy() > 0.95, "{reading:?}");
        assert!(reading.error_rate() < 0.01, "{reading:?}");
        assert!(reading.mean_overlap() > 0.88, "{reading:?}");
        // One who knows nothing reads nothing.
        let nothing = measure(&lines, &grid, |_| Ok(scores(1, 9, &[]))).unwrap();
        assert_eq!((nothing.exact, nothing.edits, nothing.mean_overlap()), (0, 420, 0.0));
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("123", "123", 0),
            ("123", "13", 1),
            ("", "55", 2),
            ("1234", "2345", 2),
            ("77", "17", 1),
        ] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (edits, edits), "{a} {b}");
        }
    }

    #[test]
    fn overlaps_are_areas() {
        assert_eq!(overlap([0, 0, 4, 4], [0, 0, 4, 4]), 1.0);
        assert_eq!(overlap([0, 0, 4, 4], [2, 0, 6, 4]), 8.0 / 24.0);
        assert_eq!(overlap([0, 0, 4, 4], [4, 0, 8, 4]), 0.0);
        assert_eq!(overlap([3, 3, 3, 3], [3, 3, 3, 3]), 0.0);
        let [a, b, c] = [[0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]];
        assert_eq!(matched_overlap(&[a, b, c], &[a, c]), 2.0);
        assert_eq!(matched_overlap(&[c, a], &[a, c]), 1.0);
        assert_eq!(matched_overlap(&[], &[a]), 0.0);
    }

    #[test]
    fn intersections_over_unions_are_those_of_the_confusion() {
        let (each, mean) = intersection_over_union(&[vec![6, 2, 0], vec![1, 3, 0], vec![0, 0, 0]]);
        assert_eq!(each, [Some(6.0 / 9.0), Some(3.0 / 6.0), None]);
        assert!((mean - (6.0 / 9.0 + 0.5) / 2.0).abs() < 1e-12);
        assert_eq!(intersection_over_union(&[]), (vec![], 0.0));
    }
}
