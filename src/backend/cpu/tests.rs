//! How a plan's launches are cut into tasks, and that no bit of a step depends on it.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::*;
use crate::network::Network;
use crate::plan::{Options, Plan};
use crate::twins::tasks::{WORTH, probe};

/// Networks with every kind of launch.
const PRESETS: [&str; 9] = [
    "lenet5",
    "lenet5-1998",
    "lenet5-bn",
    "alexnet",
    "resnet",
    "mobilenet",
    "segment",
    "series",
    "characters",
];

fn plan(name: &str, batch: usize) -> Plan {
    let network = Network::preset(name).expect("a preset");
    let options = Options { batch, train_images: batch, ..Options::default() };
    Plan::new(&network, &options).expect("a plan")
}

/// The plan with pictures, labels and parameters made up.
fn filled(plan: &Plan) -> Cpu {
    let mut cpu = Cpu::new(&plan.program);
    let mut random = Pcg64Mcg::seed_from_u64(7);
    let mut words = |len: usize, below: u64| -> Vec<u32> {
        let mut byte = || (random.next_u64() % below) as u8;
        (0..len).map(|_| u32::from_le_bytes(std::array::from_fn(|_| byte()))).collect()
    };
    let (images, labels) = (plan.train_data.images, plan.train_data.labels);
    cpu.write(images, &words(images.len, 256));
    cpu.write(labels, &words(labels.len, plan.classes() as u64));
    let values = plan.network.initial(1).expect("parameters");
    let parameters = plan.join(values.iter().map(Vec::as_slice)).expect("those of the plan");
    cpu.write(plan.parameters, bytemuck::cast_slice(&parameters));
    cpu
}

fn step(plan: &Plan, time: u32, count: usize) -> Step {
    let (correction1, correction2) = plan.options.optimizer.corrections(u64::from(time));
    let (count, learning_rate) = (count as u32, 1e-3);
    Step { count, seed: 5 + time, learning_rate, correction1, correction2, time, ..Step::default() }
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

/// Of each launch of a training step on so many threads, the seconds of all tasks of each time that it made some.
fn tasks(plan: &Plan, threads: usize) -> Vec<Vec<Vec<f64>>> {
    let mut cpu = filled(plan);
    pool(threads).install(|| {
        let launches = 0..plan.program.launches(Phase::Train).len();
        let of = |at| {
            probe::seen();
            cpu.launch(Phase::Train, at, step(plan, 1, plan.options.batch));
            probe::seen()
        };
        launches.map(of).collect()
    })
}

/// What a launch does: its arithmetic, or the words that it moves.
fn operations(launch: &Launch) -> u64 {
    if launch.flop > 0 { launch.flop } else { launch.bytes / 4 }
}

#[test]
fn thirty_two_threads_have_a_task_each() {
    const THREADS: usize = 32;
    let mut few = Vec::new();
    for (name, batch) in PRESETS.map(|name| (name, 64)).into_iter().chain([("lenet5", 2_048)]) {
        let plan = plan(name, batch);
        for (launch, runs) in plan.program.launches(Phase::Train).iter().zip(tasks(&plan, THREADS)) {
            let counts: Vec<usize> = runs.iter().map(Vec::len).collect();
            println!("{name} {batch} {launch:?}: {} operations, tasks {counts:?}", operations(launch));
            // What comes before the last prepares it: gathered pictures, packed weights.
            let last = counts.last().copied().unwrap_or(1);
            if operations(launch) >= (THREADS * WORTH) as u64 && last < THREADS {
                few.push(format!(
                    "{name} at {batch}, {launch:?} of {} operations: {counts:?}",
                    operations(launch)
                ));
            }
        }
    }
    assert_eq!(few, Vec::<String>::new());
}

#[test]
fn no_bit_depends_on_the_threads() {
    for name in PRESETS {
        // A last block that is not full, in a batch that is not.
        let plan = plan(name, 72);
        let after = |threads: usize| {
            let mut cpu = filled(&plan);
            pool(threads).install(|| cpu.run(Phase::Train, &[step(&plan, 1, 72), step(&plan, 2, 67)]));
            [plan.parameters, plan.moment1, plan.moment2, plan.gradients, plan.metrics]
                .map(|range| cpu.read(range))
        };
        let alone = after(1);
        assert!(alone[0].iter().all(|&word| f32::from_bits(word).is_finite()), "{name}");
        for threads in [2, 32] {
            assert!(after(threads) == alone, "{name}: {threads} threads give other bits than one");
        }
    }
}

/// When threads would be done that each take the next task of a list.
fn makespan(tasks: &[f64], threads: usize) -> f64 {
    let mut busy = vec![0.0; threads];
    for task in tasks {
        let next = busy.iter_mut().min_by(|a, b| f64::total_cmp(a, b)).expect("a thread");
        *next += task;
    }
    busy.into_iter().fold(0.0, f64::max)
}

/// A model, not a measurement: tasks made for some threads are timed on one, and dealt out to as many; what is not in a
/// task stays as it is. It knows nothing of caches and memory that cores share, nor of their clocks.
#[test]
#[ignore = "prints what a model says of more threads than there are: for a quiet machine"]
fn what_more_threads_would_bring() {
    const ROUNDS: usize = 15;
    let cases = [("lenet5", 64), ("lenet5", 1_024), ("lenet5", 2_048), ("resnet", 64)];
    for (name, batch) in cases {
        let plan = plan(name, batch);
        let launches = plan.program.launches(Phase::Train);
        for threads in [1, 2, 4, 8, 16, 32] {
            let mut cpu = filled(&plan);
            let times = pool(1).install(|| {
                probe::pretend(Some(threads));
                let mut of = |at| {
                    let mut rounds: Vec<_> = (0..ROUNDS)
                        .map(|_| {
                            probe::seen();
                            let start = std::time::Instant::now();
                            cpu.launch(Phase::Train, at, step(&plan, 1, batch));
                            (start.elapsed().as_secs_f64(), probe::seen())
                        })
                        .collect();
                    rounds.sort_by(|a, b| f64::total_cmp(&a.0, &b.0));
                    rounds.swap_remove(ROUNDS / 4)
                };
                (0..launches.len()).map(&mut of).collect::<Vec<_>>()
            });
            let mut sums = [0.0; 3];
            for (launch, (wall, runs)) in launches.iter().zip(&times) {
                let inside: f64 = runs.iter().flatten().sum();
                let spread: f64 = runs.iter().map(|tasks| makespan(tasks, threads)).sum();
                let [alone, serial, modelled] = [*wall, wall - inside, wall - inside + spread];
                sums = [sums[0] + alone, sums[1] + serial, sums[2] + modelled];
                if [1, 16].contains(&threads) && name == "lenet5" {
                    let counts: Vec<usize> = runs.iter().map(Vec::len).collect();
                    println!(
                        "    {launch:?}: {:.1} µs alone, {:.1} outside tasks, {:.1} on {threads}; tasks {counts:?}",
                        alone * 1e6,
                        serial * 1e6,
                        modelled * 1e6
                    );
                }
            }
            println!(
                "{name} at {batch}, {threads} threads: {:.0} µs alone, {:.1} µs outside tasks ({:.2} %), {:.0} µs, {:.0} images/s",
                sums[0] * 1e6,
                sums[1] * 1e6,
                100.0 * sums[1] / sums[0],
                sums[2] * 1e6,
                batch as f64 / sums[2]
            );
        }
    }
}
