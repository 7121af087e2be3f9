//! CLR (Ge et al., ICCV 2023, arXiv 2307.11386): a network that learned five classes and is then frozen, and what each
//! further task adds to it. Factors for channels (kernels of 1x1) are not a row: before a batch norm they have no
//! effect.

use burn::module::Module;
use regrow_continual::{Clr, FineTune, PackNetConfig, ReprogramConfig, Reprogrammed, Separate, Strategy};
use regrow_sparse_core::model::deep_copy::clone_to_device;
use regrow_train::classifier::Headed;

use crate::harness::dissimilar::{self, Parts};
use crate::harness::prelude::*;
use crate::harness::streams::{self, TaskTraining, in_thirds};

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "clr",
    summary: "CLR (arXiv 2307.11386): a frozen network reprogrammed by small kernels for each task",
    example: "bench clr --stream mnist --data DIR --train-images 1000 --seeds 3",
    paper: include_str!("../../published/clr.toml"),
    measure: Measure::Accuracy,
};

/// All methods, by what a task may change.
const METHODS: [&str; 5] = ["fine-tune", "PackNet", "norms only", "CLR", "separate"];

/// Options of the table.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct ClrTable {
    /// digits (embedded), or mnist: MNIST and Fashion-MNIST
    #[arg(long, default_value = "digits")]
    stream: String,
    /// Only these methods, by name; by default all
    #[arg(long = "method", value_delimiter = ',', default_values_t = METHODS.map(String::from))]
    methods: Vec<String>,
    /// Blocks in each of the ResNet's three stages; 0 for three convolutions
    #[arg(long, default_value_if("scale", "full", "3"), default_value = "0")]
    blocks: usize,
    /// Passes over the anchor's examples; by default 10 for digits, 2 for MNIST, at full length 60 and 30
    #[arg(long)]
    anchor_epochs: Option<usize>,
    /// Passes over each task's examples
    #[arg(long, default_value_ifs([("scale", "full", "60"), ("stream", "mnist", "2")]), default_value = "8")]
    epochs: usize,
    /// Examples per step.
    #[arg(skip = 32usize)]
    batch: usize,
    /// First learning rate of the tasks; a tenth of it after each third. At full length the authors'
    #[arg(long, default_value_if("scale", "full", "0.001"), default_value = "0.01")]
    learning_rate: f64,
    /// Share of the free weights that PackNet prunes.
    #[arg(skip = 0.75)]
    packnet: f64,
    /// Training images of the anchor and of each task to use, evenly spaced; by default all
    #[arg(long)]
    train_images: Option<usize>,
    /// Test on a fifth of the training images, held out: for choosing settings
    #[arg(long)]
    validate: bool,
}

impl Table for ClrTable {
    type Data = Parts;

    fn check(&mut self, common: &Common) -> Result<()> {
        self.methods = chosen(&self.methods, &METHODS)?;
        let [quick, full] = if self.stream == "digits" { [10, 60] } else { [2, 30] };
        let anchor = *self.anchor_epochs.get_or_insert(if common.scale == Scale::Full { full } else { quick });
        let some = anchor.min(self.epochs) > 0 && self.train_images != Some(0);
        ensure(some, "the table needs at least one epoch and training image")?;
        let rate = self.learning_rate;
        ensure(rate > 0.0 && rate.is_finite(), format!("{rate} is no learning rate: use a number above 0"))
    }

    fn open(&self, folder: Option<&Path>) -> Result<Parts> {
        dissimilar::open(&self.stream, folder, self.train_images, self.validate)
    }

    fn settings(&self) -> Vec<Setting> {
        self.methods.iter().map(|name| Setting::method(name)).collect()
    }

    fn epochs(&self, parts: &Parts) -> usize {
        self.anchor_epochs.unwrap_or(0) + self.methods.len() * parts.tasks.len() * self.epochs
    }

    fn rows(&self, setting: &Setting, seed: u64, context: &Context<'_, Parts>) -> Result<Vec<Record>> {
        let anchor = (self.blocks, self.anchor_epochs.unwrap_or(0), self.batch);
        let shared = context.of_seed(seed, |home| home.data.learned(anchor, seed, home))?;
        let (anchor, right) = (clone_to_device(&shared.0, context.device), shared.1);
        let (stream, lr) = (context.data.stream()?, in_thirds(self.learning_rate));
        let [features, classes] = anchor.head().weight.lazy_shape().dims::<2>();
        let (heads, numbers, tasks) = (classes * (features + 1), anchor.num_params(), stream.tasks());
        let packnet = PackNetConfig::new().with_sparsity(self.packnet).with_norms(true);
        let (model, mut strategy): (_, Box<dyn Strategy<_>>) = match setting.name() {
            "fine-tune" => (Reprogrammed::plain(anchor), Box::new(FineTune)),
            "PackNet" => (Reprogrammed::plain(anchor), Box::new(packnet.init()?)),
            "norms only" => (Reprogrammed::plain(anchor), Box::new(Clr::default())),
            "CLR" => (ReprogramConfig::new().init(anchor)?, Box::new(Clr::default())),
            _ => (Reprogrammed::plain(anchor), Box::new(Separate::default())),
        };
        let training = TaskTraining { epochs: self.epochs, batch: self.batch, lr, seed: mix(seed, 3) };
        let mut row = training.row((setting.name(), seed), model, &mut *strategy, &stream, context.bar)?;
        let added = strategy.added().saturating_sub(tasks * heads) / tasks;
        row.findings.insert("numbers added per task".into(), added as f64);
        row.findings.insert("added per task, percent".into(), 100.0 * added as f64 / (numbers - heads) as f64);
        row.findings.insert("anchor".into(), right);
        Ok(vec![row])
    }

    fn describe(&self, parts: &Parts) -> String {
        let Self { blocks, epochs, batch, learning_rate: rate, .. } = self;
        let how = format!("{epochs} epochs each with Adam, rate {rate}, a tenth after each third, batch {batch}");
        format!("{blocks} blocks a stage (0: three convolutions), learned {}; {how}", parts.says())
    }

    fn view(&self, parts: &Parts, rows: &[Record]) -> Result<View> {
        let added = Column::mean("added per task", 0, view::finding("numbers added per task"));
        let more = vec![added, Column::mean("%", 2, view::finding("added per task, percent"))];
        Ok(streams::view(&INFO, &self.methods, rows, parts.tasks.len(), more))
    }
}
