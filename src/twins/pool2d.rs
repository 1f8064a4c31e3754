//! `shaders/pool2d.wgsl` on the CPU: the maximum or the mean of each window, upsampling, and their gradients.

use std::ops::Range;

use super::simd::{Plain, lanes, lanes_mut, vectorize};
use super::tasks::{self, Axis, cut, each, grid};
use crate::kernels::pool2d::adaptive;
use crate::kernels::shaders::pool2d::{
    adaptive_backward, adaptive_forward, average_backward, average_forward, max_backward, max_forward,
    upsample_backward, upsample_forward,
};
use crate::kernels::{LANES, Step};

/// What the shader's constants say; of an entry that lacks some, those of [`NO_WINDOWS`]. Pairs are (rows, columns).
#[derive(Clone, Copy)]
struct Shape {
    in_size: [usize; 2],
    out_size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    count_pad: bool,
}

const NO_WINDOWS: Shape = Shape {
    in_size: [1; 2],
    out_size: [1; 2],
    kernel: [1; 2],
    stride: [1; 2],
    pad: [0; 2],
    count_pad: false,
};

pub(super) fn max_forward(
    c: max_forward::Constants,
) -> impl Fn(max_forward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape {
        in_size: [c.in_height, c.in_width],
        out_size: [c.out_height, c.out_width],
        kernel: [c.kernel_height, c.kernel_width],
        stride: [c.stride_height, c.stride_width],
        pad: [c.pad_height, c.pad_width],
        ..NO_WINDOWS
    };
    move |b, _| maxima(&g, b)
}

pub(super) fn max_backward(
    c: max_backward::Constants,
) -> impl Fn(max_backward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape {
        in_size: [c.in_height, c.in_width],
        out_size: [c.out_height, c.out_width],
        kernel: [c.kernel_height, c.kernel_width],
        stride: [c.stride_height, c.stride_width],
        pad: [c.pad_height, c.pad_width],
        ..NO_WINDOWS
    };
    move |b, _| max_gradients(&g, b)
}

pub(super) fn average_forward(
    c: average_forward::Constants,
) -> impl Fn(average_forward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape {
        in_size: [c.in_height, c.in_width],
        out_size: [c.out_height, c.out_width],
        kernel: [c.kernel_height, c.kernel_width],
        stride: [c.stride_height, c.stride_width],
        pad: [c.pad_height, c.pad_width],
        count_pad: c.count_pad,
    };
    move |b, _| means(&g, b.input, b.output, |d, at| g.counted(d, at))
}

pub(super) fn average_backward(
    c: average_backward::Constants,
) -> impl Fn(average_backward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape {
        in_size: [c.in_height, c.in_width],
        out_size: [c.out_height, c.out_width],
        kernel: [c.kernel_height, c.kernel_width],
        stride: [c.stride_height, c.stride_width],
        pad: [c.pad_height, c.pad_width],
        count_pad: c.count_pad,
    };
    move |b, _| mean_gradients(&g, b.output_grad, b.input_grad, |d, at| g.counted(d, at))
}

pub(super) fn adaptive_forward(
    c: adaptive_forward::Constants,
) -> impl Fn(adaptive_forward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { in_size: [c.in_height, c.in_width], out_size: [c.out_height, c.out_width], ..NO_WINDOWS };
    move |b, _| means(&g, b.input, b.output, |d, at| g.adaptive_window(d, at))
}

pub(super) fn adaptive_backward(
    c: adaptive_backward::Constants,
) -> impl Fn(adaptive_backward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape { in_size: [c.in_height, c.in_width], out_size: [c.out_height, c.out_width], ..NO_WINDOWS };
    move |b, _| mean_gradients(&g, b.output_grad, b.input_grad, |d, at| g.adaptive_window(d, at))
}

pub(super) fn upsample_forward(
    c: upsample_forward::Constants,
) -> impl Fn(upsample_forward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape {
        in_size: [c.in_height, c.in_width],
        out_size: [c.out_height, c.out_width],
        stride: [c.stride_height, c.stride_width],
        ..NO_WINDOWS
    };
    move |b, _| copies(&g, b)
}

