//! What the window shows: controls, curves, filters, and test digits with the network's answers.

use egui::{
    Align, Align2, Button, Checkbox, Color32, FontFamily, FontId, Layout, Pos2, Rect, RichText, Sides,
    Slider, Stroke, Style, TextStyle, Ui, UiBuilder, pos2, vec2,
};
use lenet::Error;

use crate::learner::{History, Learner, SHOWN};
use crate::pictures::Pictures;

pub const INK: Color32 = Color32::from_rgb(225, 228, 235);
const FAINT: Color32 = Color32::from_rgb(138, 144, 158);
const PANEL: Color32 = Color32::from_rgb(27, 30, 39);
const GRID: Color32 = Color32::from_rgb(48, 53, 66);
const SINGLE: Color32 = Color32::from_rgb(94, 99, 112);
pub const ORANGE: Color32 = Color32::from_rgb(242, 160, 61);
const BLUE: Color32 = Color32::from_rgb(92, 164, 245);
/// Behind an answer that is right, or wrong.
pub const GREEN: Color32 = Color32::from_rgb(46, 112, 66);
pub const RED: Color32 = Color32::from_rgb(168, 46, 46);

/// The height of a panel's title.
const TITLE: f32 = 22.0;
/// Between panels.
const GAP: f32 = 12.0;

/// Where the panels lie.
#[derive(Clone, Copy)]
pub struct Places {
    pub loss: Rect,
    pub accuracy: Rect,
    pub filters: Rect,
    pub digits: Rect,
}

/// Light on dark, a little larger than usual.
pub fn style(style: &mut Style) {
    let visuals = &mut style.visuals;
    visuals.override_text_color = Some(INK);
    visuals.weak_text_color = Some(FAINT);
    visuals.widgets.inactive.weak_bg_fill = GRID;
    visuals.widgets.inactive.bg_fill = GRID;
    visuals.selection.bg_fill = ORANGE.gamma_multiply(0.6);
    visuals.slider_trailing_fill = true;
    let size = |size| FontId::new(size, FontFamily::Proportional);
    let sizes = [
        (TextStyle::Heading, 19.0),
        (TextStyle::Body, 14.0),
        (TextStyle::Button, 14.0),
        (TextStyle::Small, 11.0),
    ];
    style.text_styles.extend(sizes.map(|(text, height)| (text, size(height))));
    style.spacing.slider_width = 120.0;
}

/// Lays everything out in the window. Controls act on the learner; says where the panels are.
///
/// # Errors
/// What the device reports when the learner starts again.
pub fn show(
    ui: &mut Ui,
    learner: &mut Learner,
    pictures: Option<&Pictures>,
    adapter: &str,
) -> Result<Places, Error> {
    let room = ui.max_rect().shrink2(vec2(16.0, 9.0));
    let mut worked = Ok(());
    let header = ui.scope_builder(UiBuilder::new().max_rect(room), |ui| {
        Sides::new().show(
            ui,
            |ui| ui.heading(format!("LeNet-5 on {adapter}")),
            |ui| ui.label(RichText::new(status(learner)).weak()),
        );
        ui.add_space(4.0);
        Sides::new().show(
            ui,
            |ui| worked = controls(ui, learner),
            |ui| ui.label(RichText::new("esc quits").weak()),
        );
    });
    worked?;
    let top = header.response.rect.bottom() + GAP;

    // The digits get a square, and what is left of it goes to the rest.
    let side = 8.0 * ((room.bottom() - top - TITLE).min(0.55 * room.width()) / 8.0).floor().max(1.0);
    let [left, right] = [
        Rect::from_min_max(pos2(room.left(), top), pos2(room.right() - side - 1.5 * GAP, room.bottom())),
        Rect::from_min_max(pos2(room.right() - side, top), room.max),
    ];
    let filter = (left.width() - 5.0 * GAP) / 6.0;
    let height = (left.height() - 2.0 * GAP - TITLE - filter) / 2.0;
    let part = |y: f32, height: f32| {
        Rect::from_min_size(left.min + vec2(0.0, y), vec2(left.width(), height.max(TITLE)))
    };
    let history = &learner.history;
    Ok(Places {
        loss: loss(ui, part(0.0, height), history),
        accuracy: accuracy(ui, part(height + GAP, height), history),
        filters: filters(ui, part(2.0 * (height + GAP), TITLE + filter), pictures),
        digits: digits(ui, right, learner, pictures),
    })
}

