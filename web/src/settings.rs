//! The page's settings, and the network and training that they mean.

use lenet::kernels::activation::Activation;
use lenet::kernels::augment::Augment;
use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::network::{Layer, Network};
use lenet::train::{self, Schedule};
use lenet::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the page's form holds.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    net: String,
    activation: Option<String>,
    pooling: Option<Pooling>,
    dropout: f32,
    /// Training pictures: the first so many.
    pub images: usize,
    /// Test pictures: the first so many.
    pub test_images: usize,
    batch: usize,
    epochs: usize,
    seed: u64,
    learning_rate: f32,
    schedule: Schedule,
    optimizer: Rule,
    weight_decay: Option<f32>,
    smoothing: f32,
    augment: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Pooling {
    Max,
    Average,
}

impl Default for Settings {
    fn default() -> Settings {
        let train::Settings { batch, epochs, seed, learning_rate, schedule, .. } = train::Settings::default();
        Settings {
            net: "lenet5".into(),
            activation: None,
            pooling: None,
            dropout: 0.0,
            images: 60_000,
            test_images: 10_000,
            batch,
            epochs,
            seed,
            learning_rate,
            schedule,
            optimizer: Rule::Adam,
            weight_decay: None,
            smoothing: 0.0,
            augment: "none".into(),
        }
    }
}

impl Settings {
    /// Reads JSON.
    pub fn parse(text: &str) -> Result<Settings> {
        serde_json::from_str(text).map_err(|error| Error::Settings(format!("settings: {error}")))
    }

    /// The preset with what the form changes about it.
    pub fn network(&self) -> Result<Network> {
        let mut network = Network::preset(&self.net)?;
        let before = network.clone();
        let activation = self.activation.as_deref().map(activation).transpose()?;
        replace(&mut network.layers, activation, self.pooling);
        if self.dropout > 0.0 {
            let last = network.layers.len().saturating_sub(1);
            network.layers.insert(last, Layer::Dropout(self.dropout));
        }
        if network != before {
            network.name = format!("{}-page", network.name);
        }
        network.place()?;
        Ok(network)
    }

    /// How to train it.
    pub fn training(&self) -> Result<train::Settings> {
        let mut optimizer = Optimizer::new(self.optimizer);
        optimizer.weight_decay = self.weight_decay.unwrap_or(optimizer.weight_decay);
        Ok(train::Settings {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            smoothing: self.smoothing,
            augment: self.augment.parse::<Augment>()?,
            seed: self.seed,
            optimizer,
            ..train::Settings::default()
        })
    }

    /// What the form has to hold for a training like this, of a preset if it has a name; nothing when the form cannot
    /// say it.
    pub fn describe(training: &train::Settings, net: Option<&str>) -> Option<Value> {
        let in_form = matches!(training.schedule, Schedule::Constant | Schedule::Cosine | Schedule::OneCycle);
        let (augment, _) = Augment::RECIPES.into_iter().find(|(_, recipe)| *recipe == training.augment)?;
        let Optimizer { rule, weight_decay, .. } = training.optimizer;
        let own = Optimizer::new(rule).weight_decay == weight_decay;
        let mut described = json!({
            "batch": training.batch,
            "epochs": training.epochs,
            "seed": training.seed,
            "learning_rate": decimal(training.learning_rate),
            "schedule": training.schedule,
            "optimizer": rule,
            "weight_decay": (!own).then(|| decimal(weight_decay)),
            "smoothing": decimal(training.smoothing),
            "augment": augment,
        });
        let read: Settings = serde_json::from_value(described.clone()).ok()?;
        if !in_form || read.training().ok()? != *training {
            return None;
        }
        if let Some(net) = net {
            for (name, value) in [("net", json!(net)), ("activation", Value::Null), ("pooling", Value::Null)]
            {
                described[name] = value;
            }
            described["dropout"] = json!(0);
        }
        Some(described)
    }
}

/// A number of as few digits as tell it, not those of the nearest `f64`.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// An activation by its name; those with a constant take the usual one.
fn activation(name: &str) -> Result<Activation> {
    let value = match name {
        "leaky_relu" => json!({ "leaky_relu": 0.01 }),
        "elu" => json!({ "elu": 1.0 }),
        _ => json!(name),
    };
    serde_json::from_value(value)
        .map_err(|_| Error::Settings(format!("there is no activation called {name}")))
}

/// Exchanges the activations and the kind of pooling in a sequence.
fn replace(layers: &mut [Layer], activation: Option<Activation>, pooling: Option<Pooling>) {
    for layer in layers {
        match (&mut *layer, activation, pooling) {
            (Layer::Activation(own), Some(new), _) => *own = new,
            (Layer::MaxPool2d(pool), _, Some(Pooling::Average)) => {
                *layer = Layer::AveragePool2d(pool.clone())
            }
            (Layer::AveragePool2d(pool), _, Some(Pooling::Max)) => *layer = Layer::MaxPool2d(pool.clone()),
            _ => layer.inside_mut().into_iter().for_each(|inside| replace(inside, activation, pooling)),
        }
    }
}
