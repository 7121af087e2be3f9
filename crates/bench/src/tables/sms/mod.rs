//! The table of Sparse Model Soups (Zimmer, Spiegel, Pokutta, ICLR 2024, arXiv 2306.16788).
//!
//! For each seed, sparsity and number of candidates m: iterative magnitude pruning, the same with m
//! times the retraining, its averages, SMS, and the candidates' ensemble, all from one dense
//! network per seed. `soup_trainer` trains and prunes, `rows` fills the table, `print` shows it.

mod print;
mod rows;
mod soup_trainer;

use std::time::Instant;

use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::Arch;
use serde::{Deserialize, Serialize};

use crate::harness::images;
use crate::harness::info::Info;
use crate::harness::record::Measure;
use crate::harness::settings::{Common, Scale};
use crate::harness::slurm;
use crate::harness::trainer;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "sms",
    summary: "Sparse Model Soups (arXiv 2306.16788): soups of sparse models against what they are made of",
    example: "bench sms --dataset mnist --data ~/data --seeds 3 --out tables",
    paper: include_str!("../../../published/sms.toml"),
    measure: Measure::Accuracy,
};

/// Sparse Model Soups: does averaging candidates of a prune-retrain phase beat each of them?
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist, fashion-mnist or cifar10
    #[arg(long, default_value = "digits")]
    dataset: String,
    /// The network; by default mlp-small for digits, mlp for MNIST, resnet20 for CIFAR
    #[arg(long)]
    arch: Option<String>,
    /// Sparsities to reach
    #[arg(long, value_delimiter = ',')]
    sparsity: Option<Vec<f64>>,
    /// Candidates per phase
    #[arg(long, value_delimiter = ',')]
    m: Option<Vec<usize>>,
    /// What candidates differ in
    #[arg(long, value_enum, default_value_t = Vary::Seed)]
    vary: Vary,
    /// Epochs of pretraining; a phase has a fifth of it
    #[arg(long)]
    epochs: Option<usize>,
}

/// What the candidates of a phase differ in.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vary {
    /// The order of the examples.
    Seed,
    /// The weight decay, by factors of two around the usual.
    WeightDecay,
    /// The first learning rate, by factors of 1.25 around the usual.
    LearningRate,
}

/// Everything that determines the table's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// Epochs of the dense training.
    pub pretrain_epochs: usize,
    /// Epochs of retraining in a phase.
    pub phase_epochs: usize,
    /// Prune-retrain phases.
    pub phases: usize,
    /// Examples per step.
    pub batch: usize,
    /// First learning rate, falling linearly to zero.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f32,
    /// Momentum (no dampening).
    pub momentum: f64,
    /// Share of the training images held out for choosing models.
    pub validation: f64,
    /// Share of the training images that recompute batch-norm statistics.
    pub recalibration: f64,
    /// Pad and flip training images (CIFAR).
    pub augment: bool,
    /// Sparsities.
    pub sparsities: Vec<f64>,
    /// Candidates per phase.
    pub candidates: Vec<usize>,
    /// What they differ in.
    pub vary: Vary,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, data that is missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    if slurm::scripted(&args.common)? {
        return Ok(());
    }
    let arch = Arch::parse(&plan.arch)?;
    let data = images::open(&plan.dataset, arch, args.common.data.as_deref())?;
    let started = Instant::now();
    let bar = trainer::progress(rows::epochs(&plan));
    let device = regrow_device::current();
    let tell = trainer::teller(&bar);
    let pool = trainer::pool(args.common.parallel, &tell);
    let table = rows::Table { plan: &plan, arch, data: &data, device: &device, pool, bar: &bar };
    let rows = table.fill(&args.common.out, args.common.resume)?;
    bar.finish_and_clear();
    print::show(&plan, &rows, &args.common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        let full = self.common.scale == Scale::Full;
        let cifar = self.dataset.starts_with("cifar");
        let (arch, quick, paper) = match self.dataset.as_str() {
            "digits" => ("mlp-small", 30, 100),
            "mnist" | "fashion-mnist" => ("mlp", 5, 50),
            "cifar10" => ("resnet20", 10, 200),
            other => {
                return Err(Error::Argument(format!(
                    "unknown data set `{other}`: use cifar10, digits, fashion-mnist, mnist"
                )));
            }
        };
        let pretrain_epochs = self.epochs.unwrap_or(if full { paper } else { quick });
        let plan = Plan {
            dataset: self.dataset.clone(),
            arch: self.arch.clone().unwrap_or(arch.into()),
            pretrain_epochs,
            phase_epochs: (pretrain_epochs / 5).max(1),
            phases: 3,
            batch: if self.dataset == "digits" { 64 } else { 128 },
            learning_rate: 0.1,
            weight_decay: if cifar { 5e-4 } else { 1e-4 },
            momentum: 0.9,
            validation: 0.1,
            recalibration: 0.2,
            augment: cifar,
            sparsities: self.sparsity.clone().unwrap_or(vec![0.9, 0.95, 0.98]),
            candidates: self.m.clone().unwrap_or(vec![3, 5]),
            vary: self.vary,
            seeds: (self.common.first_seed, self.common.seeds),
        };
        plan.check()?;
        Ok(plan)
    }
}

impl Plan {
    fn check(&self) -> Result<()> {
        self.sparsities.iter().try_for_each(|s| check_sparsity(*s))?;
        if self.candidates.contains(&0) {
            return Err(Error::Argument("a sparse model soup needs at least one candidate per phase (m)".into()));
        }
        if self.sparsities.is_empty() || self.candidates.is_empty() {
            return Err(Error::Argument("the table needs at least one sparsity and one m".into()));
        }
        match self.pretrain_epochs {
            0 => Err(Error::Argument("the dense network needs at least one epoch (--epochs)".into())),
            _ => Ok(()),
        }
    }
}
