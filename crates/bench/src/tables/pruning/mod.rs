//! Every pruning method at equal training cost: accuracy, time and FLOPs over sparsities.
//!
//! Each run sees the same number of training steps, whether it prunes before, during or after
//! training. [`methods`] lists them, `rows` runs them, `view` shows the table.

pub mod methods;
pub mod narrow;
mod rows;
mod view;

use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_zoo::Arch;

pub use methods::{Job, Method};

use crate::harness::dense::Images;
use crate::harness::images::{self, Part};
use crate::harness::prelude::*;
use crate::harness::run;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "pruning",
    summary: "Every pruning method at equal training cost, over sparsities",
    example: "bench pruning --sparsity 0.9,0.95 --seeds 3",
    paper: include_str!("../../../published/pruning.toml"),
    measure: Measure::Accuracy,
};

/// Every pruning method at equal training cost, over sparsities
#[derive(clap::Parser, Clone, Debug)]
#[command(after_help = "Example: bench pruning --sparsity 0.9,0.95 --seeds 3")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist, fashion-mnist or cifar10
    #[arg(long, default_value = "digits")]
    pub dataset: String,
    /// The network; by default mlp-small for digits, mlp for MNIST, resnet20 for CIFAR
    #[arg(long)]
    pub arch: Option<String>,
    /// Sparsities to reach, as 0.5,0.9; by default those of the table
    #[arg(long, value_delimiter = ',')]
    pub sparsity: Option<Vec<f64>>,
    /// Only these methods, by name; by default all
    #[arg(long, value_delimiter = ',')]
    pub method: Option<Vec<String>>,
    /// Epochs of every run
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Examples per step; by default 64 for digits, 128 otherwise. Few images want small batches
    #[arg(long)]
    pub batch: Option<usize>,
    /// First learning rate, falling to zero along half a cosine
    #[arg(long, default_value_t = 0.1)]
    pub learning_rate: f64,
    /// How much of the data.
    #[command(flatten)]
    pub part: Part,
}

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// Epochs of every run.
    pub epochs: usize,
    /// Examples per step.
    pub batch: usize,
    /// First learning rate, falling to zero along half a cosine.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f32,
    /// Momentum (no dampening).
    pub momentum: f64,
    /// Share of the training images that recompute batch-norm statistics.
    pub recalibration: f64,
    /// Pad and flip training images (CIFAR).
    pub augment: bool,
    /// Sparsities.
    pub sparsities: Vec<f64>,
    /// Methods, by name.
    pub methods: Vec<String>,
    /// How much of the data.
    #[serde(flatten)]
    pub part: Part,
}

/// A table that compares methods, sparsity by sparsity.
pub struct Comparison<'a> {
    /// Its registry entry.
    pub info: &'static Info,
    /// What it shows, in a line.
    pub heading: &'a str,
    /// What each run may spend, in a line.
    pub cost: &'a str,
    /// The methods.
    pub methods: Vec<Method>,
    /// What they spare: sparsities, and whether of weights.
    pub spared: Spared,
    /// The methods that the picture shows first.
    pub drawn: &'a [&'a str],
    /// Epochs that the runs of one seed together train, for the progress bar.
    pub epochs: fn(&Plan) -> usize,
    /// Findings that are no rows, a line each.
    pub notes: fn(&Plan, &[Record]) -> Vec<String>,
}

/// Runs the table of all methods, with `more` beside the built-in ones.
///
/// # Errors
/// Impossible settings, data that is missing, an output folder that cannot be written.
pub fn run(args: &Args, more: &[Method]) -> Result<()> {
    let mut methods = methods::all();
    methods.extend(more.iter().cloned());
    let comparison = Comparison {
        info: &INFO,
        heading: "Pruning methods at equal training cost",
        cost: "for every method, before, during and after pruning together",
        methods,
        spared: ZEROS,
        drawn: &view::DRAWN,
        epochs: |plan| plan.epochs * (1 + plan.methods.len() * plan.sparsities.len()),
        notes: |_, _| Vec::new(),
    };
    comparison.run(args)
}

/// What the columns of a table are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spared {
    /// What is fewer, as the head of a column says after the percentage.
    pub of: &'static str,
    /// How much, where the command line does not say.
    pub sparsities: &'static [f64],
    /// Whether it is weights, counted exactly.
    pub exact: bool,
}

/// Weights, from half to nearly all.
pub const ZEROS: Spared = Spared { of: "zeros", sparsities: &[0.5, 0.8, 0.9, 0.95, 0.98], exact: true };

