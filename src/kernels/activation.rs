//! `shaders/activation.wgsl`: elementwise functions and their gradients.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Args, Launch, Range, elementwise};
use crate::error::Result;
pub use crate::network::Activation;

impl Activation {
    fn launch(self, entry: &'static str, bindings: &[(&str, Range)], twin: super::Twin) -> Result<Launch> {
        let elements = bindings[0].1.len;
        let (kind, slope) = self.code();
        let (grid, row) = elementwise(elements);
        let constants = [
            ("KIND", kind as f64),
            ("SLOPE", f64::from(slope)),
            ("ELEMENTS", elements as f64),
            ("ROW", row as f64),
        ];
        Launch::old(("activation", entry), &constants, grid, bindings, elements as u64, twin)
    }

    /// `output = f(input)`, elementwise.
    pub fn forward(self, input: Range, output: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| {
            let (input, output) = (args.f32("input"), args.f32_mut("output"));
            output.par_chunks_mut(GRAIN).zip(input.par_chunks(GRAIN)).for_each(|(output, input)| {
                for (y, &x) in output.iter_mut().zip(input) {
                    *y = self.value(x);
                }
            });
        };
        self.launch("forward", &[("input", input), ("output", output)], Arc::new(twin))
    }

    /// `input_grad = f′(input) · output_grad`, elementwise.
    pub fn backward(self, input: Range, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| {
            let (input, output_grad) = (args.f32("input"), args.f32("output_grad"));
            let upstream = input.par_chunks(GRAIN).zip(output_grad.par_chunks(GRAIN));
            args.f32_mut("input_grad").par_chunks_mut(GRAIN).zip(upstream).for_each(
                |(grad, (input, upstream))| {
                    for ((grad, &x), &upstream) in grad.iter_mut().zip(input).zip(upstream) {
                        *grad = self.slope(x) * upstream;
                    }
                },
            );
        };
        let bindings = [("input", input), ("output_grad", output_grad), ("input_grad", input_grad)];
        self.launch("backward", &bindings, Arc::new(twin))
    }
}

/// The number by which launches that end with an activation, or multiply by its derivative, know it.
pub(crate) fn fused_code(activation: Option<Activation>) -> f64 {
    activation
        .filter(|activation| activation.by_value())
        .map_or(99.0, |activation| activation.code().0 as f64)
}

/// Elements that a thread takes at once.
const GRAIN: usize = 1 << 14;
