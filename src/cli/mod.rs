//! The program around the library: its commands, its exit codes, and how it talks.
//!
//! Results go to stdout, talk to stderr. Whatever goes wrong is one line and an exit code that says what kind
//! of thing it was.

mod bench;
mod device;
mod eval;
mod info;
mod lr_find;
mod predict;
mod presets;
mod read;
mod run;
mod summary;
mod sweep;
mod train;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use lenet::{Error, Network};

/// Exit codes.
mod code {
    pub const OTHER: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const DATA: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const NOT_FINITE: u8 = 5;
    pub const INTERRUPTED: u8 = 130;
}

const AFTER_HELP: &str = "\
Exit codes:
    0  all is well
    1  something else, such as a full disk
    2  a command or a setting that makes no sense
    3  a data, picture or weights file that is missing or damaged
    4  a device that does not exist, is too small or failed
    5  a loss or gradient that is not finite
  130  interrupted; what was done is saved

The whole job, offline, with the embedded MNIST:  lenet train";

/// LeNet-5 trained entirely on the GPU by hand-written WGSL compute shaders.
#[derive(Parser)]
#[command(name = "lenet", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a network
    #[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
    Train(Box<train::Args>),
    /// Find a learning rate: a short run in which it grows until the loss does
    #[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
    LrFind(Box<lr_find::Args>),
    /// Train with every setting out of lists, or with random ones, and say which was best
    #[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
    Sweep(Box<sweep::Args>),
    /// Judge a trained network: loss, accuracy, figures of each class, confusion matrix
    #[command(after_help = AFTER_HELP)]
    Eval(eval::Args),
    /// Classify pictures (PNG, JPEG, PNM), signals or texts
    #[command(after_help = AFTER_HELP)]
    Predict(predict::Args),
    /// Read strings of digits out of pictures of any size, with boxes
    #[command(after_help = AFTER_HELP)]
    Read(read::Args),
    /// Compare CPU and GPU: every launch of the training step, the step, how they grow, or a model of other GPUs
    #[command(after_help = AFTER_HELP)]
    Bench(Box<bench::Args>),
    /// Show a network's layers, or every launch of its training step
    #[command(after_help = AFTER_HELP)]
    Summary(summary::Args),
    /// Show the devices of this machine, and which one `--device auto` takes
    #[command(after_help = AFTER_HELP)]
    Info(info::Args),
}

/// Why the program ends early.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

/// What a command gives; the code is 0 unless it was interrupted.
type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    fn usage(message: impl Into<String>) -> Failure {
        Failure { code: code::USAGE, message: message.into() }
    }

    fn data(message: impl Into<String>) -> Failure {
        Failure { code: code::DATA, message: message.into() }
    }

    fn device(message: impl Into<String>) -> Failure {
        Failure { code: code::DEVICE, message: message.into() }
    }

    /// An error of reading a data, picture or weights file.
    fn reading(error: Error) -> Failure {
        Failure { code: code::DATA, ..Failure::from(error) }
    }

    fn io(path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure { code: code::OTHER, message: format!("{}: {error}", path.display()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match error {
            Error::Data { .. } | Error::Weights { .. } => code::DATA,
            Error::Network(_) | Error::Settings(_) => code::USAGE,
            Error::Limit { .. } | Error::Device(_) | Error::DeviceLost(_) => code::DEVICE,
            Error::NotFinite { .. } => code::NOT_FINITE,
            _ => code::OTHER,
        };
        Failure { code, message: error.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the cause had to say.
        let words: Vec<&str> = self.message.split_whitespace().collect();
        f.write_str(&words.join(" "))
    }
}

/// Writes a result to stdout. A reader that has gone away, as `head` does, is no error.
fn emit(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure { code: code::OTHER, message: format!("stdout: {error}") })
        }
        _ => Ok(()),
    }
}

