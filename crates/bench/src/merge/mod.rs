//! What merging does to models of one and of different starting points, under every method.
//!
//! Networks are trained here from one parent: copies of one task, and a task each (halves of the classes); and
//! from parents of their own. With data, the shared networks of others join them: MNIST CNNs of one start
//! and of two, ResNet-20s. `rows` measures. Real adapters are measured by `adapters`.

mod adapters;
mod rows;
mod subjects;

use std::time::Instant;

use burn::tensor::Device;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::{Arch, data};
use serde::{Deserialize, Serialize};

use crate::cells::Cells;
use crate::claim::Claim;
use crate::lab;
use crate::paper::Paper;
use crate::picture::Line;
use crate::record::{Measure, Record, mean_std, spread, values};
use crate::setting::Common;
use crate::show::{self, Outcome};

const PAPER: &str = include_str!("../../../../papers/merge/paper.toml");

/// Every merging method on models of one and of different starting points
#[derive(clap::Parser, Clone, Debug)]
#[command(after_help = "Example: bench merge --seeds 5 --data DIR --networks lora,mnist-cnn,resnet-cifar10")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist, fashion-mnist or cifar10
    #[arg(long, default_value = "digits")]
    pub dataset: String,
    /// The network that is trained here
    #[arg(long, default_value = "mlp-small")]
    pub arch: String,
    /// Epochs of training a parent
    #[arg(long, default_value_t = 5)]
    pub parent_epochs: usize,
    /// Epochs of fine-tuning each model
    #[arg(long, default_value_t = 10)]
    pub epochs: usize,
    /// Folders below --data with networks of others: lora, mnist-cnn, resnet-cifar10
    #[arg(long, value_delimiter = ',')]
    pub networks: Vec<String>,
    /// Test images to count on for these, evenly spaced
    #[arg(long, default_value_t = 2000)]
    pub images: usize,
}

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// Epochs of training a parent.
    pub parent_epochs: usize,
    /// Epochs of fine-tuning.
    pub epochs: usize,
    /// Examples per step.
    pub batch: usize,
    /// Folders of networks of others.
    pub networks: Vec<String>,
    /// Test images for them.
    pub images: usize,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

const CLAIMS: [Claim; 7] = [
    Claim {
        text: "the average of models of one start beats that of models of two",
        better: "linear | two tasks, one parent",
        than: "linear | two tasks, two parents",
    },
    Claim {
        text: "a soup beats the best of its models",
        better: "linear | one task, one parent",
        than: "best model | one task, one parent",
    },
    Claim {
        text: "TIES beats task arithmetic",
        better: "ties | two tasks, one parent",
        than: "task-arithmetic | two tasks, one parent",
    },
    Claim {
        text: "DARE helps TIES",
        better: "dare-ties | two tasks, one parent",
        than: "ties | two tasks, one parent",
    },
    Claim {
        text: "Breadcrumbs beat task arithmetic",
        better: "breadcrumbs | two tasks, one parent",
        than: "task-arithmetic | two tasks, one parent",
    },
    Claim {
        text: "DELLA beats DARE",
        better: "della | two tasks, one parent",
        than: "dare-ties | two tasks, one parent",
    },
    Claim {
        text: "model stock beats the average",
        better: "model-stock | one task, one parent",
        than: "linear | one task, one parent",
    },
];

