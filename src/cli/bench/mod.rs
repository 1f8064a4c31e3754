//! `lenet bench`: how fast CPU and GPU are, launch by launch and step by step, against what each was measured to
//! do at most.
//!
//! Results are checked before anything is timed. `measure` takes the time,
//! `roofline` judges the launches, `report` says it all; `growth` measures curves, which `svg` draws; `model`
//! estimates GPUs that are not here.

mod growth;
mod measure;
mod model;
mod report;
mod roofline;
mod svg;

use std::path::PathBuf;

use lenet::Network;
use lenet::check::{self, Difference};
use lenet::kernels::Launch;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::plan::{Options, Phase};
use pollster::block_on;

use self::measure::{Images, Job, Rig, Samples, in_turns};
use self::roofline::Peak;
use super::device::{self, Chosen, compared};
use super::{Failure, Outcome, emit, emit_json, load_network, say, train};

/// Arguments of `lenet bench`.
#[derive(clap::Args)]
pub struct Args {
    /// The network: a preset (`lenet summary --list` shows them) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "lenet5")]
    net: String,
    /// Images in a batch, one or several sizes [default: that of `lenet train`]
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',')]
    batch: Vec<usize>,
    /// cpu, gpu, a name or number from `lenet info`, or all; may be given several times [default: cpu, and gpu
    /// where there is an adapter]
    #[arg(long)]
    device: Vec<String>,
    /// The update rule
    #[arg(long, value_name = "RULE", value_parser = train::rules(), default_value = "adam")]
    optimizer: Rule,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Measure images/s and memory against the batch size and the network's width instead
    #[arg(long, conflicts_with = "model")]
    growth: bool,
    /// The largest batch of --growth
    #[arg(long, value_name = "N", default_value_t = 8192, requires = "growth")]
    most_batch: usize,
    /// The largest factor of --growth on channels and hidden features
    #[arg(long, value_name = "N", default_value_t = 8, requires = "growth")]
    most_width: usize,
    /// Draw --growth as an SVG
    #[arg(long, value_name = "FILE", requires = "growth")]
    svg: Option<PathBuf>,
    /// Estimate a step on a GPU that is not here, from its data sheet; `list` names them, `all` takes all
    #[arg(long, value_name = "GPU", conflicts_with_all = ["device", "seconds"])]
    model: Option<String>,
    /// Time launches by many repetitions instead of the GPU's timestamps
    #[arg(long, conflicts_with_all = ["growth", "model"])]
    no_timestamps: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `lenet bench`.
pub fn run(args: &Args) -> Outcome {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Failure::usage(format!(
            "seconds is {}, expected more than 0 and at most 3600",
            args.seconds
        )));
    }
    let network = load_network(&args.net)?;
    let batches = match args.batch.as_slice() {
        [] => vec![lenet::train::Settings::default().batch],
        batches => batches.to_vec(),
    };
    let options = Options { optimizer: Optimizer::new(args.optimizer), ..Options::default() };
    if let Some(request) = &args.model {
        return model::run(request, &network, &options, &batches, args.json);
    }
    let devices = compared(&args.device, !args.no_timestamps)?;
    for device in &devices {
        say(&device.line);
    }
    // Images are repeated to fill the largest batch, but not for one that does not fit anyway.
    let mut most = 1;
    for &batch in &batches {
        for device in &devices {
            device.plan(&network, &Options { batch, train_images: batch, ..options.clone() })?;
        }
        most = most.max(batch);
    }
    if args.growth {
        most = most.max(growth::largest(&devices, &network, &options, args.most_batch)?);
    }
    let images = Images::new(&network, most)?;
    let bench = Bench { args, network, options, images, devices };
    if args.growth { growth::run(&bench) } else { bench.run(&batches) }
}

/// What is measured, and on what.
struct Bench<'a> {
    args: &'a Args,
    network: Network,
    options: Options,
    images: Images,
    devices: Vec<Chosen>,
}

