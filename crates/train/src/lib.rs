//! Training for everything that has a mask: one loop, resumable bit for bit.
//!
//! | to | look in |
//! | --- | --- |
//! | train a model, with a pruner beside the optimizer | [`train()`], [`Problem`], [`Training`] |
//! | choose learning rates | [`lr`] |
//! | classify images, count correct answers, recalibrate batch norm | [`classifier`] |
//! | switch residual blocks off, per sample | [`gated_forward`] |
//! | train with burn-train | `burn_train` (feature `train`) |
#[cfg(feature = "train")]
pub mod burn_train;
pub mod classifier;
pub mod gated_forward;
pub mod lr;
mod train;

pub use classifier::Classifier;
pub use regrow_sparse_core::{Error, Result};
pub use train::*;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
