//! Tables as people have them, and those that are refused.

use proptest::prelude::*;

use super::*;
use crate::data::Encoding;

fn refused(text: &str) -> String {
    let message = parse("f", text.as_bytes(), None).unwrap_err().to_string();
    message.strip_prefix("f: ").unwrap().to_owned()
}

/// Labels and values of a table.
fn content(text: &str) -> (Vec<String>, Vec<f32>) {
    let table = parse("f", text.as_bytes(), None).unwrap();
    (table.labels().unwrap().to_vec(), table.values)
}

#[test]
fn headings_and_label_columns_are_found() {
    let plain = (vec!["3".to_owned(), "5".to_owned()], vec![1.0, 2.0, 4.0, 0.5]);
    for text in [
        "3,1,2\n5,4,0.5\n",
        "class,p1,p2\n3,1,2\n5,4,0.5\n",
        "p1,Label,p2\r\n1, 3 ,2\r\n4,5,0.5",
        "p1,p2,TARGET\n1,2,3\n4,0.5,5\n",
        "label,0,1\n3,1,2\n5,4,0.5\n",
        "\u{feff}\"3\",1,2\n\n5,4,5e-1\n",
        "3\t1\t2\n5\t4\t0.5\n",
        "3;1;2\n5;4;0,5\n",
        "y;a;b\n3;1;2\n5;4;0,5\n",
        ",label,a,b\n0,3,1,2\n1,5,4,0.5\n",
        "Unnamed: 0,a,b,digit\n0,1,2,3\n1,4,0.5,5\n",
        "id,class,a,b\n9,3,1,2\n8,5,4,0.5\n",
    ] {
        assert_eq!(content(text), plain, "{text}");
    }
    // The label is the last column: the first is always the same, or words are in the last alone.
    let rows = |row: fn(usize) -> String| (0..20).map(row).collect::<Vec<_>>().join("\n");
    let last = content(&rows(|i| format!("0,{i}.5,{}", i % 3)));
    assert_eq!(
        (&last.0[..3], &last.1[..4]),
        (&["0", "1", "2"].map(String::from)[..], &[0.0, 0.5, 0.0, 1.5][..])
    );
    let first = content(&rows(|i| format!("{},{i},7", i % 3)));
    assert_eq!(first.0[..3], ["0", "1", "2"]);
    let words = content(&rows(|i| format!("{i},1,{}", ["cat", "dog"][i % 2])));
    assert_eq!(words.0[..2], ["cat", "dog"]);
    let named = content(&format!("a,b,kind\n{}", rows(|i| format!("{i},1,{}", ["cat", "dog"][i % 2]))));
    assert_eq!(named, words);
    // A heading that counts the columns.
    let counted = |from: usize| (from..from + 12).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let row = "7,0,0,0,0,9,0,0,0,0,0,0";
    for from in [0, 1] {
        let (labels, values) = content(&format!("{}\n{row}\n{row}\n", counted(from)));
        assert_eq!((labels, values.len()), (vec!["7".to_owned(); 2], 22));
    }
    // A heading without a label, and how one is named.
    let text = "pix1,pix2,kind\n1,2,3\n4,5,6\n";
    let table = |wanted| parse("f", text.as_bytes(), wanted).unwrap();
    let message = table(None).labels().unwrap_err().to_string();
    assert!(
        message.contains("(pix1, pix2, kind) is called label,") && message.contains("--label COLUMN"),
        "{message}"
    );
    for wanted in ["kind", "KIND", "3"] {
        assert_eq!(table(Some(wanted)).labels().unwrap(), ["3", "6"]);
    }
    let message = parse("f", text.as_bytes(), Some("class")).unwrap_err().to_string();
    assert_eq!(message, "f: no column class found, expected one of the 3: pix1, pix2, kind");
}

