//! What a browser is asked to prove in tests: the pipelines of every preset, and data sets larger than a binding.

use std::sync::Arc;

use lenet::backend::{Backend, gpu};
use lenet::data::Dataset;
use lenet::plan::{Form, Memory, Options, Plan};
use lenet::session::{Metrics, Session};
use lenet::train::{self, Advance, Event, Trainer};
use lenet::{Error, Network};
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::{Result, device, thrown};

/// Has the browser compile every pipeline of a preset, whose step has one of the forms of `lenet train --form`; says how
/// many there are.
#[wasm_bindgen]
pub async fn pipelines(preset: String, form: String) -> Result<usize> {
    let known = Form::ALL.into_iter().find(|known| known.name() == form);
    let form = known.ok_or_else(|| thrown(Error::Settings(format!("there is no form called {form}"))))?;
    let device = device().await?;
    let network = Network::preset(&preset).map_err(thrown)?;
    let options = Options { batch: 16, form, target: device.target(), ..Options::default() };
    let plan = Plan::new(&network, &options).map_err(thrown)?;
    gpu::compile(&device, &plan.program).await.map_err(thrown)
}

/// What WebGPU grants everywhere to one binding.
const LEAST: Memory = Memory { buffer: 128 << 20, total: u64::MAX };

/// Steps of a trial.
const STEPS: u64 = 9;

/// Trains a small network for a few steps on `count` made pictures, `[channels, side, side]`, where a buffer holds no
/// more than 128 MiB of them: on the GPU and on the CPU twins. JSON: `bytes` of all pictures, `held` of all buffers on
/// the GPU, `streamed`, and the losses on `gpu` and `cpu`.
#[wasm_bindgen]
pub async fn stream(channels: usize, side: usize, classes: usize, count: usize) -> Result<String> {
    let device = device().await?;
    let [held, streamed, gpu, cpu, bytes] =
        trial(&device, [channels, side, side], classes, count).await.map_err(thrown)?;
    Ok(json!({ "bytes": bytes, "held": held, "streamed": streamed, "gpu": gpu, "cpu": cpu }).to_string())
}

async fn trial(
    device: &gpu::Device,
    shape: [usize; 3],
    classes: usize,
    count: usize,
) -> Result<[serde_json::Value; 5], Error> {
    let pixels = shape.iter().product::<usize>();
    // A picture's pixels and label follow from its index.
    let images: Vec<u8> = (0..count * pixels).map(|i| (i / pixels * 31 + i % pixels * 7) as u8).collect();
    let labels = (0..count).map(|n| (n * 13 % classes) as u8).collect();
    let bytes = images.len();
    let data = Arc::new(Dataset::new("made", shape, classes, images, labels)?);
    let test = Arc::new(data.first(40));
    let network = Network::parse(&format!(
        "name = \"small\"\ninput = {{ channels = {}, height = {}, width = {} }}\nlayers = [\n    \
         {{ conv2d = {{ channels = 4, kernel = 5 }} }},\n    \"relu\",\n    {{ max_pool2d = {{ kernel = 2 }} }},\n    \
         \"flatten\",\n    {{ linear = {{ outputs = {classes} }} }},\n]\n",
        shape[0], shape[1], shape[2]
    ))?;
    let settings = train::Settings { batch: 32, steps: Some(STEPS), ..train::Settings::default() };
    let (mut losses, mut held, mut streamed) = (Vec::new(), 0, false);
    for on in [Some(device), None] {
        let options = Options {
            target: on.map_or_else(Default::default, gpu::Device::target),
            ..Trainer::options(&settings, &data, &test)
        };
        let plan = Plan::within(&network, &options, LEAST)?;
        let backend = match on {
            Some(device) => {
                (held, streamed) = (plan.program.bytes(), plan.options.stream.is_some());
                Backend::gpu(device, &plan.program).await?
            }
            None => Backend::cpu(&plan.program),
        };
        let session = Session::new(plan, backend);
        let mut trainer = Trainer::shared(session, settings.clone(), &data, &test)?;
        let mut of_steps = Vec::new();
        while trainer.advance(4)? != Advance::Done {
            while let Some(event) = trainer.event().await? {
                if let Event::Steps { metrics, .. } = event {
                    of_steps.extend(metrics.iter().map(Metrics::loss));
                }
            }
        }
        losses.push(of_steps);
    }
    let cpu = losses.pop();
    Ok([json!(held), json!(streamed), json!(losses.pop()), json!(cpu), json!(bytes)])
}
