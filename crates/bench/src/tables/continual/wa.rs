//! The table of weight aligning (Zhao et al., arXiv 1911.07053): replay of exemplars with and without distillation and
//! aligning; lengths of the head's vectors, share of answers that are classes of the last task.

use regrow_continual::WaConfig;
use regrow_continual::stream::Scenario;
use regrow_sparse_core::Result;

use super::rows::NEWEST;
use super::{Args, Comparison, Method};
use crate::harness::info::Info;
use crate::harness::record::Measure;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "wa",
    summary: "Weight aligning (arXiv 1911.07053): a head's new and old classes made equally long",
    example: "bench wa --memory 100 --seeds 3",
    paper: include_str!("../../../published/wa.toml"),
    measure: Measure::Accuracy,
};

/// A row of the table.
fn method(name: &str, change: fn(WaConfig) -> WaConfig) -> Method {
    Method::new(name, move |at| change(WaConfig::new(at.memory())).init())
}

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let comparison = Comparison {
        info: &INFO,
        methods: vec![
            method("replay", |config| config.with_distillation(false).with_alignment(false)),
            method("replay + KD", |config| config.with_alignment(false)),
            method("replay + WA", |config| config.with_distillation(false)),
            method("replay + KD + WA", |config| config),
            method("replay + KD + WA, clipped", |config| config.with_clipped(true)),
        ],
        scenarios: &[Scenario::Class],
        base: "replay",
        drawn: &[],
        columns: &[
            ("|w| old", "length of old classes"),
            ("|w| new, before", "length of new classes"),
            ("gamma", "gamma"),
            ("answers in last task, %", NEWEST),
        ],
    };
    comparison.run(args)
}
