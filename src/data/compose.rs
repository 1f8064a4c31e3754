//! Pictures put together from digits: strings to read, windows to learn reading from, scenes to segment.
//!
//! All is drawn from a seed, each picture from its own stream and without a function of the machine's maths
//! library: the same seed gives the same bytes on every machine, whatever the number of threads.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::picture::{Grey, INK};
use super::{Dataset, Split};
use crate::error::{Error, Result};

/// Rows and columns of a window: what one output of LeNet-5's last layer sees.
///
/// 32 and not 28, so that a network without padding sees in training what it sees when it is slid over a string:
/// the neighbours of a digit, where 28 pixels in a frame of padding would end.
pub const FIELD: usize = 32;

/// The class of a window without a digit in its middle.
pub const NONE: usize = 10;

/// Rows and columns of a scene.
pub const SCENE: usize = 64;

/// The least distance of two neighbours' middles in a string, in pixels.
pub const SPACING: f32 = 12.0;

/// A digit this far from the middle of a window or less, in columns and in rows, is its class.
const WITHIN: [f32; 2] = [2.2, 2.6];

/// A digit this far from the middle of a window or more, in columns or in rows, is not. What lies between is
/// shown to nobody: the outputs there are free to say either.
const BEYOND: [f32; 2] = [4.5, 7.0];

/// The share of windows with a digit in their middle.
const DIGITS: f32 = 0.6;

/// A string of digits, and what a reader should find.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The picture: white ink on black.
    pub picture: Grey,
    /// The digits from left to right.
    pub text: String,
    /// The ink of each digit: left, top, right, bottom, the last two exclusive, in pixels.
    pub boxes: Vec<[u32; 4]>,
}

/// Numbers drawn from one stream of a seed.
struct Draw(Pcg64Mcg);

impl Draw {
    /// Stream `i` of a seed; `kind` keeps the uses of a seed apart.
    fn new(seed: u64, kind: u64, i: usize) -> Draw {
        let stream = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(kind << 56);
        Draw(Pcg64Mcg::seed_from_u64(seed.wrapping_add(stream)))
    }

    /// From `low` to `high`.
    fn range(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits are exact in an f32.
        low + (high - low) * ((self.0.next_u32() >> 8) as f32 / (1 << 24) as f32)
    }

    /// From 0 to `n - 1`.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// True in this share of the cases.
    fn chance(&mut self, share: f32) -> bool {
        self.range(0.0, 1.0) < share
    }
}

/// Digits to put together, each with the box of its ink.
struct Stock<'a> {
    digits: &'a Dataset,
    boxes: Vec<[f32; 4]>,
}

/// A digit on its place: the middle of its ink in pixels, and its size.
#[derive(Clone, Copy)]
struct Place {
    digit: usize,
    x: f32,
    y: f32,
    scale: f32,
}

impl<'a> Stock<'a> {
    fn new(digits: &'a Dataset) -> Result<Stock<'a>> {
        if digits.channels != 1 || digits.labels_per_image() != 1 || digits.classes != 10 || digits.is_empty()
        {
            return Err(Error::Data {
                path: digits.name.clone(),
                message: format!(
                    "{} images of {} channels in {} classes found, expected grey digits with one label each",
                    digits.len(),
                    digits.channels,
                    digits.classes
                ),
            });
        }
        let boxes = digits
            .images
            .par_chunks_exact(digits.pixels())
            .map(|pixels| {
                let [width, height] = [digits.width, digits.height].map(|side| side as u32);
                super::picture::ink_box(pixels, digits.width, [0, 0, width, height])
                    .unwrap_or([0, 0, width, height])
                    .map(|edge| edge as f32)
            })
            .collect();
        Ok(Stock { digits, boxes })
    }

    fn len(&self) -> usize {
        self.digits.len()
    }

    fn label(&self, digit: usize) -> u8 {
        self.digits.labels[digit]
    }

    /// Columns and rows of a digit's ink.
    fn size(&self, digit: usize) -> [f32; 2] {
        let [left, top, right, bottom] = self.boxes[digit];
        [right - left, bottom - top]
    }

    /// Sets digits side by side, the first with its ink at column 0, all near row 0.
    fn row(&self, draw: &mut Draw, digits: &[usize]) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::with_capacity(digits.len());
        let mut right = 0.0;
        for &digit in digits {
            let (scale, y) = (draw.range(0.85, 1.15), draw.range(-3.0, 3.0));
            let half = 0.5 * scale * self.size(digit)[0];
            let x = match places.last() {
                None => half,
                Some(last) => (right + draw.range(-4.0, 6.0) + half).max(last.x + SPACING),
            };
            right = x + half;
            places.push(Place { digit, x, y, scale });
        }
        places
    }

