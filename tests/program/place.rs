//! A folder for one test, the program in it, and what tests say about both.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use lenet::model::safetensors::{self, Tensors};
use serde_json::Value;

pub const FILES: [&str; 4] =
    ["checkpoint.safetensors", "history.jsonl", "model.safetensors", "settings.toml"];

/// A folder for one test, and the program run in it.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenet"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs what has to work; gives its stdout.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "lenet {line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs what has to fail with this code and one line that says all of these things.
    pub fn fails(&self, line: &str, code: i32, says: &[&str]) -> String {
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
    pub fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn tensors(&self, file: &str) -> Tensors {
        safetensors::decode(file, &fs::read(self.path(file)).unwrap()).unwrap().0
    }

    pub fn same_model(&self, one: &str, other: &str) {
        let [one, other] = [one, other].map(|dir| self.tensors(&format!("{dir}/model.safetensors")));
        assert!(one.len() == 10 && one.keys().eq(other.keys()));
        for (name, values) in &one {
            let differ =
                values.data.iter().zip(&other[name].data).filter(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differ.count(), 0, "values of {name} differ");
        }
    }

    /// A data set of the first images of MNIST, in the folder `data`.
    pub fn small_data(&self) {
        self.data("data", |label| label);
    }

    /// The same images with other labels.
    pub fn data(&self, dir: &str, label: fn(u8) -> u8) {
        let dir = self.path(dir);
        fs::create_dir_all(&dir).unwrap();
        let split = lenet::data::mnist().unwrap();
        for (part, data) in [("train", split.train.take(200)), ("t10k", split.test.take(100))] {
            let labels: Vec<u8> = data.labels.iter().map(|&old| label(old)).collect();
            fs::write(
                dir.join(format!("{part}-images-idx3-ubyte")),
                idx(&[28, 28], &data.images.all().unwrap()),
            )
            .unwrap();
            fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), idx(&[], &labels)).unwrap();
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn idx(sizes: &[usize], content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 1 + sizes.len() as u8];
    let count = content.len() / sizes.iter().product::<usize>();
    for size in [&[count], sizes].concat() {
        bytes.extend((size as u32).to_be_bytes());
    }
    bytes.extend(content);
    bytes
}

pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The devices to test on: the CPU, and the GPU if there is an adapter.
pub fn devices() -> Vec<&'static str> {
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

/// The only line of JSON that a command prints.
pub fn object(text: &str) -> Value {
    let mut all = lines(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}
