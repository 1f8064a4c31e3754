//! What is ink and what is ground, under uneven light.

use super::plane::{Plane, median};
use image::GrayImage;

/// The longest side on which the ground is looked for, and which of the two is lighter, in pixels.
const SMALL: usize = 96;

/// A border brighter than this is paper, not the black of MNIST.
const PAPER: u8 = 127;

/// Whether the ink is darker than its ground.
///
/// Ground is what most of the surroundings of a place are, and ink what differs from it as strokes do, with ground on
/// both sides: the edge of a shadow has shadow on one. Where strokes do not decide it, all that differs does; and where
/// as much is darker as lighter, the border.
pub(super) fn is_dark_on_light(picture: &GrayImage) -> bool {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let small = Plane::of(picture, Plane::factor(width, height, SMALL));
    let ground = small.medians((small.width.max(small.height) / 4).max(1));
    let (mut strokes, mut all) = ([0.0; 2], [0.0; 2]);
    for (i, (value, ground)) in small.values.iter().zip(&ground.values).enumerate() {
        let difference = (value - ground).abs();
        let lighter = usize::from(value > ground);
        all[lighter] += f64::from(difference * difference);
        let stroke = difference.min(small.ridge(i, lighter == 0));
        strokes[lighter] += f64::from(stroke * stroke);
    }
    for [darker, lighter] in [strokes, all] {
        if darker > 2.0 * lighter || lighter > 2.0 * darker {
            return darker > lighter;
        }
    }
    border_median(picture.as_raw(), width) > PAPER
}

/// The median of the outermost pixels of a picture with `width` pixels a row, each counted once.
pub(super) fn border_median(pixels: &[u8], width: usize) -> u8 {
    let mut counts = [0u32; 256];
    let mut total = 0;
    let mut count = |pixels: &[u8]| {
        pixels.iter().for_each(|&pixel| counts[usize::from(pixel)] += 1);
        total += pixels.len() as u32;
    };
    let last = pixels.len() / width - 1;
    for (y, row) in pixels.chunks_exact(width).enumerate() {
        match row {
            [left, .., right] if 0 < y && y < last => count(&[*left, *right]),
            row => count(row),
        }
    }
    let mut below = 0;
    for (value, count) in (0..=255).zip(counts) {
        below += count;
        if below * 2 >= total {
            return value;
        }
    }
    255
}

/// How much ink there is at each place, 0 to 255 or so, and below 0 where the ground is paler than around: the
/// difference from the ground, which is what is left of `light`, where ink is light, without all that is narrower than
/// a fraction of the picture's longer side; `beyond` takes what lies at an edge to go on behind it.
fn over_ground(light: &Plane, fraction: f32, beyond: bool, paper: bool) -> Plane {
    let factor = Plane::factor(light.width, light.height, SMALL);
    let small = light.reduced(factor);
    let radius = ((small.width.max(small.height) as f32 * fraction / 2.0).round() as usize).max(1);
    let ground = if beyond { small.opened_beyond(radius) } else { small.opened(radius) };
    let ground = ground.blurred(usize::from(factor > 1));
    let ground = ground.enlarged(factor, light.width, light.height);
    let values = light.values.iter().zip(&ground.values);
    // Ink takes a share of the light that falls on paper, so that it differs less from it in the shade.
    let share = |ground: f32| if paper { 255.0 / (255.0 - ground).max(48.0) } else { 1.0 };
    let values = values.map(|(value, &ground)| (value - ground) * share(ground)).collect();
    Plane { values, ..*light }
}

/// The width, as a fraction of the longer side, of what is ink in any case, and of what is so if it is as dark as that.
const WIDTHS: [f32; 2] = [0.22, 0.6];

/// How much ink there is at each place; `light` has light ink, `paper` says that it was dark on light.
///
/// Shadows are wide, strokes are narrow. But ink may be wide, too: then what is lost, with the ground that narrow things
/// leave, is as strong as what is kept. A shadow is weaker.
pub(super) fn ink(light: &Plane, paper: bool) -> Plane {
    let [narrow, wide] = [(WIDTHS[0], true), (WIDTHS[1], false)]
        .map(|(width, beyond)| over_ground(light, width, beyond, paper));
    let [kept_peak, peak] = [&narrow, &wide].map(|plane| level(plane, 0.0005, 1));
    let of = |is: &dyn Fn(f32, f32) -> bool| -> Vec<f32> {
        let all = narrow.values.iter().zip(&wide.values).zip(&light.values);
        all.filter(|((narrow, wide), _)| is(**narrow, **wide)).map(|(_, light)| *light).collect()
    };
    let mut kept = of(&|narrow, _| narrow > 0.6 * kept_peak);
    let mut lost = of(&|narrow, wide| wide > 0.5 * peak && narrow < 0.25 * peak);
    let few = 10 * lost.len() <= kept.len();
    if kept_peak > 0.3 * peak && (few || median(&mut lost) < median(&mut kept) - 0.08 * peak) {
        narrow
    } else {
        wide
    }
}

/// The level that a share of a plane's places reaches, and at least `least` of them.
pub(super) fn level(plane: &Plane, share: f64, least: usize) -> f32 {
    let count = ((plane.values.len() as f64 * share) as usize).max(least).min(plane.values.len());
    let mut values = plane.values.clone();
    let at = values.len() - count;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f32::total_cmp).1 }
}
