//! Digits and filters out of the trainer's own buffers, as shapes for `egui`.

use egui::{PaintCallbackInfo, Rect, Shape};
use egui_wgpu::{Callback, CallbackResources, CallbackTrait};
use lenet::backend::Gpu;
use lenet::plan::Plan;

/// What draws the pictures of one buffer.
#[derive(Clone)]
struct Source {
    pipeline: wgpu::RenderPipeline,
    bindings: wgpu::BindGroup,
}

impl Source {
    /// Square pictures of a `width` out of a buffer, drawn by `{entry}_vertex` and `{entry}_fragment`.
    fn new(
        device: &wgpu::Device,
        format: wgpu::TextureFormat,
        entry: &str,
        width: usize,
        buffer: &wgpu::Buffer,
    ) -> Source {
        let module = device.create_shader_module(wgpu::include_wgsl!("pictures.wgsl"));
        let compilation_options =
            wgpu::PipelineCompilationOptions { constants: &[("width", width as f64)], ..Default::default() };
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some(entry),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some(&format!("{entry}_vertex")),
                compilation_options: compilation_options.clone(),
                buffers: &[],
            },
            primitive: wgpu::PrimitiveState {
                topology: wgpu::PrimitiveTopology::TriangleStrip,
                ..Default::default()
            },
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some(&format!("{entry}_fragment")),
                compilation_options,
                targets: &[Some(format.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
        });
        Source { pipeline, bindings }
    }

    /// The picture that begins at `first`, an index into the buffer.
    fn shape(&self, rect: Rect, first: usize) -> Shape {
        Callback::new_paint_callback(rect, Picture { source: self.clone(), first: first as u32 }).into()
    }
}

struct Picture {
    source: Source,
    first: u32,
}

impl CallbackTrait for Picture {
    fn paint(&self, _: PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, _: &CallbackResources) {
        pass.set_pipeline(&self.source.pipeline);
        pass.set_bind_group(0, &self.source.bindings, &[]);
        pass.draw(0..4, self.first..self.first + 1);
    }
}

/// The test pictures and the first layer's filters.
pub struct Pictures {
    digits: Source,
    /// Pixels of a test picture.
    pixels: usize,
    filters: Source,
    /// Where each channel's first filter begins in the parameters.
    channels: Vec<usize>,
}

impl Pictures {
    /// Pictures of `width` by `width` pixels, and the filters of a plan whose first layer is a convolution.
    pub fn new(
        device: &wgpu::Device,
        format: wgpu::TextureFormat,
        plan: &Plan,
        gpu: &Gpu,
        width: usize,
    ) -> Pictures {
        let (channels, side) = match plan.tensors.first().map(|first| (first, &first.parameter.shape[..])) {
            Some((first, &[channels, inputs, height, width])) => {
                ((0..channels).map(|c| first.offset + c * inputs * height * width).collect(), width)
            }
            _ => (Vec::new(), 1),
        };
        Pictures {
            digits: Source::new(device, format, "digit", width, gpu.buffer(plan.eval_data.images)),
            pixels: width * width,
            filters: Source::new(device, format, "filter", side, gpu.buffer(plan.parameters)),
            channels,
        }
    }

    /// A test picture.
    pub fn digit(&self, rect: Rect, index: usize) -> Shape {
        self.digits.shape(rect, index * self.pixels)
    }

    /// Filters of the first layer, one for each of its channels.
    pub fn filters(&self) -> usize {
        self.channels.len()
    }

    /// A channel's filter.
    pub fn filter(&self, rect: Rect, channel: usize) -> Shape {
        self.filters.shape(rect, self.channels[channel])
    }
}
