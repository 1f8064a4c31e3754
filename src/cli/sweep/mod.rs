//! `lenet sweep`: many runs, whose settings come out of lists or ranges, and which of them was best.
//!
//! A key is the name of any flag of `lenet train` that takes a value; each run is what `lenet train` would do with
//! these flags, but leaves no files.

mod axes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use std::{sync::mpsc, thread};

use clap::{Args as _, Command};
use lenet::data::{self, Split};
use lenet::model::Record;
use lenet::session::Metrics;
use lenet::train::{Event, Trainer};
use rayon::ThreadPoolBuilder;
use serde_json::{Map, Value, json};

use self::axes::{MOST, Setting, axis, draw, grid};
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
    /// Train each setting with so many seeds, from --seed on; on the CPU beside each other
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
    tell: &(impl Fn(&str) + Sync),
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

/// Trains one setting with every seed and hands on what each came to, in the order in which they are done; an
/// interrupted run is left out. On the CPU as many run beside each other as there are threads, which then share no
/// launch; each has the bits that it has alone.
fn scores(
    record: &Record,
    seeds: u64,
    trained: impl Fn(Record) -> Outcome<Option<Score>> + Sync,
    beside: bool,
    mut done: impl FnMut(Score),
) -> Outcome {
    let threads = rayon::current_num_threads();
    let workers = if beside { threads.min(seeds as usize) } else { 1 };
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for worker in 0..workers {
            let (sender, next, trained) = (sender.clone(), &next, &trained);
            // What does not divide evenly is the first ones'.
            let own = threads / workers + usize::from(worker < threads % workers);
            scope.spawn(move || {
                let pool = match ThreadPoolBuilder::new().num_threads(own).build() {
                    Ok(pool) => pool,
                    Err(error) => {
                        let _ = sender.send(Err(Failure::device(format!("threads for a run: {error}"))));
                        return;
                    }
                };
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let mut record = record.clone();
                    record.training.seed += seed;
                    let outcome = pool.install(|| trained(record));
                    if !matches!(outcome, Ok(Some(_))) {
                        // No more of them begin.
                        next.store(seeds, Ordering::Relaxed);
                    }
                    if sender.send(outcome).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for outcome in receiver {
            if let Some(score) = outcome? {
                done(score);
            }
        }
        Ok(())
    })
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
    let told = Mutex::new(Vec::new());
    let tell = |line: &str| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.iter().any(|old| old == line) {
            say(line);
            told.push(line.to_string());
        }
    };
    for (setting, record) in work {
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
        let before = rows.iter().map(|row| row.scores.len()).sum::<usize>();
        let mut row = Row { setting, scores: Vec::new() };
        let trained = |record| score(record, split, chosen, &args.training.basis, &tell);
        scores(&record, args.seeds, trained, !chosen.is_gpu(), |score| {
            row.scores.push(score);
            let (done, score) = (before + row.scores.len(), &row.scores[row.scores.len() - 1]);
            say(&format!("run {done}/{total}  {}", line(&row.setting, score)));
        })?;
        row.scores.sort_by_key(|score| score.seed);
        rows.push(row);
        if interrupted() {
            break;
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

    #[test]
    fn seeds_run_beside_each_other_on_the_cpu_and_stop_with_the_first_failure() {
        let threads = rayon::current_num_threads();
        for (beside, own) in [(true, threads / threads.min(7)), (false, threads)] {
            let trained = |record: Record| {
                let seconds = rayon::current_num_threads() as f64;
                let seed = record.training.seed;
                Ok(Some(Score { seed, accuracy: 0.5, loss: 1.0, seconds, failed: None }))
            };
            let mut done = Vec::new();
            scores(&Record::default(), 7, trained, beside, |score| done.push(score)).unwrap();
            done.sort_by_key(|score| score.seed);
            assert_eq!(done.iter().map(|score| score.seed).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
            assert!(done.iter().all(|score| score.seconds >= own as f64), "each worker has its own threads");
        }
        let begun = AtomicU64::new(0);
        let fails = |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(Failure::data("gone"))
        };
        let outcome = scores(&Record::default(), 100, fails, false, |_| panic!("nothing was trained"));
        assert_eq!(outcome.unwrap_err().message, "gone");
        assert_eq!(begun.into_inner(), 1);
    }

    #[test]
    fn mean_and_deviation() {
        assert_eq!(moments([1.0, 2.0, 3.0].into_iter()), (2.0, 1.0));
        assert_eq!(moments([4.0].into_iter()), (4.0, 0.0));
        assert!(moments([4.0, f64::NAN].into_iter()).0.is_nan());
    }
}
