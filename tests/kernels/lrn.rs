//! What `shaders/lrn.wgsl` is refused.

use lenet::error::Error;
use lenet::kernels::lrn::Geometry;
use lenet::plan::Program;

#[test]
fn settings_out_of_range_are_refused() {
    let mut program = Program::default();
    let [input, output] = ["input", "output"].map(|name| program.add(name, 5 * 16));
    let g = Geometry { channels: 5, positions: 1, size: 5, alpha: 1e-4, beta: 0.75, k: 1.0, batch: 1 };
    assert!(g.forward(input, output).is_ok());
    for bad in [
        Geometry { size: 0, ..g },
        Geometry { alpha: -1.0, ..g },
        Geometry { beta: f32::NAN, ..g },
        Geometry { k: 0.0, ..g },
        Geometry { k: f32::INFINITY, ..g },
    ] {
        let launch = bad.forward(input, output);
        assert!(matches!(launch, Err(Error::Settings(_))), "{bad:?}: {launch:?}");
    }
}
