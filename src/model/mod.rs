//! What is kept of a run. A trained network is a file that explains itself: weights under PyTorch's names, and in the
//! metadata the network's text, what its classes are called and how its input is made.
//!
//! A [`checkpoint`] has what a run needs to go on, besides; a [`Record`] what repeats it; and a [`run`]'s folder holds
//! all of them on a disk.

use std::collections::BTreeMap;

use crate::data::picture::{self, Form, Preparation};
use crate::data::{Dataset, Encoding, Like};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::plan::Plan;

pub mod checkpoint;
mod foreign;
mod kind;
pub mod record;
#[cfg(not(target_arch = "wasm32"))]
pub mod run;
pub mod safetensors;

pub use foreign::Layout;
pub use record::Record;
use safetensors::{Named, Tensors};

/// What a network was trained on, as far as its use depends on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct About {
    /// What its classes are called, in order; none where nothing is known.
    pub class_names: Vec<String>,
    /// What the bytes of its pictures stand for.
    pub encoding: Encoding,
    /// The data set's name.
    pub trained_on: Option<String>,
    /// What its pictures have in common; none of signals, texts and pictures in colour, and where nothing is known.
    pub form: Option<Form>,
    /// As [`Dataset::scale`].
    pub scale: Option<[f32; 2]>,
    /// As [`Dataset::turned`].
    pub turned: bool,
}

impl About {
    /// What a data set says of a network that was trained on it.
    pub fn data(data: &Dataset) -> About {
        About {
            class_names: data.class_names.clone(),
            encoding: data.encoding.clone(),
            trained_on: Some(data.name.clone()),
            // What cannot be read now cannot be trained on either, which is told then.
            form: Form::of(data).unwrap_or_default(),
            scale: data.scale,
            turned: data.turned,
        }
    }

    /// What a file's metadata says; the encoding is what the network's channels suggest where it does not.
    pub fn read(network: &Network, metadata: &BTreeMap<String, String>) -> About {
        let read = |key: &str| metadata.get(key).map(String::as_str);
        let suggested = if network.input.channels == 1 { Encoding::Ink } else { Encoding::Picture };
        About {
            class_names: read("class_names")
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            encoding: read("encoding").and_then(|text| serde_json::from_str(text).ok()).unwrap_or(suggested),
            trained_on: read("trained_on").map(String::from),
            form: read("form").and_then(|text| serde_json::from_str(text).ok()),
            scale: read("scale").and_then(|text| serde_json::from_str(text).ok()),
            turned: read("turned") == Some("true"),
        }
    }

    /// A file's metadata.
    pub fn metadata(&self, network: &Network) -> BTreeMap<String, String> {
        // Lists and plain enums become JSON without fail.
        let json = |value: serde_json::Result<String>| value.unwrap_or_default();
        let mut metadata = BTreeMap::from([
            ("network".into(), network.text()),
            ("classes".into(), self.class_names.len().to_string()),
            ("class_names".into(), json(serde_json::to_string(&self.class_names))),
            ("encoding".into(), json(serde_json::to_string(&self.encoding))),
        ]);
        if let Some(data) = &self.trained_on {
            metadata.insert("trained_on".into(), data.clone());
        }
        if let Some(form) = &self.form {
            metadata.insert("form".into(), json(serde_json::to_string(form)));
        }
        if let Some(scale) = &self.scale {
            metadata.insert("scale".into(), json(serde_json::to_string(scale)));
        }
        if self.turned {
            metadata.insert("turned".into(), "true".into());
        }
        metadata
    }
}

/// The tensors of flat parameters or moments, as [`safetensors::encode`] takes them; `prefix` goes before each name.
fn tensors<'a>(plan: &'a Plan, prefix: &str, flat: &'a [f32]) -> Result<Vec<Named<'a>>> {
    let len = plan.parameters.len;
    if flat.len() != len {
        return Err(Error::Settings(format!("{} parameters or moments, expected {len}", flat.len())));
    }
    let named = |name: &str| format!("{prefix}{name}");
    Ok(plan
        .split(flat)
        .map(|(parameter, values)| (named(&parameter.name), parameter.shape.clone(), values))
        .collect())
}

/// The bytes of a `.safetensors` file with a network's weights, flat as
/// [`Session::parameters`](crate::session::Session::parameters) gives them.
///
/// # Errors
/// [`Error::Weights`] when a weight is not finite, [`Error::Settings`] when there are more or fewer than the plan's.
pub fn encode(plan: &Plan, flat: &[f32], about: &About) -> Result<Vec<u8>> {
    safetensors::encode(&tensors(plan, "", flat)?, &about.metadata(&plan.network))
}

