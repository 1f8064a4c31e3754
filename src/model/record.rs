//! What a run is made of, as `settings.toml` holds it: enough to repeat it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::Network;
use crate::train::Settings;

/// The name of the file in a run's folder.
pub const FILE: &str = "settings.toml";

/// What a run is made of, but for its folder.
///
/// ```
/// use lenet::model::Record;
///
/// let text = Record { data: "waves".into(), ..Record::default() }.text()?;
/// assert_eq!(Record::parse("settings.toml", &text)?.data, "waves");
/// # Ok::<(), lenet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The preset's name, unless the whole network follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    /// A data set's name or folder.
    pub data: String,
    /// What `--device` takes.
    pub device: String,
    /// The share of the training data that the epochs are evaluated on, in place of the test data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// How many images of each class are trained on, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
    /// The label's column of a table, where that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether damaged pictures in folders are left out instead of refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_damaged: bool,
    /// The file of the first weights, if they are not drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// How to train.
    pub training: Settings,
    /// The network, unless it is a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

impl Default for Record {
    fn default() -> Record {
        Record {
            net: Some("lenet5".into()),
            data: "mnist".into(),
            device: "auto".into(),
            validation: None,
            per_class: None,
            label: None,
            skip_damaged: false,
            init: None,
            training: Settings::default(),
            network: None,
        }
    }
}

impl Record {
    /// Reads the text of `settings.toml`. `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Settings`] with the line and column of what is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Record> {
        toml::from_str(text).map_err(|error| Error::Settings(place(file, text, &error)))
    }

    /// Reads `settings.toml`.
    ///
    /// # Errors
    /// As [`Record::parse`] and [`files::read`](crate::files::read).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(path: &std::path::Path) -> Result<Record> {
        let file = path.display().to_string();
        let text = String::from_utf8(crate::files::read(path)?)
            .map_err(|_| Error::Settings(format!("{file}: not text, expected settings as TOML")))?;
        Record::parse(&file, &text)
    }

    /// How its data is to be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn reading(&self) -> crate::data::Reading<'_> {
        crate::data::Reading { label: self.label.as_deref(), skip_damaged: self.skip_damaged }
    }

    /// The text of `settings.toml`.
    ///
    /// # Errors
    /// [`Error::Settings`] with what TOML cannot hold, such as a path that is no text.
    pub fn text(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|error| Error::Settings(format!("settings: {error}")))?;
        Ok(format!("# Repeats this run: lenet train --settings {FILE}\n{text}"))
    }

    /// The network.
    ///
    /// # Errors
    /// As [`load_network`], and [`Error::Settings`] when none is named.
    pub fn network(&self) -> Result<Network> {
        match (&self.network, &self.net) {
            (Some(network), _) => {
                network.place()?;
                Ok(network.clone())
            }
            (None, Some(name)) => load_network(name),
            (None, None) => Err(Error::Settings("the settings name no network".into())),
        }
    }

    /// Takes another network; a preset by its name.
    pub fn set_network(&mut self, network: Network) {
        if Network::preset(&network.name).is_ok_and(|preset| preset == network) {
            (self.net, self.network) = (Some(network.name), None);
        } else {
            (self.net, self.network) = (None, Some(network));
        }
    }
}

/// Numbers that were of 32 bits, in the few digits that tell them apart: `0.002` instead of `0.0020000000949949026`.
pub fn shorten(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Number(number) if number.is_f64() => {
            let wide = number.as_f64().unwrap_or_default();
            if f64::from(wide as f32) == wide
                && let Ok(short) = (wide as f32).to_string().parse::<f64>()
            {
                *value = short.into();
            }
        }
        Value::Array(all) => all.iter_mut().for_each(shorten),
        Value::Object(all) => all.values_mut().for_each(shorten),
        _ => {}
    }
}

/// A network by its preset's name, or out of a TOML file, of which a browser has none.
///
/// # Errors
/// [`Error::Settings`] with the names that exist, or with the place in the file that is wrong; and as
/// [`files::read`](crate::files::read).
pub fn load_network(spec: &str) -> Result<Network> {
    if Network::presets().any(|name| name == spec) {
        return Network::preset(spec);
    }
    #[cfg(not(target_arch = "wasm32"))]
    if let path = std::path::Path::new(spec)
        && path.is_file()
    {
        let text = String::from_utf8(crate::files::read(path)?)
            .map_err(|_| Error::Settings(format!("{spec}: not text, expected a network as TOML")))?;
        if let Err(error) = toml::from_str::<Network>(&text) {
            return Err(Error::Settings(place(spec, &text, &error)));
        }
        return Network::parse(&text).map_err(|error| Error::Settings(format!("{spec}: {error}")));
    }
    let known: Vec<_> = Network::presets().collect();
    Err(Error::Settings(format!(
        "there is no network called {spec}, and no such file{}; the presets are {}",
        crate::error::meant(spec, &known),
        known.join(", ")
    )))
}

/// What is wrong with a TOML file, and where.
fn place(file: &str, text: &str, error: &toml::de::Error) -> String {
    let place = error.span().map_or(String::new(), |span| {
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        format!(":{line}:{column}")
    });
    format!("{file}{place}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_make_the_round_trip() {
        let mut record = Record::default();
        record.training.learning_rate = 0.1 + 1e-7;
        record.training.optimizer.weight_decay = f32::MIN_POSITIVE;
        record.training.seed = i64::MAX as u64;
        record.training.schedule = crate::train::Schedule::Step { epochs: 3, gamma: 0.3 };
        record.validation = Some(0.1);
        record.per_class = Some(50);
        let mut other = Network::preset("lenet5-tanh").unwrap();
        other.input.deviation = 0.3081;
        for network in [other, Network::preset("lenet5-sigmoid").unwrap()] {
            record.set_network(network.clone());
            let text = record.text().unwrap();
            assert_eq!(Record::parse("it", &text).unwrap(), record, "{text}");
            assert_eq!(record.network().unwrap(), network);
            assert_eq!(serde_json::from_str::<Record>(&json!(record).to_string()).unwrap(), record);
        }
    }

    #[test]
    fn numbers_are_short() {
        let mut value =
            json!({ "rate": 0.002f32, "all": [0.1f32, 0.25, 7, -3e38f32], "wide": 0.1, "name": "0.1" });
        shorten(&mut value);
        assert_eq!(value, json!({ "rate": 0.002, "all": [0.1, 0.25, 7, -3e38], "wide": 0.1, "name": "0.1" }));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let error = Record::parse("it", "data = \"mnist\"\nspeed = 9\n").unwrap_err().to_string();
        assert!(error.starts_with("it:2:1: unknown field `speed`"), "{error}");
        let error = load_network("lenet6").unwrap_err().to_string();
        assert!(
            error.starts_with(
                "there is no network called lenet6, and no such file; did you mean lenet5?; the presets are lenet5"
            )
        );
        assert!(Record { net: None, ..Record::default() }.network().is_err());
    }
}
