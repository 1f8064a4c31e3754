//! What the document for embedders promises: what may cross threads, what a drop disturbs, what a shared device and
//! a lost one mean, and that memory does not grow.
#![cfg(feature = "mnist")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use common::required;
use lenet::backend::{Answer, Backend, Cpu, Device, Gpu, Readback, gpu};
use lenet::data::Dataset;
use lenet::plan::{Plan, Program};
use lenet::session::Session;
use lenet::train::{Advance, Event, Settings, Snapshot, Trainer};
use lenet::{Error, Network, Result};
use pollster::block_on;

fn send<T: Send>(_: &T) {}

/// Compiled and never run: the compiler is the test.
#[allow(dead_code)]
fn what_crosses_threads(trainer: &mut Trainer, device: &gpu::Device, program: &Program) {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    sendable::<Trainer>();
    sendable::<Session>();
    sendable::<Backend>();
    shareable::<Device>();
    sendable::<Gpu>();
    sendable::<Readback>();
    sendable::<Answer<Vec<f32>>>();
    sendable::<Answer<Snapshot>>();
    shareable::<Cpu>();
    shareable::<gpu::Device>();
    shareable::<Plan>();
    shareable::<Program>();
    shareable::<Network>();
    shareable::<Dataset>();
    shareable::<Settings>();
    shareable::<Snapshot>();
    shareable::<Event>();
    shareable::<Error>();
    send(&trainer.event());
    send(&trainer.snapshot());
    send(&trainer.session().predict(&[]));
    send(&trainer.session().evaluate(1));
    send(&trainer.session().parameters());
    send(&gpu::adapters());
    send(&Gpu::new(device, program));
    send(&Backend::gpu(device, program));
    send(&Device::automatic());
    send(&Device::Cpu.backend(program));
}

/// A device that an embedder might have, and how many errors its owner's handler was told.
struct Owned {
    instance: wgpu::Instance,
    device: wgpu::Device,
    queue: wgpu::Queue,
    told: Arc<AtomicUsize>,
}

impl Owned {
    /// The device as it is lent.
    fn lent(&self) -> gpu::Device {
        gpu::Device::new(self.device.clone(), self.queue.clone())
    }

    fn buffers(&self) -> usize {
        self.instance.generate_report().expect("a report").hub_report().buffers.num_kept_from_user
    }

    fn bytes(&self) -> u64 {
        self.device.generate_allocator_report().expect("a report").total_allocated_bytes
    }
}

/// Nothing where there is no adapter and none is required.
fn owned() -> Option<Owned> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapters = block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = required(gpu::best(&adapters, true))?;
    let (device, queue) = block_on(adapter.request_device(&Default::default())).expect("a device");
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    device.on_uncaptured_error(Arc::new(move |error| {
        eprintln!("the owner's handler was told: {error}");
        count.fetch_add(1, Ordering::Relaxed);
    }));
    Some(Owned { instance, device, queue, told })
}

/// 150 digits to learn from, 70 to be judged by.
fn data() -> &'static [Dataset; 2] {
    static DATA: OnceLock<[Dataset; 2]> = OnceLock::new();
    DATA.get_or_init(|| {
        let mnist = lenet::data::mnist().expect("MNIST");
        [mnist.train.take(150), mnist.test.take(70)]
    })
}

/// Ten steps in two epochs; the last batch of each is smaller.
fn settings(seed: u64) -> Settings {
    Settings { epochs: 2, batch: 32, seed, ..Settings::default() }
}

fn network() -> Network {
    let text = r#"
        name = "small"
        input = { channels = 1, height = 28, width = 28 }
        layers = [
            { conv2d = { channels = 4, kernel = 5 } }, "relu", { max_pool2d = { kernel = 2 } },
            "flatten", { linear = { outputs = 10 } },
        ]
    "#;
    Network::parse(text).expect("a network")
}

fn plan(seed: u64) -> Plan {
    let [train, test] = data();
    Plan::new(&network(), &Trainer::options(&settings(seed), train, test)).expect("a plan")
}

