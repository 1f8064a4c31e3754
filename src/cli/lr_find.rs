//! `lenet lr-find`: the learning-rate range test (Smith 2017). One short run, in which the learning rate grows by
//! the same factor from step to step, shows where the loss begins to fall, falls fastest, and explodes.

use lenet::Error;
use lenet::data;
use lenet::model::Record;
use lenet::session::Metrics;
use lenet::train::{Advance, Event, Schedule, Trainer};
use pollster::block_on;
use serde_json::json;

use super::args::Basis;
use super::device;
use super::failure::{Failure, Outcome};
use super::run::{Divided, Start, divide, doubts, fit};
use super::say::{emit, emit_json, say};

/// Arguments of `lenet lr-find`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    basis: Basis,
    /// The first learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-6)]
    from: f64,
    /// The last learning rate, unless the loss explodes before
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    to: f64,
    /// Steps from the first to the last
    #[arg(long, value_name = "N", default_value_t = 200)]
    steps: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How much of its mean the smoothed loss keeps: it lags ten steps behind, a factor of two in the default range.
const KEEP: f64 = 0.9;

/// The loss has exploded when it is so many times as large as the lowest.
const EXPLODED: f64 = 4.0;

/// A step's learning rate and loss.
struct Point {
    rate: f64,
    loss: f64,
    smooth: f64,
}

/// The loss against the learning rate.
#[derive(Default)]
struct Curve {
    points: Vec<Point>,
    mean: f64,
    /// The learning rate at which the loss exploded, if it did.
    explodes: Option<f64>,
}

impl Curve {
    /// Adds a step; says whether to go on.
    fn add(&mut self, rate: f64, loss: f64) -> bool {
        self.mean = KEEP * self.mean + (1.0 - KEEP) * loss;
        // The mean began at 0, which is divided out.
        let smooth = self.mean / (1.0 - KEEP.powi(self.points.len() as i32 + 1));
        self.points.push(Point { rate, loss, smooth });
        if smooth > EXPLODED * self.lowest() {
            self.explodes = Some(rate);
        }
        self.explodes.is_none()
    }

    fn lowest(&self) -> f64 {
        self.points.iter().map(|point| point.smooth).fold(f64::INFINITY, f64::min)
    }

    /// The place where the smoothed loss falls fastest against the rate's logarithm, over a tenth of the run; none
    /// where it never falls.
    fn steepest(&self) -> Option<usize> {
        let half = (self.points.len() / 20).max(1);
        let slope = |at: usize| self.points[at + half].smooth - self.points[at - half].smooth;
        (half..self.points.len().saturating_sub(half))
            .min_by(|&a, &b| slope(a).total_cmp(&slope(b)))
            .filter(|&at| slope(at) < 0.0)
    }

    /// The steepest place, but no more than a tenth of where the loss explodes.
    fn suggestion(&self) -> Option<f64> {
        let steepest = self.points[self.steepest()?].rate;
        Some(rounded(self.explodes.map_or(steepest, |explodes| steepest.min(explodes / 10.0))))
    }

