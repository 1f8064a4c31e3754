//! Many pictures or signals in one file, with labels or without: tables, arrays of NumPy, IDX files, for a network that
//! was trained on such.

use super::dataset::{Dataset, Encoding, planes, transposed};
use super::formats::npy::{self, Array};
use super::formats::{idx, table};
use super::input::refuse;
use super::series;
use crate::error::Result;

/// What a network takes, and how the files were read that it was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Like {
    /// `[channels, height, width]`.
    pub shape: [usize; 3],
    /// What its bytes stand for.
    pub encoding: Encoding,
    /// As [`Dataset::scale`].
    pub scale: Option<[f32; 2]>,
    /// As [`Dataset::turned`].
    pub turned: bool,
}

impl Like {
    /// What a network that is trained on these data takes.
    pub fn data(data: &Dataset) -> Like {
        Like {
            shape: [data.channels, data.height, data.width],
            encoding: data.encoding.clone(),
            scale: data.scale,
            turned: data.turned,
        }
    }
}

/// The pictures or signals of a file, as a network takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// `[N, C, H, W]`.
    pub pixels: Vec<u8>,
    /// What each is, if the file says it.
    pub labels: Option<Vec<String>>,
    /// What the file calls each, and how it calls that.
    pub ids: Option<table::Ids>,
    /// What was decided about it, a line for each thing.
    pub notes: Vec<String>,
}

/// Reads a file of many pictures or signals: a table, an `.npy` or `.npz` file, or pictures in IDX, gzipped or not. Gives
/// none where it is none of these. Tables are told by the end of `name`, `.csv` or `.tsv`, perhaps with `.gz`.
///
/// Of an archive, the array is read whose name says that it is the test's pictures, else the only one that fits, and
/// labels beside it.
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when the file is malformed or its pictures are not of the size that the network
/// takes.
pub fn rows(name: &str, bytes: &[u8], like: &Like) -> Result<Option<Rows>> {
    let lower = name.to_lowercase();
    let bare = lower.strip_suffix(".gz").unwrap_or(&lower);
    if bare.ends_with(".csv") || bare.ends_with(".tsv") {
        return of_table(name, bytes, like).map(Some);
    }
    if bytes.starts_with(b"\x93NUMPY") {
        let array = npy::parse(name, bytes.to_vec())?;
        return of_array(&array, like).map(|pixels| Some(Rows { pixels, ..Rows::default() }));
    }
    if bytes.starts_with(b"PK") {
        return of_archive(name, bytes, like).map(Some);
    }
    if bare.contains("idx3") || bare.contains("idx4") || bytes.starts_with(&[0, 0, 8]) {
        return of_idx(name, bytes, like).map(Some);
    }
    Ok(None)
}

/// Numbers as bytes, over the range that the training part had.
fn bytes_of(name: &str, values: impl Iterator<Item = f64>, like: &Like) -> Result<Vec<u8>> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(refuse(
            name,
            format!("the value {} found at index {at}, expected a finite number", values[at]),
        ));
    }
    if let Encoding::Range { low, high } = like.encoding {
        return Ok(series::quantize(&values, low, high));
    }
    if let Some([low, high]) = like.scale {
        return Ok(series::quantize(&values, low, high));
    }
    let whole = values.iter().all(|value| value.fract() == 0.0);
    let [low, high] = [f32::min, f32::max].map(|of| values.iter().copied().fold(values[0], of));
    // Bytes that were divided by 255, as is usual before training.
    let divided = low >= 0.0 && high <= 1.0 && (!whole || high == 1.0);
    if !divided && (low < 0.0 || high > 255.0) {
        return Err(refuse(name, format!("pixels of {low} to {high} found, expected 0 to 255 or 0 to 1")));
    }
    let scale = if divided { 255.0 } else { 1.0 };
    Ok(values.iter().map(|value| (value * scale).round() as u8).collect())
}

fn of_table(name: &str, bytes: &[u8], like: &Like) -> Result<Rows> {
    let [channels, height, width] = like.shape;
    let (table, ids) = table::parse_rows(name, bytes, channels * height * width)?;
    let mut pixels = bytes_of(name, table.values.iter().map(|&value| f64::from(value)), like)?;
    // Red, green and blue of a pixel stand together.
    pixels = planes(&pixels, height * width, channels);
    if like.turned {
        pixels = transposed(&pixels, like.shape);
    }
    Ok(Rows { pixels, labels: table.labels, ids, notes: table.notes })
}

/// Whether an array's first size counts what a network takes, and whether its colours lie together.
fn fits(array: &Array, [channels, height, width]: [usize; 3]) -> Option<bool> {
    match array.shape[..] {
        [_, a, b] if channels == 1 => (a, b) == (height, width),
        [_, a, b, c] if c == channels && (a, b) == (height, width) => return Some(channels > 1),
        [_, c, a, b] => (c, a, b) == (channels, height, width),
        [_, length] => length == channels * height * width,
        _ => false,
    }
    .then_some(false)
}

fn of_array(array: &Array, like: &Like) -> Result<Vec<u8>> {
    let [channels, height, width] = like.shape;
    let Some(together) = fits(array, like.shape).filter(|_| !array.is_empty()) else {
        let message =
            format!("the shape {:?} found, expected pictures of {channels}x{height}x{width}", array.shape);
        return Err(refuse(array.name.as_str(), message));
    };
    let pixels = bytes_of(&array.name, array.numbers(), like)?;
    Ok(if together { planes(&pixels, height * width, channels) } else { pixels })
}