fn trainer(device: Option<&gpu::Device>, seed: u64) -> Result<Trainer> {
    let [train, test] = data();
    let plan = plan(seed);
    let backend = match device {
        Some(device) => block_on(Backend::gpu(device, &plan.program))?,
        None => Backend::cpu(&plan.program),
    };
    Trainer::new(Session::new(plan, backend), settings(seed), train, test)
}

/// Metrics of every step and epoch, and the last parameters, as bits.
#[derive(Debug, PartialEq)]
struct Outcome {
    steps: Vec<u64>,
    epochs: Vec<u64>,
    parameters: Vec<u32>,
}

#[derive(Default)]
struct Notes {
    steps: Vec<u64>,
    epochs: Vec<u64>,
}

impl Notes {
    fn add(&mut self, event: Event) {
        match event {
            Event::Steps { first, metrics, .. } => {
                assert_eq!(first as usize, self.steps.len() + 1, "steps arrive in order");
                self.steps.extend(metrics.iter().map(|one| one.loss().to_bits()));
            }
            Event::Epoch { evaluation, .. } => {
                assert_eq!(evaluation.count, 70);
                self.epochs.push(evaluation.loss().to_bits());
            }
        }
    }

    fn finish(mut self, trainer: &mut Trainer, most: usize) -> Outcome {
        while trainer.advance(most).expect("steps") != Advance::Done {
            while let Some(event) = block_on(trainer.event()).expect("an event") {
                self.add(event);
            }
        }
        assert_eq!((self.steps.len(), self.epochs.len()), (10, 2));
        let parameters = block_on(trainer.session().parameters()).expect("parameters");
        let parameters = parameters.into_iter().map(f32::to_bits).collect();
        Outcome { steps: self.steps, epochs: self.epochs, parameters }
    }
}

/// A run that nothing disturbs, on a device of its own.
fn undisturbed(seed: u64) -> Outcome {
    let owned = owned().expect("an adapter");
    Notes::default().finish(&mut trainer(Some(&owned.lent()), seed).expect("a trainer"), 3)
}

/// Asks a future once, and drops it.
fn touch<F: Future>(future: F) -> bool {
    let future = std::pin::pin!(future);
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[test]
fn a_dropped_trainer_leaves_the_device_to_the_next() {
    let Some(owned) = owned() else { return };
    for seed in 5..8 {
        let mut dropped = trainer(Some(&owned.lent()), seed).expect("a trainer");
        assert_eq!(dropped.advance(4).expect("steps"), Advance::Queued(4));
    }
    let outcome = Notes::default().finish(&mut trainer(Some(&owned.lent()), 0).expect("a trainer"), 3);
    assert_eq!(outcome, undisturbed(0));
    assert_eq!(owned.told.load(Ordering::Relaxed), 0);
}

#[test]
fn dropped_futures_disturb_nothing() {
    let Some(owned) = owned() else { return };
    let [_, test] = data();
    let mut trainer = trainer(Some(&owned.lent()), 0).expect("a trainer");
    // Enough that no machine is done with it before it is asked.
    let many = test.images.all().expect("in memory").repeat(100);
    let (mut notes, mut pending) = (Notes::default(), 0);
    for _ in 0..6 {
        trainer.advance(2).expect("steps");
        pending += usize::from(touch(trainer.session().predict(&many)));
        pending += usize::from(touch(trainer.session().evaluate(test.len())));
        pending += usize::from(touch(trainer.session().parameters()));
        drop(trainer.session().predict(&test.images.all().expect("in memory")));
        let mut event = Box::pin(trainer.event());
        match event.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => pending += 1,
            Poll::Ready(event) => event.expect("an event").into_iter().for_each(|event| notes.add(event)),
        }
    }
    assert!(pending > 0, "everything had arrived at once: nothing was dropped half-way");
    assert_eq!(notes.finish(&mut trainer, 3), undisturbed(0));
    assert_eq!(owned.told.load(Ordering::Relaxed), 0);
}