    /// The smoothed loss as characters.
    fn plot(&self) -> String {
        const ROWS: usize = 12;
        const COLUMNS: usize = 64;
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return String::new();
        };
        let lowest = self.lowest();
        // An explosion would flatten the rest.
        let highest = self.points.iter().map(|point| point.smooth).fold(lowest, f64::max);
        let highest = highest.min(first.smooth.max(EXPLODED * lowest)).max(lowest + 1e-9);
        let column = |rate: f64| {
            let share = (rate / first.rate).ln() / (last.rate / first.rate).ln().max(1e-9);
            (share * (COLUMNS - 1) as f64).round() as usize
        };
        let row = |loss: f64| {
            let share = (highest - loss.min(highest)) / (highest - lowest);
            (share * (ROWS - 1) as f64).round() as usize
        };
        let mut grid = [[' '; COLUMNS]; ROWS];
        for point in &self.points {
            grid[row(point.smooth)][column(point.rate)] = '·';
        }
        if let Some(at) = self.steepest() {
            let point = &self.points[at];
            grid[row(point.smooth)][column(point.rate)] = '●';
        }
        let mut text = String::new();
        for (i, line) in grid.iter().enumerate() {
            let loss = highest - (highest - lowest) * i as f64 / (ROWS - 1) as f64;
            let label = if i % 4 == 0 || i == ROWS - 1 { format!("{loss:.3}") } else { String::new() };
            let line: String = line.iter().collect();
            text += &format!("{label:>8} │{}\n", line.trim_end());
        }
        // Powers of ten under the axis, where there is room for them.
        let mut axis = vec!['─'; COLUMNS];
        let mut labels = String::new();
        for power in first.rate.log10().ceil() as i32..=last.rate.log10().floor() as i32 {
            let at = column(10f64.powi(power)).min(COLUMNS - 1);
            if at >= labels.chars().count() {
                labels += &" ".repeat(at - labels.chars().count());
                labels += &format!("1e{power} ");
                axis[at] = '┴';
            }
        }
        text + &format!("{:>8} └{}\n{:>8}  {}\n", "", axis.iter().collect::<String>(), "", labels.trim_end())
    }
}

/// A number with two digits.
fn rounded(number: f64) -> f64 {
    format!("{number:.1e}").parse().unwrap_or(number)
}

/// Runs `lenet lr-find`.
pub fn run(args: &Args) -> Outcome {
    if !(args.from > 0.0 && args.from < args.to && args.to.is_finite()) {
        return Err(Failure::usage(format!(
            "the learning rate goes from {} to {}, expected more than 0 and to more than that",
            args.from, args.to
        )));
    }
    if args.steps < 20 {
        return Err(Failure::usage(format!("steps is {}, expected 20 or more", args.steps)));
    }
    let mut record = Record::default();
    args.basis.apply(&mut record)?;
    let (split, chosen) =
        rayon::join(|| data::load_with(&record.data, record.reading()), || device::choose(&record.device));
    let (split, chosen) = (split.map_err(Failure::reading)?, chosen?);
    split.notes.iter().for_each(|line| say(line));
    let changes = fit(&mut record, &split.train)?;
    let Divided { train, evaluation, .. } = divide(&record, split)?;
    let network = record.network()?;
    let start = record
        .init
        .as_deref()
        .map(|path| Start::load(path, &network, &train.class_names, args.basis.layout.into()))
        .transpose()?;
    let (batch, strict) = (record.training.batch, args.basis.strict);
    for doubt in doubts(&network, batch, &train, &evaluation, strict)? {
        say(&doubt.message);
    }
    let training = &mut record.training;
    // The evaluations between epochs do not matter.
    let evaluation = evaluation.take(1);
    let steps_per_epoch = training.steps_per_epoch(train.len()).max(1);
    training.epochs = args.steps.div_ceil(steps_per_epoch) as usize;
    training.steps = Some(args.steps);
    training.schedule = Schedule::Constant;
    let options = Trainer::options(training, &train, &evaluation);
    let session = chosen.session(chosen.plan(&network, &options)?)?;
    let mut trainer = Trainer::new(session, training.clone(), &train, &evaluation)?;
    if let Some(start) = &start {
        start.put(&mut trainer)?;
    }
    say(&chosen.line);
    changes.iter().chain(start.iter().flat_map(|start| &start.told)).for_each(|line| say(line));
    say(&format!(
        "{} on {}: {} steps of {} images with {}, the learning rate from {:e} to {:e}",
        network.name,
        record.data,
        args.steps,
        training.batch,
        training.optimizer.rule.name(),
        args.from,
        args.to
    ));
    let curve = test(&mut trainer, args)?;
    let steepest = curve.steepest().map(|at| curve.points[at].rate);
    if args.json {
        let points: Vec<_> = curve
            .points
            .iter()
            .map(|point| json!({ "learning_rate": point.rate, "loss": point.loss, "smoothed": point.smooth }))
            .collect();
        return emit_json(&json!({
            "network": network.name,
            "data": record.data,
            "device": trainer.session().device(),
            "settings": trainer.settings(),
            "points": points,
            "steepest": steepest,
            "explodes": curve.explodes,
            "suggestion": curve.suggestion(),
        }));
    }
    let steepest = steepest.map_or("nowhere".into(), |rate| format!("at {rate:.1e} (●)"));
    let explodes = match curve.explodes {
        Some(rate) => format!("explodes at {rate:.1e}, a tenth of which is {:.1e}", rate / 10.0),
        None => format!("does not explode up to {:e}", args.to),
    };
    let suggestion = match curve.suggestion() {
        Some(rate) => format!("suggestion  --lr {rate}"),
        None => "no suggestion: the loss does not fall".into(),
    };
    emit(&format!(
        "{}\nthe smoothed loss falls fastest {steepest}; it {explodes}\n{suggestion}\n",
        curve.plot()
    ))
}

