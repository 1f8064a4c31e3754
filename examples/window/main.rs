//! A window that shows a network learn. One device and one queue do both: they train between the frames, and they
//! draw the digits and the filters out of the very buffers that the training shaders use. `egui` draws the rest on
//! the same device. Nothing is read back for the picture but the answers, and no frame waits for anything.
//!
//! `--images N` trains on a part of MNIST; `--frames N` closes the window after so many frames and
//! `--screenshot FILE.png` saves what it showed last; `--destroy N` loses the device after so many frames.

mod learner;
mod pictures;
mod screen;
mod view;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::{Color32, Rect};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use lenet::backend::{Backend, gpu};
use lenet::data::Split;
use winit::application::ApplicationHandler;
use winit::event::{ElementState, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::keyboard::{Key, NamedKey};
use winit::window::WindowId;

use learner::{Learner, SHOWN};
use pictures::Pictures;
use screen::{GROUND, Screen};
use view::Places;

/// 60 Hz.
const FRAME: Duration = Duration::from_micros(16_667);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let args = Args::parse()?;
    let split = lenet::data::mnist().map_err(|error| error.to_string())?;
    let (train, test) = match args.images {
        Some(images) => (split.train.take(images), split.test.take(images.max(SHOWN))),
        None => (split.train, split.test),
    };
    let events = EventLoop::new().map_err(|error| error.to_string())?;
    let mut app =
        App { args, data: Arc::new(Split::of(train, test)), shown: None, failure: None, summary: None };
    events.run_app(&mut app).map_err(|error| error.to_string())?;
    if let Some(summary) = app.summary {
        println!("{summary}");
    }
    app.failure.map_or(Ok(()), Err)
}

#[derive(Default)]
struct Args {
    images: Option<usize>,
    frames: Option<u64>,
    screenshot: Option<String>,
    destroy: Option<u64>,
}

impl Args {
    fn parse() -> Result<Args, String> {
        let mut args = Args::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: expected a number"));
            match word.as_str() {
                "--images" => args.images = Some(number()?.max(1) as usize),
                "--frames" => args.frames = Some(number()?),
                "--destroy" => args.destroy = Some(number()?),
                "--screenshot" => args.screenshot = Some(value),
                _ => return Err(format!("{word}: expected --images, --frames, --screenshot or --destroy")),
            }
        }
        Ok(args)
    }
}

struct App {
    args: Args,
    data: Arc<Split>,
    shown: Option<Shown>,
    failure: Option<String>,
    summary: Option<String>,
}

impl ApplicationHandler for App {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        if self.shown.is_none() {
            match Shown::open(events, self.data.clone()) {
                Ok(shown) => self.shown = Some(shown),
                Err(message) => self.end(events, Some(message)),
            }
        }
    }

    fn window_event(&mut self, events: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(shown) = &mut self.shown else { return };
        let taken = shown.screen.takes(&event);
        match event {
            WindowEvent::CloseRequested => self.end(events, None),
            WindowEvent::Resized(size) => shown.resize(size.width, size.height),
            WindowEvent::Occluded(occluded) => shown.occluded = occluded,
            WindowEvent::KeyboardInput { event, .. } if event.state == ElementState::Pressed && !taken => {
                match event.logical_key {
                    Key::Named(NamedKey::Escape) => self.end(events, None),
                    Key::Named(NamedKey::Space) => shown.learner.paused = !shown.learner.paused,
                    Key::Named(NamedKey::ArrowRight) => shown.learner.turn(1),
                    Key::Named(NamedKey::ArrowLeft) => shown.learner.turn(-1),
                    Key::Character(letter) if letter.eq_ignore_ascii_case("r") => {
                        if let Err(error) = shown.learner.reset() {
                            self.end(events, Some(error.to_string()));
                        }
                    }
                    _ => {}
                }
            }
            WindowEvent::RedrawRequested => self.frame(events),
            _ => {}
        }
    }

    fn about_to_wait(&mut self, events: &ActiveEventLoop) {
        let Some(shown) = &mut self.shown else { return };
        // A display paces the frames by itself; the clock does where there is none, or where no frame is shown.
        let next = shown.begun + FRAME - Duration::from_millis(1);
        if Instant::now() < next {
            events.set_control_flow(ControlFlow::WaitUntil(next));
        } else if shown.occluded {
            self.frame(events);
        } else {
            events.set_control_flow(ControlFlow::Wait);
            shown.screen.window.request_redraw();
        }
    }
}

impl App {
    fn frame(&mut self, events: &ActiveEventLoop) {
        let Some(shown) = &mut self.shown else { return };
        if let Err(message) = shown.frame() {
            return self.end(events, Some(message));
        }
        let frames = shown.intervals.len() as u64;
        if self.args.destroy.is_some_and(|most| frames >= most) {
            shown.screen.device.destroy();
        }
        if self.args.frames.is_some_and(|most| frames >= most) {
            self.end(events, None);
        }
    }

