//! The table of RMM (Alipour, Amiri, arXiv 2510.14163): merging low-rank models.
//!
//! One parent, fine-tuned on several tasks: by LoRA, or fully and then truncated to a rank by SVD. The fine-tuned
//! models are merged into one model by average, task arithmetic, TIES and DARE, of the factors and of their products,
//! and reversibly by RMM. `models` trains, `rows` merges and measures, `view` shows.

mod models;
mod rows;
mod view;

use regrow_zoo::Arch;

use crate::harness::finetuned::{Finetuned, FinetunedData};
use crate::harness::prelude::*;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "rmm",
    summary: "RMM (arXiv 2510.14163): merging low-rank models reversibly, against merging them into one",
    example: "bench rmm --rank 4,8 --seeds 3\nbench rmm --dataset mnist,fashion-mnist --count 8 --data DIR",
    paper: include_str!("../../../published/rmm.toml"),
    measure: Measure::Accuracy,
};

/// Options of the table.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct RmmTable {
    #[command(flatten)]
    #[serde(flatten)]
    models: Finetuned,
    /// Ranks of LoRA and of SVD
    #[arg(long = "rank", value_delimiter = ',', default_values_t = [4, 8, 16])]
    ranks: Vec<usize>,
    /// First learning rate of fine-tuning everything; it falls along a cosine
    #[arg(long, default_value_t = 0.05)]
    rate: f64,
    /// First learning rate of LoRA
    #[arg(long, default_value_t = 0.01)]
    lora_rate: f64,
}

impl Table for RmmTable {
    type Data = FinetunedData;

    fn check(&mut self, common: &Common) -> Result<()> {
        let some = !self.ranks.is_empty() && !self.ranks.contains(&0);
        ensure(some, "the table needs at least one rank, none of them 0 (--rank)")?;
        self.models.check(common)?;
        match Arch::parse(&self.models.plan.arch)? {
            Arch::Mlp | Arch::MlpSmall => Ok(()),
            other => Err(Error::Argument(format!("{other} has layers without LoRA here: use mlp or mlp-small"))),
        }
    }

    fn open(&self, folder: Option<&Path>) -> Result<FinetunedData> {
        FinetunedData::open(&self.models.plan, folder)
    }

    fn epochs(&self, _data: &FinetunedData) -> usize {
        self.models.plan.epochs + self.models.plan.count * self.models.plan.tune * (1 + self.ranks.len())
    }

    fn rows(&self, _setting: &Setting, seed: u64, context: &Context<'_, FinetunedData>) -> Result<Vec<Record>> {
        rows::of_seed(self, &context.data.family(seed, false, context)?, seed)
    }

    fn describe(&self, _data: &FinetunedData) -> String {
        format!(
            "{}, of the weight matrices, biases fixed; LoRA's rate {}, alpha / r 2; factors of merged differences chosen on \
             held-out images, TIES keeps 0.2, DARE 0.5",
            self.models.says(self.rate),
            self.lora_rate
        )
    }

    fn view(&self, _data: &FinetunedData, rows: &[Record]) -> Result<View> {
        self.shown(rows)
    }
}
