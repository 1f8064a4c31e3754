//! `lenet summary`, `info`, `lr-find`, `sweep` and `bench`.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::common::project;
use crate::place::{Place, devices, lines, object, text};

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
        told.contains("run 1/2  lr 1e30  seed 0  step 2: the loss is not finite") && told.contains("run 2/2"),
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
    place.fails("bench --model apple", 2, &["Apple M1, Apple M2, Apple M3 Max"]);
    place.fails("bench --model list --growth", 2, &["--growth"]);
    place.fails("bench --seconds 0", 2, &["seconds is 0"]);
    place.fails("bench --svg x.svg", 2, &["--growth"]);
    place.fails("bench --device no-such-gpu", 4, &["no-such-gpu"]);
}
