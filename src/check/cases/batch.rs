//! The cases of `shaders/batch.wgsl`.

use crate::check::kernels::*;
use crate::kernels::augment::Augment;
use crate::kernels::batch;

/// Each distortion by itself, and all of them together.
const DISTORTIONS: [&str; 12] = [
    "shift=2.5",
    "rotate=180",
    "scale=0.4",
    "shear=45",
    "elastic=4:5",
    "elastic=3:1",
    "noise=0.2",
    "cutout=3",
    "flip",
    "light",
    "strong",
    "shift=2,rotate=30,scale=0.2,shear=20,elastic=4:3,noise=0.1,cutout=4,flip",
];

/// Both sides place a pixel by a dozen operations on coordinates below 64, and by a map whose factors are below 3 and
/// are rounded a few times themselves: the places lie within 3e-5 of each other. A pixel changes by at most its whole
/// range over the distance of one, in each direction, and continuously.
fn sampled(deviation: f32) -> Compare {
    Compare::Close { absolute: 6e-5 / deviation, relative: 1e-6 }
}

pub fn cases(_fill: usize) -> Result<Vec<Case>> {
    // Channels, rows, columns, padding, mean, deviation, batch, images in it, position in the order.
    let table = [
        (1, 28, 28, 2, 0.0, 1.0, 16, 16, 0),
        (1, 28, 28, 0, 0.1307, 0.3081, 64, 64, 1),
        (1, 5, 7, 3, 0.5, 0.25, 17, 17, 9),
        (3, 5, 7, 1, 0.4, 0.2, 3, 3, 2),
        (3, 9, 4, 0, -0.1, 1.2, 33, 20, 5),
        (2, 1, 1, 2, 0.2, 0.5, 1, 1, 30),
        (1, 6, 6, 1, 0.3, 0.7, 40, 1, 31),
        (1, 3, 3, 0, 0.0, 1.0, 5, 0, 0),
    ];
    // More workgroups than fit one row of the grid.
    let large = ((1, 512, 513, 0, 0.1, 0.5, 1, 1, 3), None);
    let plain = table.into_iter().map(|row| (row, None)).chain([large]);
    // Every distortion of a picture with padding; everything at once of every shape.
    let distorted = DISTORTIONS.into_iter().map(|text| ((2, 19, 30, 1, 0.3, 0.5, 40, 36, 3), Some(text)));
    let everything = DISTORTIONS[DISTORTIONS.len() - 1];
    let all = table.into_iter().map(|row| (row, Some(everything)));
    plain
        .chain(distorted)
        .chain(all)
        .map(|((channels, height, width, pad, mean, deviation, batch, count, cursor), text)| {
            let augment: Option<Augment> = text.map(str::parse).transpose()?;
            let geometry = batch::Geometry { channels, height, width, pad, mean, deviation, batch, augment };
            let mut case = Case::new(format!("{geometry:?}, {count} images from {cursor}"));
            let mut random = Random::of(&case.name);
            let images = 70;
            let bytes = images * channels * height * width;
            let features = channels * (height + 2 * pad) * (width + 2 * pad);
            let pixels = case.integers("images", &random.words(bytes.div_ceil(4)));
            let order = case.integers("order", &random.order(images));
            let compare = if augment.is_some() { sampled(deviation) } else { ARITHMETIC };
            let output = case.output("output", features * lanes(batch), compare);
            case.steps = vec![Step { cursor, count, seed: random.words(1)[0], ..Step::default() }];
            case.launch(geometry.gather(batch::Buffers { images: pixels, order, output }))?;
            Ok(case)
        })
        .collect()
}
