//! The parts of data: to learn from and to be judged by, the first, the last, so many of each class.

use super::dataset::Dataset;
use super::input::refuse;
use crate::error::Result;

/// One image in this many is held out for the test where the data has no test part of its own.
pub const HELD_OUT: u64 = 6;

/// Data to learn from and data to be judged by; both have the same shape and classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What to learn from.
    pub train: Dataset,
    /// What to be judged by.
    pub test: Dataset,
}

impl Split {
    /// Puts two parts, each with the file it is from, together, which have to have images and be of one shape.
    pub(super) fn new(train: (String, Dataset), test: (String, Dataset)) -> Result<Split> {
        let ((train_file, train), (test_file, test)) = (train, test);
        for (file, data) in [(&train_file, &train), (&test_file, &test)] {
            if data.is_empty() {
                return Err(refuse(file.as_str(), "no image found, expected one at least"));
            }
        }
        if (test.channels, test.height, test.width) != (train.channels, train.height, train.width) {
            let planes = |data: &Dataset| match (train.channels, test.channels) {
                (1, 1) => String::new(),
                _ => format!(" in {} channels", data.channels),
            };
            return Err(refuse(
                test_file,
                format!(
                    "images of {}x{} pixels{} found, expected {}x{}{} as in {train_file}",
                    test.width,
                    test.height,
                    planes(&test),
                    train.width,
                    train.height,
                    planes(&train)
                ),
            ));
        }
        Ok(Split { train, test })
    }
}

impl Dataset {
    /// Keeps the first `n` images, or all if there are fewer.
    pub fn take(mut self, n: usize) -> Self {
        let n = n.min(self.len());
        self.images.truncate(n * self.pixels());
        self.labels.truncate(n * self.labels_per_image());
        self
    }

    /// A copy of the first `n` images, or of all if there are fewer.
    pub fn first(&self, n: usize) -> Self {
        let n = n.min(self.len());
        Dataset {
            images: self.images.part(0..n * self.pixels()),
            labels: self.labels[..n * self.labels_per_image()].to_vec(),
            name: self.name.clone(),
            class_names: self.class_names.clone(),
            encoding: self.encoding.clone(),
            ..*self
        }
    }

    /// Splits the last `fraction` of the images off as validation data: `(train, validation)`.
    ///
    /// Nothing is shuffled: the same data gives the same parts. The number of images is rounded to
    /// the nearest; a fraction outside 0 to 1 is taken for the nearer bound, a NaN for 0.
    pub fn split(mut self, fraction: f64) -> (Self, Self) {
        // A cast from f64 saturates and maps NaN to zero, so `keep` cannot leave the range.
        let last = (self.len() as f64 * fraction).round() as usize;
        let keep = self.len().saturating_sub(last);
        let validation = Dataset {
            images: self.images.split_off(keep * self.pixels()),
            labels: self.labels.split_off(keep * self.labels_per_image()),
            name: self.name.clone(),
            class_names: self.class_names.clone(),
            encoding: self.encoding.clone(),
            ..self
        };
        (self, validation)
    }

    /// Keeps the first `n` images of each class, in their order; of a class with fewer, all. Of images with maps of
    /// labels, which belong to no one class, it keeps `n` for each class there is.
    ///
    /// # Errors
    ///
    /// As [`Pixels::get`](super::Pixels::get): those that are kept come into memory.
    pub fn per_class(mut self, n: usize) -> Result<Self> {
        if self.labels_per_image() > 1 {
            let all = n.saturating_mul(self.classes);
            return Ok(self.take(all));
        }
        let mut taken = vec![0; self.classes];
        let keep: Vec<bool> = self
            .labels
            .iter()
            .map(|&label| {
                let taken = &mut taken[usize::from(label)];
                *taken += 1;
                *taken <= n
            })
            .collect();
        let chosen = || keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(i, _)| i);
        let mut images = Vec::new();
        for i in chosen() {
            images.extend_from_slice(&self.image(i)?);
        }
        self.images = images.into();
        self.labels = chosen().map(|i| self.labels[i]).collect();
        Ok(self)
    }
}

