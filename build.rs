//! Parses, validates and reflects every file in `shaders/`, so that a WGSL mistake fails the build with its file,
//! line and column, and writes what the crate knows of them:
//!
//! - `shaders.rs`: the table of files with their entry points, and for each file and entry typed structs of its
//!   constants and of its buffers, so that a missing or misspelt one does not compile;
//! - `twins.rs`: which CPU twin computes an entry point, so that an entry without a twin does not compile.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

use naga::compact::{KeepUnused, compact};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Module, Scalar, ScalarKind, StorageAccess, TypeInner};

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
    let mut shaders = Vec::new();
    let mut failures = 0;
    for path in &files {
        println!("cargo:rerun-if-changed={}", path.display());
        let name = path.file_stem().and_then(|name| name.to_str()).expect("shader names are ASCII");
        let source = fs::read_to_string(path).expect("a readable shader");
        match Shader::reflect(name, &source) {
            Ok(shader) => shaders.push(shader),
            Err(message) => {
                eprintln!("{message}");
                failures += 1;
            }
        }
    }
    if failures > 0 {
        process::exit(1);
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let write = |name: &str, text: String| {
        fs::write(Path::new(&out).join(name), text).expect("OUT_DIR is writable");
    };
    write("shaders.rs", table(&shaders) + &shaders.iter().enumerate().map(structs).collect::<String>());
    write("twins.rs", twins(&shaders));
}

/// A WGSL file.
struct Shader {
    name: String,
    entries: Vec<Entry>,
    /// The constants of all entries.
    constants: Vec<Constant>,
}

/// An entry point and what it uses.
struct Entry {
    name: String,
    workgroup_size: [u32; 3],
    bindings: Vec<Binding>,
    constants: Vec<Constant>,
}

/// A pipeline-overridable constant that the host gives; those computed from others are the shader's own.
#[derive(Clone, PartialEq)]
struct Constant {
    name: String,
    kind: ScalarKind,
}

struct Binding {
    number: u32,
    name: String,
    /// A variant of the crate's `Access`.
    access: &'static str,
    /// Its words, as Rust has them.
    words: &'static str,
}

impl Shader {
    /// What a file holds, or naga's message with file, line and column.
    fn reflect(name: &str, source: &str) -> Result<Shader, String> {
        let at = format!("shaders/{name}.wgsl");
        let module = naga::front::wgsl::parse_str(source)
            .map_err(|error| error.emit_to_string_with_path(source, &at))?;
        Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .map_err(|error| error.emit_to_string_with_path(source, &at))?;
        let entries = module.entry_points.iter().map(|entry| {
            // What compaction leaves of a module with one entry point is what that entry point uses.
            let mut alone = module.clone();
            alone.entry_points.retain(|other| other.name == entry.name);
            compact(&mut alone, KeepUnused::No);
            Ok(Entry {
                name: entry.name.clone(),
                workgroup_size: entry.workgroup_size,
                bindings: bindings(&alone),
                constants: constants(&alone).map_err(|problem| format!("{at}: {problem}"))?,
            })
        });
        let entries: Vec<Entry> = entries.collect::<Result<_, String>>()?;
        let mut all: Vec<Constant> = Vec::new();
        for constant in entries.iter().flat_map(|entry| &entry.constants) {
            if !all.contains(constant) {
                all.push(constant.clone());
            }
        }
        Ok(Shader { name: name.into(), entries, constants: all })
    }
}

/// The buffers of group 0, in the order of their numbers.
fn bindings(module: &Module) -> Vec<Binding> {
    let mut bindings: Vec<Binding> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let access = match variable.space {
                AddressSpace::Uniform if variable.name.as_deref() == Some("step") => "Step",
                AddressSpace::Uniform => "Uniform",
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => "ReadWrite",
                _ => "Read",
            };
            let floats = kind(module, variable.ty) == Some(ScalarKind::Float);
            Some(Binding {
                number: variable.binding?.binding,
                name: variable.name.clone().unwrap_or_default(),
                access,
                words: if floats { "f32" } else { "u32" },
            })
        })
        .collect();
    bindings.sort_by_key(|binding| binding.number);
    bindings
}

