//! What is refused, and in which words.

use std::fs;

use lenet::model::safetensors::{self, Tensors};
use serde_json::Value;

use crate::common::project;
use crate::place::{Place, devices, idx, lines, object, text};

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    place.small_data();
    let all = "train --data data --device cpu --out run";
    for (flags, says) in [
        ("--net lenet6", &["lenet6", "lenet5-tanh"][..]),
        ("--optimizer sdg", &["'sdg'", "--optimizer", "nesterov"]),
        ("--schedule linear", &["linear", "one-cycle"]),
        ("--lr nan", &["lr is NaN"]),
        ("--lr -1", &["lr is -1"]),
        ("--lr fast", &["'fast'", "--lr"]),
        ("--epochs 0", &["epochs is 0"]),
        ("--steps 0", &["steps"]),
        ("--batch 0", &["batch is 0"]),
        ("--momentum 0.9", &["momentum means nothing to adam"]),
        ("--optimizer momentum --momentum 1", &["momentum is 1"]),
        ("--weight-decay -0.1", &["weight-decay is -0.1"]),
        ("--smoothing 1", &["smoothing is 1"]),
        ("--augment shift=-1", &["--augment", "shift is -1"]),
        ("--augment blur=2", &["\"blur=2\" found", "shift=X"]),
        ("--gamma 0.5 --schedule cosine", &["gamma belongs to"]),
        ("--schedule step --schedule-epochs 0", &["every 0 epochs"]),
        ("--validation 1.5", &["validation is 1.5"]),
        ("--validation 0.0001", &["validation 0.0001 of 200 images"]),
        ("--early-stop 0", &["early-stop"]),
        ("--clip 0", &["clip is 0"]),
        ("--freeze conv*,pool1", &["freeze pool1 matches no parameter", "fc3.weight, fc3.bias"]),
        ("--freeze *", &["freeze * leaves nothing to train"]),
        ("--seed -3", &["-3"]),
        ("--settings nothing.toml", &["nothing.toml"]),
    ] {
        let code = if flags.starts_with("--settings") { 1 } else { 2 };
        place.fails(&format!("{all} {flags}"), code, says);
    }
    fs::write(place.path("net.toml"), "name = \"x\"\ninput = { channels = 1, height = 28\n").unwrap();
    place.fails(&format!("{all} --net net.toml"), 2, &["net.toml:2:"]);
    fs::write(place.path("settings.toml"), "data = \"mnist\"\ndevice = \"cpu\"\nspeed = 9\n").unwrap();
    place.fails("train --settings settings.toml --out run", 2, &["settings.toml:3:", "speed"]);
    fs::write(
        place.path("net.toml"),
        "name = \"x\"\ninput = { channels = 1, height = 28, width = 28 }\nlayers = [{ conv2d = { channels = 3, kernel = 30 } }]",
    )
    .unwrap();
    place.fails(&format!("{all} --net net.toml"), 2, &["conv1", "30 pixels"]);
    assert!(
        place.ok("").contains("Usage: lenet <COMMAND>")
            && place.ok("help").contains("Usage: lenet <COMMAND>")
    );
    place.fails("tarin", 2, &["train"]);
    place.fails("train --net LeNet5", 2, &["did you mean lenet5?"]);
    place.fails("train --data MNIST", 3, &["did you mean mnist?"]);
    place.fails("train --data waves --steps 1", 2, &["presets that fit this data: --net", "series"]);
    place.fails("tarin", 2, &["tarin"]);
    place.fails("predict x.safetensors", 2, &["IMAGE"]);
    place.fails("train --data data --out run --device 99", 4, &["\"99\"", "cpu"]);
    place.fails("train --data data --out run --device no-such-gpu", 4, &["\"no-such-gpu\"", "cpu"]);
    assert!(!place.path("run").exists(), "a refused command left a folder");
    // Folders.
    fs::write(place.path("file"), "").unwrap();
    place.fails("train --data data --steps 1 --device cpu --out file/run", 1, &["file/run"]);
    place.fails("train --data data --steps 1 --device cpu --out file", 2, &["file exists"]);
    place.fails(
        "train --steps 1 --device cpu --out data",
        2,
        &["data exists and is not empty", "--resume data"],
    );
    assert_eq!(place.names("data").len(), 4);
}

