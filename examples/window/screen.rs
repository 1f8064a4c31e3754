//! The window's surface, the device that draws to it and trains, and `egui` on both.

use std::sync::{Arc, Mutex, PoisonError};

use egui::{FullOutput, RawInput, Rect, Ui, ViewportId};
use egui_wgpu::{Renderer, RendererOptions, ScreenDescriptor};
use winit::dpi::LogicalSize;
use winit::event::WindowEvent;
use winit::event_loop::ActiveEventLoop;
use winit::window::Window;

/// The window's size at first, and the screenshot's.
pub const SIZE: [f32; 2] = [960.0, 600.0];
/// The colour of the window where there is nothing.
pub const GROUND: [u8; 3] = [16, 18, 24];

/// A window with a device of its own.
pub struct Screen {
    pub window: Arc<Window>,
    instance: wgpu::Instance,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// What the device's handlers were told.
    trouble: Arc<Mutex<Option<String>>>,
    context: egui::Context,
    input: egui_winit::State,
    renderer: Renderer,
}

impl Screen {
    /// Opens a window and a device that draws to it.
    ///
    /// # Errors
    /// What is missing: a display, an adapter, a format that both take.
    pub fn open(events: &ActiveEventLoop) -> Result<Screen, String> {
        let [width, height] = SIZE;
        let attributes = Window::default_attributes()
            .with_title("lenet")
            .with_inner_size(LogicalSize::new(width, height))
            .with_min_inner_size(LogicalSize::new(width / 1.5, height / 1.5));
        let window = Arc::new(events.create_window(attributes).map_err(|error| error.to_string())?);
        let display = Box::new(events.owned_display_handle());
        let instance =
            wgpu::Instance::new(wgpu::InstanceDescriptor::new_with_display_handle_from_env(display));
        let surface = instance.create_surface(window.clone()).map_err(|error| error.to_string())?;
        // Nothing is shown yet that could wait for these two.
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            compatible_surface: Some(&surface),
            ..Default::default()
        }))
        .map_err(|error| error.to_string())?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))
            .map_err(|error| error.to_string())?;
        // Without handlers of its own, wgpu panics.
        let trouble: Arc<Mutex<Option<String>>> = Arc::default();
        let told = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |error| note(&told, format!("{error}"))));
        let told = trouble.clone();
        device.set_device_lost_callback(move |reason, message| {
            note(&told, format!("the device was lost, {reason:?}: {message}"));
        });

        let size = window.inner_size();
        let mut config = surface
            .get_default_config(&adapter, size.width.max(1), size.height.max(1))
            .ok_or("the adapter cannot draw to this window")?;
        // Colours are meant as they are.
        config.format = config.format.remove_srgb_suffix();
        config.present_mode = wgpu::PresentMode::AutoVsync;
        if !surface.get_capabilities(&adapter).formats.contains(&config.format) {
            return Err(format!("the window does not take {:?}", config.format));
        }
        surface.configure(&device, &config);

        let context = egui::Context::default();
        let input = egui_winit::State::new(
            context.clone(),
            ViewportId::ROOT,
            &window,
            Some(window.scale_factor() as f32),
            None,
            Some(device.limits().max_texture_dimension_2d as usize),
        );
        let options = RendererOptions { dithering: false, ..Default::default() };
        let renderer = Renderer::new(&device, config.format, options);
        Ok(Screen { window, instance, surface, config, device, queue, trouble, context, input, renderer })
    }

    /// What `egui` draws with.
    pub fn context(&self) -> &egui::Context {
        &self.context
    }

    /// The format of what is drawn to.
    pub fn format(&self) -> wgpu::TextureFormat {
        self.config.format
    }

    /// Hands an event to `egui`; says whether that keeps it for itself.
    pub fn takes(&mut self, event: &WindowEvent) -> bool {
        self.input.on_window_event(&self.window, event).consumed
    }

    /// Follows the window's size.
    pub fn resize(&mut self, width: u32, height: u32) {
        (self.config.width, self.config.height) = (width, height);
        self.surface.configure(&self.device, &self.config);
    }

    /// What was worked, with what the device's handlers were told since the last time.
    ///
    /// # Errors
    /// Either of both.
    pub fn check(&self, worked: Result<(), String>) -> Result<(), String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (worked, trouble) {
            (worked, None) => worked,
            (Ok(()), Some(trouble)) => Err(trouble),
            (Err(error), Some(trouble)) => Err(format!("{error} (it was told: {trouble})")),
        }
    }

    /// Draws a frame to the window, if it takes a picture at this moment.
    ///
    /// # Errors
    /// What the device or the surface reports.
    pub fn show(&mut self, content: impl FnMut(&mut Ui)) -> Result<(), String> {
        use wgpu::CurrentSurfaceTexture as Current;
        let input = self.input.take_egui_input(&self.window);
        let mut output = self.context.run_ui(input, content);
        self.input.handle_platform_output(&self.window, std::mem::take(&mut output.platform_output));
        let current = self.surface.get_current_texture();
        // The renderer would panic on a device that is known to be lost.
        self.check(Ok(()))?;
        let again = matches!(current, Current::Suboptimal(_) | Current::Outdated | Current::Lost);
        if matches!(current, Current::Lost) {
            self.surface =
                self.instance.create_surface(self.window.clone()).map_err(|error| error.to_string())?;
        }
        match current {
            Current::Success(frame) | Current::Suboptimal(frame) => {
                self.draw(output, Some(&frame.texture));
                self.queue.present(frame);
            }
            // The next frame tries again; the handler was told what was not valid.
            _ => self.draw(output, None),
        }
        if again {
            self.surface.configure(&self.device, &self.config);
        }
        self.check(Ok(()))
    }

    /// A frame as a picture of [`SIZE`], for when the window closes: this waits for the device.
    ///
    /// # Errors
    /// What the device reports.
    pub fn picture(&mut self, content: impl FnMut(&mut Ui)) -> Result<image::RgbImage, String> {
        let mut input = RawInput {
            screen_rect: Some(Rect::from_min_size(Default::default(), SIZE.into())),
            ..Default::default()
        };
        input.viewports.entry(ViewportId::ROOT).or_default().native_pixels_per_point = Some(1.0);
        let output = self.context.run_ui(input, content);

        let [width, height] = SIZE.map(|side| side as u32);
        let size = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("screenshot"),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: self.config.format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        self.draw(output, Some(&texture));
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
        let blue_first = self.config.format == wgpu::TextureFormat::Bgra8Unorm;
        let pixels = view.chunks_exact(4).flat_map(|pixel| match (pixel, blue_first) {
            (&[b, g, r, _], true) | (&[r, g, b, _], _) => [r, g, b],
            _ => [0; 3],
        });
        image::RgbImage::from_raw(width, height, pixels.collect())
            .ok_or_else(|| "the picture has no size".into())
    }

    /// Draws what `egui` put out; without a texture, only takes over what later frames build on.
    fn draw(&mut self, output: FullOutput, texture: Option<&wgpu::Texture>) {
        for (id, deltas) in &output.textures_delta.set {
            for delta in deltas {
                self.renderer.update_texture(&self.device, &self.queue, *id, delta);
            }
        }
        if let Some(texture) = texture {
            let shapes = self.context.tessellate(output.shapes, output.pixels_per_point);
            let screen = ScreenDescriptor {
                size_in_pixels: [texture.width(), texture.height()],
                pixels_per_point: output.pixels_per_point,
            };
            let mut encoder = self.device.create_command_encoder(&Default::default());
            self.renderer.update_buffers(&self.device, &self.queue, &mut encoder, &shapes, &screen);
            let [r, g, b] = GROUND.map(|part| f64::from(part) / 255.0);
            let pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                    view: &texture.create_view(&Default::default()),
                    depth_slice: None,
                    resolve_target: None,
                    ops: wgpu::Operations {
                        load: wgpu::LoadOp::Clear(wgpu::Color { r, g, b, a: 1.0 }),
                        store: wgpu::StoreOp::Store,
                    },
                })],
                ..Default::default()
            });
            self.renderer.render(&mut pass.forget_lifetime(), &shapes, &screen);
            self.queue.submit([encoder.finish()]);
        }
        for id in &output.textures_delta.free {
            self.renderer.free_texture(id);
        }
    }
}

/// Keeps the first message.
fn note(trouble: &Mutex<Option<String>>, message: String) {
    trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
}
