//! Labelled images, signals and texts to train on, and single pictures to classify.
//!
//! One file a format: [`idx`] (MNIST and its kin), [`folder`] (pictures in a folder for each class), [`cifar`],
//! [`npy`] (`.npy` and `.npz`), [`table`] (CSV and TSV), [`text`]; [`series`] makes bytes of real numbers. Every
//! reader is strict: what a file claims is checked before anything is allocated, and a message says what was
//! found and what was expected.

pub mod cifar;
pub mod compose;
pub mod folder;
pub mod idx;
pub mod npy;
pub mod picture;
pub mod series;
pub mod table;
pub mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The names that [`named`] knows and [`load`] takes; anything else is taken for a path.
pub const NAMES: &[&str] = &["mnist", "mnist-windows", "mnist-scenes", "waves", "languages"];

/// The most content, in bytes, that is made of one file or one part of the data: 2 GiB.
const MAX_CONTENT: u64 = 1 << 31;

/// One image in this many is held out for the test where the data has no test part of its own.
pub const HELD_OUT: u64 = 6;

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
    pub images: Vec<u8>,
    /// The classes of each image, `[N, LH, LW]`: one, or one for each place of a map.
    pub labels: Vec<u8>,
    /// Rows and columns of an image's map of labels, `[LH, LW]`; `[1, 1]` where an image has one class.
    pub label_size: [usize; 2],
    /// What to call each class, `[classes]`; the class's number unless set.
    pub class_names: Vec<String>,
    /// What the bytes stand for; ink for one channel and a picture for several unless set.
    pub encoding: Encoding,
}

/// Data to learn from and data to be judged by; both have the same shape and classes.
#[derive(Clone, Debug, PartialEq)]
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
            encoding: self.encoding.clone(),
            ..self
        };
        (self, validation)
    }

    /// Keeps the first `n` images of each class, in their order; of a class with fewer, all. Of images with maps of
    /// labels, which belong to no one class, it keeps `n` for each class there is.
    pub fn per_class(mut self, n: usize) -> Self {
        if self.labels_per_image() > 1 {
            let all = n.saturating_mul(self.classes);
            return self.take(all);
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
        self.images = chosen().flat_map(|i| self.image(i)).copied().collect();
        self.labels = chosen().map(|i| self.labels[i]).collect();
        self
    }
}

/// An error of one file.
fn refuse(path: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Data { path: path.into(), message: message.into() }
}

/// Labels as classes: the number of classes and what each is called.
#[derive(Clone, Debug, PartialEq)]
struct Classes {
    count: usize,
    /// `[count]`, or none where numbers will do.
    names: Option<Vec<String>>,
}

impl Classes {
    /// As many classes as the greatest label asks for, at least two.
    fn by_labels(labels: &[u8]) -> Classes {
        let top = labels.iter().max().map_or(0, |&label| usize::from(label));
        Classes { count: (top + 1).max(2), names: None }
    }

    /// Classes with the given names, of which there have to be 2 to 256.
    #[cfg(not(target_arch = "wasm32"))]
    fn named(path: &str, names: Vec<String>) -> Result<Classes> {
        if !(2..=256).contains(&names.len()) {
            return Err(refuse(path, format!("{} classes found, expected 2 to 256", names.len())));
        }
        Ok(Classes { count: names.len(), names: Some(names) })
    }

    /// Makes a data set; `file` is where the labels come from.
    fn dataset(
        &self,
        name: &str,
        file: &str,
        shape: [usize; 3],
        images: Vec<u8>,
        labels: Vec<u8>,
    ) -> Result<Dataset> {
        // Checked here as well as in `Dataset::new`, so that the message names the label file.
        let top = labels.iter().max().map_or(0, |&label| usize::from(label));
        if top >= self.count {
            return Err(refuse(
                file,
                format!(
                    "the label {top} found, expected less than {}, the classes of the training data",
                    self.count
                ),
            ));
        }
        let mut data = Dataset::new(name, shape, self.count, images, labels)?;
        if let Some(names) = self.names.clone().or_else(|| known_names(name, self.count)) {
            data.class_names = names;
        }
        Ok(data)
    }
}

