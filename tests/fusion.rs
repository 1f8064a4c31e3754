//! Fused plans compute what unfused plans compute: the same launches' sums in another grouping, on each backend.

mod common;

use lenet::Network;
use lenet::backend::{Backend, Gpu, gpu};
use lenet::kernels::Step;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::plan::{Form, Options, Phase, Plan, Target};
use lenet::session::Session;

/// Fusing changes the order of f32 sums of at most a few thousand terms of similar size.
const RELATIVE: f32 = 2e-4;

const NETWORKS: [&str; 6] = [
    include_str!("../assets/nets/lenet5.toml"),
    include_str!("../assets/nets/lenet5-tanh.toml"),
    include_str!("../assets/nets/lenet5-sigmoid.toml"),
    // Odd sizes, padding, filters of 3 and 4, a pool that cannot be fused, activations that cannot.
    r#"
name = "mixed"
input = { channels = 3, height = 13, width = 11, pad = 1, mean = 0.2, deviation = 0.7 }
layers = [
    { conv2d = { channels = 5, kernel = 3, padding = 1 } }, "tanh", { max_pool2d = { kernel = 2 } },
    { conv2d = { channels = 7, kernel = [3, 4], padding = 2 } }, { average_pool2d = { kernel = 2 } },
    { conv2d = { channels = 6, kernel = 2, padding = 1 } }, "scaled_tanh", { average_pool2d = { kernel = 2 } },
    { conv2d = { channels = 4, kernel = 2 } }, "silu",
    "flatten", { linear = { outputs = 9 } }, "sigmoid", { linear = { outputs = 7, bias = false } }, "gelu",
    { linear = { outputs = 4 } },
]
"#,
    // Layers in layers: sums, branches, normalisations, dropout, a table of connections.
    r#"
name = "family"
input = { channels = 2, height = 8, width = 10, pad = 1, mean = 0.2, deviation = 0.7 }
layers = [
    { conv2d = { channels = 6, kernel = 3, padding = "same", bias = false } }, { batch_norm = {} }, "relu",
    { residual = { body = [
        { conv2d = { channels = 6, kernel = 3, padding = "same", groups = 6 } }, "tanh",
        { conv2d = { channels = 6, kernel = 1 } },
    ] } }, "tanh",
    { local_response_norm = { size = 3, alpha = 0.5, k = 2.0 } },
    { branches = [[], [{ conv2d = { channels = 4, kernel = 1 } }, "sigmoid"], [{ average_pool2d = { kernel = 3, stride = 1, padding = 1 } }]] },
    { scale = {} }, "scaled_tanh",
    { max_pool2d = { kernel = 2 } }, { upsample = 2 }, { adaptive_average_pool2d = [4, 3] },
    { conv2d = { channels = 5, kernel = 2, connections = [[0, 1], [2], [0, 3], [1, 2, 3], [15, 4]] } }, "tanh",
    "flatten", { dropout = 0.25 }, { linear = { outputs = 9 } }, "relu", { dropout = 0.5 },
    { linear = { outputs = 4 } },
]
"#,
    // A series, codes, the criterion of 1998.
    r#"
name = "series"
loss = { map = { rubbish = 1.5 } }
input = { channels = 3, height = 1, width = 32, mean = 0.2, deviation = 0.7 }
layers = [
    { conv1d = { channels = 5, kernel = 5, padding = "same" } }, "tanh", { max_pool1d = { kernel = 2 } },
    { conv1d = { channels = 6, kernel = 3, stride = 2 } }, "scaled_tanh", "flatten",
    { linear = { outputs = 8 } }, "tanh", { rbf = { outputs = 4, trainable = true } },
]
"#,
];

