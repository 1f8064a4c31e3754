//! `shaders/activation.wgsl` on the CPU: elementwise functions and their gradients.

use super::tasks::elementwise;
use crate::kernels::Step;
use crate::kernels::shaders::activation::{backward, forward};
use crate::network::Activation;

/// Of an element: exponentials take more, a ReLU less.
const OPERATIONS: usize = 16;

/// The function of a launch's constants.
fn function(kind: usize, slope: f32) -> Activation {
    Activation::of_code(kind, slope).expect("KIND is the number of a function")
}

pub(super) fn forward(c: forward::Constants) -> impl Fn(forward::Buffers<'_>, Step) + Send + Sync {
    let activation = function(c.kind, c.slope);
    move |b, _| {
        let forward::Buffers { input, output } = b;
        elementwise(output, OPERATIONS, |start, output| {
            for (y, &x) in output.iter_mut().zip(&input[start..]) {
                *y = activation.value(x);
            }
        });
    }
}

pub(super) fn backward(c: backward::Constants) -> impl Fn(backward::Buffers<'_>, Step) + Send + Sync {
    let activation = function(c.kind, c.slope);
    move |b, _| {
        let backward::Buffers { input, output_grad, input_grad } = b;
        elementwise(input_grad, OPERATIONS, |start, grad| {
            let upstream = &output_grad[start..];
            for ((grad, &x), &upstream) in grad.iter_mut().zip(&input[start..]).zip(upstream) {
                *grad = activation.slope(x) * upstream;
            }
        });
    }
}
