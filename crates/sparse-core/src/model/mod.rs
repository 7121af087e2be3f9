//! Masks in a Burn model: its weights, their scores, optimizers that respect zeros, pruners for a training loop.
//!
//! | to | look in |
//! | --- | --- |
//! | read a model's prunable weights as matrices | [`weight`] |
//! | provide what scores need besides weights | [`evidence`], [`probe`] |
//! | put masks into a model | [`masked`] |
//! | keep pruned weights, their momentum and moments at zero | [`optimizer`] |
//! | score weights, make masks of scores | [`score`], [`recipe`], [`gradients`] |
//! | copy a model so that nothing is shared | [`deep_copy`] |
//! | drop weights and grow others | [`drop_and_grow`] |
//! | prune while training | [`sparsify`] |
//! | compute a model's layers in another way | [`executor`] |
//! | know which layers share a width | [`channel_graph`] |
//! | show what is sparse | [`report`] |

pub mod channel_graph;
pub mod deep_copy;
pub mod drop_and_grow;
pub mod evidence;
pub mod executor;
pub mod gradients;
pub mod masked;
pub(crate) mod on_device;
pub mod optimizer;
pub mod probe;
mod prune;
pub mod recipe;
pub mod report;
pub mod score;
pub mod sparsify;
pub mod weight;
