//! `lenet train`: what a run leaves, that it repeats, and what PyTorch makes of the same steps.

use std::fs;
use std::path::Path;

use lenet::model::safetensors;
use serde_json::Value;

use crate::common::{Golden, Random, project, relative_l2};
use crate::place::{FILES, Place, devices, idx, lines, text};

#[test]
fn a_run_leaves_its_files_and_says_what_to_do_next() {
    let place = Place::new();
    let output = place.run("train --steps 30 --batch 32 --device cpu --out run");
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(place.names("run"), FILES);
    assert!(out.contains("test accuracy ") && out.contains("lenet predict run IMAGE"), "{out}");
    assert!(told.starts_with("device: CPU, ") && told.contains("epoch 1/"), "{told}");
    let (tensors, metadata) =
        safetensors::decode("m", &fs::read(place.path("run/model.safetensors")).unwrap()).unwrap();
    assert_eq!(tensors["conv2.weight"].shape, [16, 6, 5, 5]);
    let network = lenet::Network::parse(&metadata["network"]).unwrap();
    assert_eq!(network, lenet::Network::preset("lenet5").unwrap());
    assert_eq!((metadata["step"].as_str(), metadata["classes"].as_str()), ("30", "10"));
    assert_eq!(serde_json::from_str::<Vec<String>>(&metadata["class_names"]).unwrap().len(), 10);
    assert!((0.0..=1.0).contains(&metadata["accuracy"].parse::<f64>().unwrap()));
    let history = lines(&fs::read_to_string(place.path("run/history.jsonl")).unwrap());
    assert_eq!(history.iter().filter(|line| line["event"] == "epoch").count(), 1);
    // Its checkpoint has the moments, too.
    let checkpoint = place.tensors("run/checkpoint.safetensors");
    assert_eq!(checkpoint.len(), 30);
    assert_eq!(checkpoint["moment2.fc3.bias"].shape, [10]);
}

#[test]
fn without_out_the_folder_is_dated() {
    let place = Place::new();
    place.small_data();
    for count in 1..=2 {
        place.ok("train --data data --steps 1 --device cpu");
        let names = place.names("runs");
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name.len() >= 17 && name.starts_with("20")), "{names:?}");
    }
}

#[test]
fn a_set_too_large_for_memory_is_trained_on_from_its_file() {
    let place = Place::new();
    fs::create_dir(place.path("large")).unwrap();
    let header = |magic: u32, sizes: &[u32]| {
        [&[magic], sizes].concat().iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>()
    };
    // Beyond 2 GiB, nearly all of it a hole that the file system does not store.
    let count = 2_800_000u32;
    let images = place.path("large/train-images-idx3-ubyte");
    fs::write(&images, header(0x803, &[count, 28, 28])).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&images).unwrap();
    file.set_len(16 + 784 * u64::from(count)).unwrap();
    let labels =
        |count: u32| [header(0x801, &[count]), (0..count).map(|i| (i % 10) as u8).collect()].concat();
    fs::write(place.path("large/train-labels-idx1-ubyte"), labels(count)).unwrap();
    let few = [header(0x803, &[50, 28, 28]), vec![7; 50 * 784]].concat();
    fs::write(place.path("large/t10k-images-idx3-ubyte"), few).unwrap();
    fs::write(place.path("large/t10k-labels-idx1-ubyte"), labels(50)).unwrap();
    for device in devices() {
        let line = format!(
            "train --data large --device {device} --schedule constant --steps 3 --log json --out {device}"
        );
        let told = lines(&place.ok(&line));
        let last = told.last().unwrap();
        assert_eq!((last["event"].as_str(), last["step"].as_u64()), (Some("done"), Some(3)), "{last}");
    }
    place.ok("eval cpu --data large --device cpu");
    place.ok("train --resume cpu --steps 5");
    file.set_len(1 << 31 | 1).unwrap();
    place.fails("train --data large --steps 3", 3, &["train-images-idx3-ubyte", "bytes found, expected"]);
}

