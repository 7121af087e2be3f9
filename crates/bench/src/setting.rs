//! The settings that tables share: scale, data, seeds, where results go.

use std::path::PathBuf;

use burn::tensor::Device;
use regrow_device as device;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Examples;
use regrow_zoo::data::{DataSet, Images};
use serde::{Deserialize, Serialize};

use crate::slurm;

/// Options of every table.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// How much to run: `quick` (minutes, embedded data) or `full` (the paper's epochs)
    #[arg(long, value_enum, default_value_t = Scale::Quick)]
    pub scale: Scale,
    /// The folder of the data sets; digits need none
    #[arg(long, env = "REGROW_DATA")]
    pub data: Option<PathBuf>,
    /// How many seeds, from --first-seed
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub first_seed: u64,
    /// Where the JSON and the picture go
    #[arg(long, default_value = "tables")]
    pub out: PathBuf,
    /// Go on where an interrupted run with the same settings stopped
    #[arg(long)]
    pub resume: bool,
    /// Print a Slurm array script, a task for each seed, in place of making the table; with --resume the
    /// same command gathers what the tasks have made
    #[arg(long)]
    pub slurm: bool,
    /// Networks trained side by side on a device; by default one per core on the processor, one on any other. 1 for
    /// times that nothing else shares
    #[arg(long)]
    pub parallel: Option<usize>,
}

/// How much to run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Minutes on two cores.
    Quick,
    /// The paper's numbers of epochs and phases, as far as the network allows.
    Full,
}

impl Common {
    /// Checks the settings. Where a script was asked for in place of the table, prints it, and returns true.
    ///
    /// # Errors
    /// No seed.
    pub fn scripted(&self) -> Result<bool> {
        if self.seeds == 0 {
            return Err(Error::Argument("a table needs at least one seed (--seeds)".into()));
        }
        if self.slurm {
            let words: Vec<String> = std::env::args().skip(1).collect();
            let program = std::env::current_exe().unwrap_or_else(|_| "bench".into());
            print!("{}", slurm::script(&program, &words, self));
        }
        Ok(self.slurm)
    }
}

/// How much of a data set a table uses: networks on images take hours on a few cores.
#[derive(clap::Args, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Test images to count on, evenly spaced; by default all
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Training images to train and to measure on, evenly spaced; by default all
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_images: Option<usize>,
}

impl Part {
    /// Refuses none.
    ///
    /// # Errors
    /// If there would be no image.
    pub fn check(&self) -> Result<()> {
        match (self.images, self.train_images) {
            (Some(0), _) | (_, Some(0)) => {
                Err(Error::Argument("a table needs at least one image (--images, --train-images)".into()))
            }
            _ => Ok(()),
        }
    }

    /// The images of `data` that are used.
    pub fn of(&self, data: DataSet) -> DataSet {
        let (train, test) = (thinned(data.train, self.train_images), thinned(data.test, self.images));
        DataSet { train, test, ..data }
    }

    /// What to add to a line that says what was trained on.
    pub fn says(&self) -> String {
        let training = self.train_images.map(|n| format!(", on {n} training images"));
        let test = self.images.map(|n| format!(", counted on {n} test images"));
        training.into_iter().chain(test).collect()
    }
}

/// So many of `images`, evenly spaced: some data sets are sorted by class.
fn thinned(images: Images, wanted: Option<usize>) -> Images {
    let all = images.len();
    match wanted {
        Some(few) if few < all => images.select(&(0..few).map(|i| i * all / few).collect::<Vec<_>>()),
        _ => images,
    }
}

/// Where a table ran: the devices of this process, `device` among them.
pub fn devices(device: &Device) -> String {
    match device::all() {
        all if all.contains(device) => all.iter().map(device::title).collect::<Vec<_>>().join(", "),
        _ => device::title(device),
    }
}

/// The command line that started this process, the program by its own name, absolute paths cut to
/// their last part and credentials left out: results are read on other machines, by others.
pub fn command() -> String {
    let cut = |word: String| match std::path::Path::new(&word) {
        path if path.is_absolute() => path.file_name().map_or("/".into(), |n| n.to_string_lossy().into_owned()),
        _ => device::without_secret(&word),
    };
    std::iter::once("bench".to_string()).chain(std::env::args().skip(1).map(cut)).collect::<Vec<_>>().join(" ")
}
