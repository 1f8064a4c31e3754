//! Strings of digits, and what a reader should find in them.

use rayon::prelude::*;

use super::stock::{Draw, Stock};
use crate::data::dataset::Dataset;
use crate::data::picture::Grey;
use crate::error::Result;

/// A string of digits, and what a reader should find.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The picture: white ink on black.
    pub picture: Grey,
    /// The digits from left to right.
    pub text: String,
    /// The ink of each digit: left, top, right, bottom, the last two exclusive, in pixels.
    pub boxes: Vec<[u32; 4]>,
}

/// Strings of `length` digits drawn from a data set, side by side on black: gaps of −4 to 6 pixels, ±3 pixels up
/// and down, ±15 % in size, neighbours' middles at least [`SPACING`](super::SPACING) apart.
///
/// Rows and columns are multiples of 4, 36 rows at least, and a window of [`FIELD`](super::FIELD) around any
/// digit is inside.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) when the data set is not one of grey digits.
pub fn strings(digits: &Dataset, length: usize, count: usize, seed: u64) -> Result<Vec<Line>> {
    let stock = Stock::new(digits)?;
    let line = |i: usize| {
        let mut draw = Draw::new(seed, 1, i);
        let picks: Vec<usize> = (0..length).map(|_| draw.below(stock.len())).collect();
        let mut places = stock.row(&mut draw, &picks);
        let height = 36 + 4 * draw.below(3);
        let left = 16.0 + draw.range(0.0, 8.0);
        let middle = 0.5 * height as f32 + draw.range(-1.0, 1.0);
        for place in &mut places {
            place.x += left;
            place.y += middle;
        }
        let end = places.last().map_or(left, |last| last.x + 0.5 * last.scale * stock.size(last.digit)[0]);
        let width = (end as usize + 20).next_multiple_of(4);
        let mut pixels = vec![0; height * width];
        let boxes = places
            .iter()
            .map(|&place| stock.paste(place, &mut pixels, &mut [], width).unwrap_or_default())
            .collect();
        let text = picks.iter().map(|&digit| char::from(b'0' + stock.label(digit))).collect();
        Line { picture: Grey { height, width, pixels }, text, boxes }
    };
    Ok((0..count).into_par_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{SPACING, scenes, windows};
    use super::*;
    use crate::data::picture::ink_box;

    #[cfg(feature = "mnist")]
    #[test]
    fn strings_are_what_their_boxes_and_text_say() {
        let digits = crate::data::mnist().unwrap().test;
        let lines = strings(&digits, 5, 200, 9).unwrap();
        assert_eq!(lines, strings(&digits, 5, 200, 9).unwrap());
        assert_ne!(lines, strings(&digits, 5, 200, 10).unwrap());
        let mut counts = [0; 10];
        for line in &lines {
            let Grey { height, width, ref pixels } = line.picture;
            assert_eq!((line.text.len(), line.boxes.len(), pixels.len()), (5, 5, height * width));
            assert!(height >= 36 && height % 4 == 0 && width % 4 == 0);
            line.text.bytes().for_each(|digit| counts[usize::from(digit - b'0')] += 1);
            // All ink is in the boxes, and each box is tight.
            let all = ink_box(pixels, width, [0, 0, width as u32, height as u32]).unwrap();
            let edge = |i: usize| line.boxes.iter().map(move |ink| ink[i]);
            assert_eq!(
                all,
                [
                    edge(0).min().unwrap(),
                    edge(1).min().unwrap(),
                    edge(2).max().unwrap(),
                    edge(3).max().unwrap()
                ]
            );
            for &ink in &line.boxes {
                assert_eq!(ink_box(pixels, width, ink), Some(ink));
                let middle = 0.5 * (ink[0] + ink[2]) as f32;
                assert!(middle >= 16.0 && middle + 16.0 <= width as f32);
            }
            for pair in line.boxes.windows(2) {
                let apart = 0.5 * ((pair[1][0] + pair[1][2]) as f32 - (pair[0][0] + pair[0][2]) as f32);
                assert!(apart >= SPACING - 1.0, "{pair:?}");
                // The gap, and a pixel of ink's soft edge on either side.
                assert!((-5..=8).contains(&(pair[1][0] as i32 - pair[0][2] as i32)) || apart < SPACING + 1.0);
            }
        }
        assert!(counts.iter().all(|&count| count > 50), "{counts:?}");
        assert!(strings(&digits, 0, 1, 0).unwrap()[0].boxes.is_empty());
    }

    #[test]
    fn only_grey_digits_are_put_together() {
        let colour = Dataset::new("colour", [3, 1, 1], 10, vec![0; 3], vec![1]).unwrap();
        let message = strings(&colour, 3, 1, 0).unwrap_err().to_string();
        assert_eq!(
            message,
            "colour: 1 images of 3 channels in 10 classes found, expected grey digits with one label each"
        );
        let empty = Dataset::new("empty", [1, 28, 28], 10, vec![], vec![]).unwrap();
        assert!(windows(&empty, 1, 0).is_err() && scenes(&empty, 1, 0).is_err());
    }
}