#[test]
fn settings_repeat_a_run() {
    let place = Place::new();
    place.small_data();
    fs::write(
        place.path("net.toml"),
        "name = \"mine\"\ninput = { channels = 1, height = 28, width = 28, mean = 0.1307, deviation = 0.3081 }\n\
         layers = [{ conv2d = { channels = 3, kernel = [5, 3], stride = 2 } }, \"tanh\", \
         { linear = { name = \"last\", outputs = 10 } }]\n",
    )
    .unwrap();
    for (run, more) in [
        (
            "a",
            "--optimizer nesterov --lr 0.03 --momentum 0.85 --schedule step --schedule-epochs 1 --gamma 0.3",
        ),
        ("b", "--net net.toml --optimizer adamw --schedule one-cycle --smoothing 0.1 --l1 1e-5 --warmup 5"),
        ("d", "--init a --freeze conv*,fc1.bias --clip 0.5 --optimizer momentum"),
        ("c", "--validation 0.2 --init a --weight-decay 1e-3 --seed 77 --schedule exponential --no-shuffle"),
        ("e", "--augment strong,noise=0.1,flip"),
    ] {
        place.ok(&format!("train --data data --epochs 3 --batch 24 --device cpu --out {run} {more}"));
        place.ok(&format!("train --settings {run}/settings.toml --out {run}2"));
        let [one, two] = [run.to_string(), format!("{run}2")]
            .map(|dir| fs::read(place.path(&format!("{dir}/model.safetensors"))).unwrap());
        assert!(one == two, "the run {run} does not repeat");
        let [one, two] = [run.to_string(), format!("{run}2")]
            .map(|dir| fs::read_to_string(place.path(&format!("{dir}/settings.toml"))).unwrap());
        assert_eq!(one, two);
    }
}

#[test]
fn a_preset_is_settings_that_flags_change_and_the_run_repeats() {
    let place = Place::new();
    place.small_data();
    let settings = |run: &str| -> toml::Table {
        fs::read_to_string(place.path(&format!("{run}/settings.toml"))).unwrap().parse().unwrap()
    };
    let line = "train --data data --device cpu";
    place.ok(&format!("{line} --preset fast --out fast"));
    place.ok("train --settings fast/settings.toml --out again");
    place.same_model("fast", "again");
    assert_eq!(settings("fast"), settings("again"));
    // One flag changes one value.
    place.ok(&format!("{line} --preset fast --lr 0.003 --out other"));
    let (mut expected, other) = (settings("fast"), settings("other"));
    assert_ne!(expected, other);
    let training = expected["training"].as_table_mut().unwrap();
    training.insert("learning_rate".into(), other["training"]["learning_rate"].clone());
    assert_eq!(expected, other);
    assert_eq!(other["training"]["learning_rate"].as_float(), Some(0.003));
    // Epochs are whole where they are asked for.
    place.ok(&format!("{line} --preset fast --epochs 1 --batch 50 --out short"));
    let short = settings("short");
    assert_eq!((short["training"]["epochs"].as_integer(), short["training"].get("steps")), (Some(1), None));
    // The default has a name, too.
    for (run, more) in [("default", "--preset default"), ("none", "")] {
        place.ok(&format!("{line} {more} --epochs 1 --out {run}"));
    }
    assert_eq!(settings("default"), settings("none"));
    assert_ne!(settings("default"), settings("short"));
    place.fails("train --preset quick", 2, &["quick", "default", "fast"]);
    place.fails("train --preset fast --settings fast/settings.toml", 2, &["cannot be used with"]);
    place.fails("train --preset fast --resume fast", 2, &["cannot be used with"]);
}

