//! `shaders/pool2d.wgsl`: the maximum or the mean of each window, upsampling, and their gradients.

use std::sync::Arc;

use rayon::prelude::*;

use super::simd::{Plain, lanes, lanes_mut, vectorize};
use super::{Args, LANES, Launch, Range, WORKGROUP, blocks};
use crate::error::Result;

/// Shapes of a pooling layer; pairs are (rows, columns).
///
/// [`Geometry::adaptive`] and [`Geometry::upsampling`] make those of the layers that are not told their windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Size of the input.
    pub in_size: [usize; 2],
    /// Size of the output.
    pub out_size: [usize; 2],
    /// Size of the windows.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Cells added on each side, which never win a maximum.
    pub pad: [usize; 2],
    /// Whether a mean counts the padding.
    pub count_pad: bool,
    /// Images in a batch.
    pub batch: usize,
}

impl Geometry {
    /// Of an adaptive mean, whose windows follow from the two sizes, as in PyTorch: in each dimension window `i`
    /// goes from `⌊i · in / out⌋` up to, but not with, `⌈(i + 1) · in / out⌉`. An output of 1×1 is the global
    /// mean. For [`Geometry::adaptive_forward`] and [`Geometry::adaptive_backward`].
    pub fn adaptive(channels: usize, in_size: [usize; 2], out_size: [usize; 2], batch: usize) -> Geometry {
        // The largest window, in each dimension.
        let kernel = [0, 1].map(|d| {
            (0..out_size[d]).map(|at| adaptive(at, in_size[d], out_size[d]).len()).max().unwrap_or(1)
        });
        let (stride, pad) = ([1, 1], [0, 0]);
        Geometry { channels, in_size, out_size, kernel, stride, pad, count_pad: false, batch }
    }

    /// Of an upsampling by whole factors, every pixel becoming a rectangle of its copies. For
    /// [`Geometry::upsample_forward`] and [`Geometry::upsample_backward`].
    pub fn upsampling(channels: usize, in_size: [usize; 2], factor: [usize; 2], batch: usize) -> Geometry {
        let out_size = [0, 1].map(|d| in_size[d] * factor[d]);
        let (kernel, pad) = ([1, 1], [0, 0]);
        Geometry { channels, in_size, out_size, kernel, stride: factor, pad, count_pad: false, batch }
    }

    fn constants(&self) -> [(&'static str, f64); 12] {
        [
            ("CHANNELS", self.channels),
            ("IN_HEIGHT", self.in_size[0]),
            ("IN_WIDTH", self.in_size[1]),
            ("OUT_HEIGHT", self.out_size[0]),
            ("OUT_WIDTH", self.out_size[1]),
            ("KERNEL_HEIGHT", self.kernel[0]),
            ("KERNEL_WIDTH", self.kernel[1]),
            ("STRIDE_HEIGHT", self.stride[0]),
            ("STRIDE_WIDTH", self.stride[1]),
            ("PAD_HEIGHT", self.pad[0]),
            ("PAD_WIDTH", self.pad[1]),
            ("COUNT_PAD", usize::from(self.count_pad)),
        ]
        .map(|(name, value)| (name, value as f64))
    }

    fn grid(&self, size: [usize; 2]) -> [usize; 3] {
        [(self.channels * size[0] * size[1] * LANES).div_ceil(WORKGROUP), blocks(self.batch), 1]
    }

    fn flop(&self) -> u64 {
        let windows = self.channels * self.out_size[0] * self.out_size[1];
        (windows * self.kernel[0] * self.kernel[1] * self.batch) as u64
    }

    fn launch(
        &self,
        entry: &str,
        size: [usize; 2],
        bindings: &[(&str, Range)],
        twin: super::Twin,
    ) -> Result<Launch> {
        Launch::old(("pool2d", entry), &self.constants(), self.grid(size), bindings, self.flop(), twin)
    }

    /// The maximum of each window, and the place in the window where it was first found.
    pub fn max_forward(self, input: Range, output: Range, winner: Range) -> Result<Launch> {
        let bindings = [("input", input), ("output", output), ("winner", winner)];
        let twin = move |args: &mut Args<'_>| max_forward(&self, args);
        self.launch("max_forward", self.out_size, &bindings, Arc::new(twin))
    }

    /// The gradient of a maximum's input.
    pub fn max_backward(self, output_grad: Range, winner: Range, input_grad: Range) -> Result<Launch> {
        let bindings = [("output_grad", output_grad), ("won", winner), ("input_grad", input_grad)];
        let twin = move |args: &mut Args<'_>| max_backward(&self, args);
        self.launch("max_backward", self.in_size, &bindings, Arc::new(twin))
    }

    /// The mean of each window.
    pub fn average_forward(self, input: Range, output: Range) -> Result<Launch> {
        let bindings = [("input", input), ("output", output)];
        let twin = move |args: &mut Args<'_>| mean_forward(&self, args, |d, at| self.counted(d, at));
        self.launch("average_forward", self.out_size, &bindings, Arc::new(twin))
    }

    /// The gradient of a mean's input.
    pub fn average_backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let bindings = [("output_grad", output_grad), ("input_grad", input_grad)];
        let twin = move |args: &mut Args<'_>| mean_backward(&self, args, |d, at| self.counted(d, at));
        self.launch("average_backward", self.in_size, &bindings, Arc::new(twin))
    }

