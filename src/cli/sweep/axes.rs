//! What a sweep goes through: every combination of lists, or random settings out of lists and ranges.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::cli::failure::{Failure, Outcome};

/// Runs that one sweep may have.
pub const MOST: usize = 10_000;

/// What a key may be.
#[derive(Debug, PartialEq)]
pub enum Values {
    List(Vec<String>),
    /// From, to, and whether only whole numbers are meant.
    Range(f64, f64, bool),
}

/// A key and what it may be.
pub type Axis = (String, Values);

/// Keys with a value each.
pub type Setting = Vec<(String, String)>;

/// Reads `KEY=V1,V2`, or `KEY=LOW..HIGH`.
pub fn axis(text: &str) -> Outcome<Axis> {
    let wrong = |what: &str| {
        Failure::usage(format!(
            "grid {text}: {what}, expected KEY=V1,V2 with the name of a flag of `lenet train`"
        ))
    };
    let (key, values) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
    let key = key.trim_start_matches("--");
    if key.is_empty() || values.split(',').any(str::is_empty) {
        return Err(wrong("a part is empty"));
    }
    if let Some((low, high)) = values.split_once("..") {
        let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
        return match (number(low), number(high)) {
            (Some(from), Some(to)) if 0.0 <= from && from < to => {
                let whole = low.parse::<u64>().is_ok() && high.parse::<u64>().is_ok() && to > 1.0;
                Ok((key.into(), Values::Range(from, to, whole)))
            }
            _ => Err(wrong("a range goes from a number of 0 or more to a larger one")),
        };
    }
    Ok((key.into(), Values::List(values.split(',').map(String::from).collect())))
}

/// Every combination of the lists, the last key varying fastest.
pub fn grid(axes: &[Axis]) -> Outcome<Vec<Setting>> {
    let mut settings: Vec<Setting> = vec![Vec::new()];
    for (key, values) in axes {
        let Values::List(values) = values else {
            return Err(Failure::usage(format!(
                "{key} is a range: say with --random N how many values to draw"
            )));
        };
        if settings.len().saturating_mul(values.len()) > MOST {
            return Err(Failure::usage(format!("the grid has more than {MOST} settings")));
        }
        let with =
            |setting: &Setting, value: &String| [&setting[..], &[(key.clone(), value.clone())]].concat();
        settings = settings.iter().flat_map(|old| values.iter().map(move |value| with(old, value))).collect();
    }
    Ok(settings)
}

/// So many random settings, which the seed decides.
pub fn draw(axes: &[Axis], count: usize, seed: u64) -> Vec<Setting> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    // 0 to below 1.
    let mut share = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut value = |values: &Values| match values {
        Values::List(list) => list[(share() * list.len() as f64) as usize].clone(),
        &Values::Range(low, high, whole) => {
            let place = share();
            let number = if low == 0.0 { high * place } else { low * (high / low).powf(place) };
            // Three digits say enough, and can be typed again.
            if whole { format!("{number:.0}") } else { format!("{:?}", digits(number)) }
        }
    };
    (0..count).map(|_| axes.iter().map(|(key, values)| (key.clone(), value(values))).collect()).collect()
}

/// A number with three digits.
fn digits(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::code;

    fn axes(texts: &[&str]) -> Vec<Axis> {
        texts.iter().map(|text| axis(text).unwrap()).collect()
    }

    #[test]
    fn a_grid_has_every_combination() {
        let settings = grid(&axes(&["lr=1e-3,3e-3", "batch=32,64,128"])).unwrap();
        assert_eq!(settings.len(), 6);
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(settings[1], [pair("lr", "1e-3"), pair("batch", "64")]);
        assert_eq!(settings[3], [pair("lr", "3e-3"), pair("batch", "32")]);
        assert!(grid(&axes(&["lr=1e-3..1"])).unwrap_err().message.contains("--random"));
        let many = ["a=1,2,3,4,5,6,7,8,9,0", "b=1,2,3,4,5,6,7,8,9,0", "c=1,2,3,4,5,6,7,8,9,0"];
        assert_eq!(grid(&axes(&many)).unwrap().len(), 1000);
        let too_many = [&many[..], &["d=1,2,3,4,5,6,7,8,9,0", "e=1,2"]].concat();
        assert!(grid(&axes(&too_many)).unwrap_err().message.contains("more than 10000"));
        for text in ["lr", "=1", "lr=", "lr=1,,2", "lr=2..1", "lr=x..1", "lr=-1..1", "lr=1..inf"] {
            assert_eq!(axis(text).unwrap_err().code, code::USAGE, "{text}");
        }
    }

    #[test]
    fn random_settings_fill_their_ranges_and_repeat() {
        let axes = axes(&["lr=1e-4..1e-2", "batch=16..256", "smoothing=0..0.2", "optimizer=adam,sgd"]);
        let settings = draw(&axes, 400, 7);
        assert_eq!(settings, draw(&axes, 400, 7));
        assert_ne!(settings, draw(&axes, 400, 8));
        let numbers = |at: usize| -> Vec<f64> {
            settings.iter().map(|setting| setting[at].1.parse().unwrap()).collect()
        };
        let share = |values: &[f64], below: f64| {
            values.iter().filter(|&&value| value < below).count() as f64 / values.len() as f64
        };
        // Half of the rates lie below the middle of the logarithm; half of the smoothings below 0.1.
        for (at, low, middle, high) in [(0, 1e-4, 1e-3, 1e-2), (1, 16.0, 64.0, 256.0), (2, 0.0, 0.1, 0.2)] {
            let values = numbers(at);
            assert!(values.iter().all(|&value| low <= value && value <= high));
            let below = share(&values, middle);
            assert!((0.4..0.6).contains(&below), "{below} of key {at}");
        }
        assert!(settings.iter().all(|setting| setting[1].1.parse::<usize>().is_ok()));
        let adam = settings.iter().filter(|setting| setting[3].1 == "adam").count();
        assert!((160..240).contains(&adam), "{adam}");
    }
}
