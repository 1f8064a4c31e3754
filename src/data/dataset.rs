//! Labelled images, signals or texts, and what their bytes stand for.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::pixels::Pixels;
use crate::error::{Error, Result};

/// What the bytes of a data set stand for, so that new input can be brought into the same form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Light ink on black, as in MNIST: a new picture is searched for its ink.
    #[default]
    Ink,
    /// Pictures as they are: a new one is cropped to the proportion and scaled.
    Picture,
    /// Real numbers, of which `low` became 0 and `high` 255; what lies beyond became the nearer one.
    Range {
        /// The number that byte 0 stands for.
        low: f32,
        /// The number that byte 255 stands for.
        high: f32,
    },
    /// One channel a character: 255 where that character stands, 0 elsewhere.
    Text {
        /// The character of each channel, in order, lower case.
        alphabet: String,
    },
}

/// Labelled grey or colour images, bytes as they are in the file.
///
/// A signal is an image of one row; a text has one channel a character of its alphabet.
#[derive(Clone, PartialEq)]
pub struct Dataset {
    /// What to call the data in messages.
    pub name: String,
    /// Planes of an image: 1 for grey, 3 for colour.
    pub channels: usize,
    /// Rows of an image, in pixels.
    pub height: usize,
    /// Columns of an image, in pixels.
    pub width: usize,
    /// How many classes there are; every label is less.
    pub classes: usize,
    /// All pixels, `[N, C, H, W]` row-major, 0 to 255.
    pub images: Pixels,
    /// The classes of each image, `[N, LH, LW]`: one, or one for each place of a map.
    pub labels: Vec<u8>,
    /// Rows and columns of an image's map of labels, `[LH, LW]`; `[1, 1]` where an image has one class.
    pub label_size: [usize; 2],
    /// What to call each class, `[classes]`; the class's number unless set.
    pub class_names: Vec<String>,
    /// What the bytes stand for; ink for one channel and a picture for several unless set.
    pub encoding: Encoding,
    /// The numbers that bytes 0 and 255 stood for in the files of the pictures, where these were not bytes themselves.
    pub scale: Option<[f32; 2]>,
    /// Whether the files have rows and columns exchanged.
    pub turned: bool,
}

impl fmt::Debug for Dataset {
    /// Shows counts only: the pixels of MNIST are 47 million numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("name", &self.name)
            .field("len", &self.len())
            .field("shape", &[self.channels, self.height, self.width])
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// Puts images `[N, C, H, W]` and labels `[N]` together; `shape` is `[C, H, W]`.
    ///
    /// Classes are called by their numbers. No image at all (`N` = 0) is allowed.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] when a size of `shape` is zero, `classes` is not 2 to 256, the numbers of
    /// pixels and labels do not match, or a label is not less than `classes`.
    pub fn new(
        name: impl Into<String>,
        shape: [usize; 3],
        classes: usize,
        images: Vec<u8>,
        labels: Vec<u8>,
    ) -> Result<Self> {
        Dataset::segmented(name, shape, classes, images, [1, 1], labels)
    }

    /// Puts images `[N, C, H, W]` and a map of labels for each, `[N, LH, LW]`, together; `shape` is `[C, H, W]`
    /// and `label_size` is `[LH, LW]`.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::new`], and [`Error::Data`] when a size of `label_size` is zero or the labels are not
    /// whole maps.
    pub fn segmented(
        name: impl Into<String>,
        shape: [usize; 3],
        classes: usize,
        images: impl Into<Pixels>,
        label_size: [usize; 2],
        labels: Vec<u8>,
    ) -> Result<Self> {
        let (name, images) = (name.into(), images.into());
        let [channels, height, width] = shape;
        let refuse = |message: String| Err(Error::Data { path: name.clone(), message });
        if shape.contains(&0) {
            return refuse(format!("images of shape {shape:?} found, expected no size to be zero"));
        }
        let map = match label_size[0].checked_mul(label_size[1]) {
            Some(map) if map > 0 && labels.len().is_multiple_of(map) => map,
            _ => {
                return refuse(format!(
                    "{} labels found, expected whole maps of {label_size:?} with no size zero",
                    labels.len()
                ));
            }
        };
        let count = labels.len() / map;
        if !(2..=256).contains(&classes) {
            return refuse(format!("{classes} classes found, expected 2 to 256"));
        }
        let expected = channels
            .checked_mul(height)
            .and_then(|n| n.checked_mul(width))
            .and_then(|n| n.checked_mul(count));
        if expected != Some(images.len()) {
            return refuse(format!(
                "{} bytes of pixels found, expected {count} images of shape {shape:?} to go with the labels",
                images.len()
            ));
        }
        if let Some(at) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return refuse(format!(
                "the label {} found at index {at}, expected less than {classes}",
                labels[at]
            ));
        }
        let class_names = (0..classes).map(|class| class.to_string()).collect();
        let encoding = if channels == 1 { Encoding::Ink } else { Encoding::Picture };
        Ok(Dataset {
            name,
            channels,
            height,
            width,
            classes,
            images,
            labels,
            label_size,
            class_names,
            encoding,
            scale: None,
            turned: false,
        })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len() / self.labels_per_image()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many numbers an image has: `C * H * W`.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// How many labels an image has: `LH * LW`, 1 where an image has one class.
    pub fn labels_per_image(&self) -> usize {
        (self.label_size[0] * self.label_size[1]).max(1)
    }