    /// Draws a digit into a picture of `width` columns, where it is brighter than what is there, and its class
    /// plus one into `map`, if that is not empty. Gives the box of its ink, if any is inside.
    fn paste(&self, place: Place, pixels: &mut [u8], map: &mut [u8], width: usize) -> Option<[u32; 4]> {
        let Place { digit, x, y, scale } = place;
        let [left, top, right, bottom] = self.boxes[digit];
        let (source, columns) = (self.digits.image(digit), self.digits.width as i32);
        let rows = self.digits.height as i32;
        let value = |x: i32, y: i32| match (0..columns).contains(&x) && (0..rows).contains(&y) {
            true => f32::from(source[(y * columns + x) as usize]),
            false => 0.0,
        };
        // Faint ink reaches two pixels beyond the box at most.
        let span = |middle: f32, size: f32, end: usize| {
            let half = scale * (0.5 * size + 2.0);
            ((middle - half).floor().max(0.0) as usize, ((middle + half).ceil().max(0.0) as usize).min(end))
        };
        let (x_from, x_to) = span(x, right - left, width);
        let (y_from, y_to) = span(y, bottom - top, pixels.len() / width);
        let mut ink: Option<[u32; 4]> = None;
        for to_y in y_from..y_to {
            let v = (to_y as f32 + 0.5 - y) / scale + 0.5 * (top + bottom) - 0.5;
            let (y0, part_y) = (v.floor() as i32, v - v.floor());
            for to_x in x_from..x_to {
                let u = (to_x as f32 + 0.5 - x) / scale + 0.5 * (left + right) - 0.5;
                let (x0, part_x) = (u.floor() as i32, u - u.floor());
                let above = value(x0, y0) * (1.0 - part_x) + value(x0 + 1, y0) * part_x;
                let below = value(x0, y0 + 1) * (1.0 - part_x) + value(x0 + 1, y0 + 1) * part_x;
                let level = (above * (1.0 - part_y) + below * part_y + 0.5) as u8;
                let at = to_y * width + to_x;
                if level >= INK {
                    let (x, y) = (to_x as u32, to_y as u32);
                    let [left, top, right, bottom] = ink.unwrap_or([x, y, x, y]);
                    ink = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
                }
                if level > pixels[at] {
                    pixels[at] = level;
                    if level >= INK
                        && let Some(class) = map.get_mut(at)
                    {
                        *class = 1 + self.label(digit);
                    }
                }
            }
        }
        ink
    }
}

/// Strings of `length` digits drawn from a data set, side by side on black: gaps of −4 to 6 pixels, ±3 pixels up
/// and down, ±15 % in size, neighbours' middles at least [`SPACING`] apart.
///
/// Rows and columns are multiples of 4, 36 rows at least, and a window of [`FIELD`] around any digit is inside.
///
/// # Errors
/// [`Error::Data`] when the data set is not one of grey digits.
pub fn strings(digits: &Dataset, length: usize, count: usize, seed: u64) -> Result<Vec<Line>> {
    let stock = Stock::new(digits)?;
    let line = |i: usize| {
        let mut draw = Draw::new(seed, 1, i);
        let picks: Vec<usize> = (0..length).map(|_| draw.below(stock.len())).collect();
        let mut places = stock.row(&mut draw, &picks);
        let height = 36 + 4 * draw.below(3);
        let left = 16.0 + draw.range(0.0, 8.0);
        let middle = 0.5 * height as f32 + draw.range(-1.0, 1.0);
        for place in &mut places {
            place.x += left;
            place.y += middle;
        }
        let end = places.last().map_or(left, |last| last.x + 0.5 * last.scale * stock.size(last.digit)[0]);
        let width = (end as usize + 20).next_multiple_of(4);
        let mut pixels = vec![0; height * width];
        let boxes = places
            .iter()
            .map(|&place| stock.paste(place, &mut pixels, &mut [], width).unwrap_or_default())
            .collect();
        let text = picks.iter().map(|&digit| char::from(b'0' + stock.label(digit))).collect();
        Line { picture: Grey { height, width, pixels }, text, boxes }
    };
    Ok((0..count).into_par_iter().map(line).collect())
}

