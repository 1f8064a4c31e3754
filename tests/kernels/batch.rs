//! What the CPU twin of `shaders/batch.wgsl` does to pictures whose brightness says where they were sampled.

use lenet::backend::Backend;
use lenet::kernels::augment::{Augment, Elastic};
use lenet::kernels::{CHUNK, LANES, Range, Step, batch, blocks};
use lenet::plan::{Phase, Program, to_rows};
use pollster::block_on;

use super::common::{Random, Tolerance, Worst};

/// All distortions together.
const EVERYTHING: &str = "shift=2,rotate=30,scale=0.2,shear=20,elastic=4:3,noise=0.1,cutout=4,flip";

/// A data set of pictures that are all alike, and what becomes of them.
struct Bench {
    backend: Backend,
    geometry: batch::Geometry,
    order: Range,
    output: Range,
}

impl Bench {
    /// `pictures` is `[N, C, H, W]`; the batch is as large, and the padding one pixel wide.
    fn new(pictures: &[u8], [channels, height, width]: [usize; 3], augment: Augment) -> Bench {
        let batch = pictures.len() / (channels * height * width);
        let geometry = batch::Geometry {
            channels,
            height,
            width,
            pad: 1,
            mean: 0.0,
            deviation: 1.0 / 255.0,
            batch,
            augment: Some(augment),
        };
        let mut program = Program::default();
        let images = program.add("images", pictures.len().div_ceil(4));
        let order = program.add("order", batch);
        let output = program.add("output", geometry.features() * blocks(batch) * LANES);
        program.train.push(geometry.gather(batch::Buffers { images, order, output }).expect("a launch"));
        let mut backend = Backend::cpu(&program);
        let words: Vec<u32> = pictures
            .chunks(4)
            .map(|bytes| {
                let mut word = [0; 4];
                word[..bytes.len()].copy_from_slice(bytes);
                u32::from_le_bytes(word)
            })
            .collect();
        backend.write(images, &words).expect("pictures");
        let mut bench = Bench { backend, geometry, order, output };
        bench.order(&(0..batch as u32).collect::<Vec<_>>());
        bench
    }

    fn order(&mut self, order: &[u32]) {
        self.backend.write(self.order, order).expect("an order");
    }

    /// The pictures of a step, `[N][C, H, W]` without the padding, in units of a byte.
    fn step(&mut self, seed: u32) -> Vec<Vec<f32>> {
        let g = self.geometry;
        let step = Step { count: g.batch as u32, seed, ..Step::default() };
        self.backend.run(Phase::Train, &[step]).expect("a step");
        let words = block_on(self.backend.read(self.output)).expect("pictures");
        let rows = to_rows(bytemuck::cast_slice(&words), g.features(), g.batch);
        let width = g.width + 2 * g.pad;
        let mut pictures = Vec::new();
        for picture in rows.chunks_exact(g.features()) {
            let mut inner = Vec::new();
            for (i, &value) in picture.iter().enumerate() {
                let (x, y) = (i % width, i / width % (g.height + 2 * g.pad));
                if (g.pad..g.pad + g.width).contains(&x) && (g.pad..g.pad + g.height).contains(&y) {
                    inner.push(value);
                } else {
                    assert_eq!(value, 0.0, "the padding at {x}, {y} is background");
                }
            }
            pictures.push(inner);
        }
        pictures
    }
}

/// The side of the pictures that say where they were sampled.
const SIDE: usize = 31;

/// Two planes, of which one is 8 · x and the other 8 · y: between pixels, too, because bilinear interpolation of a
/// linear function is that function. So what comes out of them, by 8, is the place that was sampled.
fn places(augment: Augment, seed: u32) -> Vec<Vec<[f64; 2]>> {
    let plane = |at: fn(usize) -> usize| (0..SIDE * SIDE).map(move |i| 8 * at(i) as u8);
    let picture: Vec<u8> = plane(|i| i % SIDE).chain(plane(|i| i / SIDE)).collect();
    let pictures = Bench::new(&picture.repeat(256), [2, SIDE, SIDE], augment).step(seed);
    let place = |picture: &Vec<f32>, i: usize| {
        [picture[i], picture[SIDE * SIDE + i]].map(|value| f64::from(value) / 8.0)
    };
    pictures.iter().map(|picture| (0..SIDE * SIDE).map(|i| place(picture, i)).collect()).collect()
}

