//! Tables of papers on pruning and merging, to run on your own machine.
//!
//! [`tables`] contains the papers' tables, [`harness`] what they share. The binary `bench` is the command line. A
//! custom table is a [`harness::table::Table`]; a custom method in one of our tables is a small program that uses this
//! library (`examples/examples/my_pruner.rs` and `my_strategy.rs` in the repository).

pub mod harness;
pub mod tables;