/// Windows of 32×32 pixels cut out of such strings, in 11 classes: the digit in the middle, or [`NONE`] where there
/// is none: between two digits, beside or above one, on empty ground.
///
/// Window `i` is cut near digit `i` of the data set (counted around), so that all take their turn.
///
/// # Errors
/// [`Error::Data`] when the data set is not one of grey digits.
pub fn windows(digits: &Dataset, count: usize, seed: u64) -> Result<Dataset> {
    const MIDDLE: f32 = 0.5 * FIELD as f32;
    let stock = Stock::new(digits)?;
    let mut images = vec![0; count * FIELD * FIELD];
    let window = |(i, pixels): (usize, &mut [u8])| {
        let mut draw = Draw::new(seed, 2, i);
        let (before, after) = (draw.below(3), draw.below(3));
        let mut picks: Vec<usize> = (0..before + 1 + after).map(|_| draw.below(stock.len())).collect();
        picks[before] = i % stock.len();
        let places = stock.row(&mut draw, &picks);
        let target = places[before];
        let off = |x: f32| places.iter().all(|place| (place.x - x).abs() >= BEYOND[0]);
        // The middle of the window.
        let mut label = NONE as u8;
        let [mut x, mut y] = [target.x, target.y];
        if draw.chance(DIGITS) {
            label = stock.label(target.digit);
            x += draw.range(-WITHIN[0], WITHIN[0]);
            y += draw.range(-WITHIN[1], WITHIN[1]);
        } else {
            let [first, last] = [places[0].x, places[places.len() - 1].x];
            let beside = draw.chance(0.75);
            if beside {
                // Half of them in the gaps next to the digit, the others anywhere along the string.
                let [low, high] = match draw.chance(0.5) {
                    true => [target.x - 16.0, target.x + 16.0],
                    false => [first - 30.0, last + 30.0],
                };
                y = draw.range(-5.0, 5.0);
                // Neighbours may leave no room: then it is cut above or below.
                let found = (0..16).map(|_| draw.range(low, high)).find(|&x| off(x));
                x = found.unwrap_or(x);
            }
            if !off(x) || !beside {
                x += draw.range(-8.0, 8.0);
                // Three pixels more, since the neighbours stand as much higher or lower.
                let away = draw.range(BEYOND[1] + 3.0, 20.0);
                y = if draw.chance(0.5) { away } else { -away };
            }
        }
        for place in &places {
            let place = Place { x: place.x - x + MIDDLE, y: place.y - y + MIDDLE, ..*place };
            stock.paste(place, pixels, &mut [], FIELD);
        }
        label
    };
    let labels = images.par_chunks_exact_mut(FIELD * FIELD).enumerate().map(window).collect();
    let mut data = Dataset::new("mnist-windows", [1, FIELD, FIELD], NONE + 1, images, labels)?;
    data.class_names[NONE] = "none".into();
    Ok(data)
}

