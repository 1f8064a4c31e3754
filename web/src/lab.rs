//! One network in training, with what one may ask of it between two steps.

use std::sync::Arc;

use js_sys::{Array, Error as JsError, Float32Array, Object, Promise, Reflect, Uint8Array};
use lenet::backend::{Backend, gpu};
use lenet::check::{self, Difference, Reference};
use lenet::data::Dataset;
use lenet::inspect::Inspector;
use lenet::kernels::Launch;
use lenet::model::{self, About, Model};
use lenet::plan::{Options, Phase, Plan};
use lenet::session::{Metrics, Session};
use lenet::train::{Advance, Event, Trainer};
use lenet::{Error, Network};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::resume::{self, Checkpoint, Notes};
use crate::settings::Settings;
use crate::{Data, Result, ahead, device, thrown};

/// A network in training on the GPU, or on the CPU twins.
#[wasm_bindgen]
pub struct Lab {
    trainer: Trainer,
    gpu: Option<gpu::Device>,
    inspector: Option<Inspector>,
    train: Arc<Dataset>,
    test: Arc<Dataset>,
    notes: Notes,
    ahead: bool,
}

/// What a laboratory begins with.
enum Start {
    /// Fresh weights.
    Fresh,
    /// The network and weights of a file.
    Weights(Vec<u8>),
    /// A run as [`Lab::checkpoint`] gave it.
    Checkpoint(Vec<u8>),
}

/// The first `n` pictures; all of them are shared.
fn first(data: &Arc<Dataset>, n: usize) -> Arc<Dataset> {
    if n >= data.len() { data.clone() } else { Arc::new(data.first(n)) }
}

/// A promise of a [`Lab`] on `device_name`: `gpu` or `cpu`.
fn promise(data: &Data, settings: String, device_name: String, start: Start) -> Promise {
    let (train, test) = (data.train.clone(), data.test.clone());
    future_to_promise(async move {
        let gpu = match device_name.as_str() {
            "gpu" => Some(device().await?),
            "cpu" => None,
            other => return Err(JsError::new(&format!("there is no device called {other}")).into()),
        };
        Ok(Lab::build(&train, test, &settings, gpu, start).await.map_err(thrown)?.into())
    })
}

impl Lab {
    async fn build(
        train: &Arc<Dataset>,
        test: Arc<Dataset>,
        settings: &str,
        gpu: Option<gpu::Device>,
        start: Start,
    ) -> Result<Lab, Error> {
        let settings = Settings::parse(settings)?;
        let training = settings.training()?;
        let train = first(train, settings.images);
        let evaluation = first(&test, settings.test_images);
        let notes = Notes {
            device: if gpu.is_some() { "auto" } else { "cpu" },
            data: resume::fingerprint(&[&train, &evaluation])?,
            about: About::data(&train),
            accuracy: None,
        };
        let (model, checkpoint) = match start {
            Start::Fresh => (None, None),
            Start::Weights(bytes) => (Some(Model::decode("the file", &bytes, None)?), None),
            Start::Checkpoint(bytes) => (None, Some(Checkpoint::decode(&bytes)?)),
        };
        if let Some(model) = &model {
            let (known, own) = (&model.about.class_names, &test.class_names);
            let same = lenet::data::places(known, own).iter().enumerate().all(|(i, place)| *place == Some(i));
            if !same {
                let message = format!("the classes {} found, expected {}", known.join(", "), own.join(", "));
                return Err(Error::Data { path: "the file".into(), message });
            }
        }
        if let Some(checkpoint) = &checkpoint {
            checkpoint.check(&training, &notes.data)?;
        }
        let network = match (&model, &checkpoint) {
            (Some(Model { network, .. }), _) | (_, Some(Checkpoint { network, .. })) => network.clone(),
            (None, None) => settings.network()?,
        };
        let options = Trainer::options(&training, &train, &evaluation);
        let (plan, backend, ahead) = backend(&network, options, gpu.as_ref()).await?;
        let trainer = Trainer::shared(Session::new(plan, backend), training, &train, &evaluation)?;
        let mut lab = Lab { trainer, gpu, inspector: None, train, test, notes, ahead };
        if let Some(model) = model {
            lab.trainer.session().set_parameters(model.parameters.iter().map(Vec::as_slice))?;
        }
        if let Some(checkpoint) = checkpoint {
            lab.notes.accuracy = checkpoint.accuracy;
            let snapshot = checkpoint.snapshot(lab.trainer.session().plan())?;
            lab.trainer.restore(&snapshot)?;
        }
        Ok(lab)
    }

