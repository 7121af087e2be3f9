//! Continual learning and reweighting for Burn models, one file per method.
//!
//! - tasks: [`TaskStream`], its [`Scenario`] and [`LogitScope`]; memory: [`ReplayBuffer`], [`buffer::herding()`]
//! - the loop: [`learn()`], which trains a stream with a [`Strategy`] and fills an [`AccuracyMatrix`]
//! - bounds: [`FineTune`], [`Joint`], [`Separate`]; springs: [`Ewc`], [`Si`]; distillation: [`Lwf`]; replay: [`Er`],
//!   [`DerPp`], [`Gem`], [`AGem`], [`ICarl`], [`Wa`]; weights shared out: [`PackNet`], [`Dst`];
//!   a frozen anchor: [`Clr`]
//! - [`reweight`]: weights of examples and of sources from their losses, on the host
//!
//! A strategy is what differs from training each task as it comes; see `examples/my_strategy.rs`.
//!
//! What a stream leaves behind, and the numbers made of it:
//!
//! ```
//! use regrow_continual::AccuracyMatrix;
//!
//! // A row for each task trained, a column for each task tested.
//! let matrix = AccuracyMatrix::new([vec![0.9, 0.1], vec![0.6, 0.8]])?;
//! assert!(matrix.forgetting().is_some_and(|f| (f - 0.3).abs() < 1e-9));
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

pub mod agem;
pub mod buffer;
pub mod clr;
pub mod derpp;
pub mod distill;
pub mod dst;
pub mod er;
pub mod ewc;
mod exemplars;
pub mod finetune;
pub mod gem;
pub mod icarl;
mod isolation;
pub mod joint;
pub mod learn;
pub mod lwf;
#[cfg(test)]
mod mammoth;
mod memory;
pub mod metrics;
pub mod packnet;
pub mod params;
pub mod reweight;
pub mod separate;
pub mod si;
pub mod strategy;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod wa;

pub use agem::AGem;
pub use buffer::ReplayBuffer;
pub use clr::Clr;
pub use derpp::DerPp;
pub use dst::Dst;
pub use er::Er;
pub use ewc::Ewc;
pub use finetune::FineTune;
pub use gem::Gem;
pub use icarl::ICarl;
pub use joint::Joint;
pub use learn::{Learned, Protocol, learn};
pub use lwf::Lwf;
pub use metrics::AccuracyMatrix;
pub use packnet::PackNet;
pub use separate::Separate;
pub use si::Si;
pub use strategy::{Stage, Strategy};
pub use stream::{Example, LogitScope, Scenario, TaskStream};
pub use wa::Wa;
