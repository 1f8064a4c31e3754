//! Weights as other programs write them, brought under the names and into the order that a network expects.

use std::collections::{BTreeMap, BTreeSet};

use super::safetensors::{Tensor, Tensors};
use crate::network::{Layer, Network, Parameter, Placed};

/// In which order the axes of a file's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// As PyTorch has them: filters out, in, height, width; linear layers out, in; a flattened map channel by channel.
    #[default]
    Pytorch,
    /// As Keras and TensorFlow have them: filters height, width, in, out; linear layers in, out; a flattened map
    /// position by position.
    Keras,
}

/// What a parameter is called within its layer.
fn leaf(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// Brings tensors under the names that a network expects, as far as it can be told what they are; says what it did, a
/// line for each thing. What does not fit stays as it is, for [`safetensors::check`](super::safetensors::check) to list.
pub fn adapted(
    mut tensors: Tensors,
    network: &Network,
    layout: Layout,
) -> crate::Result<(Tensors, Vec<String>)> {
    let expected = network.parameters()?;
    let known: BTreeSet<&str> = expected.iter().map(|parameter| parameter.name.as_str()).collect();
    let mut told = Vec::new();
    let fitting = |tensors: &Tensors| tensors.keys().filter(|name| known.contains(name.as_str())).count();

    let mut prefix = String::new();
    while fitting(&tensors) == 0
        && let Some(common) = common_prefix(&tensors)
    {
        let bare = |name: String| name.strip_prefix(&common).map_or(name.clone(), str::to_owned);
        tensors = tensors.into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
        prefix += &common;
    }
    if !prefix.is_empty() {
        told.push(format!("the names without their {prefix:?}"));
    }
    if layout == Layout::Keras {
        for (name, axes) in turned(&mut tensors, &network.place()?, &expected) {
            told.push(format!("{name} from Keras' order {axes}"));
        }
    }
    if fitting(&tensors) == 0
        && let Some(renamed) = by_order(&tensors, &expected)
    {
        let layers = |names: &mut dyn Iterator<Item = &String>| {
            let layers: Vec<&str> = names.map(|name| leaf(name).0).collect();
            layers.join(", ")
        };
        let first = |names: &BTreeMap<String, String>| {
            let weights = names.iter().filter(|(_, name)| name.ends_with(".weight"));
            let mut pairs: Vec<(&String, &String)> = weights.collect();
            pairs.sort_by_key(|(_, name)| expected.iter().position(|parameter| parameter.name == ***name));
            (layers(&mut pairs.iter().map(|pair| pair.0)), layers(&mut pairs.iter().map(|pair| pair.1)))
        };
        let (theirs, ours) = first(&renamed);
        told.push(format!("the layers {theirs} by their order as {ours}"));
        tensors = tensors
            .into_iter()
            .map(|(name, tensor)| (renamed.get(&name).cloned().unwrap_or(name), tensor))
            .collect();
    }
    Ok((tensors, told))
}

/// The first part of all names, with its dot, if it is the same word: a wrapper's.
fn common_prefix(tensors: &Tensors) -> Option<String> {
    let part = |name: &str| name.split_once('.').map(|(first, _)| format!("{first}."));
    let first = part(tensors.keys().next()?)?;
    // conv1.weight alone belongs to no wrapper.
    let wrapped = |name: &String| name.strip_prefix(&first).is_some_and(|rest| rest.contains('.'));
    (tensors.keys().all(wrapped) && tensors.len() > 1).then_some(first)
}

/// Where a layer stands among those of its group: its numbers by their value, words behind them.
type Place = Vec<(u64, String)>;

/// Layers of a file by their order: the name of each tensor that a network expects, by the name that it has, if all
/// layers fit one after the other and in one way only.
fn by_order(tensors: &Tensors, expected: &[Parameter]) -> Option<BTreeMap<String, String>> {
    // A network's layers, in order: each its parameters.
    let mut wanted: Vec<(&str, Vec<&Parameter>)> = Vec::new();
    for parameter in expected {
        let layer = leaf(&parameter.name).0;
        match wanted.last_mut() {
            Some((last, all)) if *last == layer => all.push(parameter),
            _ => wanted.push((layer, vec![parameter])),
        }
    }
    // A file's layers, those of one group (features, classifier) by their numbers.
    let mut groups: BTreeMap<String, BTreeMap<Place, &str>> = BTreeMap::new();
    for name in tensors.keys() {
        let layer = leaf(name).0;
        let group = layer.split('.').next().filter(|first| first.parse::<u64>().is_err()).unwrap_or("");
        let key = layer.split('.').map(|part| match part.parse::<u64>() {
            Ok(number) => (number, String::new()),
            Err(_) => (u64::MAX, part.to_owned()),
        });
        groups.entry(group.to_owned()).or_default().insert(key.collect(), layer);
    }
    let groups: Vec<Vec<&str>> = groups.into_values().map(|layers| layers.into_values().collect()).collect();
    if groups.len() > 5 {
        return None;
    }
    let fits = |layers: &[&str]| -> Option<BTreeMap<String, String>> {
        if layers.len() != wanted.len() {
            return None;
        }
        let mut names = BTreeMap::new();
        for (layer, (_, parameters)) in layers.iter().zip(&wanted) {
            for parameter in parameters {
                let name = match layer.is_empty() {
                    true => leaf(&parameter.name).1.to_owned(),
                    false => format!("{layer}.{}", leaf(&parameter.name).1),
                };
                (tensors.get(&name)?.shape == parameter.shape).then_some(())?;
                names.insert(name, parameter.name.clone());
            }
        }
        (names.len() == tensors.len()).then_some(names)
    };
    let mut found = orders(groups.len()).into_iter().filter_map(|order| {
        let layers: Vec<&str> = order.iter().flat_map(|&group| groups[group].iter().copied()).collect();
        fits(&layers)
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let with = |at: usize| {
        shorter.iter().map(move |order| {
            let mut order = order.clone();
            order.insert(at, count - 1);
            order
        })
    };
    (0..count).flat_map(with).collect()
}

/// The same values with their axes in another order: axis `i` of the result is axis `axes[i]` of the tensor.
fn transposed(tensor: &Tensor, axes: &[usize]) -> Tensor {
    let shape: Vec<usize> = axes.iter().map(|&axis| tensor.shape[axis]).collect();
    let stride = |axis: usize| tensor.shape[axis + 1..].iter().product::<usize>();
    let strides: Vec<usize> = axes.iter().map(|&axis| stride(axis)).collect();
    let data = (0..tensor.data.len()).map(|mut at| {
        let mut from = 0;
        for (size, stride) in shape.iter().zip(&strides).rev() {
            from += at % size * stride;
            at /= size;
        }
        tensor.data[from]
    });
    Tensor { data: data.collect(), shape: shape.clone() }
}

/// Turns weights out of Keras' order; gives the names of those that it turned, and the axes that they had.
fn turned(tensors: &mut Tensors, placed: &[Placed], expected: &[Parameter]) -> Vec<(String, &'static str)> {
    let mut turned = Vec::new();
    // The map that a linear layer gets flattened, if it does.
    let mut maps = BTreeMap::new();
    let mut before = None;
    for (_, layer) in placed.iter().flat_map(Placed::all) {
        match layer.layer {
            Layer::Flatten => before = Some(layer.input),
            Layer::Linear(_) => {
                if let Some(map) = before.take().or_else(|| (layer.input.height > 1).then_some(layer.input)) {
                    maps.insert(format!("{}.weight", layer.name), map);
                }
            }
            _ => {}
        }
    }
    for parameter in expected {
        let Some(tensor) = tensors.get(&parameter.name) else { continue };
        match tensor.shape.len() {
            4 => {
                let made = transposed(tensor, &[3, 2, 0, 1]);
                tensors.insert(parameter.name.clone(), made);
                turned.push((parameter.name.clone(), "height, width, in, out"));
            }
            2 => {
                let mut made = transposed(tensor, &[1, 0]);
                if let Some(map) = maps.get(&parameter.name).filter(|map| map.len() == made.shape[1]) {
                    let positions = map.height * map.width;
                    let rows = made.data.chunks_exact(map.len()).flat_map(|row| {
                        (0..map.len()).map(move |i| row[i % positions * map.channels + i / positions])
                    });
                    made.data = rows.collect();
                }
                tensors.insert(parameter.name.clone(), made);
                turned.push((parameter.name.clone(), "in, out"));
            }
            _ => {}
        }
    }
    turned
}

/// Whether tensors under the right names are in Keras' order: what a message adds.
pub fn looks_like_keras(tensors: &Tensors, network: &Network) -> bool {
    let Ok(expected) = network.parameters() else { return false };
    let mut some = false;
    for parameter in &expected {
        let Some(tensor) = tensors.get(&parameter.name) else { return false };
        let turned = match tensor.shape[..] {
            [height, width, inputs, outputs] => vec![outputs, inputs, height, width],
            [inputs, outputs] => vec![outputs, inputs],
            _ => tensor.shape.clone(),
        };
        if turned != parameter.shape {
            return false;
        }
        some |= tensor.shape != parameter.shape;
    }
    some
}

#[cfg(test)]
mod tests;
