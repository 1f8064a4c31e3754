//! What the page calls: data, a laboratory that trains one network, and the texts that explain it.
//!
//! The page holds one [`Data`] and one [`Lab`] in a worker and calls them in turns; nothing here waits for a GPU but
//! the functions that give a promise.

mod ahead;
mod lab;
mod resume;
mod settings;
mod trial;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use js_sys::{Error as JsError, Uint8Array};
use lenet::backend::gpu;
use lenet::data::picture::{self, Grey};
use lenet::data::{Dataset, idx};
use lenet::kernels::SHADERS;
use lenet::{Error, Network};
use serde_json::json;
use wasm_bindgen::prelude::*;

pub use lab::Lab;

use resume::Checkpoint;
use settings::Settings;

type Result<T, E = JsError> = std::result::Result<T, E>;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn complain(text: &str);
}

/// Has a mistake of this crate told before WebAssembly ends with no more than "unreachable".
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| complain(&panic.to_string())));
}

/// An error as JavaScript's, whose name says what can be done about it.
fn thrown(error: Error) -> JsError {
    let made = JsError::new(&error.to_string());
    made.set_name(match error {
        Error::DeviceLost(_) => "DeviceLost",
        Error::Device(_) => "Device",
        Error::Limit { .. } => "Limit",
        Error::NotFinite { .. } => "NotFinite",
        Error::Data { .. } | Error::Weights { .. } | Error::Io { .. } => "Data",
        _ => "Settings",
    });
    made
}

/// The training and test part of MNIST.
#[wasm_bindgen]
pub struct Data {
    train: Arc<Dataset>,
    test: Arc<Dataset>,
}

#[wasm_bindgen]
impl Data {
    /// Reads four IDX files, gzipped or not.
    #[wasm_bindgen(constructor)]
    pub fn new(
        train_images: &[u8],
        train_labels: &[u8],
        test_images: &[u8],
        test_labels: &[u8],
    ) -> Result<Data> {
        let part = |part: &str, bytes| {
            let files = [format!("{part}-images-idx3-ubyte.gz"), format!("{part}-labels-idx1-ubyte.gz")];
            idx::dataset("mnist", [&files[0], &files[1]], bytes, 10).map(Arc::new).map_err(thrown)
        };
        Ok(Data {
            train: part("train", [train_images, train_labels])?,
            test: part("t10k", [test_images, test_labels])?,
        })
    }

    /// Training pictures.
    #[wasm_bindgen(getter)]
    pub fn train_len(&self) -> usize {
        self.train.len()
    }

    /// Test pictures.
    #[wasm_bindgen(getter)]
    pub fn test_len(&self) -> usize {
        self.test.len()
    }

    /// The pixels of a training picture.
    pub fn train_image(&self, i: usize) -> Result<Uint8Array> {
        pixels(&self.train, i)
    }

    /// The digit on a training picture.
    pub fn train_label(&self, i: usize) -> Option<u8> {
        self.train.labels.get(i).copied()
    }

    /// The pixels of a test picture.
    pub fn test_image(&self, i: usize) -> Result<Uint8Array> {
        pixels(&self.test, i)
    }

    /// The digit on a test picture.
    pub fn test_label(&self, i: usize) -> Option<u8> {
        self.test.labels.get(i).copied()
    }
}

fn pixels(data: &Dataset, i: usize) -> Result<Uint8Array> {
    if i >= data.len() {
        return Err(JsError::new(&format!("picture {i} of {}", data.len())));
    }
    Ok(Uint8Array::from(&*data.image(i).map_err(thrown)?))
}

/// [`lenet::train::pace::Pace`], in milliseconds.
#[wasm_bindgen]
pub struct Pace(lenet::train::pace::Pace);

#[wasm_bindgen]
impl Pace {
    /// Starts with one step a round of at most `budget` ms.
    #[wasm_bindgen(constructor)]
    pub fn new(budget: f64) -> Pace {
        Pace(lenet::train::pace::Pace::new(milliseconds(budget)))
    }

    /// The steps to queue in the next round.
    #[wasm_bindgen(getter)]
    pub fn steps(&self) -> usize {
        self.0.steps()
    }

    /// Takes note of how many ms a round took.
    pub fn round(&mut self, took: f64) {
        self.0.round(milliseconds(took));
    }
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
}

thread_local! {
    /// The device of all laboratories: opened when it is first needed, and again when it was lost.
    static DEVICE: RefCell<Option<gpu::Device>> = const { RefCell::new(None) };
}

/// The device, opened if need be.
async fn device() -> Result<gpu::Device> {
    let kept = DEVICE.with_borrow(|device| device.clone().filter(|device| device.lost().is_none()));
    if let Some(device) = kept {
        return Ok(device);
    }
    if !wgpu::util::is_browser_webgpu_supported().await {
        return Err(thrown(Error::Device("this browser offers no WebGPU adapter".into())));
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance
        .request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        })
        .await
        .map_err(|error| thrown(Error::Device(error.to_string())))?;
    let device = gpu::Device::open(&adapter).await.map_err(thrown)?;
    DEVICE.set(Some(device.clone()));
    Ok(device)
}

/// Has the browser look after the read-backs that are under way; nothing without a device.
#[wasm_bindgen]
pub fn nudge() {
    DEVICE.with_borrow(|device| device.iter().for_each(gpu::Device::nudge));
}

/// Opens the GPU: JSON with its `name`, `kind` and `backend`.
#[wasm_bindgen]
pub async fn adapter() -> Result<String> {
    let info = device().await?.device().adapter_info();
    Ok(json!({
        "name": info.name,
        "kind": gpu::kind(info.device_type),
        "backend": info.backend.to_string(),
        "driver": info.driver,
    })
    .to_string())
}

/// The settings to [`Lab::resume`] a file with, as JSON without the numbers of pictures; undefined for a file that holds
/// weights only, or a run that the page's settings cannot describe.
#[wasm_bindgen]
pub fn resumable(bytes: &[u8]) -> Result<Option<String>> {
    if !resume::is_checkpoint(bytes).map_err(thrown)? {
        return Ok(None);
    }
    let checkpoint = Checkpoint::decode(bytes).map_err(thrown)?;
    let settings = checkpoint.settings();
    Ok(settings.and_then(|(training, net)| Settings::describe(training, net)).map(|all| all.to_string()))
}

/// The version of this program.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// Brings a grey picture of a digit into the form of MNIST's: 28×28 pixels, white ink on black, scaled and centred.
#[wasm_bindgen]
pub fn prepare(grey: Vec<u8>, width: usize, height: usize) -> Result<Uint8Array> {
    let picture = Grey { height, width, pixels: grey };
    let (pixels, _) = picture::prepare_grey(picture, 28, 28).map_err(thrown)?;
    Ok(Uint8Array::from(pixels.as_slice()))
}

/// The text of a shader file: the one that runs.
#[wasm_bindgen]
pub fn shader(name: &str) -> Option<String> {
    SHADERS.iter().find(|shader| shader.name == name).map(|shader| shader.source.into())
}

/// The shader files' names.
#[wasm_bindgen]
pub fn shaders() -> Vec<String> {
    SHADERS.iter().map(|shader| shader.name.into()).collect()
}

/// The presets: JSON, a list of `name` and `about`.
#[wasm_bindgen]
pub fn presets() -> String {
    let all: Vec<_> = Network::presets()
        .map(|name| json!({ "name": name, "about": Network::about(name).unwrap_or_default() }))
        .collect();
    json!(all).to_string()
}
