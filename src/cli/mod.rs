//! The program around the library: its commands.
//!
//! Results go to stdout, talk to stderr. Whatever goes wrong is one line and an exit code that says what kind
//! of thing it was. A room uses those that stand before it here; a command no other command.

mod failure;
mod say;

mod device;
mod presets;

mod model;

mod args;
mod measure;
mod run;

mod bench;
mod check;
mod eval;
mod info;
mod lr_find;
mod predict;
mod read;
mod summary;
mod sweep;
mod train;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

use failure::Failure;
use say::{emit, say, table};

const AFTER_HELP: &str = "\
Exit codes:
    0  all is well
    1  something else, such as a full disk
    2  a command or a setting that makes no sense
    3  a data, picture or weights file that is missing or damaged
    4  a device that does not exist, is too small or failed
    5  a loss, gradient, moment or weight that is not finite
  130  interrupted; what was done is saved

The whole job, offline, with the embedded MNIST:  lenet train";

/// LeNet-5 trained entirely on the GPU by hand-written WGSL compute shaders.
#[derive(Parser)]
#[command(name = "lenet", version, after_help = AFTER_HELP, arg_required_else_help = true)]
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
    /// Classify pictures, signals or texts
    #[command(after_help = AFTER_HELP)]
    Predict(predict::Args),
    /// Read strings of digits out of pictures of any size, with boxes
    #[command(after_help = AFTER_HELP)]
    Read(read::Args),
    /// Compare CPU and GPU: every launch of the training step, the step, how they grow, or a model of other GPUs
    #[command(after_help = AFTER_HELP)]
    Bench(Box<bench::Args>),
    /// Check a device against the CPU: every shader, every preset, whole runs, its loss; a report to send in
    #[command(after_help = AFTER_HELP)]
    Check(check::Args),
    /// Show a network's layers, or every launch of its training step
    #[command(after_help = AFTER_HELP)]
    Summary(summary::Args),
    /// Show the devices of this machine, and which one `--device auto` takes
    #[command(after_help = AFTER_HELP)]
    Info(info::Args),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let start = Instant::now();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let outcome = Cli::try_parse().map_err(Failure::from).and_then(|cli| match cli.command {
        Command::Train(args) => train::run(*args, start),
        Command::LrFind(args) => lr_find::run(&args).map(|()| 0),
        Command::Sweep(args) => sweep::run(&args),
        Command::Eval(args) => eval::run(&args).map(|()| 0),
        Command::Predict(args) => predict::run(&args).map(|()| 0),
        Command::Read(args) => read::run(&args).map(|()| 0),
        Command::Bench(args) => bench::run(&args).map(|()| 0),
        Command::Check(args) => check::run(&args).map(|()| 0),
        Command::Summary(args) => summary::run(&args).map(|()| 0),
        Command::Info(args) => info::run(&args).map(|()| 0),
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        // Help and version arrive here too.
        Err(Failure { code: 0, message, .. }) => match emit(&format!("{}\n", message.trim_end())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.code),
        },
        Err(failure) => {
            if !failure.rows.is_empty() {
                say(&table(&failure.rows));
            }
            say(&format!("lenet: {failure}"));
            ExitCode::from(failure.code)
        }
    }
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
}
