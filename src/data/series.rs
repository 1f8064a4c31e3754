//! Real numbers as bytes, and a generated set of signals.
//!
//! The data set lies on the device as bytes. A signal of real numbers is brought to 256 levels over the range of
//! the training part: a number within it is off by at most half a level, range / 510.

use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};

use super::{Dataset, Encoding, Split, refuse};
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
    // In f64 the width of any range of f32 is finite.
    let (low, width) = (f64::from(low), f64::from(high) - f64::from(low));
    values.iter().map(|&value| ((f64::from(value) - low) / width * 255.0).round() as u8).collect()
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
    super::split(part(0)?, part(1)?)
}

/// What the generated signals are called.
const WAVES: [&str; 6] = ["sine", "square", "sawtooth", "triangle", "chirp", "burst"];

/// Numbers of a generated signal.
const LENGTH: usize = 128;

/// `waves`: 6000 and 1000 generated signals `[1, 1, 128]` of six kinds, as many of each.
///
/// Sine, square, sawtooth and triangle of 2 to 10 periods, a chirp whose frequency doubles or triples on the way,
/// and a burst of noise under a bell; each with a random phase, amplitude, offset, and noise of up to a third of
/// its amplitude. The same on every machine: only sums, products, quotients and roundings make them.
///
/// # Errors
///
/// None in practice; the type is that of all data.
pub fn waves() -> Result<Split> {
    let mut random = Random(Pcg64Mcg::seed_from_u64(0x7761_7665));
    let mut part = |count: usize| {
        let labels: Vec<u8> = (0..count).map(|i| (i % WAVES.len()) as u8).collect();
        let values: Vec<f32> = labels.iter().flat_map(|&kind| signal(kind, &mut random)).collect();
        (values, labels)
    };
    let parts = [part(6000), part(1000)];
    scaled(["waves"; 2], [&parts[0].0, &parts[1].0], |i, images| {
        let mut data = Dataset::new("waves", [1, 1, LENGTH], WAVES.len(), images, parts[i].1.clone())?;
        data.class_names = WAVES.map(String::from).to_vec();
        Ok(data)
    })
}

/// Random numbers that are the same everywhere.
struct Random(Pcg64Mcg);

impl Random {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((f64::from(self.0.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0))
    }

    /// Nearly normal with deviation 1: the sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.between(-0.5, 0.5)).sum()
    }
}

/// The sine of `turns` full circles within 4e-9, by basic arithmetic alone: `f64::sin` differs between machines.
fn sine(turns: f64) -> f64 {
    // One half-wave, mirrored at its crest: the series converges fast within a quarter of a circle.
    let part = turns - turns.round();
    let part = if part > 0.25 {
        0.5 - part
    } else if part < -0.25 {
        -0.5 - part
    } else {
        part
    };
    let x = part * std::f64::consts::TAU;
    let square = x * x;
    // Taylor's series by Horner's rule, up to x^15.
    let series = [15, 13, 11, 9, 7, 5, 3]
        .iter()
        .fold(1.0, |sum, &n: &i32| 1.0 - sum * square / f64::from(n * (n - 1)));
    x * series
}

/// One signal of the given kind.
fn signal(kind: u8, random: &mut Random) -> Vec<f32> {
    let amplitude = random.between(0.5, 1.5);
    let offset = random.between(-0.3, 0.3);
    let noise = amplitude * random.between(0.0, 0.33);
    let periods = random.between(2.0, 10.0);
    let phase = random.between(0.0, 1.0);
    let growth = random.between(1.0, 2.0);
    let (centre, width) = (random.between(0.25, 0.75), random.between(0.05, 0.15));
    (0..LENGTH)
        .map(|i| {
            let time = i as f64 / LENGTH as f64;
            let turns = periods * time + phase;
            let part = turns - turns.floor();
            let shape = match kind {
                0 => sine(turns),
                1 => {
                    if part < 0.5 {
                        1.0
                    } else {
                        -1.0
                    }
                }
                2 => 2.0 * part - 1.0,
                3 => 4.0 * (part - 0.5).abs() - 1.0,
                // The frequency grows evenly from 1 to 1 + growth times its start.
                4 => sine(turns + 0.5 * growth * periods * time * time),
                _ => {
                    let away = (time - centre) / width;
                    random.normal() / (1.0 + away * away * away * away)
                }
            };
            (offset + amplitude * shape + noise * random.normal()) as f32
        })
        .collect()
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

    #[test]
    fn the_sine_is_one() {
        for i in -3000..3000 {
            let turns = f64::from(i) / 701.0;
            let error = sine(turns) - (turns * std::f64::consts::TAU).sin();
            assert!(error.abs() < 4e-9, "{turns}: {error}");
        }
    }

    #[test]
    fn waves_are_balanced_and_always_the_same() {
        let Split { train, test } = waves().unwrap();
        assert_eq!((train.len(), test.len()), (6000, 1000));
        assert_eq!((train.channels, train.height, train.width, train.classes), (1, 1, 128, 6));
        assert_eq!(train.class_names, WAVES);
        assert_eq!(train.labels.iter().filter(|&&label| label == 5).count(), 1000);
        assert!(matches!(train.encoding, Encoding::Range { low, high } if low < -2.0 && high > 2.0));
        assert_eq!(train.encoding, test.encoding);
        let sum = |data: &Dataset| data.images.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        assert_eq!((sum(&train), sum(&test)), (101_117_408, 16_883_595));
        // A square wave keeps away from its middle, a triangle does not.
        let near = |data: &Dataset, class: u8| {
            (0..data.len())
                .filter(|&i| data.labels[i] == class)
                .map(|i| {
                    let image = data.image(i);
                    let mean = image.iter().map(|&b| f64::from(b)).sum::<f64>() / 128.0;
                    let deviation =
                        (image.iter().map(|&b| (f64::from(b) - mean).powi(2)).sum::<f64>() / 128.0).sqrt();
                    image.iter().filter(|&&b| (f64::from(b) - mean).abs() < 0.5 * deviation).count() as f64
                        / 128.0
                })
                .sum::<f64>()
                / 1000.0
        };
        let (square, triangle) = (near(&train, 1), near(&train, 3));
        assert!(square < 0.15 && triangle > 0.2, "{square} {triangle}");
    }
}
