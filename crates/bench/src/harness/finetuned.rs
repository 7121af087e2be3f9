//! Shared by tables of fine-tuned models: their options and their data.

use std::path::Path;

use regrow_sparse_core::{Error, Result};
use regrow_zoo::Arch;
use regrow_zoo::data::{self, DataSet, Images};
use serde::{Deserialize, Serialize};

use crate::harness::images::few;
use crate::harness::settings::{Common, Scale};
use crate::harness::table::Context;
use crate::harness::tasks::{Family, Split};
use crate::harness::trainer::Trainer;

/// Options of these tables.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct Finetuned {
    /// digits (embedded), mnist, fashion-mnist or cifar10; with several, tasks alternate between them, and class 0 of
    /// one has the output of class 0 of the other
    #[arg(long, default_value = "digits", value_delimiter = ',')]
    #[serde(skip)]
    pub dataset: Vec<String>,
    /// The network; by default mlp-small for digits, mlp for MNIST
    #[arg(long)]
    #[serde(skip)]
    pub arch: Option<String>,
    /// What the tasks are
    #[arg(long, value_enum, default_value_t = Split::Turns)]
    #[serde(skip)]
    pub tasks: Split,
    /// How many tasks; by default all of one data set
    #[arg(long)]
    #[serde(skip)]
    pub count: Option<usize>,
    /// Training images of each data set, evenly spaced; by default all
    #[arg(long)]
    #[serde(skip)]
    pub images: Option<usize>,
    /// Epochs of the parent
    #[arg(long)]
    #[serde(skip)]
    pub epochs: Option<usize>,
    /// Epochs of fine-tuning
    #[arg(long)]
    #[serde(skip)]
    pub tune: Option<usize>,
    /// Derived from these options.
    #[arg(skip)]
    #[serde(flatten)]
    pub plan: Plan,
}

/// Everything that determines the models of such a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Names of the data sets, with `+` between them.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// What the tasks are.
    pub tasks: Split,
    /// How many.
    pub count: usize,
    /// Number of training images of each data set, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Epochs of the parent.
    pub epochs: usize,
    /// Epochs of fine-tuning.
    pub tune: usize,
    /// Examples per step.
    pub batch: usize,
}

impl Finetuned {
    /// Fills in the plan.
    ///
    /// # Errors
    /// No epochs, no images.
    pub fn check(&mut self, common: &Common) -> Result<()> {
        let full = common.scale == Scale::Full;
        let digits = self.dataset == ["digits"];
        let (epochs, tune) = match (digits, full) {
            (true, false) => (30, 20),
            (true, true) => (100, 100),
            (false, false) => (3, 2),
            (false, true) => (20, 10),
        };
        self.plan = Plan {
            dataset: self.dataset.join("+"),
            arch: self.arch.clone().unwrap_or(if digits { "mlp-small" } else { "mlp" }.into()),
            tasks: self.tasks,
            count: self.count.unwrap_or(if self.tasks == Split::Turns { 8 } else { 5 }),
            images: self.images,
            epochs: self.epochs.unwrap_or(epochs),
            tune: self.tune.unwrap_or(tune),
            batch: if digits { 64 } else { 128 },
        };
        match (self.plan.epochs, self.plan.tune, self.plan.images) {
            (0, ..) | (_, 0, _) => Err(Error::Argument("parent and children need at least one epoch each".into())),
            (_, _, Some(0)) => Err(Error::Argument("there is nothing to learn from no images (--images)".into())),
            _ => Ok(()),
        }
    }
}

impl Plan {
    /// The tasks, in words.
    pub fn tasks_in_words(&self) -> String {
        let what = match self.tasks {
            Split::Turns => "turned and mirrored images",
            Split::Pairs => "pairs of classes",
        };
        let images = self.images.map_or_else(String::new, |n| format!(" of {n} training images of each data set"));
        format!("{} tasks ({what}{images})", self.count)
    }
}

