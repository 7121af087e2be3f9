//! The table of RD (Xu et al., ICCV 2023, arXiv 2308.10438): budgets by measured output distortion.
//!
//! One network, pruned by `|w|` to each sparsity with each budget: without retraining, and with a
//! little. The network is trained here (one per seed) or a checkpoint. `rows` measures, `print` shows.

mod print;
mod rows;

use std::path::PathBuf;
use std::time::Instant;

use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::{Arch, data};
use serde::{Deserialize, Serialize};

use crate::lab;
use crate::setting::{Common, Part};

/// RD budgets against uniform, global, ERK and LAMP
#[derive(clap::Parser, Clone, Debug)]
#[command(
    after_help = "Example: bench rd --checkpoint resnet20.safetensors --arch resnet20 --dataset cifar10 --data DIR --retrain 0"
)]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist, fashion-mnist or cifar10
    #[arg(long, default_value = "digits")]
    pub dataset: String,
    /// The network
    #[arg(long, default_value = "mlp-small")]
    pub arch: String,
    /// A trained network in PyTorch's names; without it one is trained for each seed
    #[arg(long)]
    pub checkpoint: Option<PathBuf>,
    /// Sparsities to reach
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 0.7, 0.8, 0.9, 0.95])]
    pub sparsity: Vec<f64>,
    /// Steps of the grid of amounts at which each layer is measured (the authors' is about 100)
    #[arg(long, default_value_t = 100)]
    pub amounts: usize,
    /// The largest of these amounts; 1, as in the authors' code, lets a whole layer go
    #[arg(long, default_value_t = 0.99)]
    pub most: f64,
    /// Training images to measure distortions on
    #[arg(long, default_value_t = 256)]
    pub calibration: usize,
    /// How much of the data.
    #[command(flatten)]
    pub part: Part,
    /// Epochs of training a network, where no checkpoint is given
    #[arg(long, default_value_t = 20)]
    pub epochs: usize,
    /// Epochs of retraining after pruning; 0 for none
    #[arg(long, default_value_t = 3)]
    pub retrain: usize,
}

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// File name of the checkpoint, if one is pruned.
    pub checkpoint: Option<String>,
    /// Epochs of training a network.
    pub epochs: usize,
    /// Epochs of retraining.
    pub retrain: usize,
    /// Examples per step.
    pub batch: usize,
    /// Sparsities.
    pub sparsities: Vec<f64>,
    /// Steps of the grid of amounts.
    pub amounts: usize,
    /// The largest of them.
    #[serde(default = "whole")]
    pub most: f64,
    /// Calibration images.
    pub calibration: usize,
    /// How much of the data.
    #[serde(flatten)]
    pub part: Part,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

/// The largest amount of results from before it could be chosen.
fn whole() -> f64 {
    1.0
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, data or a checkpoint that is missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    if args.common.scripted()? {
        return Ok(());
    }
    let arch = Arch::parse(&plan.arch)?;
    let data = plan.part.of(data::open(&plan.dataset, args.common.data.as_deref())?);
    if data.train.size != arch.input() {
        let (have, want) = (data.train.size, arch.input());
        return Err(Error::Argument(format!("{} images are {have:?}, {arch} wants {want:?}", data.name)));
    }
    let started = Instant::now();
    let bar = lab::progress(0);
    let device = regrow_device::current();
    let tell = lab::teller(&bar);
    let crew = lab::crew(args.common.parallel, &tell);
    let table = rows::Table { plan: &plan, arch, data: &data, checkpoint: args.checkpoint.as_deref(), crew };
    let (rows, notes) = table.fill(&args.common.out, args.common.resume, &bar)?;
    bar.finish_and_clear();
    print::show(&plan, &rows, &notes, &args.common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        self.sparsity.iter().try_for_each(|s| check_sparsity(*s))?;
        if !(self.most > 0.0 && self.most <= 1.0) {
            return Err(Error::Argument(format!(
                "{} is no fraction of a layer: --most lies above 0, at most 1",
                self.most
            )));
        }
        self.part.check()?;
        if self.amounts == 0 || self.calibration == 0 {
            return Err(Error::Argument("the table needs at least one amount and one calibration image".into()));
        }
        if self.checkpoint.is_none() && self.epochs == 0 {
            return Err(Error::Argument("the network needs at least one epoch (--epochs), or a --checkpoint".into()));
        }
        if let Some(path) = &self.checkpoint {
            std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        }
        let file = self.checkpoint.as_deref().and_then(|path| path.file_name());
        Ok(Plan {
            dataset: self.dataset.clone(),
            arch: self.arch.clone(),
            checkpoint: file.map(|name| name.to_string_lossy().into_owned()),
            epochs: self.epochs,
            retrain: self.retrain,
            batch: if self.dataset == "digits" { 64 } else { 128 },
            sparsities: self.sparsity.clone(),
            amounts: self.amounts,
            most: self.most,
            calibration: self.calibration,
            part: self.part,
            seeds: (self.common.first_seed, self.common.seeds),
        })
    }
}
