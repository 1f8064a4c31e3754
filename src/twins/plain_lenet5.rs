//! `shaders/plain_lenet5.wgsl` on the CPU: picture by picture, and then parameter by parameter.

use std::sync::atomic::{AtomicU32, Ordering};

use super::simd::{Plain, vectorize};
use super::tasks::{self, each};
use crate::kernels::loss::RECORD as METRICS;
use crate::kernels::optimizer::{Fault, Kind, STATUS};
use crate::kernels::plain_lenet5::{LINEAR1, PARAMETERS, RECORD};
use crate::kernels::shaders::plain_lenet5::{picture, update};
use crate::kernels::{CHUNK, Step};

/// A convolution with 5×5 filters, a ReLU and the maximum of each 2×2.
struct Convolution {
    channels: usize,
    /// Rows, and columns, of its input.
    size: usize,
    outputs: usize,
    /// Where weights and biases lie among the parameters.
    weight: usize,
    bias: usize,
}

const FIRST: Convolution = Convolution { channels: 1, size: 32, outputs: 6, weight: 0, bias: 192 };
const SECOND: Convolution = Convolution { channels: 6, size: 14, outputs: 16, weight: 256, bias: 2_688 };

/// A linear layer: where its parameters lie, and where in a picture's record what it saw and what came back to it.
struct Linear {
    inputs: usize,
    outputs: usize,
    weight: usize,
    bias: usize,
    seen: usize,
    back: usize,
}

const LINEAR: [Linear; 3] = [
    Linear { inputs: 400, outputs: 120, weight: LINEAR1, bias: 50_752, seen: 2_752, back: 3_356 },
    Linear { inputs: 120, outputs: 84, weight: 50_880, bias: 60_992, seen: 3_152, back: 3_476 },
    Linear { inputs: 84, outputs: 10, weight: 61_120, bias: 62_016, seen: 3_272, back: 3_560 },
];

/// Where a picture's loss and verdict lie in its record.
const LOSS: usize = 3_570;

/// Multiply-adds of a picture, about.
const OPERATIONS: usize = 600_000;

pub(super) fn picture(c: picture::Constants) -> impl Fn(picture::Buffers<'_>, Step) + Send + Sync {
    let picture::Constants { mean, deviation, .. } = c;
    let values: Vec<f32> = (0..256).map(|byte| (byte as f32 / 255.0 - mean) / deviation).collect();
    move |b, step| {
        b.metrics[step.slot as usize * METRICS + 3] = 0;
        let count = step.count as usize;
        let images: &[u8] = bytemuck::cast_slice(b.images);
        let labels: &[u8] = bytemuck::cast_slice(b.labels);
        let order = &b.order[step.cursor as usize..];
        each(&mut b.records[..count * RECORD], RECORD, count * OPERATIONS, |n, record| {
            let number = order[n] as usize;
            let pixels = padded(&images[number * 784..][..784], &values);
            let label = usize::from(labels[number]);
            vectorize(Plain(
                #[inline(always)]
                || there_and_back(b.weights, &pixels, label, 1.0 / count as f32, record),
            ));
        });
    }
}

/// The picture as the first convolution sees it: with two rows and columns of background on each side.
fn padded(bytes: &[u8], values: &[f32]) -> Vec<f32> {
    let mut pixels = vec![values[0]; 32 * 32];
    for (row, bytes) in pixels[2 * 32..].chunks_exact_mut(32).zip(bytes.chunks_exact(28)) {
        for (pixel, &byte) in row[2..].iter_mut().zip(bytes) {
            *pixel = values[usize::from(byte)];
        }
    }
    pixels
}

