//! `lenet check`, and the check before a device is trained on for the first time.

use std::fs;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::{Place, devices, object, text};

/// What `lenet check --quick` may take on a software adapter.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the program, and ends it where it takes too long.
fn bounded(place: &Place, line: &str) -> Output {
    let mut command = place.command(line);
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("lenet {line}: not done after {LIMIT:?}: {}", text(&output.stderr));
        }
        sleep(Duration::from_millis(50));
    }
    child.wait_with_output().unwrap()
}

/// The part of this name.
fn part<'a>(report: &'a Value, name: &str) -> &'a Value {
    let parts = report["parts"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no part {name}"))
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value > 0.0)
}

#[test]
fn a_device_is_checked_and_reported() {
    let place = Place::new();
    for device in devices() {
        let line = format!("check --quick --device {device} --report {device}.json");
        let output = bounded(&place, &line);
        let (out, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "lenet {line}: {out}{told}");
        assert!(out.contains("kernels: ") && out.contains("a launch more in a submission"), "{out}");
        let report = fs::read_to_string(place.path(&format!("{device}.json"))).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!((&report["kind"], &report["passed"]), (&"check".into(), &true.into()));
        for key in ["version", "date", "system", "processor", "device"] {
            assert!(!report[key].as_str().unwrap().is_empty(), "{key}: {report}");
        }
        assert!(report["fill"].as_u64() >= Some(256) && report["threads"].as_u64() > Some(0));
        let names: Vec<_> = report["parts"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
        assert_eq!(names, ["kernels", "presets", "run", "repeat", "lost device"]);
        for name in ["run", "repeat"] {
            assert_eq!(part(&report, name)["state"], "ok", "{report}");
        }
        assert_eq!(part(&report, "repeat")["worst"], 0.0);
        let compared = if device == "cpu" { "skipped" } else { "ok" };
        for name in ["kernels", "presets", "lost device"] {
            assert_eq!(part(&report, name)["state"], compared, "{name}: {report}");
        }
        if device != "cpu" {
            let shaders = part(&report, "kernels")["rows"].as_array().unwrap();
            assert_eq!(shaders.len(), lenet::kernels::SHADERS.len());
            assert!(shaders.iter().all(|row| positive(&row["cases"]) && positive(&row["elements"])));
            let worst = |name: &str| part(&report, name)["worst"].as_f64().unwrap();
            assert!(worst("kernels") > 0.0 && worst("kernels") <= 1.0, "{}", worst("kernels"));
            assert!(part(&report, "presets")["rows"].as_array().unwrap().len() >= 4);
            // Two backends never round alike over a hundred steps.
            assert!(worst("run") > 0.0 && worst("run") < 1e-3, "{}", worst("run"));
            let adapter = &report["adapter"];
            assert!(adapter["name"].is_string() && adapter["driver_info"].is_string());
            assert!(positive(&adapter["limits"]["max_buffer_size"]) && adapter["features"].is_object());
        }
        let figures = &report["figures"];
        assert!(positive(&figures["launch_overhead"]["seconds_a_launch"]), "{figures}");
        assert!(positive(&figures["peaks"]["gflops"]), "{figures}");
        let steps = figures["steps"].as_array().unwrap();
        assert!(steps.len() >= 2 && steps.iter().all(|step| positive(&step["images_per_second"])));
        assert!(figures["run"].is_null(), "a run to 99 % is not quick");
    }
}

#[test]
fn a_report_may_be_markdown() {
    let place = Place::new();
    let json = object(&text(&bounded(&place, "check --quick --device cpu --json --report r.md").stdout));
    assert_eq!(json["passed"], true);
    let report = fs::read_to_string(place.path("r.md")).unwrap();
    assert!(
        report.starts_with("# lenet check: passed\n") && report.contains("| part | result |"),
        "{report}"
    );
    let code = report.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(serde_json::from_str::<Value>(code).unwrap(), json);
    place.fails("check --report report.txt", 2, &["report.txt", ".json or an .md"]);
    place.fails("check --device no-such-gpu", 4, &["no-such-gpu"]);
}

#[test]
fn the_first_training_on_a_device_is_preceded_by_a_check() {
    let place = Place::new();
    place.small_data();
    // The folder's name on each operating system; a folder that cannot be made is a file.
    let cache = |name: &str| {
        let path = place.path(name);
        [("XDG_CACHE_HOME", path.clone()), ("LOCALAPPDATA", path.clone()), ("HOME", path)]
    };
    let train = |device: &str, check: &str, out: &str, folder: &str| {
        let line = format!("train --data data --steps 1 --device {device} --check {check} --out {out}");
        let output = place.command(&line).envs(cache(folder)).output().unwrap();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "lenet {line}: {told}");
        told.lines().find(|line| line.starts_with("checked: ")).map(String::from)
    };
    fs::write(place.path("file"), "").unwrap();
    for device in devices() {
        let checked = train(device, "always", &format!("{device}-a"), "cache");
        if device == "cpu" {
            // There is nothing to compare the twins with.
            assert_eq!(checked, None);
            continue;
        }
        assert!(checked.is_some_and(|line| line.ends_with("; remembered")));
        let adapter: Value = serde_json::from_str(&place.ok("info --json")).unwrap();
        let known = |folder: &str| fs::read(place.path(folder).join("lenet/checked.json"));
        if cfg!(target_os = "linux") {
            let known: Value = serde_json::from_slice(&known("cache").unwrap()).unwrap();
            let one = &known.as_array().unwrap()[0];
            assert_eq!(one["version"], env!("CARGO_PKG_VERSION"));
            let same = |adapter: &Value| {
                adapter["name"] == one["adapter"] && adapter["driver_info"] == one["driver_info"]
            };
            assert!(adapter["adapters"].as_array().unwrap().iter().any(same), "{one}");
            let checked = train(device, "always", "b", "file").unwrap();
            assert!(checked.contains("; not remembered: "), "{checked}");
        }
        // A software adapter is left alone unless it is asked for.
        let software = adapter["adapters"][0]["kind"] == "software on the CPU";
        assert_eq!(train(device, "auto", "c", "other").is_none(), software);
        assert_eq!(train(device, "never", "d", "third"), None);
        assert!(known("third").is_err());
    }
}
