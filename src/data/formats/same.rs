//! One set, written in each of its formats, is read as the same pictures, labels and classes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use image::{GrayImage, RgbImage};
use proptest::prelude::*;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::written::{idx, npy, zip};
use crate::data::load;

/// What writes a set into a folder.
type Writer = fn(&Made, &Path);

/// Pictures and labels of both parts.
#[derive(Debug)]
struct Made {
    channels: usize,
    side: usize,
    /// Of each part its pictures, as planes, and their labels, in the order of the labels.
    parts: [(Vec<Vec<u8>>, Vec<u8>); 2],
}

impl Made {
    fn new(channels: usize, side: usize, labels: [Vec<u8>; 2], seed: u64) -> Made {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let parts = labels.map(|mut labels| {
            labels.sort_unstable();
            let picture = |_: &u8| {
                let mut pixels: Vec<u8> =
                    (0..channels * side * side).map(|_| random.next_u64() as u8).collect();
                // Numbers between 0 and 255 are bytes only where they are not between 0 and 16.
                pixels[0] = 255;
                pixels
            };
            (labels.iter().map(picture).collect(), labels)
        });
        Made { channels, side, parts }
    }

    /// A picture with the colours of each pixel together.
    fn together(&self, picture: &[u8]) -> Vec<u8> {
        let area = self.side * self.side;
        (0..area).flat_map(|at| (0..self.channels).map(move |channel| picture[channel * area + at])).collect()
    }

    fn sizes(&self, count: usize) -> Vec<usize> {
        let all = [count, self.side, self.side, self.channels];
        all[..if self.channels == 1 { 3 } else { 4 }].to_vec()
    }

    fn write_idx(&self, dir: &Path) {
        for ((pictures, labels), part) in self.parts.iter().zip(["train", "t10k"]) {
            let sizes: Vec<u32> = self.sizes(labels.len()).iter().map(|&size| size as u32).collect();
            let content: Vec<u8> = pictures.iter().flat_map(|picture| self.together(picture)).collect();
            let dimensions = sizes.len();
            let name = format!("{part}-images-idx{dimensions}-ubyte");
            fs::write(dir.join(name), idx(0x800 + dimensions as u32, &sizes, &content)).unwrap();
            let labels = idx(0x801, &[labels.len() as u32], labels);
            fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
        }
    }

    /// The four arrays by name: colours together in the first part, and as planes in the second.
    fn arrays(&self) -> Vec<(String, Vec<u8>)> {
        let of = |((pictures, labels), part): (&(Vec<Vec<u8>>, Vec<u8>), &str)| {
            let planes = part == "test" && self.channels == 3;
            let mut sizes = self.sizes(labels.len());
            if planes {
                sizes = vec![labels.len(), self.channels, self.side, self.side];
            }
            let content: Vec<u8> = match planes {
                true => pictures.concat(),
                false => pictures.iter().flat_map(|picture| self.together(picture)).collect(),
            };
            let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
            let wide: Vec<u8> = labels.iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
            [
                (format!("x_{part}"), npy("|u1", &format!("({})", sizes.join(", ")), &content)),
                (format!("y_{part}"), npy("<i8", &format!("({},)", labels.len()), &wide)),
            ]
        };
        self.parts.iter().zip(["train", "test"]).flat_map(of).collect()
    }

    fn write_npz(&self, dir: &Path) {
        let arrays = self.arrays();
        let arrays: Vec<(&str, Vec<u8>)> =
            arrays.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        fs::write(dir.join("set.npz"), zip(&arrays, true)).unwrap();
    }

    fn write_npy(&self, dir: &Path) {
        for (name, content) in self.arrays() {
            fs::write(dir.join(format!("{name}.npy")), content).unwrap();
        }
    }

