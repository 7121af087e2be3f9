//! One network on one data set: the options of tables that prune a checkpoint or a network trained here.

use std::path::{Path, PathBuf};

use burn::module::Module;
use regrow_sparse_core::model::sparsify::KeepMasks;
use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;
use regrow_zoo::data::DataSet;
use regrow_zoo::{Arch, Net, load};
use serde::Serialize;

use crate::harness::images::{self, Part};
use crate::harness::settings::file_name;
use crate::harness::table::Context;
use crate::harness::trainer::Fit;

/// Options of a network and its data.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct DenseNetwork {
    /// digits (embedded), mnist, fashion-mnist or cifar10
    #[arg(long, default_value = "digits")]
    pub dataset: String,
    /// The network
    #[arg(long, default_value = "mlp-small")]
    pub arch: String,
    /// A trained network with PyTorch's names; without it one is trained for each seed
    #[arg(long)]
    #[serde(serialize_with = "file_name")]
    pub checkpoint: Option<PathBuf>,
    /// Epochs of training a network, if no checkpoint is given
    #[arg(long, default_value_t = 20)]
    pub epochs: usize,
    /// Examples per step.
    #[arg(skip)]
    pub batch: usize,
    /// How much of the data to use.
    #[command(flatten)]
    #[serde(flatten)]
    pub part: Part,
}

/// A network architecture and its data.
pub struct Images {
    /// The architecture.
    pub arch: Arch,
    /// The data, with the architecture's normalization.
    pub set: DataSet,
}

impl DenseNetwork {
    /// Fills in options that were not given.
    ///
    /// # Errors
    /// No image, no epoch, a checkpoint that is missing.
    pub fn check(&mut self) -> Result<()> {
        self.batch = if self.dataset == "digits" { 64 } else { 128 };
        self.part.check()?;
        match &self.checkpoint {
            Some(path) => std::fs::metadata(path).map(drop).map_err(|e| Error::io(path, e)),
            None if self.epochs == 0 => {
                Err(Error::Argument("the network needs at least one epoch (--epochs), or a --checkpoint".into()))
            }
            None => Ok(()),
        }
    }

    /// Opens the data.
    ///
    /// # Errors
    /// An unknown network, data that is missing or of another size.
    pub fn open(&self, folder: Option<&Path>) -> Result<Images> {
        let arch = Arch::parse(&self.arch)?;
        let set = images::normalized(self.part.of(images::open(&self.dataset, arch, folder)?), arch);
        Ok(Images { arch, set })
    }

    /// The network of a seed: the checkpoint's, or one trained along a cosine.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, a training that fails.
    pub fn of_seed(&self, seed: u64, context: &Context<'_, Images>) -> Result<Net> {
        let Images { arch, set } = context.data;
        if let Some(path) = &self.checkpoint {
            return Ok(load(*arch, path, context.device)?.0.valid());
        }
        let fit = Fit { epochs: self.epochs, lr: LrSchedule::cosine(0.1), decay: 1e-4, seed };
        let net = arch.init(set.train.classes, seed, &context.device.clone().autodiff());
        context.trainer(&set.train, self.batch).fit(net, KeepMasks, &fit)
    }

    /// Epochs that a seed trains.
    pub fn epochs(&self) -> usize {
        if self.checkpoint.is_some() { 0 } else { self.epochs }
    }

    /// A description in words.
    pub fn says(&self) -> String {
        let Self { dataset, arch, checkpoint, epochs, part, .. } = self;
        let network = match checkpoint.as_ref().and_then(|path| path.file_name()) {
            Some(file) => format!("{arch} from {}", file.to_string_lossy()),
            None => format!("{arch} trained for {epochs} epochs"),
        };
        format!("{network} on {dataset}{}", part.says())
    }
}
