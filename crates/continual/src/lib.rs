//! Continual learning for Burn models, one file per strategy.
//!
//! - tasks: [`TaskStream`], its [`Scenario`] and [`LogitScope`]; memory: [`ReplayBuffer`], [`buffer::herding()`]
//! - the loop: [`learn()`], which trains a stream with a [`Strategy`] and fills an [`AccuracyMatrix`]
//! - bounds: [`FineTune`], [`Joint`], [`Separate`]; regularization: [`Ewc`], [`Si`]; distillation: [`Lwf`]; replay:
//!   [`Er`], [`DerPp`], [`Gem`], [`AGem`], [`ICarl`], [`Wa`]; parameter isolation: [`PackNet`], [`Dst`]; a frozen
//!   anchor: [`Clr`]
//! - [`registry`]: all of them by name, with their papers, scenarios and parameters
//!
//! A strategy is a difference to training each task in turn; `examples/own_strategy.rs` adds one.
//!
//! The results of a stream, and the metrics computed from them:
//!
//! ```
//! use regrow_continual::AccuracyMatrix;
//!
//! // A row for each task trained, a column for each task tested.
//! let matrix = AccuracyMatrix::new([vec![0.9, 0.1], vec![0.6, 0.8]])?;
//! assert!(matrix.forgetting().is_some_and(|f| (f - 0.3).abs() < 1e-9));
//! # Ok::<(), regrow_continual::Error>(())
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
pub mod registry;
pub mod separate;
pub mod si;
pub mod strategy;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod wa;

pub use agem::{AGem, AGemConfig};
pub use buffer::{BufferPolicy, ReplayBuffer};
pub use clr::{Clr, KernelVariant, ReprogramConfig, Reprogrammed};
pub use derpp::{DerPp, DerPpConfig};
pub use dst::{Dst, DstConfig, Growth, MaskInitialization};
pub use er::{Er, ErConfig};
pub use ewc::{Ewc, EwcConfig, FisherEstimate};
pub use finetune::FineTune;
pub use gem::{Gem, GemConfig};
pub use icarl::{ICarl, ICarlConfig};
pub use joint::Joint;
pub use learn::{Learned, Progress, Protocol, learn};
pub use lwf::{Lwf, LwfConfig};
pub use metrics::AccuracyMatrix;
pub use packnet::{PackNet, PackNetConfig};
pub use separate::Separate;
pub use si::{Si, SiConfig};
pub use strategy::{Strategy, TaskContext};
pub use stream::{Example, LogitScope, Scenario, TaskStream};
pub use wa::{Wa, WaConfig};

// What signatures here use.
pub use nalgebra;
pub use regrow_sparse_core::state::State;
pub use regrow_sparse_core::{Error, Result};
pub use regrow_train::classifier::{Classifier, ConvHooks, Examples, Headed};
pub use regrow_train::lr::LrSchedule;
pub use regrow_train::{Checkpointing, StepContext};

/// Everything that a program for continual learning needs.
pub mod prelude {
    pub use regrow_sparse_core::registry::{Entry, MethodInfo, Params, find};

    pub use crate::params::ParameterVector;
    pub use crate::{
        AGem, AGemConfig, AccuracyMatrix, BufferPolicy, Checkpointing, Classifier, Clr, ConvHooks, DerPp, DerPpConfig,
        Dst, DstConfig, Er, ErConfig, Error, Ewc, EwcConfig, Example, Examples, FineTune, FisherEstimate, Gem,
        GemConfig, Growth, Headed, ICarl, ICarlConfig, Joint, KernelVariant, Learned, LogitScope, LrSchedule, Lwf,
        LwfConfig, MaskInitialization, PackNet, PackNetConfig, Protocol, ReplayBuffer, ReprogramConfig, Reprogrammed,
        Result, Scenario, Separate, Si, SiConfig, State, StepContext, Strategy, TaskContext, TaskStream, Wa, WaConfig,
        learn,
    };
}

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
