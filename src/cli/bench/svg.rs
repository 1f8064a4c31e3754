//! A small writer of charts: panels with logarithmic axes as one self-contained SVG.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::failure::{Failure, Outcome};

/// Points that belong together.
pub struct Curve {
    pub name: String,
    /// x and y, both more than 0.
    pub points: Vec<(f64, f64)>,
}

/// One chart: curves against the left axis, one dashed curve in bytes against the right one.
pub struct Panel {
    pub x: String,
    /// Stands before the numbers of the x axis.
    pub prefix: &'static str,
    pub left: String,
    pub curves: Vec<Curve>,
    pub right: String,
    pub dashed: Curve,
}

/// Pixels: a panel, and the margins around its chart.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 72.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 56.0;

/// Colours that stay apart for the colour-blind (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const GREY: &str = "#767676";

/// A logarithmic axis from pixels `start` to `end`.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// An axis over `values`, between powers of `base`.
    fn over(values: impl Iterator<Item = f64> + Clone, base: f64, start: f64, end: f64) -> Axis {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low <= high { (low, high) } else { (1.0, base) };
        let low = base.powf((low.ln() / base.ln() + 1e-9).floor());
        let high = base.powf((high.ln() / base.ln() - 1e-9).ceil()).max(low * base);
        Axis { low, high, start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.start + (self.end - self.start) * share
    }

    /// Powers of `base` within the axis, at most a dozen.
    fn ticks(&self, base: f64) -> Vec<f64> {
        let count = ((self.high / self.low).ln() / base.ln()).round() as usize;
        let stride = count / 12 + 1;
        (0..=count).step_by(stride).map(|i| self.low * base.powi(i as i32)).collect()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// 1, 10, 100, 1k, 10k, …, with `space` before the letter or the unit.
fn short(value: f64, space: &str) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match prefixes.into_iter().find(|(size, _)| value >= *size) {
        Some((size, prefix)) => format!("{}{space}{prefix}", value / size),
        None => format!("{value}{space}"),
    }
}

struct Canvas(String);

impl Canvas {
    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        );
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        );
    }

    fn curve(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            self.0,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            list.join(" ")
        );
        if !dashed {
            for (x, y) in points {
                let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
    }

    fn panel(&mut self, panel: &Panel, origin: f64) {
        let (left, right) = (origin + LEFT, origin + WIDTH - RIGHT);
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let all = || panel.curves.iter().chain([&panel.dashed]).flat_map(|curve| &curve.points);
        let x = Axis::over(all().map(|p| p.0), 2.0, left, right);
        let speeds = panel.curves.iter().flat_map(|curve| &curve.points).map(|p| p.1);
        let y = Axis::over(speeds, 10.0, bottom, top);
        let memory = Axis::over(panel.dashed.points.iter().map(|p| p.1), 10.0, bottom, top);
        for tick in x.ticks(2.0) {
            self.line((x.at(tick), top), (x.at(tick), bottom), "#eeeeee");
            self.text((x.at(tick), bottom + 18.0), "middle", GREY, &format!("{}{tick}", panel.prefix));
        }
        for tick in y.ticks(10.0) {
            self.line((left, y.at(tick)), (right, y.at(tick)), "#dddddd");
            self.text((left - 6.0, y.at(tick) + 4.0), "end", GREY, &short(tick, ""));
        }
        for tick in memory.ticks(10.0) {
            self.line((right, memory.at(tick)), (right + 4.0, memory.at(tick)), GREY);
            self.text((right + 8.0, memory.at(tick) + 4.0), "start", GREY, &format!("{}B", short(tick, " ")));
        }
        self.text(((left + right) / 2.0, bottom + 40.0), "middle", "#222222", &panel.x);
        self.text((left - 6.0, top - 12.0), "end", "#222222", &panel.left);
        self.text((right + 8.0, top - 12.0), "start", GREY, &panel.right);
        let placed = |curve: &Curve, y: &Axis| -> Vec<(f64, f64)> {
            curve.points.iter().map(|p| (x.at(p.0), y.at(p.1))).collect()
        };
        self.curve(&placed(&panel.dashed, &memory), GREY, true);
        for (curve, colour) in panel.curves.iter().zip(COLOURS.into_iter().cycle()) {
            self.curve(&placed(curve, &y), colour, false);
        }
    }
}

/// The panels side by side, with one legend.
pub fn draw(title: &str, panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut canvas = Canvas(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escaped(title)
    ));
    let _ = writeln!(
        canvas.0,
        "<text x=\"16\" y=\"24\" font-size=\"15\" fill=\"#222222\">{}</text>",
        escaped(title)
    );
    if let Some(panel) = panels.first() {
        let mut at = 16.0;
        let coloured = panel.curves.iter().zip(COLOURS.into_iter().cycle());
        for (curve, colour) in coloured.chain([(&panel.dashed, GREY)]) {
            canvas.curve(&[(at, 46.0), (at + 20.0, 46.0)], colour, colour == GREY);
            canvas.text((at + 26.0, 50.0), "start", "#222222", &curve.name);
            // A sans-serif letter of this size is about 6 pixels wide.
            at += 50.0 + 6.2 * curve.name.chars().count() as f64;
        }
    }
    for (i, panel) in panels.iter().enumerate() {
        canvas.panel(panel, i as f64 * WIDTH);
    }
    canvas.0 + "</svg>\n"
}

/// Writes the panels to a file.
pub fn write(path: &Path, title: &str, panels: &[Panel]) -> Outcome {
    std::fs::write(path, draw(title, panels)).map_err(|error| Failure::io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_logarithmic() {
        let axis = Axis::over([3.0, 900.0].into_iter(), 10.0, 0.0, 300.0);
        assert_eq!((axis.low, axis.high), (1.0, 1000.0));
        assert!((axis.at(10.0) - 100.0).abs() < 1e-9 && (axis.at(1000.0) - 300.0).abs() < 1e-9);
        assert_eq!(
            axis.ticks(10.0).iter().map(|tick| tick.round()).collect::<Vec<_>>(),
            [1.0, 10.0, 100.0, 1000.0]
        );
        // One value, or none at all, still makes an axis.
        assert!(Axis::over([8.0].into_iter(), 2.0, 0.0, 1.0).at(8.0).is_finite());
        assert!(Axis::over([].into_iter(), 2.0, 0.0, 1.0).at(8.0).is_finite());
    }

    #[test]
    fn a_chart_is_one_svg_with_its_text_escaped() {
        let curve = |name: &str| Curve { name: name.into(), points: vec![(1.0, 10.0), (2.0, 20.0)] };
        let panel = Panel {
            x: "batch".into(),
            prefix: "",
            left: "images/s".into(),
            curves: vec![curve("a <b> & c")],
            right: "memory".into(),
            dashed: curve("memory"),
        };
        let text = draw("A & B", &[panel]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains("a &lt;b&gt; &amp; c") && text.contains("<title>A &amp; B</title>"));
        // Each curve in the chart and in the legend.
        assert_eq!(text.matches("<polyline").count(), 4);
        assert_eq!(text.matches("stroke-dasharray").count(), 2);
        assert_eq!(text.matches("<circle").count(), 4);
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}
