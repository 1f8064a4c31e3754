//! How well strings and maps of pixels were read.

use super::{Glyph, Grid, Scores, decode, text};
use crate::data::compose::Line;
use crate::data::picture::Grey;
use crate::error::Result;

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
    use super::*;

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
