//! `lenet check`: whether a device computes what the CPU twins compute, and how fast; a report to send in.
//!
//! `part` is what a part of it found, and keeps every wait bounded; `kernels` and `runs` are the parts, `figures` what
//! is measured but not judged, `data` what they work on, `report` says it all.

mod data;
mod figures;
mod kernels;
mod part;
mod report;
mod runs;

use std::path::PathBuf;
use std::sync::Arc;

use self::data::Pictures;
use self::figures::{Extent, Figures};
use self::part::Part;
use self::report::{Form, Report};
use super::device;
use super::failure::{Failure, Outcome};
use super::say::{emit, emit_json, say};

/// Arguments of `lenet check`.
#[derive(clap::Args)]
pub struct Args {
    /// auto, cpu, gpu, or a name or number from `lenet info`
    #[arg(long, value_name = "DEVICE", default_value = device::AUTO)]
    device: String,
    /// Write everything into a file that can be sent in as it is: .json or .md
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave out the figures that take long; on a software adapter also all but the smallest cases and networks
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `lenet check`.
pub fn run(args: &Args) -> Outcome {
    let form = args.report.as_deref().map(Form::of).transpose()?;
    let chosen = Arc::new(device::choose(&args.device)?);
    say(&chosen.line);
    let mut report = Report::new(&chosen, args.quick);
    let pictures = Arc::new(Pictures::load());
    let (gpu, reduced) = (chosen.gpu().is_some(), report.software && args.quick);
    // Once a device does not answer, nothing more is asked of it.
    let mut hung = false;
    for name in ["kernels", "presets", "run", "repeat", "lost device"] {
        let part = if hung {
            Part::skipped(name, "the device does not answer")
        } else if !gpu && ["kernels", "presets", "lost device"].contains(&name) {
            Part::skipped(name, "the CPU twins are what devices are compared with")
        } else {
            say(&format!("checking: {name}"));
            match name {
                "kernels" => kernels::entries(&chosen, reduced, &mut hung),
                "presets" => kernels::presets(&chosen, &pictures, reduced, &mut hung),
                "run" => runs::smooth(&chosen, &pictures, reduced, &mut hung),
                "repeat" => runs::twice(&chosen, &pictures, reduced, &mut hung),
                _ => runs::lost(&chosen, &mut hung),
            }
        };
        report.parts.push(part);
    }
    if !hung {
        say("measuring");
        let extent = Extent::of(args.quick, report.software);
        report.figures = Figures::take(&chosen, &pictures, extent, &mut hung);
    }
    if args.json {
        emit_json(&report.json())?
    } else {
        emit(&report.text())?
    }
    if let (Some(path), Some(form)) = (&args.report, form) {
        report.write(path, form)?;
        say(&format!("report  {}", path.display()));
    }
    let failed = report.failed();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::device(format!(
        "{} of {} parts failed: {}",
        failed.len(),
        report.parts.len(),
        failed.join(", ")
    )))
}