/// The map of each picture: the derivatives of the place by x and by y, and the place of the centre.
fn maps(text: &str) -> Vec<[[f64; 2]; 3]> {
    let augment: Augment = text.parse().expect("an augmentation");
    let mut maps = Vec::new();
    for places in places(augment, 1).into_iter().chain(places(augment, 2)) {
        let middle = SIDE / 2;
        let at = |x: usize, y: usize| places[y * SIDE + x];
        let center = at(middle, middle);
        let less = |a: [f64; 2], b: [f64; 2], by: f64| [(a[0] - b[0]) / by, (a[1] - b[1]) / by];
        let by_x = less(at(middle + 4, middle), at(middle - 4, middle), 8.0);
        let by_y = less(at(middle, middle + 4), at(middle, middle - 4), 8.0);
        // One map for all pixels.
        for (dx, dy) in [(-4, 4), (3, -4), (4, 4)] {
            let found = at((middle as i32 + dx) as usize, (middle as i32 + dy) as usize);
            let (dx, dy) = (f64::from(dx), f64::from(dy));
            for axis in 0..2 {
                let expected = center[axis] + by_x[axis] * dx + by_y[axis] * dy;
                assert!((found[axis] - expected).abs() < 1e-4, "{text}: {found:?} for {expected} at {axis}");
            }
        }
        maps.push([by_x, by_y, center]);
    }
    maps
}

/// Asserts that values are spread evenly within ±`most`: their range, mean and mean square.
fn even(what: &str, most: f64, values: impl IntoIterator<Item = f64>) {
    let values: Vec<f64> = values.into_iter().collect();
    let n = values.len() as f64;
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    assert!(largest <= most * 1.0001 && largest > 0.97 * most, "{what}: {largest} of {most}");
    // Five standard errors: of the mean √(1/3), of the mean square √(1/5 − 1/9).
    let mean = values.iter().sum::<f64>() / n;
    assert!(mean.abs() < 5.0 * most * (1.0 / 3.0 / n).sqrt(), "{what}: mean {mean}");
    let square = values.iter().map(|value| value * value).sum::<f64>() / n / most.powi(2);
    assert!((square - 1.0 / 3.0).abs() < 5.0 * (4.0 / 45.0 / n).sqrt(), "{what}: mean square {square}");
}

#[test]
fn maps_keep_within_their_settings() {
    let middle = (SIDE / 2) as f64;
    let unit = |a: [f64; 2], b: [f64; 2]| {
        assert!((a[0] - b[0]).abs() < 1e-5 && (a[1] - b[1]).abs() < 1e-5, "{a:?}, expected {b:?}");
    };
    let moved = maps("shift=3");
    for [by_x, by_y, _] in &moved {
        unit(*by_x, [1.0, 0.0]);
        unit(*by_y, [0.0, 1.0]);
    }
    even("shift along x", 3.0, moved.iter().map(|map| map[2][0] - middle));
    even("shift along y", 3.0, moved.iter().map(|map| map[2][1] - middle));
    let product: f64 = moved.iter().map(|map| (map[2][0] - middle) * (map[2][1] - middle)).sum();
    assert!(product.abs() / (moved.len() as f64) < 5.0 * 3.0 / (moved.len() as f64).sqrt(), "{product}");

    let rotated = maps("rotate=40");
    for [by_x, by_y, center] in &rotated {
        unit(*center, [middle, middle]);
        unit(*by_y, [-by_x[1], by_x[0]]);
        assert!((by_x[0].hypot(by_x[1]) - 1.0).abs() < 1e-5);
    }
    even("rotation", 40.0, rotated.iter().map(|map| map[0][1].atan2(map[0][0]).to_degrees()));

    let scaled = maps("scale=0.25");
    for [by_x, by_y, center] in &scaled {
        unit(*center, [middle, middle]);
        unit(*by_x, [by_y[1], 0.0]);
        unit(*by_y, [0.0, by_x[0]]);
    }
    even("magnification", 0.25, scaled.iter().map(|map| 1.0 / map[0][0] - 1.0));

    let sheared = maps("shear=30");
    for [by_x, by_y, center] in &sheared {
        unit(*center, [middle, middle]);
        unit(*by_x, [1.0, 0.0]);
        assert!((by_y[1] - 1.0).abs() < 1e-5);
    }
    even("shear", 30.0, sheared.iter().map(|map| map[1][0].atan().to_degrees()));

    let flipped = maps("flip");
    for [by_x, by_y, center] in &flipped {
        unit(*center, [middle, middle]);
        unit([by_x[0].abs(), by_x[1]], [1.0, 0.0]);
        unit(*by_y, [0.0, 1.0]);
    }
    let half = flipped.iter().filter(|map| map[0][0] < 0.0).count();
    assert!((200..=312).contains(&half), "{half} of {} are flipped", flipped.len());
}