/// How far the run is.
fn status(learner: &Learner) -> String {
    let Some((steps, epochs)) = learner.run() else { return "making the pipelines".to_string() };
    let History { step, epoch, .. } = learner.history;
    let state = match (learner.done, learner.paused) {
        (true, _) => " · done",
        (_, true) => " · paused",
        _ => "",
    };
    let epoch = (epoch + 1).min(epochs);
    format!("step {step} of {steps} · epoch {epoch} · {:.0} images/s{state}", learner.images_per_second())
}

fn controls(ui: &mut Ui, learner: &mut Learner) -> lenet::Result<()> {
    let pause = if learner.paused { "Resume" } else { "Pause" };
    let pause = Button::new(pause).shortcut_text("  space").min_size(vec2(112.0, 0.0));
    if ui.add(pause).clicked() {
        learner.paused = !learner.paused;
    }
    let worked =
        if ui.add(Button::new("Reset").shortcut_text("  r")).clicked() { learner.reset() } else { Ok(()) };
    ui.add_space(GAP);
    ui.label("learning rate");
    let (mut rate, mut scheduled) = learner.rate();
    let slider = Slider::new(&mut rate, 1e-5..=1e-2).logarithmic(true);
    if ui.add(slider.custom_formatter(|rate, _| format!("{rate:.5}"))).changed() {
        learner.set_rate(Some(rate));
    }
    if ui.add(Checkbox::new(&mut scheduled, "scheduled")).changed() {
        learner.set_rate((!scheduled).then_some(rate));
    }
    worked
}

/// A panel's title; what is left below it.
fn titled(ui: &Ui, rect: Rect, title: &str, note: &str) -> Rect {
    let font = TextStyle::Body.resolve(ui.style());
    ui.painter().text(rect.left_top(), Align2::LEFT_TOP, title, font.clone(), INK);
    ui.painter().text(rect.right_top(), Align2::RIGHT_TOP, note, font, FAINT);
    Rect::from_min_max(rect.min + vec2(0.0, TITLE), rect.max)
}

fn loss(ui: &Ui, rect: Rect, history: &History) -> Rect {
    // Three decades, from 0.00316 to 3.16.
    let decades = |loss: f32| (loss.max(1e-6).log10() + 2.5) / 3.0;
    let title = history.smooth.map_or("loss".to_string(), |(loss, _)| format!("loss {loss:.4}"));
    let test = history.tests.last().map_or(String::new(), |(_, test)| format!("test {:.4}", test.loss()));
    let plot = Plot { ui, rect: titled(ui, rect, &title, &test), height: decades };
    plot.ground([(1.0, "1"), (0.1, "0.1"), (0.01, "0.01")]);
    plot.curve(&history.loss.points, Stroke::new(1.0, SINGLE));
    plot.curve(&history.smooth_loss.points, Stroke::new(2.0, ORANGE));
    plot.tests(history, |test| test.loss());
    plot.rect
}

fn accuracy(ui: &Ui, rect: Rect, history: &History) -> Rect {
    // Two and a half decades of the error, so that 99 % is as far above 90 % as that is above nothing.
    let share = |accuracy: f32| -(1.0 - accuracy).max(1e-6).log10() / 2.5;
    let title = history
        .smooth
        .map_or("accuracy".to_string(), |(_, accuracy)| format!("accuracy {:.1} %", 100.0 * accuracy));
    let test = history
        .tests
        .last()
        .map_or(String::new(), |(_, test)| format!("test {:.2} %", 100.0 * test.accuracy()));
    let plot = Plot { ui, rect: titled(ui, rect, &title, &test), height: share };
    plot.ground([(0.5, "50"), (0.9, "90"), (0.99, "99")]);
    plot.curve(&history.smooth_accuracy.points, Stroke::new(2.0, ORANGE));
    plot.tests(history, |test| test.accuracy());
    plot.rect
}

