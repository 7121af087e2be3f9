//! The table of DST-CL (Yıldırım et al., arXiv 2308.14831): initialization by growth by sparsity.

use regrow_continual::Dst;
use regrow_continual::dst::Growth;
use regrow_continual::stream::Scenario;
use regrow_sparse_core::{Budget, Result};

use super::{Args, At, Comparison, Method};
use crate::harness::info::Info;
use crate::harness::record::Measure;

/// Steps between two moves of the masks.
const EVERY: usize = 20;

/// What the registry says of the table.
pub const INFO: Info = Info {
    name: "dst-cl",
    summary: "DST-CL (arXiv 2308.14831): sparse masks of tasks, initialization by growth by sparsity",
    example: "bench dst-cl --epochs 20 --seeds 3",
    paper: include_str!("../../../published/dst-cl.toml"),
    measure: Measure::Accuracy,
};

/// Runs the table.
///
/// # Errors
/// As [`Comparison::run`].
pub fn run(args: &Args) -> Result<()> {
    let mut methods = Vec::new();
    for percent in [80u32, 90, 95] {
        for (init, budget) in [("ERK", Budget::Erk), ("uniform", Budget::Uniform)] {
            for (grown, growth) in
                [("random", Growth::Random), ("gradient", Growth::Gradient), ("momentum", Growth::Momentum)]
            {
                let budget = budget.clone();
                let sparsity = f64::from(percent) / 100.0;
                let make = move |_: &At<'_>| Dst::new(sparsity, budget.clone(), growth, EVERY);
                methods.push(Method::new(&format!("{init}, {grown}, {percent} %"), make));
            }
        }
    }
    let comparison = Comparison {
        info: &INFO,
        methods,
        scenarios: &[Scenario::Task],
        base: "ERK, random, 80 %",
        drawn: &[],
        columns: &[("weights used, %", "weights used")],
    };
    comparison.run(args)
}