/// What the classes of well-known data are called whose files do not say it.
fn known_names(name: &str, classes: usize) -> Option<Vec<String>> {
    let name = name.to_lowercase();
    let has = |part: &str| name.contains(part);
    let known = match classes {
        10 if has("fashion") => [
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ],
        10 if has("kmnist") || has("kuzushiji") => {
            ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
        }
        10 if has("cifar") => {
            ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        }
        _ => return None,
    };
    Some(known.map(String::from).to_vec())
}

/// Colours side by side, `[N, H, W, C]`, as planes, `[N, C, H, W]`.
fn planes(pixels: &[u8], area: usize, channels: usize) -> Vec<u8> {
    if channels <= 1 || area == 0 {
        return pixels.to_vec();
    }
    pixels
        .chunks_exact(area * channels)
        .flat_map(|image| (0..channels).flat_map(move |c| image[c..].iter().step_by(channels).copied()))
        .collect()
}

/// Whether one of several goes to the test part, by its file's name or its place in a file (FNV-1a of
/// `key`, then mixed): always the same ones, one in [`HELD_OUT`].
fn held_out(key: &[u8]) -> bool {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    // Names that differ in their last digit differ in few bits of the sum: MurmurHash3's finalizer spreads them.
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ hash >> 33).is_multiple_of(HELD_OUT)
}

