//! Pooling by maxima and means, adaptive pooling, upsampling.

use lenet::kernels::pool2d;

use super::*;

#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub pad: [usize; 2],
    pub ceil: bool,
    pub count_pad: bool,
}

impl Pool {
    /// As many windows as fit, or, rounded up, as many as start within the picture or the padding before it.
    fn out_size(&self, input: &Images) -> [usize; 2] {
        [0, 1].map(|d| {
            let size = input.shape[2 + d];
            let fits = |i: usize| {
                let start = i * self.stride[d];
                start + self.kernel[d] <= size + 2 * self.pad[d]
                    || self.ceil
                        && start < size + self.pad[d]
                        && (i - 1) * self.stride[d] + self.kernel[d] < size + 2 * self.pad[d]
            };
            (1..).take_while(|&i| fits(i)).count() + 1
        })
    }

    /// The window's positions, those outside the picture among them.
    pub fn window(&self, y: usize, x: usize) -> impl Iterator<Item = (isize, isize)> {
        let (top, left) = (
            (y * self.stride[0]) as isize - self.pad[0] as isize,
            (x * self.stride[1]) as isize - self.pad[1] as isize,
        );
        let [height, width] = self.kernel.map(|side| side as isize);
        (0..height).flat_map(move |ky| (0..width).map(move |kx| (top + ky, left + kx)))
    }
}

pub fn max_reference(k: Pool, input: &Images) -> Images {
    let [images, channels, ..] = input.shape;
    let [height, width] = k.out_size(input);
    Images::build([images, channels, height, width], |n, c, y, x| {
        k.window(y, x).filter_map(|(y, x)| input.at(n, c, y, x)).fold(f64::NEG_INFINITY, f64::max)
    })
}

pub fn average_reference(k: Pool, input: &Images) -> Images {
    let [images, channels, in_height, in_width] = input.shape;
    let [height, width] = k.out_size(input);
    // What lies beyond the padding, under a window of a size that was rounded up, never counts.
    let padded = |y: isize, x: isize| {
        y < (in_height + k.pad[0]) as isize && x < (in_width + k.pad[1]) as isize && k.count_pad
    };
    Images::build([images, channels, height, width], |n, c, y, x| {
        let (mut sum, mut cells) = (0.0, 0);
        for (y, x) in k.window(y, x) {
            let value = input.at(n, c, y, x);
            sum += value.unwrap_or(0.0);
            cells += usize::from(value.is_some() || padded(y, x));
        }
        sum / cells as f64
    })
}

/// The mean of every input pixel that an output pixel touches, where both sizes stretch over the same picture.
pub fn adaptive_reference(size: [usize; 2], input: &Images) -> Images {
    let [images, channels, in_height, in_width] = input.shape;
    let touches =
        |i: usize, from: usize, o: usize, to: usize| i * to < (o + 1) * from && (i + 1) * to > o * from;
    Images::build([images, channels, size[0], size[1]], |n, c, y, x| {
        let rows = (0..in_height).filter(|&iy| touches(iy, in_height, y, size[0]));
        let cells: Vec<f64> = rows
            .flat_map(|iy| (0..in_width).map(move |ix| (iy, ix)))
            .filter(|&(_, ix)| touches(ix, in_width, x, size[1]))
            .map(|(iy, ix)| input.values[input.index(n, c, iy, ix)])
            .collect();
        cells.iter().sum::<f64>() / cells.len() as f64
    })
}

pub fn upsample_reference(factor: [usize; 2], input: &Images) -> Images {
    let [images, channels, height, width] = input.shape;
    Images::build([images, channels, height * factor[0], width * factor[1]], |n, c, y, x| {
        input.values[input.index(n, c, y / factor[0], x / factor[1])]
    })
}

/// Pooling's cases: overlapping, gaps, padding, sizes rounded up so that a window reaches past the padding.
fn pool_cases() -> [([usize; 4], Pool); 8] {
    let plain = Pool { kernel: [2, 2], stride: [2, 2], pad: [0, 0], ceil: false, count_pad: true };
    [
        ([3, 2, 5, 7], plain),
        ([2, 3, 6, 5], Pool { kernel: [3, 2], stride: [1, 2], ..plain }),
        ([1, 1, 7, 8], Pool { kernel: [3, 3], stride: [2, 1], pad: [1, 1], ..plain }),
        ([2, 2, 8, 9], Pool { kernel: [2, 3], stride: [3, 4], pad: [1, 0], ..plain }),
        ([2, 1, 5, 7], Pool { ceil: true, ..plain }),
        ([2, 2, 6, 9], Pool { kernel: [3, 4], stride: [2, 3], pad: [1, 2], ceil: true, ..plain }),
        ([1, 3, 4, 3], Pool { kernel: [4, 3], stride: [4, 3], ..plain }),
        ([19, 1, 3, 5], Pool { kernel: [2, 3], stride: [1, 1], pad: [1, 1], ..plain }),
    ]
}

