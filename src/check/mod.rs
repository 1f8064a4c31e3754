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

/// One training step with the first batch of the session's training data and its weights as they are; they stay, but
/// the optimizer's moments move.
///
/// # Errors
/// What the device reports.
pub async fn trace(session: &mut Session) -> Result<Trace> {
    let Options { batch, optimizer, train_images, .. } = session.plan().options;
    let batch = batch.min(train_images);
    let (correction1, correction2) = optimizer.corrections(1);
    let step = Step { count: batch as u32, correction1, correction2, ..Step::default() };
    session.backend().run(Phase::Train, &[step])?;
    let plan = session.plan();
    let (metrics, logits, gradients, outputs) = (plan.metrics, plan.logits, plan.gradients, plan.outputs());
    let metrics = session.read(Range { len: RECORD, ..metrics }).await?;
    let logits = to_rows(&session.read(logits).await?, outputs, batch);
    let flat = session.read(gradients).await?;
    let named = session.plan().split_gradients(&flat);
    let gradients = named.map(|(parameter, values)| (parameter.name.clone(), values.to_vec())).collect();
    Ok(Trace { loss: metrics[0], logits, gradients })
}

/// Compares a GPU with the CPU twins over one training step of a network with the given flat parameters, on the first
/// batch of `data`, in sessions made for this alone.
///
/// # Errors
/// As [`compare`], [`Plan::new`] and [`Backend::gpu`].
pub async fn against_cpu(
    device: &gpu::Device,
    network: &Network,
    options: &Options,
    data: &Dataset,
    parameters: &[f32],
) -> Result<Difference> {
    let mut traces = Vec::with_capacity(2);
    for on_gpu in [true, false] {
        let plan = Plan::new(network, &Options { train_images: data.len(), ..options.clone() })?;
        let backend = match on_gpu {
            true => Backend::gpu(device, &plan.program).await?,
            false => Backend::cpu(&plan.program),
        };
        let range = plan.parameters;
        let mut session = Session::new(plan, backend);
        session.set_training(data)?;
        session.backend().write(range, bytemuck::cast_slice(parameters))?;
        traces.push(trace(&mut session).await?);
    }
    compare(device.name(), &traces[0], &traces[1])
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

/// How far `got` is from `want`.
///
/// # Errors
/// [`Error::Device`] when it is further than rounding explains.
pub fn compare(device: &str, got: &Trace, want: &Trace) -> Result<Difference> {
    let mut worst = Difference {
        loss: distance(&[got.loss], &[want.loss]),
        logits: distance(&got.logits, &want.logits),
        gradients: 0.0,
        tensor: String::new(),
        allowed: Allowed { loss: LOSS, logits: LOGITS, gradients: GRADIENTS },
    };
    for ((name, got), (_, want)) in got.gradients.iter().zip(&want.gradients) {
        let distance = distance(got, want);
        if worst.tensor.is_empty() || distance > worst.gradients || distance.is_nan() {
            (worst.gradients, worst.tensor) = (distance, name.clone());
        }
    }
    let parts = [
        ("the loss".to_string(), worst.loss, LOSS),
        ("the logits".into(), worst.logits, LOGITS),
        (format!("the gradient of {}", worst.tensor), worst.gradients, GRADIENTS),
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
    fn rounding_is_allowed_and_mistakes_are_found() {
        let want = one(2.3, 1.0, 0.5);
        assert!(compare("it", &one(2.300_001, 1.000_001, 0.500_01), &want).is_ok());
        for (wrong, says) in [
            (one(2.31, 1.0, 0.5), "the loss"),
            (one(2.3, 1.01, 0.5), "the logits"),
            (one(2.3, 1.0, 0.51), "the gradient of w"),
            (one(f32::NAN, 1.0, 0.5), "the loss"),
            (one(2.3, 1.0, f32::NAN), "the gradient of w"),
        ] {
            let failure = compare("it", &wrong, &want).err().unwrap();
            assert!(failure.to_string().contains(says), "{failure}");
        }
        let mut stray = one(2.3, 1.0, 0.5);
        stray.gradients[1].1[0] = 1e-9;
        assert!(compare("it", &stray, &want).err().unwrap().to_string().contains("gradient of b"));
    }
}
