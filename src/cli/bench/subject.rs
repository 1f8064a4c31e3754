//! What is measured, on what, and the measurement of its steps: results are checked before anything is timed.

use lenet::Network;
use lenet::check::{self, Difference, Reference};
use lenet::kernels::Launch;
use lenet::plan::{Options, Phase};
use pollster::block_on;

use super::args::Args;
use super::roofline;
use crate::cli::device::Chosen;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::measure::{Images, Job, Peak, Rig, Samples, in_turns};

/// What is measured, and on what.
pub struct Bench<'a> {
    pub args: &'a Args,
    pub network: Network,
    pub options: Options,
    pub images: Images,
    pub devices: Vec<Chosen>,
}

/// What was measured on a device at one batch size.
pub struct Measured {
    pub device: String,
    pub difference: Difference,
    pub first_step: f64,
    pub bytes: u64,
    /// Samples of a step in the order in which they were taken, in turns with the other devices.
    pub turns: Vec<f64>,
    pub train: Samples,
    pub evaluate: Samples,
    pub launches: Vec<(Launch, Samples)>,
    /// How the launches were timed.
    pub method: &'static str,
}

impl Bench<'_> {
    /// The network on every device, its first step taken and compared with the CPU twins'.
    pub fn ready(&self, batch: usize) -> Outcome<Vec<(Rig, Difference)>> {
        let options = Options { batch, ..self.options.clone() };
        let mut rigs: Vec<Rig> = self
            .devices
            .iter()
            .map(|device| Rig::new(device, &self.network, &options, &self.images))
            .collect::<Outcome<_>>()?;
        let mut differences = Vec::new();
        for rig in &mut rigs {
            let parameters = block_on(rig.session.parameters())?;
            let got = block_on(check::trace(&mut rig.session))?;
            let plan = rig.session.plan();
            let reference = Reference::new(&plan.network, &plan.options, &self.images.train, parameters);
            let compared = block_on(async { reference.await?.compare(&rig.session.device(), &got).await });
            differences
                .push(compared.map_err(|error| Failure::device(format!("{error}; no time was taken")))?);
        }
        Ok(rigs.into_iter().zip(differences).collect())
    }

    /// Steps and evaluations of all devices in turns, then every launch of each.
    pub fn measure(&self, ready: Vec<(Rig, Difference)>, peaks: &[Peak]) -> Outcome<Vec<Measured>> {
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