/// Scenes of 64×64 pixels with 1 to 5 digits anywhere, 0.7 to 1.4 of their size, in noise; the class of each pixel
/// is 0 for the ground and 1 plus the digit for ink.
///
/// # Errors
/// [`Error::Data`] when the data set is not one of grey digits.
pub fn scenes(digits: &Dataset, count: usize, seed: u64) -> Result<Dataset> {
    const PIXELS: usize = SCENE * SCENE;
    let stock = Stock::new(digits)?;
    let (mut images, mut labels) = (vec![0; count * PIXELS], vec![0; count * PIXELS]);
    let scene = |(i, (pixels, map)): (usize, (&mut [u8], &mut [u8]))| {
        let mut draw = Draw::new(seed, 3, i);
        let mut taken: Vec<[f32; 4]> = Vec::new();
        let wanted = 1 + draw.below(5);
        // Where there is no room after some tries, there are fewer digits.
        for _ in 0..8 * wanted {
            if taken.len() == wanted {
                break;
            }
            let (digit, scale) = (draw.below(stock.len()), draw.range(0.7, 1.4));
            let [half_x, half_y] = stock.size(digit).map(|size| 0.5 * scale * size);
            let side = SCENE as f32;
            let x = draw.range(half_x, side - half_x);
            let y = draw.range(half_y, side - half_y);
            let [left, top, right, bottom] = [x - half_x, y - half_y, x + half_x, y + half_y];
            // Boxes may overlap by two pixels, their ink hardly does.
            let apart = |other: &[f32; 4]| {
                left > other[2] - 2.0
                    || right < other[0] + 2.0
                    || top > other[3] - 2.0
                    || bottom < other[1] + 2.0
            };
            if taken.iter().all(apart) {
                stock.paste(Place { digit, x, y, scale }, pixels, map, SCENE);
                taken.push([left, top, right, bottom]);
            }
        }
        // Four bytes add up to nearly a normal distribution, 148 wide.
        let strength = draw.below(33) as i32;
        for pixel in pixels {
            let sum: i32 = draw.0.next_u32().to_le_bytes().into_iter().map(i32::from).sum();
            *pixel = (i32::from(*pixel) + (sum - 510) * strength / 148).clamp(0, 255) as u8;
        }
    };
    images.par_chunks_exact_mut(PIXELS).zip(labels.par_chunks_exact_mut(PIXELS)).enumerate().for_each(scene);
    let mut data = Dataset::segmented("mnist-scenes", [1, SCENE, SCENE], 11, images, [SCENE, SCENE], labels)?;
    // Noise and all: a new picture is not searched for its ink.
    data.encoding = super::Encoding::Picture;
    data.class_names = std::iter::once("ground".into()).chain((0..10).map(|d| d.to_string())).collect();
    Ok(data)
}

/// The data set `mnist-windows`: 120,000 windows of MNIST's training digits, 10,000 of its test digits.
///
/// # Errors
/// Those of [`super::mnist`].
pub fn mnist_windows() -> Result<Split> {
    let Split { train, test } = super::mnist()?;
    Ok(Split { train: windows(&train, 120_000, 0)?, test: windows(&test, 10_000, 0)? })
}

/// The data set `mnist-scenes`: 8,000 scenes of MNIST's training digits, 1,000 of its test digits.
///
/// # Errors
/// Those of [`super::mnist`].
pub fn mnist_scenes() -> Result<Split> {
    let Split { train, test } = super::mnist()?;
    Ok(Split { train: scenes(&train, 8_000, 0)?, test: scenes(&test, 1_000, 0)? })
}

#[cfg(test)]
mod tests {
    use super::super::picture::ink_box;
    use super::*;

    #[test]
    fn strings_are_what_their_boxes_and_text_say() {
        let digits = super::super::mnist().unwrap().test;
        let lines = strings(&digits, 5, 200, 9).unwrap();
        assert_eq!(lines, strings(&digits, 5, 200, 9).unwrap());
        assert_ne!(lines, strings(&digits, 5, 200, 10).unwrap());
        let mut counts = [0; 10];
        for line in &lines {
            let Grey { height, width, ref pixels } = line.picture;
            assert_eq!((line.text.len(), line.boxes.len(), pixels.len()), (5, 5, height * width));
            assert!(height >= 36 && height % 4 == 0 && width % 4 == 0);
            line.text.bytes().for_each(|digit| counts[usize::from(digit - b'0')] += 1);
            // All ink is in the boxes, and each box is tight.
            let all = ink_box(pixels, width, [0, 0, width as u32, height as u32]).unwrap();
            let edge = |i: usize| line.boxes.iter().map(move |ink| ink[i]);
            assert_eq!(
                all,
                [
                    edge(0).min().unwrap(),
                    edge(1).min().unwrap(),
                    edge(2).max().unwrap(),
                    edge(3).max().unwrap()
                ]
            );
            for &ink in &line.boxes {
                assert_eq!(ink_box(pixels, width, ink), Some(ink));
                let middle = 0.5 * (ink[0] + ink[2]) as f32;
                assert!(middle >= 16.0 && middle + 16.0 <= width as f32);
            }
            for pair in line.boxes.windows(2) {
                let apart = 0.5 * ((pair[1][0] + pair[1][2]) as f32 - (pair[0][0] + pair[0][2]) as f32);
                assert!(apart >= SPACING - 1.0, "{pair:?}");
                // The gap, and a pixel of ink's soft edge on either side.
                assert!((-5..=8).contains(&(pair[1][0] as i32 - pair[0][2] as i32)) || apart < SPACING + 1.0);
            }
        }
        assert!(counts.iter().all(|&count| count > 50), "{counts:?}");
        assert!(strings(&digits, 0, 1, 0).unwrap()[0].boxes.is_empty());
    }

