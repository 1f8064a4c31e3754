//! Labelled images to train on, and single pictures to classify.

pub mod compose;
pub mod idx;
pub mod picture;

use std::fmt;

use crate::error::{Error, Result};

/// The names that [`load`] knows; anything else is taken for a directory.
pub const NAMES: &[&str] = &["mnist", "mnist-windows", "mnist-scenes"];

/// Labelled grey or colour images, bytes as they are in the file.
#[derive(Clone, PartialEq, Eq)]
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
    pub images: Vec<u8>,
    /// The classes of each image, `[N, LH, LW]`: one, or one for each place of a map.
    pub labels: Vec<u8>,
    /// Rows and columns of an image's map of labels, `[LH, LW]`; `[1, 1]` where an image has one class.
    pub label_size: [usize; 2],
    /// What to call each class, `[classes]`; the class's number unless set.
    pub class_names: Vec<String>,
}

/// Data to learn from and data to be judged by; both have the same shape and classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// What to learn from.
    pub train: Dataset,
    /// What to be judged by.
    pub test: Dataset,
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
        images: Vec<u8>,
        label_size: [usize; 2],
        labels: Vec<u8>,
    ) -> Result<Self> {
        let name = name.into();
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
        Ok(Dataset { name, channels, height, width, classes, images, labels, label_size, class_names })
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

    /// The pixels of image `i`, `[C, H, W]` row-major.
    ///
    /// # Panics
    ///
    /// When `i` is not less than [`Dataset::len`], like the indexing of a slice.
    pub fn image(&self, i: usize) -> &[u8] {
        let pixels = self.pixels();
        &self.images[i * pixels..][..pixels]
    }

    /// Keeps the first `n` images, or all if there are fewer.
    pub fn take(mut self, n: usize) -> Self {
        let n = n.min(self.len());
        self.images.truncate(n * self.pixels());
        self.labels.truncate(n * self.labels_per_image());
        self
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
            ..self
        };
        (self, validation)
    }
}

/// MNIST, which is part of the program: 60000 and 10000 images `[1, 28, 28]` of ten digits.
///
/// # Errors
///
/// [`Error::Data`], only if the crate was built from damaged files.
pub fn mnist() -> Result<Split> {
    let train = || {
        grey(
            "mnist",
            ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
            [
                include_bytes!("../../assets/mnist/train-images-idx3-ubyte.gz"),
                include_bytes!("../../assets/mnist/train-labels-idx1-ubyte.gz"),
            ],
            Some(10),
        )
    };
    let test = || {
        grey(
            "mnist",
            ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
            [
                include_bytes!("../../assets/mnist/t10k-images-idx3-ubyte.gz"),
                include_bytes!("../../assets/mnist/t10k-labels-idx1-ubyte.gz"),
            ],
            Some(10),
        )
    };
    let (train, test) = rayon::join(train, test);
    Ok(Split { train: train?, test: test? })
}

/// Parses an image file and its label file; without `classes`, the labels decide how many there are.
fn grey(name: &str, files: [&str; 2], bytes: [&[u8]; 2], classes: Option<usize>) -> Result<Dataset> {
    let labels = idx::parse_labels(files[1], bytes[1])?;
    let (count, height, width, images) = idx::parse_images(files[0], bytes[0])?;
    if count != labels.len() {
        return Err(Error::Data {
            path: files[1].to_owned(),
            message: format!(
                "{} labels found, expected {count} as there are images in {}",
                labels.len(),
                files[0]
            ),
        });
    }
    let top = labels.iter().max().map_or(0, |&label| usize::from(label));
    let classes = classes.unwrap_or((top + 1).max(2));
    // Checked here as well as in `Dataset::new`, so that the message names the label file.
    if top >= classes {
        return Err(Error::Data {
            path: files[1].to_owned(),
            message: format!(
                "the label {top} found, expected less than {classes}, the classes of the training data"
            ),
        });
    }
    Dataset::new(name, [1, height, width], classes, images, labels)
}

