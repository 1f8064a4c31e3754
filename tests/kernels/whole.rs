//! Whole training steps, repeated and on both backends.

use lenet::backend::Backend;
use lenet::kernels::loss::RECORD;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::network::Network;
use lenet::plan::{Options, Phase, Plan};
use pollster::block_on;

use super::common;
use super::harness::*;

/// Trains a preset for five steps on random bytes, the last batch ragged; gives all parameters and metrics.
fn train(plan: &Plan, mut backend: Backend) -> lenet::Result<(Vec<u32>, Vec<u32>)> {
    let mut random = Random::of(&plan.network.name);
    let initial = plan.network.initial(7)?;
    let values = plan.join(initial.iter().map(Vec::as_slice))?;
    backend.write(plan.parameters, bytemuck::cast_slice(&values))?;
    backend.write(plan.train_data.images, &random.words(plan.train_data.images.len))?;
    let labels = random.labels(4 * plan.train_data.labels.len, 10);
    backend.write(plan.train_data.labels, &labels)?;
    backend.write(plan.train_data.order, &random.order(plan.train_data.order.len))?;
    let steps: Vec<Step> = (0..5u32)
        .map(|i| {
            let (correction1, correction2) = plan.options.optimizer.corrections(u64::from(i) + 1);
            let count = if i < 4 { 20 } else { 17 };
            let (cursor, slot, learning_rate) = (20 * i, i, 0.01);
            Step { cursor, count, slot, learning_rate, correction1, correction2, ..Step::default() }
        })
        .collect();
    backend.run(Phase::Train, &steps)?;
    let reads = [backend.read(plan.parameters), backend.read(sub(plan.metrics, 0, 5 * RECORD))];
    let [parameters, metrics] = reads.map(block_on);
    Ok((parameters?, metrics?))
}

pub fn plan(rule: Rule) -> Plan {
    let network = Network::preset("lenet5").expect("a preset");
    let options =
        Options { batch: 20, optimizer: Optimizer::new(rule), train_images: 97, ..Options::default() };
    Plan::new(&network, &options).expect("a plan")
}

#[test]
fn training_repeats_bit_for_bit_on_the_cpu() {
    let plan = plan(Rule::Adam);
    let run = || train(&plan, Backend::cpu(&plan.program)).expect("training");
    assert!(run() == run(), "two runs differ");
}

#[test]
fn training_repeats_bit_for_bit_on_the_gpu() {
    let Some(device) = common::gpu() else { return };
    let plan = plan(Rule::Adam);
    let run = || {
        let backend = block_on(Backend::gpu(&device, &plan.program)).expect("a backend");
        train(&plan, backend).expect("training")
    };
    assert!(run() == run(), "two runs differ");
}

#[test]
fn training_agrees_between_gpu_and_cpu() {
    let Some(device) = common::gpu() else { return };
    // Not Adam: its first steps are as large for a gradient of 1e-9 as for one of 1, whatever the rounding.
    let plan = plan(Rule::Momentum);
    let (cpu, cpu_metrics) = train(&plan, Backend::cpu(&plan.program)).expect("training");
    let backend = block_on(Backend::gpu(&device, &plan.program)).expect("a backend");
    let (gpu, gpu_metrics) = train(&plan, backend).expect("training");
    let initial = plan.network.initial(7).expect("initial parameters");
    let initial = plan.join(initial.iter().map(Vec::as_slice)).expect("initial parameters");
    let moved = cpu.iter().zip(&initial).filter(|(after, before)| **after != before.to_bits()).count();
    // Of LeNet-5's 61,706; those behind dead pixels and units stay.
    assert!(moved > 30_000, "only {moved} parameters moved");
    if let Some(problem) = differences(&gpu, &cpu, TRAINED.0, TRAINED.1, false, |_| true) {
        panic!("parameters: {problem}");
    }
    for (record, (gpu, cpu)) in gpu_metrics.chunks(RECORD).zip(cpu_metrics.chunks(RECORD)).enumerate() {
        assert_eq!(gpu[1..], cpu[1..], "step {record}: images right, images, flags");
        if let Some(problem) = differences(&gpu[..1], &cpu[..1], METRICS.0, METRICS.1, false, |_| true) {
            panic!("loss of step {record}: {problem}");
        }
    }
}