    #[test]
    fn windows_show_their_digit_in_the_middle_or_none() {
        let Split { train, test } = super::super::load("mnist-windows").unwrap();
        assert_eq!((train.len(), test.len(), train.classes), (120_000, 10_000, 11));
        assert_eq!((train.height, train.width, &train.class_names[10][..]), (32, 32, "none"));
        let digits = super::super::mnist().unwrap().test;
        assert_eq!(windows(&digits, 100, 0).unwrap().images, test.clone().take(100).images);
        let (mut none, mut centred, mut empty) = (0, 0, 0);
        for (i, &label) in test.labels.iter().enumerate() {
            let whole = ink_box(test.image(i), FIELD, [0, 0, 32, 32]);
            if usize::from(label) == NONE {
                none += 1;
                empty += usize::from(whole.is_none());
            } else {
                assert_eq!(label, digits.labels[i]);
                let ink = ink_box(test.image(i), FIELD, [2, 0, 30, 32]).unwrap();
                // Above and below there are no neighbours, beside there are.
                centred += usize::from(ink[1] <= 12 && ink[3] >= 20);
            }
        }
        assert!((3_700..4_300).contains(&none), "{none}");
        assert!((30..500).contains(&empty), "{empty}");
        assert!(centred * 100 > (10_000 - none) * 97, "{centred}");
    }

    #[test]
    fn scenes_mark_their_ink() {
        let Split { train, test } = super::super::load("mnist-scenes").unwrap();
        assert_eq!((train.len(), test.len(), test.classes), (8_000, 1_000, 11));
        assert_eq!((test.height, test.width, test.label_size), (64, 64, [64, 64]));
        assert_eq!([&test.class_names[0], &test.class_names[10]], ["ground", "9"]);
        let mut counts = [0_u64; 11];
        let (mut ground, mut ink) = (0, 0);
        for (&label, &pixel) in test.labels.iter().zip(&test.images) {
            counts[usize::from(label)] += 1;
            *(if label == 0 { &mut ground } else { &mut ink }) += u64::from(pixel);
        }
        let marked: u64 = counts[1..].iter().sum();
        assert!(counts.iter().all(|&count| count > 10_000), "{counts:?}");
        assert!(ground / counts[0] < 20 && ink / marked > 160, "{ground} {ink} {counts:?}");
        // No scene is empty.
        assert!(test.labels.chunks_exact(SCENE * SCENE).all(|map| map.iter().any(|&label| label > 0)));
    }

    #[test]
    fn only_grey_digits_are_put_together() {
        let colour = Dataset::new("colour", [3, 1, 1], 10, vec![0; 3], vec![1]).unwrap();
        let message = strings(&colour, 3, 1, 0).unwrap_err().to_string();
        assert_eq!(
            message,
            "colour: 1 images of 3 channels in 10 classes found, expected grey digits with one label each"
        );
        let empty = Dataset::new("empty", [1, 28, 28], 10, vec![], vec![]).unwrap();
        assert!(windows(&empty, 1, 0).is_err() && scenes(&empty, 1, 0).is_err());
    }
}
