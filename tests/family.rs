//! Every preset learns: its loss falls on the data it is made for. And a step of the deeper ones is the same on the
//! GPU and on the CPU.
#![cfg(feature = "mnist")]

mod common;

use lenet::backend::{Backend, gpu};
use lenet::data::{self, Dataset, Split};
use lenet::kernels::Step;
use lenet::network::Network;
use lenet::plan::{Options, Phase, Plan, Target};
use lenet::session::Session;
use lenet::train::{Event, Schedule, Settings, Trainer};
use pollster::block_on;

/// The data that a preset is made for.
fn data_of(preset: &str) -> Split {
    let name = match preset {
        "series" => "waves",
        "characters" => "languages",
        "segment" => "mnist-scenes",
        "lenet5-windows" => "mnist-windows",
        _ => "mnist",
    };
    data::named(name).expect("data that is part of the program")
}

/// The mean losses of the first and of the last steps of a short run.
fn losses(preset: &str, split: &Split, batch: usize, steps: u64) -> (f64, f64) {
    let train = split.train.clone().take(2_048);
    let test = split.test.clone().take(32);
    let network = Network::preset(preset).expect("a preset");
    let shape = [train.channels, train.height, train.width];
    let (network, _) = network.fitted(shape, train.classes).expect(preset);
    let settings = Settings {
        epochs: 100,
        steps: Some(steps),
        batch,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        ..Settings::default()
    };
    let plan = Plan::new(&network, &Trainer::options(&settings, &train, &test)).expect(preset);
    let backend = Backend::cpu(&plan.program);
    let mut trainer = Trainer::new(Session::new(plan, backend), settings, &train, &test).expect(preset);
    let mut losses = Vec::new();
    while (losses.len() as u64) < steps {
        trainer.advance(8).expect(preset);
        while let Some(event) = trainer.poll().unwrap_or_else(|error| panic!("{preset}: {error}")) {
            if let Event::Steps { metrics, .. } = event {
                losses.extend(metrics.iter().map(|one| one.loss()));
            }
        }
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    (mean(&losses[..4]), mean(&losses[losses.len() - 8..]))
}

#[test]
fn every_preset_learns() {
    let mnist = data_of("lenet5");
    for preset in Network::presets() {
        let own = match preset {
            "series" | "characters" | "segment" | "lenet5-windows" => Some(data_of(preset)),
            _ => None,
        };
        // The saturating ones start slowly.
        let (batch, steps) = match preset {
            "segment" => (8, 40),
            "lenet5-sigmoid" => (64, 400),
            "series" | "characters" | "lenet5-windows" | "mobilenet" => (64, 120),
            _ => (32, 60),
        };
        let (first, last) = losses(preset, own.as_ref().unwrap_or(&mnist), batch, steps);
        eprintln!("{preset}: loss {first:.3} → {last:.3} after {steps} steps");
        assert!(last < 0.8 * first, "{preset}: loss {first} → {last} after {steps} steps");
    }
}

/// The loss and the gradients of one step, and the probabilities of the network as it was before.
fn one_step(
    network: &Network,
    images: &Dataset,
    target: Target,
    device: Option<&gpu::Device>,
) -> Vec<(String, Vec<f32>)> {
    let options = Options { batch: 4, train_images: images.len(), target, ..Options::default() };
    let plan = Plan::new(network, &options).expect("a plan");
    let backend = match device {
        Some(device) => block_on(Backend::gpu(device, &plan.program)).expect("a backend"),
        None => Backend::cpu(&plan.program),
    };
    let mut session = Session::new(plan, backend);
    let initial = network.initial(1).expect("weights");
    session.set_parameters(initial.iter().map(Vec::as_slice)).expect("parameters fit");
    session.set_training(images).expect("images fit");
    let mut found = vec![(
        "probabilities".to_string(),
        block_on(session.predict(&images.images.get(0..3 * images.pixels()).expect("in memory")))
            .expect("probabilities"),
    )];
    // Three of four, so that a lane of the batch has no image.
    let step = Step { cursor: 1, count: 3, seed: 5, ..Step::default() };
    session.backend().run(Phase::Train, &[step]).expect("a step");
    let metrics = block_on(session.read(session.plan().metrics)).expect("metrics");
    found.push(("loss".into(), vec![metrics[0]]));
    let flat = block_on(session.read(session.plan().gradients)).expect("gradients");
    let named = session.plan().split_gradients(&flat);
    found.extend(named.map(|(parameter, values)| (parameter.name.clone(), values.to_vec())));
    found
}

#[test]
fn deep_presets_agree_between_gpu_and_cpu() {
    let Some(device) = common::gpu() else { return };
    let images = data_of("lenet5").train.take(8);
    // The last with the tiles and splits of a GPU that four pictures leave empty.
    let own = ["lenet5-1998", "resnet", "inception", "mobilenet"].map(|preset| (preset, Target::CPU));
    for (preset, target) in own.into_iter().chain([("mobilenet", Target::DISCRETE)]) {
        let network = Network::preset(preset).expect("a preset");
        let cpu = one_step(&network, &images, Target::CPU, None);
        let gpu = one_step(&network, &images, target, Some(&device));
        for ((name, cpu), (_, gpu)) in cpu.iter().zip(&gpu) {
            let size = cpu.iter().fold(0f32, |most, x| most.max(x.abs()));
            let apart = cpu.iter().zip(gpu).fold(0f32, |most, (a, b)| {
                // What is not a number is infinitely far from everything.
                if (a - b).is_nan() { f32::INFINITY } else { most.max((a - b).abs()) }
            });
            // Twenty normalisations in a row, of three pictures, multiply a rounding; a wrong term is 100 times this.
            assert!(
                apart <= 2e-3 * size + 1e-6,
                "{preset}: {name} is {apart:e} apart, the largest is {size:e}"
            );
        }
    }
}
