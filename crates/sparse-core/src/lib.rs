//! Masks and everything that many pruning methods share; knows no method by name.
//!
//! | to | look in |
//! | --- | --- |
//! | read a model's prunable weights as matrices | [`weight`] |
//! | hold masks, combine them, save and load them | [`Mask`], [`MaskSet`] |
//! | turn scores into masks | [`score`], [`sensitivity`], [`pattern`], [`budget`], [`schedule`], [`exchange`] |
//! | put masks into a Burn model and train under them | [`masked`], [`optimizer`], [`sparsify`] |
//! | train, resume, evaluate, copy | [`train`], [`lr`], [`classifier`], [`copy`](mod@copy) |
//! | prune a model larger than memory, block by block | [`blockwise`], [`hidden`] |
//! | prune a layer of a model by the inputs it has seen | [`layer`] |
//! | know what a model's layers see | [`survey`] |
//! | read and write safetensors | [`checkpoint`], [`atomic`] |
//! | store sparse matrices in less | [`storage`] |
//! | multiply by them in less time | [`compute`] |
//! | show what is sparse | [`report`] |
//! | choose devices, lend them to other machines, give them work | [`device`], `remote` (a feature), [`crew`] |
//! | know which layers share a width, which blocks can be switched off | [`layout`], [`gates`] |
//!
//! A mask from weights of one's own choice, put on a stock layer:
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn::tensor::Device;
//! use regrow_sparse_core::masked::{Base, Gradient, apply_masks};
//! use regrow_sparse_core::{Mask, MaskSet};
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

pub mod atomic;
pub mod blockwise;
pub mod budget;
#[cfg(feature = "train")]
pub mod burn_train;
pub mod checkpoint;
pub mod classifier;
pub mod compute;
pub mod copy;
pub mod crew;
pub mod device;
mod error;
pub mod exchange;
pub mod gates;
pub mod hidden;
pub mod layer;
pub mod layout;
mod level;
pub mod lr;
mod mask;
pub mod masked;
pub mod optimizer;
pub mod parallel;
pub mod pattern;
mod placed;
pub mod registry;
#[cfg(feature = "remote")]
pub mod remote;
pub mod report;
pub mod schedule;
pub mod score;
pub mod select;
pub mod sensitivity;
pub mod sparsify;
pub mod state;
pub mod storage;
pub mod survey;
pub mod train;
pub mod weight;
mod words;

pub use budget::Budget;
pub use classifier::Classifier;
pub use error::{Error, Result};
pub use mask::{Mask, MaskSet};
pub use pattern::Pattern;
pub use schedule::Schedule;
