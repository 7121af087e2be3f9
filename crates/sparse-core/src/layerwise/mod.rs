//! Layer-wise pruning from the inputs that reach a layer: of a model on disk, one block in memory at a time, or of a
//! model in memory.
//!
//! | to | look in |
//! | --- | --- |
//! | write a method for one layer | [`LayerSolver`], [`InputObserver`] |
//! | iterate over the blocks of a model and prune them | [`Walk`] |
//! | get statistics of the inputs of a model's layers | [`Calibration`], [`InputStatistic`] |
//! | store hidden states in memory or on disk | [`HiddenStates`] |
//! | prune one layer of a Burn model | [`prune_layer()`] |

mod block_model;
mod calibration;
mod hidden_states;
mod prune_layer;
mod solver;
mod statistics;
mod walk;

pub use block_model::*;
pub use calibration::*;
pub use hidden_states::*;
pub use prune_layer::*;
pub use solver::*;
pub use statistics::*;
pub use walk::*;