    async fn compared(&mut self, name: &str) -> Result<Difference, Error> {
        let before = self.trainer.snapshot().await?;
        let session = self.trainer.session();
        session.set_order((0..self.train.len() as u32).collect())?;
        let got = check::trace(session).await;
        let Plan { network, options, .. } = self.trainer.session().plan();
        let reference = Reference::new(network, options, &self.train, before.parameters.clone()).await;
        self.trainer.restore(&before)?;
        reference?.compare(name, &got?).await
    }

    fn network(&mut self) -> Network {
        self.trainer.session().plan().network.clone()
    }
}

/// The network on a device, and whether it had been compiled ahead.
async fn backend(
    network: &Network,
    options: Options,
    gpu: Option<&gpu::Device>,
) -> Result<(Plan, Backend, bool), Error> {
    let options = Options { target: gpu.map_or(options.target, gpu::Device::target), ..options };
    let ahead = ahead::take(network, &options);
    let Some(device) = gpu else {
        let plan = Plan::new(network, &options)?;
        let backend = Backend::cpu(&plan.program);
        return Ok((plan, backend, false));
    };
    if let Some((plan, backend)) = ahead {
        return Ok((plan, backend, true));
    }
    let plan = Plan::within(network, &options, device.memory())?;
    let backend = Backend::gpu(device, &plan.program).await?;
    Ok((plan, backend, false))
}

#[wasm_bindgen]
impl Lab {
    /// A network as `settings` (JSON) describe it, with fresh weights, on `device`: `gpu` or `cpu`. A promise of a
    /// [`Lab`].
    pub fn open(data: &Data, settings: String, device: String) -> Promise {
        promise(data, settings, device, Start::Fresh)
    }

    /// The network and weights of a `.safetensors` file, trained on as `settings` say. A promise of a [`Lab`].
    pub fn load(data: &Data, settings: String, device: String, bytes: Vec<u8>) -> Promise {
        promise(data, settings, device, Start::Weights(bytes))
    }

    /// The run that [`Lab::checkpoint`] gave the bytes of, with its weights, moments and position; `settings` have to be
    /// those that it began with, the network is that of the bytes. On the same device its next steps have the same bits
    /// as if it had never stopped. A promise of a [`Lab`].
    pub fn resume(data: &Data, settings: String, device: String, bytes: Vec<u8>) -> Promise {
        promise(data, settings, device, Start::Checkpoint(bytes))
    }

    /// What runs it, in words.
    #[wasm_bindgen(getter)]
    pub fn device(&mut self) -> String {
        self.trainer.session().device()
    }

    /// Steps of the whole run.
    #[wasm_bindgen(getter)]
    pub fn total_steps(&self) -> f64 {
        self.trainer.total_steps() as f64
    }

    /// Steps of an epoch.
    #[wasm_bindgen(getter)]
    pub fn steps_per_epoch(&self) -> f64 {
        self.trainer.steps_per_epoch() as f64
    }

    /// Steps taken, as far as they have been told.
    #[wasm_bindgen(getter)]
    pub fn step(&self) -> f64 {
        self.trainer.position().step as f64
    }

    /// Whether its pipelines are those that [`warm`](crate::ahead::warm) had compiled.
    #[wasm_bindgen(getter)]
    pub fn ahead(&self) -> bool {
        self.ahead
    }

    /// Launches of a training step.
    #[wasm_bindgen(getter)]
    pub fn launches(&mut self) -> usize {
        self.trainer.session().plan().program.train.len()
    }

    /// Bytes of all buffers.
    #[wasm_bindgen(getter)]
    pub fn bytes(&mut self) -> f64 {
        self.trainer.session().plan().program.bytes() as f64
    }

    /// Read-backs that have not arrived.
    #[wasm_bindgen(getter)]
    pub fn in_flight(&self) -> usize {
        self.trainer.in_flight()
    }

