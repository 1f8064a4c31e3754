//! What networks are refused and why, and the shapes and parameters of those that are not.

use super::*;

fn net(layers: &str) -> Result<Vec<Placed>> {
    let text = format!(
        "name = \"n\"\ninput = {{ channels = 3, height = 9, width = 11 }}\nlayers = [{layers}, \"flatten\", \
         {{ linear = {{ outputs = 2 }} }}]"
    );
    Network::parse(&text)?.place()
}

fn refused(layers: &str) -> String {
    net(layers).expect_err(layers).to_string()
}

#[test]
fn every_preset_fits_together_and_keeps_its_text() {
    for name in Network::presets() {
        let network = Network::preset(name).expect(name);
        assert_eq!(network.name, name);
        assert_eq!(Network::parse(&network.text()).expect(name), network);
    }
}

#[test]
fn lenet5_of_1998_has_the_papers_parameters() {
    let network = Network::preset("lenet5-1998").unwrap();
    let placed = network.place().unwrap();
    let count = |layer: &Placed| layer.parameters.iter().map(Parameter::count).sum::<usize>();
    let learned: Vec<_> = placed.iter().map(count).filter(|&n| n > 0).collect();
    assert_eq!(learned, [156, 12, 1516, 32, 48_120, 10_164]);
    let connections: u64 = placed.iter().map(|layer| layer.multiply_adds).sum();
    // C1, C3, C5, F6 and the units' distances; the paper adds biases and sub-sampling.
    assert_eq!(connections, 25 * 6 * 784 + 60 * 25 * 100 + 48_000 + 10_080 + 840);
    let values = network.initial(1).unwrap();
    let c3 = network.parameters().unwrap().iter().position(|p| p.name == "c3.weight").unwrap();
    assert_eq!(values[c3].iter().filter(|&&w| w != 0.0).count(), 1500);
    assert!(values[c3][..75].iter().all(|&w| w != 0.0) && values[c3][75..150].iter().all(|&w| w == 0.0));
}

#[test]
fn the_connection_table_is_the_papers() {
    // LeCun et al. 1998, table I: a row is a channel of S2, a column one of C3.
    let rows = [
        "X   XXX  XXXX XX",
        "XX   XXX  XXXX X",
        "XXX   XXX  X XXX",
        " XXX  XXXX  X XX",
        "  XXX  XXXX XX X",
        "   XXX  XXXX XXX",
    ];
    let lists = Connections::Named(ConnectionTable::Lenet5C3).lists();
    for (o, list) in lists.iter().enumerate() {
        let mut inputs = list.clone();
        inputs.sort_unstable();
        let column: Vec<usize> = (0..6).filter(|&i| rows[i].as_bytes()[o] == b'X').collect();
        assert_eq!(inputs, column, "channel {o}");
    }
}

#[test]
fn padding_by_a_word_keeps_or_shrinks() {
    let size = |padding: &str| {
        let placed = net(&format!("{{ conv2d = {{ channels = 4, kernel = [3, 5]{padding} }} }}")).unwrap();
        (placed[0].output.height, placed[0].output.width)
    };
    assert_eq!(size(""), (7, 7));
    assert_eq!(size(", padding = \"valid\""), (7, 7));
    assert_eq!(size(", padding = \"same\""), (9, 11));
    assert_eq!(size(", padding = \"same\", dilation = 2"), (9, 11));
    assert_eq!(size(", padding = [0, 1]"), (7, 9));
    assert_eq!(
        refused("{ conv2d = { channels = 4, kernel = 2, padding = \"same\" } }"),
        "network: layer conv1 (conv2d 4@2×2, same size): same padding takes stride 1 and an odd filter; give the \
         padding as numbers"
    );
}

#[test]
fn sequences_inside_are_checked_where_they_meet() {
    let placed = net("{ branches = [[], [{ conv2d = { channels = 4, kernel = 1 } }, \"relu\"]] }").unwrap();
    assert_eq!(placed[0].output.channels, 7);
    let names: Vec<_> =
        placed.iter().flat_map(Placed::all).map(|(depth, p)| (depth, p.name.as_str())).collect();
    assert_eq!(names, [(0, "branches1"), (1, "conv1"), (1, "relu1"), (0, "flatten1"), (0, "fc1")]);
    assert_eq!(
        refused("{ residual = { body = [{ conv2d = { channels = 4, kernel = 1 } }] } }"),
        "network: layer residual1 (residual): its body ends with 4×9×11 at layer conv1, its shortcut with 3×9×11 \
         at the input; they are added up"
    );
    assert_eq!(
        refused("{ branches = [[], [{ max_pool2d = { kernel = 2 } }]] }"),
        "network: layer branches1 (2 branches): a branch ends with 3×9×11 at the input, another with 3×4×5 at \
         layer pool1; their rows and columns must agree"
    );
    assert!(refused("{ residual = { body = [] } }").contains("not all empty"));
    let mut deep = "\"relu\"".to_string();
    for _ in 0..20 {
        deep = format!("{{ residual = {{ body = [{deep}] }} }}");
    }
    assert!(refused(&deep).contains("nested"), "{}", refused(&deep));
}