/// The weights that a file has for a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// By their names in the network, as far as it could be told which is which.
    pub tensors: Tensors,
    /// What else the file says.
    pub metadata: BTreeMap<String, String>,
    /// What had to be done to bring them there, a line for each thing.
    pub told: Vec<String>,
    /// Whether all of them fit but for the order of their axes, which is Keras'.
    pub keras: bool,
}

/// The weights in a file for a network; of a checkpoint the weights only. `name` is what errors call the file, `layout`
/// the order of its axes. Floats of 16 and 64 bits become those of 32; a wrapper's prefix is taken off all names; where
/// no name is known, layers are taken by their order, if each fits.
///
/// # Errors
/// As [`safetensors::decode`] and [`Network::parameters`].
pub fn weights(name: &str, bytes: &[u8], network: &Network, layout: Layout) -> Result<Weights> {
    brought(safetensors::decode_types(name, bytes)?, network, layout)
}

/// The tensors, metadata and types of a file as a network's weights.
fn brought(
    (mut tensors, metadata, types): safetensors::Typed,
    network: &Network,
    layout: Layout,
) -> Result<Weights> {
    checkpoint::keep_weights(&mut tensors, &metadata);
    let (tensors, mut told) = foreign::adapted(tensors, network, layout)?;
    if !types.is_empty() {
        let types: Vec<_> = types.into_iter().collect();
        told.insert(0, format!("{} as F32", types.join(", ")));
    }
    let keras = layout == Layout::Pytorch && foreign::looks_like_keras(&tensors, network);
    Ok(Weights { tensors, metadata, told, keras })
}

/// Weights with the network they belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The network.
    pub network: Network,
    /// The values, in the order of the network's parameters.
    pub parameters: Vec<Vec<f32>>,
    /// What it was trained on. Where the file does not say, the encoding is what its channels suggest.
    pub about: About,
    /// What had to be done to the file's weights, see [`Weights::told`].
    pub told: Vec<String>,
}

impl Model {
    /// Reads a file. Without `network`, it has to name its own. `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Data`] and [`Error::Weights`] as [`safetensors::decode`]; [`Error::Weights`] with every difference from
    /// the names and shapes that the network expects; [`Error::Settings`] when nothing says which network it is.
    pub fn decode(name: &str, bytes: &[u8], network: Option<Network>) -> Result<Model> {
        Model::decode_as(name, bytes, network, Layout::Pytorch)
    }

    /// As [`Model::decode`], where the axes of the weights are in another order.
    ///
    /// # Errors
    /// As [`Model::decode`].
    pub fn decode_as(name: &str, bytes: &[u8], network: Option<Network>, layout: Layout) -> Result<Model> {
        let file = safetensors::decode_types(name, bytes)?;
        let network = match (network, file.1.get("network")) {
            (Some(network), _) => network,
            (None, Some(text)) => Network::parse(text)
                .map_err(|error| Error::Data { path: name.to_owned(), message: error.to_string() })?,
            (None, None) => {
                return Err(Error::Settings(format!(
                    "{name} holds weights but does not say of which network"
                )));
            }
        };
        let expected: Vec<_> =
            network.parameters()?.into_iter().map(|parameter| (parameter.name, parameter.shape)).collect();
        let Weights { mut tensors, metadata, told, keras } = brought(file, &network, layout)?;
        safetensors::check(name, &tensors, &expected).map_err(|error| match error {
            Error::Weights { path, mut problems } if keras => {
                problems.push("the axes are in Keras' order: --layout keras turns them".into());
                Error::Weights { path, problems }
            }
            other => other,
        })?;
        let parameters = expected.iter().filter_map(|(name, _)| Some(tensors.remove(name)?.data)).collect();
        let about = About::read(&network, &metadata);
        Ok(Model { network, parameters, about, told })
    }

    /// What it takes from files of many pictures or signals.
    pub fn like(&self) -> Like {
        let input = &self.network.input;
        Like {
            shape: [input.channels, input.height, input.width],
            encoding: self.about.encoding.clone(),
            scale: self.about.scale,
            turned: self.about.turned,
        }
    }

