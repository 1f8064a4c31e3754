//! Proves that every entry point of every shader computes what its CPU twin computes, and writes nothing else.

// A list of one range is a list of ranges here; and a comparison with NaN must count as a failure.
#![allow(clippy::single_range_in_vec_init, clippy::neg_cmp_op_on_partial_ord)]

use std::collections::BTreeSet;
use std::fs;

use lenet::kernels::SHADERS;

mod activation;
mod batch;
#[path = "../common/mod.rs"]
mod common;
mod conv2d;
mod conv_pool;
mod depthwise;
mod dropout;
mod harness;
mod join;
mod limits;
mod linear;
mod loss;
mod lrn;
mod norm;
mod optimizer;
mod peak;
mod pool2d;
mod rbf;
mod squared_error;
mod whole;

use harness::*;

/// Makes the cases of one shader.
type Cases = fn() -> Vec<Case>;

/// Every shader's cases.
const TABLE: [(&str, Cases); 16] = [
    ("activation", activation::cases),
    ("batch", batch::cases),
    ("conv2d", conv2d::cases),
    ("conv_pool", conv_pool::cases),
    ("depthwise", depthwise::cases),
    ("dropout", dropout::cases),
    ("join", join::cases),
    ("linear", linear::cases),
    ("loss", loss::cases),
    ("lrn", lrn::cases),
    ("norm", norm::cases),
    ("optimizer", optimizer::cases),
    ("peak", peak::cases),
    ("pool2d", pool2d::cases),
    ("rbf", rbf::cases),
    ("squared_error", squared_error::cases),
];

fn check(shader: &str) {
    let (_, cases) = TABLE.iter().find(|(name, _)| *name == shader).expect("a shader of the table");
    let Some(device) = common::gpu() else { return };
    let failures: Vec<String> = cases().iter().flat_map(|case| case.failures(&device)).collect();
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
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
    let mut tested = BTreeSet::new();
    for (shader, cases) in TABLE {
        for case in cases() {
            for launch in &case.program.train {
                assert_eq!(launch.shader.name, shader, "{} is in another shader's table", case.name);
                tested.insert((launch.shader.name, launch.entry.name));
            }
        }
    }
    let all: BTreeSet<_> = SHADERS
        .iter()
        .flat_map(|shader| shader.entries.iter().map(move |entry| (shader.name, entry.name)))
        .collect();
    let missing: Vec<_> = all.difference(&tested).collect();
    assert!(missing.is_empty(), "no case in tests/kernels/ for {missing:?}");
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
    let families: [(&str, Cases); 3] =
        [("conv2d", conv2d::cases), ("depthwise", depthwise::cases), ("linear", linear::cases)];
    for (shader, cases) in families {
        let cases = cases();
        let found = constants(&cases, ["SPLITS", "BLOCKS"]);
        let any = |kind: fn(usize, usize) -> bool| found.iter().any(|&[splits, blocks]| kind(splits, blocks));
        assert!(any(|splits, blocks| splits == 1 && blocks == 1), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits == 1 && blocks > 1), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits > 1 && splits == blocks), "{shader}: {found:?}");
        assert!(any(|splits, blocks| splits > 1 && splits < blocks), "{shader}: {found:?}");
    }
    let cases = conv2d::cases();
    for names in [["COLUMNS", "CHANNELS"], ["IN_COLUMNS", "IN_TILE"]] {
        let found = constants(&cases, names);
        for tile in [[4, 4], [4, 8], [8, 4], [8, 8]] {
            assert!(found.contains(&tile), "{names:?}: {found:?}");
        }
    }
    let cases = conv_pool::cases();
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
