//! The table of weight aligning (Zhao et al., arXiv 1911.07053): replay of exemplars with and without
//! distillation and aligning; lengths of the head's vectors, answers that name the last task's classes.

use regrow_continual::WaConfig;
use regrow_continual::stream::Scenario;
use regrow_sparse_core::Result;

use super::rows::NEWEST;
use super::{Args, Comparison, Method};
use crate::claim::Claim;

const CLAIMS: [Claim; 3] = [
    Claim { text: "aligning helps replay", better: "replay + WA, class", than: "replay, class" },
    Claim {
        text: "aligning helps replay with distillation",
        better: "replay + KD + WA, class",
        than: "replay + KD, class",
    },
    Claim { text: "distillation helps aligned replay", better: "replay + KD + WA, class", than: "replay + WA, class" },
];

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
        table: "wa",
        paper: include_str!("../../../../papers/wa/paper.toml"),
        methods: vec![
            method("replay", |config| config.with_distillation(false).with_alignment(false)),
            method("replay + KD", |config| config.with_alignment(false)),
            method("replay + WA", |config| config.with_distillation(false)),
            method("replay + KD + WA", |config| config),
            method("replay + KD + WA, clipped", |config| config.with_clipped(true)),
        ],
        scenarios: &[Scenario::Class],
        base: "replay",
        claims: &CLAIMS,
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