pub(super) fn upsample_backward(
    c: upsample_backward::Constants,
) -> impl Fn(upsample_backward::Buffers<'_>, Step) + Send + Sync {
    let g = Shape {
        in_size: [c.in_height, c.in_width],
        out_size: [c.out_height, c.out_width],
        stride: [c.stride_height, c.stride_width],
        ..NO_WINDOWS
    };
    move |b, _| copy_gradients(&g, b)
}

impl Shape {
    /// The part of window `at` that lies within the input, in dimension `d`.
    fn window(&self, d: usize, at: usize) -> Range<usize> {
        let start = at * self.stride[d];
        let end = (start + self.kernel[d]).saturating_sub(self.pad[d]).min(self.in_size[d]);
        start.saturating_sub(self.pad[d])..end
    }

    /// [`Shape::window`], and as how many places a mean counts it.
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

    /// Some rows of each channel of each block of a tensor with planes of this size: the plane, and the rows.
    fn strips(&self, len: usize, size: [usize; 2]) -> impl Iterator<Item = Strip> + Clone {
        let planes = len / (size[0] * size[1] * LANES);
        let [rows, _] =
            grid(tasks::wanted(self.operations(planes)), planes, [Axis::new(size[0], 1), Axis::whole(1)]);
        (0..planes).flat_map(move |plane| rows.iter().map(move |(start, len)| (plane, start..start + len)))
    }

    /// A few for each place of so many planes, on both sides.
    fn operations(&self, planes: usize) -> usize {
        let places = self.in_size[0] * self.in_size[1] + self.out_size[0] * self.out_size[1];
        4 * places * planes * LANES
    }

    /// Runs `strip(input plane, rows, those of the output)` on every channel of every block, some rows at a time.
    fn rows(
        &self,
        (from, from_size): (&[f32], [usize; 2]),
        (to, size): (&mut [f32], [usize; 2]),
        rows: impl Fn(Strip, &[f32], &mut [f32]) + Send + Sync,
    ) {
        let len = from_size[0] * from_size[1] * LANES;
        let strips = self.strips(to.len(), size);
        let outputs = cut(to, strips.clone().map(|(_, rows)| rows.len() * size[1] * LANES));
        let mut work: Vec<_> = strips.zip(outputs).collect();
        each(&mut work, 1, self.operations(from.len() / len), |_, work| {
            let [((plane, range), to)] = work else { return };
            let from = &from[*plane * len..][..len];
            vectorize(Plain(
                #[inline(always)]
                || rows((*plane, range.clone()), from, to),
            ));
        });
    }
}

/// A plane, which is a channel of a block, and some rows of it.
type Strip = (usize, Range<usize>);

/// Places of a window in one dimension, and as how many a mean counts them.
type Counted = (Range<usize>, usize);

/// What two ranges have in common.
#[inline(always)]
fn common(a: Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

fn maxima(g: &Shape, b: max_forward::Buffers<'_>) {
    let max_forward::Buffers { input, output, winner } = b;
    let plane = g.in_size[0] * g.in_size[1] * LANES;
    let strips = g.strips(output.len(), g.out_size);
    let lengths = strips.clone().map(|(_, rows)| rows.len() * g.out_size[1] * LANES);
    let outputs = cut(output, lengths.clone()).into_iter().zip(cut(winner, lengths));
    let mut work: Vec<_> = strips.zip(outputs).collect();
    each(&mut work, 1, g.operations(input.len() / plane), |_, work| {
        let [((i, rows), (output, winner))] = work else { return };
        let input = &input[*i * plane..][..plane];
        vectorize(Plain(
            #[inline(always)]
            || max_rows(g, input, rows.clone(), output, winner),
        ));
    });
}

#[inline(always)]
fn max_rows(g: &Shape, input: &[f32], range: Range<usize>, output: &mut [f32], winner: &mut [u32]) {
    let width = g.out_size[1];
    for (row, y) in range.enumerate() {
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
                        let more = (values[l] > best[l]) | values[l].is_nan();
                        best[l] = if more { values[l] } else { best[l] };
                        won[l] = if more { here } else { won[l] };
                    }
                }
            }
            *lanes_mut(output, row * width + x) = best;
            *lanes_mut(winner, row * width + x) = won;
        }
    }
}

