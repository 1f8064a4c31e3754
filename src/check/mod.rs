//! Whether a device computes what the CPU twins compute: without that, neither its results nor its time mean
//! anything.
//!
//! [`cases`] are launches of every entry point of every shader, each to be judged by itself; [`against_cpu`] compares
//! a whole training step of a network; [`survives_loss`] loses a device and looks at what its backend says.

mod cases;
mod kernels;
mod lost;

use serde::Serialize;

use crate::backend::{Backend, gpu};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::kernels::loss::RECORD;
use crate::kernels::{Range, Step};
use crate::network::Network;
use crate::plan::{Options, Phase, Plan, to_rows};
use crate::session::Session;

pub use cases::{cases, shaders};
pub use kernels::{Case, Verdict};
pub use lost::survives_loss;

/// How far apart two devices may be, as `√(Σ (a − b)² / Σ b²)`: rounding in another order stays two orders of
/// magnitude below, a term left out comes out far above.
const LOGITS: f64 = 1e-4;
/// The same for each tensor's gradient, where a ReLU or a maximum may fall the other way by rounding.
const GRADIENTS: f64 = 2e-3;
/// The same for the loss.
const LOSS: f64 = 1e-4;

/// Steps of the CPU with weights that are a last bit off, which show how far rounding alone goes.
const NUDGES: u32 = 3;
/// How much further than in those a device may be, since few of them are seen.
const WIDER: f64 = 4.0;
/// What is never put down to rounding: the size of a tensor itself is 1.
const MOST: f64 = 0.25;

/// What one training step leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    loss: f32,
    logits: Vec<f32>,
    gradients: Vec<(String, Vec<f32>)>,
}

/// How far a device is from the CPU twins, as `√(Σ (a − b)² / Σ b²)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Of the batch's summed loss.
    pub loss: f64,
    /// Of the logits.
    pub logits: f64,
    /// Of that tensor's gradient which differs most.
    pub gradients: f64,
    /// Its name.
    pub tensor: String,
    /// What is allowed of each.
    pub allowed: Allowed,
}

/// Differences that rounding explains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Allowed {
    /// Of the loss.
    pub loss: f64,
    /// Of the logits.
    pub logits: f64,
    /// Of a tensor's gradient.
    pub gradients: f64,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if (self.loss, self.logits, self.gradients) == (0.0, 0.0, 0.0) {
            return f.write_str("the same bits");
        }
        write!(
            f,
            "loss {:.0e}, logits {:.0e}, gradients {:.0e} apart",
            self.loss, self.logits, self.gradients
        )
    }
}

/// One training step with the first batch of the session's training data, in its order, and its weights as they are;
/// they stay, but the optimizer's moments and the running statistics move.
///
/// # Errors
/// What the device reports.
pub async fn trace(session: &mut Session) -> Result<Trace> {
    let Options { batch, optimizer, train_images, .. } = session.plan().options;
    let batch = batch.min(train_images);
    let (correction1, correction2) = optimizer.corrections(1);
    let step = Step { count: batch as u32, correction1, correction2, ..Step::default() };
    session.queue(Phase::Train, &mut [step])?;
    let plan = session.plan();
    let (metrics, logits, gradients, outputs) = (plan.metrics, plan.logits, plan.gradients, plan.outputs());
    let metrics = session.read(Range { len: RECORD, ..metrics }).await?;
    let logits = to_rows(&session.read(logits).await?, outputs, batch);
    let flat = session.read(gradients).await?;
    let named = session.plan().split_gradients(&flat);
    let gradients = named.map(|(parameter, values)| (parameter.name.clone(), values.to_vec())).collect();
    Ok(Trace { loss: metrics[0], logits, gradients })
}

/// The CPU's training step, for those of devices to be held against.
///
/// Where a device is further away than rounding usually takes it, the CPU's step is repeated with weights that are a
/// last bit off: with normalisations of nearly constant channels before a ReLU, that alone moves a gradient by several
/// percent, and the device is allowed a few times as much.
pub struct Reference {
    network: Network,
    options: Options,
    data: Dataset,
    parameters: Vec<f32>,
    want: Trace,
}

