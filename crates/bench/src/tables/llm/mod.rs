//! The table of language models: magnitude, Wanda and SparseGPT at several sparsities and N:M patterns, sparsity
//! distributed equally or by outliers, after pruning and after retraining few parameters.
//!
//! The model is a directory of the user's, or a small Llama that is trained for each seed on a synthetic language,
//! whose lowest possible perplexity is known. `model` prepares, `rows` measures, `print` shows.

mod model;
mod print;
mod rows;

use std::path::PathBuf;
use std::time::Instant;

use regrow_pruners::perp::Form;
use regrow_pruners::registry::{LAYER_SOLVERS, find};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::{Error, Pattern, Result};
use serde::{Deserialize, Serialize};

use crate::harness::info::Info;
use crate::harness::record::Measure;
use crate::harness::settings::{Common, Scale};
use crate::harness::slurm;
use crate::harness::trainer;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "llm",
    summary: "Language models: magnitude, Wanda, SparseGPT at several sparsities, with OWL and PERP",
    example: "bench llm\nbench llm --model DIR --calibration train.txt --text test.txt --window 256 --seeds 3",
    paper: include_str!("../../../published/llm.toml"),
    measure: Measure::Perplexity,
};

/// Magnitude, Wanda, SparseGPT, OWL and PERP on a language model
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// A Hugging Face directory with a decoder; without it a small Llama is trained for each seed
    #[arg(long, requires = "calibration", requires = "text")]
    pub model: Option<PathBuf>,
    /// The text that the methods calibrate and retrain on
    #[arg(long, requires = "model")]
    pub calibration: Option<PathBuf>,
    /// The text whose perplexity is measured
    #[arg(long, requires = "model")]
    pub text: Option<PathBuf>,
    /// Calibration windows, which begin at random; by default 128, or 32 where the model is trained here
    #[arg(long)]
    pub samples: Option<usize>,
    /// Tokens in a window; by default 256, or the model's context if that is shorter
    #[arg(long)]
    pub window: Option<usize>,
    /// Tokens of the text that are measured; by default all
    #[arg(long)]
    pub tokens: Option<usize>,
    /// Unstructured sparsities to reach
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 0.6, 0.7])]
    pub sparsity: Vec<f64>,
    /// N:M patterns
    #[arg(long, value_delimiter = ',', default_values_t = ["2:4".to_string(), "4:8".to_string()])]
    pub pattern: Vec<String>,
    /// Methods, by name
    #[arg(long, value_delimiter = ',', default_values_t = ["magnitude", "wanda", "sparsegpt"].map(String::from))]
    pub method: Vec<String>,
    /// Forms of retraining after magnitude pruning; the first also after every other method
    #[arg(long, value_delimiter = ',', default_values_t = ["mask-lora", "norms", "lora-prune", "scale-lora", "full"].map(String::from))]
    pub form: Vec<String>,
    /// Steps of retraining; 0 for none
    #[arg(long)]
    pub steps: Option<usize>,
    /// Its highest learning rate
    #[arg(long, default_value_t = 5e-3)]
    pub lr: f64,
    /// Rank of its low-rank terms; by default 16, or 2 of the small model that is trained here
    #[arg(long)]
    pub rank: Option<usize>,
}

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The directory's name, or nothing where models are trained here.
    pub model: Option<String>,
    /// Names of the files with the calibration and the test text.
    pub texts: Option<[String; 2]>,
    /// Calibration windows.
    pub samples: usize,
    /// Tokens in a window.
    pub window: Option<usize>,
    /// Tokens measured.
    pub tokens: Option<usize>,
    /// The targets: sparsity and pattern.
    pub goals: Vec<(f64, Pattern)>,
    /// Methods, by name.
    pub methods: Vec<String>,
    /// Forms of retraining, by name.
    pub forms: Vec<String>,
    /// Steps of retraining.
    pub steps: usize,
    /// Its highest learning rate.
    pub learning_rate: f64,
    /// Rank of low-rank terms.
    pub rank: usize,
    /// Steps of training a model, where it is trained here.
    pub training: usize,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, a model or text that cannot be read, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    if slurm::scripted(&args.common)? {
        return Ok(());
    }
    let started = Instant::now();
    let (bar, device) = (trainer::progress(0), regrow_device::current());
    bar.set_length(plan.seeds.1 * rows::cells(&plan) as u64);
    let tell = trainer::teller(&bar);
    let pool = trainer::pool(args.common.parallel, &tell);
    let table = rows::Table { plan: &plan, args, device: &device, pool, bar: &bar };
    let (rows, notes) = table.fill(&args.common.out, args.common.resume)?;
    bar.finish_and_clear();
    print::show(&plan, &rows, &notes, &args.common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        self.sparsity.iter().try_for_each(|s| check_sparsity(*s))?;
        self.method.iter().try_for_each(|m| find(LAYER_SOLVERS, m).map(|_| ()))?;
        for form in &self.form {
            if Form::parse(form)? == Form::Lora {
                return Err(Error::Argument("lora cannot be merged without filling the zeros: use mask-lora".into()));
            }
        }
        if self.samples == Some(0) || !self.lr.is_finite() || self.lr <= 0.0 || self.rank == Some(0) {
            return Err(Error::Argument("--samples, --lr and --rank must be above zero".into()));
        }
        let full = self.common.scale == Scale::Full;
        let [samples, rank, steps] = if self.model.is_some() || full { [128, 16, 1000] } else { [32, 2, 25] };
        let unstructured = self.sparsity.iter().map(|s| (*s, Pattern::Unstructured));
        let name = |path: &PathBuf| path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Plan {
            model: self.model.as_ref().map(name),
            texts: self.calibration.as_ref().zip(self.text.as_ref()).map(|(a, b)| [name(a), name(b)]),
            samples: self.samples.unwrap_or(samples),
            window: self.window,
            tokens: self.tokens,
            goals: unstructured.chain(self.patterns()?).collect(),
            methods: self.method.clone(),
            forms: self.form.clone(),
            steps: self.steps.unwrap_or(steps),
            learning_rate: self.lr,
            rank: self.rank.unwrap_or(rank),
            training: if self.model.is_some() { 0 } else { model::STEPS * if full { 5 } else { 1 } },
            seeds: (self.common.first_seed, self.common.seeds),
        })
    }

    fn patterns(&self) -> Result<Vec<(f64, Pattern)>> {
        let fixed = |text: &String| {
            let pattern = Pattern::parse(text)?;
            let none = || Error::Argument(format!("{text} is no N:M pattern, as 2:4"));
            Ok((pattern.fixed_sparsity().ok_or_else(none)?, pattern))
        };
        self.pattern.iter().filter(|text| !text.is_empty()).map(fixed).collect()
    }
}
