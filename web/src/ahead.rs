//! A network compiled ahead, while the data is on its way, for the laboratory that opens first.

use std::cell::RefCell;

use lenet::backend::{Backend, Gpu, gpu};
use lenet::data::Dataset;
use lenet::plan::{Options, Plan};
use lenet::train::Trainer;
use lenet::{Error, Network};
use wasm_bindgen::prelude::*;

use crate::settings::Settings;
use crate::{Result, device, thrown};

/// A plan and all that it needs on the GPU.
struct Ahead {
    plan: Plan,
    made: Gpu,
}

thread_local! {
    static AHEAD: RefCell<Option<Ahead>> = const { RefCell::new(None) };
}

/// Compiles the shaders for `settings` (JSON) on the GPU, for a [`Lab::open`](crate::Lab::open) with the same settings
/// to take, provided that there are as many pictures as they say. Gives the number of pipelines.
#[wasm_bindgen]
pub async fn warm(settings: String) -> Result<usize> {
    let device = device().await?;
    let made = make(&settings, &device).await.map_err(thrown)?;
    let pipelines = made.made.pipelines();
    AHEAD.set(Some(made));
    Ok(pipelines)
}

async fn make(settings: &str, device: &gpu::Device) -> Result<Ahead, Error> {
    let plan = plan(settings, device)?;
    let made = Gpu::new(device, &plan.program).await?;
    Ok(Ahead { plan, made })
}

/// Asks the browser for every pipeline of what `settings` describe, and keeps none. Gives their number.
#[wasm_bindgen]
pub async fn rehearse(settings: String) -> Result<usize> {
    let device = device().await?;
    let plan = plan(&settings, &device).map_err(thrown)?;
    gpu::compile(&device, &plan.program).await.map_err(thrown)
}

fn plan(settings: &str, device: &gpu::Device) -> Result<Plan, Error> {
    let settings = Settings::parse(settings)?;
    let nothing = Dataset::new("nothing", [1, 28, 28], 10, Vec::new(), Vec::new())?;
    let options = Options {
        train_images: settings.images,
        eval_images: settings.test_images,
        target: device.target(),
        ..Trainer::options(&settings.training()?, &nothing, &nothing)
    };
    Plan::within(&settings.network()?, &options, device.memory())
}

/// What was compiled ahead, if it is this network with these options, on a device that is still there. What is not
/// taken is given up.
pub fn take(network: &Network, options: &Options) -> Option<(Plan, Backend)> {
    let Ahead { plan, made } = AHEAD.take()?;
    let same = plan.network == *network && plan.options == *options && made.device().lost().is_none();
    same.then_some((plan, Backend::Gpu(made)))
}
