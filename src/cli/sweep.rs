//! `lenet sweep`: many runs, whose settings come out of lists or ranges, and which of them was best.
//!
//! A key is the name of any flag of `lenet train` that takes a value; each run is what `lenet train` would do with
//! these flags, but leaves no files.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::{Args as _, Command};
use lenet::data::{self, Split};
use lenet::model::Record;
use lenet::session::Metrics;
use lenet::train::{Event, Trainer};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::args::{Basis, Training};
use super::device::{self, Chosen};
use super::failure::{Failure, Outcome, code};
use super::run::{Start, divide, doubts, drive, fit, heed_interrupts, interrupted};
use super::say::{emit, emit_json, say, table};

/// Arguments of `lenet sweep`.
#[derive(clap::Args)]
pub struct Args {
    /// A flag of `lenet train` and its values: lr=0.001,0.003. With --random also a range: lr=1e-4..1e-2
    #[arg(long, value_name = "KEY=VALUES", required = true)]
    grid: Vec<String>,
    /// Train each setting with so many seeds, from --seed on
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// Draw so many settings in place of all: of ranges uniformly in the logarithm (from 0 on: uniformly), of lists
    /// each value as often; --seed decides which
    #[arg(long, value_name = "N")]
    random: Option<usize>,
    /// Print JSON in the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    training: Training,
}

/// Runs that one sweep may have.
const MOST: usize = 10_000;

/// What a key may be.
#[derive(Debug, PartialEq)]
enum Values {
    List(Vec<String>),
    /// From, to, and whether only whole numbers are meant.
    Range(f64, f64, bool),
}

/// A key and what it may be.
type Axis = (String, Values);

/// Keys with a value each.
type Setting = Vec<(String, String)>;