    /// The mean of each adaptive window.
    pub fn adaptive_forward(self, input: Range, output: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| mean_forward(&self, args, |d, at| self.adaptive_window(d, at));
        let bindings = [("input", input), ("output", output)];
        self.launch("adaptive_forward", self.out_size, &bindings, Arc::new(twin))
    }

    /// The gradient of an adaptive mean's input.
    pub fn adaptive_backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| mean_backward(&self, args, |d, at| self.adaptive_window(d, at));
        let bindings = [("output_grad", output_grad), ("input_grad", input_grad)];
        self.launch("adaptive_backward", self.in_size, &bindings, Arc::new(twin))
    }

    /// Copies of each pixel, as many as the stride.
    pub fn upsample_forward(self, input: Range, output: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| upsample_forward(&self, args);
        let bindings = [("input", input), ("output", output)];
        self.launch("upsample_forward", self.out_size, &bindings, Arc::new(twin))
    }

    /// The gradient of an upsampling's input: the sum of its copies' gradients.
    pub fn upsample_backward(self, output_grad: Range, input_grad: Range) -> Result<Launch> {
        let twin = move |args: &mut Args<'_>| upsample_backward(&self, args);
        let bindings = [("output_grad", output_grad), ("input_grad", input_grad)];
        self.launch("upsample_backward", self.in_size, &bindings, Arc::new(twin))
    }

    /// The part of window `at` that lies within the input, in dimension `d`.
    fn window(&self, d: usize, at: usize) -> std::ops::Range<usize> {
        let start = at * self.stride[d];
        let end = (start + self.kernel[d]).saturating_sub(self.pad[d]).min(self.in_size[d]);
        start.saturating_sub(self.pad[d])..end
    }

    /// [`Geometry::window`], and as how many places a mean counts it.
    fn counted(&self, d: usize, at: usize) -> Counted {
        let places = self.window(d, at);
        let count = if self.count_pad {
            let start = at * self.stride[d];
            (start + self.kernel[d]).min(self.in_size[d] + 2 * self.pad[d]) - start
        } else {
            places.len()
        };
        (places, count)
    }

    /// Adaptive window `at` in dimension `d`, which counts as what it is.
    fn adaptive_window(&self, d: usize, at: usize) -> Counted {
        let places = adaptive(at, self.in_size[d], self.out_size[d]);
        let count = places.len();
        (places, count)
    }

    /// Runs `plane(input plane, output plane)` on every channel of every block.
    fn planes<A: Send + Sync, B: Send>(
        &self,
        from: (&[A], [usize; 2]),
        to: (&mut [B], [usize; 2]),
        plane: impl Fn(usize, &[A], &mut [B]) + Sync,
    ) {
        let len = |size: [usize; 2]| size[0] * size[1] * LANES;
        to.0.par_chunks_mut(len(to.1))
            .zip(from.0.par_chunks(len(from.1)))
            .with_min_len(4)
            .enumerate()
            .for_each(|(i, (to, from))| vectorize(Plain(|| plane(i, from, to))));
    }
}

/// Places of a window in one dimension, and as how many a mean counts them.
type Counted = (std::ops::Range<usize>, usize);

/// Adaptive window `at` of `to` over `from` positions.
fn adaptive(at: usize, from: usize, to: usize) -> std::ops::Range<usize> {
    at * from / to..((at + 1) * from).div_ceil(to)
}

fn max_forward(g: &Geometry, args: &mut Args<'_>) {
    let (input, output, winner) = (args.f32("input"), args.f32_mut("output"), args.u32_mut("winner"));
    let [height, width] = g.out_size;
    let plane = height * width * LANES;
    let work = output.par_chunks_mut(plane).zip(winner.par_chunks_mut(plane));
    work.zip(input.par_chunks(g.in_size[0] * g.in_size[1] * LANES)).with_min_len(4).for_each(
        |((output, winner), input)| {
            vectorize(Plain(
                #[inline(always)]
                || max_plane(g, input, output, winner),
            ))
        },
    );
}

#[inline(always)]
fn max_plane(g: &Geometry, input: &[f32], output: &mut [f32], winner: &mut [u32]) {
    let [height, width] = g.out_size;
    for y in 0..height {
        for x in 0..width {
            let (rows, columns) = (g.window(0, y), g.window(1, x));
            let place = |iy: usize, ix: usize| {
                ((iy + g.pad[0] - y * g.stride[0]) * g.kernel[1] + ix + g.pad[1] - x * g.stride[1]) as u32
            };
            let mut best = [f32::MIN; LANES];
            let mut won = [place(rows.start, columns.start); LANES];
            for iy in rows {
                for ix in columns.clone() {
                    let values = lanes(input, iy * g.in_size[1] + ix);
                    let here = place(iy, ix);
                    for l in 0..LANES {
                        let more = values[l] > best[l];
                        best[l] = if more { values[l] } else { best[l] };
                        won[l] = if more { here } else { won[l] };
                    }
                }
            }
            *lanes_mut(output, y * width + x) = best;
            *lanes_mut(winner, y * width + x) = won;
        }
    }
}

