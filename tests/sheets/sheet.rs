//! Sheets of paper, blackboards and canvases with a digit of MNIST on them.

use std::io::Cursor;

use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageFormat, LumaA, Rgba, RgbaImage};

use crate::common::Random;

/// What is wrong with a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Dark ink on even paper.
    Clean,
    /// The light falls off from one side to the other.
    Shadow,
    /// A shadow with a soft edge lies over a part.
    Hand,
    /// Dark specks of a few pixels.
    Specks,
    /// Single black and white pixels, one in two hundred.
    Salt,
    /// A black edge around the sheet, of another width on each side.
    Scan,
    /// A drawn box around the digit.
    Frame,
    /// Ruled paper, a little askew.
    Ruled,
    /// Squared paper.
    Squared,
    /// Grain of a camera in poor light.
    Grain,
    /// Strokes in two pieces.
    Pieces,
    /// A faint pencil.
    Pencil,
    /// Chalk on a blackboard, unevenly lit.
    Chalk,
    /// White ink on a transparent canvas, white beneath.
    LightOnClear,
    /// Black ink on a transparent canvas, black beneath.
    DarkOnClear,
    /// Grey with alpha: white ink.
    Alpha,
    /// Shadow, specks, grain, ruled lines.
    Photo,
}

pub const KINDS: [Kind; 17] = [
    Kind::Clean,
    Kind::Shadow,
    Kind::Hand,
    Kind::Specks,
    Kind::Salt,
    Kind::Scan,
    Kind::Frame,
    Kind::Ruled,
    Kind::Squared,
    Kind::Grain,
    Kind::Pieces,
    Kind::Pencil,
    Kind::Chalk,
    Kind::LightOnClear,
    Kind::DarkOnClear,
    Kind::Alpha,
    Kind::Photo,
];

/// A digit of 28×28 with a gap through it, so that it is in pieces as if the pen had been lifted.
pub fn broken(digit: &[u8], random: &mut Random) -> Vec<u8> {
    let row = 10 + random.index(8);
    let mut broken = digit.to_vec();
    broken[row * 28..(row + 1) * 28].fill(0);
    broken
}

/// A sheet: light of 0 to 1 at each pixel, and ink of 0 to 1.
struct Sheet {
    side: usize,
    ink: Vec<f64>,
    random: Random,
}

/// One number in `low` to `high`.
fn between(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * (random.unit() + 1.0) / 2.0
}

impl Sheet {
    /// A digit enlarged and put somewhere, away from the edges by `margin` of the side.
    fn of(digit: &[u8], margin: f64, mut random: Random) -> Sheet {
        let side = 240 + random.index(160);
        // The ink of a digit is about 20 of its 28 pixels.
        let room = side as f64 * (1.0 - 2.0 * margin);
        let scale = between(&mut random, 0.3, 0.75) * room / 20.0;
        let at = [0, 1]
            .map(|_| between(&mut random, 0.0, room - 20.0 * scale) + margin * side as f64 - 4.0 * scale);
        let pixel = |x: isize, y: isize| match (usize::try_from(x), usize::try_from(y)) {
            (Ok(x), Ok(y)) if x < 28 && y < 28 => f64::from(digit[y * 28 + x]) / 255.0,
            _ => 0.0,
        };
        let mut ink = Vec::with_capacity(side * side);
        for y in 0..side {
            for x in 0..side {
                let (u, v) = ((x as f64 + 0.5 - at[0]) / scale - 0.5, (y as f64 + 0.5 - at[1]) / scale - 0.5);
                let (left, top) = (u.floor(), v.floor());
                let (a, b) = (u - left, v - top);
                let (left, top) = (left as isize, top as isize);
                let row = |y: isize| pixel(left, y) * (1.0 - a) + pixel(left + 1, y) * a;
                ink.push(row(top) * (1.0 - b) + row(top + 1) * b);
            }
        }
        Sheet { side, ink, random }
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        between(&mut self.random, low, high)
    }