#[test]
fn the_elastic_field_is_what_its_description_says() {
    let (alpha, sigma) = (4.0, 4.0);
    let augment = Augment { elastic: Elastic { alpha, sigma }, ..Augment::NONE };
    // Away from the edges, where no displacement leads out of the picture.
    let margin = 4;
    let inside = margin..SIDE - margin;
    let lag = 8;
    let (mut most, mut n, mut sum, mut square) = (0.0f64, 0.0, 0.0, 0.0);
    let (mut product, mut pairs, mut across) = (0.0, 0.0, 0.0);
    for seed in 0..8 {
        for places in places(augment, seed) {
            let moved = |x: usize, y: usize| {
                let [to_x, to_y] = places[y * SIDE + x];
                [to_x - x as f64, to_y - y as f64]
            };
            for (x, y) in inside.clone().flat_map(|y| inside.clone().map(move |x| (x, y))) {
                let [dx, dy] = moved(x, y);
                most = most.max(dx.abs()).max(dy.abs());
                n += 2.0;
                sum += dx + dy;
                square += dx * dx + dy * dy;
                across += dx * dy;
                if inside.contains(&(x + lag)) {
                    let [ex, ey] = moved(x + lag, y);
                    product += dx * ex + dy * ey;
                    pairs += 2.0;
                }
            }
        }
    }
    let (alpha, sigma) = (f64::from(alpha), f64::from(sigma));
    assert!(most <= alpha && most > 0.6 * alpha, "the largest displacement is {most}");
    // About 20 independent places a picture.
    let variance = square / n;
    let error = (variance / (8.0 * 256.0 * 20.0)).sqrt();
    assert!((sum / n).abs() < 5.0 * error, "mean {}", sum / n);
    assert!((across / n).abs() < 0.02 * variance, "x and y are correlated by {}", across / n / variance);
    assert!((variance.sqrt() / alpha - 0.277).abs() < 0.006, "root mean square {}", variance.sqrt());
    // Simard's field, white noise under a Gaussian, is correlated by exp(−lag² / 4σ²); the spline is not quite one,
    // and the lattice lies at the same place in each picture.
    let gaussian = (-((lag * lag) as f64) / (4.0 * sigma * sigma)).exp();
    let found = product / pairs / variance;
    assert!(
        (found - gaussian).abs() < 0.06,
        "correlated by {found} over {lag} pixels, {gaussian} of a Gaussian"
    );
}

#[test]
fn noise_has_the_deviation_that_is_asked_for() {
    let noise = 0.1;
    let pictures =
        Bench::new(&[100; 2 * 15 * 14 * 64], [2, 15, 14], Augment { noise, ..Augment::NONE }).step(3);
    let values: Vec<f64> = pictures
        .iter()
        .flatten()
        .map(|value| (f64::from(*value) - 100.0) / 255.0 / f64::from(noise))
        .collect();
    let n = values.len() as f64;
    let moment = |power| values.iter().map(|value| value.powi(power)).sum::<f64>() / n;
    assert!(moment(1).abs() < 5.0 / n.sqrt(), "mean {}", moment(1));
    assert!((moment(2) - 1.0).abs() < 5.0 * (1.7 / n).sqrt(), "variance {}", moment(2));
    assert!(values.iter().all(|value| value.abs() < 3.5));
    // Neighbours of every kind are independent: columns of a tile, tiles, rows, channels, pictures.
    for lag in [1, 2, 3, 4, 14, 15 * 14, 2 * 15 * 14] {
        let product = values.iter().zip(&values[lag..]).map(|(a, b)| a * b).sum::<f64>() / n;
        assert!(product.abs() < 5.0 / n.sqrt(), "correlated by {product} over {lag}");
    }
}

