//! The `lenet` program from outside: what it writes, prints and refuses, and that runs repeat and resume exactly.
#![cfg(all(feature = "program", feature = "mnist"))]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Golden, project, relative_l2};
use lenet::model::safetensors::{self, Tensors};
use serde_json::Value;

const FILES: [&str; 4] = ["checkpoint.safetensors", "history.jsonl", "model.safetensors", "settings.toml"];

/// A folder for one test, and the program run in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenet"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs what has to work; gives its stdout.
    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "lenet {line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs what has to fail with this code and one line that says all of these things.
    fn fails(&self, line: &str, code: i32, says: &[&str]) -> String {
        let output = self.run(line);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "lenet {line}: {told}");
        let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("lenet: ")).collect();
        assert_eq!(errors.len(), 1, "lenet {line}: {told}");
        assert!(told.trim_end().ends_with(errors[0]), "the error is not the last line: {told}");
        for part in says {
            assert!(errors[0].contains(part), "lenet {line}: expected {part:?} in {told}");
        }
        assert!(!told.contains("panicked"), "{told}");
        told
    }

    /// The names in a folder, sorted.
    fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn tensors(&self, file: &str) -> Tensors {
        safetensors::decode(file, &fs::read(self.path(file)).unwrap()).unwrap().0
    }

    fn same_model(&self, one: &str, other: &str) {
        let [one, other] = [one, other].map(|dir| self.tensors(&format!("{dir}/model.safetensors")));
        assert!(one.len() == 10 && one.keys().eq(other.keys()));
        for (name, values) in &one {
            let differ =
                values.data.iter().zip(&other[name].data).filter(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differ.count(), 0, "values of {name} differ");
        }
    }

    /// A data set of the first images of MNIST, in the folder `data`.
    fn small_data(&self) {
        self.data("data", |label| label);
    }

    /// The same images with other labels.
    fn data(&self, dir: &str, label: fn(u8) -> u8) {
        let dir = self.path(dir);
        fs::create_dir_all(&dir).unwrap();
        let split = lenet::data::mnist().unwrap();
        for (part, data) in [("train", split.train.take(200)), ("t10k", split.test.take(100))] {
            let labels: Vec<u8> = data.labels.iter().map(|&old| label(old)).collect();
            fs::write(dir.join(format!("{part}-images-idx3-ubyte")), idx(&[28, 28], &data.images)).unwrap();
            fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), idx(&[], &labels)).unwrap();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn idx(sizes: &[usize], content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 1 + sizes.len() as u8];
    let count = content.len() / sizes.iter().product::<usize>();
    for size in [&[count], sizes].concat() {
        bytes.extend((size as u32).to_be_bytes());
    }
    bytes.extend(content);
    bytes
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The devices to test on: the CPU, and the GPU if there is an adapter.
fn devices() -> Vec<&'static str> {
    let info: Value = serde_json::from_str(&Place::new().ok("info --json")).unwrap();
    if !info["adapters"].as_array().unwrap().is_empty() {
        return vec!["cpu", "gpu"];
    }
    assert_ne!(
        std::env::var("LENET_REQUIRE_GPU").as_deref(),
        Ok("1"),
        "LENET_REQUIRE_GPU is 1, and there is no adapter"
    );
    eprintln!("skipped on the GPU: there is no adapter");
    vec!["cpu"]
}

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
    // Everything is a 0, so that a few steps know it all.
    let dir = place.path("data");
    fs::create_dir_all(&dir).unwrap();
    for part in ["train", "t10k"] {
        fs::write(dir.join(format!("{part}-images-idx3-ubyte")), idx(&[28, 28], &[7; 100 * 784])).unwrap();
        fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), idx(&[], &[0; 100])).unwrap();
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
fn a_resumed_run_equals_an_uninterrupted_one() {
    for device in devices() {
        let place = Place::new();
        place.small_data();
        let line = format!(
            "train --data data --batch 24 --device {device} --schedule step --schedule-epochs 1 --gamma 0.7"
        );
        place.ok(&format!("{line} --epochs 4 --out whole"));
        // At the end of an epoch.
        place.ok(&format!("{line} --epochs 2 --out parts"));
        place.ok("train --resume parts --epochs 4");
        place.same_model("whole", "parts");
        let [whole, parts] = ["whole", "parts"].map(|dir| {
            let history = fs::read_to_string(place.path(&format!("{dir}/history.jsonl"))).unwrap();
            let epochs = lines(&history).into_iter().filter(|line| line["event"] == "epoch");
            epochs.map(|line| (line["step"].clone(), line["loss"].clone())).collect::<Vec<_>>()
        });
        assert_eq!(whole, parts);
        assert_eq!(whole.len(), 4);
        // In the middle of one: an epoch has nine steps.
        place.ok(&format!("{line} --epochs 4 --steps 30 --out short"));
        place.ok(&format!("{line} --epochs 4 --steps 13 --out middle"));
        place.ok("train --resume middle/checkpoint.safetensors --steps 30 --out elsewhere");
        place.same_model("short", "elsewhere");
        // What is complete stays as it is.
        place.ok("train --resume parts");
        place.same_model("whole", "parts");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_the_run_goes_on_as_if_there_had_been_none() {
    let place = Place::new();
    let line = "train --batch 32 --steps 1500 --seed 5 --device cpu";
    place.ok(&format!("{line} --out whole"));
    let mut child = place
        .command(&format!("{line} --out cut"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (history, since) = (place.path("cut/history.jsonl"), Instant::now());
    while !fs::read_to_string(&history).is_ok_and(|text| text.contains("\"step\":")) {
        assert!(since.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("continue with: lenet train --resume cut"), "{told}");
    assert_eq!(place.names("cut"), FILES);
    let bytes = fs::read(place.path("cut/model.safetensors")).unwrap();
    let step: u64 = safetensors::decode("m", &bytes).unwrap().1["step"].parse().unwrap();
    assert!((50..1500).contains(&step), "{step}");
    // Also in JSON, and through a pipe that nobody reads.
    let mut child = place.command("train --resume cut --log json").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    place.same_model("whole", "cut");
    assert_eq!(place.names("cut"), FILES);
}

#[test]
fn a_resumed_run_stays_what_it_was() {
    let place = Place::new();
    place.small_data();
    place.ok("train --data data --steps 2 --device cpu --schedule cosine --out run");
    let before: Vec<_> = FILES.iter().map(|file| fs::read(place.path("run").join(file)).unwrap()).collect();
    place.fails("train --resume run --epochs 9", 2, &["its schedule depends on the number of steps"]);
    place.fails("train --resume run --lr 0.5", 2, &["lr was 0.002", "now 0.5", "--init"]);
    place.fails("train --resume run --batch 3 --seed 1", 2, &["batch was", "seed was 0, now 1"]);
    place.fails("train --resume run --optimizer sgd", 2, &["rule was \"adam\", now \"sgd\""]);
    place.fails("train --resume run --net lenet5-tanh", 2, &["differ: net"]);
    place.fails("train --resume run --data mnist", 3, &["not the data that the run began with"]);
    place.fails("train --resume run --init run", 2, &["cannot be used with"]);
    place.fails("train --resume nowhere", 3, &["nowhere"]);
    place.fails("train --resume run/model.safetensors", 3, &["expected a checkpoint"]);
    let after: Vec<_> = FILES.iter().map(|file| fs::read(place.path("run").join(file)).unwrap()).collect();
    assert!(before == after, "a refused command changed the run");
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
    let mut numbers = common::Random(start);
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

/// A network file of one convolution for pictures of the given shape.
fn network(place: &Place, shape: [usize; 3], kernel: [usize; 2], classes: usize) {
    let [channels, height, width] = shape;
    let [rows, columns] = kernel;
    let text = format!(
        "name = \"small\"\ninput = {{ channels = {channels}, height = {height}, width = {width} }}\n\
         layers = [{{ conv2d = {{ channels = 8, kernel = [{rows}, {columns}] }} }}, \"relu\", \"flatten\", \
         {{ linear = {{ outputs = {classes} }} }}]\n"
    );
    fs::write(place.path("net.toml"), text).unwrap();
}

#[test]
fn colour_pictures_in_folders_are_learnt() {
    let place = Place::new();
    for (part, count) in [("train", 12), ("test", 3)] {
        for (class, colour) in [("blood orange", [200, 40, 20]), ("lime", [40, 200, 20])] {
            fs::create_dir_all(place.path(&format!("fruit/{part}/{class}"))).unwrap();
            for i in 0..count {
                let shade = |value: u8| value.saturating_add(5 * i as u8);
                let picture = image::RgbImage::from_pixel(8, 6, image::Rgb(colour.map(shade)));
                picture.save(place.path(&format!("fruit/{part}/{class}/{i}.png"))).unwrap();
            }
        }
    }
    network(&place, [3, 6, 8], [3, 3], 2);
    let told = lines(&place.ok(
        "train --net net.toml --data fruit --per-class 4 --epochs 30 --batch 8 --lr 0.01 --device cpu --out run --log json",
    ));
    assert_eq!(told[0]["train_images"], 8);
    assert!(fs::read_to_string(place.path("run/settings.toml")).unwrap().contains("per_class = 4\n"));
    place.fails("train --resume run --per-class 5 --device cpu", 2, &["per-class was 4, now 5"]);
    // The data, the names and how a picture is to be read are in the model's file.
    let told: Value = serde_json::from_str(&place.ok("eval run --device cpu --json")).unwrap();
    assert_eq!((told["images"].as_u64(), told["accuracy"].as_f64()), (Some(6), Some(1.0)));
    assert_eq!(told["classes"][1]["class"], "lime");
    assert!(place.ok("eval run --device cpu").contains("blood orange  "));
    let wide = image::RgbImage::from_pixel(90, 30, image::Rgb([60, 210, 30]));
    wide.save(place.path("wide.png")).unwrap();
    let out = place.ok("predict run wide.png --device cpu");
    assert!(out.starts_with("wide.png: lime\n"), "{out}");
    assert!(out.contains("seen as: 90x30 pixels, cropped to 40x30 at 25,0, scaled by 0.200\n"), "{out}");
    // Scaled to another size, they need another network.
    let line = "train --net net.toml --data fruit@4x4 --device cpu --out other";
    place.fails(line, 2, &["takes pictures of 3×6×8, the data has 3×4×4"]);
    place.fails("train --data fruit --per-class 0", 2, &["--per-class"]);
}

#[test]
fn texts_and_signals_are_learnt() {
    let place = Place::new();
    fs::create_dir(place.path("words")).unwrap();
    fs::write(place.path("words/train.txt"), "up\tabab\ndown\tcdcd\nup\tbaab\ndown\tDCC\n").unwrap();
    fs::write(place.path("words/test.txt"), "up\tab\ndown\tdd\n").unwrap();
    network(&place, [4, 1, 4], [1, 2], 2);
    place.ok("train --net net.toml --data words --epochs 60 --batch 4 --lr 0.01 --device cpu --out run");
    fs::write(place.path("ask.txt"), "BBBA\n\nccz\n").unwrap();
    let told = lines(&place.ok("predict run ask.txt --device cpu --json"));
    assert_eq!([&told[0]["name"], &told[1]["name"]], ["up", "down"]);
    assert_eq!(
        (&told[1]["image"], &told[1]["preparation"]),
        (&Value::from("ask.txt:3"), &Value::from("\"cc\""))
    );
    fs::write(place.path("empty.txt"), "\n").unwrap();
    place.fails("predict run empty.txt --device cpu", 3, &["nothing to classify"]);

    fs::write(
        place.path("steps.csv"),
        (0..60)
            .map(|i| {
                let (class, sign) = [("fall", -1.0), ("rise", 1.0)][i % 2];
                let start = 0.01 * i as f64;
                format!("{class},{start},{},{}\n", start + sign, start + 2.0 * sign)
            })
            .collect::<String>(),
    )
    .unwrap();
    network(&place, [1, 1, 3], [1, 2], 2);
    place.ok(
        "train --net net.toml --data steps.csv --epochs 40 --batch 8 --lr 0.01 --device cpu --out signals",
    );
    fs::write(place.path("ask.csv"), "0, 1, 2\n0.2 -0.8 -99\n").unwrap();
    let told = lines(&place.ok("predict signals ask.csv --device cpu --json"));
    assert_eq!([&told[0]["name"], &told[1]["name"]], ["rise", "fall"]);
    assert!(told[1]["preparation"].as_str().unwrap().starts_with("3 numbers, 1 of them beyond -2 to "));
    fs::write(place.path("ask.csv"), "0,1\n").unwrap();
    place.fails("predict signals ask.csv --device cpu", 3, &["ask.csv:1: 2 numbers found, expected 3"]);
    fs::write(place.path("ask.csv"), "0,1,x\n").unwrap();
    place.fails(
        "predict signals ask.csv --device cpu",
        3,
        &["ask.csv:1: \"x\" found, expected a finite number"],
    );
}

#[test]
fn a_trained_network_reads_digits() {
    let place = Place::new();
    place.ok("train --steps 300 --batch 64 --device cpu --out run");
    let test = lenet::data::mnist().unwrap().test;
    for i in [0, 1, 2, 3, 4] {
        let digit = image::GrayImage::from_raw(28, 28, test.image(i).to_vec()).unwrap();
        digit.save(place.path(&format!("{i}.png"))).unwrap();
    }
    let out = place.ok("predict run 0.png 1.png 2.png 3.png 4.png --device cpu --json --top 2");
    let told = lines(&out);
    assert_eq!(told.len(), 5);
    for (line, label) in told.iter().zip(&test.labels) {
        assert_eq!(line["class"].as_u64(), Some(u64::from(*label)), "{line}");
        assert_eq!(line["top"].as_array().unwrap().len(), 2);
        let sum: f64 = line["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{line}");
    }
    // Large, dark on light, from stdin, with a picture of it in the answer.
    let big = image::imageops::resize(
        &image::GrayImage::from_raw(28, 28, test.image(0).iter().map(|p| 255 - p).collect()).unwrap(),
        140,
        140,
        image::imageops::FilterType::CatmullRom,
    );
    big.save(place.path("big.png")).unwrap();
    let input = fs::File::open(place.path("big.png")).unwrap();
    let output = place.command("predict run - --device cpu").stdin(input).output().unwrap();
    let out = text(&output.stdout);
    assert!(out.starts_with(&format!("stdin: {}\n", test.labels[0])) && out.contains('█'), "{out}");

    let told: Value = serde_json::from_str(&place.ok("eval run --device cpu --json")).unwrap();
    let accuracy = told["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9 && told["loss"].as_f64().unwrap() < 0.4, "{told}");
    let confusion: Vec<Vec<u64>> = serde_json::from_value(told["confusion"].clone()).unwrap();
    let right: u64 = (0..10).map(|class| confusion[class][class]).sum();
    assert_eq!(confusion.iter().flatten().sum::<u64>(), 10_000);
    assert_eq!(right as f64 / 10_000.0, accuracy);
    for (class, figures) in told["classes"].as_array().unwrap().iter().enumerate() {
        let count: u64 = confusion[class].iter().sum();
        assert_eq!(figures["count"].as_u64(), Some(count));
        assert_eq!(figures["recall"].as_f64(), Some(confusion[class][class] as f64 / count as f64));
        let taken: u64 = confusion.iter().map(|row| row[class]).sum();
        assert_eq!(figures["precision"].as_f64(), Some(confusion[class][class] as f64 / taken as f64));
    }
    // The accuracy that the run printed is in the file.
    let (_, metadata) =
        safetensors::decode("m", &fs::read(place.path("run/model.safetensors")).unwrap()).unwrap();
    assert_eq!(metadata["accuracy"].parse::<f64>().unwrap(), accuracy);
    let out = place.ok("eval run --device cpu");
    assert!(out.contains("confusion") && out.contains(&format!("{:.2} %", 100.0 * accuracy)), "{out}");
}

/// A picture of a line of MNIST's test digits, three times as large, dark on light: its bytes as a PNM file, and the
/// columns in which each digit may have ink.
fn line_of(wanted: &[u8]) -> (Vec<u8>, Vec<[u64; 2]>) {
    let test = lenet::data::mnist().unwrap().test;
    let (height, width) = (48, 40 + 22 * wanted.len());
    let mut ink = vec![0u8; height * width];
    let mut columns = Vec::new();
    for (i, &digit) in wanted.iter().enumerate() {
        let left = 16 + 22 * i;
        let image = (0..test.len()).filter(|&image| test.labels[image] == digit).nth(5 + i).unwrap();
        for (at, &value) in test.image(image).iter().enumerate() {
            let place = (10 + at / 28) * width + left + at % 28;
            ink[place] = ink[place].max(value);
        }
        columns.push([3 * left as u64, 3 * (left as u64 + 28)]);
    }
    let mut file = format!("P5\n{} {}\n255\n", 3 * width, 3 * height).into_bytes();
    file.extend((0..9 * height * width).map(|at| {
        let (y, x) = (at / (3 * width) / 3, at % (3 * width) / 3);
        230 - (f32::from(ink[y * width + x]) * 0.8) as u8
    }));
    (file, columns)
}

#[test]
fn a_string_is_read_out_of_a_picture_of_any_size() {
    let place = Place::new();
    place.ok("train --device cpu --net lenet5-windows --data mnist-windows --epochs 1 --steps 1000 --out run --log json");
    let (file, columns) = line_of(&[9, 4, 1, 1, 0]);
    fs::write(place.path("zip.pgm"), file).unwrap();
    let read: Value = serde_json::from_str(&place.ok("read run zip.pgm --json --device cpu")).unwrap();
    // After so short a training one mistake is allowed: another machine's roundings make another network.
    let said = read["text"].as_str().unwrap();
    assert!(lenet::read::edit_distance(said, "94110") <= 1, "{read}");
    let all = read["digits"].as_array().unwrap();
    assert_eq!(all.len(), said.len());
    for (digit, [left, right]) in all.iter().zip(columns).filter(|_| said.len() == 5) {
        let bounds: Vec<u64> = digit["box"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        let middle = (bounds[0] + bounds[2]) / 2;
        assert!(left < middle && middle < right && bounds[1] < bounds[3], "{digit}, columns {left}–{right}");
    }
    let measured = place.ok("read run --measure 60 --length 3 --seed 4 --json --device cpu");
    let measured: Value = serde_json::from_str(&measured).unwrap();
    let figure = |name: &str| measured[name].as_f64().unwrap();
    assert!(figure("string_accuracy") > 0.7 && figure("character_error_rate") < 0.15, "{measured}");
    assert!(figure("box_overlap") > 0.8, "{measured}");
    place.ok("train --device cpu --epochs 1 --steps 1 --out digits --log json");
    place.fails("read digits zip.pgm --device cpu", 2, &["lenet5 has no class called none", "mnist-windows"]);
}

#[test]
fn pixels_get_classes() {
    let place = Place::new();
    place.ok("train --device cpu --net segment --data mnist-scenes --epochs 1 --steps 60 --batch 8 --lr 0.003 --out run --log json");
    let judged: Value = serde_json::from_str(&place.ok("eval run --json --device cpu")).unwrap();
    let overlap = &judged["intersection_over_union"];
    assert_eq!(judged["data"], "mnist-scenes");
    // Ground and ink are told apart long before the digits are.
    assert!(overlap["classes"][0].as_f64().unwrap() > 0.9, "{overlap}");
    assert_eq!(overlap["classes"].as_array().unwrap().len(), 11);
    assert!(judged["accuracy"].as_f64().unwrap() > 0.9, "{judged}");
    let total: u64 = judged["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(total, 1_000 * 64 * 64);
    let scene = lenet::data::named("mnist-scenes").unwrap().test;
    let mut file = b"P5\n64 64\n255\n".to_vec();
    file.extend_from_slice(scene.image(0));
    fs::write(place.path("scene.pgm"), file).unwrap();
    let seen: Value = serde_json::from_str(&place.ok("predict run scene.pgm --json --device cpu")).unwrap();
    let map = seen["classes"].as_array().unwrap();
    assert_eq!((map.len(), map[0].as_array().unwrap().len()), (64, 64));
    let right = map
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .zip(&scene.labels)
        .filter(|(class, label)| (class.as_u64() == Some(0)) == (**label == 0))
        .count();
    assert!(right > 64 * 64 * 9 / 10, "{right} pixels are told from the ground");
    place.fails("train --device cpu --net segment --data mnist-scenes --augment light", 2, &["augment"]);
    place.fails("train --device cpu --net lenet5 --data mnist-scenes", 2, &["fc3", "64×64 labels"]);
}

#[test]
fn a_state_dict_of_pytorch_is_taken_as_it_is() {
    let place = Place::new();
    place.small_data();
    let init = project("assets/golden/lenet_relu_max.init.safetensors");
    fs::copy(&init, place.path("init.safetensors")).unwrap();
    place.fails("eval init.safetensors --data data --device cpu", 2, &["init.safetensors", "--net"]);
    let out = place.ok("eval init.safetensors --net lenet5 --data data --device cpu --json");
    let loss = serde_json::from_str::<Value>(&out).unwrap()["loss"].as_f64().unwrap();
    assert!((2.2..2.4).contains(&loss), "{loss}");
}

#[test]
fn summaries_hold_what_they_promise() {
    let place = Place::new();
    let out = place.ok("summary");
    assert!(out.contains("61,706 parameters") && out.contains("416,520 multiply-adds"), "{out}");
    let told: Value = serde_json::from_str(&place.ok("summary --net lenet5-tanh --json")).unwrap();
    assert_eq!((told["parameters"].as_u64(), told["macs"].as_u64()), (Some(61_706), Some(416_520)));
    let plan: Value =
        serde_json::from_str(&place.ok("summary --plan --json --batch 32 --optimizer sgd")).unwrap();
    assert_eq!(plan.as_object().unwrap().keys().collect::<Vec<_>>(), ["eval", "predict", "train"]);
    for phase in ["train", "eval", "predict"] {
        let launches = plan[phase].as_array().unwrap();
        assert!(!launches.is_empty());
        for launch in launches {
            let keys: Vec<_> = launch.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["bytes", "constants", "entry", "flop", "shader", "workgroups"]);
            let source = fs::read_to_string(project(launch["shader"].as_str().unwrap())).unwrap();
            assert!(source.contains(&format!("fn {}(", launch["entry"].as_str().unwrap())), "{launch}");
            assert!(launch["constants"].is_object() && launch["bytes"].as_u64() > Some(0), "{launch}");
            assert_eq!(launch["workgroups"].as_array().unwrap().len(), 3);
        }
    }
    assert_eq!(plan["train"].as_array().unwrap().last().unwrap()["entry"], "sgd");
    assert!(place.ok("summary --plan").contains("launches"));
    let info: Value = serde_json::from_str(&place.ok("info --json")).unwrap();
    assert!(info["cpu"].as_str().unwrap().starts_with("CPU, ") && info["auto"]["why"].is_string());
    assert!(place.ok("--help").contains("Exit codes:"));
    assert!(place.ok("--help").contains("bench"));
    assert!(place.ok("train --help").contains("--early-stop"));
    assert!(place.ok("bench --help").contains("--growth"));
    // A reader that leaves early.
    let mut child =
        place.command("summary --plan").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

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
    place.fails("", 2, &["no command"]);
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
    change("t10k-labels-idx1-ubyte", &|bytes| bytes[20] = 77, &["label 77"]);
    fs::remove_file(place.path("data/t10k-labels-idx1-ubyte")).unwrap();
    place.fails(line, 3, &["no file found"]);
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
    let lists =
        ["fc1.bias: missing", "conv1.weight: shape [6, 25], expected [6, 1, 5, 5]", "fc4.bias: not expected"];
    place.fails("eval w --net lenet5 --data data --device cpu", 3, &lists);
    // Of these not a tensor fits.
    let other = bad.into_iter().map(|(name, tensor)| (format!("x{name}"), tensor)).collect();
    fs::write(place.path("w"), encoded(&other)).unwrap();
    let says = ["nothing in it fits lenet5", "xfc4.bias: not expected", "fc3.weight: missing"];
    place.fails("train --init w --data data --device cpu --out run", 3, &says);
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

/// What `safetensors.torch.save_file` writes of a module with batch normalisations: beside the weights an int64 each.
#[test]
fn a_state_dict_that_counts_batches_is_taken() {
    use ::safetensors::tensor::{Dtype, TensorView};

    let place = Place::new();
    place.small_data();
    let network = lenet::Network::preset("lenet5-bn").unwrap();
    let drawn = network.initial(1).unwrap();
    let bytes = |values: &Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let values: Vec<Vec<u8>> = drawn.iter().map(bytes).collect();
    let named = network.parameters().unwrap();
    let mut tensors: Vec<_> = named
        .iter()
        .zip(&values)
        .map(|(p, values)| (p.name.clone(), TensorView::new(Dtype::F32, p.shape.clone(), values).unwrap()))
        .collect();
    for norm in named.iter().filter_map(|parameter| parameter.name.strip_suffix(".running_mean")) {
        let name = format!("{norm}.num_batches_tracked");
        tensors.push((name, TensorView::new(Dtype::I64, vec![], &[7, 0, 0, 0, 0, 0, 0, 0]).unwrap()));
    }
    fs::write(place.path("w"), ::safetensors::serialize(tensors, None).unwrap()).unwrap();
    let told = place.ok("eval w --net lenet5-bn --data data --device cpu --json");
    assert!(serde_json::from_str::<Value>(&told).unwrap()["loss"].is_f64(), "{told}");
    let line = "train --init w --net lenet5-bn --data data --device cpu --steps 1 --out run";
    let output = place.run(line);
    let told = text(&output.stderr);
    assert!(output.status.success() && !told.contains("init:"), "{told}");
}

#[test]
fn what_is_not_finite_stops_the_run_and_keeps_the_last_good_state() {
    let place = Place::new();
    place.small_data();
    for device in devices() {
        let at_once = format!("once-{device}");
        place.fails(
            &format!("train --data data --lr 1e30 --device {device} --out {at_once}"),
            5,
            &["is not finite", "of step 0, is kept"],
        );
        assert!(place.names(&at_once).iter().all(|name| FILES.contains(&name.as_str())));
        // The second epoch's learning rate is 1e27.
        let later = format!("later-{device}");
        place.fails(
            &format!(
                "train --data data --batch 24 --epochs 3 --schedule exponential --gamma 1e30 --device {device} --out {later}"
            ),
            5,
            &["is not finite", "of step 9, is kept", &format!("--init {later}")],
        );
        assert_eq!(place.names(&later), FILES);
        let (model, state) = (
            place.tensors(&format!("{later}/model.safetensors")),
            place.tensors(&format!("{later}/checkpoint.safetensors")),
        );
        assert!(model.iter().all(|(name, tensor)| state[name] == *tensor));
        place.ok(&format!("eval {later} --data data --device {device}"));
        place.ok(&format!(
            "train --init {later} --data data --steps 1 --device {device} --out again-{device}"
        ));
    }
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

#[test]
fn lr_find_suggests_a_rate_that_learns() {
    let place = Place::new();
    place.small_data();
    for device in devices() {
        let line = format!("lr-find --data data --batch 32 --steps 100 --device {device}");
        let told = object(&place.ok(&format!("{line} --json")));
        let points = told["points"].as_array().unwrap();
        let number = |value: &Value| value.as_f64().unwrap();
        assert!((50..=100).contains(&points.len()), "{}", points.len());
        assert!((number(&points[0]["learning_rate"]) - 1e-6).abs() < 1e-12, "{}", points[0]);
        assert!((2.2..2.4).contains(&number(&points[0]["loss"])), "{}", points[0]);
        assert!((1e-4..3e-2).contains(&number(&told["suggestion"])), "{told}");
        assert!(number(&told["suggestion"]) <= 0.105 * told["explodes"].as_f64().unwrap_or(1e9), "{told}");
        let output = place.run(&line);
        let out = text(&output.stdout);
        let flag = out.lines().last().unwrap().strip_prefix("suggestion  ").unwrap();
        assert_eq!(flag, format!("--lr {}", told["suggestion"]));
        assert!(out.contains('●') && out.contains("1e-4") && out.contains("falls fastest at"), "{out}");
    }
    // A rate that explodes at once ends the run, and nothing is left behind.
    let told = object(&place.ok("lr-find --data data --from 1e-3 --to 1e12 --device cpu --json"));
    assert!(told["explodes"].as_f64().unwrap() < 1e6 && told["points"].as_array().unwrap().len() < 199);
    assert!(!place.path("runs").exists());
    place.fails("lr-find --from 0", 2, &["goes from 0 to 1"]);
    place.fails("lr-find --from 1 --to 0.1", 2, &["goes from 1 to 0.1"]);
    place.fails("lr-find --steps 3", 2, &["steps is 3"]);
    place.fails("lr-find --optimizer momentum --momentum 2", 2, &["momentum is 2"]);
    place.fails("lr-find --data nowhere", 3, &["nowhere"]);
}

#[test]
fn a_sweep_is_what_train_would_do_best_first() {
    let place = Place::new();
    place.small_data();
    let line = "--data data --epochs 2 --device cpu --no-shuffle --optimizer momentum";
    let told =
        object(&place.ok(&format!("sweep {line} --grid lr=0.0001,0.02 --grid batch=20,40 --seeds 2 --json")));
    let settings = told["settings"].as_array().unwrap();
    assert_eq!(settings.len(), 4);
    let accuracy = |value: &Value| value["accuracy"].as_f64().unwrap();
    assert!(settings.windows(2).all(|pair| accuracy(&pair[0]) >= accuracy(&pair[1])), "{told}");
    for setting in settings {
        let runs = setting["runs"].as_array().unwrap();
        assert_eq!(runs.iter().map(|run| run["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
        let (a, b) = (accuracy(&runs[0]), accuracy(&runs[1]));
        assert!((accuracy(setting) - (a + b) / 2.0).abs() < 1e-12, "{setting}");
        let deviation = setting["deviation"].as_f64().unwrap();
        assert!((deviation - (a - b).abs() / 2f64.sqrt()).abs() < 1e-12, "{setting}");
    }
    let best = &settings[0];
    let value = |key: &str| best["settings"][key].as_str().unwrap();
    let flags = format!("--lr {} --batch {} --seed 1", value("lr"), value("batch"));
    let train = lines(&place.ok(&format!("train {line} {flags} --log json --out run")));
    assert_eq!(train.last().unwrap()["accuracy"], best["runs"][1]["accuracy"]);
    let loss = |run: &Value| run["loss"].as_f64().unwrap();
    let lowest = train.iter().filter(|event| event["event"] == "epoch").map(loss).fold(f64::NAN, f64::min);
    assert_eq!(loss(&best["runs"][1]), lowest);
    assert_eq!(place.names("."), ["data", "run"]);

    // A setting that explodes is told and comes last.
    let output = place.run("sweep --data data --epochs 1 --device cpu --grid lr=1e30,0.001");
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("run 1/2  lr 1e30  seed 0  the loss of step") && told.contains("run 2/2"),
        "{told}"
    );
    assert!(out.lines().nth(3).unwrap().starts_with("1e30") && out.contains("best  --lr 0.001"), "{out}");
    // Random settings repeat.
    let random = || {
        let line = "sweep --data data --steps 2 --device cpu --validation 0.2 --json --random 3 --seed 4";
        let told = object(
            &place.ok(&format!("{line} --grid lr=1e-4..1e-2 --grid batch=16..64 --grid optimizer=sgd,adam")),
        );
        let settings = told["settings"].as_array().unwrap().clone();
        settings.iter().map(|one| (one["settings"].to_string(), accuracy(one))).collect::<Vec<_>>()
    };
    assert_eq!(random().len(), 3);
    assert_eq!(random(), random());

    for (flags, says) in [
        ("", &["--grid"][..]),
        ("--grid speed=1,2", &["--speed"]),
        ("--grid lr=1,fast", &["'fast'", "--lr"]),
        ("--grid lr", &["grid lr: there is no ="]),
        ("--grid lr=1e-3..1", &["lr is a range", "--random N"]),
        ("--grid lr=0.1 --grid lr=0.2", &["lr twice"]),
        ("--grid seed=1,2 --seeds 2", &["seed varies by"]),
        ("--grid batch=32,0", &["batch is 0"]),
        ("--grid lr=0.1 --random 0", &["seeds and random are 1 to"]),
        ("--grid clip=1,0", &["clip is 0"]),
    ] {
        place.fails(&format!("sweep --data data --device cpu {flags}"), 2, says);
    }
}

/// The only line of JSON that a command prints.
fn object(text: &str) -> Value {
    let mut all = lines(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

#[test]
fn bench_checks_and_times_every_launch() {
    let place = Place::new();
    let devices = devices();
    let flags: String = devices.iter().map(|device| format!(" --device {device}")).collect();
    let bench = object(&place.ok(&format!("bench --json --seconds 0.01 --batch 3,20{flags}")));
    assert_eq!(bench["kind"], "measurement");
    assert_eq!(bench["devices"].as_array().unwrap().len(), devices.len());
    for device in bench["devices"].as_array().unwrap() {
        let peak = &device["peak"];
        assert!(
            peak["gflops"].as_f64().unwrap() > 0.1 && peak["gigabytes_per_second"].as_f64().unwrap() > 0.1
        );
    }
    let plan = object(&place.ok("summary --plan --batch 20 --json"));
    assert_eq!(bench["batches"].as_array().unwrap().len(), 2);
    let at_20 = &bench["batches"][1];
    assert_eq!(at_20["batch"], 20);
    assert_eq!(at_20["ratios"].as_array().unwrap().len(), devices.len() - 1);
    for (one, device) in at_20["devices"].as_array().unwrap().iter().zip(&devices) {
        // The CPU twins agree with themselves to the bit.
        let gradients = one["difference"]["gradients"].as_f64().unwrap();
        assert!(if *device == "cpu" { gradients == 0.0 } else { gradients < 2e-3 });
        for step in ["train", "evaluate"] {
            let time = &one[step]["time"];
            let [low, high] = [0, 1].map(|i| time["quartiles_s"][i].as_f64().unwrap());
            let (least, median) = (time["least_s"].as_f64().unwrap(), time["median_s"].as_f64().unwrap());
            assert!(0.0 < least && least <= low && low <= median && median <= high, "{time}");
            let speed = one[step]["images_per_second"].as_f64().unwrap();
            assert!((speed * median / 20.0 - 1.0).abs() < 1e-9);
        }
        assert!(one["first_step_s"].as_f64().unwrap() >= one["train"]["time"]["least_s"].as_f64().unwrap());
        let launches = one["launches"].as_array().unwrap();
        let names =
            |list: &[Value], name: &dyn Fn(&Value) -> String| list.iter().map(name).collect::<Vec<_>>();
        assert_eq!(
            names(launches, &|launch| launch["launch"].as_str().unwrap().into()),
            names(plan["train"].as_array().unwrap(), &|launch| {
                let file = launch["shader"].as_str().unwrap();
                let stem = file.strip_prefix("shaders/").and_then(|file| file.strip_suffix(".wgsl")).unwrap();
                format!("{stem}:{}", launch["entry"].as_str().unwrap())
            })
        );
        for launch in launches {
            assert!(launch["time"]["samples"].as_u64().unwrap() >= 3, "{launch}");
            assert!(launch["share_of_roof"].as_f64().unwrap() > 0.0, "{launch}");
        }
    }
    assert!(bench["verdict"].as_str().unwrap().contains("a trained image at batch"));
    if devices.contains(&"gpu") {
        let line = "bench --json --seconds 0.01 --batch 3 --device gpu --no-timestamps";
        let one = object(&place.ok(line))["batches"][0]["devices"][0].clone();
        assert!(one["launches_timed_by"].as_str().unwrap().contains("repetitions"), "{one}");
        let launches = one["launches"].as_array().unwrap();
        let time = |launch: &Value| launch["time"]["median_s"].as_f64().unwrap();
        assert!(launches.iter().map(time).sum::<f64>() > 0.0, "{one}");
    }
}

#[test]
fn bench_says_in_the_end_what_is_faster() {
    let place = Place::new();
    let out = place.ok("bench --seconds 0.01 --batch 2 --device cpu");
    assert!(out.contains("measured peaks") && out.contains("optimizer:adam"), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("measured alone: CPU") && last.contains("a trained image at batch 2"), "{last}");
    // A network that does not take MNIST is timed on noise.
    fs::write(
        place.path("net.toml"),
        "name = \"rgb\"\ninput = { channels = 3, height = 9, width = 7 }\n\
         layers = [{ conv2d = { channels = 4, kernel = 3 } }, \"relu\", { linear = { outputs = 300 } }]\n",
    )
    .unwrap();
    let bench = object(&place.ok("bench --json --seconds 0.01 --batch 5 --device cpu --net net.toml"));
    assert!(bench["data"].as_str().unwrap().starts_with("noise"), "{bench}");
}

#[test]
fn bench_grows_and_draws_it() {
    let place = Place::new();
    let line = "bench --growth --seconds 0.01 --batch 4 --most-batch 8 --most-width 2 --device cpu";
    let bench = object(&place.ok(&format!("{line} --json --svg growth.svg")));
    let points = |i: usize| bench["growth"][i]["devices"][0]["points"].as_array().unwrap().clone();
    let numbers =
        |points: &[Value], key: &str| points.iter().map(|p| p[key].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(bench["growth"][0]["against"], "batch");
    assert_eq!(numbers(&points(0), "batch"), [1, 2, 4, 8]);
    assert_eq!(numbers(&points(1), "width"), [1, 2]);
    assert_eq!(numbers(&points(1), "batch"), [4, 4]);
    let bytes = numbers(&points(1), "bytes");
    assert!(bytes[0] < bytes[1], "{bytes:?}");
    assert!(points(0).iter().all(|point| point["images_per_second"].as_f64().unwrap() > 0.0));
    let svg = fs::read_to_string(place.path("growth.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.matches("<polyline").count() == 6, "{svg}");
    assert!(place.ok(line).contains("×2 at batch 4"));
}

#[test]
fn bench_models_gpus_and_says_that_it_is_a_model() {
    let place = Place::new();
    let says = "model, not a measurement";
    let list = place.ok("bench --model list");
    assert!(list.contains("NVIDIA RTX 4090") && list.contains("Apple M1") && list.contains(says), "{list}");
    assert!(place.ok("bench --model all").contains(says));
    let out = place.ok("bench --model 4090 --batch 64");
    assert!(out.contains("time = overhead + max(") && out.contains("conv_pool:backward"), "{out}");
    assert!(out.matches(says).count() >= 2, "{out}");
    let model = object(&place.ok("bench --model h100 --batch 64,1024 --json"));
    assert_eq!(model["kind"], says);
    let batches = model["estimates"][0]["batches"].as_array().unwrap();
    let speed = |i: usize| batches[i]["images_per_second"].as_f64().unwrap();
    assert!(speed(1) > 2.0 * speed(0), "{} and {}", speed(0), speed(1));
    place.fails("bench --model voodoo", 2, &["no model of \"voodoo\"", "NVIDIA H100 SXM"]);
    place.fails("bench --model apple", 2, &["Apple M1, Apple M3 Max"]);
    place.fails("bench --model list --growth", 2, &["--growth"]);
    place.fails("bench --seconds 0", 2, &["seconds is 0"]);
    place.fails("bench --svg x.svg", 2, &["--growth"]);
    place.fails("bench --device no-such-gpu", 4, &["no-such-gpu"]);
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
