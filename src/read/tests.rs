//! What is read of made-up scores.

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
                let left = string.iter().rev().find(|digit| digit.1 < column && column - digit.1 <= reach);
                let right = string.iter().find(|digit| digit.1 > column && digit.1 - column <= reach);
                let mut classes: Vec<usize> = left.into_iter().chain(right).map(|digit| digit.0).collect();
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
        let probabilities = (0..2).flat_map(|row| (0..3).map(move |column| corner(row, column))).collect();
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
