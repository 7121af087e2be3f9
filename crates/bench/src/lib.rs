//! Tables of papers on pruning and merging, to run on your own machine.
//!
//! [`tables`] holds the papers' tables, [`harness`] what they share. The binary `bench` is the command line. A table of
//! one's own is a [`harness::table::Table`]; a method of one's own in a table of ours is a small program on this library
//! (`examples/my_pruner.rs` and `my_strategy.rs` in the repository).

pub mod harness;
pub mod tables;
