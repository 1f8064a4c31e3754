//! What happens to a run that ends early: it goes on as if it had not, and only where it may.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lenet::model::safetensors;

use crate::place::{FILES, Place, devices, lines, text};

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

/// Waits until the history of a run under way has a line.
fn wait_for_steps(place: &Place, run: &str, child: &mut Child) {
    let (history, since) = (place.path(run).join("history.jsonl"), Instant::now());
    while !fs::read_to_string(&history).is_ok_and(|text| text.contains("\"step\":")) {
        assert!(since.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
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
    wait_for_steps(&place, "cut", &mut child);
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
fn a_run_under_way_has_no_second_writer() {
    let place = Place::new();
    let mut child = place
        .command("train --batch 32 --epochs 1000 --schedule constant --device cpu --out run")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_steps(&place, "run", &mut child);
    let busy = "history.jsonl: another process is writing to it";
    place.fails("train --resume run", 1, &[busy]);
    place.fails("train --resume run/checkpoint.safetensors --steps 9 --out run", 1, &[busy]);
    place.fails("train --steps 1 --device cpu --out run", 2, &["run exists and is not empty"]);
    assert!(child.try_wait().unwrap().is_none());
    // Killed, it has no time to let go of anything.
    child.kill().unwrap();
    child.wait().unwrap();
    place.ok("train --resume run --steps 1");
    assert_eq!(place.names("run"), FILES);
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
        // Squares of gradients overflow before they do.
        place.fails(
            &format!("train --data data --optimizer adam --lr 1e5 --steps 200 --device {device} --out moments-{device}"),
            5,
            &["lenet: step ", "is not finite", "of step 0, is kept"],
        );
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
