//! Weights of training data, learned from losses, on the CPU and without a model.
//!
//! - [`SampleWeighter`]: weights of the examples of a batch. [`LossBased`] has five shapes.
//! - [`SourceWeighter`]: weights of whole data sources. [`ScaleBiO`] learns them, [`FixedWeights`] are constant.
//! - [`BatchSources`]: which source each example of a batch comes from, and the factors of its losses.
//! - [`weights`]: the weighted loss as factors, and how many examples to take of each source.
//! - [`registry`]: all of them by name, with their papers and parameters.
//!
//! Weights are constants: gradients flow through the losses only.
//!
//! ```
//! use regrow_reweighting::prelude::*;
//!
//! let mut weighter = LossBasedConfig::new().with_temperature(0.4).init()?;
//! let losses = [0.1, 1.3, 2.2, 0.2];
//! let weights = weighter.weigh(&losses)?;
//! assert!(weights[0] < weights[1]);
//! // The mean of losses times factors is the weighted loss. Each example has 64 tokens.
//! let factors = loss_factors(&weights, &[64; 4])?;
//! assert_eq!(factors.len(), 4);
//! # Ok::<(), regrow_reweighting::Error>(())
//! ```

#[cfg(test)]
mod authors;
pub mod fixed;
pub mod loss_based;
pub mod registry;
pub mod scalebio;
pub mod sources;
pub mod weights;

use regrow_sparse_core::state::State;

pub use fixed::FixedWeights;
pub use loss_based::{LossBased, LossBasedConfig, LossShape};
pub use regrow_sparse_core::{Error, Result};
pub use scalebio::{LambdaUpdate, ScaleBiO, ScaleBiOConfig};
pub use sources::{BatchSources, PairedLoss};
pub use weights::{loss_factors, normalized, quotas, softmax};

/// Everything that a program that reweights data needs.
pub mod prelude {
    pub use regrow_sparse_core::registry::{Entry, MethodInfo, Params, find};
    pub use regrow_sparse_core::state::State;

    pub use crate::{
        BatchSources, Error, FixedWeights, LambdaUpdate, LossBased, LossBasedConfig, LossShape, PairedLoss, Result,
        SampleWeighter, ScaleBiO, ScaleBiOConfig, SourceWeighter, loss_factors, normalized, quotas, softmax,
    };
}

/// Weighs the examples of a batch by their losses.
pub trait SampleWeighter {
    /// One weight for each of `losses`, none negative, their sum 1.
    ///
    /// # Errors
    /// No losses, or one that is not finite.
    fn weigh(&mut self, losses: &[f64]) -> Result<Vec<f64>>;

    /// What it has learned so far, to resume a run.
    fn state(&self) -> State {
        State::default()
    }

    /// Restores what [`SampleWeighter::state`] returned.
    ///
    /// # Errors
    /// If it comes from another weighter.
    fn restore(&mut self, _state: State) -> Result<()> {
        Ok(())
    }
}

/// Weighs sources of data and learns which ones help.
pub trait SourceWeighter {
    /// The weight of each source, none negative, their sum 1.
    fn weights(&self) -> &[f64];

    /// Learns from one step. `losses` has the mean losses of each source; `None` if the batch has no example of the
    /// source.
    ///
    /// # Errors
    /// Another number of sources, a loss that is not finite.
    fn update(&mut self, losses: &[Option<PairedLoss>]) -> Result<()>;

    /// What it has learned so far, to resume a run.
    fn state(&self) -> State {
        State::default()
    }

    /// Restores what [`SourceWeighter::state`] returned.
    ///
    /// # Errors
    /// If it comes from another weighter.
    fn restore(&mut self, _state: State) -> Result<()> {
        Ok(())
    }
}

impl<W: SampleWeighter + ?Sized> SampleWeighter for Box<W> {
    fn weigh(&mut self, losses: &[f64]) -> Result<Vec<f64>> {
        (**self).weigh(losses)
    }

    fn state(&self) -> State {
        (**self).state()
    }

    fn restore(&mut self, state: State) -> Result<()> {
        (**self).restore(state)
    }
}

impl<W: SourceWeighter + ?Sized> SourceWeighter for Box<W> {
    fn weights(&self) -> &[f64] {
        (**self).weights()
    }

    fn update(&mut self, losses: &[Option<PairedLoss>]) -> Result<()> {
        (**self).update(losses)
    }

    fn state(&self) -> State {
        (**self).state()
    }

    fn restore(&mut self, state: State) -> Result<()> {
        (**self).restore(state)
    }
}

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
