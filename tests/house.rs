//! The house in order: what several shader files repeat is the same text, rooms use only rooms that stand before them,
//! nothing runs in circles, and no file is longer than it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with one of these endings, as a path from the project's root, with its text.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if endings.contains(&ending) {
                let name = path.strip_prefix(project()).expect("below the root").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found.sort();
    found
}

// ---------------------------------------------------------------------------------------------------------
// Copies

/// Names that stand in several shader files for different things, because each kernel has tiles of its own.
const OWN: [&str; 13] = [
    // How much of a picture or of its filters a kernel holds in registers, and how it walks over it.
    "Strip",
    "Tile",
    "Walk",
    "seen",
    "Taps",
    "lend",
    "Place",
    // The two halves of a backward launch, and how their tiles are stored.
    "weight_part",
    "input_part",
    "store_element",
    "store_weight_grad",
    // By its argument in activation.wgsl, by its value elsewhere.
    "slope",
    // The optimizer's metrics are atomic: a gradient that is not finite may set a flag at the same time.
    "sum_rows",
];

/// The structs, constants and functions of a WGSL text, by name and by the types that a function takes; without entry
/// points.
fn items(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let mut words = line.split([' ', '(', ':']);
        let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
        let entry = i > 0 && lines[i - 1].starts_with('@');
        if !["fn", "struct", "const"].contains(&kind) || entry {
            continue;
        }
        let len = if kind == "const" {
            1
        } else {
            lines[i..].iter().position(|line| *line == "}").expect("an end") + 1
        };
        let body = lines[i..i + len].join("\n");
        let types: Vec<&str> = match body.split_once(") ").filter(|_| kind == "fn") {
            Some((head, _)) => {
                head.split(", ").filter_map(|part| part.split_once(": ")).map(|(_, ty)| ty).collect()
            }
            None => Vec::new(),
        };
        found.push((format!("{name}({})", types.join(", ")), body));
    }
    found
}

/// What differs between texts that ought to be copies, in words.
fn differences(shaders: &[(String, String)]) -> Vec<String> {
    let mut first: BTreeMap<String, (&str, String)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (file, text) in shaders {
        for (name, body) in items(text) {
            if OWN.contains(&name.split('(').next().unwrap_or_default()) {
                continue;
            }
            let (other, known) = first.entry(name.clone()).or_insert((file, body.clone()));
            if let Some((a, b)) = known.lines().zip(body.lines()).find(|(a, b)| a != b) {
                problems.push(format!("{name}: {other} has `{a}`, {file} has `{b}`"));
            } else if *known != body {
                problems.push(format!("{name}: it is longer in {other} or in {file}"));
            }
        }
    }
    problems
}

/// An expression without what depends on how many numbers it is of.
fn plain(text: &str) -> String {
    let mut text = text.replace("vec2(", "vec(").replace("vec4(", "vec(");
    while let Some(start) = text.find("vec(") {
        let inner = &text[start + 4..];
        let end = inner.find(')').expect("a bracket");
        text = format!("{}{}{}", &text[..start], &inner[..end], &inner[end + 1..]);
    }
    text
}

/// The cases of the functions of this name, in every file: those of one activation must agree.
fn cases(shaders: &[(String, String)], functions: &[&str]) -> Vec<String> {
    let mut first: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (file, text) in shaders.iter().filter(|(file, _)| !file.ends_with("/activation.wgsl")) {
        for (name, body) in items(text) {
            if !functions.contains(&name.split('(').next().unwrap_or_default()) {
                continue;
            }
            for line in body.lines().filter(|line| line.contains("case ")) {
                let (case, value) = line.split_once(": {").expect("a case");
                let value = plain(value);
                let (other, known) = first.entry(case.into()).or_insert((file.clone(), value.clone()));
                if *known != value {
                    problems.push(format!("{case}: {other} has `{known}`, {file} has `{value}`"));
                }
            }
        }
    }
    problems
}

