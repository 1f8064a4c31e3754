//! Parses, validates and reflects every file in `shaders/`, so that a WGSL mistake fails the build with
//! its file, line and column, and so that the host can bind by WGSL name without naga at run time.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

use naga::compact::{KeepUnused, compact};
use naga::valid::{Capabilities, ValidationFlags, Validator};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&root).join("shaders");
    println!("cargo:rerun-if-changed={}", folder.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder shaders/ is part of the crate")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
        .collect();
    files.sort();
    let mut table =
        String::from("/// Every shader file, in alphabetical order.\npub static SHADERS: &[Shader] = &[\n");
    let mut failures = 0;
    for path in &files {
        println!("cargo:rerun-if-changed={}", path.display());
        let name = path.file_name().and_then(|name| name.to_str()).expect("shader names are ASCII");
        let source = fs::read_to_string(path).expect("a readable shader");
        match reflect(name, &source) {
            Ok(text) => table += &text,
            Err(message) => {
                eprintln!("{message}");
                failures += 1;
            }
        }
    }
    if failures > 0 {
        process::exit(1);
    }
    table += "];\n";
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("shaders.rs");
    fs::write(out, table).expect("OUT_DIR is writable");
}

/// One `Shader { … }` literal, or naga's message with file, line and column.
fn reflect(file: &str, source: &str) -> Result<String, String> {
    let at = format!("shaders/{file}");
    let module =
        naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string_with_path(source, &at))?;
    Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|error| error.emit_to_string_with_path(source, &at))?;
    let mut text = format!(
        "    Shader {{ name: {:?}, file: {at:?}, source: include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{at}\")), entries: &[\n",
        file.trim_end_matches(".wgsl"),
    );
    for entry in &module.entry_points {
        // What compaction leaves of a module with one entry point is what that entry point uses.
        let mut alone = module.clone();
        alone.entry_points.retain(|other| other.name == entry.name);
        compact(&mut alone, KeepUnused::No);
        let _ = write!(
            text,
            "        Entry {{ name: {:?}, workgroup_size: {:?}, bindings: &[",
            entry.name, entry.workgroup_size
        );
        let mut bindings: Vec<_> = alone
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let at = variable.binding?;
                let access = match variable.space {
                    naga::AddressSpace::Uniform if variable.name.as_deref() == Some("step") => "Step",
                    naga::AddressSpace::Uniform => "Uniform",
                    naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                        "ReadWrite"
                    }
                    _ => "Read",
                };
                Some((at.binding, variable.name.clone().unwrap_or_default(), access))
            })
            .collect();
        bindings.sort();
        for (binding, name, access) in bindings {
            let _ = write!(
                text,
                "BindingInfo {{ name: {name:?}, binding: {binding}, access: Access::{access} }}, "
            );
        }
        text += "], overrides: &[";
        for (_, item) in alone.overrides.iter() {
            let name = item.name.clone().ok_or_else(|| format!("{at}: overrides are named, not numbered"))?;
            let _ = write!(text, "Override {{ name: {name:?}, required: {} }}, ", item.init.is_none());
        }
        text += "] },\n";
    }
    text += "    ] },\n";
    Ok(text)
}
