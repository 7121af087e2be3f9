//! Masks and everything that many pruning methods share; knows no method by name.
pub mod atomic;
pub mod budget;
pub mod checkpoint;
pub mod classifier;
mod error;
pub mod lr;
mod mask;
pub mod masked;
pub mod optimizer;
pub mod parallel;
pub mod pattern;
pub mod report;
pub mod schedule;
pub mod score;
pub mod select;
pub mod sparsify;
pub mod train;
pub mod weight;

pub use budget::Budget;
pub use classifier::Classifier;
pub use error::{Error, Result};
pub use mask::{Mask, MaskSet};
pub use pattern::Pattern;
pub use schedule::Schedule;
