//! Pruning methods for Burn models, one file per method.
//!
//! - [`Magnitude`], [`Random`]: scores; [`ALL`] lists them by name
//! - before training: [`snip()`], [`grasp()`], [`synflow()`]
//! - while training: [`Scheduled`] (any score on any schedule), [`Gmp`], [`StraightThrough`] (STE,
//!   DPF), [`Set`], [`Rigl`], [`Granet`], [`Issp`], [`Bip`]
//! - after training: [`Imp`], with or without rewinding; [`Retrain`]: its learning rates; [`Perp`]: few
//!   parameters retrained and merged, of a whole model or block by block ([`Reconstruction`])
//! - layer by layer, from what reaches a layer: [`Wanda`], [`SparseGpt`], over a whole model by
//!   [`Layerwise`], its sparsity shared equally, by [`Owl`] or by [`rd`]
//! - budgets: [`rd`]; narrower layers instead of masks: [`precrop`];
//!   blocks and channels that training finds it can do without: [`polarization`]
//!
//! Two lines put a pruner beside a training loop of one's own:
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn::optim::{GradientsParams, SgdConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use regrow_pruners::{Magnitude, Scheduled};
//! use regrow_sparse_core::{Schedule, sparsify::PruningOptimizer};
//!
//! let device = Device::default().autodiff();
//! let mut model = LinearConfig::new(8, 4).init(&device);
//! let pruner = Scheduled::new(Magnitude, Schedule::one_shot(0.75, 2)?);
//! let mut optimizer = PruningOptimizer::new(pruner, SgdConfig::new().build(), &model)?;
//! for _ in 0..5 {
//!     let x = Tensor::random([16, 8], Distribution::Default, &device);
//!     let loss = model.forward::<2>(x).powf_scalar(2.0).mean();
//!     let grads = GradientsParams::from_grads(loss.backward(), &model);
//!     model = optimizer.step(0.1, model, grads)?;
//! }
//! let zeros = model.weight.val().into_data().iter::<f32>().filter(|w| *w == 0.0).count();
//! assert_eq!(zeros, 24);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

pub mod bip;
pub mod gmp;
pub mod granet;
pub mod grasp;
pub mod imp;
pub mod issp;
pub mod layerwise;
pub mod magnitude;
mod moving;
pub mod owl;
pub mod perp;
pub mod polarization;
pub mod precrop;
pub mod random;
pub mod rd;
pub mod reconstruct;
pub mod retrain;
pub mod rigl;
pub mod scheduled;
pub mod set;
mod settings;
pub mod snip;
pub mod sparsegpt;
pub mod straight_through;
pub mod synflow;
#[cfg(test)]
mod testing;
pub mod wanda;

use regrow_sparse_core::layerwise::{LayerSolver, Unwatched};
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::{Error, Result};

pub use bip::Bip;
pub use gmp::Gmp;
pub use granet::Granet;
pub use grasp::grasp;
pub use imp::Imp;
pub use issp::Issp;
pub use layerwise::{Head, Layerwise, Sharing, Stage};
pub use magnitude::Magnitude;
pub use owl::Owl;
pub use perp::Perp;
pub use random::Random;
pub use reconstruct::Reconstruction;
pub use retrain::Retrain;
pub use rigl::Rigl;
pub use scheduled::Scheduled;
pub use set::Set;
pub use settings::Settings;
pub use snip::snip;
pub use sparsegpt::SparseGpt;
pub use straight_through::StraightThrough;
pub use synflow::synflow;
pub use wanda::Wanda;

/// A scoring method as tables and the command line list it.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// Makes one; `seed` matters where chance does.
    pub make: fn(seed: u64) -> Box<dyn Score>,
}

/// Every scoring method that needs no data, in the order of their names.
pub const ALL: &[Entry] = &[
    Entry {
        name: "magnitude",
        about: "keeps the weights of largest absolute value",
        paper: "arXiv 1506.02626",
        make: |_| Box::new(Magnitude),
    },
    Entry {
        name: "random",
        about: "keeps weights at random",
        paper: "baseline",
        make: |seed| Box::new(Random { seed }),
    },
];

/// A method for the layers of a language model, as tables and the command line list it.
pub struct LayerwiseEntry {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// Its settings, by name.
    pub settings: &'static [&'static str],
    /// Makes one.
    make: fn(&Settings) -> Result<Box<dyn LayerSolver>>,
}

impl LayerwiseEntry {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting that it has not, or a value that is impossible.
    pub fn make(&self, settings: &Settings) -> Result<Box<dyn LayerSolver>> {
        settings.check(self.name, self.settings)?;
        (self.make)(settings)
    }
}

/// Every method that prunes layer by layer, in the order of their names.
pub const LAYERWISE: &[LayerwiseEntry] = &[
    LayerwiseEntry {
        name: "magnitude",
        about: "keeps the weights of largest absolute value",
        paper: "arXiv 1506.02626",
        settings: &[],
        make: |_| Ok(Box::new(Unwatched(Magnitude))),
    },
    LayerwiseEntry {
        name: "random",
        about: "keeps weights at random",
        paper: "baseline",
        settings: &[],
        make: |settings| Ok(Box::new(Unwatched(Random { seed: settings.seed }))),
    },
    LayerwiseEntry {
        name: "sparsegpt",
        about: "prunes column by column, the later ones making up for it",
        paper: "arXiv 2301.00774",
        settings: &["block", "damping"],
        make: |settings| Ok(Box::new(SparseGpt::from_settings(settings)?)),
    },
    LayerwiseEntry {
        name: "wanda",
        about: "weights times the norms of their inputs, compared within each row",
        paper: "arXiv 2306.11695",
        settings: &["group"],
        make: |settings| Ok(Box::new(Wanda::from_settings(settings)?)),
    },
];

/// The layerwise entry of that name.
///
/// # Errors
/// If there is none, naming those there are.
pub fn find_layerwise(name: &str) -> Result<&'static LayerwiseEntry> {
    let names = || LAYERWISE.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
    let unknown = || Error::Argument(format!("unknown method `{name}` for a language model: use {}", names()));
    LAYERWISE.iter().find(|e| e.name == name).ok_or_else(unknown)
}

/// The entry of that name.
///
/// # Errors
/// If there is none, naming those there are.
pub fn find(name: &str) -> Result<&'static Entry> {
    let names = || ALL.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
    let unknown = || Error::Argument(format!("unknown pruning method `{name}`: use {}", names()));
    ALL.iter().find(|e| e.name == name).ok_or_else(unknown)
}
