//! Whole training steps, repeated and on both backends.

use lenet::backend::Backend;
use lenet::kernels::loss::RECORD;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::kernels::{Range, Step};
use lenet::network::Network;
use lenet::plan::{Options, Phase, Plan};
use pollster::block_on;

use super::common::{self, Random, Tolerance, Worst};

/// Parameters of LeNet-5 after five steps of momentum: gradients differ by some 1e-6 of their size, updates are at
/// most 0.05 times as large, and the network passes small differences on.
const TRAINED: Tolerance = Tolerance { absolute: 2e-6, relative: 1e-5 };

/// A sum of 20 losses, whose logarithms WGSL lets err by 2⁻²¹ and exponentials by a few units in the last place.
const SUMMED: Tolerance = Tolerance { absolute: 1e-3, relative: 4e-5 };

/// Trains a preset for five steps on random bytes, the last batch ragged; gives all parameters and metrics.
fn train(plan: &Plan, mut backend: Backend) -> lenet::Result<(Vec<u32>, Vec<u32>)> {
    let mut random = Random(7);
    let initial = plan.network.initial(7)?;
    let values = plan.join(initial.iter().map(Vec::as_slice))?;
    backend.write(plan.parameters, bytemuck::cast_slice(&values))?;
    let data = plan.train_data;
    let pixels: Vec<u32> = (0..data.images.len).map(|_| random.bits() as u32).collect();
    backend.write(data.images, &pixels)?;
    let labels: Vec<u8> = (0..4 * data.labels.len).map(|_| random.index(10) as u8).collect();
    backend.write(data.labels, &common::pack(&labels))?;
    let order: Vec<u32> = random.order(data.order.len).into_iter().map(|image| image as u32).collect();
    backend.write(data.order, &order)?;
    let steps: Vec<Step> = (0..5u32)
        .map(|i| {
            let (correction1, correction2) = plan.options.optimizer.corrections(u64::from(i) + 1);
            let count = if i < 4 { 20 } else { 17 };
            let (cursor, slot, learning_rate) = (20 * i, i, 0.01);
            Step { cursor, count, slot, learning_rate, correction1, correction2, ..Step::default() }
        })
        .collect();
    backend.run(Phase::Train, &steps)?;
    let reads = [backend.read(plan.parameters), backend.read(Range { len: 5 * RECORD, ..plan.metrics })];
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
    let floats =
        |words: &[u32]| words.iter().map(|&word| f64::from(f32::from_bits(word))).collect::<Vec<_>>();
    let mut worst = Worst::default();
    worst.close("parameters", bytemuck::cast_slice(&gpu), &floats(&cpu), TRAINED);
    for (record, (gpu, cpu)) in gpu_metrics.chunks(RECORD).zip(cpu_metrics.chunks(RECORD)).enumerate() {
        assert_eq!(gpu[1..], cpu[1..], "step {record}: images right, images, flags");
        let what = format!("loss of step {record}");
        worst.close(&what, bytemuck::cast_slice(&gpu[..1]), &floats(&cpu[..1]), SUMMED);
    }
}
