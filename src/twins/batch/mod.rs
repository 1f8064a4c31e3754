//! `shaders/batch.wgsl` on the CPU: the images of one step, gathered from the data set's bytes.

mod distortion;
mod random;

use std::ops::Range;

use self::distortion::Distortion;
use crate::kernels::shaders::batch::{augment, gather};
use crate::kernels::{LANES, Step};
use crate::twins::tasks::{self, Axis, grid, portions};

pub(super) fn gather(c: gather::Constants) -> impl Fn(gather::Buffers<'_>, Step) + Send + Sync {
    let gather = Gather::new(c);
    let height = c.height + 2 * c.pad;
    move |b, step| {
        let gather::Buffers { images, order, output } = b;
        gather.images(step, images, order).gather(0, height, output);
    }
}

pub(super) fn augment(c: augment::Constants) -> impl Fn(augment::Buffers<'_>, Step) + Send + Sync {
    let distortion = Distortion::new(c);
    move |b, step| {
        let augment::Buffers { images, order, output } = b;
        distortion.run(step, images, order, output);
    }
}

/// How the data set's bytes become images.
pub(super) struct Gather {
    g: gather::Constants,
    /// A byte has 256 values: their normalised forms are looked up.
    table: [f32; 256],
}

impl Gather {
    pub(super) fn new(g: gather::Constants) -> Gather {
        let table = std::array::from_fn(|byte| (byte as f32 / 255.0 - g.mean) / g.deviation);
        Gather { g, table }
    }

    /// One step's images of a data set.
    pub(super) fn images<'a>(&'a self, step: Step, images: &'a [u32], order: &'a [u32]) -> Images<'a> {
        Images { by: self, step, bytes: bytemuck::cast_slice(images), order }
    }
}

/// One step's images, of this twin or of one that gathers them itself.
pub(super) struct Images<'a> {
    by: &'a Gather,
    step: Step,
    bytes: &'a [u8],
    order: &'a [u32],
}

/// Of a pixel: a byte and its float, strewn over cache lines.
const OPERATIONS: usize = 16;

impl Images<'_> {
    /// `[C, height = H + 2·pad, W + 2·pad + 2·margin]` of every block, zeros in the margins.
    pub(super) fn gather(&self, margin: usize, height: usize, output: &mut [f32]) {
        let g = &self.by.g;
        let plane = height * (g.width + 2 * g.pad + 2 * margin) * LANES;
        let blocks = output.len() / (g.channels * plane);
        let [rows, channels] = grid(
            tasks::wanted(OPERATIONS * output.len()),
            blocks,
            [Axis::new(height, 1), Axis::new(g.channels, 1)],
        );
        let lengths = rows.iter().map(|(_, rows)| rows * plane / height);
        let places = (0..blocks).flat_map(|block| {
            channels.iter().flat_map(move |channels| rows.iter().map(move |rows| (block, channels, rows)))
        });
        let tasks: Vec<_> = places.zip(portions(output, channels, plane, lengths)).collect();
        tasks::run(tasks, |((block, (first, _), (row, _)), output)| {
            for (channel, output) in output.into_iter().enumerate() {
                self.rows(block, margin, [first + channel, row], output);
            }
        });
    }

    /// Some rows, each as in [`Images::gather`], of every channel of the 16 images of a block.
    pub(super) fn block(&self, block: usize, margin: usize, rows: Range<usize>, output: &mut [f32]) {
        let plane = output.len() / self.by.g.channels;
        for (c, output) in output.chunks_exact_mut(plane.max(1)).enumerate() {
            self.rows(block, margin, [c, rows.start], output);
        }
    }

    /// The rows of a channel from `first` on for which there is room.
    fn rows(&self, block: usize, margin: usize, [c, first]: [usize; 2], output: &mut [f32]) {
        let Gather { g, table } = self.by;
        let pixels = g.channels * g.height * g.width;
        let background = (0.0 - g.mean) / g.deviation;
        let pictures: [Option<&[u8]>; LANES] = std::array::from_fn(|lane| {
            let row = block * LANES + lane;
            let there = row < self.step.count as usize;
            let image = there.then(|| self.order[self.step.cursor as usize + row] as usize)?;
            Some(&self.bytes[image * pixels..][..pixels])
        });
        let outside = pictures.map(|picture| if picture.is_some() { background } else { 0.0 });
        let fill = |values: &mut [f32], with: &[f32; LANES]| {
            values.chunks_exact_mut(LANES).for_each(|values| values.copy_from_slice(with));
        };
        let width = g.width + 2 * g.pad;
        let rows = output.chunks_exact_mut((width + 2 * margin) * LANES).enumerate();
        for (row, output) in rows {
            let (left, output) = output.split_at_mut(margin * LANES);
            let (output, right) = output.split_at_mut(width * LANES);
            fill(left, &[0.0; LANES]);
            fill(right, &[0.0; LANES]);
            let y = (first + row).wrapping_sub(g.pad);
            if y >= g.height {
                fill(output, &outside);
                continue;
            }
            let (left, output) = output.split_at_mut(g.pad * LANES);
            let (output, right) = output.split_at_mut(g.width * LANES);
            fill(left, &outside);
            fill(right, &outside);
            // One picture's row at a time: the lines that it is strewn over stay in the nearest cache.
            for (lane, picture) in pictures.iter().enumerate() {
                let values = output.chunks_exact_mut(LANES);
                match picture {
                    Some(picture) => {
                        let bytes = &picture[(c * g.height + y) * g.width..][..g.width];
                        for (values, &byte) in values.zip(bytes) {
                            values[lane] = table[usize::from(byte)];
                        }
                    }
                    None => values.for_each(|values| values[lane] = 0.0),
                }
            }
        }
    }
}
