//! What the check says: a table on the terminal, JSON or Markdown in a file that can be sent in as it is.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use lenet::model::record;
use lenet::model::run::stamp;
use serde_json::{Value, json};

use super::figures::Figures;
use super::part::{Part, State};
use crate::cli::device::{self, Chosen};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::say::{digits, table, thousands, time};

/// What a report may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Markdown,
}

impl Form {
    /// By the end of a file's name.
    pub fn of(path: &Path) -> Outcome<Form> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("json") => Ok(Form::Json),
            Some("md") => Ok(Form::Markdown),
            _ => Err(Failure::usage(format!("{}: a report is a .json or an .md file", path.display()))),
        }
    }
}

/// The conditions of a check, and all that it found.
pub struct Report {
    pub device: Value,
    pub software: bool,
    pub fill: usize,
    pub quick: bool,
    pub name: String,
    pub date: String,
    pub system: String,
    pub processor: String,
    pub parts: Vec<Part>,
    pub figures: Figures,
}

impl Report {
    pub fn new(chosen: &Chosen, quick: bool) -> Report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let stamp = stamp(now);
        let (day, clock) = stamp.rsplit_once('-').unwrap_or((&stamp, ""));
        Report {
            device: chosen.adapter().map_or(Value::Null, device::about),
            software: chosen.gpu().is_some() && !chosen.is_gpu(),
            fill: chosen.target().fill,
            quick,
            name: chosen.name(),
            date: format!("{day} {}:{}:{} UTC", &clock[..2], &clock[2..4], &clock[4..]),
            system: system(),
            processor: device::processor().unwrap_or_else(device::cpu_name),
            parts: Vec::new(),
            figures: Figures::default(),
        }
    }

    /// The parts that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.parts.iter().filter(|part| part.state == State::Failed).map(|part| part.name).collect()
    }

    /// Everything for machines.
    pub fn json(&self) -> Value {
        let mut value = json!({
            "kind": "check",
            "version": env!("CARGO_PKG_VERSION"),
            "date": self.date,
            "system": self.system,
            "processor": self.processor,
            "threads": rayon::current_num_threads(),
            "device": self.name,
            "adapter": self.device,
            "software": self.software,
            "fill": self.fill,
            "quick": self.quick,
            "passed": self.failed().is_empty(),
            "parts": self.parts,
            "figures": self.figures.json(),
        });
        record::shorten(&mut value);
        value
    }

    /// The conditions, one a line.
    fn conditions(&self) -> Vec<String> {
        let text = |key: &str| self.device[key].as_str().unwrap_or_default();
        let driver = format!("{} {}", text("driver"), text("driver_info"));
        let mut lines = vec![format!("lenet {} on {}, {}", env!("CARGO_PKG_VERSION"), self.name, self.date)];
        if !driver.trim().is_empty() {
            lines.push(format!("driver {}", driver.trim()));
        }
        lines.push(format!("{}, {}, fill {}", self.system, self.processor, self.fill));
        if self.software {
            lines.push(
                "a software adapter: smaller batches and fewer figures; its times say nothing about a GPU"
                    .into(),
            );
        }
        lines
    }

    /// The parts, a row each.
    fn verdicts(&self) -> Vec<Vec<String>> {
        let number = |value: Option<f64>| match value {
            None => "—".into(),
            Some(0.0) => "0".into(),
            Some(value) if (0.01..100.0).contains(&value) => format!("{value:.2}"),
            Some(value) => format!("{value:.1e}"),
        };
        let row = |part: &Part| {
            let (worst, allowed) = (number(part.worst), number(part.allowed));
            let name = format!("{}: {}", part.name, part.what);
            vec![name, part.state.word().into(), worst, allowed, format!("{:.1} s", part.seconds)]
        };
        let head = ["part", "result", "worst", "allowed", "time"].map(String::from).to_vec();
        std::iter::once(head).chain(self.parts.iter().map(row)).collect()
    }

    /// The figures, a row each, and the words for those that are missing.
    fn measured(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["figure", "value"].map(String::from).to_vec()];
        let mut add = |name: String, value: String| rows.push(vec![name, value]);
        let missing = |why: &String| format!("not measured: {why}");
        if let Some(overhead) = &self.figures.overhead {
            let value = overhead.as_ref().map_or_else(missing, |one| {
                let (launch, submission) = (time(one.launch), time(one.submission));
                format!("{launch}; {submission} a submission and its read-back; R² {:.3}", one.fit)
            });
            add("a launch more in a submission".into(), value);
        }
        if let Some(peaks) = &self.figures.peaks {
            let value =
                |peak: fn(&crate::cli::measure::Peak) -> String| peaks.as_ref().map_or_else(missing, peak);
            add("multiply-adds".into(), value(|peak| format!("{} GFLOP/s", digits(peak.flops() / 1e9))));
            add("copy of 128 MiB".into(), value(|peak| format!("{} GB/s", digits(peak.bytes() / 1e9))));
        }
        for (batch, samples) in &self.figures.steps {
            let value = samples.as_ref().map_or_else(missing, |one| {
                let speed = thousands((*batch as f64 / one.median()).round());
                format!("{} ± {:.0} %, {speed} images/s", time(one.median()), 100.0 * one.spread())
            });
            add(format!("lenet5, a step at batch {batch}"), value);
        }
        if let Some(run) = &self.figures.run {
            let value = run.as_ref().map_or_else(missing, |run| {
                let reached = run.seconds.map_or("not reached".into(), time);
                format!("{reached}; {:.2} % after {}", 100.0 * run.accuracy, time(run.whole))
            });
            add("99 % test accuracy on MNIST, --preset fast".into(), value);
        }
        rows
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n{}", self.conditions().join("\n"), table(&self.verdicts()));
        for part in &self.parts {
            for failure in part.failures.iter().take(SHOWN) {
                text += &format!("{}: {failure}\n", part.name);
            }
            if part.failures.len() > SHOWN {
                text += &format!("{}: … and {} more\n", part.name, part.failures.len() - SHOWN);
            }
            for note in part.notes.iter().take(SHOWN) {
                text += &format!("{}: note: {note}\n", part.name);
            }
        }
        let measured = self.measured();
        if measured.len() > 1 {
            text += &format!("\n{}", table(&measured));
        }
        text
    }

    /// For a page or a mail: the tables, and the JSON below them.
    fn markdown(&self) -> String {
        let cells = |row: &Vec<String>| format!("| {} |\n", row.join(" | ").replace('\n', " "));
        let as_table = |rows: &[Vec<String>]| {
            let line = format!("|{}\n", " --- |".repeat(rows[0].len()));
            rows.iter()
                .enumerate()
                .map(|(i, row)| if i == 0 { cells(row) + &line } else { cells(row) })
                .collect()
        };
        let list = |lines: &[String]| lines.iter().map(|line| format!("- {line}\n")).collect::<String>();
        let failures: Vec<String> = self
            .parts
            .iter()
            .flat_map(|part| part.failures.iter().map(|failure| format!("{}: {failure}", part.name)))
            .collect();
        let tables: [String; 2] = [as_table(&self.verdicts()), as_table(&self.measured())];
        format!(
            "# lenet check: {}\n\n{}\n{}\n{}\n{}\n```json\n{:#}\n```\n",
            if self.failed().is_empty() { "passed" } else { "FAILED" },
            list(&self.conditions()),
            tables[0],
            list(&failures),
            tables[1],
            self.json()
        )
    }

    /// Writes it whole.
    pub fn write(&self, path: &Path, form: Form) -> Outcome {
        let text = match form {
            Form::Json => format!("{:#}\n", self.json()),
            Form::Markdown => self.markdown(),
        };
        Ok(lenet::files::write_atomically(path, text.as_bytes())?)
    }
}

