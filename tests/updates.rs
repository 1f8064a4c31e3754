//! What a training step does to the parameters: clipped gradients against the formula in f64, frozen tensors.

mod common;

use common::{Random, Tolerance, Worst};
use lenet::backend::Backend;
use lenet::kernels::loss::RECORD;
use lenet::kernels::optimizer::{GRADIENT_NOT_FINITE, Optimizer, Rule};
use lenet::kernels::{Range, Step};
use lenet::network::Network;
use lenet::plan::{Options, Phase, Plan};
use pollster::block_on;

const IMAGES: usize = 48;

fn options(rule: Rule) -> Options {
    Options { batch: IMAGES, optimizer: Optimizer::new(rule), train_images: IMAGES, ..Options::default() }
}

fn plan(options: &Options) -> Plan {
    Plan::new(&Network::preset("lenet5").expect("a preset"), options).expect("a plan")
}

/// The parameters after `steps` steps on noise, the last gradients, and the last record.
fn train(plan: &Plan, steps: u64, learning_rate: f32) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
    let mut backend = Backend::cpu(&plan.program);
    let mut random = Random(5);
    let pixels: Vec<u32> = (0..plan.train_data.images.len).map(|_| random.bits() as u32).collect();
    // Four labels a word.
    let labels: Vec<u32> = (0..IMAGES.div_ceil(4))
        .map(|_| u32::from_le_bytes(std::array::from_fn(|_| random.index(10) as u8)))
        .collect();
    backend.write(plan.train_data.images, &pixels).expect("room");
    backend.write(plan.train_data.labels, &labels).expect("room");
    backend.write(plan.parameters, bytemuck::cast_slice(&initial(plan))).expect("room");
    for time in 1..=steps {
        let (correction1, correction2) = plan.options.optimizer.corrections(time);
        let step = Step { count: IMAGES as u32, learning_rate, correction1, correction2, ..Step::default() };
        backend.run(Phase::Train, &[step]).expect("a step");
    }
    let mut read = |range| block_on(backend.read(range)).expect("a range");
    let (parameters, gradients) = (read(plan.parameters), read(plan.gradients));
    let record = read(Range { len: RECORD, ..plan.metrics });
    (bytemuck::cast_vec(parameters), bytemuck::cast_vec(gradients), record)
}

fn initial(plan: &Plan) -> Vec<f32> {
    let values = plan.network.initial(3).expect("initial parameters");
    plan.join(values.iter().map(Vec::as_slice)).expect("parameters that fit")
}

#[test]
fn clipping_is_one_launch_more() {
    for rule in Rule::ALL {
        let clipped = Options { clip: Some(1.0), ..options(rule) };
        assert_eq!((plan(&options(rule)).program.train.len(), plan(&clipped).program.train.len()), (12, 13));
    }
    for norm in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let refused = Plan::new(
            &Network::preset("lenet5").expect("a preset"),
            &Options { clip: Some(norm), ..options(Rule::Sgd) },
        );
        assert!(refused.unwrap_err().to_string().contains("clip is"), "{norm}");
    }
}

#[test]
fn clipped_steps_follow_the_formula() {
    let optimizer = Optimizer { weight_decay: 0.01, l1: 0.001, ..Optimizer::new(Rule::Sgd) };
    let freeze = vec!["fc2.*".to_string()];
    for clip in [0.02, 0.1, 1e6] {
        let rate = 0.25;
        let options = Options { optimizer, clip: Some(clip), freeze: freeze.clone(), ..options(Rule::Sgd) };
        let clipped = plan(&options);
        let (after, gradients, record) = train(&clipped, 1, rate);
        assert_eq!(record[3], 0);
        let free = plan(&Options { clip: None, ..options });
        let (_, same, _) = train(&free, 1, rate);
        let before = initial(&clipped);
        let length: f64 = clipped
            .tensors
            .iter()
            .filter(|tensor| tensor.trainable)
            .flat_map(|tensor| &gradients[tensor.gradient..][..tensor.len()])
            .map(|&g| f64::from(g).powi(2))
            .sum::<f64>()
            .sqrt();
        let scale = (f64::from(clip) / (length + 1e-6)).min(1.0);
        // Both sides of the minimum are met.
        assert_eq!(scale < 1.0, clip < 1.0, "the norm is {length}");
        let mut worst = Worst::default();
        for tensor in &clipped.tensors {
            let name = &tensor.parameter.name;
            // What the host reads is the whole gradient, before it is clipped.
            let part = tensor.gradient..tensor.gradient + tensor.len();
            assert_eq!(gradients[part.clone()], same[part.clone()], "{name}");
            let want: Vec<f64> = before[tensor.offset..][..tensor.len()]
                .iter()
                .zip(&gradients[part])
                .map(|(&p, &g)| {
                    let p = f64::from(p);
                    let g = scale * f64::from(g) + 0.01 * p + 0.001 * p.signum();
                    if tensor.trainable { p - f64::from(rate) * g } else { p }
                })
                .collect();
            let tolerance = Tolerance { absolute: 2e-7, relative: 2e-6 };
            worst.close(name, &after[tensor.offset..][..tensor.len()], &want, tolerance);
        }
        worst.report(&format!("clipped to {clip}"));
    }
}

#[test]
fn a_gradient_too_long_to_measure_changes_nothing_and_is_flagged() {
    // Its squares overflow, though it does not.
    let mut network = Network::preset("lenet5").expect("a preset");
    network.input.deviation = 1e-22;
    let options = Options { clip: Some(1.0), ..options(Rule::Adam) };
    let plan = Plan::new(&network, &options).expect("a plan");
    let (after, gradients, record) = train(&plan, 1, 0.1);
    assert!(gradients.iter().all(|g| g.is_finite()) && gradients.iter().any(|g| g.abs() > 1e19));
    assert_eq!(record[3], GRADIENT_NOT_FINITE);
    assert_eq!(after, initial(&plan));
}

#[test]
fn frozen_weights_keep_their_bits_under_every_rule() {
    for rule in Rule::ALL {
        for clip in [None, Some(0.05)] {
            let optimizer = Optimizer { weight_decay: 0.1, l1: 0.01, momentum: 0.5, ..Optimizer::new(rule) };
            let freeze = vec!["conv*".to_string(), "fc2.weight".into(), "fc3.bias".into()];
            let plan = plan(&Options { optimizer, clip, freeze, ..options(rule) });
            let (after, ..) = train(&plan, 3, 0.01);
            let before = initial(&plan);
            for tensor in &plan.tensors {
                let name = &tensor.parameter.name;
                let part = tensor.offset..tensor.offset + tensor.len();
                let moved = (before[part.clone()].iter().zip(&after[part]))
                    .filter(|(before, after)| before.to_bits() != after.to_bits())
                    .count();
                let frozen =
                    name.starts_with("conv") || name.as_str() == "fc2.weight" || name.as_str() == "fc3.bias";
                assert_eq!(tensor.trainable, !frozen, "{name}");
                // Penalties move every weight that is not frozen, and gradients many biases.
                let enough = if name.ends_with("weight") { tensor.len() * 9 / 10 } else { 1 };
                assert!(
                    if frozen { moved == 0 } else { moved >= enough },
                    "{}: {moved} of {name} moved",
                    rule.name()
                );
            }
        }
    }
}