#[test]
fn trainers_that_take_turns_on_one_device_do_not_meet() {
    let Some(owned) = owned() else { return };
    let mut both = [1, 2].map(|seed| trainer(Some(&owned.lent()), seed).expect("a trainer"));
    let mut notes = [Notes::default(), Notes::default()];
    for _ in 0..3 {
        for (trainer, notes) in both.iter_mut().zip(&mut notes) {
            trainer.advance(1).expect("a step");
            while let Some(event) = trainer.poll().expect("an event") {
                notes.add(event);
            }
        }
    }
    let [first, second] = &mut both;
    let [first_notes, second_notes] = notes;
    // One of them goes on from another thread.
    let outcomes = std::thread::scope(|scope| {
        let other = scope.spawn(move || first_notes.finish(first, 2));
        let second = second_notes.finish(second, 1);
        [other.join().expect("the thread"), second]
    });
    assert_eq!(outcomes, [undisturbed(1), undisturbed(2)]);
    assert_ne!(outcomes[0].parameters, outcomes[1].parameters);
    assert_eq!(owned.told.load(Ordering::Relaxed), 0);
}

#[test]
fn memory_is_what_the_plan_says_and_stays_so() {
    let Some(owned) = owned() else { return };
    let text = r#"
        name = "tiny"
        input = { channels = 1, height = 28, width = 28 }
        layers = ["flatten", { linear = { outputs = 10 } }]
    "#;
    let [train, test] = data();
    let settings = Settings { epochs: 1000, steps: Some(2200), batch: 16, ..Settings::default() };
    let network = Network::parse(text).expect("a network");
    let plan = Plan::new(&network, &Trainer::options(&settings, train, test)).expect("a plan");
    let (said, buffers, before) = (plan.program.bytes(), plan.program.buffers.len(), owned.bytes());
    let backend = block_on(Backend::gpu(&owned.lent(), &plan.program)).expect("a backend");
    // The uniform buffer of the steps, and what is bound as a uniform may end 64 KiB later.
    let allocated = owned.bytes() - before;
    let most = said + 2 * (64 << 10) + 256 * buffers as u64;
    assert!((said..=most).contains(&allocated), "{allocated} bytes, predicted were {said}");
    assert_eq!(owned.buffers(), buffers + 1);

    let mut trainer = Trainer::new(Session::new(plan, backend), settings, train, test).expect("a trainer");
    let (mut steps, mut base, mut most) = (0, (0, 0), (0, 0));
    while trainer.advance(1).expect("a step") != Advance::Done {
        while trainer.in_flight() > 1 {
            if let Some(Event::Steps { .. }) = block_on(trainer.event()).expect("an event") {
                steps += 1;
            }
        }
        let now = (owned.buffers(), owned.bytes());
        if steps < 200 {
            base = (now.0.max(base.0), now.1.max(base.1));
        } else {
            most = (now.0.max(most.0), now.1.max(most.1));
        }
    }
    assert!(steps > 2000, "{steps} steps");
    eprintln!(
        "buffers and bytes: {base:?} at most in the first 200 steps, {most:?} in the next {}",
        steps - 200
    );
    // What the device has not let go of yet differs from moment to moment.
    assert!(most.0 <= base.0 + 4, "{most:?} buffers and bytes, {base:?} at first");
    assert!(most.1 <= base.1 + (1 << 20), "{most:?} buffers and bytes, {base:?} at first");

    drop(trainer);
    owned.device.poll(wgpu::PollType::wait_indefinitely()).expect("an idle device");
    assert_eq!(owned.buffers(), 0, "all buffers go with the trainer");
}

