//! The table of OPCM (Tang et al., NeurIPS 2025, arXiv 2501.09522): tasks that arrive in several orders.
//!
//! Models of one parent, fine-tuned on a task each, are merged one after another by OPCM, with and without
//! projection, and beside it by average, task arithmetic and TIES, done again from all models so far.
//! `rows` measures, `print` shows.

mod print;
mod rows;

use std::time::Instant;

use regrow_sparse_core::{Error, Result};
use regrow_zoo::{Arch, data};
use serde::{Deserialize, Serialize};

use crate::lab;
use crate::setting::{Common, Scale};
use crate::tasks::Split;

/// OPCM: merging models as they arrive, against merging them all again
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example: bench opcm --orders 5 --seeds 3")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist, fashion-mnist or cifar10
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
    /// In how many orders they arrive
    #[arg(long, default_value_t = 5)]
    orders: usize,
    /// The share of singular values that is protected
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    alpha: f64,
    /// Epochs of the parent
    #[arg(long)]
    epochs: Option<usize>,
    /// Epochs of fine-tuning
    #[arg(long)]
    tune: Option<usize>,
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
    /// Orders for each seed.
    pub orders: usize,
    /// The share of singular values that is protected.
    pub alpha: f64,
    /// Epochs of the parent.
    pub epochs: usize,
    /// Epochs of fine-tuning.
    pub tune: usize,
    /// First learning rate of fine-tuning; it falls along a cosine.
    pub rate: f64,
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
    plan.tasks.tasks(&data, plan.count, 0)?;
    let started = Instant::now();
    let (_, seeds) = plan.seeds;
    let bar = lab::progress((plan.epochs + plan.count * plan.tune) * seeds as usize);
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
        let plan = Plan {
            dataset: self.dataset.clone(),
            arch: self.arch.clone().unwrap_or(if digits { "mlp-small" } else { "mlp" }.into()),
            tasks: self.tasks,
            count: self.count.unwrap_or(if self.tasks == Split::Turns { 8 } else { 5 }),
            orders: self.orders,
            alpha: self.alpha,
            epochs: self.epochs.unwrap_or(epochs),
            tune: self.tune.unwrap_or(tune),
            rate: 0.05,
            batch: if digits { 64 } else { 128 },
            seeds: (self.common.first_seed, self.common.seeds),
        };
        regrow_merging::Opcm::new(plan.alpha)?;
        match (plan.epochs, plan.tune, plan.orders) {
            (0, ..) | (_, 0, _) => Err(Error::Argument("parent and children need at least one epoch each".into())),
            (_, _, 0) => Err(Error::Argument("the table needs at least one order (--orders)".into())),
            _ => Ok(plan),
        }
    }
}