/// Runs the steps, until they are over or the loss explodes.
fn test(trainer: &mut Trainer, args: &Args) -> Outcome<Curve> {
    let rate = |step: u64| args.from * (args.to / args.from).powf(step as f64 / (args.steps - 1) as f64);
    let (mut curve, mut queued) = (Curve::default(), 0);
    loop {
        if trainer.in_flight() < 2 {
            trainer.set_learning_rate(Some(rate(queued) as f32));
            if let Advance::Queued(steps) = trainer.advance(1)? {
                queued += steps as u64;
            }
        }
        match block_on(trainer.event()) {
            Ok(Some(Event::Steps { first, metrics, .. })) => {
                for (step, loss) in (first - 1..).zip(metrics.iter().map(Metrics::loss)) {
                    if !curve.add(rate(step), loss) {
                        return Ok(curve);
                    }
                }
            }
            Ok(Some(Event::Epoch { .. })) => {}
            Ok(None) => return Ok(curve),
            Err(Error::NotFinite { step, what }) => {
                if step == 1 {
                    return Err(Error::NotFinite { step, what }.into());
                }
                curve.explodes = Some(rate(step - 1));
                return Ok(curve);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that falls around 1e-3 and explodes from 0.1 on.
    fn curve() -> Curve {
        let mut curve = Curve::default();
        for step in 0..200 {
            let rate = 1e-6 * 1e6f64.powf(f64::from(step) / 199.0);
            let loss = 0.3 + 2.0 / (1.0 + (rate / 1e-3).powi(2)) + (rate / 0.1).powi(4);
            if !curve.add(rate, loss) {
                break;
            }
        }
        curve
    }

    #[test]
    fn the_suggestion_lies_where_the_loss_falls() {
        let curve = curve();
        let explodes = curve.explodes.expect("an explosion");
        assert!((0.1..0.4).contains(&explodes), "{explodes}");
        // Against the logarithm it falls fastest at 1e-3; smoothing lags a factor of two behind.
        let suggestion = curve.suggestion().expect("a suggestion");
        assert!((1e-3..3e-3).contains(&suggestion), "{suggestion}");
        assert!((curve.points[0].smooth - curve.points[0].loss).abs() < 1e-12, "the bias is divided out");
        let plot = curve.plot();
        assert_eq!((plot.lines().count(), plot.matches('●').count()), (14, 1), "{plot}");
        for label in ["1e-6", "1e-5", "1e-1"] {
            assert!(plot.contains(label), "{plot}");
        }
    }

    #[test]
    fn a_loss_that_only_rises_suggests_nothing() {
        let mut curve = Curve::default();
        (0..50).all(|step| curve.add(f64::from(step + 1), 1.0 + 0.01 * f64::from(step)));
        assert_eq!((curve.points.len(), curve.suggestion(), curve.explodes), (50, None, None));
        assert_eq!(curve.plot().matches('●').count(), 0);
    }

    #[test]
    fn no_rate_is_suggested_above_a_tenth_of_the_explosion() {
        let mut curve = Curve::default();
        for step in 0..60 {
            curve.add(10f64.powf(f64::from(step) / 20.0 - 3.0), 2.0 - 0.03 * f64::from(step));
        }
        let free = curve.suggestion().expect("a suggestion");
        curve.explodes = Some(free);
        assert_eq!(curve.suggestion(), Some(rounded(free / 10.0)));
    }
}
