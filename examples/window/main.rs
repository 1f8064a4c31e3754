//! A window that shows a network learn. One device and one queue do both: they train between the frames, and they
//! draw the digits and the filters out of the very buffers that the training shaders use. Nothing is read back for
//! the picture but the answers, and no frame waits for anything. (It is longer than most, one file because its events,
//! frames and training share one state.)
//!
//! `--images N` trains on a part of MNIST; `--frames N` closes the window after so many frames and
//! `--screenshot FILE.png` saves what it showed last; `--destroy N` loses the device after so many frames.

mod draw;
mod font;

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use lenet::backend::{Answer, Backend, gpu};
use lenet::data::Split;
use lenet::plan::Plan;
use lenet::session::{Metrics, Session};
use lenet::train::pace::Pace;
use lenet::train::{Advance, Event, Settings, Trainer};
use lenet::{Error, Network};
use winit::application::ApplicationHandler;
use winit::dpi::LogicalSize;
use winit::event::{ElementState, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::keyboard::{Key, NamedKey};
use winit::window::{Window, WindowId};

use draw::{CANVAS, GROUND, Painter, Scene};

/// 60 Hz.
const FRAME: Duration = Duration::from_micros(16_667);
/// Test pictures that are shown at a time; one batch of the network.
const SHOWN: usize = 64;
/// Frames between two questions about them.
const ASK: u64 = 15;

const INK: [u8; 3] = [225, 228, 235];
const FAINT: [u8; 3] = [128, 134, 148];
const PANEL: [u8; 3] = [27, 30, 39];
const GRID: [u8; 3] = [44, 49, 62];
const ORANGE: [u8; 3] = [242, 160, 61];
const BLUE: [u8; 3] = [92, 164, 245];
const GREEN: [u8; 3] = [92, 196, 122];
const RED: [u8; 3] = [238, 86, 86];

/// Where the panels lie on the canvas.
const LOSS: [f32; 4] = [20.0, 84.0, 450.0, 168.0];
const ACCURACY: [f32; 4] = [20.0, 288.0, 450.0, 168.0];
const FILTERS: [f32; 4] = [20.0, 496.0, 450.0, 84.0];
const DIGITS: [f32; 4] = [492.0, 84.0, 448.0, 448.0];

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
        App { args, data: Arc::new(Split { train, test }), shown: None, failure: None, summary: None };
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
        match event {
            WindowEvent::CloseRequested => self.end(events, None),
            WindowEvent::Resized(size) => shown.resize(size.width, size.height),
            WindowEvent::Occluded(occluded) => shown.occluded = occluded,
            WindowEvent::KeyboardInput { event, .. } if event.state == ElementState::Pressed => {
                match event.logical_key {
                    Key::Named(NamedKey::Escape) => self.end(events, None),
                    Key::Named(NamedKey::Space) => shown.paused = !shown.paused,
                    Key::Named(NamedKey::ArrowRight) => shown.turn(1),
                    Key::Named(NamedKey::ArrowLeft) => shown.turn(-1),
                    Key::Character(letter) if letter.eq_ignore_ascii_case("r") => shown.reset(),
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
            shown.window.request_redraw();
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
            shown.device.destroy();
        }
        if self.args.frames.is_some_and(|most| frames >= most) {
            self.end(events, None);
        }
    }

    fn end(&mut self, events: &ActiveEventLoop, failure: Option<String>) {
        if let Some(shown) = self.shown.take() {
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

/// Points that become half as many whenever there are too many.
#[derive(Default)]
struct Curve {
    points: Vec<f32>,
    sum: f32,
    summed: usize,
    /// Values in a point, less one.
    more: usize,
}

impl Curve {
    fn push(&mut self, value: f32) {
        self.sum += value;
        self.summed += 1;
        if self.summed > self.more {
            self.points.push(self.sum / self.summed as f32);
            (self.sum, self.summed) = (0.0, 0);
        }
        if self.points.len() == 512 {
            self.points = self.points.chunks(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            self.more = 2 * self.more + 1;
        }
    }
}

/// What the trainer has reported.
#[derive(Default)]
struct History {
    loss: Curve,
    smooth_loss: Curve,
    smooth_accuracy: Curve,
    /// Loss and accuracy, averaged over some steps.
    smooth: Option<(f32, f32)>,
    seen: usize,
    /// Steps, and what the test said then.
    tests: Vec<(u64, Metrics)>,
    step: u64,
    epoch: usize,
    images: u64,
}

impl History {
    fn add(&mut self, event: Event) {
        match event {
            Event::Steps { first, metrics, .. } => {
                self.step = first + metrics.len() as u64 - 1;
                for one in metrics {
                    let (loss, accuracy) = (one.loss() as f32, one.accuracy() as f32);
                    // The mean of the first twenty, then twenty steps' memory.
                    self.seen += 1;
                    let new = 1.0 / self.seen.min(20) as f32;
                    let (old_loss, old_accuracy) = self.smooth.unwrap_or_default();
                    let smooth =
                        (old_loss + new * (loss - old_loss), old_accuracy + new * (accuracy - old_accuracy));
                    self.smooth = Some(smooth);
                    self.loss.push(loss);
                    self.smooth_loss.push(smooth.0);
                    self.smooth_accuracy.push(smooth.1);
                    self.images += one.count;
                }
            }
            Event::Epoch { epoch, step, evaluation, .. } => {
                self.epoch = epoch;
                self.tests.push((step, evaluation));
            }
        }
    }
}

/// The window and everything on its device.
struct Shown {
    window: Arc<Window>,
    instance: wgpu::Instance,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    device: wgpu::Device,
    /// What the device's handlers were told.
    trouble: Arc<Mutex<Option<String>>>,
    painter: Painter,
    occluded: bool,

    data: Arc<Split>,
    /// The trainer, while another thread makes it.
    coming: Option<Receiver<lenet::Result<Trainer>>>,
    trainer: Option<Trainer>,
    seed: u64,
    paused: bool,
    done: bool,
    history: History,
    /// The first test picture that is shown.
    page: usize,
    question: Option<(usize, Answer<Vec<f32>>)>,
    answers: Option<(usize, Vec<u8>)>,

    pace: Pace,
    queued: bool,
    begun: Instant,
    frames: u64,
    /// Seconds between the frames since there is a trainer.
    intervals: Vec<f32>,
    /// Time spent training.
    trained: Duration,
    /// All images trained, whatever was reset.
    images: u64,
    steps: u64,
}

impl Shown {
    fn open(events: &ActiveEventLoop, data: Arc<Split>) -> Result<Shown, String> {
        let size = LogicalSize::new(CANVAS[0], CANVAS[1]);
        let attributes = Window::default_attributes().with_title("lenet").with_inner_size(size);
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
        let painter = Painter::new(&device, &queue, config.format);

        // The pipelines are compiled beside the first frames.
        let (send, coming) = channel();
        let (lent, split) = (gpu::Device::new(device.clone(), queue), data.clone());
        std::thread::spawn(move || {
            let _ = send.send(pollster::block_on(trainer(lent, &split)));
        });
        Ok(Shown {
            window,
            instance,
            surface,
            config,
            device,
            trouble,
            painter,
            occluded: false,
            data,
            coming: Some(coming),
            trainer: None,
            seed: 0,
            paused: false,
            done: false,
            history: History::default(),
            page: 0,
            question: None,
            answers: None,
            pace: Pace::new(FRAME * 5 / 4),
            queued: false,
            begun: Instant::now(),
            frames: 0,
            intervals: Vec::new(),
            trained: Duration::ZERO,
            images: 0,
            steps: 0,
        })
    }

    fn resize(&mut self, width: u32, height: u32) {
        // A minimised window has no size, and there is no surface of that.
        if width > 0 && height > 0 {
            (self.config.width, self.config.height) = (width, height);
            self.surface.configure(&self.device, &self.config);
        }
        self.occluded = width == 0 || height == 0;
    }

    /// The next or the last page of test pictures.
    fn turn(&mut self, by: isize) {
        let pages = (self.data.test.len() / SHOWN).max(1) as isize;
        self.page = ((self.page / SHOWN) as isize + by).rem_euclid(pages) as usize * SHOWN;
    }

    /// Starts again from other weights. The pipelines and the buffers, which the picture uses, stay.
    fn reset(&mut self) {
        let Some(trainer) = self.trainer.take() else { return };
        self.seed += 1;
        match Trainer::new(trainer.into_session(), settings(self.seed), &self.data.train, &self.data.test) {
            Ok(trainer) => self.trainer = Some(trainer),
            Err(error) => note(&self.trouble, error.to_string()),
        }
        self.done = false;
        self.history = History::default();
        (self.question, self.answers) = (None, None);
    }

    /// Everything that happens in a frame. Waits for nothing but the display.
    fn frame(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let took = now - self.begun;
        self.begun = now;
        self.frames += 1;
        if self.trainer.is_some() {
            self.intervals.push(took.as_secs_f32());
        }
        if self.queued {
            self.pace.round(took);
            self.trained += took;
        }
        let worked = self.train().and_then(|()| self.ask());
        let scene = self.scene();
        self.painter.set(scene);
        if !self.occluded {
            self.show()?;
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (worked, trouble) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(trouble)) => Err(trouble),
            (Err(error), None) => Err(error.to_string()),
            (Err(error), Some(trouble)) => Err(format!("{error} (it was told: {trouble})")),
        }
    }

    /// Takes the trainer when it is made, queues some steps and takes note of those that are done.
    fn train(&mut self) -> lenet::Result<()> {
        self.queued = false;
        if let Some(coming) = &self.coming {
            match coming.try_recv() {
                Ok(made) => {
                    let mut trainer = made?;
                    let (plan, backend) = trainer.session().parts();
                    if let Backend::Gpu(gpu) = backend {
                        self.painter.show(plan, gpu);
                    }
                    (self.trainer, self.coming) = (Some(trainer), None);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::Settings("the thread that makes the trainer is gone".into()));
                }
            }
        }
        let Some(trainer) = &mut self.trainer else { return Ok(()) };
        // Two rounds in flight keep the device busy and the window lively.
        if !self.paused && !self.done && trainer.in_flight() < 2 {
            match trainer.advance(self.pace.steps())? {
                Advance::Queued(_) | Advance::Evaluating(_) => self.queued = true,
                Advance::Waiting => {}
                Advance::Done => self.done = true,
            }
        }
        while let Some(event) = trainer.poll()? {
            let (images, step) = (self.history.images, self.history.step);
            self.history.add(event);
            self.images += self.history.images - images;
            self.steps += self.history.step - step;
        }
        Ok(())
    }

    /// Asks for the classes of the shown pictures now and then, and takes the answer when it is there.
    fn ask(&mut self) -> lenet::Result<()> {
        let Some(trainer) = &mut self.trainer else { return Ok(()) };
        let test = &self.data.test;
        let turned = self.answers.as_ref().is_none_or(|(page, _)| *page != self.page);
        if self.question.is_none() && (turned || !self.done && self.frames.is_multiple_of(ASK)) {
            let pixels = test.pixels();
            let pictures = &test.images[self.page * pixels..][..SHOWN * pixels];
            self.question = Some((self.page, trainer.session().predict(pictures)));
        }
        if let Some((page, question)) = &mut self.question
            && let Some(probabilities) = question.take()
        {
            let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let classes =
                probabilities?.chunks_exact(test.classes).map(|row| best(row).unwrap_or(0) as u8).collect();
            self.answers = Some((*page, classes));
            self.question = None;
        }
        Ok(())
    }

    fn scene(&mut self) -> Scene {
        let mut scene = Scene::default();
        let name = self.device.adapter_info().name;
        scene.text([20.0, 14.0], INK, &format!("lenet5 on {name}"));
        let history = &self.history;
        let status = match &self.trainer {
            None => "making the pipelines".to_string(),
            Some(trainer) => {
                let rate = self.images as f64 / self.trained.as_secs_f64().max(1e-3);
                let state = match (self.done, self.paused) {
                    (true, _) => "  done",
                    (_, true) => "  paused",
                    _ => "",
                };
                let (step, all) = (history.step, trainer.total_steps());
                let epoch = (history.epoch + 1).min(trainer.settings().epochs);
                format!("step {step}/{all}  epoch {epoch}  {rate:.0} images/s{state}")
            }
        };
        scene.text([20.0, 36.0], FAINT, &status);

        // Three decades, from 0.00316 to 3.16.
        let decades = |loss: f32| (loss.max(1e-6).log10() + 2.5) / 3.0;
        let lines = [(1.0, "1"), (0.1, "0.1"), (0.01, "0.01")];
        let title = history.smooth.map_or("loss".to_string(), |(loss, _)| format!("loss {loss:.4}"));
        panel(&mut scene, LOSS, &title, lines.map(|(loss, name)| (decades(loss), name)));
        scene.curve(LOSS, GRID.map(|part| part + 50), history.loss.points.iter().map(|&loss| decades(loss)));
        scene.curve(LOSS, ORANGE, history.smooth_loss.points.iter().map(|&loss| decades(loss)));
        // Two and a half decades of the error, so that 99 % is as far above 90 % as that is above nothing.
        let share = |accuracy: f32| -(1.0 - accuracy).max(1e-6).log10() / 2.5;
        let lines = [(0.5, "50"), (0.9, "90"), (0.99, "99")].map(|(at, name)| (share(at), name));
        let title = history.smooth.map_or("accuracy".to_string(), |(_, accuracy)| {
            let test = history
                .tests
                .last()
                .map_or(String::new(), |(_, test)| format!("   test {:.2} %", 100.0 * test.accuracy()));
            format!("accuracy {:.1} %{test}", 100.0 * accuracy)
        });
        panel(&mut scene, ACCURACY, &title, lines);
        scene.curve(ACCURACY, ORANGE, history.smooth_accuracy.points.iter().map(|&accuracy| share(accuracy)));
        for (step, test) in &history.tests {
            let along = *step as f32 / history.step.max(1) as f32;
            for (rect, height) in
                [(LOSS, decades(test.loss() as f32)), (ACCURACY, share(test.accuracy() as f32))]
            {
                let x = rect[0] + along * (rect[2] - 6.0);
                let y = rect[1] + (1.0 - height.clamp(0.0, 1.0)) * (rect[3] - 6.0);
                scene.fill([x, y, 6.0, 6.0], BLUE);
            }
        }

        self.filters(&mut scene);
        self.digits(&mut scene);
        scene.text([492.0, 566.0], FAINT, "space pause  r reset  esc quit");
        scene
    }

    /// The first layer's filters, one for each of its channels.
    fn filters(&mut self, scene: &mut Scene) {
        scene.text([FILTERS[0], FILTERS[1] - 20.0], INK, "first layer");
        let Some(trainer) = &mut self.trainer else { return };
        let Some(tensor) = trainer.session().plan().tensors.first() else { return };
        let &[channels, inputs, height, width] = &tensor.parameter.shape[..] else { return };
        for channel in 0..channels.min(6) {
            let rect = [FILTERS[0] + 74.0 * channel as f32, FILTERS[1], 68.0, 68.0];
            scene.filter(rect, tensor.offset + channel * inputs * height * width, width);
        }
    }

    /// Test pictures, each with the class that the network answers, in green if it is right.
    fn digits(&self, scene: &mut Scene) {
        let test = &self.data.test;
        let answers =
            self.answers.as_ref().filter(|(page, _)| *page == self.page).map(|(_, answers)| answers);
        let right = |i: usize| answers.map(|answers| answers[i] == test.labels[self.page + i]);
        let title = match answers {
            Some(_) => {
                let count = (0..SHOWN).filter(|&i| right(i) == Some(true)).count();
                format!("test pictures: {count}/{SHOWN} right")
            }
            None => "test pictures".to_string(),
        };
        scene.text([DIGITS[0], DIGITS[1] - 20.0], INK, &title);
        if self.trainer.is_none() {
            return;
        }
        for i in 0..SHOWN {
            let x = DIGITS[0] + 56.0 * (i % 8) as f32;
            let y = DIGITS[1] + 56.0 * (i / 8) as f32;
            let colour = match right(i) {
                Some(true) => GREEN,
                Some(false) => RED,
                None => FAINT,
            };
            scene.fill([x, y, 52.0, 52.0], half(colour));
            let first = (self.page + i) * test.pixels();
            scene.digit([x + 2.0, y + 2.0, 48.0, 48.0], first, test.width, INK);
            if let Some(answers) = answers {
                scene.fill([x + 38.0, y + 34.0, 14.0, 18.0], half(colour));
                scene.text([x + 40.0, y + 36.0], INK, &answers[i].to_string());
            }
        }
    }

    /// Draws to the window, if it takes a picture at this moment.
    fn show(&mut self) -> Result<(), String> {
        use wgpu::CurrentSurfaceTexture as Current;
        match self.surface.get_current_texture() {
            Current::Success(frame) => {
                self.painter.draw(&frame.texture);
                self.painter.present(frame);
            }
            Current::Suboptimal(frame) => {
                self.painter.draw(&frame.texture);
                self.painter.present(frame);
                self.surface.configure(&self.device, &self.config);
            }
            Current::Outdated => self.surface.configure(&self.device, &self.config),
            Current::Lost => {
                self.surface =
                    self.instance.create_surface(self.window.clone()).map_err(|error| error.to_string())?;
                self.surface.configure(&self.device, &self.config);
            }
            // The next frame tries again; the handler was told what was not valid.
            Current::Timeout | Current::Occluded | Current::Validation => {}
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let mut sorted = self.intervals.clone();
        sorted.sort_by(f32::total_cmp);
        let at = |share: f32| {
            let index = (share * sorted.len().saturating_sub(1) as f32).round() as usize;
            1e3 * sorted.get(index).copied().unwrap_or_default()
        };
        format!(
            "{} frames, {:.1} ms apart in the median and {:.1} ms in the 99th percentile; {} steps, {:.0} images/s, \
             {} steps a frame at the end",
            sorted.len(),
            at(0.5),
            at(0.99),
            self.steps,
            self.images as f64 / self.trained.as_secs_f64().max(1e-3),
            self.pace.steps()
        )
    }

    /// Saves what the window showed last, if every panel shows something.
    fn screenshot(&self, path: &str) -> Result<(), String> {
        let picture = self.painter.picture()?;
        let pixels = |panel: [f32; 4]| {
            let [x, y, width, height] = panel.map(|side| side as u32);
            let places = (y..y + height).flat_map(move |y| (x..x + width).map(move |x| (x, y)));
            places.map(|(x, y)| picture.get_pixel(x, y).0).filter(|&colour| colour != GROUND)
        };
        let has = |panel, colours: &[[u8; 3]]| {
            pixels(panel).filter(|[r, g, b, _]| colours.contains(&[*r, *g, *b])).count()
        };
        let shades = pixels(FILTERS).collect::<std::collections::HashSet<_>>().len();
        for (what, found, expected) in [
            ("pixels of the loss's curve", has(LOSS, &[ORANGE]), 100),
            ("pixels of the accuracy's curve", has(ACCURACY, &[ORANGE]), 100),
            ("pixels of the digits", has(DIGITS, &[INK]), 1000),
            ("pixels of what was answered", has(DIGITS, &[GREEN, RED].map(half)), 1000),
            ("shades in the filters", shades, 16),
        ] {
            if found < expected {
                return Err(format!("the picture has {found} {what}, expected {expected} or more"));
            }
        }
        let mut png = Vec::new();
        let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::NoFilter);
        image::DynamicImage::from(picture)
            .to_rgb8()
            .write_with_encoder(encoder)
            .map_err(|error| error.to_string())?;
        std::fs::write(path, png).map_err(|error| format!("{path}: {error}"))
    }
}

/// A panel's ground, title and horizontal lines, each at a height from 0 to 1.
fn panel(scene: &mut Scene, rect: [f32; 4], title: &str, lines: [(f32, &str); 3]) {
    scene.text([rect[0], rect[1] - 20.0], INK, title);
    scene.fill(rect, PANEL);
    for (height, name) in lines {
        let y = rect[1] + (1.0 - height) * rect[3];
        scene.fill([rect[0], y, rect[2], 1.0], GRID);
        scene.text([rect[0] + 4.0, y - 16.0], GRID.map(|part| part + 40), name);
    }
}

fn settings(seed: u64) -> Settings {
    Settings { seed, ..Settings::default() }
}

async fn trainer(device: gpu::Device, data: &Split) -> lenet::Result<Trainer> {
    let Split { train, test }: &Split = data;
    let options = lenet::plan::Options { fill: device.fill(), ..Trainer::options(&settings(0), train, test) };
    let plan = Plan::new(&Network::preset("lenet5")?, &options)?;
    let backend = Backend::gpu(&device, &plan.program).await?;
    Trainer::new(Session::new(plan, backend), settings(0), train, test)
}

/// A colour at half its brightness.
fn half(colour: [u8; 3]) -> [u8; 3] {
    colour.map(|part| part / 2)
}

/// Keeps the first message.
fn note(trouble: &Mutex<Option<String>>, message: String) {
    trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
}
