//! `shaders/activation.wgsl` on the CPU: elementwise functions and their gradients.

use rayon::prelude::*;

use crate::kernels::Step;
use crate::kernels::shaders::activation::{backward, forward};
use crate::network::Activation;

/// Elements that a thread takes at once.
const GRAIN: usize = 1 << 14;

/// The function of a launch's constants.
fn function(kind: usize, slope: f32) -> Activation {
    Activation::of_code(kind, slope).expect("KIND is the number of a function")
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let activation = function(c.kind, c.slope);
    move |b, _| {
        let forward::Buffers { input, output } = b;
        output.par_chunks_mut(GRAIN).zip(input.par_chunks(GRAIN)).for_each(|(output, input)| {
            for (y, &x) in output.iter_mut().zip(input) {
                *y = activation.value(x);
            }
        });
    }
}

pub(super) fn backward(c: backward::Constants) -> impl Fn(backward::Buffers<'_>, Step) + Send + Sync {
    let activation = function(c.kind, c.slope);
    move |b, _| {
        let upstream = b.input.par_chunks(GRAIN).zip(b.output_grad.par_chunks(GRAIN));
        b.input_grad.par_chunks_mut(GRAIN).zip(upstream).for_each(|(grad, (input, upstream))| {
            for ((grad, &x), &upstream) in grad.iter_mut().zip(input).zip(upstream) {
                *grad = activation.slope(x) * upstream;
            }
        });
    }
}