    fn write_csv(&self, dir: &Path) {
        for ((pictures, labels), part) in self.parts.iter().zip(["train", "test"]) {
            let names: Vec<String> = (0..pictures[0].len()).map(|i| format!("pixel{i}")).collect();
            let mut text = format!("label,{}\n", names.join(","));
            for (picture, label) in pictures.iter().zip(labels) {
                let pixels: Vec<String> = self.together(picture).iter().map(u8::to_string).collect();
                text += &format!("{label},{}\n", pixels.join(","));
            }
            fs::write(dir.join(format!("{part}.csv")), text).unwrap();
        }
    }

    fn write_pictures(&self, dir: &Path) {
        let side = self.side as u32;
        for ((pictures, labels), part) in self.parts.iter().zip(["training", "testing"]) {
            for (i, (picture, label)) in pictures.iter().zip(labels).enumerate() {
                let folder = dir.join(part).join(label.to_string());
                fs::create_dir_all(&folder).unwrap();
                let (path, pixels) = (folder.join(format!("{i:03}.png")), self.together(picture));
                match self.channels {
                    1 => GrayImage::from_raw(side, side, pixels).unwrap().save(path).unwrap(),
                    _ => RgbImage::from_raw(side, side, pixels).unwrap().save(path).unwrap(),
                }
            }
        }
    }

    fn write_cifar(&self, dir: &Path) {
        for ((pictures, labels), file) in self.parts.iter().zip(["data_batch_1.bin", "test_batch.bin"]) {
            let records =
                pictures.iter().zip(labels).flat_map(|(picture, label)| [&[*label], &picture[..]].concat());
            fs::write(dir.join(file), records.collect::<Vec<u8>>()).unwrap();
        }
    }

    /// Writes it by each of some writers and compares what is read.
    fn check(&self, writers: &[(&str, Writer)]) {
        let all: BTreeSet<u8> = self.parts.iter().flat_map(|(_, labels)| labels).copied().collect();
        let names: Vec<String> = all.iter().map(u8::to_string).collect();
        for (format, write) in writers {
            let dir = tempfile::tempdir().unwrap();
            write(self, dir.path());
            let split =
                load(dir.path().to_str().unwrap()).unwrap_or_else(|error| panic!("{format}: {error}"));
            for (data, (pictures, labels)) in [split.train, split.test].iter().zip(&self.parts) {
                let shape = [data.channels, data.height, data.width];
                assert_eq!(shape, [self.channels, self.side, self.side], "{format}");
                assert!(data.images == pictures.concat(), "{format}: other pixels");
                let numbers = labels.iter().map(|label| all.range(..label).count() as u8);
                assert_eq!(data.labels, numbers.collect::<Vec<_>>(), "{format}");
                assert_eq!(data.class_names, names, "{format}");
            }
            assert_eq!(split.notes, Vec::<String>::new(), "{format}");
        }
    }
}

/// The labels of a part.
fn labels(from: u8, to: u8) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(from..=to, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn grey_pictures_are_the_same_in_every_format(
        side in 5usize..9,
        train in labels(1, 255),
        test in labels(0, 255),
        seed in any::<u64>(),
    ) {
        // Two classes at least.
        let made = Made::new(1, side, [[train, vec![0]].concat(), [test, vec![255]].concat()], seed);
        made.check(&[
            ("IDX", Made::write_idx),
            ("npz", Made::write_npz),
            ("npy", Made::write_npy),
            ("CSV", Made::write_csv),
            ("pictures", Made::write_pictures),
        ]);
    }

    #[test]
    fn colour_pictures_are_the_same_in_every_format(
        train in labels(0, 9),
        test in labels(0, 8),
        seed in any::<u64>(),
    ) {
        let made = Made::new(3, 32, [[train, vec![9]].concat(), [test, vec![8]].concat()], seed);
        made.check(&[
            ("IDX", Made::write_idx),
            ("npz", Made::write_npz),
            ("npy", Made::write_npy),
            ("CSV", Made::write_csv),
            ("pictures", Made::write_pictures),
            ("CIFAR", Made::write_cifar),
        ]);
    }
}
