#![doc = include_str!("../README.md")]
//!
//! # Where things are
//!
//! - [`registry`]: every method by name, with its parameters; a new method is a file and an entry there
//! - methods that merge tensor by tensor: [`WeightedAverage`], [`Slerp`], [`TaskArithmetic`], [`Ties`], [`Dare`],
//!   [`Breadcrumbs`], [`Della`], [`ModelStock`], [`FisherMerge`], [`RegMean`], [`SparseSoup`]
//! - [`Opcm`]: models merged one after another; [`Rmm`]: low-rank models merged reversibly, as [`LowRank`] factors
//! - for Burn models: [`average()`] rejects models with different masks; [`Soup`]: uniform and greedy soups; [`Sms`]:
//!   Sparse Model Soups
//! - [`stream`] merges checkpoints of any size, [`masks`] keeps zeros, [`search`] chooses coefficients,
//!   [`information`] computes Fisher information

pub mod average;
pub mod breadcrumbs;
pub mod dare;
pub mod della;
mod draw;
pub mod fisher;
pub mod information;
mod jacobi;
pub mod linear;
pub mod low_rank;
pub mod masks;
pub mod model_stock;
pub mod opcm;
pub mod params;
pub mod prelude;
pub mod registry;
pub mod regmean;
pub mod rmm;
pub mod search;
pub mod slerp;
pub mod sms;
pub mod soup;
pub mod sparse_soup;
pub mod stream;
mod sums;
pub mod task_arithmetic;
pub mod task_vectors;
pub mod tensors;
#[cfg(test)]
mod testing;
pub mod ties;
pub mod whole;

pub use average::{average, equal_weights};
pub use breadcrumbs::{Breadcrumbs, BreadcrumbsConfig};
pub use dare::{Dare, DareConfig};
pub use della::{Della, DellaConfig};
pub use fisher::{FisherMerge, FisherMergeConfig};
pub use linear::{WeightedAverage, WeightedAverageConfig};
pub use low_rank::LowRank;
pub use masks::Masks;
pub use model_stock::{ModelStock, ModelStockConfig};
pub use opcm::{Opcm, OpcmConfig};
pub use params::{MergeParams, PerModel};
pub use registry::{ALL, BaseRole, MergeEntry, MergeForm, find, methods, tensor_methods};
pub use regmean::{RegMean, RegMeanConfig};
pub use rmm::{Rmm, RmmConfig};
pub use slerp::{Slerp, SlerpConfig};
pub use sms::{Sms, SmsConfig};
pub use soup::Soup;
pub use sparse_soup::{SparseSoup, SparseSoupConfig};
pub use stream::{Merge, ModelInput};
pub use task_arithmetic::{TaskArithmetic, TaskArithmeticConfig};
pub use task_vectors::{Consensus, Rescale, Sparse};
pub use tensors::{Operand, Operands, TensorMerge};
pub use ties::{Ties, TiesConfig};
pub use whole::{ModelMerge, WholeModels};

/// Types of other crates in signatures of this crate.
pub use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
pub use regrow_sparse_core::{Error, MaskSet, Result};
