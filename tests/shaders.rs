//! Proves that every launch of every plan is valid WGSL with its constants applied, translates to SPIR-V, MSL
//! and HLSL, and stays within WebGPU's default limits.

use std::collections::{BTreeMap, BTreeSet};

use lenet::kernels::optimizer::{Optimizer, Rule};
use lenet::kernels::{Launch, shaders::Access};
use lenet::network::Network;
use lenet::plan::{Options, Phase, Plan, Target};
use naga::back::pipeline_constants::process_overrides;
use naga::back::{PipelineConstants, hlsl, msl, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

/// What the core specification of WebGPU promises everywhere, as wgpu has it.
fn limits() -> wgpu::Limits {
    wgpu::Limits::default()
}

/// An entry point with its constants.
type Key = (&'static str, &'static str, Vec<(&'static str, u64)>);

fn key(launch: &Launch) -> Key {
    let constants = launch.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect();
    (launch.shader.name, launch.entry.name, constants)
}

/// Every launch of every preset, with what it belongs to, once for each pipeline and grid.
fn launches() -> Vec<(String, Launch)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for preset in Network::presets() {
        let network = Network::preset(preset).expect("a preset");
        // As many as MNIST has, where so many fit a binding.
        let pixels = network.input.channels * network.input.height * network.input.width;
        let most = limits().max_storage_buffer_binding_size as usize / pixels / 2;
        let rules = Rule::ALL.into_iter().flat_map(|rule| [(rule, None), (rule, Some(1.0))]);
        let on_a_cpu = rules.map(|(rule, clip)| (Target::CPU, rule, clip));
        let on_gpus = [Target::INTEGRATED, Target::DISCRETE].map(|target| (target, Rule::Adam, None));
        for (target, rule, clip) in on_a_cpu.chain(on_gpus) {
            for batch in [1, 64, 128] {
                let options = Options {
                    batch,
                    optimizer: Optimizer::new(rule),
                    clip,
                    target,
                    train_images: most.min(60_000),
                    eval_images: most.min(10_000),
                    ..Options::default()
                };
                let plan = Plan::new(&network, &options)
                    .unwrap_or_else(|error| panic!("{preset} at batch {batch}: {error}"));
                for phase in [Phase::Train, Phase::Evaluate, Phase::Predict] {
                    let launches = plan.program.launches(phase);
                    assert!(!launches.is_empty(), "{preset}: {phase:?} has no launches");
                    for launch in launches {
                        if seen.insert((key(launch), launch.grid)) {
                            let what = format!(
                                "{preset} at batch {batch}, {}:{} {:?}",
                                launch.shader.file, launch.entry.name, launch.constants
                            );
                            all.push((what, launch.clone()));
                        }
                    }
                }
            }
        }
    }
    all
}

fn validate(module: &Module, what: &str) -> ModuleInfo {
    Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(module)
        .unwrap_or_else(|error| panic!("{what}: {:?}", error.into_inner()))
}

/// Bytes of the workgroup variables that an entry point uses.
fn workgroup_bytes(module: &Module, info: &ModuleInfo, entry: &str, what: &str) -> u32 {
    let index = module.entry_points.iter().position(|point| point.name == entry);
    let uses = info.get_entry_point(index.unwrap_or_else(|| panic!("{what}: no entry point")));
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).unwrap_or_else(|error| panic!("{what}: {error}"));
    module
        .global_variables
        .iter()
        .filter(|(handle, variable)| variable.space == AddressSpace::WorkGroup && !uses[*handle].is_empty())
        .map(|(_, variable)| layouter[variable.ty].to_stride())
        .sum()
}

#[test]
fn every_launch_is_valid_and_translates() {
    let limits = limits();
    let mut modules = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (what, launch) in launches() {
        if !seen.insert(key(&launch)) {
            continue;
        }
        let (module, info) = modules.entry(launch.shader.name).or_insert_with(|| {
            let source = launch.shader.source;
            let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|error| {
                panic!("{}", error.emit_to_string_with_path(source, launch.shader.file))
            });
            let info = validate(&module, launch.shader.file);
            (module, info)
        });
        let entry = launch.entry.name;
        let constants: PipelineConstants =
            launch.constants.iter().map(|&(name, value)| (name.to_string(), value)).collect();
        let (made, made_info) =
            process_overrides(module, info, Some((ShaderStage::Compute, entry)), &constants)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
        validate(&made, &what);

        let bytes = workgroup_bytes(&made, &made_info, entry, &what);
        let most = limits.max_compute_workgroup_storage_size;
        assert!(bytes <= most, "{what}: {bytes} bytes of workgroup memory, allowed {most}");
        let point = made.entry_points.iter().find(|point| point.name == entry).expect("the entry point");
        assert_eq!(point.workgroup_size, launch.entry.workgroup_size, "{what}: build.rs found another size");

        let options = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into() };
        let words = spv::write_vec(&made, &made_info, &spv::Options::default(), Some(&options))
            .unwrap_or_else(|error| panic!("{what}: SPIR-V: {error}"));
        assert_eq!(words.first(), Some(&0x0723_0203), "{what}: SPIR-V's magic number");

        let options = msl::PipelineOptions {
            entry_point: Some((ShaderStage::Compute, entry.into())),
            ..Default::default()
        };
        let (text, names) = msl::write_string(&made, &made_info, &msl::Options::default(), &options)
            .unwrap_or_else(|error| panic!("{what}: MSL: {error}"));
        check_names(&text, &names.entry_point_names, &what);

        let mut text = String::new();
        let options = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())) };
        let names = hlsl::Writer::new(&mut text, &hlsl::Options::default(), &options)
            .write(&made, &made_info, None)
            .unwrap_or_else(|error| panic!("{what}: HLSL: {error}"));
        check_names(&text, &names.entry_point_names, &what);
    }
    assert!(seen.len() > 50, "only {} pipelines were looked at", seen.len());
}