/// What the elements of a type are, if all are alike.
fn kind(module: &Module, ty: naga::Handle<naga::Type>) -> Option<ScalarKind> {
    match module.types[ty].inner {
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } | TypeInner::Atomic(scalar) => {
            Some(scalar.kind)
        }
        TypeInner::Array { base, .. } => kind(module, base),
        _ => None,
    }
}

/// The constants that the host gives, in the file's order.
fn constants(module: &Module) -> Result<Vec<Constant>, String> {
    let given = module.overrides.iter().filter(|(_, item)| {
        item.init.is_none_or(|init| matches!(module.global_expressions[init], Expression::Literal(_)))
    });
    given
        .map(|(_, item)| {
            let name = item.name.clone().ok_or("overrides are named, not numbered")?;
            match module.types[item.ty].inner {
                TypeInner::Scalar(Scalar { kind, .. }) => Ok(Constant { name, kind }),
                _ => Err(format!("the override {name} is no scalar")),
            }
        })
        .collect()
}

impl Constant {
    fn field(&self) -> String {
        self.name.to_lowercase()
    }

    /// The field's type.
    fn rust(&self) -> &'static str {
        match self.kind {
            ScalarKind::Bool => "bool",
            ScalarKind::Float => "f32",
            ScalarKind::Sint => "i32",
            _ => "usize",
        }
    }

    /// The field's value as WebGPU takes it, an `f64`.
    fn to_number(&self) -> String {
        let value = format!("self.{}", self.field());
        match self.kind {
            ScalarKind::Bool => format!("f64::from(u8::from({value}))"),
            ScalarKind::Float | ScalarKind::Sint => format!("f64::from({value})"),
            _ => format!("{value} as f64"),
        }
    }

    /// And back.
    fn of_number(&self) -> String {
        let value = format!("launch.constant({:?})", self.name);
        match self.kind {
            ScalarKind::Bool => format!("{value} != 0.0"),
            _ => format!("{value} as {}", self.rust()),
        }
    }
}

/// The table of all files.
fn table(shaders: &[Shader]) -> String {
    let mut text =
        String::from("/// Every shader file, in alphabetical order.\npub static SHADERS: &[Shader] = &[\n");
    for shader in shaders {
        let file = format!("shaders/{}.wgsl", shader.name);
        let _ = writeln!(
            text,
            "    Shader {{ name: {:?}, file: {file:?}, \
             source: include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{file}\")), entries: &[",
            shader.name,
        );
        for entry in &shader.entries {
            let _ = write!(
                text,
                "        Entry {{ name: {:?}, workgroup_size: {:?}, bindings: &[",
                entry.name, entry.workgroup_size
            );
            for Binding { number, name, access, .. } in &entry.bindings {
                let _ = write!(
                    text,
                    "BindingInfo {{ name: {name:?}, binding: {number}, access: Access::{access} }}, "
                );
            }
            let names: Vec<&str> = entry.constants.iter().map(|constant| constant.name.as_str()).collect();
            let _ = writeln!(text, "], overrides: &{names:?} }},");
        }
        text += "    ] },\n";
    }
    text + "];\n"
}

/// A file's module: the struct of all its constants, and a module for each entry.
fn structs((at, shader): (usize, &Shader)) -> String {
    let name = &shader.name;
    let mut text = format!(
        "\n/// The constants and buffers of `shaders/{name}.wgsl`, entry by entry.\npub mod {name} {{\n\
         use crate::kernels::{{Constants as List, Launch, Range, SHADERS, Slots}};\nuse crate::error::Result;\n\n\
         /// The constants of all entries of the file.\n"
    );
    text += &fields(&shader.constants);
    for (number, entry) in shader.entries.iter().enumerate() {
        let _ = write!(
            text,
            "\n/// `{}` of `shaders/{name}.wgsl`.\n#[allow(clippy::module_inception)]\npub mod {} {{\nuse super::*;\n\n/// The constants that it uses.\n",
            entry.name, entry.name
        );
        text += &fields(&entry.constants);
        text +=
            "\nimpl From<super::Constants> for Constants {\nfn from(all: super::Constants) -> Constants {\n";
        let own: Vec<String> = entry.constants.iter().map(Constant::field).collect();
        let copies: Vec<String> = own.iter().map(|field| format!("{field}: all.{field}")).collect();
        let _ = write!(text, "let _ = all;\nConstants {{ {} }}\n}}\n}}\n", copies.join(", "));
        text += "\nimpl Constants {\n/// Those of a launch of this entry.\npub fn of(launch: &Launch) -> Constants {\n";
        let read =
            entry.constants.iter().map(|constant| format!("{}: {}", constant.field(), constant.of_number()));
        let read: Vec<String> = read.collect();
        let _ = write!(text, "let _ = launch;\nConstants {{ {} }}\n}}\n", read.join(", "));
        text += "\nfn list(&self) -> List {\nvec![";
        for constant in &entry.constants {
            let _ = write!(text, "({:?}, {}), ", constant.name, constant.to_number());
        }
        text += "]\n}\n}\n";
        text += &buffers(entry);
        let _ = write!(
            text,
            "\n/// One dispatch of it, of so many workgroups and floating-point operations.\n///\n/// # Errors\n\
             /// Those of [`Launch`]: a grid that WebGPU refuses, or ranges that may not be bound together.\n\
             pub fn launch(constants: impl Into<Constants>, bindings: Bindings, grid: [usize; 3], flop: u64) -> \
             Result<Launch> {{\nLaunch::new((&SHADERS[{at}], &SHADERS[{at}].entries[{number}]), \
             constants.into().list(), grid, bindings.list(), flop)\n}}\n}}\n"
        );
    }
    text + "}\n"
}

