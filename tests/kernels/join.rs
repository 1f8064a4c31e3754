//! What `shaders/join.wgsl` is refused.

use lenet::error::Error;
use lenet::kernels::Range;
use lenet::kernels::join::{self, Geometry, Part};
use lenet::network::Activation;
use lenet::plan::Program;

#[test]
fn what_does_not_fit_is_refused() {
    let mut program = Program::default();
    let mut floats = |len: usize| Range { len, ..program.add("floats", len) };
    let (a, b, whole) = (floats(32), floats(48), floats(80));
    let sum = |terms: &[Range], activation| join::sum(terms, activation, whole);
    let part = |range, features| Part { range, features };
    let g = Geometry { offset: 0, total: 5, batch: 16 };
    assert!(g.concat(&[part(a, 2), part(b, 3)], whole).is_ok());
    let refused = [
        sum(&[b], None),
        sum(&[b; 5], None),
        sum(&[a, b], None),
        join::slope(Activation::Silu, a, a, b),
        join::slope(Activation::Relu, a, a, b),
        g.concat(&[], whole),
        g.concat(&[part(a, 2); 5], whole),
        g.concat(&[part(a, 2), part(a, 3)], whole),
        g.concat(&[part(a, 2), part(b, 3)], a),
        Geometry { offset: 1, ..g }.concat(&[part(a, 2), part(b, 3)], whole),
        Geometry { batch: 17, ..g }.split(whole, &[part(a, 2), part(b, 3)]),
        // Twice the same gradient.
        g.split(whole, &[part(a, 2), part(a, 2)]),
        // In place.
        join::sum(&[a, b], None, a),
    ];
    for (i, launch) in refused.iter().enumerate() {
        assert!(matches!(launch, Err(Error::Device(_))), "{i}: {launch:?}");
    }
}