/// Loads data by name, or from a directory with four IDX files.
///
/// `mnist` is the embedded MNIST (a directory of that name is `./mnist`), `mnist-windows` and `mnist-scenes` are
/// pictures that [`compose`] puts together from it. A directory has to hold
/// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
/// `t10k-labels-idx1-ubyte`; a name may have a `.` in place of the `-` before `idx` and may end in
/// `.gz`, and where several fit, the unzipped one with `-` is read first. The number of classes is
/// the greatest training label plus one, at least 2.
///
/// # Errors
///
/// [`Error::Data`] when `spec` is neither, a file is missing or malformed, or the files do not fit
/// each other; [`Error::Io`] when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(spec: &str) -> Result<Split> {
    match spec {
        "mnist" => return mnist(),
        "mnist-windows" => return compose::mnist_windows(),
        "mnist-scenes" => return compose::mnist_scenes(),
        _ => {}
    }
    let dir = std::path::Path::new(spec);
    if !dir.is_dir() {
        return Err(Error::Data {
            path: spec.to_owned(),
            message: format!(
                "no such data: expected one of the names {} or a directory with IDX files",
                NAMES.join(", ")
            ),
        });
    }
    let name = dir.file_name().map_or(spec.into(), |name| name.to_string_lossy());
    let part = |part: &str, classes: Option<usize>| {
        let images = find(dir, &format!("{part}-images"), 3)?;
        let labels = find(dir, &format!("{part}-labels"), 1)?;
        let files = [images.to_string_lossy(), labels.to_string_lossy()];
        let bytes = [crate::checkpoint::read(&images)?, crate::checkpoint::read(&labels)?];
        let data = grey(&name, [&files[0], &files[1]], [&bytes[0], &bytes[1]], classes)?;
        Ok((files[0].clone().into_owned(), data))
    };
    let (train_file, train) = part("train", None)?;
    let (test_file, test) = part("t10k", Some(train.classes))?;
    if (test.height, test.width) != (train.height, train.width) {
        return Err(Error::Data {
            path: test_file,
            message: format!(
                "images of {}x{} pixels found, expected {}x{} as in {train_file}",
                test.width, test.height, train.width, train.height
            ),
        });
    }
    Ok(Split { train, test })
}

