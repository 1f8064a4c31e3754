//! `shaders/lrn.wgsl`: local response normalisation across channels, and its gradient.

use std::sync::Arc;

use rayon::prelude::*;

use super::simd::{Plain, lanes, lanes_mut, scratch, vectorize};
use super::{Args, LANES, Launch, Range, WORKGROUP, blocks};
use crate::error::{Error, Result};

/// Shapes and settings of the normalisation; PyTorch's definitions and defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Rows times columns.
    pub positions: usize,
    /// Channels of a window: `size / 2` before a channel, itself, and `(size − 1) / 2` after it.
    pub size: usize,
    /// The weight of the window's mean square; 1e-4 by default.
    pub alpha: f32,
    /// The exponent; 0.75 by default.
    pub beta: f32,
    /// What is added to the mean square; 1 by default.
    pub k: f32,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Settings`] with the setting's name: a base of the power that is 0 has no slope.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Settings(format!("local response normalisation: {what}")));
        if self.size == 0 {
            return refuse("size is 0, expected 1 or more".into());
        }
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(format!("{name} is {value}, expected 0 or more"));
            }
        }
        if !(self.k > 0.0 && self.k.is_finite()) {
            return refuse(format!("k is {}, expected more than 0", self.k));
        }
        Ok(())
    }

    fn launch(
        self,
        entry: &str,
        bindings: &[(&str, Range)],
        operations: usize,
        twin: super::Twin,
    ) -> Result<Launch> {
        self.check()?;
        let constants = [
            ("CHANNELS", self.channels as f64),
            ("POSITIONS", self.positions as f64),
            ("SIZE", self.size as f64),
            ("ALPHA", f64::from(self.alpha)),
            ("BETA", f64::from(self.beta)),
            ("K", f64::from(self.k)),
        ];
        let elements = self.channels * self.positions;
        let grid = [(elements * LANES).div_ceil(WORKGROUP), blocks(self.batch), 1];
        let flop = (operations * elements * self.batch) as u64;
        Launch::old(("lrn", entry), &constants, grid, bindings, flop, twin)
    }

    /// The normalised input.
    ///
    /// # Errors
    /// As [`Geometry::check`].
    pub fn forward(self, input: Range, output: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| forward(&self, args);
        self.launch("forward", &[("input", input), ("output", output)], 2 * self.size + 4, Arc::new(twin))
    }

    /// The gradient of the input.
    ///
    /// # Errors
    /// As [`Geometry::check`].
    pub fn backward(self, input: Range, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = [("input", input), ("output_grad", output_grad), ("input_grad", input_grad)];
        let twin = move |args: &mut Args<'_>| backward(&self, args);
        self.launch("backward", &bindings, self.size * (2 * self.size + 7) + 3, Arc::new(twin))
    }

    /// The channels from `before` before `c` to `after` after it, as far as they exist.
    fn window(&self, c: usize, before: usize, after: usize) -> std::ops::Range<usize> {
        c.saturating_sub(before)..(c + after + 1).min(self.channels)
    }

    /// The powers' bases of channel `c` at a position of a block.
    #[inline(always)]
    fn bases(&self, block: &[f32], c: usize, position: usize) -> [f32; LANES] {
        let mut squares = [0.0; LANES];
        for other in self.window(c, self.size / 2, (self.size - 1) / 2) {
            let x = lanes(block, other * self.positions + position);
            for l in 0..LANES {
                squares[l] += x[l] * x[l];
            }
        }
        squares.map(|squares| self.k + self.alpha / self.size as f32 * squares)
    }

    /// Runs `plane(block, channel, output plane)` on every channel of every block.
    fn planes(&self, output: &mut [f32], plane: impl Fn(usize, usize, &mut [f32]) + Sync) {
        output.par_chunks_mut(self.positions * LANES).enumerate().for_each(|(i, output)| {
            vectorize(Plain(|| plane(i / self.channels, i % self.channels, output)));
        });
    }
}

fn forward(g: &Geometry, args: &mut Args<'_>) {
    let (input, output) = (args.f32("input"), args.f32_mut("output"));
    let len = g.channels * g.positions * LANES;
    g.planes(
        output,
        #[inline(always)]
        |block, c, output| {
            let input = &input[block * len..][..len];
            for position in 0..g.positions {
                let bases = g.bases(input, c, position);
                let x = lanes(input, c * g.positions + position);
                *lanes_mut(output, position) = std::array::from_fn(|l| x[l] * bases[l].powf(-g.beta));
            }
        },
    );
}

fn backward(g: &Geometry, args: &mut Args<'_>) {
    let (input, output_grad, input_grad) =
        (args.f32("input"), args.f32("output_grad"), args.f32_mut("input_grad"));
    let len = g.channels * g.positions * LANES;
    let share = 2.0 * g.alpha * g.beta / g.size as f32;
    // First what each channel gives to those in its window, which the shader computes for each of them anew.
    scratch(input.len(), |terms| {
        let size = g.positions * LANES;
        input_grad.par_chunks_mut(size).zip(terms.par_chunks_mut(size)).enumerate().for_each(
            |(i, (own, terms))| {
                vectorize(Plain(
                    #[inline(always)]
                    || {
                        let (block, c) = (i / g.channels, i % g.channels);
                        let (x, upstream) = (&input[i * size..][..size], &output_grad[i * size..][..size]);
                        for position in 0..g.positions {
                            let bases = g.bases(&input[block * len..][..len], c, position);
                            let (x, upstream) = (lanes(x, position), lanes(upstream, position));
                            let scaled: [f32; LANES] =
                                std::array::from_fn(|l| upstream[l] * bases[l].powf(-g.beta));
                            *lanes_mut(own, position) = scaled;
                            *lanes_mut(terms, position) =
                                std::array::from_fn(|l| scaled[l] * x[l] / bases[l]);
                        }
                    },
                ));
            },
        );
        let terms = &*terms;
        g.planes(
            input_grad,
            #[inline(always)]
            |block, c, input_grad| {
                let (input, terms) = (&input[block * len..][..len], &terms[block * len..][..len]);
                for position in 0..g.positions {
                    let mut sum = [0.0; LANES];
                    for other in g.window(c, (g.size - 1) / 2, g.size / 2) {
                        let terms = lanes(terms, other * g.positions + position);
                        for l in 0..LANES {
                            sum[l] += terms[l];
                        }
                    }
                    let x = lanes(input, c * g.positions + position);
                    let grad = lanes_mut(input_grad, position);
                    for l in 0..LANES {
                        grad[l] -= share * x[l] * sum[l];
                    }
                }
            },
        );
    });
}