#[test]
fn damaged_data_is_refused() {
    let place = Place::new();
    let line = "train --data data --steps 1 --device cpu --out run";
    place.fails(line, 3, &["data: no such data"]);
    place.small_data();
    let change = |file: &str, change: &dyn Fn(&mut Vec<u8>), says: &[&str]| {
        place.small_data();
        let path = place.path("data").join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        place.fails(line, 3, &[&[file], says].concat());
    };
    change("train-images-idx3-ubyte", &|bytes| bytes.truncate(5000), &["expected"]);
    change("train-images-idx3-ubyte", &|bytes| bytes.truncate(3), &[]);
    change("train-images-idx3-ubyte", &|bytes| bytes.push(0), &["expected"]);
    change("t10k-images-idx3-ubyte", &|bytes| bytes[2] = 9, &["magic"]);
    change("train-labels-idx1-ubyte", &|bytes| *bytes = idx(&[], &[1; 199]), &["199 labels", "200"]);
    fs::remove_file(place.path("data/t10k-labels-idx1-ubyte")).unwrap();
    place.fails(line, 3, &["t10k-images-idx3-ubyte found, t10k-labels missing"]);
    assert!(!place.path("run").exists());
}

#[test]
fn damaged_weights_and_pictures_are_refused() {
    let place = Place::new();
    place.small_data();
    let init = project("assets/golden/lenet_relu_max.init.safetensors");
    let good = safetensors::decode("init", &fs::read(init).unwrap()).unwrap().0;
    let encoded = |tensors: &Tensors| {
        let list: Vec<_> =
            tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone(), t.data.as_slice())).collect();
        safetensors::encode(&list, &Default::default()).unwrap()
    };
    let mut bad = good.clone();
    bad.remove("fc1.bias");
    bad.get_mut("conv1.weight").unwrap().shape = vec![6, 25];
    bad.insert("fc4.bias".into(), good["fc3.bias"].clone());
    fs::write(place.path("w"), encoded(&bad)).unwrap();
    let listed = |told: &str, rows: &[&[&str]]| {
        for row in rows {
            assert!(told.lines().any(|line| row.iter().all(|part| line.contains(part))), "{row:?} in {told}");
        }
    };
    let told = place.fails(
        "eval w --net lenet5 --data data --device cpu",
        3,
        &["w: conv1.weight", "2 more, see above"],
    );
    listed(
        &told,
        &[
            &["fc1.bias", "missing"],
            &["conv1.weight", "shape [6, 25]", "[6, 1, 5, 5]"],
            &["fc4.bias", "not expected"],
        ],
    );
    // Of these not a tensor fits.
    let other = bad.into_iter().map(|(name, tensor)| (format!("x{name}"), tensor)).collect();
    fs::write(place.path("w"), encoded(&other)).unwrap();
    let told =
        place.fails("train --init w --data data --device cpu --out run", 3, &["nothing in it fits lenet5"]);
    listed(&told, &[&["xfc4.bias", "not expected"], &["fc3.weight", "missing"]]);
    let whole = encoded(&good);
    let mut bytes = whole.clone();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(place.path("w"), &bytes).unwrap();
    place.fails("train --init w --data data --device cpu --out run", 3, &["fc3.weight: value 839 is NaN"]);
    fs::write(place.path("w"), &whole[..whole.len() / 2]).unwrap();
    place.fails("train --init w --data data --device cpu --out run", 3, &["cut short"]);
    place.fails("train --init none --data data --device cpu --out run", 3, &["none: "]);
    fs::create_dir(place.path("empty")).unwrap();
    place.fails("eval empty --device cpu", 3, &["empty: there is no model.safetensors"]);
    fs::write(place.path("w"), &whole).unwrap();
    fs::write(place.path("note.png"), "not a picture").unwrap();
    place.fails("predict w note.png --net lenet5 --device cpu", 3, &["note.png"]);
    place.fails("predict w none.png --net lenet5 --device cpu", 3, &["none.png"]);
    assert!(!place.path("run").exists());
}

