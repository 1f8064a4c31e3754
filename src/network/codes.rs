//! The codes of LeNet-5's radial basis units: what its last hidden layer is to say for each digit.

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
