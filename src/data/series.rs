//! Real numbers as bytes.
//!
//! The data set lies on the device as bytes. A signal of real numbers is brought to 256 levels over the range of
//! the training part: a number within it is off by at most half a level, range / 510.

use super::dataset::{Dataset, Encoding};
use super::input::refuse;
use super::split::Split;
use crate::error::Result;

/// The smallest and the largest of the training part's numbers, as [`Encoding::Range`].
///
/// `name` is what errors call the data.
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when there is no number, one is not finite, or all are the same.
pub fn range(name: &str, train: &[f32]) -> Result<Encoding> {
    if let Some(at) = train.iter().position(|value| !value.is_finite()) {
        return Err(refuse(
            name,
            format!("the value {} found at index {at}, expected a finite number", train[at]),
        ));
    }
    let (low, high) = train
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
    if low < high {
        Ok(Encoding::Range { low, high })
    } else {
        Err(refuse(name, format!("{} values without two different ones found, expected some", train.len())))
    }
}

/// The byte of each number in the range `low` to `high`; what lies beyond takes the nearer end, a NaN byte 0.
pub fn quantize(values: &[f32], low: f32, high: f32) -> Vec<u8> {
    values.iter().map(|&value| level(value, low, high)).collect()
}

/// The byte of one number.
pub(super) fn level(value: f32, low: f32, high: f32) -> u8 {
    // In f64 the width of any range of f32 is finite.
    let (low, width) = (f64::from(low), f64::from(high) - f64::from(low));
    ((f64::from(value) - low) / width * 255.0).round() as u8
}

/// The number that a byte stands for in the range `low` to `high`.
pub fn value(byte: u8, low: f32, high: f32) -> f32 {
    (f64::from(low) + f64::from(byte) / 255.0 * (f64::from(high) - f64::from(low))) as f32
}

/// Puts two parts of real numbers together: each of `[1, height, width]`, scaled by the range of the first.
pub(super) fn scaled(
    files: [&str; 2],
    parts: [&[f32]; 2],
    mut make: impl FnMut(usize, Vec<u8>) -> Result<Dataset>,
) -> Result<Split> {
    let encoding = range(files[0], parts[0])?;
    let Encoding::Range { low, high } = encoding else { return Err(refuse(files[0], "no range found")) };
    if let Some(at) = parts[1].iter().position(|value| !value.is_finite()) {
        let message = format!("the value {} found at index {at}, expected a finite number", parts[1][at]);
        return Err(refuse(files[1], message));
    }
    let mut part = |i: usize| {
        let mut data = make(i, quantize(parts[i], low, high))?;
        data.encoding = encoding.clone();
        Ok::<_, crate::Error>((files[i].to_owned(), data))
    };
    Split::new(part(0)?, part(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_off_by_half_a_level_at_most() {
        let values: Vec<f32> = (0..10_000).map(|i| (i as f32 * 0.37).sin() * 12.5 - 3.0).collect();
        let Encoding::Range { low, high } = range("v", &values).unwrap() else { panic!() };
        assert!(low < -15.4 && high > 9.4);
        let bytes = quantize(&values, low, high);
        assert_eq!((bytes.iter().min(), bytes.iter().max()), (Some(&0), Some(&255)));
        let worst =
            values.iter().zip(&bytes).map(|(v, b)| (v - value(*b, low, high)).abs()).fold(0.0, f32::max);
        assert!(worst <= (high - low) / 510.0 * 1.0001, "{worst}");
        // Half a level is reached, so that a finer bound would be wrong.
        assert!(worst > (high - low) / 510.0 * 0.98, "{worst}");
        // What lies beyond the range of the training part takes its ends.
        assert_eq!(quantize(&[-1e30, 1e30, f32::NAN, -1.0, 1.0], -1.0, 1.0), [0, 255, 0, 0, 255]);
        assert_eq!(quantize(&[f32::MIN, 0.0, f32::MAX], f32::MIN, f32::MAX), [0, 128, 255]);
        for byte in 0..=255 {
            assert_eq!(quantize(&[value(byte, -0.1, 0.3)], -0.1, 0.3), [byte]);
        }
    }

    #[test]
    fn numbers_without_a_range_are_refused() {
        let refused = |values: &[f32]| range("v", values).unwrap_err().to_string();
        assert_eq!(refused(&[]), "v: 0 values without two different ones found, expected some");
        assert_eq!(refused(&[2.0, 2.0]), "v: 2 values without two different ones found, expected some");
        assert_eq!(refused(&[2.0, f32::NAN]), "v: the value NaN found at index 1, expected a finite number");
        assert_eq!(
            refused(&[f32::INFINITY, 1.0]),
            "v: the value inf found at index 0, expected a finite number"
        );
    }
}
