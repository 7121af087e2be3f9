//! The table of CLR (Ge et al., ICCV 2023, arXiv 2307.11386): an anchor that is never trained again, and
//! what each further task adds to it.
//!
//! The anchor is a network trained on five classes of a data set; the tasks are other classes and other
//! kinds of images. Beside CLR: norms alone, one network fine-tuned task after task, PackNet, and a network
//! for each task. Factors for channels (kernels of 1x1) are no row: before a batch norm they change nothing.
//! `ground` makes anchor and tasks, `rows` trains, `print` shows.

mod ground;
mod print;
mod rows;

use std::time::Instant;

use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::lab;
use crate::setting::{Common, Scale};

/// CLR: a frozen network and small kernels for each task
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example: bench clr --stream mnist --data DIR --train-images 1000 --seeds 3")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), or mnist: MNIST and Fashion-MNIST
    #[arg(long, default_value = "digits")]
    stream: String,
    /// Only these methods, by name; by default all
    #[arg(long, value_delimiter = ',')]
    method: Option<Vec<String>>,
    /// Blocks in each of the ResNet's three stages; 0 for three convolutions
    #[arg(long)]
    blocks: Option<usize>,
    /// Passes over the anchor's examples
    #[arg(long)]
    anchor_epochs: Option<usize>,
    /// Passes over each task's examples
    #[arg(long)]
    epochs: Option<usize>,
    /// First learning rate of the tasks; a tenth of it after each third. By default the authors' 0.001 at full
    /// length, 0.01 for the few epochs of a quick run
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Training images of the anchor and of each task to use, evenly spaced; by default all
    #[arg(long)]
    train_images: Option<usize>,
    /// Test on a fifth of the training images, held out: for choosing settings
    #[arg(long)]
    validate: bool,
}

/// Everything that decides the numbers of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The stream's name.
    pub stream: String,
    /// Methods, by name.
    pub methods: Vec<String>,
    /// Blocks in each stage of a ResNet; 0 for three convolutions.
    pub blocks: usize,
    /// Passes over the anchor's examples.
    pub anchor_epochs: usize,
    /// Passes over each task's examples.
    pub epochs: usize,
    /// Examples per step.
    pub batch: usize,
    /// First learning rate of the tasks.
    pub learning_rate: f64,
    /// Share of the free weights that PackNet prunes.
    pub packnet: f64,
    /// Training images of the anchor and of each task.
    pub train_images: Option<usize>,
    /// Tested on held-out training images.
    pub validate: bool,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, data that is missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.plan()?;
    if args.common.scripted()? {
        return Ok(());
    }
    let ground = ground::Ground::open(&plan, args.common.data.as_deref())?;
    let started = Instant::now();
    let of_seed = plan.anchor_epochs + plan.methods.len() * ground.tasks.len() * plan.epochs;
    let (bar, device) = (lab::progress(of_seed * plan.seeds.1 as usize), regrow_device::current());
    let tell = lab::teller(&bar);
    let crew = lab::crew(args.common.parallel, &tell);
    let table = rows::Table { plan: &plan, ground: &ground, device: &device, crew, bar: &bar };
    let rows = table.fill(&args.common.out, args.common.resume)?;
    bar.finish_and_clear();
    print::show(&plan, &ground, &rows, &args.common.out, &device, started.elapsed().as_secs_f64())
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        let full = self.common.scale == Scale::Full;
        // Epochs of the anchor and of each task; at full length the authors' 60.
        let (anchor, epochs) = match self.stream.as_str() {
            "digits" => ([10, 60], [8, 60]),
            _ => ([2, 30], [2, 60]),
        };
        let of = |pair: [usize; 2]| if full { pair[1] } else { pair[0] };
        let plan = Plan {
            stream: self.stream.clone(),
            methods: rows::chosen(self.method.as_deref())?,
            blocks: self.blocks.unwrap_or(if full { 3 } else { 0 }),
            anchor_epochs: self.anchor_epochs.unwrap_or(of(anchor)),
            epochs: self.epochs.unwrap_or(of(epochs)),
            batch: 32,
            learning_rate: self.learning_rate.unwrap_or(if full { 1e-3 } else { 1e-2 }),
            packnet: 0.75,
            train_images: self.train_images,
            validate: self.validate,
            seeds: (self.common.first_seed, self.common.seeds),
        };
        if [plan.anchor_epochs, plan.epochs].contains(&0) || plan.train_images == Some(0) {
            return Err(Error::Argument("the table needs at least one epoch and training image".into()));
        }
        match plan.learning_rate > 0.0 && plan.learning_rate.is_finite() {
            true => Ok(plan),
            false => Err(Error::Argument(format!("{} is no learning rate: use a number above 0", plan.learning_rate))),
        }
    }
}
