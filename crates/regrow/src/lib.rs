#![doc = include_str!("../README.md")]

pub use regrow_checkpoint as checkpoint;
#[cfg(feature = "continual")]
pub use regrow_continual as continual;
pub use regrow_device as device;
#[cfg(feature = "inference")]
pub use regrow_inference as inference;
#[cfg(feature = "lm")]
pub use regrow_lm as lm;
#[cfg(feature = "merging")]
pub use regrow_merging as merging;
#[cfg(feature = "pruners")]
pub use regrow_pruners as pruners;
#[cfg(feature = "reweighting")]
pub use regrow_reweighting as reweighting;
pub use regrow_sparse_core as sparse_core;
pub use regrow_train as train;
#[cfg(feature = "zoo")]
pub use regrow_zoo as zoo;

pub use regrow_sparse_core::{Error, Result};

/// What most programs need: `use regrow::prelude::*`.
pub mod prelude {
    pub use regrow_checkpoint::Checkpoint;
    pub use regrow_sparse_core::prelude::*;
}