    /// Queues at most `most` steps, or batches of an evaluation: `queued`; or nothing: `waiting` for an evaluation, or `done`.
    pub fn advance(&mut self, most: usize) -> Result<String> {
        Ok(match self.trainer.advance(most).map_err(thrown)? {
            Advance::Queued(_) | Advance::Evaluating(_) => "queued",
            Advance::Waiting => "waiting",
            Advance::Done => "done",
        }
        .into())
    }

    /// The next event, as JSON; undefined when nothing is in flight.
    pub async fn event(&mut self) -> Result<Option<String>> {
        let event = self.trainer.event().await.map_err(thrown)?;
        if let Some(Event::Epoch { evaluation, .. }) = &event {
            self.notes.accuracy = Some(evaluation.accuracy());
        }
        Ok(event.map(|event| told(&event).to_string()))
    }

    /// A fixed learning rate from the next queued step on; undefined goes back to the schedule.
    pub fn set_learning_rate(&mut self, rate: Option<f32>) {
        self.trainer.set_learning_rate(rate);
    }

    /// Probabilities `[n][10]` of pictures of 784 bytes each, with the weights of this moment.
    pub async fn predict(&mut self, pixels: Vec<u8>) -> Result<Vec<f32>> {
        self.trainer.session().predict(&pixels).await.map_err(thrown)
    }

    /// The same for `count` test pictures from `from` on.
    pub async fn judge(&mut self, from: usize, count: usize) -> Result<Vec<f32>> {
        let test = self.test.clone();
        let pixels = test.pixels();
        let from = from.min(test.len());
        let count = count.min(test.len() - from);
        let pictures = test.images.get(from * pixels..(from + count) * pixels).map_err(thrown)?;
        self.trainer.session().predict(&pictures).await.map_err(thrown)
    }

    /// One picture forward and backward: `{ loss, layers: [{ name, shape, values, gradient }], parameters: […] }`.
    pub async fn inspect(&mut self, pixels: Vec<u8>, label: u8) -> Result<JsValue> {
        let flat = self.trainer.session().parameters().await.map_err(thrown)?;
        if self.inspector.is_none() {
            let network = self.network();
            self.inspector = Some(Inspector::new(&network, self.gpu.as_ref()).await.map_err(thrown)?);
        }
        let Some(inspector) = &mut self.inspector else { return Ok(JsValue::UNDEFINED) };
        let seen = inspector.look(&flat, &pixels, label).await.map_err(thrown)?;
        let numbers = |values: &[usize]| values.iter().map(|&n| JsValue::from(n as u32)).collect::<Array>();
        let floats = |values: &[f32]| JsValue::from(Float32Array::from(values));
        let layers: Array = seen
            .layers
            .iter()
            .map(|view| {
                let shape = numbers(&[view.shape.channels, view.shape.height, view.shape.width]);
                let gradient = view.gradient.as_deref().map_or(JsValue::NULL, floats);
                object(&[
                    ("name", view.name.as_str().into()),
                    ("shape", shape.into()),
                    ("values", floats(&view.values)),
                    ("gradient", gradient),
                ])
            })
            .collect();
        let parameters: Array = seen
            .parameters
            .iter()
            .map(|pull| {
                object(&[
                    ("name", pull.name.as_str().into()),
                    ("shape", numbers(&pull.shape).into()),
                    ("values", floats(&pull.values)),
                    ("gradient", floats(&pull.gradient)),
                ])
            })
            .collect();
        Ok(object(&[
            ("loss", seen.loss.into()),
            ("layers", layers.into()),
            ("parameters", parameters.into()),
        ]))
    }

