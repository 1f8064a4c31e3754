//! Weights that other programs would write, and what becomes of them.

use super::*;
use crate::Network;
use crate::model::safetensors;

/// LeNet-5's weights under its own names.
fn lenet() -> (Network, Tensors) {
    let network = Network::preset("lenet5").unwrap();
    let values = network.initial(3).unwrap();
    let named = network.parameters().unwrap().into_iter().zip(values);
    let tensors = named.map(|(parameter, data)| (parameter.name, Tensor { shape: parameter.shape, data }));
    (network.clone(), tensors.collect())
}

fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(old, tensor)| (name(old), tensor.clone())).collect()
}

#[test]
fn wrappers_prefixes_come_off() {
    let (network, tensors) = lenet();
    for prefix in ["module.", "_orig_mod.", "model.net.", "_orig_mod.module."] {
        let wrapped = renamed(&tensors, |name| format!("{prefix}{name}"));
        let (found, told) = adapted(wrapped, &network, Layout::Pytorch).unwrap();
        assert_eq!((found == tensors, told), (true, vec![format!("the names without their {prefix:?}")]));
    }
    // One name without it is no wrapper's.
    let mut some = renamed(&tensors, |name| format!("module.{name}"));
    let bias = some.remove("module.fc3.bias").unwrap();
    some.insert("fc3.bias".into(), bias);
    assert_eq!(adapted(some.clone(), &network, Layout::Pytorch).unwrap(), (some, vec![]));
    assert_eq!(adapted(tensors.clone(), &network, Layout::Pytorch).unwrap(), (tensors, vec![]));
}

#[test]
fn layers_of_a_sequence_are_taken_by_their_order() {
    let (network, tensors) = lenet();
    let numbered = |numbers: [&'static str; 5]| {
        let layers = ["conv1", "conv2", "fc1", "fc2", "fc3"];
        renamed(&tensors, move |name| {
            let (layer, leaf) = leaf(name);
            let at = layers.iter().position(|other| *other == layer).unwrap();
            format!("{}.{leaf}", numbers[at])
        })
    };
    for names in [
        ["0", "3", "7", "9", "11"],
        ["features.0", "features.3", "classifier.0", "classifier.2", "classifier.10"],
        ["a1", "b", "c", "d", "e"],
        ["net.0", "net.3", "net.7", "net.9", "net.11"],
    ] {
        let (found, told) = adapted(numbered(names), &network, Layout::Pytorch).unwrap();
        assert!(found == tensors, "{names:?}: {told:?}");
        assert!(
            told.iter().any(|line| line.ends_with("by their order as conv1, conv2, fc1, fc2, fc3")),
            "{told:?}"
        );
    }
    // Where a shape does not fit in order, nothing is guessed.
    let mut wrong = numbered(["0", "3", "7", "9", "11"]);
    wrong.get_mut("3.weight").unwrap().shape = vec![6, 16, 5, 5];
    let (found, told) = adapted(wrong.clone(), &network, Layout::Pytorch).unwrap();
    assert_eq!((found == wrong, told.len()), (true, 0));
}

#[test]
fn the_order_of_keras_is_turned() {
    let (network, tensors) = lenet();
    // What Keras would have: each element where the definition of its order puts it.
    let keras: Tensors = tensors
        .iter()
        .map(|(name, tensor)| {
            let other = match tensor.shape[..] {
                [outputs, inputs, height, width] => {
                    let at = |h: usize, w: usize, i: usize, o: usize| {
                        tensor.data[((o * inputs + i) * height + h) * width + w]
                    };
                    let data = (0..height)
                        .flat_map(|h| (0..width).map(move |w| (h, w)))
                        .flat_map(|(h, w)| (0..inputs).map(move |i| (h, w, i)))
                        .flat_map(|(h, w, i)| (0..outputs).map(move |o| (h, w, i, o)))
                        .map(|(h, w, i, o)| at(h, w, i, o))
                        .collect();
                    Tensor { shape: vec![height, width, inputs, outputs], data }
                }
                [outputs, inputs] => {
                    // fc1 sees 16 maps of 5 x 5, position by position there.
                    let source = |i: usize| if inputs == 400 { i % 16 * 25 + i / 16 } else { i };
                    let data = (0..inputs)
                        .flat_map(|i| (0..outputs).map(move |o| (i, o)))
                        .map(|(i, o)| tensor.data[o * inputs + source(i)])
                        .collect();
                    Tensor { shape: vec![inputs, outputs], data }
                }
                _ => tensor.clone(),
            };
            (name.clone(), other)
        })
        .collect();
    assert!(looks_like_keras(&keras, &network) && !looks_like_keras(&tensors, &network));
    let (found, told) = adapted(keras, &network, Layout::Keras).unwrap();
    assert!(found == tensors, "{told:?}");
    assert_eq!(told.len(), 5);
}

#[test]
fn other_floats_become_those_of_32_bits() {
    use ::safetensors::tensor::{Dtype, TensorView};

    let values = [1.0f32, -0.5, 0.333_251_95, 65504.0, 6.103_515_6e-5, 5.960_464_5e-8];
    let halves: Vec<u8> = [0x3c00u16, 0xb800, 0x3555, 0x7bff, 0x0400, 0x0001]
        .iter()
        .flat_map(|bits| bits.to_le_bytes())
        .collect();
    let doubles: Vec<u8> = values.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect();
    let brains: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect();
    let tensor = |dtype, bytes| TensorView::new(dtype, vec![6], bytes).unwrap();
    let all = [
        ("a", tensor(Dtype::F16, &halves)),
        ("b", tensor(Dtype::F64, &doubles)),
        ("c", tensor(Dtype::BF16, &brains)),
    ];
    let bytes = ::safetensors::serialize(all, None).unwrap();
    let (tensors, _, types) = safetensors::decode_types("it", &bytes).unwrap();
    assert_eq!((&tensors["a"].data[..], &tensors["b"].data[..]), (&values[..], &values[..]));
    assert!(tensors["c"].data.iter().zip(values).all(|(a, b)| (a - b).abs() <= b.abs() / 128.0));
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["BF16", "F16", "F64"]);
    let large = 1e300f64.to_le_bytes();
    let one = [("w", TensorView::new(Dtype::F64, vec![1], &large).unwrap())];
    let refused = safetensors::decode("it", &::safetensors::serialize(one, None).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("w: value 0 is inf"), "{refused}");
}