/// A plot over the steps so far; `height` takes a value to 0, the bottom, up to 1.
struct Plot<'a, Height> {
    ui: &'a Ui,
    rect: Rect,
    height: Height,
}

impl<Height: Fn(f32) -> f32> Plot<'_, Height> {
    fn at(&self, along: f32, value: f32) -> Pos2 {
        self.rect.lerp_inside(vec2(along, 1.0 - (self.height)(value).clamp(0.0, 1.0)))
    }

    fn ground(&self, lines: [(f32, &str); 3]) {
        let painter = self.ui.painter();
        painter.rect_filled(self.rect, 4.0, PANEL);
        for (value, name) in lines {
            let at = self.at(0.0, value);
            painter.hline(self.rect.x_range(), at.y, Stroke::new(1.0, GRID));
            let font = TextStyle::Small.resolve(self.ui.style());
            painter.text(at + vec2(6.0, -1.0), Align2::LEFT_BOTTOM, name, font, FAINT);
        }
    }

    fn curve(&self, points: &[f32], stroke: Stroke) {
        let last = points.len().saturating_sub(1).max(1) as f32;
        let points = points.iter().enumerate().map(|(i, &value)| self.at(i as f32 / last, value)).collect();
        self.ui.painter_at(self.rect).line(points, stroke);
    }

    /// A dot for each evaluation.
    fn tests(&self, history: &History, value: impl Fn(&lenet::session::Metrics) -> f64) {
        for (step, test) in &history.tests {
            let along = *step as f32 / history.step.max(1) as f32;
            self.ui.painter().circle_filled(self.at(along, value(test) as f32), 4.0, BLUE);
        }
    }
}

fn filters(ui: &Ui, rect: Rect, pictures: Option<&Pictures>) -> Rect {
    let rect = titled(ui, rect, "filters of the first layer", "");
    if let Some(pictures) = pictures {
        let side = rect.height();
        for channel in 0..pictures.filters().min(6) {
            let corner = rect.min + vec2(channel as f32 * (side + GAP), 0.0);
            let place = Rect::from_min_size(corner, vec2(side, side));
            ui.painter().add(pictures.filter(place, channel));
        }
    }
    rect
}

/// Test pictures, each with the class that the network answers, in green if it is right.
fn digits(ui: &mut Ui, rect: Rect, learner: &mut Learner, pictures: Option<&Pictures>) -> Rect {
    let right = learner.shown().filter(|(_, answer)| matches!(answer, Some((_, true)))).count();
    let answered = learner.shown().any(|(_, answer)| answer.is_some());
    let title =
        if answered { format!("test digits: {right} of {SHOWN} right") } else { "test digits".to_string() };
    let grid = titled(ui, rect, &title, "");
    let pages = UiBuilder::new().max_rect(rect).layout(Layout::right_to_left(Align::Min));
    ui.scope_builder(pages, |ui| {
        for (name, by) in [("→", 1), ("←", -1)] {
            if ui.add(Button::new(RichText::new(name).monospace()).small()).clicked() {
                learner.turn(by);
            }
        }
    });
    let Some(pictures) = pictures else { return grid };
    let cell = grid.width() / 8.0;
    let painter = ui.painter();
    for (i, (index, answer)) in learner.shown().enumerate() {
        let corner = grid.min + cell * vec2((i % 8) as f32, (i / 8) as f32);
        let place = Rect::from_min_size(corner, vec2(cell, cell)).shrink(1.0);
        let colour = match answer {
            Some((_, true)) => GREEN,
            Some((_, false)) => RED,
            None => GRID,
        };
        painter.rect_filled(place, 3.0, colour);
        painter.add(pictures.digit(place.shrink(2.0), index));
        if let Some((class, _)) = answer {
            let label = Rect::from_min_max(place.max - vec2(14.0, 18.0), place.max);
            painter.rect_filled(label, 3.0, colour);
            let font = FontId::new(14.0, FontFamily::Monospace);
            painter.text(label.center(), Align2::CENTER_CENTER, class, font, INK);
        }
    }
    grid
}