/// Runs the table.
///
/// # Errors
/// Impossible settings, data or networks that are missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    if args.common.scripted()? {
        return Ok(());
    }
    let arch = Arch::parse(&plan.arch)?;
    let data = data::open(&plan.dataset, args.common.data.as_deref())?;
    if data.train.size != arch.input() {
        let (have, want) = (data.train.size, arch.input());
        return Err(Error::Argument(format!("{} images are {have:?}, {arch} wants {want:?}", data.name)));
    }
    let (started, device, bar) = (Instant::now(), regrow_device::current(), lab::progress(0));
    let mut cells = Cells::open(&args.common.out, "merge", &plan, args.common.resume)?;
    let tell = lab::teller(&bar);
    let crew = lab::crew(args.common.parallel, &tell);
    cells.fill_seeds(&plan, &crew, plan.seeds, |device, seed| {
        bar.set_message(format!("(seed {seed})"));
        let trained = subjects::trained(&plan, arch, &data, seed, device, &bar)?;
        // Nothing about the networks of others is drawn at random.
        let first = seed == plan.seeds.0;
        let below = args.common.data.as_deref();
        let others = if first { subjects::of_others(&plan, below, device)? } else { Vec::new() };
        let mut rows = Vec::new();
        for subject in trained.iter().chain(&others) {
            bar.set_message(format!("(seed {seed}: {})", subject.name));
            rows.extend(rows::rows(subject, seed, device)?);
        }
        if let Some(folder) = below.filter(|_| plan.networks.iter().any(|n| n == subjects::ADAPTERS)) {
            rows.extend(adapters::rows(&folder.join(subjects::ADAPTERS), seed)?);
        }
        Ok(rows)
    })?;
    let rows = cells.finish()?;
    bar.finish_and_clear();
    print(&plan, &rows, args, &device, started.elapsed().as_secs_f64())
}

fn print(plan: &Plan, rows: &[Record], args: &Args, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(PAPER)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!(
        "Ours: {} on {}, parents trained for {} epochs, models for {} more; lambda of 0.3, 0.5, 0.7 and 1 by the loss on a \
         tenth of the training images.",
        plan.arch, plan.dataset, plan.parent_epochs, plan.epochs
    );
    println!("Test accuracy in percent, mean and standard deviation over {} seeds.", plan.seeds.1);
    println!("Of adapters: 100 times the mean cosine of the merged difference with each adapter's.\n");
    let settings = unique(rows.iter().filter_map(|r| r.method.split_once(" | ").map(|(_, setting)| setting)));
    let methods = unique(rows.iter().filter_map(|r| r.method.split_once(" | ").map(|(method, _)| method)));
    let cell = |method: &str, column: usize| spread(&values(rows, &format!("{method} | {}", settings[column]), 0.0, 1));
    let heads = settings.iter().map(ToString::to_string).collect();
    println!("{}\n", show::by_column(methods.iter().copied(), heads, &cell, &[]));
    paper.print_figures();
    let point = |column: usize, method: &str| {
        let found = values(rows, &format!("{method} | {}", settings[column]), 0.0, 1);
        let found: Vec<f64> = found.into_iter().map(|(_, value)| value).collect();
        (!found.is_empty()).then(|| mean_std(&found)).map(|(mean, std)| (column as f64 + 1.0, mean, std))
    };
    let line = |method: &&str| Line {
        name: method.to_string(),
        points: (0..settings.len()).filter_map(|column| point(column, method)).collect(),
    };
    let lines: Vec<Line> = methods.iter().map(line).collect();
    let notes = [format!("In the picture: {}", numbered(&settings))];
    let outcome = Outcome {
        table: "merge",
        measure: Measure::Accuracy,
        plan,
        rows,
        claims: &CLAIMS,
        notes: &notes,
        device,
        seconds,
    };
    outcome.close(&args.common.out, "Merging methods, by where the models come from", &lines)
}

fn unique<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    words.for_each(|word| {
        if !found.contains(&word) {
            found.push(word);
        }
    });
    found
}

/// `1 first, 2 second`.
fn numbered(words: &[&str]) -> String {
    words.iter().enumerate().map(|(i, word)| format!("{} {word}", i + 1)).collect::<Vec<_>>().join("; ")
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        if self.parent_epochs == 0 || self.epochs == 0 || self.images == 0 {
            return Err(Error::Argument(
                "the table needs at least one epoch of each training and one test image".into(),
            ));
        }
        subjects::check(&self.networks)?;
        Ok(Plan {
            dataset: self.dataset.clone(),
            arch: self.arch.clone(),
            parent_epochs: self.parent_epochs,
            epochs: self.epochs,
            batch: if self.dataset == "digits" { 64 } else { 128 },
            networks: self.networks.clone(),
            images: self.images,
            seeds: (self.common.first_seed, self.common.seeds),
        })
    }
}