fn max_backward(g: &Geometry, args: &mut Args<'_>) {
    let (output_grad, won, input_grad) =
        (args.f32("output_grad"), args.u32("won"), args.f32_mut("input_grad"));
    let [height, width] = g.out_size;
    g.planes(
        (output_grad, g.out_size),
        (input_grad, g.in_size),
        #[inline(always)]
        |i, grads, input_grad| {
            let won = &won[i * height * width * LANES..][..height * width * LANES];
            input_grad.fill(0.0);
            for y in 0..height {
                for x in 0..width {
                    let (grads, won) = (lanes(grads, y * width + x), lanes(won, y * width + x));
                    for iy in g.window(0, y) {
                        for ix in g.window(1, x) {
                            let here = (iy + g.pad[0] - y * g.stride[0]) * g.kernel[1] + ix + g.pad[1]
                                - x * g.stride[1];
                            let to = lanes_mut(input_grad, iy * g.in_size[1] + ix);
                            for l in 0..LANES {
                                to[l] += if won[l] == here as u32 { grads[l] } else { 0.0 };
                            }
                        }
                    }
                }
            }
        },
    );
}

/// The mean of each window, which `window(dimension, place of the output)` gives.
fn mean_forward(g: &Geometry, args: &mut Args<'_>, window: impl Fn(usize, usize) -> Counted + Sync) {
    let (input, output) = (args.f32("input"), args.f32_mut("output"));
    let [height, width] = g.out_size;
    g.planes(
        (input, g.in_size),
        (output, g.out_size),
        #[inline(always)]
        |_, input, output| {
            for y in 0..height {
                let (rows, high) = window(0, y);
                for x in 0..width {
                    let (columns, wide) = window(1, x);
                    let mut sum = [0.0; LANES];
                    for iy in rows.clone() {
                        for ix in columns.clone() {
                            let values = lanes(input, iy * g.in_size[1] + ix);
                            for l in 0..LANES {
                                sum[l] += values[l];
                            }
                        }
                    }
                    let cells = (high * wide) as f32;
                    *lanes_mut(output, y * width + x) = sum.map(|sum: f32| sum / cells);
                }
            }
        },
    );
}

/// The gradient of [`mean_forward`]'s input.
fn mean_backward(g: &Geometry, args: &mut Args<'_>, window: impl Fn(usize, usize) -> Counted + Sync) {
    let (output_grad, input_grad) = (args.f32("output_grad"), args.f32_mut("input_grad"));
    let [height, width] = g.out_size;
    g.planes(
        (output_grad, g.out_size),
        (input_grad, g.in_size),
        #[inline(always)]
        |_, grads, input_grad| {
            input_grad.fill(0.0);
            for y in 0..height {
                let (rows, high) = window(0, y);
                for x in 0..width {
                    let (columns, wide) = window(1, x);
                    let cells = (high * wide) as f32;
                    let share = lanes(grads, y * width + x).map(|grad| grad / cells);
                    for iy in rows.clone() {
                        for ix in columns.clone() {
                            let to = lanes_mut(input_grad, iy * g.in_size[1] + ix);
                            for l in 0..LANES {
                                to[l] += share[l];
                            }
                        }
                    }
                }
            }
        },
    );
}

fn upsample_forward(g: &Geometry, args: &mut Args<'_>) {
    let (input, output) = (args.f32("input"), args.f32_mut("output"));
    let [height, width] = g.out_size;
    g.planes(
        (input, g.in_size),
        (output, g.out_size),
        #[inline(always)]
        |_, input, output| {
            for y in 0..height {
                for x in 0..width {
                    let from = y / g.stride[0] * g.in_size[1] + x / g.stride[1];
                    *lanes_mut(output, y * width + x) = *lanes(input, from);
                }
            }
        },
    );
}

fn upsample_backward(g: &Geometry, args: &mut Args<'_>) {
    let (output_grad, input_grad) = (args.f32("output_grad"), args.f32_mut("input_grad"));
    let [height, width] = g.out_size;
    g.planes(
        (output_grad, g.out_size),
        (input_grad, g.in_size),
        #[inline(always)]
        |_, grads, input_grad| {
            input_grad.fill(0.0);
            for y in 0..height {
                for x in 0..width {
                    let grads = lanes(grads, y * width + x);
                    let to = lanes_mut(input_grad, y / g.stride[0] * g.in_size[1] + x / g.stride[1]);
                    for l in 0..LANES {
                        to[l] += grads[l];
                    }
                }
            }
        },
    );
}
