//! Sets of IDX files as people have them, and those that are refused.

use super::set::load_below;
use crate::data::formats::written::{gzip, idx};
use crate::data::split::Split;

type Files<'a> = &'a [(&'a str, Vec<u8>)];

fn folder(files: Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let content = if name.ends_with(".gz") { gzip(content) } else { content.clone() };
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn load(dir: &tempfile::TempDir, end: &str) -> Result<Split, String> {
    let path = dir.path().to_str().unwrap();
    crate::data::load(&format!("{path}{end}"))
        .map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
}

fn emnist(mapping: &str) -> tempfile::TempDir {
    let pixels: Vec<u8> = (1..=12).collect();
    folder(&[
        ("emnist-letters-train-images-idx3-ubyte.gz", idx(0x803, &[2, 2, 3], &pixels)),
        ("emnist-letters-train-labels-idx1-ubyte.gz", idx(0x801, &[2], &[26, 1])),
        ("emnist-letters-test-images-idx3-ubyte.gz", idx(0x803, &[1, 2, 3], &pixels[..6])),
        ("emnist-letters-test-labels-idx1-ubyte.gz", idx(0x801, &[1], &[2])),
        ("emnist-letters-mapping.txt", mapping.as_bytes().to_vec()),
    ])
}

fn letters() -> String {
    (1..=26).map(|i| format!("{i} {} {}\n", 64 + i, 96 + i)).collect()
}

#[test]
fn emnist_is_turned_and_its_letters_are_named() {
    let dir = emnist(&letters());
    let Split { train, test, .. } = load(&dir, "").unwrap();
    assert_eq!((train.height, train.width, train.classes), (3, 2, 3));
    assert_eq!(train.picture(0), [1, 4, 2, 5, 3, 6]);
    assert_eq!((&train.labels[..], &test.labels[..]), (&[2, 0][..], &[1][..]));
    assert_eq!(train.class_names, ["Aa", "Bb", "Zz"]);
    assert_eq!(load(&dir, "/emnist-letters").unwrap().train.name, "emnist-letters");
    // Without the mapping labels are what they are.
    std::fs::remove_file(dir.path().join("emnist-letters-mapping.txt")).unwrap();
    let Split { train, notes, .. } = load(&dir, "").unwrap();
    assert_eq!(
        (&train.class_names[..], train.picture(0)),
        (&["1", "2", "26"].map(String::from)[..], &[1, 4, 2, 5, 3, 6][..])
    );
    assert_eq!(notes, ["pictures of EMNIST are turned upright"]);
    // All 26, without one for the label 0 that none has.
    let all: Vec<u8> = (1..=26).collect();
    let dir = folder(&[
        ("emnist-letters-train-images-idx3-ubyte.gz", idx(0x803, &[26, 1, 1], &all)),
        ("emnist-letters-train-labels-idx1-ubyte.gz", idx(0x801, &[26], &all)),
        ("emnist-letters-test-images-idx3-ubyte.gz", idx(0x803, &[1, 1, 1], &[1])),
        ("emnist-letters-test-labels-idx1-ubyte.gz", idx(0x801, &[1], &[2])),
    ]);
    let train = load(&dir, "").unwrap().train;
    assert_eq!(
        (train.classes, train.class_names[0].as_str(), train.class_names[25].as_str()),
        (26, "1", "26")
    );
    for (lines, first) in [(26, "c0"), (27, "c1")] {
        let names: String = (0..lines).map(|i| format!("c{i}\n")).collect();
        std::fs::write(dir.path().join("classes.txt"), names).unwrap();
        assert_eq!(load(&dir, "").unwrap().train.class_names[0], first);
    }
}

#[test]
fn malformed_mappings_are_refused() {
    let with = |mapping: &str| load(&emnist(mapping), "").unwrap_err();
    let file = "DIR/emnist-letters-mapping.txt";
    assert_eq!(
        with("1 65\nx 66\n"),
        format!("{file}: \"x 66\" found in line 2, expected a label of 0 to 255")
    );
    assert_eq!(
        with("1 65\n256 66\n"),
        format!("{file}: \"256 66\" found in line 2, expected a label of 0 to 255")
    );
    let codes = "expected codes of characters behind the label";
    for line in ["1", "1 0", "1 55296", "1 a"] {
        assert_eq!(with(line), format!("{file}: {line:?} found in line 1, {codes}"));
    }
    assert_eq!(with("1 65\n1 66\n"), format!("{file}: \"1 66\" found in line 2, expected each label once"));
    assert_eq!(with("1 65\n"), format!("{file}: no name for the label 2 found, expected one"));
    let many: String = (3..30).map(|i| format!("{i} {}\n", 64 + i)).collect();
    assert_eq!(with(&many), format!("{file}: no name for the label 1 found, expected one"));
}

#[test]
fn what_is_too_large_for_memory_stays_in_its_file() {
    let pixels: Vec<u8> = (0..60).collect();
    let set = |name: &str, magic: u32, sizes: &[u32]| {
        let dir = folder(&[
            (&format!("train-images-{name}"), idx(magic, sizes, &pixels)),
            ("train-labels-idx1-ubyte", idx(0x801, &[sizes[0]], &vec![1; sizes[0] as usize])),
            (&format!("t10k-images-{name}"), idx(magic, sizes, &pixels)),
            ("t10k-labels-idx1-ubyte", idx(0x801, &[sizes[0]], &vec![0; sizes[0] as usize])),
        ]);
        let told = |most| {
            load_below(dir.path(), "", "made", most).map_err(|error| {
                error.to_string().replace(&dir.path().to_string_lossy()[..], "DIR").replace('\\', "/")
            })
        };
        (told(60), told(1000))
    };
    for (name, magic, sizes) in [("idx3-ubyte", 0x803, &[10, 2, 3][..]), ("idx4-ubyte", 0x804, &[5, 3, 2, 2])]
    {
        let (filed, held) = set(name, magic, sizes);
        let (filed, held) = (filed.unwrap(), held.unwrap());
        assert!(filed.train.images.is_filed() && !held.train.images.is_filed());
        for (a, b) in [(&filed.train, &held.train), (&filed.test, &held.test)] {
            assert_eq!(a.images.to_vec(), b.images.to_vec());
            assert_eq!(
                (a.channels, a.height, a.width, &a.labels),
                (b.channels, b.height, b.width, &b.labels)
            );
        }
        // Parts of it are, too.
        let [(first, last, drawn), (as_first, as_last, as_drawn)] =
            [&filed, &held].map(|one| one.train.hold_out(0.4, 1));
        assert_eq!(
            (first.images.to_vec(), last.images.to_vec(), drawn),
            (as_first.images.to_vec(), as_last.images.to_vec(), as_drawn)
        );
        assert!(last.images.is_filed());
        assert_eq!(filed.train.per_class(1).images.to_vec(), held.train.per_class(1).images.to_vec());
    }
    let refused = |name, magic, sizes: &[u32]| set(name, magic, sizes).0.unwrap_err();
    assert!(refused("idx4-ubyte", 0x804, &[5, 2, 2, 3]).contains("expected N, C, H, W"));
    assert_eq!(
        refused("idx3-ubyte", 0x803, &[11, 2, 3]),
        "DIR/train-images-idx3-ubyte: 76 bytes found, expected 82 for its sizes"
    );
    assert!(refused("idx3-ubyte", 0x804, &[10, 2, 3]).contains("expected 0x00000803"));
}

#[test]
fn one_of_several_sets_is_named() {
    let dir = emnist(&letters());
    for (name, content) in [
        ("qmnist-train-images-idx4-ubyte", idx(0x804, &[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6])),
        ("qmnist-train-labels.idx1-ubyte", idx(0x801, &[1], &[0])),
        ("qmnist-t10k-images-idx4-ubyte", idx(0x804, &[1, 3, 1, 2], &[1, 3, 5, 2, 4, 6])),
        ("qmnist-t10k-labels-idx1-ubyte", idx(0x801, &[1], &[1])),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    assert_eq!(
        load(&dir, "").unwrap_err(),
        "DIR: several sets of IDX files found: emnist-letters, qmnist; name one, as in DIR/qmnist"
    );
    let Split { train, test, .. } = load(&dir, "/qmnist").unwrap();
    assert_eq!((train.channels, train.height, train.width, train.classes), (3, 1, 2, 2));
    assert_eq!(
        (train.images.to_vec(), test.images.to_vec()),
        (vec![1, 4, 2, 5, 3, 6], vec![1, 3, 5, 2, 4, 6])
    );
    assert!(load(&dir, "/other").unwrap_err().contains("no such data"));
    std::fs::write(dir.path().join("classes.txt"), "no\nyes\nperhaps\n").unwrap();
    let train = load(&dir, "/qmnist").unwrap().train;
    assert_eq!(train.class_names, ["no", "yes"]);
}

#[test]
fn names_are_read_as_they_are_met() {
    let of = |names: [&str; 4]| {
        let dir = tempfile::tempdir().unwrap();
        let contents = [
            idx(0x803, &[2, 1, 2], &[1, 2, 3, 4]),
            idx(0x801, &[2], &[5, 9]),
            idx(0x803, &[1, 1, 2], &[5, 6]),
            idx(0x801, &[1], &[9]),
        ];
        for (name, content) in names.iter().zip(contents) {
            // A `~` stands for gzip, whatever the name says.
            let (name, content) = match name.strip_suffix('~') {
                Some(name) => (name, gzip(&content)),
                None => (*name, content),
            };
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        load(&dir, "").map(|split| (split.train.labels, split.test.labels, split.test.images.to_vec()))
    };
    let whole = Ok((vec![0, 1], vec![1], vec![5, 6]));
    for names in [
        [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ],
        // What browsers unpack and keep the end of, and the reverse.
        [
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte~",
            "t10k-images-idx3-ubyte.gz~",
            "t10k-labels-idx1-ubyte",
        ],
        // Copies.
        [
            "train-images-idx3-ubyte (1).gz~",
            "train-labels-idx1-ubyte(2).gz~",
            "t10k-images-idx3-ubyte - Copy",
            "t10k-labels-idx1-ubyte copy 2",
        ],
        [
            "TRAIN-IMAGES.IDX3-UBYTE",
            "Train_Labels.idx1_ubyte",
            "t10k.images.idx3.ubyte",
            "T10K-labels.idx1-ubyte.GZ~",
        ],
        // Folders of the same name, as unpackers make them.
        [
            "train-images-idx3-ubyte/train-images-idx3-ubyte",
            "train-labels-idx1-ubyte/train-labels.idx1-ubyte",
            "t10k-images-idx3-ubyte/t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ],
        [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "test-images-idx3-ubyte",
            "testing-labels-idx1-ubyte",
        ],
        [
            "X_kannada_MNIST_train-idx3-ubyte.gz~",
            "y_kannada_MNIST_train-idx1-ubyte.gz~",
            "X_kannada_MNIST_test-idx3-ubyte.gz~",
            "y_kannada_MNIST_test-idx1-ubyte.gz~",
        ],
    ] {
        assert_eq!(of(names), whole, "{names:?}");
    }
    // What is beside a file is not taken for it.
    let sums = [
        "train-images-idx3-ubyte.md5",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ];
    assert!(of(sums).unwrap_err().contains("train-images missing"));
}

#[test]
fn of_two_files_the_one_with_the_shorter_name_is_read() {
    let set = |images: &[(&str, u8)]| {
        let dir = folder(&[("train-labels-idx1-ubyte", idx(0x801, &[4], &[0, 1, 0, 1]))]);
        for (name, value) in images {
            let content = idx(0x803, &[4, 1, 1], &[*value; 4]);
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, if name.ends_with(".gz") { gzip(&content) } else { content }).unwrap();
        }
        load(&dir, "").unwrap().train.picture(0)[0]
    };
    assert_eq!(set(&[("train-images-idx3-ubyte.gz", 1), ("train-images-idx3-ubyte", 2)]), 2);
    assert_eq!(set(&[("train-images-idx3-ubyte (1)", 1), ("train-images-idx3-ubyte.gz", 2)]), 2);
    assert_eq!(set(&[("train-images-idx3-ubyte/file", 1), ("train-images.idx3-ubyte.gz", 2)]), 2);
}

#[test]
fn qmnist_has_its_labels_in_the_first_of_eight_columns() {
    let rows = |labels: &[u32]| -> Vec<u8> {
        labels
            .iter()
            .flat_map(|&label| [label, 7, 300, 4, 5, 6, 70_000, 8])
            .flat_map(u32::to_be_bytes)
            .collect()
    };
    let qmnist = |labels: &[u32]| {
        let count = labels.len() as u32;
        load(
            &folder(&[
                ("qmnist-train-images-idx3-ubyte.gz", idx(0x803, &[count, 1, 1], &vec![1; labels.len()])),
                ("qmnist-train-labels-idx2-int.gz", idx(0xc02, &[count, 8], &rows(labels))),
                ("qmnist-test-images-idx3-ubyte.gz", idx(0x803, &[1, 1, 1], &[2])),
                ("qmnist-test-labels-idx2-int", idx(0xc02, &[1, 8], &rows(&[9]))),
            ]),
            "",
        )
    };
    let split = qmnist(&[3, 9, 0]).unwrap();
    assert_eq!((split.train.labels, split.test.labels), (vec![1, 2, 0], vec![2]));
    assert_eq!(split.train.class_names, ["0", "3", "9"]);
    assert_eq!(
        qmnist(&[3, 256]).unwrap_err(),
        "DIR/qmnist-train-labels-idx2-int.gz: the label at index 1 is not one of 0 to 255, expected one"
    );
}

#[test]
fn without_a_test_part_an_image_in_six_is_it() {
    let dir = folder(&[
        ("train-images-idx3-ubyte", idx(0x803, &[24, 1, 1], &(0..24).collect::<Vec<_>>())),
        ("train-labels-idx1-ubyte", idx(0x801, &[24], &[vec![3; 12], vec![200; 12]].concat())),
    ]);
    let split = load(&dir, "").unwrap();
    assert_eq!((split.train.label_counts(), split.test.label_counts()), (vec![10, 10], vec![2, 2]));
    assert_eq!(split.train.class_names, ["3", "200"]);
    let drawn = split.held_out.unwrap();
    assert_eq!(drawn[0], format!("image {}", split.test.picture(0)[0]));
    assert!(split.notes[0].starts_with("there is no t10k-images: an image in six of each class of "));
}
