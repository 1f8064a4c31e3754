//! Proves that every entry point of every shader computes what its CPU twin computes, and writes nothing else.
//!
//! The cases are the library's ([`lenet::check::cases`]): `lenet check` runs the same ones on a user's device.

use std::collections::BTreeSet;
use std::fs;

use lenet::check::{self, Case};
use lenet::kernels::{Launch, SHADERS};
use pollster::block_on;

mod batch;
#[path = "../common/mod.rs"]
mod common;
mod depthwise;
mod join;
mod limits;
mod loss;
mod lrn;
mod whole;

/// Invocations that fill a CPU, an integrated and a discrete GPU: each has tiles of its own.
const FILLS: [usize; 3] = [256, 4_096, 16_384];

/// A shader's cases for devices of every size; those that are the same for several of them once.
fn cases(shader: &str) -> Vec<Case> {
    let mut seen = BTreeSet::new();
    let all = FILLS.into_iter().flat_map(|fill| check::cases(shader, fill).expect("launches"));
    let launches = |case: &Case| {
        let lens: Vec<usize> = case.program.buffers.iter().map(|buffer| buffer.len).collect();
        let one = |launch: &Launch| format!("{launch:?} {:?}", launch.constants);
        let launches: Vec<String> = case.program.train.iter().map(one).collect();
        format!("{launches:?} {lens:?} {:?}", case.steps)
    };
    all.filter(|case| seen.insert(launches(case))).collect()
}

fn check(shader: &str) {
    let Some(device) = common::gpu() else { return };
    let cases = cases(shader);
    assert!(!cases.is_empty(), "{shader} has no case");
    let mut verdict = check::Verdict::default();
    for case in &cases {
        match block_on(case.judge(&device)) {
            Ok(one) => verdict.add(one),
            Err(error) => verdict.failures.push(format!("{}: {error}", case.name)),
        }
    }
    let failures = &verdict.failures;
    assert!(verdict.notes.is_empty(), "NaNs are left out\n{}", verdict.notes.join("\n"));
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(verdict.elements > 0, "{shader}: nothing was compared");
    eprintln!(
        "{shader}: {} cases, {} elements, at most {:.0}% of the tolerance ({})",
        cases.len(),
        verdict.elements,
        100.0 * verdict.worst,
        verdict.place
    );
}

#[test]
fn activation() {
    check("activation");
}

#[test]
fn batch() {
    check("batch");
}

#[test]
fn conv2d() {
    check("conv2d");
}

#[test]
fn conv_pool() {
    check("conv_pool");
}

#[test]
fn depthwise() {
    check("depthwise");
}

#[test]
fn dropout() {
    check("dropout");
}

#[test]
fn join() {
    check("join");
}

#[test]
fn linear() {
    check("linear");
}

#[test]
fn loss() {
    check("loss");
}

#[test]
fn lrn() {
    check("lrn");
}

#[test]
fn norm() {
    check("norm");
}

#[test]
fn optimizer() {
    check("optimizer");
}

#[test]
fn peak() {
    check("peak");
}

#[test]
fn plain_lenet5() {
    check("plain_lenet5");
}

#[test]
fn pool2d() {
    check("pool2d");
}

#[test]
fn rbf() {
    check("rbf");
}

#[test]
fn squared_error() {
    check("squared_error");
}

#[test]
fn every_entry_point_has_a_case() {
    // Whatever the device: the smallest is the one that has the fewest tiles.
    let mut tested = BTreeSet::new();
    for shader in check::shaders() {
        for case in check::cases(shader, FILLS[0]).expect("launches") {
            for launch in &case.program.train {
                assert_eq!(launch.shader.name, shader, "{} is another shader's case", case.name);
                tested.insert((launch.shader.name, launch.entry.name));
            }
        }
    }
    let all: BTreeSet<_> = SHADERS
        .iter()
        .flat_map(|shader| shader.entries.iter().map(move |entry| (shader.name, entry.name)))
        .collect();
    let missing: Vec<_> = all.difference(&tested).collect();
    assert!(missing.is_empty(), "no case in src/check/cases/ for {missing:?}");
}

/// The value of a constant in every launch that has it.
fn constants<const N: usize>(cases: &[Case], names: [&str; N]) -> BTreeSet<[usize; N]> {
    let of = |launch: &Launch, name: &str| {
        launch.constants.iter().find(|(other, _)| *other == name).map(|(_, value)| *value as usize)
    };
    let mut found = BTreeSet::new();
    for launch in cases.iter().flat_map(|case| &case.program.train) {
        let values: Vec<usize> = names.iter().filter_map(|name| of(launch, name)).collect();
        found.extend(<[usize; N]>::try_from(values));
    }
    found
}

#[test]
fn weight_gradients_have_cases_of_every_kind() {
    for shader in ["conv2d", "depthwise", "linear"] {
        let cases = cases(shader);
        let found = constants(&cases, ["SPLITS", "BLOCKS"]);
        let any = |kind: fn(usize, usize) -> bool| found.iter().any(|&[splits, blocks]| kind(splits, blocks));
        assert!(any(|splits, blocks| splits == 1 && blocks == 1), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits == 1 && blocks > 1), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits > 1 && splits == blocks), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits > 1 && splits < blocks), "{shader}: {found:?}");
    }
    let cases = cases("conv2d");
    for names in [["COLUMNS", "CHANNELS"], ["IN_COLUMNS", "IN_TILE"]] {
        let found = constants(&cases, names);
        for tile in [[4, 4], [4, 8], [8, 4], [8, 8]] {
            assert!(found.contains(&tile), "{names:?}: {found:?}");
        }
    }
    let cases = crate::cases("conv_pool");
    let found = constants(&cases, ["ROW_SPLITS", "OUT_HEIGHT"]);
    assert!(found.iter().any(|&[splits, height]| splits > 1 && height / 2 == splits), "{found:?}");
    assert!(found.iter().any(|&[splits, height]| splits > 1 && height / 2 % splits != 0), "{found:?}");
    let ends = [("COLUMNS", 2, 10), ("CHANNELS", 2, 6), ("IN_COLUMNS", 2, 14), ("IN_TILE", 2, 8)];
    for (name, least, most) in ends.into_iter().chain([("PAIRS", 1, 3), ("TAP_ROWS", 1, 2)]) {
        let found = constants(&cases, [name]);
        assert!(found.contains(&[least]) && found.contains(&[most]), "{name}: {found:?}");
    }
}

#[test]
fn every_grid_that_folds_has_a_case_of_several_rows() {
    for shader in SHADERS {
        let all = cases(shader.name);
        for entry in shader.entries.iter().filter(|entry| entry.overrides.contains(&"GRID_ROWS")) {
            let of_entry = |launch: &&Launch| launch.entry.name == entry.name;
            let launches = all.iter().flat_map(|case| &case.program.train).filter(of_entry);
            let most = launches.map(|launch| launch.grid[1]).max();
            assert!(most.is_some_and(|rows| rows > 2), "{}:{}: {most:?} rows", shader.name, entry.name);
        }
    }
}

#[test]
fn every_shader_file_is_registered() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .expect("the folder of shaders")
        .map(|entry| format!("shaders/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    let registered: BTreeSet<String> = SHADERS.iter().map(|shader| shader.file.to_string()).collect();
    assert_eq!(files, registered, "the files in shaders/, and what build.rs registered");
    for shader in SHADERS {
        assert!(!shader.entries.is_empty(), "{} has no entry point", shader.file);
    }
}