#[test]
fn what_does_not_fit_names_the_largest_batch() {
    let place = Place::new();
    place.small_data();
    let largest = "the largest that does is ";
    let line = "train --data data --steps 1 --device cpu --out run --batch 1000000";
    let told = place.fails(line, 4, &["batch 1000000 does not fit", largest]);
    let number = told.split(largest).nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    assert_eq!(number.parse::<usize>().unwrap(), lenet::plan::LARGEST_BATCH);
    place.fails("train --data data --device cpu --out run --batch 65537", 4, &["batch 65537", largest]);
    place.fails("bench --device cpu --batch 64,1000000", 4, &["batch 1000000 does not fit", largest]);
    assert!(!place.path("run").exists());
    if devices().contains(&"gpu") {
        let line = "train --data data --steps 1 --device gpu --out run --batch 65536";
        place.fails(line, 4, &["batch 65536 does not fit", largest, "in bytes"]);
        // A curve goes on without what does not fit.
        fs::write(
            place.path("net.toml"),
            "name = \"large\"\ninput = { channels = 1, height = 500, width = 500 }\n\
             layers = [{ average_pool2d = { kernel = 50 } }, { linear = { outputs = 2 } }]\n",
        )
        .unwrap();
        let line = "bench --growth --json --net net.toml --seconds 0.01 --batch 1 --device gpu";
        let growth = object(&place.ok(&format!("{line} --most-batch 256 --most-width 1")));
        let points = growth["growth"][0]["devices"][0]["points"].as_array().unwrap();
        let last = points.last().unwrap();
        assert!(points[0]["images_per_second"].as_f64().unwrap() > 0.0);
        assert_eq!((&last["batch"], &last["images_per_second"]), (&Value::from(256), &Value::Null));
        assert!(last["does_not_fit"].as_str().unwrap().contains("the largest that does is 128"), "{last}");
    }
}

#[test]
fn figures_that_cannot_be_trusted_are_told_or_refused() {
    let place = Place::new();
    place.small_data();
    // The test pictures are training pictures, and the labels of one class.
    fs::create_dir(place.path("again")).unwrap();
    for (part, from) in [("train", "train"), ("t10k", "train")] {
        for what in ["images-idx3", "labels-idx1"] {
            let file = |dir: &str, part: &str| place.path(dir).join(format!("{part}-{what}-ubyte"));
            fs::copy(file("data", from), file("again", part)).unwrap();
        }
    }
    let line = "train --data again --device cpu --steps 2 --log json";
    let output = place.run(&format!("{line} --out a"));
    let (told, events) = (text(&output.stderr), lines(&text(&output.stdout)));
    assert!(told.contains("doubt: 200 of 200 test pictures are training pictures, too"), "{told}");
    let kinds = |events: &[serde_json::Value]| {
        let doubts = events.iter().filter(|event| event["event"] == "doubt");
        doubts.map(|event| event["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&events)[0], "test_in_training");
    place.fails(&format!("{line} --strict --out b"), 3, &["strict: 200 of 200 test pictures"]);
    assert!(!place.path("b").exists());

    // A rate at which nothing moves.
    let line =
        "train --data data --device cpu --optimizer sgd --lr 1e-9 --epochs 40 --schedule constant --log json";
    let output = place.run(&format!("{line} --out c"));
    let (told, events) = (text(&output.stderr), lines(&text(&output.stdout)));
    assert!(output.status.success() && kinds(&events) == ["nothing_learnt"], "{told}");
    let low =
        "likely reasons, in order: the learning rate 0.000000001 is too low (`lenet lr-find` suggests one)";
    assert!(told.contains("nothing was learnt: ") && told.contains(low), "{told}");
    assert_eq!(events.last().unwrap()["event"], "done");
    place.fails(&format!("{line} --strict --out d"), 1, &["strict: nothing was learnt"]);
    // And one at which something does.
    let output = place.run("train --data data --device cpu --epochs 12 --strict --out e");
    assert!(output.status.success() && !text(&output.stderr).contains("nothing was learnt"), "{output:?}");

    // One value per channel has no deviation.
    let net = "name = \"alone\"\ninput = { channels = 1, height = 28, width = 28 }\nlayers = [\"global_average_pool\", \
               { batch_norm = {} }, \"flatten\", { linear = { outputs = 10 } }]\n";
    fs::write(place.path("alone.toml"), net).unwrap();
    let line = "train --data data --net alone.toml --device cpu --steps 1 --strict";
    place.fails(&format!("{line} --batch 1"), 3, &["with one picture in a batch bn1 normalises"]);
    place.fails(&format!("{line} --batch 199"), 3, &["in the last batch of an epoch", "bn1"]);
    let output = place.run("train --data data --net alone.toml --device cpu --steps 1 --batch 50");
    assert!(output.status.success() && !text(&output.stderr).contains("bn1"), "{output:?}");
}
