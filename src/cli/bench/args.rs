//! What `lenet bench` takes on the command line.

use std::path::PathBuf;

use lenet::kernels::optimizer::Rule;
use lenet::plan::Form;

use crate::cli::args::{forms, rules};

/// Arguments of `lenet bench`.
#[derive(clap::Args)]
pub struct Args {
    /// The network: a preset (`lenet summary --list` shows them) or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "lenet5")]
    pub net: String,
    /// Images in a batch, one or several sizes [default: that of `lenet train`]
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',')]
    pub batch: Vec<usize>,
    /// cpu, gpu, a name or number from `lenet info`, or all; may be given several times [default: cpu, and gpu
    /// where there is an adapter]
    #[arg(long)]
    pub device: Vec<String>,
    /// The update rule
    #[arg(long, value_name = "RULE", value_parser = rules(), default_value = "adam")]
    pub optimizer: Rule,
    /// How a step is cut into launches
    #[arg(long, value_name = "FORM", value_parser = forms(), default_value = "layers")]
    pub form: Form,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub seconds: f64,
    /// Measure images/s and memory against the batch size and the network's width instead
    #[arg(long, conflicts_with = "model")]
    pub growth: bool,
    /// The largest batch of --growth
    #[arg(long, value_name = "N", default_value_t = 8192, requires = "growth")]
    pub most_batch: usize,
    /// The largest factor of --growth on channels and hidden features
    #[arg(long, value_name = "N", default_value_t = 8, requires = "growth")]
    pub most_width: usize,
    /// Draw --growth as an SVG
    #[arg(long, value_name = "FILE", requires = "growth")]
    pub svg: Option<PathBuf>,
    /// Estimate a step on a GPU that is not here, from its data sheet; `list` names them, `all` takes all
    #[arg(long, value_name = "GPU", conflicts_with_all = ["device", "seconds"])]
    pub model: Option<String>,
    /// Time launches by many repetitions instead of the GPU's timestamps
    #[arg(long, conflicts_with_all = ["growth", "model"])]
    pub no_timestamps: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
