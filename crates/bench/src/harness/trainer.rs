//! Trains and evaluates the networks of tables: one data set, one device, SGD with momentum.

use burn::module::Module;
use burn::optim::SgdConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use regrow_device as device;
use regrow_device::pool::DevicePool;
use regrow_sparse_core::Result;
use regrow_sparse_core::model::sparsify::Pruner;
use regrow_train::Classifier;
use regrow_train::classifier::{Classification, Examples, count_correct, recalibrate};
use regrow_train::lr::LrSchedule;
use regrow_train::{Problem, Training, train};
use regrow_zoo::Net;
use regrow_zoo::data::Images;

/// What the networks of one seed share.
#[derive(Clone, Copy)]
pub struct Trainer<'a> {
    /// Training images.
    pub train: &'a Images,
    /// Where tensors live.
    pub device: &'a Device,
    /// Counts epochs.
    pub bar: &'a ProgressBar,
    /// Examples per step.
    pub batch: usize,
    /// Momentum (no dampening).
    pub momentum: f64,
    /// Share of the training images that recompute batch-norm statistics.
    pub recalibration: f64,
}

/// One training.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Passes over the training images.
    pub epochs: usize,
    /// The learning rate.
    pub lr: LrSchedule,
    /// Weight decay.
    pub decay: f32,
    /// Order and augmentation.
    pub seed: u64,
}

impl Trainer<'_> {
    /// Trains `net` with `pruner`.
    ///
    /// # Errors
    /// As [`train`].
    pub fn fit(&self, net: Net, pruner: impl Pruner, fit: &Fit) -> Result<Net> {
        self.solve(net, pruner, &Classification { data: self.train, smoothing: 0.0 }, fit)
    }

    /// Trains `model` on a given problem.
    ///
    /// # Errors
    /// As [`train`].
    pub fn solve<M: Module>(&self, model: M, pruner: impl Pruner, problem: &impl Problem<M>, fit: &Fit) -> Result<M> {
        let momentum = MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0);
        let decay = WeightDecayConfig::new(fit.decay);
        let sgd = SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay)).build();
        let settings = Training { epochs: fit.epochs, batch: self.batch, lr: fit.lr.clone(), seed: fit.seed };
        let model = train(model, sgd, pruner, problem, &settings, None, &mut |_| {})?;
        self.bar.inc(fit.epochs as u64);
        Ok(model)
    }

    /// About `count` training images as inputs, chosen by `seed`; all if there are fewer.
    pub fn sample(&self, count: usize, seed: u64) -> Tensor<4> {
        let (_, chosen) = self.train.split((count as f64 / self.train.len() as f64).min(1.0), seed);
        chosen.images(&(0..chosen.len()).collect::<Vec<_>>(), self.device)
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        (self.train.len() / self.batch.max(1)).max(1)
    }

    /// Recomputes batch-norm statistics on the first share of the training images, unaugmented.
    pub fn recalibrated(&self, net: Net) -> Net {
        let images = (self.recalibration * self.train.len() as f64).ceil() as usize;
        let indices: Vec<usize> = (0..images.min(self.train.len())).collect();
        let device = self.device.clone().autodiff();
        recalibrate(net, indices.chunks(self.batch).map(|batch| self.train.images(batch, &device)))
    }

    /// Accuracy on `images`, in percent.
    pub fn accuracy<M: Classifier>(&self, net: &M, images: &Images) -> f64 {
        100.0 * count_correct(net, images, 256, self.device) as f64 / images.len().max(1) as f64
    }
}

/// The pool of this process's devices for a table: `parallel` networks at a time on each, by default one per core on
/// the CPU and one on any other; on a peer's never more than one.
pub fn pool<'a>(parallel: Option<usize>, tell: &'a (dyn Fn(&str) + Sync)) -> DevicePool<'a> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let places = |device: &Device| match (device::is_peer(device), device::is_host(device)) {
        (true, _) => 1,
        (false, true) => parallel.unwrap_or(cores),
        (false, false) => parallel.unwrap_or(1),
    };
    DevicePool::new(device::all(), places).with_tell(tell)
}

/// Prints a line above `bar`.
pub fn teller(bar: &ProgressBar) -> impl Fn(&str) + Sync {
    let bar = bar.clone();
    move |line| bar.suspend(|| eprintln!("{line}"))
}

/// A bar that counts the epochs of a whole table.
pub fn progress(epochs: usize) -> ProgressBar {
    let bar = ProgressBar::new(epochs as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} epochs, {elapsed} elapsed, {eta} left {msg}")
    {
        bar.set_style(style);
    }
    bar
}