/// Each sum over a workgroup that is made by halves: the same lines, whatever the memory is called.
fn halvings(shaders: &[(String, String)]) -> Vec<String> {
    // Down to one sum, or to several that stay apart.
    let tree = ["half > 0u", "half >= apart"].map(|goes_on| {
        format!(
            "for (var half = 32u; {goes_on}; half /= 2u) {{\nworkgroupBarrier();\nif (invocation < half) {{\n"
        )
    });
    let mut problems = Vec::new();
    for (file, text) in shaders {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let starts = lines.iter().enumerate().filter(|(_, line)| line.starts_with("for (var half"));
        for (i, _) in starts {
            let added = lines[i + 3];
            let memory = added.split('[').next().unwrap_or_default();
            let sum = format!("{memory}[invocation] += {memory}[invocation + half];");
            // Moments merge, and do not add up.
            let merge =
                format!("{memory}[invocation] = merged({memory}[invocation], {memory}[invocation + half]);");
            let same =
                tree.contains(&(lines[i..i + 3].join("\n") + "\n")) && (added == sum || added == merge);
            if !same {
                problems.push(format!("{file}:{}: {}", i + 1, lines[i..i + 4].join(" ")));
            }
        }
    }
    problems
}

#[test]
fn what_shaders_repeat_is_the_same_text() {
    let shaders = files("shaders", &["wgsl"]);
    assert!(shaders.len() > 10);
    let slopes = ["slope", "derivative"];
    let problems =
        [differences(&shaders), cases(&shaders, &["activate"]), cases(&shaders, &slopes), halvings(&shaders)];
    assert_eq!(problems.concat(), Vec::<String>::new());
    // What is compared is there: each in several files.
    let standing = |name: &str| {
        let has = |text: &str| items(text).iter().any(|(item, _)| item.split('(').next() == Some(name));
        shaders.iter().filter(|(_, text)| has(text)).count()
    };
    for (name, least) in [("Step", 6), ("activate", 5), ("pcg4d", 2), ("label_of", 2), ("SCALED_TANH", 6)] {
        assert!(standing(name) >= least, "{name} stands in {} files", standing(name));
    }
}

#[test]
fn copies_that_differ_are_found() {
    let file = |name: &str, text: &str| (format!("shaders/{name}.wgsl"), text.to_string());
    let value = |expression: &str| {
        format!(
            "fn activate(z: f32) -> f32 {{\n    switch (A) {{\n        case TANH: {{ {expression} }}\n    }}\n}}\n"
        )
    };
    let step = |field: &str| format!("struct Step {{\n    {field}: u32,\n}}\n");
    let both = |one: String, other: String| [file("a", &one), file("b", &other)];
    assert!(differences(&both(step("cursor"), step("cursor"))).is_empty());
    assert_eq!(differences(&both(step("cursor"), step("count"))).len(), 1);
    assert!(cases(&both(value("return tanh(z);"), value("return tanh(z);")), &["activate"]).is_empty());
    assert_eq!(cases(&both(value("return tanh(z);"), value("return z;")), &["activate"]).len(), 1);
    let halves = |by: &str| {
        format!(
            "for (var half = 32u; half > 0u; half /= {by}u) {{\nworkgroupBarrier();\nif (invocation < half) {{\nm[invocation] += m[invocation + half];\n}}\n}}\n"
        )
    };
    assert!(halvings(&[file("a", &halves("2"))]).is_empty());
    assert_eq!(halvings(&[file("a", &halves("4"))]).len(), 1);
    assert_eq!(plain("max(z, vec4(0.0)) + vec2(1.0)"), "max(z, 0.0) + 1.0");
}

// ---------------------------------------------------------------------------------------------------------
// Rooms

/// The rooms of the library: each uses itself and those before it.
const ROOMS: [&str; 14] = [
    "error", "files", "network", "kernels", "twins", "data", "plan", "backend", "session", "check",
    "inspect", "read", "train", "model",
];

/// What may not be, though the order allows it: a plan is data and knows no one who computes, a kernel's geometry and
/// a reader of files nothing of each other.
const APART: [(&str, &str); 5] =
    [("plan", "twins"), ("plan", "data"), ("data", "kernels"), ("data", "network"), ("network", "files")];