#[test]
fn a_lost_device_is_an_error_wherever_it_is_noticed() {
    fn lost<T>(what: &str, result: Result<T>) {
        match result {
            Err(Error::DeviceLost(_)) => {}
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what}: nobody noticed"),
        }
    }
    let [_, test] = data();
    for moment in 0..8 {
        let Some(owned) = owned() else { return };
        let lent = owned.lent();
        let mut trainer = trainer(Some(&lent), 0).expect("a trainer");
        if moment < 4 {
            // Something is in flight.
            trainer.advance(2).expect("steps");
        } else {
            trainer.advance(1).expect("a step");
            block_on(trainer.event()).expect("an event");
        }
        owned.device.destroy();
        match moment {
            0 => lost("event", block_on(trainer.event())),
            1 => loop {
                match trainer.poll() {
                    Ok(None) => std::thread::yield_now(),
                    result => break lost("poll", result),
                }
            },
            2 => lost("advance in flight", trainer.advance(1).and_then(|_| trainer.advance(1))),
            3 => lost("evaluate in flight", block_on(trainer.session().evaluate(test.len()))),
            4 => lost("advance", trainer.advance(1).and_then(|_| trainer.advance(1))),
            5 => lost("predict", block_on(trainer.session().predict(&test.images.all().expect("in memory")))),
            6 => lost("snapshot", block_on(trainer.snapshot())),
            _ => lost("another trainer", self::trainer(Some(&lent), 0).and_then(|mut next| next.advance(1))),
        }
        drop(trainer);
        assert_eq!(owned.told.load(Ordering::Relaxed), 0, "the owner's handler was told of errors of ours");
    }
}

#[test]
fn a_session_that_trained_before_starts_afresh() {
    let [train, test] = data();
    let Some(owned) = owned() else { return };
    let lent = owned.lent();
    for device in [None, Some(&lent)] {
        let fresh = Notes::default().finish(&mut trainer(device, 0).expect("a trainer"), 3);
        let mut used = trainer(device, 9).expect("a trainer");
        used.advance(4).expect("steps");
        let mut again =
            Trainer::new(used.into_session(), settings(0), train, test).expect("a trainer of a used session");
        assert_eq!(Notes::default().finish(&mut again, 3), fresh);
    }
}

#[test]
fn slices_of_any_size_give_the_same_bits() {
    let whole = Notes::default().finish(&mut trainer(None, 0).expect("a trainer"), 1000);
    for most in [1, 2, 7] {
        assert_eq!(Notes::default().finish(&mut trainer(None, 0).expect("a trainer"), most), whole);
    }
    // Without waiting, and with the evaluation in slices of one batch.
    let mut polled = trainer(None, 0).expect("a trainer");
    let (mut notes, mut slices) = (Notes::default(), 0);
    loop {
        match polled.advance(1).expect("a step") {
            Advance::Done => break,
            Advance::Evaluating(batches) => {
                assert_eq!(batches, 1);
                slices += 1;
            }
            Advance::Queued(_) | Advance::Waiting => {}
        }
        while let Some(event) = polled.poll().expect("an event") {
            notes.add(event);
        }
    }
    // 70 images in batches of 32, twice.
    assert_eq!(slices, 6);
    assert_eq!(notes.finish(&mut polled, 1), whole);
}

#[test]
fn a_run_resumes_before_its_epoch_was_evaluated() {
    let whole = Notes::default().finish(&mut trainer(None, 0).expect("a trainer"), 1000);
    for evaluated in 0..2 {
        let mut first = trainer(None, 0).expect("a trainer");
        let mut notes = Notes::default();
        first.advance(5).expect("steps");
        for _ in 0..evaluated {
            assert_eq!(first.advance(1).expect("a batch"), Advance::Evaluating(1));
        }
        while let Some(event) = first.poll().expect("an event") {
            notes.add(event);
        }
        assert_eq!((notes.steps.len(), notes.epochs.len()), (5, 0));
        let snapshot = block_on(first.snapshot()).expect("a snapshot");
        let mut second = trainer(None, 0).expect("a trainer");
        second.restore(&snapshot).expect("a snapshot that fits");
        assert_eq!(notes.finish(&mut second, 1000), whole);
    }
}

