//! The table of RMM (Alipour, Amiri, arXiv 2510.14163): merging models of low rank.
//!
//! One parent, fine-tuned on several tasks: by LoRA, or wholly and then cut to a rank by SVD. The children are
//! merged into one model by average, task arithmetic, TIES and DARE, of the factors and of their products,
//! and reversibly by RMM. `models` trains, `rows` merges and measures, `print` shows.

mod models;
mod print;
mod rows;

use std::time::Instant;

use burn::tensor::Device;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::Arch;
use serde::{Deserialize, Serialize};

use crate::kin::{self, Kin};
use crate::lab;

/// RMM: merging low-rank models reversibly, against merging them into one
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  bench rmm --rank 4,8 --seeds 3\n  bench rmm --dataset mnist,fashion-mnist --count 8 --data DIR"
)]
pub struct Args {
    /// Options of tables of its kind.
    #[command(flatten)]
    pub kin: kin::Args,
    /// Ranks of LoRA and of SVD
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8, 16])]
    rank: Vec<usize>,
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
    /// What decides the models.
    #[serde(flatten)]
    pub kin: kin::Plan,
    /// Ranks.
    pub ranks: Vec<usize>,
    /// First learning rate of fine-tuning everything; it falls along a cosine.
    pub rate: f64,
    /// The same of LoRA.
    pub lora_rate: f64,
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
    let of_seed = plan.kin.epochs + plan.kin.count * plan.kin.tune * (1 + plan.ranks.len());
    let bar = lab::progress(of_seed * plan.kin.seeds.1 as usize);
    let of_seed = |device: &Device, seed| rows::of_seed(&plan, &kin.family(seed, false, device, &bar)?, seed);
    let rows = kin::fill("rmm", &plan, plan.kin.seeds, common, &bar, of_seed)?;
    bar.finish_and_clear();
    print::show(&plan, &rows, &common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        if self.rank.is_empty() || self.rank.contains(&0) {
            return Err(Error::Argument("the table needs at least one rank, none of them 0 (--rank)".into()));
        }
        let kin = self.kin.plan()?;
        match Arch::parse(&kin.arch)? {
            Arch::Mlp | Arch::MlpSmall => {
                Ok(Plan { kin, ranks: self.rank.clone(), rate: self.rate, lora_rate: self.lora_rate })
            }
            other => Err(Error::Argument(format!("{other} has layers without LoRA here: use mlp or mlp-small"))),
        }
    }
}