#[test]
fn a_cutout_is_a_square_of_background() {
    let (height, width, side) = (9, 12, 4);
    let mut random = Random(1);
    let picture: Vec<u8> = (0..height * width).map(|_| 1 + random.index(255) as u8).collect();
    let mut bench =
        Bench::new(&picture.repeat(400), [1, height, width], Augment { cutout: side, ..Augment::NONE });
    let mut centers = vec![0; height * width];
    for after in bench.step(5) {
        let cut: Vec<usize> = (0..after.len()).filter(|&i| after[i] == 0.0).collect();
        let rest = |i: &usize| !cut.contains(i);
        for i in (0..after.len()).filter(rest) {
            assert!((after[i] - f32::from(picture[i])).abs() < 1e-4, "{} for {}", after[i], picture[i]);
        }
        let xs: Vec<usize> = cut.iter().map(|i| i % width).collect();
        let ys: Vec<usize> = cut.iter().map(|i| i / width).collect();
        let [left, right, top, bottom] = [xs.iter().min(), xs.iter().max(), ys.iter().min(), ys.iter().max()]
            .map(|end| *end.expect("a cut"));
        let [wide, high] = [right + 1 - left, bottom + 1 - top];
        assert_eq!(cut.len(), wide * high, "a rectangle");
        let side = side as usize;
        assert!(wide == side || (wide < side && wide >= side / 2 && (left == 0 || right == width - 1)));
        assert!(high == side || (high < side && high >= side / 2 && (top == 0 || bottom == height - 1)));
        let x = if left == 0 { right + 1 - side / 2 } else { left + side / 2 };
        let y = if top == 0 { bottom + 1 - side / 2 } else { top + side / 2 };
        centers[y * width + x] += 1;
    }
    // Any pixel may be the centre: 3.7 of 400 on average, and none 0.976¹⁰⁸ = 7 % of the time each.
    let met = centers.iter().filter(|&&n| n > 0).count();
    assert!(met > 90, "{met} centres of {} were met", height * width);
}

#[test]
fn a_picture_depends_on_seed_and_index_alone() {
    let mut random = Random(2);
    let (images, shape) = (37, [1, 11, 13]);
    let pictures: Vec<u8> = (0..images * 11 * 13).map(|_| random.index(256) as u8).collect();
    let augment: Augment = EVERYTHING.parse().expect("an augmentation");
    let mut bench = Bench::new(&pictures, shape, augment);
    let first = bench.step(1);
    assert_eq!(bench.step(1), first);
    let second = bench.step(2);
    assert!(first.iter().zip(&second).all(|(a, b)| a != b));
    let mut alike = Bench::new(&pictures[..11 * 13].repeat(images), shape, augment);
    let alike = alike.step(1);
    assert!((1..images).all(|i| alike[i] != alike[0]), "two images have one fate");
    // Elsewhere in the batch, an image looks the same.
    let order: Vec<u32> = random.order(images).into_iter().map(|image| image as u32).collect();
    bench.order(&order);
    for (picture, &image) in bench.step(1).iter().zip(&order) {
        assert_eq!(*picture, first[image as usize]);
    }
}

