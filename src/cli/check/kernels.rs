//! Every entry point of every shader, and one training step of every preset, against the CPU twins.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use lenet::Network;
use lenet::check::{self, Case, Verdict};
use lenet::kernels::SHADERS;
use lenet::network::Placed;
use lenet::plan::Options;
use pollster::block_on;
use serde_json::json;

use super::data::Pictures;
use super::part::{End, PATIENCE, Part, bounded, timed};
use crate::cli::device::Chosen;
use crate::cli::failure::{Failure, Outcome};

/// Images of the step of a preset: a block and one of the next.
const BATCH: usize = 17;

/// Presets that a software adapter is soon done with, counted from the one with the fewest multiply-adds.
const LIGHT: usize = 4;

/// Words of a case's buffers up to which a software adapter is soon done.
const SMALL: usize = 50_000;

/// The cases that show each entry point once: the largest of those that are small, where there are any.
fn each_entry_once(mut cases: Vec<Case>) -> Vec<Case> {
    let words = |case: &Case| case.program.buffers.iter().map(|buffer| buffer.len).sum::<usize>();
    cases.sort_by_key(|case| (words(case) > SMALL, Reverse(words(case))));
    let mut seen = BTreeSet::new();
    cases.retain(|case| {
        let new: Vec<_> = case.program.train.iter().map(|launch| launch.entry.name).collect();
        let before = seen.len();
        seen.extend(new);
        seen.len() > before
    });
    cases
}

/// Every entry point with the device's own tiles, its outputs poisoned before.
pub fn entries(chosen: &Arc<Chosen>, reduced: bool, hung: &mut bool) -> Part {
    let entries: usize = SHADERS.iter().map(|shader| shader.entries.len()).sum();
    let mut what =
        format!("{entries} entry points of {} shaders at fill {}", SHADERS.len(), chosen.target().fill);
    if reduced {
        what += ", reduced to a case or so of each";
    }
    timed(|| {
        // A share of what rounding explains.
        let mut part = Part { allowed: Some(1.0), ..Part::new("kernels", what) };
        for shader in check::shaders() {
            let (start, device) = (Instant::now(), chosen.clone());
            let judged = bounded(PATIENCE, move || judge(&device, shader, reduced));
            let (cases, verdict) = match judged {
                Ok(judged) => judged,
                Err(end) => {
                    part.fail(format!("{shader}: {}", end.message()));
                    if matches!(end, End::Hangs(_)) {
                        *hung = true;
                        break;
                    }
                    continue;
                }
            };
            part.difference(verdict.worst, format!("{shader}: {}", verdict.place));
            verdict.failures.iter().for_each(|failure| part.fail(format!("{shader}: {failure}")));
            part.notes.extend(verdict.notes.iter().map(|note| format!("{shader}: {note}")));
            part.rows.push(json!({
                "shader": shader,
                "cases": cases,
                "elements": verdict.elements,
                "worst_share": verdict.worst,
                "place": verdict.place,
                "failures": verdict.failures.len(),
                "seconds": start.elapsed().as_secs_f64(),
            }));
        }
        part
    })
}

fn judge(chosen: &Chosen, shader: &str, reduced: bool) -> Outcome<(usize, Verdict)> {
    let device = chosen.gpu().ok_or_else(|| Failure::device("there is no GPU"))?;
    let mut cases = check::cases(shader, chosen.target().fill)?;
    if reduced {
        cases = each_entry_once(cases);
    }
    let mut verdict = Verdict::default();
    for case in &cases {
        verdict.add(block_on(case.judge(device))?);
    }
    if verdict.elements == 0 {
        return Err(Failure::device(format!("{shader}: nothing was compared")));
    }
    Ok((cases.len(), verdict))
}

/// One training step of every preset.
pub fn presets(chosen: &Arc<Chosen>, pictures: &Arc<Pictures>, reduced: bool, hung: &mut bool) -> Part {
    let mut names: Vec<&'static str> = Network::presets().collect();
    let all = names.len();
    if reduced {
        names.sort_by_key(|preset| macs(preset).unwrap_or(u64::MAX));
        names.truncate(LIGHT);
    }
    let mut what = format!("a training step of {} presets at batch {BATCH}", names.len());
    if names.len() < all {
        what += &format!(", the smallest of {all}");
    }
    timed(|| {
        // A share of what rounding explains.
        let mut part = Part { allowed: Some(1.0), ..Part::new("presets", what) };
        for preset in names {
            let (start, device, pictures) = (Instant::now(), chosen.clone(), pictures.clone());
            match bounded(PATIENCE, move || step(&device, &pictures, preset)) {
                Ok((data, difference)) => {
                    let share = difference.gradients / difference.allowed.gradients;
                    part.difference(share, format!("{preset}: gradient of {}", difference.tensor));
                    part.rows.push(json!({
                        "preset": preset,
                        "data": data,
                        "difference": difference,
                        "seconds": start.elapsed().as_secs_f64(),
                    }));
                }
                Err(end) => {
                    part.fail(format!("{preset}: {}", end.message()));
                    if matches!(end, End::Hangs(_)) {
                        *hung = true;
                        break;
                    }
                }
            }
        }
        part
    })
}

/// Multiply-adds of an image, forward.
fn macs(preset: &str) -> Outcome<u64> {
    let placed = Network::preset(preset)?.place()?;
    Ok(placed.iter().flat_map(Placed::all).map(|(_, layer)| layer.multiply_adds).sum())
}

fn step(chosen: &Chosen, pictures: &Pictures, preset: &str) -> Outcome<(String, check::Difference)> {
    let device = chosen.gpu().ok_or_else(|| Failure::device("there is no GPU"))?;
    let network = Network::preset(preset)?;
    let data = pictures.of(&network, BATCH)?;
    let options = Options { batch: BATCH, target: chosen.target(), ..Options::default() };
    let flat = super::data::initial(&network, &options)?;
    let difference = block_on(check::against_cpu(device, &network, &options, &data, &flat))?;
    Ok((data.name, difference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reduced_check_still_shows_every_entry_point() {
        for shader in SHADERS {
            let cases = each_entry_once(check::cases(shader.name, 256).unwrap());
            let launches = cases.iter().flat_map(|case| &case.program.train);
            let seen: BTreeSet<_> = launches.map(|launch| launch.entry.name).collect();
            let all: BTreeSet<_> = shader.entries.iter().map(|entry| entry.name).collect();
            assert_eq!(seen, all, "{}", shader.name);
            assert!(cases.len() <= all.len());
        }
    }
}
