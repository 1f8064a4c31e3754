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
    /// The least distance of the middles of two digits.
    pub spacing: f32,
}

impl Default for Grid {
    /// LeNet-5 without padding, trained on [`crate::data::compose::windows`].
    fn default() -> Grid {
        Grid {
            stride: 4,
            field: crate::data::compose::FIELD,
            pad: 0,
            none: crate::data::compose::NONE,
            spacing: 8.0,
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
    /// The middle of window `i` of a row or column, in pixels.
    fn middle(&self, i: usize) -> f32 {
        (i * self.stride) as f32 + 0.5 * self.field as f32 - self.pad as f32
    }

    /// The columns of windows that one digit takes up.
    fn block(&self) -> usize {
        // The cast saturates, and takes a NaN for 0.
        ((self.spacing / self.stride as f32) as usize).max(1)
    }
}

/// The least logarithm of a probability: one certain window should not outvote all others.
const FLOOR: f32 = -12.0;

/// Reads the digits of a picture from left to right.
///
/// Every window is either one of a digit's or one of class `none`. A digit of class `k` has a run of windows: in each
/// of up to `m` columns in a row, the window that speaks most for `k`, where `m` is the least distance of two digits
/// in columns. Among all ways to put runs at least `m` columns apart, from the first of one to the first of the
/// next, the one is taken that maximises
///
/// > Σ log p(k) over the windows of the runs + Σ log p(none) over all other windows,
///
/// which is the likelihood of the whole grid if the windows were independent. It is found by dynamic programming
/// over the columns, in time of columns × rows × classes. Two equal digits side by side are two runs, since no run
/// is longer than `m`.
///
/// # Errors
/// [`Error::Settings`] when the scores, the picture and the grid do not fit each other.
pub fn decode(scores: &Scores, picture: &Grey, grid: &Grid) -> Result<Vec<Glyph>> {
    let &Scores { classes, rows, columns, ref probabilities } = scores;
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
    if picture.height.checked_mul(picture.width) != Some(picture.pixels.len()) {
        return refuse(format!(
            "{} pixels found, expected {}x{}",
            picture.pixels.len(),
            picture.width,
            picture.height
        ));
    }
    if rows == 0 || columns == 0 {
        return Ok(Vec::new());
    }
    let at = |class: usize, row: usize, column: usize| (class * rows + row) * columns + column;
    // What it adds to the likelihood that a column has a digit of a class, and the row where it stands.
    let gain = |class: usize, column: usize| {
        let log = |class: usize, row: usize| probabilities[at(class, row, column)].ln().max(FLOOR);
        (0..rows)
            .map(|row| (log(class, row) - log(grid.none, row), row))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or((FLOOR, 0))
    };
    let block = grid.block();
    // The likelihood of the columns before each column, and the class and length of the run that ends there.
    let mut best: Vec<(f32, Option<(usize, usize)>)> = vec![(0.0, None)];
    // A run may be cut short by the edge, so the blocks may reach beyond it.
    let reach = columns + block - 1;
    let gains: Vec<Vec<f32>> = (0..classes)
        .map(|class| match class == grid.none {
            true => vec![f32::NEG_INFINITY; columns],
            false => (0..columns).map(|column| gain(class, column).0).collect(),
        })
        .collect();
    for end in 1..=reach {
        let mut state = (best[end - 1].0, None);
        if let Some(start) = end.checked_sub(block) {
            for (class, gains) in gains.iter().enumerate() {
                let mut sum = best[start].0;
                for (length, gain) in gains[start..].iter().take(block).enumerate() {
                    sum += gain;
                    if sum > state.0 {
                        state = (sum, Some((class, length + 1)));
                    }
                }
            }
        }
        best.push(state);
    }
    let mut glyphs = Vec::new();
    let mut end = reach;
    while end > 0 {
        let Some((class, length)) = best[end].1 else {
            end -= 1;
            continue;
        };
        let start = end - block;
        glyphs.push(glyph(scores, grid, class, start, length));
        end = start;
    }
    glyphs.reverse();
    bound(&mut glyphs, picture, grid);
    Ok(glyphs)
}

/// The digit of a run: its middle is the mean over the windows around it, weighted by what they say of its class.
fn glyph(scores: &Scores, grid: &Grid, class: usize, start: usize, length: usize) -> Glyph {
    let p = |row: usize, column: usize| {
        scores.probabilities[(class * scores.rows + row) * scores.columns + column]
    };
    let (mut confidence, mut sum, mut middle) = (0.0_f32, 0.0, [0.0; 2]);
    for column in start..start + length {
        for row in 0..scores.rows {
            let p = p(row, column);
            confidence = confidence.max(p);
            sum += p;
            middle[0] += p * grid.middle(column);
            middle[1] += p * grid.middle(row);
        }
    }
    Glyph { class, confidence, middle: middle.map(|m| m / sum.max(f32::MIN_POSITIVE)), bounds: [0; 4] }
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