#[test]
fn malformed_tables_are_refused() {
    assert_eq!(refused(""), "no row found, expected one at least");
    assert_eq!(refused("label,a,b\n"), "no row found, expected one at least");
    assert_eq!(refused("1\n2\n"), "1 column found, expected a label and values");
    assert_eq!(refused("1,2,3\n1,2\n"), "2 columns found in line 2, expected 3 as in the first");
    assert_eq!(refused("1,2,x\n1,2,3\n"), "\"x\" found in line 1, column 3, expected a finite number");
    assert_eq!(refused("1,2,3\n1,,3\n"), "\"\" found in line 2, column 2, expected a finite number");
    assert_eq!(refused("1,2,3\n1,2,NaN\n"), "\"NaN\" found in line 2, column 3, expected a finite number");
    assert_eq!(refused("1,2,1e40\n1,2,3\n"), "\"1e40\" found in line 1, column 3, expected a finite number");
    assert_eq!(refused("1,2\n,2\n"), "no label found in line 2, expected one");
    let message = parse("f", b"1,2\n\xff,3\n", None).unwrap_err().to_string();
    assert_eq!(message, "f: bytes that are not UTF-8 found in line 2, expected text");
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn load(dir: &tempfile::TempDir) -> Result<Split, String> {
    let path = dir.path().to_str().unwrap();
    crate::data::load(path).map_err(|error| error.to_string().replace(path, "DIR").replace('\\', "/"))
}

#[test]
fn whole_squares_are_pictures() {
    let dir = folder(&[("mnist_train.csv", "1,0,255,3,4\n0,5,6,7,8\n"), ("mnist_test.csv", "0,1,2,3,4\n")]);
    let Split { train, test, .. } = load(&dir).unwrap();
    assert_eq!((train.channels, train.height, train.width, &train.encoding), (1, 2, 2, &Encoding::Ink));
    assert_eq!((train.images.to_vec(), train.labels), (vec![0, 255, 3, 4, 5, 6, 7, 8], vec![1, 0]));
    assert_eq!((test.images.to_vec(), test.class_names), (vec![1, 2, 3, 4], vec!["0".into(), "1".into()]));
}

#[test]
fn pictures_of_any_range_are_pictures() {
    // Six pictures of 6 x 6 in two classes, whose values reach both ends.
    let table = |low: f32, high: f32, digits: usize| -> String {
        (0..12)
            .map(|i| {
                let value = |p: usize| low + (high - low) * ((p * 7 + i * 11) % 17) as f32 / 16.0;
                let cells: Vec<String> = (0..36).map(|p| format!("{:.digits$}", value(p))).collect();
                format!("{},{}\n", i % 2, cells.join(","))
            })
            .collect()
    };
    for (low, high, digits, told) in [
        (0.0, 16.0, 0, Some("pixels of 0 to 16 are black to white")),
        (0.0, 1.0, 4, Some("pixels of 0 to 1 are black to white")),
        (-1.0, 1.0, 4, Some("pixels of -1 to 1 are black to white")),
        (-3.5, 7.25, 6, Some("pixels of -3.5 to 7.25 are black to white")),
        (0.0, 255.0, 0, None),
        (0.0, 255.0, 3, None),
    ] {
        let dir =
            folder(&[("train.csv", &table(low, high, digits)), ("test.csv", &table(low, high, digits))]);
        let split = load(&dir).unwrap();
        assert_eq!((split.train.channels, split.train.height, split.train.width), (1, 6, 6));
        assert_eq!(split.notes.first().map(String::as_str), told);
        for (p, byte) in split.train.picture(0).iter().enumerate() {
            let exact = 255.0 * ((p * 7) % 17) as f32 / 16.0;
            assert!((f32::from(*byte) - exact).abs() <= 1.01, "{low} to {high}: {byte} for {exact}");
        }
        assert_eq!(split.train.images, split.test.images);
    }
    // Three colours of a pixel lie together.
    let row = |class: usize| {
        let cells: Vec<String> = (0..75).map(|i| (i % 3 * 100 + i / 3).to_string()).collect();
        format!("{class},{}\n", cells.join(","))
    };
    let text = [row(0), row(1)].concat();
    let colour = load(&folder(&[("train.csv", &text), ("test.csv", &text)])).unwrap().train;
    assert_eq!((colour.channels, colour.height, colour.width), (3, 5, 5));
    assert_eq!(colour.picture(0)[..2], [0, 1]);
    assert_eq!(colour.picture(0)[25..27], [100, 101]);
}

#[test]
fn a_competition_is_trained_on_its_labelled_part() {
    let heading: Vec<String> = (0..36).map(|i| format!("pixel{i}")).collect();
    let pixels = |i: usize| (0..36).map(|p| ((p + i) % 256).to_string()).collect::<Vec<_>>().join(",");
    let train: String = (0..24).map(|i| format!("{},{}\n", i % 2, pixels(i))).collect();
    let test: String = (0..5).map(|i| format!("{}\n", pixels(i))).collect();
    let heading = heading.join(",");
    let files = [
        ("train.csv", format!("label,{heading}\n{train}")),
        ("test.csv", format!("{heading}\n{test}")),
        ("sample_submission.csv", "ImageId,Label\n1,0\n".to_owned()),
    ];
    let dir = folder(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let split = load(&dir).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (20, 4));
    assert!(split.notes.iter().any(|note| note.contains("test.csv has no labels")), "{:?}", split.notes);
    // Gzipped, alone, under the name that a label has here.
    let text = files[0].1.replace("label", "kind");
    let path = dir.path().join("own.csv.gz");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    std::fs::write(&path, encoder.finish().unwrap()).unwrap();
    let path = path.to_str().unwrap();
    assert!(crate::data::load(path).unwrap_err().to_string().contains("--label COLUMN"));
    let own = crate::data::load_with(path, crate::data::Reading { label: Some("kind"), skip_damaged: false })
        .unwrap();
    assert_eq!((&own.train.images, own.train.name.as_str()), (&split.train.images, "own"));
}

#[test]
fn emnist_is_turned_upright() {
    let row =
        |class: usize| format!("{class},{}\n", (0..36).map(|p| p.to_string()).collect::<Vec<_>>().join(","));
    let text = [row(1), row(3)].concat();
    let dir = folder(&[("emnist-letters-train.csv", &text), ("emnist-letters-test.csv", &text)]);
    let split = load(&dir).unwrap();
    assert_eq!(split.train.picture(0)[..3], [0, 6, 12]);
    assert_eq!((split.train.classes, &split.train.class_names[..]), (2, &["1", "3"].map(String::from)[..]));
}

#[test]
fn ucr_tables_are_signals() {
    let dir = folder(&[
        ("ECG200_TRAIN.tsv", "-1\t0.5\t-1.5\n1\t2.5\t0.5\n2.0\t0\t0\n"),
        ("ECG200_TEST.tsv", "1\t-9\t0.5\n"),
    ]);
    let Split { train, test, .. } = load(&dir).unwrap();
    assert_eq!((train.channels, train.height, train.width, train.classes), (1, 1, 2, 3));
    assert_eq!(
        (&train.class_names[..], &train.labels[..]),
        (&["-1", "1", "2"].map(String::from)[..], &[0, 1, 2][..])
    );
    assert_eq!(train.encoding, Encoding::Range { low: -1.5, high: 2.5 });
    assert_eq!((train.images.to_vec(), test.images.to_vec()), (vec![128, 0, 255, 128, 96, 96], vec![0, 128]));
    assert_eq!(test.labels, [1]);
    std::fs::write(dir.path().join("classes.txt"), "a\nb\nc\n").unwrap();
    assert_eq!(load(&dir).unwrap().train.class_names, ["a", "b", "c"]);
    std::fs::write(dir.path().join("classes.txt"), "a\nb\n").unwrap();
    assert_eq!(load(&dir).unwrap_err(), "DIR/classes.txt: 2 names found, expected 3 as there are classes");
}

#[test]
fn classes_are_the_labels_of_both_parts() {
    let dir = folder(&[("train.csv", "4,1,2\n7,2,3\n"), ("test.csv", "9,1,2\n4,3,3\n")]);
    let split = load(&dir).unwrap();
    assert_eq!((split.train.labels, split.test.labels), (vec![0, 1], vec![2, 0]));
    assert_eq!(split.train.class_names, ["4", "7", "9"]);
    let names: String = (0..10).map(|i| format!("n{i}\n")).collect();
    std::fs::write(dir.path().join("classes.txt"), names).unwrap();
    assert_eq!(load(&dir).unwrap().test.class_names, ["n4", "n7", "n9"]);
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let with =
        |train: &str, test: &str| load(&folder(&[("train.csv", train), ("test.csv", test)])).unwrap_err();
    assert_eq!(
        with("0,1,2\n1,2,3\n", "0,1\n"),
        "DIR/test.csv: 1 values in a row found, expected 2 as in DIR/train.csv"
    );
    assert_eq!(with("0,1,2\n0,2,3\n", "0,1,2\n"), "DIR/train.csv: 1 class, 0, found, expected 2 to 256");
    assert_eq!(
        with("0,7,7\n1,7,7\n", "0,1,2\n"),
        "DIR/train.csv: 4 values without two different ones found, expected some"
    );
    let many: String = (0..257).map(|i| format!("{i},1,2\n")).collect();
    assert_eq!(with(&many, "0,1,2\n"), "DIR/train.csv: more than 256 classes found, expected 2 to 256");
    let message = load(&folder(&[("Testing.csv", "0,1,2\n")])).unwrap_err();
    assert!(message.starts_with("DIR: tables: Testing.csv found, train.csv missing; expected "), "{message}");
    let message = load(&folder(&[("a.csv", "0,1,2\n"), ("b.tsv", "0\t1\n")])).unwrap_err();
    assert!(
        message.starts_with("DIR: tables: a.csv, b.tsv found, of which one can be named itself; "),
        "{message}"
    );
}

#[test]
fn one_file_is_split_the_same_way_each_time() {
    let text: String = (0..600).map(|i| format!("{},{i},0.5\n", ["cat", "dog"][i % 2])).collect();
    let dir = folder(&[("pets.csv", &text)]);
    let path = dir.path().join("pets.csv");
    let split = crate::data::load(path.to_str().unwrap()).unwrap();
    assert_eq!((split.train.len() + split.test.len(), split.train.name.as_str()), (600, "pets"));
    assert!((75..125).contains(&split.test.len()), "{}", split.test.len());
    assert_eq!(split.train.class_names, ["cat", "dog"]);
    // The same of the only table in a folder, and of one to learn from without one for the test.
    let of_folder = load(&dir).unwrap();
    assert_eq!((&of_folder.test.images, of_folder.held_out), (&split.test.images, split.held_out.clone()));
    let alone = load(&folder(&[("Training.csv", &text)])).unwrap();
    assert_eq!(alone.test.images, split.test.images);
    assert!(alone.notes[0].contains("has no test part: a row in six of each class of "), "{:?}", alone.notes);
    // A row that is added moves no other to the other part.
    std::fs::write(&path, text + "dog,0,0.5\n").unwrap();
    let more = crate::data::load(path.to_str().unwrap()).unwrap();
    assert_eq!(more.test.labels[..split.test.len()], split.test.labels);
}

proptest! {
    #[test]
    fn random_tables_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[-0-9.,\n\t\"a]{0,60}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            for wanted in [None, Some("2")] {
                if let Ok(table) = parse("f", bytes, wanted) {
                    prop_assert_eq!(table.rows() * table.columns, table.values.len());
                    prop_assert!(table.labels.as_ref().is_none_or(|labels| labels.len() * table.columns == table.values.len()));
                    let _ = tables("t", &table, &table, None);
                }
            }
        }
    }
}