#[test]
fn data_that_does_not_fit_is_named_with_both_shapes() {
    let network = Network::preset("lenet5").unwrap();
    let refused =
        |shape, classes, labels| network.check_data(shape, classes, labels).unwrap_err().to_string();
    assert_eq!(
        refused([3, 32, 32], 10, [1, 1]),
        "network: the input of lenet5 takes pictures of 1×28×28, the data has 3×32×32"
    );
    assert_eq!(
        refused([1, 28, 28], 47, [1, 1]),
        "network: the last layer fc3 gives 10 logits, the data has 47 classes"
    );
    assert_eq!(
        refused([1, 28, 28], 10, [28, 28]),
        "network: the last layer fc3 gives 10 logits at each of 1×1 places, the data has 28×28 labels a picture"
    );
}

#[test]
fn every_layer_says_what_does_not_fit() {
    for (layers, message) in [
        (
            "{ conv2d = { channels = 0, kernel = 1 } }",
            "conv1 (conv2d 0@1×1): channels is 0, expected 1 to 1048576",
        ),
        (
            "{ conv2d = { name = \"c\", channels = 4, kernel = [10, 1], stride = 2, groups = 1 } }",
            "c (conv2d 4@10×1, stride 2×2): its filter reaches over 10 pixels, the input is 3×9×11",
        ),
        (
            "{ conv2d = { channels = 4, kernel = 3, padding = 1, dilation = 2, groups = 2 } }",
            "conv1 (conv2d 4@3×3, padding 1×1, dilation 2×2, 2 groups): 2 groups do not divide 3 input and 4 output \
             channels",
        ),
        (
            "{ conv2d = { channels = 2, kernel = 1, connections = [[0], [3, 1]] } }",
            "conv1 (conv2d 2@1×1, 3 connections): its connections must be 2 lists of input channels below 3, in one \
             group",
        ),
        (
            "{ conv2d = { channels = 1048576, kernel = 999 } }",
            "conv1 (conv2d 1048576@999×999): its filter reaches over \
             999 pixels, the input is 3×9×11",
        ),
        (
            "{ conv2d = { channels = 1048576, kernel = 1, padding = 99 } }",
            "conv1 (conv2d 1048576@1×1, padding 99×99): \
             it is too large",
        ),
        (
            "{ conv1d = { channels = 4, kernel = 3 } }",
            "conv1 (conv1d 4@3): it runs over a series of one row, the input 3×9×11 has 9",
        ),
        (
            "{ adaptive_average_pool2d = [1, 11] }, { conv1d = { channels = 4, kernel = 12 } }",
            "conv1 (conv2d 4@1×12): its filter reaches over 12 pixels, the input is 3×1×11",
        ),
        (
            "{ average_pool2d = { kernel = 2, stride = 1, padding = 2 } }",
            "pool1 (average pool 2×2, stride 1×1, padding 2×2): the padding is more than half of the window",
        ),
        (
            "{ adaptive_average_pool2d = [1, 11] }, { average_pool1d = { kernel = 12 } }",
            "pool2 (max pool 1×12): its window is larger than the input 3×1×11",
        ),
        (
            "{ average_pool1d = { kernel = 3, stride = 2 } }",
            "pool1 (average pool 3, stride 2): it runs over a series of one row, the input 3×9×11 has 9",
        ),
        ("{ adaptive_average_pool2d = 10 }", "pool1 (average pool to 10×10): the input 3×9×11 is smaller"),
        ("{ upsample = 0 }", "upsample1 (upsample 0×0): factor is 0, expected 1 to 1048576"),
        ("{ linear = { outputs = 0 } }", "fc1 (linear 0): outputs is 0, expected 1 to 1048576"),
        (
            "{ rbf = { outputs = 1048577 } }",
            "rbf1 (radial basis 1048577): outputs is 1048577, expected 1 to 1048576",
        ),
        ("{ batch_norm = { momentum = 2.0 } }", "bn1 (batch norm): epsilon is 0.00001, momentum 2"),
        (
            "{ local_response_norm = { size = 5, k = 0.0 } }",
            "lrn1 (local response norm over 5): alpha is 0.0001, beta 0.75, k 0",
        ),
        ("{ dropout = 1.0 }", "dropout1 (dropout 1): the rate is 1, expected 0 to below 1"),
        ("{ leaky_relu = inf }", "leakyrelu1 (leakyrelu(inf)): its slope is inf"),
        ("{ branches = [] }", "branches1 (0 branches): it needs two sequences at least, not all empty"),
    ] {
        assert_eq!(refused(layers), format!("network: layer {message}"));
    }
    assert_eq!(
        refused("{ scale = { name = \"a\" } }, { scale = { name = \"a\" } }"),
        "network: two layers are called a"
    );
}