/// From the pixels to the loss and back; leaves all that the record holds.
#[inline(always)]
fn there_and_back(weights: &[f32], pixels: &[f32], label: usize, share: f32, record: &mut [f32]) {
    let (map1, places1) = FIRST.forward(weights, pixels);
    let (mut seen, places2) = SECOND.forward(weights, &map1);
    for (at, layer) in LINEAR.iter().enumerate() {
        record[layer.seen..][..layer.inputs].copy_from_slice(&seen);
        seen = layer.forward(weights, &seen);
        if at < 2 {
            seen.iter_mut().for_each(|value| *value = if *value <= 0.0 { 0.0 } else { *value });
        }
    }
    let logits = seen;
    let first = |best, k| if logits[k] > logits[best] { k } else { best };
    let best = (1..logits.len()).fold(0, first);
    let sum: f32 = logits.iter().map(|z| (z - logits[best]).exp()).sum();
    record[LOSS] = logits[best] - logits[label] + sum.ln();
    record[LOSS + 1] = f32::from(u8::from(best == label));
    let hit = |k| if k == label { 1.0 } else { 0.0 };
    let of_class = |(k, z): (usize, &f32)| ((z - logits[best]).exp() / sum - hit(k)) * share;
    let mut back: Vec<f32> = logits.iter().enumerate().map(of_class).collect();
    for layer in LINEAR.iter().rev() {
        record[layer.back..][..layer.outputs].copy_from_slice(&back);
        back = layer.backward(weights, &back);
        // What a ReLU cut off has no gradient; of the features that is so where a window has no winner.
        let seen = &record[layer.seen..][..layer.inputs];
        back.iter_mut().zip(seen).for_each(|(back, &seen)| *back = if seen <= 0.0 { 0.0 } else { *back });
    }
    SECOND.weight_gradient(&map1, &places2, &back, record);
    let mut back = SECOND.backward(weights, &places2, &back);
    back.iter_mut().zip(&map1).for_each(|(back, &seen)| *back = if seen <= 0.0 { 0.0 } else { *back });
    FIRST.weight_gradient(pixels, &places1, &back, record);
}

impl Convolution {
    /// Rows, and columns, after pooling.
    fn pooled(&self) -> usize {
        (self.size - 4) / 2
    }

    /// The maximum of each window, and where in a plane of the input the filter's first tap then lay.
    #[inline(always)]
    fn forward(&self, weights: &[f32], input: &[f32]) -> (Vec<f32>, Vec<usize>) {
        let (size, across) = (self.size, self.size - 4);
        let (mut values, mut places) = (Vec::new(), Vec::new());
        for o in 0..self.outputs {
            let mut plane = vec![weights[self.bias + o]; across * across];
            let filters = &weights[self.weight + o * self.channels * 25..][..self.channels * 25];
            for (k, weight) in filters.iter().enumerate() {
                let seen = &input[k / 25 * size * size + k % 25 / 5 * size + k % 5..];
                for (sums, seen) in plane.chunks_exact_mut(across).zip(seen.chunks(size)) {
                    sums.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += weight * seen);
                }
            }
            for window in 0..self.pooled() * self.pooled() {
                let corner = window / self.pooled() * 2 * across + window % self.pooled() * 2;
                // The first of equals.
                let four = [corner, corner + 1, corner + across, corner + across + 1];
                let most =
                    four.into_iter().fold(corner, |most, at| if plane[at] > plane[most] { at } else { most });
                values.push(if plane[most] <= 0.0 { 0.0 } else { plane[most] });
                places.push(most / across * size + most % across);
            }
        }
        (values, places)
    }

    /// The gradients of weights and biases, where these lie among the parameters.
    #[inline(always)]
    fn weight_gradient(&self, input: &[f32], places: &[usize], back: &[f32], gradients: &mut [f32]) {
        let windows = self.pooled() * self.pooled();
        for (o, (places, back)) in places.chunks_exact(windows).zip(back.chunks_exact(windows)).enumerate() {
            gradients[self.bias + o] = back.iter().sum();
            for k in 0..self.channels * 25 {
                let seen = &input[k / 25 * self.size * self.size + k % 25 / 5 * self.size + k % 5..];
                let products = places.iter().zip(back).map(|(&place, back)| back * seen[place]);
                gradients[self.weight + o * self.channels * 25 + k] = products.sum();
            }
        }
    }

    /// The gradient of its input.
    #[inline(always)]
    fn backward(&self, weights: &[f32], places: &[usize], back: &[f32]) -> Vec<f32> {
        let plane = self.size * self.size;
        let mut gradient = vec![0.0; self.channels * plane];
        let windows = self.pooled() * self.pooled();
        for (at, (&place, back)) in places.iter().zip(back).enumerate() {
            let filters = &weights[self.weight + at / windows * self.channels * 25..][..self.channels * 25];
            for (k, weight) in filters.iter().enumerate() {
                gradient[k / 25 * plane + k % 25 / 5 * self.size + k % 5 + place] += weight * back;
            }
        }
        gradient
    }
}

