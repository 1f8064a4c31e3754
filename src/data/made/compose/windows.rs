//! Windows cut out of strings of digits: is there a digit in the middle, and which?

use rayon::prelude::*;

use super::stock::{Draw, Place, Stock};
use crate::data::dataset::Dataset;
use crate::data::made::mnist;
use crate::data::split::Split;
use crate::error::Result;

/// Rows and columns of a window: what one output of LeNet-5's last layer sees.
///
/// 32 and not 28, so that a network without padding sees in training what it sees when it is slid over a string:
/// the neighbours of a digit, where 28 pixels in a frame of padding would end.
pub const FIELD: usize = 32;

/// The class of a window without a digit in its middle.
pub const NONE: usize = 10;

/// A digit this far from the middle of a window or less, in columns and in rows, is its class.
const WITHIN: [f32; 2] = [2.2, 2.6];

/// A digit this far from the middle of a window or more, in columns or in rows, is not. What lies between is
/// shown to nobody: the outputs there are free to say either.
const BEYOND: [f32; 2] = [4.5, 7.0];

/// The share of windows with a digit in their middle.
const DIGITS: f32 = 0.6;

/// Windows of 32×32 pixels cut out of such strings, in 11 classes: the digit in the middle, or [`NONE`] where there
/// is none: between two digits, beside or above one, on empty ground.
///
/// Window `i` is cut near digit `i` of the data set (counted around), so that all take their turn.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) when the data set is not one of grey digits.
pub fn windows(digits: &Dataset, count: usize, seed: u64) -> Result<Dataset> {
    const MIDDLE: f32 = 0.5 * FIELD as f32;
    let stock = Stock::new(digits)?;
    let mut images = vec![0; count * FIELD * FIELD];
    let window = |(i, pixels): (usize, &mut [u8])| {
        let mut draw = Draw::new(seed, 2, i);
        let (before, after) = (draw.below(3), draw.below(3));
        let mut picks: Vec<usize> = (0..before + 1 + after).map(|_| draw.below(stock.len())).collect();
        picks[before] = i % stock.len();
        let places = stock.row(&mut draw, &picks);
        let target = places[before];
        let off = |x: f32| places.iter().all(|place| (place.x - x).abs() >= BEYOND[0]);
        // The middle of the window.
        let mut label = NONE as u8;
        let [mut x, mut y] = [target.x, target.y];
        if draw.chance(DIGITS) {
            label = stock.label(target.digit);
            x += draw.range(-WITHIN[0], WITHIN[0]);
            y += draw.range(-WITHIN[1], WITHIN[1]);
        } else {
            let [first, last] = [places[0].x, places[places.len() - 1].x];
            let beside = draw.chance(0.75);
            if beside {
                // Half of them in the gaps next to the digit, the others anywhere along the string.
                let [low, high] = match draw.chance(0.5) {
                    true => [target.x - 16.0, target.x + 16.0],
                    false => [first - 30.0, last + 30.0],
                };
                y = draw.range(-5.0, 5.0);
                // Neighbours may leave no room: then it is cut above or below.
                let found = (0..16).map(|_| draw.range(low, high)).find(|&x| off(x));
                x = found.unwrap_or(x);
            }
            if !off(x) || !beside {
                x += draw.range(-8.0, 8.0);
                // Three pixels more, since the neighbours stand as much higher or lower.
                let away = draw.range(BEYOND[1] + 3.0, 20.0);
                y = if draw.chance(0.5) { away } else { -away };
            }
        }
        for place in &places {
            let place = Place { x: place.x - x + MIDDLE, y: place.y - y + MIDDLE, ..*place };
            stock.paste(place, pixels, &mut [], FIELD);
        }
        label
    };
    let labels = images.par_chunks_exact_mut(FIELD * FIELD).enumerate().map(window).collect();
    let mut data = Dataset::new("mnist-windows", [1, FIELD, FIELD], NONE + 1, images, labels)?;
    data.class_names[NONE] = "none".into();
    Ok(data)
}

/// The data set `mnist-windows`: 120,000 windows of MNIST's training digits, 10,000 of its test digits.
///
/// # Errors
/// Those of [`mnist`].
pub fn mnist_windows() -> Result<Split> {
    let Split { train, test, .. } = mnist()?;
    Ok(Split::of(windows(&train, 120_000, 0)?, windows(&test, 10_000, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::picture::ink_box;

    #[cfg(feature = "mnist")]
    #[test]
    fn windows_show_their_digit_in_the_middle_or_none() {
        let Split { train, test, .. } = crate::data::load("mnist-windows").unwrap();
        assert_eq!((train.len(), test.len(), train.classes), (120_000, 10_000, 11));
        assert_eq!((train.height, train.width, &train.class_names[10][..]), (32, 32, "none"));
        let digits = mnist().unwrap().test;
        assert_eq!(windows(&digits, 100, 0).unwrap().images.to_vec(), test.clone().take(100).images.to_vec());
        let (mut none, mut centred, mut empty) = (0, 0, 0);
        for (i, &label) in test.labels.iter().enumerate() {
            let whole = ink_box(test.picture(i), FIELD, [0, 0, 32, 32]);
            if usize::from(label) == NONE {
                none += 1;
                empty += usize::from(whole.is_none());
            } else {
                assert_eq!(label, digits.labels[i]);
                let ink = ink_box(test.picture(i), FIELD, [2, 0, 30, 32]).unwrap();
                // Above and below there are no neighbours, beside there are.
                centred += usize::from(ink[1] <= 12 && ink[3] >= 20);
            }
        }
        assert!((3_700..4_300).contains(&none), "{none}");
        assert!((30..500).contains(&empty), "{empty}");
        assert!(centred * 100 > (10_000 - none) * 97, "{centred}");
    }
}
