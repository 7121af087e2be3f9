//! Masks, the patterns and budgets that shape them, and sparsity schedules.
//!
//! | to | look in |
//! | --- | --- |
//! | store masks, combine them, save and load them | [`Mask`], [`MaskSet`] |
//! | restrict where zeros may be | [`pattern`] |
//! | distribute a total over layers | [`budget`] |
//! | change sparsity over time | [`schedule`] |
//! | find the largest of many scores | [`top_k`] |
//! | find out which instructions inner loops use | [`simd`] |

pub(crate) mod bitpack;
pub mod budget;
mod mask_set;
pub mod pattern;
pub mod schedule;
pub(crate) mod shape;
pub mod simd;
pub mod top_k;

pub use budget::{Allocate, Budget};
pub use mask_set::{Mask, MaskSet};
pub use pattern::Pattern;
pub use schedule::Schedule;
pub use shape::matrix_dims;