    /// The layers with their launches, then the loss and the optimizer, as JSON.
    pub fn layers(&mut self) -> Result<String> {
        let plan = self.trainer.session().plan();
        let mut all = Vec::new();
        let launches = |wanted: &dyn Fn(&Launch) -> bool| {
            let of = |phase, name: &str| {
                let launches = plan.program.launches(phase).iter().filter(|launch| wanted(launch));
                launches.map(|launch| dispatch(name, launch)).collect::<Vec<_>>()
            };
            [of(Phase::Train, "train"), of(Phase::Predict, "predict")].concat()
        };
        let rest = |shader: &'static str| {
            move |launch: &Launch| launch.layers.is_empty() && launch.shader.name == shader
        };
        for (depth, layer) in plan.network.place().map_err(thrown)?.iter().flat_map(|layer| layer.all()) {
            let kind = match serde_json::to_value(&layer.layer) {
                Ok(Value::String(kind)) => kind,
                Ok(Value::Object(fields)) => fields.keys().next().cloned().unwrap_or_default(),
                _ => String::new(),
            };
            let parameters: usize = layer.parameters.iter().map(|parameter| parameter.len()).sum();
            all.push(json!({
                "name": layer.name,
                "kind": kind,
                "depth": depth,
                "text": layer.layer.describe(),
                "input": layer.input.to_string(),
                "output": layer.output.to_string(),
                "parameters": parameters,
                "macs": layer.multiply_adds,
                "launches": launches(&|launch: &Launch| launch.layers.contains(&layer.name)),
            }));
        }
        let rule = plan.options.optimizer.rule.name();
        for (name, kind, text) in [
            ("loss", "loss", "softmax and cross-entropy"),
            ("optimizer", rule, "one launch for all parameters"),
        ] {
            let own = launches(&rest(name));
            all.push(json!({ "name": name, "kind": kind, "depth": 0, "text": text, "launches": own }));
        }
        Ok(json!(all).to_string())
    }

    /// The weights as a `.safetensors` file.
    pub async fn save(&mut self) -> Result<Uint8Array> {
        let flat = self.trainer.session().parameters().await.map_err(thrown)?;
        let about = &self.notes.about;
        let bytes = model::encode(self.trainer.session().plan(), &flat, about).map_err(thrown)?;
        Ok(Uint8Array::from(bytes.as_slice()))
    }

    /// The run as it is now, to [`Lab::resume`] from: a `.safetensors` file, with which `lenet train --resume` goes on,
    /// too, where the run trains on all pictures. Rejects while anything is in flight: take the events first.
    pub async fn checkpoint(&mut self) -> Result<Uint8Array> {
        let snapshot = self.trainer.snapshot().await.map_err(thrown)?;
        let training = self.trainer.settings().clone();
        let plan = self.trainer.session().plan();
        let bytes = resume::encode(plan, &training, &snapshot, &self.notes).map_err(thrown)?;
        Ok(Uint8Array::from(bytes.as_slice()))
    }

    /// Compares this GPU with the CPU twins over one training step of the run's own plan, on the first pictures and with
    /// the weights of this moment, and puts everything back: JSON with the relative differences. Rejects when they are
    /// more than rounding explains, and while anything is in flight.
    pub async fn check(&mut self) -> Result<String> {
        let Some(gpu) = &self.gpu else {
            return Err(JsError::new("this trains on the CPU twins themselves"));
        };
        let name = gpu.name().to_owned();
        let difference = self.compared(&name).await.map_err(thrown)?;
        serde_json::to_string(&difference).map_err(|error| JsError::new(&error.to_string()))
    }

    /// Destroys the GPU device, as a reset of the driver would.
    pub fn lose(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.device().destroy();
        }
    }
}

fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let made = Object::new();
    for (name, value) in fields {
        // Setting a field of a plain object cannot fail.
        let _ = Reflect::set(&made, &(*name).into(), value);
    }
    made.into()
}

fn dispatch(phase: &str, launch: &Launch) -> Value {
    json!({
        "phase": phase,
        "shader": launch.shader.name,
        "entry": launch.entry.name,
        "workgroups": launch.grid,
        "flop": launch.flop,
        "bytes": launch.bytes,
    })
}

/// An event as the page takes it.
fn told(event: &Event) -> Value {
    let both = |metrics: &Metrics| json!({ "loss": metrics.loss(), "accuracy": metrics.accuracy() });
    match event {
        Event::Steps { first, metrics, learning_rate } => json!({ "steps": {
            "first": first,
            "loss": metrics.iter().map(Metrics::loss).collect::<Vec<_>>(),
            "accuracy": metrics.iter().map(Metrics::accuracy).collect::<Vec<_>>(),
            "count": metrics.iter().map(|metrics| metrics.count).collect::<Vec<_>>(),
            "learning_rate": learning_rate,
        } }),
        Event::Epoch { epoch, step, train, evaluation, best } => json!({ "epoch": {
            "epoch": epoch,
            "step": step,
            "train": both(train),
            "test": both(evaluation),
            "best": best,
        } }),
    }
}