/// Gradients after one step and parameters after three, as (name, values).
fn run(network: &Network, options: &Options, device: Option<&gpu::Device>) -> Vec<(String, Vec<f32>)> {
    let plan = Plan::new(network, options).expect("a plan");
    let backend = match device {
        Some(device) => pollster::block_on(Backend::gpu(device, &plan.program)).expect("a backend"),
        None => Backend::cpu(&plan.program),
    };
    let data = plan.train_data;
    let mut session = Session::new(plan, backend);
    let initial = network.initial(7).expect("weights");
    session.set_parameters(initial.iter().map(Vec::as_slice)).expect("parameters fit");
    let words: Vec<u32> =
        (0..data.images.len as u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(7)).collect();
    session.backend().write(data.images, &words).expect("images fit");
    // 0, 1, 2, 3 and again.
    let labels = vec![0x0302_0100; data.labels.len];
    session.backend().write(data.labels, &labels).expect("labels fit");
    let step = |cursor: usize, count: usize| Step {
        cursor: cursor as u32,
        count: count as u32,
        seed: 77,
        learning_rate: 0.05,
        correction1: 1.0,
        correction2: 1.0,
        ..Step::default()
    };
    let mut found = Vec::new();
    session.backend().run(Phase::Train, &[step(0, options.batch)]).expect("a step");
    let gradients = pollster::block_on(session.read(session.plan().gradients)).expect("gradients");
    for (parameter, values) in session.plan().split_gradients(&gradients) {
        found.push((format!("{} gradient", parameter.name), values.to_vec()));
    }
    // The last batch is ragged.
    let ragged = options.batch.div_ceil(2);
    session
        .backend()
        .run(Phase::Train, &[step(options.batch, options.batch), step(5, ragged)])
        .expect("steps");
    let parameters = pollster::block_on(session.parameters()).expect("parameters");
    for (parameter, values) in session.plan().split(&parameters) {
        found.push((parameter.name.clone(), values.to_vec()));
    }
    let metrics = pollster::block_on(session.read(session.plan().metrics)).expect("metrics");
    found.push(("loss".into(), vec![metrics[0]]));
    found
}

fn compare(case: &str, a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let size = b.iter().fold(0f32, |most, b| most.max(b.abs()));
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!(
                (a - b).abs() <= RELATIVE * size,
                "{case}: {name}[{i}] is {a}, unfused {b} (largest {size})"
            );
        }
    }
}

fn check(device: Option<&gpu::Device>, batches: &[usize], fills: &[usize]) {
    for text in NETWORKS {
        let network = Network::parse(text).expect("a network");
        for &batch in batches {
            let options = Options {
                batch,
                train_images: 2 * batch + 5,
                optimizer: Optimizer::new(Rule::Momentum),
                ..Options::default()
            };
            let plain = run(&network, &Options { fuse: false, ..options.clone() }, None);
            for &fill in fills {
                let fused =
                    run(&network, &Options { target: Target::filled_by(fill), ..options.clone() }, device);
                compare(&format!("{} at batch {batch}, fill {fill}", network.name), &fused, &plain);
            }
        }
    }
}

#[test]
fn cpu() {
    check(None, &[1, 19, 64], &[1, 4096]);
}

/// The first adapter's device; without one, says that the test is skipped, or fails where it is required.
#[test]
fn gpu() {
    let Some(device) = common::gpu() else { return };
    check(Some(&device), &[35], &[256]);
}

/// Whole plans for a device that small batches leave empty, whose tiles and splits no software adapter is given.
#[test]
fn presets_for_a_discrete_gpu() {
    let Some(device) = common::gpu() else { return };
    for name in ["lenet5", "segment"] {
        let network = Network::preset(name).expect("a preset");
        let options = Options { batch: 20, train_images: 45, ..Options::default() };
        let on_gpu = Options { target: Target::DISCRETE, ..options.clone() };
        let [cpu, gpu] = [(&options, None), (&on_gpu, Some(&device))].map(|(options, device)| {
            let mut found = run(&network, options, device);
            // The steps after the first multiply a rounding.
            found.retain(|(name, _)| name.ends_with(" gradient"));
            found
        });
        compare(name, &gpu, &cpu);
    }
}

/// A fused convolution between layers that are learned: what is frozen gets no gradient, what is before it the same.
#[test]
fn a_frozen_convolution_passes_the_gradient_on() {
    let network = Network::preset("lenet5").expect("a preset");
    let options = Options { batch: 19, train_images: 43, ..Options::default() };
    let frozen = Options { freeze: vec!["conv2.*".into()], ..options.clone() };
    let entries = |options: &Options| -> Vec<String> {
        let plan = Plan::new(&network, options).expect("a plan");
        plan.program
            .train
            .iter()
            .filter(|l| l.shader.name == "conv_pool")
            .map(|l| l.entry.name.to_string())
            .collect()
    };
    assert_eq!(entries(&options), ["forward", "forward", "backward", "backward_first"]);
    assert_eq!(entries(&frozen), ["forward", "forward", "input_gradient", "backward_first"]);
    let gpu = common::gpu();
    for device in [None].into_iter().chain(gpu.as_ref().map(Some)) {
        let [all, some] = [&options, &frozen].map(|options| run(&network, options, device));
        let others = |found: &[(String, Vec<f32>)]| -> Vec<(String, Vec<f32>)> {
            let wanted = |name: &str| name.ends_with(" gradient") && !name.starts_with("conv2.");
            found.iter().filter(|(name, _)| wanted(name)).cloned().collect()
        };
        compare("conv2 is frozen", &others(&some), &others(&all));
        if device.is_none() {
            assert!(others(&some) == others(&all), "the twin does something else for a frozen layer");
        }
        let initial = network.initial(7).expect("weights");
        for (parameter, initial) in network.parameters().expect("parameters").iter().zip(&initial) {
            let (_, now) = some.iter().find(|(name, _)| *name == parameter.name).expect("the parameter");
            assert_eq!(now == initial, parameter.name.starts_with("conv2."), "{}", parameter.name);
        }
    }
}

