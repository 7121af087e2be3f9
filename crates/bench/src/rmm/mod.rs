//! The table of RMM (Alipour, Amiri, arXiv 2510.14163): merging models of low rank.
//!
//! One parent, fine-tuned on several tasks: by LoRA, or wholly and then cut to a rank by SVD. The children are
//! merged into one model by average, task arithmetic, TIES and DARE, of the factors and of their products,
//! and reversibly by RMM. `models` trains, `rows` merges and measures, `print` shows.

mod models;
mod print;
mod rows;

use std::time::Instant;

use regrow_sparse_core::{Error, Result};
use regrow_zoo::{Arch, data};
use serde::{Deserialize, Serialize};

use crate::lab;
use crate::setting::{Common, Scale};
use crate::tasks::Split;

/// RMM: merging low-rank models reversibly, against merging them into one
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example: bench rmm --rank 4,8 --seeds 3")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist or fashion-mnist
    #[arg(long, default_value = "digits")]
    dataset: String,
    /// The network; by default mlp-small for digits, mlp for MNIST
    #[arg(long)]
    arch: Option<String>,
    /// What the tasks are
    #[arg(long, value_enum, default_value_t = Split::Turns)]
    tasks: Split,
    /// How many tasks; by default all
    #[arg(long)]
    count: Option<usize>,
    /// Ranks of LoRA and of SVD
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8, 16])]
    rank: Vec<usize>,
    /// Epochs of the parent
    #[arg(long)]
    epochs: Option<usize>,
    /// Epochs of fine-tuning
    #[arg(long)]
    tune: Option<usize>,
    /// First learning rate of fine-tuning everything
    #[arg(long, default_value_t = 0.05)]
    rate: f64,
    /// First learning rate of LoRA
    #[arg(long, default_value_t = 0.01)]
    lora_rate: f64,
}

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// What the tasks are.
    pub tasks: Split,
    /// How many.
    pub count: usize,
    /// Ranks.
    pub ranks: Vec<usize>,
    /// Epochs of the parent.
    pub epochs: usize,
    /// Epochs of fine-tuning.
    pub tune: usize,
    /// First learning rate of fine-tuning everything; it falls along a cosine.
    pub rate: f64,
    /// The same of LoRA.
    pub lora_rate: f64,
    /// Examples per step.
    pub batch: usize,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, data that is missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    args.common.check()?;
    let arch = Arch::parse(&plan.arch)?;
    let data = data::open(&plan.dataset, args.common.data.as_deref())?;
    if data.train.size != arch.input() {
        let (size, wants) = (data.train.size, arch.input());
        return Err(Error::Argument(format!("{} images are {size:?}, {arch} wants {wants:?}", data.name)));
    }
    // Before any training: are there so many tasks?
    plan.tasks.tasks(&data, plan.count, 0)?;
    let started = Instant::now();
    let (_, seeds) = plan.seeds;
    let of_seed = plan.epochs + plan.count * plan.tune * (1 + plan.ranks.len());
    let bar = lab::progress(of_seed * seeds as usize);
    let device = regrow_sparse_core::device::current();
    let table = rows::Table { plan: &plan, arch, data: &data, device: &device };
    let rows = table.fill(&args.common.out, args.common.resume, &bar)?;
    bar.finish_and_clear();
    print::show(&plan, &rows, &args.common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        let full = self.common.scale == Scale::Full;
        let digits = self.dataset == "digits";
        let (epochs, tune) = match (digits, full) {
            (true, false) => (30, 20),
            (true, true) => (100, 100),
            (false, false) => (3, 2),
            (false, true) => (20, 10),
        };
        if self.rank.is_empty() || self.rank.contains(&0) {
            return Err(Error::Argument("the table needs at least one rank, none of them 0 (--rank)".into()));
        }
        let plan = Plan {
            dataset: self.dataset.clone(),
            arch: self.arch.clone().unwrap_or(if digits { "mlp-small" } else { "mlp" }.into()),
            tasks: self.tasks,
            count: self.count.unwrap_or(if self.tasks == Split::Turns { 8 } else { 5 }),
            ranks: self.rank.clone(),
            epochs: self.epochs.unwrap_or(epochs),
            tune: self.tune.unwrap_or(tune),
            rate: self.rate,
            lora_rate: self.lora_rate,
            batch: if digits { 64 } else { 128 },
            seeds: (self.common.first_seed, self.common.seeds),
        };
        match (Arch::parse(&plan.arch)?, plan.epochs, plan.tune) {
            (_, 0, _) | (_, _, 0) => Err(Error::Argument("parent and children need at least one epoch each".into())),
            (Arch::Mlp | Arch::MlpSmall, ..) => Ok(plan),
            (other, ..) => Err(Error::Argument(format!("{other} has layers without LoRA here: use mlp or mlp-small"))),
        }
    }
}
