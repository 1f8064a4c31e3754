//! Criterion's view of what `lenet bench` measures: the training step and the evaluation of LeNet-5 on the CPU and,
//! where there is an adapter, on the GPU, and each launch of the step on the CPU.
//!
//! `cargo bench` takes about a minute; `cargo bench -- step/cpu` only what its name says.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lenet::Network;
use lenet::backend::{Backend, gpu};
use lenet::kernels::{Range, Step};
use lenet::plan::{Options, Phase, Plan, Target};
use pollster::block_on;

/// Images that lie on the device.
const IMAGES: usize = 4096;

const BATCHES: [usize; 3] = [1, 64, 512];

/// LeNet-5 with fresh weights and noise to learn.
fn plan(batch: usize, target: Target) -> Plan {
    let network = Network::preset("lenet5").expect("a preset");
    let options = Options { batch, target, train_images: IMAGES, eval_images: IMAGES, ..Options::default() };
    Plan::new(&network, &options).expect("a plan")
}

fn fill(plan: &Plan, backend: &mut Backend) {
    let noise = |i: usize| (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let words = |len: usize| (0..len).map(|i| (noise(i) >> 32) as u32).collect::<Vec<_>>();
    let label = |i: usize| (noise(i) >> 40) as u32 % 10;
    let four = |first: usize| (0..4).map(|i| label(first + i) << (8 * i)).sum::<u32>();
    let labels: Vec<u32> = (0..IMAGES).step_by(4).map(four).collect();
    let first = plan.network.initial(0).expect("weights");
    let weights = plan.join(first.iter().map(Vec::as_slice)).expect("weights that fit");
    for (range, words) in [
        (plan.train_data.images, words(plan.train_data.images.len)),
        (plan.eval_data.images, words(plan.eval_data.images.len)),
        (plan.train_data.labels, labels.clone()),
        (plan.eval_data.labels, labels),
        (plan.parameters, bytemuck::cast_vec(weights)),
    ] {
        backend.write(range, &words).expect("a range that holds it");
    }
}

/// A step with a learning rate of 0, so that every repetition computes with the same numbers.
fn step(batch: usize) -> Step {
    Step { count: batch as u32, correction1: 1.0, correction2: 1.0, ..Step::default() }
}

fn steps(c: &mut Criterion) {
    let adapters = block_on(gpu::adapters());
    let device = adapters.iter().find_map(|adapter| block_on(gpu::Device::open(adapter)).ok());
    match &device {
        Some(device) => eprintln!("gpu: {}", device.name()),
        None => eprintln!("gpu: skipped, there is no adapter"),
    }
    for (phase, name) in [(Phase::Train, "step"), (Phase::Evaluate, "evaluation")] {
        let mut group = c.benchmark_group(name);
        for batch in BATCHES {
            group.throughput(Throughput::Elements(batch as u64));
            let mut backends = Vec::new();
            let on_cpu = plan(batch, Target::CPU);
            backends.push(("cpu", Backend::cpu(&on_cpu.program), on_cpu));
            if let Some(device) = &device {
                let on_gpu = plan(batch, device.target());
                let backend = block_on(Backend::gpu(device, &on_gpu.program)).expect("a backend");
                backends.push(("gpu", backend, on_gpu));
            }
            for (device, mut backend, plan) in backends {
                fill(&plan, &mut backend);
                let metrics = Range { len: 4, ..plan.metrics };
                group.bench_function(BenchmarkId::new(device, batch), |bencher| {
                    bencher.iter_custom(|times| {
                        let start = std::time::Instant::now();
                        // One submission as far as possible, and one wait for all.
                        backend.run(phase, &vec![step(batch); times as usize]).expect("steps");
                        block_on(backend.read(metrics)).expect("metrics");
                        start.elapsed()
                    });
                });
            }
        }
        group.finish();
    }
}

fn launches(c: &mut Criterion) {
    let batch = 64;
    let plan = plan(batch, Target::CPU);
    let mut backend = Backend::cpu(&plan.program);
    fill(&plan, &mut backend);
    backend.run(Phase::Train, &[step(batch)]).expect("a step");
    let Backend::Cpu(mut cpu) = backend else { return };
    let mut group = c.benchmark_group("launch/cpu");
    for (index, launch) in plan.program.train.iter().enumerate() {
        let name = format!("{index}-{}:{}", launch.shader.name, launch.entry.name);
        if launch.flop > 0 {
            group.throughput(Throughput::Elements(launch.flop));
        }
        group.bench_function(name, |bencher| bencher.iter(|| cpu.launch(Phase::Train, index, step(batch))));
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = steps, launches
}
criterion_main!(all);