/// A translation has the one function that was asked for.
fn check_names<E: std::fmt::Debug>(text: &str, names: &[Result<String, E>], what: &str) {
    let found: Vec<&String> = names.iter().filter_map(|name| name.as_ref().ok()).collect();
    assert!(!found.is_empty(), "{what}: {names:?}");
    assert!(
        found.iter().all(|name| text.contains(name.as_str())),
        "{what}: no function {found:?} in the text"
    );
}

#[test]
fn every_launch_stays_within_the_default_limits() {
    let limits = limits();
    // The numbers that the kernels were written for; a newer wgpu that promises less must be noticed.
    assert!(limits.max_compute_workgroup_storage_size >= 16 << 10);
    assert!(limits.max_compute_invocations_per_workgroup >= 256);
    assert!(limits.max_storage_buffers_per_shader_stage >= 8);
    assert!(limits.max_compute_workgroups_per_dimension >= 65_535);
    let sides = [
        limits.max_compute_workgroup_size_x,
        limits.max_compute_workgroup_size_y,
        limits.max_compute_workgroup_size_z,
    ];
    for (what, launch) in launches() {
        let size = launch.entry.workgroup_size;
        let invocations: u32 = size.iter().product();
        let most = limits.max_compute_invocations_per_workgroup;
        assert!((1..=most).contains(&invocations), "{what}: {invocations} invocations, allowed {most}");
        assert!(size.iter().zip(sides).all(|(&n, most)| n <= most), "{what}: {size:?}, allowed {sides:?}");
        let buffers = |uniform: bool| {
            let kind = |access| (access == Access::Step || access == Access::Uniform) == uniform;
            launch.entry.bindings.iter().filter(|info| kind(info.access)).count() as u32
        };
        let most = limits.max_storage_buffers_per_shader_stage;
        assert!(buffers(false) <= most, "{what}: {} storage buffers, allowed {most}", buffers(false));
        let most = limits.max_dynamic_uniform_buffers_per_pipeline_layout;
        assert!(buffers(true) <= most, "{what}: {} uniform buffers, allowed {most}", buffers(true));
        for info in launch.entry.bindings {
            let most = limits.max_bindings_per_bind_group;
            assert!(info.binding < most, "{what}: binding {} of {}, allowed {most}", info.binding, info.name);
        }
        let most = limits.max_compute_workgroups_per_dimension;
        assert!(
            launch.grid.iter().all(|n| (1..=most).contains(n)),
            "{what}: a grid of {:?}, allowed 1 to {most}",
            launch.grid
        );
        for (name, range) in &launch.bindings {
            let (bytes, most) = (4 * range.len as u64, limits.max_storage_buffer_binding_size);
            assert!(bytes <= most, "{what}: {name} is bound with {bytes} bytes, allowed {most}");
            let alignment = limits.min_storage_buffer_offset_alignment as usize;
            assert_eq!(4 * range.start % alignment, 0, "{what}: {name} starts at float {}", range.start);
        }
    }
}
