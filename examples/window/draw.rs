//! Quads on the device that trains: fills, text, curves, and digits and filters out of the trainer's own buffers.

use lenet::backend::Gpu;
use lenet::plan::Plan;

use crate::font;

/// The canvas that everything is laid out on; the window shows it as large as it fits.
pub const CANVAS: [f32; 2] = [960.0, 600.0];
/// The colour of the window where there is nothing.
pub const GROUND: [u8; 4] = [16, 18, 24, 255];
/// Points that all curves together may have.
pub const POINTS: usize = 4096;
const QUADS: usize = 2048;

/// A rectangle `[x, y, width, height]` of the canvas and what is in it; see `window.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Quad {
    rect: [f32; 4],
    what: [u32; 3],
    colour: [u8; 4],
}

/// What one frame shows.
#[derive(Default)]
pub struct Scene {
    quads: Vec<Quad>,
    points: Vec<f32>,
}

impl Scene {
    fn add(&mut self, rect: [f32; 4], what: [u32; 3], [r, g, b]: [u8; 3]) {
        self.quads.push(Quad { rect, what, colour: [r, g, b, 255] });
    }

    /// A rectangle of one colour.
    pub fn fill(&mut self, rect: [f32; 4], colour: [u8; 3]) {
        self.add(rect, [0, 0, 0], colour);
    }

    /// A line of text in letters of 10 by 14, 12 apart.
    pub fn text(&mut self, [x, y]: [f32; 2], colour: [u8; 3], text: &str) {
        for (i, letter) in text.chars().enumerate() {
            if let Some(rows) = font::rows(letter) {
                let word = |rows: &[u32]| rows.iter().rev().fold(0, |word, row| word << 5 | row);
                let what = [1, word(&rows[..4]), word(&rows[4..])];
                self.add([x + 12.0 * i as f32, y, 10.0, 14.0], what, colour);
            }
        }
    }

    /// A square test picture: its first pixel in the buffer and its width.
    pub fn digit(&mut self, rect: [f32; 4], first: usize, width: usize, colour: [u8; 3]) {
        self.add(rect, [2, first as u32, width as u32], colour);
    }

    /// A square filter: its first parameter in the buffer and its width.
    pub fn filter(&mut self, rect: [f32; 4], first: usize, width: usize) {
        self.add(rect, [3, first as u32, width as u32], [255; 3]);
    }

    /// Points from 0, the bottom, to 1, evenly over the rectangle.
    pub fn curve(&mut self, rect: [f32; 4], colour: [u8; 3], points: impl Iterator<Item = f32>) {
        let first = self.points.len();
        self.points.extend(points.map(|point| point.clamp(0.0, 1.0)));
        self.points.truncate(POINTS);
        self.add(rect, [4, first as u32, (self.points.len() - first) as u32], colour);
    }
}

/// The pipeline and the buffers of the picture.
pub struct Painter {
    device: wgpu::Device,
    queue: wgpu::Queue,
    format: wgpu::TextureFormat,
    pipeline: wgpu::RenderPipeline,
    view: wgpu::Buffer,
    quads: wgpu::Buffer,
    points: wgpu::Buffer,
    bindings: wgpu::BindGroup,
    scene: Scene,
}

