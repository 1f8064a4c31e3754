//! The cases of `shaders/batch.wgsl`.

use lenet::kernels::batch;

use super::harness::*;

pub fn cases() -> Vec<Case> {
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
    table
        .into_iter()
        .map(|(channels, height, width, pad, mean, deviation, batch, count, cursor)| {
            let geometry = batch::Geometry { channels, height, width, pad, mean, deviation, batch };
            let mut case = Case::new(format!("{geometry:?}, {count} images from {cursor}"));
            let mut random = Random::of(&case.name);
            let images = 70;
            let bytes = images * channels * height * width;
            let features = channels * (height + 2 * pad) * (width + 2 * pad);
            let pixels = case.integers("images", &random.words(bytes.div_ceil(4)));
            let order = case.integers("order", &random.order(images));
            let output = case.output("output", features * lanes(batch), ARITHMETIC);
            case.steps = vec![Step { cursor, count, ..Step::default() }];
            case.launch(geometry.gather(batch::Buffers { images: pixels, order, output }));
            case
        })
        .collect()
}