/// Whether one of several goes to the test part, by its file's name or its place in a file (FNV-1a of
/// `key`, then mixed): always the same ones, one in [`HELD_OUT`].
pub(super) fn held_out(key: &[u8]) -> bool {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    // Names that differ in their last digit differ in few bits of the sum: MurmurHash3's finalizer spreads them.
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ hash >> 33).is_multiple_of(HELD_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Dataset {
        Dataset::new("small", [1, 1, 2], 3, (0..10).collect(), vec![0, 1, 2, 1, 0]).unwrap()
    }

    #[test]
    fn images_are_found_taken_and_split() {
        let data = small();
        assert_eq!((data.len(), data.is_empty(), data.pixels()), (5, false, 2));
        assert_eq!(data.picture(3), [6, 7]);
        assert_eq!(data.class_names, ["0", "1", "2"]);
        assert_eq!(data.clone().take(2).images.to_vec(), [0, 1, 2, 3]);
        assert_eq!(data.clone().take(2).labels, [0, 1]);
        assert_eq!(data.clone().take(9), data);
        let (train, validation) = data.clone().split(0.4);
        assert_eq!((train.labels, validation.labels), (vec![0, 1, 2], vec![1, 0]));
        assert_eq!((train.images.len(), validation.images.to_vec()), (6, vec![6, 7, 8, 9]));
        for (fraction, kept) in [(0.0, 5), (1.0, 0), (-1.0, 5), (7.0, 0), (f64::NAN, 5), (f64::INFINITY, 0)] {
            let (train, validation) = data.clone().split(fraction);
            assert_eq!((train.len(), validation.len()), (kept, 5 - kept), "{fraction}");
        }
    }

    #[test]
    fn maps_of_labels_stay_with_their_images() {
        let maps = |labels: Vec<u8>| {
            Dataset::segmented("maps", [1, 1, 2], 3, (0..6).collect::<Vec<_>>(), [2, 1], labels)
        };
        let data = maps(vec![0, 1, 2, 1, 0, 2]).unwrap();
        assert_eq!((data.len(), data.labels_per_image()), (3, 2));
        assert_eq!((small().label_size, small().labels_per_image()), ([1, 1], 1));
        let first = data.clone().take(1);
        assert_eq!((first.images.to_vec(), first.labels), (vec![0, 1], vec![0, 1]));
        let (train, validation) = data.split(0.34);
        assert_eq!((train.len(), train.labels), (2, vec![0, 1, 2, 1]));
        assert_eq!((validation.images.to_vec(), validation.labels), (vec![4, 5], vec![0, 2]));
        assert_eq!(validation.label_size, [2, 1]);

        assert_eq!(
            maps(vec![0; 5]).unwrap_err().to_string(),
            "maps: 5 labels found, expected whole maps of [2, 1] with no size zero"
        );
        assert_eq!(
            maps(vec![0; 4]).unwrap_err().to_string(),
            "maps: 6 bytes of pixels found, expected 2 images of shape [1, 1, 2] to go with the labels"
        );
        for size in [[0, 3], [usize::MAX, 2]] {
            assert!(Dataset::segmented("maps", [1, 1, 1], 3, vec![], size, vec![]).is_err());
        }
    }

    #[test]
    fn so_many_of_each_class_are_kept() {
        let data = Dataset::new("d", [1, 1, 2], 4, (0..14).collect(), vec![0, 2, 0, 1, 2, 0, 2]).unwrap();
        let few = data.clone().per_class(2).unwrap();
        assert_eq!(few.labels, [0, 2, 0, 1, 2]);
        assert_eq!(few.images.to_vec(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(data.clone().per_class(1).unwrap().images.to_vec(), [0, 1, 2, 3, 6, 7]);
        assert_eq!((data.clone().per_class(0).unwrap().len(), data.clone().per_class(9).unwrap()), (0, data));
    }

    #[test]
    fn one_name_in_six_is_held_out() {
        let count = (0..60_000).filter(|i| held_out(format!("image_{i:05}.png").as_bytes())).count();
        assert!((9_500..10_500).contains(&count), "{count}");
        // Data that was split once stays split that way.
        let which: Vec<_> = (0..30).filter(|i: &u32| held_out(i.to_string().as_bytes())).collect();
        assert_eq!(which, [3, 4, 15]);
    }
}
