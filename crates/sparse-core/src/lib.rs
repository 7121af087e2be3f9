//! Masks and everything that many pruning methods share; contains no specific method.
//!
//! | module | contents |
//! | --- | --- |
//! | [`mask`] | masks, patterns, top-k selection, budgets, schedules |
//! | [`model`] | masks in a Burn model: weights, scores, optimizers, pruners for a training loop |
//! | [`layerwise`] | block-wise pruning, calibration statistics, hidden states, layer solvers |
//! | [`registry`] | a method's description: name, paper, parameters, constructor |
//! | [`state`] | what a method has learned, by name, to resume a run |
//! | [`seed`] | seeds derived from seeds |
//!
//! A mask from your own choice of weights, applied to a standard layer:
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn::tensor::Device;
//! use regrow_sparse_core::prelude::*;
//!
//! let layer = LinearConfig::new(3, 2).init(&Device::default());
//! // As PyTorch has it: [d_out, d_in].
//! let keep = [true, false, true, false, true, false];
//! let masks: MaskSet = [("weight".to_string(), Mask::from_fn([2, 3], |i| keep[i]))].into_iter().collect();
//! let layer = apply_masks(layer, &masks, Gradient::Masked, Base::Zeroed)?;
//! let zeros = layer.weight.val().into_data().iter::<f32>().filter(|w| *w == 0.0).count();
//! assert_eq!(zeros, 3);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

mod error;
pub mod layerwise;
pub mod mask;
pub mod model;
pub mod registry;
pub mod seed;
pub mod state;

pub use error::{Error, Result};
pub use mask::{Allocate, Budget, Mask, MaskSet, Pattern, Schedule};

/// What most programs need: `use regrow_sparse_core::prelude::*`.
pub mod prelude {
    pub use crate::mask::{Budget, Mask, MaskSet, Pattern, Schedule};
    pub use crate::model::masked::{Base, Gradient, apply_masks, masks};
    pub use crate::model::recipe::Recipe;
    pub use crate::model::score::Score;
    pub use crate::model::sparsify::{Pruner, PruningOptimizer};
    pub use crate::model::weight::{Select, Weight, weights};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
