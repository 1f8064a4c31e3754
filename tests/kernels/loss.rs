//! What `shaders/loss.wgsl` is refused.

use lenet::error::Error;
use lenet::kernels::loss;
use lenet::plan::Program;

/// A classifier's loss of 80 images.
const PLAIN: loss::Geometry =
    loss::Geometry { classes: 10, positions: 1, smoothing: 0.0, rubbish: None, batch: 80 };

#[test]
fn a_rubbish_class_goes_without_smoothing() {
    let mut program = Program::default();
    let [logits, labels, order, rows, logits_grad, metrics] =
        ["logits", "labels", "order", "rows", "logits_grad", "metrics"].map(|name| program.add(name, 1));
    let buffers = loss::Buffers { logits, labels, order, rows };
    for (smoothing, rubbish) in [(0.1, 1.0), (0.0, f32::NAN), (0.0, f32::INFINITY)] {
        let g = loss::Geometry { smoothing, rubbish: Some(rubbish), ..PLAIN };
        for launch in [g.cross_entropy(buffers), g.cross_entropy_gradient(buffers, logits_grad, metrics)] {
            assert!(matches!(launch, Err(Error::Settings(_))), "{g:?}: {launch:?}");
        }
    }
    let g = loss::Geometry { rubbish: Some(1.0), ..PLAIN };
    assert!(g.cross_entropy(buffers).is_ok());
}