/// Puts two parts together, which have to have images and be of one shape.
fn split(train: (String, Dataset), test: (String, Dataset)) -> Result<Split> {
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

/// Data that is part of the program, by one of [`NAMES`].
///
/// # Errors
///
/// [`Error::Data`] when there is no data of that name.
pub fn named(name: &str) -> Result<Split> {
    match name {
        "mnist" => mnist(),
        "mnist-windows" => compose::mnist_windows(),
        "mnist-scenes" => compose::mnist_scenes(),
        "waves" => series::waves(),
        "languages" => text::languages(),
        _ => Err(refuse(name, format!("no such data: the names are {}", NAMES.join(", ")))),
    }
}

/// MNIST, which is part of the program: 60000 and 10000 images `[1, 28, 28]` of ten digits.
///
/// # Errors
///
/// [`Error::Data`], only if the crate was built from damaged files.
pub fn mnist() -> Result<Split> {
    let train = || {
        idx::dataset(
            "mnist",
            ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
            [
                include_bytes!("../../assets/mnist/train-images-idx3-ubyte.gz"),
                include_bytes!("../../assets/mnist/train-labels-idx1-ubyte.gz"),
            ],
            10,
        )
    };
    let test = || {
        idx::dataset(
            "mnist",
            ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
            [
                include_bytes!("../../assets/mnist/t10k-images-idx3-ubyte.gz"),
                include_bytes!("../../assets/mnist/t10k-labels-idx1-ubyte.gz"),
            ],
            10,
        )
    };
    let (train, test) = rayon::join(train, test);
    Ok(Split { train: train?, test: test? })
}

/// Loads data by name, or from a folder or a file of any format that this module reads.
///
/// `spec` is one of [`NAMES`] (a folder of that name is `./mnist`), a folder, a `.npz`, `.csv` or `.tsv` file, or
/// the beginning of the names of the IDX files in a folder, where it holds several sets (`DIR/emnist-letters`).
/// What a folder holds is told by the names of its files:
///
/// - **IDX** ([`idx::load`]): `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same with `t10k`
///   or `test`, gzipped or not;
/// - **CIFAR** ([`cifar::load`]): `data_batch_1.bin` … and `test_batch.bin`, or `train.bin` and `test.bin`;
/// - **NumPy** ([`npy::load`]): `x_train.npy`, … or one `.npz`;
/// - **tables** ([`table::load`]): `train.csv` and `test.csv`, or `.tsv`;
/// - **text** ([`text::load`]): `train.txt` and `test.txt`;
/// - **pictures** ([`folder::load`]): a folder for each class. `DIR@WIDTHxHEIGHT` scales them to that size.
///
/// A `classes.txt` in the folder, or beside the file, names the classes, one a line in the order of the labels
/// (not where folders or a column name them).
///
/// # Errors
///
/// [`Error::Data`] when `spec` is none of these, a file is missing or malformed, or the files do not fit
/// each other; [`Error::Io`] when a file cannot be read.
#[cfg(not(target_arch = "wasm32"))]
pub fn load(spec: &str) -> Result<Split> {
    use std::path::Path;

    if NAMES.contains(&spec) {
        return named(spec);
    }
    let path = Path::new(spec);
    let called =
        |path: &Path| path.file_name().map_or(spec.into(), |name| name.to_string_lossy().into_owned());
    if path.is_dir() {
        return directory(path, &called(path));
    }
    if path.is_file() {
        let name = path.file_stem().map_or(spec.into(), |stem| stem.to_string_lossy());
        return match extension(spec).as_str() {
            "npz" => npy::load(path, &name),
            "csv" | "tsv" => table::load_file(path, &name),
            _ => Err(refuse(spec, "a file of another kind found, expected .npz, .csv or .tsv, or a folder")),
        };
    }
    if let Some((dir, size)) = spec.rsplit_once('@')
        && let Some(size) = folder::parse_size(size)
        && Path::new(dir).is_dir()
    {
        let dir = Path::new(dir);
        let files = list(dir)?;
        return match format_of(&files, dir) {
            Some(Format::Pictures) => folder::load(dir, &called(dir), Some(size)),
            _ => Err(refuse(spec, "a size belongs to a folder of pictures, and this is none")),
        };
    }
    if let Some(dir) = path.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
        && dir.is_dir()
    {
        let name = called(path);
        if idx::prefixes(&list(dir)?).iter().any(|prefix| prefix.trim_end_matches('-') == name) {
            return idx::load(dir, &format!("{name}-"), &name);
        }
    }
    Err(refuse(
        spec,
        format!(
            "no such data: expected one of the names {}, a folder with IDX, CIFAR, NumPy, CSV, text or picture \
             files, or a .npz, .csv or .tsv file",
            NAMES.join(", ")
        ),
    ))
}

/// What a folder holds.
#[cfg(not(target_arch = "wasm32"))]
enum Format {
    Idx(Vec<String>),
    Cifar,
    Npy,
    Table,
    Text,
    Pictures,
}

/// Tells by the names in a folder what it holds.
#[cfg(not(target_arch = "wasm32"))]
fn format_of(files: &[String], dir: &std::path::Path) -> Option<Format> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let prefixes = idx::prefixes(files);
    if !prefixes.is_empty() {
        Some(Format::Idx(prefixes))
    } else if cifar::is_present(files) {
        Some(Format::Cifar)
    } else if npy::is_present(files) {
        Some(Format::Npy)
    } else if table::part(files, "train").is_some() {
        Some(Format::Table)
    } else if has("train.txt") {
        Some(Format::Text)
    } else if files.iter().any(|file| !file.starts_with('.') && dir.join(file).is_dir()) {
        Some(Format::Pictures)
    } else {
        None
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn directory(dir: &std::path::Path, name: &str) -> Result<Split> {
    match format_of(&list(dir)?, dir) {
        Some(Format::Idx(prefixes)) => match &prefixes[..] {
            [prefix] => idx::load(dir, prefix, name),
            several => {
                let sets: Vec<_> = several.iter().map(|prefix| prefix.trim_end_matches('-')).collect();
                Err(refuse(
                    dir.to_string_lossy(),
                    format!(
                        "several sets of IDX files found: {}; name one, as in {}",
                        sets.join(", "),
                        dir.join(sets.last().unwrap_or(&"")).display()
                    ),
                ))
            }
        },
        Some(Format::Cifar) => cifar::load(dir, name),
        Some(Format::Npy) => npy::load(dir, name),
        Some(Format::Table) => table::load(dir, name),
        Some(Format::Text) => text::load(dir, name),
        Some(Format::Pictures) => folder::load(dir, name, None),
        None => Err(refuse(
            dir.to_string_lossy(),
            "no data found, expected train-images-idx3-ubyte, data_batch_1.bin, train.bin, x_train.npy, one .npz, \
             train.csv, train.tsv, train.txt, or folders of pictures",
        )),
    }
}

/// The names in a folder, sorted.
#[cfg(not(target_arch = "wasm32"))]
fn list(dir: &std::path::Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(dir))?.file_name();
        // A name that is not UTF-8 could not be found again under what it is shown as.
        let name = name.into_string().map_err(|name| {
            refuse(dir.join(&name).to_string_lossy(), "a name that is not UTF-8 found, expected UTF-8")
        })?;
        names.push(name);
    }
    names.sort();
    Ok(names)
}