#[test]
fn a_run_says_when_it_reached_98_and_99_percent() {
    let place = Place::new();
    // A class is as dark as the other is bright, so that a few steps know it all.
    let dir = place.path("data");
    fs::create_dir_all(&dir).unwrap();
    for part in ["train", "t10k"] {
        let images: Vec<u8> = (0..100).flat_map(|n| [[7, 200][n % 2]; 784]).collect();
        let labels: Vec<u8> = (0..100).map(|n| n % 2).collect();
        fs::write(dir.join(format!("{part}-images-idx3-ubyte")), idx(&[28, 28], &images)).unwrap();
        fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), idx(&[], &labels)).unwrap();
    }
    let line = "train --data data --batch 10 --lr 0.01 --epochs 3 --device cpu";
    let told = lines(&place.ok(&format!("{line} --log json --out run")));
    let first = told.iter().find(|event| event["event"] == "epoch" && event["accuracy"] == 1.0).unwrap();
    let done = told.last().unwrap();
    let reached = done["reached"].as_array().unwrap();
    assert_eq!(reached.len(), 2, "{done}");
    for (reached, accuracy) in reached.iter().zip([0.98, 0.99]) {
        assert_eq!(reached["accuracy"], accuracy);
        assert_eq!(reached["seconds"], first["since_start"]);
    }
    assert!(first["since_start"].as_f64() > first["seconds"].as_f64(), "{first}");
    assert!(first["since_start"].as_f64() <= done["seconds"].as_f64(), "{first} {done}");
    let out = place.ok(&format!("{line} --out table"));
    let line = out.lines().find(|line| line.starts_with("reached ")).unwrap();
    assert!(line.contains("98 % after ") && line.contains(", 99 % after "), "{out}");
    // A process that only continues a run does not know.
    let told = lines(&place.ok("train --resume run --log json"));
    assert_eq!(told.last().unwrap()["reached"].as_array().map(Vec::len), Some(0));
    // What is not reached is not claimed.
    place.small_data();
    let out = place.ok("train --data data --steps 1 --device cpu --out untrained");
    assert!(!out.contains("reached"), "{out}");
    let told = lines(&place.ok("train --data data --steps 1 --device cpu --log json --out json"));
    assert_eq!(told.last().unwrap()["reached"].as_array().map(Vec::len), Some(0));
}

#[test]
fn early_stopping_keeps_the_best_weights() {
    let place = Place::new();
    place.small_data();
    let out = place.ok(
        "train --data data --validation 0.2 --early-stop 2 --epochs 200 --batch 16 --lr 0.01 --schedule constant \
         --device cpu --out run",
    );
    assert!(out.contains("stopped early; the best weights are kept"), "{out}");
    let history = lines(&fs::read_to_string(place.path("run/history.jsonl")).unwrap());
    let epochs: Vec<_> = history.iter().filter(|line| line["event"] == "epoch").collect();
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    let best = epochs
        .iter()
        .position(|line| line["best"] == true && epochs.iter().all(|other| loss(line) <= loss(other)));
    assert_eq!(best, Some(epochs.len() - 3), "{epochs:?}");
    // The run as long as its best epoch has the same weights.
    let best = best.unwrap() + 1;
    place.ok(&format!(
        "train --data data --validation 0.2 --epochs {best} --batch 16 --lr 0.01 --schedule constant --device cpu --out b"
    ));
    place.same_model("run", "b");
}

/// A hundred steps against PyTorch's f64, on every device.
///
/// Adam divides by the size of a gradient, so where rounding turns one ReLU on that is off in f64 the runs part
/// (about every second run, over 100 steps). So one of several starts that differ by an ulp has to stay close,
/// and all of them have to be close before that can happen.
#[test]
fn a_hundred_steps_follow_pytorch() {
    for device in devices() {
        for (net, case, flags) in [
            ("lenet5", "lenet_relu_max.sgd", "--optimizer sgd --lr 0.1"),
            ("lenet5-tanh", "lenet_tanh_avg.sgd", "--optimizer sgd --lr 0.1"),
            ("lenet5", "lenet_relu_max.adam", "--optimizer adam --lr 1e-3"),
        ] {
            let adam = case.ends_with("adam");
            let golden = Golden::read(&format!("{case}.f64"));
            let losses = &golden.get("losses").values;
            let init = project("assets/golden")
                .join(format!("{}.init.safetensors", case.rsplit_once('.').unwrap().0));
            let mut closest = f64::INFINITY;
            for start in 0..if adam { 12 } else { 1 } {
                let place = Place::new();
                nudge(&init, &place.path("init"), start);
                let out = place.ok(&format!(
                    "train --net {net} --init init --no-shuffle --steps 100 --batch 64 --schedule constant {flags} \
                     --device {device} --log json --out run"
                ));
                let got: Vec<f64> = lines(&out)
                    .iter()
                    .filter(|line| line["event"] == "steps")
                    .flat_map(|line| line["losses"].as_array().unwrap().clone())
                    .map(|loss| loss.as_f64().unwrap())
                    .collect();
                assert_eq!(got.len(), 100);
                let worst = |steps: usize| {
                    got.iter().zip(losses).take(steps).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
                };
                let model = place.tensors("run/model.safetensors");
                let apart = model
                    .iter()
                    .map(|(name, tensor)| {
                        relative_l2(&tensor.data, &golden.get(&format!("step100.{name}")).values)
                    })
                    .fold(0.0, f64::max);
                let told = format!(
                    "{case} on {device}, start {start}: losses within {:.1e} in 10 steps, {:.1e} in 100; parameters \
                     within {apart:.1e}",
                    worst(10),
                    worst(100)
                );
                eprintln!("{told}");
                assert!(worst(1) < 1e-6 && worst(10) < 5e-6, "{told}");
                assert!(worst(100) < if adam { 0.2 } else { 5e-6 }, "{told}");
                closest = closest.min(apart);
                if closest < if adam { 2e-4 } else { 5e-6 } {
                    break;
                }
            }
            assert!(closest < if adam { 2e-4 } else { 5e-6 }, "{case} on {device}: {closest:e}");
        }
    }
}