    /// Ink in a rectangle, as much as there is or `much`.
    fn rule(&mut self, [left, top, right, bottom]: [f64; 4], much: f64) {
        let clamp = |at: f64| (at.round().max(0.0) as usize).min(self.side);
        for y in clamp(top)..clamp(bottom) {
            for x in clamp(left)..clamp(right) {
                let ink = &mut self.ink[y * self.side + x];
                *ink = ink.max(much);
            }
        }
    }

    fn specks(&mut self, count: usize) {
        for _ in 0..count {
            let size = 1 + self.random.index(4);
            let [x, y] = [0, 1].map(|_| self.random.index(self.side) as f64);
            let much = self.between(0.5, 1.0);
            self.rule([x, y, x + size as f64, y + size as f64], much);
        }
    }

    /// Lines across, and down as well if `squared`.
    fn lines(&mut self, squared: bool) {
        let apart = self.between(0.07, 0.13) * self.side as f64;
        let (much, wide) = (self.between(0.25, 0.6), 1.0 + self.random.index(3) as f64);
        let slope = if squared { 0.0 } else { self.between(-0.02, 0.02) };
        let side = self.side as f64;
        let mut at = self.between(0.0, apart);
        while at < side {
            for x in 0..self.side {
                let y = at + slope * x as f64;
                self.rule([x as f64, y, x as f64 + 1.0, y + wide], much);
            }
            if squared {
                self.rule([at, 0.0, at + wide, side], much);
            }
            at += apart;
        }
    }

    /// Nearly normal, of deviation 1.
    fn normal(&mut self) -> f64 {
        (0..4).map(|_| self.random.unit()).sum::<f64>() * 0.866
    }

    /// The paper's light where nothing is written, and what falls on it: from `low` to 1 in any direction.
    fn slope(&mut self, low: f64) -> Vec<f64> {
        let angle = self.between(0.0, std::f64::consts::TAU);
        let (cos, sin) = (angle.cos(), angle.sin());
        let side = self.side as f64;
        let along = |x: usize, y: usize| (x as f64 / side - 0.5) * cos + (y as f64 / side - 0.5) * sin;
        (0..self.side * self.side)
            .map(|i| low + (1.0 - low) * (along(i % self.side, i / self.side) / 1.42 + 0.5))
            .collect()
    }

    /// A shadow of `low` light beyond a line through the sheet.
    fn hand(&mut self, low: f64) -> Vec<f64> {
        let angle = self.between(0.0, std::f64::consts::TAU);
        let (cos, sin, away) = (angle.cos(), angle.sin(), self.between(-0.3, 0.3));
        let side = self.side as f64;
        (0..self.side * self.side)
            .map(|i| {
                let (x, y) = ((i % self.side) as f64 / side - 0.5, (i / self.side) as f64 / side - 0.5);
                // The edge is a twentieth of the side wide.
                low + (1.0 - low) * ((x * cos + y * sin - away) * 20.0 + 0.5).clamp(0.0, 1.0)
            })
            .collect()
    }

    /// Grey bytes: paper and ink of these levels under some light, with grain.
    fn grey(&mut self, [paper, ink]: [f64; 2], light: &[f64], grain: f64) -> GrayImage {
        let values = (0..self.side * self.side).map(|i| {
            let reflected = paper + (ink - paper) * self.ink[i];
            let noise = if grain > 0.0 { grain * self.normal() } else { 0.0 };
            (reflected * light[i] + noise).round().clamp(0.0, 255.0) as u8
        });
        let values: Vec<u8> = values.collect();
        GrayImage::from_raw(self.side as u32, self.side as u32, values).expect("a square")
    }
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, ImageFormat::Png).expect("a picture");
    bytes.into_inner()
}

