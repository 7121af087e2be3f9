//! What tables of the children of one parent share: their plan, their data, the running of their cells.

use std::path::Path;

use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_sparse_core::{Error, Result};
use regrow_zoo::Arch;
use regrow_zoo::data::{self, DataSet, Images};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cells::Cells;
use crate::lab::{self, Lab};
use crate::record::Record;
use crate::setting::{Common, Scale};
use crate::tasks::{Family, Split};

/// Options of these tables.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "kin")]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// digits (embedded), mnist, fashion-mnist or cifar10; of several the tasks take turns, and class 0 of one has the
    /// output of class 0 of the other
    #[arg(long, default_value = "digits", value_delimiter = ',')]
    pub dataset: Vec<String>,
    /// The network; by default mlp-small for digits, mlp for MNIST
    #[arg(long)]
    pub arch: Option<String>,
    /// What the tasks are
    #[arg(long, value_enum, default_value_t = Split::Turns)]
    pub tasks: Split,
    /// How many tasks; by default all of one data set
    #[arg(long)]
    pub count: Option<usize>,
    /// Training images of each data set, evenly spaced; by default all
    #[arg(long)]
    pub images: Option<usize>,
    /// Epochs of the parent
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Epochs of fine-tuning
    #[arg(long)]
    pub tune: Option<usize>,
}

/// What decides the models of such a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Names of the data sets, with `+` between them.
    pub dataset: String,
    /// Name of the network.
    pub arch: String,
    /// What the tasks are.
    pub tasks: Split,
    /// How many.
    pub count: usize,
    /// Training images of each data set, where they are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Epochs of the parent.
    pub epochs: usize,
    /// Epochs of fine-tuning.
    pub tune: usize,
    /// Examples per step.
    pub batch: usize,
    /// Seeds: the first, and how many.
    pub seeds: (u64, u64),
}

impl Args {
    /// The plan.
    ///
    /// # Errors
    /// No epochs, no images.
    pub fn plan(&self) -> Result<Plan> {
        let full = self.common.scale == Scale::Full;
        let digits = self.dataset == ["digits"];
        let (epochs, tune) = match (digits, full) {
            (true, false) => (30, 20),
            (true, true) => (100, 100),
            (false, false) => (3, 2),
            (false, true) => (20, 10),
        };
        let plan = Plan {
            dataset: self.dataset.join("+"),
            arch: self.arch.clone().unwrap_or(if digits { "mlp-small" } else { "mlp" }.into()),
            tasks: self.tasks,
            count: self.count.unwrap_or(if self.tasks == Split::Turns { 8 } else { 5 }),
            images: self.images,
            epochs: self.epochs.unwrap_or(epochs),
            tune: self.tune.unwrap_or(tune),
            batch: if digits { 64 } else { 128 },
            seeds: (self.common.first_seed, self.common.seeds),
        };
        match (plan.epochs, plan.tune, plan.images) {
            (0, ..) | (_, 0, _) => Err(Error::Argument("parent and children need at least one epoch each".into())),
            (_, _, Some(0)) => Err(Error::Argument("there is nothing to learn from no images (--images)".into())),
            _ => Ok(plan),
        }
    }
}

impl Plan {
    /// What the tasks are, in words.
    pub fn tasks_in_words(&self) -> String {
        let what = match self.tasks {
            Split::Turns => "turned and mirrored images",
            Split::Pairs => "pairs of classes",
        };
        let images = self.images.map_or_else(String::new, |n| format!(" of {n} training images of each data set"));
        format!("{} tasks ({what}{images})", self.count)
    }
}

/// Network and data of a plan.
pub struct Kin<'a> {
    plan: &'a Plan,
    arch: Arch,
    sets: Vec<DataSet>,
    /// What the parent learns from.
    train: Images,
}

