//! Tables of papers on pruning and merging, run on one's own machine.
//!
//! | to | look in |
//! | --- | --- |
//! | run a table | [`pruning`], [`bip`], [`continual`], [`granet`], [`llm`], [`merge`], [`opcm`], [`polarization`], [`rd`], [`reweighting`], [`rmm`], [`sms`] |
//! | train and evaluate the networks of a table | [`lab`], [`setting`], [`tasks`] |
//! | keep what a table has measured, judge claims by it | [`record`], [`cells`], [`claim`] |
//! | show it | [`show`], [`picture`], [`paper`]; all together [`report`] |
//!
//! The binary `bench` is its command line; a table with a method of one's own in it is a small
//! program on this library (see `examples/my_pruner.rs`).

pub mod bip;
pub mod cells;
pub mod claim;
pub mod continual;
pub mod granet;
pub mod lab;
pub mod llm;
pub mod memory;
pub mod merge;
pub mod opcm;
pub mod paper;
pub mod picture;
pub mod polarization;
pub mod pruning;
pub mod rd;
pub mod record;
pub mod report;
pub mod reweighting;
pub mod rmm;
pub mod setting;
pub mod show;
pub mod slurm;
pub mod sms;
pub mod tasks;
