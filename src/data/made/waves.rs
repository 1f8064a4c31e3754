//! `waves`: generated signals of six kinds.

use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};

use crate::data::dataset::Dataset;
use crate::data::series::scaled;
use crate::data::split::Split;
use crate::error::Result;

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
    use crate::data::Encoding;

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
        let Split { train, test, .. } = waves().unwrap();
        assert_eq!((train.len(), test.len()), (6000, 1000));
        assert_eq!((train.channels, train.height, train.width, train.classes), (1, 1, 128, 6));
        assert_eq!(train.class_names, WAVES);
        assert_eq!(train.labels.iter().filter(|&&label| label == 5).count(), 1000);
        assert!(matches!(train.encoding, Encoding::Range { low, high } if low < -2.0 && high > 2.0));
        assert_eq!(train.encoding, test.encoding);
        let sum = |data: &Dataset| data.images.to_vec().iter().map(|&byte| u64::from(byte)).sum::<u64>();
        assert_eq!((sum(&train), sum(&test)), (101_117_408, 16_883_595));
        // A square wave keeps away from its middle, a triangle does not.
        let near = |data: &Dataset, class: u8| {
            (0..data.len())
                .filter(|&i| data.labels[i] == class)
                .map(|i| {
                    let image = data.picture(i);
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