/// The struct `Constants` with a field for each.
fn fields(constants: &[Constant]) -> String {
    let mut text = String::from("#[derive(Debug, Clone, Copy, PartialEq)]\npub struct Constants {\n");
    for constant in constants {
        let (name, field, rust) = (&constant.name, constant.field(), constant.rust());
        let _ = write!(text, "/// `{name}`.\npub {field}: {rust},\n");
    }
    text + "}\n"
}

/// The structs `Bindings`, of ranges, and `Buffers`, of what a twin gets of them.
fn buffers(entry: &Entry) -> String {
    let own: Vec<&Binding> = entry.bindings.iter().filter(|binding| binding.access != "Step").collect();
    let mut text = String::from(
        "\n/// The ranges that it is bound to.\n#[derive(Debug, Clone, Copy, PartialEq, Eq)]\npub struct Bindings {\n",
    );
    for Binding { name, .. } in &own {
        let _ = write!(text, "/// `{name}`.\npub {name}: Range,\n");
    }
    text += "}\n\nimpl Bindings {\nfn list(&self) -> Vec<(&'static str, Range)> {\nvec![";
    for Binding { name, .. } in &own {
        let _ = write!(text, "({name:?}, self.{name}), ");
    }
    text +=
        "]\n}\n}\n\n/// Its buffers, as its twin gets them.\n#[derive(Debug)]\npub struct Buffers<'a> {\n";
    for Binding { name, access, words, .. } in &own {
        let mutable = if *access == "ReadWrite" { "mut " } else { "" };
        let _ = write!(text, "/// `{name}`.\npub {name}: &'a {mutable}[{words}],\n");
    }
    text += "}\n\nimpl<'a> Buffers<'a> {\n/// Takes them out of a launch's.\npub fn of(slots: &mut Slots<'a>) -> \
             Buffers<'a> {\nBuffers { ";
    for Binding { name, access, words, .. } in &own {
        let mutable = if *access == "ReadWrite" { "_mut" } else { "" };
        let _ = write!(text, "{name}: slots.{words}{mutable}({name:?}), ");
    }
    text + "}\n}\n}\n"
}

/// The function that gives an entry's twin.
fn twins(shaders: &[Shader]) -> String {
    let mut text = String::from(
        "/// The twin of a launch's entry point, made for its constants.\n\
         pub(crate) fn specialise(launch: &Launch) -> Twin {\n\
         match (launch.shader.name, launch.entry.name) {\n",
    );
    for shader in shaders {
        for entry in &shader.entries {
            let (shader, entry) = (&shader.name, &entry.name);
            let _ = write!(
                text,
                "({shader:?}, {entry:?}) => {{\nuse crate::kernels::shaders::{shader}::{entry}::{{Buffers, \
                 Constants}};\nlet twin = {shader}::{entry}(Constants::of(launch));\n\
                 Box::new(move |slots, step| twin(Buffers::of(slots), step))\n}}\n"
            );
        }
    }
    text + "(shader, entry) => panic!(\"{shader}:{entry} is no entry point of this crate\"),\n}\n}\n"
}
