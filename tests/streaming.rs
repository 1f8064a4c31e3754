//! Data sets that do not fit the device are streamed: the same bits as when they lie there as a whole, and sets of any
//! size train.

mod common;

use std::sync::Arc;

use common::Random;
use lenet::backend::{Backend, gpu};
use lenet::data::Dataset;
use lenet::kernels::augment::Augment;
use lenet::network::Network;
use lenet::plan::{Memory, Options, Plan};
use lenet::session::{Metrics, Session};
use lenet::train::{Advance, Event, Settings, Trainer};
use pollster::block_on;

fn noise(shape: [usize; 3], classes: usize, count: usize, seed: u64) -> Dataset {
    let mut random = Random(seed);
    let pixels = shape.iter().product::<usize>();
    let images = (0..count * pixels).map(|_| random.bits() as u8).collect();
    let labels = (0..count).map(|_| random.index(classes) as u8).collect();
    Dataset::new("noise", shape, classes, images, labels).expect("a data set")
}

fn backend(device: Option<&gpu::Device>, plan: &Plan) -> Backend {
    match device {
        Some(device) => block_on(Backend::gpu(device, &plan.program)).expect("a plan on the device"),
        None => Backend::cpu(&plan.program),
    }
}

/// Parameters and moments after a run, as bits, and every evaluation.
fn run(
    device: Option<&gpu::Device>,
    stream: Option<usize>,
    settings: &Settings,
    train: &Arc<Dataset>,
    test: &Arc<Dataset>,
) -> (Vec<u32>, Vec<Metrics>) {
    let network = Network::preset("lenet5").expect("a preset");
    let options = Options { stream, ..Trainer::options(settings, train, test) };
    let plan = Plan::new(&network, &options).expect("a plan");
    assert_eq!(plan.train_data.half.is_some(), stream.is_some());
    let parts = [plan.parameters, plan.moment1, plan.moment2];
    let backend = backend(device, &plan);
    let session = Session::new(plan, backend);
    let mut trainer = Trainer::shared(session, settings.clone(), train, test).expect("a trainer");
    let mut evaluations = Vec::new();
    loop {
        let advanced = trainer.advance(7).expect("a device that works");
        if advanced == Advance::Done {
            break;
        }
        while let Some(event) = block_on(trainer.event()).expect("a step") {
            if let Event::Epoch { evaluation, .. } = event {
                evaluations.push(evaluation);
            }
        }
    }
    let read = |&part| block_on(trainer.session().read(part)).expect("a range");
    (parts.iter().flat_map(read).map(f32::to_bits).collect(), evaluations)
}

#[test]
fn a_streamed_run_has_the_same_bits() {
    let device = common::gpu();
    let (train, test) = (Arc::new(noise([1, 28, 28], 10, 103, 1)), Arc::new(noise([1, 28, 28], 10, 89, 2)));
    let plain = Settings { batch: 10, epochs: 2, ..Settings::default() };
    let moved = Settings { augment: "light".parse::<Augment>().expect("a preset"), ..plain.clone() };
    for on_gpu in [None, device.as_ref()] {
        for settings in [&plain, &moved] {
            let whole = run(on_gpu, None, settings, &train, &test);
            for steps in [1, 3] {
                let streamed = run(on_gpu, Some(steps), settings, &train, &test);
                assert!(whole.0 == streamed.0, "{steps} steps at a time, on the GPU: {}", on_gpu.is_some());
                assert_eq!(whole.1, streamed.1);
            }
        }
        if device.is_none() {
            break;
        }
    }
}

#[test]
fn what_is_larger_than_a_binding_is_streamed() {
    // As large as CIFAR-10, and EMNIST whole.
    let least = Memory { buffer: 128 << 20, total: 1 << 30 };
    for (network, images) in [("lenet5", 697_932), ("resnet", 50_000)] {
        let mut network = Network::preset(network).expect("a preset");
        if images == 50_000 {
            (network.input.channels, network.input.height, network.input.width) = (3, 32, 32);
        }
        let options = Options { batch: 16, train_images: images, ..Options::default() };
        let plan = Plan::within(&network, &options, least).expect("a plan");
        assert_eq!(plan.options.stream, Some(64), "{images}");
        assert!(plan.program.bytes() < 200 << 20, "{images}");
        // Where it fits, it is not.
        let room = Memory { buffer: 1 << 30, total: 1 << 31 };
        assert_eq!(Plan::within(&network, &options, room).expect("a plan").options.stream, None);
        // What is too large by itself is called by its name.
        let batch = if images == 50_000 { 4000 } else { 40_000 };
        let options = Options { batch, ..options };
        let refused = Plan::within(&network, &options, least).expect_err("a batch that large").to_string();
        assert!(
            refused.contains(&format!("batch {batch} does not fit (the largest that does is ")),
            "{refused}"
        );
        assert!(refused.contains("buffer") && !refused.contains("train.images"), "{refused}");
    }
}

#[test]
fn sets_as_large_as_emnist_and_cifar_train() {
    let device = common::gpu();
    for (shape, classes, count) in [([1, 28, 28], 62, 697_932), ([3, 32, 32], 100, 50_000)] {
        let pixels = shape.iter().product::<usize>();
        // A picture's pixels and label follow from its index.
        let images = (0..count).flat_map(|n| (0..pixels).map(move |p| (n * 31 + p * 7) as u8)).collect();
        let labels = (0..count).map(|n| (n * 13 % classes) as u8).collect();
        let data = Dataset::new("large", shape, classes, images, labels).expect("a data set");
        let test = Arc::new(data.first(40));
        let data = Arc::new(data);
        let text = format!(
            "name = \"small\"\ninput = {{ channels = {}, height = {}, width = {} }}\nlayers = [\n    \
             {{ conv2d = {{ channels = 4, kernel = 5 }} }},\n    \"relu\",\n    \
             {{ max_pool2d = {{ kernel = 2 }} }},\n    \"flatten\",\n    {{ linear = {{ outputs = {classes} }} }},\n]\n",
            shape[0], shape[1], shape[2]
        );
        let network = Network::parse(&text).expect("a network");
        let settings = Settings { batch: 32, steps: Some(9), ..Settings::default() };
        let mut bits = Vec::new();
        for on_gpu in [None, device.as_ref()] {
            let least = Memory { buffer: 128 << 20, total: 1 << 30 };
            let options = Trainer::options(&settings, &data, &test);
            let plan = Plan::within(&network, &options, least).expect("a plan");
            assert!(plan.train_data.half.is_some());
            let (parameters, backend) = (plan.parameters, backend(on_gpu, &plan));
            let session = Session::new(plan, backend);
            let mut trainer = Trainer::shared(session, settings.clone(), &data, &test).expect("a trainer");
            let mut losses = Vec::new();
            while trainer.advance(4).expect("a device that works") != Advance::Done {
                while let Some(event) = block_on(trainer.event()).expect("a step") {
                    if let Event::Steps { metrics, .. } = event {
                        losses.extend(metrics.iter().map(Metrics::loss));
                    }
                }
            }
            assert_eq!(losses.len(), 9);
            bits.push((losses, block_on(trainer.session().read(parameters)).expect("a range")));
            if device.is_none() {
                break;
            }
        }
        if let [(cpu, on_cpu), (gpu, on_gpu)] = &bits[..] {
            assert!(cpu.iter().zip(gpu).all(|(a, b)| (a - b).abs() < 1e-4 * a), "{cpu:?}\n{gpu:?}");
            assert!(on_cpu.iter().zip(on_gpu).all(|(a, b)| (a - b).abs() < 1e-4 + 1e-3 * a.abs()));
        }
    }
}