    /// How many labels there are of each class, `[classes]`.
    pub fn label_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.classes];
        self.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    }

    /// The pixels of image `i`, `[C, H, W]` row-major.
    ///
    /// # Errors
    ///
    /// As [`Pixels::get`].
    ///
    /// # Panics
    ///
    /// When `i` is not less than [`Dataset::len`], like the indexing of a slice.
    pub fn image(&self, i: usize) -> Result<Cow<'_, [u8]>> {
        let pixels = self.pixels();
        self.images.get(i * pixels..(i + 1) * pixels)
    }
}

#[cfg(test)]
impl Dataset {
    /// The pixels of image `i` of a set in memory.
    pub(crate) fn picture(&self, i: usize) -> &[u8] {
        match &self.images {
            Pixels::Held(bytes) => &bytes[i * self.pixels()..][..self.pixels()],
            Pixels::Filed(_) => panic!("in a file"),
        }
    }
}

/// Pictures with rows and columns exchanged; `shape` is what they have before.
pub(super) fn transposed(pixels: &[u8], [_, height, width]: [usize; 3]) -> Vec<u8> {
    pixels
        .chunks_exact(height * width)
        .flat_map(|plane| (0..width).flat_map(move |x| plane[x..].iter().step_by(width).copied()))
        .collect()
}

/// Colours side by side, `[N, H, W, C]`, as planes, `[N, C, H, W]`.
pub(super) fn planes(pixels: &[u8], area: usize, channels: usize) -> Vec<u8> {
    if channels <= 1 || area == 0 {
        return pixels.to_vec();
    }
    pixels
        .chunks_exact(area * channels)
        .flat_map(|image| (0..channels).flat_map(move |c| image[c..].iter().step_by(channels).copied()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_labels_are_checked() {
        let refused = |shape, classes, images: usize, labels: &[u8]| {
            Dataset::new("d", shape, classes, vec![0; images], labels.to_vec()).unwrap_err().to_string()
        };
        assert_eq!(
            refused([1, 0, 2], 3, 0, &[]),
            "d: images of shape [1, 0, 2] found, expected no size to be zero"
        );
        assert_eq!(refused([1, 1, 2], 1, 2, &[0]), "d: 1 classes found, expected 2 to 256");
        assert_eq!(refused([1, 1, 2], 257, 2, &[0]), "d: 257 classes found, expected 2 to 256");
        assert_eq!(
            refused([1, 1, 2], 3, 5, &[0, 1]),
            "d: 5 bytes of pixels found, expected 2 images of shape [1, 1, 2] to go with the labels"
        );
        assert_eq!(
            refused([usize::MAX, 2, 2], 3, 5, &[0, 1]),
            format!(
                "d: 5 bytes of pixels found, expected 2 images of shape [{}, 2, 2] to go with the labels",
                usize::MAX
            )
        );
        assert_eq!(
            refused([1, 1, 2], 3, 6, &[0, 1, 3]),
            "d: the label 3 found at index 2, expected less than 3"
        );
    }

    #[test]
    fn encodings_make_the_round_trip() {
        for (encoding, text) in [
            (Encoding::Ink, r#""ink""#),
            (Encoding::Picture, r#""picture""#),
            (Encoding::Range { low: -0.1, high: 2.5 }, r#"{"range":{"low":-0.1,"high":2.5}}"#),
            (Encoding::Text { alphabet: "aä \"".into() }, r#"{"text":{"alphabet":"aä \""}}"#),
        ] {
            assert_eq!(serde_json::to_string(&encoding).unwrap(), text);
            assert_eq!(serde_json::from_str::<Encoding>(text).unwrap(), encoding);
        }
    }
}
