//! Whether a device computes what the CPU twins compute: without that, its time means nothing.

use lenet::Network;
use lenet::kernels::loss::RECORD;
use lenet::kernels::{Range, Step};
use lenet::plan::{Options, Phase, to_rows};
use pollster::block_on;
use serde_json::{Value, json};

use super::measure::{Images, Rig};
use crate::cli::{Failure, Outcome, device};

/// How far apart two devices may be, as `√(Σ (a − b)² / Σ b²)`: rounding in another order stays two orders of
/// magnitude below, a term left out comes out far above.
const LOGITS: f64 = 1e-4;
/// The same for each tensor's gradient, where a ReLU or a maximum may fall the other way by rounding.
const GRADIENTS: f64 = 2e-3;
/// The same for the loss.
const LOSS: f64 = 1e-4;

/// What one training step leaves behind.
pub struct Step1 {
    loss: f32,
    logits: Vec<f32>,
    gradients: Vec<(String, Vec<f32>)>,
}

/// How far a device is from the CPU twins.
pub struct Difference {
    loss: f64,
    logits: f64,
    gradients: f64,
    /// The tensor whose gradient differs most.
    tensor: String,
}

impl Difference {
    pub fn json(&self) -> Value {
        json!({
            "loss": self.loss,
            "logits": self.logits,
            "gradients": self.gradients,
            "tensor": self.tensor,
            "allowed": { "loss": LOSS, "logits": LOGITS, "gradients": GRADIENTS },
        })
    }

    pub fn text(&self) -> String {
        if (self.loss, self.logits, self.gradients) == (0.0, 0.0, 0.0) {
            return "the same bits".into();
        }
        format!("loss {:.0e}, logits {:.0e}, gradients {:.0e} apart", self.loss, self.logits, self.gradients)
    }
}

/// One training step from fresh weights with the data's first batch.
pub fn step(rig: &mut Rig) -> Outcome<Step1> {
    let batch = rig.session.plan().options.batch;
    let (correction1, correction2) = rig.session.plan().options.optimizer.corrections(1);
    let step = Step { count: batch as u32, correction1, correction2, ..Step::default() };
    rig.session.backend().run(Phase::Train, &[step])?;
    let plan = rig.session.plan();
    let (metrics, logits, gradients, outputs) = (plan.metrics, plan.logits, plan.gradients, plan.outputs());
    let metrics = block_on(rig.session.read(Range { len: RECORD, ..metrics }))?;
    let logits = to_rows(&block_on(rig.session.read(logits))?, outputs, batch);
    let flat = block_on(rig.session.read(gradients))?;
    let named = rig.session.plan().split_gradients(&flat);
    let gradients = named.map(|(parameter, values)| (parameter.name.clone(), values.to_vec())).collect();
    Ok(Step1 { loss: metrics[0], logits, gradients })
}

/// What the CPU twins compute.
pub fn reference(network: &Network, options: &Options, images: &Images) -> Outcome<Step1> {
    step(&mut Rig::new(&device::choose("cpu")?, network, options, images)?)
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
/// An error when it is further than rounding explains.
pub fn compare(device: &str, got: &Step1, want: &Step1) -> Outcome<Difference> {
    let mut worst = Difference {
        loss: distance(&[got.loss], &[want.loss]),
        logits: distance(&got.logits, &want.logits),
        gradients: 0.0,
        tensor: String::new(),
    };
    for ((name, got), (_, want)) in got.gradients.iter().zip(&want.gradients) {
        let distance = distance(got, want);
        if worst.tensor.is_empty() || distance > worst.gradients || distance.is_nan() {
            (worst.gradients, worst.tensor) = (distance, name.clone());
        }
    }
    for (what, found, allowed) in [
        ("the loss".to_string(), worst.loss, LOSS),
        ("the logits".into(), worst.logits, LOGITS),
        (format!("the gradient of {}", worst.tensor), worst.gradients, GRADIENTS),
    ] {
        // NaN is further than anything.
        if found.is_nan() || found > allowed {
            return Err(Failure::device(format!(
                "{device} computes something else than the CPU: {what} of a training step differs by {found:.1e} \
                 of its size, allowed {allowed:.0e}; no time was taken"
            )));
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(loss: f32, logit: f32, gradient: f32) -> Step1 {
        Step1 {
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
            assert!(failure.message.contains(says), "{failure}");
        }
        let mut stray = one(2.3, 1.0, 0.5);
        stray.gradients[1].1[0] = 1e-9;
        assert!(compare("it", &stray, &want).err().unwrap().message.contains("gradient of b"));
    }
}
