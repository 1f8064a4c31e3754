//! What is found, where, and what is said where it is not.

use std::{fs, io::Write, path::Path};

use super::*;

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
    let Split { train, test, .. } = load(dir.path().to_str().unwrap()).unwrap();
    assert_eq!((train.classes, test.classes), (3, 3));
    assert_eq!((train.height, train.width), (1, 2));
    assert_eq!((train.images.to_vec(), train.labels), (vec![1, 2, 3, 4], vec![0, 2]));
    assert_eq!((test.images.to_vec(), test.labels), (vec![5, 6], vec![1]));
    assert_eq!(train.name, dir.path().file_name().unwrap().to_str().unwrap());
}

const EXPECTED: &str = "expected IDX files (train-images-idx3-ubyte, …), CIFAR's (data_batch_1.bin, …), arrays \
                        (x_train.npy, …, one .npz), tables (train.csv), texts (train.txt), or a folder of pictures for \
                        each class";

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(
        load("nowhere/at-all").unwrap_err().to_string(),
        "nowhere/at-all: no such data: expected one of the names mnist, mnist-windows, mnist-scenes, waves, \
         languages, a folder with IDX, CIFAR, NumPy, CSV, text or picture files, or a .npz, .npy, .csv or .tsv file"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(refused(&empty), format!("DIR: no data found, {EXPECTED}"));
    fs::write(empty.path().join("data.xyz"), "x").unwrap();
    let file = empty.path().join("data.xyz");
    let message = load(file.to_str().unwrap()).unwrap_err().to_string();
    assert!(message.ends_with("expected .npz, .npy, .csv or .tsv, or a folder"), "{message}");
    let dir = directory();
    write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[0, 1, 2]);
    assert_eq!(
        refused(&dir),
        "DIR/train-labels.idx1-ubyte: 3 labels found, expected 2 as there are images in DIR/train-images-idx3-ubyte"
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
    let dir = directory();
    write(&dir.path().join("train-labels.idx1-ubyte"), 0, &[1, 1]);
    assert_eq!(refused(&dir), "DIR/train-labels.idx1-ubyte: 1 class, 1, found, expected 2 to 256");
}

#[test]
fn a_refusal_says_what_each_layout_has_and_lacks() {
    let dir = directory();
    fs::remove_file(dir.path().join("train-labels.idx1-ubyte")).unwrap();
    fs::create_dir(dir.path().join("pictures")).unwrap();
    fs::write(dir.path().join("x_train.npy"), "").unwrap();
    fs::write(dir.path().join("mnist.pkl.gz"), "").unwrap();
    let told = refused(&dir);
    for line in [
        "DIR: IDX: train-images-idx3-ubyte, t10k-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte.gz found, \
         train-labels missing; ",
        "; arrays: x_train found, labels missing; ",
        "; mnist.pkl.gz is a pickle, which only Python reads; in Python: train, valid, test = pickle.load(gzip.open(",
        "; folders: pictures without pictures found; expected IDX files",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    let lacking = |file: &str, what: &str| {
        let dir = directory();
        fs::remove_file(dir.path().join(file)).unwrap();
        let told = refused(&dir);
        assert!(told.contains(&format!("found, {what} missing; expected")), "{told}");
    };
    lacking("t10k-labels.idx1-ubyte.gz", "t10k-labels");
    lacking("t10k-images-idx3-ubyte.gz", "t10k-images");
    lacking("train-images-idx3-ubyte", "train-images");
    // Of what lies below, too.
    let dir = directory();
    let raw = dir.path().join("MNIST/raw");
    fs::create_dir_all(&raw).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()) {
        if entry != "MNIST" && entry != "train-labels.idx1-ubyte" {
            fs::rename(dir.path().join(&entry), raw.join(&entry)).unwrap();
        } else if entry != "MNIST" {
            fs::remove_file(dir.path().join(entry)).unwrap();
        }
    }
    let told = refused(&dir);
    assert!(told.contains("MNIST/raw: IDX: train-images-idx3-ubyte, "), "{told}");
}

#[test]
fn files_of_other_programs_are_told_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    for (name, says) in [
        (
            "mnist.pkl.gz",
            "train, valid, test = pickle.load(gzip.open(\"mnist.pkl.gz\"), encoding=\"latin1\")",
        ),
        ("own.pickle", "train, test = pickle.load(open(\"own.pickle\", \"rb\"), encoding=\"latin1\")"),
        ("training.pt", "x, y = torch.load(\"training.pt\")"),
        ("svhn.mat", "scipy.io.loadmat(\"svhn.mat\")"),
        ("usps.h5", "h5py.File(\"usps.h5\")"),
        ("train.parquet", "pd.read_parquet(\"train.parquet\")"),
        ("mnist.zip", "mnist.zip is packed, expected what is in it"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, "x").unwrap();
        let message = load(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn data_in_folders_below_is_found() {
    let below = |inner: &str| {
        let (dir, files) = (tempfile::tempdir().unwrap(), directory());
        let to = dir.path().join(inner);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(files.path()).unwrap() {
            let from = entry.unwrap();
            fs::copy(from.path(), to.join(from.file_name())).unwrap();
        }
        fs::create_dir_all(dir.path().join("__MACOSX/MNIST/raw")).unwrap();
        dir
    };
    let dir = below("FashionMNIST/raw");
    fs::create_dir(dir.path().join("FashionMNIST/processed")).unwrap();
    let split = load(dir.path().to_str().unwrap()).unwrap();
    assert_eq!((split.train.labels, split.train.name.as_str()), (vec![0, 2], "FashionMNIST"));
    let note = split.notes[0].replace('\\', "/");
    assert!(note.starts_with("the data is in ") && note.ends_with("/FashionMNIST/raw"), "{note}");
    let inner = load(dir.path().join("FashionMNIST/raw").to_str().unwrap()).unwrap();
    assert_eq!((inner.train.name.as_str(), inner.notes), ("FashionMNIST", vec![]));
    assert!(load(below("a/b/c").path().to_str().unwrap()).is_err());
    // Which of two is meant is not guessed.
    let dir = below("one/raw");
    let two = dir.path().join("two/raw");
    fs::create_dir_all(&two).unwrap();
    for entry in fs::read_dir(dir.path().join("one/raw")).unwrap() {
        let from = entry.unwrap();
        fs::copy(from.path(), two.join(from.file_name())).unwrap();
    }
    assert_eq!(refused(&dir), "DIR: several sets of data found: DIR/one/raw, DIR/two/raw; name one");
    // One of its files stands for all of them.
    let file = dir.path().join("one/raw/t10k-labels.idx1-ubyte.gz");
    assert_eq!(load(file.to_str().unwrap()).unwrap().train.name, "one");
}