    /// Decodes a picture and brings it into the form of those that the network was trained on; where its file does not
    /// say which that is, into MNIST's if the network takes ink. `name` is what errors call the picture.
    ///
    /// # Errors
    /// As [`Form::picture`].
    pub fn picture(&self, bytes: &[u8], name: &str) -> Result<(Vec<u8>, Preparation)> {
        let shape @ [channels, height, width] = self.like().shape;
        match (&self.about.form, &self.about.encoding) {
            (Some(form), _) => form.picture(bytes, name, shape),
            (None, Encoding::Ink) => Form::default().picture(bytes, name, shape),
            (None, _) => picture::fit(bytes, name, channels, height, width),
        }
    }

    /// What to call a class.
    pub fn class_name(&self, class: usize) -> String {
        self.about.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;

    #[test]
    fn a_model_comes_back_as_it_was_saved() {
        let network = Network::preset("lenet5-tanh").unwrap();
        let plan = Plan::new(&network, &Options { batch: 1, ..Options::default() }).unwrap();
        let parameters = network.initial(3).unwrap();
        let flat = plan.join(parameters.iter().map(Vec::as_slice)).unwrap();
        let data = Dataset::new("mine", [1, 28, 28], 10, vec![0; 784], vec![7]).unwrap();
        let about = About::data(&data);
        let bytes = encode(&plan, &flat, &about).unwrap();
        let model = Model::decode("it", &bytes, None).unwrap();
        assert_eq!(model, Model { network, parameters, about, told: Vec::new() });
        assert_eq!((model.class_name(7), model.class_name(11)), ("7".into(), "11".into()));
        // Under another network's name the shapes are the same, but not under one with other shapes.
        assert!(Model::decode("it", &bytes, Some(Network::preset("lenet5").unwrap())).is_ok());
        let other = Model::decode("it", &bytes, Some(Network::preset("lenet5-bn").unwrap()));
        assert!(matches!(other, Err(Error::Weights { .. })), "{other:?}");
    }

    /// A state_dict of PyTorch has tensors that are no parameters: the batches that each normalisation has seen.
    #[test]
    fn a_state_dict_with_counted_batches_is_a_model() {
        use ::safetensors::tensor::{Dtype, TensorView};

        let network = Network::preset("lenet5-bn").unwrap();
        let parameters = network.initial(5).unwrap();
        let named = network.parameters().unwrap();
        let bytes = |values: &Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let values: Vec<Vec<u8>> = parameters.iter().map(bytes).collect();
        let seen = 938i64.to_le_bytes();
        let file = |strays: &[&str]| {
            let weights = named.iter().zip(&values).map(|(parameter, values)| {
                let view = TensorView::new(Dtype::F32, parameter.shape.clone(), values).unwrap();
                (parameter.name.clone(), view)
            });
            let norms = named.iter().filter_map(|parameter| parameter.name.strip_suffix(".running_mean"));
            let counters = norms.chain(strays.iter().copied()).map(|norm| {
                let view = TensorView::new(Dtype::I64, vec![], &seen).unwrap();
                (format!("{norm}.num_batches_tracked"), view)
            });
            let all: Vec<_> = weights.chain(counters).collect();
            assert!(all.len() > named.len() + strays.len(), "the network has no normalisation");
            ::safetensors::serialize(all, None).unwrap()
        };
        let model = Model::decode("it", &file(&[]), Some(network.clone())).unwrap();
        assert_eq!(model.parameters, parameters);
        // The first layer is a convolution, which counts nothing.
        let error = Model::decode("it", &file(&["conv1"]), Some(network)).unwrap_err();
        let Error::Weights { problems, .. } = error else { panic!("{error}") };
        assert_eq!(problems, ["conv1.num_batches_tracked: dtype I64, expected F32, F16, BF16 or F64"]);
    }

    #[test]
    fn weights_that_do_not_say_whose_they_are_need_a_network() {
        let network = Network::preset("lenet5").unwrap();
        let plan = Plan::new(&network, &Options { batch: 1, ..Options::default() }).unwrap();
        let flat = vec![0.5; plan.parameters.len];
        let bytes = safetensors::encode(&tensors(&plan, "", &flat).unwrap(), &BTreeMap::new()).unwrap();
        let found = Model::decode("it", &bytes, None);
        assert!(matches!(found, Err(Error::Settings(_))), "{found:?}");
        assert_eq!(Model::decode("it", &bytes, Some(network)).unwrap().about.encoding, Encoding::Ink);
    }
}