/// Finds the file of one kind under any of its accepted names.
#[cfg(not(target_arch = "wasm32"))]
fn find(dir: &std::path::Path, stem: &str, dimensions: u8) -> Result<std::path::PathBuf> {
    let names = [("-", ""), (".", ""), ("-", ".gz"), (".", ".gz")]
        .map(|(mark, end)| format!("{stem}{mark}idx{dimensions}-ubyte{end}"));
    names.iter().map(|name| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| Error::Data {
        path: dir.to_string_lossy().into_owned(),
        message: format!("no file found under any of the names {}", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::Path};

    use super::*;

    fn small() -> Dataset {
        Dataset::new("small", [1, 1, 2], 3, (0..10).collect(), vec![0, 1, 2, 1, 0]).unwrap()
    }

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
    fn images_are_found_taken_and_split() {
        let data = small();
        assert_eq!((data.len(), data.is_empty(), data.pixels()), (5, false, 2));
        assert_eq!(data.image(3), [6, 7]);
        assert_eq!(data.class_names, ["0", "1", "2"]);
        assert_eq!(data.clone().take(2).images, [0, 1, 2, 3]);
        assert_eq!(data.clone().take(2).labels, [0, 1]);
        assert_eq!(data.clone().take(9), data);
        let (train, validation) = data.clone().split(0.4);
        assert_eq!((train.labels, validation.labels), (vec![0, 1, 2], vec![1, 0]));
        assert_eq!((train.images.len(), validation.images), (6, vec![6, 7, 8, 9]));
        for (fraction, kept) in [(0.0, 5), (1.0, 0), (-1.0, 5), (7.0, 0), (f64::NAN, 5), (f64::INFINITY, 0)] {
            let (train, validation) = data.clone().split(fraction);
            assert_eq!((train.len(), validation.len()), (kept, 5 - kept), "{fraction}");
        }
    }

    #[test]
    fn maps_of_labels_stay_with_their_images() {
        let maps =
            |labels: Vec<u8>| Dataset::segmented("maps", [1, 1, 2], 3, (0..6).collect(), [2, 1], labels);
        let data = maps(vec![0, 1, 2, 1, 0, 2]).unwrap();
        assert_eq!((data.len(), data.labels_per_image()), (3, 2));
        assert_eq!((small().label_size, small().labels_per_image()), ([1, 1], 1));
        let first = data.clone().take(1);
        assert_eq!((first.images, first.labels), (vec![0, 1], vec![0, 1]));
        let (train, validation) = data.split(0.34);
        assert_eq!((train.len(), train.labels), (2, vec![0, 1, 2, 1]));
        assert_eq!((validation.images, validation.labels), (vec![4, 5], vec![0, 2]));
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
    fn the_embedded_mnist_is_whole() {
        let Split { train, test } = load("mnist").unwrap();
        assert_eq!((train.len(), test.len()), (60_000, 10_000));
        assert_eq!((train.channels, train.height, train.width, train.classes), (1, 28, 28, 10));
        assert_eq!(train.labels[..5], [5, 0, 4, 1, 9]);
        assert_eq!(test.labels[..5], [7, 2, 1, 0, 4]);
        assert_eq!(
            format!("{test:?}"),
            r#"Dataset { name: "mnist", len: 10000, shape: [1, 28, 28], classes: 10, .. }"#
        );
    }

    /// Writes an IDX file of one-by-`width` images, or of labels when `width` is zero.
    fn write(path: &Path, width: u8, content: &[u8]) {
        let count = content.len() / usize::from(width.max(1));
        let mut bytes = vec![0, 0, 8, if width == 0 { 1 } else { 3 }];
        bytes.extend((count as u32).to_be_bytes());
        if width > 0 {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, width]);
        }
        bytes.extend(content);
        if path.extension().is_some_and(|e| e == "gz") {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        fs::write(path, bytes).unwrap();
    }

    /// A directory with two training images and one test image, under four different kinds of name.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("train-images-idx3-ubyte"), 2, &[1, 2, 3, 4]);
        write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 2]);
        write(&dir.path().join("t10k-images-idx3-ubyte.gz"), 2, &[5, 6]);
        write(&dir.path().join("t10k-labels.idx1-ubyte.gz"), 0, &[1]);
        dir
    }

    fn refused(dir: &tempfile::TempDir) -> String {
        load(dir.path().to_str().unwrap())
            .unwrap_err()
            .to_string()
            .replace(dir.path().to_str().unwrap(), "DIR")
            .replace('\\', "/")
    }

    #[test]
    fn a_directory_is_read_under_any_accepted_name() {
        let dir = directory();
        let Split { train, test } = load(dir.path().to_str().unwrap()).unwrap();
        assert_eq!((train.classes, test.classes), (3, 3));
        assert_eq!((train.height, train.width), (1, 2));
        assert_eq!((train.images, train.labels), (vec![1, 2, 3, 4], vec![0, 2]));
        assert_eq!((test.images, test.labels), (vec![5, 6], vec![1]));
        assert_eq!(train.name, dir.path().file_name().unwrap().to_str().unwrap());
        // One label only still makes two classes.
        write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 0]);
        assert_eq!(load(dir.path().to_str().unwrap()).unwrap().train.classes, 2);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(
            load("nowhere/at-all").unwrap_err().to_string(),
            "nowhere/at-all: no such data: expected one of the names mnist, mnist-windows, \
             mnist-scenes or a directory with IDX files"
        );
        let dir = directory();
        fs::remove_file(dir.path().join("train-labels.idx1-ubyte")).unwrap();
        assert_eq!(
            refused(&dir),
            "DIR: no file found under any of the names train-labels-idx1-ubyte, train-labels.idx1-ubyte, \
             train-labels-idx1-ubyte.gz, train-labels.idx1-ubyte.gz"
        );
        let dir = directory();
        write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 1, 2]);
        assert_eq!(
            refused(&dir),
            "DIR/train-labels.idx1-ubyte: 3 labels found, expected 2 as there are images in DIR/train-images-idx3-ubyte"
        );
        let dir = directory();
        write(&dir.path().join("t10k-labels.idx1-ubyte.gz"), 0, &[3]);
        assert_eq!(
            refused(&dir),
            "DIR/t10k-labels.idx1-ubyte.gz: the label 3 found, expected less than 3, the classes of the training data"
        );
        let dir = directory();
        write(&dir.path().join("t10k-images-idx3-ubyte.gz"), 3, &[5, 6, 7]);
        assert_eq!(
            refused(&dir),
            "DIR/t10k-images-idx3-ubyte.gz: images of 3x1 pixels found, expected 2x1 as in DIR/train-images-idx3-ubyte"
        );
        let dir = directory();
        fs::write(dir.path().join("t10k-images-idx3-ubyte.gz"), b"nonsense").unwrap();
        assert_eq!(
            refused(&dir),
            "DIR/t10k-images-idx3-ubyte.gz: the magic 0x6e6f6e73 found, expected 0x00000803 \
             (an IDX file of unsigned bytes, 3 dimensions)"
        );
    }
}
