//! `lenet train`: a new run, or one that goes on.

mod first;
mod job;
mod resume;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lenet::data;
use lenet::model::About;
use lenet::model::checkpoint::fingerprint;
use lenet::model::run::Folder;
use lenet::session::Metrics;
use lenet::train::Trainer;

use super::args::{RUN, Training};
use super::device;
use super::failure::{Failure, Outcome, code};
use super::run::{Divided, Start, divide, doubts, fit, heed_interrupts};
use super::say::{Log, Progress, quoted, say};

use first::When;
use job::Job;
use resume::Saved;

/// Arguments of `lenet train`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    training: Training,
    /// Continue a run: its folder or its checkpoint
    #[arg(long, help_heading = RUN, value_name = "DIR", conflicts_with_all = ["init", "settings", "preset"])]
    resume: Option<PathBuf>,
    /// The folder of the run, new or empty [default: runs/YYYY-MM-DD-HHMMSS]
    #[arg(long, help_heading = RUN, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How to report: a progress bar and a table, or JSON lines on stdout
    #[arg(long, help_heading = RUN, value_name = "FORM", default_value = "human")]
    log: Log,
    /// Compare a training step with the CPU's before: once for each GPU and driver, each time, or never
    #[arg(long, help_heading = RUN, value_name = "WHEN", default_value = "auto")]
    check: When,
}

/// Runs `lenet train`; `start` is when the program began.
pub fn run(args: Args, start: Instant) -> Outcome<u8> {
    heed_interrupts()?;
    let saved = args.resume.as_deref().map(Saved::load).transpose()?;
    let mut record = match &saved {
        Some(saved) => saved.continued(&args.training)?,
        None => args.training.record()?,
    };
    let goes_on = match (&saved, &args.out) {
        (Some(saved), Some(out)) => saved.lies_in(out),
        (saved, None) => saved.is_some(),
        (None, Some(_)) => false,
    };
    if let Some(out) = &args.out
        && !goes_on
        && Folder::taken(out)
    {
        let out = quoted(out);
        return Err(Failure::usage(format!(
            "{out} exists and is not empty; give another --out, or continue a run in it with --resume {out}"
        )));
    }
    // Two processes that go on in one folder are told apart before either has worked.
    let held = saved.iter().find(|_| goes_on).map(|saved| Folder::open(&saved.dir)).transpose()?;

    // Drivers load while the data is unpacked.
    let (split, chosen) =
        rayon::join(|| data::load_with(&record.data, record.reading()), || device::choose(&record.device));
    let split = split.map_err(Failure::reading)?;
    let notes = split.notes.clone();
    let contents = fingerprint(&[&split.train, &split.test])?;
    if let Some(saved) = &saved
        && saved.checkpoint.notes.data != contents
    {
        return Err(Failure::data(format!("{}: not the data that the run began with", record.data)));
    }
    let changes = if saved.is_none() { fit(&mut record, &split.train)? } else { None };
    let network = record.network()?;
    let Divided { train, evaluation, test, held_out } = divide(&record, split)?;
    let judged = test.as_ref().unwrap_or(&evaluation);
    let doubts = doubts(&network, record.training.batch, &train, judged, args.training.basis.strict)?;
    let counts = judged.label_counts();
    let init = match (&record.init, &saved) {
        (Some(path), None) => {
            Some(Start::load(path, &network, &train.class_names, args.training.basis.layout.into())?)
        }
        _ => None,
    };
    let chosen = chosen?;
    let options = Trainer::options(&record.training, &train, &evaluation);
    let plan = chosen.plan(&network, &options)?;
    say(&chosen.line);
    if let Some(steps) = plan.options.stream {
        let why = if train.images.is_filed() { "stays in its file" } else { "does not fit the device" };
        let steps = if steps == 1 { "a step".into() } else { format!("{steps} steps") };
        say(&format!("the data {why}: it is streamed, {steps} at a time"));
    }
    let checked = first::check(args.check, &chosen, &network, &options, &train, record.training.seed)?;
    checked.iter().for_each(|line| say(line));
    notes.iter().chain(&changes).chain(init.iter().flat_map(|init| &init.told)).for_each(|line| say(line));
    record.device.clone_from(&chosen.request);
    let session = chosen.session(plan)?;
    let (train, evaluation) = (Arc::new(train), Arc::new(evaluation));
    let mut trainer = Trainer::shared(session, record.training.clone(), &train, &evaluation)?;
    if let Some(init) = &init {
        init.put(&mut trainer)?;
    }
    let (mut best, mut accuracy) = (None, None);
    if let Some(saved) = saved {
        accuracy = saved.checkpoint.notes.accuracy;
        let state = saved.checkpoint.state(trainer.session().plan()).map_err(Failure::reading)?;
        trainer.restore(&state.0)?;
        best = state.1;
    }
    let (folder, epochs) = match held {
        Some(mut folder) => {
            let lines = folder.cut(trainer.position().step)?;
            (folder, lines.into_iter().filter(|line| line["event"] == "epoch").collect())
        }
        None => (new_folder(args.out.as_deref())?, Vec::new()),
    };
    folder.settings(&record)?;
    folder.held_out(&held_out)?;
    let about = About { trained_on: Some(record.data.clone()), ..About::data(&train) };
    let mut job = Job {
        network,
        record,
        fingerprint: contents,
        about,
        eval_images: evaluation.len(),
        train_images: train.len(),
        labels_per_image: train.labels_per_image() as u64,
        test,
        counts,
        doubts,
        strict: args.training.basis.strict,
        chosen,
        progress: Progress::new(args.log, trainer.total_steps(), trainer.position().step),
        folder,
        epochs,
        best,
        accuracy,
        last: None,
        window: (trainer.position().step + 1, Metrics::default()),
        start,
        whole: trainer.position().step == 0,
        saved: trainer.position().step,
    };
    if !goes_on {
        job.save(&mut trainer, false)?;
    }
    // What is not streamed lies on the device.
    drop((train, evaluation, init));
    job.start(&trainer)?;
    match job.train(&mut trainer) {
        Ok(()) => job.finish(&mut trainer),
        Err(mut failure) => {
            job.progress.clear();
            let dir = quoted(job.folder.path());
            failure.message += &match failure.code {
                code::NOT_FINITE => format!(
                    "; the last good checkpoint, of step {}, is kept: lenet train --init {dir} starts from it",
                    job.saved
                ),
                _ => format!("; what is saved of the run continues with: lenet train --resume {dir}"),
            };
            Err(failure)
        }
    }
}

/// Makes the folder of a new run: `out`, or one that is called by the time.
fn new_folder(out: Option<&Path>) -> Outcome<Folder> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(match out {
        Some(out) => Folder::create(out)?,
        None => Folder::dated(Path::new("runs"), now())?,
    })
}
