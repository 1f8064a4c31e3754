//! MNIST, which is part of the program and, with the feature `mnist`, of the library.

use crate::data::split::Split;
use crate::error::Result;

/// The four files as they are: pictures and labels to learn from, pictures and labels for the test.
#[cfg(feature = "mnist")]
const FILES: [(&str, &[u8]); 4] = [
    ("train-images-idx3-ubyte.gz", lenet_mnist::TRAINING_IMAGES),
    ("train-labels-idx1-ubyte.gz", lenet_mnist::TRAINING_LABELS),
    ("t10k-images-idx3-ubyte.gz", include_bytes!("../../../assets/mnist/t10k-images-idx3-ubyte.gz")),
    ("t10k-labels-idx1-ubyte.gz", include_bytes!("../../../assets/mnist/t10k-labels-idx1-ubyte.gz")),
];

/// MNIST, which the feature `mnist` builds in: 60000 and 10000 images `[1, 28, 28]` of ten digits.
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data) when the crate was built without the feature, or from damaged files.
#[cfg(feature = "mnist")]
pub fn mnist() -> Result<Split> {
    let part = |images: usize, labels: usize| {
        let ((a, images), (b, labels)) = (FILES[images], FILES[labels]);
        crate::data::formats::idx::dataset("mnist", [a, b], [images, labels], 10)
    };
    let (train, test) = rayon::join(|| part(0, 1), || part(2, 3));
    Ok(Split::of(train?, test?))
}

/// MNIST, which the feature `mnist` builds in: 60000 and 10000 images `[1, 28, 28]` of ten digits.
///
/// # Errors
///
/// [`Error::Data`](crate::Error::Data), always: the crate was built without the feature.
#[cfg(not(feature = "mnist"))]
pub fn mnist() -> Result<Split> {
    Err(crate::data::input::refuse(
        "mnist",
        "not part of this build, expected the feature `mnist` of the crate `lenet`, or the path of a folder with \
         MNIST's four IDX files",
    ))
}

#[cfg(all(test, not(feature = "mnist")))]
mod tests {
    #[test]
    fn a_build_without_mnist_says_how_to_get_it() {
        for name in ["mnist", "mnist-windows", "mnist-scenes"] {
            let message = crate::data::named(name).unwrap_err().to_string();
            assert!(
                message.starts_with("mnist: not part of this build, expected the feature `mnist`"),
                "{message}"
            );
        }
    }
}

#[cfg(all(test, feature = "mnist"))]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::data::idx::{parse_images, parse_labels};

    #[test]
    fn the_embedded_mnist_is_whole() {
        let Split { train, test, .. } = crate::data::load("mnist").unwrap();
        assert_eq!((train.len(), test.len()), (60_000, 10_000));
        assert_eq!((train.channels, train.height, train.width, train.classes), (1, 28, 28, 10));
        assert_eq!(train.labels[..5], [5, 0, 4, 1, 9]);
        assert_eq!(test.labels[..5], [7, 2, 1, 0, 4]);
        assert_eq!(
            format!("{test:?}"),
            r#"Dataset { name: "mnist", len: 10000, shape: [1, 28, 28], classes: 10, .. }"#
        );
    }

    /// The `mnist` crate is a reader that shares no code with this one.
    #[test]
    fn another_reader_sees_the_same_mnist() {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = Vec::new();
        for (file, zipped) in FILES {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(zipped).read_to_end(&mut plain).unwrap();
            std::fs::write(dir.path().join(file.trim_end_matches(".gz")), &plain).unwrap();
            ours.push(if file.contains("images") {
                let (count, height, width, pixels) = parse_images(file, zipped).unwrap();
                assert_eq!((height, width), (28, 28));
                assert_eq!(count * 28 * 28, pixels.len());
                pixels
            } else {
                parse_labels(file, zipped).unwrap()
            });
        }
        let theirs = mnist::MnistBuilder::new()
            .base_path(dir.path().to_str().unwrap())
            .training_set_length(60_000)
            .validation_set_length(0)
            .test_set_length(10_000)
            .finalize();
        // Not assert_eq, which would print 47 million numbers.
        assert!(ours[0] == theirs.trn_img);
        assert!(ours[1] == theirs.trn_lbl);
        assert!(ours[2] == theirs.tst_img);
        assert!(ours[3] == theirs.tst_lbl);
    }
}