/// A PNG of a sheet with a digit of 28×28 on it; the number decides where and how.
pub fn sheet(kind: Kind, digit: &[u8], number: u64) -> Vec<u8> {
    let margin = if matches!(kind, Kind::Scan | Kind::Frame) { 0.16 } else { 0.03 };
    let mut sheet = Sheet::of(digit, margin, Random(number * 31 + kind as u64));
    let even = vec![1.0; sheet.side * sheet.side];
    let paper = [sheet.between(215.0, 250.0), sheet.between(15.0, 70.0)];
    let side = sheet.side as f64;
    let paint = |x: u32, y: u32| (255.0 * sheet.ink[y as usize * sheet.side + x as usize]).round() as u8;
    let size = sheet.side as u32;
    match kind {
        Kind::Clean | Kind::Pieces => png(sheet.grey(paper, &even, 0.0)),
        Kind::Shadow => {
            let low = sheet.between(0.3, 0.6);
            let light = sheet.slope(low);
            png(sheet.grey(paper, &light, 0.0))
        }
        Kind::Hand => {
            let low = sheet.between(0.45, 0.7);
            let light = sheet.hand(low);
            png(sheet.grey(paper, &light, 0.0))
        }
        Kind::Specks => {
            let count = 1 + sheet.random.index(40);
            sheet.specks(count);
            png(sheet.grey(paper, &even, 0.0))
        }
        Kind::Salt => {
            let mut grey = sheet.grey(paper, &even, 0.0);
            for pixel in grey.iter_mut() {
                match sheet.random.index(400) {
                    0 => *pixel = 0,
                    1 => *pixel = 255,
                    _ => {}
                }
            }
            png(grey)
        }
        Kind::Scan => {
            let [left, top, right, bottom] = [0; 4].map(|_| sheet.between(0.0, 0.1) * side);
            for edge in [
                [0.0, 0.0, left, side],
                [0.0, 0.0, side, top],
                [side - right, 0.0, side, side],
                [0.0, side - bottom, side, side],
            ] {
                sheet.rule(edge, 1.1);
            }
            png(sheet.grey(paper, &even, 0.0))
        }
        Kind::Frame => {
            let (low, wide) = (sheet.between(0.04, 0.1) * side, sheet.between(1.0, 5.0));
            let high = side - low;
            for edge in [
                [low, low, high, low + wide],
                [low, high - wide, high, high],
                [low, low, low + wide, high],
                [high - wide, low, high, high],
            ] {
                sheet.rule(edge, 1.0);
            }
            png(sheet.grey(paper, &even, 0.0))
        }
        Kind::Ruled | Kind::Squared => {
            sheet.lines(kind == Kind::Squared);
            png(sheet.grey(paper, &even, 0.0))
        }
        Kind::Grain => {
            let grain = sheet.between(8.0, 25.0);
            png(sheet.grey(paper, &even, grain))
        }
        Kind::Pencil => {
            let grain = sheet.between(1.0, 4.0);
            let faint = [paper[0], paper[0] - sheet.between(45.0, 80.0)];
            png(sheet.grey(faint, &even, grain))
        }
        Kind::Chalk => {
            let light = sheet.slope(0.5);
            png(sheet.grey([50.0, 220.0], &light, 5.0))
        }
        Kind::LightOnClear => png(RgbaImage::from_fn(size, size, |x, y| Rgba([255, 255, 255, paint(x, y)]))),
        Kind::DarkOnClear => png(RgbaImage::from_fn(size, size, |x, y| Rgba([0, 0, 0, paint(x, y)]))),
        Kind::Alpha => png(GrayAlphaImage::from_fn(size, size, |x, y| LumaA([240, paint(x, y)]))),
        Kind::Photo => {
            sheet.specks(12);
            sheet.lines(false);
            let low = sheet.between(0.45, 0.7);
            let light = sheet.slope(low);
            png(sheet.grey(paper, &light, 8.0))
        }
    }
}
