//! The first time on a device: before anything is trained on it, one training step is compared with the CPU's, and the
//! adapter with its driver is remembered in the user's cache.

use std::env::var_os;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use lenet::Network;
use lenet::check::{self, Difference};
use lenet::data::Dataset;
use lenet::files::write_atomically;
use lenet::kernels::augment::Augment;
use lenet::plan::{Options, Plan};
use pollster::block_on;
use serde::{Deserialize, Serialize};

use crate::cli::device::Chosen;
use crate::cli::failure::{Failure, Outcome};

/// When `lenet train` compares a step with the CPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a GPU whose driver was never checked.
    Auto,
    /// Each time, also on a software adapter.
    Always,
    Never,
}

/// Images of the step at most: enough to fill every kind of tile, few enough to take no time.
const BATCH: usize = 64;

/// Which adapter was checked, under which driver, by which version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    adapter: String,
    driver: String,
    driver_info: String,
    backend: String,
    version: String,
}

impl Known {
    fn of(info: &wgpu::AdapterInfo) -> Known {
        Known {
            adapter: info.name.clone(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            backend: info.backend.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The user's cache folder, by the custom of the operating system.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let below_home = |rest: &str| folder("HOME").map(|home| home.join(rest));
    if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        below_home("Library/Caches")
    } else {
        folder("XDG_CACHE_HOME").or_else(|| below_home(".cache"))
    }
}

/// What was checked before; nothing where the file is missing or is not one of ours.
fn remembered(file: &Path) -> Vec<Known> {
    let text = fs::read(file).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Adds an adapter to the file.
fn remember(file: &Path, known: Known) -> Outcome {
    let mut all = remembered(file);
    if all.contains(&known) {
        return Ok(());
    }
    all.push(known);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| Failure::io(folder, &error))?;
    }
    let text = serde_json::to_vec_pretty(&all).unwrap_or_default();
    Ok(write_atomically(file, &text)?)
}

/// Compares a step of the network with the CPU's, if it is time to; gives what is to be said about it.
///
/// A network, options and data as those of the run; the pictures are taken as they are, because their distortion is no
/// part of the network.
pub fn check(
    when: When,
    chosen: &Chosen,
    network: &Network,
    options: &Options,
    data: &Dataset,
    seed: u64,
) -> Outcome<Option<String>> {
    let Some(device) = chosen.gpu() else { return Ok(None) };
    let known = Known::of(&device.device().adapter_info());
    let file = cache().map(|cache| cache.join("lenet").join("checked.json"));
    let needed = match when {
        When::Always => true,
        When::Never => false,
        When::Auto => chosen.is_gpu() && !file.iter().any(|file| remembered(file).contains(&known)),
    };
    if !needed {
        return Ok(None);
    }
    let batch = options.batch.min(BATCH);
    let (augment, target) = (Augment::NONE, chosen.target());
    let options = Options { batch, augment, target, train_images: batch, eval_images: 1, ..options.clone() };
    let data = data.first(batch);
    let plan = Plan::new(network, &options)?;
    let first = network.initial(seed)?;
    let flat = plan.join(first.iter().map(Vec::as_slice))?;
    let difference = judged(block_on(check::against_cpu(device, network, &options, &data, &flat)))?;
    let mut line = format!("checked: a training step on this device is the CPU's ({difference})");
    match file.as_deref().map(|file| remember(file, known)) {
        Some(Ok(())) => line += "; remembered",
        // Then it is checked again the next time.
        Some(Err(failure)) => line += &format!("; not remembered: {failure}"),
        None => line += "; not remembered: there is no cache folder",
    }
    Ok(Some(line))
}

/// A difference that is too large says what to do about it.
fn judged(difference: lenet::Result<Difference>) -> Outcome<Difference> {
    difference.map_err(|error| {
        let mut failure = Failure::from(error);
        failure.message += "; nothing was trained: --device cpu trains without it, \
                            and lenet check --report check.json says more";
        failure
    })
}

#[cfg(test)]
mod tests {
    use lenet::backend::Backend;
    use lenet::check::Reference;
    use lenet::session::Session;

    use super::*;
    use crate::cli::failure::code;
    use crate::cli::measure::noise;

    fn known(driver_info: &str) -> Known {
        let text = |text: &str| text.to_string();
        Known {
            adapter: text("a GPU"),
            driver: text("a driver"),
            driver_info: text(driver_info),
            backend: text("vulkan"),
            version: text("1.0"),
        }
    }

    #[test]
    fn a_driver_is_remembered_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/lenet/checked.json");
        assert!(remembered(&file).is_empty());
        for version in ["550", "550", "555"] {
            remember(&file, known(version)).unwrap();
        }
        assert_eq!(remembered(&file), [known("550"), known("555")]);
        // What is not a list of adapters is no memory, and is replaced.
        fs::write(&file, "{ \"adapter\": 3 }").unwrap();
        assert!(remembered(&file).is_empty());
        remember(&file, known("550")).unwrap();
        assert_eq!(remembered(&file), [known("550")]);
        // A folder that cannot be made is told.
        assert!(remember(&file.join("lenet/checked.json"), known("550")).is_err());
    }

    #[test]
    fn a_step_that_differs_is_refused() {
        let network = Network::preset("lenet5").unwrap();
        let options = Options { batch: 5, train_images: 5, ..Options::default() };
        let data = noise(&network, 5).unwrap();
        let plan = || Plan::new(&network, &options).unwrap();
        let flat = |wrong: f32| {
            let mut first = network.initial(1).unwrap();
            first[9][0] += wrong;
            plan().join(first.iter().map(Vec::as_slice)).unwrap()
        };
        let reference = block_on(Reference::new(&network, &options, &data, flat(0.0))).unwrap();
        // A device with a mistake is one that adds something to the first logit.
        let compared = |wrong: f32| {
            let plan = plan();
            let (range, backend) = (plan.parameters, Backend::cpu(&plan.program));
            let mut session = Session::new(plan, backend);
            session.set_training(&data).unwrap();
            session.backend().write(range, bytemuck::cast_slice(&flat(wrong))).unwrap();
            let got = block_on(check::trace(&mut session)).unwrap();
            judged(block_on(reference.compare("it", &got)))
        };
        assert!(compared(0.0).is_ok());
        let failure = compared(0.5).unwrap_err();
        assert_eq!(failure.code, code::DEVICE);
        for part in
            ["the gradient of fc", "of a training step differs by", "--device cpu", "lenet check --report"]
        {
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}
