//! The table of OPCM (Tang et al., NeurIPS 2025, arXiv 2501.09522): tasks that arrive in several orders.
//!
//! Models of one parent, fine-tuned on a task each, are merged one after another by OPCM, with and without
//! projection, and beside it by average, task arithmetic and TIES, done again from all models so far.
//! `rows` measures, `print` shows.

mod print;
mod rows;

use std::time::Instant;

use burn::tensor::Device;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::kin::{self, Kin};
use crate::lab;

/// OPCM: merging models as they arrive, against merging them all again
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  bench opcm --orders 5 --seeds 3\n  bench opcm --dataset mnist,fashion-mnist --count 8 --data DIR"
)]
pub struct Args {
    /// Options of tables of its kind.
    #[command(flatten)]
    pub kin: kin::Args,
    /// In how many orders they arrive
    #[arg(long, default_value_t = 5)]
    orders: usize,
    /// The share of singular values that is protected
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    alpha: f64,
}

/// First learning rate of fine-tuning.
const RATE: f64 = 0.05;

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What decides the models.
    #[serde(flatten)]
    pub kin: kin::Plan,
    /// Orders for each seed.
    pub orders: usize,
    /// The share of singular values that is protected.
    pub alpha: f64,
    /// First learning rate of fine-tuning; it falls along a cosine.
    pub rate: f64,
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, data that is missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (plan, common) = (args.plan()?, &args.kin.common);
    if common.scripted()? {
        return Ok(());
    }
    let kin = Kin::open(&plan.kin, common.data.as_deref())?;
    let (started, device) = (Instant::now(), regrow_device::current());
    let bar = lab::progress((plan.kin.epochs + plan.kin.count * plan.kin.tune) * plan.kin.seeds.1 as usize);
    let of_seed = |device: &Device, seed| rows::of_seed(&plan, kin.family(seed, true, device, &bar)?, seed);
    let rows = kin::fill("opcm", &plan, plan.kin.seeds, common, &bar, of_seed)?;
    bar.finish_and_clear();
    print::show(&plan, &rows, &common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        let plan = Plan { kin: self.kin.plan()?, orders: self.orders, alpha: self.alpha, rate: RATE };
        regrow_merging::Opcm::new(plan.alpha)?;
        match plan.orders {
            0 => Err(Error::Argument("the table needs at least one order (--orders)".into())),
            _ => Ok(plan),
        }
    }
}