#[test]
fn a_snapshot_is_of_what_was_reported() {
    let Some(owned) = owned() else { return };
    let mut trainer = trainer(Some(&owned.lent()), 0).expect("a trainer");
    trainer.advance(3).expect("steps");
    let early = block_on(trainer.snapshot());
    assert!(matches!(early, Err(Error::Settings(_))), "a snapshot while three steps were in flight");
    let mut notes = Notes::default();
    notes.add(block_on(trainer.event()).expect("an event").expect("three steps"));
    let snapshot = trainer.snapshot();
    let whole = notes.finish(&mut trainer, 3);
    // It is taken before the steps that were queued after it.
    let snapshot = block_on(snapshot).expect("a snapshot");
    assert_eq!(snapshot.position.step, 3);
    let mut resumed = self::trainer(Some(&owned.lent()), 0).expect("a trainer");
    resumed.restore(&snapshot).expect("a snapshot that fits");
    while resumed.advance(3).expect("steps") != Advance::Done {
        while block_on(resumed.event()).expect("an event").is_some() {}
    }
    let parameters = block_on(resumed.session().parameters()).expect("parameters");
    assert_eq!(parameters.into_iter().map(f32::to_bits).collect::<Vec<_>>(), whole.parameters);
}

#[test]
fn answers_arrive_without_waiting_and_in_order() {
    let [_, test] = data();
    let Some(owned) = owned() else { return };
    let mut trainer = trainer(Some(&owned.lent()), 0).expect("a trainer");
    let session = trainer.session();
    // 70 pictures: two whole batches and a part of one, all queued at once.
    let mut answer = session.predict(&test.images.all().expect("in memory"));
    let parts: Vec<f32> = (0..3)
        .flat_map(|part| {
            let end = test.images.len().min((part + 1) * 32 * 784);
            block_on(session.predict(&test.images.get(part * 32 * 784..end).expect("in memory")))
                .expect("probabilities")
        })
        .collect();
    let mut taken = None;
    while taken.is_none() {
        taken = answer.take();
    }
    assert_eq!(taken.and_then(Result::ok), Some(parts));
    assert!(answer.take().is_none(), "an answer is given once");
    assert!(matches!(block_on(session.predict(&[0; 783])), Err(Error::Settings(_))));
    assert!(block_on(session.predict(&[])).expect("no probabilities").is_empty());
}

#[test]
fn labels_are_smoothed_in_training_only() {
    let [train, test] = data();
    let judged = |smoothing| {
        let settings = Settings { smoothing, ..settings(0) };
        let plan = Plan::new(&network(), &Trainer::options(&settings, train, test)).expect("a plan");
        let backend = Backend::cpu(&plan.program);
        let mut trainer =
            Trainer::new(Session::new(plan, backend), settings, train, test).expect("a trainer");
        let loss = block_on(trainer.session().evaluate(70)).expect("metrics").loss();
        trainer.advance(1).expect("a step");
        let Some(Event::Steps { metrics, .. }) = block_on(trainer.event()).expect("an event") else {
            panic!("steps come first")
        };
        (loss, metrics[0].loss())
    };
    let [plain, smoothed] = [judged(0.0), judged(0.3)];
    assert_eq!(plain.0, smoothed.0);
    assert_ne!(plain.1, smoothed.1);
}

#[test]
fn what_does_not_fit_is_refused() {
    let [train, test] = data();
    let mut trainer = trainer(None, 0).expect("a trainer");
    assert!(matches!(block_on(trainer.session().evaluate(71)), Err(Error::Settings(_))));
    assert_eq!(block_on(trainer.session().evaluate(70)).expect("metrics").count, 70);
    let mut session = trainer.into_session();
    for other in [Settings { batch: 64, ..settings(0) }, Settings { smoothing: 0.1, ..settings(0) }] {
        let refused = Trainer::new(session, other, train, test);
        assert!(matches!(refused, Err(Error::Settings(_))), "a plan for other settings");
        let plan = plan(0);
        session = Session::new(plan, Backend::cpu(&self::plan(0).program));
    }
    let refused = Trainer::new(session, settings(0), test, train);
    assert!(matches!(refused, Err(Error::Settings(_))), "more images than the plan has room for");
}
