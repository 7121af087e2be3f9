//! Pruning methods for Burn models, one file per method.
//!
//! - scores: [`Magnitude`], [`Random`], [`Snip`], [`Grasp`], [`SynFlow`], [`Wanda`]; each works with everything that
//!   follows; the training step or a [`Probe`] provides what it needs
//! - at once, or in rounds: [`OneShot`]; with training between them: [`Imp`], with or without rewinding
//! - during training: [`Scheduled`], [`Gmp`], [`StraightThrough`] (STE, DPF), [`Set`], [`Rigl`], [`Granet`], [`Issp`],
//!   [`Bip`]
//! - after pruning: [`Retrain`]: learning rates; [`Perp`]: few parameters retrained and merged, of a whole model or
//!   block by block ([`Reconstruction`])
//! - layer by layer, from the inputs of a layer: [`Wanda`], [`SparseGpt`], over a whole model by [`Layerwise`]
//! - budgets: those of [`Budget`], [`Owl`], [`Rd`]; narrower layers instead of masks: [`precrop`];
//!   blocks and channels that training finds it can do without: [`polarization`]
//!
//! [`registry`] lists all of them by name, with their parameters.
//!
//! Two lines add a pruner to your own training loop:
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn::optim::{GradientsParams, SgdConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use regrow_pruners::{Magnitude, PruningOptimizer, Schedule, Scheduled};
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
//! # Ok::<(), regrow_pruners::Error>(())
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
pub mod one_shot;
pub mod owl;
pub mod perp;
pub mod polarization;
pub mod precrop;
pub mod prelude;
pub mod random;
pub mod rd;
pub mod reconstruct;
pub mod registry;
pub mod retrain;
pub mod rigl;
pub mod scheduled;
mod scoring;
pub mod set;
pub mod snip;
pub mod sparsegpt;
pub mod straight_through;
pub mod synflow;
#[cfg(test)]
mod testing;
pub mod wanda;

pub use bip::{Bip, BipConfig};
pub use gmp::{Gmp, GmpConfig};
pub use granet::{Granet, GranetConfig};
pub use grasp::Grasp;
pub use imp::Imp;
pub use issp::{Issp, IsspConfig};
pub use layerwise::{Head, Layerwise, Stage};
pub use magnitude::Magnitude;
pub use one_shot::OneShot;
pub use owl::Owl;
pub use perp::Perp;
pub use random::Random;
pub use rd::Rd;
pub use reconstruct::Reconstruction;
pub use retrain::Retrain;
pub use rigl::{Rigl, RiglConfig};
pub use scheduled::Scheduled;
pub use set::{Set, SetConfig};
pub use snip::Snip;
pub use sparsegpt::{SparseGpt, SparseGptConfig};
pub use straight_through::StraightThrough;
pub use synflow::SynFlow;
pub use wanda::Wanda;

// What the signatures above use.
pub use regrow_sparse_core::mask::budget::{Allocate, Budget};
pub use regrow_sparse_core::mask::schedule::{Curve, Schedule};
pub use regrow_sparse_core::model::evidence::{Evidence, Needs};
pub use regrow_sparse_core::model::masked::masks;
pub use regrow_sparse_core::model::probe::Probe;
pub use regrow_sparse_core::model::recipe::Recipe;
pub use regrow_sparse_core::model::score::{LayerView, Score};
pub use regrow_sparse_core::model::sparsify::{Change, KeepMasks, Pruner, PruningOptimizer, Sparsifier, View};
pub use regrow_sparse_core::model::weight::{Select, Weight};
pub use regrow_sparse_core::{Error, Mask, MaskSet, Pattern, Result};

#[cfg(feature = "train")]
pub use regrow_train::burn_train::Pruned;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