fn pool_geometry(k: Pool, input: &Images) -> pool2d::Geometry {
    pool2d::Geometry {
        channels: input.shape[1],
        in_size: [input.shape[2], input.shape[3]],
        out_size: k.out_size(input),
        kernel: k.kernel,
        stride: k.stride,
        pad: k.pad,
        count_pad: k.count_pad,
        batch: input.shape[0],
    }
}

#[test]
fn max_pooling() {
    let mut random = Random(3);
    let mut worst = Worst::default();
    for (shape, k) in pool_cases() {
        // Values further apart than the differences reach: no ties, and no maximum that changes its place.
        let len: usize = shape.iter().product();
        let values = random.order(len).iter().map(|&i| (i as f64 - len as f64 / 2.0) / 64.0).collect();
        let input = Images { shape, values };
        let g = pool_geometry(k, &input);
        let layer = Plain {
            what: format!("{k:?} of {shape:?}"),
            input,
            formula: &|input| max_reference(k, input),
            allowed: POOLS,
        };
        layer.check(&mut worst, &mut random, |rig, f| {
            let winner = rig.poisoned("winner", f.output.len);
            vec![
                g.max_forward(f.input, f.output, winner).unwrap(),
                g.max_backward(f.output_grad, winner, f.input_grad).unwrap(),
            ]
        });
    }
    worst.report("max pooling");
}

#[test]
fn average_pooling() {
    let mut random = Random(4);
    let mut worst = Worst::default();
    for (shape, k) in pool_cases() {
        for count_pad in [true, false] {
            let k = Pool { count_pad, ..k };
            let input = Images::random(shape, &mut random);
            let g = pool_geometry(k, &input);
            let layer = Plain {
                what: format!("{k:?} of {shape:?}"),
                input,
                formula: &|input| average_reference(k, input),
                allowed: POOLS,
            };
            layer.check(&mut worst, &mut random, |_, f| {
                vec![
                    g.average_forward(f.input, f.output).unwrap(),
                    g.average_backward(f.output_grad, f.input_grad).unwrap(),
                ]
            });
        }
    }
    worst.report("average pooling");
}

#[test]
fn adaptive_pooling() {
    let mut random = Random(7);
    let mut worst = Worst::default();
    let cases = [
        ([3, 2, 8, 6], [4, 3]),
        ([2, 3, 7, 5], [3, 2]),
        ([1, 2, 10, 9], [7, 4]),
        ([2, 1, 5, 8], [1, 1]),
        ([19, 1, 3, 2], [5, 3]),
    ];
    for (shape, size) in cases {
        let input = Images::random(shape, &mut random);
        let g = pool2d::Geometry::adaptive(shape[1], [shape[2], shape[3]], size, shape[0]);
        let layer = Plain {
            what: format!("{shape:?} to {size:?}"),
            input,
            formula: &|input| adaptive_reference(size, input),
            allowed: SUMS,
        };
        layer.check(&mut worst, &mut random, |_, f| {
            vec![
                g.adaptive_forward(f.input, f.output).unwrap(),
                g.adaptive_backward(f.output_grad, f.input_grad).unwrap(),
            ]
        });
    }
    worst.report("adaptive pooling");
}

/// Of the squares of 1 to 35, over 64, as 5 rows of 7: what PyTorch 2 makes of them in 3 rows of 4.
#[test]
fn adaptive_windows_are_pytorchs() {
    let input: Vec<f32> = (1..36).map(|i| (i * i) as f32 / 64.0).collect();
    let want = [
        0.5859375,
        0.8619791666666666,
        1.3307291666666667,
        1.7578125,
        4.268229166666667,
        5.036458333333333,
        6.161458333333333,
        7.080729166666667,
        10.7578125,
        12.018229166666666,
        13.799479166666666,
        15.2109375,
    ];
    let mut rig = Rig::default();
    let from = rig.images("input", &input, 35);
    let to = rig.result("output", 12, 1);
    let g = pool2d::Geometry::adaptive(1, [5, 7], [3, 4], 1);
    let ran = rig.run(vec![g.adaptive_forward(from, to).unwrap()], step(1));
    Worst::default().close("output", &ran.rows(to, 12, 1), &want, POOLS);
}

#[test]
fn upsampling() {
    let mut random = Random(8);
    let mut worst = Worst::default();
    for (shape, factor) in [([3, 2, 4, 3], [2, 2]), ([17, 1, 2, 5], [3, 1]), ([2, 3, 1, 3], [1, 4])] {
        let input = Images::random(shape, &mut random);
        let g = pool2d::Geometry::upsampling(shape[1], [shape[2], shape[3]], factor, shape[0]);
        let layer = Plain {
            what: format!("{shape:?} times {factor:?}"),
            input,
            formula: &|input| upsample_reference(factor, input),
            allowed: POOLS,
        };
        layer.check(&mut worst, &mut random, |_, f| {
            vec![
                g.upsample_forward(f.input, f.output).unwrap(),
                g.upsample_backward(f.output_grad, f.input_grad).unwrap(),
            ]
        });
    }
    worst.report("upsampling");
}