/// What follows the last dot of a name, lower case.
#[cfg(not(target_arch = "wasm32"))]
fn extension(name: &str) -> String {
    std::path::Path::new(name).extension().map_or(String::new(), |end| end.to_string_lossy().to_lowercase())
}

/// Reads a small text file of at most 1 MiB, if it is there: its lines, without blank ones at the end.
#[cfg(not(target_arch = "wasm32"))]
fn read_lines(path: &std::path::Path) -> Result<Option<Vec<String>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let name = path.to_string_lossy();
    let bytes = crate::files::read(path)?;
    if bytes.len() > 1 << 20 {
        return Err(refuse(name, format!("{} bytes found, expected at most {}", bytes.len(), 1 << 20)));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| refuse(name, "bytes that are not UTF-8 found, expected text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(Some(text.trim_end().lines().map(|line| line.trim().to_owned()).collect()))
}

/// The names in a file with one class a line, if it is there.
#[cfg(not(target_arch = "wasm32"))]
fn read_names(path: &std::path::Path) -> Result<Option<Vec<String>>> {
    let Some(names) = read_lines(path)? else { return Ok(None) };
    let file = path.to_string_lossy();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(refuse(file, format!("line {} is empty, expected the name of class {i}", i + 1)));
        }
        if names[..i].contains(name) {
            return Err(refuse(file, format!("the name {name} found twice, expected different ones")));
        }
    }
    Ok(Some(names))
}

/// The classes of data whose labels are numbers: those of `classes.txt` in `dir`, or as many as `found` has.
#[cfg(not(target_arch = "wasm32"))]
fn classes(dir: &std::path::Path, found: Classes) -> Result<Classes> {
    let path = dir.join("classes.txt");
    let Some(names) = read_names(&path)? else { return Ok(found) };
    let file = path.to_string_lossy();
    // More names than labels is no contradiction where labels are numbers: a class may have no image.
    let exact = found.names.is_some() && names.len() != found.count;
    if exact || names.len() < found.count {
        return Err(refuse(
            file,
            format!("{} names found, expected {} as there are classes", names.len(), found.count),
        ));
    }
    Classes::named(&file, names)
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
    fn so_many_of_each_class_are_kept() {
        let data = Dataset::new("d", [1, 1, 2], 4, (0..14).collect(), vec![0, 2, 0, 1, 2, 0, 2]).unwrap();
        let few = data.clone().per_class(2);
        assert_eq!(few.labels, [0, 2, 0, 1, 2]);
        assert_eq!(few.images, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(data.clone().per_class(1).images, [0, 1, 2, 3, 6, 7]);
        assert_eq!((data.clone().per_class(0).len(), data.clone().per_class(9)), (0, data));
    }

    #[test]
    fn one_name_in_six_is_held_out() {
        let count = (0..60_000).filter(|i| held_out(format!("image_{i:05}.png").as_bytes())).count();
        assert!((9_500..10_500).contains(&count), "{count}");
        // Data that was split once stays split that way.
        let which: Vec<_> = (0..30).filter(|i: &u32| held_out(i.to_string().as_bytes())).collect();
        assert_eq!(which, [3, 4, 15]);
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

    #[test]
    fn well_known_classes_have_names() {
        assert_eq!(known_names("Fashion-MNIST", 10).unwrap()[9], "Ankle boot");
        assert_eq!(known_names("kmnist", 10).unwrap()[1], "ki");
        assert_eq!(known_names("cifar-10-batches-bin", 10).unwrap()[3], "cat");
        assert_eq!(known_names("fashion", 11), None);
        assert_eq!(known_names("mnist", 10), None);
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
            "nowhere/at-all: no such data: expected one of the names mnist, mnist-windows, mnist-scenes, waves, \
             languages, a folder with IDX, CIFAR, NumPy, CSV, text or picture files, or a .npz, .csv or .tsv file"
        );
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            refused(&empty),
            "DIR: no data found, expected train-images-idx3-ubyte, data_batch_1.bin, train.bin, x_train.npy, one .npz, \
             train.csv, train.tsv, train.txt, or folders of pictures"
        );
        fs::write(empty.path().join("data.xyz"), "x").unwrap();
        let file = empty.path().join("data.xyz");
        let message = load(file.to_str().unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("expected .npz, .csv or .tsv, or a folder"), "{message}");
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