/// A file's text without comments, and without what follows its first test module.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names of all paths that begin with `start`, those in braces one by one.
fn paths(code: &str, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let word =
        |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        if !rest.starts_with('{') {
            found.insert(word(rest));
            continue;
        }
        let (mut depth, mut fresh) = (0, false);
        for (i, c) in rest.char_indices() {
            match c {
                '{' => (depth, fresh) = (depth + 1, depth == 0),
                '}' => depth -= 1,
                ',' if depth == 1 => fresh = true,
                _ if fresh && !c.is_whitespace() => {
                    found.insert(word(&rest[i..]));
                    fresh = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// The arrows that climb: rooms used by others that stand before them.
fn climbing(sources: &[(String, String)]) -> Vec<String> {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut problems = Vec::new();
    for (file, text) in sources {
        let room = file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        let Some(own) = place(room) else { continue };
        for used in paths(&code(text), "crate::") {
            let apart = APART.contains(&(room, used.as_str()));
            if apart || place(&used).is_some_and(|there| there > own) {
                problems.push(format!("{file} uses {used}"));
            }
        }
    }
    problems
}

/// A circle among the modules of a room, if there is one, by what each takes from its siblings.
fn circle(room: &str, sources: &[(String, String)]) -> Option<Vec<String>> {
    let folder = format!("src/{room}/");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let inside: Vec<_> =
        sources.iter().filter_map(|(file, text)| Some((file.strip_prefix(&folder)?, text))).collect();
    let module = |path: &str| path.split(['/', '.']).next().unwrap_or_default().to_string();
    let names: BTreeSet<String> =
        inside.iter().map(|(path, _)| module(path)).filter(|name| name != "mod").collect();
    for (path, text) in &inside {
        let (own, code) = (module(path), code(text));
        // A file in a folder of its own has its siblings two steps up.
        let up = if path.contains('/') { "super::super::" } else { "super::" };
        let mut taken = paths(&code, &format!("crate::{room}::"));
        taken.extend(paths(&code, up));
        taken.retain(|name| names.contains(name) && *name != own);
        if own != "mod" {
            uses.entry(own).or_default().extend(taken);
        }
    }
    fn walk(at: &str, uses: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>) -> bool {
        if let Some(start) = way.iter().position(|name| name == at) {
            way.drain(..start);
            return true;
        }
        way.push(at.into());
        let round = uses.get(at).is_some_and(|next| next.iter().any(|next| walk(next, uses, way)));
        if !round {
            way.pop();
        }
        round
    }
    names.iter().find_map(|name| {
        let mut way = Vec::new();
        walk(name, &uses, &mut way).then_some(way)
    })
}

#[test]
fn rooms_use_only_rooms_before_them() {
    let sources = files("src", &["rs"]);
    assert_eq!(climbing(&sources), Vec::<String>::new());
    let library = fs::read_to_string(project().join("src/lib.rs")).expect("lib.rs");
    for room in ROOMS {
        let there = Path::new("src").join(room);
        assert!(there.is_dir() || there.with_extension("rs").is_file(), "{room} is no room");
        assert!(library.contains(&format!("mod {room};")), "lib.rs does not name {room}");
        assert_eq!(circle(room, &sources), None, "modules of {room}");
    }
}

#[test]
fn arrows_that_climb_and_circles_are_found() {
    let file = |name: &str, text: &str| (format!("src/{name}"), text.to_string());
    let climbs = |text: &str| climbing(&[file("kernels/a.rs", text)]).len();
    assert_eq!(climbs("use crate::error::Result;\n"), 0);
    assert_eq!(climbs("use crate::plan::Plan;\n"), 1);
    assert_eq!(climbs("use crate::{error::Result, backend::{Cpu, Gpu}, network::Shape};\n"), 1);
    assert_eq!(climbs("fn f() { crate::model::load() }\n"), 1);
    assert_eq!(
        climbs("// use crate::plan::Plan;\n#[cfg(test)]\nmod tests {\n    use crate::plan::Plan;\n}\n"),
        0
    );
    assert_eq!(climbing(&[file("plan/a.rs", "use crate::twins::Twin;")]).len(), 1);
    let two = |other: &str| [file("data/a.rs", "use super::b::B;"), file("data/b.rs", other)];
    assert_eq!(circle("data", &two("use super::c::C;")), None);
    assert_eq!(circle("data", &two("use super::a::A;")).map(|way| way.len()), Some(2));
}

// ---------------------------------------------------------------------------------------------------------
// Sizes

/// Lines that a file of hand-written code may have without a reason.
const LONGEST: usize = 500;

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut problems = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "web/src", "web/bindgen", "web/page"] {
        for (file, text) in files(folder, &["rs", "js"]) {
            if file.contains("/pkg/") {
                continue;
            }
            let head: Vec<&str> = text.lines().take(12).collect();
            if !head.first().is_some_and(|line| line.starts_with("//") || line.starts_with("#![doc")) {
                problems.push(format!("{file} does not say what it is for"));
            }
            let reason = head.iter().any(|line| line.starts_with("//") && line.contains("one file because"));
            let lines = text.lines().count();
            if lines > LONGEST && !reason {
                problems.push(format!("{file} has {lines} lines and no reason for it"));
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new());
}