/// Failures of a part that the table shows; a report has all.
const SHOWN: usize = 10;

/// The operating system, as far as it tells.
fn system() -> String {
    let name = sysinfo::System::long_os_version().unwrap_or_else(|| std::env::consts::OS.into());
    let kernel =
        sysinfo::System::kernel_version().map_or(String::new(), |version| format!(", kernel {version}"));
    format!("{name}{kernel}, {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_json_or_markdown() {
        assert_eq!(Form::of(Path::new("a/b.json")).unwrap(), Form::Json);
        assert_eq!(Form::of(Path::new("b.md")).unwrap(), Form::Markdown);
        assert!(Form::of(Path::new("b.txt")).is_err() && Form::of(Path::new("json")).is_err());
    }

    #[test]
    fn a_failure_is_told_in_every_form() {
        let mut report = Report::new(&device::choose("cpu").unwrap(), true);
        assert!(report.failed().is_empty() && report.json()["passed"] == true);
        let mut part = Part { allowed: Some(1e-3), ..Part::new("run", "a run") };
        part.difference(0.5, "conv1.weight");
        report.parts.push(part.judged());
        assert_eq!(report.failed(), ["run"]);
        assert!(report.json()["passed"] == false && report.json()["parts"][0]["state"] == "failed");
        for text in [report.text(), report.markdown()] {
            assert!(text.contains("FAILED") && text.contains("conv1.weight differs by 5.0e-1"), "{text}");
        }
    }
}