impl Reference {
    /// The step of a network with flat `parameters` as [`Session::parameters`] gives them, on the first batch of
    /// `data`; `options` are those of the device's plan.
    ///
    /// # Errors
    /// As [`Plan::new`], and [`Error::Network`] when the data is not what the network takes.
    pub async fn new(
        network: &Network,
        options: &Options,
        data: &Dataset,
        parameters: Vec<f32>,
    ) -> Result<Reference> {
        let data = data.first(options.batch);
        let options = Options { train_images: data.len(), eval_images: 1, stream: None, ..options.clone() };
        let want = step(network, &options, None, &data, &parameters).await?;
        Ok(Reference { network: network.clone(), options, data, parameters, want })
    }

    /// Whether a device's step is this one.
    ///
    /// # Errors
    /// [`Error::Device`], which says what differs by how much.
    pub async fn compare(&self, device: &str, got: &Trace) -> Result<Difference> {
        let usual = judge(device, got, &self.want, &[]);
        if usual.is_ok() {
            return usual;
        }
        let mut nudged = Vec::new();
        for seed in 1..=NUDGES {
            let parameters = nudge(&self.parameters, seed);
            nudged.push(step(&self.network, &self.options, None, &self.data, &parameters).await?);
        }
        judge(device, got, &self.want, &nudged)
    }
}

/// A step on a device, or on the CPU, in a session made for this alone.
async fn step(
    network: &Network,
    options: &Options,
    device: Option<&gpu::Device>,
    data: &Dataset,
    parameters: &[f32],
) -> Result<Trace> {
    let plan = Plan::new(network, options)?;
    let backend = match device {
        Some(device) => Backend::gpu(device, &plan.program).await?,
        None => Backend::cpu(&plan.program),
    };
    let range = plan.parameters;
    let mut session = Session::new(plan, backend);
    session.set_training(data)?;
    session.backend().write(range, bytemuck::cast_slice(parameters))?;
    trace(&mut session).await
}

/// Compares a GPU with the CPU twins over one training step of a network with the given flat parameters, on the first
/// batch of `data`, in sessions made for this alone.
///
/// # Errors
/// As [`Reference::compare`], [`Plan::new`] and [`Backend::gpu`].
pub async fn against_cpu(
    device: &gpu::Device,
    network: &Network,
    options: &Options,
    data: &Dataset,
    parameters: &[f32],
) -> Result<Difference> {
    let reference = Reference::new(network, options, data, parameters.to_vec()).await?;
    let Reference { options, data, .. } = &reference;
    let got = step(network, options, Some(device), data, parameters).await?;
    reference.compare(device.name(), &got).await
}

/// Every value with its last bit moved up or down at random.
fn nudge(values: &[f32], seed: u32) -> Vec<f32> {
    let mut state = seed;
    let nudged = values.iter().map(|&value| {
        // Numerical Recipes' generator, of which the highest bit is the best.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { value.next_up() } else { value.next_down() }
    });
    // A zero stays one: it may be a filter that is not connected.
    nudged.zip(values).map(|(nudged, &value)| if value == 0.0 { value } else { nudged }).collect()
}

fn distance(got: &[f32], want: &[f32]) -> f64 {
    let (mut error, mut size) = (0.0, 0.0);
    for (&got, &want) in got.iter().zip(want) {
        error += (f64::from(got) - f64::from(want)).powi(2);
        size += f64::from(want).powi(2);
    }
    // Two tensors of zeros agree; a length that differs never does.
    if got.len() != want.len() {
        f64::INFINITY
    } else if error == 0.0 {
        0.0
    } else {
        (error / size).sqrt()
    }
}

