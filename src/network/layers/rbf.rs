//! The radial basis units of LeNet-5, and their codes: what its last hidden layer is to say for each digit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Kind, Outcome, Site, is_false};
use crate::error::Result;
use crate::network::{Init, Parameter, Shape};

/// Euclidean radial basis units: `−Σ (x − w)²` of each class' code (LeCun et al. 1998, equation 7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rbf {
    /// The name of its parameters; `rbf1`, … where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Classes.
    pub outputs: usize,
    /// Whether the codes are learned; they start as 7×12 pictures of the ten digits where the input has 84
    /// features and there are ten outputs, and as random ±1 otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trainable: bool,
}

impl Kind for Rbf {
    fn given(&self) -> Option<&String> {
        self.name.as_ref()
    }

    fn title(&self) -> String {
        "rbf".into()
    }

    fn describe(&self) -> String {
        format!("radial basis {}", self.outputs)
    }

    fn slides(&self) -> bool {
        false
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        at.within("outputs", 1, &[self.outputs])?;
        let shape = vec![self.outputs, at.input.len()];
        at.sized(&shape)?;
        let codes = digit_codes();
        let digits = self.outputs == 10 && codes.len() == 10 * at.input.len();
        let init = if digits { Init::Values(Arc::new(codes)) } else { Init::Signs };
        let weight = Parameter { learned: self.trainable, ..at.parameter("weight", shape, init) };
        let output = Shape { channels: self.outputs, height: 1, width: 1 };
        let multiply_adds = (self.outputs * at.input.len()) as u64;
        Ok(Outcome { parameters: vec![weight], multiply_adds, ..Outcome::plain(output) })
    }
}

/// Rows and columns of the codes' bitmaps.
const CODE: [usize; 2] = [12, 7];

/// The digits from 0 on, as they look in print: `#` is ink.
const DIGITS: [[&str; CODE[0]]; 10] = [
    [
        "..###..", //
        ".#...#.", "##...##", "##...##", "##...##", "##...##", "##...##", "##...##", "##...##", "##...##",
        ".#...#.", "..###..",
    ],
    [
        "...##..", //
        "..###..", ".####..", "...##..", "...##..", "...##..", "...##..", "...##..", "...##..", "...##..",
        ".######", ".######",
    ],
    [
        ".#####.", //
        "##...##", "#.....#", "......#", ".....##", "....##.", "...##..", "..##...", ".##....", "##.....",
        "#######", "#######",
    ],
    [
        "#######", //
        "#....##", "....##.", "...##..", "..####.", "....###", ".....##", "......#", "......#", "#....##",
        "##..##.", ".####..",
    ],
    [
        "....###", //
        "...####", "..##.##", "..#..##", ".##..##", "##...##", "#....##", "#######", "#######", ".....##",
        ".....##", ".....##",
    ],
    [
        "#######", //
        "#######", "#......", "#......", "#.###..", "##..##.", ".....##", "......#", "......#", "#....##",
        "##..##.", ".####..",
    ],
    [
        "...###.", //
        "..##...", ".##....", "##.....", "#......", "#.####.", "##...##", "#.....#", "#.....#", "#.....#",
        "##...##", ".#####.",
    ],
    [
        "#######", //
        "#######", ".....##", ".....#.", "....##.", "....#..", "...##..", "...#...", "..##...", "..#....",
        ".##....", ".##....",
    ],
    [
        ".#####.", //
        "##...##", "#.....#", "##...##", ".#####.", "..###..", ".##.##.", "##...##", "#.....#", "#.....#",
        "##...##", ".#####.",
    ],
    [
        ".#####.", //
        "##...##", "#.....#", "#.....#", "#.....#", "##...##", ".####.#", "......#", ".....##", "....##.",
        "...##..", ".###...",
    ],
];

/// The codes of the ten digits, `[10, 84]`: bitmaps of 12 rows of 7 pixels, row by row, ink +1 and paper −1 (after
/// figure 3 of LeCun et al. 1998). Similar shapes have similar codes, so that a network that takes one for the other
/// is not far off.
pub fn digit_codes() -> Vec<f32> {
    let pixels = DIGITS.iter().flatten().flat_map(|row| row.bytes());
    pixels.map(|pixel| if pixel == b'#' { 1.0 } else { -1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_bitmaps_that_differ() {
        let codes = digit_codes();
        assert!(DIGITS.iter().flatten().all(|row| row.bytes().all(|pixel| b".#".contains(&pixel))));
        assert_eq!(codes.len(), 10 * CODE[0] * CODE[1]);
        let digits: Vec<&[f32]> = codes.chunks(CODE[0] * CODE[1]).collect();
        for a in 0..10 {
            for b in 0..a {
                let apart = digits[a].iter().zip(digits[b]).filter(|(a, b)| a != b).count();
                assert!(apart >= 15, "{a} and {b} differ in {apart} places only");
            }
        }
    }
}