impl<'a> Kin<'a> {
    /// Opens the data and checks that there are so many tasks of it.
    ///
    /// # Errors
    /// An unknown network, data that are missing or do not fit the network or each other, too many tasks.
    pub fn open(plan: &'a Plan, folder: Option<&Path>) -> Result<Self> {
        let arch = Arch::parse(&plan.arch)?;
        let open = |name: &str| -> Result<DataSet> {
            let found = data::open(name, folder)?;
            if found.train.size != arch.input() {
                let (size, wants) = (found.train.size, arch.input());
                return Err(Error::Argument(format!("{name} images are {size:?}, {arch} wants {wants:?}")));
            }
            Ok(match plan.images {
                Some(wanted) => DataSet { train: thinned(&found.train, wanted), ..found },
                None => found,
            })
        };
        let mut sets = plan.dataset.split('+').map(open).collect::<Result<Vec<_>>>()?;
        let mut train = sets[0].train.clone();
        for other in &mut sets[1..] {
            if other.train.classes != train.classes {
                let (a, b) = (train.classes, other.train.classes);
                return Err(Error::Argument(format!("{} has {b} classes, the first data set {a}", other.name)));
            }
            // One network sees both: as the first is normalized.
            let normal = |images: &Images| images.clone().with_normalization(train.normalization.clone());
            (other.train, other.test) = (normal(&other.train), normal(&other.test));
            train.pixels.extend_from_slice(&other.train.pixels);
            train.labels.extend_from_slice(&other.train.labels);
        }
        plan.tasks.tasks(&sets, plan.count, 0)?;
        Ok(Self { plan, arch, sets, train })
    }

    /// The parent of one seed and what its children learn; with `biases`, they differ from it in everything.
    ///
    /// # Errors
    /// If training fails.
    pub fn family<'b>(
        &'b self,
        seed: u64,
        biases: bool,
        device: &'b Device,
        bar: &'b ProgressBar,
    ) -> Result<Family<'b>> {
        let (train, batch) = (&self.train, self.plan.batch);
        let lab = Lab { train, device, bar, batch, momentum: 0.9, recalibration: 0.0 };
        let tasks = self.plan.tasks.tasks(&self.sets, self.plan.count, seed)?;
        Family::new(lab, self.arch, tasks, self.plan.epochs, seed, biases)
    }
}

/// The rows of all seeds of the table `name`; finished seeds are kept until the table is complete.
///
/// # Errors
/// What `of_seed` runs into; as [`Cells::open`].
pub fn fill<P: Serialize + DeserializeOwned + PartialEq + Sync>(
    name: &str,
    plan: &P,
    seeds: (u64, u64),
    common: &Common,
    bar: &ProgressBar,
    of_seed: impl Fn(&Device, u64) -> Result<Vec<Record>> + Sync,
) -> Result<Vec<Record>> {
    let mut cells = Cells::open(&common.out, name, plan, common.resume)?;
    let tell = lab::teller(bar);
    cells.fill_seeds(plan, &lab::crew(common.parallel, &tell), seeds, |device, seed| {
        bar.set_message(format!("(seed {seed})"));
        of_seed(device, seed)
    })?;
    cells.finish()
}

/// So many of `images`, evenly spaced.
pub fn thinned(images: &Images, wanted: usize) -> Images {
    let (all, wanted) = (images.labels.len(), wanted.min(images.labels.len()));
    images.select(&(0..wanted).map(|i| i * all / wanted.max(1)).collect::<Vec<_>>())
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
            seeds: (0, 1),
        }
    }

    #[test]
    fn the_tasks_of_several_data_sets_take_turns() {
        let plan = plan("digits+digits", 4);
        let kin = Kin::open(&plan, None).unwrap();
        assert_eq!(kin.train.labels.len(), 200);
        let tasks = plan.tasks.tasks(&kin.sets, 4, 0).unwrap();
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["digits turned by 0", "digits turned by 0", "digits turned by 90", "digits turned by 90"]);
        assert_eq!(tasks[0].test.pixels, tasks[1].test.pixels);
        assert_ne!(tasks[0].test.pixels, tasks[2].test.pixels);
        assert!(Kin::open(&self::plan("digits", 9), None).err().unwrap().to_string().contains("use 2 to 8"));
        assert!(Kin::open(&self::plan("digits+digits", 17), None).err().unwrap().to_string().contains("use 2 to 16"));
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan("digits", 2);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