impl Painter {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, format: wgpu::TextureFormat) -> Painter {
        let module = device.create_shader_module(wgpu::include_wgsl!("window.wgsl"));
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("window"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("vertex"),
                compilation_options: Default::default(),
                buffers: &[Some(wgpu::VertexBufferLayout {
                    array_stride: size_of::<Quad>() as u64,
                    step_mode: wgpu::VertexStepMode::Instance,
                    attributes: &wgpu::vertex_attr_array![0 => Float32x4, 1 => Uint32x3, 2 => Unorm8x4],
                })],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("fragment"),
                compilation_options: Default::default(),
                targets: &[Some(wgpu::ColorTargetState {
                    format,
                    blend: Some(wgpu::BlendState::ALPHA_BLENDING),
                    write_mask: wgpu::ColorWrites::ALL,
                })],
            }),
            multiview_mask: None,
            cache: None,
        });
        let buffer = |label, size: usize, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: size as u64,
                usage: usage | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let view = buffer("view", 16, wgpu::BufferUsages::UNIFORM);
        let quads = buffer("quads", QUADS * size_of::<Quad>(), wgpu::BufferUsages::VERTEX);
        let points = buffer("points", 4 * POINTS, wgpu::BufferUsages::STORAGE);
        // Until there is a trainer, no quad reads the other two.
        let bindings = bind(device, &pipeline, &view, [&points, &points, &points]);
        Painter {
            device: device.clone(),
            queue: queue.clone(),
            format,
            pipeline,
            view,
            quads,
            points,
            bindings,
            scene: Scene::default(),
        }
    }

    /// From now on, digits and filters come from this plan's buffers.
    pub fn show(&mut self, plan: &Plan, gpu: &Gpu) {
        let buffers = [gpu.buffer(plan.eval_data.images), gpu.buffer(plan.parameters), &self.points];
        self.bindings = bind(&self.device, &self.pipeline, &self.view, buffers);
    }

    /// Takes the next frame's scene.
    pub fn set(&mut self, scene: Scene) {
        self.scene = scene;
        self.scene.quads.truncate(QUADS);
    }

    /// Draws the scene, as large as it fits.
    pub fn draw(&self, texture: &wgpu::Texture) {
        let size = [texture.width() as f32, texture.height() as f32];
        let zoom = (size[0] / CANVAS[0]).min(size[1] / CANVAS[1]);
        let scale = [2.0 * zoom / size[0], -2.0 * zoom / size[1]];
        let view = [scale[0], scale[1], -0.5 * CANVAS[0] * scale[0], -0.5 * CANVAS[1] * scale[1]];
        self.queue.write_buffer(&self.view, 0, bytemuck::cast_slice(&view));
        self.queue.write_buffer(&self.quads, 0, bytemuck::cast_slice(&self.scene.quads));
        self.queue.write_buffer(&self.points, 0, bytemuck::cast_slice(&self.scene.points));
        let target = texture.create_view(&Default::default());
        let [r, g, b, _] = GROUND.map(|part| f64::from(part) / 255.0);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &target,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(wgpu::Color { r, g, b, a: 1.0 }),
                    store: wgpu::StoreOp::Store,
                },
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        pass.set_vertex_buffer(0, self.quads.slice(..));
        pass.draw(0..6, 0..self.scene.quads.len() as u32);
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    /// Hands a frame to the window.
    pub fn present(&self, frame: wgpu::SurfaceTexture) {
        self.queue.present(frame);
    }

    /// The scene as a picture of the canvas' size, for when the window closes: this waits for the device.
    pub fn picture(&self) -> Result<image::RgbaImage, String> {
        let [width, height] = CANVAS.map(|side| side as u32);
        let size = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("screenshot"),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: self.format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        self.draw(&texture);
        // 960 pixels of four bytes are a multiple of the 256 that a copy asks for.
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("screenshot"),
            size: u64::from(4 * width * height),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let layout =
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * width), rows_per_image: None };
        encoder.copy_texture_to_buffer(
            texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo { buffer: &staging, layout },
            size,
        );
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| ());
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| error.to_string())?;
        let view = staging.get_mapped_range(..).map_err(|error| error.to_string())?;
        let mut pixels = view.to_vec();
        if matches!(self.format, wgpu::TextureFormat::Bgra8Unorm | wgpu::TextureFormat::Bgra8UnormSrgb) {
            pixels.chunks_exact_mut(4).for_each(|pixel| pixel.swap(0, 2));
        }
        image::RgbaImage::from_raw(width, height, pixels).ok_or_else(|| "the picture has no size".into())
    }
}

fn bind(
    device: &wgpu::Device,
    pipeline: &wgpu::RenderPipeline,
    view: &wgpu::Buffer,
    [pictures, parameters, points]: [&wgpu::Buffer; 3],
) -> wgpu::BindGroup {
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("window"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: view.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: pictures.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 2, resource: parameters.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 3, resource: points.as_entire_binding() },
        ],
    })
}