fn max_gradients(g: &Shape, b: max_backward::Buffers<'_>) {
    let max_backward::Buffers { output_grad, won, input_grad } = b;
    let [height, width] = g.out_size;
    g.rows(
        (output_grad, g.out_size),
        (input_grad, g.in_size),
        #[inline(always)]
        |(i, range), grads, input_grad| {
            let won = &won[i * height * width * LANES..][..height * width * LANES];
            input_grad.fill(0.0);
            for y in 0..height {
                for x in 0..width {
                    let (grads, won) = (lanes(grads, y * width + x), lanes(won, y * width + x));
                    for iy in common(g.window(0, y), &range) {
                        for ix in g.window(1, x) {
                            let here = (iy + g.pad[0] - y * g.stride[0]) * g.kernel[1] + ix + g.pad[1]
                                - x * g.stride[1];
                            let to = lanes_mut(input_grad, (iy - range.start) * g.in_size[1] + ix);
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
fn means(
    g: &Shape,
    input: &[f32],
    output: &mut [f32],
    window: impl Fn(usize, usize) -> Counted + Send + Sync,
) {
    let width = g.out_size[1];
    g.rows(
        (input, g.in_size),
        (output, g.out_size),
        #[inline(always)]
        |(_, range), input, output| {
            for (row, y) in range.enumerate() {
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
                    *lanes_mut(output, row * width + x) = sum.map(|sum: f32| sum / cells);
                }
            }
        },
    );
}

/// The gradient of the input of [`means`].
fn mean_gradients(
    g: &Shape,
    output_grad: &[f32],
    input_grad: &mut [f32],
    window: impl Fn(usize, usize) -> Counted + Send + Sync,
) {
    let [height, width] = g.out_size;
    g.rows(
        (output_grad, g.out_size),
        (input_grad, g.in_size),
        #[inline(always)]
        |(_, range), grads, input_grad| {
            input_grad.fill(0.0);
            for y in 0..height {
                let (rows, high) = window(0, y);
                let rows = common(rows, &range);
                for x in 0..width {
                    let (columns, wide) = window(1, x);
                    let cells = (high * wide) as f32;
                    let share = lanes(grads, y * width + x).map(|grad| grad / cells);
                    for iy in rows.clone() {
                        for ix in columns.clone() {
                            let to = lanes_mut(input_grad, (iy - range.start) * g.in_size[1] + ix);
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

fn copies(g: &Shape, b: upsample_forward::Buffers<'_>) {
    let upsample_forward::Buffers { input, output } = b;
    let width = g.out_size[1];
    g.rows(
        (input, g.in_size),
        (output, g.out_size),
        #[inline(always)]
        |(_, range), input, output| {
            for (row, y) in range.enumerate() {
                for x in 0..width {
                    let from = y / g.stride[0] * g.in_size[1] + x / g.stride[1];
                    *lanes_mut(output, row * width + x) = *lanes(input, from);
                }
            }
        },
    );
}

fn copy_gradients(g: &Shape, b: upsample_backward::Buffers<'_>) {
    let upsample_backward::Buffers { output_grad, input_grad } = b;
    let [height, width] = g.out_size;
    g.rows(
        (output_grad, g.out_size),
        (input_grad, g.in_size),
        #[inline(always)]
        |(_, range), grads, input_grad| {
            input_grad.fill(0.0);
            for y in range.start * g.stride[0]..(range.end * g.stride[0]).min(height) {
                let row = y / g.stride[0] - range.start;
                for x in 0..width {
                    let grads = lanes(grads, y * width + x);
                    let to = lanes_mut(input_grad, row * g.in_size[1] + x / g.stride[1]);
                    for l in 0..LANES {
                        to[l] += grads[l];
                    }
                }
            }
        },
    );
}
