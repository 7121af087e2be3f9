//! Merging methods, one file per method.
//!
//! - of tensors by name, one at a time, of models of any size: [`Linear`], [`Slerp`], [`TaskArithmetic`],
//!   [`Ties`], [`Dare`], [`Breadcrumbs`], [`Della`], [`ModelStock`], [`Fisher`], [`RegMean`], [`SparseSoup`]; [`ALL`] lists
//!   them by name, [`stream`] takes them through checkpoints, [`masks`] keeps zeros, [`search`] chooses
//!   coefficients, [`information`] gathers what Fisher merging wants to know
//! - of low rank: [`LowRank`], matrices as factors; [`Rmm`], merged reversibly
//! - of models that arrive one after another: [`Opcm`]; [`WHOLE`] names these two kinds
//! - of Burn models: [`average()`], which soups share and which refuses models with different masks;
//!   [`Soup`]: uniform and greedy soups; [`Sms`]: Sparse Model Soups
//!
//! Tensors from anywhere:
//!
//! ```
//! use regrow_merging::{Operand, Operands, TensorMerge, Ties};
//!
//! let base = [0.0; 4];
//! let models = [Operand::new("a", &[3.0, -1.0, 0.5, 2.0]), Operand::new("b", &[-1.0, -2.0, 0.2, 4.0])];
//! let ties = Ties::new(vec![1.0, 1.0], vec![0.5, 0.5], 1.0)?;
//! assert_eq!(ties.merge(&Operands::new("weight", &[2, 2], Some(&base), &models)?)?, [3.0, -2.0, 0.0, 3.0]);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```
//!
//! Burn models:
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn::tensor::Device;
//! use regrow_merging::{average, equal_weights};
//!
//! let device = Device::default();
//! let models = [LinearConfig::new(4, 2).init(&device), LinearConfig::new(4, 2).init(&device)];
//! let soup = average(&models, &equal_weights(2))?;
//! # let _ = soup;
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

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
mod task_vectors;
pub mod tensors;
#[cfg(test)]
mod testing;
pub mod ties;

pub use average::{average, equal_weights};
pub use breadcrumbs::Breadcrumbs;
pub use dare::{Dare, Rescale};
pub use della::Della;
pub use fisher::Fisher;
pub use linear::Linear;
pub use low_rank::LowRank;
pub use masks::Masks;
pub use model_stock::ModelStock;
pub use opcm::Opcm;
pub use registry::{ALL, About, Base, Entry, WHOLE, find};
pub use regmean::RegMean;
pub use rmm::Rmm;
pub use slerp::Slerp;
pub use sms::Sms;
pub use soup::Soup;
pub use sparse_soup::SparseSoup;
pub use stream::Merge;
pub use task_arithmetic::TaskArithmetic;
pub use tensors::{Operand, Operands, Parameters, TensorMerge, Value};
pub use ties::Ties;