/// Writes a value as one line of JSON to stdout.
fn emit_json(value: &serde_json::Value) -> Outcome {
    emit(&format!("{value}\n"))
}

/// Says something on stderr, if anyone listens.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs the program.
pub fn main() -> ExitCode {
    let start = Instant::now();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let outcome = Cli::try_parse().map_err(refused).and_then(|cli| match cli.command {
        Command::Train(args) => train::run(*args, start),
        Command::LrFind(args) => lr_find::run(&args).map(|()| 0),
        Command::Sweep(args) => sweep::run(&args),
        Command::Eval(args) => eval::run(&args).map(|()| 0),
        Command::Predict(args) => predict::run(&args).map(|()| 0),
        Command::Read(args) => read::run(&args).map(|()| 0),
        Command::Bench(args) => bench::run(&args).map(|()| 0),
        Command::Summary(args) => summary::run(&args).map(|()| 0),
        Command::Info(args) => info::run(&args).map(|()| 0),
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        // Help and version arrive here too.
        Err(Failure { code: 0, message }) => match emit(&format!("{}\n", message.trim_end())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.code),
        },
        Err(failure) => {
            say(&format!("lenet: {failure}"));
            ExitCode::from(failure.code)
        }
    }
}

/// What clap has to say, as the rest of the program says it.
fn refused(error: clap::Error) -> Failure {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Failure { code: 0, message: error.render().to_string() }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Failure::usage("no command given; `lenet --help` lists them")
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let end = text.find("\n\nUsage:").or_else(|| text.find("\n\nFor more")).unwrap_or(text.len());
            Failure::usage(&text[..end])
        }
    }
}

/// A network by its preset's name, or out of a TOML file.
fn load_network(spec: &str) -> Outcome<Network> {
    if Network::presets().any(|name| name == spec) {
        return Ok(Network::preset(spec)?);
    }
    let path = std::path::Path::new(spec);
    if !path.is_file() {
        let known: Vec<_> = Network::presets().collect();
        return Err(Failure::usage(format!(
            "there is no network called {spec}, and no such file; the presets are {}",
            known.join(", ")
        )));
    }
    let bytes = lenet::files::read(path)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{spec}: not text, expected a network as TOML")))?;
    if let Err(error) = toml::from_str::<Network>(&text) {
        return Err(Failure::usage(toml_problem(spec, &text, &error)));
    }
    Network::parse(&text).map_err(|error| Failure::usage(format!("{spec}: {error}")))
}

/// What is wrong with a TOML file, and where, on one line.
fn toml_problem(file: &str, text: &str, error: &toml::de::Error) -> String {
    let place = error.span().map_or(String::new(), |span| {
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        format!(":{line}:{column}")
    });
    format!("{file}{place}: {}", error.message())
}

/// A count with its thousands apart.
fn thousands(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns of text: the first to the left, the others to the right; a line under the heading.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        if i == 0 {
            text += &"─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_tells_the_true_defaults() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        let help = cli.find_subcommand_mut("train").unwrap().render_long_help().to_string();
        let default = lenet::train::Settings::default();
        assert_eq!(default.schedule, lenet::train::Schedule::Cosine);
        for (flag, value) in [
            ("--epochs <N>", default.epochs.to_string()),
            ("--batch <N>", default.batch.to_string()),
            ("--lr <X>", default.learning_rate.to_string()),
            ("--optimizer <RULE>", default.optimizer.rule.name().into()),
            ("--schedule <SCHEDULE>", "cosine".into()),
        ] {
            let about = help.split(flag).nth(1).and_then(|rest| rest.split("      --").next()).unwrap();
            assert!(about.contains(&format!("[default: {value}]")), "{flag}: {about}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["7", "999", "1000", "61706", "1234567"].map(thousands).join(" "),
            "7 999 1,000 61,706 1,234,567"
        );
    }

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::usage("a\n  | b\n").to_string(), "a | b");
    }
}
