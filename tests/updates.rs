//! What a training step does to the parameters: clipped gradients against the formula in f64, frozen tensors, running
//! statistics; and what is left of a step that is not finite.

mod common;

use common::{Random, Tolerance, Worst};
use lenet::backend::Backend;
use lenet::data::Dataset;
use lenet::error::Error;
use lenet::kernels::loss::RECORD;
use lenet::kernels::optimizer::{Fault, Kind, Optimizer, Rule};
use lenet::kernels::{Range, Step};
use lenet::network::Network;
use lenet::plan::{Options, Phase, Plan};
use lenet::session::Session;
use lenet::train::{Advance, Schedule, Settings, Trainer};
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
    assert_eq!(Fault::of(record[3]).map(|fault| fault.kind), Some(Kind::Norm));
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

#[test]
fn running_statistics_take_their_share_of_the_batch() {
    for clip in [None, Some(0.05)] {
        let network = Network::preset("lenet5-bn").expect("a preset");
        let plan = Plan::new(&network, &Options { clip, ..options(Rule::Momentum) }).expect("a plan");
        let (after, gradients, record) = train(&plan, 1, 0.1);
        assert_eq!(record[3], 0);
        let before = initial(&plan);
        let mut seen = 0;
        for tensor in plan.tensors.iter().filter(|tensor| tensor.share.is_some()) {
            let of = |flat: &[f32], at: usize| flat[at..][..tensor.len()].to_vec();
            let (old, batch) = (of(&before, tensor.offset), of(&gradients, tensor.gradient));
            let want: Vec<f64> = old
                .iter()
                .zip(&batch)
                .map(|(&old, &new)| 0.9 * f64::from(old) + 0.1 * f64::from(new))
                .collect();
            let mut worst = Worst::default();
            let tolerance = Tolerance { absolute: 1e-7, relative: 1e-6 };
            worst.close(&tensor.parameter.name, &of(&after, tensor.offset), &want, tolerance);
            worst.report("running statistics");
            assert!(batch.iter().any(|&value| value != 0.0), "{}", tensor.parameter.name);
            seen += 1;
        }
        assert!(seen >= 4, "{seen}");
    }
}

/// Parameters and moments after `steps` steps at a rate that overflows, as bits, and the error if there was one.
fn diverge(
    on_gpu: Option<&lenet::backend::gpu::Device>,
    (preset, learning_rate): (&str, f32),
    steps: u64,
    data: &Dataset,
) -> (Vec<u32>, Option<Error>) {
    let settings = Settings {
        batch: 16,
        learning_rate,
        epochs: 20,
        schedule: Schedule::Constant,
        optimizer: Optimizer::new(Rule::Adam),
        ..Settings::default()
    };
    let network = Network::preset(preset).expect("a preset");
    let plan = Plan::new(&network, &Trainer::options(&settings, data, data)).expect("a plan");
    let parts = [plan.parameters, plan.moment1, plan.moment2];
    let backend = match on_gpu {
        Some(device) => block_on(Backend::gpu(device, &plan.program)).expect("a plan on the device"),
        None => Backend::cpu(&plan.program),
    };
    let mut trainer = Trainer::new(Session::new(plan, backend), settings, data, data).expect("a trainer");
    let (mut queued, mut error) = (0, None);
    while queued < steps && error.is_none() {
        // Several steps to a submission: those behind the one that fails are under way when it is told.
        match trainer.advance((steps - queued).min(7) as usize).expect("a device that works") {
            Advance::Queued(some) => queued += some as u64,
            Advance::Done => panic!("{preset} learns at a rate of {learning_rate:e}"),
            _ => error = block_on(trainer.event()).err(),
        }
    }
    while error.is_none() && trainer.in_flight() > 0 {
        error = block_on(trainer.event()).err();
    }
    let state = parts.iter().flat_map(|&part| block_on(trainer.session().read(part)).expect("a range"));
    (state.map(f32::to_bits).collect(), error)
}

#[test]
fn a_step_that_is_not_finite_leaves_what_it_found() {
    let mut random = Random(11);
    let images = (0..IMAGES * 784).map(|_| random.index(256) as u8).collect();
    let labels = (0..IMAGES).map(|_| random.index(10) as u8).collect();
    let data = Dataset::new("noise", [1, 28, 28], 10, images, labels).expect("a data set");
    let device = common::gpu();
    // Moments overflow in the first; the second has running statistics, and is at once far from any number.
    for (run, names) in [
        (("lenet5", 1e5), ["a moment of "].as_slice()),
        (("lenet5-bn", 1e25), ["the loss", "the gradient of "].as_slice()),
    ] {
        for on_gpu in [None, device.as_ref()] {
            let (after, error) = diverge(on_gpu, run, 40, &data);
            let Some(Error::NotFinite { step, what }) = error else { panic!("{error:?}") };
            assert!(step > 1 && names.iter().any(|name| what.starts_with(name)), "step {step}: {what}");
            let (before, error) = diverge(on_gpu, run, step - 1, &data);
            assert!(error.is_none(), "{error:?}");
            assert!(after == before, "step {step} left something of its own");
            assert!(after.iter().all(|&bits| f32::from_bits(bits).is_finite()));
            if device.is_none() {
                break;
            }
        }
    }
}

#[test]
fn what_overflows_between_the_layers_stops_the_run() {
    let device = common::gpu();
    for fuse in [true, false] {
        let mut network = Network::preset("lenet5").expect("a preset");
        // Every pixel is 1.
        network.input.mean = -1.0;
        let plan = Plan::new(&network, &Options { fuse, ..options(Rule::Sgd) }).expect("a plan");
        let mut values = initial(&plan);
        let mut set = |name: &str, at: usize, value: f32| {
            let tensor = plan.tensors.iter().find(|tensor| tensor.parameter.name == name);
            values[tensor.expect("a tensor of LeNet-5").offset + at] = value;
        };
        // Two channels are infinite; everything in the next layer is the difference of the two, which is no number.
        for channel in 0..2 {
            set("conv1.bias", channel, 3e38);
            (0..25).for_each(|tap| set("conv1.weight", 25 * channel + tap, 1e38));
            for output in 0..16 {
                let start = (6 * output + channel) * 25;
                (start..start + 25).for_each(|at| set("conv2.weight", at, [1.0, -1.0][channel]));
            }
        }
        let pixels = vec![0; plan.train_data.images.len];
        for on_gpu in [None, device.as_ref()] {
            let mut backend = match on_gpu {
                Some(device) => block_on(Backend::gpu(device, &plan.program)).expect("a plan on the device"),
                None => Backend::cpu(&plan.program),
            };
            backend.write(plan.train_data.images, &pixels).expect("room");
            backend.write(plan.parameters, bytemuck::cast_slice(&values)).expect("room");
            let step = Step { count: IMAGES as u32, learning_rate: 0.1, time: 1, ..Step::default() };
            backend.run(Phase::Train, &[step]).expect("a step");
            let mut read = |range| block_on(backend.read(range)).expect("a range");
            let record = read(Range { len: RECORD, ..plan.metrics });
            assert_eq!(Fault::of(record[3]).map(|fault| fault.kind), Some(Kind::Loss), "fused: {fuse}");
            if device.is_none() {
                break;
            }
        }
    }
}