/// What was measured on a device at one batch size.
struct Measured {
    device: String,
    difference: Difference,
    first_step: f64,
    bytes: u64,
    /// Samples of a step in the order in which they were taken, in turns with the other devices.
    turns: Vec<f64>,
    train: Samples,
    evaluate: Samples,
    launches: Vec<(Launch, Samples)>,
    /// How the launches were timed.
    method: &'static str,
}

impl Bench<'_> {
    fn run(&self, batches: &[usize]) -> Outcome {
        // Results before times: what does not compute the same is not worth a measurement.
        let mut ready = Some(self.ready(batches[0])?);
        let mut peaks = Vec::new();
        for device in &self.devices {
            peaks.push(Peak::measure(device, self.args.seconds)?);
        }
        if !self.args.json {
            emit(&report::conditions(self, &peaks))?;
        }
        let mut all = Vec::new();
        for &batch in batches {
            let rigs = match ready.take() {
                Some(rigs) => rigs,
                None => self.ready(batch)?,
            };
            let measured = self.measure(rigs, &peaks)?;
            if !self.args.json {
                emit(&report::batch(batch, &measured, &peaks))?;
            }
            all.push((batch, measured));
        }
        let verdict = report::verdict(&all, &self.devices);
        if self.args.json {
            return emit_json(&report::json(self, &peaks, &all, &verdict));
        }
        emit(&format!("\n{verdict}\n"))
    }

    /// The network on every device, its first step taken and compared with the CPU twins'.
    fn ready(&self, batch: usize) -> Outcome<Vec<(Rig, Difference)>> {
        let options = Options { batch, ..self.options.clone() };
        let mut rigs: Vec<Rig> = self
            .devices
            .iter()
            .map(|device| Rig::new(device, &self.network, &options, &self.images))
            .collect::<Outcome<_>>()?;
        let cpu = device::choose("cpu")?;
        let mut reference = Rig::new(&cpu, &self.network, &options, &self.images)?;
        let want = block_on(check::trace(&mut reference.session))?;
        let mut differences = Vec::new();
        for rig in &mut rigs {
            let got = block_on(check::trace(&mut rig.session))?;
            let compared = check::compare(&rig.session.device(), &got, &want);
            differences
                .push(compared.map_err(|error| Failure::device(format!("{error}; no time was taken")))?);
        }
        Ok(rigs.into_iter().zip(differences).collect())
    }

    /// Steps and evaluations of all devices in turns, then every launch of each.
    fn measure(&self, ready: Vec<(Rig, Difference)>, peaks: &[Peak]) -> Outcome<Vec<Measured>> {
        let (mut rigs, differences): (Vec<Rig>, Vec<Difference>) = ready.into_iter().unzip();
        let mut in_turns = |phase| {
            let mut jobs: Vec<Job<'_>> = rigs
                .iter_mut()
                .map(|rig| Box::new(move |repetitions| rig.run(phase, repetitions)) as Job<'_>)
                .collect();
            in_turns(&mut jobs, self.args.seconds)
        };
        let (train, evaluate) = (in_turns(Phase::Train)?, in_turns(Phase::Evaluate)?);
        let mut all = Vec::new();
        for ((((mut rig, difference), train), evaluate), peak) in
            rigs.into_iter().zip(differences).zip(train).zip(evaluate).zip(peaks)
        {
            let (samples, method) = roofline::launches(&mut rig, peak, self.args.seconds)?;
            all.push(Measured {
                device: rig.session.device(),
                difference,
                first_step: rig.first_step.as_secs_f64(),
                bytes: rig.session.plan().program.bytes(),
                turns: train.0.clone(),
                train: Samples::new(train.0, train.1),
                evaluate: Samples::new(evaluate.0, evaluate.1),
                method,
                launches: rig.session.plan().program.train.iter().cloned().zip(samples).collect(),
            });
        }
        Ok(all)
    }
}
