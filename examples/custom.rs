//! A network and data of one's own: learns to tell circles, squares and triangles, goes on from a checkpoint in between,
//! stops as soon as it is good enough, saves the weights, reads them back into a network that knows nothing, and asks
//! that.

use std::path::Path;

use lenet::backend::Device;
use lenet::data::Dataset;
use lenet::files::{read, write_atomically};
use lenet::model::checkpoint::{self, Checkpoint, Notes};
use lenet::model::{self, About, Model};
use lenet::plan::{Options, Plan};
use lenet::session::Session;
use lenet::train::{Advance, Event, Settings, Trainer};
use lenet::{Network, Result};
use pollster::block_on;

const SIDE: usize = 16;
const SHAPES: [&str; 3] = ["circle", "square", "triangle"];

const NETWORK: &str = r#"
name = "shapes"
init = "he"
input = { channels = 1, height = 16, width = 16 }
layers = [
    { conv2d = { channels = 8, kernel = 3, padding = "same" } }, "relu",
    { max_pool2d = { kernel = 2 } },
    { conv2d = { channels = 16, kernel = 3, padding = "same" } }, "relu",
    { max_pool2d = { kernel = 2 } },
    "flatten", { linear = { outputs = 32 } }, "relu", { linear = { outputs = 3 } },
]
"#;

/// A stream of numbers from 0 to 1 that only the seed decides (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }
}

/// Outlines of shapes of any place and size, in noise.
fn shapes(name: &str, count: usize, seed: u64) -> Result<Dataset> {
    let mut random = Random(seed);
    let (mut images, mut labels) = (Vec::with_capacity(count * SIDE * SIDE), Vec::with_capacity(count));
    for i in 0..count {
        let class = i % SHAPES.len();
        let radius = 4.0 + 2.5 * random.next();
        let mut place = || 7.5 + 3.0 * (random.next() - 0.5);
        let (cx, cy) = (place(), place());
        for pixel in 0..SIDE * SIDE {
            let (x, y) = ((pixel % SIDE) as f32 - cx, (pixel / SIDE) as f32 - cy);
            // How far the pixel lies outside the shape.
            let outside = match class {
                0 => x.hypot(y) - radius,
                1 => x.abs().max(y.abs()) - 0.85 * radius,
                _ => (0.5 * y + 0.87 * x.abs()).max(-y) - 0.6 * radius,
            };
            let ink = (1.2 - outside.abs()).clamp(0.0, 1.0);
            let noise = 0.5 * random.next();
            images.push((255.0 * (0.75 * ink + noise).min(1.0)) as u8);
        }
        labels.push(class as u8);
    }
    let mut shapes = Dataset::new(name, [1, SIDE, SIDE], SHAPES.len(), images, labels)?;
    shapes.class_names = SHAPES.map(String::from).to_vec();
    Ok(shapes)
}

/// Trains until the run is over or the caller, who is told the steps and their mean loss and accuracy, has enough.
fn train(trainer: &mut Trainer, mut go_on: impl FnMut(u64, f64, f64) -> bool) -> Result<()> {
    while trainer.advance(20)? != Advance::Done {
        if let Some(Event::Steps { first, metrics, .. }) = block_on(trainer.event())? {
            let mean =
                |of: &dyn Fn(usize) -> f64| (0..metrics.len()).map(of).sum::<f64>() / metrics.len() as f64;
            let loss = mean(&|i| metrics[i].loss());
            let accuracy = mean(&|i| metrics[i].accuracy());
            if !go_on(first + metrics.len() as u64 - 1, loss, accuracy) {
                // Nothing else to do: no call is under way, and what is queued harms no one.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// All that the run needs to go on, were it in another process.
fn pause(trainer: &mut Trainer, data: &Dataset) -> Result<Vec<u8>> {
    // A snapshot is taken when nothing is in flight.
    while block_on(trainer.event())?.is_some() {}
    let snapshot = block_on(trainer.snapshot())?;
    checkpoint::encode(trainer.session().plan(), &About::data(data), &Notes::default(), &snapshot, None)
}

/// Puts a run where the paused one was.
fn resume(trainer: &mut Trainer, bytes: &[u8]) -> Result<()> {
    let (state, _) = Checkpoint::decode("the paused run", bytes)?.state(trainer.session().plan())?;
    trainer.restore(&state)
}

/// A file with the weights, the network's text and what the classes are called.
fn save(session: &mut Session, data: &Dataset, path: &Path) -> Result<()> {
    let flat = block_on(session.parameters())?;
    write_atomically(path, &model::encode(session.plan(), &flat, &About::data(data))?)
}

/// The model of a file, and a session with its weights.
fn load(path: &Path, device: &Device) -> Result<(Model, Session)> {
    let model = Model::decode(&path.display().to_string(), &read(path)?, None)?;
    let plan = Plan::new(&model.network, &Options { target: device.target(), ..Options::default() })?;
    let backend = block_on(device.backend(&plan.program))?;
    let mut session = Session::new(plan, backend);
    session.set_parameters(model.parameters.iter().map(Vec::as_slice))?;
    Ok((model, session))
}

fn main() -> Result<()> {
    let (training, test) = (shapes("shapes", 3000, 1)?, shapes("more shapes", 600, 2)?);
    let network = Network::parse(NETWORK)?;
    let settings = Settings { epochs: 50, batch: 50, seed: 7, ..Settings::default() };
    // The device comes first: plans are made for it.
    let device = block_on(Device::automatic())?;
    let start = || {
        let options = Options { target: device.target(), ..Trainer::options(&settings, &training, &test) };
        let plan = Plan::new(&network, &options)?;
        let backend = block_on(device.backend(&plan.program))?;
        println!("training on {}", backend.name());
        Trainer::new(Session::new(plan, backend), settings.clone(), &training, &test)
    };
    let until = |enough: f64| {
        move |step: u64, loss: f64, accuracy: f64| {
            println!("step {step:4}  loss {loss:.4}  accuracy {:.1} %", 100.0 * accuracy);
            accuracy < enough
        }
    };

    let mut trainer = start()?;
    train(&mut trainer, until(0.9))?;
    let paused = pause(&mut trainer, &training)?;
    drop(trainer);
    let mut trainer = start()?;
    resume(&mut trainer, &paused)?;
    println!("goes on after step {}, with {} bytes", trainer.position().step, paused.len());
    train(&mut trainer, until(0.995))?;
    let total = trainer.total_steps();
    println!("stopped after {} of {total} steps", trainer.position().step);

    // The weights are those of the last queued step.
    let mut session = trainer.into_session();
    let metrics = block_on(session.evaluate(test.len()))?;
    println!("test accuracy {:.1} %", 100.0 * metrics.accuracy());
    let path = std::env::temp_dir().join(format!("shapes-{}.safetensors", std::process::id()));
    save(&mut session, &training, &path)?;
    drop(session);

    let (model, mut session) = load(&path, &device)?;
    println!("read back from {}", path.display());
    for i in 0..SHAPES.len() {
        let probabilities = block_on(session.predict(&test.image(i)?))?;
        let (best, share) =
            probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap_or((0, &0.0));
        let truth = &test.class_names[usize::from(test.labels[i])];
        println!("a {truth} is taken for a {} ({:.1} %)", model.class_name(best), 100.0 * share);
    }
    let _ = std::fs::remove_file(path);
    Ok(())
}