impl Linear {
    #[inline(always)]
    fn forward(&self, weights: &[f32], input: &[f32]) -> Vec<f32> {
        let rows = weights[self.weight..][..self.outputs * self.inputs].chunks_exact(self.inputs);
        let biases = &weights[self.bias..][..self.outputs];
        rows.zip(biases).map(|(row, bias)| bias + dot(row, input)).collect()
    }

    /// The gradient of its input.
    #[inline(always)]
    fn backward(&self, weights: &[f32], back: &[f32]) -> Vec<f32> {
        let mut gradient = vec![0.0; self.inputs];
        let rows = weights[self.weight..][..self.outputs * self.inputs].chunks_exact(self.inputs);
        for (row, back) in rows.zip(back) {
            gradient.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * back);
        }
        gradient
    }
}

/// Eight sums side by side, which is what registers want.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>() + sums.iter().sum::<f32>()
}

pub(super) fn update(c: update::Constants) -> impl Fn(update::Buffers<'_>, Step) + Send + Sync {
    let update::Constants { beta1, beta2, epsilon } = c;
    move |b, step| {
        let records: Vec<&[f32]> = b.made.chunks_exact(RECORD).take(step.count as usize).collect();
        let (ring, status) = b.metrics.split_at_mut(b.metrics.len() - STATUS);
        let metrics = &mut ring[step.slot as usize * METRICS..][..METRICS];
        let loss: f32 = records.iter().map(|record| record[LOSS]).sum();
        let right: f32 = records.iter().map(|record| record[LOSS + 1]).sum();
        metrics[..3].copy_from_slice(&[loss.to_bits(), right as u32, step.count]);
        let time = step.time.max(1);
        if status[0] != 0 && status[0] != time {
            metrics[3] = (Kind::Earlier as u32) << 24;
            return;
        }
        let mut flags = if loss.is_finite() { 0 } else { Fault { kind: Kind::Loss, chunk: 0 }.flags() };
        gradients(&records, b.gradients);
        for (kept, from) in b.before.chunks_exact_mut(PARAMETERS).zip([&*b.parameters, b.moment1, b.moment2])
        {
            kept.copy_from_slice(from);
        }
        let worst = AtomicU32::new(0);
        let chunks = b.parameters.chunks_exact_mut(CHUNK).zip(b.gradients.chunks_exact(CHUNK));
        let moments = b.moment1.chunks_exact_mut(CHUNK).zip(b.moment2.chunks_exact_mut(CHUNK));
        let chunks: Vec<_> = chunks.zip(moments).enumerate().collect();
        tasks::run(chunks, |(chunk, ((parameters, gradients), (first, second)))| {
            for (((p, &g), m), v) in parameters.iter_mut().zip(gradients).zip(first).zip(second) {
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *p -= step.learning_rate * step.correction1 * *m / (v.sqrt() * step.correction2 + epsilon);
                let kind = match () {
                    () if !g.is_finite() => Kind::Gradient,
                    () if !(m.is_finite() && v.is_finite()) => Kind::Moment,
                    () if !p.is_finite() => Kind::Parameter,
                    () => continue,
                };
                worst.fetch_max(Fault { kind, chunk }.flags(), Ordering::Relaxed);
            }
        });
        flags = flags.max(worst.into_inner());
        metrics[3] = flags;
        if flags > 0 {
            status[0] = time;
        }
    }
}

/// The batch's gradients, where the parameters lie; 0 between the tensors.
fn gradients(records: &[&[f32]], gradients: &mut [f32]) {
    gradients.fill(0.0);
    let (convolutions, _) = gradients.split_at_mut(LINEAR1);
    for Convolution { channels, outputs, weight, bias, .. } in [FIRST, SECOND] {
        for (start, len) in [(weight, outputs * channels * 25), (bias, outputs)] {
            for record in records {
                let sums = convolutions[start..][..len].iter_mut();
                sums.zip(&record[start..]).for_each(|(sum, share)| *sum += share);
            }
        }
    }
    for layer in &LINEAR {
        let Linear { inputs, outputs, weight, bias, seen, back } = *layer;
        let operations = records.len() * inputs * outputs;
        each(&mut gradients[weight..][..inputs * outputs], inputs, operations, |o, sums| {
            for record in records {
                let back = record[back + o];
                sums.iter_mut().zip(&record[seen..]).for_each(|(sum, seen)| *sum += back * seen);
            }
        });
        for record in records {
            let sums = gradients[bias..][..outputs].iter_mut();
            sums.zip(&record[back..]).for_each(|(sum, back)| *sum += back);
        }
    }
}