    fn end(&mut self, events: &ActiveEventLoop, failure: Option<String>) {
        if let Some(mut shown) = self.shown.take() {
            self.summary = Some(shown.summary());
            let saved = match &self.args.screenshot {
                Some(path) if failure.is_none() => shown.screenshot(path),
                _ => Ok(()),
            };
            self.failure = failure.or(saved.err());
        } else if failure.is_some() {
            self.failure = failure;
        }
        events.exit();
    }
}

/// The window and everything on its device.
struct Shown {
    screen: Screen,
    occluded: bool,
    adapter: String,
    learner: Learner,
    /// Pictures out of the trainer's buffers, once there is a trainer.
    pictures: Option<Pictures>,
    begun: Instant,
    /// Seconds between the frames since there is a trainer.
    intervals: Vec<f32>,
}

impl Shown {
    fn open(events: &ActiveEventLoop, data: Arc<Split>) -> Result<Shown, String> {
        let screen = Screen::open(events)?;
        screen.context().set_theme(egui::Theme::Dark);
        screen.context().all_styles_mut(view::style);
        let adapter = screen.device.adapter_info().name;
        let lent = gpu::Device::new(screen.device.clone(), screen.queue.clone());
        let learner = Learner::new(lent, data);
        let (begun, intervals) = (Instant::now(), Vec::new());
        Ok(Shown { screen, occluded: false, adapter, learner, pictures: None, begun, intervals })
    }

    fn resize(&mut self, width: u32, height: u32) {
        // A minimised window has no size, and there is no surface of that.
        self.occluded = width == 0 || height == 0;
        if !self.occluded {
            self.screen.resize(width, height);
        }
    }

    /// Everything that happens in a frame. Waits for nothing but the display.
    fn frame(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let took = now - self.begun;
        self.begun = now;
        if self.pictures.is_some() {
            self.intervals.push(took.as_secs_f32());
        }
        let worked = self.learner.frame(took);
        self.screen.check(worked.map_err(|error| error.to_string()))?;
        let width = self.learner.data.test.width;
        if self.pictures.is_none()
            && let Some(trainer) = self.learner.trainer()
            && let (plan, Backend::Gpu(gpu)) = trainer.session().parts()
        {
            self.pictures = Some(Pictures::new(&self.screen.device, self.screen.format(), plan, gpu, width));
        }
        if self.occluded {
            return Ok(());
        }
        let mut shown = Ok(());
        self.screen.show(|ui| {
            shown = view::show(ui, &mut self.learner, self.pictures.as_ref(), &self.adapter).map(|_| ());
        })?;
        shown.map_err(|error| error.to_string())
    }

    fn summary(&self) -> String {
        let mut sorted = self.intervals.clone();
        sorted.sort_by(f32::total_cmp);
        let at = |share: f32| {
            let index = (share * sorted.len().saturating_sub(1) as f32).round() as usize;
            1e3 * sorted.get(index).copied().unwrap_or_default()
        };
        format!(
            "{} frames, {:.1} ms apart in the median and {:.1} ms in the 99th percentile; {}",
            sorted.len(),
            at(0.5),
            at(0.99),
            self.learner.summary()
        )
    }

    /// Saves what the window showed last, if every panel shows something.
    fn screenshot(&mut self, path: &str) -> Result<(), String> {
        let mut places = None;
        let picture = self.screen.picture(|ui| {
            places = view::show(ui, &mut self.learner, self.pictures.as_ref(), &self.adapter).ok();
        })?;
        check(&picture, places.ok_or("nothing was shown")?)?;
        let mut png = Vec::new();
        let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::NoFilter);
        picture.write_with_encoder(encoder).map_err(|error| error.to_string())?;
        std::fs::write(path, png).map_err(|error| format!("{path}: {error}"))
    }
}

/// Whether every panel of a picture shows something.
fn check(picture: &image::RgbImage, places: Places) -> Result<(), String> {
    let pixels = |place: Rect| {
        let [x, y] = [place.x_range(), place.y_range()].map(|side| side.min as u32..side.max as u32);
        y.flat_map(move |y| x.clone().map(move |x| (x, y)))
            .map(|(x, y)| picture.get_pixel(x, y).0)
            .filter(|&colour| colour != GROUND)
    };
    let has = |place, colours: &[Color32]| {
        pixels(place).filter(|&[r, g, b]| colours.contains(&Color32::from_rgb(r, g, b))).count()
    };
    let shades = pixels(places.filters).collect::<HashSet<_>>().len();
    for (what, found, expected) in [
        ("pixels of the loss's curve", has(places.loss, &[view::ORANGE]), 100),
        ("pixels of the accuracy's curve", has(places.accuracy, &[view::ORANGE]), 100),
        ("pixels of the digits", has(places.digits, &[view::INK]), 1000),
        ("pixels of what was answered", has(places.digits, &[view::GREEN, view::RED]), 1000),
        ("shades in the filters", shades, 16),
    ] {
        if found < expected {
            return Err(format!("the picture has {found} {what}, expected {expected} or more"));
        }
    }
    Ok(())
}