fn axis(text: &str) -> Outcome<Axis> {
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
fn grid(axes: &[Axis]) -> Outcome<Vec<Setting>> {
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
fn draw(axes: &[Axis], count: usize, seed: u64) -> Vec<Setting> {
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

/// The flags of the command line with those of a setting in their place.
fn merged(base: &Training, setting: &Setting) -> Outcome<Training> {
    let command = Command::new("sweep").no_binary_name(true).disable_help_flag(true);
    let flags = setting.iter().map(|(key, value)| format!("--{key}={value}"));
    let mut matches = Training::augment_args_for_update(command).try_get_matches_from(flags)?;
    let mut training = base.clone();
    clap::FromArgMatches::update_from_arg_matches_mut(&mut training, &mut matches)?;
    // A flag without a value is never a key, and its absence says nothing.
    training.basis.no_shuffle = base.basis.no_shuffle;
    Ok(training)
}

/// What a run came to.
struct Score {
    seed: u64,
    /// Of the last evaluation, or of the best where the run stops early; NaN where it was not finite.
    accuracy: f64,
    /// The lowest evaluation loss of an epoch.
    loss: f64,
    seconds: f64,
    /// What went wrong.
    failed: Option<String>,
}

/// Trains once; gives nothing if that is interrupted.
fn score(
    mut record: Record,
    split: &Split,
    chosen: &Chosen,
    basis: &Basis,
    tell: &mut impl FnMut(&str),
) -> Outcome<Option<Score>> {
    let start = Instant::now();
    fit(&mut record, &split.train)?.iter().for_each(|line| tell(line));
    let network = record.network()?;
    let init = record
        .init
        .as_deref()
        .map(|path| Start::load(path, &network, &split.train.class_names, basis.layout.into()))
        .transpose()?;
    init.iter().flat_map(|init| &init.told).for_each(|line| tell(line));
    let divided;
    let (train, evaluation) = if record.validation.is_some() || record.per_class.is_some() {
        divided = divide(&record, split.clone())?;
        (&divided.train, &divided.evaluation)
    } else {
        (&split.train, &split.test)
    };
    for doubt in doubts(&network, record.training.batch, train, evaluation, basis.strict)? {
        tell(&doubt.message);
    }
    let settings = record.training;
    let options = Trainer::options(&settings, train, evaluation);
    let session = chosen.session(chosen.plan(&network, &options)?)?;
    let mut trainer = Trainer::new(session, settings.clone(), train, evaluation)?;
    if let Some(init) = &init {
        init.put(&mut trainer)?;
    }
    let (mut last, mut lowest): (Option<Metrics>, f64) = (None, f64::NAN);
    let outcome = drive(&mut trainer, |_, event, _| {
        if let Event::Epoch { evaluation, best, .. } = event {
            lowest = lowest.min(evaluation.loss());
            if best || settings.early_stop.is_none() {
                last = Some(evaluation);
            }
        }
        Ok(())
    });
    let failed = match outcome {
        Err(failure) if failure.code == code::NOT_FINITE => Some(failure.to_string()),
        other => other.map(|()| None)?,
    };
    if interrupted() {
        return Ok(None);
    }
    let accuracy = last.filter(|_| failed.is_none()).map_or(f64::NAN, |last| last.accuracy());
    let seconds = start.elapsed().as_secs_f64();
    Ok(Some(Score { seed: settings.seed, accuracy, loss: lowest, seconds, failed }))
}

/// Mean and sample deviation.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

/// The runs of a setting, together.
struct Row {
    setting: Setting,
    scores: Vec<Score>,
}

impl Row {
    /// Mean and deviation of the accuracy; NaN where a run was not finite.
    fn accuracy(&self) -> (f64, f64) {
        moments(self.scores.iter().map(|score| score.accuracy))
    }

    fn loss(&self) -> f64 {
        self.scores.iter().map(|score| score.loss).fold(f64::NAN, f64::min)
    }

    fn seconds(&self) -> f64 {
        moments(self.scores.iter().map(|score| score.seconds)).0
    }

    fn json(&self) -> Value {
        let (mean, deviation) = self.accuracy();
        let settings: Map<String, Value> =
            self.setting.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let runs: Vec<_> = self
            .scores
            .iter()
            .map(|score| {
                json!({
                    "seed": score.seed, "accuracy": score.accuracy, "loss": score.loss,
                    "seconds": score.seconds, "failed": score.failed,
                })
            })
            .collect();
        json!({
            "settings": settings, "accuracy": mean, "deviation": deviation, "loss": self.loss(),
            "seconds": self.seconds(), "runs": runs,
        })
    }
}

/// Runs `lenet sweep`.
pub fn run(args: &Args) -> Outcome<u8> {
    heed_interrupts()?;
    let axes = args.grid.iter().map(|text| axis(text)).collect::<Outcome<Vec<_>>>()?;
    for (i, (key, _)) in axes.iter().enumerate() {
        if axes[..i].iter().any(|(other, _)| other == key) {
            return Err(Failure::usage(format!("grid has {key} twice")));
        }
    }
    let first = args.training.basis.seed.unwrap_or(0);
    if args.seeds == 0
        || args.seeds > MOST as u64
        || args.random.is_some_and(|count| count == 0 || count > MOST)
    {
        return Err(Failure::usage(format!("seeds and random are 1 to {MOST}")));
    }
    if args.seeds > 1 && axes.iter().any(|(key, _)| key == "seed") {
        return Err(Failure::usage("seed varies by --seeds or by --grid, not by both"));
    }
    let settings = match args.random {
        Some(count) => draw(&axes, count, first),
        None => grid(&axes)?,
    };
    // Whatever makes no sense is found before the first run.
    let mut work = Vec::new();
    for setting in settings {
        let record = merged(&args.training, &setting)?.record()?;
        work.push((setting, record));
    }

    let (mut datasets, mut devices) = (BTreeMap::<String, Split>::new(), BTreeMap::<String, Chosen>::new());
    let total = work.len() as u64 * args.seeds;
    let mut rows: Vec<Row> = Vec::new();
    let mut told = Vec::new();
    let mut tell = |line: &str| {
        if !told.iter().any(|old| old == line) {
            say(line);
            told.push(line.to_string());
        }
    };
    'runs: for (setting, record) in work {
        if !datasets.contains_key(&record.data) {
            let split = data::load_with(&record.data, record.reading()).map_err(Failure::reading)?;
            split.notes.iter().for_each(|line| tell(line));
            datasets.insert(record.data.clone(), split);
        }
        if !devices.contains_key(&record.device) {
            let chosen = device::choose(&record.device)?;
            tell(&chosen.line);
            devices.insert(record.device.clone(), chosen);
        }
        let (split, chosen) = (&datasets[&record.data], &devices[&record.device]);
        if record.validation.is_none() {
            tell("the runs are judged by the test data; --validation 0.1 would keep it apart");
        }
        rows.push(Row { setting, scores: Vec::new() });
        for run in 0..args.seeds {
            let mut record = record.clone();
            record.training.seed += run;
            let Some(score) = score(record, split, chosen, &args.training.basis, &mut tell)? else {
                break 'runs;
            };
            let done = rows.iter().map(|row| row.scores.len()).sum::<usize>() + 1;
            let Some(row) = rows.last_mut() else { break 'runs };
            say(&format!("run {done}/{total}  {}", line(&row.setting, &score)));
            row.scores.push(score);
        }
    }
    rows.retain(|row| !row.scores.is_empty());
    // NaN last.
    rows.sort_by(|a, b| {
        b.accuracy()
            .0
            .partial_cmp(&a.accuracy().0)
            .unwrap_or_else(|| a.accuracy().0.is_nan().cmp(&b.accuracy().0.is_nan()))
    });
    let result = if interrupted() { code::INTERRUPTED } else { 0 };
    if args.json {
        emit_json(&json!({
            "settings": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "interrupted": interrupted(),
        }))?;
    } else if !rows.is_empty() {
        emit(&closing(&rows, args.seeds > 1))?;
    }
    if interrupted() {
        say("interrupted; the runs that are done stand above");
    }
    Ok(result)
}

/// A run, in a line.
fn line(setting: &Setting, score: &Score) -> String {
    let setting: Vec<_> = setting.iter().map(|(key, value)| format!("{key} {value}")).collect();
    let result = match &score.failed {
        Some(failed) => failed.clone(),
        None => format!("accuracy {}  best loss {:.4}", percent(score.accuracy), score.loss),
    };
    format!("{}  seed {}  {result}  {:.1} s", setting.join("  "), score.seed, score.seconds)
}

fn percent(share: f64) -> String {
    if share.is_nan() { "—".into() } else { format!("{:.2} %", 100.0 * share) }
}

/// The table, best first.
fn closing(rows: &[Row], deviations: bool) -> String {
    let keys = rows[0].setting.iter().map(|(key, _)| key.clone());
    let mut lines = vec![keys.collect::<Vec<_>>()];
    lines[0].extend(["accuracy", "best loss", "seconds"].map(String::from));
    if deviations {
        lines[0].insert(rows[0].setting.len() + 1, "± sd".into());
    }
    for row in rows {
        let (mean, deviation) = row.accuracy();
        let mut cells: Vec<String> = row.setting.iter().map(|(_, value)| value.clone()).collect();
        cells.push(percent(mean));
        if deviations {
            cells.push(percent(deviation));
        }
        cells.push(if row.loss().is_nan() { "—".into() } else { format!("{:.4}", row.loss()) });
        cells.push(format!("{:.1}", row.seconds()));
        lines.push(cells);
    }
    let flags: Vec<_> = rows[0].setting.iter().map(|(key, value)| format!("--{key} {value}")).collect();
    let best = if rows[0].accuracy().0.is_nan() {
        "no setting gave finite losses".into()
    } else {
        format!("best  {}", flags.join(" "))
    };
    format!("{}\n{best}\n", table(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn mean_and_deviation() {
        assert_eq!(moments([1.0, 2.0, 3.0].into_iter()), (2.0, 1.0));
        assert_eq!(moments([4.0].into_iter()), (4.0, 0.0));
        assert!(moments([4.0, f64::NAN].into_iter()).0.is_nan());
    }
}
