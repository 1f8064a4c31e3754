//! What numbers are that do not say it themselves: pictures of which size, pixels of which range.

use crate::data::series;

/// The least side of a picture whose values are of any range.
const LEAST_SIDE: usize = 5;

/// The picture, `[C, H, W]`, that so many numbers in a row are, and whether the colours of a pixel lie together; none
/// where they are a signal. `bytes` says whether all are whole numbers of 0 to 255.
pub(super) fn square(columns: usize, bytes: impl FnOnce() -> bool) -> Option<([usize; 3], bool)> {
    let (grey, colour) = (columns.isqrt(), (columns / 3).isqrt());
    if grey * grey == columns && (grey >= LEAST_SIDE || bytes()) {
        return Some(([1, grey, grey], false));
    }
    (3 * colour * colour == columns && colour >= LEAST_SIDE).then_some(([3, colour, colour], true))
}

/// Whether a number is one that a byte can be.
pub(super) fn is_byte(value: f32) -> bool {
    (0.0..=255.0).contains(&value) && value.fract() == 0.0
}

/// What pixels stand for black and white.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    low: f32,
    high: f32,
}

impl Levels {
    /// Those of bytes that stay as they are.
    pub(super) const BYTES: Levels = Levels { low: 0.0, high: 255.0 };

    /// Of those that pictures usually have, the ones that the pixels of the training part lie between; else the least
    /// and the greatest of them.
    ///
    /// # Errors
    ///
    /// In words, when a pixel is not finite, or all are the same one beyond the usual levels.
    pub(super) fn of(pixels: impl Iterator<Item = f32>) -> Result<Levels, String> {
        let (mut least, mut most, mut whole) = (f32::INFINITY, f32::NEG_INFINITY, true);
        for (i, pixel) in pixels.enumerate() {
            if !pixel.is_finite() {
                return Err(format!("the value {pixel} found at index {i}, expected a finite number"));
            }
            (least, most) = (least.min(pixel), most.max(pixel));
            whole &= pixel.fract() == 0.0;
        }
        let (low, high) = match (least, most) {
            _ if least >= 0.0 && most <= 1.0 => (0.0, 1.0),
            _ if whole && least >= 0.0 && most <= 16.0 => (0.0, 16.0),
            _ if least >= 0.0 && most <= 255.0 => (0.0, 255.0),
            _ if least >= -1.0 && most <= 1.0 => (-1.0, 1.0),
            other => other,
        };
        if low < high {
            Ok(Levels { low, high })
        } else {
            Err(format!("all pixels are {low}, expected two different ones"))
        }
    }

    /// What is odd about the pixels of the test part, in words: they are of quite another range.
    pub(super) fn differs(self, test: impl Iterator<Item = f32>) -> Option<String> {
        let of_test = Levels::of(test).ok()?;
        let odd = of_test.high > 2.0 * self.high || (of_test.high <= 1.0 && self.high > 16.0);
        let (Levels { low, high }, Levels { low: from, high: to }) = (self, of_test);
        odd.then(|| {
            format!("the pixels for the test are of {from} to {to}, those to learn from of {low} to {high}")
        })
    }

    /// It in words, where it is not told by itself.
    pub(super) fn told(self) -> Option<String> {
        self.range().map(|[low, high]| format!("pixels of {low} to {high} are black to white"))
    }

    /// The ends that are scaled from, unless they are those of bytes.
    pub(super) fn range(self) -> Option<[f32; 2]> {
        let Levels { low, high } = self;
        ((low, high) != (0.0, 255.0)).then_some([low, high])
    }

    /// The byte of a pixel; what lies beyond takes the nearer end.
    pub(super) fn byte(self, pixel: f32) -> u8 {
        match self {
            // The number itself, where it is whole.
            Levels { low: 0.0, high: 255.0 } => pixel.round() as u8,
            Levels { low, high } => series::level(pixel, low, high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_numbers_are_pictures_where_they_make_squares() {
        assert_eq!(square(784, || false), Some(([1, 28, 28], false)));
        assert_eq!(square(3072, || false), Some(([3, 32, 32], true)));
        assert_eq!((square(16, || false), square(16, || true)), (None, Some(([1, 4, 4], false))));
        assert_eq!((square(75, || false), square(27, || true)), (Some(([3, 5, 5], true)), None));
        assert_eq!((square(785, || true), square(0, || false)), (None, None));
    }

    #[test]
    fn pixels_of_usual_ranges_keep_their_ends() {
        let of = |pixels: &[f32]| Levels::of(pixels.iter().copied());
        for (pixels, low, high) in [
            (&[0.0, 1.0][..], 0.0, 1.0),
            (&[0.1, 0.9], 0.0, 1.0),
            (&[0.0, 15.0], 0.0, 16.0),
            (&[0.0, 15.5], 0.0, 255.0),
            (&[17.0, 200.0], 0.0, 255.0),
            (&[-0.9, 0.5], -1.0, 1.0),
            (&[-0.42, 2.8], -0.42, 2.8),
            (&[0.0, 300.0], 0.0, 300.0),
        ] {
            let levels = of(pixels).unwrap();
            assert_eq!(levels, Levels { low, high });
            assert_eq!((levels.byte(low), levels.byte(high), levels.byte(1e9)), (0, 255, 255));
            assert_eq!(levels.told().is_none(), high == 255.0);
        }
        assert_eq!(
            of(&[0.0, f32::NAN]),
            Err("the value NaN found at index 1, expected a finite number".into())
        );
        assert_eq!(of(&[300.0, 300.0]), Err("all pixels are 300, expected two different ones".into()));
        assert_eq!(of(&[0.0, 0.0]).unwrap().byte(0.0), 0);
        let whole = Levels { low: 0.0, high: 255.0 };
        let differs = |train: &[f32], test: &[f32]| of(train).unwrap().differs(test.iter().copied());
        assert_eq!(
            differs(&[0.0, 200.0], &[0.0, 0.9]).unwrap(),
            "the pixels for the test are of 0 to 1, those to learn from of 0 to 255"
        );
        assert!(
            differs(&[0.0, 1.0], &[0.0, 255.0]).is_some() && differs(&[-1.0, 1.0], &[0.0, 40.0]).is_some()
        );
        assert!(
            differs(&[0.0, 200.0], &[3.0, 17.0]).is_none() && differs(&[-0.4, 2.8], &[-0.4, 3.1]).is_none()
        );
        assert!((0..=255).all(|byte| whole.byte(f32::from(byte)) == byte));
    }
}
