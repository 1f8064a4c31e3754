//! What an `Inspector` shows of one picture is what a training step computes of it, on both backends.

mod common;

use common::{Tolerance, Worst};
use lenet::backend::{Backend, gpu};
use lenet::data::Dataset;
use lenet::inspect::{Inspection, Inspector};
use lenet::kernels::Step;
use lenet::plan::{Options, Phase, Plan};
use lenet::session::Session;
use lenet::{Error, Network};
use pollster::block_on;

/// Sums of a few hundred terms in another order.
const ROUNDING: Tolerance = Tolerance { absolute: 2e-6, relative: 2e-4 };

const LABEL: u8 = 3;

/// A picture of noise, the same each time.
fn picture(network: &Network) -> Vec<u8> {
    let input = network.input;
    let pixels = (input.channels * input.height * input.width) as u32;
    (0..pixels).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn plan(network: &Network) -> Plan {
    Plan::new(network, &Options { batch: 1, ..Options::default() }).unwrap()
}

fn flat(network: &Network) -> Vec<f32> {
    let first = network.initial(5).unwrap();
    plan(network).join(first.iter().map(Vec::as_slice)).unwrap()
}

fn look(network: &Network, device: Option<&gpu::Device>) -> Inspection {
    block_on(async {
        let mut inspector = Inspector::new(network, device).await.unwrap();
        // A second look must not find anything of the first.
        let other = vec![255; picture(network).len()];
        inspector.look(&flat(network), &other, 0).await.unwrap();
        inspector.look(&flat(network), &picture(network), LABEL).await.unwrap()
    })
}

/// One fused training step with that picture as its batch: the loss and every parameter's gradient.
fn step(network: &Network) -> (f32, Vec<(String, Vec<f32>)>) {
    let input = network.input;
    let plan = plan(network);
    let one = Dataset::new(
        "one",
        [input.channels, input.height, input.width],
        plan.classes(),
        picture(network),
        vec![LABEL],
    );
    let (metrics, gradients) = (plan.metrics, plan.gradients);
    let backend = Backend::cpu(&plan.program);
    let mut session = Session::new(plan, backend);
    session.set_training(&one.unwrap()).unwrap();
    let first = network.initial(5).unwrap();
    session.set_parameters(first.iter().map(Vec::as_slice)).unwrap();
    let step = Step { count: 1, correction1: 1.0, correction2: 1.0, ..Step::default() };
    session.backend().run(Phase::Train, &[step]).unwrap();
    let loss = block_on(session.read(metrics)).unwrap()[0];
    let all = block_on(session.read(gradients)).unwrap();
    let named = session.plan().split_gradients(&all);
    (loss, named.map(|(parameter, values)| (parameter.name.clone(), values.to_vec())).collect())
}

fn close(what: &str, got: &[f32], want: &[f32]) {
    let want: Vec<f64> = want.iter().map(|&value| f64::from(value)).collect();
    Worst::default().close(what, got, &want, ROUNDING);
}

#[test]
fn it_shows_what_a_training_step_computes() {
    for name in ["lenet5", "lenet5-tanh", "inception"] {
        let network = Network::preset(name).unwrap();
        let seen = look(&network, None);
        if name != "inception" {
            // Inception has dropout, which the inspector leaves out and training does not.
            let (loss, gradients) = step(&network);
            close("loss", &[seen.loss], &[loss]);
            assert_eq!(seen.parameters.len(), gradients.len());
            for (pull, (name, want)) in seen.parameters.iter().zip(&gradients) {
                assert_eq!(&pull.name, name);
                close(name, &pull.gradient, want);
            }
        }
        let plan = plan(&network);
        let first = network.initial(5).unwrap();
        for ((pull, values), tensor) in seen.parameters.iter().zip(&first).zip(&plan.tensors) {
            assert_eq!((&pull.values, &pull.shape), (values, &tensor.parameter.shape), "{}", pull.name);
        }
        let shown: Vec<&str> = seen.layers.iter().map(|view| view.name.as_str()).collect();
        let placed = network.place().unwrap();
        for (_, layer) in placed.iter().flat_map(|layer| layer.all()) {
            let hidden = layer.name.starts_with("flatten") || layer.name.starts_with("dropout");
            assert_ne!(shown.contains(&layer.name.as_str()), hidden, "{} among {shown:?}", layer.name);
        }
        for view in &seen.layers {
            assert_eq!(view.values.len(), view.shape.len(), "{}", view.name);
            let gradient = view.gradient.as_ref().unwrap();
            assert_eq!(gradient.len(), view.shape.len(), "{}", view.name);
            assert!(gradient.iter().any(|&value| value != 0.0), "{}", view.name);
        }
        // The gradient of the logits is softmax minus the label's one: its terms cancel.
        let logits = seen.layers.last().unwrap().gradient.as_ref().unwrap();
        assert!(logits.iter().sum::<f32>().abs() < 1e-5 && logits[usize::from(LABEL)] < 0.0, "{logits:?}");
    }
}

#[test]
fn a_gpu_shows_the_same() {
    let Some(device) = common::gpu() else { return };
    let network = Network::preset("lenet5").unwrap();
    let (got, want) = (look(&network, Some(&device)), look(&network, None));
    close("loss", &[got.loss], &[want.loss]);
    for (got, want) in got.layers.iter().zip(&want.layers) {
        assert_eq!((&got.name, got.shape), (&want.name, want.shape));
        close(&got.name, &got.values, &want.values);
        close(&got.name, got.gradient.as_ref().unwrap(), want.gradient.as_ref().unwrap());
    }
    for (got, want) in got.parameters.iter().zip(&want.parameters) {
        assert_eq!((&got.name, &got.values), (&want.name, &want.values));
        close(&got.name, &got.gradient, &want.gradient);
    }
}

#[test]
fn what_does_not_fit_the_network_is_refused() {
    let network = Network::preset("lenet5").unwrap();
    let (flat, picture) = (flat(&network), picture(&network));
    let mut inspector = block_on(Inspector::new(&network, None)).unwrap();
    let mut refused =
        |flat: &[f32], picture: &[u8], label| block_on(inspector.look(flat, picture, label)).unwrap_err();
    assert!(matches!(refused(&flat[1..], &picture, 3), Error::Settings(_)));
    assert!(matches!(refused(&flat, &picture[1..], 3), Error::Data { .. }));
    assert!(matches!(refused(&flat, &picture, 10), Error::Data { .. }));
}