fn of_archive(name: &str, bytes: &[u8], like: &Like) -> Result<Rows> {
    let arrays = npy::parse_all(name, bytes)?;
    let fitting: Vec<_> = arrays.iter().filter(|(_, array)| fits(array, like.shape).is_some()).collect();
    let of_test = fitting.iter().find(|(name, _)| name.to_lowercase().contains("test"));
    let Some((chosen, array)) = of_test.or(fitting.first()) else {
        let [channels, height, width] = like.shape;
        let found: Vec<_> = arrays.iter().map(|(name, array)| format!("{name} {:?}", array.shape)).collect();
        let found = if found.is_empty() { "no array".into() } else { found.join(", ") };
        return Err(refuse(name, format!("{found} found, expected pictures of {channels}x{height}x{width}")));
    };
    let labels = arrays.iter().find(|(other, found)| {
        npy::is_beside(other, chosen) && found.len() == array.shape[0] && fits(found, like.shape).is_none()
    });
    Ok(Rows {
        pixels: of_array(array, like)?,
        labels: labels.map(|(_, labels)| labels.numbers().map(|label| label.to_string()).collect()),
        ids: None,
        notes: if arrays.len() > 1 { vec![format!("the array {chosen} is read")] } else { Vec::new() },
    })
}

fn of_idx(name: &str, bytes: &[u8], like: &Like) -> Result<Rows> {
    let of_four = name.to_lowercase().contains("idx4") || bytes.starts_with(&[0, 0, 8, 4]);
    let (_, shape, mut pixels) = if of_four {
        idx::parse_planes(name, bytes)?
    } else {
        let (count, height, width, pixels) = idx::parse_images(name, bytes)?;
        (count, [1, height, width], pixels)
    };
    let [channels, height, width] = if like.turned { [shape[0], shape[2], shape[1]] } else { shape };
    if like.turned {
        pixels = transposed(&pixels, shape);
    }
    if [channels, height, width] != like.shape {
        let [c, h, w] = like.shape;
        let message = format!("pictures of {channels}x{height}x{width} found, expected {c}x{h}x{w}");
        return Err(refuse(name, message));
    }
    Ok(Rows { pixels, ..Rows::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(shape: [usize; 3]) -> Like {
        Like { shape, encoding: Encoding::Ink, scale: None, turned: false }
    }

    fn read(name: &str, text: &str, like: &Like) -> Result<Rows> {
        rows(name, text.as_bytes(), like).map(|rows| rows.expect("a table"))
    }

    #[test]
    fn tables_have_labels_or_none_and_ids_or_none() {
        let like = like([1, 2, 2]);
        let bare = read("t.csv", "0,1,2,3\n4,5,6,255\n", &like).unwrap();
        assert_eq!((bare.pixels, bare.labels, bare.ids), (vec![0, 1, 2, 3, 4, 5, 6, 255], None, None));
        let headed = read("t.csv", "pixel0,pixel1,pixel2,pixel3\n0,1,2,3\n4,5,6,255\n", &like).unwrap();
        assert_eq!((headed.pixels.len(), headed.labels), (8, None));
        let labelled = read("t.csv", "id,label,a,b,c,d\n7,x,0,1,2,3\n9,y,4,5,6,255\n", &like).unwrap();
        assert_eq!(labelled.labels, Some(vec!["x".into(), "y".into()]));
        assert_eq!(labelled.ids, Some(("id".into(), vec!["7".into(), "9".into()])));
        assert_eq!(labelled.pixels, [0, 1, 2, 3, 4, 5, 6, 255]);
        let message = read("t.csv", "label,a,b\n1,2,3\n", &like).unwrap_err().to_string();
        assert_eq!(message, "t.csv: 2 values in a row found, expected 4");
    }

    #[test]
    fn numbers_become_the_bytes_that_they_became_in_training() {
        let mut like = like([1, 1, 2]);
        like.scale = Some([0.0, 16.0]);
        like.turned = true;
        assert_eq!(read("t.csv", "0,8\n16,1\n", &like).unwrap().pixels, [0, 128, 255, 16]);
        like = Like { shape: [1, 2, 2], scale: None, ..like };
        assert_eq!(read("t.csv", "0,1,2,3\n", &like).unwrap().pixels, [0, 2, 1, 3]);
        like.encoding = Encoding::Range { low: -1.0, high: 1.0 };
        like.turned = false;
        assert_eq!(read("t.csv", "-1,0,1,2\n", &like).unwrap().pixels, [0, 128, 255, 255]);
    }

    #[test]
    fn an_idx_file_is_read_without_its_labels() {
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend(1..=6);
        let found = |like: &Like| rows("pictures", &bytes, like).map(|rows| rows.unwrap().pixels);
        assert_eq!(found(&like([1, 2, 3])).unwrap(), [1, 2, 3, 4, 5, 6]);
        let turned = Like { turned: true, ..like([1, 3, 2]) };
        assert_eq!(found(&turned).unwrap(), [1, 4, 2, 5, 3, 6]);
        let message = found(&like([1, 3, 2])).unwrap_err().to_string();
        assert_eq!(message, "pictures: pictures of 1x2x3 found, expected 1x3x2");
        assert_eq!(rows("it.png", b"no such thing", &like([1, 2, 3])).unwrap(), None);
    }
}