#[test]
fn so_many_dispatches_reach_the_queue() {
    let Some(device) = common::gpu() else { return };
    let cases = [("lenet5", Form::Layers, 12), ("lenet5-tanh", Form::Layers, 12), ("lenet5", Form::Plain, 2)];
    for (name, form, launches) in cases {
        let options = Options { batch: 16, train_images: 48, form, ..Options::default() };
        let plan = Plan::new(&Network::preset(name).expect("a preset"), &options).expect("a plan");
        let mut backend = pollster::block_on(Gpu::new(&device, &plan.program)).expect("a backend");
        let steps = [0, 16, 32].map(|cursor| Step { cursor, count: 16, ..Step::default() });
        backend.run(Phase::Train, &steps).expect("steps");
        assert_eq!(backend.dispatched(), 3 * launches, "{name}, {form:?}");
        let metrics = pollster::block_on(backend.read(plan.metrics)).expect("metrics");
        assert_eq!(metrics[2], 16, "{name}: the steps ran");
    }
}

#[test]
fn twelve_launches() {
    for rule in Rule::ALL {
        for batch in [1, 64, 1000] {
            let options = Options { batch, optimizer: Optimizer::new(rule), ..Options::default() };
            for name in ["lenet5", "lenet5-tanh", "lenet5-sigmoid"] {
                let plan = Plan::new(&Network::preset(name).expect("a preset"), &options).expect("a plan");
                assert_eq!(plan.program.train.len(), 12, "{name} at batch {batch}: {:?}", plan.program.train);
            }
        }
    }
}

#[test]
fn the_plain_form_is_the_same_step() {
    let mut network = Network::preset("lenet5").expect("a preset");
    (network.input.mean, network.input.deviation) = (0.1307, 0.3081);
    // Where a gradient is hardly more than rounding, Adam's own epsilon would make steps of its sign.
    let optimizer = Optimizer { epsilon: 0.1, ..Optimizer::new(Rule::Adam) };
    let device = common::gpu();
    for (on_gpu, batch) in [(None, 17), (device.as_ref(), 3)] {
        let options = Options { batch, train_images: 2 * batch + 5, optimizer, ..Options::default() };
        let layers = run(&network, &options, None);
        let plain = Options { form: Form::Plain, ..options };
        let found = run(&network, &plain, on_gpu);
        compare(&format!("the plain form at batch {batch}"), &found, &layers);
        assert!(found == run(&network, &plain, on_gpu), "the same bits twice");
    }
}

#[test]
fn the_plain_form_refuses_what_it_does_not_know() {
    let lenet5 = Network::preset("lenet5").expect("a preset");
    let plain = Options { form: Form::Plain, ..Options::default() };
    let plan = Plan::new(&lenet5, &plain).expect("a plan");
    assert_eq!(plan.program.launches(Phase::Train).len(), 2);
    let refused = |network: &Network, options: &Options| {
        Plan::new(network, options).map(|_| ()).expect_err("refused").to_string()
    };
    let tanh = Network::preset("lenet5-tanh").expect("a preset");
    assert_eq!(
        refused(&tanh, &plain),
        "the plain form does not fit: lenet5-tanh is another network than lenet5 with ten classes; --form layers does"
    );
    for (options, why) in [
        (Options { clip: Some(1.0), ..plain.clone() }, "clip"),
        (Options { smoothing: 0.1, ..plain.clone() }, "smooth"),
        (Options { augment: "light".parse().expect("a level"), ..plain.clone() }, "distort"),
        (Options { freeze: vec!["conv1.*".into()], ..plain.clone() }, "freezes"),
        (Options { optimizer: Optimizer::new(Rule::Sgd), ..plain.clone() }, "update rule"),
        (Options { optimizer: Optimizer { l1: 1e-4, ..Optimizer::default() }, ..plain.clone() }, "penalties"),
    ] {
        let message = refused(&lenet5, &options);
        assert!(message.contains(why), "{message}");
    }
}