/// Copies a weights file; from start 1 on, with every value moved by at most an ulp.
fn nudge(from: &Path, to: &Path, start: u64) {
    let (mut tensors, _) = safetensors::decode("init", &fs::read(from).unwrap()).unwrap();
    let mut numbers = Random(start);
    for tensor in tensors.values_mut().filter(|_| start > 0) {
        for value in &mut tensor.data {
            *value = f32::from_bits(value.to_bits() + (numbers.bits() % 2) as u32);
        }
    }
    let list: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shape.clone(), tensor.data.as_slice()))
        .collect();
    fs::write(to, safetensors::encode(&list, &Default::default()).unwrap()).unwrap();
}

#[test]
fn a_trained_network_gets_a_new_head_and_frozen_weights_keep_their_bits() {
    let place = Place::new();
    place.small_data();
    place.data("three", |label| label % 3);
    place.ok("train --data data --epochs 1 --device cpu --out ten");
    for device in devices() {
        let run = format!("three-{device}");
        let line = format!(
            "train --data three --init ten --freeze conv*,fc1.weight --weight-decay 0.1 --epochs 2 --batch 32 \
             --device {device} --out {run}"
        );
        let output = place.run(&line);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{told}");
        for says in [
            "lenet5 for this data: fc3 10 → 3 outputs\n",
            "init: took conv1.weight, conv1.bias, conv2.weight, conv2.bias, fc1.weight, fc1.bias, fc2.weight, \
             fc2.bias from ",
            "init: left fc3.weight: shape [10, 84], expected [3, 84]; fc3.bias: shape [10], expected [3]\n",
            "init: fresh fc3.weight, fc3.bias\n",
        ] {
            assert!(told.contains(says), "expected {says:?} in {told}");
        }
        let (before, after) =
            (place.tensors("ten/model.safetensors"), place.tensors(&format!("{run}/model.safetensors")));
        for (name, tensor) in &after {
            let frozen = name.starts_with("conv") || name == "fc1.weight";
            assert_eq!(before[name] == *tensor, frozen, "{name}");
        }
        assert_eq!(after["fc3.weight"].shape, [3, 84]);
        // It is judged, repeats and goes on as any other, also where its preset is named again.
        place.ok(&format!("eval {run} --data three --device {device}"));
        place.ok(&format!("train --settings {run}/settings.toml --out {run}-again"));
        assert!(
            place.tensors(&format!("{run}-again/model.safetensors")) == after,
            "the run {run} does not repeat"
        );
        place.ok(&format!("train --resume {run} --net lenet5"));
        place.fails(&format!("train --resume {run} --net lenet5-tanh"), 2, &["differ: net"]);
        place.fails(&format!("train --resume {run} --freeze fc1.*"), 2, &["freeze was", "conv*"]);
    }
    // What fits exactly is not worth a word.
    let told = text(&place.run("train --data data --init ten --steps 1 --device cpu --out same").stderr);
    assert!(!told.contains("init") && !told.contains("for this data"), "{told}");
    // A file means what it says.
    fs::write(
        place.path("net.toml"),
        "name = \"two\"\ninput = { channels = 1, height = 28, width = 28 }\nlayers = [{ linear = { outputs = 2 } }]\n",
    )
    .unwrap();
    let line = "train --data three --net net.toml --device cpu --out two";
    place.fails(line, 2, &["the last layer fc1 gives 2 logits, the data has 3 classes"]);
    assert!(!place.path("two").exists());
}
