//! Digits on sheets as people photograph, scan and draw them are read as they are where they are clean.
#![cfg(feature = "mnist")]

#[path = "../common/mod.rs"]
mod common;
mod sheet;

use common::Random;
use lenet::backend::Backend;
use lenet::data::{self, Dataset, picture};
use lenet::network::Network;
use lenet::plan::{Options, Plan};
use lenet::session::Session;
use lenet::train::{Settings, Trainer};
use pollster::block_on;
use rayon::prelude::*;
use sheet::{KINDS, Kind};

/// Digits of each kind.
const COUNT: usize = 300;

/// LeNet-5 after two passes over MNIST.
fn trained(train: &Dataset, test: &Dataset) -> Vec<Vec<f32>> {
    let network = Network::preset("lenet5").expect("a preset");
    let settings = Settings { epochs: 2, ..Settings::default() };
    let test = test.clone().take(32);
    let plan = Plan::new(&network, &Trainer::options(&settings, train, &test)).expect("a plan");
    let backend = Backend::cpu(&plan.program);
    let mut trainer = Trainer::new(Session::new(plan, backend), settings, train, &test).expect("a trainer");
    while trainer.position().step < trainer.total_steps() {
        trainer.advance(64).expect("steps");
        while trainer.poll().expect("events").is_some() {}
    }
    let flat = block_on(trainer.session().parameters()).expect("parameters");
    trainer.session().plan().split(&flat).map(|(_, values)| values.to_vec()).collect()
}

/// A network that judges pictures of 28×28.
struct Judge(Session);

impl Judge {
    fn new(parameters: &[Vec<f32>]) -> Judge {
        let network = Network::preset("lenet5").expect("a preset");
        let plan = Plan::new(&network, &Options { batch: 128, ..Options::default() }).expect("a plan");
        let backend = Backend::cpu(&plan.program);
        let mut session = Session::new(plan, backend);
        session.set_parameters(parameters.iter().map(Vec::as_slice)).expect("parameters");
        Judge(session)
    }

    fn classes(&mut self, pictures: &[Vec<u8>]) -> Vec<u8> {
        let probabilities = block_on(self.0.predict(&pictures.concat())).expect("probabilities");
        let largest =
            |row: &[f32]| (0..10u8).max_by(|&a, &b| row[usize::from(a)].total_cmp(&row[usize::from(b)]));
        probabilities.chunks_exact(10).filter_map(largest).collect()
    }
}

#[test]
fn sheets_are_read_as_clean_digits_are() {
    let split = data::mnist().expect("MNIST");
    let mut judge = Judge::new(&trained(&split.train, &split.test));
    let data = &split.test;
    let mut wrong = Vec::new();
    for kind in KINDS {
        let digits: Vec<(Vec<u8>, u8)> = (0..COUNT)
            .map(|i| {
                let digit = data.image(i).expect("a picture").into_owned();
                let digit = match kind {
                    Kind::Pieces => sheet::broken(&digit, &mut Random(i as u64)),
                    _ => digit,
                };
                (digit, data.labels[i])
            })
            .collect();
        let clean: Vec<Vec<u8>> = digits.iter().map(|(digit, _)| digit.clone()).collect();
        let known = judge.classes(&clean);
        let digits: Vec<_> = digits
            .iter()
            .enumerate()
            .zip(known)
            .filter(|((_, (_, label)), known)| label == known)
            .map(|(digit, _)| digit)
            .collect();
        let seen: Vec<Vec<u8>> = digits
            .par_iter()
            .map(|(i, (digit, _))| {
                let file = sheet::sheet(kind, digit, *i as u64);
                let seen = picture::prepare(&file, "a sheet", 28, 28);
                seen.map_or_else(|_| vec![0; 784], |(pixels, _)| pixels)
            })
            .collect();
        let classes = judge.classes(&seen);
        let right = classes.iter().zip(&digits).filter(|(class, (_, (_, label)))| *class == label).count();
        println!(
            "{kind:?}: {right} of {} ({:.1} %)",
            digits.len(),
            100.0 * right as f64 / digits.len() as f64
        );
        // A shadow's edge that runs through a digit is the hardest.
        let least = if kind == Kind::Hand { 98 } else { 99 };
        if right * 100 < digits.len() * least {
            wrong.push((kind, right, digits.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