impl Finetuned {
    /// A description in words, fine-tuned from a learning rate of `rate`.
    pub fn says(&self, rate: f64) -> String {
        let Plan { dataset, arch, epochs, tune, batch, .. } = &self.plan;
        format!(
            "{arch} on {dataset}, {epochs} epochs; {}, {tune} epochs each; SGD with momentum 0.9, batch {batch}, learning \
             rate {rate} along a cosine",
            self.plan.tasks_in_words()
        )
    }
}

/// Network and data of a plan.
pub struct FinetunedData {
    plan: Plan,
    arch: Arch,
    sets: Vec<DataSet>,
    /// The parent's training images.
    train: Images,
}

impl FinetunedData {
    /// Opens the data and checks that it has enough tasks.
    ///
    /// # Errors
    /// An unknown network, data that are missing or do not fit the network or each other, too many tasks.
    pub fn open(plan: &Plan, folder: Option<&Path>) -> Result<Self> {
        let arch = Arch::parse(&plan.arch)?;
        let open = |name: &str| -> Result<DataSet> {
            let found = data::open(name, folder)?;
            if found.train.size != arch.input() {
                let (size, wants) = (found.train.size, arch.input());
                return Err(Error::Argument(format!("{name} images are {size:?}, {arch} wants {wants:?}")));
            }
            Ok(DataSet { train: few(found.train, plan.images), ..found })
        };
        let mut sets = plan.dataset.split('+').map(open).collect::<Result<Vec<_>>>()?;
        let mut train = sets[0].train.clone();
        for other in &mut sets[1..] {
            if other.train.classes != train.classes {
                let (a, b) = (train.classes, other.train.classes);
                return Err(Error::Argument(format!("{} has {b} classes, the first data set {a}", other.name)));
            }
            // One network uses both: normalized like the first.
            let normal = |images: &Images| images.clone().with_normalization(train.normalization.clone());
            (other.train, other.test) = (normal(&other.train), normal(&other.test));
            train.pixels.extend_from_slice(&other.train.pixels);
            train.labels.extend_from_slice(&other.train.labels);
        }
        plan.tasks.tasks(&sets, plan.count, 0)?;
        Ok(Self { plan: plan.clone(), arch, sets, train })
    }

    /// The parent of one seed and its fine-tuning tasks; with `biases`, models differ from it in all parameters.
    ///
    /// # Errors
    /// If training fails.
    pub fn family<'b>(&'b self, seed: u64, biases: bool, context: &Context<'b, Self>) -> Result<Family<'b>> {
        let trainer = Trainer {
            train: &self.train,
            device: context.device,
            bar: context.bar,
            batch: self.plan.batch,
            momentum: 0.9,
            recalibration: 0.0,
        };
        let tasks = self.plan.tasks.tasks(&self.sets, self.plan.count, seed)?;
        Family::new(trainer, self.arch, tasks, self.plan.epochs, seed, biases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dataset: &str, count: usize) -> Plan {
        Plan {
            dataset: dataset.into(),
            arch: "mlp-small".into(),
            tasks: Split::Turns,
            count,
            images: Some(100),
            epochs: 1,
            tune: 1,
            batch: 50,
        }
    }

    #[test]
    fn the_tasks_of_several_data_sets_take_turns() {
        let plan = plan("digits+digits", 4);
        let finetuned = FinetunedData::open(&plan, None).unwrap();
        assert_eq!(finetuned.train.labels.len(), 200);
        let tasks = plan.tasks.tasks(&finetuned.sets, 4, 0).unwrap();
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["digits turned by 0", "digits turned by 0", "digits turned by 90", "digits turned by 90"]);
        assert_eq!(tasks[0].test.pixels, tasks[1].test.pixels);
        assert_ne!(tasks[0].test.pixels, tasks[2].test.pixels);
        assert!(FinetunedData::open(&self::plan("digits", 9), None).err().unwrap().to_string().contains("use 2 to 8"));
        assert!(
            FinetunedData::open(&self::plan("digits+digits", 17), None)
                .err()
                .unwrap()
                .to_string()
                .contains("use 2 to 16")
        );
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan("digits", 2);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
