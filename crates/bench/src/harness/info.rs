//! A table's name and subject.

use crate::harness::record::Measure;

/// A table's name, summary, example and published figures.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The name of the command and of the files.
    pub name: &'static str,
    /// What it compares, in one line, with its paper.
    pub summary: &'static str,
    /// Command lines, such as `bench rd --seeds 3`, one per line.
    pub example: &'static str,
    /// The published figures: the text of `published/<name>.toml`.
    pub paper: &'static str,
    /// What its rows measure.
    pub measure: Measure,
}