/// How far `got` is from `want`, where rounding was seen to bring forth `nudged` instead.
fn judge(device: &str, got: &Trace, want: &Trace, nudged: &[Trace]) -> Result<Difference> {
    let allowed = |usual: f64, seen: &dyn Fn(&Trace) -> f64| {
        let seen = nudged.iter().map(seen).fold(0.0, f64::max);
        usual.max((WIDER * seen).min(MOST))
    };
    let losses = allowed(LOSS, &|nudged| distance(&[nudged.loss], &[want.loss]));
    let logits = allowed(LOGITS, &|nudged| distance(&nudged.logits, &want.logits));
    let mut worst = Difference {
        loss: distance(&[got.loss], &[want.loss]),
        logits: distance(&got.logits, &want.logits),
        gradients: 0.0,
        tensor: String::new(),
        allowed: Allowed { loss: losses, logits, gradients: GRADIENTS },
    };
    for (i, ((name, got), (_, want))) in got.gradients.iter().zip(&want.gradients).enumerate() {
        let found = distance(got, want);
        let most = allowed(GRADIENTS, &|nudged| distance(&nudged.gradients[i].1, want));
        if worst.tensor.is_empty()
            || found / most > worst.gradients / worst.allowed.gradients
            || found.is_nan()
        {
            (worst.gradients, worst.allowed.gradients) = (found, most);
            worst.tensor.clone_from(name);
        }
    }
    let parts = [
        ("the loss".to_string(), worst.loss, worst.allowed.loss),
        ("the logits".into(), worst.logits, worst.allowed.logits),
        (format!("the gradient of {}", worst.tensor), worst.gradients, worst.allowed.gradients),
    ];
    let told: Vec<String> = parts
        .into_iter()
        // NaN is further than anything.
        .filter(|(_, found, allowed)| found.is_nan() || found > allowed)
        .map(|(what, found, allowed)| {
            format!("{what} of a training step differs by {found:.1e} of its size, allowed {allowed:.0e}")
        })
        .collect();
    if !told.is_empty() {
        let told = told.join("; ");
        return Err(Error::Device(format!("{device} computes something else than the CPU: {told}")));
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(loss: f32, logit: f32, gradient: f32) -> Trace {
        Trace {
            loss,
            logits: vec![logit, -2.0],
            gradients: vec![("w".into(), vec![gradient, 1.0]), ("b".into(), vec![0.0])],
        }
    }

    #[test]
    fn a_nudge_is_a_last_bit() {
        let values = [1.0, -0.5, 0.0, 3e-5].repeat(16);
        let (one, other) = (nudge(&values, 1), nudge(&values, 2));
        let bits = |a: f32, b: f32| a.to_bits().abs_diff(b.to_bits());
        assert!(one.iter().zip(&values).all(|(&a, &b)| bits(a, b) == u32::from(b != 0.0)), "{one:?}");
        assert!(one != other && one == nudge(&values, 1));
    }

    fn compare(got: &Trace, want: &Trace) -> Result<Difference> {
        judge("it", got, want, &[])
    }

    #[test]
    fn rounding_is_allowed_and_mistakes_are_found() {
        let want = one(2.3, 1.0, 0.5);
        assert!(compare(&one(2.300_001, 1.000_001, 0.500_01), &want).is_ok());
        for (wrong, says) in [
            (one(2.31, 1.0, 0.5), "the loss"),
            (one(2.3, 1.01, 0.5), "the logits"),
            (one(2.3, 1.0, 0.51), "the gradient of w"),
            (one(f32::NAN, 1.0, 0.5), "the loss"),
            (one(2.3, 1.0, f32::NAN), "the gradient of w"),
        ] {
            let failure = compare(&wrong, &want).err().unwrap();
            assert!(failure.to_string().contains(says), "{failure}");
        }
        // What rounding was seen to do is allowed, a few times as much of it, but never all.
        let seen = [one(2.3, 1.0, 0.51)];
        assert!(judge("it", &one(2.3, 1.0, 0.52), &want, &seen).is_ok());
        assert!(judge("it", &one(2.3, 1.0, 0.6), &want, &seen).is_err());
        assert!(judge("it", &one(2.3, 1.01, 0.5), &want, &seen).is_err());
        assert!(judge("it", &one(2.3, 1.0, -0.5), &want, &[one(2.3, 1.0, 0.9)]).is_err());
        let mut stray = one(2.3, 1.0, 0.5);
        stray.gradients[1].1[0] = 1e-9;
        assert!(compare(&stray, &want).err().unwrap().to_string().contains("gradient of b"));
    }
}
