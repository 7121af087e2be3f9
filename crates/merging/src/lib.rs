//! Merging methods, one file per method.
//!
//! - [`average()`]: the weighted average that soups share; refuses models with different masks
//! - [`Soup`]: uniform and greedy soups
//! - [`Sms`]: Sparse Model Soups
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
pub mod sms;
pub mod soup;

pub use average::{average, equal_weights};
pub use sms::Sms;
pub use soup::Soup;