#[test]
fn nothing_is_the_plain_gather() {
    let launches = |augment: Option<Augment>| {
        let mut program = Program::default();
        let geometry = batch::Geometry {
            channels: 2,
            height: 9,
            width: 6,
            pad: 2,
            mean: 0.2,
            deviation: 0.7,
            batch: 20,
            augment,
        };
        let images = program.add("images", 20 * 27);
        let order = program.add("order", 20);
        let output = program.add("output", geometry.features() * blocks(20) * LANES);
        program.train.push(geometry.gather(batch::Buffers { images, order, output }).expect("a launch"));
        let entry = program.train[0].entry.name;
        let mut backend = Backend::cpu(&program);
        let mut random = Random(3);
        let words: Vec<u32> = (0..20 * 27).map(|_| random.bits() as u32).collect();
        backend.write(images, &words).expect("pictures");
        let images: Vec<u32> = random.order(20).into_iter().map(|image| image as u32).collect();
        backend.write(order, &images).expect("an order");
        backend.run(Phase::Train, &[Step { count: 18, seed: 7, ..Step::default() }]).expect("a step");
        (entry, block_on(backend.read(output)).expect("pictures"))
    };
    let (entry, plain) = launches(None);
    assert_eq!(entry, "gather");
    assert_eq!(launches(Some(Augment::NONE)), (entry, plain.clone()));
    // A cutout of nothing and a field without strength are nothing, too.
    let elastic = Elastic { alpha: 0.0, sigma: 9.0 };
    assert_eq!(launches(Some(Augment { elastic, ..Augment::NONE })), (entry, plain.clone()));
    // Too little to be seen, but by way of the other entry point.
    let (entry, faint) = launches(Some(Augment { noise: 1e-30, ..Augment::NONE }));
    assert_eq!(entry, "augment");
    let plain: Vec<f64> = plain.into_iter().map(|word| f32::from_bits(word).into()).collect();
    let near = Tolerance { absolute: 2e-6, relative: 1e-6 };
    Worst::default().close("faint noise", bytemuck::cast_slice(&faint), &plain, near);
}

#[test]
fn what_is_out_of_range_is_refused() {
    let mut program = Program::default();
    let [images, order, output] = ["images", "order", "output"].map(|name| program.add(name, 16 * CHUNK));
    let geometry = batch::Geometry {
        channels: 1,
        height: 2,
        width: 2,
        pad: 0,
        mean: 0.0,
        deviation: 1.0,
        batch: 1,
        augment: Some(Augment { rotate: 200.0, ..Augment::NONE }),
    };
    let error = geometry.gather(batch::Buffers { images, order, output }).expect_err("200 degrees");
    assert_eq!(error.to_string(), "augment: rotate is 200, expected 0 to 180");
}

/// Digits stay digits. `LENET_SHEET=FILE.png` writes what they look like: 64 as they are, and under each recipe.
#[cfg(feature = "mnist")]
#[test]
fn digits_keep_their_ink() {
    let digits = lenet::data::mnist().expect("MNIST").test.take(64);
    let ink = |picture: &[f32]| picture.iter().sum::<f32>();
    let mut sheets = Vec::new();
    for (name, augment) in Augment::RECIPES {
        let pictures = Bench::new(&digits.images.all().expect("in memory"), [1, 28, 28], augment).step(9);
        for (i, picture) in pictures.iter().enumerate() {
            let before: f32 = digits.image(i).unwrap().iter().map(|&pixel| f32::from(pixel)).sum();
            // Magnified by up to 12 % in each direction, or with a hole of 36 pixels, which is most of a small digit.
            let share = ink(picture) / before;
            assert!((0.35..1.45).contains(&share), "{name}: digit {i} has {share} of its ink");
            assert!(picture.iter().all(|value| (0.0..=255.01).contains(value)));
        }
        sheets.push(pictures);
    }
    if let Ok(path) = std::env::var("LENET_SHEET") {
        let (side, across) = (28, 16);
        let sheet = image::GrayImage::from_fn(16 * 28, 3 * 4 * 28 + 8, |x, y| {
            let (x, y) = (x as usize, y as usize);
            let (recipe, row) = (y / (4 * side + 4), y % (4 * side + 4));
            if recipe == sheets.len() || row >= 4 * side {
                return image::Luma([128]);
            }
            let digit = row / side * across + x / side;
            image::Luma([sheets[recipe][digit][row % side * side + x % side].round() as u8])
        });
        sheet.save(path).expect("a picture");
    }
}
