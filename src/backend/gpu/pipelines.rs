//! A plan's launches made ready: pipelines, each compiled once, and the buffers that they are bound to.

use std::collections::HashMap;

use super::Device;
use super::device::Caught;
use crate::error::Result;
use crate::kernels::shaders::{Access, Entry};
use crate::kernels::{Launch, SHADERS, Step, UNIFORM_BYTES};

/// What tells two pipelines apart.
pub(super) type Key = (&'static str, &'static str, Vec<(&'static str, u64)>);

pub(super) fn key(launch: &Launch) -> Key {
    let constants = launch.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect();
    (launch.shader.name, launch.entry.name, constants)
}

/// One launch of each pipeline.
pub(super) fn distinct(phases: [&[Launch]; 4]) -> HashMap<Key, &Launch> {
    phases.into_iter().flatten().map(|launch| (key(launch), launch)).collect()
}

/// The buffers that are bound as uniforms, and where the last such binding ends, in bytes.
pub(super) fn uniform_ends(phases: [&[Launch]; 4]) -> HashMap<usize, u64> {
    let mut ends = HashMap::new();
    for launch in phases.into_iter().flatten() {
        let stored = launch.entry.bindings.iter().filter(|info| info.access != Access::Step);
        for (info, (_, range)) in stored.zip(&launch.bindings) {
            if info.access == Access::Uniform {
                let end = 4 * range.start as u64 + UNIFORM_BYTES as u64;
                ends.entry(range.buffer.0).and_modify(|most: &mut u64| *most = end.max(*most)).or_insert(end);
            }
        }
    }
    ends
}

pub(super) async fn finish(device: &Device, caught: [Caught; 3]) -> Result<()> {
    for error in caught {
        if let Some(error) = error.await {
            return Err(device.error(&error));
        }
    }
    device.check()
}

/// Compiles every pipeline, on all cores where there are threads.
pub(super) async fn pipelines<'a>(
    device: &Device,
    wanted: HashMap<Key, &'a Launch>,
) -> Result<HashMap<Key, (wgpu::ComputePipeline, wgpu::BindGroupLayout)>> {
    let scopes = device.scopes();
    let mut modules = HashMap::new();
    for shader in SHADERS.iter().filter(|shader| wanted.keys().any(|key| key.0 == shader.name)) {
        let module = device.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(shader.file),
            source: wgpu::ShaderSource::Wgsl(shader.source.into()),
        });
        modules.insert(shader.name, module);
    }
    finish(device, scopes.pop()).await?;
    let make = |(key, launch): (Key, &'a Launch)| {
        // Error scopes belong to the thread that opened them.
        let scopes = device.scopes();
        let layout = layout(device, launch.entry);
        let pipeline_layout = device.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(launch.entry.name),
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&format!("{}:{}", launch.shader.name, launch.entry.name)),
            layout: Some(&pipeline_layout),
            module: &modules[launch.shader.name],
            entry_point: Some(launch.entry.name),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &launch.constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        (key, pipeline, layout, scopes.pop())
    };
    #[cfg(not(target_arch = "wasm32"))]
    let made: Vec<_> = {
        use rayon::prelude::*;
        wanted.into_par_iter().map(make).collect()
    };
    #[cfg(target_arch = "wasm32")]
    let made: Vec<_> = wanted.into_iter().map(make).collect();
    let mut pipelines = HashMap::new();
    for (key, pipeline, layout, caught) in made {
        finish(device, caught).await?;
        pipelines.insert(key, (pipeline, layout));
    }
    Ok(pipelines)
}

fn layout(device: &Device, entry: &Entry) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = entry
        .bindings
        .iter()
        .map(|info| wgpu::BindGroupLayoutEntry {
            binding: info.binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match info.access {
                    Access::Step | Access::Uniform => wgpu::BufferBindingType::Uniform,
                    Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: info.access == Access::Step,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(entry.name),
        entries: &entries,
    })
}

pub(super) fn bind(
    device: &Device,
    layout: &wgpu::BindGroupLayout,
    launch: &Launch,
    buffers: &[wgpu::Buffer],
    steps: &wgpu::Buffer,
) -> wgpu::BindGroup {
    let mut ranges = launch.bindings.iter();
    let entries: Vec<_> = launch
        .entry
        .bindings
        .iter()
        .filter_map(|info| {
            let resource = if info.access == Access::Step {
                wgpu::BufferBinding {
                    buffer: steps,
                    offset: 0,
                    size: wgpu::BufferSize::new(size_of::<Step>() as u64),
                }
            } else {
                // A launch's bindings follow the order of its entry's.
                let (_, range) = ranges.next()?;
                let words = if info.access == Access::Uniform { UNIFORM_BYTES / 4 } else { range.len };
                wgpu::BufferBinding {
                    buffer: &buffers[range.buffer.0],
                    offset: 4 * range.start as u64,
                    size: wgpu::BufferSize::new(4 * words as u64),
                }
            };
            Some(wgpu::BindGroupEntry {
                binding: info.binding,
                resource: wgpu::BindingResource::Buffer(resource),
            })
        })
        .collect();
    device.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(launch.entry.name),
        layout,
        entries: &entries,
    })
}