impl Comparison<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// Impossible settings, data that is missing, an output folder that cannot be written.
    pub fn run(&self, args: &Args) -> Result<()> {
        let methods = self.chosen(args)?;
        let plan = args.plan(&methods, self.spared.sparsities)?;
        let compared = Compared { plan: &plan, comparison: self, methods, exact: self.spared.exact };
        run::run(self.info, &compared, &args.common)
    }

    /// The methods that were asked for.
    fn chosen(&self, args: &Args) -> Result<Vec<Method>> {
        let Some(wanted) = &args.method else { return Ok(self.methods.clone()) };
        let mut left = wanted.as_slice();
        let mut chosen = Vec::new();
        while !left.is_empty() {
            let (method, words) = self.first_of(left)?;
            chosen.push(method.clone());
            left = &left[words..];
        }
        Ok(chosen)
    }

    /// The method that `words`, a list split at its commas, begins with, and how many words name it:
    /// `IMP, rewinding` is one name.
    fn first_of(&self, words: &[String]) -> Result<(&Method, usize)> {
        let named = |n: &usize| {
            let name = words[..*n].join(",");
            let found = self.methods.iter().find(|m| m.name.eq_ignore_ascii_case(name.trim()));
            found.map(|method| (method, *n))
        };
        (1..=words.len()).rev().find_map(|n| named(&n)).ok_or_else(|| {
            let names = self.methods.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join("; ");
            Error::Argument(format!("unknown pruning method `{}`: use {names}", words[0].trim()))
        })
    }
}

/// A comparison with its plan and the methods that were asked for.
#[derive(Serialize)]
struct Compared<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip)]
    comparison: &'a Comparison<'a>,
    #[serde(skip)]
    methods: Vec<Method>,
    /// Whether a method must end at the sparsity it was given.
    #[serde(skip)]
    exact: bool,
}

impl Table for Compared<'_> {
    type Data = Images;

    fn open(&self, folder: Option<&Path>) -> Result<Images> {
        let arch = Arch::parse(&self.plan.arch)?;
        Ok(Images { arch, set: self.plan.part.of(images::open(&self.plan.dataset, arch, folder)?) })
    }

    fn settings(&self) -> Vec<Setting> {
        let of = |method: &Method| self.plan.sparsities.iter().map(|s| Setting::method(&method.name).at(*s)).collect();
        let pruned = self.methods.iter().flat_map(|method| -> Vec<Setting> { of(method) });
        std::iter::once(Setting::method(rows::DENSE)).chain(pruned).collect()
    }

    fn epochs(&self, _data: &Images) -> usize {
        (self.comparison.epochs)(self.plan)
    }

    fn rows(&self, setting: &Setting, seed: u64, context: &Context<'_, Images>) -> Result<Vec<Record>> {
        Ok(vec![self.cell(setting, seed, context)?])
    }

    fn describe(&self, _data: &Images) -> String {
        let Plan { dataset, arch, epochs, batch, learning_rate, weight_decay, momentum, .. } = self.plan;
        format!(
            "{arch} on {dataset}{}, {epochs} epochs {}; SGD with momentum {momentum}, batch {batch}, learning rate \
             {learning_rate} falling along a cosine, weight decay {weight_decay}; masks move every fortieth of the training",
            self.plan.part.says(),
            self.comparison.cost
        )
    }

    fn view(&self, _data: &Images, rows: &[Record]) -> Result<View> {
        Ok(self.shown(rows))
    }
}

impl Args {
    fn plan(&self, methods: &[Method], sparsities: &[f64]) -> Result<Plan> {
        let full = self.common.scale == Scale::Full;
        let cifar = self.dataset.starts_with("cifar");
        let (arch, quick, paper) = match self.dataset.as_str() {
            "digits" => ("mlp-small", 20, 100),
            "mnist" | "fashion-mnist" => ("mlp", 5, 50),
            "cifar10" => ("resnet20", 10, 160),
            other => {
                return Err(Error::Argument(format!(
                    "unknown data set `{other}`: use cifar10, digits, fashion-mnist, mnist"
                )));
            }
        };
        let sparsities = self.sparsity.clone().unwrap_or_else(|| sparsities.to_vec());
        sparsities.iter().try_for_each(|s| check_sparsity(*s))?;
        if self.epochs.is_some_and(|epochs| epochs < 4) {
            return Err(Error::Argument("methods that train, prune and train again need four epochs".into()));
        }
        let batch = self.batch.unwrap_or(if self.dataset == "digits" { 64 } else { 128 });
        if batch == 0 || !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Error::Argument("training needs a positive --batch and a positive --learning-rate".into()));
        }
        self.part.check()?;
        Ok(Plan {
            dataset: self.dataset.clone(),
            arch: self.arch.clone().unwrap_or(arch.into()),
            epochs: self.epochs.unwrap_or(if full { paper } else { quick }),
            batch,
            learning_rate: self.learning_rate,
            weight_decay: if cifar { 5e-4 } else { 1e-4 },
            momentum: 0.9,
            recalibration: 0.2,
            augment: cifar,
            sparsities,
            methods: methods.iter().map(|m| m.name.clone()).collect(),
            part: self.part,
        })
    }
}
